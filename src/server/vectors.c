/* What the dialects for vectors and for scores share. */
#include "server/vectors.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------- */

err_code vectors_common(answer *a, const cJSON *v, err *e) {
    return openai_take_common(a, v, e);
}

err_code vectors_take_fields(answer *a, const openai_field *own, err *e) {
    err_code rc = openai_take_own_fields(a, own, e);
    return rc == ERR_OK ? openai_check_common(a, e) : rc;
}

err_code vectors_no_truncation(answer *a, const cJSON *v, err *e) {
    bool none = cJSON_IsFalse(v) || (cJSON_IsString(v) && strcmp(v->valuestring, "NONE") == 0);
    if (none) return ERR_OK;
    return err_set(
        e, ERR_UNSUPPORTED,
        "'%s': polder cuts no text off, because what is left out would not be in the answer; send texts that "
        "fit and leave this field out",
        v->string);
}

err_code vectors_make_inputs(answer *a, size_t n, err *e) {
    a->inputs = mem_array(n ? n : 1, sizeof *a->inputs);
    if (!a->inputs) return err_nomem(e, "the inputs");
    a->embed.inputs = a->inputs;
    a->r.embed = &a->embed;
    return ERR_OK;
}

/* ---- collecting -------------------------------------------------------------------------------------------- */

void vectors_collect(answer *a, choice *c, const event *ev) {
    if (ev->kind == EV_VECTOR) buf_append(&c->parts[0], ev->vector, ev->n_vector * sizeof *ev->vector);
}

void vectors_tokens(answer *a, choice *c, const event *ev) {
    /* there is no text, so there are no tokens of one */
}

void vectors_chunk(answer *a, const event *ev, buf *out) {
    /* never streamed: `stream` is no field of these requests */
}

size_t vectors_count(const answer *a) {
    return a->choices[0].parts[0].len / sizeof(float);
}

float vectors_get(const answer *a, size_t at) {
    float v;
    memcpy(&v, a->choices[0].parts[0].ptr + at * sizeof v, sizeof v);
    return v;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

#define DIGITS 9 /* enough for every float, and few enough for exact powers of ten */

static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10,
                              1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21};

void vectors_float(buf *out, float v) {
    double x = fabs((double)v);
    if (x == 0 || x >= 1 || x < 1e-12) { /* rare: vectors have length 1 */
        buf_printf(out, "%.9g", (double)v);
        return;
    }
    int zeros = 0; /* after the point */
    while (x * tens[zeros + 1] < 1) zeros++;
    uint64_t digits = (uint64_t)llrint(x * tens[zeros + DIGITS]);
    char t[40];
    int n = DIGITS;
    if (digits >= 1000000000u) { /* 0.9999999999 */
        if (zeros == 0) {
            buf_puts(out, v < 0 ? "-1" : "1");
            return;
        }
        digits /= 10;
        zeros--;
    }
    while (n > 1 && digits % 10 == 0) digits /= 10, n--;
    int at = 0;
    if (v < 0) t[at++] = '-';
    t[at++] = '0';
    t[at++] = '.';
    for (int i = 0; i < zeros; i++) t[at++] = '0';
    for (int i = n; i--; digits /= 10) t[at + i] = (char)('0' + digits % 10);
    buf_append(out, t, (size_t)(at + n));
}

void vectors_usage(jw *w, const answer *a) {
    jw_key(w, "usage");
    jw_obj(w);
    jw_kint(w, "prompt_tokens", (int64_t)a->prompt_tokens);
    jw_kint(w, "total_tokens", (int64_t)a->prompt_tokens);
    jw_obj_end(w);
}
