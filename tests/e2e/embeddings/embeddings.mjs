// The npm client `openai` and plain requests against a polder with small models that make vectors or rank. What breaks
// it: any answer that this client does not understand, vectors that depend on their company or their encoding, a record
// that does not hold what was answered.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { newIsland } from '../island.mjs';

const [polder, work, makeModels, tinyModel, shared] = process.argv.slice(2);
const require = createRequire(join(work, 'package.json'));
const { default: OpenAI } = await import(pathToFileURL(require.resolve('openai')).href);

// ---- an island with a server -----------------------------------------------------------------------------------

const { dir, island, run, up, down, log, ended, status } = newIsland(polder, 'embeddings');

execFileSync(makeModels, [dir]);
run('init', island);
for (const name of ['bert', 'nomic', 'causal', 'ranker']) run('model', 'add', join(dir, `${name}.gguf`), '--name', name);
run('model', 'add', tinyModel, '--name', 'tiny');
const reference = join(shared, 'oracle/bert/model.gguf');
const hasReference = existsSync(reference);
if (hasReference) run('model', 'add', reference, '--name', 'reference');
const key = JSON.parse(run('--json', 'key', 'add', 'user', '--role', 'user')).key;
const operator = JSON.parse(run('--json', 'key', 'add', 'operator', '--role', 'operator')).key;
const url = await up();
const client = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 });
const post = async (path, body, headers = {}) => {
  const r = await fetch(url + path, {
    method: 'POST', headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers }, body: JSON.stringify(body),
  });
  return { status: r.status, headers: r.headers, body: await r.json() };
};
const metric = async (name) => {
  const text = await (await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${operator}` } })).text();
  const line = text.split('\n').find((l) => l.startsWith(`${name} `));
  return line ? Number(line.slice(name.length + 1)) : 0;
};
const refused = (promise, status, says) => assert.rejects(promise, (e) => {
  assert.equal(e.status, status, e.message);
  assert.match(e.message, says);
  return true;
});

// ---- cases -----------------------------------------------------------------------------------------------------

const cases = [];
const test = (name, fn) => cases.push([name, fn]);
const skipped = [];
const words = ['a polder', 'is land', 'taken from the sea', 'by a dike', 'and kept', 'with pumps', '?', 'x'.repeat(40)];
const texts = Array.from({ length: 32 }, (_, i) => `${words[i % 8]} ${i}`);
const embed = async (model, input, more = {}) => (await client.embeddings.create({ model, input, ...more }));
const vector = (r, i = 0) => Array.from(r.data[i].embedding);
const models = ['bert', 'nomic', 'causal'];

test('float and base64 give the same vectors', async () => {
  for (const model of models) {
    const float = await embed(model, texts.slice(0, 4), { encoding_format: 'float' });
    const coded = await embed(model, texts.slice(0, 4)); // the client asks for base64 by itself and decodes it
    assert.equal(float.data.length, 4);
    for (let i = 0; i < 4; i++) {
      assert.equal(float.data[i].index, i);
      assert.equal(float.data[i].object, 'embedding');
      assert.equal(vector(float, i).length, 32);
      assert.deepEqual(vector(float, i).map(Math.fround), vector(coded, i).map(Math.fround));
      const length = Math.hypot(...vector(float, i));
      assert.ok(Math.abs(length - 1) < 1e-6, `length ${length}`);
    }
    const raw = (await post('/v1/embeddings', { model, input: texts[0], encoding_format: 'base64' })).body.data[0].embedding;
    assert.equal(typeof raw, 'string');
    assert.equal(Buffer.from(raw, 'base64').length, 4 * 32);
  }
});

test('usage counts every token, and the list is OpenAI\'s', async () => {
  const r = await embed('bert', ['ab', 'c']);
  assert.equal(r.object, 'list');
  assert.equal(r.model, 'bert');
  assert.deepEqual(r.usage, { prompt_tokens: 7, total_tokens: 7 }); // [CLS] a b [SEP], [CLS] c [SEP]
});

test('an input alone or among 31 others gives the same bits, also at the same time', async () => {
  for (const model of models) {
    const all = await embed(model, texts);
    const alone = await Promise.all(texts.map((t) => embed(model, t)));
    alone.forEach((r, i) => assert.deepEqual(vector(r), vector(all, i)));
  }
});

test('token ids, one list and several', async () => {
  const asText = await embed('bert', 'abc');
  const one = await embed('bert', [2, 5, 42, 43, 3]);
  const many = await embed('bert', [[2, 5, 42, 43, 3], [2, 6, 3]]);
  assert.deepEqual(vector(one), vector(asText));
  assert.deepEqual(vector(many), vector(asText));
  assert.equal(many.data.length, 2);
});

test('dimensions: the first ones, at length 1', async () => {
  const full = vector(await embed('nomic', 'abc'));
  const cut = vector(await embed('nomic', 'abc', { dimensions: 8 }));
  assert.equal(cut.length, 8);
  const length = Math.hypot(...full.slice(0, 8));
  cut.forEach((v, i) => assert.ok(Math.abs(v - full[i] / length) < 1e-6));
});

test('what is asked wrongly is a 400 that says why', async () => {
  await refused(embed('bert', ''), 400, /input 0: it is empty/);
  await refused(embed('bert', []), 400, /'input' is empty/);
  await refused(embed('bert', ['a', '']), 400, /input 1: it is empty/);
  await refused(embed('bert', 'a b c '.repeat(60)), 400, /128 tokens/);
  await refused(embed('bert', 'a', { dimensions: 33 }), 400, /makes vectors of 32/);
  await refused(embed('bert', [2, 99999, 3]), 400, /not in the vocabulary/);
  await refused(embed('bert', Array(2049).fill('a')), 400, /at most 2048/);
  await refused(embed('bert', 'a', { encoding_format: 'int8' }), 400, /encoding_format/);
  await refused(embed('bert', 'a', { truncate: 'END' }), 400, /cuts no text/);
  await refused(embed('tiny', 'a'), 400, /generates text/);
  await refused(embed('ranker', 'a'), 400, /\/v1\/rerank/);
  await refused(embed('nobody', 'a'), 404, /not known/);
  await refused(client.chat.completions.create({ model: 'bert', messages: [{ role: 'user', content: 'a' }] }), 400, /\/v1\/embeddings/);
  await refused(client.completions.create({ model: 'ranker', prompt: 'a' }), 400, /\/v1\/rerank/);
  await refused(new OpenAI({ apiKey: 'no', baseURL: `${url}/v1`, maxRetries: 0 }).embeddings.create({ model: 'bert', input: 'a' }), 401, /key/);
});

test('rerank: best first, as many as asked for, with their texts', async () => {
  const documents = ['a dike', { text: 'the sea' }, 'a pump and a ditch', 'land'];
  const ask = { model: 'ranker', query: 'what keeps the water out', documents };
  const all = await post('/v1/rerank', ask);
  assert.equal(all.status, 200);
  assert.equal(all.body.results.length, 4);
  const scores = all.body.results.map((r) => r.relevance_score);
  assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
  assert.deepEqual(all.body.results.map((r) => r.index).sort(), [0, 1, 2, 3]);
  assert.ok(scores.every((s) => s >= 0 && s <= 1) && new Set(scores).size > 1);
  assert.ok(all.body.results.every((r) => r.document === undefined));
  assert.ok(all.body.usage.total_tokens > 0);
  const two = await post('/v1/rerank', { ...ask, top_n: 2, return_documents: true });
  assert.deepEqual(two.body.results.map((r) => r.index), all.body.results.slice(0, 2).map((r) => r.index));
  for (const r of two.body.results) assert.equal(r.document.text, documents[r.index].text ?? documents[r.index]);
  const best = all.body.results[0];
  const alone = await post('/v1/rerank', { ...ask, documents: [documents[best.index]] });
  assert.equal(alone.body.results[0].relevance_score, best.relevance_score);
  for (const [body, says] of [[{ ...ask, documents: [] }, /not empty/], [{ ...ask, query: '' }, /empty/],
    [{ ...ask, model: 'bert' }, /cannot rank/], [{ ...ask, model: 'tiny' }, /cannot rank/], [{ ...ask, top_n: 0 }, /top_n/],
    [{ ...ask, documents: ['a', ''] }, /document 1: it is empty/], [{ ...ask, documents: ['a b '.repeat(80)] }, /with the query/]]) {
    const r = await post('/v1/rerank', body);
    assert.equal(r.status, 400);
    assert.match(r.body.error.message, says);
  }
});

test('the record holds the digest of what was answered', async () => {
  const r = await post('/v1/embeddings', { model: 'nomic', input: ['ab', 'cd'], encoding_format: 'base64' });
  const bytes = Buffer.concat(r.body.data.map((d) => Buffer.from(d.embedding, 'base64')));
  const digest = createHash('sha256').update(bytes).digest('hex');
  const admitted = Number(r.headers.get('x-polder-record'));
  assert.equal(r.headers.get('x-polder-seed'), null);
  const shown = (seq) => JSON.parse(run('--json', 'audit', 'show', String(seq)));
  const text = JSON.stringify(shown(admitted + 1));
  assert.ok(text.includes(digest), text);
  assert.ok(JSON.stringify(shown(admitted)).includes('openai.embeddings'));
});

test('models say what they are for', async () => {
  const r = await (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).json();
  const of = Object.fromEntries(r.data.map((m) => [m.id, m.capabilities]));
  assert.deepEqual([of.bert, of.causal, of.ranker, of.tiny], [['embedding'], ['embedding'], ['rerank'], ['completion']]);
});

test('the model of ../shared answers', async () => {
  if (!hasReference) { skipped.push('../shared is absent'); return; }
  const r = await embed('reference', ['the river ran', 'hello world'], { encoding_format: 'float' });
  assert.equal(vector(r).length, 96);
  assert.notDeepEqual(vector(r), vector(r, 1));
});

test('an aborted request is computed no further', async () => {
  const name = 'polder_requests_total{outcome="cancelled"}';
  const before = await metric(name);
  const abort = new AbortController();
  const asked = client.embeddings.create({ model: 'bert', input: Array(2048).fill('a b c '.repeat(20)) }, { signal: abort.signal });
  for (let i = 0; i < 400 && (await metric('polder_running_sequences')) === 0; i++) await new Promise((r) => setTimeout(r, 5));
  abort.abort();
  await assert.rejects(asked);
  for (let i = 0; i < 200 && (await metric(name)) === before; i++) await new Promise((r) => setTimeout(r, 25));
  assert.equal(await metric(name), before + 1);
  assert.equal(await metric('polder_running_sequences'), 0);
});

test('the ledger verifies after a stop', async () => {
  assert.equal(await down(), 0);
  assert.match(run('audit', 'verify'), /verified/);
});

// ---- run -------------------------------------------------------------------------------------------------------

let passed = 0, failed = 0;
process.on('unhandledRejection', () => {});
for (const [name, fn] of cases) {
  if (process.env.CASE && !name.includes(process.env.CASE)) continue;
  if (ended()) {
    console.log(`FAIL ${name}: the server has ended (${status()})`);
    failed++;
    continue;
  }
  const before = skipped.length;
  try {
    await fn();
    if (skipped.length > before) {
      console.log(`skip: ${skipped.at(-1)}`);
    } else {
      passed++;
      console.log(`ok   ${name}`);
    }
  } catch (e) {
    failed++;
    console.log(`FAIL ${name}\n     ${e.stack}`);
  }
}
if (!ended()) await down();
if (failed) console.log(log());
rmSync(dir, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed${skipped.length ? `, ${skipped.length} skipped` : ''}`);
process.exit(failed ? 1 : 0);
