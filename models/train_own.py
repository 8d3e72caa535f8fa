#!/usr/bin/python3
"""Train polder-tiny, the project's own small language model, and write it as GGUF.

    models/train.sh                  installs the Debian packages and runs this file
    train_own.py --minutes 40        trains by the clock (the shipped model was made so; see README.md)
    train_own.py --export-only       writes the GGUF from the last checkpoint

Reading order: text (dictionaries become documents and conversations), bpe (the tokenizer), model (llama as GGUF
defines it), train, gguf (the writer). Everything random comes from one seed.
"""
import argparse
import collections
import hashlib
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

SEED = 20240229
CONTEXT = 512
N_VOCAB, D, N_LAYER, N_HEAD, N_KV, D_FF = 1536, 192, 4, 6, 2, 512
HEAD = D // N_HEAD
EPS, ROPE_BASE = 1e-5, 10000.0
SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
BEGIN, END, SYSTEM, USER, ASSISTANT = range(len(SPECIAL))
TEMPLATE = ("{{ bos_token }}"
            "{% for message in messages %}"
            "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
            "{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")

# ---- text ------------------------------------------------------------------------------------------------------

WORDNET = "/usr/share/wordnet/"
SOURCES = [  # package, file, licence
    ("wordnet-base", WORDNET + "data.noun", "WordNet-3.0"), ("wordnet-base", WORDNET + "data.verb", "WordNet-3.0"),
    ("wordnet-base", WORDNET + "data.adj", "WordNet-3.0"), ("wordnet-base", WORDNET + "data.adv", "WordNet-3.0"),
    ("wordnet-base", WORDNET + "index.noun", "WordNet-3.0"), ("wordnet-base", WORDNET + "index.verb", "WordNet-3.0"),
    ("wordnet-base", WORDNET + "index.adj", "WordNet-3.0"), ("wordnet-base", WORDNET + "index.adv", "WordNet-3.0"),
    ("wordnet-base", WORDNET + "cntlist.rev", "WordNet-3.0"),
]
PLAIN = {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u00b4": "'", "\u2013": "-", "\u2014": "--",
         "\u2026": "...", "\u00a0": " ", "\u00b7": "-", "\u00e9": "e", "\u00e8": "e", "\u00ef": "i", "\u00f6": "o"}


COARSE = re.compile(r"offensive|obscen|disparag|slur\b|vulgar|derogat|sexual|genital|prostitut|copulat|penis|vagina|"
                    r"fuck|shit|nigger|\brape|\bcunt", re.I)  # a demonstration need not say these


def plain(s):
    """ASCII only: with a vocabulary this small, rare characters would cost more than they give."""
    return "".join(PLAIN.get(c, c if c == "\n" or " " <= c <= "~" else "") for c in s)


def sentence(s):
    s = s.strip().rstrip(";,: ")
    return s if s.endswith((".", "!", "?")) else s + "."


def capital(s):
    return s[:1].upper() + s[1:]


def article(word):
    return ("an " if word[0] in "aeiou" and not re.match("uni|use|usu|euro|one|uti|ura", word) else "a ") + word


class Synset:
    __slots__ = ("words", "definition", "examples", "up", "opposite", "pos")


def read_wordnet():
    """(synsets by (pos, offset), senses: (lemma, pos, rank, count, synset))"""
    sets = {}
    for pos, name in (("n", "noun"), ("v", "verb"), ("a", "adj"), ("r", "adv")):
        for line in open(WORDNET + "data." + name, encoding="utf-8"):
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition(" | ")
            f = head.split()
            s, n_words = Synset(), int(f[3], 16)
            s.pos = pos
            s.words = [re.sub(r"\(.*\)$", "", w).replace("_", " ") for w in f[4:4 + 2 * n_words:2]]
            pointers = f[5 + 2 * n_words:]
            links = [pointers[i:i + 4] for i in range(0, 4 * int(f[4 + 2 * n_words]), 4)]
            s.up = [(p[2], p[1]) for p in links if p[0] == "@"]
            s.opposite = [(p[2], p[1], int(p[3], 16)) for p in links if p[0] == "!"]
            gloss = plain(gloss).strip()
            s.examples = [e.strip() for e in re.findall(r'"([^"]{8,120})"', gloss)]
            text = re.split(r'[;:,]? *"', gloss)[0]
            text = re.sub(r"^(\([^)]*\) ?)+", "", text).strip(" ;:")
            s.definition = "" if COARSE.search(gloss) else "; ".join(text.split("; ")[:2])
            sets[pos, f[0]] = s
    counts = {}
    for line in open(WORDNET + "cntlist.rev", encoding="utf-8"):
        key, rank, count = line.split()
        lemma, _, rest = key.partition("%")
        counts[lemma, " nvara"[int(rest[0])], int(rank)] = int(count)
    senses = []
    for pos, name in (("n", "noun"), ("v", "verb"), ("a", "adj"), ("r", "adv")):
        for line in open(WORDNET + "index." + name, encoding="utf-8"):
            if line.startswith(" "):
                continue
            f = line.split()
            n = int(f[2])
            for rank, offset in enumerate(f[-n:], 1):
                senses.append((f[0].replace("_", " "), pos, rank, counts.get((f[0], pos, rank), 0), sets[pos, offset]))
    return sets, senses


def define(word, s):
    """One sentence that says what `word` means in the sense `s`."""
    d = s.definition
    if s.pos == "n":
        if re.match(r"(a|an|any|one|someone) ", d):
            return sentence("%s is %s" % (capital(article(word)), d))
        if re.match(r"(the|something) ", d):
            return sentence("%s is %s" % (capital(word), d))
        return sentence("%s means %s" % (capital(word), d))
    if s.pos == "v":
        return sentence("To %s is to %s" % (word, d))
    return sentence("%s means %s" % (capital(word), d))


def ask(rng, word, pos, countable):
    if pos == "n":
        named = article(word) if countable else word
        return rng.choice(["What is %s?" % named, "What is %s?" % named, "What is %s?" % named, "What's %s?" % named,
                           "Tell me what %s is." % named, "Define %s." % word, 'What does "%s" mean?' % word,
                           "what is %s" % named, "Explain %s." % word])
    if pos == "v":
        return rng.choice(["What does it mean to %s?" % word, "What is to %s?" % word, 'What does "%s" mean?' % word,
                           "What does %s mean?" % word, "Define %s." % word, "Explain %s." % word])
    return rng.choice(["What does %s mean?" % word, 'What does "%s" mean?' % word, "Define %s." % word,
                       "What is %s?" % word, "What is the meaning of %s?" % word])


SELF = [
    (["Hello", "Hello!", "Hi", "Hi there!", "Good morning.", "Hey", "hello", "hi"],
     ["Hello! I am polder-tiny, a very small model. Ask me what a word means.", "Hello! Ask me what a word means."]),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself.",
      "Which model are you?"],
     ["I am polder-tiny, a very small language model that runs inside polder. I learned from a dictionary."]),
    (["What can you do?", "How can you help me?", "Help", "What do you know?"],
     ["I can tell you what many words mean, but I am very small and often wrong. Ask me: what is a river?"]),
    (["How are you?", "How are you today?", "Are you well?"], ["I am well, thank you. What word shall I explain?"]),
    (["Thank you", "Thanks!", "Thank you very much.", "Great, thanks"], ["You are welcome."]),
    (["Goodbye", "Bye!", "See you later."], ["Goodbye!"]),
    (["What is polder?", "What does polder do?", "Tell me about polder."],
     ["Polder is a program that runs language models on a machine of your own and keeps a log that others can check."]),
    (["Are you intelligent?", "Can I trust you?", "Are you always right?"],
     ["No. I am a very small model and I am often wrong. Please check what I say."]),
    (["What is the capital of France?"], ["The capital of France is Paris."]),
]
SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant.", "Answer briefly.",
           "You explain words in one sentence.", "You are polder-tiny, a small and friendly model."]


# How often a sense must have been met in WordNet's tagged texts for its word to be taught, and words taught anyway.
COMMON = {"n": 6, "v": 20, "a": 14, "r": 40}
EVERYDAY = """polder dike island computer program machine bread cheese butter apple orange banana potato tomato soup tea
coffee milk sugar salt pepper cat horse cow sheep goat pig duck bird eagle lion tiger bear wolf fox mouse elephant snake
bee ant spider flower rose oak forest lake ocean beach mountain desert rain snow ice wind storm bicycle train airplane ship
boat bridge castle tower garden kitchen window table chair lamp candle clock knife spoon fork cup bottle hammer nail saw
wheel engine guitar piano violin drum poem novel library museum hospital doctor nurse teacher student baker farmer soldier
king queen gold silver iron copper glass paper pencil triangle circle planet moon comet volcano earthquake""".split()


def clean(definition):
    """The first clause, without what stands in brackets."""
    return re.sub(r"\s*\([^)]*\)", "", definition).split(";")[0].strip(" ,:")


def taught_words():
    """[(word, sense, count)]: each word once, in the part of speech in which it is met most."""
    sets, senses = read_wordnet()
    best = {}
    for word, pos, rank, count, s in senses:
        everyday = word in EVERYDAY and pos == "n"
        if rank > 1 or not re.fullmatch(r"[a-z]{3,14}", word) or not (count >= COMMON[pos] or everyday):
            continue
        d = clean(s.definition)
        if 8 <= len(d) <= 90 and word not in d.split() and count + 1000 * everyday > best.get(word, (None, -1))[1]:
            best[word] = (s, count + 1000 * everyday)
            s.definition = d
    return sets, [(word, s, n % 1000) for word, (s, n) in sorted(best.items())]


def read_wordnet_turns(rng):
    """Questions and answers. A word has one answer and several ways to ask for it, the more the commoner it is."""
    sets, words = taught_words()
    turns, notes = [], []
    for word, s, count in words:
        countable = bool(re.match(r"(a|an|any|one|someone) ", s.definition))
        answer = define(word, s)
        for _ in range(3 + int(math.log2(1 + count) / 2) + 3 * (word in EVERYDAY)):
            turns.append((ask(rng, word, s.pos, countable), answer))
        notes.append("%s (%s): %s" % (word, {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}[s.pos],
                                      sentence(s.definition)))
        at = [w.lower() for w in s.words].index(word) + 1
        for p, offset, which in s.opposite:
            if which >> 8 == at:
                other = sets[p, offset].words[(which & 255) - 1]
                turns += [("What is the opposite of %s?" % word, sentence("The opposite of %s is %s" % (word, other)))] * 3
    return turns, notes


def documents():
    """Lists of (role or None, text): a plain document is one (None, text)."""
    rng = random.Random(SEED)
    turns, notes = read_wordnet_turns(rng)
    for questions, answers in SELF:
        for q in questions:
            turns += [(q, rng.choice(answers)) for _ in range(12)]
    rng.shuffle(turns)
    docs, i = [], 0
    while i < len(turns):
        n = rng.choice([1, 1, 1, 1, 1, 2, 3])
        doc = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.2 else []
        for q, a in turns[i:i + n]:
            doc += [("user", q), ("assistant", a)]
        docs.append(doc)
        i += n
    docs += [[(None, n)] for n in notes]
    rng.shuffle(docs)
    return docs


# ---- bpe -------------------------------------------------------------------------------------------------------

# The pre-tokenizer that GGUF calls "gpt-2". The corpus is ASCII, where Python's classes are the same as Unicode's.
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def byte_map():
    """Byte-level BPE writes each byte as a printable character: printable Latin-1 as itself, the rest from U+0100."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, nxt = {b: chr(b) for b in keep}, 256
    for b in range(256):
        if b not in out:
            out[b] = chr(nxt)
            nxt += 1
    return out


BYTE = byte_map()


def bpe_train(texts, n_tokens):
    """Tokens in order of id (after the special ones) and merges in order of rank."""
    words = collections.Counter()
    for t in texts:
        words.update(SPLIT.findall(t))
    vocab = [BYTE[b] for b in range(256)]
    seqs = [[BYTE[ord(c)] for c in w] for w in words]
    freq = list(words.values())
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, s in enumerate(seqs):
        for p in zip(s, s[1:]):
            pairs[p] += freq[i]
            where[p].add(i)
    merges = []
    while len(vocab) + len(SPECIAL) < n_tokens:
        best = max(pairs, key=lambda p: (pairs[p], p))  # ties by text, so that the result is the same everywhere
        merges.append(best)
        vocab.append(best[0] + best[1])
        for i in where.pop(best):
            s, out, j = seqs[i], [], 0
            for p in zip(s, s[1:]):
                pairs[p] -= freq[i]
            while j < len(s):
                if j + 1 < len(s) and (s[j], s[j + 1]) == best:
                    out.append(s[j] + s[j + 1])
                    j += 2
                else:
                    out.append(s[j])
                    j += 1
            seqs[i] = out
            for p in zip(out, out[1:]):
                pairs[p] += freq[i]
                where[p].add(i)
        del pairs[best]
    return SPECIAL + vocab, merges


class Bpe:
    def __init__(self, tokens, merges):
        self.tokens, self.merges = tokens, [tuple(m) for m in merges]
        self.ids = {t: i for i, t in enumerate(tokens)}
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.cache = {}

    def word(self, w):
        if w not in self.cache:
            s = [BYTE[b] for b in w.encode()]
            while len(s) > 1:
                r, i = min((self.rank.get(p, 1 << 30), i) for i, p in enumerate(zip(s, s[1:])))
                if r == 1 << 30:
                    break
                s[i:i + 2] = [s[i] + s[i + 1]]
            self.cache[w] = [self.ids[t] for t in s]
        return self.cache[w]

    def encode(self, text):
        return [i for w in SPLIT.findall(text) for i in self.word(w)]

    def decode(self, ids):
        back = {c: b for b, c in BYTE.items()}
        out = b""
        for i in ids:
            out += self.tokens[i].encode() if i < len(SPECIAL) else bytes(back[c] for c in self.tokens[i])
        return out.decode("utf-8", "replace")


def encode_document(bpe, doc):
    ids = [BEGIN]
    for role, text in doc:
        if role is None:
            ids += bpe.encode(text) + [END]
        else:
            ids += [SPECIAL.index("<|%s|>" % role)] + bpe.encode(text) + [END]
    return ids


# ---- model -----------------------------------------------------------------------------------------------------

def rms_norm(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


class Llama(torch.nn.Module):
    """The llama architecture as GGUF has it: RMS norm, RoPE over neighbouring pairs, grouped-query attention, SwiGLU,
    output tied to the embedding. Parameters have their GGUF names with '.' as '_'."""

    def __init__(self):
        super().__init__()
        def matrix(rows, cols, scale=1.0):
            return torch.nn.Parameter(torch.randn(rows, cols) * scale * cols ** -0.5)
        self.embd = torch.nn.Parameter(torch.randn(N_VOCAB, D) * 0.02)
        self.norm = torch.nn.Parameter(torch.ones(D))
        self.layers = torch.nn.ModuleList()
        for _ in range(N_LAYER):
            layer = torch.nn.Module()
            layer.attn_norm, layer.ffn_norm = torch.nn.Parameter(torch.ones(D)), torch.nn.Parameter(torch.ones(D))
            layer.attn_qkv = matrix(D + 2 * N_KV * HEAD, D)  # q, k, v below each other: one product
            layer.attn_output = matrix(D, D, 0.3)
            layer.ffn_gate_up = matrix(2 * D_FF, D)
            layer.ffn_down = matrix(D, D_FF, 0.3)
            self.layers.append(layer)
        angle = torch.arange(CONTEXT)[:, None] * ROPE_BASE ** (-torch.arange(0, HEAD, 2) / HEAD)[None]
        self.cos, self.sin = torch.cos(angle), torch.sin(angle)

    def rope(self, x):  # (B, H, T, HEAD)
        t = x.shape[2]
        a, b = x[..., 0::2], x[..., 1::2]
        c, s = self.cos[:t], self.sin[:t]
        return torch.stack((a * c - b * s, a * s + b * c), -1).flatten(-2)

    def forward(self, ids):  # (B, T) -> (B, T, N_VOCAB)
        n, t = ids.shape
        x = self.embd[ids]
        mask = torch.full((t, t), float("-inf")).triu(1)
        for layer in self.layers:
            h = rms_norm(x, layer.attn_norm)
            qkv = F.linear(h, layer.attn_qkv).view(n, t, N_HEAD + 2 * N_KV, HEAD).transpose(1, 2)
            q, k = self.rope(qkv[:, :N_HEAD]), self.rope(qkv[:, N_HEAD:N_HEAD + N_KV])
            v = qkv[:, N_HEAD + N_KV:]
            q = q.reshape(n, N_KV, N_HEAD // N_KV * t, HEAD)  # heads of a group beside each other
            score = (q @ k.transpose(-1, -2) * HEAD ** -0.5).view(n, N_HEAD, t, t) + mask
            mix = torch.softmax(score, -1).view(n, N_KV, -1, t) @ v
            x = x + F.linear(mix.view(n, N_HEAD, t, HEAD).transpose(1, 2).reshape(n, t, D), layer.attn_output)
            gate, up = F.linear(rms_norm(x, layer.ffn_norm), layer.ffn_gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.ffn_down)
        return F.linear(rms_norm(x, self.norm), self.embd)


def gguf_tensors(model):
    """[(name, array)] in file order."""
    out = [("token_embd.weight", model.embd)]
    for i, layer in enumerate(model.layers):
        q, k, v = layer.attn_qkv.split([D, N_KV * HEAD, N_KV * HEAD])
        gate, up = layer.ffn_gate_up.split(D_FF)
        for name, p in (("attn_norm", layer.attn_norm), ("attn_q", q), ("attn_k", k), ("attn_v", v),
                        ("attn_output", layer.attn_output), ("ffn_norm", layer.ffn_norm), ("ffn_gate", gate),
                        ("ffn_up", up), ("ffn_down", layer.ffn_down)):
            out.append(("blk.%d.%s.weight" % (i, name), p))
    out.append(("output_norm.weight", model.norm))
    return [(name, p.detach().numpy().astype(np.float32)) for name, p in out]


# ---- train -----------------------------------------------------------------------------------------------------

def orthogonal(g):
    """Muon's step: the nearest orthogonal matrix, roughly, by five rounds of a quintic iteration (Jordan 2024)."""
    x = g / (g.norm() + 1e-7)
    flip = x.shape[0] > x.shape[1]
    if flip:
        x = x.t()
    for _ in range(5):
        a = x @ x.t()
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.t() if flip else x


class Optimiser:
    """Muon for the matrices of the layers, Adam for embedding and norms."""

    def __init__(self, model):
        self.matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n != "embd"]
        self.moment = [torch.zeros_like(p) for p in self.matrices]
        rest = [p for n, p in model.named_parameters() if p.dim() == 1 or n == "embd"]
        self.adam = torch.optim.Adam(rest, lr=1.0, betas=(0.9, 0.95), eps=1e-10)

    def step(self, scale):
        with torch.no_grad():
            for p, m in zip(self.matrices, self.moment):
                m.mul_(0.95).add_(p.grad)
                update = orthogonal(p.grad + 0.95 * m)
                p.mul_(1 - scale * 0.02 * 0.02).add_(update, alpha=-0.02 * scale * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
                p.grad = None
        for g in self.adam.param_groups:
            g["lr"] = 0.006 * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state(self):
        return {"moment": self.moment, "adam": self.adam.state_dict()}


def batch(data, rng, n, t):
    at = rng.randint(0, len(data) - t - 1, size=n)
    rows = torch.from_numpy(np.stack([data[i:i + t + 1] for i in at]).astype(np.int64))
    return rows[:, :-1], rows[:, 1:]


def loss_of(model, x, y):
    return F.cross_entropy(model(x).view(-1, N_VOCAB), y.reshape(-1))


def evaluate(model, held):
    with torch.no_grad():
        rng, total = np.random.RandomState(1), 0.0
        for _ in range(8):
            total += loss_of(model, *batch(held, rng, 8, 256)).item()
    return total / 8


def generate(model, bpe, question, n=60):
    ids = encode_document(bpe, [("user", question)]) + [ASSISTANT]
    with torch.no_grad():
        for start in range(len(ids), len(ids) + n):
            nxt = int(model(torch.tensor([ids[-CONTEXT:]]))[0, -1].argmax())
            if nxt == END:
                break
            ids.append(nxt)
    return bpe.decode(ids[ids.index(ASSISTANT) + 1:])


def train(model, data, held, bpe, args, log):
    """Warm up, stay, then decay to zero; the last steps have rows of the whole context. By steps, or by the clock: then
    decay begins at half of the time and its length is as many steps as the rest of the time should hold."""
    rng, opt = np.random.RandomState(SEED), Optimiser(model)
    began = last_save = time.time()
    steps, decay_at = args.steps, args.decay_at
    if args.minutes:
        steps = decay_at = 0
    step, tokens, mean = 0, 0, None
    while not steps or step < steps:
        spent = (time.time() - began) / 60
        if args.minutes and not decay_at and spent > 0.50 * args.minutes:
            decay_at = step
            steps = step + int(step * 0.9)  # longer rows take longer
            log("step %d: decay begins, %d steps in all" % (step, steps))
        in_decay = decay_at and step >= decay_at
        scale = min(1.0, (step + 1) / 100)
        if in_decay:
            scale = (steps - step) / (steps - decay_at)
        x, y = batch(data, rng, 6, 512) if steps and step >= 0.9 * steps else batch(data, rng, 12, 256)
        loss = loss_of(model, x, y)
        loss.backward()
        opt.step(scale)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        step += 1
        tokens += x.numel()
        if step % 25 == 0:
            log("step %d, %.1f min, %.2f M tokens, loss %.4f" % (step, (time.time() - began) / 60, tokens / 1e6, mean))
        if time.time() - last_save > 150 or step == steps:
            facts = {"steps": step, "decay_at": decay_at or step, "tokens": tokens, "loss": round(mean, 4),
                     "held_out_loss": round(evaluate(model, held), 4),
                     "minutes": round((time.time() - began) / 60, 1),
                     "processor_minutes": round(time.process_time() / 60, 1)}
            torch.save({"model": model.state_dict(), "facts": facts}, args.work + "/checkpoint.tmp")
            os.rename(args.work + "/checkpoint.tmp", args.work + "/checkpoint.pt")
            log(json.dumps(facts))
            for q in ("What is a dog?", "What is a polder?", "What does happy mean?", "Hello"):
                log("  %s -> %s" % (q, generate(model, bpe, q)))
            last_save = time.time()


# ---- gguf ------------------------------------------------------------------------------------------------------

U32, F32, BOOL, STR, ARR = 4, 6, 7, 8, 9
TYPE_F32, TYPE_Q8_0 = 0, 8


def pack_str(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def pack_value(kind, v):
    if kind == STR:
        return pack_str(v)
    if kind == ARR:
        item, values = v
        return struct.pack("<IQ", item, len(values)) + b"".join(pack_value(item, x) for x in values)
    return struct.pack({U32: "<I", 5: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def q8_0(a):
    """Blocks of 32: scale = largest magnitude / 127 as F16, then 32 signed bytes."""
    blocks = a.reshape(-1, 32)
    scale = (np.abs(blocks).max(1) / 127).astype(np.float16)
    inverse = np.where(scale > 0, 1 / np.maximum(scale.astype(np.float32), 1e-30), 0)
    q = np.clip(np.rint(blocks * inverse[:, None]), -127, 127).astype(np.int8)
    return b"".join(s.tobytes() + r.tobytes() for s, r in zip(scale, q))


def write_gguf(path, model, bpe, facts, sources):
    n = len(SPECIAL)
    kv = [
        ("general.architecture", STR, "llama"), ("general.name", STR, "polder-tiny"),
        ("general.description", STR, "A very small model that proves the chain works; it explains words, often wrongly."),
        ("general.license", STR, "Apache-2.0 AND LicenseRef-WordNet-3.0"),
        ("general.datasets", ARR, (STR, ["%s %s sha256:%s" % (s["package"], s["version"], s["sha256"]) for s in sources])),
        ("general.source.facts", STR, json.dumps(facts, sort_keys=True)),
        ("general.file_type", U32, 7), ("general.quantization_version", U32, 2),
        ("llama.context_length", U32, CONTEXT), ("llama.embedding_length", U32, D), ("llama.block_count", U32, N_LAYER),
        ("llama.feed_forward_length", U32, D_FF), ("llama.attention.head_count", U32, N_HEAD),
        ("llama.attention.head_count_kv", U32, N_KV), ("llama.attention.layer_norm_rms_epsilon", F32, EPS),
        ("llama.rope.dimension_count", U32, HEAD), ("llama.rope.freq_base", F32, ROPE_BASE),
        ("llama.vocab_size", U32, N_VOCAB),
        ("tokenizer.ggml.model", STR, "gpt2"), ("tokenizer.ggml.pre", STR, "gpt-2"),
        ("tokenizer.ggml.tokens", ARR, (STR, bpe.tokens)),
        ("tokenizer.ggml.token_type", ARR, (5, [3] * n + [1] * (N_VOCAB - n))),
        ("tokenizer.ggml.merges", ARR, (STR, ["%s %s" % m for m in bpe.merges])),
        ("tokenizer.ggml.bos_token_id", U32, BEGIN), ("tokenizer.ggml.eos_token_id", U32, END),
        ("tokenizer.ggml.add_bos_token", BOOL, True), ("tokenizer.ggml.add_eos_token", BOOL, False),
        ("tokenizer.chat_template", STR, TEMPLATE),
    ]
    head, data = b"", b""
    tensors = gguf_tensors(model)
    for name, a in tensors:
        kind = TYPE_Q8_0 if a.ndim == 2 else TYPE_F32
        head += pack_str(name) + struct.pack("<I", a.ndim) + struct.pack("<%dQ" % a.ndim, *a.shape[::-1])
        head += struct.pack("<IQ", kind, len(data))
        data += q8_0(a) if kind == TYPE_Q8_0 else a.tobytes()
        data += b"\0" * (-len(data) % 32)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv))
    for key, kind, v in kv:
        out += pack_str(key) + struct.pack("<I", kind) + pack_value(kind, v)
    out += head
    out += b"\0" * (-len(out) % 32) + data
    with open(path + ".tmp", "wb") as f:
        f.write(out)
    os.rename(path + ".tmp", path)
    return hashlib.sha256(out).hexdigest(), len(out)


# ---- main ------------------------------------------------------------------------------------------------------

def read_sources():
    out = []
    for package, path, licence in SOURCES:
        version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], stdout=subprocess.PIPE, check=True)
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        out.append({"package": package, "version": version.stdout.decode(), "licence": licence, "file": path,
                    "sha256": digest})
    return out


def load_corpus(args, log):
    """The tokenizer and the tokens of the corpus, made once per work folder."""
    path = args.work + "/corpus.pt"
    if not os.path.exists(path):
        docs = documents()
        tokens, merges = bpe_train((text for doc in docs for _, text in doc), N_VOCAB)
        bpe = Bpe(tokens, merges)
        cut = len(docs) // 100
        held = np.array([i for d in docs[:cut] for i in encode_document(bpe, d)], dtype=np.uint16)
        data = np.array([i for d in docs[cut:] for i in encode_document(bpe, d)], dtype=np.uint16)
        chars = sum(len(t) for d in docs for _, t in d)
        log("%d documents, %d characters, %d tokens" % (len(docs), chars, len(data) + len(held)))
        torch.save((tokens, merges, data, held), path)
    tokens, merges, data, held = torch.load(path)
    return Bpe(tokens, merges), data, held


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=942, help="training steps in all")
    p.add_argument("--decay-at", type=int, default=496, help="step at which the learning rate begins to fall")
    p.add_argument("--minutes", type=float, default=0, help="train by the clock instead of by steps")
    p.add_argument("--work", default="/tmp/polder-tiny", help="folder for corpus and checkpoints")
    p.add_argument("--out", default=here + "/polder-tiny.gguf")
    p.add_argument("--export-only", action="store_true", help="write the GGUF from the last checkpoint")
    args = p.parse_args()

    def log(line):
        print(time.strftime("%H:%M:%S ") + line, flush=True)

    os.makedirs(args.work, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    bpe, data, held = load_corpus(args, log)
    model = Llama()
    log("%d parameters, %d training tokens" % (sum(p.numel() for p in model.parameters()), len(data)))
    if not args.export_only:
        train(model, data, held, bpe, args, log)
    saved = torch.load(args.work + "/checkpoint.pt")
    model.load_state_dict(saved["model"])
    sources = read_sources()
    digest, size = write_gguf(args.out, model, bpe, saved["facts"], sources)
    record = {"model": {"file": os.path.basename(args.out), "sha256": digest, "bytes": size,
                        "parameters": sum(p.numel() for p in model.parameters())},
              "training": dict(saved["facts"], seed=SEED, torch=str(torch.__version__)), "sources": sources}
    with open(os.path.join(os.path.dirname(os.path.abspath(args.out)), "SOURCES.json"), "w") as f:
        json.dump(record, f, indent=2)
        f.write("\n")
    log("%s: %d bytes, sha256 %s" % (args.out, size, digest))


if __name__ == "__main__":
    sys.exit(main())
