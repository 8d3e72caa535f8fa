// llama.cpp (npm's node-llama-cpp) as a peer that is told what to do: a command a line on stdin, an answer a line of JSON
// on stdout. bench/speed_peer.c speaks the same words for polder.
//
//   load FILE            maps the model, as by default; {"seconds","rss","version","variant"}
//   session T SEQS CTX   a context of SEQS sequences that may reach CTX positions each, T threads
//   prefill N            forgets sequence 0, then evaluates N tokens at once; logits of the last
//   decode N             N steps of one token in sequence 0, logits of each
//   batch SEQS AT N      forgets all, gives SEQS sequences AT tokens each, then times N steps of one token in every one
//   quit
//
// Timed is the evaluation alone (llama_decode with the wait for its results): no tokenizer, no sampling. CPU is that of
// the process. Everything else is left as the package has it: CPU variant and weight layout by its own choice, flash
// attention "auto", F16 KV cache, mmap; no batch is split.
import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import {fileURLToPath, pathToFileURL} from "node:url";

const at = process.argv[2] || path.dirname(fileURLToPath(import.meta.url));
const lib = path.join(at, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama} = await import(pathToFileURL(lib).href);
const log = [];
const llama = await getLlama({gpu: false, build: "never", logLevel: process.env.PEER_LOG ? "debug" : "disabled",
    logger: (level, text) => log.push(text), maxThreads: 0});
let model, context, ctx, nVocab = 0, len = 0, open = 0, batchMax = 0, last = {};

const say = (o) => process.stdout.write(JSON.stringify(o) + "\n");
const rss = () => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
// Which build of the CPU backend was taken: the name of the library that is mapped.
function variant() {
    const found = /libggml-cpu-([a-z0-9]+)\.so/.exec(fs.readFileSync("/proc/self/maps", "utf8"));
    return found ? found[1] : "unknown";
}
// The same tokens for everyone: a fixed walk through the vocabulary, past what is special.
const token = (i) => 300 + (i * 7919) % (nVocab - 300);
const tokens = (from, n) => Uint32Array.from({length: n}, (_, i) => token(from + i));

async function timed(steps) {
    const cpu = process.cpuUsage(), t = process.hrtime.bigint();
    await steps();
    const seconds = Number(process.hrtime.bigint() - t) / 1e9, used = process.cpuUsage(cpu);
    return {seconds, cpu: (used.user + used.system) / 1e6, rss: rss()};
}
async function evaluate(parts) { // [[sequence, position, tokens]…]
    ctx.initBatch(parts.reduce((n, p) => n + p[2].length, 0));
    for (const [seq, pos, t] of parts) ctx.addToBatch(seq, pos, t, Uint32Array.of(t.length - 1));
    await ctx.decodeBatch();
}
const commands = {
    async load(file) {
        const t = process.hrtime.bigint();
        model = await llama.loadModel({modelPath: file, gpuLayers: 0});
        nVocab = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
        return {seconds: Number(process.hrtime.bigint() - t) / 1e9, rss: rss(), version: llama.llamaCppRelease.release,
            variant: variant()};
    },
    async session(threads, seqs, positions) {
        if (context) await context.dispose();
        batchMax = Math.max(512, seqs);
        context = await model.createContext({sequences: seqs, contextSize: positions, batchSize: batchMax,
            threads, flashAttention: "auto", ignoreMemorySafetyChecks: true});
        ctx = context._ctx;
        ctx.setThreads(threads);
        open = seqs;
        return {threads: ctx.getThreads(), rss: rss()};
    },
    async prefill(n) {
        ctx.disposeSequence(0);
        len = n;
        return await timed(() => evaluate([[0, 0, tokens(0, n)]]));
    },
    async decode(n) {
        return await timed(async () => {
            for (let i = 0; i < n; i++, len++) await evaluate([[0, len, tokens(len, 1)]]);
        });
    },
    async batch(seqs, from, n) {
        for (let s = 0; s < open; s++) ctx.disposeSequence(s);
        for (let s = 0; s < seqs; s++) await evaluate([[s, 0, tokens(s * 31, from)]]);
        return await timed(async () => {
            for (let i = 0; i < n; i++)
                await evaluate(Array.from({length: seqs}, (_, s) => [s, from + i, tokens(s * 31 + from + i, 1)]));
        });
    },
    async log() { return {log: log.join("")}; },
};
for await (const line of readline.createInterface({input: process.stdin})) {
    const [word, ...args] = line.trim().split(/\s+/);
    if (word === "quit") break;
    try {
        if (!commands[word]) throw new Error("no such command");
        say(await commands[word](...(word === "load" ? args : args.map(Number))));
    } catch (e) {
        say({error: `${word}: ${e.message || e}`});
    }
}
process.exit(0);
