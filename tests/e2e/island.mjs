// An island in a temporary folder and the server on it, for tests that ask it with npm clients.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder (the caller removes `dir`), an island in it that is not yet made, and the way to run polder on it. */
export function newIsland(polder, name) {
  const dir = mkdtempSync(join(tmpdir(), `polder-${name}-`));
  const island = join(dir, 'island');
  const run = (...args) => execFileSync(polder, ['--island', island, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  let server, log = '';
  return {
    dir, island, run,
    log: () => log,
    ended: () => server.exitCode !== null || server.signalCode !== null,
    status: () => server.exitCode ?? server.signalCode,
    up: () => new Promise((resolve, reject) => {
      server = spawn(polder, ['--island', island, 'up', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'ignore', 'pipe'] });
      const timer = setTimeout(() => reject(new Error(`not up after 60 s: ${log}`)), 60000);
      server.stderr.on('data', (d) => {
        log += d;
        const m = /listening on (http:\/\/127\.0\.0\.1:\d+)/.exec(log);
        if (m) { clearTimeout(timer); resolve(m[1]); }
      });
      server.on('exit', (code) => { clearTimeout(timer); reject(new Error(`ended with ${code}: ${log}`)); });
    }),
    down: () => new Promise((resolve) => {
      server.removeAllListeners('exit');
      server.on('exit', resolve);
      server.kill('SIGTERM');
    }),
  };
}

const toolTemplate = `{{ bos_token }}{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}
{{- '<|' + ('user' if m.role == 'tool' else m.role) + '|>' + (m.content or '') }}{% for c in m.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}{{ c.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
{%- endfor %}{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}`;

/** The same weights with a template that has a place for tools and writes calls: the path of the new file. The template
 * grows by whole blocks of 32 bytes, so that what follows it in the file stays aligned. */
export function withTools(modelFile, dir) {
  const file = readFileSync(modelFile), key = Buffer.from('tokenizer.chat_template');
  const at = file.indexOf(key) + key.length + 4, old = Number(file.readBigUInt64LE(at));
  let text = Buffer.from(toolTemplate);
  while ((text.length - old) % 32) text = Buffer.concat([text, Buffer.from(' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const path = join(dir, 'with-tools.gguf');
  writeFileSync(path, Buffer.concat([file.subarray(0, at), length, text, file.subarray(at + 8 + old)]));
  return path;
}
