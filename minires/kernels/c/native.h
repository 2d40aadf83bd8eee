/* What the C sources share: vectors of floats, and loops that threads share.

   The kernels of reference.py for float32 on the CPU. Images are stored channels last, (N, H, W, C), contiguously.
   Nothing here checks an argument: native.py has done that before it hands over a pointer. */
#ifndef MINIRES_NATIVE_H
#define MINIRES_NATIVE_H

#include <stdint.h>
#include <string.h>

typedef int64_t i64;

/* LANES: floats in a vector register. REGISTERS: how many of those there are. */
#if defined(__AVX512F__)
#define LANES 16
#define REGISTERS 32
#elif defined(__AVX__)
#define LANES 8
#define REGISTERS 16
#elif defined(__aarch64__)
#define LANES 4
#define REGISTERS 32
#else
#define LANES 4
#define REGISTERS 16
#endif

/* Vector extensions of GCC and clang; `aligned(4)` because rows begin anywhere, `may_alias` because they are floats. */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }
static inline float relu_of(float v) { return v < 0 ? 0 : v; }       /* NaN stays NaN */

#define relu_of_all(v) ((vec)((mask)(v) & ~((v) < 0)))                /* the same for a vector */

#define EXPORT __attribute__((visibility("default")))                 /* called from native.py */
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))                        /* has all registers for itself */

/* threads.c: call work(args, k, slot) once for every block k < blocks, on at most `threads` threads. `slot`, below
   `threads`, names the thread: scratch memory belongs to a slot. Returns when all blocks are done. */
typedef void (*Work)(const void *args, i64 k, i64 slot);
void share(Work work, const void *args, i64 blocks, i64 threads);

/* Block k of `count` things in `blocks` blocks is [first_of(k), first_of(k + 1)). The number of blocks never depends on
   the number of threads, and what is summed over blocks is kept for each block: so neither do the results' bits. */
static inline i64 first_of(i64 k, i64 count, i64 blocks) { return count * k / blocks; }

#endif
