/* Answers in OpenAI's form: answer_fuzz.h says what must hold. */
#include "answer_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_answer(openai_read_whole, openai_read_event, data, size);
    return 0;
}
