#include "inference/answer_text.h"

#include "base/mem.h"

#include <string.h>

/* Text that waits inside one choice: a stop string at most, plus what one step or an echoed prompt adds. */
#define ANSWER_PENDING_MAX ((size_t)256 << 20)

err_code stop_set_init(stop_set *s, const char *const *stops, uint32_t n, err *e) {
    memset(s, 0, sizeof *s);
    if (n > REQUEST_STOPS_MAX)
        return err_set(e, ERR_INVALID, "stop: %u strings, at most %d are allowed", n, REQUEST_STOPS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        size_t len = strlen(stops[i]);
        if (len == 0) return err_set(e, ERR_INVALID, "stop: string %u is empty; leave it out", i);
        if (len > REQUEST_STOP_BYTES_MAX)
            return err_set(e, ERR_INVALID, "stop: string %u has %zu bytes, at most %d are allowed", i, len,
                           REQUEST_STOP_BYTES_MAX);
        if (!utf8_valid(stops[i], len)) return err_set(e, ERR_INVALID, "stop: string %u is not valid UTF-8", i);
        s->text[i] = stops[i];
        s->len[i] = (uint16_t)len;
        /* fail[k]: the longest proper end of text[0..k] that is also its beginning. */
        uint16_t k = 0;
        for (size_t j = 1; j < len; j++) {
            while (k && stops[i][j] != stops[i][k]) k = s->fail[i][k - 1];
            if (stops[i][j] == stops[i][k]) k++;
            s->fail[i][j] = k;
        }
    }
    s->n = n;
    return ERR_OK;
}

void answer_text_init(answer_text *a, const stop_set *stops) {
    memset(a, 0, sizeof *a);
    a->stops = stops;
    buf_init(&a->text, ANSWER_PENDING_MAX);
}

void answer_text_free(answer_text *a) {
    buf_free(&a->text);
    mem_free(a->tokens);
    mem_free(a->ends);
    a->tokens = NULL;
    a->ends = NULL;
}

/* Advance every automaton by one byte. The length of the longest stop string that is now complete, 0 where none is. */
static size_t stops_step(answer_text *a, char c) {
    const stop_set *s = a->stops;
    size_t longest = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint16_t k = a->at[i];
        while (k && s->text[i][k] != c) k = s->fail[i][k - 1];
        if (s->text[i][k] == c) k++;
        a->at[i] = k;
        if (k != s->len[i] || k <= longest) continue;
        longest = k;
        a->stop = s->text[i];
    }
    return longest;
}

static size_t stops_held(const answer_text *a) {
    size_t held = 0;
    for (uint32_t i = 0; i < a->stops->n; i++) {
        if (a->at[i] > held) held = a->at[i];
    }
    return held;
}

static void note_token(answer_text *a, const token_info *info) {
    if (a->n_tokens == a->cap_tokens) {
        size_t cap = a->cap_tokens ? a->cap_tokens * 2 : 8;
        token_info *tokens = mem_realloc(a->tokens, cap * sizeof *tokens);
        if (tokens) a->tokens = tokens;
        uint64_t *ends = tokens ? mem_realloc(a->ends, cap * sizeof *ends) : NULL;
        if (!ends) {
            a->failed = true;
            return;
        }
        a->ends = ends;
        a->cap_tokens = cap;
    }
    a->tokens[a->n_tokens] = *info;
    a->ends[a->n_tokens++] = a->fed;
}

/* Cut the text to `len` untaken bytes: a stop string began there. */
static void cut(answer_text *a, size_t len) {
    uint64_t end = a->base + len;
    a->text.len = len;
    if (a->text.ptr) a->text.ptr[len] = 0;
    a->ready = len;
    a->fed = end;
    a->stopped = true;
    size_t keep = 0;
    while (keep < a->n_tokens && (keep == 0 ? a->taken_end : a->ends[keep - 1]) < end) keep++;
    a->n_tokens = keep;
    for (size_t i = 0; i < keep; i++) {
        if (a->ends[i] > end) a->ends[i] = end;
    }
}

void answer_text_feed(answer_text *a, const char *p, size_t n, const token_info *info) {
    if (a->stopped || a->failed) return;
    size_t stop_len = 0, used = 0;
    while (used < n && !stop_len) stop_len = stops_step(a, p[used++]);
    buf_append(&a->text, p, used);
    if (a->text.failed) {
        a->failed = true;
        return;
    }
    a->fed += used;
    if (info) note_token(a, info);
    if (stop_len)
        cut(a, a->text.len - stop_len);
    else
        a->ready = a->text.len - stops_held(a);
}

void answer_text_echo(answer_text *a, const char *p, size_t n, const token_info *info) {
    if (a->failed) return;
    buf_append(&a->text, p, n);
    a->failed = a->text.failed;
    a->fed += n;
    if (info && !a->failed) note_token(a, info);
    a->ready = a->text.len;
}

void answer_text_break(answer_text *a, const token_info *info) {
    if (a->stopped || a->failed) return;
    memset(a->at, 0, sizeof a->at);
    if (info) note_token(a, info);
    a->ready = a->text.len;
}

void answer_text_end(answer_text *a) {
    a->ready = a->text.len;
}

size_t answer_text_ready_tokens(const answer_text *a) {
    uint64_t end = a->base + a->ready;
    size_t n = 0;
    while (n < a->n_tokens && a->ends[n] <= end) n++;
    return n;
}

void answer_text_taken(answer_text *a) {
    size_t n = answer_text_ready_tokens(a), left = a->text.len - a->ready;
    if (n) {
        a->taken_end = a->ends[n - 1];
        memmove(a->tokens, a->tokens + n, (a->n_tokens - n) * sizeof *a->tokens);
        memmove(a->ends, a->ends + n, (a->n_tokens - n) * sizeof *a->ends);
        a->n_tokens -= n;
    }
    if (!a->ready) return;
    memmove(a->text.ptr, a->text.ptr + a->ready, left + 1);
    a->text.len = left;
    a->base += a->ready;
    a->ready = 0;
}
