/* Part of data's public header: what a text holds.
 *
 * detector_scan looks for every entity in every language at once, in one linear pass over the text as a reader would
 * see it: full-width digits, no-break and zero-width characters, separators inside numbers and JSON's \uXXXX escapes do
 * not hide anything. Offsets are into the bytes that were given.
 *
 * Invariants
 *  1. Findings are sorted by `from`, do not overlap, and lie on character boundaries; where two recognisers want the
 *     same bytes the higher score wins, then the longer, then the one with the lower number.
 *  2. Time is linear in the text's length for every input; what cannot be decided within the limits is an error, never
 *     "nothing found": the caller treats it as the policy's detector-error.
 *  3. Any bytes are fine: broken UTF-8 is skipped byte by byte.
 *
 * Threads: a detector is immutable and shared; `findings` belong to one thread.
 */
#ifndef POLDER_DATA_DETECT_H
#define POLDER_DATA_DETECT_H

#include "base/buf.h"
#include "base/error.h"
#include "data/labels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(identifier, name, group, flags, placeholder). Names and groups are the words of policies ("raise to confidential
 * when found iban, national-id") and of records. The placeholder is the word in [WORD_1]. Entities whose flags are 0
 * identify no person. Special-category words are never redacted: they raise the label (flag special-category). */
#define ENTITY_TABLE(X)                                                                                    \
    X(ENT_IBAN, "iban", "financial", FLAG_PERSONAL, "IBAN")                                                \
    X(ENT_CARD, "payment-card", "financial", FLAG_PERSONAL, "CARD")                                        \
    X(ENT_BIC, "bic", "financial", 0, "BIC")                                                               \
    X(ENT_LEI, "lei", "organisation", 0, "LEI")                                                            \
    X(ENT_VAT, "vat", "organisation", 0, "VAT")                                                            \
    X(ENT_FR_SIREN, "fr-siren", "organisation", 0, "COMPANY")                                              \
    X(ENT_IT_IVA, "it-partita-iva", "organisation", 0, "COMPANY")                                          \
    X(ENT_DE_TAX, "de-tax-id", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                \
    X(ENT_DE_SOCIAL, "de-social-insurance", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                   \
    X(ENT_DE_HEALTH, "de-health-insurance", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                   \
    X(ENT_DE_IDCARD, "de-id-card", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                            \
    X(ENT_FR_NIR, "fr-nir", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_ES_DNI, "es-dni", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_ES_NIE, "es-nie", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_IT_CF, "it-codice-fiscale", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                         \
    X(ENT_NL_BSN, "nl-bsn", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_PL_PESEL, "pl-pesel", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                               \
    X(ENT_BE_NISS, "be-niss", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                 \
    X(ENT_SE_PNR, "se-personnummer", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                          \
    X(ENT_FI_HETU, "fi-hetu", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                 \
    X(ENT_DK_CPR, "dk-cpr", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_NO_FNR, "no-fnr", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_AT_SVNR, "at-svnr", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                 \
    X(ENT_PT_NIF, "pt-nif", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_IE_PPS, "ie-pps", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_CZ_RC, "cz-rodne-cislo", "national-id", FLAG_PERSONAL, "NATIONAL_ID") /* Slovakia's too */       \
    X(ENT_RO_CNP, "ro-cnp", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_BG_EGN, "bg-egn", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_HR_OIB, "hr-oib", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_GR_AMKA, "gr-amka", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                 \
    X(ENT_GR_AFM, "gr-afm", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_LT_EE_ID, "lt-ee-id", "national-id", FLAG_PERSONAL, "NATIONAL_ID") /* asmens kodas, isikukood */ \
    X(ENT_LV_PK, "lv-personas-kods", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                          \
    X(ENT_SI_EMSO, "si-emso", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                 \
    X(ENT_HU_TAJ, "hu-taj", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_LU_ID, "lu-matricule", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                              \
    X(ENT_MT_ID, "mt-id", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                     \
    X(ENT_CY_TIC, "cy-tic", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_CH_AHV, "ch-ahv", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_UK_NHS, "uk-nhs", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                   \
    X(ENT_UK_NINO, "uk-nino", "national-id", FLAG_PERSONAL, "NATIONAL_ID")                                 \
    X(ENT_EMAIL, "email", "contact", FLAG_PERSONAL, "EMAIL")                                               \
    X(ENT_PHONE, "phone", "contact", FLAG_PERSONAL, "PHONE")                                               \
    X(ENT_ADDRESS, "address", "contact", FLAG_PERSONAL, "ADDRESS")                                         \
    X(ENT_PERSON, "person", "contact", FLAG_PERSONAL, "PERSON")                                            \
    X(ENT_BIRTH, "birth-date", "contact", FLAG_PERSONAL, "BIRTH_DATE")                                     \
    X(ENT_PLATE, "plate", "contact", FLAG_PERSONAL, "PLATE")                                               \
    X(ENT_IP, "ip", "network", FLAG_PERSONAL, "IP")                                                        \
    X(ENT_MAC, "mac", "network", FLAG_PERSONAL, "MAC")                                                     \
    X(ENT_URL_LOGIN, "url-credentials", "secret-key", FLAG_CREDENTIAL, "URL")                              \
    X(ENT_API_KEY, "api-key", "secret-key", FLAG_CREDENTIAL, "API_KEY")                                    \
    X(ENT_CLOUD_KEY, "cloud-key", "secret-key", FLAG_CREDENTIAL, "CLOUD_KEY")                              \
    X(ENT_JWT, "jwt", "secret-key", FLAG_CREDENTIAL, "TOKEN")                                              \
    X(ENT_PRIVATE_KEY, "private-key", "secret-key", FLAG_CREDENTIAL, "PRIVATE_KEY")                        \
    X(ENT_PASSWORD, "password", "secret-key", FLAG_CREDENTIAL, "PASSWORD")                                 \
    X(ENT_HEALTH, "health", "art-9", FLAG_SPECIAL, NULL)                                                   \
    X(ENT_RELIGION, "religion", "art-9", FLAG_SPECIAL, NULL)                                               \
    X(ENT_POLITICS, "politics", "art-9", FLAG_SPECIAL, NULL)                                               \
    X(ENT_UNION, "trade-union", "art-9", FLAG_SPECIAL, NULL)                                               \
    X(ENT_ETHNIC, "ethnic-origin", "art-9", FLAG_SPECIAL, NULL)                                            \
    X(ENT_SEX_LIFE, "sex-life", "art-9", FLAG_SPECIAL, NULL)                                               \
    X(ENT_BIOMETRIC, "biometric", "art-9", FLAG_SPECIAL, NULL)

typedef enum entity {
#define X(id, name, group, flags, word) id,
    ENTITY_TABLE(X)
#undef X
        ENT_BUILT_IN,           /* how many there are; the owner's own follow */
    ENT_MAX = ENT_BUILT_IN + 32 /* at most so many of the owner's own */
} entity;

typedef struct entity_set { /* a bit for each entity */
    uint64_t bits[2];
} entity_set;
static inline void entity_set_add(entity_set *s, unsigned ent) {
    s->bits[ent >> 6] |= (uint64_t)1 << (ent & 63);
}
static inline bool entity_set_has(const entity_set *s, unsigned ent) {
    return s->bits[ent >> 6] >> (ent & 63) & 1;
}
static inline bool entity_set_empty(const entity_set *s) {
    return !(s->bits[0] | s->bits[1]);
}

/* What is known of entities: the table above and the owner's own. Part of a detector; policies are read with it. */
typedef struct entity_info {
    const char *name, *group, *word; /* word NULL: is never redacted */
    uint8_t flags;
} entity_info;
typedef struct detector detector;

/* `rules` are the owner's own entities (patterns and dictionaries; detect_rules.h describes the file), n bytes of it,
 * `name` for errors; NULL: none. ERR_USAGE: the rules cannot be used (line, column, why). */
err_code detector_new(detector **out, const char *rules, size_t n, const char *name, err *e);
void detector_free(detector *d);               /* NULL is fine */
unsigned detector_entities(const detector *d); /* ENT_BUILT_IN and the owner's own */
const entity_info *detector_entity(const detector *d, unsigned ent);
/* Entities that a word of a policy means: an entity's name, a group's name, or a flag's name (all that carry it).
 * false: no such word. */
bool detector_find(const detector *d, const char *word, size_t n, entity_set *out);

typedef struct finding {
    uint32_t entity;
    uint32_t score;  /* 1 to 100 */
    size_t from, to; /* bytes [from, to) */
} finding;

#define FINDINGS_MAX 100000 /* of one text */
typedef struct findings {   /* zero-initialised; reused from text to text */
    finding *list;
    size_t n, cap;
    void *scratch; /* the detector's own */
} findings;
void findings_free(findings *f);

/* What `text` holds, into f->list (replaced). ERR_UNAVAILABLE or ERR_NOMEM: it could not be decided. */
err_code detector_scan(const detector *d, const char *text, size_t n, findings *f, err *e);

#endif
