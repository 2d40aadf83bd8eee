"""The judge survives every kind of submission, each ends in its sentence within its limits, and none earns a mark."""
import dataclasses
import io
import json
import os
import re
import signal
import sys
import time

import numpy as np
import pytest
from short import every

from minires.course import judge, solution, worker
from minires.course.task import Case, find

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces all limits")
TASK = dataclasses.replace(find("a4.4"), cpu_seconds=1)
WALL = 10.0
RIGHT = """
def running(mean, var, batch_mean, batch_var, momentum, count):
    if count < 2:
        raise ValueError("too few")
    return mean + momentum * (batch_mean - mean), var + momentum * (batch_var * (count / (count - 1)) - var)
"""


def inside(*lines, end=""):
    """Return a submission that does something before it answers wrongly."""
    body = "\n".join(f"    {line}" for text in lines for line in text.split("\n"))
    return f"def running(mean, var, batch_mean, batch_var, momentum, count):\n{body}\n    return {end or 'mean, var'}\n"


# {what the submission does: (its cell, what its line must say)}
PLAIN = {  # these take no longer than an honest one
    "wrong": (inside(), r"mean \(3,\): .*expected"),
    "the process ends": (inside("import os", "os._exit(0)"), "your code ended the process, with exit status 0"),
    "sys.exit": (inside("import sys", "sys.exit(0)"), "SystemExit: 0"),
    "7 TiB": (inside("import numpy as np", "a = np.ones(10**12)"), "MemoryError: Unable to allocate 7.28 TiB"),
    "a child process": (inside("import subprocess", "subprocess.run(['true'])"),
                        "ImportError: this task may not import _posixsubprocess"),
    "a folder": (inside("import os", "os.mkdir('d')"), r"PermissionError: a task may not use os\.mkdir"),
    "files without end": (inside("for i in range(17):", "    open(f'f{i}', 'w').close()"),
                          "PermissionError: a task may not open more than 16 files for writing"),
    "minires imported": (inside("from minires.course import solution"),
                         r"ImportError: this task may not import minires\.course"),
    "bytes on every descriptor": (inside("import os", "for fd in range(3, 30):", "    try: os.write(fd, b'x' * 64)",
                                         "    except OSError: pass"), "answered something that is not an answer"),
    "an array subclass that equals everything": (
        "import numpy as np\nclass Same(np.ndarray):\n    def __eq__(self, other): return True\n"
        "    def __array_ufunc__(self, *a, **k): return 0.0\n    def __array_function__(self, *a, **k): return True\n"
        + inside(end="mean.view(Same), var.view(Same)"), r"mean \(3,\): .*expected"),
}
SLOWER = {
    "endless loop when it is defined": ("class A:\n    while True: pass\n" + inside(),
                                        "your code was stopped after 1 s of computing"),
    "endless loop": (inside("while True: pass"), "your code was stopped after 1 s of computing"),
    "endless loop in a thread": (inside("import threading", "def loop():", "    while True: pass",
                                        "t = threading.Thread(target=loop); t.start(); t.join()"),
                                 "your code was stopped after 1 s of computing"),
    "endless loop that ignores signals": (
        inside("import signal", "signal.signal(signal.SIGXCPU, signal.SIG_IGN)", "while True: pass"),
        "your code was stopped after 1 s of computing"),
    "sleep": (inside("import time", "time.sleep(1000)"), "your code did not answer within 10 s"),
    "a growing list": (inside("a = []", "while True: a.append(bytes(10**7))"), "MemoryError"),
    "recursion": (inside("f = lambda: f()", "f()"), "RecursionError: maximum recursion depth exceeded"),
    "recursion in C": (inside("import sys", "sys.setrecursionlimit(10**9)", "class A:",
                              "    def __getattr__(self, name): return getattr(self, name + 'x')", "A().x"),
                       "your code crashed: a recursion without end|MemoryError|was stopped after"),
    "kill": (inside("import os, signal", "os.kill(os.getpid(), signal.SIGKILL)"), r"may not use os\.kill"),
    "1 GB of output": (inside("for _ in range(1000): print('x' * 10**6)"), "File too large"),
    "a forged answer": (inside(
        "import os, json, struct", "head = json.dumps({'kind': 'values', 'names': ['mean', 'var'], 'arrays': "
        "[['<f8', [3]], ['<f8', [3]]]}).encode()", "for fd in range(3, 30):",
        "    try: os.write(fd, struct.pack('>II', len(head), 48) + head + bytes(48))", "    except OSError: pass"),
        "not an answer|zero everywhere"),
    "an answer that is too large": (inside("import numpy as np", end="np.zeros(2**24), var"),
                                    "answered something that is not an answer"),
    "a message of a length that lies": (
        inside("import os", "for fd in range(3, 30):", "    try: os.write(fd, bytes([0, 0, 0, 9, 0, 0, 0, 9]) + b'{}')",
               "    except OSError: pass"), "answered something that is not an answer"),
    "the pipe closed": (inside("import os", "os.closerange(3, 100)"), "your code (closed the pipe|ended the process)"),
    "np.allclose replaced": ("import numpy as np\nnp.allclose = np.array_equal = lambda *a, **k: True\n" + inside(),
                             r"mean \(3,\): .*expected"),
    "np.linalg.norm replaced": ("import numpy as np\nnp.linalg.norm = lambda *a, **k: 0.0\n" + inside(),
                                r"mean \(3,\): .*expected"),
    "numpy.testing replaced": (inside("import numpy.testing as t", "t.assert_allclose = lambda *a, **k: None"),
                               "ImportError: this task may not import"),
    "minires imported by path": (inside(
        "import importlib.util as u, numpy", "import os",
        f"s = u.spec_from_file_location('r', {str(judge.HERE.parent / 'kernels' / 'reference.py')!r})",
        "m = u.module_from_spec(s); s.loader.exec_module(m)"), "PermissionError: a task may not read the files of min"),
    "minires read as text": (inside(f"open({str(judge.HERE / 'bank_a4.py')!r}).read()"),
                             "PermissionError: a task may not read the files of minires"),
    "another file read": (inside("open('/etc/passwd').read()"), "a task may not read outside its own folder"),
    "a file written outside": (inside("open('/tmp/minires-escape', 'w')"), "may not write outside its own folder"),
    "os.system": (inside("import os", "os.system('true')"), r"may not use os\.system"),
    "fork": (inside("import os", "os.fork()"), r"may not use os\.fork"),
    "a fork bomb": (inside("import os", "while True: os.fork()"), r"may not use os\.fork"),
    "exec": (inside("import os", "os.execv('/bin/sh', ['sh'])"), r"may not use os\.exec"),
    "a child in its own session": (inside("import subprocess",
                                          "subprocess.Popen(['sleep', '100'], start_new_session=True)"),
                                   "this task may not import _posixsubprocess"),
    "multiprocessing": (inside("import multiprocessing as m", "p = m.Process(target=print); p.start()"),
                        "this task may not import multiprocessing"),
    "sockets": (inside("import socket", "socket.create_connection(('127.0.0.1', 9))"), r"may not use socket\."),
    "ctypes": (inside("import ctypes", "ctypes.CDLL(None)"),
               r"may not use ctypes\.|may not read|has no attribute 'CDLL'"),
    "limits raised": (inside("import resource as r", "r.setrlimit(r.RLIMIT_CPU, (999, 999))"),
                      r"may not use resource\.setrlimit"),
    "a folder deleted": (inside("import shutil", "shutil.rmtree('/tmp')"), r"may not use shutil\.rmtree"),
    "a file deleted": (inside("import os", "os.remove('/etc/hostname')"), r"may not use os\.remove outside"),
    "object arrays": (inside("import numpy as np", end="np.array([None, 'a']), var"),
                      "mean: expected an array of numbers, got ndarray"),
    "too few results": (inside(end="mean"), "running must return mean, var, not an array of shape"),
    "None": (inside(end="None"), "running must return mean, var, not None"),
    "writes into its input": (inside("mean += 1"), "you write into an array that you were given: work on a copy"),
    "raises its input's flag": (inside("mean.setflags(write=True); mean += 1"), r"mean \(3,\)|ValueError"),
    "nothing": ("x = 1\n", "running is not defined"),
    "a parser that gives up": ("y = " + "(" * 5000 + ")" * 5000 + "\n" + RIGHT, "running is not defined"),
    "a parser that runs out of stack": ("y = " + "-" * 10**6 + "1\n" + RIGHT, "is not defined|crashed"),
    "another import": ("import torch\n" + inside("torch.ones(1)"), "torch is not available to this task"),
    "an import inside": (inside("import torch"), "ImportError: this task may not import torch|No module named"),
}
# Ways around the audit hook: each would read /etc/passwd, or do what raises no audit event.
PASSWD = "open('/etc/passwd').read()"
OUTSIDE = "a task may not read outside its own folder"
AROUND = {
    "the hook's names, built-in functions and paths": (inside(
        "import builtins, io, os, posixpath, sys", "main, kept = sys.modules['__main__'], builtins.isinstance",
        "main.REFUSED.clear(); main.PLACES.clear()", "posixpath._joinrealpath = lambda *a: (os.getcwd(), True)",
        "class Path:", "    def __fspath__(self): return '/etc/passwd'", "class Text(str):",
        "    def startswith(self, *a): return True", "    def split(self, *a): return []",
        "def isinstance(*a): return False", "def opened(way):", "    builtins.isinstance = isinstance",
        "    try: return way()", "    except (PermissionError, ImportError): return 0",
        "    finally: builtins.isinstance = kept",
        "ways = [lambda: open('/etc/passwd'), lambda: io.FileIO(Path()), lambda: open(Text('/etc/passwd')),",
        "        lambda: os.system('true') == 0, lambda: os.open(sys.prefix, os.O_RDONLY),",
        "        lambda: os.open(os.path.dirname(os.__file__), os.O_RDONLY), lambda: os.symlink('a', 'b') is None,",
        "        lambda: os.open('x/../../../etc/passwd', os.O_RDONLY)]",
        "raise KeyError([number for number, way in enumerate(ways) if opened(way)])"), r"KeyError: \[\]"),
    "the hook's frame": (inside(
        "import os", "try: " + PASSWD, "except PermissionError as e:", "    at = e.__traceback__",
        "    while at.tb_next: at = at.tb_next", "    seen = at.tb_frame.f_locals",
        "    for value in seen.values():", "        if isinstance(value, (list, dict, set)) and value is not seen:",
        "            raise KeyError('something to change')",
        "        assert not getattr(value, '__closure__', None)",
        "    f = lambda path: os.getcwd()", "    try: seen['follow'].__code__ = f.__code__",
        "    except PermissionError: pass", PASSWD), OUTSIDE),
    "modules without audit events": (inside(
        "names = '_posixsubprocess', '_xxsubinterpreters', '_interpreters', 'sqlite3', 'readline', 'multiprocessing'",
        "got = []", "for name in names:", "    try: got.append(__import__(name))", "    except ImportError: pass",
        "import importlib.util as u", "for name in ('_posixsubprocess', 'posix', '_imp'):",
        "    try:", "        got.append(u.module_from_spec(u.spec_from_loader(name, __import__('importlib.machinery')"
        ".machinery.BuiltinImporter)))", "    except (ImportError, AttributeError): pass", "raise KeyError(got)"),
        r"KeyError: \[\]"),
    "functions without audit events": (inside(
        "import os, signal, ctypes, sys", "raise KeyError([name for module in (os, sys.modules['posix'], signal,"
        " sys.modules['_signal'], ctypes) for name in ('pidfd_open', 'pidfd_send_signal', 'setpriority', 'mkfifo',"
        " 'memmove', 'CFUNCTYPE', 'CDLL') if hasattr(module, name)])"), r"KeyError: \[\]"),
    "the garbage collector": (inside("import gc", "gc.get_objects()"), r"may not use gc\.get_objects"),
    "tracing": (inside("import sys", "sys.settrace(print)"), r"may not use sys\.settrace"),
    "NumPy's own readers": (inside(
        "import numpy as np", "ways = [lambda: np.fromfile('/etc/passwd', 'u1'), lambda: np.load('/etc/passwd'),",
        "        lambda: np.memmap('/etc/passwd', 'u1', 'r'), lambda: np.loadtxt('/etc/passwd', str),",
        "        lambda: np.zeros(9).tofile('/tmp/minires-escape'), lambda: np.save('/tmp/minires-escape', mean)]",
        "for way in ways:", "    try: way()", "    except PermissionError: continue", "    raise KeyError('it could')"),
        r"mean \(3,\): .*expected"),
}
SLOWER |= {name: entry for name, entry in AROUND.items() if name != "the hook's names, built-in functions and paths"}
PLAIN["the hook's names, built-in functions and paths"] = AROUND["the hook's names, built-in functions and paths"]
SLOWER["a flood of answers"] = inside(
    "import os, struct, stat", "for fd in range(3, 30):",
    "    try:", "        if stat.S_ISFIFO(os.fstat(fd).st_mode):",
    "            head = b'{\"kind\": \"raised\", \"arrays\": []}'",
    "            data = struct.pack('>II', len(head), 2**26) + head + bytes(2**26)",
    "            for _ in range(30): os.write(fd, data)", "    except OSError: pass"), r"^not yet"
SLOWER["an array of a length that overflows"] = inside(
    "import os, struct",
    "head = b'{\"kind\": \"values\", \"names\": [\"mean\"], \"arrays\": [[\"<f8\", [1' + b'0' * 40 + b']]]}'",
    "for fd in range(3, 30):", "    try: os.write(fd, struct.pack('>II', len(head), 0) + head)",
    "    except OSError: pass"), "answered something that is not an answer"
ALL = every(3, PLAIN.values(), PLAIN) + \
      [pytest.param(*entry, id=name, marks=pytest.mark.slow) for name, entry in SLOWER.items()]


def tried(source):
    return judge.mark(TASK, [("cell 1", source)], 3)


@pytest.fixture(autouse=True)
def short_wall(monkeypatch):
    monkeypatch.setattr(judge, "LEAST_WALL", WALL)
    monkeypatch.setattr(judge, "WALL", 0.0)


def children():
    """Return the processes whose parent this process is."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                        found.append(int(name))
            except OSError:
                continue
    return found


@linux
@pytest.mark.system
@pytest.mark.parametrize("source, sentence", ALL)
def test_misbehaviour_ends_in_its_sentence_and_earns_nothing(source, sentence):
    before = set(children())
    mark = tried(source)
    assert mark.visible.points == mark.hidden.points == 0 and not mark.right
    assert re.search(sentence, mark.visible.verdict.text), mark.visible.verdict.text
    assert set(children()) <= before  # nothing that it started is left
    assert not os.path.exists("/tmp/minires-escape")


@pytest.mark.system
def test_a_right_answer_has_all_points():
    mark = tried("x = (\n%matplotlib inline\n" + RIGHT)  # a cell that is not valid Python has a note
    assert mark.notes and "not valid Python" in mark.notes[0] and not mark.right
    mark = judge.mark(TASK, [("cell 1", "import nothing_of_this_name\nx = 1 / 0"), ("cell 2", inside()),
                             ("cell 3", "%time\n" + RIGHT + "print('hello')"), ("cell 4", "while True: pass")], 3)
    assert mark.right and (mark.visible.points, mark.hidden.points) == (4.0, 6.0)
    assert "the import of nothing_of_this_name was left out" in mark.notes[0] and "ZeroDivisionError" in mark.notes[1]


@pytest.mark.system
def test_what_is_printed_is_kept_and_is_no_answer():
    mark = tried(RIGHT.replace("    if count", "    print('a line for you')\n    if count"))
    assert mark.right and mark.printed.startswith("a line for you\n")


@linux
@pytest.mark.system
def test_messages_that_nobody_asked_for_do_not_fill_the_memory():
    flood = inside("import os, struct, stat, threading", "head = b'{\"kind\": \"raised\", \"arrays\": []}'",
                   "data = struct.pack('>II', len(head), 2**22) + head + bytes(2**22)", "def write(fd):",
                   "    while True: os.write(fd, data)", "for fd in range(3, 30):",
                   "    try:", "        if stat.S_ISFIFO(os.fstat(fd).st_mode):",
                   "            threading.Thread(target=write, args=(fd,)).start()", "    except OSError: pass",
                   "import time; time.sleep(1)")
    cases, _ = solution.drawn(TASK, "visible", 0)
    with judge.Worker(TASK, [("cell 1", flood)]) as one:
        one.ask(cases[0])
        time.sleep(0.3)
        assert one.answers.qsize() == 0


@linux
@pytest.mark.system
def test_writing_to_a_worker_that_does_not_read_has_a_deadline():
    big = Case("", {name: np.zeros(2**20) for name in ("mean", "var", "batch_mean", "batch_var")}
               | {"momentum": 0.1, "count": 3})
    with judge.Worker(TASK, [("cell 1", RIGHT)], wall=2) as one:
        os.kill(one.process.pid, signal.SIGSTOP)
        with pytest.raises(judge.Died, match="did not answer within 2 s"):
            one.ask(big)


def test_a_message_arrives_as_it_was_sent():
    inputs = {"a": np.arange(6.0).reshape(2, 3).T, "b": (1, [2, None, "x"], slice(1, None, 2), ...),
              "c": {"d": np.float32(3), 4: np.zeros((0, 2))}, "e": True}
    arrays = []
    sent = worker.message({"inputs": worker.packed(inputs, arrays)}, arrays)
    head, got = worker.next_message(io.BytesIO(sent))
    back = worker.unpacked(head["inputs"], got)
    assert back["b"] == inputs["b"] and back["e"] is True and list(back["c"]) == ["d", 4]
    np.testing.assert_array_equal(back["a"], inputs["a"])
    assert type(back["c"]["d"]) is np.float32 and back["c"][4].shape == (0, 2)
    with pytest.raises(TypeError, match="not set"):
        worker.packed({1}, [])


@pytest.mark.parametrize("head", [
    {"arrays": [["<f8", [10**12]]]}, {"arrays": [["O", [1]]]}, {"arrays": [["<f8", [-1]]]}, {"arrays": 3}, {}, [1],
    {"arrays": [["<f8"]]}, {"arrays": [["<f8", [True]]]}, {"arrays": [["<f8", [10**40]]]},
    {"arrays": [["<f8", [0, 10**40]]]}], ids=str)
def test_a_message_that_lies_is_not_an_answer(head):
    text = json.dumps(head).encode()
    data = len(text).to_bytes(4, "big") + (8).to_bytes(4, "big") + text + bytes(8)
    with pytest.raises(worker.NoAnswer):
        worker.next_message(io.BytesIO(data))


def test_a_line_for_jupyter_is_left_out_and_a_line_of_python_is_not():
    """% begins a line of both."""
    space = {}
    notes = worker.define([("1", "%matplotlib inline\n!ls\na = 2\n"),
                           ("2", "def f(a, n):\n    return (a\n            % n\n            )")], space)
    assert notes == [] and space["a"] == 2 and space["f"](7, 3) == 1


@pytest.mark.system
@pytest.mark.parametrize("core", ["Haswell", "Sandybridge"])
def test_a_worker_computes_with_the_blas_of_the_judge(core, monkeypatch):
    """Some tasks compare bits with what the solution gives in the judge's process."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", core)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    source = inside("from os import environ as e",
                    "raise ValueError(e['OPENBLAS_CORETYPE'] + e['OPENBLAS_NUM_THREADS'])")
    assert f"ValueError: {core}1" in tried(source).visible.verdict.text
