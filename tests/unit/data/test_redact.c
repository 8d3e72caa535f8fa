/* Values become placeholders and come back: exactly, whatever the cut. What breaks it: a placeholder that a text
 * already held, a backslash before a value, an escape in the middle of JSON, an allocation that fails. */
#include "data/data.h"

#include "base/json.h"
#include "base/mem.h"
#include "harness.h"

static detector *det;
static uint64_t rng_state = 0x243f6a8885a308d3u;

static uint32_t rnd(uint32_t n) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 33) % n;
}

static entity_set all_entities(void) {
    entity_set s = {{0, 0}};
    for (unsigned i = 0; i < detector_entities(det); i++) entity_set_add(&s, i);
    return s;
}

/* Findings of the values in `text` that stand in «»; the marks are taken out. The entity is IBAN where the value starts
 * with a capital letter, e-mail where with a small one, tax number where with a digit. */
static size_t marked(const char *text, char *plain, finding *f) {
    size_t n = 0, n_found = 0;
    for (size_t i = 0; text[i]; i++) {
        if (strncmp(text + i, "\xc2\xab", 2) == 0) {
            i++;
            char c = text[i + 1];
            f[n_found] = (finding){.entity = c >= 'a'   ? ENT_EMAIL
                                             : c >= 'A' ? ENT_IBAN
                                                        : ENT_DE_TAX,
                                   .score = 90,
                                   .from = n};
        } else if (strncmp(text + i, "\xc2\xbb", 2) == 0) {
            i++;
            f[n_found++].to = n;
        } else {
            plain[n++] = text[i];
        }
    }
    plain[n] = 0;
    return n_found;
}

typedef struct world {
    redaction *r;
    err e;
    buf out, back, json;
} world;

static bool world_make(world *w) {
    memset(w, 0, sizeof *w);
    w->out.max = w->back.max = w->json.max = 1 << 24;
    return redaction_new(&w->r, det, &w->e) == ERR_OK;
}

static void world_free(world *w) {
    redaction_free(w->r);
    buf_free(&w->out);
    buf_free(&w->back);
    buf_free(&w->json);
}

/* What w makes of a marked text. */
static const char *redacted(world *w, const char *text) {
    char plain[4096];
    finding f[64];
    entity_set all = all_entities();
    size_t n = marked(text, plain, f);
    buf_reset(&w->out);
    err_code rc = redaction_text(w->r, plain, strlen(plain), f, n, &all, &w->out, &w->e);
    return rc == ERR_OK ? buf_str(&w->out) : w->e.msg;
}

/* `text` restored in pieces of `piece` bytes (0: random pieces). */
static const char *restored(world *w, const char *text, size_t n, restore_form form, size_t piece) {
    restorer *x;
    if (restorer_new(&x, w->r, form, &w->e) != ERR_OK) return w->e.msg;
    buf_reset(&w->back);
    err_code rc = ERR_OK;
    for (size_t at = 0; at < n && rc == ERR_OK;) {
        size_t k = piece ? piece : 1 + rnd(7);
        if (k > n - at) k = n - at;
        char *exact = malloc(k); /* a read past the piece is seen */
        if (!exact) abort();
        memcpy(exact, text + at, k);
        rc = restorer_feed(x, exact, k, &w->back, &w->e);
        free(exact);
        at += k;
    }
    if (rc == ERR_OK) rc = restorer_end(x, &w->back, &w->e);
    restorer_free(x);
    return rc == ERR_OK ? buf_str(&w->back) : w->e.msg;
}

static const char *back(world *w, const char *text, restore_form form) {
    static char first[65536];
    snprintf(first, sizeof first, "%s", restored(w, text, strlen(text), form, strlen(text) + 1));
    for (size_t piece = 1; piece < 9; piece++)
        if (strcmp(first, restored(w, text, strlen(text), form, piece)) != 0) return "another result by another cut";
    return first;
}

TEST(same_value_same_placeholder) {
    world w;
    CHECK(world_make(&w));
    CHECK_STR(redacted(&w, "pay «DE89» and «DE90», again «DE89», «a@b.de», «123»"),
              "pay [IBAN_1] and [IBAN_2], again [IBAN_1], [EMAIL_1], [NATIONAL_ID_1]");
    CHECK_STR(redacted(&w, "«DE90»«c@d.de»«123»«DE 89»"), "[IBAN_2][EMAIL_2][NATIONAL_ID_1][IBAN_3]");
    CHECK_INT(redaction_count(w.r), 6);
    CHECK_OK(redaction_json(w.r, &w.json, &w.e), w.e);
    CHECK_STR(buf_str(&w.json), "{\"[EMAIL_1]\":\"a@b.de\",\"[EMAIL_2]\":\"c@d.de\",\"[IBAN_1]\":\"DE89\","
                                "\"[IBAN_2]\":\"DE90\",\"[IBAN_3]\":\"DE 89\",\"[NATIONAL_ID_1]\":\"123\"}");
    world_free(&w);
}

/* Two entities with one word share a row of numbers: [NATIONAL_ID_1] is never two values. */
TEST(entities_of_one_word_share_numbers) {
    world w;
    CHECK(world_make(&w));
    entity_set all = all_entities();
    finding f[] = {{ENT_DE_TAX, 90, 0, 2}, {ENT_FR_NIR, 90, 2, 4}, {ENT_PL_PESEL, 90, 4, 6}, {ENT_HEALTH, 90, 6, 8}};
    CHECK_OK(redaction_text(w.r, "112211xy", 8, f, 4, &all, &w.out, &w.e), w.e);
    CHECK_STR(buf_str(&w.out), "[NATIONAL_ID_1][NATIONAL_ID_2][NATIONAL_ID_1]xy");
    world_free(&w);
}

TEST(only_what_the_set_names) {
    world w;
    CHECK(world_make(&w));
    entity_set set = {{0, 0}};
    entity_set_add(&set, ENT_EMAIL);
    finding f[] = {{ENT_IBAN, 90, 0, 2}, {ENT_EMAIL, 90, 3, 5}};
    CHECK_OK(redaction_text(w.r, "AA bb", 5, f, 2, &set, &w.out, &w.e), w.e);
    CHECK_STR(buf_str(&w.out), "AA [EMAIL_1]");
    world_free(&w);
}

TEST(numbers_of_the_caller_are_skipped) {
    static const char *const forms[] = {
        "[IBAN_1]",         "[iban_1]",   "\\[IBAN\\_1\\]", "\\u005bIBAN_1\\u005D", "\xef\xbc\xbbIBAN_1\xef\xbc\xbd",
        "\\\\[IBAN\\\\_1]", "[IBAN\\_1]", "\\[IBAN_1]",     "[[IBAN_1]]",           "[IBAN_[Iban_1]",
        "[IBAN\\[IBAN_1\\]"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        world w;
        CHECK(world_make(&w));
        CHECK_OK(redaction_see(w.r, forms[i], strlen(forms[i]), &w.e), w.e);
        CHECK_OK(redaction_see(w.r, "[IBAN_3] [IBAN_03] [IBAN_100000]", 32, &w.e), w.e);
        CHECK_STR(redacted(&w, "«AA» «BB» «a»"), "[IBAN_2] [IBAN_4] [EMAIL_1]");
        CHECK_STR(back(&w, "[IBAN_1] [IBAN_2] [IBAN_3] [IBAN_4]", RESTORE_TEXT), "[IBAN_1] AA [IBAN_3] BB");
        CHECK_INT(redaction_see(w.r, "[IBAN_9]", 8, &w.e), ERR_INTERNAL); /* too late */
        world_free(&w);
    }
}

TEST(restores_what_models_make_of_it) {
    world w;
    CHECK(world_make(&w));
    CHECK_STR(redacted(&w, "«AA»«a@b»«77»"), "[IBAN_1][EMAIL_1][NATIONAL_ID_1]");
    static const struct {
        const char *in, *out;
    } t[] = {
        {"", ""},
        {"[IBAN_1]", "AA"},
        {"x [IBAN_1], [Iban_1]; [iban_1].", "x AA, AA; AA."},
        {"\\[IBAN\\_1\\]", "AA"},
        {"\\[IBAN\\_1]", "AA"},
        {"[IBAN\\_1\\]", "AA"},
        {"\\[IBAN_1\\]", "AA"},
        {"\\[national\\_id\\_1\\]", "77"},
        {"\\[IBAN_1]", "\\AA"}, /* a backslash that stood before the value */
        {"\\\\[IBAN_1]", "\\\\AA"},
        {"\\\\[IBAN_1\\]", "\\AA"},
        {"\xef\xbc\xbbIBAN_1\xef\xbc\xbd \xe3\x80\x90"
         "EMAIL_1\xe3\x80\x91",
         "AA a@b"},
        {"\xef\xbc\xbbIBAN\xef\xbc\xbf"
         "1]",
         "AA"},
        {"**[IBAN_1]**[EMAIL_1](mailto:[EMAIL_1])", "**AA**a@b(mailto:a@b)"},
        {"[[IBAN_1]]", "[AA]"},
        {"[IBAN_[IBAN_1]_1]", "[IBAN_AA_1]"},
        {"[IBAN\\[IBAN_1]", "[IBAN\\AA"},
        {"[IBAN\\[IBAN\\_1]", "[IBANAA"},
        {"[IBAN_2] [IBAN_0] [IBAN_01] [IBAN_10] [IBAN_] [IBAN] [IBAN_1 ] [IBAN 1]", NULL},
        {"[IBAN_1x] [xIBAN_1] [IBANS_1] [IBA_1] [_1] [] [IBAN_100001] IBAN_1 (IBAN_1)", NULL},
        {"[PHONE_1] [IBAN_99999] [IBAN_18446744073709551617]", NULL},
        {"[IBAN\\\\_1] \\u005bIBAN_1] \xef\xbc [IBAN_1", NULL},
        {"\xef\xbc\xbb\xef\xbc\xbb\xe3\x80 \xe3\x80\x8f\xef[IB\xef\\", NULL},
        {"\xef\xbc[IBAN_1] \xe3[IBAN_1]\xef", "\xef\xbc"
                                              "AA \xe3"
                                              "AA\xef"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        CHECK_STR(back(&w, t[i].in, RESTORE_TEXT), t[i].out ? t[i].out : t[i].in);
    world_free(&w);
}

TEST(restores_in_json) {
    world w;
    CHECK(world_make(&w));
    CHECK_STR(redacted(&w, "«A\"A\\\n»«a@b»«77»«-0.5»«0123»"),
              "[IBAN_1][EMAIL_1][NATIONAL_ID_1][NATIONAL_ID_2][NATIONAL_ID_3]");
    static const struct {
        const char *in, *out;
    } t[] = {
        {"{\"a\":\"[IBAN_1]\"}", "{\"a\":\"A\\\"A\\\\\\n\"}"},
        {"{\"a\":\"\\u005bEMAIL\\u005F1\\u005d\"}", "{\"a\":\"a@b\"}"},
        {"{\"a\":\"\\uff3bemail_1\\uFF3D\"}", "{\"a\":\"a@b\"}"},
        {"{\"a\":\"\\u005b\\u0045\\u004d\\u0041\\u0049\\u004c\\u005f\\u0031\\u005d\"}", "{\"a\":\"a@b\"}"},
        {"{\"a\":\"\\\\[EMAIL\\\\_1\\\\]\"}", "{\"a\":\"a@b\"}"},
        {"{\"a\":\"\\\\[EMAIL_1]\"}", "{\"a\":\"\\\\a@b\"}"},
        {"{\"a\":\"\\[EMAIL\\_1\\]\"}", "{\"a\":\"a@b\"}"}, /* no JSON before, JSON after */
        {"{\"a\":[NATIONAL_ID_1],\"b\":[EMAIL_1]}", "{\"a\":77,\"b\":\"a@b\"}"},
        {"{\"a\":[NATIONAL_ID_3]}", "{\"a\":\"0123\"}"}, /* no number of JSON */
        {"{\"\\\"\":[NATIONAL_ID_1]}", "{\"\\\"\":77}"},
        {"{\"a\":\"\\\\\",\"b\":[NATIONAL_ID_1]}", "{\"a\":\"\\\\\",\"b\":77}"},
        {"{\"a\":\"[EMAIL_2] \\u005bEMAIL_9\\u005d \\\\\\\\u005bEMAIL_1] \\u005\\u00zz\"}", NULL},
        {"{\"a\":[1,2,[3]],\"b\":\"[\",\"c\":[\"EMAIL_1\"]}", NULL},
        {"\\u[EMAIL_1]\\", "\\u\"a@b\"\\"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        CHECK_STR(back(&w, t[i].in, RESTORE_JSON), t[i].out ? t[i].out : t[i].in);
    world_free(&w);
}

/* ---- properties ---- */

static const char *const morsels[] = {"[",
                                      "]",
                                      "\\",
                                      "_",
                                      "1",
                                      "2",
                                      "IBAN",
                                      "[IBAN_1]",
                                      "[EMAIL_2]",
                                      "\\]",
                                      "\"",
                                      "{",
                                      ":",
                                      "\n",
                                      "\xc3\xa4",
                                      "\xef\xbc\xbb",
                                      "\xef\xbc\xbd",
                                      "\\u005b",
                                      "u005d",
                                      "\xef",
                                      "x",
                                      " ",
                                      "[I",
                                      "BAN_",
                                      "iban_1]",
                                      "\xe3\x80\x90",
                                      "\\[",
                                      "\\_",
                                      "10",
                                      "\xf0\x9f\x98\x80"};

/* A random text with random findings, none of which overlap. */
static size_t random_text(char *text, size_t cap, finding *f, size_t *n_found) {
    size_t n = 0;
    *n_found = 0;
    for (unsigned k = rnd(40); k > 0; k--) {
        size_t from = n;
        for (unsigned j = rnd(3); j < 3 && n + 16 < cap; j++) {
            const char *m = morsels[rnd(sizeof morsels / sizeof *morsels)];
            memcpy(text + n, m, strlen(m));
            n += strlen(m);
        }
        if (rnd(3) == 0 && n > from)
            f[(*n_found)++] = (finding){.entity = rnd(3) ? ENT_IBAN : ENT_EMAIL, .score = 90, .from = from, .to = n};
    }
    return n;
}

TEST(restoring_gives_back_the_text_whatever_the_cut) {
    entity_set all = all_entities();
    for (int round = 0; round < 20000; round++) {
        char text[2][1024];
        finding f[2][64];
        size_t n[2], n_found[2];
        world w;
        CHECK(world_make(&w));
        for (int i = 0; i < 2; i++) {
            n[i] = random_text(text[i], sizeof text[i], f[i], &n_found[i]);
            CHECK_OK(redaction_see(w.r, text[i], n[i], &w.e), w.e);
        }
        for (int i = 0; i < 2; i++) {
            buf_reset(&w.out);
            CHECK_OK(redaction_text(w.r, text[i], n[i], f[i], n_found[i], &all, &w.out, &w.e), w.e);
            restored(&w, buf_str(&w.out), w.out.len, RESTORE_TEXT, rnd(4));
            if (w.back.len != n[i] || (n[i] && memcmp(w.back.ptr, text[i], n[i]) != 0))
                FAIL("round %d: \"%.*s\" became \"%s\" and came back as \"%s\"", round, (int)n[i], text[i],
                     buf_str(&w.out), buf_str(&w.back));
        }
        world_free(&w);
    }
}

/* A random tree of strings of morsels. */
static cJSON *random_tree(int depth) {
    unsigned kind = depth > 3 ? 2 : rnd(4);
    if (kind < 2) {
        cJSON *v = kind ? cJSON_CreateArray() : cJSON_CreateObject();
        for (unsigned i = 0, n = rnd(4); i < n; i++) {
            char key[8];
            snprintf(key, sizeof key, "k%u", i);
            cJSON *c = random_tree(depth + 1);
            if (kind)
                cJSON_AddItemToArray(v, c);
            else
                cJSON_AddItemToObject(v, key, c);
        }
        return v;
    }
    char text[256] = "";
    for (unsigned k = rnd(12); k > 0; k--) {
        const char *m = morsels[rnd(sizeof morsels / sizeof *morsels)];
        if (utf8_valid(m, strlen(m))) strcat(text, m);
    }
    return cJSON_CreateString(text);
}

/* Every string with random findings redacted, as the guard does it. */
static err_code redact_tree(world *w, cJSON *v) {
    static const entity_set iban = {{(uint64_t)1 << ENT_IBAN, 0}};
    err_code rc = ERR_OK;
    if (cJSON_IsString(v)) {
        finding f[64];
        size_t n_found = 0, n = strlen(v->valuestring);
        for (size_t at = rnd(6), to; n_found < 64 && at < n; at = to + rnd(6)) {
            while (at < n && (v->valuestring[at] & 0xc0) == 0x80) at++;
            to = at + 1 + rnd(8);
            if (to > n) to = n;
            while (to < n && (v->valuestring[to] & 0xc0) == 0x80) to++;
            if (at < to) f[n_found++] = (finding){.entity = ENT_IBAN, .score = 90, .from = at, .to = to};
        }
        buf_reset(&w->out);
        rc = redaction_text(w->r, v->valuestring, n, f, n_found, &iban, &w->out, &w->e);
        cJSON_SetValuestring(v, buf_str(&w->out));
    }
    for (cJSON *c = v->child; c && rc == ERR_OK; c = c->next) rc = redact_tree(w, c);
    return rc;
}

static err_code see_tree(world *w, const cJSON *v) {
    err_code rc = cJSON_IsString(v) ? redaction_see(w->r, v->valuestring, strlen(v->valuestring), &w->e) : ERR_OK;
    for (const cJSON *c = v->child; c && rc == ERR_OK; c = c->next) rc = see_tree(w, c);
    return rc;
}

/* The same JSON in another spelling: characters of strings escaped now and then. */
static void respell(const char *p, size_t n, buf *out) {
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\') {
            size_t len = p[i + 1] == 'u' ? 6 : 2;
            if (len == 2 && p[i + 1] == '\\' && rnd(2))
                buf_puts(out, "\\u005C");
            else
                buf_append(out, p + i, len);
            i += len - 1;
        } else if (p[i] == '"') {
            in_string = !in_string;
            buf_putc(out, '"');
        } else if (in_string && (unsigned char)p[i] < 0x80 && rnd(6) == 0) {
            buf_printf(out, rnd(2) ? "\\u%04x" : "\\u%04X", (unsigned)p[i]);
        } else {
            buf_putc(out, p[i]);
        }
    }
}

TEST(restored_arguments_are_the_same_json) {
    for (int round = 0; round < 20000; round++) {
        world w;
        CHECK(world_make(&w));
        cJSON *tree = random_tree(0), *copy = cJSON_Duplicate(tree, true), *again = NULL;
        buf doc = {.max = 1 << 20};
        CHECK_OK(see_tree(&w, tree), w.e);
        CHECK_OK(redact_tree(&w, copy), w.e);
        char *text = cJSON_PrintUnformatted(copy);
        respell(text, strlen(text), &doc);
        restored(&w, buf_str(&doc), doc.len, RESTORE_JSON, rnd(4));
        CHECK_OK(json_parse(&again, buf_str(&w.back), w.back.len, "restored", &w.e), w.e);
        if (!cJSON_Compare(tree, again, true))
            FAIL("round %d: %s came back as %s", round, buf_str(&doc), buf_str(&w.back));
        cJSON_Delete(tree);
        cJSON_Delete(copy);
        cJSON_Delete(again);
        cJSON_free(text);
        buf_free(&doc);
        world_free(&w);
    }
}

/* What is held back never grows past what the header says, and a candidate that fails is given up at once. */
TEST(holds_back_little) {
    world w;
    CHECK(world_make(&w));
    redacted(&w, "«AA»");
    for (int round = 0; round < 20000; round++) {
        restore_form form = rnd(2) ? RESTORE_JSON : RESTORE_TEXT;
        restorer *x;
        CHECK_OK(restorer_new(&x, w.r, form, &w.e), w.e);
        size_t fed = 0;
        buf_reset(&w.back);
        for (int k = 0; k < 30; k++) {
            const char *m = morsels[rnd(sizeof morsels / sizeof *morsels)];
            CHECK_OK(restorer_feed(x, m, strlen(m), &w.back, &w.e), w.e);
            fed += strlen(m);
        }
        size_t most = form == RESTORE_JSON ? 6 * PLACEHOLDER_MAX : PLACEHOLDER_MAX;
        if (!restorer_count(x)) CHECK(fed - w.back.len <= most);
        CHECK_OK(restorer_feed(x, "~ ~ ~ ", 6, &w.back, &w.e), w.e);
        if (!restorer_count(x)) CHECK_INT(w.back.len, fed + 6);
        restorer_free(x);
    }
    world_free(&w);
}

/* ---- limits and faults ---- */

TEST(too_many_values_are_refused) {
    world w;
    CHECK(world_make(&w));
    entity_set all = all_entities();
    err_code rc = ERR_OK;
    int i = 0;
    for (; i <= REDACTIONS_MAX && rc == ERR_OK; i++) {
        char v[16];
        snprintf(v, sizeof v, "v%d", i);
        finding f = {ENT_EMAIL, 90, 0, strlen(v)};
        rc = redaction_text(w.r, v, strlen(v), &f, 1, &all, &w.out, &w.e);
    }
    CHECK_INT(rc, ERR_TOO_LARGE);
    CHECK_INT(i, REDACTIONS_MAX + 1);
    CHECK_HAS(w.e.msg, "10000 different values");
    CHECK_STR(back(&w, "[EMAIL_10000] [EMAIL_10001] [EMAIL_1]", RESTORE_TEXT), "v9999 [EMAIL_10001] v0");
    CHECK_OK(redaction_json(w.r, &w.json, &w.e), w.e);
    cJSON *j;
    CHECK_OK(json_parse(&j, buf_str(&w.json), w.json.len, "vault", &w.e), w.e);
    buf again = {.max = 1 << 24};
    CHECK_OK(json_canonical(&again, j, &w.e), w.e);
    CHECK_STR(buf_str(&again), buf_str(&w.json));
    buf_free(&again);
    cJSON_Delete(j);
    world_free(&w);
}

TEST(findings_out_of_order_let_nothing_out) {
    static const finding bad[][2] = {{{ENT_IBAN, 90, 2, 4}, {ENT_IBAN, 90, 0, 2}},
                                     {{ENT_IBAN, 90, 0, 3}, {ENT_IBAN, 90, 2, 4}},
                                     {{ENT_IBAN, 90, 0, 3}, {ENT_IBAN, 90, 3, 9}},
                                     {{ENT_IBAN, 90, 3, 2}, {ENT_IBAN, 90, 3, 4}}};
    entity_set all = all_entities();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        world w;
        CHECK(world_make(&w));
        CHECK_INT(redaction_text(w.r, "abcd", 4, bad[i], 2, &all, &w.out, &w.e), ERR_INTERNAL);
        CHECK_INT(w.out.len, 0);
        world_free(&w);
    }
}

TEST(an_out_buffer_that_is_full_is_an_error) {
    world w;
    CHECK(world_make(&w));
    w.out.max = 5;
    CHECK_HAS(redacted(&w, "«AA» and more"), "5");
    w.back.max = 3;
    restored(&w, "[IBAN_1] and more", 17, RESTORE_JSON, 2);
    CHECK(w.back.failed);
    world_free(&w);
}

static err_code all_of_it(world *w) {
    char text[4096];
    finding f[64];
    entity_set all = all_entities();
    restorer *x = NULL;
    err_code rc = redaction_new(&w->r, det, &w->e);
    if (rc != ERR_OK) return rc;
    size_t n =
        marked("[IBAN_1] \\u005bemail_3] «A» «B» «C» «D» «E» «F» «G» «H» «I» «J» «K» «L» «M» «N» «O» «P» «Q» «R» «S» "
               "«T» «U» «V» «a1» «a2» «a3» «a4» «a5» «a6» «a7» «a8» «a9» «b1» «b2» «b3» «b4» «b5»",
               text, f);
    rc = redaction_see(w->r, text, strlen(text), &w->e);
    if (rc == ERR_OK) rc = redaction_text(w->r, text, strlen(text), f, n, &all, &w->out, &w->e);
    if (rc == ERR_OK) rc = redaction_json(w->r, &w->json, &w->e);
    if (rc == ERR_OK) rc = restorer_new(&x, w->r, RESTORE_JSON, &w->e);
    if (rc == ERR_OK) rc = restorer_feed(x, w->out.ptr, w->out.len, &w->back, &w->e);
    if (rc == ERR_OK) rc = restorer_end(x, &w->back, &w->e);
    restorer_free(x);
    return rc;
}

TEST(every_allocation_may_fail) {
    bool through = false;
    for (int k = 0; k < 200 && !through; k++) {
        world w = {.out.max = 1 << 20, .back.max = 1 << 20, .json.max = 1 << 20};
        mem_fail_after(k);
        err_code rc = all_of_it(&w);
        mem_fail_after(-1);
        world_free(&w);
        through = rc == ERR_OK;
        if (!through) CHECK_INT(rc, ERR_NOMEM);
        if (through) CHECK(k > 8);
    }
    CHECK(through);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    err e;
    if (detector_new(&det, NULL, 0, NULL, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    RUN(same_value_same_placeholder);
    RUN(entities_of_one_word_share_numbers);
    RUN(only_what_the_set_names);
    RUN(numbers_of_the_caller_are_skipped);
    RUN(restores_what_models_make_of_it);
    RUN(restores_in_json);
    RUN(restoring_gives_back_the_text_whatever_the_cut);
    RUN(restored_arguments_are_the_same_json);
    RUN(holds_back_little);
    RUN(too_many_values_are_refused);
    RUN(findings_out_of_order_let_nothing_out);
    RUN(an_out_buffer_that_is_full_is_an_error);
    RUN(every_allocation_may_fail);
    detector_free(det);
    return test_end();
}
