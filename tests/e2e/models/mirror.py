#!/usr/bin/env python3
"""mirror.py ROOT PORTFILE LOG: a hub on loopback, with the layout of huggingface.co, and a second server that large files
are redirected to. ROOT/OWNER/REPO/FILE are the repositories. The owner's name says how it behaves:

  good     as it should: pages of 3 files, ranges, redirects to the other server
  broken   every answer ends after 200,000 bytes
  norange  ignores ranges, and breaks the first answer
  wrong    one byte of each large file differs
  long     sends more than it lists
  loop     redirects to itself
  private  401
  dead     ends every answer after 0 bytes
"""
import hashlib, http.server, json, os, re, sys, threading, urllib.parse

ROOT, PORTFILE, LOG = sys.argv[1:4]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_FROM = 2000  # bytes
seen, other_port = {}, 0


def listing(repo):
    out = []
    for top, _, files in os.walk(repo):
        for f in sorted(files):
            path = os.path.join(top, f)
            data = open(path, "rb").read()
            one = {"type": "file", "path": os.path.relpath(path, repo), "size": len(data),
                   "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            if len(data) >= LFS_FROM:
                one["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            out.append(one)
    return sorted(out, key=lambda x: x["path"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def give(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for k, v in headers:
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def page(self, repo, owner, name, query):
        files = listing(repo)
        start = int(urllib.parse.parse_qs(query).get("cursor", ["0"])[0])
        headers = [("Content-Type", "application/json")]
        if start + 3 < len(files):
            port = self.server.server_address[1]
            url = f"http://127.0.0.1:{port}/api/models/{owner}/{name}/tree/{COMMIT}?recursive=true&cursor={start + 3}"
            headers.append(("Link", f'<{url}>; rel="next"'))
        self.give(200, json.dumps(files[start:start + 3]).encode(), headers)

    def file(self, owner, path, is_other):
        data = open(path, "rb").read()
        times = seen[path] = seen.get(path, 0) + 1
        large = len(data) >= LFS_FROM
        if owner == "loop" and large:
            return self.give(302, headers=[("Location", self.path)])
        if owner == "good" and large and not is_other:
            return self.give(302, headers=[("Location", f"http://127.0.0.1:{other_port}{self.path}")])
        if owner == "wrong" and large:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if owner == "long" and large:
            data += b"more"
        status, start, headers = 200, 0, []
        ask = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        if ask and owner != "norange":
            start = int(ask[1])
            status, headers = 206, [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")]
        body, whole = data[start:], len(data) - start
        cut = (owner == "broken" and len(body) > 200000 and 200000) or (owner == "norange" and times == 1 and whole // 2)
        if owner == "dead" and large:
            cut = 0
            body = b""
        if cut:
            body = body[:cut]
        self.give(status, body, headers, whole)
        if len(body) < whole:
            self.close_connection = True

    def do_GET(self):
        is_other = self.server.server_address[1] == other_port
        with open(LOG, "a") as f:
            f.write(f"{'other' if is_other else 'hub'} {self.path} range={self.headers.get('Range')} "
                    f"auth={self.headers.get('Authorization')}\n")
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(p) for p in url.path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        if api:
            parts = parts[2:]
        if len(parts) < 4 or not os.path.isdir(os.path.join(ROOT, *parts[:2])):
            return self.give(404, b"not here")
        owner, name, verb, rev = parts[:4]
        repo = os.path.join(ROOT, owner, name)
        if owner == "private" and self.headers.get("Authorization") != "Bearer open-sesame":
            return self.give(401, b"who are you")
        if api and verb == "revision":
            if rev not in ("main", "v1", COMMIT):
                return self.give(404, b"no such revision")
            body = {"sha": COMMIT, "cardData": {"license": "apache-2.0"}, "gated": False}
            return self.give(200, json.dumps(body).encode())
        if api and verb == "tree":
            return self.page(repo, owner, name, url.query)
        path = os.path.join(repo, *parts[4:])
        if verb == "resolve" and rev == COMMIT and os.path.isfile(path):
            return self.file(owner, path, is_other)
        self.give(404, b"not here")


hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
other_port = other.server_address[1]
threading.Thread(target=other.serve_forever, daemon=True).start()
with open(PORTFILE + ".new", "w") as f:
    f.write(str(hub.server_address[1]))
os.rename(PORTFILE + ".new", PORTFILE)
hub.serve_forever()
