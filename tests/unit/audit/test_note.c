/* Signed notes, keys and checkpoints: what is accepted has one spelling. */
#include "audit/note.h"
#include "base/mem.h"
#include "tests/harness.h"

/* The example of Go's golang.org/x/mod/sumdb/note: a key and a note that its author published. */
static const char go_vkey[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
static const char go_skey[] = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
static const char go_note[] =
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\xe2\x80\x94 PeterNeumann x08go/"
    "ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

TEST(the_published_note_of_sumdb_is_accepted) {
    err e;
    note_key k;
    size_t text;
    unsigned unknown;
    CHECK_OK(note_key_parse(&k, go_vkey, strlen(go_vkey), &e), e);
    CHECK_STR(k.name, "PeterNeumann");
    CHECK_OK(note_open(go_note, strlen(go_note), &k, &text, &unknown, &e), e);
    CHECK_INT(text, strstr(go_note, "\n\n") + 1 - go_note);
    CHECK_INT(unknown, 0);
    buf b = {.max = 1000};
    note_key_text(&b, &k);
    CHECK_STR(buf_str(&b), go_vkey);
    note_signer s;
    CHECK_OK(note_signer_parse(&s, go_skey, strlen(go_skey), &e), e);
    CHECK(memcmp(s.key.pub, k.pub, 32) == 0);
    buf_reset(&b);
    note_sign(&b, &s, go_note, text); /* Ed25519 is deterministic: the same note comes out */
    CHECK_STR(buf_str(&b), go_note);
    buf_reset(&b);
    note_signer_text(&b, &s);
    CHECK_STR(buf_str(&b), go_skey);
    buf_free(&b);
}

TEST(every_bit_of_a_note_matters) {
    err e;
    note_key k;
    char copy[sizeof go_note];
    size_t n = strlen(go_note), text;
    CHECK_OK(note_key_parse(&k, go_vkey, strlen(go_vkey), &e), e);
    for (size_t i = 0; i < n * 8; i++) {
        memcpy(copy, go_note, sizeof copy);
        copy[i / 8] ^= (char)(1 << i % 8);
        if (note_open(copy, n, &k, &text, NULL, &e) == ERR_OK) FAIL("bit %zu of byte %zu is not seen", i % 8, i / 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        if (note_open(go_note, cut, &k, &text, NULL, &e) == ERR_OK) FAIL("cut at %zu is not seen", cut);
}

TEST(every_bit_of_a_vkey_matters) {
    err e;
    note_key k;
    char copy[sizeof go_vkey];
    size_t n = strlen(go_vkey);
    for (size_t i = 0; i < n * 8; i++) {
        memcpy(copy, go_vkey, sizeof copy);
        copy[i / 8] ^= (char)(1 << i % 8);
        if (note_key_parse(&k, copy, n, &e) == ERR_OK) FAIL("bit %zu of byte %zu is not seen", i % 8, i / 8);
    }
}

TEST(malformed_keys) {
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "no valid name"},
        {"PeterNeumann", "no valid name"},
        {"+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "no valid name"},
        {"Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "no valid name"},
        {"Peter\xc2\xa0Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "no valid name"},
        {"Peter\xff+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "no valid name"},
        {"PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "8 lower-case"},
        {"PeterNeumann+c74f20a+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "8 lower-case"},
        {"PeterNeumann+c74f20a3", "8 lower-case"},
        {"PeterNeumann+c74f20a3+", "not base64"},
        {"PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T", "not base64"},
        {"PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n", "not base64"},
        {"PeterNeumann+c74f20a3+AR==", "not base64"}, /* unused bits set */
        {"PeterNeumann+c74f20a3+AQ==", "32 bytes"},
        {"PeterNeumann+c74f20a3+AhpZ2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "0x02"},
        {"PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "does not belong"},
    };
    err e;
    note_key k;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(note_key_parse(&k, rows[i].text, strlen(rows[i].text), &e) != ERR_OK);
        CHECK_HAS(e.msg, rows[i].why);
    }
    note_signer s;
    CHECK(note_signer_parse(&s, go_vkey, strlen(go_vkey), &e) != ERR_OK);
    static const char wrong[] = "PRIVATE+KEY+PeterNeumann+c74f20a4+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    CHECK(note_signer_parse(&s, wrong, strlen(wrong), &e) != ERR_OK);
}

static const char sig[] =
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";

TEST(malformed_notes) {
    static const char text[] = "If you think cryptography is the answer to your problem,\n"
                               "then you don't know what your problem is.\n";
    /* %T the text, %S the signature */
    static const struct {
        const char *note;
        err_code rc;
    } rows[] = {
        {"%T\n\xe2\x80\x94 PeterNeumann %S\n", ERR_OK},
        {"%T\n\xe2\x80\x94 PeterNeumann %S", ERR_INVALID},                           /* no last newline */
        {"%T\n\xe2\x80\x94 PeterNeumann %S\n\n", ERR_INVALID},                       /* an empty line after */
        {"%T\xe2\x80\x94 PeterNeumann %S\n", ERR_INVALID},                           /* no empty line */
        {"%T\n", ERR_INVALID},                                                       /* no signature */
        {"\n\xe2\x80\x94 PeterNeumann %S\n", ERR_INVALID},                           /* no text */
        {"%T\n\xe2\x80\x93 PeterNeumann %S\n", ERR_INVALID},                         /* U+2013 */
        {"%T\n- PeterNeumann %S\n", ERR_INVALID},                                    /* ASCII dash */
        {"%T\n\xe2\x80\x94PeterNeumann %S\n", ERR_INVALID},                          /* no space */
        {"%T\n\xe2\x80\x94  PeterNeumann %S\n", ERR_INVALID},                        /* two spaces */
        {"%T\n\xe2\x80\x94 PeterNeumann  %S\n", ERR_INVALID},                        /* two spaces */
        {"%T\n\xe2\x80\x94 PeterNeumann %S \n", ERR_INVALID},                        /* trailing space */
        {"%T\n\xe2\x80\x94 Peter+Neumann %S\n", ERR_INVALID},                        /* plus in a name */
        {"%T\n\xe2\x80\x94 PeterNeumann\n", ERR_INVALID},                            /* no signature bytes */
        {"%T\n\xe2\x80\x94 PeterNeumann x08go/Z=\n", ERR_INVALID},                   /* bad base64 */
        {"%T\n\xe2\x80\x94 PeterNeumann x08gow==\n", ERR_INVALID},                   /* key ID only */
        {"%T\n\xe2\x80\x94 PeterNeumann x08go/Y5\n", ERR_NO},                        /* signature too short */
        {"%T\n\xe2\x80\x94 PeterNeuman %S\n", ERR_NO},                               /* another name */
        {"%T\n\xe2\x80\x94 Other AAAAAAAA\n\xe2\x80\x94 PeterNeumann %S\n", ERR_OK}, /* an unknown key is ignored */
        {"%T\n\xe2\x80\x94 PeterNeumann AAAAAAAA\n\xe2\x80\x94 PeterNeumann %S\n", ERR_OK}, /* name known, ID not */
        {"%T\n\xe2\x80\x94 PeterNeumann %S\nx\n", ERR_INVALID},
        {"x%T\n\xe2\x80\x94 PeterNeumann %S\n", ERR_NO},
        {"%T\r\n\xe2\x80\x94 PeterNeumann %S\n", ERR_INVALID}, /* control character */
        {"%T\n\n\xe2\x80\x94 PeterNeumann %S\n", ERR_NO},      /* the last empty line parts; the text has one more */
    };
    err e;
    note_key k;
    size_t at;
    CHECK_OK(note_key_parse(&k, go_vkey, strlen(go_vkey), &e), e);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf b = {.max = 4096};
        for (const char *p = rows[i].note; *p; p++) {
            if (*p == '%' && p[1] == 'T')
                buf_puts(&b, text), p++;
            else if (*p == '%' && p[1] == 'S')
                buf_puts(&b, sig), p++;
            else
                buf_putc(&b, *p);
        }
        err_code rc = note_open(b.ptr, b.len, &k, &at, NULL, &e);
        buf_free(&b);
        if (rc != rows[i].rc) FAIL("row %zu: %s, not %s", i, err_name(rc), err_name(rows[i].rc));
    }
    CHECK(note_open("\0", 1, &k, &at, NULL, &e) != ERR_OK);
}

TEST(many_cosignatures_are_accepted) {
    err e;
    note_key k;
    size_t at;
    unsigned unknown;
    CHECK_OK(note_key_parse(&k, go_vkey, strlen(go_vkey), &e), e);
    buf b = {.max = NOTE_MAX};
    buf_puts(&b, go_note);
    uint8_t big[2432] = {9}; /* an ML-DSA-44 cosignature */
    for (int i = 0; i < 40; i++) {
        buf_printf(&b, "\xe2\x80\x94 witness%d.example ", i);
        base64_encode(&b, big, sizeof big);
        buf_putc(&b, '\n');
    }
    CHECK_OK(note_open(b.ptr, b.len, &k, &at, &unknown, &e), e);
    CHECK_INT(unknown, 40);
    for (int i = 0; i < 40; i++) buf_printf(&b, "\xe2\x80\x94 w%d.example AAAAAAAA\n", i);
    CHECK_INT(note_open(b.ptr, b.len, &k, &at, &unknown, &e), ERR_INVALID);
    buf_free(&b);
}

TEST(checkpoints) {
    static const char root[] = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    static const struct {
        const char *text;
        bool ok;
    } rows[] = {
        {"example.com/log\n20852163\nR\n", true},
        {"example.com/log\n0\nR\n", true},
        {"example.com/log\n5\nR\nextension\n", true},
        {"example.com/log\n5\nR\n\n", false},
        {"example.com/log\n05\nR\n", false},
        {"example.com/log\n+5\nR\n", false},
        {"example.com/log\n-5\nR\n", false},
        {"example.com/log\n 5\nR\n", false},
        {"example.com/log\n5 \nR\n", false},
        {"example.com/log\n\nR\n", false},
        {"example.com/log\n99999999999999999999\nR\n", false},
        {"example.com/log\n9223372036854775808\nR\n", false},
        {"example.com/log\n5\nR", false},
        {"example.com/log\n5\n", false},
        {"\n5\nR\n", false},
        {"example .com\n5\nR\n", false},
        {"example.com/log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n", false}, /* unused bits */
        {"example.com/log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I\n", false},
        {"example.com/log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jx\n", false},
        {"", false},
    };
    err e;
    checkpoint c;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf b = {.max = 1000};
        for (const char *p = rows[i].text; *p; p++)
            if (*p == 'R')
                buf_puts(&b, root);
            else
                buf_putc(&b, *p);
        err_code rc = checkpoint_parse(&c, buf_str(&b), b.len, &e);
        buf_free(&b);
        if ((rc == ERR_OK) != rows[i].ok) FAIL("row %zu: %s", i, rc == ERR_OK ? "accepted" : e.msg);
    }
}

TEST(a_checkpoint_is_of_its_own_log) {
    err e;
    note_signer s;
    hash32 root = {{7}};
    checkpoint c;
    buf b = {.max = 4096}, t = {.max = 4096};
    CHECK_OK(note_signer_new(&s, "polder.test/a", &e), e);
    checkpoint_sign(&b, &s, 42, &root);
    CHECK_OK(checkpoint_open_own(&c, b.ptr, b.len, &s.key, true, &e), e);
    CHECK_INT(c.size, 42);
    CHECK(hash_equal(&c.root, &root));
    /* the same key signs a checkpoint of another origin: not of this log */
    checkpoint_text(&t, "polder.test/b", 42, &root);
    buf_reset(&b);
    note_sign(&b, &s, t.ptr, t.len);
    CHECK_INT(checkpoint_open(&c, b.ptr, b.len, &s.key, NULL, &e), ERR_NO);
    /* extension lines: fine in another's checkpoint, not in our own */
    buf_reset(&t);
    buf_reset(&b);
    checkpoint_text(&t, "polder.test/a", 42, &root);
    buf_puts(&t, "more\n");
    note_sign(&b, &s, t.ptr, t.len);
    CHECK_OK(checkpoint_open(&c, b.ptr, b.len, &s.key, NULL, &e), e);
    CHECK_INT(c.extensions, 1);
    CHECK_INT(checkpoint_open_own(&c, b.ptr, b.len, &s.key, true, &e), ERR_INVALID);
    CHECK_INT(note_signer_new(&s, "a b", &e), ERR_INVALID);
    CHECK_INT(note_signer_new(&s, "", &e), ERR_INVALID);
    CHECK_INT(note_signer_new(&s, "a+b", &e), ERR_INVALID);
    char name[260];
    memset(name, 'n', sizeof name);
    name[NOTE_NAME_MAX + 1] = 0;
    CHECK_INT(note_signer_new(&s, name, &e), ERR_INVALID);
    name[NOTE_NAME_MAX] = 0;
    CHECK_OK(note_signer_new(&s, name, &e), e);
    buf_reset(&b);
    checkpoint_sign(&b, &s, INT64_MAX, &root);
    CHECK(b.len <= NOTE_OWN_MAX);
    CHECK_OK(checkpoint_open_own(&c, b.ptr, b.len, &s.key, true, &e), e);
    buf_free(&b);
    buf_free(&t);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(the_published_note_of_sumdb_is_accepted);
    RUN(every_bit_of_a_note_matters);
    RUN(every_bit_of_a_vkey_matters);
    RUN(malformed_keys);
    RUN(malformed_notes);
    RUN(many_cosignatures_are_accepted);
    RUN(checkpoints);
    RUN(a_checkpoint_is_of_its_own_log);
    return test_end();
}
