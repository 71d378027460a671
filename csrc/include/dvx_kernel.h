/* What generated kernels need beside the vector instructions: contexts, barriers, scalar loads, profile counters.
   The contexts of a team run a partition's kernels together, one after the other; parallel loops split their range among them. */
#ifndef DVX_KERNEL_H
#define DVX_KERNEL_H

#include <stdint.h>

#include "dvx_runtime.h"

typedef struct dvx_team {
    const void *args;
    void (*body)(const void *args, int64_t ctx, int64_t n_ctx, struct dvx_team *team);
    const dvx_runtime *rt;
    int32_t n_ctx;    /* contexts of this run */
    int32_t arrived;  /* barrier: contexts that wait */
    int32_t epoch;    /* barrier: how often it has opened */
} dvx_team;

/* What a partition's contexts are given. */
typedef struct dvx_entry {
    void *const *buffers;
    const int64_t *sizes;
    char *arena;
    int32_t *status;
} dvx_entry;

static inline int64_t dvx_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t dvx_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* Python's quotient and remainder: towards minus infinity, with the divisor's sign. */
static inline int64_t dvx_floordiv(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
static inline int64_t dvx_mod(int64_t a, int64_t b) { return a - b * dvx_floordiv(a, b); }

/* First index of context ctx's share of begin..end, a multiple of step from begin; contexts differ by one step at most. */
static inline int64_t dvx_chunk(int64_t begin, int64_t end, int64_t step, int64_t ctx, int64_t n_ctx) {
    const int64_t steps = (end - begin + step - 1) / step;
    return end <= begin ? end : dvx_min(end, begin + steps * ctx / n_ctx * step);
}

int sched_yield(void); /* the process's libc has it */

/* Tells the core that a loop waits. */
static inline void dvx_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* All contexts of the team wait here for the last one: a sense-reversing barrier. */
static inline void dvx_barrier(dvx_team *team) {
    const int32_t n_ctx = __atomic_load_n(&team->n_ctx, __ATOMIC_RELAXED); /* a thread that comes late stores it again */
    if (n_ctx == 1) return;
    const int32_t epoch = __atomic_load_n(&team->epoch, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == n_ctx) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team->epoch, epoch + 1, __ATOMIC_RELEASE);
        return;
    }
    int32_t pauses = 0;
    while (__atomic_load_n(&team->epoch, __ATOMIC_ACQUIRE) == epoch) {
        if (pauses < team->rt->n_pauses) {
            pauses++;
            dvx_pause();
        } else {
            sched_yield();
        }
    }
}

static void dvx_context_thread(void *data) {
    dvx_team *team = data;
    /* A team may be smaller than asked for; every thread computes the same n_ctx. */
    const int32_t n_ctx = team->rt->num_threads();
    const int32_t ctx = team->rt->thread_num();
    __atomic_store_n(&team->n_ctx, n_ctx, __ATOMIC_RELAXED);
    team->body(team->args, ctx, n_ctx, team);
}

/* Runs body on n_ctx contexts, or on one where the runtime has no threads. */
static inline void dvx_run_contexts(const dvx_runtime *rt, void (*body)(const void *, int64_t, int64_t, dvx_team *), const void *args, int64_t n_ctx) {
    dvx_team team = {args, body, rt, 1, 0, 0};
    if (n_ctx > 1 && rt->parallel) {
        team.n_ctx = (int32_t)n_ctx;
        rt->parallel(dvx_context_thread, &team, (unsigned)n_ctx, 0);
    } else {
        body(args, 0, 1, &team);
    }
}

#define DVX_LD_SCALAR(M, T)                                                                     \
    static inline int64_t dvx_ld_##M(const T *p) { DVX_TICK(DVX_SCALAR_ROW, 1); return (int64_t)*p; }   \
    static inline int64_t dvx_ldindex_##M(const T *p, int64_t bound, int counts_from_end, int32_t *status) { \
        DVX_TICK(DVX_SCALAR_ROW, 1);                                                                    \
        int64_t index = (int64_t)*p;                                                            \
        index += counts_from_end && index < 0 ? bound : 0;                                      \
        if (index < 0 || index >= bound) { *status = 1; return 0; }                             \
        return index;                                                                           \
    }
DVX_LD_SCALAR(d, int64_t)
DVX_LD_SCALAR(w, int32_t)
DVX_LD_SCALAR(h, int16_t)
DVX_LD_SCALAR(b, int8_t)
DVX_LD_SCALAR(ub, uint8_t)

/* Profiling builds count how often every basic block runs; counting builds also count every instruction where it executes. */
#ifdef DVX_PROFILE
static int64_t *dvx_block_counters;
#define DVX_BLOCK(index) (dvx_block_counters[index]++)
#define DVX_PROFILE_BEGIN(rt) (dvx_block_counters = (rt)->counters, DVX_SET_COUNTERS((rt)->counters + (rt)->n_blocks))
#else
#define DVX_BLOCK(index) ((void)0)
#define DVX_PROFILE_BEGIN(rt) ((void)(rt))
#endif

#if defined(__clang__)
#define DVX_PRAGMA(text) _Pragma(#text)
#define DVX_UNROLL(count) DVX_PRAGMA(clang loop unroll_count(count))
#else
#define DVX_PRAGMA(text) _Pragma(#text)
#define DVX_UNROLL(count) DVX_PRAGMA(GCC unroll count)
#endif

#endif
