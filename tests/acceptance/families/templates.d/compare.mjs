// compare.mjs RENDER MODULES FOLDER[:wider]...: renders every *.jinja of the folders with polder's interpreter (the program RENDER), with
// @huggingface/jinja (installed below MODULES) and with Jinja 2 as transformers sets it up (reference.py), on generated conversations.
//
// polder must give what Jinja 2 gives, always: it is what the models were trained with. Where @huggingface/jinja gives something else, the
// conversation is counted as such, with the cause (causes.mjs), and more are made until CONVERSATIONS (200) texts are alike or ten times as many
// conversations were made; in a folder marked :wider it is enough that 200 are as Jinja 2 has them. Where a reference refuses, polder must refuse too; what raise_exception says must be said word for word.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { conversation } from './conversations.mjs';
import { renderer } from '../../../e2e/template/renderer.mjs';
import { causeOf } from './causes.mjs';

const CONVERSATIONS = Number(process.env.CONVERSATIONS ?? 200);
const [program, modules, ...folders] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const { Template } = createRequire(join(modules, 'package.json'))('@huggingface/jinja');

const parsed = new Map();
function npmRender(source, vars) {
    try {
        if (!parsed.has(source)) parsed.set(source, new Template(source));
        return { ok: true, text: parsed.get(source).render(structuredClone(vars)) };
    } catch (e) {
        return { ok: false, error: String(e.message) };
    }
}

const alike = (a, b) => a.ok === b.ok && (!a.ok || a.text === b.text);
const near = (s, i) => JSON.stringify(s.slice(Math.max(0, i - 30), i + 50));
function difference(a, b) {
    if (!a.ok || !b.ok) return `polder ${a.ok ? 'renders' : 'says ' + a.error}; the other ${b.ok ? 'renders' : 'says ' + b.error}`;
    let i = 0;
    while (i < a.text.length && a.text[i] === b.text[i]) i++;
    return `at ${i}: polder ${near(a.text, i)}, the other ${near(b.text, i)}`;
}

// What is wrong with polder's answer, or nothing.
function fault(got, jinja) {
    if (!alike(got, jinja)) return `Jinja 2: ${difference(got, jinja)}`;
    const raised = !jinja.ok && jinja.raised;
    if (raised && !got.error.includes(jinja.raised.slice(0, 300))) return `the message: ${got.error}; raised was ${jinja.raised}`;
    return null;
}

async function compare(file, wider) {
    const source = readFileSync(file, 'utf8'), name = basename(file, '.jinja');
    const causes = new Map();
    let made = 0, equal = 0, rendered = 0, raised = 0, bad = 0;
    for (let seed = 1; equal < CONVERSATIONS && seed <= 10 * CONVERSATIONS; seed++, made++) {
        const vars = conversation(seed);
        const [jinja, got] = await Promise.all([jinja2.render(source, vars), polder.render(source, vars)]);
        const npm = npmRender(source, vars), wrong = fault(got, jinja);
        if (wrong) {
            if (++bad <= (process.env.VERBOSE ? 20 : 3)) console.log(`     ${name}, conversation ${seed}: ${wrong}`);
            continue;
        }
        rendered += got.ok;
        if (!alike(got, npm)) {
            const cause = causeOf(got, npm, vars) ?? `not known: ${difference(got, npm)}`;
            causes.set(cause, (causes.get(cause) ?? 0) + 1);
        } else if (got.ok) {
            equal++;
        } else {
            raised++;
        }
    }
    const other = [...causes].map(([cause, n]) => `${n} ${cause}`).join('; ');
    const unknown = [...causes.keys()].some((c) => c.startsWith('not known'));
    const good = bad === 0 && !unknown && (wider ? rendered : equal) >= CONVERSATIONS;
    console.log(`templates ${name} conversations ${made} equal ${equal} raised ${raised}${other ? ` npm-differs ${made - equal - raised - bad} (${other})` : ''}${bad ? ` WRONG ${bad}` : ''}${good ? '' : ' FAIL'}`);
    return good;
}

if (spawnSync('python3', ['-c', 'import jinja2']).status !== 0) {
    console.log('FAIL python3 has no jinja2 (Debian: python3-jinja2)');
    console.log('0 passed, 1 failed');
    process.exit(1);
}
const polder = renderer(program, []), jinja2 = renderer('python3', [join(here, '../../../e2e/template/reference.py')]);
let passed = 0, failed = 0;
for (const entry of folders) {
    const [folder, wider] = entry.split(':');
    for (const file of readdirSync(folder).filter((f) => f.endsWith('.jinja')).sort()) {
        if ((process.env.ONLY ?? '') && !file.includes(process.env.ONLY)) continue;
        (await compare(join(folder, file), wider)) ? passed++ : failed++;
    }
}
polder.end();
jinja2.end();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
