"""Test grids of numbers: the window framed in the image has the numbers of the framed column."""

import numpy as np
import pytest

from minires import plot
from minires.kernels import reference
from minires.plot.convolution import PADDING


def framed(axes):
    """Return the numbers inside the thick line, row by row."""
    thick = max(axes.patches, key=lambda p: p.get_linewidth())
    left, top = thick.get_xy()
    inside = [t for t in axes.texts if left < t.get_position()[0] < left + thick.get_width()
              and top < t.get_position()[1] < top + thick.get_height()]
    return [float(t.get_text()) for t in sorted(inside, key=lambda t: t.get_position()[::-1])]


@pytest.mark.parametrize("size, kernel, stride, padding", [((4, 4), (3, 3), (1, 1), (0, 0)),
                                                           ((6, 8), (3, 3), (2, 2), (1, 1)),
                                                           ((7, 5), (3, 2), (2, 1), (0, 2))])
def test_the_window_in_the_image_is_the_column_in_the_matrix(size, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x, w = rng.permutation(size[0] * size[1]).reshape(1, 1, *size).astype(float), rng.integers(-3, 4, (1, 1, *kernel))
    columns = reference.im2col(x, kernel, stride, padding)
    y = reference.conv2d(x, w, stride, padding)[0, 0]
    padded = reference.pad2d(x, padding)[0, 0]
    for at in {0, y.size // 2, y.size - 1}:
        figure = plot.im2col(padded, columns, y, kernel, stride, padding, at)
        image, matrix, result = figure.axes
        assert framed(image) == framed(matrix) == list(columns[:, at])
        assert framed(result) == [y.flat[at]] == [w.ravel() @ columns[:, at]]
        assert figure.get_suptitle().split() == (f"Window {at} of the image is column {at} of the matrix; "
                                                 f"kernel times column is {y.flat[at]:g}").split()
    hidden = {p.get_xy() for p in image.patches if p.get_facecolor() == (*3 * (int(PADDING[1:3], 16) / 255,), 1)}
    assert ("padding" in image.get_title()) == bool(hidden) == any(padding)
    assert len(image.texts) == padded.size and len(matrix.texts) == columns.size


def test_grids_show_every_number_and_larger_ones_darker():
    counts = {"a": np.array([[1, 2, 9], [0, 4, 6]]), "b": np.full((3, 1), 0.25)}
    figure = plot.grids(counts, "counts", "a caption")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert [t.get_text() for axes in figure.axes for t in axes.texts] == ["1", "2", "9", "0", "4", "6", *["0.25"] * 3]
    light = [patch.get_facecolor()[0] for patch in figure.axes[0].patches]
    assert np.argsort(light).tolist() == [2, 5, 4, 1, 0, 3] and light[3] == 1
    assert plot.png(plot.grids({"same": np.ones((2, 2))}, "all alike"))[:4] == b"\x89PNG"
