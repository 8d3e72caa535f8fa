/* The detectors: what is found, where, in which disguise, and what hostile texts cost. */
#include "harness.h"

#include "base/mem.h"
#include "data/data.h"
#include "data/detect/detect_rules.h"

static detector *the_detector;
static findings found;
static const char *text;

static const detector *det(void) {
    err e;
    if (!the_detector && detector_new(&the_detector, NULL, 0, NULL, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        exit(3);
    }
    return the_detector;
}

/* Scans, and prints what was found as "email[a@b.example] person[Anna]". */
static const char *scan_with(const detector *d, const char *s, size_t n) {
    static char out[65536];
    size_t at = 0;
    err e;
    text = s;
    out[0] = 0;
    if (detector_scan(d, s, n, &found, &e) != ERR_OK) {
        snprintf(out, sizeof out, "error %s: %s", err_name(e.code), e.msg);
        return out;
    }
    for (size_t i = 0; i < found.n && at < sizeof out - 300; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%s[%.*s]", i ? " " : "",
                               detector_entity(d, found.list[i].entity)->name,
                               (int)(found.list[i].to - found.list[i].from), s + found.list[i].from);
    return out;
}
static const char *scan_text(const char *s) {
    return scan_with(det(), s, strlen(s));
}

/* Each line: a text and what is found. A recogniser that is taken out of the table, or a check that always says yes or
 * no, breaks its lines. */
static const char *const cases[][2] = {
    {"write to anna.b+x@mail.example.org.", "email[anna.b+x@mail.example.org]"},
    {"image@2x.png and @anna and a@b", ""},
    {"IBAN DE89 3704 0044 0532 0130 00 ok", "iban[DE89 3704 0044 0532 0130 00]"},
    {"IBAN DE88 3704 0044 0532 0130 00 no", ""},
    {"BIC COBADEFFXXX", "bic[COBADEFFXXX]"},
    {"card 4111 1111 1111 1111", "payment-card[4111 1111 1111 1111]"},
    {"card 4111 1111 1111 1112", ""},
    {"BSN 123456782", "nl-bsn[123456782]"},
    {"order 123456782", ""},
    {"call +44 20 7946 0958 now", "phone[+44 20 7946 0958]"},
    {"Tel. 030/1234567", "phone[030/1234567]"},
    {"+49 (0)30 1234567", "phone[+49 (0)30 1234567]"},
    {"06 12 34 56 78", "phone[06 12 34 56 78]"},
    {"vom 01.02.2024 bis 05.06.2024", ""},
    {"geb. 12.03.1985", "birth-date[12.03.1985]"},
    {"born on 31.02.1985", ""},
    {"n\xc3\xa9 le 14 juillet 1972", "birth-date[14 juillet 1972]"},
    {"dob: 1985-03-12", "birth-date[1985-03-12]"},
    {"born March 5th, 1979 in Cork", "birth-date[March 5th, 1979]"},
    {"Kennzeichen HH XY 99", "plate[HH XY 99]"},
    {"plate FG-482-KT seen", "plate[FG-482-KT]"},
    {"host 192.168.4.17:8080", "ip[192.168.4.17]"},
    {"version 10.2.33.4 and 127.0.0.1 and 1.2.3.4.5", ""},
    {"from 2001:db8::8a2e:370:7334 to", "ip[2001:db8::8a2e:370:7334]"},
    {"std::vector at 12:30:45", ""},
    {"mac 00:1B:44:11:3A:B7.", "mac[00:1B:44:11:3A:B7]"},
    {"see https://anna:s3cret@host.example/x", "url-credentials[https://anna:s3cret@host.example]"},
    {"see https://host.example/a:b@c", ""},
    {"key ghp_16C7e42F292c6912E7710c838347Ae178B4a", "api-key[ghp_16C7e42F292c6912E7710c838347Ae178B4a]"},
    {"id AKIAQ3EGTZ5XV7N2WYKL", "cloud-key[AKIAQ3EGTZ5XV7N2WYKL]"},
    {"commit 3f786850e387550fdab836ed7e6dc881de23001b", ""},
    {"\"api_key\": \"Zx81kd92jdkQQ18skd0\"", "api-key[Zx81kd92jdkQQ18skd0]"},
    {"password: hunter22", "password[hunter22]"},
    {"<password>hunter22</password>", "password[hunter22]"},
    {"- name: DB_PASSWORD\n  value: hunter2Xy", "password[hunter2Xy]"},
    {"{\"name\":\"DB_PASSWORD\",\"value\":\"hunter2Xy\"}", "password[hunter2Xy]"},
    {"Passwort:\nSommer2024\n", "password[Sommer2024]"},
    {"password:\n  type: string\n  minLength: 12\n", ""},
    {"Das Passwort f\xc3\xbcr das WLAN ist Sommer2024", "password[Sommer2024]"},
    {"my password for the portal is Sommer2024, thanks", "password[Sommer2024]"},
    {"the password for the portal is required", ""},
    {"a password for you. It is 12-fold", ""},
    {"<password></password><user>someone</user>", ""},
    {"key pld_k3v9x0q2m8ab_Zx81kd92jdkQQ18skd0Zx81kd92jdkQQ18skd0Zx81k",
     "api-key[pld_k3v9x0q2m8ab_Zx81kd92jdkQQ18skd0Zx81kd92jdkQQ18skd0Zx81k]"},
    {"Passwort lautet \"geheim\"", "password[geheim]"},
    {"password: <yours> and password is required", ""},
    {"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_X",
     "jwt[eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_X]"},
    {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", ""},
    {"Herr Dr. Klaus Brandt kommt", "person[Klaus Brandt]"},
    {"Mme Zyxwvut est ici", "person[Zyxwvut]"},
    {"from Jan van der Berg, hello", "person[Jan van der Berg]"},
    {"Peter Schmidt GmbH", ""},
    {"anna schmidt wrote", "person[anna schmidt]"},
    {"In May, Will and Rose Garden", ""},
    {"Hauptstra\xc3\x9f"
     "e 12a, 10115 Berlin",
     "address[Hauptstra\xc3\x9f"
     "e 12a, 10115 Berlin]"},
    {"12 bis rue de la Paix, 75002 Paris.", "address[12 bis rue de la Paix, 75002 Paris]"},
    {"221B Baker Street, London NW1 6XE", "address[221B Baker Street, London NW1 6XE]"},
    {"RFC 8785); hashes are RFC 6962 (SHA", ""},
    {"she is a trade union member", "trade-union[trade union member]"},
    {"the patient has cancer", "health[cancer]"},
    {"the market has cancer", ""},
    {"Der Kollege ist schwerbehindert", "health[schwerbehindert]"},
    {"a practising Catholic", "religion[practising Catholic]"},
    {"Mitglied der SPD", "politics[Mitglied der SPD]"},
    {"origine ethnique", "ethnic-origin[origine ethnique]"},
    {"her sexual orientation", "sex-life[sexual orientation]"},
    {"huella dactilar", "biometric[huella dactilar]"},
};

TEST(finds_what_it_should) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(scan_text(cases[i][0]), cases[i][1]) != 0)
            FAIL("\"%s\": \"%s\", not \"%s\"", cases[i][0], scan_text(cases[i][0]), cases[i][1]);
}

/* What breaks it: an offset into the normal form instead of the text, or a disguise that hides. */
TEST(disguises_hide_nothing) {
    static const char *const disguised[][2] = {
        {"x \xef\xbc\x94\xef\xbc\x91\xef\xbc\x91\xef\xbc\x91 1111 1111 1111", "payment-card"},
        {"x 4111\xc2\xa0"
         "1111\xe2\x80\xaf"
         "1111\xe2\x80\x87"
         "1111",
         "payment-card"},
        {"x 4111\xe2\x80\x93"
         "1111\xe2\x88\x92"
         "1111\xe2\x80\x91"
         "1111",
         "payment-card"},
        {"x 4111\xe2\x80\x8b"
         "1111\xc2\xad"
         "1111\xef\xbb\xbf"
         "1111",
         "payment-card"},
        {"x \xd9\xa4\xd9\xa1\xd9\xa1\xd9\xa1 1111 1111 1111", "payment-card"},
        {"x \\u0034111 1111 \\u0031111 1111", "payment-card"},
        {"x 4111\\u00a01111\\u00a01111\\u00a01111", "payment-card"},
        {"x \\\\u0034111 1111 1111 1111", "payment-card"},
        {"x \\ud835\\udfd2111 1111 1111 1111", "payment-card"}, /* a mathematical 4 */
        {"x 4111.1111.1111.1111", "payment-card"},
        {"x 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "payment-card"},
        {"x anna\xef\xbc\xa0mail.example", "email"},
        {"x anna\\u0040mail.example", "email"},
        {"x de89370400440532013000", "iban"},
        {"x DE89%203704%200044%200532%200130%2000", "iban"},
        {"x anna%40mail.example", "email"},
        {"x anna%2540mail.example", "email"},
        {"x j%C3%BCrgen%40mail.example", "email"},
        {"x anna&#64;mail.example", "email"},
        {"x &#97;nna&#x40;mail.example", "email"},
        {"x anna&commat;mail&period;example", "email"},
        {"x DE89&nbsp;3704&nbsp;0044&nbsp;0532&nbsp;0130&nbsp;00", "iban"},
        {"x DE89\t3704-0044-0532-0130-00", "iban"},
    };
    for (size_t i = 0; i < sizeof disguised / sizeof *disguised; i++) {
        scan_text(disguised[i][0]);
        if (found.n != 1 || strcmp(detector_entity(det(), found.list[0].entity)->name, disguised[i][1]) != 0)
            FAIL("\"%s\": %s", disguised[i][0], scan_text(disguised[i][0]));
        CHECK_INT(found.list[0].from, 2);
        CHECK_INT(found.list[0].to, strlen(disguised[i][0]));
    }
    /* decomposed letters, and escapes of a line end between words */
    CHECK_STR(scan_text("Herr Mu\xcc\x88ller\\nkommt"), "person[Mu\xcc\x88ller]");
    CHECK_STR(scan_text("Herr M&uuml;ller kommt"), "person[M&uuml;ller]");
    /* a percent sign before a number, a reference that is none, encodings that are cut off */
    CHECK_STR(scan_text("10%4111 1111 1111 1111"), "payment-card[4111 1111 1111 1111]");
    CHECK_STR(scan_text("a&b;c &#; &#x; &#xd800; 5% % %4 %c3 %c3%"), "");
}

TEST(pem_is_one_finding) {
    const char *pem = "k:\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc+/=\n-----END RSA PRIVATE KEY-----\nrest";
    scan_text(pem);
    CHECK_INT(found.n, 1);
    CHECK_INT(found.list[0].entity, ENT_PRIVATE_KEY);
    CHECK_INT(found.list[0].from, 3);
    CHECK_INT(found.list[0].to, strlen(pem) - 5);
    CHECK_STR(scan_text("-----BEGIN PRIVATE KEY-----\\nMIIE\\nAA"),
              "private-key[-----BEGIN PRIVATE KEY-----\\nMIIE\\nAA]"); /* cut off, and inside JSON */
}

/* Invariant 1 and 3 on random bytes, some of which are pieces of what is looked for. */
TEST(findings_are_sorted_apart_and_whole) {
    static const char *const pieces[] = {"anna@x.example ",
                                         "\xc3\xa9",
                                         "\xef\xbc\x94",
                                         "\\u0041",
                                         " 4111 1111 1111 1111",
                                         "Herr Brandt ",
                                         "\xff",
                                         "\xe2\x80",
                                         "\n",
                                         "DE89370400440532013000 ",
                                         "password: xY1!zz ",
                                         "+49 30 1234567 ",
                                         "12 rue de la Paix, 75002 Paris "};
    uint64_t r = 1;
    for (int round = 0; round < 3000; round++) {
        char b[400];
        size_t n = 0;
        while (n < 200) {
            r = r * UINT64_C(6364136223846793005) + 1442695040888963407u;
            const char *p = pieces[(r >> 33) % (sizeof pieces / sizeof *pieces)];
            if (r >> 60 == 0)
                b[n++] = (char)(r >> 40);
            else {
                memcpy(b + n, p, strlen(p));
                n += strlen(p);
            }
        }
        err e;
        CHECK_OK(detector_scan(det(), b, n, &found, &e), e);
        for (size_t i = 0; i < found.n; i++) {
            const finding *f = &found.list[i];
            CHECK(f->from < f->to && f->to <= n && f->score >= 50 && f->score <= 100);
            CHECK(i == 0 || found.list[i - 1].to <= f->from);
            /* a byte that goes on a character can begin a finding only where it is broken anyway */
            CHECK(((unsigned char)b[f->from] & 0xc0) != 0x80);
        }
    }
}

/* Invariant 2: steps, not seconds. Each recogniser counts what it looks at; twice the text may cost twice as much. */
TEST(hostile_texts_cost_a_bound) {
    static const char *const units[] = {"1",          "1 ",
                                        "a@",         "[A-Z]",
                                        "a:",         "12 ",
                                        "1.",         "eyJ-",
                                        "://a@",      "sk-",
                                        "A 1 ",       "DE89 ",
                                        "Anna ",      "rue ",
                                        "Herr ",      "von ",
                                        "Anna, ",     "AB-12-CD ",
                                        "token ",     "é",
                                        "\\",         "\\u003",
                                        "+49 ",       "born 1 ",
                                        "medical ",   "-----BEGIN PRIVATE KEY-----",
                                        "password: ", "a.a@",
                                        "x_",         "de la "};
    size_t n = 100000;
    char *b = mem_alloc(2 * n);
    CHECK(b);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        uint64_t work[2] = {0};
        for (int k = 0; k < 2; k++) {
            size_t len = strlen(units[u]), size = n * (size_t)(k + 1);
            for (size_t i = 0; i < size; i++) b[i] = units[u][i % len];
            err e;
            err_code rc = detector_scan(det(), b, size, &found, &e);
            if (rc != ERR_OK && rc != ERR_UNAVAILABLE) FAIL("%s: %s", units[u], e.msg);
            work[k] = ((scratch *)found.scratch)->work;
        }
        if (work[1] > 200 * 2 * n || work[1] > 2 * work[0] + work[0] / 50 + 1000)
            FAIL("\"%s\": %llu steps for %zu bytes, %llu for twice as many", units[u], (unsigned long long)work[0], n,
                 (unsigned long long)work[1]);
    }
    mem_free(b);
}

TEST(too_many_findings_are_an_error) {
    size_t n = 1200000;
    char *b = mem_alloc(n);
    CHECK(b);
    for (size_t i = 0; i < n; i++) b[i] = "a@b.cd "[i % 7];
    err e;
    err_code rc = detector_scan(det(), b, n, &found, &e);
    mem_free(b);
    CHECK_INT(rc, ERR_UNAVAILABLE);
    CHECK_INT(found.n, 0);
    CHECK_STR(scan_text("a@b.cd"), "email[a@b.cd]"); /* and the next text is as if nothing had been */
}

TEST(words_of_policies_are_found) {
    entity_set s;
    CHECK(detector_find(det(), "iban", 4, &s) && entity_set_has(&s, ENT_IBAN) && !entity_set_has(&s, ENT_CARD));
    CHECK(detector_find(det(), "national-id", 11, &s) && entity_set_has(&s, ENT_NL_BSN) &&
          !entity_set_has(&s, ENT_IBAN));
    CHECK(detector_find(det(), "credential", 10, &s) && entity_set_has(&s, ENT_JWT) && !entity_set_has(&s, ENT_PERSON));
    CHECK(detector_find(det(), "special-category", 16, &s) && entity_set_has(&s, ENT_HEALTH));
    CHECK(!detector_find(det(), "iba", 3, &s) && entity_set_empty(&s));
    CHECK(!detector_entity(det(), ENT_BUILT_IN) && detector_entities(det()) == ENT_BUILT_IN);
}

/* ---- the owner's rules ---- */

static const char good_rules[] =
    "# ours\n"
    "pattern customer-number group internal flags personal placeholder CUSTOMER : KD-[0-9]{8}\n"
    "pattern customer-number : Kundennr\\. ([0-9]{6})\n"
    "words project-names group internal score 90 : Nordlicht, Blue Heron\r\n"
    "words project-names :\n"
    "    Operation Deich\n"
    "\t\xc3\x9c"
    "berfahrt\n"
    "pattern never-redacted placeholder none : ZZ\\d\n";

TEST(rules_find_their_own) {
    detector *d = NULL;
    err e;
    CHECK_OK(detector_new(&d, good_rules, sizeof good_rules - 1, "rules.txt", &e), e);
    CHECK_INT(detector_entities(d), ENT_BUILT_IN + 3);
    const char *s = "KD-12345678, Kundennr. 123456; blue\xc2\xa0heron, operation  deich, UBERFAHRT, Nordlichter ZZ7";
    CHECK_STR(scan_with(d, s, strlen(s)), "customer-number[KD-12345678] customer-number[123456] "
                                          "project-names[blue\xc2\xa0heron] project-names[operation  deich] "
                                          "project-names[UBERFAHRT] never-redacted[ZZ7]");
    const entity_info *i = detector_entity(d, ENT_BUILT_IN);
    CHECK_STR(i->word, "CUSTOMER");
    CHECK_INT(i->flags, FLAG_PERSONAL);
    CHECK_STR(detector_entity(d, ENT_BUILT_IN + 1)->word, "PROJECT_NAMES");
    CHECK(!detector_entity(d, ENT_BUILT_IN + 2)->word);
    entity_set set;
    CHECK(detector_find(d, "internal", 8, &set) && entity_set_has(&set, ENT_BUILT_IN + 1));
    detector_free(d);
}

TEST(rules_say_what_is_wrong) {
    static const char *const bad[][2] = {
        {"patern a : b\n", "r:1:1:"},
        {"pattern iban : b\n", "this name is taken"},
        {"pattern personal : b\n", "no flag"},
        {"pattern Name : b\n", "lower case"},
        {"pattern a colour red : b\n", "possible here: group, flags"},
        {"pattern a flags big : b\n", "flags are personal"},
        {"pattern a placeholder low : b\n", "capitals"},
        {"pattern a score 20 : b\n", "50 to 100"},
        {"\npattern a : (b\n", "r:2:"},
        {"pattern a : b*\n", "nothing at all"},
        {"pattern a :\n", "stands behind ':'"},
        {"pattern a b\n", "possible here"},
        {"words a :\n", "no entries"},
        {"words a : !!\n", "1 to 8 words"},
        {"  loose\n", "belongs to a rule of words"},
        {"pattern a : b\npattern a group x : c\n", "taken"},
        {"pattern a : \xff\n", "not UTF-8"},
        {"pattern a group email : b\n", "name of an entity"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        detector *d = NULL;
        err e = {0};
        err_code rc = detector_new(&d, bad[i][0], strlen(bad[i][0]), "r", &e);
        if (rc != ERR_USAGE || !strstr(e.msg, bad[i][1])) FAIL("%s: %d %s", bad[i][0], (int)rc, e.msg);
        CHECK(!d);
    }
}

TEST(a_limit_is_an_error_and_not_nothing) {
    static const char r[] = "pattern slow : (a+)+[bc]+(a+)+d\n";
    detector *d = NULL;
    err e;
    char b[4000];
    memset(b, 'a', sizeof b);
    CHECK_OK(detector_new(&d, r, sizeof r - 1, "r", &e), e);
    b[2000] = 'b';
    memcpy(b + sizeof b - 2, "xd", 2); /* what it must end with is there: it cannot give up at once */
    CHECK_INT(detector_scan(d, b, sizeof b, &found, &e), ERR_UNAVAILABLE);
    CHECK_HAS(e.msg, "cannot be decided");
    detector_free(d);
}

TEST(patterns_see_over_the_edges_of_stretches) {
    static const char r[] = "pattern code : X[0-9]{6}Y\n";
    detector *d = NULL;
    err e;
    size_t n = 3 * RULE_STRETCH;
    char *b = mem_alloc(n);
    CHECK(b);
    CHECK_OK(detector_new(&d, r, sizeof r - 1, "r", &e), e);
    for (size_t at = RULE_STRETCH - 12; at < RULE_STRETCH + 4; at++) {
        memset(b, '.', n);
        memcpy(b + at, "X123456Y", 8);
        CHECK_OK(detector_scan(d, b, n, &found, &e), e);
        CHECK_INT(found.n, 1);
        CHECK_INT(found.list[0].from, at);
    }
    mem_free(b);
    detector_free(d);
}

TEST(dictionaries_may_be_long) {
    buf b;
    buf_init(&b, (size_t)8 << 20);
    buf_puts(&b, "words big :\n");
    for (int i = 0; i < RULE_ENTRIES_MAX; i++) buf_printf(&b, " entry%d of list\n", i);
    detector *d = NULL;
    err e;
    CHECK_OK(detector_new(&d, b.ptr, b.len, "r", &e), e);
    CHECK_STR(scan_with(d, "see Entry99999 of-list.", 23), "big[Entry99999 of-list]");
    detector_free(d);
    buf_puts(&b, " one more\n");
    CHECK_INT(detector_new(&d, b.ptr, b.len, "r", &e), ERR_USAGE);
    buf_free(&b);
}

/* Every allocation fails once: an error, no leak (address sanitizer), and the next scan is right. */
TEST(failed_allocations_are_errors) {
    const char *s = "\xc2\xa0mail anna@x.example KD-12345678";
    for (int64_t k = 0;; k++) {
        detector *d = NULL;
        findings f = {0};
        err e = {0};
        mem_fail_after(k);
        err_code rc = detector_new(&d, good_rules, sizeof good_rules - 1, "r", &e);
        if (rc == ERR_OK) rc = detector_scan(d, s, strlen(s), &f, &e);
        mem_fail_after(-1);
        if (rc != ERR_OK && rc != ERR_NOMEM) FAIL("allocation %lld: %s", (long long)k, e.msg);
        if (rc == ERR_OK && f.n != 2) FAIL("allocation %lld was missed", (long long)k);
        findings_free(&f);
        detector_free(d);
        if (rc == ERR_OK) break;
        if (k > 400) k += 37; /* the table of words takes many alike */
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(finds_what_it_should);
    RUN(disguises_hide_nothing);
    RUN(pem_is_one_finding);
    RUN(findings_are_sorted_apart_and_whole);
    RUN(hostile_texts_cost_a_bound);
    RUN(too_many_findings_are_an_error);
    RUN(words_of_policies_are_found);
    RUN(rules_find_their_own);
    RUN(rules_say_what_is_wrong);
    RUN(a_limit_is_an_error_and_not_nothing);
    RUN(patterns_see_over_the_edges_of_stretches);
    RUN(dictionaries_may_be_long);
    RUN(failed_allocations_are_errors);
    findings_free(&found);
    detector_free(the_detector);
    return test_end();
}
