/* Answers in Anthropic's form: answer_fuzz.h says what must hold. Of its requests none is for vectors, and each has one
 * choice. */
#include "answer_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size && data[0] & (4 | 32)) return 0;
    fuzz_answer(anthropic_read_whole, anthropic_read_event, data, size);
    return 0;
}
