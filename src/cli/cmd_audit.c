/* audit verify|show|ls|prove|export|checkpoint: reading the ledger beside a running server. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static err_code open_reader(cli *c, island **i, err *e) {
    return island_open(i, c->dir, ISLAND_READ, e);
}

static err_code parse_seq(const char *s, uint64_t *out, err *e) {
    char *end;
    errno = 0;
    *out = strtoull(s, &end, 10);
    if (*s < '0' || *s > '9' || *end || errno)
        return err_set(e, ERR_USAGE, "\"%s\" is not the number of a record; polder audit ls lists them", s);
    return ERR_OK;
}

/* ---- verify ---- */

static err_code print_verify(const cli *c, const verify_report *r, err_code rc, err *e) {
    if (!c->json) {
        if (r->text.len) (void)cli_print_foreign(buf_str(&r->text), r->text.len, NULL);
        printf("%s: %llu records, %llu checkpoints", rc ? "NOT VERIFIED" : "verified", (unsigned long long)r->records,
               (unsigned long long)r->checkpoints);
        if (r->contents) printf(", %llu contents", (unsigned long long)r->contents);
        if (r->erased) printf(", %llu erased", (unsigned long long)r->erased);
        printf("\n");
        return rc;
    }
    cJSON *v = cJSON_CreateObject();
    if (!v) return err_nomem(e, "output");
    cJSON_AddBoolToObject(v, "verified", rc == ERR_OK);
    cJSON_AddNumberToObject(v, "records", (double)r->records);
    cJSON_AddNumberToObject(v, "checkpoints", (double)r->checkpoints);
    cJSON_AddNumberToObject(v, "contents", (double)r->contents);
    cJSON_AddNumberToObject(v, "erased", (double)r->erased);
    cJSON_AddNumberToObject(v, "problems", (double)r->problems);
    cJSON_AddStringToObject(v, "text", buf_str(&r->text));
    err_code printed = cli_print_json(v, rc ? NULL : e);
    return rc ? rc : printed;
}

static err_code verify_receipt(cli *c, err *e) {
    const char *vkey = cli_text(c, "vkey", NULL), *entry_file = cli_text(c, "entry", NULL);
    buf receipt = {.max = 1 << 20}, entry = {.max = LEDGER_ENTRY_MAX}, key = {.max = 4096};
    uint64_t seq = 0;
    err_code rc = ERR_OK;
    if (!entry_file) rc = err_set(e, ERR_USAGE, "a receipt is about an entry: give it with --entry FILE");
    if (rc == ERR_OK) rc = file_read(&receipt, cli_text(c, "receipt", NULL), e);
    if (rc == ERR_OK) rc = file_read(&entry, entry_file, e);
    if (rc == ERR_OK && vkey && file_exists(vkey))
        rc = file_read(&key, vkey, e);
    else if (rc == ERR_OK && vkey)
        buf_puts(&key, vkey);
    if (rc == ERR_OK && !vkey) { /* our own island's key */
        island *i = NULL;
        rc = open_reader(c, &i, e);
        if (rc == ERR_OK) buf_puts(&key, ledger_vkey(island_ledger(i)));
        island_close(i);
    }
    if (rc == ERR_OK) {
        buf_putc(&key, 0);
        key.ptr[strcspn(key.ptr, "\r\n")] = 0;
        rc = audit_verify_receipt(buf_str(&receipt), receipt.len, buf_str(&entry), entry.len, key.ptr, &seq, e);
    }
    if (rc == ERR_OK) printf("verified: record %llu is in the log\n", (unsigned long long)seq);
    buf_free(&receipt);
    buf_free(&entry);
    buf_free(&key);
    return rc;
}

static err_code run_verify(cli *c, err *e) {
    if (cli_flag(c, "receipt")) return verify_receipt(c, e);
    verify_report r = {.text = {.max = 1 << 20}};
    const char *vkey = cli_text(c, "vkey", NULL);
    err_code rc = c->n_args ? audit_verify_export(c->args[0], vkey, &r, e)
                            : audit_verify_island(c->dir, !cli_flag(c, "no-contents"), vkey, &r, e);
    /* ERR_NO is a finding and has a report; anything else is its own sentence */
    if (rc == ERR_OK || rc == ERR_NO) rc = print_verify(c, &r, rc, e);
    buf_free(&r.text);
    return rc;
}

/* ---- show, ls ---- */

static err_code add_contents(ledger *l, uint64_t seq, cJSON *entry, err *e) {
    cJSON *opened = cJSON_AddObjectToObject(entry, "contents");
    const cJSON *name;
    if (!opened) return err_nomem(e, "output");
    cJSON_ArrayForEach(name, json_get(entry, "content")) {
        buf b = {.max = LEDGER_CONTENT_MAX};
        err sub = {0};
        err_code rc = ledger_content(l, seq, name->string, &b, &sub);
        if (rc == ERR_NOT_FOUND) {
            cJSON_AddNullToObject(opened, name->string);
        } else if (rc) {
            buf_free(&b);
            if (e) *e = sub;
            return rc;
        } else if (utf8_valid(buf_str(&b), b.len) && !memchr(buf_str(&b), 0, b.len)) {
            cJSON_AddStringToObject(opened, name->string, buf_str(&b));
        } else { /* bytes, token ids for example */
            buf b64 = {.max = (size_t)LEDGER_CONTENT_MAX * 2};
            buf_puts(&b64, "base64:");
            base64_encode(&b64, b.ptr, b.len);
            cJSON_AddStringToObject(opened, name->string, buf_str(&b64));
            buf_free(&b64);
        }
        buf_free(&b);
    }
    return ERR_OK;
}

static err_code run_show(cli *c, err *e) {
    uint64_t seq;
    err_code rc = parse_seq(c->args[0], &seq, e);
    if (rc) return rc;
    island *i = NULL;
    buf b = {.max = LEDGER_ENTRY_MAX};
    rc = open_reader(c, &i, e);
    if (rc == ERR_OK) rc = ledger_read(island_ledger(i), seq, &b, e);
    cJSON *v = NULL;
    if (rc == ERR_OK && cli_flag(c, "raw")) {
        rc = cli_print_text(buf_str(&b), b.len, e); /* the exact bytes of the leaf */
    } else if (rc == ERR_OK) {
        rc = json_parse(&v, buf_str(&b), b.len, "the entry", e);
        if (rc == ERR_OK && cli_flag(c, "contents")) rc = add_contents(island_ledger(i), seq, v, e);
        char *text = rc ? NULL : c->json ? cJSON_PrintUnformatted(v) : cJSON_Print(v);
        if (rc == ERR_OK && !text) rc = err_nomem(e, "output");
        if (rc == ERR_OK) rc = cli_print_foreign(text, strlen(text), e);
        if (rc == ERR_OK) rc = cli_print_text("\n", 1, e);
        cJSON_free(text);
    }
    cJSON_Delete(v);
    buf_free(&b);
    island_close(i);
    return rc;
}

static void print_row(uint64_t seq, const cJSON *v) {
    static const char *const shown[] = {"model", "name", "key", "reason", "request"};
    const char *when = "", *what = "";
    json_get_str(v, "time", &when, NULL);
    json_get_str(v, "event", &what, NULL);
    buf b = {.max = 4096}, clean = {.max = 16384};
    buf_printf(&b, "%8llu  %s  %-16s", (unsigned long long)seq, when, what);
    for (size_t k = 0; k < sizeof shown / sizeof *shown; k++) {
        const cJSON *f = json_get(v, shown[k]);
        if (cJSON_IsString(f)) buf_printf(&b, "  %s=%s", shown[k], f->valuestring);
        if (cJSON_IsNumber(f)) buf_printf(&b, "  %s=%.0f", shown[k], f->valuedouble);
    }
    text_sanitise(&clean, buf_str(&b), strlen(buf_str(&b)), false);
    printf("%s\n", buf_str(&clean));
    buf_free(&b);
    buf_free(&clean);
}

static err_code run_ls(cli *c, err *e) {
    island *i = NULL;
    err_code rc = open_reader(c, &i, e);
    if (rc) return rc;
    ledger *l = island_ledger(i);
    uint64_t size = ledger_size(l), limit = (uint64_t)cli_int(c, "limit", 50);
    uint64_t from = cli_flag(c, "from") ? (uint64_t)cli_int(c, "from", 0) : size > limit ? size - limit : 0;
    const char *wanted = cli_text(c, "event", NULL);
    buf b = {.max = LEDGER_ENTRY_MAX};
    for (uint64_t seq = from; rc == ERR_OK && seq < size && limit; seq++) {
        cJSON *v = NULL;
        const char *is = "";
        buf_reset(&b);
        rc = ledger_read(l, seq, &b, e);
        if (rc == ERR_OK) rc = json_parse(&v, buf_str(&b), b.len, "an entry", e);
        if (rc == ERR_OK) json_get_str(v, "event", &is, NULL);
        if (rc == ERR_OK && (!wanted || strcmp(wanted, is) == 0)) {
            limit--;
            if (c->json)
                printf("{\"seq\":%llu,\"entry\":%s}\n", (unsigned long long)seq, buf_str(&b));
            else
                print_row(seq, v);
        }
        cJSON_Delete(v);
    }
    buf_free(&b);
    island_close(i);
    return rc;
}

/* ---- prove, export, checkpoint ---- */

static err_code run_prove(cli *c, err *e) {
    uint64_t seq;
    err_code rc = parse_seq(c->args[0], &seq, e);
    if (rc) return rc;
    island *i = NULL;
    buf proof = {.max = 1 << 20}, entry = {.max = LEDGER_ENTRY_MAX};
    const char *out = cli_text(c, "out", NULL), *entry_out = cli_text(c, "entry", NULL);
    rc = open_reader(c, &i, e);
    if (rc == ERR_OK) rc = ledger_prove(island_ledger(i), seq, &proof, e);
    if (rc == ERR_OK && entry_out) rc = ledger_read(island_ledger(i), seq, &entry, e);
    if (rc == ERR_OK && entry_out) rc = file_write_atomic(entry_out, buf_str(&entry), entry.len, 0600, e);
    if (rc == ERR_OK && out)
        rc = file_write_atomic(out, buf_str(&proof), proof.len, 0644, e);
    else if (rc == ERR_OK)
        rc = cli_print_text(buf_str(&proof), proof.len, e);
    buf_free(&proof);
    buf_free(&entry);
    island_close(i);
    return rc;
}

static err_code run_export(cli *c, err *e) {
    const char *out = cli_text(c, "out", NULL);
    if (!out) return err_set(e, ERR_USAGE, "polder audit export: say where to: --out DIR");
    island *i = NULL;
    err_code rc = open_reader(c, &i, e);
    if (rc == ERR_OK) rc = audit_export(island_ledger(i), out, e);
    uint64_t size = rc ? 0 : ledger_size(island_ledger(i));
    island_close(i);
    if (rc) return rc;
    if (c->json) {
        cJSON *v = cJSON_CreateObject();
        if (v) cJSON_AddNumberToObject(v, "records", (double)size);
        return cli_print_json(v, e);
    }
    cli_say("%s: %llu records; polder audit verify %s checks them, and so does any tlog-tiles client", out,
            (unsigned long long)size, out);
    return ERR_OK;
}

static err_code run_checkpoint(cli *c, err *e) {
    island *i = NULL;
    buf b = {.max = 65536};
    err_code rc = open_reader(c, &i, e);
    if (rc == ERR_OK && cli_flag(c, "vkey")) {
        buf_printf(&b, "%s\n", ledger_vkey(island_ledger(i)));
    } else if (rc == ERR_OK) {
        rc = ledger_checkpoint(island_ledger(i), &b, e);
    }
    if (rc == ERR_OK) rc = cli_print_text(buf_str(&b), b.len, e);
    buf_free(&b);
    island_close(i);
    return rc;
}

const command commands_audit[] = {
    {"audit verify",
     "[EXPORTED-DIR]",
     0,
     1,
     "Check every byte of the ledger, or of an exported one",
     "Exit code 0: all holds. 1: something does not, and each finding names its file and record.\n\n"
     "  polder audit verify\n"
     "  polder audit verify exported --vkey \"NAME+HASH+KEY\"\n"
     "  polder audit verify --receipt r.tlog-proof --entry entry.json",
     run_verify,
     {{OPT_TEXT, "vkey", "KEY|FILE", 0, 0, "the log's public key, from a source you trust"},
      {OPT_FLAG, "no-contents", NULL, 0, 0, "leave out prompts and answers, check the log alone"},
      {OPT_TEXT, "receipt", "FILE", 0, 0, "check one receipt instead"},
      {OPT_TEXT, "entry", "FILE", 0, 0, "the entry that the receipt is about"}}},
    {"audit ls",
     "",
     0,
     0,
     "The newest records",
     NULL,
     run_ls,
     {{OPT_INT, "from", "SEQ", 0, 9007199254740992.0, "begin here"},
      {OPT_INT, "limit", "N", 1, 1e9, "at most so many (default 50)"},
      {OPT_TEXT, "event", "EVENT", 0, 0, "only these: admitted, completed, failed, …"}}},
    {"audit show",
     "SEQ",
     1,
     1,
     "One record",
     NULL,
     run_show,
     {{OPT_FLAG, "contents", NULL, 0, 0, "with prompts and answers, decrypted from the vault"},
      {OPT_FLAG, "raw", NULL, 0, 0, "the exact bytes of the leaf"}}},
    {"audit prove",
     "SEQ",
     1,
     1,
     "A receipt: proof that a record is in the signed log (c2sp.org/tlog-proof)",
     NULL,
     run_prove,
     {{OPT_TEXT, "out", "FILE", 0, 0, "write the receipt here instead of stdout"},
      {OPT_TEXT, "entry", "FILE", 0, 0, "and the record's exact bytes here"}}},
    {"audit replay",
     "[SEQ|RECEIPT]",
     0,
     1,
     "Derive an answer anew from the ledger and compare every token and every bit of its logits",
     "An answer of the local engine follows from its records: the model's bytes, the prompt's tokens, the parameters "
     "and\n"
     "the seed. Replay computes it again, on any machine, with any number of threads and any instruction set, and\n"
     "compares. Exit code 0: equal. 1: not equal; the first difference is named. 3: not possible: the model is not\n"
     "here, contents were erased, a provider gave the answer, or another version of the numerics made it.\n\n"
     "SEQ is any record of the answer (the header x-polder-record, or polder audit ls --event completed); RECEIPT a\n"
     "file from polder audit prove. With --sample a random part of the answers since the last check is replayed and\n"
     "the outcome becomes a record (\"replayed\"): run it every night. With --from or --through that part of the\n"
     "ledger is replayed instead, whole unless --sample is given, and nothing is recorded.\n\n"
     "  polder audit replay 42\n"
     "  polder audit replay r.tlog-proof --isa scalar --threads 1\n"
     "  polder audit replay --sample 1%",
     run_audit_replay,
     {{OPT_TEXT, "isa", "SET", 0, 0, "compute with this instruction set: scalar (the plain reference), avx2, …"},
      {OPT_INT, "threads", "N", 1, 1024, "compute with so many threads (default: all CPUs)"},
      {OPT_TEXT, "sample", "P%|N", 0, 0, "draw P percent, or N, of the answers since the last check"},
      {OPT_TEXT, "seed", "N", 0, 0, "draw with this seed, to see the same sample again"},
      {OPT_INT, "from", "SEQ", 0, 9007199254740992.0, "answers that ended in this record or later"},
      {OPT_INT, "through", "SEQ", 0, 9007199254740992.0, "answers that ended in this record or earlier"},
      {OPT_TEXT, "weights", "FILE", 0, 0, "of one answer: would this model file give it as well?"}}},
    {"audit export",
     "--out DIR",
     0,
     0,
     "The whole log as C2SP tlog-tiles, for verifiers by others",
     NULL,
     run_export,
     {{OPT_TEXT, "out", "DIR", 0, 0, "a new folder"}}},
    {"audit checkpoint",
     "",
     0,
     0,
     "The latest signed head of the log",
     NULL,
     run_checkpoint,
     {{OPT_FLAG, "vkey", NULL, 0, 0, "the public key instead"}}},
    {0},
};
