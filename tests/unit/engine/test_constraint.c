/* Grammars and constraints: which texts they take, which tokens they let through, what they refuse and how. */
#include "harness.h"

#include "base/mem.h"
#include "engine/grammar/chars.h"
#include "unit/engine/constrain.h"

typedef enum kind { SCHEMA, LETTER, REGEX, TEXT } kind;

static err_code make(grammar **out, kind k, const char *source, err *e) {
    const token_trie *t = constrain_trie();
    size_t n = strlen(source);
    *out = NULL;
    if (k == REGEX) return grammar_make_regex(out, t, source, n, e);
    if (k == TEXT) return grammar_make_text(out, t, source, n, e);
    cJSON *s = NULL;
    schema_options o = {.to_the_letter = k == LETTER};
    err_code rc = json_parse(&s, source, n, "schema", e);
    if (!rc) rc = grammar_make_json_schema(out, t, s, &o, e);
    cJSON_Delete(s);
    return rc;
}

/* Is the text in the language? -1: it cannot be said. */
static int takes(kind k, const char *source, const char *text) {
    grammar *g;
    constraint *c = NULL;
    err e;
    if (make(&g, k, source, &e) != ERR_OK || constraint_new(&c, g, &e) != ERR_OK) {
        fprintf(stderr, "%s: %s\n", source, e.msg);
        grammar_free(g);
        return -1;
    }
    bool ok = constraint_accept_bytes(c, text, strlen(text), &e) == ERR_OK && constraint_can_end(c);
    constraint_free(c);
    grammar_free(g);
    return ok;
}

typedef struct example {
    kind kind;
    const char *source, *good, *bad; /* texts, separated by two spaces */
} example;

static bool try_all(const example *x, const char *list, int want) {
    char text[512];
    while (list && *list) {
        const char *end = strstr(list, "  ");
        size_t n = end ? (size_t)(end - list) : strlen(list);
        memcpy(text, list, n);
        text[n] = 0;
        int got = takes(x->kind, x->source, text);
        if (got != want) {
            fprintf(stderr, "%s: '%s' gives %d\n", x->source, text, got);
            return false;
        }
        list += n + (end ? 2 : 0);
    }
    return true;
}

static const example languages[] = {
    {REGEX, "a(b|cd)*e?", "a  ab  abcde  acdcdb", "b  ac  aee"},
    {REGEX, "[^a-c\\d]{2,3}", "xy  zzz  \xc3\xa9\xe2\x82\xac", "x  xa  x1  wxyz"},
    {REGEX, "^\\p{Lu}\\p{Ll}+$", "Zug  \xc3\x89t\xc3\xa9", "zug  ZUG"},
    {REGEX, "(^a|b$|c)+", "a  b  c  ac  cb  acccb", "ba  ca  bb"},
    {REGEX, "x{0}y{2}|\\u{1F642}\\x41",
     "yy  \xf0\x9f\x99\x82"
     "A",
     "y  xyy"},
    {TEXT, "root ::= \"[\" (item (\",\" item)*)? \"]\" # a list\nitem ::= [0-9]+ | root", "[]  [1]  [1,[2,3],[]]",
     "[  [,]  [1,]"},
    {TEXT, "root ::= \"a\" root \"b\" | \"\"", "ab  aaabbb", "a  aab  abb"},
    {TEXT, "root ::= root \"+\" root | [a-z]", "a  a+b  a+b+c", "+  a+"}, /* left recursion, ambiguous */
    {TEXT, "root ::= e e e \"x\"\ne ::= \"\" | \"e\"", "x  ex  eex  eeex", "eeeex"},
    {TEXT, "root ::= (\"ab\"{2} | [^x]{1,2}\n | .\"\\x78\" ){2}", "ababyy  y1x  xx1", "xa  x"},
    {TEXT, "root ::= %json{\"type\":\"integer\"} %regex\"[a-z]\\\"?\"", "12a  0z\"", "a  12"},
    {SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"}},\"required\":[\"a\"]"
     "}",
     "{\"a\":1}  {\"a\": 1, \"b\": null}  {\n\"a\":0\n}",
     "{}  {\"b\":null,\"a\":1}  {\"a\":1,}  {\"a\":1,\"c\":1}  {\"a\":1.5}"},
    {LETTER, "{\"properties\":{\"a\":{\"type\":\"integer\"}}}", "{}  {\"a\":1}  {\"z\":[]}  3  \"x\"", "{\"a\":\"1\"}"},
    {SCHEMA, "{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "-3  -1  0  7  99  120", "-4  -0  121  07  1.0"},
    {SCHEMA, "{\"type\":\"number\",\"exclusiveMinimum\":0.5,\"maximum\":2}", "0.51  2  2.0  1.999",
     "0.5  0.50  2.01  -1  3"},
    {SCHEMA, "{\"type\":\"number\",\"multipleOf\":0.25}", "0  1.25  7.5  3.75", "0.3  1.251"},
    {SCHEMA, "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"ab\"  \"a\\n\xc3\xa9\"  \"\\\\\\\"\"",
     "\"a\"  \"abcd\"  \"\\x\""},
    {SCHEMA, "{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-29\"  \"2023-12-31\"",
     "\"2023-02-29\"  \"2023-13-01\""},
    {SCHEMA, "{\"type\":\"string\",\"pattern\":\"^a+$\",\"maxLength\":3}", "\"a\"  \"aaa\"", "\"aaaa\"  \"b\""},
    {SCHEMA, "{\"enum\":[\"a\",1,null,{\"k\":[true]}]}", "\"a\"  1  null  {\"k\":[true]}", "\"b\"  2  {}"},
    {SCHEMA, "{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":2}",
     "[true]  [true, false]", "[]  [true,true,true]  [1]"},
    {SCHEMA, "{\"type\":\"array\",\"items\":{\"enum\":[1,2,3]},\"uniqueItems\":true,\"minItems\":2}", "[1,2]  [3,1,2]",
     "[1]  [1,1]  [1,2,1]"},
    {SCHEMA,
     "{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/"
     "n\"}],\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#\"}},\"required\":[\"n\"],"
     "\"additionalProperties\":false}}}",
     "null  {\"n\":null}  {\"n\":{\"n\":null}}", "{}  {\"n\":1}"},
    {SCHEMA,
     "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"}},\"required\":[\"k\"]},{\"type\":"
     "\"object\",\"properties\":{\"k\":{\"const\":\"b\"},\"x\":{\"type\":\"null\"}},\"required\":[\"k\"]}]}",
     "{\"k\":\"a\"}  {\"k\":\"b\",\"x\":null}", "{\"k\":\"c\"}  {\"k\":\"a\",\"x\":null}"},
    {SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"null\"}},\"additionalProperties\":{\"type\":\"integer\"},"
     "\"propertyNames\":{\"pattern\":\"^[a-b]+$\"}}",
     "{\"ab\":null}  {\"a\":1}  {\"ab\":null,\"abb\":2}", "{\"ab\":1}  {\"c\":1}  {\"a\":null}"},
};

TEST(texts_in_and_out_of_languages) {
    for (size_t i = 0; i < sizeof languages / sizeof *languages; i++) {
        CHECK(try_all(&languages[i], languages[i].good, 1));
        CHECK(try_all(&languages[i], languages[i].bad, 0));
    }
}

static const struct {
    kind kind;
    const char *source;
    err_code code;
    const char *says;
} refusals[] = {
    {REGEX, "a(?=b)", ERR_UNSUPPORTED, "look"},
    {REGEX, "(a)\\1", ERR_UNSUPPORTED, "back references"},
    {REGEX, "a\\b", ERR_UNSUPPORTED, "boundaries"},
    {REGEX, "(a", ERR_INVALID, "not closed"},
    {REGEX, "[b-a]", ERR_INVALID, "range"},
    {REGEX, "a^b", ERR_INVALID, "matches no text"},
    {REGEX, "((a{1000}){1000}){1000}", ERR_TOO_LARGE, "large"},
    {TEXT, "root ::= \"a", ERR_INVALID, "line 1"},
    {TEXT, "root ::= other", ERR_INVALID, "not defined"},
    {TEXT, "a ::= \"x\"", ERR_INVALID, "root"},
    {TEXT, "root ::= \"a\" root", ERR_INVALID, "no text"},
    {TEXT, "root ::= <|nowhere|>", ERR_INVALID, "<|nowhere|>"},
    {TEXT, "root ::= [a]\nroot ::= [b]", ERR_INVALID, "line 2"},
    {SCHEMA, "{\"type\":\"strin\"}", ERR_INVALID, "#: type"},
    {SCHEMA, "{\"properties\":{\"a\":{\"not\":{\"minimum\":3}}}}", ERR_UNSUPPORTED, "#/properties/a: not"},
    {SCHEMA, "{\"type\":\"object\",\"unevaluatedProperties\":false}", ERR_UNSUPPORTED, "unevaluatedProperties"},
    {SCHEMA, "{\"items\":{\"pattern\":\"(?!x)\"}}", ERR_UNSUPPORTED, "#/items: pattern"},
    {SCHEMA, "{\"type\":\"array\",\"uniqueItems\":true}", ERR_UNSUPPORTED, "uniqueItems"},
    {SCHEMA, "{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":2,\"type\":\"number\"}]}", ERR_UNSUPPORTED, "#/oneOf/1"},
    {SCHEMA, "{\"$ref\":\"#/$defs/x\"}", ERR_INVALID, "$ref"},
    {SCHEMA, "{\"$ref\":\"other.json\"}", ERR_UNSUPPORTED, "another document"},
    {SCHEMA, "{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", ERR_INVALID, "itself"},
    {SCHEMA, "{\"type\":\"string\",\"enum\":[1]}", ERR_INVALID, "no value"},
    {SCHEMA, "{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", ERR_INVALID, "no value"},
    {SCHEMA, "{\"required\":[\"a\"],\"properties\":{\"a\":false}}", ERR_INVALID, "no value"},
    {SCHEMA, "{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#\"}},\"required\":[\"n\"]}", ERR_INVALID,
     "no value"},
};

TEST(what_cannot_be_exact_is_refused_by_name) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        grammar *g;
        err e = {0};
        err_code rc = make(&g, refusals[i].kind, refusals[i].source, &e);
        grammar_free(g);
        if (rc != refusals[i].code || !strstr(e.msg, refusals[i].says))
            FAIL("%s gives %s: %s", refusals[i].source, err_name(rc), e.msg);
    }
}

/* ---- tokens --------------------------------------------------------------------------------------------------- */

static constraint *follow(kind k, const char *source) {
    grammar *g;
    constraint *c = NULL;
    err e;
    if (make(&g, k, source, &e) != ERR_OK || constraint_new(&c, g, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    grammar_free(g); /* the constraint holds it */
    return c;
}

static bool allowed(constraint *c, int32_t id) {
    const uint64_t *mask;
    err e;
    return constraint_mask(c, &mask, &e) == ERR_OK && (mask[id / 64] >> (id % 64) & 1);
}

static int32_t token(const char *text) {
    return token_trie_find(constrain_trie(), text, strlen(text));
}

/* Every token: the mask lets it through exactly where accepting it succeeds. */
static bool mask_agrees(constraint *c) {
    const uint64_t *mask;
    err e;
    uint32_t n = constrain_trie()->n_vocab;
    if (constraint_mask(c, &mask, &e) != ERR_OK) return false;
    uint64_t copy[64];
    memcpy(copy, mask, (n + 63) / 64 * 8);
    for (uint32_t id = 0; id < n; id++) {
        bool in = copy[id / 64] >> (id % 64) & 1, ok = constraint_accept(c, (int32_t)id, &e) == ERR_OK;
        if (ok && constraint_rollback(c, 1, &e) != ERR_OK) return false;
        if (in == ok) continue;
        fprintf(stderr, "token %u: mask %d, accepted %d\n", id, in, ok);
        return false;
    }
    return true;
}

TEST(masks_are_what_can_be_accepted) {
    for (size_t i = 0; i < sizeof languages / sizeof *languages; i++) {
        constraint *c = follow(languages[i].kind, languages[i].source);
        CHECK(c);
        err e;
        const char *text = languages[i].good;
        CHECK(mask_agrees(c));
        for (size_t k = 0; text[k] && strncmp(text + k, "  ", 2) != 0; k++) {
            CHECK_OK(constraint_accept_bytes(c, text + k, 1, &e), e);
            CHECK(mask_agrees(c));
        }
        constraint_free(c);
    }
}

TEST(end_and_control_tokens) {
    constraint *c = follow(REGEX, "the+|the<.bos.>");
    err e;
    CHECK(!allowed(c, MADE_BPE_END) && !allowed(c, MADE_BPE_BOS));
    CHECK(allowed(c, token("the")) && !allowed(c, token("he")));
    CHECK_OK(constraint_accept(c, token("the"), &e), e);
    CHECK(allowed(c, MADE_BPE_END) && !allowed(c, MADE_BPE_BOS) && constraint_can_end(c));
    CHECK(constraint_accept(c, MADE_BPE_BOS, &e) == ERR_INVALID);
    CHECK_OK(constraint_accept(c, MADE_BPE_END, &e), e);
    const uint64_t *mask;
    CHECK(constraint_is_finished(c) && constraint_mask(c, &mask, &e) == ERR_INVALID);
    CHECK_OK(constraint_rollback(c, 2, &e), e);
    CHECK(!constraint_is_finished(c) && allowed(c, token("the")) && !constraint_can_end(c));
    constraint_free(c);
}

TEST(tokens_that_a_grammar_names) {
    constraint *c = follow(TEXT, "root ::= <|bos|> !(<|tool|> | <[97]>)* <|tool|> \"x\"");
    err e;
    CHECK_INT(constraint_forced(c), MADE_BPE_BOS);
    CHECK_OK(constraint_accept(c, MADE_BPE_BOS, &e), e);
    CHECK(mask_agrees(c));
    CHECK(allowed(c, token("the")) && allowed(c, token("aaaa")) && allowed(c, MADE_BPE_USER));
    CHECK(!allowed(c, 97) && !allowed(c, MADE_BPE_BOS) && !allowed(c, MADE_BPE_END));
    CHECK_OK(constraint_accept(c, token("the"), &e), e);
    CHECK_OK(constraint_accept(c, MADE_BPE_USER, &e), e);
    CHECK_INT(constraint_forced(c), 'x');
    constraint_free(c);
}

TEST(clones_and_rolling_back) {
    constraint *c = follow(SCHEMA, "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}"), *d = NULL;
    err e;
    for (int i = 0; i < 200; i++) CHECK_OK(constraint_accept_bytes(c, i ? ",7" : "[7", 2, &e), e);
    CHECK_OK(constraint_clone(&d, c, &e), e);
    CHECK_OK(constraint_accept_bytes(c, "]", 1, &e), e);
    CHECK(constraint_can_end(c) && !constraint_can_end(d));
    CHECK_OK(constraint_rollback(c, 201, &e), e);
    CHECK(constraint_rollback(c, 1, &e) == ERR_INVALID);
    CHECK(allowed(c, '[') && !allowed(c, ']') && allowed(d, ']') && !allowed(d, '['));
    constraint_facts f; /* an element is where the one before it was: the state does not grow */
    constraint_get_facts(d, &f);
    CHECK(f.n_sets < 60);
    constraint_free(c);
    CHECK(mask_agrees(d));
    constraint_free(d);
}

/* A list written by right recursion, and one whose elements are a rule: both come back to the same set. */
TEST(lists_stay_small) {
    static const char *const lists[] = {"root ::= \"a\" root | \"\"", "root ::= c*\nc ::= [a-z] | \"\\\\\" [a-z]",
                                        "root ::= x\nx ::= y \";\"\ny ::= \"a\" y | \"a\""};
    for (size_t i = 0; i < 3; i++) {
        constraint *c = follow(TEXT, lists[i]);
        err e;
        for (int k = 0; k < 5000; k++) CHECK_OK(constraint_accept_bytes(c, "a", 1, &e), e);
        constraint_facts f;
        constraint_get_facts(c, &f);
        CHECK(f.n_sets < 20);
        constraint_free(c);
    }
}

TEST(deep_texts_are_collected) {
    constraint *c = follow(TEXT, "root ::= \"[\" root \"]\" | \"{\" root \"}\" | \"x\"");
    err e;
    for (int k = 0; k < 300000; k++) CHECK_OK(constraint_accept_bytes(c, k % 3 ? "[" : "{", 1, &e), e);
    CHECK_OK(constraint_rollback(c, 299990, &e), e);
    constraint_facts f;
    for (int k = 0; k < 2000000 && k >= 0; k += 50) { /* again and again other texts: what is forgotten is let go */
        for (int i = 0; i < 50; i++) CHECK_OK(constraint_accept_bytes(c, (k >> (i % 20) & 1) ? "[" : "{", 1, &e), e);
        CHECK_OK(constraint_rollback(c, 50, &e), e);
    }
    constraint_get_facts(c, &f);
    CHECK(f.bytes < (uint64_t)128 << 20);
    CHECK(mask_agrees(c));
    for (int k = 9; k >= 0; k--) {
        if (k == 9) CHECK_OK(constraint_accept_bytes(c, "x", 1, &e), e);
        CHECK_OK(constraint_accept_bytes(c, k % 3 ? "]" : "}", 1, &e), e);
    }
    CHECK(constraint_can_end(c));
    constraint_free(c);
}

TEST(ambiguity_has_a_limit) {
    constraint *c = follow(TEXT, "root ::= root root | root root root | \"a\" | \"\"");
    err e;
    err_code rc = ERR_OK;
    for (int k = 0; k < 200 && !rc; k++) rc = constraint_accept_bytes(c, "a", 1, &e);
    CHECK(rc == ERR_OK || rc == ERR_TOO_LARGE);
    constraint_free(c);
}

/* Every allocation fails once: nothing leaks (the sanitizers see to that) and nothing is taken for success. */
TEST(memory_runs_out) {
    static const char source[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"oneOf\":[{\"type\":\"integer\",\"multipleOf\":3},{\"enum\":"
        "[\"x\",\"y\"]}]},\"b\":{\"type\":\"string\",\"pattern\":\"^a|b$\",\"maxLength\":4}},\"patternProperties\":"
        "{\"^p\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/properties/b\"}}},\"required\":[\"b\"]}";
    static const char text[] = "{\"a\": 12, \"b\": \"ab\", \"p\": [\"b\"]}";
    constrain_trie();
    bool done = false;
    for (int64_t n = 0; n < 20000 && !done; n++) {
        grammar *g = NULL;
        constraint *c = NULL;
        const uint64_t *mask;
        err e = {0};
        cJSON *s = NULL;
        CHECK_OK(json_parse(&s, source, sizeof source - 1, "schema", &e), e);
        mem_fail_after(n);
        err_code rc = grammar_make_json_schema(&g, constrain_trie(), s, NULL, &e);
        if (!rc) rc = constraint_new(&c, g, &e);
        for (size_t i = 0; i < sizeof text - 1 && !rc; i++) {
            rc = constraint_mask(c, &mask, &e);
            if (!rc) rc = constraint_accept_bytes(c, text + i, 1, &e);
        }
        done = !rc;
        mem_fail_after(-1);
        if (rc && rc != ERR_NOMEM) FAIL("allocation %lld: %s %s", (long long)n, err_name(rc), e.msg);
        if (done) CHECK(constraint_can_end(c));
        constraint_free(c);
        grammar_free(g);
        cJSON_Delete(s);
    }
    CHECK(done);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(texts_in_and_out_of_languages);
    RUN(what_cannot_be_exact_is_refused_by_name);
    RUN(masks_are_what_can_be_accepted);
    RUN(end_and_control_tokens);
    RUN(tokens_that_a_grammar_names);
    RUN(clones_and_rolling_back);
    RUN(lists_stay_small);
    RUN(deep_texts_are_collected);
    RUN(ambiguity_has_a_limit);
    RUN(memory_runs_out);
    return test_end();
}
