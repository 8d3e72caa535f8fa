/* National numbers of Poland, Czechia, Slovakia, Hungary, Romania, Bulgaria, Slovenia and Croatia. */
#include "data/detect/ids_check.h"

/* Poland: YYMMDD with the century in the month (+80, 0, +20, +40, +60), serial, weights 1, 3, 7, 9. */
int ids_pl_pesel(const char *s, size_t n) {
    static const int centuries[] = {1900, 2000, 2100, 2200, 1800};
    if (n != 11 || !all_digits(s, n)) return 0;
    int month = two(s + 2);
    if (!ids_date(centuries[month / 20] + two(s), month % 20, two(s + 4))) return 0;
    if (weighted(s, "\1\3\7\x9\1\3\7\x9\1\3\1", 11) % 10 != 0) return 0;
    return month > 40 && month < 80 ? 90 : 98; /* born after 2100: as likely another number */
}

/* Czechia and Slovakia: YYMMDD (women +50 to the month; +20 where a day's serials were used up), serial, check. Until
 * 1953 nine digits without a check; with ten the whole is a multiple of 11, and until 1984 a remainder of 10 was 0. */
int ids_cz_rc(const char *s, size_t n) {
    if ((n != 9 && n != 10) || !all_digits(s, n)) return 0;
    int year = two(s), month = two(s + 2);
    if (month > 50) month -= 50;
    if (month > 20) month -= 20;
    if (n == 9) {
        if (year >= 80)
            year += 1800;
        else if (year <= 53)
            year += 1900;
        else
            return 0;
        return ids_date(year, month, two(s + 4)) ? 89 : 0;
    }
    year += year < 54 ? 2000 : 1900;
    if (!ids_date(year, month, two(s + 4))) return 0;
    int check = (int)(number(s, 9) % 11);
    if (check == 10 && year < 1985) check = 0;
    return check == s[9] - '0' ? 98 : 0;
}

/* Hungary, social insurance: weights 3 and 7 in turn. */
int ids_hu_taj(const char *s, size_t n) {
    if (n != 9 || !all_digits(s, n) || number(s, 9) == 0) return 0;
    return weighted(s, "\3\7\3\7\3\7\3\7", 8) % 10 == s[8] - '0' ? 90 : 0;
}

/* Romania: sex and century, YYMMDD, county, serial, modulo 11 (10 counts as 1). Residents (7, 8) and foreigners (9)
 * tell no century. */
int ids_ro_cnp(const char *s, size_t n) {
    if (n != 13 || !all_digits(s, n) || s[0] == '0') return 0;
    int year = two(s + 1), month = two(s + 3), day = two(s + 5);
    static const int centuries[] = {0, 1900, 1900, 1800, 1800, 2000, 2000};
    if (s[0] <= '6' ? !ids_date(centuries[s[0] - '0'] + year, month, day) : !ids_date_short(year, month, day)) return 0;
    int check = weighted(s, "\2\7\x9\1\4\6\3\5\x8\2\7\x9", 12) % 11;
    return (check == 10 ? 1 : check) == s[12] - '0' ? 99 : 0;
}

/* Bulgaria: YYMMDD with the century in the month (+20, 0, +40), serial, modulo 11 (10 counts as 0). */
int ids_bg_egn(const char *s, size_t n) {
    if (n != 10 || !all_digits(s, n)) return 0;
    int year = 1900 + two(s), month = two(s + 2);
    if (month > 40)
        month -= 40, year += 100;
    else if (month > 20)
        month -= 20, year -= 100;
    if (!ids_date(year, month, two(s + 4))) return 0;
    return weighted(s, "\2\4\x8\5\xA\x9\7\3\6", 9) % 11 % 10 == s[9] - '0' ? 99 : 0;
}

/* Bulgaria, foreigners: ten digits, weights 21, 19, 17, 13, 11, 9, 7, 3, 1, modulo 10. */
int ids_bg_lnc(const char *s, size_t n) {
    if (n != 10 || !all_digits(s, n)) return 0;
    return weighted(s, "\x15\x13\x11\xD\xB\x9\7\3\1", 9) % 10 == s[9] - '0' ? 90 : 0;
}

/* Slovenia (and what was Yugoslavia): DDMMYYY, region, serial, modulo 11. */
int ids_si_emso(const char *s, size_t n) {
    if (n != 13 || !all_digits(s, n)) return 0;
    int year = (int)number(s + 4, 3);
    if (!ids_date(year + (year < 800 ? 2000 : 1000), two(s + 2), two(s))) return 0;
    return (11 - weighted(s, "\7\6\5\4\3\2\7\6\5\4\3\2", 12) % 11) % 11 % 10 == s[12] - '0' ? 99 : 0;
}

/* Croatia: ISO 7064 modulus 11, 10 over eleven digits. */
int ids_hr_oib(const char *s, size_t n) {
    return n == 11 && all_digits(s, n) && ids_mod_11_10(s, n) ? 90 : 0;
}
