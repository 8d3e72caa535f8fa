#include "inference/speculate.h"

#define LENGTH_FIRST 4
#define MISSES_MAX   3 /* in a row, then it rests */
#define REST_STEPS   16

void guess_init(guess_state *g) {
    *g = (guess_state){.length = LENGTH_FIRST};
}

uint32_t guess_want(guess_state *g) {
    if (!g->rest) return g->length;
    g->rest--;
    return 0;
}

/* What was right decides how far to look ahead next: all of it, twice as far; a part, one further than that. */
void guess_outcome(guess_state *g, uint32_t n, uint32_t right) {
    if (!n) return;
    if (right) {
        g->misses = 0;
        g->length = right == n ? 2 * n : right + 1;
        if (g->length > GUESS_MAX) g->length = GUESS_MAX;
        if (g->length < 2) g->length = 2;
        return;
    }
    g->length = g->length > 4 ? g->length / 2 : 2;
    if (++g->misses < MISSES_MAX) return;
    g->misses = 0;
    g->rest = REST_STEPS;
}

static int32_t at(const history *h, uint32_t i) {
    return i < h->n_prompt ? h->prompt[i] : h->made[i - h->n_prompt];
}

/* How many tokens before i are those before the end. */
static uint32_t repeats(const history *h, uint32_t i, uint32_t end) {
    uint32_t n = 0;
    while (n < LOOKUP_ENOUGH && n < i && at(h, i - 1 - n) == at(h, end - 1 - n)) n++;
    return n;
}

uint32_t guess_lookup(const history *h, int32_t *out, uint32_t few, uint32_t many) {
    uint32_t end = h->n_prompt + h->n_made, best = 0, from = 0;
    if (end < LOOKUP_LEAST + 1) return 0;
    uint32_t stop = end > LOOKUP_BACK ? end - LOOKUP_BACK : 1;
    int32_t last = at(h, end - 1);
    for (uint32_t i = end - 1; i >= stop && best < LOOKUP_ENOUGH; i--) {
        if (at(h, i - 1) != last) continue;
        uint32_t n = repeats(h, i, end);
        if (n > best) {
            best = n;
            from = i;
        }
    }
    if (best < LOOKUP_LEAST) return 0;
    uint32_t most = best >= LOOKUP_ENOUGH ? many : few;
    /* past the end it goes on with what it has guessed: what repeats with a short period */
    for (uint32_t k = 0; k < most; k++) out[k] = from + k < end ? at(h, from + k) : out[from + k - end];
    return most;
}
