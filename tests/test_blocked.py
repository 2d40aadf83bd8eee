"""Test how kernels/blocked.py cuts its work into blocks, shares them among threads and uses memory again.

test_fast_kernels.py tests that its results are right.
"""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from kernel_cases import (
    CONVOLUTIONS,
    EPS,
    LAYOUTS,
    all_kernels,
    arguments,
    assert_close,
    check_batch_norm,
    check_convolution,
    normal,
)

from minires import kernels, models, optim, train
from minires.kernels import blocked, parallel

THREADS_WORTH = parallel.threads_worth


@pytest.fixture(autouse=True)
def _share_small_work_too(monkeypatch):
    """Share small work too, because otherwise one thread would process these small arrays and threads were untested."""
    monkeypatch.setattr(parallel, "threads_worth", lambda work, cache, threads: threads)


def test_addition_is_shared_among_threads_once_it_is_worth_it(monkeypatch):
    shared, share = [], blocked.share
    monkeypatch.setattr(blocked, "share", lambda work, blocks: (shared.append(len(blocks)), share(work, blocks)))
    large = LAYOUTS["channels last"](normal(1, 16, 16, 32, 33))
    with parallel.session(threads=2):
        assert np.array_equal(blocked.add(large, large), 2 * large)
        blocked.add(large[:1], large[:1])
    assert len(shared) == 1 and shared[0] >= (2 if parallel.threads() > 1 else 1)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_twenty_runs_give_the_same_bits(threads, monkeypatch):
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 100_000)  # many blocks for the threads to compete for
    given = arguments()
    with parallel.session(threads=threads):
        first = [v.tobytes() for v in all_kernels(blocked, *given)]
        for run in range(19):
            for i, (v, old) in enumerate(zip(all_kernels(blocked, *given), first, strict=True)):
                assert v.tobytes() == old, f"output {i} changed in run {run + 2}"


def test_bits_do_not_depend_on_which_thread_is_late(monkeypatch):
    """Delay the first blocks, then the last. A sum in the order of finishing would change."""
    given = arguments()
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 100_000)
    share = parallel.share
    results = []
    for slow in (0, -1):
        def delayed(work, blocks, slow=slow):
            late = threading.Event()

            def late_work(mine):
                def watched():
                    for k, at in mine:
                        if k == slow % len(blocks):
                            late.wait(0.003)
                        yield k, at
                work(watched())
            share(late_work, blocks)
        monkeypatch.setattr(blocked, "share", delayed)
        with parallel.session(threads=2):
            results.append([v.tobytes() for v in all_kernels(blocked, *given)])
    assert results[0] == results[1]


def test_every_thread_count_agrees():
    given = arguments()
    with parallel.session(threads=1):
        one = all_kernels(blocked, *given)
    for threads in (2, 3, 40):
        with parallel.session(threads=threads):
            for a, b in zip(all_kernels(blocked, *given), one, strict=True):
                assert_close(a, b.astype(np.float64))


# ------------------------------------------------------------------------------- threads and blocks

# private: no result shows how BLAS is limited to one thread and restored, and by which thread
libraries, set_blas, one_blas_thread = parallel._blas, parallel._set_blas, parallel._one_blas_thread
pool = parallel._pool  # private: as above


def blas_threads():
    return [lib.num_threads for lib in libraries()]


@pytest.fixture
def two_blas_threads():
    if not libraries():
        pytest.skip("threadpoolctl is not installed or finds no BLAS, so there is nothing to limit")
    before = blas_threads()
    set_blas([2] * len(before))
    yield blas_threads()
    set_blas(before)


def test_blas_is_held_inside_and_restored_after(two_blas_threads, monkeypatch):
    seen, outer = [], blocked._outer  # private: it runs within a kernel, while BLAS is limited

    def watched(a, b):
        seen.append(blas_threads())
        return outer(a, b)

    monkeypatch.setattr(blocked, "_outer", watched)  # private: as above
    all_kernels(blocked, *arguments(N=3))
    assert seen and all(set(s) == {1} for s in seen)
    assert blas_threads() == two_blas_threads


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_is_restored_after_an_exception_in_any_thread(threads, two_blas_threads):
    class Planted(Exception):
        pass

    def fail_in_helper(mine):
        main = threading.current_thread() is threading.main_thread()
        for k, _ in mine:
            if main and threads == 2:
                started.wait(5)  # leave a block for the helper
            else:
                started.set()
                raise Planted(k)

    started = threading.Event()
    with parallel.session(threads=threads), pytest.raises(Planted):
        parallel.share(fail_in_helper, parallel.blocks_of(8, 1))
    assert blas_threads() == two_blas_threads
    check_convolution(blocked, *CONVOLUTIONS[6])  # the pool still works


def test_a_thread_that_set_the_number_before_does_not_prevent_it(two_blas_threads):
    """threadpoolctl obeys only one controlling thread as long as it lives, and silently ignores all others."""
    done, leave = threading.Event(), threading.Event()

    def ruler():
        for lib in libraries():
            lib.set_num_threads(2)
        done.set()
        leave.wait(10)

    thread = threading.Thread(target=ruler)
    thread.start()
    try:
        done.wait(10)
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert blas_threads() == two_blas_threads
    finally:
        leave.set()
        thread.join()


def test_holds_nest_also_across_threads(two_blas_threads):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        thread.start()
        inside.wait(5)
    assert set(blas_threads()) == {1}, "the other thread is still open"
    leave.set()
    thread.join()
    assert blas_threads() == two_blas_threads


def test_kernels_may_be_called_from_several_threads_at_once(two_blas_threads):
    given = arguments()
    with parallel.session(threads=2):
        expected = [v.tobytes() for v in all_kernels(blocked, *given)]
    results = [None] * 4

    def call(i):
        with parallel.session(threads=2):
            results[i] = [v.tobytes() for v in all_kernels(blocked, *given)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert all(r == expected for r in results)
    assert blas_threads() == two_blas_threads


def test_the_context_of_the_caller_holds_in_the_helpers():
    """np.errstate and no_grad are context variables, which a plain thread would not see."""
    if not libraries():
        pytest.skip("without threadpoolctl there are no helpers")
    both, seen = threading.Barrier(2, timeout=10), {}

    def work(mine):
        for _ in mine:
            both.wait()  # so that each thread gets one of the two blocks
            seen[threading.get_ident()] = np.geterr()["over"]

    with parallel.session(threads=2), np.errstate(over="raise"):
        parallel.share(work, parallel.Blocks([slice(0, 1), slice(1, 2)], 2))
    assert list(seen.values()) == ["raise", "raise"]


def test_a_helper_that_never_started_keeps_nothing_alive():
    """While the pool is busy, a kernel ends without a helper, and its arrays are freed."""
    if not libraries():
        pytest.skip("without threadpoolctl there are no helpers")
    leave = threading.Event()

    def kernel():
        array = np.zeros(10)
        parallel.share(lambda mine: [array.sum() for _ in mine], parallel.Blocks([slice(0, 1), slice(1, 2)], 2))
        return weakref.ref(array)

    gc.disable()
    try:
        with parallel.session(threads=2):
            busy = pool(1).submit(leave.wait, 10)
            assert kernel()() is None
    finally:
        gc.enable()
        leave.set()
    busy.result()


def test_sessions_reject_no_threads():
    with pytest.raises(ValueError, match="expected threads >= 1, got 0"), parallel.session(threads=0):
        pass


def test_blocks_react_to_the_cache_and_leave_work_for_every_thread():
    per_block = parallel.images_per_block
    assert per_block(128, 100_000, cache=1_000_000, threads=2) == 10
    assert per_block(128, 100_000, cache=2_000_000, threads=2) == 20
    assert per_block(128, 100_000, cache=50_000, threads=2) == 1
    assert per_block(128, 100_000, cache=50_000, threads=2, least=7) == 7
    assert per_block(12, 100_000, cache=2_000_000, threads=4) == 3
    assert per_block(1, 1, cache=1, threads=8) == 1


@pytest.mark.parametrize("images, need, cache, threads", [
    (128, 543_000, 1 << 21, 2), (7, 10, 1 << 20, 3), (1, 10, 1, 2), (129, 1000, 10_000, 2), (5, 1000, 1, 16)])
def test_blocks_cover_the_batch_once_and_evenly(images, need, cache, threads, monkeypatch):
    monkeypatch.setattr(parallel, "cache_bytes", lambda: cache)
    with parallel.session(threads=threads):
        blocks, threads = parallel.blocks_of(images, need), parallel.threads()
    assert [i for b in blocks for i in range(b.start, b.stop)] == list(range(images))
    sizes = [b.stop - b.start for b in blocks]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * need <= cache or max(sizes) == 1
    assert len(blocks) % threads == 0 or len(blocks) == images


@pytest.mark.parametrize("work, threads, expected", [
    (1, 2, 1), (1999, 2, 1), (2000, 2, 2), (9000, 2, 2), (2999, 4, 2), (1, 1, 1), (9000, 1, 1), (9000, 16, 9)])
def test_a_thread_is_woken_for_a_cache_full_of_work(work, threads, expected):
    assert THREADS_WORTH(work, 1000, threads) == expected


def test_little_work_is_cut_for_the_cache_but_stays_in_one_thread(monkeypatch):
    monkeypatch.setattr(parallel, "threads_worth", THREADS_WORTH)
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 1000)
    monkeypatch.setattr(parallel, "LEAST_SHARE", 1000)
    with parallel.session(threads=2):
        assert (len(little := parallel.blocks_of(19, 100)), little.threads) == (2, 1)
        assert (len(much := parallel.blocks_of(40, 100)), much.threads) == (4, parallel.threads())


def test_a_small_cache_does_not_wake_a_thread_for_little_work(monkeypatch):
    """The network of the demo took longer with two threads than with one on caches of 512 KB."""
    monkeypatch.setattr(parallel, "threads_worth", THREADS_WORTH)
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 1 << 19)
    with parallel.session(threads=2):
        assert parallel.blocks_of(100, 39_000).threads == 1
        assert parallel.blocks_of(128, 39_000).threads == parallel.threads()
        assert len(parallel.blocks_of(100, 39_000)) > 1


def test_cache_size_is_plausible():
    assert parallel.LEAST_CACHE <= parallel.cache_bytes() <= 1 << 30


@pytest.mark.parametrize("cache", [1, 300_000, 1 << 40])
def test_results_do_not_depend_on_the_cache_beyond_rounding(cache, monkeypatch):
    monkeypatch.setattr(parallel, "cache_bytes", lambda: cache)
    check_convolution(blocked, 13, 5, 9, 8, 6, (3, 3), (1, 1), (1, 1))
    check_convolution(blocked, 13, 5, 9, 8, 6, (3, 3), (2, 2), (1, 1))
    check_batch_norm(blocked, normal(0, 13, 5, 9, 8, mean=2), normal(1, 13, 5, 9, 8))


def test_saved_keeps_no_second_activation_alive():
    """Batch norm keeps only a few vectors for backward, in addition to x and y, which the network keeps in any case."""
    x, _, _, gamma, beta = arguments(N=64)
    blocked.batch_norm_relu(x, gamma, beta, EPS)  # warm up, for memory that is allocated only once
    gc.collect()
    tracemalloc.start()
    y, *kept_too = blocked.batch_norm_relu(x, gamma, beta, EPS, x)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_too and kept < 1.1 * y.nbytes, f"{kept} bytes are kept, y has {y.nbytes}"


def test_memory_of_dead_arrays_is_used_again_within_a_session_and_let_go_after(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    x, g, w, gamma, beta = arguments(N=4)
    expected = [v.copy() for v in all_kernels(blocked, x, g, w, gamma, beta)]
    with parallel.session():
        y = blocked.conv2d(x, w, (1, 1), (1, 1))
        address = y.ctypes.data
        del y
        assert blocked.conv2d(x, w, (1, 1), (1, 1)).ctypes.data == address
        for _ in range(3):  # now in reused memory
            for a, b in zip(all_kernels(blocked, x, g, w, gamma, beta), expected, strict=True):
                np.testing.assert_array_equal(a, b)
        assert parallel.memory.free
    assert not parallel.memory.free
    late = blocked.conv2d(x, w, (1, 1), (1, 1))
    del late
    assert not parallel.memory.free


def test_a_session_leaves_blas_alone_between_kernels(two_blas_threads):
    with parallel.session(threads=2):
        assert parallel.threads() == 2
        assert blas_threads() == two_blas_threads


def test_kept_memory_is_bounded_by_what_was_alive_at_once(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    w = np.ones((2, 3, 3, 3), np.float32)
    with parallel.session():
        for n in range(1, 40):  # every batch has a different size
            y = blocked.conv2d(np.ones((n, 3, 8, 8), np.float32), w, (1, 1), (1, 1))
            kept = sum(m.nbytes for arrays in parallel.memory.free.values() for m in arrays)
            assert kept == parallel.memory.kept <= parallel.MOST_KEPT * parallel.memory.most_lent <= 3 * y.nbytes
        del y
    assert parallel.memory.kept == 0 and not parallel.memory.free


def pieces():
    return {memory.ctypes.data for arrays in parallel.memory.free.values() for memory in arrays}


def test_the_memory_of_sizes_that_are_no_longer_requested_is_dropped_first(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    with parallel.session():
        old, new = parallel.empty((60,), np.uint8), [parallel.empty((size,), np.uint8) for size in (50, 40)]
        del old, new  # at most 150 bytes were in use, so 225 may be kept
        for _ in range(2):
            again = [parallel.empty((size,), np.uint8) for size in (50, 50, 40)]
            del again  # 60 + 50 + 50 + 40 bytes
        assert sorted(parallel.memory.free) == [40, 50, 60] and parallel.memory.kept == 200
        more = [parallel.empty((50,), np.uint8) for _ in range(3)]
        del more
        assert sorted(parallel.memory.free) == [40, 50] and parallel.memory.kept == 190


def test_a_size_whose_pieces_are_all_lent_does_not_count_as_kept(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    with parallel.session():
        small = parallel.empty((1,), np.uint8)
        del small
        small = parallel.empty((1,), np.uint8)  # the only piece of 1 byte, which was free
        for size in 100, 101:
            large = parallel.empty((size,), np.uint8)
            del large
        assert list(parallel.memory.free) == [101] and parallel.memory.kept == 101
        del small


@pytest.mark.parametrize("choice", ["native", "blocked"])
def test_a_training_step_takes_no_new_memory_after_the_first(choice, monkeypatch):
    if choice == "native" and not kernels.native.ready():
        pytest.skip(kernels.native.reason())
    monkeypatch.setattr(parallel, "LARGE", 1000)  # as in a network sixteen times wider
    net, rng = models.resnet20(width=4), np.random.default_rng(0)
    x, labels = rng.standard_normal((4, 3, 32, 32)).astype(np.float32), np.array([0, 1, 2, 3])
    optimizer = optim.SGD(net.parameters(), 0.1)
    with kernels.using(choice), kernels.session():
        train.step(net, optimizer, x, labels)
        gc.collect()
        before = pieces()
        for _ in range(3):
            train.step(net, optimizer, x, labels)
            assert pieces() == before


def test_memory_is_not_used_again_while_any_view_of_it_lives(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    x, _, w, _, _ = arguments(N=4)
    with parallel.session():
        y = blocked.conv2d(x, w, (1, 1), (1, 1))
        view = y.transpose(1, 0, 2, 3)[2, 1:, ::2]
        old = view.copy()
        del y
        others = [blocked.conv2d(x + i, w, (1, 1), (1, 1)) for i in range(4)]
        assert not any(np.shares_memory(view, v) for v in others)
        np.testing.assert_array_equal(view, old)
        arrays = [blocked.conv2d(x, w, (1, 1), (1, 1)) for _ in range(5)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_memory_stays_flat_without_the_garbage_collector(no_collector):
    given = arguments(N=64)
    try:
        with parallel.session():
            all_kernels(blocked, *given)
            tracemalloc.start()
            all_kernels(blocked, *given)
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(10):
                all_kernels(blocked, *given)
            assert tracemalloc.get_traced_memory()[0] < before + 100_000
    finally:
        tracemalloc.stop()


def python(code, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_threads_follow_the_environment_and_default_to_the_affinity_mask():
    code = "from minires.kernels import parallel; print(parallel.threads() if parallel._blas() else 'one')"
    assert python(code, MINIRES_THREADS="3").stdout.strip() in ("3", "one")
    bad = python(code, MINIRES_THREADS="none")
    assert "MINIRES_THREADS: expected a whole number >= 1, got 'none'" in bad.stderr or "one" in bad.stdout
    code = ("import os; os.environ.pop('MINIRES_THREADS', None)\n"
            "from minires.kernels import parallel as b\n"
            "cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()\n"
            "assert b.threads() == (cores if b._blas() else 1)")
    assert python(code).returncode == 0


def test_importing_starts_and_loads_nothing_and_forks_work():
    code = """
import sys, threading
from minires import kernels, models, optim, train
from minires.kernels import blocked, parallel
assert "threadpoolctl" not in sys.modules and "concurrent.futures" not in sys.modules, "loaded at import"
assert threading.active_count() == 1
import os, numpy as np
x, w = np.ones((8, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
with parallel.session(threads=2):
    y = blocked.conv2d(x, w, (1, 1), (1, 1))
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(20)  # ends a child that waits for threads of its parent
        both = threading.Barrier(2, timeout=10)  # breaks unless the child starts a helper
        with parallel.session(threads=2):
            if parallel.threads() == 2:
                parallel.share(lambda mine: [both.wait() for _ in mine], parallel.Blocks([slice(0, 1), slice(1, 2)], 2))
            os._exit(0 if (blocked.conv2d(x, w, (1, 1), (1, 1)) == y).all() else 3)
    assert os.waitpid(child, 0)[1] == 0
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_without_threadpoolctl_one_thread_does_the_work():
    code = """
import sys
sys.modules["threadpoolctl"] = None  # importing it raises ModuleNotFoundError
import threading, numpy as np
from minires.kernels import blocked, parallel, reference
assert parallel.threads() == 1
x, w = np.ones((8, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
with parallel.session(threads=4):
    y = blocked.conv2d(x, w, (1, 1), (1, 1))
assert np.allclose(y, reference.conv2d(x, w, (1, 1), (1, 1)))
assert threading.active_count() == 1
"""
    result = python(code, MINIRES_THREADS="2")
    assert result.returncode == 0, result.stderr
