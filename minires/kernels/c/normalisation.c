/* Batch normalisation, alone or with what follows it. Twins: batch_norm, batch_norm_eval, batch_norm_relu and their
   backward functions in reference.py.

   An activation is seen as lines of `length` values, a multiple of the channels: a vector of one value for each channel
   is repeated to such a line, and every loop runs along one. Sums are float32 within a block (at most a few hundred
   summands), float64 across blocks.

   Where |mean| >> std, sums of x and x^2 lose all digits. So `shift`, which is near the mean, is subtracted first. */
#include <math.h>

#include "native.h"

typedef struct {
    i64 values, channels, length, blocks;
    const float *x, *y, *g, *skip;       /* y: the ReLU's output, whose mask is y > 0 */
    float *to, *masked;                  /* results; masked: g behind the ReLU's mask, where that is wanted */
    float *shift, *a, *b, *c;            /* lines */
    float *sums;                         /* two lines for each block */
    int relu;
} Norm;

/* Where block k begins: lines are not cut, but the last one may be short. */
static i64 block_begin(const Norm *q, i64 k)
{
    const i64 lines = (q->values + q->length - 1) / q->length;
    return least(q->values, first_of(k, lines, q->blocks) * q->length);
}

#define EACH_LINE(q, k) for (i64 at = block_begin(q, k), end = block_begin(q, (k) + 1), n; \
                             n = least((q)->length, end - at), at < end; at += (q)->length)

/* The loops along a line. `restrict` on parameters, because it is there that compilers heed it. */

static void sum_line(i64 n, const float *restrict x, const float *restrict shift, float *restrict s1, float *restrict s2)
{
    for (i64 j = 0; j < n; j++) { const float v = x[j] - shift[j]; s1[j] += v, s2[j] += v * v; }
}

static void scale_line(i64 n, const float *restrict x, const float *restrict shift, const float *restrict a,
                       const float *restrict b, float *restrict y)
{
    for (i64 j = 0; j < n; j++) y[j] = (x[j] - shift[j]) * a[j] + b[j];
}

static void scale_relu_line(i64 n, const float *restrict x, const float *restrict shift, const float *restrict a,
                            const float *restrict b, float *restrict y)
{
    for (i64 j = 0; j < n; j++) y[j] = relu_of((x[j] - shift[j]) * a[j] + b[j]);
}

static void scale_skip_relu_line(i64 n, const float *restrict x, const float *restrict shift, const float *restrict a,
                                 const float *restrict b, const float *restrict skip, float *restrict y)
{
    for (i64 j = 0; j < n; j++) y[j] = relu_of((x[j] - shift[j]) * a[j] + b[j] + skip[j]);
}

static void gather_line(i64 n, const float *restrict g, const float *restrict x, const float *restrict shift,
                        float *restrict s1, float *restrict s2)
{
    for (i64 j = 0; j < n; j++) { s1[j] += g[j], s2[j] += g[j] * (x[j] - shift[j]); }
}

static inline float behind_relu(float g, float y) { return g * (y > 0 ? 1.0f : 0.0f); }   /* as the twin: NaN is seen */

static void gather_masked_line(i64 n, const float *restrict g, const float *restrict y, const float *restrict x,
                               const float *restrict shift, float *restrict s1, float *restrict s2)
{
    for (i64 j = 0; j < n; j++) {
        const float m = behind_relu(g[j], y[j]);
        s1[j] += m, s2[j] += m * (x[j] - shift[j]);
    }
}

static void gather_keep_line(i64 n, const float *restrict g, const float *restrict y, const float *restrict x,
                             const float *restrict shift, float *restrict s1, float *restrict s2, float *restrict masked)
{
    for (i64 j = 0; j < n; j++) {
        const float m = masked[j] = behind_relu(g[j], y[j]);
        s1[j] += m, s2[j] += m * (x[j] - shift[j]);
    }
}

static void scatter_line(i64 n, const float *restrict g, const float *restrict x, const float *restrict shift,
                         const float *restrict a, const float *restrict b, const float *restrict c, float *restrict gx)
{
    for (i64 j = 0; j < n; j++) gx[j] = a[j] * g[j] + b[j] * (x[j] - shift[j]) + c[j];
}

static void scatter_masked_line(i64 n, const float *restrict g, const float *restrict y, const float *restrict x,
                                const float *restrict shift, const float *restrict a, const float *restrict b,
                                const float *restrict c, float *restrict gx)
{
    for (i64 j = 0; j < n; j++) gx[j] = a[j] * behind_relu(g[j], y[j]) + b[j] * (x[j] - shift[j]) + c[j];
}

/* A block of each of the four passes. */

static void sum_block(const void *args, i64 k, i64 slot)
{
    const Norm *q = args;
    float *s1 = q->sums + 2 * k * q->length, *s2 = s1 + q->length;
    (void)slot;
    memset(s1, 0, 2 * sizeof(float) * q->length);
    EACH_LINE(q, k) sum_line(n, q->x + at, q->shift, s1, s2);
}

static void scale_block(const void *args, i64 k, i64 slot)
{
    const Norm *q = args;
    (void)slot;
    EACH_LINE(q, k) {
        if (q->skip) scale_skip_relu_line(n, q->x + at, q->shift, q->a, q->b, q->skip + at, q->to + at);
        else if (q->relu) scale_relu_line(n, q->x + at, q->shift, q->a, q->b, q->to + at);
        else scale_line(n, q->x + at, q->shift, q->a, q->b, q->to + at);
    }
}

static void gather_block(const void *args, i64 k, i64 slot)
{
    const Norm *q = args;
    float *s1 = q->sums + 2 * k * q->length, *s2 = s1 + q->length;
    (void)slot;
    memset(s1, 0, 2 * sizeof(float) * q->length);
    EACH_LINE(q, k) {
        if (q->masked) gather_keep_line(n, q->g + at, q->y + at, q->x + at, q->shift, s1, s2, q->masked + at);
        else if (q->y) gather_masked_line(n, q->g + at, q->y + at, q->x + at, q->shift, s1, s2);
        else gather_line(n, q->g + at, q->x + at, q->shift, s1, s2);
    }
}

static void scatter_block(const void *args, i64 k, i64 slot)
{
    const Norm *q = args;
    (void)slot;
    EACH_LINE(q, k) {
        if (q->masked) scatter_line(n, q->masked + at, q->x + at, q->shift, q->a, q->b, q->c, q->to + at);
        else if (q->y) scatter_masked_line(n, q->g + at, q->y + at, q->x + at, q->shift, q->a, q->b, q->c, q->to + at);
        else scatter_line(n, q->g + at, q->x + at, q->shift, q->a, q->b, q->c, q->to + at);
    }
}

/* A channel's sum: number `which` of the two, over all blocks, in float64. */
static double total(const Norm *q, i64 which, i64 channel)
{
    double sum = 0;
    for (i64 k = 0; k < q->blocks; k++)
        for (i64 j = channel; j < q->length; j += q->channels) sum += q->sums[(2 * k + which) * q->length + j];
    return sum;
}

/* The first value for each channel, repeated to a line. */
static void fill_line(const Norm *q, float *line)
{
    for (i64 j = q->channels; j < q->length; j++) line[j] = line[j - q->channels];
}

/* A value near each channel's mean: the mean of a few pixels, spread over the batch. */
static void guess_mean(const Norm *q)
{
    const i64 pixels = q->values / q->channels, few = least(pixels, 32);
    for (i64 j = 0; j < q->channels; j++) {
        double sum = 0;
        for (i64 i = 0; i < few; i++) sum += q->x[first_of(i, pixels, few) * q->channels + j];
        q->shift[j] = sum / (double)few;
    }
}

/* Lines and sums lie one behind the other in `scratch`: 4 + 2 * blocks lines. */
static void lay_out(Norm *q, float *scratch)
{
    q->shift = scratch, q->a = q->shift + q->length, q->b = q->a + q->length, q->c = q->b + q->length;
    q->sums = q->c + q->length;
}

/* y = gamma (x - mean) / sqrt(var + eps) + beta, then + skip, then ReLU, where wanted. mean and var are the batch's own,
   which are then written, or with `given` those that are read. saved: mean and 1 / sqrt(var + eps), in float64.
   Twins: batch_norm, batch_norm_relu, batch_norm_eval. */
EXPORT void batch_norm(i64 values, i64 channels, i64 length, i64 blocks, i64 threads, const float *x, const float *skip,
                       float *y, const float *gamma, const float *beta, double eps, i64 relu, i64 given, float *mean,
                       float *var, double *saved, float *scratch)
{
    Norm q = { .values = values, .channels = channels, .length = length, .blocks = blocks, .x = x, .skip = skip, .to = y,
               .relu = relu != 0 };
    const double m = (double)(values / channels);
    lay_out(&q, scratch);
    if (!given) {
        guess_mean(&q);
        fill_line(&q, q.shift);
        share(sum_block, &q, blocks, threads);
    }
    for (i64 j = 0; j < channels; j++) {
        double mean_j = mean[j], var_j = var[j];
        if (!given) {
            const double rest = total(&q, 0, j) / m;
            mean_j = q.shift[j] + rest, var_j = total(&q, 1, j) / m - rest * rest;
            if (var_j < 0) var_j = 0;                          /* by rounding; NaN stays */
            mean[j] = mean_j, var[j] = var_j;
        }
        const double inv = 1 / sqrt(var_j + eps);
        saved[j] = mean_j, saved[channels + j] = inv;
        q.c[j] = mean_j;                                       /* the next shift: q.shift is still needed above */
        q.a[j] = gamma[j] * inv, q.b[j] = beta[j] - gamma[j] * inv * (mean_j - (float)mean_j);
    }
    memcpy(q.shift, q.c, sizeof(float) * channels);
    fill_line(&q, q.shift), fill_line(&q, q.a), fill_line(&q, q.b);
    share(scale_block, &q, blocks, threads);
}

/* dL/dx, dL/dgamma, dL/dbeta. With xc = x - shift and rest = mean - shift,

       dL/dgamma = inv (sum(g xc) - rest sum(g))        dL/dx = a g + b xc + c        (a, b, c for each channel)

   With y, g counts only where y > 0; `masked`, if given, receives that. With `constant` statistics b = c = 0.
   Twins: batch_norm_backward, batch_norm_relu_backward, batch_norm_eval_backward. */
EXPORT void batch_norm_backward(i64 values, i64 channels, i64 length, i64 blocks, i64 threads, const float *g,
                                const float *x, const float *y, float *gx, float *masked, const float *gamma,
                                const double *saved, i64 constant, float *ggamma, float *gbeta, float *scratch)
{
    Norm q = { .values = values, .channels = channels, .length = length, .blocks = blocks, .x = x, .y = y, .g = g,
               .to = gx, .masked = masked };
    const double m = (double)(values / channels), *mean = saved, *inv = saved + channels;
    lay_out(&q, scratch);
    for (i64 j = 0; j < channels; j++) q.shift[j] = mean[j];
    fill_line(&q, q.shift);
    share(gather_block, &q, blocks, threads);
    for (i64 j = 0; j < channels; j++) {
        const double rest = mean[j] - q.shift[j], sum = total(&q, 0, j);
        const double sum_xhat = inv[j] * (total(&q, 1, j) - rest * sum), a = gamma[j] * inv[j];
        const double b = constant ? 0 : -a * inv[j] * sum_xhat / m;
        ggamma[j] = sum_xhat, gbeta[j] = sum;
        q.a[j] = a, q.b[j] = b, q.c[j] = constant ? 0 : -a * sum / m - b * rest;
    }
    fill_line(&q, q.a), fill_line(&q, q.b), fill_line(&q, q.c);
    share(scatter_block, &q, blocks, threads);
}

/* The running statistics moved towards a batch's by `momentum`; `count` values made the batch's biased variance.
   Twin: running_statistics. */
EXPORT void running_statistics(i64 channels, const float *old_mean, const float *old_var, const float *mean,
                               const float *var, double momentum, double count, float *new_mean, float *new_var)
{
    const double unbiased = count / (count - 1);
    for (i64 j = 0; j < channels; j++) {
        new_mean[j] = (1 - momentum) * old_mean[j] + momentum * mean[j];
        new_var[j] = (1 - momentum) * old_var[j] + momentum * (var[j] * unbiased);
    }
}
