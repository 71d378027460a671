/* A small thread pool with the interface of GNU's OpenMP entry points, for processes where torch has no OpenMP that can be
   used. Built by runtime/threads.py when it is needed, linked against libc. One region runs at a time; a region that finds
   the pool busy runs on its caller alone. Workers wait on a condition variable and live as long as the process. */
#include <pthread.h>
#include <stdint.h>

#define MAX_THREADS 256

static pthread_mutex_t region_lock = PTHREAD_MUTEX_INITIALIZER; /* held by the thread that runs a region */
static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;  /* guards all that follows */
static pthread_cond_t region_begins = PTHREAD_COND_INITIALIZER;
static pthread_cond_t region_ends = PTHREAD_COND_INITIALIZER;
static void (*region_fn)(void *);
static void *region_data;
static unsigned region_threads; /* size of the running region's team */
static unsigned region_left;    /* its workers that have not finished */
static uint64_t region_number;
static unsigned n_workers; /* threads that exist; worker i is thread i + 1 of a team */

static __thread int my_number = 0;
static __thread int my_team = 1;

int dvx_pool_thread_num(void) { return my_number; }
int dvx_pool_num_threads(void) { return my_team; }

/* What a worker needs to know at its start: its number, and the last region that it has no part in. */
typedef struct worker_start {
    unsigned number;
    uint64_t region_seen;
} worker_start;

static worker_start starts[MAX_THREADS];

static void *worker_main(void *start) {
    const unsigned number = ((worker_start *)start)->number;
    uint64_t region_seen = ((worker_start *)start)->region_seen;
    my_number = (int)number;
    pthread_mutex_lock(&state_lock);
    for (;;) {
        while (region_seen == region_number) pthread_cond_wait(&region_begins, &state_lock);
        region_seen = region_number;
        if (number >= region_threads) continue;
        my_team = (int)region_threads;
        void (*fn)(void *) = region_fn;
        void *data = region_data;
        pthread_mutex_unlock(&state_lock);
        fn(data);
        pthread_mutex_lock(&state_lock);
        if (--region_left == 0) pthread_cond_signal(&region_ends);
    }
    return 0;
}

/* Starts workers until a team of n_threads is there, or no more can be had. Called with both locks held. */
static void grow(unsigned n_threads) {
    while (n_workers + 1 < n_threads) {
        pthread_t thread;
        starts[n_workers] = (worker_start){n_workers + 1, region_number};
        if (pthread_create(&thread, 0, worker_main, &starts[n_workers])) return;
        pthread_detach(thread);
        n_workers++;
    }
}

/* Runs fn(data) on at most n_threads threads, the caller among them, and returns when all are done. */
void dvx_pool_parallel(void (*fn)(void *), void *data, unsigned n_threads, unsigned flags) {
    (void)flags;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if (n_threads < 2 || pthread_mutex_trylock(&region_lock)) {
        fn(data);
        return;
    }
    pthread_mutex_lock(&state_lock);
    grow(n_threads);
    region_fn = fn;
    region_data = data;
    region_threads = n_threads < n_workers + 1 ? n_threads : n_workers + 1;
    region_left = region_threads - 1;
    region_number++;
    my_team = (int)region_threads;
    pthread_cond_broadcast(&region_begins);
    pthread_mutex_unlock(&state_lock);
    fn(data);
    pthread_mutex_lock(&state_lock);
    while (region_left) pthread_cond_wait(&region_ends, &state_lock);
    my_team = 1;
    pthread_mutex_unlock(&state_lock);
    pthread_mutex_unlock(&region_lock);
}
