/* The driver of servers that speak Anthropic's form. anthropic_write.c makes what is asked, anthropic_read.c reads what
 * is answered, remote.c does the rest. */
#include "inference/drivers/remote.h"

static void anthropic_path(const driver_call *c, const upstream_target *t, buf *out) {
    buf_puts(out, "/v1/messages");
}

static const remote_form form = {.name = "anthropic",
                                 .auth_header = "x-api-key: ",
                                 .write = anthropic_write,
                                 .path = anthropic_path,
                                 .read_whole = anthropic_read_whole,
                                 .read_event = anthropic_read_event,
                                 .version_header = "anthropic-version: ",
                                 .version = "2023-06-01"};

static err_code anthropic_prepare(driver_call *c, err *e) {
    return remote_prepare(c, &form, e);
}

const driver driver_anthropic = {"anthropic", anthropic_prepare, remote_describe, remote_start,
                                 remote_next, remote_cancel,     remote_finish,   remote_release};
