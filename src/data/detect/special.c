/* Words of GDPR Art. 9. Specific ones count alone; ambiguous ones only where a person is spoken of. They raise a label
 * and are never redacted. */
#include "data/detect/recognisers.h"

/* Asked at words of the vocabulary and at the beginnings of its phrases. */
void find_special(scan *s, size_t i) {
    size_t last = i;
    const word_entry *w = scan_phrase_end(s, i, &last);
    if (!(w->kind & W_SPECIAL)) return;
    unsigned score = 75;
    if (w->kind & W_AMBIGUOUS) {
        near_words near = scan_near(s, i, last, 8, 6);
        if (!(near.kinds & (W_PERSON | W_HONORIFIC))) return;
        score = 58;
    }
    scan_add(s, w->value, score, s->t[i].at, token_end(&s->t[last]));
}
