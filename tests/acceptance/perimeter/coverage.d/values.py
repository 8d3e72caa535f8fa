"""Values that the coverage run plants, and how they are found again in what left.

Every request has a value of its own, so that one that leaves anywhere is found wherever it went.
"""
import json
import random
import unicodedata

rng = random.Random(20260101)


def digits(n):
    return "".join(rng.choice("0123456789") for _ in range(n))


def letters(n):
    return "".join(rng.choice("abcdefghijkmnopqrstuvwxyz") for _ in range(n))


def iban():
    bban = digits(18)
    check = 98 - int(bban + "131400") % 97  # D = 13, E = 14
    return f"DE{check:02d}{bban}"


def luhn_digit(body):
    total = 0
    for i, c in enumerate(reversed(body)):
        d = int(c) * (2 if i % 2 == 0 else 1)
        total += d - 9 if d > 9 else d
    return str(-total % 10)


def card():
    body = "4" + rng.choice("123456789") + digits(13)
    return body + luhn_digit(body)


def long_card():
    """19 digits: more than a double holds."""
    body = "62" + rng.choice("123456789") + digits(15)
    return body + luhn_digit(body)


def email():
    return f"{letters(7)}.{letters(9)}@{letters(10)}.de"


def in_groups(s, blank):
    return blank.join(s[i:i + 4] for i in range(0, len(s), 4))


def full_width(s):
    return "".join(chr(ord(c) - ord("0") + 0xFF10) if c.isdigit() else c for c in s)


class Plant:
    """name, entity, placeholder's word, the value as a text, and how it is written:
    form  "plain"    as any text
          "escaped"  each character as \\uXXXX in the request's body
          "inner"    the same inside of arguments that are a string of JSON
          "number"   a JSON number
          "name"     the name of a member of an object
          "parts"    the second of two parts of a text, in dialects whose texts have parts
    """

    def __init__(self, name, entity, word, value, form="plain"):
        self.name, self.entity, self.word, self.value, self.form = name, entity, word, value, form

    def text(self):
        """Ends with what could still become a placeholder: an answer that repeats it must bring that too."""
        return f"Please look at {self.value} once more [{self.word[:2]}"


def plain_plants():
    return [Plant("IBAN", "iban", "IBAN", iban()),
            Plant("payment card", "payment-card", "CARD", card()),
            Plant("e-mail", "email", "EMAIL", email())]


def disguised_plants():
    return [Plant("IBAN in JSON escapes", "iban", "IBAN", iban(), "escaped"),
            Plant("e-mail in JSON escapes", "email", "EMAIL", email(), "escaped"),
            Plant("card in full-width digits", "payment-card", "CARD", full_width(card())),
            Plant("IBAN with no-break spaces", "iban", "IBAN", in_groups(iban(), "\u00a0")),
            Plant("card with hyphens", "payment-card", "CARD", in_groups(card(), "-"))]


def parts_plants():
    return [Plant("IBAN in a second part", "iban", "IBAN", iban(), "parts")]


def structured_plants(inner):
    """Of parts that are JSON themselves."""
    more = [Plant("card as a number", "payment-card", "CARD", card(), "number"),
            Plant("card of 19 digits as a number", "payment-card", "CARD", long_card(), "number"),
            Plant("e-mail as a member's name", "email", "EMAIL", email(), "name")]
    if inner:
        more.append(Plant("card in escapes inside arguments", "payment-card", "CARD", card(), "inner"))
    return more


# ---- writing -------------------------------------------------------------------------------------------------

def member(p):
    """The value as a member of an object, for parts that are JSON."""
    if p.form == "number":
        return {"of": int(p.value)}
    if p.form == "name":
        return {p.value: "look"}
    return {"of": p.text()}


def escaped(s):
    return "".join(f"\\u{ord(c):04x}" for c in s)


def arguments_text(p):
    """Arguments as a string of JSON."""
    if p.form == "inner":
        return '{"of": "look at ' + escaped(p.value) + '"}'
    return json.dumps(member(p), ensure_ascii=False)


def body_bytes(body, p):
    text = json.dumps(body, ensure_ascii=False)
    if p and p.form == "escaped":
        assert p.value in text, "the value has to be in the body"
        text = text.replace(p.value, escaped(p.value))
    return text.encode()


# ---- finding again -------------------------------------------------------------------------------------------

RUN = 9  # characters in a row that nothing else has


def squeezed(s):
    return "".join(c for c in unicodedata.normalize("NFKC", s).lower() if c.isalnum())


def needles(value):
    s = squeezed(value)
    return {s[i:i + RUN] for i in range(len(s) - RUN + 1)}


def walk(v, out):
    if isinstance(v, dict):
        for k, x in v.items():
            out.append(k)
            walk(x, out)
    elif isinstance(v, list):
        for x in v:
            walk(x, out)
    elif isinstance(v, str):
        out.append(v)
        if v[:1] in "{[":
            try:
                walk(parse(v), out)
            except ValueError:
                pass


def parse(text):
    return json.loads(text, parse_int=str, parse_float=str)


def spellings(raw):
    """All that a body says: as it is, and as its JSON means it, strings of JSON inside of it too."""
    text = raw.decode("utf-8", "replace")
    out = [text]
    try:
        walk(parse(text), out)
    except ValueError:
        pass
    return "\n".join(squeezed(s) for s in out)


def leaks(raw, value):
    seen = spellings(raw)
    return sorted(n for n in needles(value) if n in seen)
