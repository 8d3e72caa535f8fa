/* E-mail, addresses of networks, and credentials in URLs. */
#include "data/detect/recognisers.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

/* ---- e-mail (RFC 5321 in the forms that people write) ---------------------------------------------------------- */

#define LOCAL_MAX  64
#define DOMAIN_MAX 253

static bool local_byte(unsigned char c) {
    return byte_class[c] & B_WORD || (c && strchr(".!#$%&*+/=?^_{|}~-", c));
}

/* Ends of names of files that a version or a scale precedes: image@2x.png. */
static bool is_file_ending(const char *p, size_t n) {
    static const char *const all[] = {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json", "ts", "html"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strlen(all[i]) == n && strncasecmp(p, all[i], n) == 0) return true;
    return false;
}

/* The end of the domain that begins at `at`, or 0. */
static size_t domain_end(const scan *s, size_t at) {
    size_t i = at, label = at, dots = 0, last_label = at, end = 0;
    for (; i < s->n && i - at < DOMAIN_MAX; i++) {
        unsigned char c = (unsigned char)s->p[i];
        if (byte_class[c] & B_WORD || (c == '-' && i > label)) continue;
        if (c != '.' || i == label || i + 1 >= s->n || !(byte_class[(unsigned char)s->p[i + 1]] & B_WORD)) break;
        dots++;
        label = i + 1;
    }
    end = i;
    while (end > at && s->p[end - 1] == '-') end--;
    last_label = label;
    if (!dots || end <= last_label || end - last_label < 2) return 0;
    bool letters = false;
    for (size_t k = last_label; k < end; k++)
        if (byte_class[(unsigned char)s->p[k]] & (B_LOWER | B_UPPER | B_WIDE)) letters = true;
    if (!letters || is_file_ending(s->p + last_label, end - last_label)) return 0;
    return end;
}

void find_email(scan *s, size_t i) {
    size_t at = (size_t)s->t[i].at - 1, from = at;
    while (from && at - from < LOCAL_MAX && local_byte((unsigned char)s->p[from - 1])) from--;
    while (from < at && strchr(".!#$%&*/=?^{|}~-'", s->p[from])) from++;
    while (from < at && ((unsigned char)s->p[from] & 0xc0) == 0x80) from++;
    s->x->work += (at - from) / 8 + 1;
    size_t to = domain_end(s, at + 1);
    if (from == at || !to) return;
    /* git@host:path is a place for programs; so is the user of a URL (url-credentials) */
    bool git = scan_byte(s, to) == ':' && byte_class[(unsigned char)scan_byte(s, to + 1)] & B_WORD;
    scan_add(s, ENT_EMAIL, git && at - from == 3 && memcmp(s->p + from, "git", 3) == 0 ? 20 : 95, from, to);
}

/* ---- URL with credentials (RFC 3986, userinfo) ---------------------------------------------------------------- */

#define URL_MAX 2048

void find_url_login(scan *s, size_t i) {
    size_t at = s->t[i].at, k = at, colon = 0, host = 0;
    if (!i || at < 3 || s->p[at - 3] != ':') return;
    for (; k < s->n && k - at < URL_MAX; k++) {
        char c = s->p[k];
        if (c <= ' ' || strchr("/?#\"'<>`\\", c)) break;
        if (c == ':' && !host && !colon) colon = k;
        if (c == '@') host = k;
    }
    s->x->work += (k - at) / 8 + 1;
    if (!host) return;
    size_t from = s->t[i - 1].at;
    if (token_end(&s->t[i - 1]) + 3 != at) from = at;
    if (!colon || colon + 1 >= host) return;
    /* ${USER}:${PASSWORD} are names, not values */
    bool named = s->p[colon + 1] == '$' || s->p[colon + 1] == '{' || s->p[colon + 1] == '*';
    scan_add(s, ENT_URL_LOGIN, named ? 30 : 98, from, k);
}

/* ---- IP (inet_pton decides) and MAC --------------------------------------------------------------------------- */

static unsigned rate_v4(const scan *s, size_t i, const uint8_t a[4]) {
    if (a[0] == 127 || a[0] == 0 || a[0] == 255 || a[0] >= 224) return 30; /* of this machine, or of many */
    near_words near = scan_near(s, i, i, 2, 0);
    if (near.kinds & (W_VERSION | W_REF)) return 30;
    char before = s->t[i].at ? s->p[s->t[i].at - 1] : ' ';
    if (before == 'v' || before == 'V') return 30;
    return a[0] < 10 && a[1] < 20 && a[2] < 20 && a[3] < 20 ? 40 : 85; /* 1.2.3.4 is a version */
}

static void find_v4(scan *s, size_t i) {
    size_t j = i;
    for (; j < i + 3; j++)
        if (j + 1 >= s->n_tok || !(s->t[j + 1].flags & T_NUMBER) || scan_sep(s, j + 1) != '.') return;
    size_t from = s->t[i].at, to = token_end(&s->t[j]);
    char text[16] = {0};
    uint8_t a[4];
    if (to - from > 15 || (from && (s->p[from - 1] == '.' || s->p[from - 1] == '-'))) return;
    if (scan_byte(s, to) == '.' && byte_class[(unsigned char)scan_byte(s, to + 1)] & B_DIGIT) return;
    memcpy(text, s->p + from, to - from);
    if (inet_pton(AF_INET, text, a) == 1) scan_add(s, ENT_IP, rate_v4(s, i, a), from, to);
}

static void find_v6(scan *s, size_t i) {
    size_t from = s->t[i].at, to = from;
    if (from >= 2 && s->p[from - 1] == ':' && s->p[from - 2] == ':') from -= 2;
    if (from && (s->p[from - 1] == ':' || byte_class[(unsigned char)s->p[from - 1]] & B_WORD)) return;
    unsigned colons = 0, digits = 0;
    bool twice = false;
    while (to < s->n && to - from < 46) {
        unsigned char c = (unsigned char)s->p[to];
        if (c == ':') {
            colons++;
            if (to > from && s->p[to - 1] == ':') twice = true;
        } else if (c == '.' ? !(byte_class[(unsigned char)scan_byte(s, to + 1)] & B_DIGIT) : !(byte_class[c] & B_HEX))
            break;
        if (byte_class[c] & B_DIGIT) digits++;
        to++;
    }
    if (to < s->n && byte_class[(unsigned char)s->p[to]] & B_WORD) return;
    if (to > from + 2 && s->p[to - 1] == ':' && s->p[to - 2] != ':') to--, colons--;
    s->x->work += 6;
    char text[48] = {0};
    uint8_t a[16];
    if (colons < 2 || to - from > 45 || (twice && (digits < 2 || to - from < 6))) return;
    memcpy(text, s->p + from, to - from);
    if (inet_pton(AF_INET6, text, a) == 1) scan_add(s, ENT_IP, 90, from, to);
}

static void find_mac(scan *s, size_t i) {
    size_t from = s->t[i].at;
    const char *p = s->p + from;
    if (s->n - from < 14 || (from && (p[-1] == ':' || p[-1] == '-' || p[-1] == '.'))) return;
    bool cisco = p[4] == '.';
    size_t step = cisco ? 5 : 3, len = cisco ? 14 : 17;
    char sep = p[step - 1];
    if (s->n - from < len || (!cisco && sep != ':' && sep != '-')) return;
    unsigned bits = 0;
    for (size_t k = 0; k < len; k++) {
        unsigned char c = (unsigned char)p[k];
        if (k % step == step - 1 ? c != (unsigned char)sep : !(byte_class[c] & B_HEX)) return;
        if (c != '0' && c != 'f' && c != 'F' && c != (unsigned char)sep) bits++;
    }
    char after = from + len < s->n ? p[len] : ' ';
    if (byte_class[(unsigned char)after] & B_WORD || after == sep || !bits) return;
    scan_add(s, ENT_MAC, 92, from, from + len);
}

void find_network(scan *s, size_t i) {
    const token *t = &s->t[i];
    if (t->flags & T_NUMBER && t->len <= 3 && scan_byte(s, token_end(t)) == '.') find_v4(s, i);
    if (!(t->flags & T_HEX)) return;
    if (t->flags & T_COLON) find_v6(s, i);
    if (t->len == 2 || t->len == 4) find_mac(s, i);
}
