/* Internal to the kernels: how their small functions and loops are put into large ones. */
#ifndef POLDER_ENGINE_KERNELS_INLINE_H
#define POLDER_ENGINE_KERNELS_INLINE_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WITH_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define WITH_SANITIZER
#endif
#endif

/* INLINE: its parameters become constants where it is called. UNROLL: a loop over constants that must be gone at any
 * level of optimisation, for its arrays are registers. Each of SIMDe's functions is dozens of instructions, and so is a
 * load that a sanitizer watches: inlined and unrolled they take minutes to compile, so there they are not. */
#if defined(POLDER_SIMDE) || defined(WITH_SANITIZER)
#define INLINE static __attribute__((noinline, unused))
#define UNROLL
#else
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#endif

#endif
