#!/usr/bin/env python3
"""synthetic.py KIND FOLDER: a small random checkpoint of a family that the oracle has no file of, in the layout of
Hugging Face transformers: llama4, qwen2moe, qwen35moe, gemma4moe. Or KIND fp8 FOLDER FROM: the checkpoint in FROM with
layer 0's gate_proj as FP8 with block scales; FOLDER/expected.bf16 gets what it stands for."""
import json, os, random, struct, sys

from unconvert import Hf, from_floats, write_safetensors, write_tokenizer

random.seed(3)
D, L, V, H, KV, HD, FF, E, FE = 64, 4, 257, 4, 2, 32, 96, 4, 32


def rand(*shape):
    n = 1
    for s in shape:
        n *= s
    return from_floats([random.gauss(0, 0.1) for _ in range(n)], shape)


def attention(out, p, bias=False, q=H * HD):
    for name, rows in (("q", q), ("k", KV * HD), ("v", KV * HD)):
        out[f"{p}self_attn.{name}_proj.weight"] = rand(rows, D)
        if bias:
            out[f"{p}self_attn.{name}_proj.bias"] = rand(rows)
    out[p + "self_attn.o_proj.weight"] = rand(D, H * HD)


def mlp(out, p, width, names=("gate_proj", "up_proj", "down_proj")):
    for n in names[:2]:
        out[f"{p}{n}.weight"] = rand(width, D)
    out[f"{p}{names[2]}.weight"] = rand(D, width)


def base(prefix):
    return {prefix + "embed_tokens.weight": rand(V, D), prefix + "norm.weight": rand(D), }


COMMON = {"hidden_size": D, "num_hidden_layers": L, "vocab_size": V, "num_attention_heads": H, "num_key_value_heads": KV,
          "head_dim": HD, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}


def llama4():
    out = base("language_model.model.")
    out["language_model.lm_head.weight"] = rand(V, D)
    out["vision_model.patch.weight"] = rand(2, 2)
    for i in range(L):
        p = f"language_model.model.layers.{i}."
        out[p + "input_layernorm.weight"] = rand(D)
        out[p + "post_attention_layernorm.weight"] = rand(D)
        attention(out, p)
        if i % 2 == 1:
            f = p + "feed_forward."
            out[f + "router.weight"] = rand(E, D)
            out[f + "experts.gate_up_proj"] = rand(E, D, 2 * FE)
            out[f + "experts.down_proj"] = rand(E, FE, D)
            mlp(out, f + "shared_expert.", FE)
        else:
            mlp(out, p + "feed_forward.", FF)
    text = dict(COMMON, intermediate_size=FE, intermediate_size_mlp=FF, num_local_experts=E, num_experts_per_tok=1,
                interleave_moe_layer_step=2, attention_chunk_size=128, tie_word_embeddings=False)
    return {"architectures": ["Llama4ForConditionalGeneration"], "text_config": text}, out


def qwen2moe():
    out = base("model.")
    out["lm_head.weight"] = rand(V, D)
    for i in range(L):
        p = f"model.layers.{i}."
        out[p + "input_layernorm.weight"] = rand(D)
        out[p + "post_attention_layernorm.weight"] = rand(D)
        attention(out, p, True)
        out[p + "mlp.gate.weight"] = rand(E, D)
        for e in range(E):
            mlp(out, f"{p}mlp.experts.{e}.", FE)
        mlp(out, p + "mlp.shared_expert.", FF)
        out[p + "mlp.shared_expert_gate.weight"] = rand(1, D)
    return dict(COMMON, architectures=["Qwen2MoeForCausalLM"], intermediate_size=FF, num_experts=E, num_experts_per_tok=2,
                moe_intermediate_size=FE, shared_expert_intermediate_size=FF, tie_word_embeddings=False,
                decoder_sparse_step=1, mlp_only_layers=[]), out


def qwen35moe():
    nk, nv, dk = 2, 4, 16
    out = base("model.language_model.")
    out["lm_head.weight"] = rand(V, D)
    for i in range(L):
        p = f"model.language_model.layers.{i}."
        out[p + "input_layernorm.weight"] = rand(D)
        out[p + "post_attention_layernorm.weight"] = rand(D)
        if (i + 1) % 4 == 0:
            attention(out, p, q=2 * H * HD)
            out[p + "self_attn.q_norm.weight"] = rand(HD)
            out[p + "self_attn.k_norm.weight"] = rand(HD)
        else:
            a = p + "linear_attn."
            out[a + "in_proj_qkv.weight"] = rand(2 * nk * dk + nv * dk, D)
            out[a + "in_proj_z.weight"] = rand(nv * dk, D)
            out[a + "in_proj_a.weight"] = rand(nv, D)
            out[a + "in_proj_b.weight"] = rand(nv, D)
            out[a + "conv1d.weight"] = rand(2 * nk * dk + nv * dk, 1, 4)
            out[a + "A_log"] = rand(nv)
            out[a + "dt_bias"] = rand(nv)
            out[a + "norm.weight"] = rand(dk)
            out[a + "out_proj.weight"] = rand(D, nv * dk)
        out[p + "mlp.gate.weight"] = rand(E, D)
        out[p + "mlp.experts.gate_up_proj"] = rand(E, 2 * FE, D)
        out[p + "mlp.experts.down_proj"] = rand(E, D, FE)
        mlp(out, p + "mlp.shared_expert.", FE)
        out[p + "mlp.shared_expert_gate.weight"] = rand(1, D)
    text = dict(COMMON, num_experts=E, num_experts_per_tok=2, moe_intermediate_size=FE, shared_expert_intermediate_size=FE,
                linear_num_key_heads=nk, linear_num_value_heads=nv, linear_key_head_dim=dk, linear_value_head_dim=dk,
                linear_conv_kernel_dim=4, full_attention_interval=4, tie_word_embeddings=False,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
                                 "mrope_section": [3, 3, 2]})
    del text["rope_theta"]
    return {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "text_config": text}, out


def gemma4moe():
    out = base("model.language_model.")
    for i in range(L):
        p = f"model.language_model.layers.{i}."
        full = i == L - 1
        hd = 2 * HD if full else HD
        for n in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
                  "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2"):
            out[f"{p}{n}.weight"] = rand(D)
        for n, rows in (("q", H), ("k", KV), ("v", KV)):
            out[f"{p}self_attn.{n}_proj.weight"] = rand(rows * hd, D)
        out[p + "self_attn.o_proj.weight"] = rand(D, H * hd)
        out[p + "self_attn.q_norm.weight"] = rand(hd)
        out[p + "self_attn.k_norm.weight"] = rand(hd)
        mlp(out, p + "mlp.", FF)
        out[p + "router.proj.weight"] = rand(E, D)
        out[p + "router.scale"] = rand(D)
        out[p + "router.per_expert_scale"] = rand(E)
        out[p + "experts.gate_up_proj"] = rand(E, 2 * FE, D)
        out[p + "experts.down_proj"] = rand(E, D, FE)
        out[p + "layer_scalar"] = rand(1)
    text = dict(COMMON, intermediate_size=FF, global_head_dim=2 * HD, sliding_window=32, num_kv_shared_layers=0,
                num_experts=E, top_k_experts=2, moe_intermediate_size=FE, enable_moe_block=True,
                hidden_size_per_layer_input=0, layer_types=["sliding_attention"] * (L - 1) + ["full_attention"],
                rope_parameters={"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25,
                                                    "rope_theta": 1e6},
                                 "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})
    del text["rope_theta"]
    return {"architectures": ["Gemma4ForConditionalGeneration"], "text_config": text}, out


def e4m3(b):
    exp, man = b >> 3 & 15, b & 7
    v = (8 + man) * 2.0 ** (exp - 10) if exp else man * 2.0 ** -9
    return -v if b & 128 else v


def bf16(v):
    u = struct.unpack("<I", struct.pack("<f", v))[0]
    return struct.pack("<H", (u + 0x7fff + (u >> 16 & 1)) >> 16)


def read_safetensors(path):
    b = open(path, "rb").read()
    n = struct.unpack_from("<Q", b)[0]
    head = json.loads(b[8:8 + n])
    head.pop("__metadata__", None)
    return {k: Hf(v["dtype"], v["shape"], b[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in head.items()}


def fp8(source):
    out = {}
    for f in os.listdir(source):
        if f.endswith(".safetensors"):
            out.update(read_safetensors(os.path.join(source, f)))
    config = json.load(open(os.path.join(source, "config.json")))
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [48, 32]}
    name = "model.layers.0.mlp.gate_proj.weight"
    rows, cols = out[name].shape
    data = bytes(random.choice([b for b in range(256) if b & 127 != 127]) for _ in range(rows * cols))
    br, bc = -(-rows // 48), -(-cols // 32)
    scales = [struct.unpack("<f", struct.pack("<f", random.uniform(0.001, 0.1)))[0] for _ in range(br * bc)]
    out[name] = Hf("F8_E4M3", [rows, cols], data)
    out[name + "_scale_inv"] = from_floats(scales, [br, bc])
    want = b""
    for i, b in enumerate(data):
        want += bf16(e4m3(b) * scales[i // cols // 48 * bc + i % cols // 32])
    return config, out, want


def main():
    kind, folder = sys.argv[1:3]
    os.makedirs(folder, exist_ok=True)
    if kind == "fp8":
        config, out, want = fp8(sys.argv[3])
        open(os.path.join(folder, "expected.bf16"), "wb").write(want)
    else:
        config, out = {"llama4": llama4, "qwen2moe": qwen2moe, "qwen35moe": qwen35moe, "gemma4moe": gemma4moe}[kind]()
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    write_tokenizer(folder)
    write_safetensors(os.path.join(folder, "model.safetensors"), out)


if __name__ == "__main__":
    main()
