/* Secrets: keys by the prefixes that their makers gave them, tokens, PEM blocks, and values that a word like "password"
 * stands before. */
#include "base/bytes.h"
#include "base/json.h"
#include "data/detect/recognisers.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* ---- by prefix ------------------------------------------------------------------------------------------------ */

typedef struct key_form {
    const char *prefix;
    uint16_t min, max; /* bytes behind the prefix */
    uint8_t bytes;     /* their class */
    uint8_t entity;
} key_form;

#define API   ENT_API_KEY
#define CLOUD ENT_CLOUD_KEY
/* Lengths are the shortest that makers have given out; longer ones come with time. Longer prefixes first. */
static const key_form forms[] = {
    {"pld_", 56, 56, B_URL, API}, /* polder's own */
    {"sk-ant-", 24, 220, B_URL, API},     {"sk-proj-", 24, 260, B_URL, API},
    {"sk-svcacct-", 24, 260, B_URL, API}, {"sk-or-v1-", 32, 100, B_URL, API},
    {"sk-", 20, 220, B_URL, API},         {"sk_live_", 16, 120, B_URL, API},
    {"sk_test_", 16, 120, B_URL, API},    {"rk_live_", 16, 120, B_URL, API},
    {"rk_test_", 16, 120, B_URL, API},    {"whsec_", 24, 100, B_B64, API},
    {"ghp_", 36, 255, B_URL, API},        {"gho_", 36, 255, B_URL, API},
    {"ghu_", 36, 255, B_URL, API},        {"ghs_", 36, 255, B_URL, API},
    {"ghr_", 36, 255, B_URL, API},        {"github_pat_", 36, 255, B_URL, API},
    {"glpat-", 20, 255, B_URL, API},      {"glrt-", 20, 255, B_URL, API},
    {"gldt-", 20, 255, B_URL, API},       {"glptt-", 20, 255, B_URL, API},
    {"glcbt-", 20, 255, B_URL, API},      {"xoxb-", 20, 255, B_URL, API},
    {"xoxp-", 20, 255, B_URL, API},       {"xoxa-", 20, 255, B_URL, API},
    {"xoxr-", 20, 255, B_URL, API},       {"xoxs-", 20, 255, B_URL, API},
    {"xoxe-", 20, 255, B_URL, API},       {"xapp-", 20, 255, B_URL, API},
    {"AKIA", 16, 16, B_UPPER, CLOUD},     {"ASIA", 16, 16, B_UPPER, CLOUD},
    {"ABIA", 16, 16, B_UPPER, CLOUD},     {"ACCA", 16, 16, B_UPPER, CLOUD},
    {"AIza", 35, 35, B_URL, CLOUD},       {"ya29.", 20, 2048, B_URL, CLOUD},
    {"GOCSPX-", 24, 40, B_URL, CLOUD},    {"LTAI", 12, 20, B_LOWER, CLOUD},
    {"hf_", 30, 60, B_URL, API},          {"api_org_", 30, 60, B_URL, API},
    {"npm_", 36, 36, B_URL, API},         {"pypi-", 50, 1024, B_URL, API},
    {"dop_v1_", 64, 64, B_HEX, CLOUD},    {"doo_v1_", 64, 64, B_HEX, CLOUD},
    {"dor_v1_", 64, 64, B_HEX, CLOUD},    {"SG.", 50, 80, B_URL, API},
    {"shpat_", 32, 40, B_HEX, API},       {"shpss_", 32, 40, B_HEX, API},
    {"shpca_", 32, 40, B_HEX, API},       {"shppa_", 32, 40, B_HEX, API},
    {"sq0atp-", 22, 30, B_URL, API},      {"sq0csp-", 40, 50, B_URL, API},
    {"dckr_pat_", 24, 60, B_URL, API},    {"r8_", 36, 40, B_URL, API},
    {"gsk_", 40, 80, B_URL, API},         {"pplx-", 40, 80, B_URL, API},
    {"xai-", 60, 120, B_URL, API},        {"nvapi-", 50, 100, B_URL, API},
    {"tvly-", 24, 80, B_URL, API},        {"lin_api_", 36, 60, B_URL, API},
    {"ntn_", 40, 60, B_URL, API},         {"figd_", 36, 60, B_URL, API},
    {"PMAK-", 50, 80, B_URL, API},        {"rubygems_", 48, 48, B_HEX, API},
    {"sntrys_", 60, 400, B_B64, API},     {"hvs.", 24, 300, B_URL, API},
    {"hvb.", 24, 300, B_URL, API},        {"dp.pt.", 40, 50, B_URL, API},
    {"AVNS_", 18, 40, B_URL, CLOUD},      {"key-", 32, 32, B_HEX, API},
    {"glsa_", 36, 60, B_URL, API},        {"glc_", 40, 300, B_B64, API},
    {"pat-", 32, 60, B_URL, API},         {"phc_", 40, 60, B_URL, API},
    {"tskey-", 20, 80, B_URL, API},       {"sbp_", 40, 40, B_HEX, API},
    {"sb_secret_", 20, 60, B_URL, API},   {"AGE-SECRET-KEY-1", 58, 58, B_UPPER, ENT_PRIVATE_KEY},
};

static uint8_t class_for(const key_form *f) {
    switch (f->bytes) {
    case B_UPPER: return B_UPPER | B_DIGIT;
    case B_LOWER: return B_LOWER | B_UPPER | B_DIGIT;
    case B_HEX: return B_HEX;
    default: return f->bytes;
    }
}

static size_t run_of(const scan *s, size_t at, uint8_t classes, size_t max) {
    size_t i = at;
    while (i < s->n && i - at < max && byte_class[(unsigned char)s->p[i]] & classes) i++;
    return i - at;
}

/* Keys are drawn by chance: one of 20 characters without a digit, or with three different ones, is a word or a row of
 * crosses. */
static bool looks_drawn(const char *p, size_t n) {
    unsigned digits = 0, letters = 0, distinct = 0;
    bool seen[256] = {false};
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (byte_class[c] & B_DIGIT) digits++;
        if (byte_class[c] & (B_LOWER | B_UPPER)) letters++;
        if (!seen[c]) distinct++;
        seen[c] = true;
    }
    return digits && letters && distinct >= (n < 24 ? 6 : 9);
}

static void find_key(scan *s, size_t i) {
    size_t from = s->t[i].at;
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
        const key_form *f = &forms[k];
        size_t len = strlen(f->prefix);
        if (s->p[from] != f->prefix[0] || s->n - from < len + f->min || memcmp(s->p + from, f->prefix, len) != 0)
            continue;
        size_t n = run_of(s, from + len, class_for(f), (size_t)f->max + 1);
        s->x->work += n / 8 + 1;
        while (n && strchr(".-_", s->p[from + len + n - 1])) n--;
        if (n < f->min || n > f->max || !looks_drawn(s->p + from, len + n)) continue;
        if (f->entity == ENT_CLOUD_KEY && f->bytes == B_UPPER &&
            byte_class[(unsigned char)scan_byte(s, from + len + n)] & B_WORD)
            continue;
        scan_add(s, f->entity, 97, from, from + len + n);
        return;
    }
}

/* ---- JWT (RFC 7519): three parts, the first is JSON with "alg" ------------------------------------------------- */

#define JWT_HEADER_MAX 1024
#define JWT_MAX        32768

static int base64url(unsigned char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static bool is_jwt_header(const char *p, size_t n) {
    char out[JWT_HEADER_MAX];
    size_t k = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    if (n > sizeof out) return false;
    for (size_t i = 0; i < n; i++) {
        int v = base64url((unsigned char)p[i]);
        if (v < 0) return false;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[k++] = (char)(bits >> have);
        }
    }
    cJSON *v = NULL;
    if (json_parse(&v, out, k, "token", NULL) != ERR_OK) return false;
    bool ok = cJSON_IsObject(v) && (json_get(v, "alg") || json_get(v, "typ") || json_get(v, "enc"));
    cJSON_Delete(v);
    return ok;
}

static void find_jwt(scan *s, size_t i) {
    size_t from = s->t[i].at, at = from, part[5], parts = 0;
    if (from && byte_class[(unsigned char)s->p[from - 1]] & B_URL) return;
    while (parts < 5) {
        size_t k = at;
        while (k < s->n && k - from < JWT_MAX && base64url((unsigned char)s->p[k]) >= 0) k++;
        part[parts++] = k;
        if (scan_byte(s, k) != '.') break;
        at = k + 1;
    }
    size_t to = part[parts - 1];
    s->x->work += (to - from) / 8 + 1;
    if (parts < 3 || to - from < 30 || !is_jwt_header(s->p + from, part[0] - from)) return;
    scan_add(s, ENT_JWT, 99, from, to);
    s->claimed = to;
}

/* Asked at words that keys begin with and at words of 16 bytes or more. */
void find_prefixed(scan *s, size_t i) {
    const token *t = &s->t[i];
    if (t->at < s->claimed) return;
    if (t->len >= 8 && memcmp(s->p + t->at, "eyJ", 3) == 0)
        find_jwt(s, i);
    else
        find_key(s, i);
}

/* ---- PEM (RFC 7468) and OpenSSH ------------------------------------------------------------------------------- */

/* Walks over the block and claims it, so that no byte is walked twice. A block without its end is one too: the
 * beginning of a key is a leak. */
void find_pem(scan *s, size_t i) {
    const token *t = &s->t[i];
    size_t from = t->at - 5, at = t->at, line = 0;
    if (t->len != 5 || memcmp(s->p + at, "BEGIN", 5) != 0) return;
    while (at < s->n && line < 64 && s->p[at] != '-' && s->p[at] != '\n') at++, line++;
    const char *label = s->p + t->at;
    bool private = false;
    for (size_t k = 0; k + 7 <= line; k++)
        if (memcmp(label + k, "PRIVATE", 7) == 0) private = true;
    if (!private || s->n - at < 5 || memcmp(s->p + at, "-----", 5) != 0) return;
    at += 5;
    /* headers ("Proc-Type: 4,ENCRYPTED") and base64 */
    while (at < s->n) {
        unsigned char c = (unsigned char)s->p[at];
        if (c == '-' && s->n - at >= 5 && memcmp(s->p + at, "-----", 5) == 0) break;
        if (!(byte_class[c] & (B_B64 | B_LOWER | B_UPPER | B_DIGIT)) && !(c && strchr(" \r\n\t:,\\", c))) break;
        at++;
    }
    if (s->n - at >= 8 && memcmp(s->p + at, "-----END", 8) == 0) {
        size_t end = at + 8;
        while (end < s->n && end - at < 72 && s->p[end] != '-' && s->p[end] != '\n') end++;
        while (end < s->n && end - at < 80 && s->p[end] == '-') end++;
        at = end;
    }
    while (at > from && (s->p[at - 1] == ' ' || s->p[at - 1] == '\n')) at--;
    s->x->work += (at - from) / 8;
    scan_add(s, ENT_PRIVATE_KEY, 99, from, at);
    s->claimed = at;
}

/* ---- a value behind a word -------------------------------------------------------------------------------------- */

typedef struct value {
    size_t from, to;
    bool sign;   /* '=' or a quote said that it is a value */
    bool spoken; /* "the password is …" */
    bool below;  /* on the next line */
} value;

static size_t skip_blanks(const scan *s, size_t at, size_t max) {
    size_t end = at + max;
    while (at < s->n && at < end && (s->p[at] == ' ' || s->p[at] == '\t')) at++;
    return at;
}

#define VALUE_MAX 512

/* Behind `at` the key of a pair's other half: `name: DB_PASSWORD` is followed by `value: …`. Where its colon is, or 0.
 */
static size_t skip_value_key(const scan *s, size_t at) {
    size_t end = at + 40;
    while (at < s->n && at < end && strchr(", \t\n\"'", s->p[at])) at++;
    if (s->n - at < 7 || strncasecmp(s->p + at, "value", 5) != 0) return 0;
    at += 5;
    while (at < s->n && at < end && strchr(" \t\"'", s->p[at])) at++;
    return scan_byte(s, at) == ':' || scan_byte(s, at) == '=' ? at : 0;
}

/* "for the portal is", "für das WLAN ist" behind token i: the token that says "is", or 0. */
static size_t find_is(const scan *s, size_t i) {
    static const char *const first[] = {"for", "to",   "of", "für", "fuer", "zum",  "zur",
                                        "vom", "pour", "du", "de",  "para", "voor", "van"};
    bool begins = false;
    for (size_t k = i + 1; k < s->n_tok && k <= i + 7; k++) {
        const token *t = &s->t[k];
        size_t before = token_end(&s->t[k - 1]);
        for (size_t c = before; c < t->at; c++)
            if (s->p[c] && strchr("\n.:;!?", s->p[c])) return 0;
        if (k > i + 1 && begins && scan_word(s, k)->kind & W_IS) return k;
        for (size_t f = 0; k == i + 1 && f < sizeof first / sizeof *first; f++)
            begins |= strlen(first[f]) == t->len && strncasecmp(s->p + t->at, first[f], t->len) == 0;
        if (!begins) return 0;
    }
    return 0;
}

/* What stands behind token i as its value: `key": "…"`, `key = …`, `key: …`, `key is …`. */
static bool read_value(const scan *s, size_t i, value *v) {
    size_t at = token_end(&s->t[i]);
    *v = (value){0};
    if (strchr("\"'`]", scan_byte(s, at)) && scan_byte(s, at)) at++;
    at = skip_blanks(s, at, 8);
    char c = scan_byte(s, at), quote = 0;
    size_t is = 0, pair = c == ',' || c == '\n' ? skip_value_key(s, at) : 0;
    if (pair) c = scan_byte(s, at = pair);
    if (c == '>' && s->t[i].at && strchr("<:", s->p[s->t[i].at - 1])) { /* an element of XML: up to its end */
        at++;
        quote = '<';
        v->sign = true;
    } else if (c == ':' || c == '=') {
        v->sign = c == '=';
        at++;
        while (strchr("=>:", scan_byte(s, at)) && scan_byte(s, at)) at++;
    } else {
        if (i + 1 >= s->n_tok) return false;
        is = scan_word(s, i + 1)->kind & W_IS && s->t[i + 1].at <= at ? i + 1 : find_is(s, i);
        if (!is) return false;
        at = token_end(&s->t[is]);
        if (scan_byte(s, at) == ':') at++;
        v->spoken = true;
    }
    at = skip_blanks(s, at, 16);
    if (c == ':' && scan_byte(s, at) == '\n') {
        v->below = true;
        at = skip_blanks(s, at + 1, 16);
    }
    c = scan_byte(s, at);
    if (!quote && c && strchr("\"'`", c)) {
        quote = c;
        v->sign = true;
        at++;
    }
    v->from = at;
    for (; at < s->n && at - v->from < VALUE_MAX; at++) {
        unsigned char b = (unsigned char)s->p[at];
        if (b <= ' ' || b == (unsigned char)quote || (!quote && strchr("\"'`", b))) break;
        if (!quote && strchr(",;&)]}<", b) &&
            (at + 1 >= s->n || (unsigned char)s->p[at + 1] <= ' ' || b == '&' || b == '<'))
            break;
    }
    while (!quote && at > v->from && strchr(".,;:!?)", s->p[at - 1])) at--;
    v->to = at;
    return v->to > v->from;
}

static bool is_placeholder(const char *p, size_t n) {
    static const char *const all[] = {"null",   "none",     "nil",      "true",     "false",    "undefined", "required",
                                      "string", "redacted", "changeme", "password", "passwort", "optional",  "hidden",
                                      "masked", "example",  "xxxx",     "yes",      "no",       "empty",     "n/a"};
    if (strchr("<${*[%(", *p)) return true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strlen(all[i]) == n && strncasecmp(all[i], p, n) == 0) return true;
    for (size_t i = 1; i < n; i++)
        if (p[i] != p[0]) return false;
    return true;
}

/* Shannon entropy of the bytes, in tenths of a bit each. */
static unsigned entropy10(const char *p, size_t n) {
    unsigned count[256] = {0};
    double h = 0;
    for (size_t i = 0; i < n; i++) count[(unsigned char)p[i]]++;
    for (size_t i = 0; i < 256; i++)
        if (count[i]) h -= count[i] * log2((double)count[i] / (double)n);
    return (unsigned)(10 * h / (double)n);
}

typedef struct mix {
    bool lower, upper, digit, sign, inner_capital;
} mix;

static mix mix_of(const char *p, size_t n) {
    mix m = {0};
    for (size_t i = 0; i < n; i++) {
        uint8_t k = byte_class[(unsigned char)p[i]];
        if (k & (B_LOWER | B_WIDE))
            m.lower = true;
        else if (k & B_UPPER) {
            m.upper = true;
            if (i) m.inner_capital = true;
        } else if (k & B_DIGIT)
            m.digit = true;
        else if (i)
            m.sign = true;
    }
    return m;
}

static bool is_uuid(const char *p, size_t n) {
    return n == 36 && p[8] == '-' && p[13] == '-' && p[18] == '-' && p[23] == '-';
}

static void rate_password(scan *s, const value *v) {
    const char *p = s->p + v->from;
    size_t n = v->to - v->from;
    mix m = mix_of(p, n);
    bool odd = m.digit || m.sign || (m.inner_capital && m.lower);
    if (n < 4 || n > 128 || is_placeholder(p, n)) return;
    unsigned score = 0;
    bool alone = v->to >= s->n || s->p[v->to] == '\n' || s->p[v->to] == '!';
    if (v->below)
        score = n >= 6 && m.digit && (m.lower || m.upper) && alone ? 70 : 0;
    else if (v->spoken)
        score = n >= 6 && (m.digit || m.sign) && (m.lower || m.upper || v->sign) ? 70 : v->sign ? 65 : 0;
    else if (v->sign)
        score = odd ? 90 : 70;
    else if (odd && n >= 5)
        score = 82;
    else if (n >= 5 && (v->to >= s->n || s->p[v->to] == '\n'))
        score = 60;
    scan_add(s, ENT_PASSWORD, score, v->from, v->to);
}

static void rate_secret(scan *s, size_t i, const value *v, bool strong) {
    const char *p = s->p + v->from;
    if (v->below) return;                                                    /* a list of YAML, more often than a key */
    size_t n = run_of(s, v->from, B_URL | B_B64 | B_DIGIT, v->to - v->from); /* ends at ';' and the like */
    mix m = mix_of(p, n);
    if (n < 16 || !m.digit || !(m.lower || m.upper) || is_placeholder(p, n)) return;
    if (v->from + n < v->to && !strchr(";,&|", p[n])) return; /* an expression, not a value */
    if (!strong && (is_uuid(p, n) || n < 20)) return;
    unsigned h = entropy10(p, n);
    bool cloud = scan_near(s, i, i, 4, 0).kinds & W_CLOUD;
    if (h >= 30) scan_add(s, cloud ? ENT_CLOUD_KEY : ENT_API_KEY, strong ? 88 : 75, v->from, v->from + n);
}

/* Asked at words of passwords and of secrets. */
void find_valued(scan *s, size_t i) {
    value v;
    const word_entry *w = scan_word(s, i);
    s->x->work += 4;
    if (!read_value(s, i, &v)) return;
    if (w->kind & W_PASSWORD) rate_password(s, &v);
    if (w->kind & W_SECRET) {
        /* "key" alone says little; "api key" and "apikey" say much */
        bool strong = w->value == 1 || scan_near(s, i, i, 2, 0).kinds & W_CLOUD;
        size_t last = 0;
        if (i && scan_phrase_end(s, i - 1, &last)->kind & W_SECRET && (last == i || scan_sep(s, i))) strong = true;
        rate_secret(s, i, &v, strong);
    }
}

/* "Bearer …" and "Basic …": RFC 6750, RFC 7617. */
void find_bearer(scan *s, size_t i) {
    size_t at = token_end(&s->t[i]);
    if (scan_byte(s, at) != ' ') return;
    size_t n = run_of(s, at + 1, B_URL | B_B64, VALUE_MAX);
    const char *p = s->p + at + 1;
    s->x->work += n / 8 + 1;
    mix m = mix_of(p, n);
    if (n < 12 || !(m.digit || m.inner_capital) || entropy10(p, n) < 28) return;
    scan_add(s, ENT_API_KEY, m.digit || n >= 20 ? 85 : 55, at + 1, at + 1 + n);
}
