"""logits.py POLDER ORACLE WORK [NAME…]: the rows that polder computes of the oracle's models (all of them where none is
named) against the reference's, within the tolerance that ORACLE/README.md asks for, and bit-identical for chunks of 1, 7
and 512, for 1 and 2 threads, and for the scalar and AVX2 kernels. An encoder takes a sequence whole: its chunks stay.
Needs no numpy."""
import array, json, os, subprocess, sys

polder, oracle, work = sys.argv[1:4]


def floats(path):
    a = array.array("f")
    with open(path, "rb") as f:
        a.frombytes(f.read())
    if sys.byteorder == "big":
        a.byteswap()
    return a


def rows(model, tokens, out, chunk, threads, isa):
    env = dict(os.environ, POLDER_ISA=isa)
    subprocess.run([polder, "logits", model, "--tokens", tokens, "--out", out, "--chunk", str(chunk), "--threads",
                    str(threads)], check=True, env=env)
    with open(out, "rb") as f:
        return f.read()


def max_abs(a, b):
    if len(a) != len(b):
        sys.exit(f"{len(a)} numbers against {len(b)}")
    return max(abs(x - y) for x, y in zip(a, b))


def bound_of(man):
    """F32, F16 and BF16 weights meet F32 activations here; the others meet 8-bit ones (oracle/README.md, table). GELU
    comes from a half-precision table in the reference."""
    if man["quant"] not in ("F32", "F16", "BF16"):
        return "", 2 * man["tolerance"]["dequantised_f32"]["stored_rows"]["max_abs"]
    gelu = man["arch"].startswith("gemma") or man["arch"] == "bert"
    return "" if man["quant"] == "F32" else ".dequant", 2e-2 if gelu else 1e-3


names = sys.argv[4:] or sorted(n for n in os.listdir(oracle) if os.path.isdir(os.path.join(oracle, n)))
failed, compared, worst = 0, 0, ("", 0.0)
for name in names:
    d = os.path.join(oracle, name)
    man = json.load(open(os.path.join(d, "manifest.json")))
    model = os.path.join(d, man.get("model", "model.gguf"))
    tokens = os.path.join(d, "tokens.txt")
    kind = "embd" if "embd16.f32" in man["files"] else "logits"
    base = rows(model, tokens, os.path.join(work, "base"), 512, 2, "avx2")
    for chunk, threads, isa in [(1, 1, "avx2"), (7, 2, "avx2"), (512, 1, "avx2"), (7, 1, "scalar"), (512, 2, "scalar")]:
        chunk = 512 if kind == "embd" else chunk
        if rows(model, tokens, os.path.join(work, "other"), chunk, threads, isa) != base:
            print(f"FAIL {name}: bits differ with --chunk {chunk} --threads {threads} POLDER_ISA={isa}")
            failed += 1
        compared += 1
    got = array.array("f")
    got.frombytes(base)
    n, width = man["files"][f"{kind}200.f32"]
    ref, bound = bound_of(man)
    diff = max(max_abs(got[: 16 * width], floats(os.path.join(d, f"{kind}16{ref}.f32"))),
               max_abs(got[len(got) - n * width :], floats(os.path.join(d, f"{kind}200{ref}.f32"))))
    print(f"{'ok  ' if diff <= bound else 'FAIL'} logits {name}: max abs {diff:.2e}, allowed {bound:.2e}")
    if not diff <= bound:
        failed += 1
    if diff / bound > worst[1]:
        worst = (name, diff / bound)
print(f"{len(names)} models, {compared} bit-identical variants, {failed} failed; nearest to its bound: {worst[0]} at {worst[1]:.2f} of it")
sys.exit(1 if failed else 0)
