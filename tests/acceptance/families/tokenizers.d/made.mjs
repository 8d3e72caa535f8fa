// Tokenizers made of the packages' vocabularies with the parts of other families.
import fs from 'node:fs';

const CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", TAIL = '|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const U = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]', L = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]', P = '[^\\r\\n\\p{L}\\p{N}]?';
const NO = '&&[^\\p{Han}]]', KU = U.slice(0, -1) + NO, KL = L.slice(0, -1) + NO;
const split = regex => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false });
const bytes = use_regex => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex });
const chain = (...list) => ({ type: 'Sequence', pretokenizers: list });

const byteLevel = {
    'gpt-2': bytes(true),
    'gpt-2-prefix': { ...bytes(true), add_prefix_space: true },
    'smollm': chain({ type: 'Digits', individual_digits: true }, bytes(true)),
    'falcon': chain({ type: 'Punctuation', behavior: 'Contiguous' }, bytes(true), { type: 'Digits', individual_digits: false },
        split('[0-9][0-9][0-9]')),
    'qwen35': chain(split(`${CASES}|${P}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*${TAIL}`), bytes(false)),
    'tekken': chain(split(`${P}${U}*${L}+|${P}${U}+${L}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*${TAIL}`), bytes(false)),
    'kimi-k2': chain(split(`[\\p{Han}]+|${P}${KU}*${KL}+${CASES}?|${P}${KU}+${KL}*${CASES}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+` +
        `[\\r\\n]*${TAIL}`), bytes(false)),
};

function added(content, id, flags) {
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...flags };
}

// Pieces of a vocabulary of characters: words with U+2581 in front, and parts of words.
function pieces(read, name = 'tokenizer-llama2') {
    return Object.entries(read(name).model.vocab).sort((a, b) => a[1] - b[1]).map(x => x[0])
        .filter(x => !/^<.*>$/.test(x));
}

function* unigrams(read, name) {
    const list = pieces(read, name), base = {
        version: '1.0', truncation: null, padding: null, normalizer: null,
        added_tokens: [added('<pad>', 0), added('</s>', 1), added('<unk>', 2), added('<mask>', 3, { lstrip: true, normalized: true })],
        post_processor: { type: 'TemplateProcessing', single: [{ Sequence: { id: 'A', type_id: 0 } },
            { SpecialToken: { id: '</s>', type_id: 0 } }], pair: [{ Sequence: { id: 'A', type_id: 0 } },
            { Sequence: { id: 'B', type_id: 0 } }], special_tokens: { '</s>': { id: '</s>', ids: [1], tokens: ['</s>'] } } },
        decoder: { type: 'Metaspace', replacement: '\u2581', prepend_scheme: 'always', split: true },
        model: { type: 'Unigram', unk_id: 2, byte_fallback: false,
            vocab: [['<pad>', 0], ['</s>', 0], ['<unk>', 0], ['<mask>', 0],
                ...list.map((x, i) => [x, Math.fround(-2 - Math.log(1 + i) - 0.0001 * i)])] },
    };
    const meta = (prepend_scheme, split) => ({ type: 'Metaspace', replacement: '\u2581', prepend_scheme, split });
    yield ['unigram', { ...base, pre_tokenizer: meta('always', true) }];
    yield ['unigram-first', { ...base, pre_tokenizer: meta('first', false) }];
    yield ['unigram-words', { ...base, normalizer: { type: 'NFKC' },
        pre_tokenizer: chain({ type: 'WhitespaceSplit' }, meta('always', true)) }];
    const vocab = [...base.model.vocab];
    for (let b = 0; b < 256; b++) vocab.push([`<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`, -30]);
    yield ['unigram-bytes', { ...base, pre_tokenizer: meta('never', false), decoder: { type: 'Sequence', decoders: [
        { type: 'Replace', pattern: { String: '\u2581' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }] },
        model: { ...base.model, byte_fallback: true, vocab } }];
}

function* wordPieces(read, name) {
    const tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'], seen = new Set(tokens);
    const put = t => seen.has(t) || (seen.add(t), tokens.push(t));
    for (const p of pieces(read, name)) {
        const word = p.replaceAll('\u2581', '');
        if (!word) continue;
        put(p.startsWith('\u2581') ? word : `##${word}`);
        put(p.startsWith('\u2581') ? word.toLowerCase() : `##${word.toLowerCase()}`);
        if ([...word].length === 1) put(word), put(`##${word}`);
    }
    const base = {
        version: '1.0', truncation: null, padding: null,
        added_tokens: tokens.slice(0, 5).map((t, i) => added(t, i)),
        pre_tokenizer: { type: 'BertPreTokenizer' },
        post_processor: { type: 'BertProcessing', sep: ['[SEP]', 3], cls: ['[CLS]', 2] },
        decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
        model: { type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100,
            vocab: Object.fromEntries(tokens.map((t, i) => [t, i])) },
    };
    const bert = flags => ({ type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents: null,
        lowercase: true, ...flags });
    yield ['wordpiece', { ...base, normalizer: bert({}) }];
    yield ['wordpiece-cased', { ...base, normalizer: bert({ lowercase: false }) }];
    yield ['wordpiece-accents', { ...base, normalizer: bert({ strip_accents: false, handle_chinese_chars: false }) }];
}

// [name, tokenizer.json] of each; read(package) gives a package's.
export function* made(read) {
    for (const [name, pre_tokenizer] of Object.entries(byteLevel)) {
        const json = read('tokenizer-qwen3');
        json.normalizer = name === 'gpt-2' ? { type: 'NFD' } : null;
        json.pre_tokenizer = pre_tokenizer;
        yield [name, json];
    }
    const llama = read('tokenizer-llama2');
    llama.added_tokens.push(added('<|end|>', 32000, { rstrip: true }), added('<|both|>', 32001, { lstrip: true, rstrip: true }),
        added('<|norm|>', 32002, { normalized: true, special: false }));
    yield ['llama2-flags', llama];
    yield* unigrams(read);
    yield* wordPieces(read);
}

// made.mjs WORK: writes a unigram and a WordPiece tokenizer of gemma3's 262,144 tokens into WORK, for the bench.
if (process.argv[1]?.endsWith('made.mjs')) {
    const work = process.argv[2];
    const read = name => JSON.parse(fs.readFileSync(`${work}/node_modules/@lenml/${name}/models/tokenizer.json`, 'utf8'));
    for (const [name, json] of [...unigrams(read, 'tokenizer-gemma3'), ...wordPieces(read, 'tokenizer-gemma3')])
        if (name === 'unigram-bytes' || name === 'wordpiece') fs.writeFileSync(`${work}/large-${name}.json`, JSON.stringify(json));
}
