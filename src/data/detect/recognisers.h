/* Inside the detectors: the recognisers, a function each. Asked at token i, they add what they find (scan_add). */
#ifndef POLDER_DATA_DETECT_RECOGNISERS_H
#define POLDER_DATA_DETECT_RECOGNISERS_H

#include "data/detect/internal.h"

void find_numbers(scan *s, size_t i);   /* numbers.c: what id_rules decide */
void find_email(scan *s, size_t i);     /* contact.c */
void find_url_login(scan *s, size_t i); /* contact.c */
void find_network(scan *s, size_t i);   /* contact.c: IP, MAC */
void find_prefixed(scan *s, size_t i);  /* secrets.c: keys by prefix, JWT */
void find_pem(scan *s, size_t i);       /* secrets.c */
void find_valued(scan *s, size_t i);    /* secrets.c: what stands behind "password" */
void find_bearer(scan *s, size_t i);    /* secrets.c */
void find_phone(scan *s, size_t i);     /* phone.c */
void find_birth(scan *s, size_t i);     /* dates.c */
void find_person(scan *s, size_t i);    /* people.c */
void find_address(scan *s, size_t i);   /* address.c */
void find_special(scan *s, size_t i);   /* special.c: words of Art. 9 */

/* plates.c: asked by find_numbers for each window of tokens i to j, written as an id form. */
void judge_plate(scan *s, size_t i, size_t j, const char *form, size_t n);

#endif
