/* Internal to the identifiers' files: arithmetic that several rules share, and the check functions that the table in
 * ids.c names. Every check has the contract of id_rule.check (ids.h): any bytes, 0 or the percent it rejects. */
#ifndef POLDER_DATA_DETECT_IDS_CHECK_H
#define POLDER_DATA_DETECT_IDS_CHECK_H

#include "data/detect/ids.h"

static inline bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static inline bool is_capital(char c) {
    return c >= 'A' && c <= 'Z';
}
static inline bool all_digits(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!is_digit(s[i])) return false;
    return true;
}
/* The number in s[0..n), digits only, n at most 18. */
static inline uint64_t number(const char *s, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v = v * 10 + (uint64_t)(s[i] - '0');
    return v;
}
static inline int two(const char *s) {
    return (s[0] - '0') * 10 + (s[1] - '0');
}
/* Sum of digits times weights; the weights are bytes ("\1\3\7"), n of them. */
static inline int weighted(const char *s, const char *weights, size_t n) {
    int sum = 0;
    for (size_t i = 0; i < n; i++) sum += (s[i] - '0') * weights[i];
    return sum;
}

bool ids_date(int year, int month, int day);                  /* has the Gregorian calendar that day? */
bool ids_date_short(int year2, int month, int day);           /* … in any century whose year ends so? */
bool ids_luhn(const char *s, size_t n);                       /* digits; the last is Luhn's check digit */
bool ids_mod_11_10(const char *s, size_t n);                  /* ISO 7064 modulus 11, 10; digits */
unsigned ids_mod97(const char *s, size_t n, unsigned before); /* digits, and letters as 10 to 35, behind a remainder */
bool ids_country(const char *cc);                             /* two capitals: ISO 3166, or XK */

/* ids_account.c */
int ids_iban(const char *s, size_t n);
int ids_card(const char *s, size_t n);
int ids_bic(const char *s, size_t n);
int ids_lei(const char *s, size_t n);
/* ids_vat.c: with the country's letters in front; the bare ones are written without them at home */
int ids_vat(const char *s, size_t n);
int ids_vat_at_bare(const char *s, size_t n);
int ids_vat_be_bare(const char *s, size_t n);
int ids_vat_es_bare(const char *s, size_t n);
int ids_vat_hu_bare(const char *s, size_t n);
int ids_vat_nl_bare(const char *s, size_t n);
int ids_vat_pl_bare(const char *s, size_t n);
/* ids_west.c: France, Benelux, Germany, Austria, Switzerland, the isles */
int ids_fr_siren(const char *s, size_t n);
int ids_fr_siret(const char *s, size_t n);
int ids_fr_nir(const char *s, size_t n);
int ids_fr_nir_open(const char *s, size_t n);
int ids_de_tax(const char *s, size_t n);
int ids_de_social(const char *s, size_t n);
int ids_de_health(const char *s, size_t n);
int ids_de_idcard(const char *s, size_t n);
int ids_nl_bsn(const char *s, size_t n);
int ids_be_niss(const char *s, size_t n);
int ids_lu_id(const char *s, size_t n);
int ids_at_svnr(const char *s, size_t n);
int ids_ch_ahv(const char *s, size_t n);
int ids_ie_pps(const char *s, size_t n);
int ids_uk_nhs(const char *s, size_t n);
int ids_uk_nino(const char *s, size_t n);
/* ids_north.c: the Nordic and the Baltic countries */
int ids_se_pnr(const char *s, size_t n);
int ids_fi_hetu(const char *s, size_t n);
int ids_dk_cpr(const char *s, size_t n);
int ids_no_fnr(const char *s, size_t n);
int ids_lt_ee(const char *s, size_t n);
int ids_lv_pk(const char *s, size_t n);
/* ids_south.c: Spain, Portugal, Italy, Malta, Cyprus, Greece */
int ids_es_dni(const char *s, size_t n);
int ids_es_nie(const char *s, size_t n);
int ids_pt_nif(const char *s, size_t n);
int ids_pt_cc(const char *s, size_t n);
int ids_it_cf(const char *s, size_t n);
int ids_it_iva(const char *s, size_t n);
int ids_mt_id(const char *s, size_t n);
int ids_cy_tic(const char *s, size_t n);
int ids_gr_amka(const char *s, size_t n);
int ids_gr_afm(const char *s, size_t n);
/* ids_east.c: Poland, Czechia, Slovakia, Hungary, Romania, Bulgaria, Slovenia, Croatia */
int ids_pl_pesel(const char *s, size_t n);
int ids_cz_rc(const char *s, size_t n);
int ids_hu_taj(const char *s, size_t n);
int ids_ro_cnp(const char *s, size_t n);
int ids_bg_egn(const char *s, size_t n);
int ids_bg_lnc(const char *s, size_t n);
int ids_si_emso(const char *s, size_t n);
int ids_hr_oib(const char *s, size_t n);

/* Words, ids_words.c: each a list that ends with NULL. */
#define ID_WORD_LISTS(X)                                                                                            \
    X(iban)                                                                                                         \
    X(card)                                                                                                         \
    X(bic)                                                                                                          \
    X(lei)                                                                                                          \
    X(vat)                                                                                                          \
    X(at_uid)                                                                                                       \
    X(be_kbo) X(es_cif) X(hu_adoszam) X(nl_btw) X(pl_nip) X(siren) X(siret) X(it_iva) X(de_tax) X(de_social)        \
        X(de_health) X(de_idcard) X(fr_nir) X(es_dni) X(es_nie) X(it_cf) X(nl_bsn) X(pl_pesel) X(be_niss) X(se_pnr) \
            X(fi_hetu) X(dk_cpr) X(no_fnr) X(at_svnr) X(pt_nif) X(pt_cc) X(ie_pps) X(cz_rc) X(ro_cnp) X(bg_egn)     \
                X(bg_lnc) X(hr_oib) X(gr_amka) X(gr_afm) X(lt_ee) X(lv_pk) X(si_emso) X(hu_taj) X(lu_id) X(mt_id)   \
                    X(cy_tic) X(ch_ahv) X(uk_nhs) X(uk_nino)
#define X(name) extern const char *const id_words_##name[];
ID_WORD_LISTS(X)
#undef X

#endif
