"""This module shows what layers see: the first layer's filters, the receptive fields of units, and the image patches
that excite a channel most.

Source of the patches: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4, which
shows reconstructions beside the patches.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import device, nn, ops
from ..kernels.reference import extent
from ..tensor import Tensor, topological_order
from . import common


def first_filters(model: nn.Module) -> np.ndarray:
    """Return the first convolution's filters, scaled for display.

    Returns a float32 array (filters, kh, kw, channels).

    Each filter is scaled so that its largest |weight| becomes 0 or 1 and a weight of 0 becomes 0.5.

    Raises ValueError if the model has no convolution.
    """
    first = next((m for _, m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError("first_filters: this model has no convolution")
    w = np.asarray(first.weight.numpy(), np.float32).transpose(0, 2, 3, 1)
    return 0.5 + 0.5 * w / np.maximum(abs(w).max((1, 2, 3), keepdims=True), np.finfo(w.dtype).tiny)


# --------------------------------------------------------------------------------------- receptive fields


class Field(NamedTuple):
    """A Field describes which input rows and columns each output sees.

    Output i sees the rows from i * jump + low to i * jump + high, both included, if they are inside the image. The same
    holds for columns.
    """

    jump: tuple[int, int]  # (rows, columns) from one output to the next
    low: tuple[int, int]   # (row, column), the first that output 0 sees
    high: tuple[int, int]  # (row, column), the last that output 0 sees

    @property
    def size(self) -> tuple[int, int]:
        return self.high[0] - self.low[0] + 1, self.high[1] - self.low[1] + 1


def receptive_fields(model: nn.Module, images: Any) -> dict[str, Field]:
    """Compute the receptive field of every module's output, up to the first module that sees all positions.

    images: (N, C, H, W)
    Returns {name of a module: Field of its output}.

    The fields are computed by arithmetic from the graph of one eval-mode pass over `images`, so branches and shortcuts
    count: where two paths meet, the field spans both. The model is left unchanged.
    """
    names = {id(m): name for name, m in model.modules()}
    outputs: list[tuple[str, Tensor]] = []
    x = Tensor(images, True)
    with nn.untouched(model), nn.watched(lambda m, inputs, out: outputs.append((names.get(id(m), ""), out))):
        end = model.eval()(x)
        # Of every Tensor that depends on x; None: it sees all positions.
        fields: dict[int, Field | None] = {id(x): Field((1, 1), (0, 0), (0, 0))}
        for t in topological_order(end):
            seen = [fields[id(x)] for x in t.creator.inputs if id(x) in fields] if t.creator is not None else []
            if seen:
                known = [field for field in seen if field is not None]
                fields[id(t)] = _field(t.creator, known) if len(known) == len(seen) else None
        return {name: field for name, t in outputs if (field := fields.get(id(t))) is not None}


_POINTWISE = (ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Neg, ops.Abs, ops.Maximum, ops.Relu, ops.Sigmoid, ops.Tanh,
              ops.LeakyRelu, ops.Gelu, ops.Clip, ops.Where, ops.Pow, ops.Power, ops.BatchNormEval, ops.Dropout)


def _field(f: Any, seen: list[Field]) -> Field | None:
    """Return an operation's output field from its inputs' fields; None for an operation that sees all positions."""
    if isinstance(f, _POINTWISE) or (isinstance(f, ops.Concatenate) and f.axis == 1):
        low, high = zip(*((min(s.low[i] for s in seen), max(s.high[i] for s in seen)) for i in (0, 1)), strict=True)
        return Field(seen[0].jump, low, high)
    if isinstance(f, ops.Conv2d):
        stride, padding, dilation, _ = f.geometry
        kernel = extent(f.w.shape[2:], dilation)
    elif isinstance(f, (ops.MaxPool2d, ops.AvgPool2d)):
        _, kernel, stride, padding, *dilation = f.geometry
        kernel = extent(kernel, *dilation) if dilation else kernel
    elif isinstance(f, ops.SubsampleAndPad):
        kernel, stride, padding = (1, 1), (f.geometry[1],) * 2, (0, 0)
    elif isinstance(f, ops.Pad):
        kernel, stride, padding = (1, 1), (1, 1), (f.inside[2].start, f.inside[3].start)
    else:
        return None
    # Output j covers the input positions from j * stride - padding to j * stride - padding + kernel - 1, whose fields
    # are `jump` apart.
    jump, low, high = seen[0]
    return Field((jump[0] * stride[0], jump[1] * stride[1]),
                 (low[0] - padding[0] * jump[0], low[1] - padding[1] * jump[1]),
                 (high[0] + (kernel[0] - 1 - padding[0]) * jump[0], high[1] + (kernel[1] - 1 - padding[1]) * jump[1]))


# ------------------------------------------------------------------------------ what excites a channel most


class Patch(NamedTuple):
    """A Patch is the part of an image that a unit of the channel sees."""

    image: int         # index of the image
    row: int           # of the patch's upper left corner in the image; negative if the field extends beyond the edge
    column: int        # of the same corner
    value: float       # the channel's activation there
    pixels: np.ndarray  # (height, width, ...); 0 outside the image


def exciting_patches(model: nn.Module, images: Any, layer: str, channel: int, top: int = 9, pixels: Any = None,
                     batch_size: int = 250, progress: common.Progress = iter) -> list[Patch]:
    """Return the `top` patches that excite a channel of the module named `layer` most, the strongest first.

    images     (N, C, H, W), as the model takes them
    pixels     (N, kH, kW, ...), the same images for display at k times the size, from which the patches are cut; a
               patch's row, column and size count these pixels; by default `images`
    progress   tqdm.auto.tqdm shows a progress bar

    Each patch is from another image. A field that covers the whole image at every position is cut to the image. The
    model runs in eval mode and is left unchanged.

    Raises ValueError for a layer without a receptive field, for a channel that the layer does not have, for `top` below
    1 or above N, or for pixels of another shape.
    """
    fields = receptive_fields(model, images[:1])
    if layer not in fields:
        raise ValueError(f"exciting_patches: layer {layer!r} has no receptive field; the layers that have one are "
                         f"{', '.join(fields)}")
    if not 1 <= top <= len(images):
        raise ValueError(f"exciting_patches: expected top from 1 to {len(images)}, the number of images, got {top}")
    cut_from = device.to(images, "cpu").transpose(0, 2, 3, 1) if pixels is None else pixels
    size, scale = images.shape[2:], cut_from.shape[1] // images.shape[2]
    if cut_from.shape[:3] != (len(images), size[0] * scale, size[1] * scale):
        raise ValueError(f"exciting_patches: expected pixels of {len(images)} images of size {size[0]}x{size[1]} or an "
                         f"integer multiple of it, got shape {cut_from.shape}")
    best: list[tuple[float, int, int]] = []  # (value, image, position) of every image's strongest position
    for start in progress(range(0, len(images), batch_size)):
        maps = _channel(model, images[start:start + batch_size], layer, channel)
        width = maps.shape[2]
        for i, values in enumerate(maps.reshape(len(maps), -1)):
            best.append((float(values.max()), start + i, int(values.argmax())))
    field = fields[layer]
    whole = all(f >= 2 * s - 1 for f, s in zip(field.size, size, strict=True))
    high, wide = (scale * s for s in (size if whole else field.size))
    found = []
    for value, image, place in sorted(best, key=lambda b: (-b[0], b[1]))[:top]:
        row, column = (0 if whole else scale * (i * j + low)
                       for i, j, low in zip(divmod(place, width), field.jump, field.low, strict=True))
        found.append(Patch(image, row, column, value, _cut(cut_from[image], row, column, (high, wide))))
    return found


def _channel(model: nn.Module, images: Any, layer: str, channel: int) -> np.ndarray:
    """Return one channel of a layer's output: (N, height, width)."""
    found: list[Any] = []

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if name == layer:
            if not 0 <= channel < out.shape[1]:
                raise ValueError(f"exciting_patches: expected a channel in 0..{out.shape[1] - 1}, got {channel}")
            found[:] = [device.to(out.data[:, channel], "cpu")]

    common.run(model, images, see)
    return found[0]


def _cut(image: np.ndarray, row: int, column: int, size: tuple[int, int]) -> np.ndarray:
    """Return the part of an image (H, W, ...) with this upper left corner and size; 0 beyond the image's edge."""
    patch = np.zeros((*size, *image.shape[2:]), image.dtype)
    rows = slice(max(row, 0), max(min(row + size[0], image.shape[0]), 0))
    columns = slice(max(column, 0), max(min(column + size[1], image.shape[1]), 0))
    part = image[rows, columns]
    patch[rows.start - row:rows.start - row + part.shape[0],
          columns.start - column:columns.start - column + part.shape[1]] = part
    return patch
