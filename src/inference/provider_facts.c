/* What is known of a provider: checked on the way in, and the same form for the store, for records and for people. */
#include "inference/providers_internal.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef enum fact_kind { FACT_TEXT, FACT_COUNTRY, FACT_BOOL, FACT_YES_NO, FACT_INT, FACT_COUNT, FACT_PRICE } fact_kind;
typedef struct fact {
    const char *name;
    fact_kind kind;
    size_t at, size; /* where in a provider; bytes of a text with its NUL */
    double max;
} fact;

#define TEXT_FACT(name, field) \
    { name, FACT_TEXT, offsetof(provider, field), sizeof(((provider *)0)->field), 0 }
static const fact facts_known[] = {
    TEXT_FACT("driver", facts.driver),
    TEXT_FACT("url", url),
    TEXT_FACT("form", form),
    TEXT_FACT("api_version", api_version),
    TEXT_FACT("ca_file", ca_file),
    {"inside", FACT_BOOL, offsetof(provider, facts.inside), 0, 0},
    TEXT_FACT("operator", facts.operator_name),
    {"country", FACT_COUNTRY, offsetof(provider, facts.country), 3, 0},
    {"operator_law", FACT_COUNTRY, offsetof(provider, facts.operator_law), 3, 0},
    {"retention_days", FACT_INT, offsetof(provider, facts.retention_days), 0, 36500},
    {"training", FACT_YES_NO, offsetof(provider, facts.training), 0, 0},
    TEXT_FACT("contract", facts.contract),
    TEXT_FACT("certificates", facts.certificates),
    {"price_in", FACT_PRICE, offsetof(provider, facts.price_in), 0, 1e6},
    {"price_out", FACT_PRICE, offsetof(provider, facts.price_out), 0, 1e6},
    TEXT_FACT("exit", facts.exit),
    {"max_concurrent", FACT_COUNT, offsetof(provider, max_concurrent), 0, 1e6},
};
enum { N_FACTS = sizeof facts_known / sizeof *facts_known };

/* ISO 3166-1 alpha-2, the officially assigned ones. */
static const char countries[] =
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA "
    "CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA "
    "GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP "
    "KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS "
    "MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS "
    "RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW "
    "TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

bool country_known(const char *code) {
    if (strlen(code) != 2) return false;
    for (const char *c = countries; *c; c += c[2] ? 3 : 2)
        if (c[0] == code[0] && c[1] == code[1]) return true;
    return false;
}

err_code provider_check_name(const char *name, err *e) {
    size_t n = strlen(name);
    bool ok = n >= 1 && n <= PROVIDER_NAME_MAX;
    for (size_t i = 0; i < n && ok; i++) {
        bool alnum = (name[i] >= '0' && name[i] <= '9') || (name[i] >= 'a' && name[i] <= 'z');
        ok = alnum || (i && strchr("._-", name[i]));
    }
    if (!ok)
        return err_set(e, ERR_INVALID,
                       "provider name '%.60s': 1 to %d lower case letters, digits and . _ - are allowed, the first a "
                       "letter or digit",
                       name, PROVIDER_NAME_MAX);
    if (strcmp(name, ENGINE_NAME) == 0)
        return err_set(e, ERR_INVALID,
                       "provider name 'engine': that is the engine of this program itself, which is always there and "
                       "is not changed; choose another name");
    return ERR_OK;
}

err_code provider_check_keys(const cJSON *facts, err *e) {
    if (!cJSON_IsObject(facts)) return err_set(e, ERR_INVALID, "a provider's facts must be an object");
    const cJSON *v;
    cJSON_ArrayForEach(v, facts) {
        bool known = strcmp(v->string, "name") == 0;
        for (size_t i = 0; i < N_FACTS && !known; i++) known = strcmp(v->string, facts_known[i].name) == 0;
        if (known) continue;
        buf names = {.max = 400};
        for (size_t i = 0; i < N_FACTS; i++) buf_printf(&names, ", %s", facts_known[i].name);
        err_set(e, ERR_INVALID, "a provider has no fact \"%.40s\"; there are: name%s", v->string, buf_str(&names));
        buf_free(&names);
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* ---- one fact ---------------------------------------------------------------------------------------------- */

static err_code read_text(const fact *f, char *out, const cJSON *v, err *e) {
    if (!cJSON_IsString(v)) return err_set(e, ERR_INVALID, "%s must be a text", f->name);
    const char *s = v->valuestring;
    size_t n = strlen(s);
    if (n >= f->size) return err_set(e, ERR_INVALID, "%s is too long: %zu bytes, at most %zu", f->name, n, f->size - 1);
    if (!utf8_valid(s, n)) return err_set(e, ERR_INVALID, "%s is not UTF-8", f->name);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return err_set(e, ERR_INVALID, "%s must be one line without control characters", f->name);
    memcpy(out, s, n + 1);
    return ERR_OK;
}

static err_code read_country(const fact *f, char out[3], const cJSON *v, err *e) {
    const char *s = cJSON_IsString(v) ? v->valuestring : "";
    char code[3] = "";
    for (int i = 0; i < 2 && s[i]; i++) code[i] = s[i] >= 'a' && s[i] <= 'z' ? (char)(s[i] - 32) : s[i];
    if (cJSON_IsString(v) && (!*s || (strlen(s) == 2 && country_known(code)))) {
        memcpy(out, code, 3);
        return ERR_OK;
    }
    static const char *const meant[][2] = {{"UK", "GB"}, {"EL", "GR"}};
    for (size_t i = 0; i < sizeof meant / sizeof *meant; i++)
        if (strlen(s) == 2 && strcmp(code, meant[i][0]) == 0)
            return err_set(e, ERR_INVALID, "%s \"%s\": ISO 3166 calls it %s", f->name, s, meant[i][1]);
    return err_set(e, ERR_INVALID,
                   "%s \"%.40s\" is no country: two letters as in ISO 3166-1 are allowed, as DE, FR, US", f->name, s);
}

static err_code read_number(const fact *f, const cJSON *v, double *out, err *e) {
    bool whole = f->kind != FACT_PRICE;
    if (!cJSON_IsNumber(v)) return err_set(e, ERR_INVALID, "%s must be a number", f->name);
    double d = v->valuedouble;
    if (!(d >= 0 && d <= f->max) || (whole && d != (double)(int64_t)d))
        return err_set(e, ERR_INVALID, "%s: %.15g is not allowed; a %snumber from 0 to %.15g is%s", f->name, d,
                       whole ? "whole " : "", f->max,
                       f->kind == FACT_COUNT ? " (0: no limit)" : ", or null where it is not known");
    *out = d;
    return ERR_OK;
}

/* `v` is there and not null. */
static err_code read_fact(const fact *f, provider *p, const cJSON *v, err *e) {
    char *at = (char *)p + f->at;
    double d = 0;
    err_code rc = ERR_OK;
    if (f->kind == FACT_TEXT) return read_text(f, at, v, e);
    if (f->kind == FACT_COUNTRY) return read_country(f, at, v, e);
    if (f->kind == FACT_BOOL || f->kind == FACT_YES_NO) {
        if (!cJSON_IsBool(v)) return err_set(e, ERR_INVALID, "%s must be true or false", f->name);
        if (f->kind == FACT_BOOL)
            *(bool *)(void *)at = cJSON_IsTrue(v);
        else
            *(int8_t *)at = (int8_t)cJSON_IsTrue(v);
        return ERR_OK;
    }
    rc = read_number(f, v, &d, e);
    if (rc) return rc;
    if (f->kind == FACT_INT) memcpy(at, &(int32_t){(int32_t)d}, sizeof(int32_t));
    if (f->kind == FACT_COUNT) memcpy(at, &(uint32_t){(uint32_t)d}, sizeof(uint32_t));
    if (f->kind == FACT_PRICE) memcpy(at, &d, sizeof d);
    return ERR_OK;
}

static cJSON *fact_json(const fact *f, const provider *p) {
    const char *at = (const char *)p + f->at;
    int32_t whole;
    uint32_t count;
    double d;
    switch (f->kind) {
    case FACT_TEXT:
    case FACT_COUNTRY: return *at ? cJSON_CreateString(at) : cJSON_CreateNull();
    case FACT_BOOL: return cJSON_CreateBool(*(const bool *)(const void *)at);
    case FACT_YES_NO: return *(const int8_t *)at < 0 ? cJSON_CreateNull() : cJSON_CreateBool(*(const int8_t *)at);
    case FACT_INT: memcpy(&whole, at, sizeof whole); return whole < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(whole);
    case FACT_COUNT: memcpy(&count, at, sizeof count); return cJSON_CreateNumber(count);
    case FACT_PRICE: memcpy(&d, at, sizeof d); return d < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(d);
    }
    return NULL;
}

cJSON *provider_facts_json(const provider *p) {
    cJSON *o = cJSON_CreateObject();
    for (size_t i = 0; o && i < N_FACTS; i++) {
        cJSON *v = fact_json(&facts_known[i], p);
        if (v && cJSON_AddItemToObject(o, facts_known[i].name, v)) continue;
        cJSON_Delete(v);
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

/* ---- the address ------------------------------------------------------------------------------------------- */

/* Nothing of the address is repeated in an error: it may hold a password. */
static const char *bad_bytes(const char *url) {
    for (const char *c = url; *c; c++) {
        if (*c <= 0x20 || *c >= 0x7f || strchr("\"<>\\^`{|}", *c)) return "holds a byte that no address may";
        if (*c == '@')
            return "holds an '@': a name or password does not belong there; polder provider set-key takes it";
        if (*c == '?' || *c == '#') return "must end before '?' or '#'";
    }
    const char *host = strstr(url, "://");
    if (!host || host[3] == '/') return "is not an address as https://api.example.eu/v1";
    if (strstr(url, "/../") || strstr(url, "/./")) return "must not have '.' or '..' as a part of its path";
    const char *last = strrchr(url, '/');
    if (last && (strcmp(last, "/..") == 0 || strcmp(last, "/.") == 0))
        return "must not have '.' or '..' as a part of its path";
    return NULL;
}

static bool host_is_loopback(const char *host) {
    struct in_addr v4;
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0) return true;
    return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* As libcurl, which will use it, takes it apart. */
static const char *bad_address(const char *url, bool *secure, bool *loopback) {
    const char *why = NULL;
    char *scheme = NULL, *host = NULL;
    CURLU *u = curl_url();
    if (!u) return "cannot be checked: out of memory";
    if (curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK || !*host || strchr(host, '%'))
        why = "is not an address as https://api.example.eu/v1";
    else if (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0)
        why = "must begin with https:// (or http:// for a server inside the perimeter or on this machine)";
    *secure = scheme && strcmp(scheme, "https") == 0;
    *loopback = host && host_is_loopback(host);
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(u);
    return why;
}

static err_code check_url(provider *p, err *e) {
    bool secure = false, loopback = false;
    size_t n = strlen(p->url);
    if (!n) return err_set(e, ERR_INVALID, "url is missing: its base address, as https://api.example.eu/v1");
    const char *why = bad_bytes(p->url);
    if (!why) why = bad_address(p->url, &secure, &loopback);
    if (why) return err_set(e, ERR_INVALID, "url %s", why);
    if (!secure && !p->facts.inside && !loopback)
        return err_set(e, ERR_INVALID,
                       "url begins with http://: anybody on the way could read what is sent; https:// is needed but "
                       "for a provider inside the perimeter (inside) or on this machine");
    while (n && p->url[n - 1] == '/') p->url[--n] = 0;
    return ERR_OK;
}

/* ---- a whole provider -------------------------------------------------------------------------------------- */

static err_code check_together(provider *p, err *e) {
    const char *drv = p->facts.driver;
    if (!*drv) return err_set(e, ERR_INVALID, "driver is missing: openai (any compatible server) or anthropic");
    if (strcmp(drv, "openai") != 0 && strcmp(drv, "anthropic") != 0)
        return err_set(e, ERR_INVALID,
                       "driver \"%s\" is not known; there are: openai (any compatible server), anthropic", drv);
    if (*p->form && strcmp(p->form, "azure") != 0)
        return err_set(e, ERR_INVALID, "form \"%s\" is not known; there is: azure", p->form);
    if (*p->form && strcmp(drv, "openai") != 0)
        return err_set(e, ERR_INVALID, "form azure goes with the driver openai, not with %s", drv);
    for (const char *c = p->api_version; *c; c++)
        if (!strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-", *c))
            return err_set(e, ERR_INVALID, "api_version \"%s\": letters, digits, '.' and '-' are allowed",
                           p->api_version);
    if (*p->ca_file && p->ca_file[0] != '/')
        return err_set(e, ERR_INVALID, "ca_file \"%.200s\" must be an absolute path", p->ca_file);
    return check_url(p, e);
}

err_code provider_parse(provider *out, const cJSON *facts, err *e) {
    const char *name = NULL;
    memset(out, 0, sizeof *out);
    err_code rc = provider_check_keys(facts, e);
    if (!rc) rc = json_get_str(facts, "name", &name, e);
    if (!rc && !name) rc = err_set(e, ERR_INVALID, "a provider needs a name");
    if (!rc) rc = provider_check_name(name, e);
    if (rc) return rc;
    out->facts = provider_facts_unknown(name);
    for (size_t i = 0; i < N_FACTS && !rc; i++) {
        const cJSON *v = json_get(facts, facts_known[i].name);
        if (v) rc = read_fact(&facts_known[i], out, v, e);
    }
    if (!rc) rc = check_together(out, e);
    if (rc) err_prefix(e, "provider '%s'", name);
    return rc;
}
