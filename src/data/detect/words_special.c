#include "data/detect/internal.h"

const word_list words_special[] = {{0, 0, NULL}};
