/* init, up, config, doctor. */
#include "cli/cli.h"

#include "base/mem.h"
#include "version.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- init ---- */

static err_code run_init(cli *c, err *e) {
    const char *dir = c->n_args ? c->args[0] : c->dir;
    err_code rc = island_init(dir, cli_text(c, "name", NULL), e);
    if (rc) return rc;
    if (c->json) {
        cJSON *v = cJSON_CreateObject();
        if (v) cJSON_AddStringToObject(v, "island", dir);
        return cli_print_json(v, e);
    }
    cli_say("%s: a new island. Next: polder --island %s model add FILE.gguf --name NAME", dir, dir);
    return ERR_OK;
}

/* ---- up ---- */

static err_code wait_for_signal(void) {
    sigset_t s;
    int sig = 0;
    sigemptyset(&s);
    sigaddset(&s, SIGTERM);
    sigaddset(&s, SIGINT);
    sigwait(&s, &sig);
    return ERR_OK;
}

/* "one, two": each of them. */
static err_code load_models(inference *inf, const char *names, err *e) {
    err_code rc = ERR_OK;
    for (const char *p = names; rc == ERR_OK && *p;) {
        char name[MODEL_NAME_MAX + 2];
        p += strspn(p, ", ");
        size_t n = strcspn(p, ", ");
        snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : (int)sizeof name, p); /* too long: not known */
        if (n) rc = inference_load(inf, name, e);
        p += n;
    }
    return rc;
}

static err_code serve(cli *c, island *i, err *e) {
    inference *inf = NULL;
    server *s = NULL;
    err_code rc = inference_open(&inf, i, e);
    if (rc == ERR_OK) rc = load_models(inf, cli_text(c, "load", island_get_config(i)->models_load), e);
    if (rc == ERR_OK) rc = server_start(&s, i, inf, cli_text(c, "listen", NULL), e);
    if (rc == ERR_OK) {
        cli_say("listening on %s", server_url(s));
        rc = wait_for_signal();
        cli_say("stopping: running answers get %lld s", (long long)island_get_config(i)->server_drain_timeout_s);
    }
    server_stop(s);
    inference_close(inf);
    return rc;
}

static err_code run_up(cli *c, err *e) {
    /* Blocked before any thread starts, so that only sigwait takes them. */
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    island *i = NULL;
    err_code rc = island_open(&i, c->dir, ISLAND_WRITE, e);
    if (rc) return rc;
    const char *level = island_get_config(i)->log_level;
    log_set_level(strcmp(level, "debug") == 0   ? LOG_DEBUG
                  : strcmp(level, "warn") == 0  ? LOG_WARN
                  : strcmp(level, "error") == 0 ? LOG_ERROR
                                                : LOG_INFO);
    log_msg(LOG_INFO, "ledger", "%s", island_ledger_report(i)->text);
    rc = serve(c, i, e);
    island_close(i);
    return rc;
}

/* ---- config ---- */

static err_code load_config(cli *c, island_config *out, err *e) {
    char path[4096];
    buf text = {.max = 1 << 20};
    err_code rc = path_join(path, sizeof path, e, c->dir, "island.yaml");
    if (rc == ERR_OK) rc = file_read(&text, path, e);
    if (rc == ERR_NOT_FOUND) rc = err_set(e, rc, "%s: no island here; polder init %s makes one", c->dir, c->dir);
    if (rc == ERR_OK) rc = config_parse(out, buf_str(&text), text.len, path, e);
    buf_free(&text);
    return rc;
}

static err_code run_config_show(cli *c, err *e) {
    island_config cfg;
    err_code rc = load_config(c, &cfg, e);
    if (rc) return rc;
    buf b = {.max = 1 << 20};
    if (c->json) {
        config_write_json(&cfg, &b);
        buf_putc(&b, '\n');
    } else {
        config_write_yaml(&cfg, &b);
    }
    rc = buf_check(&b, "the configuration", e);
    if (rc == ERR_OK) rc = cli_print_text(buf_str(&b), b.len, e);
    buf_free(&b);
    config_free(&cfg);
    return rc;
}

static err_code run_config_check(cli *c, err *e) {
    island_config cfg;
    err_code rc = load_config(c, &cfg, e);
    if (rc) return rc;
    config_free(&cfg);
    if (c->json) return cli_print_json(cJSON_Parse("{\"ok\":true}"), e);
    cli_say("island.yaml: every key is known and in range");
    return ERR_OK;
}

/* ---- doctor ---- */

typedef struct doctor {
    cJSON *lines; /* for --json */
    bool json;
    int fails, warns;
} doctor;

/* One line: "ok | warn | fail  WHAT: FACT", and the fix below where there is one to make. */
static void grade(doctor *d, const char *mark, const char *what, const char *fact, const char *fix) {
    if (strcmp(mark, "fail") == 0) d->fails++;
    if (strcmp(mark, "warn") == 0) d->warns++;
    if (d->json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "grade", mark);
        cJSON_AddStringToObject(o, "what", what);
        cJSON_AddStringToObject(o, "fact", fact);
        if (fix) cJSON_AddStringToObject(o, "fix", fix);
        cJSON_AddItemToArray(d->lines, o);
        return;
    }
    buf b = {.max = 16384};
    text_sanitise(&b, fact, strlen(fact), false);
    printf("%-5s %-10s %s\n", mark, what, buf_str(&b));
    if (fix) printf("      %-10s fix: %s\n", "", fix);
    buf_free(&b);
}

static void doctor_machine(doctor *d) {
    char fact[256];
    snprintf(fact, sizeof fact, "kernels %s, %u CPUs for this process", engine_isa(), sys_cpu_count());
    bool slow = strcmp(engine_isa(), "scalar") == 0;
    grade(d, slow ? "warn" : "ok", "cpu", fact,
          slow ? "unset POLDER_ISA, or run on a CPU with AVX2 or NEON for speed; results are the same" : NULL);
    time_t now = (time_t)(time_unix_ms() / 1000);
    bool early = now < 1767225600; /* 2026-01-01 */
    char when[32];
    time_rfc3339(when, time_unix_ms());
    grade(d, early ? "fail" : "ok", "clock", when, early ? "set the clock: records carry its time" : NULL);
}

static void doctor_disk(doctor *d, const char *dir) {
    struct statvfs st;
    if (statvfs(dir, &st) != 0) return;
    double free_gb = (double)st.f_bavail * (double)st.f_frsize / 1e9;
    char fact[128];
    snprintf(fact, sizeof fact, "%.1f GB free", free_gb);
    grade(d,
          free_gb < 0.1 ? "fail"
          : free_gb < 2 ? "warn"
                        : "ok",
          "disk", fact, free_gb < 2 ? "free some space: a ledger that cannot be written stops every answer" : NULL);
}

static void doctor_island(doctor *d, cli *c) {
    err e = {0};
    char fact[1024];
    island_config cfg;
    if (load_config(c, &cfg, &e)) {
        grade(d, "fail", "config", e.msg, e.code == ERR_NOT_FOUND ? "polder init DIR" : "mend the named line");
        return;
    }
    grade(d, "ok", "config", "island.yaml: every key is known and in range", NULL);
    config_free(&cfg);
    doctor_disk(d, c->dir);
    struct stat st;
    bool open_dir = stat(c->dir, &st) == 0 && (st.st_mode & 077);
    snprintf(fact, sizeof fact, "%s has mode %o", c->dir, st.st_mode & 0777);
    grade(d, open_dir ? "warn" : "ok", "rights", fact, open_dir ? "chmod 700 the state folder" : NULL);
    island *i = NULL;
    if (island_open(&i, c->dir, ISLAND_READ, &e)) {
        grade(d, "fail", "ledger", e.msg, "polder audit verify names the file and the record");
        return;
    }
    grade(d, "ok", "ledger", island_ledger_report(i)->text, NULL);
    cJSON *models = NULL;
    if (models_list(i, &models, &e)) {
        grade(d, "fail", "models", e.msg, NULL);
    } else {
        int n = cJSON_GetArraySize(json_get(models, "models"));
        snprintf(fact, sizeof fact, "%d model name%s", n, n == 1 ? "" : "s");
        grade(d, n ? "ok" : "warn", "models", fact, n ? NULL : "polder model add FILE.gguf --name NAME");
        cJSON_Delete(models);
    }
    island_close(i);
    bool up = remote_is_up(c->dir);
    grade(d, "ok", "server", up ? "running" : "not running", NULL);
}

static err_code run_doctor(cli *c, err *e) {
    doctor d = {.json = c->json, .lines = cJSON_CreateArray()};
    if (!d.lines) return err_nomem(e, "output");
    doctor_machine(&d);
    doctor_island(&d, c);
    err_code rc = ERR_OK;
    if (c->json)
        rc = cli_print_json(d.lines, e);
    else
        cJSON_Delete(d.lines);
    if (rc == ERR_OK && d.fails) rc = err_set(e, ERR_NO, "%d finding%s to mend", d.fails, d.fails == 1 ? "" : "s");
    return rc;
}

const command commands_island[] = {
    {"init",
     "[DIR]",
     0,
     1,
     "Make a new island: state folder, keys, configuration, ledger",
     "  polder init my --name bank.example/island",
     run_init,
     {{OPT_TEXT, "name", "NAME", 0, 0, "the island's name and its ledger's origin; it never changes"}}},
    {"up",
     "",
     0,
     0,
     "Serve: the OpenAI API, the ledger, metrics; SIGTERM stops after running answers",
     "  polder --island my up --listen 127.0.0.1:8080",
     run_up,
     {{OPT_TEXT, "listen", "ADDR:PORT", 0, 0, "overrides server.listen of island.yaml; port 0 takes a free one"},
      {OPT_TEXT, "load", "NAME", 0, 0,
       "load these models before being ready (overrides models.load); others load at their first request"}}},
    {"config show", "", 0, 0, "The configuration in force, every key with what it means", NULL, run_config_show, {{0}}},
    {"config check",
     "",
     0,
     0,
     "Whether island.yaml can be used; names line and column where not",
     NULL,
     run_config_check,
     {{0}}},
    {"doctor",
     "",
     0,
     0,
     "Look over machine and island: ok, warn or fail, and the fix for each",
     NULL,
     run_doctor,
     {{0}}},
    {0},
};
