/* A few threads that share the blocks of one loop at a time.

   A helper that has no work looks for some for a while before it sleeps: to wake it would take longer than most gaps
   between two kernels. Only one loop is shared at a time. Whoever calls while the helpers are busy works alone. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "native.h"

enum { MOST_HELPERS = 255, PATIENCE = 300000 /* nanoseconds */ };

static struct {
    pthread_mutex_t user;                /* held by the thread whose loop is shared */
    pthread_mutex_t lock;                /* for the two conditions and `asleep` */
    pthread_cond_t go, done;
    int helpers, asleep;
    Work work; const void *args; i64 blocks;
    atomic_llong next;                   /* the block that nobody has taken yet */
    atomic_llong call;                   /* number of the loop * 256 + how many helpers are to work on it */
    atomic_int busy;                     /* of those helpers, how many are not done */
} pool = { .user = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,
           .go = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };

static void take_blocks(i64 slot)
{
    for (i64 k; (k = atomic_fetch_add(&pool.next, 1)) < pool.blocks;)
        pool.work(pool.args, k, slot);
}

static i64 now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (i64)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void rest(void)            /* let the core's other thread go first */
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int no_call_after(long long seen) { return atomic_load(&pool.call) == seen; }
static int somebody_busy(long long unused) { (void)unused; return atomic_load(&pool.busy) > 0; }

/* Look again and again while `wait(of)` is true, but no longer than PATIENCE. */
static void look(int (*wait)(long long), long long of)
{
    for (i64 until = now() + PATIENCE; now() < until;)
        for (int i = 0; i < 32; i++) {
            if (!wait(of)) return;
            rest();
        }
}

static void *help(void *number)
{
    const i64 slot = (i64)(intptr_t)number + 1;
    for (long long seen = 0;;) {
        look(no_call_after, seen);
        if (no_call_after(seen)) {
            pthread_mutex_lock(&pool.lock);
            pool.asleep++;
            while (no_call_after(seen)) pthread_cond_wait(&pool.go, &pool.lock);
            pool.asleep--;
            pthread_mutex_unlock(&pool.lock);
        }
        seen = atomic_load(&pool.call);
        if (slot > (seen & 255)) continue;                    /* this loop is not for so many */
        take_blocks(slot);
        if (atomic_fetch_sub(&pool.busy, 1) == 1) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
    }
    return 0;
}

/* Start helpers until there are `wanted`, or as many as the system allows. Signals stay with Python's threads. */
static void start(int wanted)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t thread; pool.helpers < wanted; pool.helpers++) {
        if (pthread_create(&thread, 0, help, (void *)(intptr_t)pool.helpers)) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

void share(Work work, const void *args, i64 blocks, i64 threads)
{
    int wanted = (int)least(least(threads, blocks) - 1, MOST_HELPERS);
    if (wanted < 1 || pthread_mutex_trylock(&pool.user)) {
        for (i64 k = 0; k < blocks; k++) work(args, k, 0);
        return;
    }
    if (pool.helpers < wanted) start(wanted);
    wanted = (int)least(wanted, pool.helpers);
    pool.work = work, pool.args = args, pool.blocks = blocks;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.busy, wanted);
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.call, (atomic_load(&pool.call) / 256 + 1) * 256 + wanted);
    if (pool.asleep) pthread_cond_broadcast(&pool.go);
    pthread_mutex_unlock(&pool.lock);
    take_blocks(0);
    look(somebody_busy, 0);
    if (somebody_busy(0)) {
        pthread_mutex_lock(&pool.lock);
        while (somebody_busy(0)) pthread_cond_wait(&pool.done, &pool.lock);
        pthread_mutex_unlock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.user);
}

/* A forked child has none of its parent's helpers, and locks that they or their callers held: it begins anew. */
EXPORT void begin_anew(void)
{
    pthread_mutex_init(&pool.user, 0), pthread_mutex_init(&pool.lock, 0);
    pthread_cond_init(&pool.go, 0), pthread_cond_init(&pool.done, 0);
    pool.helpers = pool.asleep = 0;
    atomic_store(&pool.call, 0);
    atomic_store(&pool.busy, 0);
}

EXPORT i64 helpers(void) { return pool.helpers; }
EXPORT i64 lanes(void) { return LANES; }
