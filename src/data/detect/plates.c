/* Number plates: forms that little else has count alone, the others with a word nearby. */
#include "data/detect/ids.h"
#include "data/detect/recognisers.h"

#include <string.h>

/* 'd' digit, 'l' letter; '|' between alternatives (id_shape_fits). */
static const char strong[] = "ll-ddd-ll|" /* France, Italy's with dashes */
                             "d-lll-ddd|" /* Belgium */
                             "dd-ll-ll|ll-dd-ll|ll-ll-dd|dd-lll-d|d-lll-dd|l-ddd-ll|ll-ddd-l|" /* Netherlands */
                             "l-ll ddd|l-ll dddd|ll-l ddd|ll-l dddd|ll-ll dd|ll-ll ddd|ll-ll dddd|lll-l dd|lll-l ddd|"
                             "lll-ll dd|lll-ll ddd|lll-ll dddd"; /* Germany */
static const char weak[] =
    "ll ddd ll|llddd ll|lldddll|dddd lll|ddddlll|dddd-lll|lldd lll|lldd-lll|lllddd|lll ddd|lll-ddd|lll ddl|"
    "l ll d|l ll dd|l ll ddd|l ll dddd|ll ll d|ll ll dd|ll ll ddd|ll ll dddd|ll l ddd|ll l dddd|lll l dd|lll l ddd|"
    "lll ll ddd|l-ll d|l-ll dd|ll-l d|ll-l dd|ll-ll d|l ddddd|ll dddd|ll ddddd|ll dddddd|lll dddd|lll "
    "ddddd|ll-dd-dd|dd-ll-dd|dd-dd-ll|"
    "l-ddddd|l-dddddl|ll-dddl|ll-ddddl|lldddd|lllddd|llldddd|ldddlll|lldd lll|ddl "
    "dddd|dd-l-ddddd|llldddl|l-lldddd|ll-lldddd|l-llddd|ll-llddd|l lldddd|ll lldddd|l llddd|ll llddd";

/* A window of groups (numbers.c): is it one? The score without a word, or with one. */
void judge_plate(scan *s, size_t i, size_t j, const char *form, size_t n) {
    if (n < 5 || n > 11) return;
    for (size_t k = i; k <= j; k++)
        if (s->t[k].flags & T_LOWER) return;
    size_t at = s->t[i].at, to = token_end(&s->t[j]);
    char before = at ? s->p[at - 1] : ' ', after = scan_byte(s, to);
    if (strchr("-_/.", before) || (after && strchr("-_/", after))) return;
    near_words near = scan_near(s, i, j, 6, 2);
    bool word = near.kinds & W_PLATE;
    if (!word && near.kinds & (W_REF | W_VERSION)) return;
    if (id_shape_fits(strong, form, n))
        scan_add(s, ENT_PLATE, word ? 84 : 56, at, to);
    else if (word && id_shape_fits(weak, form, n))
        scan_add(s, ENT_PLATE, 80, at, to);
}
