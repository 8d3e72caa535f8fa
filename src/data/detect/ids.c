/* The table of identifiers, and how a candidate is matched and scored. */
#include "data/detect/ids_check.h"

#include <stdatomic.h>
#include <string.h>

#define W(name) .words = id_words_##name

/* One a form of number: entity, country, name, lengths, strength, kinds, scores (plain, typical, near). */
#define RULE(ent, cc, label, lo, hi, percent, kind, a, b, c)                                              \
    .entity = ENT_##ent, .country = cc, .name = label, .min_len = lo, .max_len = hi, .strength = percent, \
    .kinds = kind, .plain = a, .typical = b, .near = c

const id_rule id_rules[] = {
    {RULE(IBAN, "", "IBAN", 15, 34, 99, ID_KIND_ACCOUNT, 95, 98, 99), .shapes = "llddaaaaaaaaaaa*", .check = ids_iban,
     .forms = "lldd aaaa aaaa aaaa aaa*", W(iban)},
    {RULE(CARD, "", "payment card", 12, 19, 97, ID_KIND_CARD, 65, 90, 98), .shapes = "dddddddddddd*", .check = ids_card,
     .forms = "dddd dddd dddd dddd|dddd-dddd-dddd-dddd|dddd.dddd.dddd.dddd|dddd dddddd ddddd|dddd-dddddd-ddddd|"
              "dddd dddddd dddd|dddd-dddddd-dddd|dddd dddd dddd dddd ddd|dddddd ddddddddddddd",
     W(card)},
    {RULE(BIC, "", "BIC", 8, 11, 64, ID_KIND_ACCOUNT, 60, 70, 95), .shapes = "llllllaa|llllllaaaaa", .check = ids_bic,
     .forms = "llll ll aa|llll ll aa aaa", W(bic)},
    {RULE(LEI, "", "LEI", 20, 20, 99, ID_KIND_COMPANY, 85, 95, 99), .shapes = "aaaaaaaaaaaaaaaaaadd", .check = ids_lei,
     .forms = "aaaa aaaa aaaa aaaa aadd|aaaa aa aaaaaaaaaaaa dd", W(lei)},
    {RULE(VAT, "", "VAT number", 7, 16, 90, ID_KIND_TAX | ID_KIND_COMPANY, 80, 85, 97),
     .shapes = "llaaaaa*|dddddddddMVA", .check = ids_vat,
     .forms =
         "ll ddd ddd ddd|ll aa ddddddddd|ll aa ddd ddd ddd|CHE-ddd.ddd.ddd|CHE-ddd.ddd.ddd lll|CHE-ddd.ddd.ddd llll|"
         "CHE ddd ddd ddd lll|CHE ddd ddd ddd llll|ddd ddd ddd MVA|NO ddd ddd ddd MVA|ll dddd.ddd.ddd|"
         "ll dddd ddd ddd|ll ddd dddd dd|ll ddddddddd|lldddddddddldd|ll dddd.dd.ddd.ldd|ll dddddddddldd|"
         "ll dddddddd|ll dddddddddd|ll ddddddddddd|ll ddd-ddd-dd-dd|ll ddd ddd dd dd|ll dd dd dd dd",
     W(vat)},
    {RULE(VAT, "AT", "UID-Nummer", 9, 9, 90, ID_KIND_TAX | ID_KIND_COMPANY, 40, 40, 92), .shapes = "Udddddddd",
     .check = ids_vat_at_bare, W(at_uid)},
    {RULE(VAT, "BE", "ondernemingsnummer", 10, 10, 99, ID_KIND_TAX | ID_KIND_COMPANY, 45, 85, 95),
     .shapes = "0ddddddddd|1ddddddddd", .check = ids_vat_be_bare, .forms = "dddd.ddd.ddd", W(be_kbo)},
    {RULE(VAT, "ES", "CIF", 9, 9, 90, ID_KIND_TAX | ID_KIND_COMPANY, 40, 65, 93), .shapes = "ldddddddd|ldddddddl",
     .check = ids_vat_es_bare, .forms = "l-dddddddd|l-ddddddd-d|l-ddddddd-l|ldddddddl|l-dddddddl", W(es_cif)},
    {RULE(VAT, "HU", "adószám", 11, 11, 95, ID_KIND_TAX | ID_KIND_COMPANY, 20, 75, 92), .shapes = "ddddddddddd",
     .check = ids_vat_hu_bare, .forms = "dddddddd-d-dd", W(hu_adoszam)},
    {RULE(VAT, "NL", "btw-nummer", 12, 12, 90, ID_KIND_TAX | ID_KIND_COMPANY, 75, 85, 95), .shapes = "dddddddddBdd",
     .check = ids_vat_nl_bare, .forms = "dddd.dd.ddd.ldd|ddddddddd.ldd|dddd dd ddd ldd", W(nl_btw)},
    {RULE(VAT, "PL", "NIP", 10, 10, 91, ID_KIND_TAX | ID_KIND_COMPANY, 15, 65, 92), .shapes = "dddddddddd",
     .check = ids_vat_pl_bare, .forms = "ddd-ddd-dd-dd|ddd-dd-dd-ddd|ddd ddd dd dd", W(pl_nip)},
    {RULE(FR_SIREN, "FR", "SIREN", 9, 9, 90, ID_KIND_COMPANY, 15, 25, 88), .shapes = "ddddddddd", .check = ids_fr_siren,
     .forms = "ddd ddd ddd", W(siren)},
    {RULE(FR_SIREN, "FR", "SIRET", 14, 14, 99, ID_KIND_COMPANY, 55, 85, 97), .shapes = "dddddddddddddd",
     .check = ids_fr_siret, .forms = "ddd ddd ddd ddddd|ddddddddd ddddd", W(siret)},
    {RULE(IT_IVA, "IT", "partita IVA", 11, 11, 99, ID_KIND_TAX | ID_KIND_COMPANY, 50, 50, 95), .shapes = "ddddddddddd",
     .check = ids_it_iva, W(it_iva)},

    {RULE(DE_TAX, "DE", "Steuer-Identifikationsnummer", 11, 11, 99, ID_KIND_TAX | ID_KIND_PERSON, 60, 88, 98),
     .shapes = "ddddddddddd", .check = ids_de_tax, .forms = "dd ddd ddd ddd|dd-ddd-ddd-ddd|dd.ddd.ddd.ddd", W(de_tax)},
    {RULE(DE_SOCIAL, "DE", "Sozialversicherungsnummer", 12, 12, 99, ID_KIND_SOCIAL | ID_KIND_PERSON, 88, 97, 99),
     .shapes = "ddddddddlddd", .check = ids_de_social,
     .forms = "dd dddddd l ddd|dd dddddd l dd d|dd dddddd lddd|dd dd dd dd l ddd|dd dd dd dd l dd d|dd-dddddd-l-ddd",
     W(de_social)},
    {RULE(DE_HEALTH, "DE", "Krankenversichertennummer", 10, 10, 90, ID_KIND_HEALTH | ID_KIND_PERSON, 40, 50, 95),
     .shapes = "lddddddddd", .check = ids_de_health, .forms = "l ddd ddd ddd|lddd ddd ddd", W(de_health)},
    {RULE(DE_IDCARD, "DE", "Personalausweis, Reisepass", 9, 10, 90, ID_KIND_PERSON, 40, 40, 92),
     .shapes = "laaaaaaaa|laaaaaaaad", .check = ids_de_idcard, W(de_idcard)},
    {RULE(FR_NIR, "FR", "numéro de sécurité sociale", 15, 15, 99, ID_KIND_SOCIAL | ID_KIND_PERSON, 88, 98, 99),
     .shapes = "dddddaadddddddd", .check = ids_fr_nir,
     .forms =
         "d dd dd aa ddd ddd dd|d dd dd aa ddd ddd/dd|d.dd.dd.aa.ddd.ddd.dd|d-dd-dd-aa-ddd-ddd-dd|dddddaadddddd dd|"
         "d dd dd aaddd ddd dd|dddddaadddddd/dd|d dd dd aa ddd ddd-dd",
     W(fr_nir)},
    {RULE(FR_NIR, "FR", "numéro de sécurité sociale sans clé", 13, 13, 95, ID_KIND_SOCIAL | ID_KIND_PERSON, 15, 60, 88),
     .shapes = "dddddaadddddd", .check = ids_fr_nir_open,
     .forms = "d dd dd aa ddd ddd|d.dd.dd.aa.ddd.ddd|d-dd-dd-aa-ddd-ddd", W(fr_nir)},
    {RULE(ES_DNI, "ES", "DNI", 9, 9, 96, ID_KIND_PERSON | ID_KIND_TAX, 60, 85, 97), .shapes = "ddddddddl|ldddddddl",
     .check = ids_es_dni, .forms = "dddddddd-l|dd.ddd.ddd-l|dd.ddd.ddd l|dd.ddd.dddl|dddddddd l|dd ddd ddd l",
     W(es_dni)},
    {RULE(ES_NIE, "ES", "NIE", 9, 9, 96, ID_KIND_PERSON | ID_KIND_TAX, 75, 92, 98),
     .shapes = "Xdddddddl|Ydddddddl|Zdddddddl", .check = ids_es_nie,
     .forms = "l-ddddddd-l|lddddddd-l|l ddddddd l|l-dddddddl|l.ddd.ddd.ddd-l", W(es_nie)},
    {RULE(IT_CF, "IT", "codice fiscale", 16, 16, 99, ID_KIND_PERSON | ID_KIND_TAX, 97, 98, 99),
     .shapes = "llllllaalaalaaal", .check = ids_it_cf, .forms = "lll lll aalaa laaal|lll lll aalaa laaa l", W(it_cf)},
    {RULE(NL_BSN, "NL", "BSN", 9, 9, 91, ID_KIND_PERSON | ID_KIND_SOCIAL, 20, 60, 90), .shapes = "ddddddddd",
     .check = ids_nl_bsn, .forms = "dddd.dd.ddd|dddd dd ddd|dddd-dd-ddd", W(nl_bsn)},
    {RULE(PL_PESEL, "PL", "PESEL", 11, 11, 98, ID_KIND_PERSON, 55, 60, 97), .shapes = "ddddddddddd",
     .check = ids_pl_pesel, .forms = "dddddd ddddd|dddddd-ddddd", W(pl_pesel)},
    {RULE(BE_NISS, "BE", "rijksregisternummer, NISS", 11, 11, 99, ID_KIND_PERSON | ID_KIND_SOCIAL, 72, 97, 99),
     .shapes = "ddddddddddd", .check = ids_be_niss,
     .forms =
         "dd.dd.dd-ddd.dd|dd.dd.dd ddd.dd|dd.dd.dd.ddd.dd|dddddd-ddd-dd|dddddd ddd dd|dd dd dd ddd dd|dd.dd.dd-ddd-dd",
     W(be_niss)},
    {RULE(SE_PNR, "SE", "personnummer", 10, 10, 99, ID_KIND_PERSON, 45, 80, 97), .shapes = "dddddddddd",
     .check = ids_se_pnr, .forms = "dddddd-dddd|dddddd+dddd", W(se_pnr)},
    {RULE(SE_PNR, "SE", "personnummer", 12, 12, 99, ID_KIND_PERSON, 75, 92, 98), .shapes = "dddddddddddd",
     .check = ids_se_pnr, .forms = "dddddddd-dddd|dddddddd dddd|dddddddd+dddd", W(se_pnr)},
    {RULE(FI_HETU, "FI", "henkilötunnus", 10, 11, 99, ID_KIND_PERSON, 50, 93, 99), .shapes = "ddddddddda|ddddddlddda",
     .check = ids_fi_hetu, .forms = "dddddd-ddda|dddddd+ddda|ddddddlddda", .form_only = true, W(fi_hetu)},
    {RULE(DK_CPR, "DK", "CPR-nummer", 10, 10, 99, ID_KIND_PERSON, 45, 75, 96), .shapes = "dddddddddd",
     .check = ids_dk_cpr, .forms = "dddddd-dddd|dddddd dddd", W(dk_cpr)},
    {RULE(NO_FNR, "NO", "fødselsnummer", 11, 11, 99, ID_KIND_PERSON, 85, 93, 99), .shapes = "ddddddddddd",
     .check = ids_no_fnr, .forms = "dddddd ddddd|dddddd-ddddd|dd dd dd ddddd|dddddd ddd dd|dd.dd.dd ddddd", W(no_fnr)},
    {RULE(AT_SVNR, "AT", "Sozialversicherungsnummer", 10, 10, 99, ID_KIND_SOCIAL | ID_KIND_PERSON, 45, 80, 97),
     .shapes = "dddddddddd", .check = ids_at_svnr,
     .forms =
         "dddd dddddd|dddd-dddddd|dddd/dddddd|dddd dd dd dd|dddd-dd.dd.dd|dddd dd.dd.dd|dddd/dd.dd.dd|ddd d dddddd",
     W(at_svnr)},
    {RULE(PT_NIF, "PT", "NIF", 9, 9, 90, ID_KIND_TAX | ID_KIND_PERSON, 15, 25, 88), .shapes = "ddddddddd",
     .check = ids_pt_nif, .forms = "ddd ddd ddd", W(pt_nif)},
    {RULE(PT_NIF, "PT", "cartão de cidadão", 12, 12, 90, ID_KIND_PERSON, 40, 85, 95), .shapes = "dddddddddaad",
     .check = ids_pt_cc, .forms = "dddddddd d aad|ddddddddd aad|dddddddd-d-aad", W(pt_cc)},
    {RULE(IE_PPS, "IE", "PPS number", 8, 9, 96, ID_KIND_PERSON | ID_KIND_SOCIAL | ID_KIND_TAX, 60, 70, 97),
     .shapes = "dddddddl|dddddddll", .check = ids_ie_pps, .forms = "ddddddd l|ddddddd ll|ddddddd-l|ddddddd-ll",
     W(ie_pps)},
    {RULE(CZ_RC, "CZ", "rodné číslo", 10, 10, 98, ID_KIND_PERSON, 45, 88, 97), .shapes = "dddddddddd",
     .check = ids_cz_rc, .forms = "dddddd/dddd", W(cz_rc)},
    {RULE(CZ_RC, "CZ", "rodné číslo", 9, 9, 89, ID_KIND_PERSON, 15, 65, 85), .shapes = "ddddddddd", .check = ids_cz_rc,
     .forms = "dddddd/ddd", W(cz_rc)},
    {RULE(RO_CNP, "RO", "CNP", 13, 13, 99, ID_KIND_PERSON, 62, 70, 98), .shapes = "ddddddddddddd", .check = ids_ro_cnp,
     .forms = "d dddddd dddddd|d dd dd dd dddddd|d dddddd dd ddd d", W(ro_cnp)},
    {RULE(BG_EGN, "BG", "ЕГН", 10, 10, 99, ID_KIND_PERSON, 42, 50, 96), .shapes = "dddddddddd", .check = ids_bg_egn,
     .forms = "dddddd dddd", W(bg_egn)},
    {RULE(BG_EGN, "BG", "ЛНЧ", 10, 10, 90, ID_KIND_PERSON, 10, 10, 85), .shapes = "dddddddddd", .check = ids_bg_lnc,
     W(bg_lnc)},
    {RULE(HR_OIB, "HR", "OIB", 11, 11, 90, ID_KIND_PERSON | ID_KIND_TAX, 25, 25, 90), .shapes = "ddddddddddd",
     .check = ids_hr_oib, W(hr_oib)},
    {RULE(GR_AMKA, "GR", "ΑΜΚΑ", 11, 11, 99, ID_KIND_SOCIAL | ID_KIND_PERSON, 55, 60, 97), .shapes = "ddddddddddd",
     .check = ids_gr_amka, .forms = "dddddd ddddd|dddddd-ddddd", W(gr_amka)},
    {RULE(GR_AFM, "GR", "ΑΦΜ", 9, 9, 90, ID_KIND_TAX | ID_KIND_PERSON, 15, 15, 88), .shapes = "ddddddddd",
     .check = ids_gr_afm, W(gr_afm)},
    {RULE(LT_EE_ID, "LT EE", "asmens kodas, isikukood", 11, 11, 99, ID_KIND_PERSON, 58, 62, 97),
     .shapes = "ddddddddddd", .check = ids_lt_ee, .forms = "d dddddd dddd|d-dddddd-dddd", W(lt_ee)},
    {RULE(LV_PK, "LV", "personas kods", 11, 11, 99, ID_KIND_PERSON, 55, 85, 97), .shapes = "ddddddddddd",
     .check = ids_lv_pk, .forms = "dddddd-ddddd", W(lv_pk)},
    {RULE(SI_EMSO, "SI", "EMŠO", 13, 13, 99, ID_KIND_PERSON, 62, 70, 98), .shapes = "ddddddddddddd",
     .check = ids_si_emso,
     .forms = "ddddddd dd ddd d|ddddddd dddddd|dd dd ddd dd ddd d|ddddddd-dddddd|ddddddd-dd-ddd-d", W(si_emso)},
    {RULE(HU_TAJ, "HU", "TAJ", 9, 9, 90, ID_KIND_SOCIAL | ID_KIND_HEALTH, 15, 30, 88), .shapes = "ddddddddd",
     .check = ids_hu_taj, .forms = "ddd ddd ddd|ddd-ddd-ddd", W(hu_taj)},
    {RULE(LU_ID, "LU", "matricule", 13, 13, 99, ID_KIND_PERSON | ID_KIND_SOCIAL, 90, 96, 99), .shapes = "ddddddddddddd",
     .check = ids_lu_id, .forms = "dddddddd ddd dd|dddddddd ddddd|dddd dd dd ddddd|dddd dddd ddd dd|dddd dd dd ddd dd",
     W(lu_id)},
    {RULE(MT_ID, "MT", "Karta tal-Identità", 7, 8, 69, ID_KIND_PERSON, 12, 20, 80), .shapes = "ddddddl|dddddddl",
     .check = ids_mt_id, W(mt_id)},
    {RULE(CY_TIC, "CY", "ΑΦΤ (TIC)", 9, 9, 96, ID_KIND_TAX | ID_KIND_PERSON, 45, 50, 94), .shapes = "ddddddddl",
     .check = ids_cy_tic, .forms = "dddddddd l|dddddddd-l", W(cy_tic)},
    {RULE(CH_AHV, "CH", "AHV-Nummer", 13, 13, 99, ID_KIND_SOCIAL | ID_KIND_PERSON, 88, 98, 99),
     .shapes = "756dddddddddd", .check = ids_ch_ahv, .forms = "ddd.dddd.dddd.dd|ddd dddd dddd dd|ddd-dddd-dddd-dd",
     W(ch_ahv)},
    {RULE(UK_NHS, "GB", "NHS number", 10, 10, 91, ID_KIND_HEALTH | ID_KIND_PERSON, 15, 45, 92), .shapes = "dddddddddd",
     .check = ids_uk_nhs, .forms = "ddd ddd dddd|ddd-ddd-dddd", W(uk_nhs)},
    {RULE(UK_NINO, "GB", "National Insurance number", 9, 9, 92, ID_KIND_SOCIAL | ID_KIND_PERSON, 65, 90, 97),
     .shapes = "llddddddl", .check = ids_uk_nino, .forms = "ll dd dd dd l|ll-dd-dd-dd-l|ll dddddd l|ll.dd.dd.dd.l",
     W(uk_nino)},
};
const size_t id_rule_count = sizeof id_rules / sizeof *id_rules;
_Static_assert(sizeof id_rules / sizeof *id_rules <= ID_RULES_MAX, "a set of rules is one uint64_t");

/* Does the form agree with the alternative that begins at p? */
static bool alternative_fits(const char *p, const char *form, size_t n) {
    size_t i = 0;
    for (; *p && *p != '|'; p++) {
        bool more = *p == '*';
        char class = more ? p[-1] : *p;
        do {
            if (i >= n) {
                if (more) break;
                return false;
            }
            char c = form[i] >= 'a' && form[i] <= 'z' ? (char)(form[i] - 'a' + 'A') : form[i];
            bool ok = class == 'd'   ? is_digit(c)
                      : class == 'l' ? is_capital(c)
                      : class == 'a' ? is_digit(c) || is_capital(c)
                                     : c == class;
            /* what repeats may have single spaces inside, as the last groups of an IBAN */
            if (!ok && !(more && c == ' ' && i + 1 < n && form[i + 1] != ' ')) return false;
            i++;
        } while (more);
    }
    return i == n;
}

bool id_shape_fits(const char *shapes, const char *form, size_t n) {
    for (const char *p = shapes; *p; p += strcspn(p, "|"), p += *p == '|')
        if (alternative_fits(p, form, n)) return true;
    return false;
}

/* The rules for compact forms of n characters, a bit each: found once, then kept. Which thread does it does not matter,
 * all find the same. */
static uint64_t rules_of_length(size_t n) {
    static _Atomic uint64_t known[ID_LEN_MAX + 1];
    uint64_t set = atomic_load_explicit(&known[n], memory_order_relaxed);
    if (set) return set;
    set = (uint64_t)1 << 63;
    for (size_t i = 0; i < id_rule_count; i++)
        if (n >= id_rules[i].min_len && n <= id_rules[i].max_len) set |= (uint64_t)1 << i;
    atomic_store_explicit(&known[n], set, memory_order_relaxed);
    return set;
}

/* How a form is parted. */
static void look_at_form(id_hit *h, const char *form, size_t n) {
    size_t first = 0, group = 0, groups = 1;
    bool differ = false, single = true;
    for (size_t i = 0; i <= n; i++) {
        char c = i < n ? form[i] : ' ';
        if (c >= 'a' && c <= 'z') h->small = true;
        if (is_digit(c) || is_capital(c) || (c >= 'a' && c <= 'z')) {
            group++;
            continue;
        }
        if (!first) first = group;
        if (group > 1) single = false;
        if (i == n) break;
        groups++;
        if (group != first) differ = true;
        group = 0;
    }
    h->grouped = groups > 1 && !single;
    h->regular = h->grouped && !differ && group <= first + 1;
}

size_t id_match(id_hit out[ID_HITS_MAX], const char *compact, size_t n, const char *form, size_t form_n) {
    if (n < ID_LEN_MIN || n > ID_LEN_MAX) return 0;
    id_hit look = {0};
    look_at_form(&look, form, form_n);
    size_t hits = 0;
    uint64_t left = rules_of_length(n);
    for (size_t i = 0; i < id_rule_count && hits < ID_HITS_MAX && left >> i; i++) {
        if (!(left >> i & 1)) continue;
        const id_rule *r = &id_rules[i];
        int strength = r->check(compact, n);
        if (strength <= 0) continue;
        bool typical = r->forms && form_n <= ID_FORM_MAX && id_shape_fits(r->forms, form, form_n);
        if (r->form_only && !typical) continue;
        out[hits] = look;
        out[hits].rule = r, out[hits].strength = (uint8_t)strength, out[hits].typical = typical;
        hits++;
    }
    return hits;
}

/* What a number lacks counts against it; a word nearby outweighs the form. */
unsigned id_score(const id_hit *hit, id_near near) {
    const id_rule *r = hit->rule;
    int lone = hit->typical ? r->typical : r->plain;
    if (hit->grouped && !hit->typical) lone -= hit->regular ? 10 : 20;
    if (hit->small) lone -= 20;
    int score = near == ID_NEAR_WORD   ? r->near
                : near == ID_NEAR_KIND ? (lone > r->near - 20 ? lone : r->near - 20)
                                       : lone;
    if (hit->strength < r->strength) score -= hit->strength < 80 ? 40 : 15;
    return score < 1 ? 1 : (unsigned)score;
}
