// compare.mjs RENDER MODULES: renders the templates of templates/ with polder's interpreter (the program RENDER) and with two
// others, on generated conversations, and compares byte for byte. Where one refuses, the other must.
//   @huggingface/jinja, installed below MODULES: templates/*.jinja
//   Jinja 2 (reference.py), what transformers uses: those and templates/jinja2/*.jinja; left out where python3 has no jinja2
// What breaks it: any difference in white space, scopes, loops, namespaces, methods, filters, printing or JSON.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { conversation } from './conversations.mjs';
import { renderer } from './renderer.mjs';

const CONVERSATIONS = Number(process.env.CONVERSATIONS ?? 250);
const [program, modules] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const { Template } = createRequire(join(modules, 'package.json'))('@huggingface/jinja');

const parsed = new Map();
const npm = {
    async render(source, vars) {
        try {
            if (!parsed.has(source)) parsed.set(source, new Template(source));
            return { ok: true, text: parsed.get(source).render(structuredClone(vars)) };
        } catch (e) {
            return { ok: false, error: String(e.message) };
        }
    },
    end: () => {},
};

// Where two texts part.
function difference(a, b) {
    let i = 0;
    while (i < a.length && a[i] === b[i]) i++;
    const near = (s) => JSON.stringify(s.slice(Math.max(0, i - 20), i + 40));
    return `at ${i}: polder ${near(a)}, the other ${near(b)}`;
}

async function compare(file, name, other) {
    const source = readFileSync(file, 'utf8');
    let rendered = 0, refused = 0, bad = 0;
    for (let seed = 1; seed <= CONVERSATIONS; seed++) {
        const vars = conversation(seed);
        const [want, got] = await Promise.all([other.render(source, vars), polder.render(source, vars)]);
        if (got.ok !== want.ok || (got.ok && got.text !== want.text)) {
            if (++bad > 3) continue;
            const how = got.ok && want.ok ? difference(got.text, want.text) : `polder: ${got.error ?? 'renders'}; the other: ${want.error ?? 'renders'}`;
            console.log(`     conversation ${seed}: ${how}`);
        } else if (got.ok) {
            rendered++;
        } else {
            refused++;
        }
    }
    const good = bad === 0 && rendered >= CONVERSATIONS / 4; // a template that refuses nearly all proves nothing
    console.log(`${good ? 'ok  ' : 'FAIL'} ${basename(file)}, ${name}: ${rendered} alike, ${refused} refused by both, ${bad} differ`);
    return good;
}

const polder = renderer(program, []);
const hasJinja = spawnSync('python3', ['-c', 'import jinja2']).status === 0;
const jinja2 = hasJinja ? renderer('python3', [join(here, 'reference.py')]) : null;
const list = (folder) => readdirSync(folder).filter((f) => f.endsWith('.jinja')).sort().map((f) => join(folder, f));
const folder = process.env.TEMPLATES ?? join(here, 'templates');

let passed = 0, failed = 0, skipped = 0;
const count = (good) => (good ? passed++ : failed++);
const common = list(folder), strict = process.env.TEMPLATES ? [] : list(join(folder, 'jinja2'));
for (const file of common) count(await compare(file, '@huggingface/jinja', npm));
if (jinja2) {
    for (const file of [...common, ...strict]) count(await compare(file, 'Jinja 2', jinja2));
} else {
    console.log('skip: python3 has no jinja2');
    skipped = common.length + strict.length;
}
for (const r of [polder, jinja2]) r?.end();
console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed ? 1 : 0;
