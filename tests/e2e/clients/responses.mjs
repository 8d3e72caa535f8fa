// openai: the Responses API with its stream helper, tools, stored conversations and parsed answers.
import assert from 'node:assert/strict';
import { checkArguments, eventually, keys, load, metric, refused, schema, script, test, url } from './world.mjs';

const { default: OpenAI } = await load('openai');
const { zodTextFormat } = await load('openai/helpers/zod');
const { z } = await load('zod');
const make = (apiKey) => new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
const client = make(keys.user);
const ask = { model: 'tiny', input: 'What is a polder?', max_output_tokens: 32, temperature: 0 };
const tools = [{ type: 'function', name: 'weather', description: 'The weather of some days.', parameters: schema, strict: true }];

test('responses: an answer', async () => {
  const { data, response } = await client.responses.create({ ...ask, metadata: { team: 'water' } }).withResponse();
  assert.equal(data.object, 'response');
  assert.match(data.id, new RegExp(`^resp_${response.headers.get('x-polder-record')}_[0-9a-f]{8}$`));
  assert.ok(data.output_text.length > 0);
  assert.ok(['completed', 'incomplete'].includes(data.status));
  assert.equal(data.usage.total_tokens, data.usage.input_tokens + data.usage.output_tokens);
  assert.equal(data.metadata.team, 'water');
});

test('responses: a stream says what an answer says', async () => {
  const whole = await client.responses.create(ask);
  let text = '', n = 0, last;
  for await (const ev of await client.responses.create({ ...ask, stream: true })) {
    assert.equal(ev.sequence_number, n++);
    if (ev.type === 'response.output_text.delta') text += ev.delta;
    last = ev;
  }
  assert.equal(text, whole.output_text);
  assert.equal(last.response.status, whole.status);
  const stream = client.responses.stream(ask);
  const final = await stream.finalResponse();
  assert.equal(final.output_text, whole.output_text);
  assert.deepEqual(final.usage, whole.usage);
});

test('responses: limits', async () => {
  const r = await client.responses.create({ ...ask, max_output_tokens: 3 });
  assert.equal(r.status, 'incomplete');
  assert.equal(r.incomplete_details.reason, 'max_output_tokens');
  assert.equal(r.output[0].status, 'incomplete');
  const final = await client.responses.stream({ ...ask, max_output_tokens: 3 }).finalResponse();
  assert.equal(final.status, 'incomplete');
  assert.equal(final.output_text, r.output_text);
});

test('responses: a demanded call comes, and its result goes back', async () => {
  const body = { ...ask, model: 'caller', max_output_tokens: 120, tools, tool_choice: { type: 'function', name: 'weather' } };
  const r = await client.responses.create(body), call = r.output.find((o) => o.type === 'function_call');
  checkArguments(JSON.parse(call.arguments));
  assert.equal(call.name, 'weather');
  const next = await client.responses.create({ ...ask, model: 'caller', input: [{ role: 'user', content: ask.input }, ...r.output, { type: 'function_call_output', call_id: call.call_id, output: 'rain' }] });
  assert.ok(next.usage.input_tokens > 0);
  const stream = client.responses.stream(body);
  let args = '';
  stream.on('response.function_call_arguments.delta', (ev) => { args += ev.delta; });
  const final = await stream.finalResponse();
  assert.equal(args, call.arguments);
  assert.equal(final.output.find((o) => o.type === 'function_call').arguments, call.arguments);
});

test('responses: a stored conversation goes on', async () => {
  await script('agent tool 1', 'agent echo');
  const noteTool = [{ type: 'function', name: 'note', parameters: { type: 'object', properties: { text: { type: 'string' } } }, strict: false }];
  const one = await client.responses.create({ model: 'agent', input: 'high tide', instructions: 'Note it.', tools: noteTool });
  const call = one.output.find((o) => o.type === 'function_call');
  assert.deepEqual(JSON.parse(call.arguments), { text: 'high tide' });
  const two = await client.responses.create({ model: 'agent', previous_response_id: one.id, tools: noteTool, input: [{ type: 'function_call_output', call_id: call.call_id, output: 'noted' }] });
  assert.equal(two.output_text, 'noted');
  assert.equal(two.previous_response_id, one.id);
  const three = await client.responses.create({ model: 'agent', previous_response_id: two.id, input: 'more', stream: true });
  let last;
  for await (const ev of three) last = ev;
  assert.equal(last.response.output_text ?? last.response.output[0].content[0].text, 'more');
  const items = await client.responses.inputItems.list(two.id);
  assert.deepEqual(items.data.map((i) => i.output), ['noted']);
});

test('responses: what follows is as sensitive as what it goes on from', async () => {
  const label = async (body, headers) => {
    const { data, response } = await client.responses.create({ ...ask, ...body }, { headers }).withResponse();
    return [data.id, response.headers.get('x-polder-label'), data.output[0]?.id];
  };
  const [plain, low] = await label({});
  const [one, high, item] = await label({}, { 'x-polder-label': 'secret' });
  assert.match(high, /^secret/);
  assert.doesNotMatch(low, /^secret/);
  assert.match((await label({ previous_response_id: one }))[1], /^secret/);
  assert.match((await label({ input: [{ role: 'user', content: 'x' }, { type: 'item_reference', id: item }, { role: 'user', content: 'y' }] }))[1], /^secret/);
  assert.equal((await label({ previous_response_id: plain }))[1], low);
  assert.match((await label({ metadata: { polder_label: 'secret' } }))[1], /^secret/);
  await refused(client.responses.create({ ...ask, metadata: { polder_label: 'very secret' } }), 400);
});

test('responses: retrieved, deleted, forgotten', async () => {
  const r = await client.responses.create({ ...ask, instructions: 'Be brief.', metadata: { a: 'b' } });
  const again = await client.responses.retrieve(r.id);
  for (const key of ['id', 'status', 'output_text', 'instructions', 'created_at', 'model']) assert.deepEqual(again[key], r[key], key);
  assert.deepEqual(again.output, r.output);
  assert.deepEqual(again.usage, r.usage);
  assert.deepEqual(again.metadata, { a: 'b' });
  await refused(make(keys.operator).responses.retrieve(r.id), 404);
  await client.responses.delete(r.id);
  await refused(client.responses.retrieve(r.id), 404, (e) => e instanceof OpenAI.NotFoundError);
  await refused(client.responses.create({ ...ask, previous_response_id: r.id }), 404, (e) => e.param === 'previous_response_id');
  const none = await client.responses.create({ ...ask, store: false });
  await refused(client.responses.retrieve(none.id), 404);
});

test('responses: an answer of a schema is parsed', async () => {
  const form = z.object({ city: z.enum(['Delft', 'Gent']), days: z.number().int().min(1).max(9) });
  const r = await client.responses.parse({ ...ask, max_output_tokens: 200, text: { format: zodTextFormat(form, 'forecast') } });
  checkArguments(r.output_parsed);
  const s = await client.responses.stream({ ...ask, max_output_tokens: 200, text: { format: zodTextFormat(form, 'forecast') } }).finalResponse();
  assert.deepEqual(s.output_parsed, r.output_parsed);
});

test('responses: reasoning, in clear and as a summary', async () => {
  const body = { model: 'thinker', input: 'why' };
  const r = await client.responses.create(body);
  assert.deepEqual(r.output.map((o) => o.type), ['reasoning', 'message']);
  assert.equal(r.output[0].content[0].text, 'I think: why');
  const s = await client.responses.create({ ...body, reasoning: { summary: 'auto' } });
  assert.equal(s.output[0].summary[0].text, 'I think: why');
  for (const reasoning of [undefined, { summary: 'detailed' }]) {
    const final = await client.responses.stream({ ...body, reasoning }).finalResponse();
    assert.equal((final.output[0].content ?? final.output[0].summary)[0].text, 'I think: why');
    assert.equal(final.output_text, 'done: why');
  }
});

test('responses: errors are its classes', async () => {
  await refused(make('pld_wrong').responses.create(ask), 401, (e) => e instanceof OpenAI.AuthenticationError);
  await refused(client.responses.create({ ...ask, model: 'nothing' }), 404, (e) => e.code === 'model_not_found');
  for (const [param, more] of Object.entries({
    tools: { tools: [{ type: 'web_search' }] }, background: { background: true }, conversation: { conversation: 'conv_1' }, colour: { colour: 'red' },
    input: { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'data:' }] }] }, truncation: { truncation: 'auto' }, prompt: { prompt: { id: 'x' } },
  })) await refused(client.responses.create({ ...ask, ...more }), 400, (e) => e instanceof OpenAI.BadRequestError && e.param === param);
});

test('responses: a failure in a stream throws', async () => {
  await assert.rejects(async () => { for await (const ev of await client.responses.create({ model: 'broken', input: 'x', stream: true })) assert.notEqual(ev.type, 'response.completed'); }, (e) => e instanceof OpenAI.APIError);
  await assert.rejects(client.responses.stream({ model: 'broken', input: 'x' }).finalResponse());
});

test('responses: an aborted stream stops its generation', async () => {
  const name = 'polder_requests_total{outcome="cancelled"}', before = await metric(name);
  const stream = await client.responses.create({ ...ask, max_output_tokens: 400, stream: true, text: { format: { type: 'json_schema', name: 'x', schema: { type: 'string', minLength: 5000 } } } });
  for await (const ev of stream) if (ev.type === 'response.output_text.delta') break;
  stream.controller.abort();
  await eventually('the answer runs on', async () => (await metric(name)) === before + 1);
});
