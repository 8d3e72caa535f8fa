// Conversations to render, made from a seed: the same ones for the same seed, on every machine. Three quarters are what a careful client
// sends; the rest carry what careless ones do: null content, turns out of order, roles nobody knows, arguments that are no JSON.
import { random } from '../../../e2e/template/conversations.mjs';

const TEXTS = [
    'Hello!', 'What is the weather in Köln?', '', ' ', '\n', '  leading and trailing \n\n', 'line one\nline two\n', 'a\r\nb\rc', 'tabs\tand\ttabs',
    'Grüße, ça va? naïve İstanbul ẞ', '世界、こんにちは。', 'سلام دنیا', 'combining e\u0301 o\u0308 \u00a0 no-break \u200bzero',
    'emoji 🙂👩‍👩‍👧‍👦🇪🇺 end', '{{ bos_token }} {% raise_exception("no") %} {# nor a comment #} {%- endif -%}', '{{', '%}', "{{ '}}' }}",
    '<b>&amp; "quoted" \'single\' \\ backslash</b>', "it's", '"', '\\n is not a line', '</s> <s> <|eot_id|> <｜end▁of▁sentence｜> [/INST] <end_of_turn> <|return|>',
    '<|im_start|>system\nignore this<|im_end|>', '<|start|>assistant<|channel|>final<|message|>x', '[INST] nested [/INST]', '[TOOL_CALLS]',
    '<tool_response>\nold\n</tool_response>', '<think>\nfirst this, then that\n</think>\n\nThe answer is 42.', '</think>', 'a</think>b</think>c',
    '<think>never closed', '<think></think>', '\n\n<think>\n\n</think>\n\nspaces around\n\n', '[THINK]so[/THINK]then', 'x'.repeat(300), '0', 'None', 'true', '1e5', '{}',
    '{"a": [1, 2.5, null], "b": "ü"}', 'const f = (a) => `${a}`;\nif (x < 3 && y > 4) { return "%d%%"; }', '| a | b |\n|---|---|\n| 1 | 2 |',
    'mixed CASE words-with (brackets) and_underscores', 'a | b ~ c', '/think', 'Solve it. /no_think', '# Tools', 'Cutting Knowledge Date: 1999',
];

const SCHEMAS = [
    { type: 'object', properties: {} },
    { type: 'object', properties: {}, required: [] },
    { type: 'object', properties: { city: { type: 'string', description: 'The city, like "Köln"\n' } }, required: ['city'] },
    {
        type: 'object',
        properties: {
            unit: { type: 'string', enum: ['celsius', 'fahrenheit', '度'], default: 'celsius', description: "it's the unit" },
            days: { type: 'integer', minimum: 1, maximum: 14, description: 'how many days' },
        },
        required: ['unit', 'days'],
        additionalProperties: false,
    },
    {
        type: 'object',
        properties: {
            items: { type: 'array', items: { type: 'integer' }, description: 'numbers' },
            exact: { type: 'boolean', description: 'Whether <all> must match & nothing else', default: true },
            limit: { type: ['number', 'null'], description: '', nullable: true },
            where: {
                type: 'object',
                description: 'a place',
                properties: { lat: { type: 'number', minimum: -90.5 }, tags: { type: 'array', items: { type: 'string', enum: ['a', 'b'] } } },
                required: ['lat'],
            },
            map: { type: 'object', additionalProperties: { type: 'array', items: { type: 'string' } } },
            either: { anyOf: [{ type: 'string' }, { type: 'integer' }], description: 'one or the other' },
            one: { oneOf: [{ type: 'string', default: 'x' }, { type: 'number' }], description: 'exactly one' },
        },
        required: ['items', 'exact'],
        $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' } } } },
    },
];

const ARGUMENTS = [
    {}, { city: 'Köln' }, { unit: '度', days: 3 }, { items: [1, 2, -3], exact: true, limit: 2.5 }, { exact: false, limit: null },
    { q: 'a "b" \\ \n\t</s> <|call|>', nested: { list: [null, false, { k: [] }], empty: {} } }, { emoji: '🙂', html: '<a href="x">&</a>' },
    { big: 9007199254740991, small: 0.0001, neg: -17, half: -0.5, tiny: 1.5e-7 }, { zeta: 1, alpha: 2, Mid: 3 }, { code: 'print("{{ x }}")\n' },
];

const NAMES = ['get_weather', 'search', 'brave_search', 'code_interpreter', 'browser.open', 'stop_here', 'Größe'];

class Maker {
    constructor(seed) {
        this.next = random(seed * 7919 + 17);
        this.odd = this.chance(0.25); // this conversation is a careless client's
        this.tools = this.chance(0.5);
        this.parts = this.chance(0.2);
        this.stringArguments = this.chance(0.3);
        this.ids = this.pick(['mistral', 'mistral', 'openai', 'kimi', 'none']);
        this.thinks = this.chance(0.4);
        this.calls = 0;
    }
    below(n) { return Math.floor(this.next() * n); }
    pick(list) { return list[this.below(list.length)]; }
    chance(p) { return this.next() < p; }
    oddly(p) { return this.odd && this.chance(p); }
    text() { return this.chance(0.2) ? this.pick(TEXTS) + '\n' + this.pick(TEXTS) : this.pick(TEXTS); }

    content() {
        if (this.oddly(0.05)) return null;
        if (!this.parts || this.chance(0.4)) return this.text();
        return Array.from({ length: 1 + this.below(3) }, () => {
            if (this.chance(0.15)) return { type: 'image' };
            if (this.chance(0.1)) return { type: 'image_url', image_url: { url: 'https://example.org/ü.png' } };
            if (this.oddly(0.05)) return { type: 'video', video: 'v.mp4' };
            return { type: 'text', text: this.text() };
        });
    }

    id(name) {
        const n = this.calls++;
        if (this.ids === 'mistral') return `call0000${n}`.slice(-9);
        return this.ids === 'kimi' ? `functions.${name}:${n}` : `call_${n}_x`;
    }

    call() {
        const name = this.pick(NAMES);
        let args = this.pick(ARGUMENTS);
        if (this.stringArguments) args = this.oddly(0.1) ? '{"broken": ' : JSON.stringify(args);
        const call = { id: this.id(name), type: 'function', function: { name, arguments: args } };
        if (this.ids === 'none') delete call.id;
        return call;
    }

    // An assistant's calls and what came back.
    callRound(messages) {
        const turn = { role: 'assistant', content: this.chance(0.6) ? (this.chance(0.3) ? null : '') : this.content() };
        turn.tool_calls = Array.from({ length: this.chance(0.6) ? 1 : 2 + this.below(2) }, () => this.call());
        if (this.chance(0.15)) delete turn.content;
        this.think(turn);
        messages.push(turn);
        for (const call of turn.tool_calls) {
            const answer = { role: 'tool', content: this.chance(0.4) ? JSON.stringify(this.pick(ARGUMENTS)) : this.content() };
            if (call.id) answer.tool_call_id = call.id;
            if (this.chance(0.7)) answer.name = call.function.name;
            if (!this.oddly(0.1)) messages.push(answer);
        }
    }

    think(turn) {
        if (!this.thinks || !this.chance(0.6)) return;
        const key = this.pick(['reasoning_content', 'reasoning_content', 'thinking', 'reasoning']);
        turn[key] = this.text();
        if (this.chance(0.1)) turn.reasoning_content = '';
        if (this.parts && this.chance(0.3)) turn.content = [{ type: 'thinking', thinking: this.text() }, { type: 'text', text: this.text() }];
    }

    messages() {
        const list = [];
        if (this.chance(0.5)) list.push({ role: this.chance(0.12) ? 'developer' : 'system', content: this.content() });
        const turns = 1 + this.below(4);
        for (let i = 0; i < turns; i++) {
            if (!this.oddly(0.1)) list.push({ role: 'user', content: this.content() });
            if (i === turns - 1 && this.chance(0.5)) break;
            for (let k = 0; this.tools && this.chance(k ? 0.3 : 0.5); k++) this.callRound(list);
            if (i === turns - 1 && this.chance(0.2)) break;
            const answer = { role: 'assistant', content: this.content() };
            this.think(answer);
            if (this.chance(0.05)) answer.tool_calls = this.chance(0.5) ? [] : null;
            list.push(answer);
        }
        if (this.oddly(0.15)) list.splice(this.below(list.length + 1), 0, { role: this.pick(['critic', 'system', 'developer', 'function', 'tool']), content: this.content() });
        if (this.oddly(0.05)) list.length = 0;
        return list;
    }

    tool() {
        const fn = { name: this.pick(NAMES), description: this.text(), parameters: this.pick(SCHEMAS) };
        if (this.chance(0.1)) delete fn.description;
        if (this.chance(0.1)) fn.return = { type: 'string', description: 'what comes back' };
        if (this.oddly(0.1)) delete fn.parameters;
        return this.oddly(0.05) ? fn : { type: 'function', function: fn };
    }

    // What else clients and servers hand to templates.
    switches(vars) {
        const set = (p, key, list) => { if (this.chance(p)) vars[key] = this.pick(list); };
        set(0.4, 'enable_thinking', [true, false]);
        set(0.2, 'thinking', [true, false]);
        set(0.2, 'reasoning_effort', ['low', 'medium', 'high']);
        set(0.1, 'builtin_tools', [['brave_search', 'code_interpreter'], ['browser', 'python'], []]);
        set(0.2, 'tools_in_user_message', [true, false]);
        set(0.3, 'date_string', ['26 Jul 2024']);
        set(0.1, 'model_identity', ['You are polder.']);
        set(0.2, 'call_ids', [true]); // own/mistral-v13
        set(0.7, 'functions', ['[{"name": "f"}]']); // firefunction has these two as text
        set(0.7, 'datetime', ['2025-07-20']);
        set(0.1, 'preserve_thinking', [true, false]);
    }
}

export function conversation(seed) {
    const make = new Maker(seed);
    const vars = { messages: make.messages(), bos_token: '<s>', eos_token: '</s>', add_generation_prompt: make.chance(0.6) };
    if (make.tools) vars.tools = make.oddly(0.1) ? [] : Array.from({ length: 1 + make.below(3) }, () => make.tool());
    else if (make.chance(0.5)) vars.tools = null; // transformers passes it so, others leave it out
    make.switches(vars);
    return vars;
}
