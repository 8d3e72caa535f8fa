/* Internal to the kernels: what a quantised type has, as kernels.h describes it. Called with constants: each kernel
 * set's functions fold to the one type that they are made for. */
#ifndef POLDER_ENGINE_KERNELS_TYPES_H
#define POLDER_ENGINE_KERNELS_TYPES_H

#include "engine/tensor.h"

#define TYPE_FACT static inline __attribute__((always_inline)) bool

TYPE_FACT has_added_min(tensor_type t) {
    return t == TT_Q4_1 || t == TT_Q5_1;
}
TYPE_FACT has_scaled_min(tensor_type t) {
    return t == TT_Q4_K || t == TT_Q5_K;
}
TYPE_FACT has_head_min(tensor_type t) {
    return has_added_min(t) || has_scaled_min(t) || t == TT_Q2_K;
}
TYPE_FACT is_per_16(tensor_type t) {
    return t == TT_Q2_K || t == TT_Q3_K || t == TT_Q6_K;
}
TYPE_FACT is_256(tensor_type t) {
    return is_per_16(t) || has_scaled_min(t) || t == TT_IQ4_XS;
}

#undef TYPE_FACT

#endif
