/* The identifiers' check rules. What would break it: a weight, a table's letter, a date's century or a form that
 * differs from what is published; scores that report what a checksum alone cannot tell; a strength that promises too
 * much. */
#include "data/detect/ids.h"

#include "harness.h"

#define X(id, name, group, flags, word) name,
static const char *const names[] = {ENTITY_TABLE(X)};
#undef X

static uint64_t random_state = 0x706f6c646572;
static unsigned random_below(unsigned n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((random_state >> 33) % n);
}

/* What the scanner makes of a number as printed. */
typedef struct written {
    char compact[80], form[80];
    size_t n, form_n;
} written;

static written write_down(const char *text) {
    written w = {.n = 0};
    for (const char *p = text; *p && w.form_n < 79; p++) {
        char c = *p;
        w.form[w.form_n++] = c;
        if (c >= 'a' && c <= 'z') c = (char)(c - 32);
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')) w.compact[w.n++] = c;
    }
    return w;
}

/* The best score of an entity's rules; 0: none accepts. */
static unsigned score(unsigned ent, const char *text, id_near near) {
    written w = write_down(text);
    id_hit hits[ID_HITS_MAX];
    size_t n = id_match(hits, w.compact, w.n, w.form, w.form_n);
    unsigned best = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned s = id_score(&hits[i], near);
        if (hits[i].rule->entity == ent && s > best) best = s;
    }
    return best;
}

typedef struct example {
    unsigned ent;
    const char *text;
    bool alone; /* is it reported without any word nearby? */
} example;

/* From the issuers' own pages, from specimens and from the documentation of other programs. */
static const example valid[] = {
    {ENT_IBAN, "DE89 3704 0044 0532 0130 00", true},
    {ENT_IBAN, "DE89370400440532013000", true},
    {ENT_IBAN, "de89 3704 0044 0532 0130 00", true},
    {ENT_IBAN, "GB29NWBK60161331926819", true},
    {ENT_IBAN, "GB82 WEST 1234 5698 7654 32", true},
    {ENT_IBAN, "FR14 2004 1010 0505 0001 3M02 606", true},
    {ENT_IBAN, "NO9386011117947", true},
    {ENT_IBAN, "BE68 5390 0754 7034", true},
    {ENT_IBAN, "BE68-5390-0754-7034", true},
    {ENT_IBAN, "MT84MALT011000012345MTLCAST001S", true},
    {ENT_IBAN, "NL91ABNA0417164300", true},
    {ENT_IBAN, "CH93 0076 2011 6238 5295 7", true},
    {ENT_IBAN, "GR16 0110 1250 0000 0001 2300 695", true},
    {ENT_IBAN, "ES9121000418450200051332", true},
    {ENT_IBAN, "IT60X0542811101000000123456", true},
    {ENT_IBAN, "PL61109010140000071219812874", true},
    {ENT_IBAN, "AT611904300234573201", true},
    {ENT_IBAN, "LC55HEMM000100010012001200023015", true},
    {ENT_CARD, "4111 1111 1111 1111", true},
    {ENT_CARD, "4111111111111111", true},
    {ENT_CARD, "5500-0000-0000-0004", true},
    {ENT_CARD, "2223003122003222", true},
    {ENT_CARD, "3782 822463 10005", true},
    {ENT_CARD, "378282246310005", true},
    {ENT_CARD, "3056 930902 5904", true},
    {ENT_CARD, "6011111111111117", true},
    {ENT_CARD, "3530111333300000", true},
    {ENT_CARD, "6759649826438453", false}, /* Maestro: twelve to nineteen digits with a 6 in front */
    {ENT_CARD, "4222222222222", false},    /* Visa of thirteen digits: as likely an EAN */
    {ENT_BIC, "DEUTDEFF500", true},
    {ENT_BIC, "COBADEFFXXX", true},
    {ENT_BIC, "DEUTDEFF", false},
    {ENT_BIC, "NEDSZAJJXXX", true},
    {ENT_LEI, "529900T8BM49AURSDO55", true},
    {ENT_LEI, "213800KUD8LAJWSQ9D15", true},
    {ENT_VAT, "ATU13585627", true},
    {ENT_VAT, "BE0428759497", true},
    {ENT_VAT, "BE 0428.759.497", true},
    {ENT_VAT, "BG175074752", true},
    {ENT_VAT, "CHE-107.787.577 IVA", true},
    {ENT_VAT, "CHE-100.155.212", true},
    {ENT_VAT, "CY10259033P", true},
    {ENT_VAT, "CZ25123891", true},
    {ENT_VAT, "CZ7103192745", true},
    {ENT_VAT, "CZ640903926", true},
    {ENT_VAT, "DE136695976", true},
    {ENT_VAT, "DE 136 695 976", true},
    {ENT_VAT, "DK13585628", true},
    {ENT_VAT, "EE100931558", true},
    {ENT_VAT, "EL094259216", true},
    {ENT_VAT, "ESJ99216582", true},
    {ENT_VAT, "ES54362315K", true},
    {ENT_VAT, "ESX2482300W", true},
    {ENT_VAT, "FI20774740", true},
    {ENT_VAT, "FR40303265045", true},
    {ENT_VAT, "FRK7399859412", true},
    {ENT_VAT, "FR4Z123456782", true},
    {ENT_VAT, "GB980780684", true},
    {ENT_VAT, "GB 980 7806 84", true},
    {ENT_VAT, "GBGD001", false},
    {ENT_VAT, "HR33392005961", true},
    {ENT_VAT, "HU12892312", true},
    {ENT_VAT, "IE6433435F", true},
    {ENT_VAT, "IE6433435OA", true},
    {ENT_VAT, "IE8D79739I", true},
    {ENT_VAT, "IT00743110157", true},
    {ENT_VAT, "LT119511515", true},
    {ENT_VAT, "LT100001919017", true},
    {ENT_VAT, "LU15027442", true},
    {ENT_VAT, "LV40003521600", true},
    {ENT_VAT, "MT11679112", true},
    {ENT_VAT, "NL004495445B01", true},
    {ENT_VAT, "NL123456789B13", true},
    {ENT_VAT, "NO995525828MVA", true},
    {ENT_VAT, "PL8567346215", true},
    {ENT_VAT, "PT501964843", true},
    {ENT_VAT, "RO18547290", true},
    {ENT_VAT, "SE123456789701", true},
    {ENT_VAT, "SI50223054", true},
    {ENT_VAT, "SK2022749619", true},
    {ENT_VAT, "XI980780684", true},
    {ENT_VAT, "856-734-62-15", true},
    {ENT_VAT, "8567346215", false},
    {ENT_VAT, "0428.759.497", true},
    {ENT_VAT, "J99216582", false},
    {ENT_VAT, "12892312-2-42", true},
    {ENT_VAT, "U13585627", false},
    {ENT_VAT, "0044.95.445.B01", true},
    {ENT_FR_SIREN, "552 008 443", false},
    {ENT_FR_SIREN, "404833048", false},
    {ENT_FR_SIREN, "732 829 320 00074", true},
    {ENT_FR_SIREN, "73282932000074", true},
    {ENT_FR_SIREN, "35600000049837", true}, /* La Poste */
    {ENT_IT_IVA, "00743110157", true},
    {ENT_DE_TAX, "36 574 261 809", true},
    {ENT_DE_TAX, "36574261809", true},
    {ENT_DE_TAX, "86095742719", true},
    {ENT_DE_TAX, "65929970489", true},
    {ENT_DE_SOCIAL, "65 170839 J 003", true},
    {ENT_DE_SOCIAL, "65170839J003", true},
    {ENT_DE_SOCIAL, "10010490A443", true},
    {ENT_DE_SOCIAL, "15 070649 C 103", true},
    {ENT_DE_HEALTH, "A123456780", false},
    {ENT_DE_HEALTH, "X110411675", false},
    {ENT_DE_IDCARD, "L01X00T471", false},
    {ENT_DE_IDCARD, "T220001293", false},
    {ENT_DE_IDCARD, "C01X00T478", false},
    {ENT_DE_IDCARD, "L01X00T47", false},
    {ENT_FR_NIR, "2 95 10 99 126 111 93", true},
    {ENT_FR_NIR, "295109912611193", true},
    {ENT_FR_NIR, "2 53 07 2B 073 004 70", true},
    {ENT_FR_NIR, "253072A07300443", true},
    {ENT_FR_NIR, "1 84 12 76 451 089 46", true},
    {ENT_FR_NIR, "2 95 10 99 126 111", true},
    {ENT_FR_NIR, "2951099126111", false},
    {ENT_ES_DNI, "54362315-K", true},
    {ENT_ES_DNI, "54.362.315-K", true},
    {ENT_ES_DNI, "12345678Z", true},
    {ENT_ES_DNI, "12345678z", false},
    {ENT_ES_NIE, "X-2482300-W", true},
    {ENT_ES_NIE, "X2482300W", true},
    {ENT_IT_CF, "RCCMNL83S18D969H", true},
    {ENT_IT_CF, "CNTCHR83T41D969D", true},
    {ENT_IT_CF, "MRT MTT 91D08 F205J", true},
    {ENT_NL_BSN, "1112.22.333", true},
    {ENT_NL_BSN, "111222333", false},
    {ENT_PL_PESEL, "44051401359", true},
    {ENT_PL_PESEL, "02070803628", true},
    {ENT_PL_PESEL, "02470803620", false}, /* born in 2102 */
    {ENT_BE_NISS, "85.07.30-033.28", true},
    {ENT_BE_NISS, "85073003328", true},
    {ENT_BE_NISS, "17073003384", true}, /* born in 2017 */
    {ENT_SE_PNR, "811228-9874", true},
    {ENT_SE_PNR, "19811228-9874", true},
    {ENT_SE_PNR, "198112289874", true},
    {ENT_SE_PNR, "8112289874", false},
    {ENT_SE_PNR, "670919-9530", true},
    {ENT_SE_PNR, "880320-0016", true},
    {ENT_SE_PNR, "701063-2391", true}, /* samordningsnummer */
    {ENT_FI_HETU, "131052-308T", true},
    {ENT_FI_HETU, "131052A308T", true},
    {ENT_FI_HETU, "131052+308T", true},
    {ENT_FI_HETU, "010594Y9021", true}, /* a sign of 2023, a temporary number */
    {ENT_DK_CPR, "211062-5629", true},
    {ENT_DK_CPR, "2110625629", false},
    {ENT_DK_CPR, "010565-0003", true}, /* no modulo 11 */
    {ENT_NO_FNR, "684131 52112", true},
    {ENT_NO_FNR, "15108695088", true},
    {ENT_AT_SVNR, "1237 010180", true},
    {ENT_AT_SVNR, "1237010180", false},
    {ENT_PT_NIF, "501964843", false},
    {ENT_PT_NIF, "00000000 0 ZZ4", true},
    {ENT_IE_PPS, "6433435F", true},
    {ENT_IE_PPS, "6433435FT", true},
    {ENT_IE_PPS, "6433435OA", true},
    {ENT_IE_PPS, "6433435IH", true},
    {ENT_IE_PPS, "1234567T", true},
    {ENT_CZ_RC, "710319/2745", true},
    {ENT_CZ_RC, "7103192745", false},
    {ENT_CZ_RC, "991231/123", true},
    {ENT_CZ_RC, "780123/3540", true}, /* remainder 10 before 1985 */
    {ENT_RO_CNP, "1630615123457", true},
    {ENT_BG_EGN, "7523169263", false},
    {ENT_BG_EGN, "8032056031", false},
    {ENT_BG_EGN, "7111042925", false}, /* of a foreigner */
    {ENT_HR_OIB, "33392005961", false},
    {ENT_GR_AMKA, "01013099997", true},
    {ENT_GR_AFM, "094259216", false},
    {ENT_LT_EE_ID, "33309240064", true},
    {ENT_LT_EE_ID, "36805280109", true},
    {ENT_LV_PK, "161175-19997", true},
    {ENT_LV_PK, "32867345123", false},
    {ENT_SI_EMSO, "0101006500006", true},
    {ENT_HU_TAJ, "111 111 110", false},
    {ENT_LU_ID, "1893120105732", true},
    {ENT_MT_ID, "0026474M", false},
    {ENT_CY_TIC, "10259033P", false},
    {ENT_CH_AHV, "756.9217.0769.85", true},
    {ENT_CH_AHV, "7569217076985", true},
    {ENT_UK_NHS, "943 476 5919", false},
    {ENT_UK_NHS, "9434765919", false},
    {ENT_UK_NINO, "AB 12 34 56 C", true},
    {ENT_UK_NINO, "AB123456C", true},
};

/* Wrong in the check digit, the date, the letters, the length or the form. */
static const example invalid[] = {
    {ENT_IBAN, "DE89 3704 0044 0532 0130 01", 0},
    {ENT_IBAN, "DE8937040044053201300", 0},
    {ENT_IBAN, "ZZ89370400440532013000", 0},
    {ENT_IBAN, "GB82WESTA2345698765432", 0},
    {ENT_CARD, "4111111111111112", 0},
    {ENT_CARD, "1111111111111117", 0},
    {ENT_CARD, "0000000000000000", 0},
    {ENT_BIC, "DEUTZZFF", 0},
    {ENT_BIC, "DEUTDEFF5", 0},
    {ENT_BIC, "DEU1DEFF", 0},
    {ENT_LEI, "529900T8BM49AURSDO56", 0},
    {ENT_LEI, "529900T8BM49AURSDOF3", 0}, /* modulo 97, but the last two are digits */
    {ENT_LEI, "529900T8BM49AURSDO9T", 0},
    {ENT_VAT, "ATU13585626", 0},
    {ENT_VAT, "BE0428759498", 0},
    {ENT_VAT, "DE136695978", 0},
    {ENT_VAT, "DE036695976", 0},
    {ENT_VAT, "FRIO334175221", 0},
    {ENT_VAT, "GB802311781", 0},
    {ENT_VAT, "GBHA001", 0},
    {ENT_VAT, "IE6433435E", 0},
    {ENT_VAT, "NL123456789A13", 0},
    {ENT_VAT, "NO995525829MVA", 0},
    {ENT_VAT, "SE123456789702", 0},
    {ENT_VAT, "US123456789", 0},
    {ENT_FR_SIREN, "404833047", 0},
    {ENT_FR_SIREN, "73282932000079", 0},
    {ENT_IT_IVA, "00743110158", 0},
    {ENT_IT_IVA, "00000000000", 0},
    {ENT_DE_TAX, "36574261890", 0},
    {ENT_DE_TAX, "36554266806", 0},
    {ENT_DE_TAX, "06574261809", 0},
    {ENT_DE_TAX, "12345678903", 0}, /* no digit twice */
    {ENT_DE_TAX, "12223456782", 0}, /* one three times in a row */
    {ENT_DE_SOCIAL, "65170839J004", 0},
    {ENT_DE_SOCIAL, "65321339J003", 0},
    {ENT_DE_HEALTH, "A123456787", 0},
    {ENT_DE_IDCARD, "L01X00T472", 0},
    {ENT_DE_IDCARD, "LLLLLLLLL", 0},
    {ENT_DE_IDCARD, "LO1X00T471", 0},
    {ENT_FR_NIR, "295109912611199", 0},
    {ENT_FR_NIR, "253072C07300443", 0},
    {ENT_FR_NIR, "2951399126111", 0},
    {ENT_FR_NIR, "2951096126111", 0},
    {ENT_ES_DNI, "54362315Z", 0},
    {ENT_ES_NIE, "X2482300A", 0},
    {ENT_IT_CF, "RCCMNL83S18D969", 0},
    {ENT_IT_CF, "RCCMNL83S18D969A", 0},
    {ENT_IT_CF, "RCCMNL83S99D969H", 0},
    {ENT_NL_BSN, "111252333", 0},
    {ENT_NL_BSN, "000000000", 0},
    {ENT_PL_PESEL, "44051401358", 0},
    {ENT_PL_PESEL, "44951401359", 0},
    {ENT_BE_NISS, "17073003386", 0},
    {ENT_BE_NISS, "85073203365", 0}, /* no such day */
    {ENT_BE_NISS, "85023003390", 0}, /* no such day */
    {ENT_BE_NISS, "85533003359", 0}, /* no such month */
    {ENT_BE_NISS, "85193003315", 0}, /* no such month */
    {ENT_SE_PNR, "811228-9873", 0},
    {ENT_SE_PNR, "811328-9874", 0},
    {ENT_FI_HETU, "131052-308U", 0},
    {ENT_FI_HETU, "310252-308Y", 0},
    {ENT_FI_HETU, "131052308T", 0}, /* without a sign it is none */
    {ENT_FI_HETU, "131052/308T", 0},
    {ENT_DK_CPR, "511062-5629", 0},
    {ENT_DK_CPR, "290200-0003", 0}, /* 1900 was no leap year */
    {ENT_NO_FNR, "15108695077", 0},
    {ENT_AT_SVNR, "2237010180", 0},
    {ENT_AT_SVNR, "1237320180", 0},
    {ENT_PT_NIF, "501964842", 0},
    {ENT_PT_NIF, "00000000 0 ZZ3", 0},
    {ENT_IE_PPS, "6433435E", 0},
    {ENT_IE_PPS, "6433435VH", 0},
    {ENT_CZ_RC, "7103192746", 0},
    {ENT_CZ_RC, "1103492745", 0},
    {ENT_CZ_RC, "590312/123", 0},
    {ENT_RO_CNP, "0800101221142", 0},
    {ENT_RO_CNP, "1000229123456", 0}, /* 1900 was no leap year */
    {ENT_RO_CNP, "1632215123457", 0},
    {ENT_RO_CNP, "1630615123458", 0},
    {ENT_BG_EGN, "8019010008", 0},
    {ENT_HR_OIB, "33392005962", 0},
    {ENT_GR_AMKA, "01013099999", 0},
    {ENT_GR_AMKA, "32013099997", 0},
    {ENT_GR_AFM, "123456780", 0},
    {ENT_LT_EE_ID, "33309240065", 0},
    {ENT_LT_EE_ID, "36832280109", 0},
    {ENT_LV_PK, "161375-19997", 0},
    {ENT_LV_PK, "161175-19998", 0},
    {ENT_SI_EMSO, "0101006500007", 0},
    {ENT_HU_TAJ, "111111111", 0},
    {ENT_LU_ID, "1893120105733", 0},
    {ENT_MT_ID, "0026474C", 0},
    {ENT_CY_TIC, "10259033Z", 0},
    {ENT_CY_TIC, "12000139V", 0},
    {ENT_CH_AHV, "756.9217.0769.84", 0},
    {ENT_CH_AHV, "123.4567.8910.19", 0},
    {ENT_UK_NHS, "9434765918", 0},
    {ENT_UK_NINO, "QQ123456C", 0},
    {ENT_UK_NINO, "GB123456A", 0},
    {ENT_UK_NINO, "AO123456C", 0},
    {ENT_UK_NINO, "AB123456E", 0},
};

TEST(examples_are_valid) {
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        const example *x = &valid[i];
        unsigned alone = score(x->ent, x->text, ID_NEAR_NOTHING);
        if (!alone) FAIL("%s: %s is not valid", names[x->ent], x->text);
        if ((alone >= ID_REPORT) != x->alone) FAIL("%s: %s scores %u alone", names[x->ent], x->text, alone);
    }
}

TEST(words_nearby_report_every_example) {
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        unsigned near = score(valid[i].ent, valid[i].text, ID_NEAR_WORD);
        if (near < ID_REPORT) FAIL("%s: %s scores %u near its word", names[valid[i].ent], valid[i].text, near);
    }
}

TEST(wrong_numbers_are_refused) {
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
        if (score(invalid[i].ent, invalid[i].text, ID_NEAR_WORD))
            FAIL("%s: %s is valid", names[invalid[i].ent], invalid[i].text);
}

TEST(every_rule_has_an_example) {
    bool seen[ID_RULES_MAX] = {false};
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        written w = write_down(valid[i].text);
        id_hit hits[ID_HITS_MAX];
        size_t n = id_match(hits, w.compact, w.n, w.form, w.form_n);
        for (size_t k = 0; k < n; k++)
            if (hits[k].rule->entity == valid[i].ent) seen[hits[k].rule - id_rules] = true;
    }
    for (size_t i = 0; i < id_rule_count; i++)
        if (!seen[i]) FAIL("no example of %s (%s)", id_rules[i].name, names[id_rules[i].entity]);
    for (unsigned e = ENT_IBAN; e <= ENT_UK_NINO; e++) {
        bool any = false;
        for (size_t i = 0; i < id_rule_count; i++) any |= id_rules[i].entity == e;
        if (!any) FAIL("%s has no rule", names[e]);
    }
}

/* Codes with two check digits or a letter of many, where one wrong character never passes. */
TEST(one_wrong_digit_is_always_seen) {
    static const struct {
        unsigned ent;
        const char *text;
    } strong[] = {
        {ENT_IBAN, "DE89370400440532013000"}, {ENT_LEI, "529900T8BM49AURSDO55"}, {ENT_CARD, "4111111111111111"},
        {ENT_FR_NIR, "295109912611193"},      {ENT_NL_BSN, "111222333"},         {ENT_ES_DNI, "54362315K"},
        {ENT_CH_AHV, "7569217076985"},        {ENT_LU_ID, "1893120105732"},      {ENT_HR_OIB, "33392005961"},
        {ENT_IT_IVA, "00743110157"},          {ENT_NO_FNR, "15108695088"}};
    for (size_t i = 0; i < sizeof strong / sizeof *strong; i++) {
        char text[40];
        snprintf(text, sizeof text, "%s", strong[i].text);
        for (char *p = text; *p; p++) {
            char was = *p;
            if (was < '0' || was > '9') continue;
            for (char c = '0'; c <= '9'; c++) {
                *p = c;
                if (c != was && score(strong[i].ent, text, ID_NEAR_WORD)) FAIL("%s is valid", text);
            }
            *p = was;
        }
        CHECK(score(strong[i].ent, text, ID_NEAR_WORD));
    }
}

TEST(the_table_is_in_order) {
    for (size_t i = 0; i < id_rule_count; i++) {
        const id_rule *r = &id_rules[i];
        const char *who = r->name;
        if (r->min_len < ID_LEN_MIN || r->max_len > ID_LEN_MAX || r->min_len > r->max_len) FAIL("%s: lengths", who);
        if (r->entity > ENT_UK_NINO || !r->check || !r->shapes || !r->kinds || r->kinds >> ID_KINDS) FAIL("%s", who);
        if (r->near < 80 || r->near > 99 || r->typical < r->plain || r->near < r->typical) FAIL("%s: scores", who);
        /* one check digit is not enough, whatever the number is of */
        if (r->strength <= 91 && strcmp(r->country, "") != 0 && strspn(r->shapes, "d") == strlen(r->shapes) &&
            r->plain >= ID_REPORT)
            FAIL("%s: reported by a single check digit", who);
        if (!r->words || !r->words[0]) FAIL("%s: no words", who);
    }
    CHECK(id_rule_count <= ID_RULES_MAX);
}

static bool word_is_plain(const char *word) {
    size_t n = strlen(word);
    if (!n || n > ID_WORD_MAX || word[0] == ' ' || word[n - 1] == ' ') return false;
    for (const char *p = word; *p; p++) {
        if (*p >= 'A' && *p <= 'Z') return false;
        if (*p == '*' && p[1]) return false;
        if ((unsigned char)*p < 128 && !(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && *p != ' ' && *p != '*')
            return false;
    }
    return true;
}

TEST(words_are_written_as_the_scanner_reads_them) {
    for (size_t i = 0; i < id_rule_count; i++)
        for (const char *const *w = id_rules[i].words; *w; w++)
            if (!word_is_plain(*w)) FAIL("%s: \"%s\"", id_rules[i].name, *w);
    for (size_t k = 0; k < ID_KINDS; k++) {
        CHECK(id_kind_words[k] && id_kind_words[k][0]);
        for (const char *const *w = id_kind_words[k]; *w; w++)
            if (!word_is_plain(*w)) FAIL("kind %zu: \"%s\"", k, *w);
    }
}

/* One random text of one of a rule's shapes; digits that a shape demands are random too. */
static size_t random_shape(char out[ID_LEN_MAX + 1], const id_rule *r) {
    unsigned alternatives = 1;
    for (const char *p = r->shapes; *p; p++) alternatives += *p == '|';
    const char *p = r->shapes;
    for (unsigned skip = random_below(alternatives); skip; p++) skip -= *p == '|';
    size_t n = 0, len = r->min_len + random_below(r->max_len - r->min_len + 1u);
    for (; *p && *p != '|' && n < ID_LEN_MAX; p++) {
        char class = *p == '*' ? p[-1] : *p;
        do {
            out[n++] = class == 'd' || (class >= '0' && class <= '9') ? (char)('0' + random_below(10))
                       : class == 'l'                                 ? (char)('A' + random_below(26))
                       : class == 'a' ? "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[random_below(36)]
                                      : class;
        } while (*p == '*' && n < len);
    }
    out[n] = 0;
    return n;
}

/* Of random numbers of the right shape at most what the rule's strength leaves may pass. */
TEST(strengths_are_not_too_high) {
    enum { TRIES = 20000 };
    for (size_t i = 0; i < id_rule_count; i++) {
        const id_rule *r = &id_rules[i];
        unsigned passed = 0, weakest = 100;
        for (unsigned t = 0; t < TRIES; t++) {
            char s[ID_LEN_MAX + 1];
            size_t n = random_shape(s, r);
            int strength = r->check(s, n);
            if (strength <= 0) continue;
            if (strength > 99) FAIL("%s: %s gives %d", r->name, s, strength);
            if (!id_shape_fits(r->shapes, s, n)) FAIL("%s: %s does not fit its shape", r->name, s);
            passed++;
            if ((unsigned)strength < weakest) weakest = (unsigned)strength;
        }
        if (passed * 100 > TRIES * (100.5 - weakest)) FAIL("%s: %u of %d pass", r->name, passed, (int)TRIES);
    }
}

TEST(no_number_satisfies_more_rules_than_fit) {
    size_t most = 0;
    for (size_t n = ID_LEN_MIN; n <= 20; n++) {
        size_t fit = 0;
        char zeros[ID_LEN_MAX] = "00000000000000000000";
        for (size_t i = 0; i < id_rule_count; i++)
            fit += id_rules[i].min_len <= n && n <= id_rules[i].max_len && id_shape_fits(id_rules[i].shapes, zeros, n);
        if (fit > most) most = fit;
    }
    CHECK(most >= 6 && most <= ID_HITS_MAX); /* digits: what most rules of a length share */
    for (unsigned t = 0; t < 200000; t++) {
        char s[ID_LEN_MAX + 1];
        size_t n = random_shape(s, &id_rules[random_below((unsigned)id_rule_count)]);
        id_hit hits[ID_HITS_MAX];
        if (id_match(hits, s, n, s, n) >= ID_HITS_MAX) FAIL("%s satisfies too many rules", s);
    }
}

TEST(shapes_fit_what_they_describe) {
    CHECK(id_shape_fits("dddd", "1234", 4));
    CHECK(!id_shape_fits("dddd", "123", 3));
    CHECK(!id_shape_fits("dddd", "12345", 5));
    CHECK(id_shape_fits("ddd|dd-d", "12-3", 4));
    CHECK(!id_shape_fits("ddd|dd-d", "12 3", 4));
    CHECK(id_shape_fits("lldd", "ab12", 4));
    CHECK(id_shape_fits("lldd aaaa*", "DE89 3704 0044 05", 17));
    CHECK(!id_shape_fits("lldd aaaa*", "DE89 3704  0044", 15));
    CHECK(!id_shape_fits("lldd aaaa*", "DE89 3704 ", 10));
    CHECK(id_shape_fits("d*", "1", 1));
    CHECK(!id_shape_fits("", "1", 1));
    CHECK(!id_shape_fits("d", "", 0));
}

TEST(forms_and_words_raise_the_score) {
    unsigned plain = score(ENT_DE_TAX, "36574261809", ID_NEAR_NOTHING);
    unsigned typical = score(ENT_DE_TAX, "36 574 261 809", ID_NEAR_NOTHING);
    unsigned odd = score(ENT_DE_TAX, "3657 42 61809", ID_NEAR_NOTHING);
    CHECK(odd < plain && plain < typical && typical < score(ENT_DE_TAX, "36574261809", ID_NEAR_WORD));
    CHECK(odd < ID_REPORT);
    /* groups of one length are a habit, and one digit after the other hides nothing */
    unsigned fours = score(ENT_DE_TAX, "3657 4261 809", ID_NEAR_NOTHING);
    CHECK(odd < fours && fours < plain && fours >= ID_REPORT);
    CHECK_INT(score(ENT_DE_TAX, "3 6 5 7 4 2 6 1 8 0 9", ID_NEAR_NOTHING), plain);
    CHECK(score(ENT_CARD, "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", ID_NEAR_NOTHING) >= ID_REPORT);
    CHECK(score(ENT_CARD, "3782 8224 6310 005", ID_NEAR_NOTHING) >= ID_REPORT);
    CHECK(score(ENT_NL_BSN, "111222333", ID_NEAR_KIND) >= ID_REPORT);
    CHECK(score(ENT_NL_BSN, "111222333", ID_NEAR_KIND) < score(ENT_NL_BSN, "111222333", ID_NEAR_WORD));
    /* modulo 11 only adds to a Danish number */
    CHECK(score(ENT_DK_CPR, "211062-5629", 0) > score(ENT_DK_CPR, "211062-5620", 0));
    CHECK(score(ENT_DK_CPR, "211062-5620", 0) >= ID_REPORT);
    /* a word in small letters is no bank */
    CHECK(score(ENT_BIC, "document", ID_NEAR_NOTHING) < ID_REPORT);
    CHECK(score(ENT_BIC, "DOCUMENT", ID_NEAR_NOTHING) < ID_REPORT);
}

TEST(any_bytes_are_refused_quietly) {
    id_hit hits[ID_HITS_MAX];
    char bytes[64];
    memset(bytes, 0, sizeof bytes);
    for (size_t n = 0; n <= sizeof bytes; n++) CHECK(id_match(hits, bytes, n, bytes, n) == 0);
    for (unsigned t = 0; t < 100000; t++) {
        size_t n = random_below(40);
        char *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read past the end */
        CHECK(exact != NULL);
        for (size_t i = 0; i < n; i++) exact[i] = (char)random_below(256);
        for (size_t i = 0; i < id_rule_count; i++) {
            int strength = id_rules[i].check(exact, n);
            if (strength < 0 || strength > 99) FAIL("%s gives %d", id_rules[i].name, strength);
        }
        free(exact);
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(examples_are_valid);
    RUN(words_nearby_report_every_example);
    RUN(wrong_numbers_are_refused);
    RUN(every_rule_has_an_example);
    RUN(one_wrong_digit_is_always_seen);
    RUN(the_table_is_in_order);
    RUN(words_are_written_as_the_scanner_reads_them);
    RUN(strengths_are_not_too_high);
    RUN(no_number_satisfies_more_rules_than_fit);
    RUN(shapes_fit_what_they_describe);
    RUN(forms_and_words_raise_the_score);
    RUN(any_bytes_are_refused_quietly);
    return test_end();
}
