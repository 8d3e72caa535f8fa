#!/usr/bin/env python3
"""compare.py ORIGINAL.gguf CONVERTED.gguf: what differs, one line each; the last line counts.

Tensors must have the same names, shapes, types and bytes (a type that checkpoints do not have: the same floats). Those that
pass through log and exp may differ by a last bit. Keys of the architecture must be equal, but where a converted file says
more (a default written out) or leaves a default out.
"""
import sys

from unconvert import Gguf, q8_floats
import array

# keys of the test files that no config.json has, or that converting leaves out because they say what is the default
LEFT_OUT = {"attention.key_length", "attention.value_length", "rope.dimension_count"}


def close(a, b, tolerance):
    return abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-30)


def tensors(a, b):
    bad = []
    for name in sorted(set(a.tensors) | set(b.tensors)):
        if name not in a.tensors or name not in b.tensors:
            bad.append(f"tensor {name} is only in the {'original' if name in a.tensors else 'converted file'}")
            continue
        (ka, da, xa), (kb, db, xb) = a.tensors[name], b.tensors[name]
        if da != db:
            bad.append(f"tensor {name}: shape {da} became {db}")
        elif ka == 8 and kb == 0:
            if any(x != y for x, y in zip(q8_floats(xa), array.array("f", xb))):
                bad.append(f"tensor {name}: other floats")
        elif ka != kb:
            bad.append(f"tensor {name}: type {ka} became {kb}")
        elif xa != xb:
            fa, fb = array.array("f", xa), array.array("f", xb)
            tolerance = 3e-7 if name.endswith(("ssm_a", "rope_freqs.weight", "norm.weight")) else 0
            if ka != 0 or any(not close(x, y, tolerance) for x, y in zip(fa, fb)):
                bad.append(f"tensor {name}: other values")
    return bad


def keys(a, b):
    bad, arch = [], a.keys["general.architecture"]
    if b.keys.get("general.architecture") != arch:
        return [f"architecture {arch} became {b.keys.get('general.architecture')}"]
    for key, va in a.keys.items():
        if not key.startswith(arch + "."):
            continue
        vb, short = b.keys.get(key), key[len(arch) + 1:]
        if vb is None and (short in LEFT_OUT or va in (0, False)):
            continue
        same = close(va, vb, 1e-6) if isinstance(va, float) and isinstance(vb, (int, float)) else va == vb
        if not same:
            bad.append(f"key {key}: {va} became {vb}")
    return bad


def main():
    a, b = Gguf(sys.argv[1]), Gguf(sys.argv[2])
    bad = tensors(a, b) + keys(a, b)
    for line in bad:
        print(line)
    print(f"{len(a.tensors)} tensors, {len(bad)} differences")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
