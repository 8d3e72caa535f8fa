/* Accounts: IBAN, payment cards, BIC, LEI; and the arithmetic that rules share. */
#include "data/detect/ids_check.h"

#include <string.h>

bool ids_date(int year, int month, int day) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (month < 1 || month > 12 || day < 1) return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= days[month - 1] + (month == 2 && leap);
}

bool ids_date_short(int year2, int month, int day) {
    return ids_date(2000 + year2, month, day); /* 2000 was a leap year, so any century's day is among these */
}

bool ids_luhn(const char *s, size_t n) {
    static const uint8_t twice[10] = {0, 2, 4, 6, 8, 1, 3, 5, 7, 9};
    unsigned sum = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned d = (unsigned)(s[n - 1 - i] - '0');
        sum += i & 1 ? twice[d] : d;
    }
    return sum % 10 == 0;
}

bool ids_mod_11_10(const char *s, size_t n) {
    unsigned p = 10;
    for (size_t i = 0; i + 1 < n; i++) {
        unsigned t = (p + (unsigned)(s[i] - '0')) % 10;
        p = (t ? t : 10) * 2 % 11;
    }
    return (p + (unsigned)(s[n - 1] - '0')) % 10 == 1;
}

unsigned ids_mod97(const char *s, size_t n, unsigned before) {
    uint64_t r = before;
    for (size_t i = 0; i < n; i++) {
        r = is_digit(s[i]) ? r * 10 + (uint64_t)(s[i] - '0') : r * 100 + (uint64_t)(s[i] - 'A') + 10;
        if (r > 100000000000000000u) r %= 97; /* divisions are slow: as few as 64 bits allow */
    }
    return (unsigned)(r % 97);
}

bool ids_country(const char *cc) {
    /* A bit for the second letter of each code, a word for the first. */
    static const char *const seconds[26] = {"DEFGILMOQRSTUWXZ",
                                            "ABDEFGHIJLMNOQRSTVWYZ",
                                            "ACDFGHIKLMNORUVWXYZ",
                                            "EJKMOZ",
                                            "CEGHRST",
                                            "IJKMOR",
                                            "ABDEFGHILMNPQRSTUWY",
                                            "KMNRTU",
                                            "DELMNOQRST",
                                            "EMOP",
                                            "EGHIMNPRWYZ",
                                            "ABCIKRSTUVY",
                                            "ACDEFGHKLMNOPQRSTUVWXYZ",
                                            "ACEFGILOPRUZ",
                                            "M",
                                            "AEFGHKLMNRSTWY",
                                            "A",
                                            "EOSUW",
                                            "ABCDEGHIJKLMNORSTVXYZ",
                                            "CDFGHJKLMNORTVWZ",
                                            "AGMSYZ",
                                            "ACEGINU",
                                            "FS",
                                            "K",
                                            "ET",
                                            "AMW"};
    return is_capital(cc[0]) && cc[1] && strchr(seconds[cc[0] - 'A'], cc[1]) != NULL;
}

/* IBANs by country: what stands behind the letters and check digits, n digits, a capitals, c either. Also those that
 * banks use without an entry in the registry (AO, BF, BJ, CF, CG, CI, CM, CV, DZ, GA, GQ, GW, IR, KM, MA, MG, ML, MZ,
 * NE, SN, TD, TG). Sorted, for the search. */
static const struct {
    char country[3];
    char bban[14];
} registry[] = {
    {"AD", "n8c12"},    {"AE", "n19"},     {"AL", "n8c16"},   {"AO", "n21"},     {"AT", "n16"},     {"AZ", "a4c20"},
    {"BA", "n16"},      {"BE", "n12"},     {"BF", "c24"},     {"BG", "a4n6c8"},  {"BH", "a4c14"},   {"BI", "n23"},
    {"BJ", "c24"},      {"BR", "n23a1c1"}, {"BY", "c4n4c16"}, {"CF", "n23"},     {"CG", "n23"},     {"CH", "n5c12"},
    {"CI", "c24"},      {"CM", "n23"},     {"CR", "n18"},     {"CV", "n21"},     {"CY", "n8c16"},   {"CZ", "n20"},
    {"DE", "n18"},      {"DJ", "n23"},     {"DK", "n14"},     {"DO", "c4n20"},   {"DZ", "n22"},     {"EE", "n16"},
    {"EG", "n25"},      {"ES", "n20"},     {"FI", "n14"},     {"FK", "a2n12"},   {"FO", "n14"},     {"FR", "n10c11n2"},
    {"GA", "n23"},      {"GB", "a4n14"},   {"GE", "a2n16"},   {"GI", "a4c15"},   {"GL", "n14"},     {"GQ", "n23"},
    {"GR", "n7c16"},    {"GT", "c24"},     {"GW", "c2n19"},   {"HN", "a4n20"},   {"HR", "n17"},     {"HU", "n24"},
    {"IE", "a4n14"},    {"IL", "n19"},     {"IQ", "a4n15"},   {"IR", "n22"},     {"IS", "n22"},     {"IT", "a1n10c12"},
    {"JO", "a4n4c18"},  {"KM", "n23"},     {"KW", "a4c22"},   {"KZ", "n3c13"},   {"LB", "n4c20"},   {"LC", "a4c24"},
    {"LI", "n5c12"},    {"LT", "n16"},     {"LU", "n3c13"},   {"LV", "a4c13"},   {"LY", "n21"},     {"MA", "n24"},
    {"MC", "n10c11n2"}, {"MD", "c20"},     {"ME", "n18"},     {"MG", "n23"},     {"MK", "n3c10n2"}, {"ML", "c24"},
    {"MN", "n16"},      {"MR", "n23"},     {"MT", "a4n5c18"}, {"MU", "a4n19a3"}, {"MZ", "n21"},     {"NE", "a2n22"},
    {"NI", "a4n20"},    {"NL", "a4n10"},   {"NO", "n11"},     {"OM", "n3c16"},   {"PK", "a4c16"},   {"PL", "n24"},
    {"PS", "a4c21"},    {"PT", "n21"},     {"QA", "a4c21"},   {"RO", "a4c16"},   {"RS", "n18"},     {"RU", "n14c15"},
    {"SA", "n2c18"},    {"SC", "a4n20a3"}, {"SD", "n14"},     {"SE", "n20"},     {"SI", "n15"},     {"SK", "n20"},
    {"SM", "a1n10c12"}, {"SN", "a2n22"},   {"SO", "n19"},     {"ST", "n21"},     {"SV", "a4n20"},   {"TD", "n23"},
    {"TG", "a2n22"},    {"TL", "n19"},     {"TN", "n20"},     {"TR", "n6c16"},   {"UA", "n6c19"},   {"VA", "n18"},
    {"VG", "a4n16"},    {"XK", "n16"},     {"YE", "a4n4c18"},
};

static const char *iban_bban(const char *cc) {
    size_t lo = 0, hi = sizeof registry / sizeof *registry;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = memcmp(cc, registry[mid].country, 2);
        if (c == 0) return registry[mid].bban;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

int ids_iban(const char *s, size_t n) {
    if (n < 15 || n > 34 || !is_digit(s[2]) || !is_digit(s[3])) return 0;
    const char *form = iban_bban(s);
    if (!form) return 0;
    size_t i = 4;
    while (*form) {
        char class = *form++;
        size_t count = 0;
        while (is_digit(*form)) count = count * 10 + (size_t)(*form++ - '0');
        if (count > n - i) return 0;
        for (size_t end = i + count; i < end; i++)
            if (!(is_digit(s[i]) ? class != 'a' : is_capital(s[i]) && class != 'n')) return 0;
    }
    if (i != n) return 0;
    return ids_mod97(s, 4, ids_mod97(s + 4, n - 4, 0)) == 1 ? 99 : 0;
}

/* Ranges of issuers, by the first six digits; lengths as a bit each from 12 on. Sure ones: the network's cards have
 * those digits and lengths and few other numbers do. */
#define LEN(n)    (1u << ((n)-12))
#define LEN_16_19 (LEN(16) | LEN(17) | LEN(18) | LEN(19))
#define LEN_12_19 0xFFu
static const struct {
    uint32_t from, to;
    uint8_t lens, strength;
} issuers[] = {
    {220000, 220499, LEN_16_19, 97}, /* Mir */
    {222100, 272099, LEN(16), 97},   /* Mastercard */
    {300000, 305999, LEN(14), 97},   /* Diners Club */
    {309500, 309599, LEN(14), 97},   /* */
    {340000, 349999, LEN(15), 97},   /* American Express */
    {352800, 358999, LEN_16_19, 97}, /* JCB */
    {360000, 369999, LEN(14), 97},   /* Diners Club */
    {360000, 369999, LEN_16_19, 90}, /* */
    {370000, 379999, LEN(15), 97},   /* American Express */
    {380000, 399999, LEN(14), 90},   /* Diners Club */
    {400000, 499999, LEN(16), 97},   /* Visa */
    {400000, 499999, LEN(19), 90},   /* */
    {400000, 499999, LEN(13), 75},   /* not issued any more; goods have such numbers (EAN) */
    {500000, 509999, LEN_12_19, 75}, /* Maestro, Dankort, RuPay, Elo */
    {510000, 559999, LEN(16), 97},   /* Mastercard */
    {560000, 589999, LEN_12_19, 75}, /* Maestro */
    {601100, 601199, LEN_16_19, 97}, /* Discover */
    {622126, 622925, LEN_16_19, 97}, /* Discover, UnionPay */
    {644000, 659999, LEN_16_19, 97}, /* Discover */
    {620000, 629999, LEN_16_19, 90}, /* UnionPay */
    {600000, 699999, LEN_12_19, 75}, /* Maestro, RuPay, Troy, InstaPayment, … */
    {810000, 829999, LEN_16_19, 90}, /* UnionPay, RuPay */
    {979200, 979299, LEN(16), 97},   /* Troy */
};

int ids_card(const char *s, size_t n) {
    if (n < 12 || n > 19 || !all_digits(s, n)) return 0;
    uint32_t iin = (uint32_t)number(s, 6);
    int strength = 0;
    for (size_t i = 0; i < sizeof issuers / sizeof *issuers; i++)
        if (iin >= issuers[i].from && iin <= issuers[i].to && issuers[i].lens & LEN(n) &&
            issuers[i].strength > strength)
            strength = issuers[i].strength;
    return strength && ids_luhn(s, n) ? strength : 0;
}

/* ISO 9362: institution, country, place, branch. No check digits: eight capitals are often a word ("DOCUMENT" would be
 * a bank in Montenegro), so only digits in the place or branch, or the head office's XXX, say something by themselves.
 */
int ids_bic(const char *s, size_t n) {
    if (n != 8 && n != 11) return 0;
    bool digits = false;
    for (size_t i = 0; i < n; i++) {
        if (is_digit(s[i])) {
            if (i < 6) return 0;
            digits = true;
        } else if (!is_capital(s[i])) {
            return 0;
        }
    }
    if (!ids_country(s + 4)) return 0;
    return digits || (n == 11 && memcmp(s + 8, "XXX", 3) == 0) ? 64 : 60;
}

/* ISO 17442: 18 characters and two digits, modulo 97 as ISO 7064. Without any letter it is more likely another number.
 */
int ids_lei(const char *s, size_t n) {
    if (n != 20 || !is_digit(s[18]) || !is_digit(s[19])) return 0;
    bool letters = false;
    for (size_t i = 0; i < 18; i++) {
        if (is_capital(s[i]))
            letters = true;
        else if (!is_digit(s[i]))
            return 0;
    }
    if (ids_mod97(s, 20, 0) != 1) return 0;
    return letters ? 99 : 75;
}
