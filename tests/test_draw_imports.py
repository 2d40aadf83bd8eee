"""Test the picture of the imports: no arrow points up, and an implied import is left out."""

import graphlib

import draw_imports
import pytest


@pytest.fixture(scope="module")
def found():
    return draw_imports.rooms()


def test_every_import_points_to_a_lower_row(found):
    height = draw_imports.rows(found)
    assert {"cli", "runs", "nn", "kernels", "device"} <= set(found)
    assert all(height[other] < height[mine] for mine, others in found.items() for other in others)


def test_a_circle_of_imports_is_refused():
    with pytest.raises(graphlib.CycleError):
        draw_imports.rows({"a": {"b"}, "b": {"a"}})


def test_an_import_that_a_longer_chain_implies_is_not_drawn():
    found = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert draw_imports.direct(found) == [("a", "b"), ("b", "c"), ("d", "c")]
    assert draw_imports.rows(found) == {"c": 0, "b": 1, "d": 1, "a": 2}


def test_the_picture_is_a_png(found, tmp_path, monkeypatch):
    monkeypatch.setattr(draw_imports, "rooms", lambda: found)  # reads every file of the package
    draw_imports.draw(tmp_path / "imports.png")
    assert (tmp_path / "imports.png").read_bytes().startswith(b"\x89PNG")
