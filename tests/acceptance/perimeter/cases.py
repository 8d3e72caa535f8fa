"""Requests with planted values, in every dialect, and what the policy of these tests says of each.

Each request carries a marker, a word of its own, and values that occur in no other request, so whatever is seen
anywhere tells which request it came from. What may leave is decided here a second time, by the table at the end of this
file and from what was planted; the program is not asked."""
import json
import random
import re
import unicodedata

LEVELS = ["public", "internal", "confidential", "secret"]
POLICY = """zone    eu-managed   = providers where jurisdiction in EU, EEA and operator-law in EU, EEA and training = no and retention <= 0 days
allow   public        to any provider
allow   internal      to on-prem, eu-managed  after redact personal
allow   confidential  to on-prem
never   special-category, credential  outside on-prem
treat   unlabelled as internal ; treat detector-error as secret
raise   to confidential when found iban, national-id
"""
# The second pattern runs into its limit on a long row of "z" without an end.
RULES = """# customer numbers, as printed on letters
pattern customer-number group own flags personal placeholder CUSTOMER : KD-[0-9]{8}
pattern hostile group own placeholder HOSTILE : (z+z+)+y
words operation-names group own flags personal placeholder OPERATION : Nordlicht Blauwal
"""
HOSTILE = "z" * 60 + " y"

# name: (driver, mock that plays it)
PROVIDERS = {
    "eu": ("openai", "eu"),
    "eua": ("anthropic", "eu"),
    "shaky": ("openai", "eu"),
    "down": ("openai", "down"),
    "us": ("openai", "us"),
    "usa": ("anthropic", "us"),
    "home": ("openai", "home"),
}
INSIDE = {"home", "engine"}
EU = {"eu", "eua", "shaky", "down"}
OUTSIDE = EU | {"us", "usa"}

# Model name: candidates in order. Those that are never allowed for what is labelled stand first where they can.
ROUTES = {
    "plain": "us:echo,eu:echo,home:echo",
    "managed": "us:echo,eu:echo",
    "claude": "usa:echo,eua:echo,home:echo",
    "far": "us:echo,usa:echo",
    "inside": "home:echo,us:echo",
    "byte": "us:echo-1,eu:echo-1",
    "tools": "us:tool,eu:tool,home:tool",
    "claude-tools": "usa:tool-1,eua:tool-1",
    "outage": "down:echo,us:echo,eu:echo",
    "outage-home": "us:echo,down:echo,home:echo",
    "fail-500": "shaky:fail-500,us:fail-503,eu:echo",
    "fail-429": "us:fail-429,shaky:fail-429,home:echo",
    "cut": "us:cut-stream,shaky:cut-stream",
    "cut-clean": "shaky:cut-clean,us:cut-clean",
    "early": "us:close-early,shaky:close-early,eu:echo",
    "after": "us:close-after,eu:close-after",
    "hang": "us:hang,shaky:hang,eu:echo",
    "hang-mid": "us:hang-mid,shaky:hang-mid",
    "slow": "us:slow-120,eu:slow-120",
    "gap": "us:gap-150,eu:gap-150",
    "garbage": "shaky:garbage,us:garbage,eu:echo",
    "broken-stream": "us:stream-error-late,shaky:stream-error-late",
    "redirect": "us:redirect,shaky:redirect,home:echo",
    "linger": "us:linger,eu:linger",
    "whole": "us:whole,eu:whole",
    "weighted": "us:echo*3,eu:echo*2,eua:echo*1,shaky:echo*1",
}
STEADY = ["plain", "managed", "claude", "far", "inside", "byte", "tools", "claude-tools", "weighted", "whole", "after"]
OUTAGES = ["outage", "outage-home"]
FAULTS = ["fail-500", "fail-429", "cut", "cut-clean", "early", "slow", "gap", "garbage", "broken-stream", "redirect",
          "linger"]
HANGS = ["hang", "hang-mid"]

# Keys of the island: role, project's floor, own floor.
KEYS = {
    "open": (None, None),
    "public": (None, "public"),
    "internal": ("internal", None),
    "confidential": (None, "confidential"),
    "health": ("special-category", None),
    "hr": ("personal", "internal"),
}
KEY_WEIGHTS = {"open": 60, "public": 12, "internal": 8, "confidential": 5, "health": 4, "hr": 11}
PROJECTS = {"internal": "house", "health": "clinic", "hr": "people"}

DIALECTS = ["chat", "completions", "responses", "messages", "ollama-chat", "ollama-generate", "embeddings",
            "ollama-embed"]
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "responses": "/v1/responses",
         "messages": "/v1/messages", "ollama-chat": "/api/chat", "ollama-generate": "/api/generate",
         "embeddings": "/v1/embeddings", "ollama-embed": "/api/embed"}
CHATTING = {"chat", "responses", "messages", "ollama-chat"}
WITH_METADATA = {"chat", "completions", "responses", "messages", "embeddings"}

# ---- values ----------------------------------------------------------------------------------------------------


def digits(r, n):
    return "".join(r.choice("0123456789") for _ in range(n))


def letters(r, n):
    return "".join(r.choice("bcdfghjklmnpqrstvwxz") for _ in range(n))


def luhn(body):
    total = 0
    for i, c in enumerate(reversed(body)):
        d = int(c) * (2 if i % 2 == 0 else 1)
        total += d - 9 if d > 9 else d
    return body + str(-total % 10)


def groups(s, n):
    return " ".join(s[i:i + n] for i in range(0, len(s), n))


def iban(r):
    country, bban = r.choice([("DE", digits(r, 18)), ("AT", digits(r, 16)), ("NL", "INGB" + digits(r, 10)),
                              ("PL", digits(r, 24))])
    number = "".join(str(int(c, 36)) for c in bban + country + "00")
    return "IBAN", groups(country + "%02d" % (98 - int(number) % 97) + bban, 4)


def card(r):
    return "credit card", groups(luhn(r.choice("45") + r.choice("12345") + digits(r, 13)), 4)


def born(r):
    return r.randrange(40, 99), r.randrange(1, 13), r.randrange(1, 29)


def es_dni(r):
    n = r.randrange(10000000, 99999999)
    return "DNI", "%d-%s" % (n, "TRWAGMYFPDXBNJZSQVHLCKE"[n % 23])


def fr_nir(r):
    y, m, _ = born(r)
    body = "%d%02d%02d%02d%03d%03d" % (r.randrange(1, 3), y, m, r.randrange(21, 95), r.randrange(1, 500),
                                       r.randrange(1, 999))
    s = body + "%02d" % (97 - int(body) % 97)
    return "numéro de sécurité sociale", " ".join((s[0], s[1:3], s[3:5], s[5:7], s[7:10], s[10:13], s[13:]))


def pl_pesel(r):
    body = "%02d%02d%02d" % born(r) + digits(r, 4)
    return "PESEL", body + str(-sum(int(c) * w for c, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3))) % 10)


def ch_ahv(r):
    body = "756" + digits(r, 9)
    s = body + str(-sum(int(c) * (3 if i % 2 else 1) for i, c in enumerate(body)) % 10)
    return "AHV", ".".join((s[:3], s[3:7], s[7:11], s[11:]))


def se_pnr(r):
    s = luhn("%02d%02d%02d" % born(r) + digits(r, 3))
    return "personnummer", "19" + s[:6] + "-" + s[6:]


def nl_bsn(r):
    while True:
        body = r.choice("123456789") + digits(r, 7)
        rest = sum(int(c) * w for c, w in zip(body, (9, 8, 7, 6, 5, 4, 3, 2))) % 11
        if rest < 10:
            return "BSN", body + str(rest)


def be_niss(r):
    body = "%02d%02d%02d" % born(r) + "%03d" % r.randrange(1, 998)
    s = body + "%02d" % (97 - int(body) % 97)
    return "rijksregisternummer", "%s.%s.%s-%s.%s" % (s[:2], s[2:4], s[4:6], s[6:9], s[9:])


def national(r):
    return r.choice([es_dni, fr_nir, pl_pesel, ch_ahv, se_pnr, nl_bsn, be_niss])(r)


def email(r):
    return "mail", "%s.%s@%s.example" % (letters(r, 6), letters(r, 7), letters(r, 8))


def phone(r):
    return "phone", "+49 %d %s %s" % (r.choice([30, 40, 89, 69]), digits(r, 4), digits(r, 4))


def person(r):
    return r.choice(["Frau Dr.", "Herr", "Mr.", "Mrs.", "Madame", "Monsieur"]), \
        r.choice(["Anna", "Peter", "Maria", "Thomas", "Julia", "Martin"]) + " " + \
        "".join(r.choice("bdfgklmnprst") + r.choice("aeiou") for _ in range(4)).capitalize() + r.choice("nrlk")


def customer(r):
    return "customer", "KD-" + digits(r, 8)


def api_key(r):
    alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "api key", r.choice(["ghp_", "sk-"]) + "".join(r.choice(alnum) for _ in range(36))


def special(r):
    return "note", r.choice(["diagnosed with diabetes", "is a trade union member", "HIV positive", "chemotherapy",
                             "Gewerkschaftsmitglied", "schizophrenia"])


# class: maker, chance, whether the policy raises to confidential what it is found in, flag
CLASSES = {
    "iban": (iban, 10, True, "personal"),
    "card": (card, 9, False, "personal"),
    "national": (national, 10, True, "personal"),
    "email": (email, 16, False, "personal"),
    "phone": (phone, 10, False, "personal"),
    "person": (person, 8, False, "personal"),
    "customer": (customer, 10, False, "personal"),
    "api-key": (api_key, 7, False, "credential"),
    "special": (special, 5, False, "special-category"),
}
NUMBERS = {"iban", "card", "national", "phone"}
SPACED = {"iban", "card"}

ESCAPED = 0xE000  # characters that stand for others until the body is written, then as JSON escapes


def spell(r, kind, value, tools_ok):
    """The value as the request has it."""
    how = r.randrange(10)
    if kind in SPACED and how == 0:
        return re.sub(r"[ .-]", "", value)
    if kind in SPACED and how == 1:
        return value.replace(" ", "\u00a0")
    if kind in SPACED and how == 2:
        return value.replace(" ", "-")
    if kind in NUMBERS and how == 3:
        return "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in value)
    if tools_ok and how in (4, 5):
        return "".join(chr(ESCAPED + ord(c)) if ord(c) < 128 and (how == 4 or r.random() < 0.4) else c for c in value)
    return value


def squeeze(s):
    """What is left of a text once spelling is taken away: letters and digits, one form, small."""
    return "".join(c for c in unicodedata.normalize("NFKC", s).lower() if c.isalnum())


def spellings(value):
    """How a value could stand in what was sent: for a search of bytes."""
    tight = re.sub(r"[ .-]", "", value)
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in value)
    out = {value, tight, value.replace(" ", "\u00a0"), value.replace(" ", "-"), wide,
           "".join("\\u%04x" % ord(c) for c in value), "".join("\\u%04x" % ord(c) for c in tight)}
    out |= {json.dumps(s)[1:-1] for s in (value, wide, value.replace(" ", "\u00a0"))}
    return out


# ---- one request -----------------------------------------------------------------------------------------------


class Plant:
    __slots__ = ("kind", "value", "text", "place")

    def __init__(self, kind, value, text, place):
        self.kind, self.value, self.text, self.place = kind, value, text, place


class Case:
    """number, marker, dialect, stream, model, key, headers, body (bytes), plants, hostile; level, flags: as decided
    here; silent: values that no dialect passes on (unused members, the name of the end user)."""

    def allowed(self):
        """Providers that may see it, by the one policy of these tests."""
        if self.level == "secret":
            return set()
        if self.level == "confidential" or self.flags & {"special-category", "credential"}:
            return set(INSIDE)
        return INSIDE | EU if self.level == "internal" else INSIDE | OUTSIDE

    def must_redact(self):
        """Values that none of the providers may see although they may see the request."""
        return [p.value for p in self.plants if self.level == "internal" and "personal" in flags_of(p.kind)]


def flags_of(kind):
    return {CLASSES[kind][3]}


def decide(c):
    """Label and flags of a request: from what was declared, demanded, and planted."""
    project, own = KEYS[c.key]
    levels, flags = [], set()
    for word in (project, own, c.label_header, c.label_body):
        for w in (word or "").split(","):
            w = w.strip()
            if w in LEVELS:
                levels.append(w)
            elif w:
                flags.add(w)
    # a floor is somebody's word for the request even where it names only flags; then it is as unlabelled as any
    level = max(levels, key=LEVELS.index) if levels else "internal"
    for p in c.plants:
        flags |= flags_of(p.kind)
        if CLASSES[p.kind][2]:
            level = max(level, "confidential", key=LEVELS.index)
    if c.hostile:
        level = "secret"
    c.level, c.flags = level, flags


WORDS = ("please sort these notes before the meeting on Tuesday and tell what is missing in the table of the harbour "
         "works so that the committee can decide about the new pump and the gate at the northern dike").split()


def prose(r, n):
    return " ".join(r.choice(WORDS) for _ in range(n))


def place_all(r, c, places):
    """Texts for the places of a dialect, with the values in them."""
    texts = {p: prose(r, r.randrange(4, 20)) for p in places}
    kinds = list(CLASSES)
    weights = [CLASSES[k][1] for k in kinds]
    for _ in range(r.choice([0, 1, 1, 1, 2, 2, 3])):
        kind = r.choices(kinds, weights)[0]
        where = r.choice(places)
        word, value = CLASSES[kind][0](r)
        escape = kind not in ("person", "special") and where != "tool-name"
        c.plants.append(Plant(kind, value, spell(r, kind, value, escape), where))
        texts[where] += ". %s %s, " % (word, c.plants[-1].text) + prose(r, 3)
    if c.hostile:
        texts[r.choice(places)] += " " + HOSTILE + " "
    where = "user" if "user" in places else places[0]
    texts[where] = "Note %s: " % c.marker + texts[where]
    return texts


def add_messages(c, r, t, tools):
    """The messages of the OpenAI form (ollama: arguments are objects)."""
    objects = c.dialect == "ollama-chat"
    m = []
    if "system" in t:
        m.append({"role": "system", "content": t["system"]})
    if "assistant" in t:
        m += [{"role": "user", "content": "Begin."}, {"role": "assistant", "content": t["assistant"]}]
    if tools:
        args = {"text": t["args"], "count": 3}
        m += [{"role": "user", "content": "Look it up."},
              {"role": "assistant", "content": "", "tool_calls": [
                  {"id": "call_1", "type": "function", "function": {
                      "name": "look_up", "arguments": args if objects else json.dumps(args)}}]},
              {"role": "tool", "tool_call_id": "call_1", "content": t["result"]}]
    content = t["user"]
    if c.dialect == "chat" and r.random() < 0.3:
        half = content.find(". ") + 2 if ". " in content else 0
        content = [{"type": "text", "text": content[:half] or "So: "}, {"type": "text", "text": content[half:]}]
    m.append({"role": "user", "content": content})
    return m


def schema(t):
    return {"type": "object", "properties": {"text": {"type": "string", "description": t["definition"]}},
            "required": ["text"]}


def body_of(c, r, t, tools):
    d, b = c.dialect, {"model": c.model}
    if d in ("chat", "ollama-chat"):
        b["messages"] = add_messages(c, r, t, tools)
        if tools:
            b["tools"] = [{"type": "function", "function": {"name": "look_up", "description": t["tool"],
                                                            "parameters": schema(t)}}]
    elif d == "completions":
        b["prompt"] = t["user"]
    elif d == "responses":
        items = []
        if "assistant" in t:
            items += [{"role": "user", "content": "Begin."},
                      {"role": "assistant", "content": [{"type": "output_text", "text": t["assistant"]}]}]
        if tools:
            items += [{"type": "function_call", "call_id": "call_1", "name": "look_up",
                       "arguments": json.dumps({"text": t["args"]})},
                      {"type": "function_call_output", "call_id": "call_1", "output": t["result"]}]
            b["tools"] = [{"type": "function", "name": "look_up", "description": t["tool"], "parameters": schema(t)}]
        items.append({"role": "user", "content": [{"type": "input_text", "text": t["user"]}]})
        b["input"] = items if items[1:] or r.random() < 0.5 else t["user"]
        b["store"] = r.random() < 0.5
        if "system" in t:
            b["instructions"] = t["system"]
    elif d == "messages":
        b["max_tokens"] = 500
        m = []
        if "assistant" in t:
            m += [{"role": "user", "content": "Begin."}, {"role": "assistant", "content": t["assistant"]}]
        if tools:
            m += [{"role": "user", "content": "Look it up."},
                  {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look_up",
                                                     "input": {"text": t["args"]}}]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                                                "content": t["result"]}, {"type": "text", "text": t["user"]}]}]
            b["tools"] = [{"name": "look_up", "description": t["tool"], "input_schema": schema(t)}]
        else:
            m.append({"role": "user", "content": t["user"]})
        b["messages"] = m
        if "system" in t:
            b["system"] = [{"type": "text", "text": t["system"]}] if r.random() < 0.5 else t["system"]
    elif d == "ollama-generate":
        b["prompt"] = t["user"]
        if "system" in t:
            b["system"] = t["system"]
    else:
        b["input"] = [t["user"], t["second"]] if "second" in t else t["user"]
    if d not in ("embeddings", "ollama-embed"):
        b["stream"] = c.stream
    return b


def make(number, seed, models, hostile=0.02):
    r = random.Random("%s/%d" % (seed, number))
    c = Case()
    c.number, c.plants, c.silent = number, [], []
    c.marker = "mk" + letters(r, 10) + "q"
    c.dialect = DIALECTS[number % len(DIALECTS)]
    vectors = c.dialect in ("embeddings", "ollama-embed")
    c.stream = not vectors and r.random() < 0.5
    c.model = r.choice(models)
    c.key = r.choices(list(KEY_WEIGHTS), list(KEY_WEIGHTS.values()))[0]
    c.hostile = r.random() < hostile
    c.label_header = r.choices([None, "public", "internal", "confidential", "secret", "personal", "public, personal",
                                "special-category"], [40, 24, 18, 5, 4, 3, 3, 3])[0]
    c.label_body = r.choices([None, "public", "internal", "confidential", "secret"],
                             [70, 12, 12, 4, 2])[0] if c.dialect in WITH_METADATA else None
    places, tools = ["user"], False
    if c.dialect in CHATTING or c.dialect == "ollama-generate":
        places += ["system"] if r.random() < 0.6 else []
    if c.dialect in CHATTING:
        places += ["assistant"] if r.random() < 0.4 else []
        tools = "tools" in c.model or r.random() < 0.4
        places += ["tool", "definition", "args", "result"] if tools else []
    if vectors and r.random() < 0.5:
        places.append("second")
    t = place_all(r, c, places)
    decide(c)
    b = body_of(c, r, t, tools)
    if c.label_body:
        b["metadata"] = {"polder_label": c.label_body}
    if c.dialect == "chat" and r.random() < 0.2:  # members that are ignored must be, and not passed on
        c.silent = [email(r)[1], iban(r)[1]]
        b["user"] = c.silent[0]
        b.setdefault("metadata", {})["note"] = c.silent[1]
    if c.dialect == "messages" and r.random() < 0.2:
        c.silent = [email(r)[1]]
        b.setdefault("metadata", {})["user_id"] = c.silent[0]
    text = json.dumps(b)  # not ASCII: escapes; what is to be one was a character of a private area until now
    text = re.sub(r"\\ue0([0-7][0-9a-f])", r"\\u00\1", text)
    if r.random() < 0.5:
        keep = re.sub(r"\\u00([0-7][0-9a-f])", "\ue000\\1", text)
        keep = re.sub(r"(?<!\\)\\u(00[a-f][0-9a-f]|ff[0-9a-f]{2}|0[1-9a-f][0-9a-f]{2})",
                      lambda m: chr(int(m.group(1), 16)), keep)
        text = keep.replace("\ue000", "\\u00")
    c.body = text.encode()
    c.headers = {"x-polder-label": c.label_header} if c.label_header else {}
    return c
