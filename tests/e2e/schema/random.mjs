// random.mjs TOOL WORK MODEL…: random schemas (COUNT, default 60; SEED), written by models with random weights at temperatures of
// 1 and above. What ends by itself must be valid by ajv; what the length cut off is counted. Last line: "N passed, N failed".
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { openTool } from './tool.mjs';

const [program, work, ...models] = process.argv.slice(2);
const require = createRequire(join(work, 'package.json'));
const Ajv = require('ajv/dist/2020').default ?? require('ajv/dist/2020');
const addFormats = require('ajv-formats').default ?? require('ajv-formats');
const COUNT = Number(process.env.COUNT ?? 60);

let state = Number(process.env.SEED ?? 1) >>> 0;
function random() { // mulberry32
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const int = (lo, hi) => lo + Math.floor(random() * (hi - lo + 1));
const pick = (a) => a[int(0, a.length - 1)];
const chance = (p) => random() < p;

const words = ['name', 'age', 'größe', 'a"b', 'tab\there', 'x', 'id', 'list of things', '名前', '', 'emoji 🙂', 'back\\slash', 'é', 'y', 'kind', 'z9', '/', 'a.b', 'with space'];
const formats = ['date', 'time', 'date-time', 'duration', 'email', 'hostname', 'ipv4', 'ipv6', 'uri', 'uuid', 'json-pointer'];
const patterns = ['^[a-z]{1,8}$', '^\\d{3}-\\d{4}$', '^(red|green|blue)$', '^[A-Z][a-z]*( [A-Z][a-z]*){0,2}$', '^\\S{2,12}$', '^.{0,6}$', '^[^"\\\\]{1,5}$', '^\\p{Lu}\\p{Ll}{0,6}$', '^[\\u00e0-\\u00ff]{1,4}$', '^-?[0-9]+(\\.[0-9]+)?$', '^a|b$'];

function stringSchema() {
  const s = { type: 'string' };
  const k = random();
  if (k < 0.2) s.format = pick(formats);
  else if (k < 0.45) s.pattern = pick(patterns);
  if (!s.format && !s.pattern) {
    s.maxLength = int(0, 30);
    if (chance(0.4)) s.minLength = int(0, s.maxLength);
  } else if (s.pattern && chance(0.2)) s.maxLength = int(8, 20);
  return s;
}
function numberSchema() {
  const s = { type: pick(['integer', 'number', 'integer']) };
  const lo = pick([int(-1000, 1000), int(-5, 5), Math.round((random() - 0.5) * 1e6) / 1e3, 0, int(-1e9, 1e9)]);
  if (chance(0.6)) s[chance(0.7) ? 'minimum' : 'exclusiveMinimum'] = lo;
  if (chance(0.6)) s[chance(0.7) ? 'maximum' : 'exclusiveMaximum'] = lo + pick([2, int(2, 1000), 10.5, 1e6]);
  if (chance(0.3)) s.multipleOf = s.type === 'integer' ? pick([2, 3, 5, 7, 10, 25]) : pick([0.5, 0.25, 0.01, 2, 0.1]);
  if (s.multipleOf > 2) for (const k of ['maximum', 'exclusiveMaximum']) if (k in s) s[k] += 2 * s.multipleOf;
  return s;
}
const scalarValues = () => pick([
  () => words.slice(0, int(1, words.length)),
  () => Array.from({ length: int(1, 6) }, () => pick([null, true, false, int(-5, 5), 2.5, pick(words), 'null', '1', [], {}, [1, 'a'], { k: [null] }])),
  () => Array.from({ length: int(1, 200) }, (_, i) => `value ${i} of ${int(0, 9)}`),
])();
function schema(depth) {
  const k = random();
  if (chance(0.04)) return { $ref: '#/$defs/node' };
  if (chance(0.05)) return { $ref: '#/$defs/leaf', description: 'a leaf' };
  if (k < 0.24) return stringSchema();
  if (k < 0.42) return numberSchema();
  if (k < 0.5) return { enum: [...new Set(scalarValues())] };
  if (k < 0.54) return { const: pick(scalarValues()) };
  if (k < 0.6) return { type: pick(['boolean', 'null']) };
  if (k < 0.66) return { type: pick([['string', 'null'], ['integer', 'boolean'], ['null', 'boolean', 'integer']]), maxLength: 12, maximum: 99, minimum: -9 };
  if (depth <= 0) return stringSchema();
  if (k < 0.74) return { anyOf: Array.from({ length: int(1, 3) }, () => schema(depth - 1)) };
  if (k < 0.78) return { oneOf: Array.from({ length: int(1, 3) }, (_, i) => ({ type: 'object', properties: { kind: { const: `k${i}` }, v: schema(depth - 1) }, required: ['kind', ...(chance(0.5) ? ['v'] : [])], additionalProperties: false })) };
  if (k < 0.8) return { allOf: [{ type: 'object', properties: { a: schema(depth - 1) } }, { properties: { b: schema(depth - 1) }, required: ['b'] }] };
  if (k < 0.88) return arraySchema(depth);
  return objectSchema(depth);
}
function arraySchema(depth) {
  const s = { type: 'array', items: schema(depth - 1), maxItems: int(0, 4) };
  if (chance(0.3)) s.minItems = int(0, s.maxItems);
  if (chance(0.2)) s.prefixItems = Array.from({ length: int(1, 3) }, () => schema(depth - 1));
  if (chance(0.1)) return { type: 'array', items: { enum: ['a', 'b', 'c', 1, null] }, uniqueItems: true, minItems: int(0, 3) };
  if (chance(0.1) && s.maxItems > 0) s.contains = { type: ['string', 'integer', 'object', 'array', 'null', 'boolean', 'number'] };
  return s;
}
function objectSchema(depth) {
  const s = { type: 'object', properties: {} };
  const names = new Set(Array.from({ length: int(0, 5) }, () => pick(words)));
  for (const n of names) s.properties[n] = schema(depth - 1);
  s.required = [...names].filter(() => chance(0.6));
  if (chance(0.5)) s.additionalProperties = false;
  else if (chance(0.3)) Object.assign(s, { additionalProperties: numberSchema(), propertyNames: { pattern: '^[a-z]{1,3}$', maxLength: 3 }, maxProperties: names.size + 2 });
  if (s.propertyNames) s.required = s.required.filter((n) => /^[a-z]{1,3}$/.test(n));
  if (chance(0.15)) s.patternProperties = { '^p_': { type: 'boolean' } };
  if (chance(0.15)) s.minProperties = Math.min(names.size, 1);
  if (chance(0.1) && names.size > 1) s.dependentRequired = { [[...names][0]]: [[...names][1]] };
  if (chance(0.1)) s.title = s.description = 'notes';
  return s;
}
function whole() {
  const s = pick([objectSchema, objectSchema, arraySchema, schema])(3);
  s.$defs = {
    node: { type: 'object', properties: { v: { type: 'integer', minimum: 0, maximum: 9 }, next: { anyOf: [{ type: 'null' }, { $ref: '#/$defs/node' }] } }, required: ['v', 'next'], additionalProperties: false },
    leaf: stringSchema(),
  };
  return s;
}

let passed = 0, failed = 0, stopped = 0, cut = 0, tokens = 0, maskUs = 0, worst = 0;
const refused = [];
const bad = (...what) => { failed++; console.log('FAIL', ...what); };
const tools = models.map((m) => openTool(program, 'draw', m));
const started = Date.now();
for (let i = 0; i < COUNT; i++) {
  const s = whole();
  const ajv = new Ajv({ strict: false, multipleOfPrecision: 8, allErrors: false });
  addFormats(ajv);
  let check;
  try { check = ajv.compile(s); } catch (e) { refused.push(`ajv: ${e.message}`); continue; }
  const job = { schema: s, seed: i, temperature: [1, 1.4, 2][i % 3], max_tokens: 1500 };
  const timer = setTimeout(() => { bad('hang', JSON.stringify(s)); process.exit(1); }, 120000);
  const a = await tools[i % tools.length].ask(job);
  clearTimeout(timer);
  if (!a.ok) {
    if (a.code === 'unsupported' || /no value can satisfy/.test(a.error)) refused.push(a.error);
    else bad(a.error, JSON.stringify(s));
    continue;
  }
  if (process.env.LIST && a.worst_us > 3000) console.log('slow', a.worst_us, a.tokens, a.mask_us, JSON.stringify(s).slice(0, 600));
  tokens += a.tokens; maskUs += a.mask_us; worst = Math.max(worst, a.worst_us);
  if (a.finish !== 'stop') { cut++; continue; }
  stopped++;
  let v;
  try { v = JSON.parse(a.text); } catch (e) { bad('no JSON:', a.text.slice(0, 300), JSON.stringify(s)); continue; }
  if (check(v)) passed++;
  else bad(JSON.stringify(check.errors).slice(0, 300), a.text.slice(0, 500), JSON.stringify(s));
}
for (const t of tools) t.close();
if (stopped < COUNT * 0.7) bad(`only ${stopped} of ${COUNT} answers came to an end`);
if (process.argv.includes('--list') || process.env.LIST) for (const r of refused) console.log('refused', r);
console.log(`schema random ${COUNT}: ${stopped} answers ended and ${passed} are valid, ${cut} cut by length, ${refused.length} schemas refused; ${tokens} tokens, mask ${(maskUs / Math.max(tokens, 1)).toFixed(1)} us a token, worst ${(worst / 1000).toFixed(2)} ms; ${((Date.now() - started) / 1000).toFixed(0)} s`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
