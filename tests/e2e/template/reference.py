#!/usr/bin/env python3
"""Renders chat templates with Jinja 2, set up as transformers sets it up. Speaks the lines that render.c speaks."""
import datetime
import json
import sys

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """{% generation %}: the content passes through."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Raised(TemplateError):
    """What raise_exception raises."""


def raise_exception(message):
    raise Raised(message)


def environment(now_ms):
    now = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=now_ms)
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, strftime_now=now.strftime)
    return env


compiled = {}
for line in sys.stdin:
    request = json.loads(line)
    try:
        source = request["template"]
        if source not in compiled:
            compiled[source] = environment(request["now"]).from_string(source)
        answer = {"ok": True, "text": compiled[source].render(**request["vars"])}
    except Exception as e:  # whatever it is, the other side must refuse as well
        answer = {"ok": False, "error": f"{type(e).__name__}: {e}"}
        if isinstance(e, Raised):
            answer["raised"] = str(e)
    print(json.dumps(answer), flush=True)
