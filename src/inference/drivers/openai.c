/* The driver of servers that speak OpenAI's form: OpenAI, Azure, Mistral, vLLM, SGLang, llama-server and their like.
 * openai_write.c makes what is asked, openai_read.c reads what is answered, remote.c does the rest. */
#include "inference/drivers/remote.h"

static const remote_form form = {.name = "openai",
                                 .auth_header = "Authorization: Bearer ",
                                 .write = openai_write,
                                 .path = openai_path,
                                 .read_whole = openai_read_whole,
                                 .read_event = openai_read_event};

static err_code openai_prepare(driver_call *c, err *e) {
    return remote_prepare(c, &form, e);
}

const driver driver_openai = {"openai",    openai_prepare, remote_describe, remote_start,
                              remote_next, remote_cancel,  remote_finish,   remote_release};
