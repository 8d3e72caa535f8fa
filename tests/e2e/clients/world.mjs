// An island with a server, the project's own model under three names, and a provider that the test scripts.
//   tiny     the model as it is: its template has no place for tools
//   caller   the same weights with a template that has; calls come where they are demanded
//   agent    the mock provider, inside the perimeter: does what script() says; agent-a is the same by Anthropic's form
//   thinker  the mock provider: thinks first (thinker-a the same); broken fails in the middle of a stream
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { newIsland, withTools } from '../island.mjs';

const [polder, work, modelFile, mockFile] = process.argv.slice(2);
const require = createRequire(join(work, 'package.json'));
export const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const { dir, island, run } = newIsland(polder, 'clients');
export { run };

const children = [];
let log = '';
function start(program, args, stream, pattern) {
  return new Promise((resolve, reject) => {
    const p = spawn(program, args, { stdio: ['ignore', stream === 'stdout' ? 'pipe' : 'ignore', stream === 'stderr' ? 'pipe' : 'ignore'] });
    let text = '';
    children.push(p);
    const timer = setTimeout(() => reject(new Error(`${program}: not up after 60 s: ${text}`)), 60000);
    p[stream].on('data', (d) => {
      text += d;
      if (stream === 'stderr') log += d;
      const m = pattern.exec(text);
      if (m) { clearTimeout(timer); resolve(m[1]); }
    });
    p.on('exit', (code) => { clearTimeout(timer); reject(new Error(`${program}: ended with ${code}: ${text}`)); });
  });
}
const stop = (p) => new Promise((resolve) => {
  if (p.exitCode !== null || p.signalCode !== null) return resolve(p.exitCode);
  p.removeAllListeners('exit');
  p.on('exit', resolve);
  p.kill('SIGTERM');
});

run('init', island);
run('model', 'add', modelFile, '--name', 'tiny');

run('model', 'add', withTools(modelFile, dir), '--name', 'caller');

const mockUrl = `http://127.0.0.1:${await start(mockFile, ['0'], 'stdout', /port (\d+)/)}`;
run('provider', 'add', 'mock', '--driver', 'openai', '--url', `${mockUrl}/v1`, '--inside', '--operator', 'The test', '--country', 'DE', '--law', 'DE', '--retention-days', '0', '--training', 'no');
run('provider', 'add', 'mock-a', '--driver', 'anthropic', '--url', mockUrl, '--inside', '--operator', 'The test', '--country', 'DE', '--law', 'DE', '--retention-days', '0', '--training', 'no');
for (const name of ['agent', 'thinker', 'broken']) run('model', 'route', name, `mock:${name}`);
run('model', 'route', 'agent-a', 'mock-a:agent');
run('model', 'route', 'thinker-a', 'mock-a:thinker');
const keyOf = (role) => JSON.parse(run('--json', 'key', 'add', role, '--role', role)).key;
export const keys = { user: keyOf('user'), operator: keyOf('operator'), auditor: keyOf('auditor') };
export const url = await start(polder, ['--island', island, 'up', '--listen', '127.0.0.1:0'], 'stderr', /listening on (http:\/\/127\.0\.0\.1:\d+)/);
const server = children.at(-1);

// What the agent does from now on: lines "agent BEHAVIOUR [COUNT]". Every script takes the place of the last.
export async function script(...lines) {
  const r = await fetch(`${mockUrl}/mock/script`, { method: 'POST', body: [...lines, 'thinker reasoning', 'broken stream-error-late'].join('\n') });
  assert.equal(r.status, 200, await r.text());
}
await script();

export const get = (path, key) => fetch(url + path, { headers: { authorization: `Bearer ${key}` } });
export const metric = async (name) => {
  const text = await (await get('/metrics', keys.operator)).text();
  const line = text.split('\n').find((l) => l.startsWith(`${name} `));
  return line ? Number(line.slice(name.length + 1)) : 0;
};
export const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
export async function eventually(what, test) {
  for (let i = 0; i < 200; i++) { if (await test()) return; await sleep(25); }
  assert.fail(what);
}
export const refused = (promise, status, check = () => true) => assert.rejects(promise, (e) => {
  assert.equal(e.status ?? e.statusCode, status, e.message);
  return check(e);
});
// the token that ends an answer: banned, the model cannot stop by itself
const [end] = JSON.parse(execFileSync(polder, ['tokenize', modelFile, '--special', '--no-bos'], { input: '<|end|>' }));
export const endToken = end;

// One tool in three forms, and what every call of it must look like.
export const schema = { type: 'object', properties: { city: { enum: ['Delft', 'Gent'] }, days: { type: 'integer', minimum: 1, maximum: 9 } }, required: ['city', 'days'], additionalProperties: false };
export function checkArguments(v) {
  assert.deepEqual(Object.keys(v).sort(), ['city', 'days']);
  assert.ok(['Delft', 'Gent'].includes(v.city) && Number.isInteger(v.days) && v.days >= 1 && v.days <= 9);
}

const cases = [];
export const test = (name, fn) => cases.push([name, fn]);

export async function runAll() {
  let passed = 0, failed = 0;
  const ended = () => server.exitCode !== null || server.signalCode !== null;
  process.on('unhandledRejection', () => {}); // each case awaits what it asks; a crash of the server must not end the report
  for (const [name, fn] of cases) {
    if (process.env.CASE && !name.includes(process.env.CASE)) continue;
    try {
      if (ended()) throw new Error(`the server has ended (${server.exitCode ?? server.signalCode})`);
      await fn();
      passed++;
      console.log(`ok   ${name}`);
    } catch (e) {
      failed++;
      console.log(`FAIL ${name}\n     ${e.stack}`);
    }
  }
  const code = await stop(server);
  for (const p of children) await stop(p);
  if (code !== 0 || !/verified/.test(run('audit', 'verify'))) { failed++; console.log(`FAIL the server ended with ${code}, or its ledger does not verify`); }
  if (failed) console.log(log);
  rmSync(dir, { recursive: true, force: true });
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
