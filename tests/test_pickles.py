"""Pickles are read without running the code that they name."""
import collections
import io
import os
import pickle

import pytest

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
        140234567890123: 1, -5: 2, 0.5: 3}  # fmt: skip
