/* National numbers of the Nordic and the Baltic countries. */
#include "data/detect/ids_check.h"

#include <string.h>

/* Sweden: YYMMDD NNN C or YYYYMMDD NNN C, Luhn over the last ten; samordningsnummer have 60 added to the day. */
int ids_se_pnr(const char *s, size_t n) {
    if ((n != 10 && n != 12) || !all_digits(s, n)) return 0;
    const char *p = s + n - 10;
    int month = two(p + 2), day = two(p + 4);
    if (day > 60) day -= 60;
    if (n == 12) {
        int century = two(s);
        if (century < 18 || century > 20 || !ids_date(century * 100 + two(p), month, day)) return 0;
    } else if (!ids_date_short(two(p), month, day)) {
        return 0;
    }
    return ids_luhn(p, 10) ? 99 : 0;
}

/* Finland: DDMMYY, a sign of the century, three digits, a character of 31. The compact form has lost '-' and '+', so
 * ten characters mean one of those; letters are A (2000), since 2023 B to F (2000) and U to Y (1900). */
int ids_fi_hetu(const char *s, size_t n) {
    if ((n != 10 && n != 11) || !all_digits(s, 6) || !all_digits(s + n - 4, 3)) return 0;
    bool sign = n == 10;
    if (!sign && !(s[6] >= 'A' && s[6] <= 'F') && !(s[6] >= 'U' && s[6] <= 'Y')) return 0;
    int century = !sign && s[6] <= 'F' ? 2000 : 1900; /* '+' means 1800, which has the same days */
    if (!ids_date(century + two(s + 4), two(s + 2), two(s))) return 0;
    uint64_t serial = number(s + n - 4, 3);
    if (serial < 2) return 0;
    return s[n - 1] == "0123456789ABCDEFHJKLMNPRSTUVWXY"[(number(s, 6) * 1000 + serial) % 31] ? 99 : 0;
}

/* Denmark: DDMMYY-SSSS. The first serial digit with the year tells the century. Numbers given since 2007 need not
 * satisfy modulo 11, so it only adds. */
int ids_dk_cpr(const char *s, size_t n) {
    if (n != 10 || !all_digits(s, n)) return 0;
    int year = two(s + 4), century = s[6] - '0';
    if (century <= 3)
        year += 1900;
    else if (century == 4 || century == 9)
        year += year >= 37 ? 1900 : 2000;
    else
        year += year >= 58 ? 1800 : 2000;
    if (!ids_date(year, two(s + 2), two(s))) return 0;
    return weighted(s, "\4\3\2\7\6\5\4\3\2\1", 10) % 11 == 0 ? 99 : 96;
}

/* Norway: DDMMYY, three digits, two check digits. D numbers have 40 added to the day; H numbers 40 to the month,
 * synthetic ones 80 (or 65); FH numbers (day from 80 on) hold no date. Which centuries the three digits stood for is
 * not asked: from 2032 they stand for none. */
int ids_no_fnr(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n)) return 0;
    if (weighted(s, "\3\7\6\1\x8\x9\4\5\2\1", 10) % 11 != 0) return 0;
    if (weighted(s, "\5\4\3\2\7\6\5\4\3\2\1", 11) % 11 != 0) return 0;
    int day = two(s), month = two(s + 2);
    if (day >= 80) return 98;
    if (day > 40) day -= 40;
    if (month > 80)
        month -= 80;
    else if (month > 65)
        month -= 65;
    else if (month > 40)
        month -= 40;
    return ids_date_short(two(s + 4), month, day) ? 99 : 0;
}

/* Estonia and Lithuania: century and sex, YYMMDD, three digits, modulo 11 in two rounds. Lithuania gives numbers that
 * begin with 9 and hold no certain date. */
int ids_lt_ee(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n) || s[0] == '0') return 0;
    int century = 1800 + (s[0] - '1') / 2 * 100;
    bool dated = s[0] != '9';
    if (dated && !ids_date(century + two(s + 1), two(s + 3), two(s + 5))) return 0;
    int check = weighted(s, "\1\2\3\4\5\6\7\x8\x9\1", 10) % 11;
    if (check == 10) check = weighted(s, "\3\4\5\6\7\x8\x9\1\2\3", 10) % 11 % 10;
    if (check != s[10] - '0') return 0;
    return dated && s[0] <= '6' ? 99 : 90; /* 7 and 8 are for those born from 2100 on */
}

/* Latvia: DDMMYY, century (0 to 2), serial, check; since 2017 numbers that begin with 32 and hold nothing to check. */
int ids_lv_pk(const char *s, size_t n) {
    if (n != 11 || !all_digits(s, n)) return 0;
    if (s[0] == '3' && s[1] == '2') return 90; /* of random numbers the first two digits reject more */
    if (s[6] > '2' || !ids_date(1800 + (s[6] - '0') * 100 + two(s + 4), two(s + 2), two(s))) return 0;
    return (1101 - weighted(s, "\1\6\3\7\x9\xA\5\x8\4\2", 10)) % 11 % 10 == s[10] - '0' ? 99 : 0;
}
