// Texts to tokenize: the same for the same seed, whatever the machine. Real sentences come from ../shared/data where it
// is there, and from the samples below; the rest is made: characters of all planes, code, numbers, white space, line
// ends, emoji, marks, contractions, special tokens' texts, and mixes of all of these.
import fs from 'node:fs';
import path from 'node:path';

export function random(seed) {
    let a = seed >>> 0;
    const next = () => {
        a = (a + 0x6d2b79f5) >>> 0;
        let t = Math.imul(a ^ (a >>> 15), 1 | a);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const r = { real: next, int: n => Math.floor(next() * n), pick: list => list[Math.floor(next() * list.length)] };
    return r;
}

const samples = [
    'The river ran under the bridge, and nobody at the mill could say when it had last been this high.',
    "I'd say they'll've gone; WE'RE late, it's 5 o'clock, you'd better hurry, y'all!",
    'Der Müller öffnete die Schleuse, während draußen Übermut und Größe großgeschrieben wurden.',
    "L'été dernier, à Noël, j'ai goûté un gâteau où l'œuf manquait; ça m'étonne, n'est-ce pas ?",
    'El niño comió piñas en el jardín; ¿cuánto costó? ¡Qué bárbaro!',
    'A avó não viu o avô: “atenção”, disse o cão.',
    'Perché la città è così bella? Perché c’è il sole.',
    'De zeeën zijn hoog; de dijk houdt het water tegen, ’s avonds en ’s nachts.',
    'Zażółć gęślą jaźń, a potem idź spać.',
    'Příliš žluťoučký kůň úpěl ďábelské ódy.',
    'Árvíztűrő tükörfúrógép és egy kétszáz éves malom.',
    'Õhtul läks külm ära; jäääär jäi sulama.',
    'Đường phố Hà Nội buổi sáng rất đông người, ai cũng vội vã.',
    'Быстрая река текла под мостом, и мельник сказал: «Вода поднимается».',
    'Україна має довгу історію; її мова — їжа для душі.',
    'Ταχύς ποταμός κάτω από τη γέφυρα· ο μυλωνάς είπε ΝΑΙ.',
    'השועל החום המהיר קפץ מעל הכלב העצלן.',
    'النهر يجري تحت الجسر، ولم يقل أحد شيئاً عن المطر.',
    'رودخانه از زیر پل می‌گذرد و آسیابان می‌خندد.',
    'नदी पुल के नीचे बहती है और चक्कीवाला हँसता है।',
    'নদীটি সেতুর নিচ দিয়ে বয়ে যায়।',
    'ஆறு பாலத்தின் கீழ் ஓடுகிறது.',
    'แม่น้ำไหลอยู่ใต้สะพาน และไม่มีใครพูดอะไรเลย',
    'မြစ်သည် တံတားအောက်တွင် စီးဆင်းသည်။',
    'ទន្លេហូរក្រោមស្ពាន។',
    'მდინარე ხიდის ქვეშ მიედინება.',
    'Գետը հոսում է կամրջի տակ։',
    '河水从桥下流过，磨坊主说：“水位在上涨。”',
    '河水從橋下流過，沒有人知道明天會怎樣。',
    '川は橋の下を流れ、粉屋は「水かさが増している」と言った。ﾊﾝｶｸ カタカナ',
    '강은 다리 밑으로 흐르고 방앗간 주인은 웃었다.',
    'ወንዙ በድልድዩ ስር ይፈስሳል።',
    '𝔗𝔥𝔢 𝕣𝕚𝕧𝕖𝕣 𝓇𝒶𝓃 ｕｎｄｅｒ ①②③ ⅷ ½ ﬁne ﷺ',
    'for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i]; // dot product\n}\n',
    'def f(x: int) -> str:\n    """Doc."""\n    return f"{x:>10}" if x else \'\'\n',
    'SELECT id, COUNT(*) FROM t WHERE a <> \'b\' AND c >= 1.5e-3 GROUP BY id;',
    '{"key": [1, 2.50, -3e+10, null, true], "url": "https://example.org/a?b=c&d=%20#e"}',
    '<div class="row">&nbsp;<a href="#top">Top</a></div>\r\n\r\n<!-- end -->',
    '# Title\n\n- item **one**\n- item _two_\n\n```c\nint main(void) { return 0; }\n```\n',
    '$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$',
];

const emoji = ['😀', '👍🏽', '👩‍👩‍👧‍👦', '🏳️‍🌈', '🇪🇺', '🇩🇪🇫🇷', '❤️', '☕', '👨🏿‍🚒', '🧑‍💻', '1️⃣', '🫠', '✊🏻✊🏿'];
const marks = ['e\u0301', 'o\u0308\u0304', 'a\u0328\u0301', '\u0301', 'n\u0303', 'q\u0307\u0323', 'q\u0323\u0307',
    'क\u093c', '\u1112\u1161\u11ab', 'ｶ\uff9e', 'A\u030a', '\u212b', '\u0344', '\u1e9b\u0323', 'i\u0307', 'İ', 'ǅ', 'ß', 'ſ'];
const spaces = [' ', '  ', '   ', '\t', '\n', '\r\n', '\r', '\n\n', ' \n', '\n ', '\t\t', '        ', '\u00a0', '\u3000',
    '\u2003', '\u2028', '\u200b', '\u200d', '\ufeff', '\u0085', '\v', '\f'];
const bits = ["'s", "'S", "'ll", "'RE", "'ve", "'T", "'d", "’s", "'", '"', '...', '!!!', '?!', '--', '->', '=>', '//', '/*',
    '*/', '::', '<<', '>>', '#', '@', '$', '%', '^', '&', '|', '\\', '~', '`', '«', '»', '—', '…', '▁', 'Ġ', '<0x0A>', '\u0000',
    '\u0001', '\u007f', '\u009f', '\ufffd', '\u200e', '\u061c'];

function realSentences(shared) {
    const out = [];
    const add = (file, cut) => {
        const p = path.join(shared ?? '', 'data', file);
        if (shared && fs.existsSync(p)) out.push(...cut(fs.readFileSync(p, 'utf8')));
    };
    const xquad = text => JSON.parse(text).data.flatMap(d => d.paragraphs).flatMap(p =>
        [p.context.slice(0, 400), ...p.qas.map(q => q.question)]);
    add('xquad/xquad.en.json', xquad);
    add('xquad/xquad.de.json', xquad);
    add('gsm8k/test.jsonl', text => text.trim().split('\n').map(l => JSON.parse(l).question));
    add('banking77/test.csv', text => text.trim().split('\n'));
    add('eu_ai_act/09_chapter_08_eu_database.md', text => text.split('\n'));
    return out.filter(s => s.length > 0);
}

function codePoint(r) {
    for (;;) {
        const limit = r.pick([0x80, 0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x30000, 0x110000]);
        const cp = r.int(limit);
        if (cp < 0xd800 || cp > 0xdfff) return String.fromCodePoint(cp);
    }
}

function number(r) {
    const digits = n => Array.from({ length: n }, () => r.int(10)).join('');
    return r.pick([() => digits(1 + r.int(12)), () => `${digits(3)},${digits(3)}.${digits(2)}`, () => `-${digits(2)}e${r.int(99)}`,
        () => `0x${r.int(1 << 30).toString(16)}`, () => `${digits(4)}-${digits(2)}-${digits(2)}`, () => '٣٤٥', () => '१२३४',
        () => '½²³', () => 'Ⅷ'])();
}

function part(r, sentences, added) {
    const kind = r.int(16);
    if (kind < 4) return r.pick(samples);
    if (kind < 6) {
        const s = r.pick(samples), at = r.int(s.length), cut = [...s.slice(at, at + 1 + r.int(20))].join('');
        return cut.toWellFormed();
    }
    if (kind === 6) return r.pick(sentences);
    if (kind === 7) return number(r);
    if (kind === 8) return r.pick(spaces).repeat(1 + r.int(6));
    if (kind === 9) return r.pick(emoji);
    if (kind === 10) return r.pick(marks);
    if (kind === 11) return r.pick(bits);
    if (kind === 12) return r.pick(bits).repeat(1 + r.int(5));
    if (kind === 13) return added.length ? r.pick(added) : '<|none|>';
    if (kind === 14) return Array.from({ length: 1 + r.int(8) }, () => codePoint(r)).join('');
    return r.pick(['a', 'ab', 'Ab', 'ABC', 'x', '日', 'é']).repeat(1 + r.int(30));
}

// One word of thousands of characters: longer than what polder merges at once.
function longWord(r) {
    const letters = r.pick(['ab', 'etaoin', 'abcdefghijklmnopqrstuvwxyz', 'xyz ', '=-', '日本語', 'éèe\u0301', '0']);
    const n = 2000 + r.int(6000), list = [...letters];
    return Array.from({ length: n }, () => r.pick(list)).join('');
}

// n texts; `added` are the contents of a vocabulary's added tokens.
export function makeStrings(n, seed, added, shared) {
    const r = random(seed), real = realSentences(shared), sentences = real.length ? real : samples;
    const out = [];
    for (let i = 0; i < n; i++) {
        let s = '';
        if (i % 700 === 699) s = longWord(r);
        else if (i % 5 === 0) s = r.pick(sentences);
        else if (i % 5 === 1) s = Array.from({ length: 1 + r.int(40) }, () => codePoint(r)).join('');
        else for (let k = 1 + r.int(7); k > 0; k--) s += part(r, sentences, added) + (r.int(3) ? '' : ' ');
        out.push(s.toWellFormed());
    }
    return out;
}
