#include "inference/drivers/openai_vectors.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 60

void openai_lifted_free(openai_lifted *v) {
    mem_free(v->v);
    *v = (openai_lifted){0};
}

/* ---- lifting ----------------------------------------------------------------------------------------------- */

static err_code add_number(openai_lifted *v, const answer *a, float x, err *e) {
    if (!isfinite(x)) return answer_bad(a, e, "a vector has something that is no number");
    if (v->n == EMBED_NUMBERS_MAX) return answer_bad(a, e, "its vectors are too long");
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 4096;
        float *p = mem_realloc(v->v, cap * sizeof *p);
        if (!p) return err_nomem(e, "a provider's answer");
        v->v = p;
        v->cap = cap;
    }
    v->v[v->n++] = x;
    return ERR_OK;
}

/* Vectors have one length. `from`: the numbers before this one. */
static err_code end_vector(openai_lifted *v, const answer *a, size_t from, err *e) {
    if (v->n == from) return answer_bad(a, e, "a vector is empty");
    if (!v->count) v->length = v->n - from;
    v->count++;
    return v->n - from == v->length ? ERR_OK : answer_bad(a, e, "its vectors have several lengths");
}

static size_t blanks(const char *p, size_t n) {
    size_t k = 0;
    while (k < n && (p[k] == ' ' || p[k] == '\n' || p[k] == '\r' || p[k] == '\t')) k++;
    return k;
}

/* The numbers behind '['; *taken: bytes up to and with ']'. */
static err_code lift_array(openai_lifted *v, const answer *a, const char *p, size_t n, size_t *taken, err *e) {
    size_t at = 0, from = v->n;
    for (;;) {
        char text[NUMBER_BYTES_MAX + 1], *end;
        size_t k = 0;
        at += blanks(p + at, n - at);
        while (at + k < n && k < NUMBER_BYTES_MAX && p[at + k] && strchr("+-.eE0123456789", p[at + k])) k++;
        memcpy(text, p + at, k);
        text[k] = 0;
        double x = strtod(text, &end);
        if (!k || *end) return answer_bad(a, e, "a vector has something that is no number");
        err_code rc = add_number(v, a, (float)x, e);
        if (rc) return rc;
        at += k;
        at += blanks(p + at, n - at);
        if (at == n || (p[at] != ',' && p[at] != ']')) return answer_bad(a, e, "a vector has no end");
        if (p[at++] == ',') continue;
        *taken = at;
        return end_vector(v, a, from, e);
    }
}

/* Bytes of a string with its quotes; all that is left where it has no end. */
static size_t string_bytes(const char *p, size_t n) {
    size_t k = 1;
    while (k < n && p[k] != '"') k += p[k] == '\\' ? 2 : 1;
    return k < n ? k + 1 : n;
}

err_code openai_lift(openai_lifted *v, answer *a, const char *json, size_t n, err *e) {
    static const char key[] = "\"embedding\"";
    buf rest = {.max = UPSTREAM_ANSWER_MAX + 1};
    err_code rc = ERR_OK;
    size_t copied = 0;
    for (size_t at = 0; at < n && !rc;) {
        if (json[at] != '"') {
            at++;
            continue;
        }
        size_t k = string_bytes(json + at, n - at);
        bool ours = k == sizeof key - 1 && memcmp(json + at, key, k) == 0;
        at += k;
        if (!ours) continue;
        size_t to = at + blanks(json + at, n - at);
        if (to < n && json[to] == ':') to += 1 + blanks(json + to + 1, n - to - 1);
        if (to >= n || json[to] != '[') continue; /* base64, or something that is refused later */
        buf_append(&rest, json + copied, to - copied);
        buf_printf(&rest, "%zu", v->count);
        rc = lift_array(v, a, json + to + 1, n - to - 1, &k, e);
        at = copied = rc ? n : to + 1 + k;
    }
    buf_append(&rest, json + copied, n - copied);
    if (!rc) rc = buf_check(&rest, "a provider's answer", e);
    if (!rc) rc = answer_begin(a, buf_str(&rest), rest.len, e);
    buf_free(&rest);
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static void digest_row(sha256 *all, uint8_t one[SHA256_LEN], const float *v, uint32_t n) {
    sha256 s;
    sha256_init(&s);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u;
        uint8_t le[4];
        memcpy(&u, &v[i], sizeof u);
        for (int k = 0; k < 4; k++) le[k] = (uint8_t)(u >> (8 * k));
        sha256_update(&s, le, 4);
        sha256_update(all, le, 4);
    }
    sha256_final(&s, one);
}

/* Their bytes (float32 little endian) in base64. */
static err_code take_bytes(float *row, size_t length, const answer *a, const char *text, err *e) {
    size_t n = strlen(text), bytes = 0, max = n / 4 * 3;
    uint8_t *raw = mem_alloc(max + 1);
    if (!raw) return err_nomem(e, "a provider's answer");
    bool ok = base64_decode(raw, max, &bytes, text, n) && bytes == 4 * length;
    for (size_t i = 0; i < length && ok; i++) {
        uint32_t u = 0;
        for (int k = 3; k >= 0; k--) u = u << 8 | raw[4 * i + (size_t)k];
        memcpy(&row[i], &u, sizeof u);
        ok = isfinite(row[i]);
    }
    mem_free(raw);
    return ok ? ERR_OK : answer_bad(a, e, "a vector cannot be read");
}

static err_code size_vectors(answer *a, const openai_lifted *v, const cJSON *first, err *e) {
    const embed_request *q = a->r->embed;
    const cJSON *x = cJSON_IsObject(first) ? json_get(first, "embedding") : NULL;
    size_t d = v->count ? v->length : 0, len = cJSON_IsString(x) ? strlen(x->valuestring) : 0;
    if (len) d = (len / 4 * 3 - (x->valuestring[len - 1] == '=') - (len > 1 && x->valuestring[len - 2] == '=')) / 4;
    if (!d) return answer_bad(a, e, "it has no vectors");
    if (q->dimensions && d != q->dimensions)
        return answer_bad(a, e, "its vectors have another length than was asked for");
    if (d > EMBED_NUMBERS_MAX / q->n_inputs) return answer_bad(a, e, "its vectors are too long");
    a->dimensions = (uint32_t)d;
    a->vectors = mem_array((size_t)q->n_inputs * d, sizeof *a->vectors);
    a->digests = mem_array(q->n_inputs, SHA256_LEN);
    return a->vectors && a->digests ? ERR_OK : err_nomem(e, "a provider's answer");
}

static err_code take_vector(answer *a, const openai_lifted *v, uint32_t at, const cJSON *x, err *e) {
    float *row = a->vectors + (size_t)at * a->dimensions;
    if (cJSON_IsString(x)) return take_bytes(row, a->dimensions, a, x->valuestring, e);
    bool ok =
        cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble < (double)v->count && v->length == a->dimensions;
    if (!ok) return answer_bad(a, e, "a vector cannot be read");
    memcpy(row, v->v + (size_t)x->valuedouble * v->length, v->length * sizeof *row);
    return ERR_OK;
}

/* Each input has its vector, once. `seen` has a byte for each. */
static err_code fill_vectors(answer *a, const openai_lifted *v, const cJSON *list, uint8_t *seen, err *e) {
    uint32_t at = 0, n = 0, n_inputs = a->r->embed->n_inputs;
    const cJSON *one;
    cJSON_ArrayForEach(one, list) {
        const cJSON *index = cJSON_IsObject(one) ? json_get(one, "index") : NULL;
        if (cJSON_IsNumber(index))
            at = index->valuedouble >= 0 && index->valuedouble < n_inputs ? (uint32_t)index->valuedouble : n_inputs;
        if (at >= n_inputs || seen[at]) return answer_bad(a, e, "its vectors are not those of the inputs");
        err_code rc = take_vector(a, v, at, cJSON_IsObject(one) ? json_get(one, "embedding") : NULL, e);
        if (rc) return rc;
        seen[at++] = 1;
        n++;
    }
    return n == n_inputs ? ERR_OK : answer_bad(a, e, "it lacks vectors");
}

err_code openai_read_vectors(answer *a, const openai_lifted *v, err *e) {
    const cJSON *list = json_get(a->tree, "data");
    uint32_t n = a->r->embed->n_inputs;
    if (!cJSON_IsArray(list) || !list->child) return answer_bad(a, e, "it has no vectors");
    err_code rc = size_vectors(a, v, list->child, e);
    uint8_t *seen = rc ? NULL : mem_zalloc(n);
    if (!rc && !seen) rc = err_nomem(e, "a provider's answer");
    if (!rc) rc = fill_vectors(a, v, list, seen, e);
    mem_free(seen);
    sha256 all;
    sha256_init(&all);
    for (uint32_t i = 0; i < n && !rc; i++) {
        digest_row(&all, a->digests + (size_t)i * SHA256_LEN, a->vectors + (size_t)i * a->dimensions, a->dimensions);
        rc = answer_put_vector(a, i, e);
    }
    sha256_final(&all, a->all_digest);
    return rc;
}
