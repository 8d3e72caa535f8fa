/* Internal to inference: what the bodies of requests to providers have in common. */
#ifndef POLDER_INFERENCE_DRIVERS_BODY_H
#define POLDER_INFERENCE_DRIVERS_BODY_H

#include "inference/drivers/driver.h"
#include "inference/drivers/upstream.h"

#include "base/json.h"

#define BODY_MAX ((size_t)256 << 20) /* bytes */

/* A tree as it is, its members in their order. */
void body_put_tree(jw *w, const cJSON *v);
/* key and number: a float32 as the shortest decimal number that is the same float32. */
void body_put_float(jw *w, const char *key, float v);
/* Does every object in the schema list all its properties as required and allow no others? Only such schemas are
 * accepted where a provider enforces them ("strict"). */
bool body_schema_is_closed(const cJSON *schema);
/* Appends text for a segment of a URL's path. */
void body_put_escaped(buf *out, const char *text);
/* New tokens: what was asked for within what the island allows; 0 where both leave it to the provider. */
err_code body_size_answer(driver_call *c, err *e);
/* ERR_UNSUPPORTED: provider 'x' cannot be told about `what`. */
err_code body_refuse(const upstream_target *t, const char *what, err *e);
/* What no driver of this kind can express: token ids as a prompt, a template's variables, grammars but JSON schemas,
 * scores, options of the local sampler. */
err_code body_check_common(const driver_call *c, err *e);
/* A string, or parts of text; *parts is one or NULL. Other contents are refused. */
err_code body_check_content(const upstream_target *t, const cJSON *content, err *e);

err_code openai_write(const driver_call *c, const upstream_target *t, buf *out, err *e);
void openai_path(const driver_call *c, const upstream_target *t, buf *out);
err_code anthropic_write(const driver_call *c, const upstream_target *t, buf *out, err *e);

#endif
