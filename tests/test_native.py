"""Test how the kernels in C are compiled, cached and checked, their threads, and how they refuse wrong arguments.

test_fast_kernels.py tests that their results are right.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import (
    CONVOLUTIONS,
    all_kernels,
    arguments,
    check_batch_norm,
    check_convolution,
    every_kernel_agrees,
    normal,
)
from short import every

from minires import kernels
from minires.kernels import blocked, compiler, native, parallel, reference

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(compiler.SOURCES.glob("*.c"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the kernels in C need POSIX threads")
needs_library = pytest.mark.skipif(not native.ready(), reason=native.reason() or "ready")


@pytest.fixture(autouse=True)
def _share_small_work_too(monkeypatch):
    monkeypatch.setattr(native, "WORTH_SHARING", 0)
    monkeypatch.setattr(native, "SMALL", 1)


def helpers():
    return native._loaded.c.helpers()  # private: the library's threads show in no result


# ----------------------------------------------------------------------------------- threads and bits


@needs_library
@pytest.mark.parametrize("runs", every(2, [12, 100]))
def test_the_bits_are_the_same_for_any_number_of_threads_and_again_and_again(runs):
    given = arguments()
    with parallel.session(threads=1):
        first = [v.tobytes() for v in all_kernels(native, *given)]
    for run in range(runs):
        with parallel.session(threads=(2, 3, 1, 7)[run % 4]):
            for i, (v, old) in enumerate(zip(all_kernels(native, *given), first, strict=True)):
                assert v.tobytes() == old, f"output {i} changed in run {run + 2}"


@needs_library
def test_sessions_say_how_many_threads_there_are():
    code = """
import numpy as np
from minires import kernels
from minires.kernels import native
native.WORTH_SHARING = 0
x, w = np.ones((8, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
run = lambda: kernels.of(x).conv2d(x, w, (1, 1), (1, 1))
run()
print(native._loaded.c.helpers(), end=" ")
for threads in 1, 3, 2:
    with kernels.session(threads=threads):
        run()
    print(native._loaded.c.helpers(), end=" ")
"""
    assert python(code, MINIRES_THREADS="1", MINIRES_KERNELS="native").stdout.split() == ["0", "0", "2", "2"]


@needs_library
def test_little_work_stays_in_one_thread():
    code = """
import numpy as np
from minires.kernels import native
x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
native.ready()
before = native._loaded.c.helpers()
native.conv2d(x, w, (1, 1), (1, 1))
assert native._loaded.c.helpers() == before
native.conv2d(np.ones((64, 16, 32, 32), np.float32), np.ones((16, 16, 3, 3), np.float32), (1, 1), (1, 1))
assert native._loaded.c.helpers() == before + 1
"""
    assert python(code, MINIRES_THREADS="2").returncode == 0


@needs_library
def test_kernels_may_be_called_from_several_threads_at_once():
    given = arguments()
    with parallel.session(threads=3):
        expected = [v.tobytes() for v in all_kernels(native, *given)]
    results = [None] * 4

    def call(i):
        with parallel.session(threads=3):
            for _ in range(5):
                results[i] = [v.tobytes() for v in all_kernels(native, *given)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert all(r == expected for r in results)


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_starts_helpers_of_its_own():
    code = """
import os, signal, numpy as np
from minires.kernels import native, parallel
native.WORTH_SHARING = 0
x, w = np.ones((8, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
with parallel.session(threads=3):
    y = native.conv2d(x, w, (1, 1), (1, 1))
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that waits for threads it does not have
            none = native._loaded.c.helpers() == 0
            same = all((native.conv2d(x, w, (1, 1), (1, 1)) == y).all() for _ in range(20))
            os._exit(0 if none and same and native._loaded.c.helpers() == 2 else 3)
        assert os.waitpid(child, 0)[1] == 0
    assert (native.conv2d(x, w, (1, 1), (1, 1)) == y).all()
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------ wrong arguments

x4, w4 = normal(0, 2, 3, 6, 6), normal(1, 4, 3, 3, 3)
y4 = normal(2, 2, 4, 6, 6)
ones3 = np.ones(3, np.float32)


def norm_saved():
    return native.batch_norm(x4, ones3, ones3, 1e-5)[3]


WRONG = {
    "x is float64": (lambda: native.conv2d(x4.astype(np.float64), w4, (1, 1), (1, 1)), TypeError),
    "w is float64": (lambda: native.conv2d(x4, w4.astype(np.float64), (1, 1), (1, 1)), TypeError),
    "x has the other byte order": (lambda: native.conv2d(x4.astype(">f4"), w4, (1, 1), (1, 1)), TypeError),
    "channels differ": (lambda: native.conv2d(x4[:, :2], w4, (1, 1), (1, 1)), ValueError),
    "g of another height": (lambda: native.conv2d_backward(y4[:, :, :5], x4, w4, (1, 1), (1, 1)), ValueError),
    "g of other channels": (lambda: native.conv2d_backward(y4[:, :3], x4, w4, (1, 1), (1, 1)), ValueError),
    "g of fewer images": (lambda: native.conv2d_backward(y4[:1], x4, w4, (1, 1), (1, 1)), ValueError),
    "g is float16": (lambda: native.conv2d_backward(y4.astype(np.float16), x4, w4, (1, 1), (1, 1)), TypeError),
    "no image": (lambda: native.conv2d(x4[:0], w4, (1, 1), (1, 1)), ValueError),
    "no image to go back to": (lambda: native.conv2d_backward(y4[:0], x4[:0], w4, (1, 1), (1, 1)), ValueError),
    "no output channel": (lambda: native.conv2d(x4, w4[:0], (1, 1), (1, 1)), ValueError),
    "a kernel larger than the image": (lambda: native.conv2d(x4[:, :, :2], w4, (1, 1), (0, 0)), ValueError),
    "a bias too short": (lambda: native.conv2d_bias_relu(x4, w4, (1, 1), (1, 1), ones3), ValueError),
    "a skip of x's shape": (lambda: native.conv2d_bias_relu(x4, w4, (1, 1), (1, 1), None, x4), ValueError),
    "gamma too short": (lambda: native.batch_norm(x4, ones3[:2], ones3, 1e-5), ValueError),
    "beta is float64": (lambda: native.batch_norm(x4, ones3, np.ones(3), 1e-5), TypeError),
    "a skip too small": (lambda: native.batch_norm_relu(x4, ones3, ones3, 1e-5, x4[:, :, :5]), ValueError),
    "statistics too long": (
        lambda: native.batch_norm_eval(x4, ones3, ones3, np.ones(4, np.float32), ones3, 1e-5), ValueError),
    "nothing to normalise": (lambda: native.batch_norm(x4[:0], ones3, ones3, 1e-5), ValueError),
    "BN's g too small": (lambda: native.batch_norm_backward(x4[:, :, 1:], ones3, norm_saved()), ValueError),
    "BN's g is float64": (
        lambda: native.batch_norm_backward(x4.astype(np.float64), ones3, norm_saved()), TypeError),
    "running statistics of other lengths": (
        lambda: native.running_statistics(ones3, ones3, ones3[:2], ones3, 0.1, 10), ValueError),
    "pooling float64": (lambda: native.max_pool2d(x4.astype(np.float64), (2, 2), (2, 2), (0, 0)), TypeError),
    "a window larger than the image": (lambda: native.avg_pool2d(x4, (7, 7), (1, 1), (0, 0)), ValueError),
    "g of another pooling": (
        lambda: native.avg_pool2d_backward(x4, x4.shape, (2, 2), (2, 2), (0, 0)), ValueError),
    "winners of another pooling": (
        lambda: native.max_pool2d_backward(x4[:, :, :3, :3], np.zeros((2, 2, 2, 3), np.uint8), x4.shape, (2, 2),
                                           (2, 2), (0, 0)), ValueError),
    "fewer channels than there are": (lambda: native.shortcut(x4, 2, 2, "end"), ValueError),
    "g of another shortcut": (lambda: native.shortcut_backward(y4, x4.shape, 2, "end"), ValueError),
}


@needs_library
@pytest.mark.parametrize("call, error", WRONG.values(), ids=WRONG)
def test_wrong_arguments_end_before_the_c_code(call, error):
    with pytest.raises(error):
        call()


@needs_library
def test_arrays_that_are_not_aligned_are_copied():
    raw = np.zeros(x4.nbytes + 1, np.uint8)
    odd = np.frombuffer(raw.data, np.float32, x4.size, offset=1).reshape(x4.shape)
    odd[...] = x4
    assert not odd.flags.aligned
    assert np.array_equal(native.conv2d(odd, w4, (1, 1), (1, 1)), native.conv2d(x4, w4, (1, 1), (1, 1)))
    v = np.frombuffer(np.zeros(13, np.uint8).data, np.float32, 3, offset=1)
    assert np.array_equal(native.batch_norm(odd, v + 1, v, 1e-5)[0], native.batch_norm(x4, ones3, ones3 * 0, 1e-5)[0])
    same = native.add(odd, odd), native.sgd(odd.reshape(-1), odd.reshape(-1).copy(), odd.reshape(-1), 0.1, 0.9, 0.0)
    assert np.array_equal(same[0], x4 + x4) and np.isfinite(same[1][0]).all()


@needs_library
def test_what_32_bit_offsets_cannot_reach_is_left_to_blocked(monkeypatch):
    monkeypatch.setattr(native, "LARGEST", 100)
    forget_plans()
    try:
        skip = normal(3, *y4.shape)
        got = native.conv2d_bias_relu(x4, w4, (1, 1), (1, 1), np.ones(4, np.float32), skip, True)
        expected = np.maximum(reference.conv2d(x4, w4, (1, 1), (1, 1)) + 1 + skip, 0)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        check_convolution(native, *CONVOLUTIONS[5])
    finally:
        forget_plans()


def forget_plans():
    for plan in native._forward_plan, native._backward_plan:  # private: what is made once for each shape
        plan.cache_clear()


@needs_library
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize("O", [1, 7, 16, 33])
def test_bias_skip_and_relu_in_one_pass(O, with_skip, with_bias, relu):
    x, w, bias = normal(0, 5, 6, 7, 8), normal(1, O, 6, 3, 3), normal(2, O) if with_bias else None
    skip = normal(3, 5, O, 7, 8) if with_skip else None
    x[0, 0, 0, 0] = np.nan
    got = native.conv2d_bias_relu(x, w, (1, 1), (1, 1), bias, skip, relu)
    expected = reference.conv2d(x, w, (1, 1), (1, 1))
    expected = expected + (bias.reshape(1, -1, 1, 1) if with_bias else 0) + (skip if with_skip else 0)
    np.testing.assert_allclose(got, reference.relu(expected)[0] if relu else expected, atol=1e-4)
    assert np.isnan(got).any()


@needs_library
def test_relu_keeps_nan_and_its_mask_is_open_at_zero():
    x = normal(0, 2, 3, 4, 5)
    x[0, 0, 0, :3] = np.nan, 0, -0.0
    x[1, 1, 1, :2] = np.inf, -np.inf
    (y, on), (expected, mask) = native.relu(x), reference.relu(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(on, mask)


@needs_library
def test_signatures_are_those_of_the_c_functions():
    letters = {"double": "d", "float": "f", "i64": "i"}
    found, returning = {}, set()
    for path in SOURCES:
        for kind, name, parameters in re.findall(r"EXPORT (\w+) (\w+)\(([^)]*)\)", path.read_text(encoding="utf-8")):
            words = [] if parameters == "void" else parameters.split(",")
            found[name] = "".join("p" if "*" in p else letters[p.split()[0]] for p in words)
            returning |= {name} if kind == "i64" else set()
    assert found == native.SIGNATURES and returning == native.RETURNING


# ---------------------------------------------------------------------------- compiled once, and kept


def python(code, *, stderr=None, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True,
                          timeout=300)


SAYS = """
import numpy as np
from minires import kernels
from minires.kernels import compiler, native
used = kernels.of(np.zeros(1, np.float32)).__name__.rpartition(".")[2]
print(used, native.reason(), sep="|")
"""


@pytest.fixture
def fake_compiler(tmp_path):
    """fake_compiler(text) is a command that a shell script of this text answers."""
    def make(text):
        path = tmp_path / "fakecc"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)
    return make


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


real = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(real is None, reason="no C compiler")
# A compiler that is quick: it leaves out what makes the result fast.
QUICK = f'case "$*" in *-O3*) exec {real} "$@" -O0;; *) exec {real} "$@";; esac'


@needs_compiler
def test_the_first_use_compiles_and_says_so_in_one_line_and_the_next_ones_say_nothing(cache, fake_compiler):
    cc = fake_compiler(QUICK)
    first = python(SAYS, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    assert first.stdout == "native|\n", first.stderr
    assert first.stderr == "minires: compiling its kernels with fakecc, once for this machine ...\n"
    (library,) = cache.iterdir()
    assert library.suffix == ".so" and stat.S_IMODE(cache.stat().st_mode) == 0o700
    before = library.stat()
    again = python(SAYS, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    assert (again.stdout, again.stderr) == ("native|\n", "")
    assert library.stat().st_mtime_ns == before.st_mtime_ns and list(cache.iterdir()) == [library]


@needs_compiler
@pytest.mark.parametrize("damage", every(3, ["one byte", "cut", "empty"]))
def test_a_damaged_library_is_not_loaded_but_built_again(damage, cache, fake_compiler):
    cc = fake_compiler(QUICK)
    python(SAYS, MINIRES_CACHE=str(cache), CC=cc)
    (library,) = cache.iterdir()
    good = library.read_bytes()
    half = len(good) // 2
    library.write_bytes({"cut": good[:half], "empty": b"",
                         "one byte": good[:half] + bytes([good[half] ^ 1]) + good[half + 1:]}[damage])
    done = python(SAYS, MINIRES_CACHE=str(cache), CC=cc)
    assert done.stdout == "native|\n" and done.stderr.count("\n") == 1, done.stderr
    (library,) = cache.iterdir()
    assert compiler.digest(library) == library.stem.rpartition("-")[2]


@needs_compiler
def test_another_processor_source_or_compiler_has_a_library_of_its_own(monkeypatch, tmp_path):
    command = compiler.compiler()
    names = {compiler.fingerprint(command), compiler.fingerprint([*command, "-g"])}
    monkeypatch.setattr(compiler, "processor", lambda: "another one")
    names.add(compiler.fingerprint(command))
    copy = shutil.copytree(compiler.SOURCES, tmp_path / "c")
    with open(copy / "native.h", "a") as file:
        file.write("\n")
    monkeypatch.setattr(compiler, "SOURCES", copy)
    names.add(compiler.fingerprint(command))
    shutil.copy(command[0], tmp_path / "cc")
    names.add(compiler.fingerprint([str(tmp_path / "cc")]))
    assert len(names) == 5 and compiler.fingerprint(command) in names


@pytest.mark.slow
@needs_compiler
def test_two_processes_at_once_end_with_one_library(cache, fake_compiler):
    cc = fake_compiler(QUICK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MINIRES_CACHE": str(cache), "CC": cc}
    both = [subprocess.Popen([sys.executable, "-c", SAYS], env=environment, stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [p.communicate(timeout=300)[0] for p in both] == ["native|\n"] * 2
    assert [path.suffix for path in cache.iterdir()] == [".so"]


def test_without_a_compiler_blocked_serves_and_the_reason_is_told(cache, tmp_path):
    done = python(SAYS, MINIRES_CACHE=str(cache), PATH=str(tmp_path), CC=None, MINIRES_KERNELS=None)
    assert done.stdout == "blocked|no C compiler is found (cc, gcc or clang; CC names another)\n"
    assert done.stderr == "" and not cache.exists()
    done = python(SAYS, MINIRES_CACHE=str(cache), CC="no-such-compiler -x", MINIRES_KERNELS=None)
    assert done.stdout == "blocked|CC names 'no-such-compiler', which is not found\n"
    done = python(SAYS, MINIRES_CACHE=str(cache), CC="gcc '", MINIRES_KERNELS=None)
    assert done.stdout == "blocked|CC=\"gcc '\" is not a command: No closing quotation\n"
    done = python(SAYS, PATH=str(tmp_path), CC=None, MINIRES_KERNELS="native")
    assert done.returncode == 1
    assert 'RuntimeError: kernels "native" were asked for: no C compiler is found' in done.stderr


def test_a_compiler_that_fails_is_asked_once_and_its_words_are_kept(cache, fake_compiler, tmp_path):
    cc = fake_compiler(f"echo again >> {tmp_path}/asked; echo 'x.c:1: error: out of ideas' >&2; exit 1")
    first = python(SAYS, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    assert first.stdout == f"blocked|{cc} failed: x.c:1: error: out of ideas\n" and first.stderr.count("\n") == 1
    asked = (tmp_path / "asked").read_text()
    again = python(SAYS, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    assert again.stdout.startswith(f"blocked|{cc} failed: x.c:1: error: out of ideas (as noted in {cache}")
    assert again.stderr == "" and (tmp_path / "asked").read_text() == asked
    (note,) = cache.iterdir()
    note.unlink()
    assert python(SAYS, MINIRES_CACHE=str(cache), CC=cc).stderr.count("\n") == 1


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(cache, fake_compiler, tmp_path):
    cc = fake_compiler(f"sleep 1000 & echo $! > {tmp_path}/child; wait")
    code = SAYS.replace("used =", "compiler.SECONDS = 1\nused =")
    done = python(code, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    assert done.stdout == f"blocked|{cc} did not end within 1 seconds\n"
    child = int((tmp_path / "child").read_text())
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] if Path("/proc").exists() else "Z"
        if state != "Z":  # ended, if perhaps not yet collected
            os.kill(child, signal.SIGKILL)
            pytest.fail("the compiler's child still runs")


@pytest.mark.parametrize("text, why", [
    ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "made a library that does not work: "),
    ("true", "made a library that does not work: "),
], ids=["no library", "nothing"])
def test_a_compiler_that_makes_no_library(text, why, cache, fake_compiler):
    done = python(SAYS, MINIRES_CACHE=str(cache), CC=fake_compiler(text), MINIRES_KERNELS=None)
    assert done.stdout.startswith("blocked|") and why in done.stdout, done.stdout + done.stderr


@needs_compiler
def test_a_library_that_computes_something_else_is_not_used(cache, fake_compiler, tmp_path):
    (tmp_path / "wrong.h").write_text("#include <math.h>\n#define sqrt(v) (2 * (v))\n")
    cc = fake_compiler(f'exec {real} "$@" -O0 -include {tmp_path}/wrong.h')
    done = python(SAYS, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    wrong = f"blocked|{cc} made a library that does not work: batch_norm_relu differs from its definition"
    assert done.stdout.startswith(wrong), done.stdout + done.stderr
    again = python(SAYS, MINIRES_CACHE=str(cache), CC=cc, MINIRES_KERNELS=None)
    assert again.stdout.startswith(wrong) and again.stderr == ""


@pytest.mark.slow
@needs_compiler
def test_a_cache_that_cannot_be_written_leaves_a_temporary_folder(tmp_path, fake_compiler):
    (tmp_path / "file").write_text("no folder")
    environment = {"MINIRES_CACHE": str(tmp_path / "file" / "cache"), "TMPDIR": str(tmp_path)}
    done = python(SAYS, **environment, CC=fake_compiler(QUICK), MINIRES_KERNELS=None)
    assert done.stdout == "native|\n" and done.stderr.count("\n") == 1, done.stderr
    (library,) = (tmp_path / f"minires-{os.getuid()}").iterdir()
    assert library.suffix == ".so"
    assert python(SAYS, **environment, CC=str(tmp_path / "fakecc")).stderr == ""


@needs_compiler
def test_a_folder_where_others_may_write_is_not_used(tmp_path, fake_compiler):
    cache, temporary = tmp_path / "cache", tmp_path / f"minires-{os.getuid()}"
    cache.mkdir()
    cache.chmod(0o777)
    temporary.symlink_to(cache)
    done = python(SAYS, MINIRES_CACHE=str(cache), TMPDIR=str(tmp_path), CC=fake_compiler(QUICK), MINIRES_KERNELS=None)
    assert done.stdout.startswith(f"blocked|{temporary} cannot hold the compiled library: the path names"), done.stdout
    assert done.stderr == "" and not list(cache.iterdir())


def test_the_place_of_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIRES_CACHE", "here")
    assert next(compiler.folders()) == Path("here").absolute()
    monkeypatch.delenv("MINIRES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert next(compiler.folders()) == tmp_path / "minires"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert next(compiler.folders()) == tmp_path / ".cache" / "minires"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert next(compiler.folders()) == tmp_path / "Library" / "Caches" / "minires"


@pytest.mark.parametrize("platform", ["win32", "emscripten"])
def test_platforms_without_posix_threads_have_no_such_kernels(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(compiler.Unavailable, match=f"not made for {platform}"):
        compiler.library(lambda library: None)


@needs_library
def test_names_choose_and_nothing_runs_at_import():
    one = np.zeros(1, np.float32)
    for name, module in (("native", native), ("blocked", blocked), ("auto", native), ("reference", reference)):
        with kernels.using(name):
            assert kernels.of(one) is module and kernels.of(one.astype(np.float64)) is reference
            assert kernels.choice() == name and kernels.choice(one) == ("auto (native)" if name == "auto" else name)
    code = "import sys, minires\nassert not {'subprocess', 'hashlib'} & {*sys.modules} - old"
    before = "import sys, numpy\nold = {*sys.modules}\n"
    done = python(before + code, MINIRES_CACHE="/nonexistent/nowhere", CC="/nonexistent/cc")
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------ other builds


def build(target, *flags, sources=compiler.SOURCES, command=real):
    words = [command, *compiler.FLAGS, *flags, "-o", target, *sorted(Path(sources).glob("*.c")), "-lm"]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("flags", [["-march=native"], [], ["-mavx"], ["-mavx512f"], ["-mno-sse3"]], ids=str)
def test_the_sources_compile_without_a_warning(flags, tmp_path):
    done = build(tmp_path / "k.so", "-O1", "-Wall", "-Wextra", "-Werror", "-Wvla", "-Wshadow", *flags)
    if "unrecognized" in done.stderr or "not supported" in done.stderr:
        pytest.skip(f"the compiler does not know {flags}")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # a plain run compares a library compiled with -O1 when it plants bugs
@needs_compiler
@pytest.mark.parametrize("flags", [[], ["-mavx2", "-mfma"]], ids=["smallest vectors", "AVX2"])
def test_other_widths_of_vectors_compute_the_same(flags, tmp_path):
    done = build(tmp_path / "k.so", "-O1", *flags)
    if done.returncode:
        pytest.skip(f"the compiler does not know {flags}")
    if flags and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    forget_plans()
    try:
        with native.using_library(ctypes.CDLL(str(tmp_path / "k.so"))), parallel.session(threads=2):
            for case in CONVOLUTIONS:
                if case[1] < 100 and case[4] < 100:
                    check_convolution(native, *case)
            check_batch_norm(native, normal(0, 6, 5, 7, 3), normal(1, 6, 5, 7, 3))
            every_kernel_agrees(native)
    finally:
        forget_plans()


CHECKED = """
import ctypes, sys
sys.path.insert(0, sys.argv[2])
from kernel_cases import *
from minires.kernels import native, parallel
native.WORTH_SHARING, native.SMALL = 0, 1
with native.using_library(ctypes.CDLL(sys.argv[1])):
    for threads in 1, 3:
        with parallel.session(threads=threads):
            for case in CONVOLUTIONS:
                if case[1] < 100 and case[4] < 100:
                    check_convolution(native, *case)
            for shape, mean, std in NORMS:
                check_batch_norm(native, normal(0, *shape, mean=mean, std=std), normal(1, *shape))
            every_kernel_agrees(native)
            all_kernels(native, *arguments(N=3))
            for O in 1, 16, 33:
                native.conv2d_bias_relu(normal(0, 5, 6, 7, 8), normal(1, O, 6, 3, 3), (1, 1), (1, 1), normal(2, O),
                                        normal(3, 5, O, 7, 8), True)
print("done")
"""


@pytest.mark.slow
@needs_compiler
def test_address_and_undefined_behaviour_sanitizers_find_nothing(tmp_path):
    flags = ["-O1", "-g", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    done = build(tmp_path / "k.so", *flags)
    if done.returncode:
        pytest.skip("the compiler has no AddressSanitizer")
    runtime = subprocess.run([real, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip("the compiler's AddressSanitizer is no library that can be loaded first")
    (tmp_path / "checked.py").write_text(CHECKED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": runtime, "PYTHONMALLOC": "malloc",
                   "ASAN_OPTIONS": "detect_leaks=0"}  # Python's own
    done = subprocess.run([sys.executable, tmp_path / "checked.py", tmp_path / "k.so", ROOT / "tests"], env=environment,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip().endswith("done"), (done.stdout + done.stderr)[-3000:]


HARNESS = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "native.h"
void begin_anew(void);
enum { BLOCKS = 37 };
typedef struct { i64 number, threads; i64 seen[BLOCKS]; float scratch[8][64]; } Job;
static void work(const void *args, i64 k, i64 slot)
{
    Job *j = (Job *)args;
    for (i64 i = 0; i < 64; i++) j->scratch[slot][i] = (float)k;
    j->seen[k] += j->number + (i64)j->scratch[slot][63] - k;
}
static void *call(void *number)
{
    for (i64 run = 0; run < 300; run++) {
        Job j = { .number = (i64)number + run, .threads = 1 + run % 5 };
        share(work, &j, BLOCKS, j.threads);
        for (i64 k = 0; k < BLOCKS; k++)
            if (j.seen[k] != j.number) { printf("block %ld of run %ld\\n", (long)k, (long)run); exit(1); }
    }
    return 0;
}
int main(void)
{
    pthread_t others[2];
    call((void *)1);
    for (i64 i = 0; i < 2; i++) pthread_create(&others[i], 0, call, (void *)(i * 1000));
    call((void *)5);
    for (int i = 0; i < 2; i++) pthread_join(others[i], 0);
    puts("done");
    return 0;
}
"""


@pytest.mark.slow
@needs_compiler
def test_thread_sanitizer_finds_nothing_in_the_pool(tmp_path):
    (tmp_path / "harness.c").write_text(HARNESS)
    words = [real, "-std=gnu11", "-O1", "-g", "-pthread", "-fsanitize=thread", f"-I{compiler.SOURCES}", "-o",
             tmp_path / "harness", tmp_path / "harness.c", compiler.SOURCES / "threads.c"]
    if subprocess.run([str(word) for word in words], capture_output=True).returncode:
        pytest.skip("the compiler has no ThreadSanitizer")
    done = subprocess.run([tmp_path / "harness"], capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    assert done.returncode == 0 and done.stdout == "done\n" and not done.stderr, (done.stdout + done.stderr)[-3000:]


# -------------------------------------------------------------------------------------------- planted bugs

BUGS = {  # name: (file, old, new)
    "a tile reads the next pixel's weights": ("convolution.c", "w += V * LANES)\n", "w += LANES)\n"),
    "a run's last taps are left out": ("convolution.c", "for (; t < end; t++, w", "for (; t + 1 < end; t++, w"),
    "dL/dw: only the first pixel of a band": ("convolution.c", "x + pixel[n];", "x + pixel[0];"),
    "dL/dw: the sum of the blocks before is lost": (
        "convolution.c", "sum[p][v] = load(gw + (p * V + v) * LANES);", "sum[p][v] = (vec){ 0 };"),
    "dL/dw: blocks lost": ("convolution.c", "j->sums[i] += j->sums[b", "j->sums[i] = j->sums[b"),
    "dL/dw: outputs beyond a vector come from the wrong place": (
        "convolution.c", "memcpy(to, g + n * O + o,", "memcpy(to, g + n * O,"),
    "dL/dw: outputs beyond a vector meet the first one's g": (
        "convolution.c", "band += some * LANES * vectors(O - o), o +=", "o +="),
    "a frame's pixels are closer than its pitch": (
        "convolution.c", "+ cut_columns + k) * p->pitch", "+ cut_columns) * p->pitch + k * C"),
    "a frame's row is one too low": ("convolution.c", "(p->top + cut_rows + r) *", "(p->top + cut_rows + r + 1) *"),
    "a frame's border is what was there before": (
        "convolution.c", "memset(frames, 0, sizeof", "memset(frames, 63, sizeof"),
    "only the first image of a group": ("convolution.c", "x + n * image_of(p) + ((cut", "x + 0 * image_of(p) + ((cut"),
    "packed weights: the end is not zero, the last output twice": (
        "convolution.c", "packed[l] = l < left ? w[l * p", "packed[l] = l <= left ? w[(l ? l - 1 : 0) * p"),
    "dL/dx: every part with the first one's weights": ("convolution.c", "packed += packed_of(p++))", "p++)"),
    "images beyond the first group are left out": ("convolution.c", "n < end; n += p->group)", "n < end; n = end)"),
    "BN: the variance is not of the deviations": ("normalisation.c", "/ m - rest * rest;", "/ m;"),
    "BN: blocks lost": ("normalisation.c", "for (i64 k = 0; k < q->blocks; k++)", "for (i64 k = 0; k < 1; k++)"),
    "BN: digits lost at a large mean": ("normalisation.c", "q->shift[j] = sum / (double)few;", "q->shift[j] = 0;"),
    "BN: dL/dgamma by deviations from a wrong mean": (
        "normalisation.c", "rest = mean[j] - q.shift[j], sum", "rest = mean[j], sum"),
    "BN, eval mode: statistics get a gradient": ("normalisation.c", "b = constant ? 0 :", "b = constant > 1 ? 0 :"),
    "BN + ReLU: gradient not masked": ("normalisation.c", "g * (y > 0 ? 1.0f : 0.0f)", "g * (y > 0 ? 1.0f : 1.0f)"),
    "BN + ReLU: the skip is added after the ReLU": (
        "normalisation.c", "* a[j] + b[j] + skip[j])", "* a[j] + b[j]) + skip[j]"),
    "BN + ReLU: the skip's gradient is not masked": (
        "normalisation.c", "m = masked[j] = behind_relu(g[j], y[j])", "m = masked[j] = g[j]"),
    "BN: the biased variance runs": ("normalisation.c", "(var[j] * unbiased)", "var[j]"),
    "max pool: NaN does not win": ("pooling.c", "| (x[j] != x[j])", ""),
    "max pool: overlapping windows overwrite": ("pooling.c", "gx[j] += g[j] * (winner", "gx[j] = g[j] * (winner"),
    "mean pool: a window at the border is a mean of fewer": (
        "pooling.c", "(w->kernel_rows * w->kernel_columns)", "(w->kernel_rows * (w->kernel_columns - (w->left > 0)))"),
    "mean pool: the rows' stride used for columns": ("pooling.c", "c * (w)->stride_columns", "c * (w)->stride_rows"),
    "option A: new channels at the wrong end": ("pooling.c", "memcpy(to + s->before, from", "memcpy(to, from"),
    "option A: its gradient from the wrong channels": ("pooling.c", "* s->wide + s->before, ", "* s->wide, "),
    "a sum of two gradients is the first one": ("pointwise.c", "y[j] = a[j] + b[j];", "y[j] = a[j];"),
    "ReLU hides NaN": ("native.h", "return v < 0 ? 0 : v;", "return v > 0 ? v : 0;"),
    "SGD: the velocity holds the learning rate": (
        "pointwise.c", "g[j] += momentum * v[j];", "g[j] += lr * momentum * v[j];"),
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Every source compiled, quickly, once."""
    folder = tmp_path_factory.mktemp("objects")
    for path in SOURCES:
        compiled(path, folder / f"{path.stem}.o", compiler.SOURCES)
    return folder


def compiled(path, target, include):
    flags = [flag for flag in compiler.FLAGS if flag not in ("-shared", "-O3")]
    subprocess.run([real, *flags, "-O1", f"-I{include}", "-c", "-o", str(target), str(path)], check=True, timeout=300)


def library_with(objects, folder, file=None, old="", new=""):
    """Return the library, built from the sources with one text replaced by another."""
    sources = shutil.copytree(compiler.SOURCES, folder / "c")
    if file:
        text = (sources / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} is found {text.count(old)} times in {file}"
        (sources / file).write_text(text.replace(old, new), encoding="utf-8")
    parts = []
    for path in sorted(sources.glob("*.c")):
        parts.append(objects / f"{path.stem}.o")
        if file in (path.name, "native.h"):
            parts[-1] = folder / f"{path.stem}.o"
            compiled(path, parts[-1], sources)
    subprocess.run([real, "-shared", "-pthread", "-o", folder / "k.so", *parts, "-lm"], check=True, timeout=300)
    return ctypes.CDLL(str(folder / "k.so"))


def fast_kernels():
    with np.errstate(all="ignore"), parallel.session(threads=2):
        every_kernel_agrees(native)
        test_relu_keeps_nan_and_its_mask_is_open_at_zero()
        wide = [case for case in CONVOLUTIONS if case[1] == 128]  # frames with a pitch of their own
        for case in *CONVOLUTIONS[:4], *CONVOLUTIONS[-2:], *wide:
            check_convolution(native, *case)
        check_batch_norm(native, normal(0, 64, 8, 20, 20, mean=30), normal(1, 64, 8, 20, 20))


@needs_compiler
@pytest.mark.parametrize("bug", every(10, [None, *BUGS], ["no bug", *BUGS]))
def test_a_planted_bug_is_caught(bug, objects, tmp_path):
    library = library_with(objects, tmp_path, *BUGS.get(bug, ()))
    forget_plans()
    try:
        with native.using_library(library):
            if bug is None:
                fast_kernels()
            else:
                with pytest.raises(AssertionError):
                    fast_kernels()
    finally:
        forget_plans()


def test_a_library_that_is_being_checked_serves_its_thread_only(monkeypatch):
    """Another thread must not compute with a library that the check may refuse."""
    if not native.ready():
        pytest.skip(native.reason())
    fresh, seen = native._Loaded(), []  # private: this process has loaded its library already
    monkeypatch.setattr(native, "_loaded", fresh)  # private: as above
    inside, looked = threading.Event(), threading.Event()

    def differences():
        inside.set()
        assert looked.wait(60)
        return "conv2d differs"

    def other():
        assert inside.wait(60)
        seen.append((fresh.library, native._tried.get()))  # private: what this thread would compute with
        looked.set()
        seen.append(native.ready())

    def refuse(check):
        raise compiler.Unavailable(check(library))

    library = compiler.library(lambda library: None)
    monkeypatch.setattr(native, "_differences", differences)  # private: the check, which fails here
    monkeypatch.setattr(compiler, "library", refuse)
    thread = threading.Thread(target=other)
    thread.start()
    assert not native.ready() and native.reason() == "conv2d differs"
    thread.join()
    assert seen == [(None, None), False]
