/* Convolution and its gradients. Twins: conv2d, conv2d_backward in reference.py.

   One idea: im2col's product without im2col's matrix. An image is copied into a frame of zeros that stays in the cache,
   and element (p, t) of im2col's matrix is x[pixel[p] + tap[t]], with two tables of offsets:

       y[p] = sum over t of x[pixel[p] + tap[t]] w[t]            w[t], y[p], g[p], gw[t]: vectors of output channels
       gw[t] = sum over p of x[pixel[p] + tap[t]] g[p]

   The tables are native.py's work. Nothing here knows of strides, padding or a kernel's size. dL/dx is the first sum too,
   with g in place of x and other tables. Taps come in runs whose values of x lie side by side. The frames of a few small
   images lie side by side, and their pixels are numbered through, so that the weights are read once for all of them. */
#include "native.h"

/* A product's shape, made once by native.py and never changed. */
typedef struct {
    i64 height, width, channels;         /* of the images that are read */
    i64 rows, columns, top, left;        /* their frame, and where in it they stand; negative: what is cut off there */
    i64 pitch;                           /* floats between two pixels of a frame */
    i64 group;                           /* images whose frames lie side by side */
    i64 pixels, runs, run, outputs;      /* of an image: its results, the runs * run summands of each, the channels of each */
    i64 size;                            /* floats of an image of results */
    i64 apart;                           /* floats between the weights of two outputs */
    const int32_t *pixel, *out;          /* for each pixel of a group: where in the frames, where in the results */
    const int32_t *tap;                  /* for each run: where it begins in the frame, seen from a pixel */
    const int32_t *taken;                /* for each tap: where in the weights of an output */
} Product;

static i64 taps_of(const Product *p) { return p->runs * p->run; }
static i64 image_of(const Product *p) { return p->height * p->width * p->channels; }
static i64 frame_of(const Product *p) { return p->rows * p->columns * p->pitch; }

/* --------------------------------------------------------------------------------------------- register tiles
   Both inner loops keep P x V vectors of sums in registers: each value of x meets V vectors of channels, each vector
   P values. Every (P, V) is a function of its own, because the compiler keeps sums in registers only where P and V are
   constants, and does not do it well for many of them in one function. */

#if REGISTERS == 32
enum { MOST_PIXELS_1 = 14, MOST_PIXELS_2 = 14, MOST = 14 };
#define EACH_TILE(f) f(1, 1) f(2, 1) f(3, 1) f(4, 1) f(5, 1) f(6, 1) f(7, 1) f(8, 1) f(9, 1) f(10, 1) f(11, 1) f(12, 1) \
    f(13, 1) f(14, 1) f(1, 2) f(2, 2) f(3, 2) f(4, 2) f(5, 2) f(6, 2) f(7, 2) f(8, 2) f(9, 2) f(10, 2) f(11, 2) \
    f(12, 2) f(13, 2) f(14, 2)
#else
enum { MOST_PIXELS_1 = 8, MOST_PIXELS_2 = 6, MOST = 8 };
#define EACH_TILE(f) f(1, 1) f(2, 1) f(3, 1) f(4, 1) f(5, 1) f(6, 1) f(7, 1) f(8, 1) \
    f(1, 2) f(2, 2) f(3, 2) f(4, 2) f(5, 2) f(6, 2)
#endif

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

static i64 vectors(i64 outputs) { return outputs > LANES ? 2 : 1; }         /* V for so many outputs */
static i64 most_of(i64 V) { return V == 1 ? MOST_PIXELS_1 : MOST_PIXELS_2; }

/* What all tiles of a product have in common. */
typedef struct {
    const float *x; const int32_t *tap; i64 runs, run;
    const float *w;                      /* packed, from the tile's first output on */
    float *y; i64 left;                  /* results, from that output on, and how many outputs are left */
    const float *bias, *skip; int relu;  /* y = relu(sum + bias + skip); each may be absent (0) */
} Sums;

/* The end of a result with fewer outputs than lanes. */
APART void finish_some(i64 left, const float *sums, const float *skip, int relu, float *y)
{
    for (i64 l = 0; l < left; l++) {
        const float value = sums[l] + (skip ? skip[l] : 0);
        y[l] = relu ? relu_of(value) : value;
    }
}

INLINE void sum_pixels(const int P, const int V, const Sums *s, const int32_t *pixel, const int32_t *out)
{
    vec sum[MOST][2];
    const float *at[MOST], *w = s->w;
    UNROLL for (int p = 0; p < P; p++) {
        at[p] = s->x + pixel[p];
        UNROLL for (int v = 0; v < V; v++) sum[p][v] = s->bias ? load(s->bias + v * LANES) : (vec){ 0 };
    }
    for (i64 r = 0; r < s->runs; r++) {
        i64 t = s->tap[r];
        const i64 end = t + s->run;
        for (; V == 1 && t + 4 <= end; t += 4, w += 4 * LANES)           /* more at[p] than integer registers: use each */
            UNROLL for (int p = 0; p < P; p++)                           /* four times once it is there */
                UNROLL for (int u = 0; u < 4; u++) sum[p][0] += at[p][t + u] * load(w + u * LANES);
        for (; t < end; t++, w += V * LANES)
            UNROLL for (int p = 0; p < P; p++)
                UNROLL for (int v = 0; v < V; v++) sum[p][v] += at[p][t] * load(w + v * LANES);
    }
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int v = 0; v < V; v++) {
            float *y = s->y + out[p] + v * LANES;
            const float *skip = s->skip ? s->skip + out[p] + v * LANES : 0;
            const i64 left = s->left - v * LANES;
            if (left >= LANES) {
                if (skip) sum[p][v] += load(skip);
                store(y, s->relu ? relu_of_all(sum[p][v]) : sum[p][v]);
            } else if (left > 0) {
                float sums[LANES];
                store(sums, sum[p][v]);
                finish_some(left, sums, skip, s->relu, y);
            }
        }
}

/* gw += its sum over `count` pixels, for P taps of one run, from x[0] on, and V vectors of outputs: g[count][V * LANES]. */
INLINE void sum_taps(const int P, const int V, const float *x, const int32_t *pixel, i64 count, const float *g, float *gw)
{
    vec sum[MOST][2];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int v = 0; v < V; v++) sum[p][v] = load(gw + (p * V + v) * LANES);
    for (i64 n = 0; n < count; n++, g += V * LANES) {
        const float *here = x + pixel[n];
        UNROLL for (int p = 0; p < P; p++)
            UNROLL for (int v = 0; v < V; v++) sum[p][v] += here[p] * load(g + v * LANES);
    }
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int v = 0; v < V; v++) store(gw + (p * V + v) * LANES, sum[p][v]);
}

typedef void SumPixels(const Sums *s, const int32_t *pixel, const int32_t *out);
typedef void SumTaps(const float *x, const int32_t *pixel, i64 count, const float *g, float *gw);
#define DEFINE(P, V) \
    APART void sum_pixels_##P##_##V(const Sums *s, const int32_t *pixel, const int32_t *out) \
    { sum_pixels(P, V, s, pixel, out); } \
    APART void sum_taps_##P##_##V(const float *x, const int32_t *pixel, i64 count, const float *g, float *gw) \
    { sum_taps(P, V, x, pixel, count, g, gw); }
EACH_TILE(DEFINE)
#define PIXELS_ENTRY(P, V) [V][P] = sum_pixels_##P##_##V,
#define TAPS_ENTRY(P, V) [V][P] = sum_taps_##P##_##V,
static SumPixels *const sum_pixels_of[3][MOST + 1] = { EACH_TILE(PIXELS_ENTRY) };
static SumTaps *const sum_taps_of[3][MOST + 1] = { EACH_TILE(TAPS_ENTRY) };

/* --------------------------------------------------------------------------------------------- frames and weights */

/* Does the image fill its frame? Then it is read where it lies. */
static int is_its_frame(const Product *p)
{
    return p->rows == p->height && p->columns == p->width && !p->top && !p->left && p->pitch == p->channels;
}

/* `count` images, each in its frame; the frames' borders are zero already. */
static const float *framed(const Product *p, const float *x, i64 count, float *frames)
{
    if (is_its_frame(p)) return x;
    const i64 cut_rows = p->top < 0 ? -p->top : 0, cut_columns = p->left < 0 ? -p->left : 0, C = p->channels;
    const i64 rows = least(p->height - cut_rows, p->rows - p->top - cut_rows);
    const i64 columns = least(p->width - cut_columns, p->columns - p->left - cut_columns);
    if (rows < 1 || columns < 1) return frames;               /* only padding is seen */
    const i64 pieces = p->pitch == C ? 1 : columns, piece = columns / pieces * C;            /* of a row */
    for (i64 n = 0; n < count; n++)
        for (i64 r = 0; r < rows; r++)
            for (i64 k = 0; k < pieces; k++)
                memcpy(frames + n * frame_of(p)
                           + ((p->top + cut_rows + r) * p->columns + p->left + cut_columns + k) * p->pitch,
                       x + n * image_of(p) + ((cut_rows + r) * p->width + cut_columns + k) * C, sizeof(float) * piece);
    return frames;
}

static i64 frames_of(const Product *p) { return is_its_frame(p) ? 0 : p->group * frame_of(p); }
static i64 padded_of(const Product *p) { return (p->outputs + LANES - 1) / LANES * LANES; }
static i64 packed_of(const Product *p) { return padded_of(p) * taps_of(p); }

/* Weights as the tiles read them: for V vectors of outputs after the other, [taps][V * LANES]; zeros fill up. Block k is
   two vectors of outputs. */
typedef struct { const Product *p; const float *w; float *packed; } Pack;

static void pack_block(const void *args, i64 k, i64 slot)
{
    const Product *p = ((const Pack *)args)->p;
    const i64 o = k * 2 * LANES, left = p->outputs - o, wide = vectors(left) * LANES;
    const float *w = ((const Pack *)args)->w + o * p->apart;
    float *packed = ((const Pack *)args)->packed + o * taps_of(p);
    (void)slot;
    for (i64 t = 0; t < taps_of(p); t++, packed += wide)
        for (i64 l = 0; l < wide; l++)
            packed[l] = l < left ? w[l * p->apart + p->taken[t]] : 0;
}

static void pack(const Product *p, const float *w, float *packed, i64 threads)
{
    Pack a = { p, w, packed };
    share(pack_block, &a, (p->outputs + 2 * LANES - 1) / (2 * LANES), packed_of(p) < 65536 ? 1 : threads);
}

static void unpack(const Product *p, const float *packed, float *w)
{
    for (i64 o = 0; o < p->outputs; o += vectors(p->outputs - o) * LANES)
        for (i64 t = 0, wide = vectors(p->outputs - o) * LANES; t < taps_of(p); t++, packed += wide)
            for (i64 l = 0; l < least(wide, p->outputs - o); l++)
                w[(o + l) * p->apart + p->taken[t]] = packed[l];
}

/* --------------------------------------------------------------------------------------------- a group of images */

/* y for `count` images, at most a group. Tiles are as even as can be: small ones are slow. */
static void product(const Product *p, Sums s, i64 count, float *frames)
{
    const float *packed = s.w, *bias = s.bias, *skip = s.skip;
    float *y = s.y;
    const i64 pixels = count * p->pixels;
    s.x = framed(p, s.x, count, frames), s.tap = p->tap, s.runs = p->runs, s.run = p->run;
    for (i64 o = 0; o < p->outputs; o += vectors(p->outputs - o) * LANES) {
        const i64 V = vectors(p->outputs - o), tiles = (pixels + most_of(V) - 1) / most_of(V);
        s.w = packed + o * taps_of(p), s.y = y + o, s.left = p->outputs - o;
        s.bias = bias ? bias + o : 0, s.skip = skip ? skip + o : 0;
        for (i64 k = 0; k < tiles; k++) {
            const i64 first = first_of(k, pixels, tiles), P = first_of(k + 1, pixels, tiles) - first;
            sum_pixels_of[V][P](&s, p->pixel + first, p->out + first);
        }
    }
}

enum { BAND = 64 };                      /* pixels whose x and g stay in the first-level cache while all taps meet them */

/* g of `count` pixels as the tiles read it: for V vectors of outputs after the other, [count][V * LANES]; zeros fill up.
   Without this, the pixels of a tile would lie so many outputs apart that they compete for a few lines of the cache. */
static const float *packed_band(const Product *p, const float *g, i64 count, float *packed)
{
    const i64 O = p->outputs;
    if (O == vectors(O) * LANES) return g;
    float *to = packed;
    for (i64 o = 0; o < O; o += vectors(O - o) * LANES)
        for (i64 n = 0, wide = vectors(O - o) * LANES, some = least(wide, O - o); n < count; n++, to += wide) {
            memcpy(to, g + n * O + o, sizeof(float) * some);
            memset(to + some, 0, sizeof(float) * (wide - some));
        }
    return packed;
}

/* gw, packed, += the gradient of the product's weights from `count` images, at most a group. */
static void product_of_gradient(const Product *p, const float *x, const float *g, i64 count, float *gw, float *frames)
{
    const i64 pixels = count * p->pixels, O = p->outputs;
    x = framed(p, x, count, frames);
    for (i64 n = 0; n < pixels; n += BAND) {
        const i64 some = least(BAND, pixels - n);
        const float *band = packed_band(p, g + n * O, some, frames + frames_of(p));
        float *to = gw;
        for (i64 o = 0; o < O; band += some * LANES * vectors(O - o), o += vectors(O - o) * LANES) {
            const i64 V = vectors(O - o), tiles = (p->run + most_of(V) - 1) / most_of(V);
            for (i64 r = 0; r < p->runs; r++)
                for (i64 k = 0; k < tiles; k++) {
                    const i64 t = first_of(k, p->run, tiles), P = first_of(k + 1, p->run, tiles) - t;
                    sum_taps_of[V][P](x + p->tap[r] + t, p->pixel + n, some, band, to);
                    to += P * V * LANES;
                }
        }
    }
}

/* --------------------------------------------------------------------------------------------- the kernels */

typedef struct { const Product *p; Sums s; i64 images, blocks, scratch_size; float *scratch; } Forward;

static void forward_block(const void *args, i64 k, i64 slot)
{
    const Forward *f = args;
    const Product *p = f->p;
    float *frames = f->scratch + slot * f->scratch_size;
    const i64 end = first_of(k + 1, f->images, f->blocks);
    memset(frames, 0, sizeof(float) * frames_of(p));
    for (i64 n = first_of(k, f->images, f->blocks); n < end; n += p->group) {
        Sums s = f->s;
        s.x += n * image_of(p), s.y += n * p->size;
        if (s.skip) s.skip += n * p->size;
        product(p, s, least(p->group, end - n), frames);
    }
}

/* Floats of scratch memory that a thread needs for the forward product `p`, and for the gradient of its weights. */
EXPORT i64 scratch_forward(const Product *p) { return frames_of(p); }
EXPORT i64 scratch_gradient(const Product *p)
{
    return frames_of(p) + BAND * padded_of(p);
}
EXPORT i64 packed_size(const Product *p) { return packed_of(p); }

/* y = relu(convolution of x with w + bias + skip); bias (filled up to a multiple of LANES), skip and relu may be 0.
   Twin: conv2d. `packed` has room for packed_size(p) floats, `scratch` for `scratch_size` of each thread. */
EXPORT void conv2d(const Product *p, i64 images, i64 blocks, i64 threads, const float *x, const float *w, float *y,
                   const float *bias, const float *skip, i64 relu, float *packed, float *scratch, i64 scratch_size)
{
    pack(p, w, packed, threads);
    Forward f = { p, { .x = x, .w = packed, .y = y, .bias = bias, .skip = skip, .relu = relu != 0 }, images, blocks,
                  scratch_size, scratch };
    share(forward_block, &f, blocks, threads);
}

typedef struct {
    const Product *of_x, *of_w; i64 parts;           /* `parts` products for dL/dx; one for dL/dw, or 0 */
    const float *g, *x, *packed;
    float *gx, *sums, *scratch;                      /* sums: dL/dw of each block, packed */
    i64 images, blocks, scratch_size;
} Backward;

/* A few images at a time, both gradients: g is in the cache for the second one. */
static void backward_block(const void *args, i64 k, i64 slot)
{
    const Backward *b = args;
    const i64 end = first_of(k + 1, b->images, b->blocks), step = b->of_w ? b->of_w->group : b->of_x->group;
    float *scratch = b->scratch + slot * b->scratch_size, *sums = 0, *frames_of_g = scratch;
    if (b->of_w) {
        sums = b->sums + k * packed_of(b->of_w);
        memset(sums, 0, sizeof(float) * packed_of(b->of_w));
        memset(scratch, 0, sizeof(float) * frames_of(b->of_w));
        frames_of_g += scratch_gradient(b->of_w);
    }
    if (b->parts) memset(frames_of_g, 0, sizeof(float) * frames_of(b->of_x));
    for (i64 n = first_of(k, b->images, b->blocks); n < end; n += step) {
        const i64 count = least(step, end - n);
        if (b->of_w)
            product_of_gradient(b->of_w, b->x + n * image_of(b->of_w), b->g + n * b->of_w->size, count, sums, scratch);
        const float *packed = b->packed;
        for (const Product *p = b->of_x; p < b->of_x + b->parts; packed += packed_of(p++))
            product(p, (Sums){ .x = b->g + n * image_of(p), .w = packed, .y = b->gx + n * p->size }, count, frames_of_g);
    }
}

typedef struct { float *sums; i64 length, count, blocks; } Join;

static void join_block(const void *args, i64 k, i64 slot)
{
    const Join *j = args;
    (void)slot;
    for (i64 b = 1; b < j->count; b++)
        for (i64 i = first_of(k, j->length, j->blocks); i < first_of(k + 1, j->length, j->blocks); i++)
            j->sums[i] += j->sums[b * j->length + i];
}

/* dL/dx by `parts` products of g (one for each remainder by the stride; all have one frame and one group), dL/dw by the
   forward product. Either may be left out: parts or of_w 0. Twin: conv2d_backward. gx is zero where no product writes. */
EXPORT void conv2d_backward(const Product *of_x, i64 parts, const Product *of_w, i64 images, i64 blocks, i64 threads,
                            const float *g, const float *x, const float *w, float *gx, float *gw, float *packed,
                            float *sums, float *scratch, i64 scratch_size)
{
    float *to = packed;
    for (const Product *p = of_x; p < of_x + parts; to += packed_of(p++)) pack(p, w, to, threads);
    Backward b = { of_x, of_w, parts, g, x, packed, gx, sums, scratch, images, blocks, scratch_size };
    share(backward_block, &b, blocks, threads);
    if (!of_w) return;
    Join j = { sums, packed_of(of_w), blocks, 16 };
    share(join_block, &j, j.blocks, blocks * j.length < 65536 ? 1 : threads);
    unpack(of_w, sums, gw);
}
