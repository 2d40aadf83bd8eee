// This header has enough of CUDA to run a kernel on the CPU. Blocks run one after the other. The threads of a block are
// fibers that switch at __syncthreads(). Blocks and threads run in a shuffled order, which depends on the seed. So a
// kernel that forgets a barrier, or whose result depends on the order, gives different numbers. An error is reported if
// a thread ends while others wait at a barrier, or if a block has more than MOST threads.
#include <setjmp.h>
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
static ucontext_t starts[MOST];
static jmp_buf home, fibers[MOST];  // a jump needs no system call; a context is needed only to start on a new stack
static std::vector<char> stacks((size_t)MOST * STACK);
static bool alive[MOST], started[MOST];
static int current, left;           // the running thread; the number of threads of the block that have not ended
static int order[MOST], count, at;  // the threads of the block in their order; the index of the next one
static void (*body)(void**);
static void** arguments;
static unsigned state;

static unsigned draw(unsigned below) {
    state = state * 1664525u + 1013904223u;
    return ((unsigned long long)(state >> 8) * below) >> 24;
}

static void shuffle(int* to, int n) {
    for (int i = 0; i < n; i++) to[i] = i;
    for (int i = n - 1; i > 0; i--) std::swap(to[i], to[draw(i + 1)]);
}

static void fiber();

static void next() {  // continues with the next thread; after the last thread, returns to run_block
    while (at < count) {
        int t = order[at++];
        if (!alive[t]) continue;
        threadIdx.x = current = t;
        if (started[t]) _longjmp(fibers[t], 1);
        started[t] = true;
        getcontext(&starts[t]);
        starts[t].uc_stack.ss_sp = &stacks[(size_t)t * STACK];
        starts[t].uc_stack.ss_size = STACK;
        makecontext(&starts[t], fiber, 0);
        setcontext(&starts[t]);
    }
    _longjmp(home, 1);
}

static void fiber() {  // runs a thread of one block, then waits for the next block
    for (;;) {
        body(arguments);
        alive[current] = false, left--;
        if (!_setjmp(fibers[current])) next();
    }
}

static int run_block(int threads) {  // returns 0, or 1 if a thread ended while another waits at a barrier
    for (int t = 0; t < threads; t++) alive[t] = true;
    for (left = threads; left > 0;) {
        int before = left;
        shuffle(order, count = threads), at = 0;
        if (!_setjmp(home)) next();
        if (left > 0 && left < before) {
            for (bool& s : started) s = false;
            return 1;
        }
    }
    return 0;
}

static int launch(void (*f)(void**), void** args, unsigned gx, unsigned gy, unsigned threads, int barriers,
                  unsigned seed) {
    if (threads > MOST) return 2;
    body = f, arguments = args, state = seed;
    gridDim = {gx, gy, 1}, blockDim = {threads, 1, 1};
    std::vector<int> blocks(gx * gy);
    shuffle(blocks.data(), gx * gy);
    for (int block : blocks) {
        blockIdx = {block % gx, block / gx, 0};
        if (barriers) {
            if (int wrong = run_block(threads)) return wrong;
        } else {
            shuffle(order, threads);
            for (unsigned i = 0; i < threads; i++) threadIdx.x = order[i], f(args);
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

// The thread waits. `next` sets threadIdx again when the thread continues.
#define __syncthreads()                                       \
    do {                                                      \
        if (!_setjmp(cpu::fibers[cpu::current])) cpu::next(); \
    } while (0)

#define LAUNCHER(name)                                                                                          \
    extern "C" int launch_##name(void** args, unsigned gx, unsigned gy, unsigned threads, int barriers,        \
                                 unsigned seed) {                                                              \
        return cpu::launch([](void** a) { cpu::unpack(name, a); }, args, gx, gy, threads, barriers, seed);     \
    }
