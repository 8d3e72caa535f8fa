// schema_tool as a function: one line in, one line out.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export function openTool(program, mode, model) {
  const child = spawn(program, [mode, model], { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = [];
  let dead = null;
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.resolve(JSON.parse(line)));
  child.on('exit', (code, signal) => {
    dead = new Error(`schema_tool ended with ${signal ?? code}`);
    for (const w of waiting) w.reject(dead);
  });
  return {
    ask(job) {
      if (dead) return Promise.reject(dead);
      return new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
        child.stdin.write(JSON.stringify(job) + '\n');
      });
    },
    close: () => child.stdin.end(),
  };
}
