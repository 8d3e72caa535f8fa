/* What form an answer is to have, in the fields of OpenAI (response_format), vLLM (guided_*, structured_outputs) and
 * llama.cpp's server (grammar, json_schema). All of them come down to one grammar and its source. */
#include "server/openai.h"

#include "base/mem.h"

#include <string.h>

#define CHOICES_MAX 10000

/* Takes the source over, also on error. */
static err_code ask(answer *a, const char *field, grammar_kind kind, char *source, err *e) {
    if (!source) return err_nomem(e, "the form of an answer");
    if (a->grammar_source) {
        mem_free(source);
        return err_set(e, ERR_INVALID, "'%s': the form of the answer is asked for twice; give one", field);
    }
    a->grammar_source = source;
    a->r.grammar = kind;
    a->r.grammar_source = source;
    a->r.grammar_len = strlen(source);
    return ERR_OK;
}

static err_code ask_schema(answer *a, const char *field, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v) && !cJSON_IsBool(v))
        return err_set(e, ERR_INVALID, "'%s' must be a JSON schema: an object", field);
    return ask(a, field, GRAMMAR_JSON_SCHEMA, json_text(v), e);
}

err_code openai_ask_schema(answer *a, const char *field, const cJSON *schema, err *e) {
    return ask_schema(a, field, schema, e);
}

/* A schema as such, or as a string that holds its JSON. */
static err_code ask_schema_or_text(answer *a, const char *field, const cJSON *v, err *e) {
    if (!cJSON_IsString(v)) return ask_schema(a, field, v, e);
    cJSON *tree = NULL;
    err_code rc = json_parse(&tree, v->valuestring, strlen(v->valuestring), field, e);
    if (rc == ERR_OK) rc = ask_schema(a, field, tree, e);
    cJSON_Delete(tree);
    return rc;
}

static err_code ask_text(answer *a, const char *field, grammar_kind kind, const cJSON *v, err *e) {
    if (!cJSON_IsString(v) || !v->valuestring[0]) return err_set(e, ERR_INVALID, "'%s' must be a string", field);
    return ask(a, field, kind, mem_strdup(v->valuestring), e);
}

static err_code ask_choice(answer *a, const char *field, const cJSON *v, err *e) {
    const cJSON *one;
    bool ok = cJSON_IsArray(v) && v->child && cJSON_GetArraySize(v) <= CHOICES_MAX;
    if (ok) cJSON_ArrayForEach(one, v) ok = ok && cJSON_IsString(one) && one->valuestring[0];
    if (!ok)
        return err_set(e, ERR_INVALID, "'%s' must be an array of 1 to %d strings, none of them empty", field,
                       CHOICES_MAX);
    return ask(a, field, GRAMMAR_CHOICE, json_text(v), e);
}

static err_code take_json_schema(answer *a, const cJSON *v, err *e) {
    const cJSON *o = json_get(v, "json_schema");
    const cJSON *schema = cJSON_IsObject(o) ? json_get(o, "schema") : NULL;
    if (!cJSON_IsObject(o))
        return err_set(e, ERR_INVALID, "'response_format': json_schema must be an object with name and schema");
    const cJSON *name = json_get(o, "name"), *strict = json_get(o, "strict");
    if (name && !cJSON_IsString(name)) return err_set(e, ERR_INVALID, "'response_format': the name must be a string");
    if (strict && !cJSON_IsBool(strict))
        return err_set(e, ERR_INVALID, "'response_format': strict must be true or false");
    /* without a schema OpenAI means any object */
    if (!schema) return ask(a, "response_format", GRAMMAR_JSON_SCHEMA, mem_strdup("{\"type\":\"object\"}"), e);
    return ask_schema(a, "response_format.json_schema.schema", schema, e);
}

err_code openai_take_response_format(answer *a, const cJSON *v, err *e) {
    const char *type = NULL;
    if (!cJSON_IsObject(v) || json_get_str(v, "type", &type, NULL) != ERR_OK || !type)
        return err_set(e, ERR_INVALID, "'response_format' must be an object with a type");
    if (strcmp(type, "text") == 0) return ERR_OK;
    if (strcmp(type, "json_object") == 0)
        return ask(a, "response_format", GRAMMAR_JSON_SCHEMA, mem_strdup("{\"type\":\"object\"}"), e);
    if (strcmp(type, "json_schema") == 0) return take_json_schema(a, v, e);
    return err_set(e, ERR_UNSUPPORTED,
                   "'response_format': \"%.40s\" is not supported; text, json_object and json_schema are", type);
}

/* The last part of guided_json, guided_regex, … and the members of structured_outputs. */
static err_code take_named(answer *a, const char *field, const char *name, const cJSON *v, err *e) {
    if (strcmp(name, "json") == 0) return ask_schema_or_text(a, field, v, e);
    if (strcmp(name, "regex") == 0) return ask_text(a, field, GRAMMAR_REGEX, v, e);
    if (strcmp(name, "choice") == 0) return ask_choice(a, field, v, e);
    if (strcmp(name, "grammar") == 0) return ask_text(a, field, GRAMMAR_TEXT, v, e);
    if (strcmp(name, "json_object") == 0) {
        if (cJSON_IsFalse(v)) return ERR_OK;
        if (cJSON_IsTrue(v)) return ask(a, field, GRAMMAR_JSON_SCHEMA, mem_strdup("{\"type\":\"object\"}"), e);
        return err_set(e, ERR_INVALID, "'%s' must be true or false", field);
    }
    return err_set(e, ERR_UNSUPPORTED, "'%s' has no field '%.60s'; json, regex, choice, grammar, json_object are known",
                   field, name);
}

err_code openai_take_guided(answer *a, const cJSON *v, err *e) {
    return take_named(a, v->string, v->string + strlen("guided_"), v, e);
}

err_code openai_take_structured(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'structured_outputs' must be an object");
    const cJSON *m;
    cJSON_ArrayForEach(m, v) {
        err_code rc = cJSON_IsNull(m) ? ERR_OK : take_named(a, "structured_outputs", m->string, m, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

err_code openai_take_grammar(answer *a, const cJSON *v, err *e) {
    return ask_text(a, "grammar", GRAMMAR_TEXT, v, e);
}

err_code openai_take_json_schema(answer *a, const cJSON *v, err *e) {
    return ask_schema(a, "json_schema", v, e);
}
