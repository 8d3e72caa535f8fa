#!/usr/bin/env python3
"""split.py MODEL.gguf NAME N: write NAME-00001-of-N.gguf … as split models are published."""
import math, struct, sys

from unconvert import Gguf, SIZES

path, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
g = Gguf(path)
raw = open(path, "rb").read()


def text(s):
    b = s.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(b)) + b


def key_u16(k, v):
    return text(k) + struct.pack("<IH", 2, v)


# the keys' bytes as they are: from behind the header to the first tensor's description
first = next(iter(g.tensors))
start = 24
end = raw.index(text(first) + struct.pack("<I", len(g.tensors[first][1])), start)
names = list(g.tensors)
for part in range(n):
    mine = names[part::n]
    keys = key_u16("split.no", part) + key_u16("split.count", n) + text("split.tensors.count") + struct.pack(
        "<Ii", 5, len(names))
    n_keys = 3
    if part == 0:
        keys, n_keys = raw[start:end] + keys, 3 + len(g.keys)
    infos, at, data = b"", 0, b""
    for t in mine:
        kind, dims, b = g.tensors[t]
        infos += text(t) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        infos += struct.pack("<IQ", kind, at)
        data += b + b"\0" * (-len(b) % 32)
        at = len(data)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(mine), n_keys) + keys + infos
    with open(f"{name}-{part + 1:05}-of-{n:05}.gguf", "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32) + data)
