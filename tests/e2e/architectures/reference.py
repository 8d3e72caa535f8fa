"""reference.py POLDER WORK: architectures that ../shared/oracle has no files of (llama4, qwen2moe, gemma4 with experts),
against a second evaluation that is written here from their published definitions, in double precision and without any
cleverness: whole matrices, whole score rows, no cache. Models are made here, with random F32 weights. Needs no numpy."""
import array, math, os, random, struct, subprocess, sys

polder, work = sys.argv[1:]


# ---- files -------------------------------------------------------------------------------------------------------

def gguf_string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def gguf_value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + gguf_string(v)
    items = b"".join(gguf_value(x)[4:] for x in v)
    return struct.pack("<I", 9) + gguf_value(v[0])[:4] + struct.pack("<Q", len(v)) + items


class Model:
    """Keys and tensors; a tensor is (shape with the fastest dimension last, flat list)."""

    def __init__(self, arch, seed, **keys):
        self.arch, self.keys, self.tensors, self.rng = arch, {}, {}, random.Random(seed)
        for k, v in keys.items():
            self.keys[arch + "." + k.replace("__", ".")] = v

    def add(self, name, *shape, scale=None, mean=0.0):
        n = math.prod(shape)
        scale = scale if scale is not None else 2.0 / math.sqrt(shape[-1])
        vals = array.array("f", (mean + scale * self.rng.uniform(-1, 1) for _ in range(n)))
        self.tensors[name] = (shape, list(vals))

    def norm(self, name, n):
        self.add(name, n, scale=0.4, mean=1.0)

    def rows(self, name, plane=0):
        shape, v = self.tensors[name]
        r, c = shape[-2], shape[-1]
        at = plane * r * c
        return [v[at + i * c: at + (i + 1) * c] for i in range(r)]

    def vec(self, name):
        return self.tensors[name][1]

    def write(self, path, n_vocab):
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        tokens += [chr(0x100 + i) for i in range(n_vocab - len(tokens))]
        keys = dict(self.keys)
        keys["general.architecture"] = self.arch
        keys["tokenizer.ggml.model"] = "llama"
        keys["tokenizer.ggml.tokens"] = tokens
        keys["tokenizer.ggml.scores"] = [0.0] * n_vocab
        keys["tokenizer.ggml.token_type"] = [2, 3, 3] + [6] * 256 + [1] * (n_vocab - 259)
        infos, data = b"", b""
        for name, (shape, v) in self.tensors.items():
            data += b"\0" * (-len(data) % 32)
            infos += gguf_string(name) + struct.pack("<I", len(shape))
            infos += b"".join(struct.pack("<Q", d) for d in reversed(shape)) + struct.pack("<IQ", 0, len(data))
            data += array.array("f", v).tobytes()
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(keys))
        head += b"".join(gguf_string(k) + gguf_value(v) for k, v in keys.items()) + infos
        with open(path, "wb") as f:
            f.write(head + b"\0" * (-len(head) % 32) + data)


# ---- arithmetic --------------------------------------------------------------------------------------------------

def mul(rows, x):
    return [math.fsum(a * b for a, b in zip(r, x)) for r in rows]


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def rms(x, w=None, eps=1e-5):
    f = 1 / math.sqrt(math.fsum(v * v for v in x) / len(x) + eps)
    return [v * f * (w[i] if w else 1) for i, v in enumerate(x)]


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def silu(v):
    return v * sigmoid(v)


def gelu(v):
    return v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ** 3)))


def softmax(x):
    m = max(x)
    e = [math.exp(v - m) for v in x]
    s = math.fsum(e)
    return [v / s for v in e]


def rotate(x, pos, n_rot, base, halves, factors=None):
    y = list(x)
    for i in range(n_rot // 2):
        angle = pos * base ** (-2 * i / n_rot) / (factors[i] if factors else 1)
        a, b = (i, i + n_rot // 2) if halves else (2 * i, 2 * i + 1)
        c, s = math.cos(angle), math.sin(angle)
        y[a], y[b] = x[a] * c - x[b] * s, x[a] * s + x[b] * c
    return y


def heads(x, n):
    d = len(x) // n
    return [x[i * d:(i + 1) * d] for i in range(n)]


def attend(qs, keys, values, n_head, n_kv, scale, sees):
    """qs, keys, values: by position, lists of heads. Returns by position the heads' outputs, joined."""
    out = []
    for t, q in enumerate(qs):
        joined = []
        for h in range(n_head):
            kv = h * n_kv // n_head
            at = [p for p in range(t + 1) if sees(t, p)]
            w = softmax([scale * math.fsum(a * b for a, b in zip(q[h], keys[p][kv])) for p in at])
            joined += [math.fsum(w[i] * values[p][kv][d] for i, p in enumerate(at)) for d in range(len(values[0][0]))]
        out.append(joined)
    return out


def glu(act, gate, up, down, x):
    return mul(down, [act(g) * u for g, u in zip(mul(gate, x), mul(up, x))])


def best(p, n):
    return sorted(sorted(range(len(p)), key=lambda i: (-p[i], i))[:n])


# ---- llama4 ------------------------------------------------------------------------------------------------------

def llama4(scout, n_layer=5, chunk=8192):
    d, n_head, n_kv, hd, ff, n_exp, ffe, V = 32, 4, 2, 8, 48, 4 if scout else 128, 24, 300
    step = 1 if scout else 2
    m = Model("llama4", 4 if scout else 5, block_count=n_layer, embedding_length=d, context_length=20000,
              attention__head_count=n_head, attention__head_count_kv=n_kv, attention__key_length=hd,
              attention__value_length=hd, feed_forward_length=ff, expert_count=n_exp, expert_used_count=1,
              expert_feed_forward_length=ffe, interleave_moe_layer_step=step, rope__freq_base=500000.0,
              rope__dimension_count=hd, attention__layer_norm_rms_epsilon=1e-5,
              **({} if chunk == 8192 else {"attention__chunk_size": chunk}))
    m.add("token_embd.weight", V, d, scale=1)
    m.add("output.weight", V, d)
    m.norm("output_norm.weight", d)
    m.add("rope_freqs.weight", hd // 2, scale=0.5, mean=2.0)
    for i in range(n_layer):
        p = f"blk.{i}."
        m.norm(p + "attn_norm.weight", d)
        m.norm(p + "ffn_norm.weight", d)
        m.add(p + "attn_q.weight", n_head * hd, d)
        m.add(p + "attn_k.weight", n_kv * hd, d)
        m.add(p + "attn_v.weight", n_kv * hd, d)
        m.add(p + "attn_output.weight", d, n_head * hd)
        if (i + 1) % step == 0:
            m.add(p + "ffn_gate_inp.weight", n_exp, d)
            for name, r, c in (("gate", ffe, d), ("up", ffe, d), ("down", d, ffe)):
                m.add(p + f"ffn_{name}_exps.weight", n_exp, r, c)
                m.add(p + f"ffn_{name}_shexp.weight", r, c)
        else:
            for name, r, c in (("gate", ff, d), ("up", ff, d), ("down", d, ff)):
                m.add(p + f"ffn_{name}.weight", r, c)

    def run(tokens):
        xs = [m.rows("token_embd.weight")[t] for t in tokens]
        for i in range(n_layer):
            p = f"blk.{i}."
            full = (i + 1) % 4 == 0
            qs, ks, vs = [], [], []
            for t, x in enumerate(xs):
                h = rms(x, m.vec(p + "attn_norm.weight"))
                q, k = heads(mul(m.rows(p + "attn_q.weight"), h), n_head), heads(mul(m.rows(p + "attn_k.weight"), h), n_kv)
                if not full:
                    q = [rotate(v, t, hd, 500000.0, False, m.vec("rope_freqs.weight")) for v in q]
                    k = [rotate(v, t, hd, 500000.0, False, m.vec("rope_freqs.weight")) for v in k]
                    if scout:
                        q, k = [rms(v) for v in q], [rms(v) for v in k]
                else:
                    f = 1 + 0.1 * math.log(1 + math.floor((t + 1) / 8192))
                    q = [[f * a for a in v] for v in q]
                qs.append(q), ks.append(k), vs.append(heads(mul(m.rows(p + "attn_v.weight"), h), n_kv))
            sees = (lambda t, s: True) if full else (lambda t, s: t // chunk == s // chunk)
            att = attend(qs, ks, vs, n_head, n_kv, 1 / math.sqrt(hd), sees)
            for t, x in enumerate(xs):
                x = add(x, mul(m.rows(p + "attn_output.weight"), att[t]))
                h = rms(x, m.vec(p + "ffn_norm.weight"))
                if (i + 1) % step == 0:
                    r = mul(m.rows(p + "ffn_gate_inp.weight"), h)
                    e = best(r, 1)[0]
                    w = sigmoid(r[e])
                    y = glu(silu, *(m.rows(p + f"ffn_{n}_exps.weight", e) for n in ("gate", "up", "down")), [w * v for v in h])
                    y = add(y, glu(silu, *(m.rows(p + f"ffn_{n}_shexp.weight") for n in ("gate", "up", "down")), h))
                else:
                    y = glu(silu, *(m.rows(p + f"ffn_{n}.weight") for n in ("gate", "up", "down")), h)
                xs[t] = add(x, y)
        return [mul(m.rows("output.weight"), rms(x, m.vec("output_norm.weight"))) for x in xs]

    return m, V, run


# ---- qwen2moe ----------------------------------------------------------------------------------------------------

def qwen2moe():
    d, n_layer, n_head, n_kv, hd, n_exp, used, ffe, ffs, V = 32, 2, 4, 2, 8, 6, 2, 24, 40, 300
    m = Model("qwen2moe", 6, block_count=n_layer, embedding_length=d, context_length=512, attention__head_count=n_head,
              attention__head_count_kv=n_kv, feed_forward_length=64, expert_count=n_exp, expert_used_count=used,
              expert_feed_forward_length=ffe, expert_shared_feed_forward_length=ffs, rope__freq_base=1000000.0,
              attention__layer_norm_rms_epsilon=1e-6)
    m.add("token_embd.weight", V, d, scale=1)
    m.add("output.weight", V, d)
    m.norm("output_norm.weight", d)
    for i in range(n_layer):
        p = f"blk.{i}."
        m.norm(p + "attn_norm.weight", d)
        m.norm(p + "ffn_norm.weight", d)
        for name, r in (("q", n_head * hd), ("k", n_kv * hd), ("v", n_kv * hd)):
            m.add(p + f"attn_{name}.weight", r, d)
            m.add(p + f"attn_{name}.bias", r, scale=0.5)
        m.add(p + "attn_output.weight", d, n_head * hd)
        m.add(p + "ffn_gate_inp.weight", n_exp, d)
        m.add(p + "ffn_gate_inp_shexp.weight", d, scale=0.5)
        for name, r, c in (("gate", ffe, d), ("up", ffe, d), ("down", d, ffe)):
            m.add(p + f"ffn_{name}_exps.weight", n_exp, r, c)
        for name, r, c in (("gate", ffs, d), ("up", ffs, d), ("down", d, ffs)):
            m.add(p + f"ffn_{name}_shexp.weight", r, c)

    def run(tokens):
        xs = [m.rows("token_embd.weight")[t] for t in tokens]
        for i in range(n_layer):
            p = f"blk.{i}."
            qs, ks, vs = [], [], []
            for t, x in enumerate(xs):
                h = rms(x, m.vec(p + "attn_norm.weight"), 1e-6)
                q, k, v = (add(mul(m.rows(p + f"attn_{n}.weight"), h), m.vec(p + f"attn_{n}.bias")) for n in "qkv")
                qs.append([rotate(a, t, hd, 1e6, True) for a in heads(q, n_head)])
                ks.append([rotate(a, t, hd, 1e6, True) for a in heads(k, n_kv)])
                vs.append(heads(v, n_kv))
            att = attend(qs, ks, vs, n_head, n_kv, 1 / math.sqrt(hd), lambda t, s: True)
            for t, x in enumerate(xs):
                x = add(x, mul(m.rows(p + "attn_output.weight"), att[t]))
                h = rms(x, m.vec(p + "ffn_norm.weight"), 1e-6)
                w = softmax(mul(m.rows(p + "ffn_gate_inp.weight"), h))
                y = glu(silu, *(m.rows(p + f"ffn_{n}_shexp.weight") for n in ("gate", "up", "down")), h)
                g = sigmoid(mul([m.vec(p + "ffn_gate_inp_shexp.weight")], h)[0])
                y = [g * a for a in y]
                for e in best(w, used):  # not brought to a sum of 1
                    a = glu(silu, *(m.rows(p + f"ffn_{n}_exps.weight", e) for n in ("gate", "up", "down")), h)
                    y = [b + w[e] * c for b, c in zip(y, a)]
                xs[t] = add(x, y)
        return [mul(m.rows("output.weight"), rms(x, m.vec("output_norm.weight"), 1e-6)) for x in xs]

    return m, V, run


# ---- gemma4 with experts and without per-layer embeddings -----------------------------------------------------------

def gemma4moe():
    d, n_layer, n_head, ff, n_exp, used, ffe, V, win = 32, 4, 4, 40, 6, 2, 24, 300, 8
    swa = [True, True, False, True]
    kv = [2, 2, 1, 2]
    hds, hdf = 8, 16
    m = Model("gemma4", 7, block_count=n_layer, embedding_length=d, context_length=512, attention__head_count=n_head,
              attention__head_count_kv=kv, attention__key_length=hdf, attention__value_length=hdf,
              attention__key_length_swa=hds, attention__value_length_swa=hds, rope__dimension_count=hdf,
              rope__dimension_count_swa=hds, rope__freq_base=1000000.0, rope__freq_base_swa=10000.0,
              attention__sliding_window=win, attention__sliding_window_pattern=swa, feed_forward_length=ff,
              expert_count=n_exp, expert_used_count=used, expert_feed_forward_length=ffe,
              attention__layer_norm_rms_epsilon=1e-6, final_logit_softcapping=6.0)
    m.add("token_embd.weight", V, d, scale=0.3)
    m.norm("output_norm.weight", d)
    m.tensors["rope_freqs.weight"] = ((hdf // 2,), [1.0] * (hdf // 4) + [array.array("f", [1e30])[0]] * (hdf // 4))
    for i in range(n_layer):
        p, hd = f"blk.{i}.", hds if swa[i] else hdf
        for name in ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "post_ffw_norm_1",
                     "pre_ffw_norm_2", "post_ffw_norm_2"):
            m.norm(p + name + ".weight", d)
        m.add(p + "attn_q.weight", n_head * hd, d)
        m.add(p + "attn_k.weight", kv[i] * hd, d)
        if swa[i]:
            m.add(p + "attn_v.weight", kv[i] * hd, d)
        m.norm(p + "attn_q_norm.weight", hd)
        m.norm(p + "attn_k_norm.weight", hd)
        m.add(p + "attn_output.weight", d, n_head * hd)
        m.norm(p + "layer_output_scale.weight", 1)
        for name, r, c in (("gate", ff, d), ("up", ff, d), ("down", d, ff)):
            m.add(p + f"ffn_{name}.weight", r, c)
        m.add(p + "ffn_gate_inp.weight", n_exp, d, scale=6.0)
        m.norm(p + "ffn_gate_inp.scale", d)
        m.add(p + "ffn_gate_up_exps.weight", n_exp, 2 * ffe, d)
        m.add(p + "ffn_down_exps.weight", n_exp, d, ffe)
        m.norm(p + "ffn_down_exps.scale", n_exp)

    def run(tokens):
        xs = [[v * math.sqrt(d) for v in m.rows("token_embd.weight")[t]] for t in tokens]
        for i in range(n_layer):
            p, hd = f"blk.{i}.", hds if swa[i] else hdf
            qs, ks, vs = [], [], []
            for t, x in enumerate(xs):
                h = rms(x, m.vec(p + "attn_norm.weight"), 1e-6)
                q, k = heads(mul(m.rows(p + "attn_q.weight"), h), n_head), heads(mul(m.rows(p + "attn_k.weight"), h), kv[i])
                v = heads(mul(m.rows(p + "attn_v.weight"), h), kv[i]) if swa[i] else k
                turn = (lambda a: rotate(a, t, hd, 10000.0, True)) if swa[i] else \
                    (lambda a: rotate(a, t, hd, 1e6, True, m.vec("rope_freqs.weight")))
                qs.append([turn(rms(a, m.vec(p + "attn_q_norm.weight"), 1e-6)) for a in q])
                ks.append([turn(rms(a, m.vec(p + "attn_k_norm.weight"), 1e-6)) for a in k])
                vs.append([rms(a, None, 1e-6) for a in v])
            sees = (lambda t, s: t - s < win) if swa[i] else (lambda t, s: True)
            att = attend(qs, ks, vs, n_head, kv[i], 1.0, sees)
            for t, x in enumerate(xs):
                x = add(x, rms(mul(m.rows(p + "attn_output.weight"), att[t]), m.vec(p + "post_attention_norm.weight"), 1e-6))
                dense = glu(gelu, *(m.rows(p + f"ffn_{n}.weight") for n in ("gate", "up", "down")),
                            rms(x, m.vec(p + "ffn_norm.weight"), 1e-6))
                dense = rms(dense, m.vec(p + "post_ffw_norm_1.weight"), 1e-6)
                r = [a * b / math.sqrt(d) for a, b in zip(rms(x, None, 1e-6), m.vec(p + "ffn_gate_inp.scale"))]
                w = softmax(mul(m.rows(p + "ffn_gate_inp.weight"), r))
                chosen = best(w, used)
                total = sum(w[e] for e in chosen)
                h, y = rms(x, m.vec(p + "pre_ffw_norm_2.weight"), 1e-6), [0.0] * d
                for e in chosen:
                    gu = m.rows(p + "ffn_gate_up_exps.weight", e)
                    a = glu(gelu, gu[:ffe], gu[ffe:], m.rows(p + "ffn_down_exps.weight", e), h)
                    f = w[e] / total * m.vec(p + "ffn_down_exps.scale")[e]
                    y = [b + f * c for b, c in zip(y, a)]
                y = add(dense, rms(y, m.vec(p + "post_ffw_norm_2.weight"), 1e-6))
                x = add(x, rms(y, m.vec(p + "post_ffw_norm.weight"), 1e-6))
                xs[t] = [v * m.vec(p + "layer_output_scale.weight")[0] for v in x]
        out = [mul(m.rows("token_embd.weight"), rms(x, m.vec("output_norm.weight"), 1e-6)) for x in xs]
        return [[6 * math.tanh(v / 6) for v in row] for row in out]

    return m, V, run


# ---- comparing ---------------------------------------------------------------------------------------------------

def logits(path, tokens, V):
    out, toks = os.path.join(work, "m.out"), os.path.join(work, "m.txt")
    with open(toks, "w") as f:
        f.write(" ".join(map(str, tokens)) + "\n")
    subprocess.run([polder, "logits", path, "--tokens", toks, "--out", out, "--chunk", "257"], check=True)
    got = array.array("f")
    with open(out, "rb") as f:
        got.frombytes(f.read())
    return [got[t * V: (t + 1) * V] for t in range(len(got) // V)]


def chunks_are_apart():
    """Three layers of llama4 all attend within chunks of 8192: what stands before a border is not seen behind it."""
    m, V, _ = llama4(True, 3)
    path = os.path.join(work, "m.gguf")
    m.write(path, V)
    rng = random.Random(3)
    tokens = [rng.randrange(V) for _ in range(8200)]
    a = logits(path, tokens, V)
    tokens[8190] = (tokens[8190] + 1) % V
    b = logits(path, tokens, V)
    return a[8192:] == b[8192:] and a[8191] != b[8191] and a[:8190] == b[:8190] and len(a) == 8200


passed = failed = 0
for name, (m, V, run) in (("llama4 scout", llama4(True)), ("llama4 maverick", llama4(False)),
                          ("llama4, chunks of 7", llama4(True, chunk=7)), ("qwen2moe", qwen2moe()),
                          ("gemma4 experts", gemma4moe())):
    path = os.path.join(work, "m.gguf")
    m.write(path, V)
    rng = random.Random(9)
    tokens = [rng.randrange(V) for _ in range(24)]
    got = logits(path, tokens, V)
    want = run(tokens)
    diffs = [abs(got[t][i] - want[t][i]) for t in range(len(tokens)) for i in range(V)]
    spread = math.sqrt(sum(v * v for row in want for v in row) / (V * len(want)))
    ok = len(got) == len(tokens) and max(diffs) <= 2e-4 and spread > 0.3
    print(f"{'ok  ' if ok else 'FAIL'} {name}: max abs {max(diffs):.2e}, allowed 2e-4; logits have RMS {spread:.2f}")
    passed, failed = passed + ok, failed + (not ok)
ok = chunks_are_apart()
print(f"{'ok  ' if ok else 'FAIL'} llama4: chunks of 8192 positions do not see each other")
passed, failed = passed + ok, failed + (not ok)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
