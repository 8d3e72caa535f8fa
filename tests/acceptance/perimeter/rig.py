"""An island with providers that are mocks, a load of requests from cases.py, and what its ledger says afterwards."""
import collections
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import cases

ROOT = Path(__file__).resolve().parents[3]


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, ok, text, more=""):
        print(("ok   " if ok else "FAIL ") + text, flush=True)
        if ok:
            self.passed += 1
        else:
            self.failed += 1
            if more:
                print("     " + str(more).replace("\n", "\n     ")[:2000], flush=True)
        return ok

    def close(self):
        print("%d passed, %d failed" % (self.passed, self.failed), flush=True)
        return 0 if self.passed and not self.failed else 1


def run(*args, given=None, ok=(0,)):
    r = subprocess.run([str(a) for a in args], input=given, text=True, capture_output=True)
    if r.returncode not in ok:
        raise RuntimeError("%s: status %d: %s" % (" ".join(map(str, args)), r.returncode, (r.stderr or r.stdout)[-600:]))
    return r.stdout


class Mock:
    """A mock provider. `spawn` starts a process (in a namespace of its choice)."""

    def __init__(self, program, name, work, spawn, host="127.0.0.1", port=0, capture=True):
        self.program, self.name, self.work, self.spawn, self.host, self.port = program, name, work, spawn, host, port
        self.capture = work / (name + ".capture") if capture else None
        self.pieces = 0  # each start writes a capture of its own
        self.process = None

    def start(self):
        log = self.work / (self.name + ".log")
        args = [self.program, str(self.port)]
        if self.capture:
            args += ["--capture", "%s.%d" % (self.capture, self.pieces)]
            self.pieces += 1
        for _ in range(50):
            with open(log, "wb") as out:
                self.process = self.spawn(args, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            for _ in range(200):
                found = re.match(r"port (\d+)", log.read_text())
                if found:
                    self.port = int(found.group(1))
                    return
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
            time.sleep(0.1)
        raise RuntimeError("the mock provider does not start: " + log.read_text())

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()

    def requests(self):
        """(path, body, connection) of everything that reached it, from its captures."""
        for i in range(self.pieces):
            path = Path("%s.%d" % (self.capture, i))
            data = path.read_bytes() if path.exists() else b""
            at = 0
            while at < len(data):
                eol = data.find(b"\n", at)
                if eol < 0:
                    break
                _, ns, connection, n_header, n_body = data[at:eol].split(b" ")
                start = eol + 1
                header = data[start:start + int(n_header)]
                body = data[start + int(n_header):start + int(n_header) + int(n_body)]
                at = start + int(n_header) + int(n_body) + 1
                yield header.split(b" ", 2)[1].decode(), body, int(ns)


class Island:
    def __init__(self, polder, work, mocks, state=None, config=()):
        self.polder, self.work, self.mocks = polder, work, mocks
        self.dir = state or work / "island"
        self.port = 0
        self.process = None
        self.starts = 0
        self.make(config)

    def command(self, *args):
        return [self.polder, "--island", self.dir, *args]

    def ask(self, *args, **more):
        return run(*self.command(*args), **more)

    def make(self, config):
        run(self.polder, "init", self.dir, "--name", "test.example/perimeter")
        path = self.dir / "island.yaml"
        text = path.read_text()
        changes = [("level: info", "level: warn"), ('level: "info"', 'level: "warn"'),
                   ('rules: ""', 'rules: "own.rules"'), ("first_byte_timeout_ms: 60000", "first_byte_timeout_ms: 1500"),
                   ("idle_timeout_ms: 60000", "idle_timeout_ms: 1500"), ("breaker_open_s: 30", "breaker_open_s: 1"),
                   *config]
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text)
        (self.dir / "own.rules").write_text(cases.RULES)
        (self.work / "test.policy").write_text(cases.POLICY)
        for name, (driver, mock) in cases.PROVIDERS.items():
            m = self.mocks[mock]
            url = "http://%s:%d/%s" % (m.host, m.port, name) + ("/v1" if driver == "openai" else "")
            facts = {"home": ["--inside"], "us": ["--country", "US", "--law", "US", "--retention-days", "30"],
                     "usa": ["--country", "IE", "--law", "US", "--retention-days", "0", "--training", "no"]}.get(
                         name, ["--country", "FR", "--law", "FR", "--retention-days", "0", "--training", "no"])
            self.ask("provider", "add", name, "--driver", driver, "--url", url, "--operator", name + " Ltd", *facts)
            self.ask("provider", "set-key", name, given="sk-credential-of-" + name)
        for name, route in cases.ROUTES.items():
            self.ask("model", "route", name, *route.split(","))
        self.ask("policy", "activate", self.work / "test.policy")
        self.keys = {}
        for name, (project, own) in cases.KEYS.items():
            args = ["key", "add", name]
            if project:
                self.ask("project", "add", cases.PROJECTS[name], "--floor", project)
                args += ["--project", cases.PROJECTS[name]]
            if own:
                args += ["--floor", own]
            self.keys[name] = json.loads(self.ask("--json", *args))["key"]
        self.keys["operator"] = json.loads(self.ask("--json", "key", "add", "watcher", "--role", "operator"))["key"]

    def up(self, prefix=(), env=None, **more):
        self.log = self.work / ("polder.%d.log" % self.starts)
        self.starts += 1
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([*prefix, *map(str, self.command("up", "--listen",
                                                                            "127.0.0.1:%d" % self.port))],
                                            stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})}, **more)
        for _ in range(1200):
            found = re.search(r"listening on http://[^ ]*?:(\d+)", self.log.read_text(errors="replace"))
            if found:
                self.port = int(found.group(1))
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("polder does not start: " + self.log.read_text(errors="replace")[-1000:])

    def down(self):
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def metrics(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        c.request("GET", "/metrics", headers={"Authorization": "Bearer " + self.keys["operator"]})
        text = c.getresponse().read().decode()
        c.close()
        return {k: float(v) for k, v in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.M)}

    def records(self):
        """Everything in the ledger: (seq, record)."""
        out = run(*self.command("--json", "audit", "ls", "--from", "0", "--limit", "100000000"))
        return read_records(out)


def read_records(text):
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        yield row["seq"], row.get("record", row.get("entry", row))


class Ledger:
    """What the records say of each request."""

    def __init__(self, records):
        self.count = 0
        self.admitted, self.outcomes = {}, collections.defaultdict(list)
        self.egress = collections.defaultdict(list)  # (sha256, provider, bytes): records
        self.sums = collections.Counter()
        for seq, r in records:
            self.count += 1
            e = r["event"]
            self.sums[e] += 1
            if e == "admitted":
                self.admitted[seq] = r
            elif e in ("completed", "failed"):
                self.outcomes[r["request"]].append((seq, r))
            elif e == "egress" and r.get("purpose") == "answer":
                self.egress[r["sha256"], r["provider"], r["bytes"]].append((seq, r))

    def sendings(self, record):
        """How often the body of an egress record went out: its outcome says so where a used connection ended without an
        answer and the same was sent once more. Without an outcome it may have."""
        outcome = self.outcomes.get(record["request"])
        if not outcome:
            return 2
        attempts, n = outcome[0][1].get("attempts", []), record["attempt"]
        return attempts[n - 1].get("sendings", 1) if n <= len(attempts) else 1

    def incomplete(self):
        """Admitted records without an outcome, and with more than one; outcomes of nothing."""
        none = [s for s in self.admitted if s not in self.outcomes]
        more = [s for s, o in self.outcomes.items() if len(o) != 1]
        lost = [s for s in self.outcomes if s not in self.admitted]
        return none, more, lost


class Answer:
    __slots__ = ("status", "body", "began", "ended", "why")


def ask(port, key, c, deadline_s, hang_up_after=None):
    """One request; status 0: the connection ended otherwise, -1: no answer in time."""
    a = Answer()
    a.status, a.body, a.why, a.began = 0, b"", "", time.time()
    give_up = time.monotonic() + deadline_s
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=deadline_s)
    try:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key, **c.headers}
        conn.request("POST", cases.PATHS[c.dialect], c.body, headers)
        if hang_up_after is not None:
            conn.sock.settimeout(hang_up_after)
        r = conn.getresponse()
        a.status = r.status
        while True:
            left = give_up - time.monotonic()
            if left <= 0:
                raise socket.timeout()
            if hang_up_after is None:
                conn.sock and conn.sock.settimeout(left)
            piece = r.read1(65536)
            if not piece:
                break
            a.body += piece
    except socket.timeout:
        a.why = "hung up" if hang_up_after is not None else "no answer in %d s" % deadline_s
        a.status = a.status if hang_up_after is not None else -1
    except (OSError, http.client.HTTPException) as e:
        a.why = "%s: %s" % (type(e).__name__, e)
    finally:
        conn.close()
    a.ended = time.time()
    return a


class Load:
    """Threads that take cases and ask them. next_case() gives (case, hang_up_after) or None at the end."""

    def __init__(self, island, threads, next_case, done, deadline_s=45, rate=None):
        self.island, self.next_case, self.done, self.deadline_s = island, next_case, done, deadline_s
        self.every = 1 / rate if rate else 0
        self.at = time.monotonic()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(threads)]
        self.broken = []
        for t in self.threads:
            t.start()

    def take(self):
        with self.lock:
            c = self.next_case()
            self.at = max(self.at + self.every, time.monotonic() - 1)
            return c, self.at - time.monotonic()

    def work(self):
        try:
            while True:
                c, wait = self.take()
                if c is None:
                    return
                if self.every and wait > 0:
                    time.sleep(wait)
                case, hang_up = c
                self.done(case, ask(self.island.port, self.island.keys[case.key], case, self.deadline_s, hang_up))
        except Exception as e:  # a fault of the test itself
            self.broken.append(repr(e))

    def join(self, seconds):
        until = time.monotonic() + seconds
        for t in self.threads:
            t.join(max(0, until - time.monotonic()))
        return sum(t.is_alive() for t in self.threads)
