/* Pooling, and the shortcut without weights. Twins: max_pool2d, avg_pool2d, shortcut and their backward functions in
   reference.py. A window's part in the padding is left out, never read. */
#include "native.h"

typedef struct {
    i64 images, height, width, channels;                       /* of x */
    i64 kernel_rows, kernel_columns, stride_rows, stride_columns, top, left;
    i64 rows, columns;                                         /* of y */
} Windows;

typedef struct { const Windows *w; i64 blocks; const float *x, *g; float *y, *gx; uint8_t *winner; const uint8_t *won; }
    Pool;

/* Elements [first, last) of the window that begins at `from` lie within [0, size). */
static i64 first_inside(i64 from) { return from < 0 ? -from : 0; }
static i64 last_inside(i64 from, i64 kernel, i64 size) { return least(kernel, size - from); }

/* For every window of block k's images, and every element of it that is inside: `pixel` numbers the element's pixel of x,
   `window` the window, `tap` the element. The last window comes first: a pixel meets its windows in the order of its
   number in them, as in the twins, and sums have their bits. */
#define EACH_ELEMENT(w, k, blocks, begin_window) \
    for (i64 n = first_of(k, (w)->images, blocks); n < first_of((k) + 1, (w)->images, blocks); n++) \
    for (i64 r = (w)->rows - 1; r >= 0; r--) \
    for (i64 c = (w)->columns - 1; c >= 0; c--) { \
        const i64 r0 = r * (w)->stride_rows - (w)->top, c0 = c * (w)->stride_columns - (w)->left; \
        const i64 window = (n * (w)->rows + r) * (w)->columns + c; \
        begin_window; \
        for (i64 i = first_inside(r0); i < last_inside(r0, (w)->kernel_rows, (w)->height); i++) \
        for (i64 j = first_inside(c0); j < last_inside(c0, (w)->kernel_columns, (w)->width); j++) { \
            const i64 pixel = (n * (w)->height + r0 + i) * (w)->width + c0 + j, tap = i * (w)->kernel_columns + j;
#define END_ELEMENT } }

static void begin_max(i64 C, float *y, uint8_t *winner)
{
    for (i64 j = 0; j < C; j++) y[j] = -__builtin_inff();
    memset(winner, 0, C);
}

static void larger(i64 C, const float *restrict x, float *restrict y, uint8_t *restrict winner, uint8_t tap)
{
    for (i64 j = 0; j < C; j++) {
        const int better = (x[j] > y[j]) | (x[j] != x[j]);     /* NaN wins */
        y[j] = better ? x[j] : y[j];
        winner[j] = better ? tap : winner[j];
    }
}

static void max_block(const void *args, i64 k, i64 slot)
{
    const Pool *p = args;
    const i64 C = p->w->channels;
    (void)slot;
    EACH_ELEMENT(p->w, k, p->blocks, begin_max(C, p->y + window * C, p->winner + window * C))
        larger(C, p->x + pixel * C, p->y + window * C, p->winner + window * C, (uint8_t)tap);
    END_ELEMENT
}

static void add_where_won(i64 C, const float *restrict g, const uint8_t *restrict winner, uint8_t tap, float *restrict gx)
{
    for (i64 j = 0; j < C; j++) gx[j] += g[j] * (winner[j] == tap ? 1.0f : 0.0f);
}

static void clear(const Pool *p, i64 k)
{
    const i64 image = p->w->height * p->w->width * p->w->channels, first = first_of(k, p->w->images, p->blocks);
    memset(p->gx + first * image, 0, sizeof(float) * image * (first_of(k + 1, p->w->images, p->blocks) - first));
}

static void max_backward_block(const void *args, i64 k, i64 slot)
{
    const Pool *p = args;
    const i64 C = p->w->channels;
    (void)slot;
    clear(p, k);
    EACH_ELEMENT(p->w, k, p->blocks, (void)0)
        add_where_won(C, p->g + window * C, p->won + window * C, (uint8_t)tap, p->gx + pixel * C);
    END_ELEMENT
}

static void add_scaled(i64 C, const float *restrict from, float by, float *restrict to)
{
    for (i64 j = 0; j < C; j++) to[j] += from[j] * by;
}

static float share_of(const Windows *w) { return 1.0f / (float)(w->kernel_rows * w->kernel_columns); }

static void mean_block(const void *args, i64 k, i64 slot)
{
    const Pool *p = args;
    const i64 C = p->w->channels;
    (void)slot;
    EACH_ELEMENT(p->w, k, p->blocks, memset(p->y + window * C, 0, sizeof(float) * C))
        (void)tap, add_scaled(C, p->x + pixel * C, share_of(p->w), p->y + window * C);
    END_ELEMENT
}

static void mean_backward_block(const void *args, i64 k, i64 slot)
{
    const Pool *p = args;
    const i64 C = p->w->channels;
    (void)slot;
    clear(p, k);
    EACH_ELEMENT(p->w, k, p->blocks, (void)0)
        (void)tap, add_scaled(C, p->g + window * C, share_of(p->w), p->gx + pixel * C);
    END_ELEMENT
}

/* Every window's maximum, and which of its elements that was. Ties go to the first, NaN wins. Twin: max_pool2d. */
EXPORT void max_pool2d(const Windows *w, i64 blocks, i64 threads, const float *x, float *y, uint8_t *winner)
{
    Pool p = { .w = w, .blocks = blocks, .x = x, .y = y, .winner = winner };
    share(max_block, &p, blocks, threads);
}

/* dL/dx: every window's gradient goes to the element that won it. Twin: max_pool2d_backward. */
EXPORT void max_pool2d_backward(const Windows *w, i64 blocks, i64 threads, const float *g, const uint8_t *winner,
                                float *gx)
{
    Pool p = { .w = w, .blocks = blocks, .g = g, .won = winner, .gx = gx };
    share(max_backward_block, &p, blocks, threads);
}

/* Every window's mean, the zeros of the padding among its elements. Twin: avg_pool2d. */
EXPORT void avg_pool2d(const Windows *w, i64 blocks, i64 threads, const float *x, float *y)
{
    Pool p = { .w = w, .blocks = blocks, .x = x, .y = y };
    share(mean_block, &p, blocks, threads);
}

/* dL/dx: every window's gradient is shared equally by its elements. Twin: avg_pool2d_backward. */
EXPORT void avg_pool2d_backward(const Windows *w, i64 blocks, i64 threads, const float *g, float *gx)
{
    Pool p = { .w = w, .blocks = blocks, .g = g, .gx = gx };
    share(mean_backward_block, &p, blocks, threads);
}

/* --------------------------------------------------------------------------------------------- option A */

typedef struct { i64 images, height, width, channels, stride, wide, before, blocks; const float *from; float *to; } Skip;

static i64 strided(i64 size, i64 stride) { return (size + stride - 1) / stride; }

static void shortcut_block(const void *args, i64 k, i64 slot)
{
    const Skip *s = args;
    const i64 rows = strided(s->height, s->stride), columns = strided(s->width, s->stride), C = s->channels;
    (void)slot;
    for (i64 n = first_of(k, s->images, s->blocks); n < first_of(k + 1, s->images, s->blocks); n++)
        for (i64 r = 0; r < rows; r++)
            for (i64 c = 0; c < columns; c++) {
                float *to = s->to + ((n * rows + r) * columns + c) * s->wide;
                const float *from = s->from + ((n * s->height + r * s->stride) * s->width + c * s->stride) * C;
                memset(to, 0, sizeof(float) * s->before);
                memcpy(to + s->before, from, sizeof(float) * C);
                memset(to + s->before + C, 0, sizeof(float) * (s->wide - s->before - C));
            }
}

static void shortcut_backward_block(const void *args, i64 k, i64 slot)
{
    const Skip *s = args;
    const i64 rows = strided(s->height, s->stride), columns = strided(s->width, s->stride), C = s->channels;
    (void)slot;
    for (i64 n = first_of(k, s->images, s->blocks); n < first_of(k + 1, s->images, s->blocks); n++) {
        memset(s->to + n * s->height * s->width * C, 0, sizeof(float) * s->height * s->width * C);
        for (i64 r = 0; r < rows; r++)
            for (i64 c = 0; c < columns; c++)
                memcpy(s->to + ((n * s->height + r * s->stride) * s->width + c * s->stride) * C,
                       s->from + ((n * rows + r) * columns + c) * s->wide + s->before, sizeof(float) * C);
    }
}

/* y: every stride-th pixel of x, `before` zero channels before its own, zeros behind them up to `wide`. Twin: shortcut. */
EXPORT void shortcut(i64 images, i64 height, i64 width, i64 channels, i64 stride, i64 wide, i64 before, i64 blocks,
                     i64 threads, const float *x, float *y)
{
    Skip s = { images, height, width, channels, stride, wide, before, blocks, x, y };
    share(shortcut_block, &s, blocks, threads);
}

/* dL/dx, zero where x had no influence. Twin: shortcut_backward. */
EXPORT void shortcut_backward(i64 images, i64 height, i64 width, i64 channels, i64 stride, i64 wide, i64 before,
                              i64 blocks, i64 threads, const float *g, float *gx)
{
    Skip s = { images, height, width, channels, stride, wide, before, blocks, g, gx };
    share(shortcut_backward_block, &s, blocks, threads);
}
