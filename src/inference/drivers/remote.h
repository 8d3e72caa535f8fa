/* Internal to inference: one attempt at a provider, whatever form it speaks: the driver's functions but the form's own.
 *
 *   prepared ──start──> sent ──first event──> answering ──end mark──> ended
 *                        └── an error: failure says what it means for other candidates ──> over
 *
 * STEP_STARTED comes with the first event that there is, so whatever goes wrong before it (a status, an error inside of
 * a stream, an answer that cannot be read) leaves the way to other candidates open. */
#ifndef POLDER_INFERENCE_DRIVERS_REMOTE_H
#define POLDER_INFERENCE_DRIVERS_REMOTE_H

#include "inference/drivers/answer.h"
#include "inference/drivers/body.h"

#define REMOTE_HEADERS_MAX 3

typedef struct remote_form {
    const char *name;
    const char *auth_header;
    err_code (*write)(const driver_call *c, const upstream_target *t, buf *out, err *e);
    void (*path)(const driver_call *c, const upstream_target *t, buf *out);
    err_code (*read_whole)(answer *a, const char *json, size_t n, err *e);
    err_code (*read_event)(answer *a, const sse_event *ev, err *e);
    const char *version_header; /* "name: ", its value the target's api_version, or this default; NULL: none */
    const char *version;
} remote_form;

err_code remote_prepare(driver_call *c, const remote_form *form, err *e);
err_code remote_describe(const driver_call *c, jflat *fields, err *e);
err_code remote_start(driver_call *c, err *e);
err_code remote_next(driver_call *c, int timeout_ms, driver_step *step, event *ev, err *e);
void remote_cancel(driver_call *c);
void remote_finish(driver_call *c, driver_outcome *out);
void remote_release(driver_call *c);

/* ---- failure.c ---- */
/* What a status of HTTP that is no success means, with the sentence for the client. `text` is the answer's body as far
 * as it was read. */
err_code failure_of_status(driver_failure *f, const upstream_target *t, int status, int retry_after_s, const char *text,
                           size_t n, err *e);
/* The same with a provider's own sentence. */
err_code failure_of_sentence(driver_failure *f, const upstream_target *t, int status, int retry_after_s,
                             const char *sentence, err *e);

#endif
