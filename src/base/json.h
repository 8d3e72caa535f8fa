/* JSON: trees, and a small writer.
 *
 * Trees are cJSON's, made by a reader of its own (json_build.c). json_parse has limits (depth, size), refuses duplicate
 * keys, trailing bytes, broken UTF-8 and NUL in strings, and says line and column. Writing: `jw` is a streaming writer
 * into a buf (events, responses); json_canonical writes RFC 8785 (keys sorted by UTF-16 code units, ECMAScript
 * numbers), the bytes of records.
 */
#ifndef POLDER_BASE_JSON_H
#define POLDER_BASE_JSON_H

#include "base/buf.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 64

/* The tree belongs to the caller (cJSON_Delete). A whole number beyond 2^53, which a double does not hold, keeps its
 * digits as text in the node's valuestring; json_write gives them back. `what` names the input in errors ("request
 * body"). */
err_code json_parse(cJSON **out, const char *s, size_t n, const char *what, err *e);

/* RFC 8785. NaN and infinities fail. */
err_code json_canonical(buf *out, const cJSON *v, err *e);
/* The tree as it is, its members in their order, every number with all its digits (cJSON's own printing drops the last
 * ones of whole numbers from 4.5e15 on). What is not finite is null. */
void json_write(buf *out, const cJSON *v);
char *json_text(const cJSON *v); /* the same as a text for mem_free; NULL: no memory */
/* A number as ECMAScript's Number::toString prints it (shortest that reads back). */
void json_number(buf *out, double v);
/* A JSON string with quotes; broken UTF-8 becomes U+FFFD. */
void json_string(buf *out, const char *s, size_t n);

/* Typed reads: NULL or the default where absent; wrong types are an ERR_INVALID that names the key.
 * A JSON null counts as absent. */
err_code json_get_str(const cJSON *o, const char *key, const char **out, err *e);
err_code json_get_num(const cJSON *o, const char *key, double min, double max, double *inout, err *e);
err_code json_get_int(const cJSON *o, const char *key, int64_t min, int64_t max, int64_t *inout, err *e);
err_code json_get_bool(const cJSON *o, const char *key, bool *inout, err *e);
const cJSON *json_get(const cJSON *o, const char *key); /* exact key; NULL where absent or null */

/* Streaming writer: commas and quotes are its business. Errors are the buf's. Nesting at most 63. */
typedef struct jw {
    buf *out;
    uint64_t has_item; /* one bit per level */
    int depth;
    bool after_key;
} jw;
void jw_init(jw *w, buf *out);
void jw_obj(jw *w);
void jw_obj_end(jw *w);
void jw_arr(jw *w);
void jw_arr_end(jw *w);
void jw_key(jw *w, const char *key);
void jw_str(jw *w, const char *s); /* NULL writes null */
void jw_strn(jw *w, const char *s, size_t n);
void jw_int(jw *w, int64_t v);
void jw_num(jw *w, double v);
void jw_bool(jw *w, bool v);
void jw_null(jw *w);
void jw_raw(jw *w, const char *json, size_t n); /* a complete value, as it is */
/* key and value in one call */
void jw_kstr(jw *w, const char *k, const char *s);
void jw_kint(jw *w, const char *k, int64_t v);
void jw_knum(jw *w, const char *k, double v);
void jw_kbool(jw *w, const char *k, bool v);

#endif
