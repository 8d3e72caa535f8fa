/* The text of one choice: stop strings across token borders, what is held back, tokens aligned with text. No model. */
#include "harness.h"

#include "inference/answer_text.h"

#include "base/mem.h"

/* Feed `pieces` one by one, taking what is ready after each, and return all that came out. */
typedef struct out {
    char text[1024];
    size_t len, held_max;
    int tokens;
    char token_text[1024];
} out;

static void take(answer_text *a, out *o) {
    memcpy(o->text + o->len, a->text.ptr, a->ready);
    o->len += a->ready;
    o->text[o->len] = 0;
    size_t n = answer_text_ready_tokens(a);
    for (size_t i = 0; i < n; i++, o->tokens++) strncat(o->token_text, a->tokens[i].text, a->tokens[i].n_text);
    answer_text_taken(a);
    if (a->text.len > o->held_max) o->held_max = a->text.len;
}

static bool feed_all(out *o, const char *const *stops, uint32_t n_stops, const char *const *pieces) {
    static stop_set set;
    answer_text a;
    *o = (out){0};
    if (stop_set_init(&set, stops, n_stops, NULL)) return false;
    answer_text_init(&a, &set);
    for (; *pieces && !a.stopped; pieces++) {
        token_info info = {.n_text = (uint8_t)strlen(*pieces)};
        memcpy(info.text, *pieces, info.n_text);
        answer_text_feed(&a, *pieces, strlen(*pieces), &info);
        take(&a, o);
    }
    bool stopped = a.stopped;
    answer_text_end(&a);
    take(&a, o);
    answer_text_free(&a);
    return stopped;
}

#define STOPS(...) (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)
#define PIECES(...)         \
    (const char *const[]) { \
        __VA_ARGS__, NULL   \
    }

/* Breaks where a stop string is looked for inside one token only. */
TEST(stop_across_token_borders) {
    out o;
    CHECK(feed_all(&o, STOPS("\n\nEND"), PIECES("one", "\n", "\n", "E", "N", "D and more")));
    CHECK_STR(o.text, "one");
    CHECK(feed_all(&o, STOPS("stop"), PIECES("don't st", "st", "o", "pnever")));
    CHECK_STR(o.text, "don't st");
}

/* Breaks where more than the possible beginning of a stop string is held back, or where it is never given out. */
TEST(stop_holds_only_what_could_begin_one) {
    out o;
    CHECK(!feed_all(&o, STOPS("abcd"), PIECES("xxab", "cx", "abc")));
    CHECK_STR(o.text, "xxabcxabc");
    CHECK_INT(o.held_max, 3);
    CHECK(!feed_all(&o, STOPS("zzz"), PIECES("no such letters", " here")));
    CHECK_INT(o.held_max, 0);
}

/* Breaks where a failed match forgets that its own end may begin a match (the automaton's failure function). */
TEST(stop_overlaps_itself) {
    out o;
    CHECK(feed_all(&o, STOPS("aab"), PIECES("a", "a", "a", "a", "b", "tail")));
    CHECK_STR(o.text, "aa");
    CHECK(feed_all(&o, STOPS("abacabad"), PIECES("abacab", "acabad")));
    CHECK_STR(o.text, "abac");
}

/* Breaks where the order of the list decides instead of the text. */
TEST(stop_first_in_the_text_wins) {
    out o;
    CHECK(feed_all(&o, STOPS("world", "lo"), PIECES("hello world")));
    CHECK_STR(o.text, "hel");
    CHECK(feed_all(&o, STOPS("c", "bc", "abc"), PIECES("xab", "c")));
    CHECK_STR(o.text, "x");
    CHECK(feed_all(&o, STOPS("abcde", "c"), PIECES("abcde")));
    CHECK_STR(o.text, "ab");
}

TEST(stop_is_the_whole_text_or_comes_first) {
    out o;
    CHECK(feed_all(&o, STOPS("x"), PIECES("x")));
    CHECK_STR(o.text, "");
    CHECK_INT(o.tokens, 0);
}

/* Breaks where tokens and text drift apart: the concatenated token texts are the text but for the last one's end. */
TEST(stop_tokens_stay_with_their_text) {
    out o;
    CHECK(feed_all(&o, STOPS("STOP"), PIECES("a", "bS", "TO", "P", "x")));
    CHECK_STR(o.text, "ab");
    CHECK_INT(o.tokens, 2);
    CHECK_STR(o.token_text, "abS");
    CHECK(!feed_all(&o, STOPS("STOP"), PIECES("a", "bS", "TO", "x")));
    CHECK_INT(o.tokens, 4);
    CHECK_STR(o.token_text, o.text);
}

/* Breaks where a token without text (half a character) is lost or given out before the text around it. */
TEST(stop_silent_tokens_are_kept) {
    out o;
    CHECK(!feed_all(&o, STOPS("ab"), PIECES("xa", "", "", "c")));
    CHECK_INT(o.tokens, 4);
    CHECK_STR(o.text, "xac");
}

/* Breaks where an echoed prompt is searched for stop strings. */
TEST(stop_ignores_the_echo) {
    stop_set set;
    answer_text a;
    err e;
    CHECK_OK(stop_set_init(&set, STOPS("end"), &e), e);
    answer_text_init(&a, &set);
    answer_text_echo(&a, "the end of en", 13, NULL);
    CHECK_INT(a.ready, 13);
    answer_text_feed(&a, "d", 1, NULL);
    CHECK(!a.stopped);
    answer_text_feed(&a, "end", 3, NULL);
    CHECK(a.stopped);
    CHECK_INT(a.ready, 14);
    answer_text_free(&a);
}

TEST(stop_bad_sets_get_a_sentence) {
    stop_set set;
    err e;
    char longest[REQUEST_STOP_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    CHECK_INT(stop_set_init(&set, STOPS(""), &e), ERR_INVALID);
    CHECK_HAS(e.msg, "empty");
    CHECK_INT(stop_set_init(&set, STOPS(longest), &e), ERR_INVALID);
    CHECK_HAS(e.msg, "256");
    CHECK_INT(stop_set_init(&set, STOPS("a\xff"), &e), ERR_INVALID);
    CHECK_HAS(e.msg, "UTF-8");
    longest[REQUEST_STOP_BYTES_MAX] = 0;
    CHECK_OK(stop_set_init(&set, STOPS(longest), &e), e);
}

/* Against the plain definition, on random texts over two letters, cut into random tokens: what comes out is the text
 * before the first end of a stop string, and nothing is held that could not begin one. */
TEST(stop_equals_its_definition) {
    static const char *const lists[][3] = {{"ab", "ba", "aaa"}, {"abab", "bb", "babb"}, {"aabaa", "bbb", "abba"}};
    uint64_t rnd = 1;
    for (int round = 0; round < 3000; round++) {
        const char *const *stops = lists[round % 3];
        char text[25] = "";
        for (int i = 0; i < 24; i++) {
            rnd = rnd * 6364136223846793005u + 1442695040888963407u;
            text[i] = (rnd >> 60) < 8 ? 'a' : 'b';
        }
        size_t cut = 24;
        bool stops_in = false;
        for (size_t end = 1; end <= 24 && !stops_in; end++) {
            for (int s = 0; s < 3; s++) {
                size_t n = strlen(stops[s]);
                if (n > end || memcmp(text + end - n, stops[s], n) != 0) continue;
                stops_in = true;
                if (end - n < cut) cut = end - n;
            }
        }
        char pieces[24][25];
        const char *list[25] = {0};
        int n_pieces = 0;
        for (size_t at = 0; at < 24;) {
            rnd = rnd * 6364136223846793005u + 1442695040888963407u;
            size_t n = 1 + (rnd >> 62);
            if (n > 24 - at) n = 24 - at;
            snprintf(pieces[n_pieces], 25, "%.*s", (int)n, text + at);
            list[n_pieces] = pieces[n_pieces];
            n_pieces++;
            at += n;
        }
        out o;
        bool stopped = feed_all(&o, stops, 3, list);
        CHECK(stopped == stops_in);
        text[cut] = 0;
        CHECK_STR(o.text, text);
        CHECK(o.held_max < 5);
    }
}

/* Breaks where a failed allocation is not noticed. */
TEST(stop_out_of_memory_is_sticky) {
    stop_set set;
    answer_text a;
    err e;
    token_info info = {.n_text = 1, .text = "x"};
    CHECK_OK(stop_set_init(&set, NULL, 0, &e), e);
    for (int64_t n = 0; n < 3; n++) {
        answer_text_init(&a, &set);
        mem_fail_after(n);
        answer_text_feed(&a, "x", 1, &info);
        mem_fail_after(-1);
        CHECK(a.failed);
        answer_text_free(&a);
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(stop_across_token_borders);
    RUN(stop_holds_only_what_could_begin_one);
    RUN(stop_overlaps_itself);
    RUN(stop_first_in_the_text_wins);
    RUN(stop_is_the_whole_text_or_comes_first);
    RUN(stop_tokens_stay_with_their_text);
    RUN(stop_silent_tokens_are_kept);
    RUN(stop_ignores_the_echo);
    RUN(stop_bad_sets_get_a_sentence);
    RUN(stop_equals_its_definition);
    RUN(stop_out_of_memory_is_sticky);
    return test_end();
}
