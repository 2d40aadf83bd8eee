"""Pickles are read without running the code that they name."""
import collections
import io
import os
import pickle
import tracemalloc

import pytest
from short import every

from minires.files import pickles

ALLOWED = {("collections", "OrderedDict"): dict}


class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


def test_what_is_allowed_is_built_by_its_stand_in():
    file = io.BytesIO(pickle.dumps(collections.OrderedDict(a=[1, 2.5, "x", b"y", None])) + b"rest")
    read = pickles.read(file, ALLOWED)
    assert read == {"a": [1, 2.5, "x", b"y", None]} and type(read) is dict
    assert file.read() == b"rest"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_callable_that_is_not_allowed_is_refused_by_name_and_not_run(tmp_path, protocol):
    program = pickle.dumps({"a": Evil(tmp_path / "made")}, protocol)
    with pytest.raises(pickles.Refused, match=rf"names {os.mkdir.__module__}\.mkdir.*nothing was run"):
        pickles.read(io.BytesIO(program), ALLOWED)
    assert not (tmp_path / "made").exists()
    pickle.loads(program)  # pickle itself runs the program
    assert (tmp_path / "made").exists()


def test_references_outside_go_to_the_callers_function_or_are_refused():
    class Writer(pickle.Pickler):
        def persistent_id(self, obj): return ("id", 7) if isinstance(obj, complex) else None

    file = io.BytesIO()
    Writer(file).dump([1j, 2])
    assert pickles.read(io.BytesIO(file.getvalue()), {}, persistent=lambda pid: pid[1]) == [7, 2]
    with pytest.raises(pickles.Refused, match="refers to data outside itself"):
        pickles.read(io.BytesIO(file.getvalue()), {})


@pytest.mark.parametrize("damage", [b"", b"\x80", b"no pickle", b"\x80\x04]\x94(K\x01K", b"0", b"\x80\x04R."])
def test_damage_is_one_kind_of_error(damage):
    with pytest.raises(pickles.Refused, match="damaged"):
        pickles.read(io.BytesIO(damage), ALLOWED)


TUPLES = b")" + b"2\x86" * 60


@pytest.mark.parametrize("program", [b"}" + TUPLES + b"K\x01s", b"}(" + TUPLES + b"K\x01u", b"(" + TUPLES + b"K\x01d"],
                         ids=["SETITEM", "SETITEMS", "DICT"])
def test_a_key_that_takes_for_ever_to_hash_is_refused_at_once(program):
    """The key is a tuple of two tuples, nested sixty deep: 120 bytes. Its hash takes 2^60 steps, and nothing in Python
    can interrupt them."""
    with pytest.raises(pickles.Refused, match="it has a tuple as a key, where text or a number was expected"):
        pickles.read(io.BytesIO(b"\x80\x02" + program + b"."), {})


@pytest.mark.parametrize("program", [
    b"(" + b"K\x01" * 3000 + b"tq\x00" + b"0ccollections\nOrderedDict\nq\x01" + b"h\x00\x85q\x020"
    + b"h\x01h\x02R0" * 3000 + b"N.",
    b"(" + b"K\x01" * 3000 + b"tq\x00" + b"0ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R0" * 3000 + b"N.",
], ids=["one long argument", "many arguments"])
def test_a_call_given_the_same_long_list_over_and_over_is_refused(program):
    """Each call would cost time proportional to the file's size, so all of them together would cost its square."""
    built = []
    with pytest.raises(pickles.Refused, match="passes more arguments to its calls than a file of this size can hold"):
        pickles.read(io.BytesIO(program), {("collections", "OrderedDict"): lambda *a: built.append(a)})
    assert len(built) < 100


def test_numbers_that_share_a_hash_are_no_keys():
    with pytest.raises(pickles.Refused, match="a number of more than 60 bits as a key"):
        pickles.read(io.BytesIO(pickle.dumps({2**61 - 1: 0})), {})
    assert pickles.read(io.BytesIO(pickle.dumps({140234567890123: 1, -5: 2, 0.5: 3})), {}) == {
        140234567890123: 1, -5: 2, 0.5: 3}


# ------------------------------------------------------------------------------------------- time and memory


LIST = b"](" + b"K\x01" * 10_000 + b"eq\x00"                 # a list of 10,000 in the memo
DICT = b"}(" + b"".join(b"M" + i.to_bytes(2, "little") + b"N" for i in range(10_000)) + b"uq\x00"
NAMED = b"0ccollections\nOrderedDict\nq\x010"
LARGE = {
    "a list as the arguments": LIST + NAMED + b"h\x01h\x00R0" * 3000,
    "a list as an argument": LIST + NAMED + b"h\x01h\x00\x85R0" * 3000,
    "a list for an instance": LIST + NAMED + b"h\x01h\x00\x85\x810" * 3000,
    "a long text": b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\x00" + NAMED + b"h\x01h\x00\x85R0" * 3000,
    "a long tuple of keys": b"(" + LIST + b"t" + NAMED + b"h\x01h\x00\x85R" * 3000,
    "state of an object": DICT + NAMED + b"h\x01)\x81" + b"h\x00b" * 60_000,
    "state of a function": DICT + NAMED + b"h\x01" + b"h\x00b" * 60_000,
    "lists": b"]" * 700_000, "dicts": b"}" * 700_000, "marks": b"(" * 700_000, "tuples": b")" + b"\x85" * 700_000,
    "memo": b"N" + b"".join(b"r" + i.to_bytes(4, "little") for i in range(800_000)),
    "instances": b"N" + NAMED + b"h\x01)\x81" * 200_000,
}


@pytest.mark.parametrize("program", every(20, LARGE.values(), LARGE))
def test_what_a_pickle_builds_is_bounded_by_its_size(program):
    """Each of these would build at least 60 MB from at most 4 MB, or take the square of its size in time."""
    class Ordered(dict):
        def __new__(cls, *args): return super().__new__(cls)
        def __init__(self, *args): self.given = [list(a) for a in args]
        def __setstate__(self, state): calls.append(len(state))

    calls = []
    tracemalloc.start()
    try:
        with pytest.raises(pickles.Refused, match=r"builds more|more arguments|a tuple was expected|state of a type"):
            pickles.read(io.BytesIO(b"\x80\x02" + program + b"N."), {("collections", "OrderedDict"): Ordered})
        assert tracemalloc.get_traced_memory()[1] < pickles.FREE_MEMORY + pickles.MEMORY * len(program)
    finally:
        tracemalloc.stop()
    assert sum(calls) < 10**6


def test_a_pickle_of_numbers_may_be_long():
    """Training scripts save the losses of all steps."""
    losses = {"floats": [i + 0.5 for i in range(300_000)], "steps": list(range(100_000)),
              "names": [f"image {i}" for i in range(30_000)]}
    assert pickles.read(io.BytesIO(pickle.dumps(losses, 2)), {}) == losses


def test_a_memo_of_numbers_that_share_a_hash():
    program = b"N" + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(3))
    with pytest.raises(pickles.Refused, match="its memo has an entry with a number of more than 32 bits"):
        pickles.read(io.BytesIO(program + b"."), {})


class Sparse(io.BytesIO):
    """Claims to have `size` bytes, and notes the most that were asked for at once."""

    size, asked = 0, 0

    def seek(self, offset, whence=0):
        return self.size if whence == os.SEEK_END else super().seek(offset, whence)

    def read(self, size=-1):
        self.asked = max(self.asked, size)
        return super().read(min(size, 1000))


@pytest.mark.parametrize("program", [b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80\x02B\xff\xff\xff\xffab",
                                     b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab"])
def test_no_memory_is_reserved_for_what_a_pickle_claims_to_hold(program):
    file = Sparse(program)
    file.size = 1000
    with pytest.raises(pickles.Refused, match="damaged"):
        pickles.read(file, {})
    assert file.asked <= 1000
    file = Sparse(program)
    file.size = 10**12
    with pytest.raises(pickles.Refused, match="its pickle has more than 104857600 bytes"):
        pickles.read(file, {})
    assert file.asked <= pickles.MOST_BYTES


def test_every_operation_that_is_not_read_is_named():
    for op, name in {b"\x82\x01": "EXT1", b"\x8f": "EMPTY_SET", b"(ios\nsystem\n": "INST", b"(o": "OBJ",
                     b")}\x92": "NEWOBJ_EX"}.items():
        with pytest.raises(pickles.Refused, match=f"it has the operation {name}, which such a file does not need"):
            pickles.read(io.BytesIO(op + b"."), ALLOWED)
    with pytest.raises(pickles.Refused, match="damaged: it has the byte 0x76 where an operation of a pickle was exp"):
        pickles.read(io.BytesIO(b"version"), ALLOWED)


def test_only_stand_ins_are_called_and_only_classes_make_instances():
    for program, message in [(b"]K\x01\x85R.", "it calls a list, which is not a name that it may call"),
                             (b"K\x01K\x01\x85\x81.", "it calls a int"),
                             (b"cm\nf\nN\x85\x81.", "makes an instance of something that is not a class"),
                             (b"cm\nf\n}b.", "sets the state of a function"),
                             (b"ccollections\nOrderedDict\n}b.", "sets the state of a type")]:
        with pytest.raises(pickles.Refused, match=message):
            pickles.read(io.BytesIO(program), ALLOWED | {("m", "f"): lambda *a: a})
