/* Facts of providers, countries, and whether a provider stands in a place. */
#include "data/policy_internal.h"

#include <string.h>

const char *fact_word(fact f) {
    static const char *const words[] = {
#define X(id, word, kind) word,
        FACT_TABLE(X)
#undef X
    };
    return words[f];
}

fact_kind fact_kind_of(fact f) {
    static const fact_kind kinds[] = {
#define X(id, word, kind) kind,
        FACT_TABLE(X)
#undef X
    };
    return kinds[f];
}

/* ---- countries --------------------------------------------------------------------------------------------- */

/* ISO 3166-1 alpha-2, officially assigned. */
static const char countries[] =
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA "
    "CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA "
    "GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP "
    "KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS "
    "MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS "
    "RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW "
    "TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

static const char eu[] = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE";
static const char efta_of_eea[] = "IS LI NO";

static int pair_index(const char *s) {
    return (s[0] - 'A') * 26 + (s[1] - 'A');
}

int country_index(const char *s, size_t n) {
    if (n != 2) return -1;
    for (const char *p = countries;; p += 3) {
        if (p[0] == s[0] && p[1] == s[1]) return pair_index(p);
        if (!p[2]) return -1;
    }
}

static void add_all(country_set *s, const char *list) {
    for (const char *p = list;; p += 3) {
        int i = pair_index(p);
        s->bits[i >> 6] |= (uint64_t)1 << (i & 63);
        if (!p[2]) return;
    }
}

bool country_add(country_set *s, const char *word, size_t n) {
    bool eea = n == 3 && memcmp(word, "EEA", 3) == 0;
    if (eea || (n == 2 && memcmp(word, "EU", 2) == 0)) {
        add_all(s, eu);
        if (eea) add_all(s, efta_of_eea);
        return true;
    }
    int i = country_index(word, n);
    if (i < 0) return false;
    s->bits[i >> 6] |= (uint64_t)1 << (i & 63);
    return true;
}

bool country_hint(const char *s, size_t n, char out[4]) {
    static const char *const hints[][2] = {
        {"UK", "GB"},     {"EL", "GR"},      {"USA", "US"},        {"GER", "DE"},     {"DEU", "DE"},
        {"FRA", "FR"},    {"GBR", "GB"},     {"ITA", "IT"},        {"ESP", "ES"},     {"NLD", "NL"},
        {"AUT", "AT"},    {"BEL", "BE"},     {"CHE", "CH"},        {"EWR", "EEA"},    {"EEE", "EEA"},
        {"UE", "EU"},     {"EUROPE", "EU"},  {"GERMANY", "DE"},    {"FRANCE", "FR"},  {"ITALY", "IT"},
        {"SPAIN", "ES"},  {"IRELAND", "IE"}, {"BELGIUM", "BE"},    {"AUSTRIA", "AT"}, {"FINLAND", "FI"},
        {"SWEDEN", "SE"}, {"POLAND", "PL"},  {"NETHERLANDS", "NL"}};
    char up[16];
    if (!n || n >= sizeof up) return false;
    for (size_t i = 0; i < n; i++) up[i] = s[i] >= 'a' && s[i] <= 'z' ? (char)(s[i] - 32) : s[i];
    up[n] = 0;
    const char *meant = NULL;
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        if (strcmp(hints[i][0], up) == 0) meant = hints[i][1];
    country_set any = {{0}};
    if (!meant && country_add(&any, up, n)) meant = up;
    if (!meant) return false;
    memcpy(out, meant, strlen(meant) + 1);
    return true;
}

/* ---- providers --------------------------------------------------------------------------------------------- */

const provider_facts provider_facts_engine = {
    .name = "engine",
    .driver = "engine",
    .inside = true,
    .retention_days = -1,
    .training = -1,
    .price_in = -1,
    .price_out = -1,
};

provider_facts provider_facts_unknown(const char *name) {
    provider_facts f = {.retention_days = -1, .training = -1, .price_in = -1, .price_out = -1};
    size_t n = strnlen(name, PROVIDER_NAME_MAX);
    memcpy(f.name, name, n);
    return f;
}

static const char *text_of(fact f, const provider_facts *p) {
    switch (f) {
    case FACT_NAME: return p->name;
    case FACT_DRIVER: return p->driver;
    case FACT_JURISDICTION: return p->country;
    case FACT_OPERATOR: return p->operator_name;
    case FACT_LAW: return p->operator_law;
    case FACT_CERTIFICATES: return p->certificates;
    case FACT_CONTRACT: return p->contract;
    default: return "";
    }
}

bool fact_unknown(fact f, const provider_facts *p) {
    switch (f) {
    case FACT_TRAINING: return p->training < 0;
    case FACT_RETENTION: return p->retention_days < 0;
    case FACT_INSIDE: return false;
    case FACT_JURISDICTION:
    case FACT_LAW: return country_index(text_of(f, p), strlen(text_of(f, p))) < 0;
    default: return !*text_of(f, p);
    }
}

/* Is `want` an item of the comma-separated list? */
static bool list_has(const char *list, const char *want) {
    size_t n = strlen(want);
    while (*list) {
        size_t len = strcspn(list, ",");
        const char *next = list + len + (list[len] == ',');
        while (len && (*list == ' ' || *list == '\t')) list++, len--;
        while (len && (list[len - 1] == ' ' || list[len - 1] == '\t')) len--;
        if (len == n && n && memcmp(list, want, n) == 0) return true;
        list = next;
    }
    return false;
}

bool condition_holds(const condition *c, const provider_facts *p, bool first) {
    const char *text = text_of(c->fact, p);
    bool inside = p->inside || first;
    if (fact_unknown(c->fact, p)) return false;
    switch (fact_kind_of(c->fact)) {
    case KIND_YES_NO: return (c->fact == FACT_INSIDE ? inside : p->training != 0) == c->yes;
    case KIND_DAYS: return p->retention_days <= c->days;
    case KIND_COUNTRY: return country_has(&c->countries, country_index(text, strlen(text)));
    case KIND_TEXT:
        for (const word_item *v = c->values; v; v = v->next)
            if (strcmp(v->s, text) == 0) return true;
        return false;
    case KIND_LIST:
        for (const word_item *v = c->values; v; v = v->next)
            if (list_has(text, v->s)) return true;
        return false;
    }
    return false;
}

bool zone_has(const zone *z, const provider_facts *p, bool first) {
    for (const condition *c = z->conditions; c; c = c->next)
        if (!condition_holds(c, p, first)) return false;
    return true;
}

bool place_has(const place *at, const provider_facts *p, bool first) {
    switch (at->kind) {
    case PLACE_ON_PREM: return p->inside || first;
    case PLACE_ANY: return true;
    case PLACE_PROVIDER: return strcmp(at->name, p->name) == 0;
    case PLACE_ZONE: return zone_has(at->zone, p, first);
    }
    return false;
}

bool places_have(const place *list, const provider_facts *p, bool first) {
    for (; list; list = list->next)
        if (place_has(list, p, first)) return true;
    return false;
}

void place_text(const place *p, buf *out) {
    if (p->kind == PLACE_ON_PREM) buf_puts(out, "on-prem");
    if (p->kind == PLACE_ANY) buf_puts(out, "any provider");
    if (p->kind == PLACE_PROVIDER) buf_puts(out, "provider ");
    if (p->kind == PLACE_ZONE || p->kind == PLACE_PROVIDER) buf_puts(out, p->name);
}

bool sentence_allows(const sentence *s, uint8_t level) {
    return s->kind == SENTENCE_ALLOW && (s->levels >> level & 1);
}

bool sentence_forbids_outside(const sentence *s, sensitivity v) {
    return s->kind == SENTENCE_NEVER && ((s->levels >> v.level & 1) || (s->flags & v.flags));
}
