// Conversations to render: the same ones for the same seed, on every machine.

const TEXTS = [
    'Hello!', '', ' ', '  leading and trailing \n\n', 'line one\nline two\n', 'Grüße aus Köln, ça va? naïve', '世界、こんにちは。',
    'emoji 🙂👩‍👩‍👧‍👦🇪🇺 end', '{{ not a variable }} {% nor a tag %} {# nor a comment #}', '<b>&amp; "quoted" \'single\' \\ backslash</b>',
    '<|im_start|>system\nignore this<|im_end|>', '[INST] nested [/INST]', 'tabs\tand\ttabs', '<tool_response>\nold\n</tool_response>',
    '<think>\nfirst this, then that\n</think>\n\nThe answer is 42.', '</think>', 'a</think>b</think>c', '<think>never closed',
    'x'.repeat(300), '\n', '0', 'None', 'true', '1e5', 'mixed CASE words-with (brackets) and_underscores',
    'zero\u200bwidth and \u00a0 no-break', 'a\r\nb\rc', 'const f = (a) => `${a}`;\n\nif (x < 3 && y > 4) { return "%d%%"; }',
    '| a | b |\n|---|---|\n| 1 | 2 |', 'Ünïcödé İstanbul ẞ', 'end with spaces   ', 'سلام دنیا', 'combining e\u0301 o\u0308',
];

const PARAMETERS = [
    { type: 'object', properties: {} },
    { type: 'object', properties: { city: { type: 'string', description: 'The city, like "Köln"\n' } }, required: ['city'] },
    {
        type: 'object',
        properties: {
            items: { type: 'array', items: { type: 'integer' } },
            exact: { type: 'boolean', description: 'Whether <all> must match & nothing else' },
            limit: { type: ['number', 'string'], description: '' },
            map: { type: 'object', additionalProperties: { type: 'array', items: { type: 'string' } } },
            free: { description: 'anything' },
        },
        required: ['items', 'exact'],
    },
];

const ARGUMENTS = [
    {}, { city: 'Köln' }, { items: [1, 2, -3], exact: true, limit: 2.5 }, { q: 'a "b" \\ \n\t</s>', nested: { list: [null, false, { k: [] }], empty: {} } },
    { big: 9007199254740991, small: 0.0001, neg: -17, half: -0.5 }, { zeta: 1, alpha: 2, Mid: 3 },
];

export function random(seed) { // mulberry32
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

export function conversation(seed) {
    const next = random(seed);
    const below = (n) => Math.floor(next() * n);
    const pick = (list) => list[below(list.length)];
    const chance = (p) => next() < p;
    const text = () => (chance(0.2) ? pick(TEXTS) + '\n' + pick(TEXTS) : pick(TEXTS));
    const name = () => pick(['get_weather', 'search', 'brave_search', 'code_interpreter', 'stop_here']);
    const parts = () => Array.from({ length: 1 + below(3) }, () => (chance(0.2) ? { type: 'image' } : { type: 'text', text: text() }));
    const withTools = chance(0.4);
    const withParts = chance(0.15);
    const messages = [];

    if (chance(0.5)) messages.push({ role: 'system', content: text() });
    const turns = 1 + below(5);
    for (let i = 0; i < turns; i++) {
        messages.push({ role: 'user', content: withParts && chance(0.5) ? parts() : text() });
        if (i === turns - 1 && chance(0.6)) break;
        if (withTools && chance(0.6)) {
            const calls = chance(0.7) ? 1 : 2;
            const tool_calls = Array.from({ length: calls }, (_, k) => ({
                type: 'function',
                id: `call0000${k}`,
                function: { name: name(), arguments: pick(ARGUMENTS) },
            }));
            messages.push({ role: 'assistant', content: chance(0.5) ? '' : text(), tool_calls });
            for (const call of tool_calls) {
                messages.push({ role: 'tool', name: call.function.name, tool_call_id: call.id, content: chance(0.5) ? JSON.stringify(pick(ARGUMENTS)) : text() });
            }
        }
        const answer = { role: 'assistant', content: text() };
        if (chance(0.15)) answer.reasoning_content = text();
        messages.push(answer);
    }
    if (chance(0.05)) messages.push({ role: 'critic', content: text() });

    messages.forEach((m, i) => (m.n = i)); // no two are equal: templates look for 'the last user message' by value
    const vars = { messages, bos_token: '<s>', eos_token: '</s>', add_generation_prompt: chance(0.7) };
    if (withTools) {
        vars.tools = Array.from({ length: 1 + below(3) }, () => ({
            type: 'function',
            function: { name: name(), description: text(), parameters: pick(PARAMETERS) },
        }));
    }
    if (chance(0.3)) vars.enable_thinking = chance(0.5);
    if (chance(0.1)) vars.builtin_tools = ['brave_search', 'code_interpreter'];
    if (chance(0.2)) vars.tools_in_user_message = chance(0.5);
    if (chance(0.2)) vars.date_string = '26 Jul 2024';
    return vars;
}
