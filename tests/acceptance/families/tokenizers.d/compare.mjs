// compare.mjs TOKENIZE WORK SHARED N [PACKAGE...|made]: polder's ids against @huggingface/tokenizers and, to say who is wrong
// where they differ, against the Rust library that it is written after. One line a package:
//   tokenizers PACKAGE strings N ids_equal N decode_equal N
// ids_equal counts strings whose ids are the same with special tokens around the text and without. What differs must
// have a reason that is known, or the Rust library on polder's side:
//   newer    a character that Unicode has had only since version 15, of which the tables of the two know different things
//   js       ids as the Rust library's
// Tokenizers that are made of parts (made.mjs) are compared with the Rust library, and there:
//   js agrees  the Rust library's tables of normal forms, and of punctuation and marks for BERT, are older than Unicode 15,
//              npm's are not: npm's ids are polder's, or the text has a character where they are (olderCharacters)
//   literal    text like <0x0A>, which the Rust library's unigram takes for the byte; no text of a user is that in polder
import { execFileSync, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
import { makeStrings } from './strings.mjs';

const [, , program, folder, shared, count, ...only] = process.argv;
const work = path.resolve(folder);
const require = createRequire(path.join(work, 'package.json'));
const { Tokenizer } = require('@huggingface/tokenizers');
let Rust = null;
try {
    Rust = require('@anush008/tokenizers').Tokenizer;
} catch {
    console.log('     the Rust library does not run here: what differs needs a known reason');
}

const ADD = 1, PARSE = 2, SHOW = 4;

// Characters newer than polder's tables.
const newer = new Set();
for (const line of execFileSync(program, ['unassigned'], { encoding: 'utf8' }).trim().split('\n')) {
    const [first, last] = line.split(' ').map(x => parseInt(x, 16));
    for (let cp = first; cp <= last; cp++) if (/\P{Cn}/u.test(String.fromCodePoint(cp))) newer.add(cp);
}
const hasNewer = s => [...s].some(c => newer.has(c.codePointAt(0)));

// All texts through one process; the answers as {ids, text}.
function run(args, jobs) {
    return new Promise((resolve, reject) => {
        const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
        const out = [], why = [];
        child.stdout.on('data', d => out.push(d));
        child.stderr.on('data', d => why.push(d));
        child.on('error', reject);
        child.on('close', code => {
            if (code !== 0) return reject(new Error(Buffer.concat(why).toString().trim() || `exit ${code}`));
            const b = Buffer.concat(out), answers = [];
            for (let at = 0; at < b.length;) {
                const n = b.readUInt32LE(at), ids = Array.from({ length: n }, (_, i) => b.readInt32LE(at + 4 + 4 * i));
                at += 4 + 4 * n;
                const len = b.readUInt32LE(at);
                answers.push({ ids, text: b.toString('utf8', at + 4, at + 4 + len) });
                at += 4 + len;
            }
            resolve(answers);
        });
        child.stdin.on('error', () => {});
        for (const [flags, text] of jobs) {
            const bytes = Buffer.from(text, 'utf8'), head = Buffer.alloc(8);
            head.writeUInt32LE(flags, 0);
            head.writeUInt32LE(bytes.length, 4);
            child.stdin.write(head);
            child.stdin.write(bytes);
        }
        child.stdin.end();
    });
}

const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

// What the text is after the normaliser that a decoder cannot undo.
function normal(json, text) {
    const steps = json.normalizer?.normalizers ?? (json.normalizer ? [json.normalizer] : []);
    let s = text;
    for (const step of steps) if (/^NFK?[CD]$/.test(step.type)) s = s.normalize(step.type);
    return steps.some(x => x.type === 'Replace') ? s.replaceAll('\u2581', ' ') : s;
}

export async function comparePackage(name, json, file, n, kind) {
    const added = json.added_tokens.map(t => t.content);
    const texts = makeStrings(n, 20261122, added, shared === '-' ? null : shared);
    const js = new Tokenizer(json, {});
    const rust = Rust ? Rust.fromString(JSON.stringify(json)) : null;
    const ours = await run([...kind, file], texts.flatMap(t => [[ADD | PARSE | SHOW, t], [PARSE | SHOW, t]]));
    const sums = { equal: 0, decoded: 0, newer: 0, js: 0, unexplained: 0 };
    for (let i = 0; i < texts.length; i++) {
        const text = texts[i], [on, off] = [ours[2 * i], ours[2 * i + 1]];
        const jsOn = js.encode(text, { add_special_tokens: true }).ids;
        const jsOff = js.encode(text, { add_special_tokens: false }).ids;
        if (same(on.ids, jsOn) && same(off.ids, jsOff)) {
            sums.equal++;
        } else {
            const r = rust && [await rust.encode(text, null, { addSpecialTokens: true }),
                await rust.encode(text, null, { addSpecialTokens: false })];
            if (r && same(on.ids, r[0].getIds()) && same(off.ids, r[1].getIds())) sums.js++;
            else if (hasNewer(text)) sums.newer++;
            else if (sums.unexplained++ < 5)
                console.log(`     ${name}: ${JSON.stringify(text).slice(0, 300)}\n       polder ${on.ids.slice(0, 60)}\n` +
                    `       js     ${jsOn.slice(0, 60)}\n       rust   ${r ? r[0].getIds().slice(0, 60) : '-'}`);
        }
        const want = normal(json, text);
        const theirs = () => off.ids.length ? js.decode(off.ids, { clean_up_tokenization_spaces: false }) : '';
        if (off.text === want || off.text === theirs()) sums.decoded++;
        else if (process.env.SHOW_DECODE) console.log(JSON.stringify([text, off.text, theirs()]));
    }
    console.log(`tokenizers ${name} strings ${texts.length} ids_equal ${sums.equal} decode_equal ${sums.decoded}` +
        ` (differ: newer ${sums.newer}, js ${sums.js}, unexplained ${sums.unexplained})`);
    return { ...sums, strings: texts.length };
}

// Characters that the Rust library's BERT treats otherwise than npm's and polder do, found one by one between letters: its
// tables of punctuation and marks are those of an older Unicode.
let older = null;
async function olderCharacters(json, file) {
    if (older) return older;
    const list = [];
    for (let cp = 0x80; cp < 0x20000; cp++) if (cp < 0xd800 || cp > 0xdfff) list.push(`a${String.fromCodePoint(cp)}b`);
    const ours = await run(['json', file], list.map(t => [PARSE, t]));
    const rust = Rust.fromString(JSON.stringify(json)), js = new Tokenizer(json, {});
    older = new Set();
    for (let i = 0; i < list.length; i++) {
        const r = (await rust.encode(list[i], null, { addSpecialTokens: false })).getIds();
        if (same(ours[i].ids, r)) continue;
        if (same(ours[i].ids, js.encode(list[i], { add_special_tokens: false }).ids)) older.add(list[i].codePointAt(1));
    }
    console.log(`     BERT in the Rust library takes ${older.size} characters for other than npm's and polder do`);
    return older;
}

// Kinds of tokenizers that no package has, made of the vocabularies that there are, against the Rust library alone.
async function compareMade(name, json, n) {
    const file = path.join(work, `made-${name}.json`);
    fs.writeFileSync(file, JSON.stringify(json));
    const texts = makeStrings(n, 7, json.added_tokens.map(t => t.content), shared === '-' ? null : shared);
    const rust = Rust.fromString(JSON.stringify(json)), jobs = texts.flatMap(t => [[ADD | PARSE | SHOW, t], [PARSE | SHOW, t]]);
    const ours = await run(['json', file], jobs), again = await run(['keys', 'json', file], jobs);
    const js = new Tokenizer(json, {});
    const old_ = json.model.type === 'WordPiece' ? await olderCharacters(json, file) : new Set();
    let equal = 0, fresh = 0, old = 0, literal = 0, wrong = 0, keys = 0;
    for (let i = 0; i < texts.length; i++) {
        const on = (await rust.encode(texts[i], null, { addSpecialTokens: true })).getIds();
        const off = (await rust.encode(texts[i], null, { addSpecialTokens: false })).getIds();
        if (same(again[2 * i].ids, ours[2 * i].ids)) keys++;
        if (same(ours[2 * i].ids, on) && same(ours[2 * i + 1].ids, off)) equal++;
        else if (hasNewer(texts[i])) fresh++;
        else if (json.model.type === 'Unigram' && /<0x[0-9A-F]{2}>/.test(texts[i])) literal++;
        else if (same(ours[2 * i].ids, js.encode(texts[i], { add_special_tokens: true }).ids)) old++;
        else if ([...texts[i]].some(c => old_.has(c.codePointAt(0)))) old++;
        else if (wrong++ < 3)
            console.log(`     ${name}: ${JSON.stringify(texts[i]).slice(0, 300)}\n       polder ${ours[2 * i].ids.slice(0, 60)}\n` +
                `       rust   ${on.slice(0, 60)}`);
    }
    fs.rmSync(file);
    console.log(`tokenizers made-${name} strings ${texts.length} ids_equal ${equal} keys_equal ${keys} (differ: newer ${fresh}, ` +
        `js agrees ${old}, literal ${literal}, unexplained ${wrong})`);
    return wrong === 0 && keys === texts.length && equal >= texts.length * 0.95;
}

async function allMade(n) {
    const read = name => JSON.parse(fs.readFileSync(path.join(scope, name, 'models', 'tokenizer.json'), 'utf8'));
    const { made } = await import('./made.mjs');
    for (const [name, json] of made(read)) {
        try {
            const good = await compareMade(name, json, n);
            good ? passed++ : failed++;
            if (!good) console.log(`FAIL made-${name}`);
        } catch (e) {
            failed++;
            console.log(`FAIL made-${name}: ${e.message ?? e}`);
        }
    }
}

const scope = path.join(work, 'node_modules', '@lenml');
const names = only.length ? only.filter(x => x !== 'made') : fs.readdirSync(scope).filter(x => x.startsWith('tokenizer-')).sort();
let passed = 0, failed = 0;
const n = Number(count), need = Math.floor(n * 10000 / 11000);
for (const name of names) {
    const file = path.join(scope, name, 'models', 'tokenizer.json');
    const json = JSON.parse(fs.readFileSync(file, 'utf8'));
    for (const kind of [['json'], ['keys', 'json']]) {
        const label = kind.length > 1 ? `${name} (through GGUF keys)` : name;
        try {
            const sums = await comparePackage(label, json, file, kind.length > 1 ? Math.ceil(n / 10) : n, kind);
            const want = kind.length > 1 ? Math.floor(need / 10) : need;
            const good = sums.unexplained === 0 && sums.equal >= want && sums.decoded >= want;
            good ? passed++ : failed++;
            if (!good) console.log(`FAIL ${label}`);
        } catch (e) {
            failed++;
            console.log(`FAIL ${label}: ${e.message}`);
        }
    }
}
if (Rust && (!only.length || only.includes('made'))) await allMade(Math.ceil(n / 5));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
