"""inventory.py BUILD MODEL REQUESTS: what left, counted twice.

A provider of the tests counts the requests and bytes that reach it; polder's inventory counts what its ledger says. Both
must agree after REQUESTS mixed ones: every dialect, streams and not, refused by the policy, redacted, failing at the
provider, cut, closed early, too slow, hung up by the client, with several attempts. A listener that nobody declared must
see nothing, whatever a request names, wherever a provider points, and whatever proxies the environment has.

What breaks it: a byte that leaves by another way than the pipeline, an attempt that is not noted, a body counted twice or
not at all, a redirect that is followed, a change of a fact that no inventory shows.
"""
import http.client
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

build, model, total = sys.argv[1], os.path.realpath(sys.argv[2]), int(sys.argv[3])
polder = build + "/src/cli/polder"
mock_program = build + "/tests/mock/mock_provider"
passed = failed = 0


def check(name, good, why=""):
    global passed, failed
    if good:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL " + name + (": " + str(why)[:600] if why != "" else ""))


class Listener:
    """Somebody that nobody declared: counts who comes, answers as a provider would."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        self.seen = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            c, _ = self.socket.accept()
            self.seen.append(c)
            c.settimeout(1)
            try:
                self.seen[-1] = c.recv(2000)
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            except OSError:
                pass
            c.close()


class Redirector(http.server.BaseHTTPRequestHandler):
    """A declared provider that points elsewhere."""
    where = ""
    asked = 0
    sent = 0

    def do_POST(self):
        Redirector.asked += 1
        Redirector.sent += len(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(random.choice([301, 302, 303, 307, 308]))
        self.send_header("Location", Redirector.where)
        self.send_header("Refresh", "0; url=" + Redirector.where)
        self.send_header("Alt-Svc", 'h2="127.0.0.1:%s"; ma=60' % Redirector.where.split(":")[2].split("/")[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


listener = Listener()
redirector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirector)
Redirector.where = "http://127.0.0.1:%d/v1/chat/completions" % listener.port
threading.Thread(target=redirector.serve_forever, daemon=True).start()

work = tempfile.mkdtemp(prefix="polder-inventory-")
island = work + "/i"
children = []


def cli(*args, code=0, text=None):
    r = subprocess.run([polder, "--island", island] + list(args), capture_output=True, text=True, input=text, timeout=300)
    if code is not None and r.returncode != code:
        check("polder " + " ".join(args), False, "status %d: %s%s" % (r.returncode, r.stdout, r.stderr))
    return r.stdout


def inventory(*args):
    return json.loads(cli("--json", "inventory", *args))


def mock_call(method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", mock_port, timeout=30)
    c.request(method, path, body)
    return c.getresponse().read().decode()


# ---- the island -------------------------------------------------------------------------------------------------

mock = subprocess.Popen([mock_program, "0"], stdout=subprocess.PIPE, text=True)
children.append(mock)
mock_port = int(mock.stdout.readline().split()[1])

POLICY = """allow public, internal to on-prem
allow public to provider acme
allow internal to provider acme after redact personal
allow public, internal to provider turn
allow confidential, secret to on-prem
treat unlabelled as internal
raise to confidential when found iban
"""

cli("init", island, "--name", "test.example/island")
yaml = open(island + "/island.yaml").read()
for was, now in (("auth: true", "auth: false"), ("breaker_failures: 5", "breaker_failures: 1000"),
                 ("first_byte_timeout_ms: 60000", "first_byte_timeout_ms: 400"),
                 ("idle_timeout_ms: 60000", "idle_timeout_ms: 400"), ("attempts: 4", "attempts: 2")):
    check("island.yaml has " + was, was in yaml)
    yaml = yaml.replace(was, now)
open(island + "/island.yaml", "w").write(yaml)
open(work + "/policy", "w").write(POLICY)
cli("model", "add", model, "--name", "tiny")
cli("provider", "add", "acme", "--driver", "openai", "--url", "http://127.0.0.1:%d/v1" % mock_port, "--operator",
    "Acme SAS", "--country", "FR", "--law", "FR", "--retention-days", "0", "--training", "no", "--exit", "tiny, by hand",
    "--price-in", "1", "--price-out", "2")
cli("provider", "add", "turn", "--driver", "openai", "--url", "http://127.0.0.1:%d/v1" % redirector.server_port,
    "--operator", "Turn Ltd", "--country", "GB", "--law", "US")
cli("model", "route", "big", "acme:work")
cli("policy", "activate", work + "/policy")

elsewhere = "http://127.0.0.1:%d" % listener.port
env = dict(os.environ)
for name in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy"):
    env[name] = env[name.upper()] = elsewhere
env.pop("no_proxy", None)
env.pop("NO_PROXY", None)
env["HOME"] = work
open(work + "/.curlrc", "w").write('proxy = "%s"\n' % elsewhere)
open(work + "/.netrc", "w").write("machine 127.0.0.1 login me password hunter2\n")


def start_server():
    global server, port
    log = open(work + "/up.log", "w")
    server = subprocess.Popen([polder, "--island", island, "up", "--listen", "127.0.0.1:0"], stdout=log, stderr=log, env=env)
    children.append(server)
    for _ in range(300):
        text = open(work + "/up.log").read()
        if "127.0.0.1:" in text and os.path.exists(island + "/control.sock"):
            port = int(text.split("http://127.0.0.1:")[1].split()[0].strip("/,;."))
            return
        time.sleep(0.05)
    raise SystemExit("polder does not start: " + open(work + "/up.log").read())


# ---- requests ---------------------------------------------------------------------------------------------------

TEXTS = ["How are you?", "Tell me of the sea and the land behind the dike.", "Write to anna.smith@example.org, please",
         "Grüße aus Zürich, 東京 und \U0001f30d", "x" * 3000, 'a "quoted" \\ line\nand another']
SECRET = "Pay to DE89 3704 0044 0532 0130 00 today"  # an IBAN: confidential, and so refused


def bodies(text, stream, name="big"):
    message = [{"role": "user", "content": text}]
    return {
        "chat": ("/v1/chat/completions", {"model": name, "messages": message, "stream": stream, "max_tokens": 20}),
        "completions": ("/v1/completions", {"model": name, "prompt": text, "stream": stream, "max_tokens": 20}),
        "responses": ("/v1/responses", {"model": name, "input": text, "stream": stream}),
        "messages": ("/v1/messages", {"model": name, "messages": message, "stream": stream, "max_tokens": 20}),
        "ollama chat": ("/api/chat", {"model": name, "messages": message, "stream": stream}),
        "ollama generate": ("/api/generate", {"model": name, "prompt": text, "stream": stream}),
        "embeddings": ("/v1/embeddings", {"model": name, "input": [text, "second"]}),
    }


DIALECTS = list(bodies("", False))


def ask(path, body, headers=None, hang_up=False, port_=None):
    c = http.client.HTTPConnection("127.0.0.1", port_ or port, timeout=60)
    try:
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
        if hang_up:
            time.sleep(0.05)
            return 0
        r = c.getresponse()
        r.read()
        return r.status
    except (OSError, http.client.HTTPException):
        return -1
    finally:
        c.close()


def mixed(n, behaviour, rng):
    """n requests while the provider behaves so."""
    mock_call("POST", "/mock/script", "work %s\n" % behaviour)
    jobs = []
    with ThreadPoolExecutor(8) as pool:
        for k in range(n):
            kind = rng.random()
            text = SECRET if kind < 0.12 else rng.choice(TEXTS)
            path, body = bodies(text, rng.random() < 0.5)[DIALECTS[k % len(DIALECTS)]]
            headers = {"x-polder-label": "secret"} if 0.12 <= kind < 0.18 else {}
            jobs.append((kind < 0.18, behaviour, pool.submit(ask, path, body, headers, behaviour == "gap-300")))
    return [(refused, how, j.result()) for refused, how, j in jobs]


BEHAVIOURS = ["echo", "echo", "echo", "echo-1", "whole", "tool", "fail-500", "fail-429", "cut-stream", "cut-clean",
              "close-early", "stream-error", "garbage", "gap-300", "slow-700", "hang-mid", "length"]


def run_mix():
    rng = random.Random(20261122)
    share = max(7, total // (len(BEHAVIOURS) + 3))
    results, left = [], total
    for how in BEHAVIOURS:
        n = min(left, share // 3 if how in ("slow-700", "hang-mid") else share)
        results += mixed(n, how, rng)
        left -= n
    return results + mixed(left, "echo", rng)


def settled():
    """Waits until every admitted request has its outcome."""
    for _ in range(200):
        v = inventory()
        r = [w["requests"] for w in v["workloads"] if w["model"] == "big"][0]
        if r["admitted"] == r["completed"] + r["failed"]:
            return v
        time.sleep(0.1)
    return v


def flows(v, name):
    return {f["provider"]: f for w in v["workloads"] if w["model"] == name for f in w["layers"]["inference"]["observed"]}


try:
    start_server()
    first = json.loads(cli("--json", "inventory", "--record"))
    check("nothing has left before", first["left"]["to_outside"]["requests"] == 0 and not first["not_declared"], first)
    check("the name is delegated, and its last inventory is none", first["changed"]["since"] is None and
          [w["layers"]["inference"]["state"] for w in first["workloads"] if w["model"] == "big"] == ["delegated"])

    results = run_mix()
    v = settled()
    stats = json.loads(mock_call("GET", "/mock/stats"))
    big = [w for w in v["workloads"] if w["model"] == "big"][0]
    f = flows(v, "big").get("acme", {})
    outside = v["left"]["to_outside"]
    check("requests that left are those that the provider counted", f.get("requests_left") == stats["requests"],
          (f, stats))
    check("bytes that left are those that the provider counted", f.get("bytes_sent") == stats["body_bytes"], (f, stats))
    check("the totals say the same", (outside["requests"], outside["bytes"]) == (stats["requests"], stats["body_bytes"]),
          outside)
    check("by destination too", [(d["provider"], d["requests_left"], d["bytes_sent"], d["country"])
                                 for d in v["destinations"]] ==
          [("acme", stats["requests"], stats["body_bytes"], "FR")], v["destinations"])
    check("nothing is uncertain, nothing undeclared", not v["not_declared"] and outside["may_have_left_requests"] == 0,
          v["not_declared"])
    refused = [s for r, how, s in results if r and how != "gap-300"]
    hung_up = [s for r, how, s in results if r and how == "gap-300"]
    check("what the policy refuses is refused", refused and all(s == 403 for s in refused), sorted(set(refused)))
    check("and counted", len(refused) <= big["requests"]["refused"] <= len(refused) + len(hung_up),
          (big["requests"], len(refused)))
    check("every other request was admitted", big["requests"]["admitted"] + len(refused) <= total and
          big["requests"]["admitted"] >= 0.75 * total - len(refused), (big["requests"], len(refused), len(results)))
    check("some were answered, some failed, some were tried again", f["answered"] > 0 and big["requests"]["failed"] > 0
          and f["attempts"] > big["requests"]["admitted"], (f, big["requests"]))
    good = [s for r, how, s in results if how == "echo" and not r]
    check("a good provider's answers come through", all(s == 200 for s in good), sorted(set(good)))
    check("tokens and cost are there", f["prompt_tokens"] > 0 and f["completion_tokens"] > 0 and f["cost_eur"] > 0, f)
    check("redacted requests are counted", 0 < f["pseudonymised"] < f["requests_left"], f)
    check("proxies of the environment saw nothing", listener.seen == [], listener.seen[:3])

    # ---- nothing else can be reached ----------------------------------------------------------------------------

    mock_call("POST", "/mock/script", "work echo\n")
    before = json.loads(mock_call("GET", "/mock/stats"))
    named = {k: elsewhere + "/v1" for k in ("url", "base_url", "api_base", "endpoint", "host", "proxy", "upstream")}
    named["provider"] = {"name": "acme", "url": elsewhere}
    named["metadata"] = {"url": elsewhere, "base_url": elsewhere}
    for stream in (False, True):
        for name, (path, body) in bodies("hello", stream).items():
            ask(path, {**body, **named}, {"x-upstream-url": elsewhere, "x-forwarded-host": elsewhere[7:],
                                          "x-polder-route": elsewhere, "x-portkey-custom-host": elsewhere})
            for odd in (elsewhere + "/v1", "acme:" + elsewhere, elsewhere[7:], "openai/" + elsewhere, "acme", "acme:work",
                        "big@" + elsewhere[7:], "../big", "big?url=" + elsewhere):
                s = ask(path, bodies("hello", stream, odd)[name][1])
                if s not in (400, 403, 404):
                    check("%s: the model name %s is refused" % (name, odd), False, s)
    image = {"role": "user", "content": [{"type": "text", "text": "see"},
                                         {"type": "image_url", "image_url": {"url": elsewhere + "/x.png"}}]}
    ask("/v1/chat/completions", {"model": "big", "messages": [image]})
    ask("/v1/responses", {"model": "big", "input": "x", "tools": [{"type": "mcp", "server_url": elsewhere}]})
    ask("/v1/messages", {"model": "big", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}],
                         "mcp_servers": [{"type": "url", "url": elsewhere, "name": "x"}]})
    ask("http://127.0.0.1:%d/v1/chat/completions" % listener.port, bodies("hello", False)["chat"][1])
    cli("model", "pull", "hf:a/b", "--name", "pulled", code=3)
    check("bodies, headers, names and contents with an address reach nobody else", listener.seen == [], listener.seen[:3])

    cli("model", "route", "turning", "turn:x")
    statuses = [ask(*bodies("hello", s, "turning")[d]) for d in DIALECTS for s in (False, True)]
    check("a provider that points elsewhere fails", all(s >= 400 for s in statuses), statuses)
    check("and nobody goes there", Redirector.asked > 0 and listener.seen == [], (Redirector.asked, listener.seen[:3]))
    for url in (elsewhere + "@127.0.0.1:%d/v1" % mock_port, "http://me:x@127.0.0.1/v1", "file:///etc/passwd",
                "ftp://127.0.0.1/x", "gopher://127.0.0.1:%d/x" % listener.port):
        cli("provider", "add", "bad", "--driver", "openai", "--url", url, code=3)
    after = settled()
    stats = json.loads(mock_call("GET", "/mock/stats"))
    seen = flows(after, "big")["acme"], flows(after, "turning")["turn"]
    check("what the declared ones got is in the inventory",
          (seen[0]["requests_left"], seen[0]["bytes_sent"], seen[1]["requests_left"], seen[1]["bytes_sent"]) ==
          (stats["requests"], stats["body_bytes"], Redirector.asked, Redirector.sent), (seen, stats, Redirector.asked))

    # ---- a changed fact -----------------------------------------------------------------------------------------

    check("nothing of the providers has changed yet",
          [c for c in after["changed"]["list"] if c["what"] == "provider"] == [], after["changed"])
    cli("provider", "change", "acme", "--country", "US", "--retention-days", "30")
    changed = inventory()
    differences = [(c["what"], c["name"], c["fact"], c["from"], c["to"]) for c in changed["changed"]["list"]]
    check("a changed fact is a difference from the last inventory",
          ("provider", "acme", "country", "FR", "US") in differences and
          ("provider", "acme", "retention_days", 0, 30) in differences and
          changed["changed"]["since"]["record"] == first["recorded"], changed["changed"])
    kinds = {k["kind"]: k for k in changed["not_declared"]}
    check("what left under the old facts stands first", list(changed)[0] == "not_declared" and "facts_differ" in kinds
          and kinds["facts_differ"]["facts"] == [{"fact": "country", "seen": "FR", "declared": "US"}]
          and kinds["facts_differ"]["requests"] == stats["requests"] and kinds["facts_differ"]["changed_in"] > 0, kinds)
    cli("inventory", "--record")
    check("a recorded inventory is what the next is compared with", inventory()["changed"]["list"] == [])

    # ---- the plan -----------------------------------------------------------------------------------------------

    plan = cli("plan", "check", code=1)
    check("a delegated name without a substitute is named", "FAIL big" in plan and "tiny, by hand" in plan, plan)
    cli("model", "route", "big", "acme:work", "engine:tiny")
    cli("model", "route", "turning", "--none")
    plan = cli("plan", "check", code=0)
    check("with one inside it is fine", "ok   big" in plan and "substitute inside: engine" in plan, plan)
    open(work + "/policy2", "w").write(POLICY.replace("allow public, internal to on-prem\n", "allow public to on-prem\n"))
    cli("policy", "activate", work + "/policy2")
    plan = json.loads(cli("--json", "plan", "check", code=1))
    big = [n for n in plan["names"] if n["model"] == "big"][0]
    check("one that the policy does not allow is none", big["missing"] == ["internal"] and big["covered"] == ["public"]
          and big["unlabelled_missing"], big)

    # ---- cut off ------------------------------------------------------------------------------------------------

    cli("policy", "activate", work + "/policy")
    cli("model", "route", "big", "acme:hang")
    size = inventory()["range"]["ledger_size"]
    sent = json.loads(mock_call("GET", "/mock/stats"))
    hanging = threading.Thread(target=ask, args=bodies("hello", True)["chat"], daemon=True)
    hanging.start()
    for _ in range(200):
        if json.loads(mock_call("GET", "/mock/stats"))["requests"] > sent["requests"]:
            break
        time.sleep(0.005)
    server.kill()
    server.wait()
    v = inventory("--from", str(size))
    stats = json.loads(mock_call("GET", "/mock/stats"))
    got = stats["body_bytes"] - sent["body_bytes"]
    outside = v["left"]["to_outside"]
    check("after kill -9 what was under way may have left, to the byte",
          outside["may_have_left_bytes"] == got > 0 and outside["bytes"] == 0 and
          "outcome_unknown" in [k["kind"] for k in v["not_declared"]], (outside, got, v["not_declared"]))
    page = cli("inventory", "--html", "-")
    check("a page without a server", page.startswith("<!DOCTYPE html>") and "<script" not in page and
          "Acme SAS" in page and "may have left" in page)
    check("the ledger verifies", "verified" in cli("audit", "verify"))
    start_server()
    again = inventory("--from", str(size))["left"]["to_outside"]
    check("and still says so when it is up again", again["may_have_left_bytes"] == got, again)
    check("an undeclared listener saw nothing in all of it", listener.seen == [], listener.seen[:3])
    print("%d mixed requests: %d of %d bytes left by the inventory, %d of %d by the provider's own count; 0 connections "
          "elsewhere" % (total, f["requests_left"], f["bytes_sent"], before["requests"], before["body_bytes"]))
finally:
    for c in children:
        if c.poll() is None:
            c.send_signal(signal.SIGTERM)
    for c in children:
        try:
            c.wait(10)
        except subprocess.TimeoutExpired:
            c.kill()
    subprocess.run(["rm", "-rf", work])
    print("%d passed, %d failed" % (passed, failed))
sys.exit(1 if failed else 0)
