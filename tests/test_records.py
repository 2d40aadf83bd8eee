"""Test JSON records: the type of each value is checked on reading, and lists are written on one line."""

import json
import re
import tracemalloc
import typing

import pytest

from minires.files import records


@pytest.mark.parametrize("value", [
    {}, [], {"a": {}, "b": [], "c": [[]], "d": [{}]}, {"a": [1, 2.5, None, True, "x, [y]"], "b": {"c": [[1, 2], [3]]}},
    [{"a": 1}, {"a": [1]}], "text", 1e-300, {"é": "[ 1,\n 2 ]"}])
def test_the_writer_writes_json(value):
    assert json.loads(records.text(value)) == value


def test_lists_of_plain_values_stand_on_one_line():
    value = {"table": [{"seeds": [0, 1], "name": "a[1, 2]"}], "pairs": [[1, 2], [3, 4]], "none": []}
    assert records.text(value) == """{
 "table": [
  {
   "seeds": [0, 1],
   "name": "a[1, 2]"
  }
 ],
 "pairs": [
  [1, 2],
  [3, 4]
 ],
 "none": []
}"""
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.text({"a": [float("nan")]})


class Point(typing.TypedDict):
    """Holds a record for the test below."""

    x: typing.Annotated[float, records.Between(0, 1)]
    name: typing.NotRequired[str | None]


@pytest.mark.parametrize("value, kind, result", [
    (1, float, 1.0), (True, bool, True), ([1, 2], tuple[float, ...], (1.0, 2.0)), (None, int | None, None),
    ({"a": 1}, dict[str, int], {"a": 1}), ({"x": 1}, Point, {"x": 1.0}), ({"x": 0, "name": None}, Point, None),
    ([{"x": 0.5}], list[Point], None), ("B", bool | int | str, "B"), (2, bool | float | int, 2), (1, bool | float, 1.0),
])
def test_values_of_their_type_are_accepted(value, kind, result):
    found = records.checked(value, kind, "here")
    assert found == (value if result is None else result) and type(found) is type(value if result is None else result)


@pytest.mark.parametrize("value, kind, says", [
    (1.0, int, "here: expected a whole number, got 1.0 (float)"),
    (True, int, "here: expected a whole number, got True (bool)"),
    (True, float, "here: expected a finite number, got True (bool)"),
    (10**400, float, "here: expected a finite number, got 1000"),
    (1, bool, "here: expected true or false, got 1 (int)"), (None, str, "here: expected text, got None"),
    ([1, "x"], list[float], "here: [1]: expected a finite number, got 'x'"),
    ({"a": [1]}, dict[str, int], "here: a: expected a whole number, got a list of 1"),
    ({"x": 2}, Point, "here: x: expected a finite number from 0 to 1, got 2"), ({}, Point, "here: there is no x"),
    ({"x": 1, "nam": ""}, Point, "here: key: unknown name 'nam'; did you mean name?"),
    ({"x": 1, "name": 3}, Point, "here: name: expected text or null, got 3 (int)")])
def test_other_values_are_refused_with_their_key(value, kind, says):
    with pytest.raises(ValueError, match="^" + re.escape(says)):
        records.checked(value, kind, "here")


# ------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("content, message", [
    (b"[" * 100_000, "its lists and objects are nested too deeply"), (b"\xff", "'utf-8' codec can't decode"),
    (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"), (b"<html>", "it is a web page"),
    (b"", "Expecting value"), (b"9" * 5000, "Exceeds the limit")])
def test_files_that_are_no_json_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json cannot be read: .*{message}"):
        records.read(tmp_path / "a.json")


def test_a_file_larger_than_any_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(3 * 10**9)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a\.json cannot be read: expected at most 16777216 bytes"):
            records.read(tmp_path / "a.json")
        assert tracemalloc.get_traced_memory()[1] < 40 * 10**6
    finally:
        tracemalloc.stop()


def test_text_is_read_with_the_ends_of_lines_of_any_system(tmp_path):
    (tmp_path / "a").write_bytes("ä\r\nb\n".encode())
    assert records.content(tmp_path / "a") == "ä\nb\n"
