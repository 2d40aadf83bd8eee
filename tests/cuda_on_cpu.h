// Enough of CUDA to run a kernel on the CPU: blocks one after the other, the threads of a block as fibers that change
// at __syncthreads(). Blocks and threads run in a shuffled order, another for every seed: a kernel that forgets a
// barrier, or whose result depends on the order, gives other numbers. A thread that ends while others wait at a barrier
// is reported, as is a kernel with threads beyond BLOCK.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __shared__ static
using std::max;
using std::min;

struct Dim3 { unsigned x, y, z; };
static Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cpu {
constexpr int STACK = 1 << 15, MOST = 1024;
static ucontext_t home, fibers[MOST];
static std::vector<char> stacks;
static bool alive[MOST];
static int current;
static void (*body)(void**);
static void** arguments;
static unsigned state;

static unsigned draw(unsigned below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

static std::vector<int> shuffled(int n) {
    std::vector<int> order(n);
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0; i--) std::swap(order[i], order[draw(i + 1)]);
    return order;
}

static void fiber() {
    body(arguments);
    alive[current] = false;
    swapcontext(&fibers[current], &home);
}

static int run_block(int threads) {  // 0, or 1 where a thread ended and another waits for it
    stacks.resize((size_t)threads * STACK);
    for (int t = 0; t < threads; t++) {
        getcontext(&fibers[t]);
        fibers[t].uc_stack.ss_sp = &stacks[(size_t)t * STACK];
        fibers[t].uc_stack.ss_size = STACK;
        fibers[t].uc_link = &home;
        makecontext(&fibers[t], fiber, 0);
        alive[t] = true;
    }
    for (int left = threads; left > 0;) {
        int before = left;
        for (int t : shuffled(threads)) {
            if (!alive[t]) continue;
            threadIdx.x = current = t;
            swapcontext(&home, &fibers[t]);
            left -= !alive[t];
        }
        if (left > 0 && left < before) return 1;
    }
    return 0;
}

static int launch(void (*f)(void**), void** args, unsigned gx, unsigned gy, unsigned threads, int barriers,
                  unsigned seed) {
    if (threads > MOST) return 2;
    body = f, arguments = args, state = seed;
    gridDim = {gx, gy, 1}, blockDim = {threads, 1, 1};
    for (int block : shuffled(gx * gy)) {
        blockIdx = {block % gx, block / gx, 0};
        if (barriers) {
            if (int wrong = run_block(threads)) return wrong;
        } else {
            for (int t : shuffled(threads)) threadIdx.x = t, f(args);
        }
    }
    return 0;
}

template <class... A, size_t... I>
static void call(void (*f)(A...), void** args, std::index_sequence<I...>) {
    f(*static_cast<A*>(args[I])...);
}
template <class... A>
static void unpack(void (*f)(A...), void** args) {
    call(f, args, std::index_sequence_for<A...>{});
}
}  // namespace cpu

// A fiber that was moved to a barrier finds its own index again when it goes on.
#define __syncthreads()                                              \
    do {                                                             \
        int self = cpu::current;                                     \
        swapcontext(&cpu::fibers[self], &cpu::home);                 \
        threadIdx.x = cpu::current = self;                           \
    } while (0)

#define LAUNCHER(name)                                                                                          \
    extern "C" int launch_##name(void** args, unsigned gx, unsigned gy, unsigned threads, int barriers,        \
                                 unsigned seed) {                                                              \
        return cpu::launch([](void** a) { cpu::unpack(name, a); }, args, gx, gy, threads, barriers, seed);     \
    }
