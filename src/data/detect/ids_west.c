/* National numbers of France, the Benelux, Germany, Austria, Switzerland, Ireland and the United Kingdom. */
#include "data/detect/ids_check.h"

#include <string.h>

/* France: companies (SIREN, 9) and their places (SIRET, 14: the SIREN and five digits). La Poste's places have more
 * than Luhn's digit can tell apart: there the sum of all digits is a multiple of five. */
int ids_fr_siren(const char *s, size_t n) {
    return n == 9 && all_digits(s, n) && ids_luhn(s, n) ? 90 : 0;
}

int ids_fr_siret(const char *s, size_t n) {
    if (n != 14 || !all_digits(s, n) || !ids_luhn(s, 9)) return 0;
    if (memcmp(s, "356000000", 9) == 0 && memcmp(s, "35600000000048", 14) != 0)
        return weighted(s, "\1\1\1\1\1\1\1\1\1\1\1\1\1\1", 14) % 5 == 0 ? 99 : 0;
    return ids_luhn(s, n) ? 99 : 0;
}

/* France: sex, year, month, place of birth (2A and 2B for Corsica, counted as 19 and 18), order, key = 97 - N mod 97.
 * Months 20 to 42 and 50 to 99 stand for civil records that tell none; sexes 3, 4, 7, 8 are for numbers that wait. */
int ids_fr_nir(const char *s, size_t n) {
    if (n != 15 || !all_digits(s, 5) || !all_digits(s + 7, 8)) return 0;
    if (s[0] == '0' || s[0] == '5' || s[0] == '6' || s[0] == '9') return 0;
    int month = two(s + 3);
    if (month < 1 || (month > 12 && month < 20) || (month > 42 && month < 50)) return 0;
    int place;
    if (s[5] == '2' && (s[6] == 'A' || s[6] == 'B'))
        place = s[6] == 'A' ? 19 : 18;
    else if (all_digits(s + 5, 2))
        place = two(s + 5);
    else
        return 0;
    uint64_t v = (number(s, 5) * 100 + (unsigned)place) * 1000000 + number(s + 7, 6);
    return 97 - v % 97 == (unsigned)two(s + 13) ? 99 : 0;
}

/* The same without its key, as many write it: only sex, month and department can be looked at. */
int ids_fr_nir_open(const char *s, size_t n) {
    if (n != 13 || !all_digits(s, 5) || !all_digits(s + 7, 6) || !s[0] || !strchr("1278", s[0])) return 0;
    int month = two(s + 3);
    if (month < 1 || month > 12 || number(s + 7, 3) == 0 || number(s + 10, 3) == 0) return 0;
    if (s[5] == '2' && (s[6] == 'A' || s[6] == 'B')) return 95;
    return all_digits(s + 5, 2) && two(s + 5) > 0 && two(s + 5) != 96 ? 95 : 0;
}

/* Germany, tax number of a person: of the first ten digits exactly one occurs twice or three times (three times never
 * in a row), the others at most once; ISO 7064 modulus 11, 10. */
int ids_de_tax(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n) || s[0] == '0') return 0;
    int count[10] = {0}, repeated = -1;
    for (size_t i = 0; i < 10; i++) count[s[i] - '0']++;
    for (int d = 0; d < 10; d++) {
        if (count[d] < 2) continue;
        if (repeated >= 0 || count[d] > 3) return 0;
        repeated = d;
    }
    if (repeated < 0) return 0;
    if (count[repeated] == 3) {
        for (size_t i = 0; i + 2 < 10; i++)
            if (s[i] == s[i + 1] && s[i] == s[i + 2]) return 0;
    }
    return ids_mod_11_10(s, n) ? 99 : 0;
}

/* Sum of the digits of each product. */
static int digit_sums(const char *digits, const char *weights, size_t n) {
    int sum = 0;
    for (size_t i = 0; i < n; i++) {
        int p = (digits[i] - '0') * weights[i];
        sum += p / 10 + p % 10;
    }
    return sum;
}

/* Germany, social insurance: area, DDMMYY, first letter of the name at birth, serial, check digit. The letter counts as
 * two digits. Where the date of birth is not proven its day or month may be 00. */
int ids_de_social(const char *s, size_t n) {
    if (n != 12 || !all_digits(s, 8) || !is_capital(s[8]) || !all_digits(s + 9, 3)) return 0;
    int day = two(s + 2), month = two(s + 4);
    if (!ids_date_short(two(s + 6), month ? month : 1, day ? day : 1)) return 0;
    char d[12];
    memcpy(d, s, 8);
    int letter = s[8] - 'A' + 1;
    d[8] = (char)('0' + letter / 10), d[9] = (char)('0' + letter % 10);
    memcpy(d + 10, s + 9, 2);
    return digit_sums(d, "\2\1\2\5\7\1\2\1\2\1\2\1", 12) % 10 == s[11] - '0' ? 99 : 0;
}

/* Germany, health insurance (the part that never changes): letter, eight digits, check digit. */
int ids_de_health(const char *s, size_t n) {
    if (n != 10 || !is_capital(s[0]) || !all_digits(s + 1, 9)) return 0;
    char d[10];
    int letter = s[0] - 'A' + 1;
    d[0] = (char)('0' + letter / 10), d[1] = (char)('0' + letter % 10);
    memcpy(d + 2, s + 1, 8);
    return digit_sums(d, "\1\2\1\2\1\2\1\2\1\2", 10) % 10 == s[9] - '0' ? 90 : 0;
}

/* Germany, identity card and passport: authority's letter, eight characters of an alphabet without vowels and
 * look-alikes, ICAO 9303's check digit (weights 7, 3, 1), which the card prints apart: nine characters alone prove
 * little. */
int ids_de_idcard(const char *s, size_t n) {
    if ((n != 9 && n != 10) || !s[0] || !strchr("CFGHJKLMNPRTVWXYZ", s[0])) return 0;
    int sum = 0, digits = 0;
    for (size_t i = 0; i < 9; i++) {
        if (!s[i] || !strchr("0123456789CFGHJKLMNPRTVWXYZ", s[i])) return 0;
        bool d = is_digit(s[i]);
        digits += d;
        sum += (d ? s[i] - '0' : s[i] - 'A' + 10) * "\7\3\1"[i % 3];
    }
    if (digits == 0) return 0; /* a word */
    if (n == 9) return 60;
    return is_digit(s[9]) && sum % 10 == s[9] - '0' ? 90 : 0;
}

/* The Netherlands: the eleven test, the last digit with weight -1. */
int ids_nl_bsn(const char *s, size_t n) {
    if (n != 9 || !all_digits(s, n) || number(s, 9) == 0) return 0;
    return (weighted(s, "\x9\x8\7\6\5\4\3\2", 8) - (s[8] - '0')) % 11 == 0 ? 91 : 0;
}

/* Belgium: YYMMDD, serial, 97 - N mod 97, with a 2 before N for those born from 2000 on. BIS numbers have 20 or 40
 * added to the month; month 0 is a date that nobody knows, its day a counter. */
int ids_be_niss(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n)) return 0;
    int month = two(s + 2), day = two(s + 4);
    if (month > 52) return 0;
    month %= 20;
    if (month > 12 || (month != 0 && day != 0 && !ids_date_short(two(s), month, day))) return 0;
    uint64_t v = number(s, 9), check = (uint64_t)two(s + 9);
    if (v == 0) return 0;
    return 97 - v % 97 == check || 97 - (2000000000 + v) % 97 == check ? 99 : 0;
}

/* Verhoeff's check over digits of which the last is the check digit: tables of the dihedral group of order ten. */
static bool verhoeff(const char *s, size_t n) {
    static const char times[10][11] = {"0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
                                       "5987604321", "6598710432", "7659821043", "8765932104", "9876543210"};
    static const char permuted[8][11] = {"0123456789", "1576283094", "5803796142", "8916043527",
                                         "9453126870", "4286573901", "2793806415", "7046913258"};
    int c = 0;
    for (size_t i = 0; i < n; i++) c = times[c][permuted[i % 8][s[n - 1 - i] - '0'] - '0'] - '0';
    return c == 0;
}

/* Luxembourg: YYYYMMDD, serial of three, then Luhn's and Verhoeff's digit, each over the first eleven. */
int ids_lu_id(const char *s, size_t n) {
    if (n != 13 || !all_digits(s, n)) return 0;
    int year = (int)number(s, 4);
    if (year < 1800 || year > 2099 || !ids_date(year, two(s + 4), two(s + 6)) || !ids_luhn(s, 12)) return 0;
    char d[12];
    memcpy(d, s, 11);
    d[11] = s[12];
    return verhoeff(d, 12) ? 99 : 0;
}

/* Austria: serial of three, check digit, DDMMYY. Where all serials of a day were used, the month goes on to 13, 14, 15.
 */
int ids_at_svnr(const char *s, size_t n) {
    if (n != 10 || !all_digits(s, n) || s[0] == '0') return 0;
    int month = two(s + 6), day = two(s + 4);
    if (month >= 13 && month <= 15 ? day < 1 || day > 31 : !ids_date_short(two(s + 8), month, day)) return 0;
    int check = (weighted(s, "\3\7\x9", 3) + weighted(s + 4, "\5\x8\4\2\1\6", 6)) % 11;
    return check == s[3] - '0' ? 99 : 0;
}

/* Switzerland: 756 and ten digits, the check digit of EAN-13. */
int ids_ch_ahv(const char *s, size_t n) {
    if (n != 13 || !all_digits(s, n) || memcmp(s, "756", 3) != 0) return 0;
    return weighted(s, "\1\3\1\3\1\3\1\3\1\3\1\3\1", 13) % 10 == 0 ? 99 : 0;
}

/* Ireland: seven digits, a check letter of 23, perhaps one more: A and H (since 2013) count, W, T, X do not. */
int ids_ie_pps(const char *s, size_t n) {
    if ((n != 8 && n != 9) || !all_digits(s, 7)) return 0;
    int sum = weighted(s, "\x8\7\6\5\4\3\2", 7);
    if (n == 9) {
        if (!s[8] || !strchr("AHWTX", s[8])) return 0;
        if (s[8] == 'A' || s[8] == 'H') sum += 9 * (s[8] - 'A' + 1);
    }
    return s[7] == "WABCDEFGHIJKLMNOPQRSTUV"[sum % 23] ? 96 : 0;
}

/* United Kingdom: NHS number of England, Wales and Man, modulus 11. */
int ids_uk_nhs(const char *s, size_t n) {
    if (n != 10 || !all_digits(s, n)) return 0;
    return weighted(s, "\xA\x9\x8\7\6\5\4\3\2\1", 10) % 11 == 0 ? 91 : 0;
}

/* United Kingdom: National Insurance. Two letters, six digits, A to D; no check digit, but letters and pairs that are
 * never given. */
int ids_uk_nino(const char *s, size_t n) {
    if (n != 9 || !is_capital(s[0]) || !is_capital(s[1]) || !all_digits(s + 2, 6)) return 0;
    if (s[8] < 'A' || s[8] > 'D' || strchr("DFIQUV", s[0]) || strchr("DFIOQUV", s[1])) return 0;
    static const char never[] = "BG GB KN NK NT TN ZZ";
    for (const char *p = never; *p; p += p[2] ? 3 : 2)
        if (p[0] == s[0] && p[1] == s[1]) return 0;
    return 92;
}
