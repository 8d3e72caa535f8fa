// Who may ask for what, and what it cost: over HTTP, with limits that hold across a restart, figures that are those of the
// answers, and tokens signed by an issuer that this script plays. What breaks it: a request past a limit that is answered,
// a 429 without a usable Retry-After, a figure that differs from the answers' own, a token that should not get in.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [polder, modelFile] = process.argv.slice(2);
const dir = mkdtempSync(join(tmpdir(), 'polder-identity-'));
const island = join(dir, 'island');
const run = (...args) => execFileSync(polder, ['--island', island, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const runJson = (...args) => JSON.parse(run('--json', ...args));
function fails(status, ...args) {
  try { run(...args); } catch (e) {
    assert.equal(e.status, status, e.stderr);
    return e.stderr;
  }
  assert.fail(`${args.join(' ')} did not fail`);
}

let server, log = '', url;
function up() {
  return new Promise((resolve, reject) => {
    let said = '';
    server = spawn(polder, ['--island', island, 'up', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'ignore', 'pipe'] });
    const timer = setTimeout(() => reject(new Error(`not up after 60 s: ${said}`)), 60000);
    server.stderr.on('data', (d) => {
      said += d;
      log += d;
      const m = /listening on (http:\/\/127\.0\.0\.1:\d+)/.exec(said);
      if (m) { clearTimeout(timer); url = m[1]; resolve(); }
    });
    server.on('exit', (code) => { clearTimeout(timer); reject(new Error(`ended with ${code}: ${said}`)); });
  });
}
function down(signal = 'SIGTERM') {
  return new Promise((resolve) => {
    server.removeAllListeners('exit');
    server.on('exit', resolve);
    server.kill(signal);
  });
}
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));

const get = (path, bearer) => fetch(url + path, { headers: { authorization: `Bearer ${bearer}` } });
const post = (bearer, more = {}, headers = {}) => fetch(`${url}/v1/chat/completions`, {
  method: 'POST',
  headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json', ...headers },
  body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: 'What is a polder?' }], max_tokens: 5, temperature: 0, ...more }),
});
async function status(expected, response) {
  const text = await response.text();
  assert.equal(response.status, expected, text);
  return text;
}
/* The usage that an answer states; of a stream, that of its last event. */
async function usageOf(response, stream) {
  const text = await status(200, response);
  if (!stream) return JSON.parse(text).usage;
  const events = text.split('\n').filter((l) => l.startsWith('data: {')).map((l) => JSON.parse(l.slice(6)));
  return events.at(-1).usage;
}

// ---- an issuer -------------------------------------------------------------------------------------------------

const issuer = 'https://id.example';
const pairs = {
  r: { alg: 'RS256', ...generateKeyPairSync('rsa', { modulusLength: 2048 }) },
  e: { alg: 'ES256', ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) },
  d: { alg: 'EdDSA', ...generateKeyPairSync('ed25519') },
};
const jwksFile = join(island, 'issuer.json');
const jwksOf = (...kids) => JSON.stringify({ keys: kids.map((kid) => ({ kid, use: 'sig', ...pairs[kid].publicKey.export({ format: 'jwk' }) })) });
const b64 = (v) => Buffer.from(typeof v === 'string' ? v : JSON.stringify(v)).toString('base64url');
const now = () => Math.floor(Date.now() / 1000);
const claims = (more = {}) => ({ iss: issuer, aud: 'polder', sub: 'alice.example', exp: now() + 300, iat: now(), groups: ['staff'], ...more });
function token(kid, body = claims(), header = {}) {
  const { alg, privateKey } = pairs[kid];
  const input = `${b64({ alg, kid, typ: 'JWT', ...header })}.${b64(body)}`;
  const key = alg === 'ES256' ? { key: privateKey, dsaEncoding: 'ieee-p1363' } : privateKey;
  return `${input}.${sign(alg === 'EdDSA' ? null : 'sha256', Buffer.from(input), key).toString('base64url')}`;
}

// ---- the island ------------------------------------------------------------------------------------------------

run('init', island);
run('model', 'add', modelFile, '--name', 'tiny');
run('model', 'add', modelFile, '--name', 'other');
{
  const path = join(island, 'island.yaml');
  let yaml = readFileSync(path, 'utf8');
  for (const [key, value] of [['issuer', issuer], ['audience', 'polder'], ['jwks', 'issuer.json'], ['projects', 'staff=care, guests=gone']])
    yaml = yaml.replace(`  ${key}: ""`, `  ${key}: "${value}"`);
  writeFileSync(path, yaml);
  writeFileSync(jwksFile, jwksOf('r', 'e', 'd'));
}
run('project', 'add', 'care', '--floor', 'internal');
const keyOf = (name, ...more) => runJson('key', 'add', name, ...more).key;
const keys = {
  plain: keyOf('plain'),
  minute: keyOf('minute', '--rpm', '2'),
  day: keyOf('day', '--tokens-day', '8'),
  narrow: keyOf('narrow', '--models', 'ti*'),
  secret: keyOf('secret', '--floor', 'secret', '--project', 'care'),
  admin: keyOf('admin', '--role', 'admin'),
};
await up();

// ---- cases -----------------------------------------------------------------------------------------------------

const cases = [];
const test = (name, fn) => cases.push([name, fn]);

test('the command line refuses what makes no sense', async () => {
  assert.match(fails(3, 'project', 'add', 'Care'), /lower case/);
  assert.match(fails(3, 'project', 'add', 'x', '--floor', 'hidden'), /public, internal, confidential, secret/);
  assert.match(fails(3, 'key', 'add', 'x', '--project', 'nobody'), /nobody/);
  assert.match(fails(3, 'key', 'add', 'x', '--models', 'a*b'), /allowed models/);
  assert.match(fails(2, 'key', 'add', 'x', '--rpm', '-1'), /out of range/);
  assert.match(fails(3, 'project', 'rm', 'care'), /has 1 key/);
  assert.match(fails(3, 'key', 'usage', '--from', 'monday'), /2026-11-22/);
  assert.match(run('project', 'show', 'care'), /floor +internal/);
  assert.match(run('key', 'ls'), /secret +user .* care +internal|secret +user .* care +secret/);
});

test('requests a minute: 429 with a Retry-After that can be believed', async () => {
  await status(200, await post(keys.minute));
  await status(200, await post(keys.minute, { stream: true }));
  for (const stream of [false, true]) {
    const r = await post(keys.minute, { stream });
    const after = Number(r.headers.get('retry-after'));
    const body = JSON.parse(await status(429, r));
    assert.match(body.error.message, /"minute" has used up its 2 requests a minute/);
    assert.ok(after > 40 && after <= 61, `Retry-After ${after}`);
  }
  await status(200, await post(keys.plain));
  run('key', 'change', 'minute', '--rpm', '0'); /* beside the running server, at once */
  await status(200, await post(keys.minute));
});

test('a project shares its limit', async () => {
  run('project', 'add', 'shared', '--rpm', '2');
  const a = keyOf('shared-a', '--project', 'shared'), b = keyOf('shared-b', '--project', 'shared');
  await status(200, await post(a));
  await status(200, await post(b));
  assert.match(await status(429, await post(a)), /the project shared has used up its 2 requests a minute/);
  await status(429, await post(b));
});

test('a budget holds over a restart', async () => {
  await status(200, await post(keys.day));
  const r = await post(keys.day);
  const after = Number(r.headers.get('retry-after'));
  assert.match(await status(429, r), /8 tokens a day/);
  assert.ok(after >= 1 && after <= 86400);
  await down();
  await up();
  const midnight = new Date().getUTCHours() === 23 && new Date().getUTCMinutes() > 57;
  if (!midnight) await status(429, await post(keys.day));
});

test('what was counted a moment ago survives kill -9', async () => {
  const before = runJson('key', 'usage').total.requests;
  await status(200, await post(keys.plain));
  await sleep(1500);
  await down('SIGKILL');
  await up();
  assert.equal(runJson('key', 'usage').total.requests, before + 1);
});

test('allowed models: 403, and nothing else is listed', async () => {
  await status(200, await post(keys.narrow));
  const body = JSON.parse(await status(403, await post(keys.narrow, { model: 'other' })));
  assert.match(body.error.message, /model "other": the key "narrow" may not use it; it may use ti\*/);
  const ids = async (key) => JSON.parse(await status(200, await get('/v1/models', key))).data.map((m) => m.id).sort();
  assert.deepEqual(await ids(keys.narrow), ['tiny']);
  assert.deepEqual(await ids(keys.plain), ['other', 'tiny']);
  await status(404, await get('/v1/models/other', keys.narrow));
  await status(200, await get('/v1/models/tiny', keys.narrow));
});

test('usage is the sum of what the answers said', async () => {
  const key = keyOf('counted', '--project', 'care'), id = runJson('key', 'ls').keys.find((k) => k.name === 'counted').id;
  let tokensIn = 0, tokensOut = 0;
  for (let k = 0; k < 6; k++) {
    const stream = k % 2 === 1;
    const usage = await usageOf(await post(key, { max_tokens: 3 + k, ...(stream ? { stream, stream_options: { include_usage: true } } : {}) }), stream);
    tokensIn += usage.prompt_tokens;
    tokensOut += usage.completion_tokens;
  }
  await status(404, await post(key, { model: 'nobody' }));
  const row = runJson('key', 'usage').usage.find((u) => u.key === id);
  assert.equal(row.name, 'counted');
  assert.deepEqual([row.tokens_in, row.tokens_out, row.refused], [tokensIn, tokensOut, 0]);
  assert.ok(row.requests === 6 || row.requests === 7);
  const engine = runJson('key', 'usage', '--by', 'provider').usage.find((u) => u.provider === 'engine');
  assert.ok(engine.tokens_out >= tokensOut);
  assert.ok(!runJson('key', 'usage', '--by', 'model').usage.some((u) => u.model === 'nobody'));
  assert.match(run('key', 'usage', '--by', 'project'), /care/);
  const metrics = await (await get('/metrics', keys.admin)).text();
  assert.ok(metrics.includes(`polder_usage_tokens_total{project="care",key="${id}",direction="out"} ${tokensOut}\n`));
  assert.ok(/polder_quota_refusals_total\{why="model"\} [1-9]/.test(metrics), 'no refusal for a model is counted');
});

test('a floor is the label of what its key asks', async () => {
  const r = await post(keys.secret);
  await status(200, r);
  assert.equal(r.headers.get('x-polder-label'), 'secret');
});

test('tokens of the issuer', async () => {
  for (const kid of ['r', 'e', 'd']) {
    const r = await post(token(kid));
    await status(200, r);
    assert.equal(r.headers.get('x-polder-label'), 'internal');
  }
  const records = run('--json', 'audit', 'ls', '--event', 'admitted');
  assert.match(records, /"key":"o_[a-z0-9]{12}"/);
  assert.ok(!run('--json', 'audit', 'ls', '--from', '0').includes('alice.example'));
  assert.ok(runJson('key', 'usage').usage.some((u) => u.key.startsWith('o_') && u.requests === 3));
  const headers = { authorization: `Bearer ${token('e')}`, 'content-type': 'application/json' };
  await status(403, await fetch(`${url}/api/polder/v1/key.ls`, { method: 'POST', headers, body: '{}' }));
});

test('tokens that must not get in', async () => {
  const good = token('r'), [header, , signature] = good.split('.');
  const hs = (() => {
    const input = `${b64({ alg: 'HS256', kid: 'r', typ: 'JWT' })}.${b64(claims())}`;
    const secret = pairs.r.publicKey.export({ type: 'spki', format: 'pem' });
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
  })();
  const bad = {
    expired: token('r', claims({ exp: now() - 61 })),
    early: token('r', claims({ nbf: now() + 120 })),
    audience: token('r', claims({ aud: ['other'] })),
    issuer: token('r', claims({ iss: 'https://id.example.evil' })),
    'no subject': token('r', claims({ sub: undefined })),
    'no end': token('r', claims({ exp: undefined })),
    changed: `${header}.${b64(claims({ groups: ['admins'] }))}.${signature}`,
    none: `${b64({ alg: 'none' })}.${b64(claims())}.`,
    hmac: hs,
    'wrong kid': token('r', claims(), { kid: 'e' }),
    'unknown kid': token('r', claims(), { kid: 'zzz' }),
    garbage: 'sk-not-a-token',
    huge: `${header}.${'A'.repeat(12000)}.${signature}`,
  };
  for (const [name, t] of Object.entries(bad)) {
    const r = await post(t);
    assert.equal(r.status, 401, `${name}: ${await r.text()}`);
    assert.equal(r.headers.get('www-authenticate'), 'Bearer');
  }
  await status(403, await post(token('r', claims({ groups: ['strangers'] }))));
  await status(403, await post(token('r', claims({ groups: ['guests'] })))); /* a project that is not there */
  await status(200, await post(token('r', claims({ exp: now() - 30 })))); /* leeway */
});

test('the issuer changes its keys', async () => {
  const old = token('e');
  await status(200, await post(old));
  pairs.n = { alg: 'ES256', ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) };
  writeFileSync(jwksFile, jwksOf('r', 'n'));
  await sleep(2100);
  await status(200, await post(token('n')));
  await status(401, await post(old));
  await status(200, await post(keys.plain)); /* keys go on beside */
});

test('the ledger tells it all, and is whole', async () => {
  for (const event of ['project.created', 'key.created', 'key.changed'])
    assert.match(run('--json', 'audit', 'ls', '--event', event, '--from', '0'), new RegExp(`"event":"${event}"`));
  const made = run('--json', 'audit', 'ls', '--event', 'key.created', '--from', '0');
  assert.match(made, /"limits":\{"requests_minute":2\}/);
  assert.match(made, /"models":\["ti\*"\]/);
  assert.match(run('audit', 'verify'), /^verified/);
});

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
if (failed) console.log(log);
rmSync(dir, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
