// @anthropic-ai/sdk: messages, the stream helper, tools and the tool runner, thinking, counting, errors, aborts.
import assert from 'node:assert/strict';
import { checkArguments, eventually, keys, load, metric, refused, schema, script, test, url } from './world.mjs';

const { default: Anthropic } = await load('@anthropic-ai/sdk');
const { betaTool } = await load('@anthropic-ai/sdk/helpers/beta/json-schema');
const make = (apiKey, more) => new Anthropic({ apiKey, baseURL: url, maxRetries: 0, ...more });
const client = make(keys.user);
const ask = { model: 'tiny', max_tokens: 32, temperature: 0, messages: [{ role: 'user', content: 'What is a polder?' }] };
const tools = [{ name: 'weather', description: 'The weather of some days.', input_schema: schema, strict: true }];

test('anthropic: a message', async () => {
  const { data, response } = await client.messages.create(ask).withResponse();
  assert.equal(data.type, 'message');
  assert.equal(data.role, 'assistant');
  assert.equal(data.model, 'tiny');
  assert.equal(data.id, `msg_${response.headers.get('x-polder-record')}`);
  assert.equal(data.content.length, 1);
  assert.ok(data.content[0].text.length > 0);
  assert.ok(['end_turn', 'max_tokens'].includes(data.stop_reason));
  assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
  assert.match(data._request_id, /^req_/);
});

test('anthropic: a stream says what a message says', async () => {
  const whole = await client.messages.create(ask);
  const stream = client.messages.stream(ask);
  let text = '';
  stream.on('text', (t) => { text += t; });
  const seen = [];
  for await (const ev of stream) seen.push(ev.type);
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(final.content.map((b) => b.text), whole.content.map((b) => b.text));
  assert.equal(final.stop_reason, whole.stop_reason);
  assert.deepEqual(final.usage.output_tokens, whole.usage.output_tokens);
  assert.equal(final.usage.input_tokens, whole.usage.input_tokens);
  assert.deepEqual([seen[0], seen.at(-2), seen.at(-1)], ['message_start', 'message_delta', 'message_stop']);
  let raw = '';
  for await (const ev of await client.messages.create({ ...ask, stream: true }))
    if (ev.type === 'content_block_delta' && ev.delta.type === 'text_delta') raw += ev.delta.text;
  assert.equal(raw, text);
});

test('anthropic: system and blocks reach the model', async () => {
  const plain = await client.messages.countTokens({ model: 'tiny', messages: ask.messages });
  const more = await client.messages.countTokens({
    model: 'tiny', system: [{ type: 'text', text: 'Be brief.', cache_control: { type: 'ephemeral' } }],
    messages: [{ role: 'user', content: [{ type: 'text', text: 'What is' }, { type: 'text', text: 'a dike?' }] }, { role: 'assistant', content: 'A wall.' }, { role: 'user', content: 'And a sluice?' }],
  });
  assert.ok(more.input_tokens > plain.input_tokens);
  assert.equal((await client.messages.create(ask)).usage.input_tokens, plain.input_tokens);
});

test('anthropic: limits and stop sequences', async () => {
  const short = await client.messages.create({ ...ask, max_tokens: 3 });
  assert.equal(short.stop_reason, 'max_tokens');
  assert.equal(short.usage.output_tokens, 3);
  const whole = (await client.messages.create(ask)).content[0].text, stop = whole.slice(6, 11);
  for (const streamed of [false, true]) {
    const body = { ...ask, stop_sequences: ['never there', stop] };
    const cut = streamed ? await client.messages.stream(body).finalMessage() : await client.messages.create(body);
    assert.equal(cut.content[0].text, whole.slice(0, whole.indexOf(stop)));
    assert.equal(cut.stop_reason, 'stop_sequence');
    assert.equal(cut.stop_sequence, stop);
  }
});

test('anthropic: a demanded call comes, and its result goes back', async () => {
  const body = { ...ask, model: 'caller', max_tokens: 120, tools, tool_choice: { type: 'tool', name: 'weather' } };
  const m = await client.messages.create(body), call = m.content.find((b) => b.type === 'tool_use');
  assert.equal(m.stop_reason, 'tool_use');
  assert.equal(call.name, 'weather');
  checkArguments(call.input);
  const messages = [...ask.messages, { role: 'assistant', content: m.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: [{ type: 'text', text: 'rain' }] }] }];
  const next = await client.messages.create({ ...ask, model: 'caller', messages, tools, tool_choice: { type: 'none' } });
  assert.ok(next.usage.input_tokens > m.usage.input_tokens - 20);
  assert.ok(next.content.every((b) => b.type === 'text'));
  const stream = client.messages.stream(body);
  let json = '';
  stream.on('inputJson', (part) => { json += part; });
  const final = await stream.finalMessage();
  assert.deepEqual(final.content.map((b) => b.input), m.content.map((b) => b.input));
  assert.deepEqual(JSON.parse(json), call.input);
});

for (const model of ['agent', 'agent-a']) test(`anthropic: the tool runner goes round (${model})`, async () => {
  for (const stream of [false, true]) {
    await script('agent tool 1', 'agent echo');
    const asked = [];
    const note = betaTool({
      name: 'note', description: 'Notes a text.', inputSchema: { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] },
      run: (input) => { asked.push(input.text); return `noted: ${input.text}`; },
    });
    const runner = client.beta.messages.toolRunner({ model, max_tokens: 100, stream, messages: [{ role: 'user', content: 'high tide at noon' }], tools: [note] });
    const turns = [];
    for await (const m of runner) turns.push(stream ? await m.finalMessage() : m);
    assert.deepEqual(asked, ['high tide at noon']);
    assert.deepEqual(turns.map((m) => m.stop_reason), ['tool_use', 'end_turn']);
    assert.equal(turns[1].content[0].text, 'noted: high tide at noon');
  }
});

for (const model of ['thinker', 'thinker-a']) test(`anthropic: thinking comes in blocks of its own and goes back (${model})`, async () => {
  const body = { model, max_tokens: 2000, messages: [{ role: 'user', content: 'why' }], ...(model === 'thinker' && { thinking: { type: 'enabled', budget_tokens: 1024 } }) };
  const m = await client.messages.create(body);
  assert.deepEqual(m.content.map((b) => b.type), ['thinking', 'text']);
  assert.equal(m.content[0].thinking, 'I think: why');
  assert.ok(m.content[0].signature);
  assert.equal(m.content[1].text, 'done: why');
  const stream = client.messages.stream(body);
  let thought = '';
  stream.on('thinking', (t) => { thought += t; });
  const final = await stream.finalMessage();
  assert.equal(thought, 'I think: why');
  assert.ok(final.content[0].signature);
  const next = await client.messages.create({ ...body, messages: [...body.messages, { role: 'assistant', content: final.content }, { role: 'user', content: 'again' }] });
  assert.equal(next.content[1].text, 'done: again');
});

test('anthropic: answers take the form that is asked for', async () => {
  const m = await client.messages.create({ ...ask, max_tokens: 200, output_config: { format: { type: 'json_schema', schema } } });
  checkArguments(JSON.parse(m.content[0].text));
});

test('anthropic: errors are its classes', async () => {
  await refused(make('pld_wrong').messages.create(ask), 401, (e) => e instanceof Anthropic.AuthenticationError && e.error.error.type === 'authentication_error');
  await refused(make(keys.auditor).messages.create(ask), 403, (e) => e instanceof Anthropic.PermissionDeniedError);
  await refused(client.messages.create({ ...ask, model: 'nothing' }), 404, (e) => e instanceof Anthropic.NotFoundError && /^req_/.test(e.requestID) && e.error.request_id === e.requestID);
  for (const [more, says] of [
    [{ colour: 'red' }, /colour/],
    [{ messages: [{ role: 'user', content: [{ type: 'image', source: { type: 'url', url: 'https://example.org/a.png' } }] }] }, /image/],
    [{ tools: [{ type: 'web_search_20250305', name: 'web_search' }] }, /web_search_20250305/],
    [{ mcp_servers: [{ type: 'url', url: 'https://example.org', name: 'x' }] }, /mcp_servers/],
    [{ max_tokens: undefined }, /max_tokens/],
  ]) await refused(client.messages.create({ ...ask, ...more }), 400, (e) => e instanceof Anthropic.BadRequestError && says.test(e.message));
  await refused(client.messages.create({ ...ask, messages: [{ role: 'user', content: 'polder '.repeat(3000) }] }), 400, (e) => e.error.error.type === 'invalid_request_error');
  await refused(client.messages.create({ ...ask, messages: [{ role: 'user', content: 'polder '.repeat(800000) }] }), 413, (e) => e.error.error.type === 'request_too_large');
});

test('anthropic: a declared label', async () => {
  const { response } = await client.messages.create({ ...ask, metadata: { user_id: 'u', polder_label: 'confidential' } }).withResponse();
  assert.match(response.headers.get('x-polder-label'), /^confidential/);
});

test('anthropic: the key as a bearer token', async () => {
  const bearer = new Anthropic({ apiKey: null, authToken: keys.user, baseURL: url, maxRetries: 0 });
  assert.equal((await bearer.messages.create(ask)).type, 'message');
});

test('anthropic: a failure in a stream throws', async () => {
  const stream = client.messages.stream({ ...ask, model: 'broken' });
  await assert.rejects(stream.finalMessage(), (e) => e instanceof Anthropic.APIError && e.error?.error?.type === 'api_error');
});

test('anthropic: an aborted stream stops its generation', async () => {
  const name = 'polder_requests_total{outcome="cancelled"}', before = await metric(name);
  const stream = client.messages.stream({ ...ask, max_tokens: 400, output_config: { format: { type: 'json_schema', schema: { type: 'string', minLength: 5000 } } } });
  for await (const ev of stream) if (ev.type === 'content_block_delta') break;
  stream.abort();
  await eventually('the answer runs on', async () => (await metric(name)) === before + 1);
  await eventually('sequences are left', async () => (await metric('polder_running_sequences')) === 0);
});
