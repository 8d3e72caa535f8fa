// The AI SDK (`ai`) with its providers: text, streams, tools over several steps, objects.
import assert from 'node:assert/strict';
import { checkArguments, keys, load, refused, schema, script, test, url } from './world.mjs';

const { generateObject, generateText, jsonSchema, stepCountIs, streamObject, streamText, tool } = await load('ai');
const { createOpenAI } = await load('@ai-sdk/openai');
const { createAnthropic } = await load('@ai-sdk/anthropic');
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');

const openai = createOpenAI({ apiKey: keys.user, baseURL: `${url}/v1` });
const anthropic = createAnthropic({ apiKey: keys.user, baseURL: `${url}/v1` });
const compatible = createOpenAICompatible({ name: 'polder', apiKey: keys.user, baseURL: `${url}/v1`, supportsStructuredOutputs: true, includeUsage: true });
const { createOllama } = await load('ollama-ai-provider-v2');
const ollama = createOllama({ baseURL: `${url}/api`, headers: { authorization: `Bearer ${keys.user}` } });
const providers = { chat: (m) => openai.chat(m), responses: (m) => openai.responses(m), anthropic: (m) => anthropic(m), compatible: (m) => compatible(m), ollama: (m) => ollama(m) };

const note = (seen) => tool({ description: 'Notes a text.', inputSchema: jsonSchema({ type: 'object', properties: { text: { type: 'string' } }, required: ['text'] }), execute: ({ text }) => { seen.push(text); return `noted: ${text}`; } });
const weather = tool({ description: 'The weather of some days.', inputSchema: jsonSchema(schema) });

for (const [name, of] of Object.entries(providers)) {
  const base = { maxRetries: 0, maxOutputTokens: 32, temperature: 0, prompt: 'What is a polder?' };

  test(`ai ${name}: text, at once and as a stream`, async () => {
    const r = await generateText({ ...base, model: of('tiny'), system: 'Be brief.' });
    assert.ok(r.text.length > 0);
    assert.ok(['stop', 'length'].includes(r.finishReason), r.finishReason);
    assert.ok(r.usage.inputTokens > 0 && r.usage.outputTokens > 0);
    const s = streamText({ ...base, model: of('tiny'), system: 'Be brief.' });
    let text = '';
    for await (const part of s.textStream) text += part;
    assert.equal(text, r.text);
    assert.equal(await s.finishReason, r.finishReason);
    assert.equal((await s.usage).outputTokens, r.usage.outputTokens);
  });

  test(`ai ${name}: a demanded call`, async () => {
    const body = { ...base, model: of('caller'), maxOutputTokens: 120, tools: { weather }, toolChoice: 'required' };
    const r = await generateText(body);
    assert.equal(r.toolCalls.length, 1);
    assert.equal(r.toolCalls[0].toolName, 'weather');
    checkArguments(r.toolCalls[0].input);
    assert.equal(r.finishReason, 'tool-calls');
    const s = streamText(body);
    await s.consumeStream();
    assert.deepEqual((await s.toolCalls).map((c) => c.input), r.toolCalls.map((c) => c.input));
    assert.equal(await s.finishReason, 'tool-calls');
  });

  test(`ai ${name}: tools over several steps`, async () => {
    for (const streamed of [false, true]) {
      await script('agent tool 2', 'agent echo');
      const seen = [];
      const body = { maxRetries: 0, model: of('agent'), prompt: 'high tide', tools: { note: note(seen) }, stopWhen: stepCountIs(5) };
      const r = streamed ? streamText(body) : await generateText(body);
      if (streamed) await r.consumeStream();
      assert.deepEqual(seen, ['high tide', 'noted: high tide']);
      assert.equal((await r.steps).length, 3);
      assert.equal(await r.text, 'noted: noted: high tide');
      // and on from there, with all that was said
      await script('agent echo');
      const messages = [{ role: 'user', content: 'high tide' }, ...(await r.response).messages, { role: 'user', content: 'thanks' }];
      const next = await generateText({ maxRetries: 0, model: of('agent'), tools: body.tools, messages });
      assert.equal(next.text, 'thanks');
    }
  });

  test(`ai ${name}: objects`, async () => {
    const body = { ...base, model: of(name === 'anthropic' ? 'caller' : 'tiny'), maxOutputTokens: 200, schema: jsonSchema(schema) };
    const r = await generateObject(body);
    checkArguments(r.object);
    const s = streamObject(body);
    let partial;
    for await (const o of s.partialObjectStream) partial = o;
    assert.deepEqual(partial, r.object);
    assert.deepEqual(await s.object, r.object);
  });

  test(`ai ${name}: errors`, async () => {
    await refused(generateText({ ...base, model: of('nothing') }), 404);
    if (name === 'ollama') return; // this provider prints an error inside a stream and goes on
    let seen;
    const s = streamText({ ...base, model: of('broken'), onError: ({ error }) => { seen = error; } });
    let last;
    for await (const part of s.fullStream) last = part.type === 'error' ? part : last;
    assert.ok(seen && last, 'a failure in the middle of a stream is seen');
  });
}

for (const name of ['responses', 'anthropic', 'compatible', 'ollama']) test(`ai ${name}: reasoning`, async () => {
  const options = { openai: { reasoningSummary: 'auto', forceReasoning: true }, anthropic: { thinking: { type: 'enabled', budgetTokens: 1024 } }, ollama: { think: true } };
  const body = { maxRetries: 0, model: providers[name]('thinker'), prompt: 'why', providerOptions: options };
  const r = await generateText(body);
  assert.equal(r.reasoningText, 'I think: why');
  assert.equal(r.text, 'done: why');
  const s = streamText(body);
  await s.consumeStream();
  assert.equal(await s.reasoningText, 'I think: why');
  assert.equal(await s.text, 'done: why');
  const next = await generateText({ ...body, prompt: undefined, messages: [{ role: 'user', content: 'why' }, ...r.response.messages, { role: 'user', content: 'again' }] });
  assert.equal(next.text, 'done: again');
});
