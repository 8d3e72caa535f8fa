// Checks an exported polder ledger with the checkpoint and Merkle code of npm's @sigstore/verify: the signature of every
// checkpoint, and the inclusion of every entry under the exported one. The inclusion proofs are computed here, from the
// exported tiles; whether they hold is for @sigstore/verify to say. It knows no consistency proofs (verify.go does them).
//
//   node verify.mjs MODULES-DIR EXPORTED-DIR [CHECKPOINTS.json]
//
// Exit status: 0 it holds, 1 it does not, 2 used wrongly.
import fs from "node:fs";
import path from "node:path";
import crypto from "node:crypto";
import { createRequire } from "node:module";

const [modules, dir, collectedFile] = process.argv.slice(2);
if (!dir) {
    console.error("usage: verify.mjs MODULES-DIR EXPORTED-DIR [CHECKPOINTS.json]");
    process.exit(2);
}
const require = createRequire(path.join(path.resolve(modules), "index.js"));
const { verifyCheckpoint } = require("@sigstore/verify/dist/tlog/checkpoint.js");
const { verifyMerkleInclusion } = require("@sigstore/verify/dist/tlog/merkle.js");

function fail(why) {
    console.error("verify.mjs: " + why);
    process.exit(1);
}

// vkey: name+hash+base64(0x01 || key). The package wants a KeyObject and finds the key by its hint and by the name,
// which it takes for a pattern over the log's base URL.
function readKey() {
    const text = fs.readFileSync(path.join(dir, "vkey"), "utf8").trimEnd();
    const m = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/.exec(text);
    if (!m) fail("vkey is malformed");
    const raw = Buffer.from(m[3], "base64");
    if (raw.length !== 33 || raw[0] !== 1) fail("vkey is not an Ed25519 key");
    const id = crypto.createHash("sha256").update(m[1] + "\n").update(raw).digest();
    if (id.subarray(0, 4).toString("hex") !== m[2]) fail("vkey: the key ID does not belong to the key");
    const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw.subarray(1)]);
    return { name: m[1], log: { logID: id, baseURL: m[1], publicKey: crypto.createPublicKey({ key: spki, format: "der", type: "spki" }) } };
}

function openCheckpoint(note, key) {
    const entry = { inclusionProof: { checkpoint: { envelope: note } } };
    const c = verifyCheckpoint(entry, [key.log]);
    if (c.origin !== key.name) fail(`checkpoint of ${c.origin}, not of ${key.name}`);
    return c;
}

const sha256 = (...parts) => parts.reduce((h, p) => h.update(p), crypto.createHash("sha256")).digest();
const node = (l, r) => sha256(Buffer.of(1), l, r);

function tilePath(kind, n, width) {
    let s = String(n % 1000).padStart(3, "0");
    for (n = Math.floor(n / 1000); n > 0; n = Math.floor(n / 1000)) s = "x" + String(n % 1000).padStart(3, "0") + "/" + s;
    return `tile/${kind}/${s}` + (width < 256 ? `.p/${width}` : "");
}

// All hashes of one level, from its tiles.
function readLevel(level, size) {
    const count = Math.floor(size / 256 ** level);
    const out = [];
    for (let n = 0; n * 256 < count; n++) {
        const width = Math.min(256, count - n * 256);
        const b = fs.readFileSync(path.join(dir, tilePath(level, n, width)));
        if (b.length !== width * 32) fail(`${tilePath(level, n, width)}: ${b.length} bytes`);
        for (let i = 0; i < width; i++) out.push(b.subarray(i * 32, i * 32 + 32));
    }
    return out;
}

// RFC 6962 hashes of aligned subtrees: those of tiles as they are exported, those between by hashing.
class Tree {
    constructor(size) {
        this.size = size;
        this.rows = [];
        for (let level = 0; level < 8 && size / 256 ** level >= 1; level++) {
            this.rows[8 * level] = readLevel(level, size);
            for (let k = 8 * level + 1; k < 8 * level + 8; k++) {
                const below = this.rows[k - 1];
                this.rows[k] = [];
                for (let i = 0; i + 1 < below.length; i += 2) this.rows[k].push(node(below[i], below[i + 1]));
            }
        }
    }
    hash(lo, hi) {
        const n = hi - lo;
        const level = Math.log2(n);
        if (Number.isInteger(level) && lo % n === 0) return this.rows[level][lo / n];
        let k = 1;
        while (2 * k < n) k *= 2;
        return node(this.hash(lo, lo + k), this.hash(lo + k, hi));
    }
    proof(i) {
        const out = [];
        for (let lo = 0, hi = this.size; hi - lo > 1; ) {
            let k = 1;
            while (2 * k < hi - lo) k *= 2;
            if (i - lo < k) {
                out.unshift(this.hash(lo + k, hi));
                hi = lo + k;
            } else {
                out.unshift(this.hash(lo, lo + k));
                lo += k;
            }
        }
        return out;
    }
}

function* entries(size) {
    for (let n = 0; n * 256 < size; n++) {
        const width = Math.min(256, size - n * 256);
        const b = fs.readFileSync(path.join(dir, tilePath("entries", n, width)));
        let at = 0;
        for (let i = 0; i < width; i++) {
            if (at + 2 > b.length || at + 2 + b.readUInt16BE(at) > b.length) fail(`record ${n * 256 + i}: the bundle ends before it`);
            const len = b.readUInt16BE(at);
            yield b.subarray(at + 2, at + 2 + len);
            at += 2 + len;
        }
        if (at !== b.length) fail(`${tilePath("entries", n, width)}: bytes too many`);
    }
}

try {
    const key = readKey();
    const checkpoint = openCheckpoint(fs.readFileSync(path.join(dir, "checkpoint"), "utf8"), key);
    const size = Number(checkpoint.logSize);
    const tree = new Tree(size);
    let i = 0;
    for (const entry of entries(size)) {
        verifyMerkleInclusion({ canonicalizedBody: entry, inclusionProof: { logIndex: String(i), hashes: tree.proof(i) } }, checkpoint);
        i++;
    }
    const collected = collectedFile ? JSON.parse(fs.readFileSync(collectedFile, "utf8")) : [];
    for (const note of collected) {
        const c = openCheckpoint(note, key);
        if (c.logSize > checkpoint.logSize) fail(`a collected checkpoint covers ${c.logSize} records, the export has ${size}`);
    }
    console.log(`@sigstore/verify: ${i} records included, ${collected.length + 1} checkpoints signed`);
} catch (e) {
    fail(e.message);
}
