/* Loops over one value after the other. Twins: add, relu, sgd in reference.py. */
#include "native.h"

typedef struct { i64 values, blocks; const float *a, *b; float *y; uint8_t *on; } Each;

static void add_values(i64 n, const float *restrict a, const float *restrict b, float *restrict y)
{
    for (i64 j = 0; j < n; j++) y[j] = a[j] + b[j];
}

static void relu_values(i64 n, const float *restrict x, float *restrict y, uint8_t *restrict on)
{
    for (i64 j = 0; j < n; j++) { y[j] = relu_of(x[j]); on[j] = x[j] > 0; }
}

static void add_block(const void *args, i64 k, i64 slot)
{
    const Each *e = args;
    const i64 at = first_of(k, e->values, e->blocks), n = first_of(k + 1, e->values, e->blocks) - at;
    (void)slot;
    add_values(n, e->a + at, e->b + at, e->y + at);
}

static void relu_block(const void *args, i64 k, i64 slot)
{
    const Each *e = args;
    const i64 at = first_of(k, e->values, e->blocks), n = first_of(k + 1, e->values, e->blocks) - at;
    (void)slot;
    relu_values(n, e->a + at, e->y + at, e->on + at);
}

/* y = a + b. Twin: add. */
EXPORT void add(i64 values, i64 blocks, i64 threads, const float *a, const float *b, float *y)
{
    Each e = { values, blocks, a, b, y, 0 };
    share(add_block, &e, blocks, threads);
}

/* y = max(x, 0), NaN where x is NaN, and on = x > 0. Twin: relu. */
EXPORT void relu(i64 values, i64 blocks, i64 threads, const float *x, float *y, uint8_t *on)
{
    Each e = { values, blocks, x, 0, y, on };
    share(relu_block, &e, blocks, threads);
}

/* g = momentum v + (g + weight_decay w), which is the new velocity; new_w = w - lr g. Twin: sgd. */
EXPORT void sgd(i64 values, const float *restrict w, float *restrict g, const float *restrict v, float *restrict new_w,
                float lr, float momentum, float weight_decay)
{
    if (weight_decay != 0) for (i64 j = 0; j < values; j++) g[j] += weight_decay * w[j];
    if (momentum != 0) for (i64 j = 0; j < values; j++) g[j] += momentum * v[j];
    for (i64 j = 0; j < values; j++) new_w[j] = w[j] - lr * g[j];
}
