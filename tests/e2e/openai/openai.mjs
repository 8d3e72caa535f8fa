// The npm client `openai` against a polder with the project's own model: what its users call, and what they meet when
// they call it wrongly. What breaks it: any answer, status, header or stream that this client does not understand.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { newIsland, withTools } from '../island.mjs';

const [polder, work, modelFile] = process.argv.slice(2);
const require = createRequire(join(work, 'package.json'));
const { default: OpenAI } = await import(pathToFileURL(require.resolve('openai')).href);

// ---- an island with a server -----------------------------------------------------------------------------------

const { dir, island, run, up, down, log, ended, status } = newIsland(polder, 'openai');
run('init', island);
run('model', 'add', modelFile, '--name', 'tiny');

run('model', 'add', withTools(modelFile, dir), '--name', 'caller');
const keyOf = (role) => JSON.parse(run('--json', 'key', 'add', role, '--role', role)).key;
const keys = { user: keyOf('user'), operator: keyOf('operator'), auditor: keyOf('auditor') };
const url = await up();
const make = (apiKey) => new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
const client = make(keys.user);
const get = (path, key) => fetch(url + path, { headers: { authorization: `Bearer ${key}` } });
const metric = async (name) => {
  const text = await (await get('/metrics', keys.operator)).text();
  const line = text.split('\n').find((l) => l.startsWith(`${name} `));
  return line ? Number(line.slice(name.length + 1)) : 0;
};
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
async function eventually(what, test) {
  for (let i = 0; i < 200; i++) { if (await test()) return; await sleep(25); }
  assert.fail(what);
}

// ---- cases -----------------------------------------------------------------------------------------------------

const cases = [];
const test = (name, fn) => cases.push([name, fn]);
const chat = { model: 'tiny', messages: [{ role: 'user', content: 'What is a polder?' }], max_tokens: 32, temperature: 0 };
const text = { model: 'tiny', prompt: 'A polder is', max_tokens: 24, temperature: 0 };
const refused = (promise, status, check = () => true) => assert.rejects(promise, (e) => {
  assert.equal(e.status, status, e.message);
  return check(e);
});
async function collect(stream) {
  const r = { text: [], finish: [], chunks: 0, usage: null, roles: 0, logprobs: 0 };
  for await (const c of stream) {
    r.chunks++;
    r.id = c.id;
    if (c.usage) r.usage = c.usage;
    for (const ch of c.choices) {
      r.text[ch.index] = (r.text[ch.index] ?? '') + (ch.delta ? ch.delta.content ?? '' : ch.text);
      if (ch.delta?.role) r.roles++;
      if (ch.finish_reason) r.finish[ch.index] = ch.finish_reason;
      r.logprobs += ch.logprobs?.content?.length ?? ch.logprobs?.tokens?.length ?? 0;
    }
  }
  return r;
}

test('chat: an answer with usage, fingerprint and its record', async () => {
  const { data, response } = await client.chat.completions.create(chat).withResponse();
  assert.equal(data.object, 'chat.completion');
  assert.equal(data.model, 'tiny');
  assert.equal(data.choices.length, 1);
  assert.equal(data.choices[0].message.role, 'assistant');
  assert.ok(data.choices[0].message.content.length > 0);
  assert.ok(['stop', 'length'].includes(data.choices[0].finish_reason));
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.ok(data.usage.prompt_tokens > 0 && data.usage.completion_tokens <= 32);
  assert.match(data.system_fingerprint, /^p3-[0-9a-f]{12}$/);
  assert.equal(data.id, `chatcmpl-${response.headers.get('x-polder-record')}`);
  assert.match(response.headers.get('x-request-id'), /^req_/);
});

test('chat: a stream carries the same text', async () => {
  const whole = await client.chat.completions.create(chat);
  const s = await collect(await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } }));
  assert.equal(s.text[0], whole.choices[0].message.content);
  assert.equal(s.finish[0], whole.choices[0].finish_reason);
  assert.equal(s.roles, 1);
  assert.deepEqual(s.usage, whole.usage);
  assert.ok(s.chunks > 3);
});

test('chat: the stream helper of the client', async () => {
  const stream = client.chat.completions.stream(chat);
  let deltas = '';
  stream.on('content', (d) => { deltas += d; });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, deltas);
});

test('chat: roles and text parts', async () => {
  const r = await client.chat.completions.create({
    ...chat,
    messages: [
      { role: 'system', content: 'Answer in one sentence.' },
      { role: 'user', content: [{ type: 'text', text: 'What is' }, { type: 'text', text: 'a dike?' }] },
      { role: 'assistant', content: 'A wall of earth.' },
      { role: 'user', content: 'And a sluice?' },
    ],
  });
  assert.ok(r.choices[0].message.content.length > 0);
});

test('chat: max_completion_tokens ends an answer by length', async () => {
  const r = await client.chat.completions.create({ ...chat, max_tokens: undefined, max_completion_tokens: 3 });
  assert.equal(r.usage.completion_tokens, 3);
  assert.equal(r.choices[0].finish_reason, 'length');
});

test('chat: log-probabilities with alternatives', async () => {
  const r = await client.chat.completions.create({ ...chat, max_tokens: 8, logprobs: true, top_logprobs: 5 });
  const content = r.choices[0].logprobs.content;
  assert.equal(content.length, r.usage.completion_tokens);
  for (const t of content) {
    assert.ok(t.logprob <= 0);
    assert.equal(t.top_logprobs.length, 5);
    assert.equal(t.top_logprobs[0].token, t.token); // greedy: the likeliest was taken
    assert.equal(t.top_logprobs[0].logprob, t.logprob);
    for (let i = 1; i < 5; i++) assert.ok(t.top_logprobs[i].logprob <= t.top_logprobs[i - 1].logprob);
  }
  const bytes = Buffer.from(content.flatMap((t) => t.bytes)).toString();
  assert.ok(bytes.startsWith(r.choices[0].message.content.slice(0, 4)));
  const s = await collect(await client.chat.completions.create({ ...chat, max_tokens: 8, logprobs: true, stream: true }));
  assert.equal(s.logprobs, content.length);
});

test('completions: streaming and not', async () => {
  const r = await client.completions.create(text);
  assert.equal(r.object, 'text_completion');
  assert.match(r.id, /^cmpl-\d+$/);
  assert.ok(r.choices[0].finish_reason === 'length' ? r.usage.completion_tokens === 24 : r.usage.completion_tokens <= 24);
  const s = await collect(await client.completions.create({ ...text, stream: true }));
  assert.equal(s.text[0], r.choices[0].text);
  assert.equal(s.finish[0], r.choices[0].finish_reason);
  const short = await client.completions.create({ ...text, max_tokens: 2 });
  assert.equal(short.usage.completion_tokens, 2);
  assert.equal(short.choices[0].finish_reason, 'length');
});

test('completions: stop strings are cut and end the answer', async () => {
  const whole = (await client.completions.create(text)).choices[0].text;
  const stop = whole.slice(6, 11);
  const cut = whole.slice(0, whole.indexOf(stop));
  for (const value of [stop, ['never there', stop]]) {
    const r = await client.completions.create({ ...text, stop: value });
    assert.equal(r.choices[0].text, cut);
    assert.equal(r.choices[0].finish_reason, 'stop');
  }
  const s = await collect(await client.completions.create({ ...text, stop, stream: true }));
  assert.equal(s.text[0], cut);
  assert.equal(s.finish[0], 'stop');
});

test('completions: echo gives the prompt first, with its log-probabilities', async () => {
  const plain = await client.completions.create(text);
  const r = await client.completions.create({ ...text, echo: true, logprobs: 2 });
  assert.equal(r.choices[0].text, text.prompt + plain.choices[0].text);
  const lp = r.choices[0].logprobs;
  // a token that ends the answer is counted and not shown
  assert.equal(lp.tokens.length, r.usage.total_tokens - (r.choices[0].finish_reason === 'stop' ? 1 : 0));
  assert.equal(lp.token_logprobs[0], null);
  assert.ok(lp.token_logprobs.slice(1).every((v) => v <= 0));
  assert.ok(lp.top_logprobs.slice(1).every((t) => Object.keys(t).length <= 2));
  assert.ok(lp.text_offset.every((o, i) => i === 0 || o >= lp.text_offset[i - 1]));
});

test('completions: several prompts, several choices, token ids', async () => {
  const r = await client.completions.create({ ...text, prompt: ['A polder is', 'A dike is'], n: 2, temperature: 0.8, seed: 3 });
  assert.deepEqual(r.choices.map((c) => c.index), [0, 1, 2, 3]);
  const one = await client.completions.create({ ...text, prompt: 'A dike is', n: 2, temperature: 0.8, seed: 3 });
  assert.equal(r.choices[2].text, one.choices[0].text);
  assert.equal(r.choices[3].text, one.choices[1].text);
  const s = await collect(await client.completions.create({ ...text, prompt: ['A polder is', 'A dike is'], n: 2, temperature: 0.8, seed: 3, stream: true }));
  assert.deepEqual(s.text, r.choices.map((c) => c.text));
  const ids = await client.completions.create({ ...text, prompt: [[5, 6, 7], [8, 9]], max_tokens: 2 });
  assert.equal(ids.choices.length, 2);
});

test('n: choices differ, choice k is seed + k', async () => {
  const ask = (more) => client.chat.completions.create({ ...chat, temperature: 1, ...more });
  const both = await ask({ n: 2, seed: 40 });
  assert.equal(both.choices.length, 2);
  const second = await ask({ seed: 41 });
  assert.equal(both.choices[1].message.content, second.choices[0].message.content);
  assert.notEqual(both.choices[0].message.content, both.choices[1].message.content);
});

test('seed: the same seed gives the same answer, none a fresh one', async () => {
  const ask = (seed) => client.chat.completions.create({ ...chat, temperature: 1, top_p: 0.95, seed }).withResponse();
  const [a, b, c, d] = [await ask(7), await ask(7), await ask(), await ask()];
  assert.equal(a.data.choices[0].message.content, b.data.choices[0].message.content);
  assert.notEqual(c.response.headers.get('x-polder-seed'), d.response.headers.get('x-polder-seed'));
  assert.equal(a.response.headers.get('x-polder-seed'), '7');
});

test('logit_bias: a banned token does not come', async () => {
  const r = await client.completions.create({ ...text, max_tokens: 1, logprobs: 1 });
  const first = r.choices[0].logprobs.tokens[0];
  const banned = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [String(i), -100]));
  const s = await client.completions.create({ ...text, max_tokens: 1, logprobs: 1, logit_bias: banned });
  assert.equal(typeof first, 'string');
  assert.ok(s.choices[0].logprobs.tokens.length <= 1);
  await refused(client.completions.create({ ...text, logit_bias: { 99999: -100 } }), 400);
});

test('penalties and filters are taken', async () => {
  const r = await client.chat.completions.create({
    ...chat, temperature: 0.7, top_p: 0.9, frequency_penalty: 0.5, presence_penalty: 0.5, seed: 1, top_k: 20, min_p: 0.05,
    repeat_penalty: 1.1, user: 'someone', metadata: { a: 'b' }, store: false, response_format: { type: 'text' },
  });
  assert.ok(r.choices[0].message.content !== undefined);
});

// with its end token banned the model cannot stop by itself
const [end] = JSON.parse(execFileSync(polder, ['tokenize', modelFile, '--special', '--no-bos'], { input: '<|end|>' }));
const endless = { max_tokens: 400, temperature: 1, logit_bias: { [end]: -100 } };

test('an aborted stream stops its generation', async () => {
  const name = 'polder_requests_total{outcome="cancelled"}';
  const before = await metric(name);
  // events of 4 KB each, more than the buffers between hold: the answer cannot end by itself
  const stream = await client.chat.completions.create({ ...chat, ...endless, n: 8, logprobs: true, top_logprobs: 20, stream: true });
  for await (const chunk of stream) { assert.ok(chunk.id); break; }
  stream.controller.abort();
  await eventually('the answer runs on', async () => (await metric(name)) === before + 1);
  await eventually('sequences are left', async () => (await metric('polder_running_sequences')) === 0);
});

test('an aborted request that is not streamed stops too', async () => {
  const name = 'polder_requests_total{outcome="cancelled"}';
  const before = await metric(name);
  const abort = new AbortController();
  const asked = client.completions.create({ ...text, prompt: Array(64).fill('A polder is'), n: 16, ...endless }, { signal: abort.signal });
  setTimeout(() => abort.abort(), 150);
  await assert.rejects(asked, OpenAI.APIUserAbortError);
  await eventually('the answer runs on', async () => (await metric(name)) > before);
});

test('a bad key is 401', async () => {
  for (const bad of ['pld_wrong', 'sk-something', keys.user + 'x'])
    await refused(make(bad).chat.completions.create(chat), 401, (e) => e instanceof OpenAI.AuthenticationError && e.code === 'invalid_api_key');
});

test('an auditor may not ask', async () => {
  await refused(make(keys.auditor).chat.completions.create(chat), 403, (e) => e instanceof OpenAI.PermissionDeniedError);
});

test('a too large body is 413', async () => {
  const content = 'polder '.repeat(800000);
  await refused(client.chat.completions.create({ ...chat, messages: [{ role: 'user', content }] }), 413, (e) => e.code === 'too_large');
});

test('a too long prompt is 400', async () => {
  const content = 'polder '.repeat(3000);
  for (const stream of [false, true])
    await refused(client.chat.completions.create({ ...chat, stream, messages: [{ role: 'user', content }] }), 400, (e) => e.code === 'context_length_exceeded');
});

test('an unknown model is 404', async () => {
  for (const stream of [false, true])
    await refused(client.chat.completions.create({ ...chat, model: 'nothing', stream }), 404, (e) => e instanceof OpenAI.NotFoundError && e.param === 'model' && e.code === 'model_not_found');
});

test('an unknown field is 400 and named', async () => {
  await refused(client.chat.completions.create({ ...chat, colour: 'red' }), 400, (e) => e.param === 'colour');
  await refused(client.completions.create({ ...text, messages: [] }), 400, (e) => e.param === 'messages');
});

test('what is not done is refused, never done otherwise', async () => {
  const cases = {
    tools: { tools: [{ type: 'web_search' }] },
    functions: { functions: [{ name: 'f' }] },
    tool_choice: { tool_choice: 'required' },
    response_format: { response_format: { type: 'yaml' } },
    messages: { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }] },
    temperature: { temperature: 3 },
    n: { n: 17 },
  };
  for (const [param, more] of Object.entries(cases))
    await refused(client.chat.completions.create({ ...chat, ...more }), 400, (e) => e instanceof OpenAI.BadRequestError && e.param === param);
});

test('answers take the form that is asked for', async () => {
  const schema = {
    type: 'object',
    properties: { title: { type: 'string', maxLength: 20 }, year: { type: 'integer', minimum: 1000, maximum: 2100 }, tags: { type: 'array', items: { enum: ['water', 'land'] }, maxItems: 3 } },
    required: ['title', 'year', 'tags'],
    additionalProperties: false,
  };
  const form = { type: 'json_schema', json_schema: { name: 'book', strict: true, schema } };
  for (const temperature of [0, 1.5]) {
    const a = await client.chat.completions.create({ ...chat, temperature, seed: 5, max_tokens: 200, response_format: form });
    assert.equal(a.choices[0].finish_reason, 'stop');
    const v = JSON.parse(a.choices[0].message.content);
    assert.deepEqual(Object.keys(v), ['title', 'year', 'tags']);
    assert.ok(v.title.length <= 20 && Number.isInteger(v.year) && v.year >= 1000 && v.year <= 2100);
    assert.ok(v.tags.length <= 3 && v.tags.every((t) => t === 'water' || t === 'land'));
    const again = await client.chat.completions.create({ ...chat, temperature, seed: 5, max_tokens: 200, response_format: form, logprobs: true });
    assert.equal(again.choices[0].message.content, a.choices[0].message.content);
  }
  let streamed = '';
  for await (const ev of await client.chat.completions.create({ ...chat, stream: true, max_tokens: 200, response_format: form }))
    streamed += ev.choices[0]?.delta?.content ?? '';
  assert.ok(JSON.parse(streamed).year >= 1000);
  const forms = [[{ guided_regex: '[0-9]{3}-[a-f]{2}' }, /^[0-9]{3}-[a-f]{2}$/], [{ guided_choice: ['yes', 'no', 'perhaps'] }, /^(yes|no|perhaps)$/],
    [{ grammar: 'root ::= ("ab" | "c"){2,4} "."' }, /^(ab|c){2,4}\.$/], [{ structured_outputs: { json: { const: [1, 'a'] } } }, /^\[1,"a"\]$/]];
  for (const [more, want] of forms) {
    const a = await client.completions.create({ ...text, temperature: 1, n: 3, ...more });
    for (const c of a.choices) assert.match(c.text, want);
  }
  await refused(client.chat.completions.create({ ...chat, response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { not: { minimum: 1 } } } } }), 400, (e) => /#: not/.test(e.message));
  await refused(client.chat.completions.create({ ...chat, response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { enum: [] } } } }), 400, (e) => /no value/.test(e.message));
});

test('tools are refused where the template has no place for them', async () => {
  const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: {} } } }];
  await refused(client.chat.completions.create({ ...chat, tools }), 400, (e) => /no place for tools/.test(e.message));
  // not offered, so nothing is missing
  assert.ok((await client.chat.completions.create({ ...chat, tools, tool_choice: 'none' })).choices[0].message.content);
});

const toolList = [
  { type: 'function', function: { name: 'weather', description: 'The weather of a day.', strict: true, parameters: { type: 'object', properties: { city: { enum: ['Delft', 'Gent'] }, days: { type: 'integer', minimum: 1, maximum: 9 } }, required: ['city', 'days'], additionalProperties: false } } },
  { type: 'function', function: { name: 'now', parameters: { type: 'object', properties: {} } } },
];
const ask = { model: 'caller', messages: [{ role: 'user', content: 'What is the weather?' }], tools: toolList, max_tokens: 120, temperature: 1 };
function checkCall(c) {
  assert.equal(c.type, 'function');
  assert.match(c.id, /^call_/);
  const args = JSON.parse(c.function.arguments);
  if (c.function.name === 'now') return assert.deepEqual(args, {});
  assert.equal(c.function.name, 'weather');
  assert.deepEqual(Object.keys(args).sort(), ['city', 'days']);
  assert.ok(['Delft', 'Gent'].includes(args.city) && Number.isInteger(args.days) && args.days >= 1 && args.days <= 9);
}

test('a demanded call comes, and its result goes back', async () => {
  const ids = new Set();
  for (let seed = 0; seed < 8; seed++) {
    const a = await client.chat.completions.create({ ...ask, seed, tool_choice: 'required', parallel_tool_calls: false });
    const [choice] = a.choices, [call] = choice.message.tool_calls;
    assert.equal(choice.finish_reason, 'tool_calls');
    assert.equal(choice.message.content, null);
    assert.equal(choice.message.tool_calls.length, 1);
    checkCall(call);
    ids.add(call.id);
    const messages = [...ask.messages, choice.message, { role: 'tool', tool_call_id: call.id, content: 'rain' }];
    const next = await client.chat.completions.create({ ...ask, messages, tools: undefined, max_tokens: 8 });
    assert.ok(next.usage.prompt_tokens > a.usage.prompt_tokens);
  }
  assert.equal(ids.size, 8);
});

test('a streamed call is the call that is not streamed', async () => {
  const params = { ...ask, seed: 3, tool_choice: { type: 'function', function: { name: 'weather' } } };
  const whole = (await client.chat.completions.create(params)).choices[0].message.tool_calls;
  let name = '', args = '', id = '', finish;
  for await (const c of await client.chat.completions.create({ ...params, stream: true })) {
    const [ch] = c.choices;
    finish ??= ch.finish_reason;
    for (const d of ch.delta.tool_calls ?? []) {
      assert.equal(d.index, 0);
      if (d.id) { assert.equal(id, ''); id = d.id; name = d.function.name; }
      args += d.function.arguments;
    }
  }
  assert.equal(finish, 'tool_calls');
  assert.equal(name, 'weather');
  assert.equal(args, whole[0].function.arguments);
  checkCall({ id, type: 'function', function: { name, arguments: args } });
});

test("the client's own tool runner goes round", async () => {
  let asked = 0;
  const runner = client.chat.completions.runTools({ ...ask, seed: 1, tool_choice: { type: 'function', function: { name: 'weather' } },
    tools: [{ type: 'function', function: { ...toolList[0].function, parse: JSON.parse, function: (args) => { asked++; checkCall({ id: 'call_', type: 'function', function: { name: 'weather', arguments: JSON.stringify(args) } }); return 'rain'; } } }] });
  await runner.done();
  assert.equal(asked, 1);
});

test('sixteen streams at once carry what one carries', async () => {
  const alone = (await client.chat.completions.create(chat)).choices[0].message.content;
  const all = await Promise.all(Array.from({ length: 16 }, async () => collect(await client.chat.completions.create({ ...chat, stream: true }))));
  for (const s of all) { assert.equal(s.text[0], alone); assert.ok(s.finish[0]); }
  assert.equal(new Set(all.map((s) => s.id)).size, 16);
});

test('models: list and retrieve', async () => {
  const list = [];
  for await (const m of client.models.list()) list.push(m);
  assert.deepEqual(list.map((m) => m.id), ['caller', 'tiny']);
  list.shift();
  assert.equal(list[0].object, 'model');
  assert.ok(list[0].created > 1.7e9);
  const one = await client.models.retrieve('tiny');
  assert.deepEqual(one, list[0]);
  await refused(client.models.retrieve('no/such:model'), 404);
});

test('keep-alive: one connection serves many requests', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ask = () => new Promise((resolve, reject) => {
    const body = JSON.stringify({ ...text, max_tokens: 2 });
    const req = http.request(`${url}/v1/completions`, { agent, method: 'POST', headers: { authorization: `Bearer ${keys.user}`, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } }, (res) => {
      res.resume();
      res.on('end', () => resolve([res.statusCode, req.reusedSocket]));
    });
    req.on('error', reject);
    req.end(body);
  });
  assert.deepEqual(await ask(), [200, false]);
  for (let i = 0; i < 10; i++) assert.deepEqual(await ask(), [200, true]);
  agent.destroy();
});

test('a stop lets running answers end and leaves a ledger that verifies', async () => {
  const asked = Promise.all(Array.from({ length: 4 }, async () => collect(await client.chat.completions.create({ ...chat, max_tokens: 200, stream: true }))));
  await sleep(50);
  assert.equal(await down(), 0);
  const all = await asked.catch((e) => assert.fail(`an answer was cut off: ${e.message}`));
  for (const s of all) assert.ok(s.finish[0]);
  assert.match(run('audit', 'verify'), /verified/);
});

// ---- run -------------------------------------------------------------------------------------------------------

let passed = 0, failed = 0;
process.on('unhandledRejection', () => {}); // each case awaits what it asks; a crash of the server must not end the report
for (const [name, fn] of cases) {
  if (process.env.CASE && !name.includes(process.env.CASE)) continue;
  if (ended()) {
    console.log(`FAIL ${name}: the server has ended (${status()})`);
    failed++;
    continue;
  }
  try {
    await fn();
    passed++;
    console.log(`ok   ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAIL ${name}\n     ${e.stack}`);
  }
}
if (!ended()) await down();
if (failed) console.log(log());
rmSync(dir, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
