// suite.mjs TOOL MODEL FOLDER NAME [--list]: the JSON-Schema-Test-Suite's cases of one folder (a draft). Every schema that
// compiles must reject all instances that the suite calls invalid, read by the letter and as people mean it, and by the
// letter accept all that it calls valid, but for what the form of values excludes (schema.h). What does not compile is
// counted by its reason. Older drafts are put into the words of 2020-12 first. Last line: "N passed, N failed".
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openTool } from './tool.mjs';

const [program, model, folder, name = folder] = process.argv.slice(2);
const list = process.argv.includes('--list');
const tool = openTool(program, 'walk', model);

// Words of drafts 4 to 7 that 2020-12 says in another way.
function modern(s) {
  if (Array.isArray(s)) return s.map(modern);
  if (s === null || typeof s !== 'object') return s;
  const o = {};
  for (const [k, v] of Object.entries(s)) {
    if (k === 'enum' || k === 'const' || k === 'default' || k === 'examples') o[k] = v;
    else if (k === 'exclusiveMinimum' && typeof v === 'boolean') { if (v) o.exclusiveMinimum = s.minimum; }
    else if (k === 'exclusiveMaximum' && typeof v === 'boolean') { if (v) o.exclusiveMaximum = s.maximum; }
    else if (k === 'minimum' && s.exclusiveMinimum === true) continue;
    else if (k === 'maximum' && s.exclusiveMaximum === true) continue;
    else if (k === 'dependencies' && v && !Array.isArray(v)) {
      for (const [n, d] of Object.entries(v)) {
        if (Array.isArray(d)) (o.dependentRequired ??= {})[n] = d;
        else if (typeof d === 'string') (o.dependentRequired ??= {})[n] = [d];
        else (o.dependentSchemas ??= {})[n] = modern(d);
      }
    } else o[k] = modern(v);
  }
  return o;
}

// Why a valid instance may be refused: the form in which values are written.
function formReason(data) {
  if (typeof data === 'number') {
    if (!Number.isFinite(data) || Math.abs(data) >= 1e15 || (data !== 0 && Math.abs(data) < 1e-12)) return 'number with many digits';
    if (Object.is(data, -0)) return 'minus zero';
    return null;
  }
  if (typeof data === 'string') return /[\0\ud800-\udfff]/u.test(data) ? 'U+0000 or a lone surrogate' : null;
  if (data === null || typeof data !== 'object') return null;
  for (const [k, v] of Object.entries(data)) {
    const r = formReason(Array.isArray(data) ? '' : k) ?? formReason(v);
    if (r) return r;
  }
  return null;
}

// $ref beside other keywords: older drafts ignore the others, 2020-12 does not.
const hasOldRef = (s) => s !== null && typeof s === 'object' &&
  ((typeof s.$ref === 'string' && Object.keys(s).some((k) => !['$ref', '$defs', 'definitions', '$comment', 'title', 'description', '$schema', '$id', 'id'].includes(k))) || Object.values(s).some(hasOldRef));
const old = !/2020-12|2019-09/.test(folder);
const asserted = (s) => JSON.stringify(s).includes('"format"');

let passed = 0, failed = 0, valid = 0, invalid = 0, compiled = 0;
const refused = new Map(), excluded = new Map();
const count = (map, k) => map.set(k, (map.get(k) ?? 0) + 1);
const bad = (...what) => { failed++; console.log('FAIL', ...what); };

for (const file of readdirSync(folder).filter((f) => f.endsWith('.json')).sort()) {
  if (file === 'vocabulary.json') continue; // metaschemas of one's own
  for (const group of JSON.parse(readFileSync(join(folder, file), 'utf8'))) {
    const schema = old ? modern(group.schema) : group.schema;
    if (old && hasOldRef(schema)) { count(refused, 'the draft reads $ref in another way'); continue; }
    const instances = group.tests.map((t) => JSON.stringify(t.data));
    const letter = await tool.ask({ schema, letter: true, instances });
    const meant = await tool.ask({ schema, letter: false, instances });
    if (!letter.ok) {
      if (letter.code !== 'unsupported' && letter.code !== 'too_large' && !/no value can satisfy|refers to itself/.test(letter.error) &&
          !(letter.code === 'invalid' && /U\+|\\u0000|surrogate|regular expression|there is nothing at the place/.test(letter.error)))
        bad(file, group.description, '-- refused as malformed:', letter.error);
      // a schema that no value satisfies is refused: then the suite must know no valid instance
      if (/no value can satisfy/.test(letter.error)) {
        const ok = group.tests.every((t) => !t.valid || formReason(t.data) || asserted(schema));
        if (ok) passed++; else bad(file, group.description, '-- taken for empty');
      }
      const kind = /: ([$A-Za-z]+): /.exec(letter.error)?.[1] ?? 'other';
      count(refused, kind);
      if (list) console.log(`refused ${file}: ${group.description}: ${letter.error}`);
      continue;
    }
    compiled++;
    group.tests.forEach((t, i) => {
      if (!t.valid) {
        invalid++;
        if (letter.accepted[i] || (meant.ok && meant.accepted[i])) bad(file, '/', group.description, '/', t.description, '-- invalid and accepted:', instances[i]);
        else passed++;
        return;
      }
      valid++;
      if (letter.accepted[i]) { passed++; return; }
      const why = formReason(t.data) ?? (asserted(schema) ? 'format is asserted, in a common subset' : null);
      if (why) count(excluded, why);
      else bad(file, '/', group.description, '/', t.description, '-- valid and refused:', instances[i]);
    });
  }
}
tool.close();
const show = (m) => [...m].sort((a, b) => b[1] - a[1]).map(([k, n]) => `${k} ${n}`).join(', ') || 'none';
console.log(`schema suite ${name}: ${compiled} schemas compiled; ${valid} valid instances, ${invalid} invalid ones; excluded by the form: ${show(excluded)}; schemas refused: ${show(refused)}`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
