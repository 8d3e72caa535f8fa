/* Internal to base: called by base_init; from then on threads keep the memory of JSON trees that they dropped for their
 * next ones. Again after a test had cJSON take memory from elsewhere. One thread. */
#ifndef POLDER_BASE_JSON_MEMORY_H
#define POLDER_BASE_JSON_MEMORY_H

void json_memory_init(void);

#endif
