"""RoIAlign: cut a map of fixed size out of a feature map, for a box of any size.

Bilinear interpolation is separable. The value of a map F at the point (y, x) is a weighted mean of its cells,

    F(y, x) = sum over i, j of  hat(y - i) F[i, j] hat(x - j),       hat(t) = max(0, 1 - |t|)

so at most four cells have a weight. The values at a grid of points are then two matrix products, Y F X^T, in which row
p of Y holds hat(y_p - i) for all i. The mean of such values is a mean of rows of Y and of X. So RoIAlign (He et al.
2017, "Mask R-CNN", section 3), which averages the values at some points in each bin of a box, is `Y @ F @ X.T` too, and
autograd knows the derivative of a product. No kernel of its own is needed.
"""
from __future__ import annotations

from typing import Any

from .. import device, ops
from ..tensor import Tensor
from .boxes import checked


def interpolation(points: Any, size: int) -> Any:
    """Return the weights of bilinear interpolation along one axis.

    points: (...), where to interpolate: 0 is the centre of the first cell and size - 1 that of the last. Points outside
        take the value of the nearest cell.
    result: (..., size), of which each row has at most two weights that are not 0, and adds up to 1
    """
    xp = device.of(points)
    inside = xp.minimum(xp.maximum(points, 0), size - 1)
    return xp.maximum(1 - abs(inside[..., None] - xp.arange(size).astype(points.dtype)), 0)


def roi_align(features: Tensor, boxes: Any, stride: int, bins: int = 7, samples: int = 2) -> Tensor:
    """Return a map of bins x bins cells for each box: the box is cut into bins, and a bin's value is the mean of the
    features at samples x samples points in it.

    features: (N, C, H, W), of which a cell covers stride x stride pixels
    boxes: (N, K, 4) of the same dtype, in pixels; K boxes for each image. Whole numbers become the features' dtype
    result: (N * K, C, bins, bins), the boxes of the first image first

    The gradient reaches the features, but not the boxes. The result is torchvision's roi_align with aligned=True for
    boxes inside the image.

    Raises ValueError if shapes or dtypes do not fit, for a box without extent, and for a number below 1.
    """
    if features.data.ndim != 4:
        raise ValueError(f"roi_align: expected features (N, C, H, W), got {features.shape}")
    N, C, H, W = features.shape
    if boxes.dtype.kind in "iu":
        boxes = boxes.astype(features.dtype)
    if boxes.ndim != 3 or boxes.shape[::2] != (N, 4) or boxes.dtype != features.dtype:
        raise ValueError(f"roi_align: expected boxes ({N}, K, 4) of {features.dtype} for features {features.shape}, "
                         f"got {boxes.dtype}{boxes.shape}")
    if min(stride, bins, samples) < 1:
        raise ValueError(f"roi_align: expected stride, bins and samples from 1, got {stride}, {bins} and {samples}")
    checked("roi_align", boxes=boxes)
    device.of(features.data, boxes, operation="roi_align")
    K = boxes.shape[1]
    X, Y = (_weights(boxes[..., i], boxes[..., i + 2], size, stride, bins, samples) for i, size in ((0, W), (1, H)))
    # All boxes of an image share F, so Y F is one product for each image: rows are boxes and bins, columns C and W.
    rows = ops.matmul(Tensor(Y.reshape(N, K * bins, H)), features.transpose(0, 2, 1, 3).reshape(N, H, C * W))
    columns = rows.reshape(N * K, bins, C, W).transpose(0, 3, 1, 2).reshape(N * K, W, bins * C)
    cut = ops.matmul(Tensor(X.reshape(N * K, bins, W)), columns)  # (N K, bins along x, bins along y * C)
    return cut.reshape(N * K, bins, bins, C).transpose(0, 3, 2, 1)


def _weights(low: Any, high: Any, size: int, stride: int, bins: int, samples: int) -> Any:
    """Return Y or X (..., bins, size): the mean of the weights at the sample points of each bin."""
    xp, count = device.of(low), bins * samples
    share = (xp.arange(count).astype(low.dtype) + 0.5) / count  # the points, as a share of the box's side
    pixels = low[..., None] + (high - low)[..., None] * share
    # Pixel positions are edges: cell i begins at stride * i, and its centre is at stride * (i + 1/2).
    weights = interpolation(pixels / stride - 0.5, size)
    return weights.reshape(*low.shape, bins, samples, size).mean(-2)
