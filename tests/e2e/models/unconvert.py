#!/usr/bin/env python3
"""unconvert.py MODEL.gguf FOLDER: write the checkpoint that a GGUF file could have come from.

Tensors go back to the names, shapes and orders of Hugging Face transformers, keys to config.json: the inverse of what
`polder model convert` does, written apart from it. The tokenizer is a stand-in (256 bytes and padding): names of tokens
are not what is compared. Options: --shards N writes several files with an index.
"""
import array, json, math, os, struct, sys

TYPES = {0: ("F32", 4), 1: ("F16", 2), 30: ("BF16", 2)}
SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
         11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2),
         39: (32, 17)}


class Gguf:
    def __init__(self, path):
        self.b, self.o = open(path, "rb").read(), 4
        self.num("I")
        n_tensors, n_keys = self.num("Q"), self.num("Q")
        self.keys, self.tensors = {}, {}
        for _ in range(n_keys):
            name = self.text()
            self.keys[name] = self.value(self.num("I"))
        infos = []
        for _ in range(n_tensors):
            name = self.text()
            dims = [self.num("Q") for _ in range(self.num("I"))]
            infos.append((name, dims, self.num("I"), self.num("Q")))
        align = self.keys.get("general.alignment", 32)
        start = (self.o + align - 1) // align * align
        for name, dims, kind, offset in infos:
            block, size = SIZES[kind]
            n = math.prod(dims) // block * size
            self.tensors[name] = (kind, dims, self.b[start + offset:start + offset + n])

    def num(self, f):
        v = struct.unpack_from("<" + f, self.b, self.o)[0]
        self.o += struct.calcsize("<" + f)
        return v

    def text(self):
        n = self.num("Q")
        self.o += n
        return self.b[self.o - n:self.o].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            elem, n = self.num("I"), self.num("Q")
            return [self.value(elem) for _ in range(n)]
        return self.num("BbHhIif?__QqdE"[kind] if kind != 12 else "d")


class Hf:  # a tensor of a checkpoint: shape with the slowest dimension first
    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, list(shape), bytes(data)

    def size(self):
        return {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "F8_E4M3": 1}[self.dtype]

    def rows(self):  # as rows of the last dimension
        n = self.shape[-1] * self.size() if len(self.shape) > 1 else self.size()
        return [self.data[i:i + n] for i in range(0, len(self.data), n)]

    def take(self, order):
        r = self.rows()
        return Hf(self.dtype, self.shape, b"".join(r[i] for i in order))

    def elements(self):
        n = self.size()
        return [self.data[i:i + n] for i in range(0, len(self.data), n)]

    def floats(self):
        return array.array("f", self.data)

    def split(self):  # the first dimension apart
        n = len(self.data) // self.shape[0]
        return [Hf(self.dtype, self.shape[1:], self.data[i * n:(i + 1) * n]) for i in range(self.shape[0])]

    def transpose(self):  # the last two dimensions
        r, c = self.shape[-2:]
        e, out = self.elements(), []
        for o in range(0, len(e), r * c):
            out += [e[o + i * c + j] for j in range(c) for i in range(r)]
        return Hf(self.dtype, self.shape[:-2] + [c, r], b"".join(out))


def q8_floats(data):  # checkpoints have no Q8_0
    out = []
    for i in range(0, len(data), 34):
        d = struct.unpack_from("<e", data, i)[0]
        out += [d * q for q in struct.unpack_from("<32b", data, i + 2)]
    return out


def from_floats(values, shape):
    return Hf("F32", shape, array.array("f", values).tobytes())


def unpermute(t, heads):
    n = t.shape[0] // heads
    return t.take([h * n + 2 * i + s for h in range(heads) for s in range(2) for i in range(n // 2)])


def grouped(n_k, n_v, unit):  # tiled order -> grouped by key head
    per = n_v // n_k
    return [((j * n_k + k) * unit + d) for k in range(n_k) for j in range(per) for d in range(unit)]


class Model:
    def __init__(self, g):
        self.g, self.arch, self.out = g, g.keys["general.architecture"], {}
        self.left = dict(g.tensors)
        self.config = {"vocab_size": self.dims("token_embd.weight")[1]}

    def key(self, name, default=None):
        return self.g.keys.get(f"{self.arch}.{name}", default)

    def dims(self, name):
        return self.g.tensors[name][1]

    def has(self, name):
        return name in self.left

    def take(self, name):
        kind, dims, data = self.left.pop(name)
        if kind == 8:
            return from_floats(q8_floats(data), list(reversed(dims)))
        return Hf(TYPES[kind][0], list(reversed(dims)), data)

    def put(self, hf, name, fn=None):
        if not self.has(name):
            return
        t = self.take(name)
        self.out[hf] = fn(t) if fn else t

    def both(self, hf, name, fn=None):
        for end in (".weight", ".bias"):
            self.put(hf + end, name + end, fn)

    def common(self):
        c = self.config
        for hf, name in (("num_hidden_layers", "block_count"), ("hidden_size", "embedding_length"),
                         ("max_position_embeddings", "context_length"), ("num_attention_heads", "attention.head_count"),
                         ("intermediate_size", "feed_forward_length"), ("head_dim", "attention.key_length"),
                         ("num_key_value_heads", "attention.head_count_kv"), ("rope_theta", "rope.freq_base"),
                         ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
                         ("num_experts_per_tok", "expert_used_count")):
            v = self.key(name)
            if v is not None and not isinstance(v, list):
                c[hf] = v
        c["tie_word_embeddings"] = "output.weight" not in self.g.tensors
        if self.key("rope.scaling.type") == "yarn":
            r = c["rope_scaling"] = {"rope_type": "yarn", "factor": self.key("rope.scaling.factor"),
                                     "original_max_position_embeddings": self.key(
                                         "rope.scaling.original_context_length")}
            for hf, name in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
                if self.key("rope.scaling." + name) is not None:
                    r[hf] = self.key("rope.scaling." + name)
        if self.key("rope.scaling.type") == "linear":
            c["rope_scaling"] = {"rope_type": "linear", "factor": self.key("rope.scaling.factor")}

    def ends(self, fn=None, prefix="model."):
        self.put(prefix + "embed_tokens.weight", "token_embd.weight")
        self.put(prefix + "norm.weight", "output_norm.weight", fn)
        self.put("lm_head.weight", "output.weight")

    def dense(self, p, b):
        for hf in ("gate", "up", "down"):
            self.both(f"{p}mlp.{hf}_proj", f"{b}ffn_{hf}")

    def experts(self, p, b, names=("gate_proj", "up_proj", "down_proj"), at="mlp.experts"):
        for name, hf in zip(("gate", "up", "down"), names):
            if self.has(f"{b}ffn_{name}_exps.weight"):
                for e, t in enumerate(self.take(f"{b}ffn_{name}_exps.weight").split()):
                    self.out[f"{p}{at}.{e}.{hf}.weight"] = t

    def attention(self, p, b, q=None, k=None, norm=None):
        self.both(p + "self_attn.q_proj", b + "attn_q", q)
        self.both(p + "self_attn.k_proj", b + "attn_k", k)
        self.both(p + "self_attn.v_proj", b + "attn_v")
        self.both(p + "self_attn.o_proj", b + "attn_output")
        self.put(p + "self_attn.q_norm.weight", b + "attn_q_norm.weight", norm)
        self.put(p + "self_attn.k_norm.weight", b + "attn_k_norm.weight", norm)

    def layers(self, prefix="model.layers"):
        for i in range(self.key("block_count")):
            yield i, f"{prefix}.{i}.", f"blk.{i}."


def less_one(t):
    return from_floats([v - 1 for v in t.floats()], t.shape)


def llama(m):
    m.common()
    m.config["architectures"] = ["MixtralForCausalLM" if m.key("expert_count") else "LlamaForCausalLM"]
    if m.arch == "mistral3":
        m.config["architectures"] = ["Mistral3ForConditionalGeneration"]
        m.config["rope_parameters"] = m.config.pop("rope_scaling")
        m.config["rope_parameters"].update(rope_theta=m.config.pop("rope_theta"), mscale_all_dim=m.key(
            "rope.scaling.yarn_log_multiplier"), llama_4_scaling_beta=m.key("attention.temperature_scale"))
        text = dict(m.config)
        m.config = {"architectures": text.pop("architectures"), "model_type": "mistral3", "text_config": text,
                    "vision_config": {}}
        m.out["vision_tower.patch_conv.weight"] = from_floats([0.5] * 12, [3, 4])
        m.out["multi_modal_projector.linear_1.weight"] = from_floats([0.5] * 12, [3, 4])
    if m.key("expert_count"):
        m.config["num_local_experts"] = m.key("expert_count")
    prefix = "language_model.model." if m.arch == "mistral3" else "model."
    m.ends(prefix=prefix)
    if m.arch == "mistral3" and "lm_head.weight" in m.out:
        m.out["language_model.lm_head.weight"] = m.out.pop("lm_head.weight")
    if m.has("rope_freqs.weight"):
        factors = list(m.take("rope_freqs.weight").floats())
        m.config["rope_scaling"] = {"rope_type": "llama3", "factor": max(factors), "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        m.wanted_freqs = factors
    heads, kv = m.key("attention.head_count"), m.key("attention.head_count_kv")
    for i, p, b in m.layers(prefix + "layers"):
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight")
        m.attention(p, b, lambda t: unpermute(t, heads), lambda t: unpermute(t, kv))
        m.put(p + "post_attention_layernorm.weight", b + "ffn_norm.weight")
        m.dense(p, b)
        m.put(p + "block_sparse_moe.gate.weight", b + "ffn_gate_inp.weight")
        m.experts(p, b, ("w1", "w3", "w2"), "block_sparse_moe.experts")


def qwen(m):
    m.common()
    names = {"qwen2": "Qwen2", "qwen3": "Qwen3", "qwen2moe": "Qwen2Moe", "qwen3moe": "Qwen3Moe"}
    m.config["architectures"] = [names[m.arch] + "ForCausalLM"]
    if m.key("expert_count"):
        m.config.update(num_experts=m.key("expert_count"), moe_intermediate_size=m.key("expert_feed_forward_length"))
    m.ends()
    for i, p, b in m.layers():
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight")
        m.attention(p, b)
        m.put(p + "post_attention_layernorm.weight", b + "ffn_norm.weight")
        m.dense(p, b)
        m.put(p + "mlp.gate.weight", b + "ffn_gate_inp.weight")
        m.experts(p, b)


def linear(m):
    """qwen3next and qwen35: gated DeltaNet."""
    m.common()
    n_k, n_v = m.key("ssm.group_count"), m.key("ssm.time_step_rank")
    dk, dv = m.key("ssm.state_size"), m.key("ssm.inner_size") // m.key("ssm.time_step_rank")
    m.config.update(architectures=["Qwen3NextForCausalLM"], linear_num_key_heads=n_k, linear_num_value_heads=n_v,
                    linear_key_head_dim=dk, linear_value_head_dim=dv, linear_conv_kernel_dim=m.key("ssm.conv_kernel"),
                    partial_rotary_factor=m.key("rope.dimension_count") / m.key("attention.key_length"),
                    full_attention_interval=m.key("full_attention_interval", 4))
    prefix = "model."
    if m.key("expert_count"):
        m.config.update(num_experts=m.key("expert_count"), moe_intermediate_size=m.key("expert_feed_forward_length"),
                        shared_expert_intermediate_size=m.key("expert_shared_feed_forward_length"))
    if m.arch == "qwen35":
        prefix = "model.language_model."
        m.config["rope_parameters"] = {"rope_type": "default", "mrope_section": m.key("rope.dimension_sections")[:3],
                                       "rope_theta": m.config.pop("rope_theta"),
                                       "partial_rotary_factor": m.config.pop("partial_rotary_factor")}
        m.config["layer_types"] = ["full_attention" if (i + 1) % 4 == 0 else "linear_attention"
                                   for i in range(m.key("block_count"))]
        text = m.config
        m.config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": text}
        m.out["model.visual.blocks.0.norm1.weight"] = from_floats([1.0] * 4, [4])
        m.out["mtp.fc.weight"] = from_floats([1.0] * 4, [2, 2])
    m.ends(less_one, prefix)
    v_rows, heads = grouped(n_k, n_v, dv), grouped(n_k, n_v, 1)
    before = list(range(2 * n_k * dk))
    neg_log = lambda t: from_floats([math.log(-v) for v in t.floats()], t.shape)
    conv = lambda t: Hf(t.dtype, [t.shape[0], 1, t.shape[1]], t.data)
    for i, p, b in m.layers(prefix + "layers"):
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight", less_one)
        m.put(p + "post_attention_layernorm.weight", b + "post_attention_norm.weight", less_one)
        m.attention(p, b, norm=less_one)
        a = p + "linear_attn."
        m.put(a + "norm.weight", b + "ssm_norm.weight")
        if m.arch == "qwen35":
            after = before + [len(before) + r for r in v_rows]
            m.put(a + "in_proj_qkv.weight", b + "attn_qkv.weight", lambda t: t.take(after))
            m.put(a + "in_proj_z.weight", b + "attn_gate.weight", lambda t: t.take(v_rows))
            m.put(a + "in_proj_b.weight", b + "ssm_beta.weight", lambda t: t.take(heads))
            m.put(a + "in_proj_a.weight", b + "ssm_alpha.weight", lambda t: t.take(heads))
            m.put(a + "conv1d.weight", b + "ssm_conv1d.weight", lambda t: conv(t.take(after)))
            m.put(a + "dt_bias", b + "ssm_dt.bias", lambda t: t.take(heads))
            m.put(a + "A_log", b + "ssm_a", lambda t: neg_log(t.take(heads)))
            m.put(a + "out_proj.weight", b + "ssm_out.weight", lambda t: t.transpose().take(v_rows).transpose())
        else:
            m.put(a + "in_proj_ba.weight", b + "ssm_ba.weight")
            m.put(a + "conv1d.weight", b + "ssm_conv1d.weight", conv)
            m.put(a + "dt_bias", b + "ssm_dt.bias")
            m.put(a + "A_log", b + "ssm_a", neg_log)
            m.put(a + "out_proj.weight", b + "ssm_out.weight")
            if m.has(b + "attn_gate.weight"):
                qkv, z, per = m.take(b + "attn_qkv.weight"), m.take(b + "attn_gate.weight"), n_v // n_k * dv
                r, zr, rows = qkv.rows(), z.rows(), []
                for h in range(n_k):
                    rows += r[h * dk:(h + 1) * dk] + r[(n_k + h) * dk:(n_k + h + 1) * dk]
                    rows += r[2 * n_k * dk + h * per:2 * n_k * dk + (h + 1) * per] + zr[h * per:(h + 1) * per]
                m.out[a + "in_proj_qkvz.weight"] = Hf(qkv.dtype, [len(rows), qkv.shape[1]], b"".join(rows))
        m.dense(p, b)
        m.put(p + "mlp.gate.weight", b + "ffn_gate_inp.weight")
        m.experts(p, b)
        m.put(p + "mlp.shared_expert_gate.weight", b + "ffn_gate_inp_shexp.weight",
              lambda t: Hf(t.dtype, [1] + t.shape[-1:], t.data))
        for n in ("gate", "up", "down"):
            m.put(f"{p}mlp.shared_expert.{n}_proj.weight", f"{b}ffn_{n}_shexp.weight")


def gemma(m):
    m.common()
    m.config.update(architectures=["Gemma2ForCausalLM" if m.arch == "gemma2" else "Gemma3ForCausalLM"],
                    sliding_window=m.key("attention.sliding_window"), tie_word_embeddings=True)
    if m.arch == "gemma2":
        m.config.update(attn_logit_softcapping=m.key("attn_logit_softcapping"),
                        final_logit_softcapping=m.key("final_logit_softcapping"))
    else:
        m.config["rope_local_base_freq"] = 10000.0
    m.ends(less_one)
    for i, p, b in m.layers():
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight", less_one)
        m.attention(p, b, norm=less_one)
        m.put(p + "post_attention_layernorm.weight", b + "post_attention_norm.weight", less_one)
        m.put(p + "pre_feedforward_layernorm.weight", b + "ffn_norm.weight", less_one)
        m.dense(p, b)
        m.put(p + "post_feedforward_layernorm.weight", b + "post_ffw_norm.weight", less_one)


def gemma4(m):
    m.common()
    c, n = m.config, m.key("block_count")
    swa = m.key("attention.sliding_window_pattern")
    ff = m.key("feed_forward_length")
    c.update(architectures=["Gemma4ForConditionalGeneration"], head_dim=m.key("attention.key_length_swa"),
             global_head_dim=m.key("attention.key_length"), sliding_window=m.key("attention.sliding_window"),
             num_kv_shared_layers=m.key("attention.shared_kv_layers"), intermediate_size=ff[0],
             use_double_wide_mlp=ff[-1] != ff[0], hidden_size_per_layer_input=m.key("embedding_length_per_layer_input"),
             final_logit_softcapping=m.key("final_logit_softcapping"), enable_moe_block=False,
             layer_types=["sliding_attention" if s else "full_attention" for s in swa])
    freqs = list(m.take("rope_freqs.weight").floats())
    part = sum(1 for f in freqs if f < 1e20) / len(freqs)
    c["rope_parameters"] = {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": part, "rope_theta": c.pop("rope_theta")},
        "sliding_attention": {"rope_type": "default", "rope_theta": m.key("rope.freq_base_swa")}}
    m.wanted_freqs = freqs
    p0 = "model.language_model."
    m.ends(prefix=p0)
    m.put(p0 + "embed_tokens_per_layer.weight", "per_layer_token_embd.weight")
    m.put(p0 + "per_layer_model_projection.weight", "per_layer_model_proj.weight")
    m.put(p0 + "per_layer_projection_norm.weight", "per_layer_proj_norm.weight")
    for i, p, b in m.layers(p0 + "layers"):
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight")
        m.attention(p, b)
        m.put(p + "post_attention_layernorm.weight", b + "post_attention_norm.weight")
        m.put(p + "pre_feedforward_layernorm.weight", b + "ffn_norm.weight")
        m.put(p + "post_feedforward_layernorm.weight", b + "post_ffw_norm.weight")
        m.dense(p, b)
        m.put(p + "per_layer_input_gate.weight", b + "inp_gate.weight")
        m.put(p + "per_layer_projection.weight", b + "proj.weight")
        m.put(p + "post_per_layer_input_norm.weight", b + "post_norm.weight")
        m.put(p + "layer_scalar", b + "layer_output_scale.weight")
    m.config = {"architectures": c.pop("architectures"), "text_config": c}


def deepseek(m):
    m.common()
    c = m.config
    c.pop("head_dim", None)
    rank, rope = m.key("attention.kv_lora_rank"), m.key("rope.dimension_count")
    heads = m.key("attention.head_count")
    nope, v = m.key("attention.key_length_mla") - rope, m.key("attention.value_length_mla")
    c.update(architectures=["DeepseekV3ForCausalLM"], kv_lora_rank=rank, qk_rope_head_dim=rope, qk_nope_head_dim=nope,
             v_head_dim=v, num_key_value_heads=heads, q_lora_rank=m.key("attention.q_lora_rank") or None,
             n_routed_experts=m.key("expert_count"), moe_intermediate_size=m.key("expert_feed_forward_length"),
             n_shared_experts=m.key("expert_shared_count"), routed_scaling_factor=m.key("expert_weights_scale"),
             norm_topk_prob=m.key("expert_weights_norm"), first_k_dense_replace=m.key("leading_dense_block_count"),
             scoring_func={1: "softmax", 2: "sigmoid"}[m.key("expert_gating_func")])
    for hf, name in (("n_group", "expert_group_count"), ("topk_group", "expert_group_used_count")):
        if m.key(name) is not None:
            c[hf] = m.key(name)
    if m.key("rope.scaling.yarn_log_multiplier") is not None:
        c["rope_scaling"]["mscale_all_dim"] = 10 * m.key("rope.scaling.yarn_log_multiplier")
    m.ends()
    for i, p, b in m.layers():
        a = p + "self_attn."
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight")
        for hf, name in (("q_proj", "attn_q"), ("q_a_proj", "attn_q_a"), ("q_a_layernorm", "attn_q_a_norm"),
                         ("q_b_proj", "attn_q_b"), ("kv_a_proj_with_mqa", "attn_kv_a_mqa"),
                         ("kv_a_layernorm", "attn_kv_a_norm"), ("o_proj", "attn_output")):
            m.put(f"{a}{hf}.weight", f"{b}{name}.weight")
        k, vb, rows = m.take(b + "attn_k_b.weight").transpose(), m.take(b + "attn_v_b.weight"), b""
        for kh, vh in zip(k.split(), vb.split()):
            rows += kh.data + vh.data
        m.out[a + "kv_b_proj.weight"] = Hf(k.dtype, [heads * (nope + v), rank], rows)
        m.put(p + "post_attention_layernorm.weight", b + "ffn_norm.weight")
        m.dense(p, b)
        m.put(p + "mlp.gate.weight", b + "ffn_gate_inp.weight")
        m.put(p + "mlp.gate.e_score_correction_bias", b + "exp_probs_b.bias")
        m.experts(p, b)
        for n in ("gate", "up", "down"):
            m.put(f"{p}mlp.shared_experts.{n}_proj.weight", f"{b}ffn_{n}_shexp.weight")
    m.out[f"model.layers.{m.key('block_count')}.eh_proj.weight"] = from_floats([1.0] * 4, [2, 2])


def phi3(m):
    m.common()
    c = m.config
    c.update(architectures=["Phi3ForCausalLM"], original_max_position_embeddings=m.key(
        "rope.scaling.original_context_length"))
    c.pop("head_dim")
    if m.has("rope_factors_long.weight"):
        c["rope_scaling"] = {"type": "longrope", "long_factor": list(m.take("rope_factors_long.weight").floats()),
                             "short_factor": list(m.take("rope_factors_short.weight").floats()),
                             "attention_factor": m.key("rope.scaling.attn_factor")}
    m.ends()
    for i, p, b in m.layers():
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight")
        m.put(p + "self_attn.qkv_proj.weight", b + "attn_qkv.weight")
        m.put(p + "self_attn.o_proj.weight", b + "attn_output.weight")
        m.put(p + "post_attention_layernorm.weight", b + "ffn_norm.weight")
        m.put(p + "mlp.gate_up_proj.weight", b + "ffn_up.weight")
        m.put(p + "mlp.down_proj.weight", b + "ffn_down.weight")


def interleave(a, b):
    out = b"".join(x + y for x, y in zip(a.elements(), b.elements()))
    return Hf(a.dtype, a.shape[:-1] + [2 * a.shape[-1]], out)


def mx_back(data, shape):  # GGUF blocks -> (blocks, scales) of a checkpoint
    blocks, scales = bytearray(), bytearray()
    for i in range(0, len(data), 17):
        scales.append(data[i])
        q = [data[i + 1 + j % 16] >> (4 * (j // 16)) & 15 for j in range(32)]
        blocks += bytes(q[2 * k] | q[2 * k + 1] << 4 for k in range(16))
    e, rows, cols = shape
    return Hf("U8", [e, rows, cols // 32, 16], blocks), Hf("U8", [e, rows, cols // 32], scales)


def zip_rows(a, b):  # rows of a and b in turn, within each expert
    n = len(a.data) // (a.shape[0] * a.shape[1])
    out = b"".join(a.data[i:i + n] + b.data[i:i + n] for i in range(0, len(a.data), n))
    return Hf(a.dtype, [a.shape[0], 2 * a.shape[1]] + a.shape[2:], out)


def gptoss(m):
    m.common()
    m.config.update(architectures=["GptOssForCausalLM"], sliding_window=m.key("attention.sliding_window"),
                    num_local_experts=m.key("expert_count"), intermediate_size=m.key("expert_feed_forward_length"))
    m.ends()
    for i, p, b in m.layers():
        m.put(p + "input_layernorm.weight", b + "attn_norm.weight")
        m.attention(p, b)
        m.put(p + "self_attn.sinks", b + "attn_sinks.weight")
        m.put(p + "post_attention_layernorm.weight", b + "post_attention_norm.weight")
        m.both(p + "mlp.router", b + "ffn_gate_inp")
        x = p + "mlp.experts."
        m.out[x + "gate_up_proj_bias"] = interleave(m.take(b + "ffn_gate_exps.bias"), m.take(b + "ffn_up_exps.bias"))
        m.put(x + "down_proj_bias", b + "ffn_down_exps.bias")
        if m.left[b + "ffn_gate_exps.weight"][0] == 39:
            m.config["quantization_config"] = {"quant_method": "mxfp4"}
            parts = {}
            for n in ("gate", "up", "down"):
                kind, dims, data = m.left.pop(f"{b}ffn_{n}_exps.weight")
                parts[n] = mx_back(data, list(reversed(dims)))
            for k, end in enumerate(("_blocks", "_scales")):
                m.out[x + "gate_up_proj" + end] = zip_rows(parts["gate"][k], parts["up"][k])
                m.out[x + "down_proj" + end] = parts["down"][k]
        else:
            both = zip_rows(m.take(b + "ffn_gate_exps.weight"), m.take(b + "ffn_up_exps.weight"))
            m.out[x + "gate_up_proj"] = both.transpose()
            m.put(x + "down_proj", b + "ffn_down_exps.weight", lambda t: t.transpose())


def bert(m):
    c = m.config
    c.update(num_hidden_layers=m.key("block_count"), hidden_size=m.key("embedding_length"),
             num_attention_heads=m.key("attention.head_count"), intermediate_size=m.key("feed_forward_length"),
             max_position_embeddings=m.key("context_length"), layer_norm_eps=m.key("attention.layer_norm_epsilon"),
             architectures=["BertModel"], position_embedding_type="absolute")
    m.put("embeddings.word_embeddings.weight", "token_embd.weight")
    m.put("embeddings.position_embeddings.weight", "position_embd.weight")
    m.put("embeddings.token_type_embeddings.weight", "token_types.weight")
    m.both("embeddings.LayerNorm", "token_embd_norm")
    for i, p, b in m.layers("encoder.layer"):
        for hf, name in (("attention.self.query", "attn_q"), ("attention.self.key", "attn_k"),
                         ("attention.self.value", "attn_v"), ("attention.output.dense", "attn_output"),
                         ("attention.output.LayerNorm", "attn_output_norm"), ("intermediate.dense", "ffn_up"),
                         ("output.dense", "ffn_down"), ("output.LayerNorm", "layer_output_norm")):
            m.both(p + hf, b + name)
    m.out["pooler.dense.weight"] = from_floats([1.0] * 4, [2, 2])


def nomic(m):
    c = m.config
    c.update(n_layer=m.key("block_count"), n_embd=m.key("embedding_length"), n_head=m.key("attention.head_count"),
             n_inner=m.key("feed_forward_length"), n_positions=m.key("context_length"),
             layer_norm_epsilon=m.key("attention.layer_norm_epsilon"), rotary_emb_base=m.key("rope.freq_base"),
             rotary_emb_fraction=1.0, activation_function="swiglu", architectures=["NomicBertModel"])
    m.put("embeddings.word_embeddings.weight", "token_embd.weight")
    m.put("embeddings.token_type_embeddings.weight", "token_types.weight")
    m.both("emb_ln", "token_embd_norm")
    for i, p, b in m.layers("encoder.layers"):
        for hf, name in (("attn.Wqkv", "attn_qkv"), ("attn.out_proj", "attn_output"), ("norm1", "attn_output_norm"),
                         ("mlp.fc12", "ffn_gate"), ("mlp.fc11", "ffn_up"), ("mlp.fc2", "ffn_down"),
                         ("norm2", "layer_output_norm")):
            m.both(p + hf, b + name)


FAMILIES = {"llama": llama, "mistral3": llama, "qwen2": qwen, "qwen3": qwen, "qwen2moe": qwen, "qwen3moe": qwen,
            "qwen3next": linear, "qwen35": linear, "gemma2": gemma, "gemma3": gemma, "gemma4": gemma4,
            "deepseek2": deepseek, "phi3": phi3, "gpt-oss": gptoss, "bert": bert, "nomic-bert": nomic}


def write_safetensors(path, tensors):
    head, at, data = {"__metadata__": {"format": "pt"}}, 0, []
    for name in sorted(tensors):
        t = tensors[name]
        head[name] = {"dtype": t.dtype, "shape": t.shape, "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
        data.append(t.data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def byte_letters():  # the characters that byte-level BPE writes bytes with
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, n = {}, 0
    for b in range(256):
        out[b] = chr(b) if b in keep else chr(256 + n)
        n += b not in keep
    return out


QWEN2 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
         "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def write_tokenizer(folder):
    letters = byte_letters()
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
             "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {letters[b]: b for b in range(256)}, "merges": []}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    end = {"id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
               "normalizer": {"type": "NFC"},
               "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
               "post_processor": byte_level, "decoder": byte_level, "model": model},
              open(os.path.join(folder, "tokenizer.json"), "w"))
    json.dump({"eos_token": "<|endoftext|>", "bos_token": None, "add_bos_token": False,
               "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
              open(os.path.join(folder, "tokenizer_config.json"), "w"))


def main():
    path, folder = sys.argv[1:3]
    shards = int(sys.argv[sys.argv.index("--shards") + 1]) if "--shards" in sys.argv else 1
    m = Model(Gguf(path))
    FAMILIES[m.arch](m)
    if m.left:
        sys.exit(f"{path}: not taken back: {sorted(m.left)[:5]}")
    os.makedirs(folder, exist_ok=True)
    json.dump(m.config, open(os.path.join(folder, "config.json"), "w"), indent=1)
    write_tokenizer(folder)
    with open(os.path.join(folder, "README.md"), "w") as f:
        f.write("---\nlicense: apache-2.0\ntags:\n- test\n---\n# A model\n")
    names = sorted(m.out)
    if shards == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), m.out)
        return
    index = {}
    for k in range(shards):
        name = f"model-{k + 1:05}-of-{shards:05}.safetensors"
        part = {n: m.out[n] for n in names[k::shards]}
        index.update({n: name for n in part})
        write_safetensors(os.path.join(folder, name), part)
    json.dump({"metadata": {}, "weight_map": index}, open(os.path.join(folder, "model.safetensors.index.json"), "w"))


if __name__ == "__main__":
    main()
