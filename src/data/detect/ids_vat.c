/* VAT numbers of the EU's members, Northern Ireland, the United Kingdom, Switzerland and Norway: the country's letters
 * and what the country made of it. Most check digits are those of the country's company numbers. */
#include "data/detect/ids_check.h"

#include <string.h>

/* Each gets what stands behind the country's letters and gives the contract of id_rule.check. */
#define RULE(cc)      static int vat_##cc(const char *s, size_t n)
#define DIGITS(count) (n == (count) && all_digits(s, n))

RULE(at) { /* U and eight digits: sums as Luhn's over seven, check = (6 - sum) mod 10 */
    if (n != 9 || s[0] != 'U' || !all_digits(s + 1, 8)) return 0;
    int sum = 0;
    for (size_t i = 1; i < 8; i++) {
        int d = (s[i] - '0') * (i % 2 ? 1 : 2);
        sum += d / 10 + d % 10;
    }
    return (96 - sum) % 10 == s[8] - '0' ? 90 : 0;
}

RULE(be) { /* ten digits: 97 - first eight mod 97 */
    if (!DIGITS(10) || number(s, 10) == 0) return 0;
    return (number(s, 8) + number(s + 8, 2)) % 97 == 0 ? 99 : 0;
}

RULE(bg) { /* nine digits: companies, two rounds of modulo 11; ten: persons, foreigners, others */
    if (DIGITS(9)) {
        int check = weighted(s, "\1\2\3\4\5\6\7\x8", 8) % 11;
        if (check == 10) check = weighted(s, "\3\4\5\6\7\x8\x9\xA", 8) % 11 % 10;
        return check == s[8] - '0' ? 90 : 0;
    }
    if (!DIGITS(10)) return 0;
    int other = (11 - weighted(s, "\4\3\2\7\6\5\4\3\2", 9) % 11) % 11;
    return other == s[9] - '0' || ids_bg_lnc(s, n) || ids_bg_egn(s, n) ? 80 : 0;
}

RULE(cy) {
    return ids_cy_tic(s, n);
}

RULE(cz) { /* eight digits: companies; nine with a 6 in front: others; else a rodné číslo */
    if (DIGITS(8)) {
        int check = (11 - weighted(s, "\x8\7\6\5\4\3\2", 7) % 11) % 11;
        return s[0] != '9' && (check ? check : 1) % 10 == s[7] - '0' ? 90 : 0;
    }
    if (DIGITS(9) && s[0] == '6') {
        int sum = weighted(s + 1, "\x8\7\6\5\4\3\2", 7) % 11;
        return (8 - (10 - sum + 11) % 11 + 10) % 10 == s[8] - '0' ? 90 : 0;
    }
    return ids_cz_rc(s, n);
}

RULE(de) {
    return DIGITS(9) && s[0] != '0' && ids_mod_11_10(s, n) ? 90 : 0;
}

RULE(dk) {
    return DIGITS(8) && s[0] != '0' && weighted(s, "\2\7\6\5\4\3\2\1", 8) % 11 == 0 ? 91 : 0;
}

RULE(ee) {
    return DIGITS(9) && weighted(s, "\3\7\1\3\7\1\3\7\1", 9) % 10 == 0 ? 90 : 0;
}

RULE(el) {
    return ids_gr_afm(s, n);
}

/* Spain's companies: a letter of the legal form, seven digits, and Luhn's digit over them or the letter that stands for
 * it. Which forms use which is told differently by different sources, so either is taken. */
static int es_company(const char *s, size_t n) {
    if (n != 9 || !s[0] || !strchr("ABCDEFGHJNPQRSUVW", s[0]) || !all_digits(s + 1, 7)) return 0;
    char digits[8];
    memcpy(digits, s + 1, 7);
    for (int check = 0; check < 10; check++) {
        digits[7] = (char)('0' + check);
        if (ids_luhn(digits, 8)) return s[8] == digits[7] || s[8] == "JABCDEFGHI"[check] ? 90 : 0;
    }
    return 0;
}

RULE(es) {
    int strength = es_company(s, n);
    if (!strength) strength = ids_es_dni(s, n);
    return strength ? strength : ids_es_nie(s, n);
}

RULE(fi) {
    return DIGITS(8) && weighted(s, "\7\x9\xA\5\x8\4\2\1", 8) % 11 == 0 ? 91 : 0;
}

/* France: two characters and the SIREN (Monaco's begin with 000 and are none). Two digits are (SIREN·100 + 12) mod 97;
 * with a letter among them the pair counts in base 24 or 34, and what is left of eleven must agree. */
RULE(fr) {
    static const char alphabet[] = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    if (n != 11 || !all_digits(s + 2, 9)) return 0;
    const char *a = s[0] ? strchr(alphabet, s[0]) : NULL, *b = s[1] ? strchr(alphabet, s[1]) : NULL;
    if (!a || !b) return 0;
    if (memcmp(s + 2, "000", 3) != 0 && !ids_luhn(s + 2, 9)) return 0;
    uint64_t siren = number(s + 2, 9);
    if (is_digit(s[0]) && is_digit(s[1])) return (siren * 100 + 12) % 97 == (unsigned)two(s) ? 99 : 0;
    int pair = is_digit(s[0]) ? (int)(a - alphabet) * 24 + (int)(b - alphabet) - 10
                              : (int)(a - alphabet) * 34 + (int)(b - alphabet) - 100;
    return (siren + 1 + (unsigned)pair / 11) % 11 == (unsigned)pair % 11 ? 99 : 0;
}

RULE(hr) {
    return ids_hr_oib(s, n);
}

RULE(hu) {
    return DIGITS(8) && weighted(s, "\x9\7\3\1\x9\7\3\1", 8) % 10 == 0 ? 90 : 0;
}

RULE(ie) { /* as the PPS number; until 2013 also a digit, a letter, five digits, the check letter */
    static const char letters[] = "WABCDEFGHIJKLMNOPQRSTUV";
    if ((n != 8 && n != 9) || !is_digit(s[0]) || !all_digits(s + 2, 5)) return 0;
    if (is_digit(s[1])) {
        int sum = weighted(s, "\x8\7\6\5\4\3\2", 7);
        if (n == 9) {
            const char *last = s[8] ? strchr(letters, s[8]) : NULL;
            if (!last) return 0;
            sum += 9 * (int)(last - letters);
        }
        return s[7] == letters[sum % 23] ? 96 : 0;
    }
    if (n != 8 || !is_capital(s[1])) return 0;
    return s[7] == letters[(weighted(s + 2, "\7\6\5\4\3", 5) + (s[0] - '0') * 2) % 23] ? 96 : 0;
}

RULE(it) {
    return ids_it_iva(s, n);
}

RULE(lt) { /* nine digits: companies; twelve: others; a 1 before the check digit; two rounds of modulo 11 */
    if ((n != 9 && n != 12) || !all_digits(s, n) || s[n - 2] != '1') return 0;
    int first = weighted(s, "\1\2\3\4\5\6\7\x8\x9\1\2", n - 1) % 11;
    if (first == 10) first = weighted(s, "\3\4\5\6\7\x8\x9\1\2\3\4", n - 1) % 11 % 10;
    return first == s[n - 1] - '0' ? 99 : 0;
}

RULE(lu) {
    return DIGITS(8) && number(s, 6) % 89 == number(s + 6, 2) ? 99 : 0;
}

RULE(lv) { /* companies begin with 4 and up, persons have their number */
    if (!DIGITS(11)) return 0;
    if (s[0] <= '3') return ids_lv_pk(s, n);
    return weighted(s, "\x9\1\4\x8\3\xA\2\5\7\6\1", 11) % 11 == 3 ? 91 : 0;
}

RULE(mt) {
    return DIGITS(8) && s[0] != '0' && weighted(s, "\3\4\6\7\x8\x9\xA\1", 8) % 37 == 0 ? 97 : 0;
}

RULE(nl) { /* nine digits, B, two digits: the old ones hold a BSN or RSIN, since 2020 modulo 97 over the whole */
    if (n != 12 || !all_digits(s, 9) || s[9] != 'B' || !all_digits(s + 10, 2)) return 0;
    if (number(s, 9) == 0 || two(s + 10) == 0) return 0;
    return ids_nl_bsn(s, 9) || ids_mod97(s, 12, 2321) == 1 ? 90 : 0; /* 2321: NL */
}

RULE(pl) {
    return DIGITS(10) && weighted(s, "\6\5\7\2\3\4\5\6\7", 9) % 11 == s[9] - '0' ? 91 : 0;
}

RULE(pt) {
    return ids_pt_nif(s, n);
}

RULE(ro) { /* two to ten digits, modulo 11; short ones say little. A CNP may stand here too */
    if (n == 13) return ids_ro_cnp(s, n);
    if (n < 2 || n > 10 || !all_digits(s, n) || s[0] == '0') return 0;
    static const char weights[] = "\7\5\3\2\1\7\5\3\2";
    int sum = weighted(s, weights + (10 - n), n - 1);
    return sum * 10 % 11 % 10 == s[n - 1] - '0' ? (n >= 6 ? 90 : 70) : 0;
}

RULE(se) {
    return DIGITS(12) && s[10] == '0' && s[11] == '1' && ids_luhn(s, 10) ? 99 : 0;
}

RULE(si) {
    if (!DIGITS(8) || s[0] == '0') return 0;
    int check = 11 - weighted(s, "\x8\7\6\5\4\3\2", 7) % 11;
    return (check == 10 ? 0 : check) == s[7] - '0' ? 91 : 0;
}

RULE(sk) { /* a multiple of 11 whose third digit no birth number has; or a birth number */
    if (!DIGITS(10)) return 0;
    if (ids_cz_rc(s, n)) return 90;
    return s[0] != '0' && strchr("234789", s[2]) && number(s, 10) % 11 == 0 ? 91 : 0;
}

/* United Kingdom: nine digits, modulo 97 in an old and a newer way, perhaps three of a branch; GD and HA for the
 * state's departments and hospitals. */
RULE(gb) {
    if (n == 5 || (n == 11 && memcmp(s + 2, "8888", 4) == 0)) {
        const char *p = n == 5 ? s + 2 : s + 6;
        if (!all_digits(p, n - (size_t)(p - s))) return 0;
        bool department = s[0] == 'G' && s[1] == 'D' && p[0] < '5',
             hospital = s[0] == 'H' && s[1] == 'A' && p[0] >= '5';
        if (!department && !hospital) return 0;
        return n == 5 ? 70 : number(p, 3) % 97 == (unsigned)two(p + 3) ? 99 : 0;
    }
    if ((n != 9 && n != 12) || !all_digits(s, n)) return 0;
    int rest = (weighted(s, "\x8\7\6\5\4\3\2\xA\1", 9)) % 97;
    return rest == 0 || (s[0] != '0' && (rest == 42 || rest == 55)) ? 96 : 0;
}

/* Switzerland: E, nine digits (weights 5, 4, 3, 2, 7, 6, 5, 4, modulo 11), and the tax's name in one of its languages.
 */
RULE(ch) {
    if (n < 10 || s[0] != 'E' || !all_digits(s + 1, 9)) return 0;
    if (n > 10) {
        static const char *const taxes[] = {"MWST", "TVA", "IVA", "TPV"};
        bool known = false;
        for (size_t i = 0; i < 4; i++) known |= n - 10 == strlen(taxes[i]) && memcmp(s + 10, taxes[i], n - 10) == 0;
        if (!known) return 0;
    }
    return (11 - weighted(s + 1, "\5\4\3\2\7\6\5\4", 8) % 11) % 11 == s[9] - '0' ? 91 : 0;
}

/* Norway: nine digits, modulo 11, MVA behind or NO in front, mostly both. */
RULE(no) {
    if (n != 9 && !(n == 12 && memcmp(s + 9, "MVA", 3) == 0)) return 0;
    return all_digits(s, 9) && weighted(s, "\3\2\7\6\5\4\3\2\1", 9) % 11 == 0 ? 91 : 0;
}

static const struct {
    char letters[3];
    int (*check)(const char *s, size_t n);
} countries[] = {
    {"AT", vat_at}, {"BE", vat_be}, {"BG", vat_bg}, {"CH", vat_ch}, {"CY", vat_cy}, {"CZ", vat_cz}, {"DE", vat_de},
    {"DK", vat_dk}, {"EE", vat_ee}, {"EL", vat_el}, {"ES", vat_es}, {"FI", vat_fi}, {"FR", vat_fr}, {"GB", vat_gb},
    {"HR", vat_hr}, {"HU", vat_hu}, {"IE", vat_ie}, {"IT", vat_it}, {"LT", vat_lt}, {"LU", vat_lu}, {"LV", vat_lv},
    {"MT", vat_mt}, {"NL", vat_nl}, {"NO", vat_no}, {"PL", vat_pl}, {"PT", vat_pt}, {"RO", vat_ro}, {"SE", vat_se},
    {"SI", vat_si}, {"SK", vat_sk}, {"XI", vat_gb},
};

int ids_vat(const char *s, size_t n) {
    if (n < 4 || n > 16) return 0;
    if (is_digit(s[0])) return n == 12 ? vat_no(s, n) : 0;
    for (size_t i = 0; i < sizeof countries / sizeof *countries; i++)
        if (s[0] == countries[i].letters[0] && s[1] == countries[i].letters[1]) return countries[i].check(s + 2, n - 2);
    return 0;
}

int ids_vat_at_bare(const char *s, size_t n) {
    return vat_at(s, n);
}

int ids_vat_be_bare(const char *s, size_t n) {
    return n == 10 && s[0] <= '1' ? vat_be(s, n) : 0;
}

int ids_vat_es_bare(const char *s, size_t n) {
    return es_company(s, n);
}

/* Hungary: eight digits with the kind of taxpayer (1 to 5) and the county behind them. */
int ids_vat_hu_bare(const char *s, size_t n) {
    return n == 11 && all_digits(s, n) && s[8] >= '1' && s[8] <= '5' ? vat_hu(s, 8) : 0;
}

int ids_vat_nl_bare(const char *s, size_t n) {
    return vat_nl(s, n);
}

int ids_vat_pl_bare(const char *s, size_t n) {
    return vat_pl(s, n);
}
