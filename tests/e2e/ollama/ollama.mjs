// The npm client `ollama` against a polder with small models: what its users call, and what they meet when they call it
// wrongly. What breaks it: any answer, status or stream that this client does not understand.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { newIsland, withTools } from '../island.mjs';

const [polder, work, makeModels, modelFile] = process.argv.slice(2);
const require = createRequire(join(work, 'package.json'));
const { Ollama } = await import(pathToFileURL(require.resolve('ollama')).href);

// ---- an island with a server -----------------------------------------------------------------------------------

const { dir, island, run, up, down, log } = newIsland(polder, 'ollama');

execFileSync(makeModels, [dir]);
run('init', island);
run('model', 'add', modelFile, '--name', 'tiny');
run('model', 'add', withTools(modelFile, dir), '--name', 'caller');
run('model', 'add', join(dir, 'bert.gguf'), '--name', 'bert');
const keyOf = (role) => JSON.parse(run('--json', 'key', 'add', role, '--role', role)).key;
const keys = { user: keyOf('user'), operator: keyOf('operator'), auditor: keyOf('auditor') };
const url = await up();
const make = (key) => new Ollama({ host: url, headers: { authorization: `Bearer ${key}` } });
const client = make(keys.user);
const post = async (path, body) => {
  const r = await fetch(url + path, {
    method: 'POST', headers: { authorization: `Bearer ${keys.user}`, 'content-type': 'application/json' }, body: JSON.stringify(body),
  });
  return { status: r.status, headers: r.headers, text: await r.text() };
};
const metric = async (name) => {
  const text = await (await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${keys.operator}` } })).text();
  const line = text.split('\n').find((l) => l.startsWith(`${name} `));
  return line ? Number(line.slice(name.length + 1)) : 0;
};
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
async function eventually(what, test) {
  for (let i = 0; i < 200; i++) { if (await test()) return; await sleep(25); }
  assert.fail(what);
}
const refused = (promise, status, says) => assert.rejects(promise, (e) => {
  assert.equal(e.name, 'ResponseError');
  assert.equal(e.status_code, status, e.message);
  assert.match(e.message, says);
  return true;
});

// ---- cases -----------------------------------------------------------------------------------------------------

const cases = [];
const test = (name, fn) => cases.push([name, fn]);
const greedy = { temperature: 0, num_predict: 24 };
const chat = { model: 'tiny', messages: [{ role: 'user', content: 'What is a polder?' }], options: greedy };
const text = { model: 'tiny', prompt: 'What is a polder?', options: greedy };
function figures(r) {
  assert.equal(r.done, true);
  assert.ok(['stop', 'length'].includes(r.done_reason));
  assert.ok(r.prompt_eval_count > 0 && r.eval_count > 0 && r.eval_count <= 24);
  assert.ok(r.total_duration > 0 && r.prompt_eval_duration > 0 && r.eval_duration > 0);
  assert.ok(r.prompt_eval_duration + r.eval_duration <= r.total_duration);
  assert.ok(Math.abs(new Date(r.created_at) - Date.now()) < 60000);
}

test('chat: an answer with its figures', async () => {
  const r = await client.chat(chat);
  assert.equal(r.model, 'tiny');
  assert.equal(r.message.role, 'assistant');
  assert.ok(r.message.content.length > 0);
  figures(r);
});

test('chat: a stream carries the same text', async () => {
  const whole = await client.chat(chat);
  let content = '', last, n = 0;
  for await (const part of await client.chat({ ...chat, stream: true })) {
    if (last) assert.equal(last.done, false);
    content += part.message.content;
    last = part;
    n++;
  }
  assert.equal(content, whole.message.content);
  assert.equal(last.done_reason, whole.done_reason);
  assert.equal(last.eval_count, whole.eval_count);
  assert.ok(n > 3);
  figures(last);
});

test('a request that does not say so is streamed', async () => {
  const r = await post('/api/chat', { ...chat, stream: undefined }); // the client sets it on what it is given
  assert.equal(r.headers.get('content-type'), 'application/x-ndjson');
  assert.ok(r.headers.get('x-polder-record'));
  const lines = r.text.trimEnd().split('\n').map((l) => JSON.parse(l));
  assert.ok(lines.length > 3 && lines.at(-1).done);
});

test('generate: streaming and not, as a chat of one message', async () => {
  const whole = await client.generate(text);
  assert.equal(whole.response, (await client.chat(chat)).message.content);
  figures(whole);
  let response = '', last;
  for await (const part of await client.generate({ ...text, stream: true })) { response += part.response; last = part; }
  assert.equal(response, whole.response);
  figures(last);
});

test('generate: system, and raw', async () => {
  const system = await client.generate({ ...text, system: 'Answer in one word.' });
  const asChat = await client.chat({ ...chat, messages: [{ role: 'system', content: 'Answer in one word.' }, ...chat.messages] });
  assert.equal(system.response, asChat.message.content);
  const raw = await client.generate({ ...text, prompt: 'A polder is', raw: true });
  assert.ok(raw.response.length > 0 && raw.prompt_eval_count < system.prompt_eval_count);
});

test('options: a seed repeats an answer, stop strings end it, num_predict cuts it', async () => {
  const warm = (seed) => client.chat({ ...chat, options: { temperature: 1, top_p: 0.95, top_k: 50, num_predict: 24, seed } });
  assert.equal((await warm(7)).message.content, (await warm(7)).message.content);
  const whole = (await client.generate(text)).response, stop = whole.slice(6, 11);
  const cut = await client.generate({ ...text, options: { ...greedy, stop: [stop] } });
  assert.equal(cut.response, whole.slice(0, whole.indexOf(stop)));
  assert.equal(cut.done_reason, 'stop');
  const short = await client.generate({ ...text, options: { ...greedy, num_predict: 3 } });
  assert.equal(short.eval_count, 3);
  assert.equal(short.done_reason, 'length');
});

test('log-probabilities with alternatives', async () => {
  const r = await client.chat({ ...chat, options: { ...greedy, num_predict: 6 }, logprobs: true, top_logprobs: 3 });
  assert.equal(r.logprobs.length, r.eval_count);
  for (const t of r.logprobs) {
    assert.ok(t.logprob <= 0);
    assert.equal(t.top_logprobs.length, 3);
    assert.equal(t.top_logprobs[0].token, t.token);
  }
  let n = 0;
  for await (const part of await client.chat({ ...chat, options: { ...greedy, num_predict: 6 }, logprobs: true, stream: true }))
    n += part.logprobs?.length ?? 0;
  assert.equal(n, r.logprobs.length);
});

test('format: JSON, and a schema', async () => {
  const schema = { type: 'object', properties: { wet: { type: 'boolean' }, n: { enum: [1, 2] } }, required: ['wet', 'n'], additionalProperties: false };
  const r = await client.chat({ ...chat, format: schema, options: { temperature: 1, seed: 3, num_predict: 60 } });
  const v = JSON.parse(r.message.content);
  assert.equal(typeof v.wet, 'boolean');
  assert.ok([1, 2].includes(v.n));
  const g = await client.generate({ ...text, format: 'json', options: { temperature: 1, seed: 1, num_predict: 200 } });
  if (g.done_reason === 'stop') assert.equal(typeof JSON.parse(g.response), 'object');
  assert.match(g.response, /^\s*\{/);
});

const tool = {
  type: 'function',
  function: {
    name: 'get_weather', description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string', enum: ['Delft', 'Gouda'] } }, required: ['city'] },
  },
};
const turns = [
  { role: 'user', content: 'Weather?' },
  { role: 'assistant', content: '', tool_calls: [{ function: { name: 'get_weather', arguments: { city: 'Delft' } } }] },
  { role: 'tool', tool_name: 'get_weather', content: 'rain' },
];

test('tools: a conversation with calls, streaming and not', async () => {
  const ask = { model: 'caller', messages: turns, tools: [tool], options: greedy };
  const r = await client.chat(ask);
  assert.ok(r.message.content.length > 0 || r.message.tool_calls?.length);
  let content = '';
  for await (const part of await client.chat({ ...ask, stream: true })) content += part.message.content;
  assert.equal(content, r.message.content);
});

test('tools: what the model calls comes as an object', async () => {
  // a form that is nothing but a call: the small model by itself would not write one
  const call = JSON.stringify({ name: 'get_weather', arguments: { city: 'Gouda' } });
  const r = await post('/v1/chat/completions', {
    model: 'caller', messages: turns.slice(0, 1), tools: [tool], tool_choice: 'required', temperature: 0, max_tokens: 200,
  });
  const asOpenAI = JSON.parse(r.text).choices[0].message.tool_calls;
  assert.equal(asOpenAI[0].function.name, 'get_weather');
  // what came there goes back here, as Ollama's clients write it
  const again = await client.chat({
    model: 'caller', options: greedy, tools: [tool],
    messages: [turns[0], { role: 'assistant', content: '', tool_calls: asOpenAI.map((c) => ({ id: c.id, function: { name: c.function.name, arguments: JSON.parse(c.function.arguments) } })) },
      { role: 'tool', tool_call_id: asOpenAI[0].id, content: call }],
  });
  assert.equal(again.done, true);
});

test('embed: one text and several', async () => {
  const one = await client.embed({ model: 'bert', input: 'a polder' });
  const two = await client.embed({ model: 'bert', input: ['a polder', 'a dike'] });
  assert.equal(two.embeddings.length, 2);
  assert.deepEqual(two.embeddings[0], one.embeddings[0]);
  assert.ok(Math.abs(Math.hypot(...one.embeddings[0]) - 1) < 1e-4);
  assert.ok(two.prompt_eval_count > one.prompt_eval_count && two.total_duration > 0);
  const old = await client.embeddings({ model: 'bert', prompt: 'a polder' });
  assert.deepEqual(old.embedding, one.embeddings[0]);
});

test('list, show, version', async () => {
  const { models } = await client.list();
  assert.deepEqual(models.map((m) => m.name), ['bert', 'caller', 'tiny']);
  const tiny = models[2];
  assert.match(tiny.digest, /^[0-9a-f]{64}$/);
  assert.ok(tiny.size > 0 && tiny.details.family && tiny.details.parameter_size && tiny.details.quantization_level);
  assert.ok(Math.abs(new Date(tiny.modified_at) - Date.now()) < 600000);
  const shown = await client.show({ model: 'tiny' });
  assert.deepEqual(shown.details, tiny.details);
  assert.ok(shown.capabilities.includes('completion'));
  assert.ok(shown.model_info[`${shown.model_info['general.architecture']}.context_length`] > 0);
  assert.ok((await client.show({ model: 'bert' })).capabilities.includes('embedding'));
  assert.equal((await client.version()).version, run('--version').match(/polder (\S+)/)?.[1]);
});

test('an aborted stream stops its generation', async () => {
  const name = 'polder_requests_total{outcome="cancelled"}';
  const before = await metric(name);
  // a list that may not end, in lines of many bytes: the answer cannot be over by itself
  const stream = await client.chat({
    ...chat, stream: true, logprobs: true, top_logprobs: 20, options: { temperature: 1 },
    format: { type: 'array', items: { type: 'integer' }, minItems: 5000 },
  });
  const seen = (async () => { for await (const part of stream) { assert.ok(part.message); stream.abort(); } })();
  await assert.rejects(seen, { name: 'AbortError' });
  await eventually('the answer runs on', async () => (await metric(name)) === before + 1);
  await eventually('sequences are left', async () => (await metric('polder_running_sequences')) === 0);
});

test('abort() of the client stops all its streams', async () => {
  const other = make(keys.user);
  const stream = await other.chat({ ...chat, stream: true, format: { type: 'array', items: { type: 'integer' }, minItems: 5000 } });
  other.abort();
  await assert.rejects(async () => { for await (const part of stream) assert.ok(part); }, { name: 'AbortError' });
  await eventually('sequences are left', async () => (await metric('polder_running_sequences')) === 0);
});

test('an unknown model is 404', async () => {
  for (const stream of [false, true]) {
    await refused(client.chat({ ...chat, model: 'nothing', stream }), 404, /nothing/);
    await refused(client.generate({ ...text, model: 'nothing', stream }), 404, /nothing/);
  }
  await refused(client.embed({ model: 'nothing', input: 'a' }), 404, /nothing/);
  await refused(client.show({ model: 'nothing' }), 404, /nothing/);
});

test('what cannot be looked at is refused by name', async () => {
  const image = Buffer.from('not looked at').toString('base64');
  await refused(client.chat({ ...chat, messages: [{ role: 'user', content: 'x', images: [image] }] }), 400, /images/);
  await refused(client.generate({ ...text, images: [image] }), 400, /images/);
  await refused(client.generate({ ...text, context: [1, 2, 3] }), 400, /context/);
  await refused(client.generate({ ...text, template: '{{ .Prompt }}' }), 400, /template/);
  await refused(client.generate({ ...text, suffix: 'x' }), 400, /suffix/);
  await refused(client.embed({ model: 'bert', input: 'a', truncate: true }), 400, /truncate/);
  await refused(client.chat({ ...chat, options: { mirostat: 2 } }), 400, /options\.mirostat/);
  await refused(client.chat({ ...chat, options: { colour: 1 } }), 400, /options\.colour/);
  await refused(client.chat({ ...chat, options: { num_ctx: 1 << 20 } }), 400, /num_ctx/);
});

test('models are not changed by clients', async () => {
  await refused(client.pull({ model: 'llama3.2' }), 400, /polder model/);
  await refused(client.create({ model: 'mine', from: 'tiny' }), 400, /polder model/);
  await refused(client.copy({ source: 'tiny', destination: 'mine' }), 400, /polder model/);
  await refused(client.delete({ model: 'tiny' }), 400, /delete/); // its body is refused before
  assert.equal((await client.list()).models.length, 3);
});

test('bad keys and roles', async () => {
  await refused(make('pld_wrong').chat(chat), 401, /key/);
  await refused(make('pld_wrong').list(), 401, /key/);
  await refused(make(keys.auditor).chat(chat), 403, /./);
});

// ---- the run ---------------------------------------------------------------------------------------------------

let passed = 0, failed = 0;
for (const [name, fn] of cases) {
  try {
    await fn();
    passed++;
    console.log(`ok   ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAIL ${name}\n${e.stack}`);
  }
}
await down();
if (failed) console.log(log().split('\n').slice(-20).join('\n'));
try { run('audit', 'verify'); passed++; console.log('ok   the ledger verifies'); } catch (e) { failed++; console.log(`FAIL the ledger: ${e.stdout}${e.stderr}`); }
rmSync(dir, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
