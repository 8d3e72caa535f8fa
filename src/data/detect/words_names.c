#include "data/detect/internal.h"

const word_list words_names[] = {{0, 0, NULL}};
