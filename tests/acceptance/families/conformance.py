"""conformance.py LOGS: the table of docs/results/conformance.md, made of what the tests printed into LOGS (logits.log,
architectures.log, vocab.log, tokenizers.log, templates.log, tools.log, embeddings.log). No cell is written by hand: this
file only says which line of which log belongs to which family. A cell is "none" where no test speaks of it, and "-" where a
family has no such thing."""
import os, re, sys

logs = {}
for name in ("logits", "architectures", "vocab", "tokenizers", "templates", "tools", "embeddings"):
    path = os.path.join(sys.argv[1], name + ".log")
    logs[name] = open(path, encoding="utf-8", errors="replace").read() if os.path.exists(path) else ""


def find(log, pattern):
    return re.search(pattern, logs[log], re.M)


def logits(name):
    """A folder of the oracle, or (with a space, or listed here) a second evaluation of tests/e2e/architectures."""
    m = find("logits", rf"^(ok  |FAIL) logits {re.escape(name)}: max abs (\S+), allowed (\S+)")
    if m:
        return f"{float(m[2]):.0e} of {float(m[3]):.0e}" if m[1] == "ok  " else "FAILS"
    m = find("architectures", rf"^(ok  |FAIL) {re.escape(name)}: max abs (\S+), allowed (\S+);")
    return (f"{float(m[2]):.0e} of {float(m[3]):.0e} (own)" if m[1] == "ok  " else "FAILS") if m else "none"


def tokenizer(npm, oracle):
    cells = []
    m = npm and find("tokenizers", rf"^tokenizers tokenizer-{npm} strings (\d+) ids_equal (\d+) .*unexplained (\d+)")
    if m:
        other = int(m[1]) - int(m[2]) - int(m[3])
        cells.append(f"{m[2]} of {m[1]}" + (f", {other} explained" if other else "") + (f", {m[3]} WRONG" if m[3] != "0" else ""))
    m = oracle and find("vocab", rf"^ *tokenize {oracle}: (\d+) cases, (\d+) differ")
    if m:
        cells.append(f"{int(m[1]) - int(m[2])} of {m[1]} vectors")
    return "; ".join(cells) or "none"


def template(name):
    if name is None:
        return "-"
    m = find("templates", rf"^templates {re.escape(name)} conversations (\d+) equal (\d+) raised (\d+)(?: npm-differs (\d+))?")
    return f"{m[2]} equal, {m[3]} raise alike" + (f", {m[4]} npm differs" if m[4] else "") if m else "none"


def tools(name):
    if name is None:
        return "-"
    m = find("tools", rf"^tools {re.escape(name)}\.jinja \((\S+)\) calls (\d+) equal (\d+)")
    return f"{m[3]} of {m[2]} ({m[1]})" if m else "none"


def reasoning(name):
    if name is None:
        return "-"
    m = find("tools", rf"^reasoning {re.escape(name)}\.jinja \((\S+)\) answers (\d+) equal (\d+)")
    return f"{m[3]} of {m[2]} (`{m[1]}`)" if m else "none"


def embeddings(name):
    if name is None:
        return "-"
    m = find("embeddings", rf"^ *{re.escape(name)} +max abs (\S+) \(16 tokens\), (\S+) \(200 tokens\), allowed (\S+)")
    return f"{max(float(m[1]), float(m[2])):.0e} of {float(m[3]):.0e}" if m else "none"


# family, logits, tokenizer (npm, oracle), template, tools, reasoning, embeddings
FAMILIES = [
    ("Llama 2", "llama-f32", ("llama2", "llama-f32"), "llama2-7b", None, None, None),
    ("Llama 3, 3.1, 3.2", "llama3-rope", ("llama3_1", "llama3-rope"), "llama3_2", "llama3_2", None, None),
    ("Llama 4 Scout", "llama4 scout", (None, None), "llama4-latest", "llama4-latest", None, None),
    ("Llama 4 Maverick", "llama4 maverick", (None, None), "llama4-latest", "llama4-latest", None, None),
    ("Mixtral", "mixtral", (None, None), "mixtral-8x7b", None, None, None),
    ("Mistral Nemo", "mistral3", (None, "mistral3"), "mistral_nemo", "mistral_nemo", None, None),
    ("Mistral Small, Magistral", "mistral3", (None, "mistral3"), "mistral-v13", "mistral-v13", "mistral-v13", None),
    ("Phi-3", "phi3", (None, "phi3"), "phi3-3.8b", None, None, None),
    ("Phi-4", "phi3", (None, None), "phi4-14b", "phi4", "phi4-reasoning-14b", None),
    ("Qwen 2.5", "qwen2", (None, "qwen2"), "qwen2_5", "qwen2_5", None, None),
    ("Qwen 2 MoE", "qwen2moe", (None, None), "qwen2-0.5b", None, None, None),
    ("Qwen 3", "qwen3", ("qwen3", "qwen2"), "qwen3", "qwen3", "qwen3", None),
    ("Qwen 3 MoE, Coder", "qwen3moe", ("qwen3", "qwen2"), "qwen3-coder-30b", "qwen3-coder-30b", None, None),
    ("Qwen 3 Next", "qwen3next", ("qwen3", None), "qwen3-next-80b", "qwen3-next-80b", "qwen3-next-80b", None),
    ("Qwen 3.5", "qwen35", (None, "qwen35"), "qwen3.5", "qwen_xml", "qwen3.5", None),
    ("DeepSeek V2 Lite", "deepseek2-lite", (None, "deepseek2-lite"), "deepseek-v2.5-236b", "deepseek-v2.5-236b", None, None),
    ("DeepSeek V3", "deepseek2-v3", ("deepseek_v3", "deepseek2-v3"), "deepseek_v3", "deepseek_v3", None, None),
    ("DeepSeek R1, V3.1", "deepseek2-v3", ("deepseek_v3", "deepseek2-v3"), "deepseek-v3.1-latest", "deepseek_v3_1",
     "deepseek-r1-latest", None),
    ("Kimi K2", "deepseek2-k2", (None, "deepseek2-k2"), "kimi-k2", "kimi-k2", "kimi-k2", None),
    ("Gemma 2", "gemma2", (None, "gemma2"), "gemma2", None, None, None),
    ("Gemma 3", "gemma3", ("gemma3", None), "gemma3", None, None, None),
    ("Gemma 4", "gemma4", (None, "gemma4"), "gemma4", "gemma4", "gemma4", None),
    ("gpt-oss", "gpt-oss", ("gptoss", "gpt-oss"), "gpt-oss", "gpt-oss", "gpt-oss", None),
    ("BERT", "bert", (None, "bert"), None, None, None, "bert"),
    ("nomic-bert", "nomic-bert", (None, "bert"), None, None, None, "nomic-bert"),
]

print("""# Conformance of model families

Printed by the tests: `LINES="1 2 3 4" make accept T=families` makes it anew and compares. *loads*: the file opens and every
tensor of it is used. *logits*: largest difference to another implementation and what is allowed (rows of `../shared/oracle`;
"own": a second evaluation in double precision, written from the definition). *tokenizer*: texts whose ids equal those of npm's
`@huggingface/tokenizers` with the family's real vocabulary; "explained" ones are that library's own deviations from the Rust
one, named by the test; "vectors" are those of `../shared/oracle`. *template*: conversations that render as npm's
`@huggingface/jinja` does, or raise as it does; where npm differs from Jinja 2, polder goes with Jinja 2. *tools*, *reasoning*:
generated calls and thoughts that come back from what the template writes. *embeddings*: the pooled row against the reference.
A dash: the family has no such thing. "none": no test speaks of it.

| family | loads | logits | tokenizer | template | tools | reasoning | embeddings |
| --- | --- | --- | --- | --- | --- | --- | --- |""")
for family, l, t, tm, to, r, em in FAMILIES:
    value = logits(l)
    loads = "yes" if value not in ("none", "FAILS") else "no"
    print(f"| {family} | {loads} | {value} | {tokenizer(*t)} | {template(tm)} | {tools(to)} | {reasoning(r)} | {embeddings(em)} |")
