/* Who is asked at which token. A recogniser that knows more (a token classifier) is one more line. */
#include "data/detect/recognisers.h"

const recogniser recognisers[] = {{"numbers", T_DIGIT | T_BIC, 0, find_numbers},
                                  {"email", T_AT, 0, find_email},
                                  {"url-login", T_SLASHES, 0, find_url_login},
                                  {"network", T_HEX | T_NUMBER, 0, find_network},
                                  {"prefixed", T_LONG, W_KEY_START, find_prefixed},
                                  {"pem", T_DASHES, 0, find_pem},
                                  {"valued", 0, W_SECRET | W_PASSWORD, find_valued},
                                  {"bearer", 0, W_BASIC, find_bearer},
                                  {"phone", T_NUMBER, 0, find_phone},
                                  {"birth", T_DIGIT, 0, find_birth},
                                  {"person", 0, W_FIRST | W_LAST | W_HONORIFIC | W_NAME_CUE | W_GREETING, find_person},
                                  {"address", T_DIGIT, W_STREET, find_address},
                                  {"special", 0, W_SPECIAL | W_SPECIAL_START, find_special},
                                  {NULL, 0, 0, NULL}};
