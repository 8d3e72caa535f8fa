#include "data/detect/internal.h"

const word_list words_places[] = {{0, 0, NULL}};
