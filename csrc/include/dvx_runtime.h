/* What the runtime hands to a partition's entry point. Filled in by runtime/library.py through cffi. */
#ifndef DVX_RUNTIME_H
#define DVX_RUNTIME_H

#include <stdint.h>

typedef struct dvx_runtime {
    /* Runs fn(data) on n_threads threads and returns when all are done: GOMP_parallel's signature. NULL: single-threaded. */
    void (*parallel)(void (*fn)(void *), void *data, unsigned n_threads, unsigned flags);
    int (*thread_num)(void);  /* this thread's number inside `parallel`, from 0 */
    int (*num_threads)(void); /* the threads that `parallel` in fact started */
    int32_t n_threads;        /* how many to ask for */
    int32_t n_pauses;         /* how often one that waits for the others pauses before it yields its core */
    int64_t *counters;        /* profiling builds only: first n_blocks block counters, then one per isa.COUNTERS row */
    int64_t n_blocks;
} dvx_runtime;

#endif
