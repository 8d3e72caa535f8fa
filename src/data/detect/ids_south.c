/* National numbers of Spain, Portugal, Italy, Malta, Cyprus and Greece. */
#include "data/detect/ids_check.h"

#include <string.h>

static const char dni_letters[] = "TRWAGMYFPDXBNJZSQVHLCKE";

/* Spain: eight digits and a letter of 23; K, L or M and seven digits for those who have no DNI. */
int ids_es_dni(const char *s, size_t n) {
    if (n != 9 || !all_digits(s + 1, 7)) return 0;
    if (is_digit(s[0])) return s[8] == dni_letters[number(s, 8) % 23] ? 96 : 0;
    if (s[0] != 'K' && s[0] != 'L' && s[0] != 'M') return 0;
    return s[8] == dni_letters[number(s + 1, 7) % 23] ? 96 : 0;
}

/* Spain, foreigners: X, Y, Z count as 0, 1, 2 before seven digits. */
int ids_es_nie(const char *s, size_t n) {
    if (n != 9 || s[0] < 'X' || s[0] > 'Z' || !all_digits(s + 1, 7)) return 0;
    return s[8] == dni_letters[((uint64_t)(s[0] - 'X') * 10000000 + number(s + 1, 7)) % 23] ? 96 : 0;
}

/* Portugal: weights 9 to 2; a check digit of 10 or 11 is 0. */
int ids_pt_nif(const char *s, size_t n) {
    if (n != 9 || !all_digits(s, n) || s[0] == '0') return 0;
    return (11 - weighted(s, "\x9\x8\7\6\5\4\3\2", 8) % 11) % 11 % 10 == s[8] - '0' ? 90 : 0;
}

/* Portugal, document number of the citizen card: nine digits, a version of two characters, a check digit: Luhn with
 * letters as 10 to 35, doubled in every second place from the right, less 9 where it passes 9. */
int ids_pt_cc(const char *s, size_t n) {
    if (n != 12 || !all_digits(s, 9) || !is_digit(s[11])) return 0;
    int sum = 0;
    for (size_t i = 0; i < 12; i++) {
        if (!is_digit(s[i]) && !is_capital(s[i])) return 0;
        int v = is_digit(s[i]) ? s[i] - '0' : s[i] - 'A' + 10;
        if (i % 2 == 0) v = v * 2 > 9 ? v * 2 - 9 : v * 2;
        sum += v;
    }
    if (is_digit(s[9]) && is_digit(s[10])) return sum % 10 == 0 ? 75 : 0; /* then twelve digits of any kind */
    return sum % 10 == 0 ? 90 : 0;
}

/* Italy, digits of a fiscal code: where two persons would have the same, digits become letters (omocodia). */
static int cf_digit(char c) {
    if (is_digit(c)) return c - '0';
    const char *p = c ? strchr("LMNPQRSTUV", c) : NULL;
    return p ? (int)(p - "LMNPQRSTUV") : -1;
}

/* Italy: three letters of the surname, three of the name, year, month's letter, day (women +40), place, check letter.
 */
int ids_it_cf(const char *s, size_t n) {
    static const uint8_t odd[36] = {1,  0,  5,  7,  9,  13, 15, 17, 19, 21,                                /* 0 to 9 */
                                    1,  0,  5,  7,  9,  13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, /* A to S */
                                    14, 16, 10, 22, 25, 24, 23};                                           /* T to Z */
    if (n != 16) return 0;
    for (size_t i = 0; i < 6; i++)
        if (!is_capital(s[i])) return 0;
    if (!is_capital(s[11]) || !is_capital(s[15])) return 0;
    static const uint8_t digits[] = {6, 7, 9, 10, 12, 13, 14};
    int d[7];
    for (size_t i = 0; i < 7; i++)
        if ((d[i] = cf_digit(s[digits[i]])) < 0) return 0;
    static const char months[] = "ABCDEHLMPRST";
    const char *month = s[8] ? strchr(months, s[8]) : NULL;
    int day = d[2] * 10 + d[3];
    if (!month || !ids_date_short(d[0] * 10 + d[1], (int)(month - months) + 1, day > 40 ? day - 40 : day)) return 0;
    unsigned sum = 0;
    for (size_t i = 0; i < 15; i++) {
        unsigned v = is_digit(s[i]) ? (unsigned)(s[i] - '0') : (unsigned)(s[i] - 'A') + 10;
        if (i % 2 == 0)
            sum += odd[v];
        else
            sum += v < 10 ? v : v - 10;
    }
    return s[15] == (char)('A' + sum % 26) ? 99 : 0;
}

/* Italy, companies: seven digits, the office (001 to 100, 120, 121, 888, 999), Luhn. */
int ids_it_iva(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n) || number(s, 7) == 0) return 0;
    uint64_t office = number(s + 7, 3);
    if (office < 1 || (office > 100 && office != 120 && office != 121 && office != 888 && office != 999)) return 0;
    return ids_luhn(s, n) ? 99 : 0;
}

/* Malta: digits (zeros in front may be left out) and a letter that tells the register. */
int ids_mt_id(const char *s, size_t n) {
    if ((n != 7 && n != 8) || !all_digits(s, n - 1) || number(s, n - 1) == 0) return 0;
    return s[n - 1] && strchr("ABGHLMPZ", s[n - 1]) ? 69 : 0;
}

/* Cyprus: eight digits, of which those in odd places stand for others, and a letter of 26; 12 never begins one. */
int ids_cy_tic(const char *s, size_t n) {
    if (n != 9 || !all_digits(s, 8) || (s[0] == '1' && s[1] == '2')) return 0;
    int sum = 0;
    for (size_t i = 0; i < 8; i++) sum += i % 2 ? s[i] - '0' : "\1\0\5\7\x9\xD\xF\x11\x13\x15"[s[i] - '0'];
    return s[8] == (char)('A' + sum % 26) ? 96 : 0;
}

/* Greece, social insurance: DDMMYY, serial, Luhn. */
int ids_gr_amka(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n) || !ids_date_short(two(s + 4), two(s + 2), two(s))) return 0;
    return ids_luhn(s, n) ? 99 : 0;
}

/* Greece, tax: digits times powers of two, modulo 11, 10 counts as 0. */
int ids_gr_afm(const char *s, size_t n) {
    if (n != 9 || !all_digits(s, n)) return 0;
    int sum = 0;
    for (size_t i = 0; i < 8; i++) sum += (s[i] - '0') << (8 - i);
    return sum % 11 % 10 == s[8] - '0' && number(s, 9) != 0 ? 90 : 0;
}
