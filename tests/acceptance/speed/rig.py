"""What the scripts beside this one share: checks, bench/speed's peers and files, and a server that streams."""
import http.client
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # so that what was started is stopped


def load_speed():
    """bench/speed as a module."""
    loader = importlib.machinery.SourceFileLoader("speed", str(ROOT / "bench/speed"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("speed", loader))
    loader.exec_module(module)
    return module


speed = load_speed()


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, ok, text):
        print(("ok   " if ok else "FAIL ") + text, flush=True)
        if ok:
            self.passed += 1
        else:
            self.failed += 1

    def close(self, figure=""):
        """The two last lines: a figure, and the count."""
        if figure:
            print(figure)
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.passed and not self.failed else 1


def free_mb(path, need, what):
    if shutil.disk_usage(path).free < need * 10**6:
        raise RuntimeError(f"{path}: {need} MB are needed for {what}")


def copier(build):
    """The model that copies; made once."""
    at = Path(os.environ.get("MODELS", build / "bench-models"))
    at.mkdir(parents=True, exist_ok=True)
    path = at / "copier.gguf"
    if not path.exists():
        free_mb(at, 500, "the model that copies")
        part = at / f"copier.part{os.getpid()}"
        part.unlink(missing_ok=True)
        subprocess.run([build / "bench/make_copier", part], check=True)
        part.rename(path)
    return path


class Answer:
    """What came of one streamed completion, and when (seconds of the monotonic clock)."""

    def __init__(self):
        self.text, self.times, self.pieces, self.tokens, self.cached, self.began = "", [], [], 0, 0, 0.0

    def first_s(self):
        return self.times[0] - self.began

    def rate(self):
        """Tokens a second after the first piece. A piece holds as many tokens as characters times tokens a character."""
        if len(self.times) < 2:
            return 0.0
        rest = self.tokens * (1 - len(self.pieces[0]) / len(self.text))
        return rest / (self.times[-1] - self.times[0])


class Server:
    """An island with one model, and polder serving it."""

    def __init__(self, build, work, name, model, config=None, env=None):
        self.polder = Path(os.environ.get("POLDER", build / "src/cli/polder"))
        self.name, self.dir, self.log = name, work / name, work / (name + ".log")
        self.env = {**os.environ, **(env or {})}
        self.process = None
        shutil.rmtree(self.dir, ignore_errors=True)
        self.run("init", self.dir, "--name", f"test.example/{name}", island=False)
        path = self.dir / "island.yaml"
        text = path.read_text()
        # a long prompt may be silent for minutes on a busy machine
        own = {"listen": '"127.0.0.1:0"', "idle_timeout_s": 3600, **(config or {})}
        for key, value in own.items():
            text, n = re.subn(rf"(?m)^  {key}:.*$", f"  {key}: {value}", text)
            if n != 1:
                raise RuntimeError(f"island.yaml has no key {key}, or several")
        path.write_text(text)
        self.run("model", "add", model, "--name", "m")
        self.key = re.search(r"pld_\S+", self.run("key", "add", "speed")).group(0)

    def run(self, *args, island=True):
        args = [self.polder, *(["--island", self.dir] if island else []), *args]
        r = subprocess.run([str(a) for a in args], text=True, capture_output=True, env=self.env)
        if r.returncode:
            raise RuntimeError(f"{' '.join(map(str, args))}: {(r.stderr or r.stdout).strip()[-400:]}")
        return r.stdout

    def start(self):
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([str(self.polder), "--island", str(self.dir), "up"], stdout=out, stderr=out,
                                            stdin=subprocess.DEVNULL, env=self.env)
        for _ in range(1200):
            found = re.search(r"listening on http://[^ ]*:(\d+)", self.log.read_text(errors="replace"))
            if found:
                self.port = int(found.group(1))
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not start: {self.log.read_text(errors='replace')[-400:]}")

    def stop(self, remove=True):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        if remove:
            shutil.rmtree(self.dir, ignore_errors=True)

    def stream(self, prompt, max_tokens, **more):
        """One greedy completion (prompt: text or token ids); never an end before max_tokens."""
        body = {"model": "m", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}, "logit_bias": {"2": -100}, **more}
        a = Answer()
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1200)
        a.began = time.monotonic()
        c.request("POST", "/v1/completions", json.dumps(body),
                  {"Content-Type": "application/json", "Authorization": "Bearer " + self.key})
        r = c.getresponse()
        if r.status != 200:
            raise RuntimeError(f"{self.name}: status {r.status}: {r.read()[:300]!r}")
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"{self.name}: {event['error']}")
            piece = event["choices"][0]["text"] if event.get("choices") else ""
            if piece:
                a.times.append(time.monotonic())
                a.pieces.append(piece)
                a.text += piece
            if event.get("usage"):
                a.tokens = event["usage"]["completion_tokens"]
                a.cached = event["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0)
        c.close()
        if not a.text or a.tokens != max_tokens:
            raise RuntimeError(f"{self.name}: {a.tokens} tokens came instead of {max_tokens}")
        return a

    def streams(self, prompts, max_tokens, **more):
        """As many at once as there are prompts."""
        got, errors = [None] * len(prompts), []

        def one(i):
            try:
                got[i] = self.stream(prompts[i], max_tokens, **more)
            except (RuntimeError, OSError, ValueError) as e:
                errors.append(e)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(prompts))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if errors:
            raise RuntimeError(f"{len(errors)} of {len(prompts)} streams failed: {errors[0]}")
        return got


def together_rate(answers):
    """Tokens a second of all streams, while all of them ran: from the last one's first piece to the first one's last."""
    begin, end = max(a.times[0] for a in answers), min(a.times[-1] for a in answers)
    if end <= begin:
        raise RuntimeError("the streams did not run at the same time")
    tokens = sum(a.tokens * sum(len(p) for p, t in zip(a.pieces, a.times) if begin < t <= end) / len(a.text)
                 for a in answers)
    return tokens / (end - begin)


class Burner:
    """Another process that keeps one core busy."""

    def __enter__(self):
        self.p = subprocess.Popen(["sh", "-c", "while :; do :; done"])
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()
