"""How each dialect carries a part of a request, and where its answer has text, calls and errors."""
import json

from values import arguments_text, member

PARTS = ["user text", "system text", "tool definition", "tool arguments", "tool result"]


def schema(p=None):
    """A tool's parameters, with something planted in them."""
    s = {"type": "object", "properties": {"text": {"type": "string"}}}
    if p and p.form == "number":
        s["properties"]["of"] = {"type": "integer", "default": int(p.value)}
    elif p and p.form == "name":
        s["properties"][p.value] = {"type": "string"}
    elif p:
        s["properties"]["of"] = {"type": "string", "description": p.text()}
    return s


def sse(raw):
    for block in raw.decode().split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data and data[0] != "[DONE]":
            yield json.loads("\n".join(data))


def content(p, text, kind):
    """A text, or parts of one."""
    if not p or p.form != "parts":
        return text
    return [{"type": kind, "text": "First of all,"}, {"type": kind, "text": text}]


class Dialect:
    """body(part, plant, stream, model, tool): a request with the plant in that part (None: nothing planted), and with
    a tool where one is asked for. read(raw, stream): (text, [arguments as text]) of an answer."""
    part_type = None      # of texts that may have parts
    tools = True          # it knows tools, so an answer may have calls
    inner = False         # arguments are a string of JSON
    missing = {}          # part → the field that would carry it, and must be refused by its name
    no_stream = False
    drivers = ("openai", "anthropic")
    json_form = True      # an answer can be asked for as JSON, of a provider too
    metadata = True

    stop_field = ("stop",)  # where stop strings are given

    def reasoning(self, raw, stream):
        """What the model thought first; None: the dialect shows none."""
        return None

    def refused_body(self, part, p, stream):
        """The request that would carry what this dialect cannot, and the field that a 400 must name."""
        b = self.body("user text", None, False, "echo", False)
        field = self.missing.get(part)
        if stream and self.no_stream:
            b = {"stream": True, **(self.body("user text", p, False, "echo", False) if part == "user text" else b)}
        elif stream:
            b["stream"] = True
        if field == "system":
            b[field] = p.text()
        elif field:
            b[field] = Chat().body(part, p, False, "echo", True)[field]
        return b, "stream" if stream and self.no_stream else field

    def error(self, v):
        """The message, where the error has the dialect's form for 403."""
        e = v["error"]
        assert e["type"] == "permission_error" and set(e) == {"message", "type", "param", "code"}, v
        return e["message"]


class Chat(Dialect):
    name, path, inner, part_type = "chat", "/v1/chat/completions", True, "text"

    @staticmethod
    def function(name, text, params):
        return {"type": "function", "function": {"name": name, "description": text, "parameters": params}}

    def body(self, part, p, stream, model, tool):
        text = p.text() if p else "Please look once more"
        b = {"model": model, "stream": stream, "max_tokens": 200}
        said = content(p, text, self.part_type)
        m = [{"role": "user", "content": said if part == "user text" else "Go on."}]
        if part == "system text":
            m.insert(0, {"role": "system", "content": said})
        if part in ("tool arguments", "tool result"):
            args = arguments_text(p) if p and part == "tool arguments" else '{"text": "a"}'
            m += [{"role": "assistant", "content": None, "tool_calls": [
                      {"id": "call_a", "type": "function", "function": {"name": "note", "arguments": args}}]},
                  {"role": "tool", "tool_call_id": "call_a", "content": said if part == "tool result" else "done"}]
        b["messages"] = m
        if part == "tool definition":
            b["tools"] = [self.function("note", text if p and p.form in ("plain", "escaped") else "Notes", schema(p))]
        elif tool:
            b["tools"] = [self.function("note", "Notes", schema())]
        return b

    def read(self, raw, stream):
        if not stream:
            m = json.loads(raw)["choices"][0]["message"]
            return m.get("content") or "", [c["function"]["arguments"] for c in m.get("tool_calls") or []]
        text, calls = "", {}
        for v in sse(raw):
            assert "error" not in v, v
            for c in v["choices"]:
                d = c.get("delta", {})
                text += d.get("content") or ""
                for t in d.get("tool_calls") or []:
                    calls[t["index"]] = calls.get(t["index"], "") + t["function"].get("arguments", "")
        return text, [calls[i] for i in sorted(calls)]

    def reasoning(self, raw, stream):
        if not stream:
            return json.loads(raw)["choices"][0]["message"]["reasoning_content"]
        return "".join(c["delta"].get("reasoning_content") or "" for v in sse(raw) for c in v["choices"])

    def as_json(self, b, schema_=None):
        b["response_format"] = {"type": "json_object"} if not schema_ else {
            "type": "json_schema", "json_schema": {"name": "form", "schema": schema_}}


class Completions(Dialect):
    name, path, tools, drivers, json_form = "completions", "/v1/completions", False, ("openai",), False
    missing = {"system text": "system", "tool definition": "tools", "tool arguments": "messages",
               "tool result": "messages"}

    def body(self, part, p, stream, model, tool):
        return {"model": model, "stream": stream, "max_tokens": 200, "prompt": p.text() if p else "Please look"}

    def read(self, raw, stream):
        if not stream:
            return json.loads(raw)["choices"][0]["text"], []
        return "".join(c["text"] for v in sse(raw) for c in v["choices"]), []


class Responses(Dialect):
    name, path, inner, part_type = "responses", "/v1/responses", True, "input_text"

    def body(self, part, p, stream, model, tool):
        text = p.text() if p else "Please look once more"
        b = {"model": model, "stream": stream, "store": False}
        said = content(p, text, self.part_type)
        items = [{"role": "user", "content": said if part == "user text" else "Go on."}]
        if part == "system text" and said != text:
            items.insert(0, {"role": "system", "content": said})
        elif part == "system text":
            b["instructions"] = text
        if part in ("tool arguments", "tool result"):
            args = arguments_text(p) if p and part == "tool arguments" else '{"text": "a"}'
            items += [{"type": "function_call", "call_id": "call_a", "name": "note", "arguments": args},
                      {"type": "function_call_output", "call_id": "call_a",
                       "output": said if part == "tool result" else "done"}]
        b["input"] = items
        one = {"type": "function", "name": "note", "description": "Notes", "parameters": schema()}
        if part == "tool definition":
            one["parameters"] = schema(p)
            if p and p.form in ("plain", "escaped"):
                one["description"] = text
        if tool or part == "tool definition":
            b["tools"] = [one]
        return b

    @staticmethod
    def items(output):
        text = "".join(c["text"] for o in output if o["type"] == "message" for c in o["content"])
        return text, [o["arguments"] for o in output if o["type"] == "function_call"]

    def read(self, raw, stream):
        if not stream:
            return self.items(json.loads(raw)["output"])
        text, args, last = "", {}, None
        for v in sse(raw):
            if v["type"] == "response.output_text.delta":
                text += v["delta"]
            if v["type"] == "response.function_call_arguments.delta":
                args[v["output_index"]] = args.get(v["output_index"], "") + v["delta"]
            if v["type"] in ("response.completed", "response.incomplete"):
                last = v["response"]
        assert last, "the stream has no end"
        assert self.items(last["output"]) == (text, [args[i] for i in sorted(args)]), "the end differs from its pieces"
        return text, [args[i] for i in sorted(args)]

    def reasoning(self, raw, stream):
        if not stream:
            return "".join(c["text"] for o in json.loads(raw)["output"] if o["type"] == "reasoning" for c in o["content"])
        return "".join(v["delta"] for v in sse(raw) if v["type"] == "response.reasoning_text.delta")

    stop_field = None

    def as_json(self, b, schema_=None):
        b["text"] = {"format": {"type": "json_object"} if not schema_ else {
            "type": "json_schema", "name": "form", "schema": schema_}}


class Messages(Dialect):
    name, path, part_type = "messages", "/v1/messages", "text"

    def body(self, part, p, stream, model, tool):
        text = p.text() if p else "Please look once more"
        b = {"model": model, "stream": stream, "max_tokens": 200}
        said = content(p, text, self.part_type)
        m = [{"role": "user", "content": said if part == "user text" else "Go on."}]
        if part == "system text":
            b["system"] = said
        if part in ("tool arguments", "tool result"):
            given = member(p) if p and part == "tool arguments" else {"text": "a"}
            m += [{"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_a", "name": "note", "input": given}]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_a",
                                                "content": said if part == "tool result" else "done"}]}]
        b["messages"] = m
        one = {"name": "note", "description": "Notes", "input_schema": schema()}
        if part == "tool definition":
            one["input_schema"] = schema(p)
            if p and p.form in ("plain", "escaped"):
                one["description"] = text
        if tool or part == "tool definition":
            b["tools"] = [one]
        return b

    def read(self, raw, stream):
        if not stream:
            list_ = json.loads(raw)["content"]
            return ("".join(c["text"] for c in list_ if c["type"] == "text"),
                    [json.dumps(c["input"]) for c in list_ if c["type"] == "tool_use"])
        text, args, ended = "", {}, False
        for v in sse(raw):
            assert v["type"] != "error", v
            if v["type"] == "content_block_delta" and v["delta"]["type"] == "text_delta":
                text += v["delta"]["text"]
            if v["type"] == "content_block_delta" and v["delta"]["type"] == "input_json_delta":
                args[v["index"]] = args.get(v["index"], "") + v["delta"]["partial_json"]
            ended = ended or v["type"] == "message_stop"
        assert ended, "the stream has no end"
        return text, [args[i] for i in sorted(args)]

    def error(self, v):
        assert v["type"] == "error" and v["error"]["type"] == "permission_error" and v["request_id"], v
        return v["error"]["message"]

    def reasoning(self, raw, stream):
        if not stream:
            return "".join(c["thinking"] for c in json.loads(raw)["content"] if c["type"] == "thinking")
        return "".join(v["delta"]["thinking"] for v in sse(raw) if v.get("delta", {}).get("type") == "thinking_delta")

    stop_field = ("stop_sequences",)

    def stopped_by(self, raw, stream):
        return json.loads(raw)["stop_sequence"] if not stream else [
            v["delta"]["stop_sequence"] for v in sse(raw) if v["type"] == "message_delta"][0]

    def as_json(self, b, schema_=None):
        b["output_config"] = {"format": {"type": "json_schema", "schema": schema_ or {
            "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"],
            "additionalProperties": False}}}


class Ollama(Dialect):
    metadata = False

    def error(self, v):
        assert set(v) == {"error"} and isinstance(v["error"], str), v
        return v["error"]

    def lines(self, raw, stream):
        all_ = [json.loads(line) for line in raw.decode().splitlines()]
        assert all_[-1]["done"] and (stream or len(all_) == 1), "the answer has no end"
        return all_

    stop_field = ("options", "stop")

    def reasoning(self, raw, stream):
        return "".join(v.get("message", v).get("thinking", "") for v in self.lines(raw, stream))

    def as_json(self, b, schema_=None):
        b["format"] = schema_ or "json"


class OllamaChat(Ollama):
    name, path = "ollama chat", "/api/chat"

    def body(self, part, p, stream, model, tool):
        text = p.text() if p else "Please look once more"
        b = {"model": model, "stream": stream}
        m = [{"role": "user", "content": text if part == "user text" else "Go on."}]
        if part == "system text":
            m.insert(0, {"role": "system", "content": text})
        if part in ("tool arguments", "tool result"):
            given = member(p) if p and part == "tool arguments" else {"text": "a"}
            m += [{"role": "assistant", "content": "",
                   "tool_calls": [{"function": {"name": "note", "arguments": given}}]},
                  {"role": "tool", "tool_name": "note", "content": text if part == "tool result" else "done"}]
        b["messages"] = m
        if part == "tool definition":
            b["tools"] = [Chat.function("note", text if p and p.form in ("plain", "escaped") else "Notes", schema(p))]
        elif tool:
            b["tools"] = [Chat.function("note", "Notes", schema())]
        return b

    def read(self, raw, stream):
        text, calls = "", []
        for v in self.lines(raw, stream):
            text += v["message"]["content"]
            calls += [json.dumps(c["function"]["arguments"]) for c in v["message"].get("tool_calls", [])]
        return text, calls


class OllamaGenerate(Ollama):
    name, path, tools = "ollama generate", "/api/generate", False
    missing = {"tool definition": "tools", "tool arguments": "messages", "tool result": "messages"}

    def body(self, part, p, stream, model, tool):
        text = p.text() if p else "Please look once more"
        b = {"model": model, "stream": stream, "prompt": text if part == "user text" else "Go on."}
        if part == "system text":
            b["system"] = text
        return b

    def read(self, raw, stream):
        return "".join(v["response"] for v in self.lines(raw, stream)), []


class Embeddings(Dialect):
    name, path, tools, no_stream = "embeddings", "/v1/embeddings", False, True
    drivers, json_form, stop_field = ("openai",), False, None
    missing = {"system text": "system", "tool definition": "tools", "tool arguments": "messages",
               "tool result": "messages"}

    def body(self, part, p, stream, model, tool):
        b = {"model": model, "input": [p.text() if p else "Please look", "and at this"]}
        if stream:
            b["stream"] = True
        return b

    def read(self, raw, stream):
        v = json.loads(raw)
        assert len(v["data"]) == 2 and all(len(d["embedding"]) == 8 for d in v["data"]), v
        return "", []


ALL = [Chat(), Completions(), Responses(), Messages(), OllamaChat(), OllamaGenerate(), Embeddings()]
