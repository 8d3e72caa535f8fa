/* ids_ask --list: one line a rule: index, entity, country, name, separated by tabs.
 * ids_ask: for each line "INDEX[,INDEX…] COMPACT" 1 where one of those rules accepts the number, else 0. What the
 * comparison with other implementations drives. */
#include "data/detect/ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define X(id, name, group, flags, word) name,
static const char *const names[] = {ENTITY_TABLE(X)};
#undef X

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < id_rule_count; i++)
            printf("%zu\t%s\t%s\t%s\n", i, names[id_rules[i].entity], id_rules[i].country, id_rules[i].name);
        return 0;
    }
    char line[512];
    while (fgets(line, sizeof line, stdin)) {
        char *text = strchr(line, ' ');
        if (!text) return 2;
        *text++ = 0;
        text[strcspn(text, "\n")] = 0;
        bool valid = false;
        for (char *p = line; *p;) {
            unsigned long i = strtoul(p, &p, 10);
            if (i >= id_rule_count) return 2;
            valid |= id_rules[i].check(text, strlen(text)) > 0;
            if (*p == ',') p++;
        }
        puts(valid ? "1" : "0");
    }
    return 0;
}
