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
extern const char *const id_words_iban[];
extern const char *const id_words_card[];
extern const char *const id_words_bic[];
extern const char *const id_words_lei[];
extern const char *const id_words_vat[];
extern const char *const id_words_at_uid[];
extern const char *const id_words_be_kbo[];
extern const char *const id_words_es_cif[];
extern const char *const id_words_hu_adoszam[];
extern const char *const id_words_nl_btw[];
extern const char *const id_words_pl_nip[];
extern const char *const id_words_siren[];
extern const char *const id_words_siret[];
extern const char *const id_words_it_iva[];
extern const char *const id_words_de_tax[];
extern const char *const id_words_de_social[];
extern const char *const id_words_de_health[];
extern const char *const id_words_de_idcard[];
extern const char *const id_words_fr_nir[];
extern const char *const id_words_es_dni[];
extern const char *const id_words_es_nie[];
extern const char *const id_words_it_cf[];
extern const char *const id_words_nl_bsn[];
extern const char *const id_words_pl_pesel[];
extern const char *const id_words_be_niss[];
extern const char *const id_words_se_pnr[];
extern const char *const id_words_fi_hetu[];
extern const char *const id_words_dk_cpr[];
extern const char *const id_words_no_fnr[];
extern const char *const id_words_at_svnr[];
extern const char *const id_words_pt_nif[];
extern const char *const id_words_pt_cc[];
extern const char *const id_words_ie_pps[];
extern const char *const id_words_cz_rc[];
extern const char *const id_words_ro_cnp[];
extern const char *const id_words_bg_egn[];
extern const char *const id_words_bg_lnc[];
extern const char *const id_words_hr_oib[];
extern const char *const id_words_gr_amka[];
extern const char *const id_words_gr_afm[];
extern const char *const id_words_lt_ee[];
extern const char *const id_words_lv_pk[];
extern const char *const id_words_si_emso[];
extern const char *const id_words_hu_taj[];
extern const char *const id_words_lu_id[];
extern const char *const id_words_mt_id[];
extern const char *const id_words_cy_tic[];
extern const char *const id_words_ch_ahv[];
extern const char *const id_words_uk_nhs[];
extern const char *const id_words_uk_nino[];

#endif
