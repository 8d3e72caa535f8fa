// Why @huggingface/jinja gives something other than Jinja 2 (and polder): what it says when it refuses, what Jinja 2 says when it does, or what makes
// the two texts equal. Each is a property of that package, seen in its source; a difference with no cause here fails the comparison.

const NPM_SAYS = [
    [/^Cannot apply filter "\w+" to type|^Unknown \w+Value filter/, 'filter refused by npm for a type that Jinja 2 takes (text is made of it first)'],
    [/^Expected iterable.*UndefinedValue/, 'npm refuses a loop over what is undefined'],
    [/^Expected iterable.*StringValue/, 'npm refuses a loop over the characters of a string'],
    [/^Cannot call something that is not a function: got/, 'npm takes a key named like a method (items) for the method'],
    [/^Cannot unpack non-iterable type: TupleValue/, 'npm cannot unpack a tuple'],
    [/^Object keys must be strings/, 'npm has no dicts with other keys than strings'],
    [/^Cannot perform operation .* on undefined values/, 'npm refuses an operation on undefined that Jinja 2 takes'],
    [/^Unknown operator "in" between .* and UndefinedValue|Cannot perform operation in/, 'npm refuses "in" of what is undefined'],
];

const POLDER_SAYS = [
    [/(string|list|dict|none|integer|undefined|tuple) \+ (string|list|dict|none|integer|tuple) cannot be computed/, 'npm joins text with lists, dicts or null, Jinja 2 refuses'],
    [/has no '[^']*'$|' is undefined$/, 'npm reads on past what is undefined, Jinja 2 refuses'],
    [/'in' (cannot search|of a string needs)/, 'npm answers "in" for types that Jinja 2 refuses'],
    [/cannot be gone through$/, 'npm takes null for an empty list, Jinja 2 refuses'],
];

const unexponent = (s) => s.replace(/e([+-])0(\d)(?!\d)/g, 'e$1$2');
const unbreak = (s) => s.replaceAll('\r\n', '\n');

function first(a, b) {
    let i = 0;
    while (i < a.length && a[i] === b[i]) i++;
    return i;
}

// Two texts that differ: what is true of them at the place where they part, of all of them, or of the conversation.
function textCause(jinja, npm, vars) {
    if (unexponent(jinja) === unexponent(npm)) return 'exponents: 1.5e-07 in Jinja 2, 1.5e-7 in npm';
    if (unbreak(jinja) === unbreak(npm)) return 'npm keeps \\r\\n of the source, Jinja 2 reads it as \\n';
    const [a, b] = [unexponent(unbreak(jinja)), unexponent(unbreak(npm))];
    const i = first(a, b), x = a.slice(i), y = b.slice(i), before = a.slice(Math.max(0, i - 12), i);
    if (/[[{ :,(]$/.test(before) && x.startsWith("'") && y.startsWith('"')) return "lists and dicts in text: Python's repr in Jinja 2, JSON in npm";
    if (/^(None|True|False|Undefined)/.test(x)) return 'None, True and False in text: printed by Jinja 2, not so by npm';
    if (/[\s>]$/.test(before) && x.trimStart() !== x && y === y.trimStart()) return 'npm ignores the argument of strip, lstrip and rstrip';
    const said = vars.messages.filter((m) => m.role === 'user').map((m) => JSON.stringify(m));
    if (/^(\[AVAILABLE_TOOLS|\[INST)|TOOLS\]/.test(x) && new Set(said).size < said.length) return 'equal messages: npm compares dicts by identity, Jinja 2 by value';
    const system = vars.messages[0]?.role === 'system' ? vars.messages[0].content : null;
    if (typeof system === 'string' && Number(system) === 0) return `npm compares as JavaScript does: '' and '0' equal false`;
    if (x.startsWith('Agent') && y.startsWith('User')) return 'npm carries what a loop\'s round has set into the next round';
    return null;
}

export function causeOf(got, npm, vars) {
    if (!npm.ok) for (const [says, cause] of NPM_SAYS) if (says.test(npm.error)) return cause;
    if (!got.ok && npm.ok) for (const [says, cause] of POLDER_SAYS) if (says.test(got.error)) return cause;
    if (!got.ok && npm.ok && /roles must alternate/.test(got.error)) return 'npm\'s selectattr drops what lacks the attribute, whatever the test';
    return got.ok && npm.ok ? textCause(got.text, npm.text, vars) : null;
}
