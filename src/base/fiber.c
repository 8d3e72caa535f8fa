#include "base/fiber.h"

#include "base/mem.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/common_interface_defs.h>
#define WITH_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define WITH_TSAN 1
#endif

struct fiber {
    void *sp;     /* where it left */
    void *caller; /* where it was entered */
    void (*fn)(void *arg);
    void *arg;
    char *stack; /* with the page that cannot be touched */
    size_t len;
    bool over;
#ifdef WITH_ASAN
    void *own_fake, *caller_fake;
    const void *caller_stack;
    size_t caller_len;
#endif
#ifdef WITH_TSAN
    void *tsan, *caller_tsan;
#endif
};

/* Saves where this one stands at *from and goes on at `to`. */
void fiber_switch(void **from, void *to);

#if defined(__x86_64__)
__asm__(".text\n"
        ".p2align 4\n"
        ".globl fiber_switch\n"
        ".hidden fiber_switch\n"
        ".type fiber_switch, @function\n"
        "fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    subq $8, %rsp\n"
        "    stmxcsr (%rsp)\n"
        "    fnstcw 4(%rsp)\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    ldmxcsr (%rsp)\n"
        "    fldcw 4(%rsp)\n"
        "    addq $8, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size fiber_switch, . - fiber_switch\n");

#define FRAME_WORDS 9 /* control words, six registers, where to go on, and one word: as if begin() had been called */

/* What fiber_switch takes off when the fiber is entered first. */
static void first_frame(void **at, void (*begin)(void)) {
    uint32_t mxcsr = 0;
    uint16_t cw = 0;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(cw));
    uint64_t control = (uint64_t)cw << 32 | mxcsr;
    memset(at, 0, FRAME_WORDS * sizeof *at);
    memcpy(at, &control, sizeof control);
    memcpy(&at[7], &begin, sizeof begin);
}
#elif defined(__aarch64__)
__asm__(".text\n"
        ".p2align 4\n"
        ".globl fiber_switch\n"
        ".hidden fiber_switch\n"
        ".type fiber_switch, %function\n"
        "fiber_switch:\n"
        "    sub sp, sp, #176\n"
        "    stp x19, x20, [sp]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mrs x9, fpcr\n"
        "    str x9, [sp, #160]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    ldr x9, [sp, #160]\n"
        "    msr fpcr, x9\n"
        "    add sp, sp, #176\n"
        "    ret\n"
        ".size fiber_switch, . - fiber_switch\n");

#define FRAME_WORDS 22

static void first_frame(void **at, void (*begin)(void)) {
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    memset(at, 0, FRAME_WORDS * sizeof *at);
    memcpy(&at[11], &begin, sizeof begin); /* x30 */
    memcpy(&at[20], &fpcr, sizeof fpcr);
}
#else
#error "fiber_switch is written for x86-64 and aarch64"
#endif

static _Thread_local fiber *entered;

static void arrive(fiber *f) {
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(f->own_fake, &f->caller_stack, &f->caller_len);
#endif
    (void)f;
}

static void leave(fiber *f) {
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(f->over ? NULL : &f->own_fake, f->caller_stack, f->caller_len);
#endif
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(f->caller_tsan, 0);
#endif
    fiber_switch(&f->sp, f->caller);
}

static void begin(void) {
    fiber *f = entered;
    arrive(f);
    f->fn(f->arg);
    f->over = true;
    leave(f);
    __builtin_unreachable();
}

fiber *fiber_new(size_t stack_bytes, void (*fn)(void *arg), void *arg) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), len = (stack_bytes + page - 1) / page * page + page;
    fiber *f = mem_zalloc(sizeof *f);
    if (!f) return NULL;
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) {
        if (p != MAP_FAILED) (void)munmap(p, len);
        mem_free(f);
        return NULL;
    }
    f->stack = p;
    f->len = len;
#ifdef WITH_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    f->fn = fn;
    f->arg = arg;
    f->sp = (void **)(void *)(f->stack + f->len) - FRAME_WORDS;
    first_frame(f->sp, begin);
    return f;
}

void fiber_free(fiber *f) {
    if (!f) return;
#ifdef WITH_TSAN
    __tsan_destroy_fiber(f->tsan);
#endif
    (void)munmap(f->stack, f->len);
    mem_free(f);
}

bool fiber_enter(fiber *f) {
    entered = f;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&f->caller_fake, f->stack, f->len);
#endif
#ifdef WITH_TSAN
    f->caller_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->tsan, 0);
#endif
    fiber_switch(&f->caller, f->sp);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(f->caller_fake, NULL, NULL);
#endif
    return f->over;
}

void fiber_leave(fiber *f) {
    leave(f);
    arrive(f);
}
