#include "inference/crew.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* All under lock: the unit of work is a row of logits, large against a lock. */
struct crew {
    pthread_mutex_t lock;
    pthread_cond_t start, finish;
    void (*fn)(void *ctx, size_t i);
    void *ctx;
    size_t n, next, n_done;
    bool quit;
    unsigned n_threads; /* besides the caller */
    pthread_t *threads;
};

/* Take and do one piece. Called and returns under the lock; false: there was none. */
static bool work_one(crew *c) {
    if (c->next >= c->n) return false;
    size_t i = c->next++;
    pthread_mutex_unlock(&c->lock);
    c->fn(c->ctx, i);
    pthread_mutex_lock(&c->lock);
    if (++c->n_done == c->n) pthread_cond_signal(&c->finish);
    return true;
}

static void *crew_main(void *arg) {
    crew *c = arg;
    pthread_mutex_lock(&c->lock);
    while (!c->quit) {
        if (!work_one(c)) pthread_cond_wait(&c->start, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

void crew_run(crew *c, size_t n, void (*fn)(void *ctx, size_t i), void *ctx) {
    pthread_mutex_lock(&c->lock);
    c->fn = fn;
    c->ctx = ctx;
    c->n = n;
    c->next = c->n_done = 0;
    if (n > 1) pthread_cond_broadcast(&c->start);
    while (work_one(c)) {
    }
    while (c->n_done < n) pthread_cond_wait(&c->finish, &c->lock);
    c->n = 0;
    pthread_mutex_unlock(&c->lock);
}

void crew_free(crew *c) {
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->quit = true;
    pthread_cond_broadcast(&c->start);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->n_threads; i++) pthread_join(c->threads[i], NULL);
    pthread_cond_destroy(&c->finish);
    pthread_cond_destroy(&c->start);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->threads);
    mem_free(c);
}

err_code crew_new(crew **out, unsigned n_threads, err *e) {
    *out = NULL;
    unsigned others = n_threads > 1 ? n_threads - 1 : 0;
    crew *c = mem_zalloc(sizeof *c);
    if (!c) return err_nomem(e, "the sampling threads");
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->start, NULL);
    pthread_cond_init(&c->finish, NULL);
    c->threads = mem_array(others ? others : 1, sizeof *c->threads);
    err_code rc = c->threads ? ERR_OK : err_nomem(e, "the sampling threads");
    for (unsigned i = 0; i < others && !rc; i++) {
        int failed = pthread_create(&c->threads[i], NULL, crew_main, c);
        if (failed)
            rc = err_set(e, ERR_UNAVAILABLE, "a sampling thread could not be started: %s", strerror(failed));
        else
            c->n_threads++;
    }
    if (rc) {
        crew_free(c);
        return rc;
    }
    *out = c;
    return ERR_OK;
}
