"""Damage real files, and watch what happens when they are read."""
import argparse
import collections
import contextlib
import copy
import faulthandler
import itertools
import json
import pickletools
import random
import resource
import sys
import time

from minires.names import UsageError

# ------------------------------------------------------------------------------------------------------- any bytes


def flip(data, rng, other):
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def near_start(data, rng, other):  # where headers are
    data[rng.randrange(min(len(data), 300))] = rng.choice([0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)])


def truncate(data, rng, other): del data[rng.randrange(len(data)):]


def cut(data, rng, other):
    start = rng.randrange(len(data))
    del data[start:start + rng.choice([1, 2, 4, 512, 3073, rng.randrange(1, len(data) + 1)])]


def insert(data, rng, other):
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice([1, 2, 4, 512, 3073]))


def repeat(data, rng, other):
    start = rng.randrange(len(data))
    data[start:start] = data[start:start + rng.choice([1, 16, 512, 3073])]


def blank(data, rng, other):
    start, n = rng.randrange(len(data)), rng.choice([4, 16, 512])
    data[start:start + n] = bytes([rng.choice([0, 0xff])]) * len(data[start:start + n])


def splice(data, rng, other): data[rng.randrange(len(data)):] = other[rng.randrange(len(other)):]


def replace(data, rng, other): data[:] = rng.choice([b"", b"\0", bytes(other), rng.randbytes(100)])


def extend(data, rng, other): data += rng.randbytes(rng.choice([1, 4, 1000]))


BYTES = [flip, near_start, truncate, cut, insert, repeat, blank, splice, replace, extend]


def damaged(data, rng, other=b"other file", kinds=BYTES):
    """Return `data` after one to three kinds of damage."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not made:
            break
        rng.choice(kinds)(made, rng, other)
    return bytes(made)


# --------------------------------------------------------------------------------------------------- values of JSON

ODD = [None, True, False, 0, -1, 1, 0.5, 1e300, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", "x", "lr",
       "\ud800", "a" * 5000, "9" * 5000, [], [[]], {}, {"x": 1}, [0] * 1000]


def places(value, path=()):
    """Yield the path of keys and indices to every value in a JSON value, and so to itself."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def edited(value, rng):
    """Return a copy of a JSON value after one to three edits: values are replaced, deleted, exchanged, renamed."""
    made = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        *path, key = rng.choice(list(places([made])))[1:] or [None]
        if key is None:
            made = rng.choice([copy.deepcopy(rng.choice(ODD)), DEEP, [made], {"a": made}])
            continue
        inner = made
        for step in path:
            inner = inner[step]
        kind = rng.randrange(5)
        if kind == 0: new = DEEP
        elif kind == 1: new = [inner[key]]
        elif kind == 2: new = str(inner[key])[:5000]
        elif kind == 3: new = copy.deepcopy(rng.choice(subvalues(made)))
        else: new = copy.deepcopy(rng.choice(ODD))
        edit = rng.randrange(5)
        if edit == 0: del inner[key]
        elif edit == 1 and isinstance(inner, dict): inner[rng.choice(["x", "", f"{key} ", "a" * 5000])] = inner.pop(key)
        elif edit == 1: inner.insert(key, new)
        else: inner[key] = new
    return made


DEEP = "a value in many lists or dicts"  # stands for one until `deepened` writes it


def deepened(text, rng):
    """Return JSON or TOML in which each DEEP is a value in many lists or dicts."""
    depth = rng.choice([3, 60, 500, 900, 1100, 5000])
    opening, closing = rng.choice([("[", "]"), ('{"a": ', "}")])
    return text.replace(json.dumps(DEEP), opening * depth + "0" + closing * depth)


def subvalues(value):
    found = []
    for path in places(value):
        inner = value
        for step in path:
            inner = inner[step]
        found.append(inner)
    return found


# --------------------------------------------------------------------------------------------- operations of pickles

HOSTILE = [b"cos\nsystem\n(S'touch made'\ntR", b"cbuiltins\neval\n(S'1'\ntR", b"(S'touch made'\nios\nsystem\n",
           b"\x8c\x02os\x8c\x06system\x93", b"cbuiltins\ngetattr\n", b"cnumpy\nload\n", b"cnumpy\nndarray\n)\x81",
           b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR", b"cnumpy.core.multiarray\n_reconstruct\n",
           b"\x82\x01", b"P1\n", b"Q", b"\x97", b"\x98", b"I99999999999999999999\n", b"r\xff\xff\xff\x7f",
           b"\x8b\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
           b"b", b"}b", b"(lb", b"0", b"1", b"2", b"(", b"t", b"u", b"e", b"s", b"a", b"R", b"\x81", b"\x92", b".",
           b"2\x86" * 60]  # the last: each tuple holds the previous one twice, sixty deep, 2^60 leaves


def operations(pickled):
    """Split a pickle into its operations."""
    starts = [position for _, _, position in pickletools.genops(pickled)] + [len(pickled)]
    return [pickled[a:b] for a, b in itertools.pairwise(starts)]


def reordered(parts, rng):
    """Return the pickle of the operations after one to three edits."""
    made = list(parts)
    for _ in range(rng.choice([1, 1, 2, 3])):
        i, j = rng.randrange(len(made)), rng.randrange(len(made))
        edit = rng.randrange(7)
        if edit == 0 and len(made) > 1: del made[i]
        elif edit == 1: made.insert(j, made[i])
        elif edit == 2: made[i], made[j] = made[j], made[i]
        elif edit == 3: made[i] = rng.choice(HOSTILE)
        elif edit == 4: made.insert(i, rng.choice(HOSTILE))
        elif edit == 5: made[i] = bytes([rng.randrange(256)]) + made[i][1:]      # another operation, same argument
        else: made[i] = made[i][:1] + damaged(made[i][1:] or b"\0", rng)         # same operation, another argument
    return b"".join(made)


# ------------------------------------------------------------------------------------------------------- the watch

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.", "os.remove",
             "os.rename", "os.mkdir", "shutil.", "ctypes.", "compile", "exec", "import")
_watching = False


def _audit(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in ("compile", "exec") and sys._getframe(1).f_globals.get("__name__") == "typing":
        return  # the annotation of a field of minires's own
    if _watching and (writes or event.startswith(FORBIDDEN)):
        raise AssertionError(f"reading a file led to {event} {arguments!r:.200}")


@contextlib.contextmanager
def watched():
    """Refuse any attempt in this context to write, import, run a program or connect. Python reports each attempt."""
    global _watching
    if not getattr(sys, "_minires_audited", False):
        sys.addaudithook(_audit)
        sys._minires_audited = True
    _watching = True
    try:
        yield
    finally:
        _watching = False


def run(cases, n, seed=0, hang=None, first=0, before=None):
    """Read `n` damaged files, and return a Counter of the results.

    first   the number of the first file; a file follows from its number and the seed alone
    before  called with the number before each file is read
    cases   {name: case}; case(rng) returns (read, names). read() reads one damaged file: it returns after a correct
            load, and for a clean refusal raises ValueError or FileNotFoundError with one of `names` in its message.
    hang    seconds; if read() takes longer, the process ends and prints the place on stderr, because Python cannot
            interrupt the computation of an endless hash

    Raises AssertionError, with the case and the seed, for anything else that read() does.
    """
    came = collections.Counter()
    for i in range(first, first + n):
        name = list(cases)[i % len(cases)]
        rng = random.Random(f"{seed} {i}")
        read, names = cases[name](rng)
        start = time.perf_counter()
        if before:
            before(i)
        if hang:
            faulthandler.dump_traceback_later(hang, exit=True)
        try:
            with watched():
                read()
            came[f"{name}: loaded"] += 1
        except BaseException as e:
            clean = type(e) in (ValueError, UsageError, FileNotFoundError)  # but no UnicodeDecodeError
            if not clean or not any(part in str(e) for part in names) or "MemoryError" in str(e):
                why = "names no file" if clean and "MemoryError" not in str(e) else "is not a clean refusal"
                raise AssertionError(f"{name}, seed {seed}, number {i}: {type(e).__name__}: {e}: {why}") from e
            came[f"{name}: refused"] += 1
        came["slowest, ms"] = max(came["slowest, ms"], round(1000 * (time.perf_counter() - start)))
    if hang:
        faulthandler.cancel_dump_traceback_later()
    return came


def main(what, cases):
    """Run the cases with the number and the seed from the command line; print the counts and the peak of memory."""
    cli = argparse.ArgumentParser(description=what)
    cli.add_argument("n", type=int, nargs="?", default=20_000)
    cli.add_argument("--seed", type=int, default=0)
    args = cli.parse_args()
    for line, count in sorted(run(cases, args.n, args.seed, hang=60).items()):
        print(f"{line:32} {count:8}")
    print(f"{'peak of memory, MB':32} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:8}")
