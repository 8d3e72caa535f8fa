// What compare.mjs here and tests/acceptance/families/templates.d/compare.mjs share: the time that all interpreters are told, and interpreters
// that are programs.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const NOW = Date.UTC(2025, 6, 20, 23, 59, 58);
const RealDate = Date;
globalThis.Date = class extends RealDate { // strftime_now is told the same time everywhere
    constructor(...args) {
        super(...(args.length ? args : [NOW]));
    }
};

// A program that answers a line with a line.
export function renderer(command, args) {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return {
        async render(template, vars) {
            child.stdin.write(JSON.stringify({ template, vars, now: NOW }) + '\n');
            const { value, done } = await answers.next();
            if (done) throw new Error(`${command} ended early`);
            return JSON.parse(value);
        },
        end: () => child.stdin.end(),
    };
}
