#include "inference/drivers/http_answer.h"

#include "base/bytes.h"
#include "base/sys.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define RETRY_AFTER_S 86400
#define LENGTH_DIGITS 18 /* fit into 63 bits */
#define SIZE_DIGITS   15 /* hexadecimal */
#define LINE_KEPT     4096u
#define CHUNK_LINE    4096u /* bytes of a line around a chunk */

void http_answer_init(http_answer *h) {
    buf line = h->line;
    if (line.cap > LINE_KEPT) buf_free(&line);
    *h = (http_answer){.line = line};
    h->line.max = HTTP_HEAD_MAX;
    buf_reset(&h->line);
}

void http_answer_free(http_answer *h) {
    buf_free(&h->line);
}

/* ---- lines of a head --------------------------------------------------------------------------------------- */

/* Seconds, or a date (RFC 9110, 10.2.3). */
static int read_retry_after(const char *s, size_t n) {
    char text[64];
    if (!n || n >= sizeof text) return 0;
    memcpy(text, s, n);
    text[n] = 0;
    long long v = 0;
    if (strspn(text, "0123456789") == n && n < 10)
        v = strtoll(text, NULL, 10);
    else {
        time_t at = curl_getdate(text, NULL);
        if (at != -1) v = (long long)at - (long long)(time_unix_ms() / 1000);
    }
    return v < 0 ? 0 : v > RETRY_AFTER_S ? RETRY_AFTER_S : (int)v;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK" */
static const char *take_status(http_answer *h, const char *s, size_t n) {
    if (n < 12 || memcmp(s, "HTTP/1.", 7) != 0 || !is_digit(s[7]) || s[8] != ' ' || (n > 12 && s[12] != ' '))
        return "is not HTTP/1.1";
    for (int i = 9; i < 12; i++)
        if (!is_digit(s[i])) return "is not HTTP/1.1";
    h->status = (s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0');
    if (h->status < 100 || h->status == 101) return "has a status that was not asked for";
    h->keep = s[7] != '0';
    h->retry_after_s = 0;
    h->has_length = h->chunked = false;
    h->left = 0;
    h->part = HTTP_FIELDS;
    return NULL;
}

static const char *take_length(http_answer *h, const char *s, size_t n) {
    uint64_t v = 0;
    if (!n || n > LENGTH_DIGITS) return "says a length that is no number";
    for (size_t i = 0; i < n; i++) {
        if (!is_digit(s[i])) return "says a length that is no number";
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    if (h->has_length && v != h->left) return "says two lengths";
    h->has_length = true;
    h->left = v;
    return NULL;
}

static bool is_word(const char *s, size_t n, const char *word) {
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

static const char *take_field(http_answer *h, const char *s, size_t n) {
    const char *colon = memchr(s, ':', n);
    size_t n_name = colon ? (size_t)(colon - s) : 0;
    if (!n_name || text_token(s, n_name) != n_name) return "has a malformed header";
    const char *v = colon + 1;
    size_t m = n - n_name - 1;
    while (m && (*v == ' ' || *v == '\t')) v++, m--;
    while (m && (v[m - 1] == ' ' || v[m - 1] == '\t')) m--;
    if (is_word(s, n_name, "content-length")) return take_length(h, v, m);
    if (is_word(s, n_name, "transfer-encoding")) {
        if (h->chunked || !is_word(v, m, "chunked")) return "has a transfer coding that was not asked for";
        h->chunked = true;
    } else if (is_word(s, n_name, "connection")) {
        if (text_list_has(v, m, "close")) h->keep = false;
    } else if (is_word(s, n_name, "retry-after")) {
        h->retry_after_s = read_retry_after(v, m);
    }
    return NULL;
}

/* The empty line behind the fields. */
static void end_head(http_answer *h) {
    if (h->status < 200) {
        h->part = HTTP_STATUS_LINE;
        return;
    }
    if (h->chunked && h->has_length) h->keep = false; /* somebody in between may have gone by the other */
    if (h->status == 204 || h->status == 304)
        h->part = HTTP_OVER;
    else if (h->chunked)
        h->part = HTTP_CHUNK_SIZE;
    else if (h->has_length)
        h->part = h->left ? HTTP_BODY : HTTP_OVER;
    else
        h->part = HTTP_BODY_CLOSE;
}

/* Hexadecimal, perhaps with an extension behind it. */
static const char *take_size(http_answer *h, const char *s, size_t n) {
    size_t k = 0;
    uint64_t v = 0;
    for (; k < n && k <= SIZE_DIGITS; k++) {
        int d = hex_value(s[k]);
        if (d < 0) break;
        v = v << 4 | (unsigned)d;
    }
    if (!k || k > SIZE_DIGITS || (k < n && !strchr("; \t", s[k]))) return "has a broken chunk";
    h->left = v;
    h->part = v ? HTTP_CHUNK : HTTP_TRAILERS;
    return NULL;
}

static const char *take_line(http_answer *h, const char *s, size_t n) {
    if (n && s[n - 1] == '\r') n--;
    if (memchr(s, 0, n)) return "has a malformed header";
    switch (h->part) {
    case HTTP_STATUS_LINE: return take_status(h, s, n);
    case HTTP_FIELDS:
        if (n) return take_field(h, s, n);
        end_head(h);
        return NULL;
    case HTTP_CHUNK_SIZE: return take_size(h, s, n);
    case HTTP_CHUNK_END: h->part = HTTP_CHUNK_SIZE; return n ? "has a broken chunk" : NULL;
    default: /* trailers say nothing here */
        if (!n) h->part = HTTP_OVER;
        return NULL;
    }
}

/* ---- pieces ------------------------------------------------------------------------------------------------ */

/* `why` is NULL where memory is short. */
static bool stop(http_answer *h, const char *why) {
    h->bad = why;
    h->no_memory = !why;
    h->keep = false;
    return false;
}

/* Takes bytes up to the end of a line. false: nothing more is read. */
static bool read_line(http_answer *h, const char **p, size_t *n) {
    const char *end = memchr(*p, '\n', *n), *line = *p;
    size_t len = end ? (size_t)(end - *p) : *n;
    if (h->part == HTTP_CHUNK_SIZE || h->part == HTTP_CHUNK_END) {
        if (h->line.len + len > CHUNK_LINE) return stop(h, "has a broken chunk");
    } else {
        if (len + 1 > HTTP_HEAD_MAX - h->head_bytes) return stop(h, "has a header of more than 64 KiB");
        h->head_bytes += len + (end != NULL);
    }
    if (h->line.len || !end) {
        buf_append(&h->line, line, len);
        if (h->line.failed) return stop(h, NULL);
    }
    size_t n_line = len;
    if (h->line.len) {
        line = h->line.ptr;
        n_line = h->line.len;
    }
    *p += len + (end != NULL);
    *n -= len + (end != NULL);
    if (!end) return true;
    const char *why = take_line(h, line, n_line);
    h->line.len = 0;
    return why ? stop(h, why) : true;
}

bool http_answer_next(http_answer *h, const char **p, size_t *n, const char **body, size_t *len) {
    while (*n && h->part != HTTP_OVER && !h->bad && !h->no_memory) {
        if (h->part != HTTP_BODY && h->part != HTTP_BODY_CLOSE && h->part != HTTP_CHUNK) {
            if (!read_line(h, p, n)) return false;
            continue;
        }
        size_t k = h->part != HTTP_BODY_CLOSE && h->left < *n ? (size_t)h->left : *n;
        *body = *p;
        *len = k;
        *p += k;
        *n -= k;
        if (h->part == HTTP_BODY_CLOSE) return true;
        h->left -= k;
        if (!h->left) h->part = h->part == HTTP_CHUNK ? HTTP_CHUNK_END : HTTP_OVER;
        return true;
    }
    if (*n) h->keep = false; /* more than was asked for */
    return false;
}

bool http_answer_end(http_answer *h) {
    h->keep = false;
    if (h->part == HTTP_BODY_CLOSE) h->part = HTTP_OVER;
    return h->part == HTTP_OVER;
}
