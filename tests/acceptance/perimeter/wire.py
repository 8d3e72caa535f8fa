"""A network of its own for a test, what goes over its wire, and what the system calls of a process say of order.

Two network namespaces without names: in "inside" the test itself and the island, with the loopback and one end of a
veth pair; in "outside" the mocks, with the other end. Nothing else leads out. The providers' address lies in
127.0.0.0/8 because polder takes plain http only to this machine; in these namespaces it is routed over the pair."""
import collections
import ctypes
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

INSIDE_ADDRESS, OUTSIDE_ADDRESS, HOST = "10.77.0.1", "10.77.0.2", "127.77.0.2"
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
libc = ctypes.CDLL(None, use_errno=True)


def system(name, *args):
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), "%s: %s" % (name, os.strerror(ctypes.get_errno())))


def sh(*args):
    r = subprocess.run(args, text=True, capture_output=True)
    if r.returncode:
        raise OSError(0, "%s: %s" % (" ".join(args), r.stderr.strip()))
    return r.stdout


class Network:
    """Moves the calling thread inside; threads that it starts later are inside too."""

    def __init__(self):
        system("unshare", CLONE_NEWNS)
        sh("mount", "--make-rprivate", "/")
        system("unshare", CLONE_NEWNET)
        self.outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.holder = subprocess.Popen(["sleep", "infinity"])
        system("unshare", CLONE_NEWNET)
        self.inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        sh("ip", "addr", "add", "127.0.0.1/32", "dev", "lo")
        sh("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1", "netns", str(self.holder.pid))
        self.end("wire0", INSIDE_ADDRESS)
        sh("ip", "route", "add", HOST + "/32", "via", OUTSIDE_ADDRESS, "dev", "wire0", "src", INSIDE_ADDRESS)
        self.go(self.outside)
        sh("ip", "link", "set", "lo", "up")
        self.end("wire1", OUTSIDE_ADDRESS)
        sh("ip", "addr", "add", HOST + "/32", "dev", "wire1")
        self.go(self.inside)

    @staticmethod
    def go(ns):
        system("setns", ns, CLONE_NEWNET)

    @staticmethod
    def end(device, address):
        for name, value in (("ipv6", "disable_ipv6"), ("ipv4", "route_localnet")):
            path = "/proc/sys/net/%s/conf/%s/%s" % (name, device, value)
            if os.path.exists(path):
                with open(path, "w") as f:
                    f.write("1")
        sh("ip", "addr", "add", address + "/30", "dev", device)
        sh("ip", "link", "set", device, "up")

    def spawn_outside(self, args, **more):
        self.go(self.outside)
        try:
            return subprocess.Popen([str(a) for a in args], **more)
        finally:
            self.go(self.inside)

    def close(self):
        self.holder.kill()
        self.holder.wait()


# ---- the capture -----------------------------------------------------------------------------------------------

FRAME = struct.Struct("<QI")


def capture(path):
    """In a process of its own, outside: every frame that arrives over the wire, until SIGTERM."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
    s.bind(("wire1", 0))
    s.settimeout(0.2)
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    out = open(path, "wb")
    print("ready", flush=True)
    quiet = 0
    while not over or quiet < 3:
        try:
            data, address = s.recvfrom(262144)
        except (socket.timeout, InterruptedError):
            quiet += 1
            continue
        if address[2] != 4:  # PACKET_OUTGOING
            out.write(FRAME.pack(time.time_ns(), len(data)) + data)
    out.close()
    packets, drops = struct.unpack("II", s.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
    print("packets %d drops %d" % (packets, drops), flush=True)


def frames(path):
    with open(path, "rb") as f:
        while True:
            head = f.read(FRAME.size)
            if len(head) < FRAME.size:
                return
            ns, n = FRAME.unpack(head)
            yield ns, f.read(n)


class Stream:
    """One direction of one connection: what polder sent."""

    def __init__(self, port, isn):
        self.port, self.isn, self.parts = port, isn, {}

    def add(self, seq, ns, data):
        at = (seq - self.isn - 1) & 0xFFFFFFFF
        if at < 1 << 31 and len(data) > len(self.parts.get(at, (0, b""))[1]):
            self.parts[at] = (ns, data)

    def bytes(self):
        """(bytes in order, [(offset, ns)], whether a hole was found)."""
        out, times, hole = bytearray(), [], False
        for at in sorted(self.parts):
            ns, data = self.parts[at]
            if at > len(out):
                hole = True
                break
            if at + len(data) > len(out):
                times.append((len(out), ns))
                out += data[len(out) - at:]
        return bytes(out), times, hole


def streams(path):
    """Streams by the frames of a capture, and how many frames were of what other kind."""
    open_, all_, other = {}, [], collections.Counter()
    for ns, f in frames(path):
        kind = struct.unpack(">H", f[12:14])[0]
        if kind == 0x0806:
            other["ARP"] += 1
            continue
        if kind != 0x0800:
            other["type %04x" % kind] += 1
            continue
        n_ip = (f[14] & 15) * 4
        if f[23] != 6:
            other["IP protocol %d" % f[23]] += 1
            continue
        length = struct.unpack(">H", f[16:18])[0] or len(f) - 14
        tcp = f[14 + n_ip:14 + length]
        sport, dport, seq = struct.unpack(">HHI", tcp[:8])
        data, flags = tcp[(tcp[12] >> 4) * 4:], tcp[13]
        key = (f[26:34], sport, dport)
        if flags & 2:
            if key not in open_ or open_[key].isn != seq:
                open_[key] = Stream(dport, seq)
                all_.append(open_[key])
        elif data:
            if key not in open_:
                other["TCP without a beginning"] += 1
                continue
            open_[key].add(seq, ns, data)
    return all_, other


def requests(data):
    """HTTP requests in a stream's bytes: (offset, path, body, whole, header)."""
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            yield at, "", data[at:], False, b""
            return
        header = data[at:end]
        path = header.split(b" ", 2)[1].decode("latin-1") if header.count(b" ") > 1 else ""
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", header)
        n = int(found.group(1)) if found else 0
        body = data[end + 4:end + 4 + n]
        yield at, path, body, len(body) == n, header
        at = end + 4 + n


# ---- the order of system calls ---------------------------------------------------------------------------------

TRACE = ["strace", "-f", "-ttt", "-yy", "-xx", "-s", "4000000", "-e",
         "trace=pwrite64,pwritev,write,writev,fsync,fdatasync,sendto,sendmsg", "-e", "signal=none", "-o"]
CALL = re.compile(r"^(\d+) +([\d.]+) (?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")


def plain(hexed):
    return bytes.fromhex(hexed.replace("\\x", ""))


def of_descriptor(rest):
    found = re.match(r"\d+<((?:->|[^>])*)>", rest)
    text = found.group(1) if found else ""
    return plain(text).decode("latin-1") if text.startswith("\\x") else text


class Order:
    """Egress records that became durable, and bodies that were sent, in the order of the calls: a sync counts when it
    has returned, a send when it is entered."""

    def __init__(self, path):
        self.clock = self.sent = self.syncs = 0
        self.durable = collections.defaultdict(list)  # (sha256, provider): when its records became durable
        self.covered = set()  # keys of bodies that were sent behind a durable record of their own
        self.again = 0      # bodies that were sent once more, on a new connection, behind the record of the first time
        self.early = []     # bodies that were sent before a record of them was durable
        self.written = collections.defaultdict(list)  # path of a segment: records that no sync has covered
        self.buffers = collections.defaultdict(bytearray)
        self.first = {}     # when the first call for what is in a buffer was entered
        self.begun = {}     # thread: (call, what it is about, its text, records that it syncs, when it was entered)
        with open(path, errors="replace") as f:
            for line in f:
                self.line(line)

    def line(self, line):
        m = CALL.match(line)
        if not m:
            return
        self.clock += 1
        pid, resumed, name, rest = m.group(1), m.group(3), m.group(4), m.group(5)
        if name:
            where = of_descriptor(rest)
            sync = name.endswith("sync") and "/ledger/seg/" in where
            self.begun[pid] = (name, where, rest, self.written.pop(where, []) if sync else None, self.clock)
            if rest.rstrip().endswith("<unfinished ...>"):
                return
        elif not resumed:
            return
        self.leave(pid, rest)

    def leave(self, pid, rest):
        name, where, first, covered, entered = self.begun.pop(pid, ("", "", "", None, 0))
        result = rest.rsplit(" = ", 1)[-1].split(" ")[0].strip()
        done = int(result) if result.isdigit() else -1
        if done > 0 and name.startswith("pwrite") and "/ledger/seg/" in where:
            self.frame(where, texts_of(first)[:done])
        elif done > 0 and "->" in where and HOST in where.split("->")[1]:
            self.send(where, texts_of(first)[:done], entered)
        if covered is not None and done == 0:
            self.syncs += 1
            for key in covered:
                self.durable[key].append(self.clock)
        elif covered:
            self.written[where] += covered

    def frame(self, where, data):
        for r in re.finditer(rb'"event":"egress".*?"v":1\}', data, re.S):
            sha = re.search(rb'"sha256":"([0-9a-f]{64})"', r.group())
            provider = re.search(rb'"provider":"([^"]+)"', r.group())
            if sha and provider:
                self.written[where].append((sha.group(1).decode(), provider.group(1).decode()))

    def send(self, where, data, entered):
        b = self.buffers[where]
        if not b:
            self.first[where] = entered
        b += data
        while True:
            end = b.find(b"\r\n\r\n")
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", b[:end]) if end >= 0 else None
            if not found or len(b) < end + 4 + int(found.group(1)):
                return
            n = end + 4 + int(found.group(1))
            body, path = bytes(b[end + 4:n]), bytes(b[:end]).split(b" ", 2)[1].decode()
            del b[:n]
            key = (hashlib.sha256(body).hexdigest(), path.split("/")[1])
            self.sent += 1
            if self.durable[key] and self.durable[key][0] < self.first[where]:
                self.durable[key].pop(0)
                self.covered.add(key)
            elif key in self.covered:
                self.again += 1
            else:
                self.early.append("%s %s" % (path, key[0]))


def texts_of(rest):
    return b"".join(plain(s) for s in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', rest))


if __name__ == "__main__":
    capture(sys.argv[1])
