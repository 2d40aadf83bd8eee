"""Test every operation against finite differences, PyTorch and plain loops, with its dtypes and conventions.

CASES is one table for all operations: different extents on every axis, strides, paddings, leftover rows, 1x1 kernels,
broadcasting on both sides, tuple and negative axes, memory that is not contiguous. A plain run checks the gradient of
every case, and the other properties of some cases.
"""

import math
from itertools import product

import numpy as np
import pytest
from helpers import (
    difference,
    needs_torch,
    normal,
    output_and_grads,
    read_only,
    same_bits,
    torch,
    torch_output_and_grads,
)
from short import every

import minires.ops
from minires import Function, Tensor, gradcheck, kernels, ops
from minires.kernels import reference
from minires.tensor import topological_order

CASES = {}


def case(name, ours, theirs, *arrays):
    """Add a case to the table: `ours` on Tensors, `theirs` on torch tensors, at `arrays`.

    arrays: arrays, or shapes of arrays of normal numbers.
    """
    arrays = [normal(*a, seed=i) if isinstance(a, tuple) else a for i, a in enumerate(arrays)]
    assert name not in CASES
    CASES[name] = ours, theirs, arrays


def positive(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape)


def strided(*shape, seed=0):
    """Return an array that is not contiguous: every second element of every axis, with the axes reversed in memory."""
    return normal(*(2 * n for n in shape[::-1]), seed=seed).T[tuple(slice(None, None, 2) for _ in shape)]


def nn():
    return torch.nn.functional


# arithmetic, with broadcasting on leading and on size-1 axes of either side
PAIRS = {"same": ((2, 3), (2, 3)), "leading": ((4, 2, 3), (2, 3)), "leading of the left": ((3,), (2, 3)),
         "size 1": ((2, 3, 4), (2, 1, 4)), "both sides": ((4, 1, 3, 1), (2, 1, 5)), "0-d": ((), (2, 3)),
         "1 with leading": ((1,), (4, 2, 3))}
for pair_name, (p, q) in PAIRS.items():
    case(f"add {pair_name}", lambda a, b: a + b, lambda a, b: a + b, p, q)
    case(f"sub {pair_name}", lambda a, b: a - b, lambda a, b: a - b, p, q)
    case(f"mul {pair_name}", lambda a, b: a * b, lambda a, b: a * b, p, q)
    case(f"div {pair_name}", lambda a, b: a / b, lambda a, b: a / b, normal(*p), positive(*q))
    case(f"maximum {pair_name}", ops.maximum, lambda a, b: torch.maximum(a, b), p, q)
case("mul strided", lambda a, b: a * b, lambda a, b: a * b, strided(3, 4), strided(3, 1, seed=1))
case("scalars", lambda x: 2 - 3 * x + x / 4 - (1 - x) * 2 + 1 / x, lambda x: 2 - 3 * x + x / 4 - (1 - x) * 2 + 1 / x,
     positive(2, 3))
case("neg", lambda x: -x, lambda x: -x, (2, 3))

# element by element
for power in (2, 3, -1, 0, 1, 0.5, -2.5):
    case(f"pow {power}", lambda x, n=power: x ** n, lambda x, n=power: x ** n, positive(2, 3))
case("pow 3 of negative numbers", lambda x: x ** 3, lambda x: x ** 3, (2, 3))
case("power", lambda a, b: a ** b, lambda a, b: a ** b, positive(2, 3), (4, 1, 3))
case("power of a number", lambda b: 2.0 ** b + ops.pow(3, b), lambda b: 2.0 ** b + 3 ** b, (2, 3))
case("minimum", ops.minimum, lambda a, b: torch.minimum(a, b), (2, 3), (4, 1, 3))
case("maximum and minimum of a number", lambda a: ops.maximum(0.1, a) + ops.minimum(0.2, a),
     lambda a: a.clamp(min=0.1) + a.clamp(max=0.2), (3, 4))
case("clip", lambda x: x.clip(-0.5, 0.7), lambda x: x.clamp(-0.5, 0.7), (3, 4))
case("clip from below", lambda x: ops.clip(x, low=-0.3), lambda x: x.clamp(min=-0.3), (3, 4))
CONDITION = np.arange(4) % 3 == 0
case("where", lambda a, b: ops.where(CONDITION, a, b), lambda a, b: torch.where(torch.tensor(CONDITION), a, b),
     (3, 4), (3, 1))
case("where, a wide condition", lambda a: ops.where(np.arange(6).reshape(2, 3) > 2, 1.5, a),
     lambda a: torch.where(torch.arange(6).reshape(2, 3) > 2, 1.5, a), (3,))
case("leaky_relu", ops.leaky_relu, lambda x: nn().leaky_relu(x), (3, 4))
case("leaky_relu 0.3", lambda x: ops.leaky_relu(x, 0.3), lambda x: nn().leaky_relu(x, 0.3), strided(3, 4))
case("gelu", ops.gelu, lambda x: nn().gelu(x), normal(5, 40) * 3)
case("gelu by tanh", lambda x: ops.gelu(x, "tanh"), lambda x: nn().gelu(x, approximate="tanh"), (3, 4))
case("exp", ops.exp, lambda x: x.exp(), (2, 3))
case("log", ops.log, lambda x: x.log(), positive(2, 3))
case("sqrt", ops.sqrt, lambda x: x.sqrt(), positive(2, 3))
case("tanh", ops.tanh, lambda x: x.tanh(), (2, 3))
case("sigmoid", ops.sigmoid, lambda x: x.sigmoid(), (2, 3))
case("relu", ops.relu, lambda x: x.relu(), (3, 4))
case("relu strided", lambda x: x.relu(), lambda x: x.relu(), strided(3, 4))
case("abs", abs, lambda x: x.abs(), (3, 4))
case("methods", lambda x: x.exp().log().sqrt().tanh().sigmoid().abs(),
     lambda x: x.exp().log().sqrt().tanh().sigmoid().abs(), positive(2, 3))

# matrix products
for a_shape, b_shape in [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)),
                         ((6, 1, 2, 3), (5, 3, 4)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((3,), (5, 3, 4)),
                         ((5, 2, 3), (3,)), ((1, 1), (1, 1))]:
    case(f"matmul {a_shape} {b_shape}", lambda a, b: a @ b, lambda a, b: a @ b, a_shape, b_shape)
case("matmul strided", ops.matmul, lambda a, b: a @ b, strided(2, 3), strided(3, 4, seed=1))
case("linear", ops.linear, lambda x, w: nn().linear(x, w), (5, 3), (4, 3))
case("linear with bias", ops.linear, lambda x, w, b: nn().linear(x, w, b), (5, 3), (4, 3), (4,))
case("linear of one", ops.linear, lambda x, w, b: nn().linear(x, w, b), (1, 1), (1, 1), (1,))
case("linear of three axes", ops.linear, lambda x, w, b: nn().linear(x, w, b), (2, 5, 3), (4, 3), (4,))
case("linear of a vector", ops.linear, lambda x, w: nn().linear(x, w), (3,), (4, 3))

# reductions
for axis, keep in product([None, 0, 1, -1, (0, 2), (-1, 0), (2, 1), (0, 1, 2)], [False, True]):
    n = f"axis {axis}{', keepdims' * keep}"
    dims = tuple(range(3)) if axis is None else axis
    case(f"sum {n}", lambda x, a=axis, k=keep: x.sum(a, k), lambda x, a=dims, k=keep: x.sum(a, k), (2, 3, 4))
    case(f"mean {n}", lambda x, a=axis, k=keep: x.mean(a, k), lambda x, a=dims, k=keep: x.mean(a, k), (2, 3, 4))
    case(f"var {n}", lambda x, a=axis, k=keep: x.var(a, k),
         lambda x, a=dims, k=keep: x.var(a, correction=0, keepdim=k), (2, 3, 4))
    case(f"max {n}", lambda x, a=axis, k=keep: x.max(a, k), lambda x, a=dims, k=keep: x.amax(a, k), (2, 3, 4))
    if keep == (axis in (0, None)):  # half of them: min is -max(-x), and std has the arithmetic of var
        case(f"min {n}", lambda x, a=axis, k=keep: x.min(a, k), lambda x, a=dims, k=keep: x.amin(a, k), (2, 3, 4))
        case(f"std {n}", lambda x, a=axis, k=keep: x.std(a, k, correction=0.5),
             lambda x, a=dims, k=keep: x.std(a, correction=0.5, keepdim=k), (2, 3, 4))
case("unbiased var", lambda x: x.var((0, 2), correction=1), lambda x: x.var((0, 2), correction=1), (2, 3, 4))
case("sum of one number", ops.sum, lambda x: x.sum(), ())
case("max of one number", ops.max, lambda x: x.max(), ())
case("max strided", lambda x: ops.max(x, (0, 2)), lambda x: x.amax((0, 2)), strided(2, 3, 4))

# shapes
case("reshape", lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1), (2, 3, 4))
case("reshape by a tuple", lambda x: x.reshape((6, 4)), lambda x: x.reshape(6, 4), strided(2, 3, 4))
case("transpose", lambda x: x.transpose(2, 0, 1), lambda x: x.permute(2, 0, 1), (2, 3, 4))
case("transpose, negative axes", lambda x: x.transpose((-1, 0, -2)), lambda x: x.permute(2, 0, 1), (2, 3, 4))
case("transpose of four", lambda x: x.transpose(1, 3, 0, 2), lambda x: x.permute(1, 3, 0, 2), (2, 3, 4, 5))
case("T", lambda x: x.T, lambda x: x.permute(2, 1, 0), (2, 3, 4))
case("broadcast_to", lambda x: ops.broadcast_to(x, (5, 2, 3, 4)), lambda x: x.expand(5, 2, 3, 4), (2, 1, 4))
case("concatenate", lambda a, b, c: ops.concatenate([a, b, c], 1), lambda a, b, c: torch.cat([a, b, c], 1),
     (2, 3, 4), (2, 1, 4), (2, 5, 4))
case("concatenate, last axis", lambda a, b: ops.concatenate([a, b], -1), lambda a, b: torch.cat([a, b], -1),
     (2, 3), strided(2, 4))
case("concatenate one twice", lambda a: ops.concatenate([a, a]), lambda a: torch.cat([a, a]), (2, 3))
for axis in (0, 1, -1):
    case(f"stack, axis {axis}", lambda a, b, d=axis: ops.stack([a, b, a], d),
         lambda a, b, d=axis: torch.stack([a, b, a], d), (2, 3), strided(2, 3))
case("pad", lambda x: ops.pad(x, [(1, 2), (0, 0), (3, 0)], 1.5),
     lambda x: nn().pad(x, (3, 0, 0, 0, 1, 2), value=1.5), (2, 3, 4))
INDICES = {"integer": 1, "negative": -1, "slice": slice(1, None), "step": slice(None, None, 2), "ellipsis": (..., 0),
           "new axis": (slice(None), None, 1), "two": (1, slice(0, 2)), "array": np.array([2, 0]),
           "duplicates": np.array([1, 1, 0, 1]), "2-d duplicates": np.array([[0, 0], [2, 0]]),
           "pairs": (np.array([0, 0, 2]), np.array([1, 1, 3])), "array and slice": (slice(None), np.array([1, 1])),
           "array and integer": (np.array([2, 2]), 1), "list": [0, 0, 1], "all": (), "NumPy integer": np.int64(2),
           "mask": np.array([True, False, True]), "2-d mask": np.arange(12).reshape(3, 4) % 3 == 0}
for index_name, index in INDICES.items():
    case(f"getitem {index_name}", lambda x, i=index: x[i], lambda x, i=index: x[i], (3, 4, 2))

# convolution: (N, C, H, W), (O, C, kh, kw), stride, padding
CONVOLUTIONS = {
    "6x8 k3 s2 p1": ((2, 3, 6, 8), (5, 3, 3, 3), 2, 1),
    "7x5 k3x2 s2 p0": ((2, 3, 7, 5), (4, 3, 3, 2), 2, 0),
    "5x7 k3 s1 p1": ((3, 2, 5, 7), (4, 2, 3, 3), 1, 1),
    "4x6 k2x3 s1 p0": ((3, 2, 4, 6), (5, 2, 2, 3), 1, 0),
    "6x7 k3x4 s(2,1) p(1,0)": ((2, 3, 6, 7), (4, 3, 3, 4), (2, 1), (1, 0)),
    "5x6 k2x3 s(1,2) p(0,2)": ((2, 3, 5, 6), (4, 3, 2, 3), (1, 2), (0, 2)),
    "8x10 k3 s2 p1, a leftover row and column": ((1, 2, 8, 10), (3, 2, 3, 3), 2, 1),
    "9x8 k2 s3 p0, leftovers": ((2, 1, 9, 8), (3, 1, 2, 2), 3, 0),
    "1x1 s1": ((2, 3, 4, 5), (6, 3, 1, 1), 1, 0),
    "1x1 s2": ((2, 3, 4, 5), (6, 3, 1, 1), 2, 0),
    "1x1 p1": ((2, 3, 4, 5), (1, 3, 1, 1), 1, 1),
    "kernel as large as the input": ((2, 3, 4, 5), (6, 3, 4, 5), 1, 0),
    "everything is one": ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0),
    "padding wider than the kernel": ((2, 1, 3, 2), (3, 1, 2, 1), 1, 3),
}
for conv_name, (xs, ws, s, p) in CONVOLUTIONS.items():
    case(f"conv2d {conv_name}", lambda x, w, s=s, p=p: ops.conv2d(x, w, None, s, p),
         lambda x, w, s=s, p=p: nn().conv2d(x, w, None, s, p), xs, ws)
case("conv2d with bias", lambda x, w, b: ops.conv2d(x, w, b, 2, 1), lambda x, w, b: nn().conv2d(x, w, b, 2, 1),
     (2, 3, 6, 8), (5, 3, 3, 3), (5,))
case("conv2d strided", lambda x, w: ops.conv2d(x, w, None, 2, 1), lambda x, w: nn().conv2d(x, w, None, 2, 1),
     strided(2, 3, 6, 8), strided(5, 3, 3, 2, seed=1))
case("conv2d channels last", lambda x, w: ops.conv2d(x, w, None, 1, 1), lambda x, w: nn().conv2d(x, w, None, 1, 1),
     normal(2, 6, 8, 3).transpose(0, 3, 1, 2), (5, 3, 3, 3))
# (N, C, H, W), (O, C / groups, kh, kw), stride, padding, dilation, groups
SPARSE = {"dilation 2": ((2, 3, 7, 8), (5, 3, 3, 2), 1, 0, 2, 1),
          "d(2,3) s2 p1": ((2, 2, 9, 8), (3, 2, 3, 2), 2, 1, (2, 3), 1),
          "2 groups": ((2, 6, 5, 7), (4, 3, 3, 3), 1, 1, 1, 2),
          "depthwise": ((2, 5, 6, 7), (5, 1, 3, 2), 2, (0, 1), 1, 5),
          "two outputs of each channel": ((2, 3, 4, 5), (6, 1, 1, 1), 1, 0, 1, 3),
          "3 groups, d(1,2) s(2,3)": ((2, 6, 7, 8), (9, 2, 2, 3), (2, 3), (1, 0), (1, 2), 3),
          "a pixel that no window contains": ((1, 2, 7, 7), (2, 1, 2, 2), 3, 0, 3, 2)}
for conv_name, (xs, ws, *rest) in SPARSE.items():
    case(f"conv2d {conv_name}", lambda x, w, r=rest: ops.conv2d(x, w, None, *r),
         lambda x, w, r=rest: nn().conv2d(x, w, None, *r), xs, ws)

# pooling: (N, C, H, W), kernel, stride, padding
POOLS = {"6x8 k2": ((2, 3, 6, 8), 2, None, 0), "7x5 k3x2 s2": ((2, 3, 7, 5), (3, 2), 2, 0),
         "6x8 k3 s2 p1": ((2, 3, 6, 8), 3, 2, 1), "5x7 k3 s1 p1": ((3, 2, 5, 7), 3, 1, 1),
         "5x6 k2x4 s(1,3) p(1,2)": ((2, 3, 5, 6), (2, 4), (1, 3), (1, 2)), "1x1": ((2, 3, 4, 5), 1, 1, 0),
         "leftovers": ((2, 3, 7, 8), 3, 3, 0), "whole": ((2, 3, 4, 5), (4, 5), None, 0)}
for pool_name, (xs, k, s, p) in POOLS.items():
    case(f"max_pool2d {pool_name}", lambda x, a=(k, s, p): ops.max_pool2d(x, *a),
         lambda x, a=(k, s, p): nn().max_pool2d(x, *a), xs)
    case(f"avg_pool2d {pool_name}", lambda x, a=(k, s, p): ops.avg_pool2d(x, *a),
         lambda x, a=(k, s, p): nn().avg_pool2d(x, *a), xs)
case("max_pool2d strided", lambda x: ops.max_pool2d(x, 3, 2, 1), lambda x: nn().max_pool2d(x, 3, 2, 1),
     strided(2, 3, 5, 6))
for k, s, p, d, ceil in [(2, 1, 0, 2, False), ((3, 2), 2, 1, (1, 3), True), (3, (1, 2), (0, 1), 2, True)]:
    case(f"max_pool2d k{k} s{s} p{p} d{d}", lambda x, a=(k, s, p, ceil, d): ops.max_pool2d(x, *a),
         lambda x, a=(k, s, p, d, ceil): nn().max_pool2d(x, *a), (2, 3, 8, 7))
for k, s, p, ceil, padded in [(2, 2, 0, True, True), (3, 2, 1, True, True), (3, 2, 1, True, False),
                              (3, 1, 1, False, False), ((2, 3), (3, 2), (1, 0), True, False)]:
    case(f"avg_pool2d k{k} s{s} p{p}, ceil {ceil}, padding counts {padded}",
         lambda x, a=(k, s, p, ceil, padded): ops.avg_pool2d(x, *a),
         lambda x, a=(k, s, p, ceil, padded): nn().avg_pool2d(x, *a), (2, 3, 5, 8))
for size in (1, (3, 2), (2, 7), (5, 4)):
    case(f"adaptive_avg_pool2d {size}", lambda x, s=size: ops.adaptive_avg_pool2d(x, s),
         lambda x, s=size: nn().adaptive_avg_pool2d(x, s), (2, 3, 5, 4))
case("global_avg_pool2d", ops.global_avg_pool2d, lambda x: nn().adaptive_avg_pool2d(x, 1).flatten(1), (2, 3, 4, 5))
for channels, stride, where in [(4, 1, "both"), (7, 2, "both"), (7, 2, "end"), (6, 3, "both"), (3, 2, "end")]:
    before = (channels - 3) // 2 if where == "both" else 0
    case(f"subsample_and_pad {channels} channels, stride {stride}, {where}",
         lambda x, a=(stride, channels, where): ops.subsample_and_pad(x, *a),
         lambda x, s=stride, b=before, c=channels: nn().pad(x[:, :, ::s, ::s], (0, 0, 0, 0, b, c - 3 - b)),
         (2, 3, 5, 4))

# normalisation, losses
for bn_shape in [(7, 3), (3, 2), (2, 3, 4, 5), (5, 1, 2, 3)]:
    c = bn_shape[1]
    case(f"batch_norm {bn_shape}", lambda x, w, b: ops.batch_norm(x, w, b)[0],
         lambda x, w, b: nn().batch_norm(x, None, None, w, b, True), bn_shape, positive(c), (c,))
    mean, var = normal(c, seed=8), positive(c, seed=9)
    case(f"batch_norm_eval {bn_shape}",
         lambda x, w, b, m=mean, v=var: ops.batch_norm_eval(x, w, b, m.astype(x.dtype), v.astype(x.dtype)),
         lambda x, w, b, m=mean, v=var: nn().batch_norm(x, torch.tensor(m).to(x), torch.tensor(v).to(x), w, b),
         bn_shape, positive(c), (c,))
for bn_shape, gamma in [((7, 3), positive(3)), ((2, 3, 4, 5), normal(3, seed=6))]:
    case(f"batch_norm_relu {bn_shape}", lambda x, w, b: ops.batch_norm_relu(x, w, b)[0],
         lambda x, w, b: nn().batch_norm(x, None, None, w, b, True).relu(), bn_shape, gamma, (3,))
    case(f"batch_norm_relu with skip {bn_shape}", lambda x, w, b, s: ops.batch_norm_relu(x, w, b, 0.1, s)[0],
         lambda x, w, b, s: (nn().batch_norm(x, None, None, w, b, True, eps=0.1) + s).relu(), bn_shape, gamma, (3,),
         normal(*bn_shape, seed=7))
case("batch_norm strided", lambda x, w, b: ops.batch_norm(x, w, b, 0.1)[0],
     lambda x, w, b: nn().batch_norm(x, None, None, w, b, True, eps=0.1), strided(4, 3, 2, 5), positive(3), (3,))
for axis in (-1, 0, 1):
    case(f"log_softmax axis {axis}", lambda z, a=axis: ops.log_softmax(z, a), lambda z, a=axis: z.log_softmax(a),
         (3, 4, 2))
    case(f"softmax axis {axis}", lambda z, a=axis: ops.softmax(z, a), lambda z, a=axis: z.softmax(a), (3, 4, 2))
LABELS = np.array([3, 0, 3, 1, 2])
case("cross_entropy", lambda z: ops.cross_entropy(z, LABELS), lambda z: nn().cross_entropy(z, torch.tensor(LABELS)),
     (5, 4))
case("cross_entropy of one, uint8", lambda z: ops.cross_entropy(z, np.array([1], np.uint8)),
     lambda z: nn().cross_entropy(z, torch.tensor([1])), (1, 3))
CLASS_WEIGHT, MAP = np.array([0.5, 2.0, 1.0, 3.0]), np.random.default_rng(4).integers(0, 4, (2, 3, 5))
for options in ({"weight": CLASS_WEIGHT}, {"ignore_index": 3}, {"label_smoothing": 0.3}, {"reduction": "sum"},
                {"reduction": "none", "weight": CLASS_WEIGHT, "ignore_index": 1, "label_smoothing": 0.2},
                {"weight": CLASS_WEIGHT, "ignore_index": 1, "label_smoothing": 0.2}):
    def theirs(z, labels, o=options):
        o = {k: torch.tensor(v).to(z) if k == "weight" else v for k, v in o.items()}
        return nn().cross_entropy(z, torch.tensor(labels), **o)
    case(f"cross_entropy with {', '.join(options)}", lambda z, o=options: ops.cross_entropy(z, LABELS, **o),
         lambda z, f=theirs: f(z, LABELS), (5, 4))
    case(f"cross_entropy of maps with {', '.join(options)}", lambda z, o=options: ops.cross_entropy(z, MAP, **o),
         lambda z, f=theirs: f(z, MAP), (2, 4, 3, 5))
case("cross_entropy of maps", lambda z: ops.cross_entropy(z, MAP), lambda z: nn().cross_entropy(z, torch.tensor(MAP)),
     (2, 4, 3, 5))
DROPPED = np.random.default_rng(3).random((3, 4), np.float32) >= 0.4
case("dropout", lambda x: ops.dropout(x, 0.4, rng=np.random.default_rng(3)),
     lambda x: x * torch.tensor(DROPPED).to(x) / 0.6, (3, 4))
case("astype", lambda x: x.astype(np.float64), lambda x: x.to(torch.float64), (2, 3))


def test_the_table_misses_no_operation():
    applied = {type(t.creator) for ours, _, arrays in CASES.values()
               for t in topological_order(ours(*(Tensor(a, True) for a in arrays)))}
    there = {f for f in vars(minires.ops).values() if isinstance(f, type) and issubclass(f, Function)} - {Function}
    assert there - applied == set()


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    ours, _, arrays = CASES[name]
    assert gradcheck(ours, *arrays, entries=60).kinks == []


PRECISIONS = {"float64": (np.float64, "auto", 1e-12), "float32": (np.float32, "auto", 1e-5),
              "float32 by the reference kernels": (np.float32, "reference", 1e-5)}


@needs_torch
@pytest.mark.parametrize("name, precision", every(2, product(CASES, PRECISIONS)))
def test_against_pytorch(name, precision):
    dtype, which, rtol = PRECISIONS[precision]
    ours, theirs, arrays = CASES[name]
    arrays = [a.astype(dtype, order="K") for a in arrays]
    with kernels.using(which):
        y, g, grads = output_and_grads(ours, arrays)
    expected, expected_grads = torch_output_and_grads(theirs, arrays, g)
    assert difference(y, expected) <= rtol
    for got, want in zip(grads, expected_grads, strict=True):
        assert difference(got, want) <= rtol


@pytest.mark.parametrize("dtype, name", every(2, product([np.float32, np.float64], CASES)))
def test_dtype_shape_and_memory(name, dtype):
    if name == "astype" and dtype == np.float32:
        return
    ours, _, arrays = CASES[name]
    y, g, grads = output_and_grads(ours, [a.astype(dtype, order="K") for a in arrays])
    assert y.dtype == dtype
    for a, grad in zip(arrays, grads, strict=True):
        assert isinstance(grad, np.ndarray) and grad.dtype == dtype and grad.shape == a.shape
    held = [*grads, g]
    assert not any(np.shares_memory(p, q) for i, p in enumerate(held) for q in held[:i])


@pytest.mark.parametrize("name", every(3, CASES))
def test_forward_twice_then_backward_of_the_first(name):
    ours, _, arrays = CASES[name]
    g = output_and_grads(ours, arrays)[1]
    first, second = ([Tensor(a * k, True) for a in arrays] for k in (1.0, 1.5))
    y = ours(*first)
    ours(*second)
    y.backward(g)
    for got, want in zip(first, output_and_grads(ours, arrays)[2], strict=True):
        assert same_bits(got.grad, want)


@pytest.mark.parametrize("name", every(3, CASES))
def test_a_gradient_of_zero_gives_zero(name):
    ours, _, arrays = CASES[name]
    tensors = [Tensor(a, True) for a in arrays]
    y = ours(*tensors)
    y.backward(np.zeros(y.shape))
    assert not any(t.grad.any() for t in tensors)


# ------------------------------------------------------------------------------ float32 stays float32

SCALARS = [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.sqrt(2), math.sqrt(2)]


@pytest.mark.parametrize("s", SCALARS, ids=lambda s: f"{type(s).__name__} {float(s):.3g}")
def test_a_scalar_takes_the_dtype_of_the_tensor(s):
    for f in (lambda x: x + s, lambda x: s + x, lambda x: x - s, lambda x: s - x, lambda x: x * s, lambda x: s * x,
              lambda x: x / s, lambda x: s / x, lambda x: x ** s, lambda x: ops.maximum(x, s)):
        for dtype in (np.float32, np.float64):
            y, _, (grad,) = output_and_grads(f, [positive(2, 3).astype(dtype)])
            assert y.dtype == grad.dtype == dtype
    np.testing.assert_allclose((Tensor(np.full(2, 3.0)) ** s).data, 3.0 ** float(s), rtol=1e-15)


@pytest.mark.parametrize("f", [pytest.param(f, id=name) for name, f in {
    "batch_norm, eps": lambda x: ops.batch_norm(x, Tensor(np.ones(3, np.float32)), Tensor(np.ones(3, np.float32)),
                                                np.float64(1e-5))[0],
    "batch_norm_eval, eps": lambda x: ops.batch_norm_eval(x, Tensor(np.ones(3, np.float32)),
                                                          Tensor(np.ones(3, np.float32)), np.zeros(3, np.float32),
                                                          np.ones(3, np.float32), np.float64(1e-5)),
    "dropout, p": lambda x: ops.dropout(x, np.float64(0.5), rng=np.random.default_rng(0)),
    "pad, value": lambda x: ops.pad(x, [(1, 1), (0, 0)], np.float64(2)),
    "var, correction": lambda x: ops.var(x, 0, correction=np.float64(1))}.items()])
def test_a_numpy_option_promotes_nothing(f):
    y, _, (grad,) = output_and_grads(f, [normal(4, 3, dtype=np.float32)])
    assert y.dtype == grad.dtype == np.float32


def test_batch_norm_eval_takes_statistics_of_its_dtype():
    x, one = Tensor(normal(4, 3, dtype=np.float32)), Tensor(np.ones(3, np.float32))
    with pytest.raises((TypeError, ValueError), match=r"BatchNormEval.*float64"):
        ops.batch_norm_eval(x, one, one, np.zeros(3), np.ones(3))


def test_astype_goes_there_and_back():
    x = Tensor(np.array([1.0, 0.1], np.float32), True)
    y = x.astype(np.float64)
    y.backward(np.array([1 / 3, 2.0]))
    assert y.dtype == np.float64 and x.grad.dtype == np.float32
    assert x.grad.tolist() == [float(np.float32(1 / 3)), 2.0]


# -------------------------------------------------------------------------------------- plain loops


@pytest.mark.parametrize("xs, ws, s, p, d, groups", [(*case, 1, 1) for case in CONVOLUTIONS.values()]
                         + [*SPARSE.values()], ids=[*CONVOLUTIONS, *SPARSE])
def test_conv2d_is_the_plain_loop(xs, ws, s, p, d, groups):
    x, w = normal(*xs), normal(*ws, seed=1)
    (sh, sw), (ph, pw), (dh, dw) = ops.pair(s), ops.pair(p), ops.pair(d)
    (N, _, H, W), (O, C, kh, kw) = xs, ws
    y = np.empty((N, O, (H + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (W + 2 * pw - dw * (kw - 1) - 1) // sw + 1))
    for n, o, r, q in np.ndindex(y.shape):
        total, first = 0.0, o // (O // groups) * C  # of the channels that output o sees
        for c, i, j in product(range(C), range(kh), range(kw)):
            h, v = r * sh + dh * i - ph, q * sw + dw * j - pw
            if 0 <= h < H and 0 <= v < W:
                total += x[n, first + c, h, v] * w[o, c, i, j]
        y[n, o, r, q] = total
    assert difference(ops.conv2d(Tensor(x), Tensor(w), None, s, p, d, groups).data, y) < 1e-14


@pytest.mark.parametrize("xs, k, s, p", POOLS.values(), ids=POOLS)
def test_pooling_is_the_plain_loop(xs, k, s, p):
    x = normal(*xs)
    (kh, kw), (sh, sw), (ph, pw) = ops.pair(k), ops.pair(s or k), ops.pair(p)
    N, C, H, W = xs
    shape = (N, C, (H + 2 * ph - kh) // sh + 1, (W + 2 * pw - kw) // sw + 1)
    largest, mean = np.empty(shape), np.empty(shape)
    for n, c, r, q in np.ndindex(shape):
        window = [x[n, c, h, v] for h in range(r * sh - ph, r * sh - ph + kh)
                  for v in range(q * sw - pw, q * sw - pw + kw) if 0 <= h < H and 0 <= v < W]
        largest[n, c, r, q] = max(window)
        mean[n, c, r, q] = sum(window) / (kh * kw)
    assert same_bits(ops.max_pool2d(Tensor(x), k, s, p).data, largest)
    assert difference(ops.avg_pool2d(Tensor(x), k, s, p).data, mean) < 1e-14


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-6), (np.float64, 1e-11)])
def test_normal_cdf_is_the_error_function_of_the_standard_library(dtype, rtol):
    x = np.array([-40, -38.5, -12.25, -3.0078125, -0.7, -1 / 128, 0, 1e-9, 0.4, 5.55, 9, 50], dtype)
    exact = [0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    np.testing.assert_allclose(reference.normal_cdf(x)[2:], exact[2:], rtol=rtol)
    assert abs(reference.normal_cdf(x)[:2] - exact[:2]).max() < 1e-300
    assert np.isnan(reference.normal_cdf(np.array([np.nan], dtype))).all()
    assert reference.normal_cdf(np.array([-np.inf, np.inf], dtype)).tolist() == [0, 1]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (9, 2)])
def test_adaptive_pooling_is_the_plain_loop(size):
    x, (rows, columns) = normal(2, 3, 7, 5), size
    y = np.empty((2, 3, rows, columns))
    for i, j in np.ndindex(size):
        y[:, :, i, j] = x[:, :, 7 * i // rows:math.ceil(7 * (i + 1) / rows),
                          5 * j // columns:math.ceil(5 * (j + 1) / columns)].mean((2, 3))
    assert difference(ops.adaptive_avg_pool2d(Tensor(x), size).data, y) < 1e-14


def test_what_is_not_finite_stays_in_its_bands():
    """Regression: as products with matrices of weights, 0 times infinity was NaN everywhere."""
    x = normal(1, 1, 7, 5)
    x[0, 0, 0, 0], x[0, 0, 6, 4] = np.inf, np.nan
    y = ops.adaptive_avg_pool2d(Tensor(x), (3, 2)).data[0, 0]
    assert y[0, 0] == np.inf and np.isnan(y[2, 1]) and np.isfinite(y).sum() == 4


def test_operations_on_arrays_without_elements():
    assert ops.max(Tensor(np.empty((0, 3))), 1).shape == ops.min(Tensor(np.empty((0, 3))), 1).shape == (0,)
    x, w = Tensor(np.empty((2, 0)), True), Tensor(np.empty((4, 0)), True)
    y = ops.linear(x, w)
    y.backward(np.ones((2, 4)))
    assert y.data.tolist() == [[0] * 4] * 2 and x.grad.shape == (2, 0) and w.grad.shape == (4, 0)
    x = Tensor(np.empty((2, 0, 3)), True)
    y = ops.linear(x, Tensor(np.ones((4, 3)), True))
    y.backward(np.empty(y.shape))
    assert y.shape == (2, 0, 4) and x.grad.shape == (2, 0, 3)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("size, k, s, p", [((5, 8), (3, 2), (2, 3), (1, 1)), ((6, 7), 3, 2, 0), ((4, 5), 2, 3, 1)])
def test_avg_pool2d_counts_what_it_should(size, k, s, p, padded):
    x, (kh, kw), (sh, sw), (ph, pw) = normal(2, 3, *size), ops.pair(k), ops.pair(s), ops.pair(p)
    y = ops.avg_pool2d(Tensor(x), k, s, p, ceil_mode=True, count_include_pad=padded).data
    for r, q in np.ndindex(y.shape[2:]):
        inside = [(h, v) for h in range(r * sh - ph, r * sh - ph + kh) for v in range(q * sw - pw, q * sw - pw + kw)
                  if 0 <= h < size[0] and 0 <= v < size[1]]
        count = len(inside)
        if padded:
            count = ((min(r * sh + kh - ph, size[0] + ph) - (r * sh - ph))
                     * (min(q * sw + kw - pw, size[1] + pw) - (q * sw - pw)))
        np.testing.assert_allclose(y[:, :, r, q], sum(x[:, :, h, v] for h, v in inside) / count, rtol=1e-13)
    last = [(n - 1) * step - pad for n, step, pad in zip(y.shape[2:], (sh, sw), (ph, pw), strict=True)]
    assert all(at < n for at, n in zip(last, size, strict=True))  # the last window contains a pixel


def test_cross_entropy_with_all_options_is_the_plain_loop():
    z, labels, w, eps = normal(5, 4), [3, 0, 3, 1, 2], [0.5, 2.0, 1.0, 3.0], 0.2
    losses, weights = [], []
    for row, k in zip(z, labels, strict=True):
        log_p = [v - math.log(sum(math.exp(u) for u in row)) for v in row]
        counts = k != 1
        smooth = eps / 4 * sum(a * b for a, b in zip(w, log_p, strict=True))
        losses.append(-counts * ((1 - eps) * w[k] * log_p[k] + smooth))
        weights.append(counts * w[k])
    options = {"weight": w, "ignore_index": 1, "label_smoothing": eps}
    for reduction, expected in ("none", losses), ("sum", sum(losses)), ("mean", sum(losses) / sum(weights)):
        got = ops.cross_entropy(Tensor(z), labels, **options, reduction=reduction).data
        assert difference(got, expected) < 1e-14


def test_cross_entropy_of_a_class_that_cannot_be():
    """A masked class has the logit -inf; 0 times its log-probability would be NaN."""
    z = Tensor(np.array([[1.0, -np.inf, 2.0]]), True)
    loss = ops.cross_entropy(z, [0], weight=[1, 1, 1])
    loss.backward()
    assert abs(loss.item() - math.log(1 + math.e)) < 1e-15 and z.grad[0, 1] == 0


@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 4, 5)])
def test_batch_norm_is_the_plain_loop(shape):
    x, gamma, beta = normal(*shape), positive(3), normal(3, seed=1)
    y, means, variances = np.empty(shape), [], []
    for c in range(3):
        values = [float(v) for v in x[:, c].ravel()]
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)  # biased
        means.append(mean)
        variances.append(var)
        for at in np.ndindex(x[:, c].shape):
            y[(at[0], c, *at[1:])] = gamma[c] * (x[:, c][at] - mean) / math.sqrt(var + 1e-5) + beta[c]
    out, mean, var = ops.batch_norm(Tensor(x), Tensor(gamma), Tensor(beta))
    assert difference(out.data, y) < 1e-14 and difference(mean, means) < 1e-13 and difference(var, variances) < 1e-14


def test_softmax_and_cross_entropy_are_the_plain_loop():
    z, labels = normal(5, 4) * 3, [3, 0, 3, 1, 2]
    p = [[math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in z]
    loss = -sum(math.log(p[i][k]) for i, k in enumerate(labels)) / 5
    assert difference(ops.softmax(Tensor(z)).data, p) < 1e-14
    assert difference(ops.log_softmax(Tensor(z)).data, np.log(p)) < 1e-14
    assert abs(ops.cross_entropy(Tensor(z), labels).item() - loss) < 1e-14  # labels in a plain list


# -------------------------------------------------------------------------------------- conventions


def grads(f, *arrays):
    tensors = [Tensor(np.array(a, np.float64), True) for a in arrays]
    y = f(*tensors)
    y.backward(np.arange(1.0, 1 + y.size).reshape(y.shape))  # 1, 2, 3, ..., so that nothing cancels
    return y.data.tolist(), *(t.grad.tolist() for t in tensors)


def test_slopes_at_kinks():
    assert grads(ops.relu, [-1, 0, 2]) == ([0, 0, 2], [0, 0, 3])
    assert grads(abs, [-2, 0, 2]) == ([2, 0, 2], [-1, 0, 3])
    assert grads(ops.maximum, [1, 2, 3], [3, 2, 1]) == ([3, 2, 3], [0, 2, 3], [1, 0, 0])  # a tie goes to the first


def test_slopes_at_kinks_of_what_selects():
    assert grads(lambda x: ops.leaky_relu(x, 0.5), [-2, 0, 2]) == ([-1, 0, 2], [0.5, 1, 3])
    assert grads(ops.minimum, [1, 2, 3], [3, 2, 1]) == ([1, 2, 1], [1, 2, 0], [0, 0, 3])  # a tie goes to the first
    assert grads(lambda x: x.clip(-1, 1), [-2, -1, 0, 1, 2]) == ([-1, -1, 0, 1, 1], [0, 2, 3, 4, 0])
    assert grads(lambda a, b: ops.where([True, False], a, b), [1, 2], [3, 4]) == ([1, 4], [1, 0], [0, 2])
    assert grads(lambda x: x.min(), [[5, 1], [1, 1]]) == (1, [[0, 1], [0, 0]])


def test_where_hides_what_it_does_not_select():
    """`where` is the way around a root of 0 or a logarithm of a negative number: no NaN passes, in either direction."""
    x = Tensor(np.array([0.0, 4.0]), True)
    safe = ops.where(x > 0, x, 1.0)
    ops.where(x > 0, safe.sqrt(), 0.0).backward(np.array([1.0, 1.0]))
    assert x.grad.tolist() == [0, 0.25]
    a, b = Tensor(np.ones(2), True), Tensor(np.ones(2), True)
    ops.where([True, False], a, b).backward(np.array([np.inf, 1.0]))
    assert a.grad.tolist() == [np.inf, 0] and b.grad.tolist() == [0, 1]


def test_the_standard_deviation_of_equal_numbers_has_the_gradient_zero():
    assert grads(lambda x: x.std(1), [[3, 3], [1, 3]]) == ([0, 1], [[0, 0], [-1, 1]])


def test_powers_at_zero():
    assert grads(lambda a, b: a ** b, [0, 0, 2, 2], [0, 3, 0, 1])[:2] == ([1, 0, 1, 2], [0, 0, 0, 4])
    assert grads(lambda a, b: a ** b, [0, 0, 1], [0, 3, 5])[2] == [0, 0, 0]
    assert grads(lambda b: 2 ** b, [0, 1, 3])[0] == [1, 2, 8]


def test_a_comparison_is_an_array_of_booleans_and_a_condition():
    x = Tensor([-1.0, 0, 2])
    assert (x > 0).dtype == bool and (x > 0).tolist() == (1 <= x).tolist() == [False, False, True]  # noqa: SIM300
    condition = x > 0
    y = ops.where(condition, x, 0)
    condition[:] = False  # the caller may change its array
    assert y.data.tolist() == [0, 0, 2] and x[x > 0].data.tolist() == [2]


def test_ties_in_max_go_to_the_first():
    assert grads(lambda x: x.max(), [[1, 5], [5, 5]]) == (5, [[0, 1], [0, 0]])
    assert grads(lambda x: x.max(1), [[5, 5], [1, 1], [0, 3]]) == ([5, 1, 3], [[1, 0], [2, 0], [0, 3]])
    assert grads(lambda x: x.max(0, True), [[2, 1], [2, 1]]) == ([[2, 1]], [[1, 2], [0, 0]])


@pytest.mark.parametrize("axis", [None, (0, 1), (1, 0), (-1, -2)])
def test_the_first_is_the_first_however_the_axes_are_listed(axis):
    assert grads(lambda x: x.max(axis), [[1, 5], [5, 1]]) == (5, [[0, 1], [0, 0]])


def test_ties_in_max_pool_go_to_the_first_of_the_window():
    x = [[[[7, 7, 0, 1], [7, 7, 1, 0]]]]
    assert grads(lambda x: ops.max_pool2d(x, 2), x) == ([[[[7, 1]]]], [[[[1, 0, 0, 2], [0, 0, 0, 0]]]])
    # In overlapping windows the middle column wins once and the left column wins once.
    assert grads(lambda x: ops.max_pool2d(x, (1, 2), 1), [[[[3, 3, 2]]]]) == ([[[[3, 3]]]], [[[[1, 2, 0]]]])


def test_the_padding_of_max_pool_never_wins():
    y, gx = grads(lambda x: ops.max_pool2d(x, 3, 2, 1), [[[[-5, -6], [-7, -8]]]])
    assert y == [[[[-5]]]] and gx == [[[[1, 0], [0, 0]]]]


def test_nan_is_seen_and_not_hidden():
    x = np.array([[[[1, np.nan, 2, 3]]]])
    y = Tensor(x, True)
    pooled = ops.max_pool2d(y, (1, 2))
    assert math.isnan(pooled.data[0, 0, 0, 0]) and pooled.data[0, 0, 0, 1] == 3
    pooled.backward(np.ones((1, 1, 1, 2)))
    assert y.grad.ravel().tolist() == [0, 1, 0, 1]
    for f in (ops.relu, ops.max, ops.mean, ops.log_softmax, lambda t: ops.maximum(t, 0.0),
              lambda t: ops.avg_pool2d(t, (1, 2))):
        assert np.isnan(f(Tensor(x)).data).any()


def test_repeated_indices_add_up():
    assert grads(lambda x: x[np.array([0, 2, 0])], [5, 6, 7]) == ([5, 7, 5], [1 + 3, 0, 2])
    assert grads(lambda x: x[[0, 0], [1, 1]], [[5, 6]]) == ([6, 6], [[0, 3]])


def test_mean_divides_by_what_it_reduced():
    assert grads(lambda x: x.mean(0), [[1, 2], [3, 4], [5, 6]]) == ([3, 4], [[1 / 3, 2 / 3]] * 3)


def test_pow_at_zero_and_zero_to_the_zero():
    assert grads(lambda x: x ** 0, [0, 2]) == ([1, 1], [0, 0])
    assert grads(lambda x: x ** 2, [0, 2]) == ([0, 4], [0, 8])
    assert grads(lambda x: x ** 1, [0, -2]) == ([0, -2], [1, 2])


def test_sigmoid_does_not_overflow():
    y, gx = grads(ops.sigmoid, [-1e4, 0, 1e4])
    assert y == [0, 0.5, 1] and gx == [0, 0.5, 0]


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_sigmoid_keeps_its_digits_far_from_zero(dtype, rtol):
    x = np.array([-80, -20, -10, -1, 0, 1, 10, 80], dtype)
    exact = [1 / (1 + math.exp(-v)) for v in x.tolist()]
    t = Tensor(x, True)
    y = ops.sigmoid(t)
    y.backward(np.ones_like(x))
    np.testing.assert_allclose(y.data, exact, rtol=rtol)
    slope = [s / (1 + math.exp(v)) for s, v in zip(exact, x.tolist(), strict=True)]
    np.testing.assert_allclose(t.grad[:5], slope[:5], rtol=rtol)  # not for x >> 0, where 1 - s is rounded


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_is_stable_at_logits_of_10000(dtype):
    z = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, 0]], dtype)
    expected = np.array([[0, -2e4, -1e4], [-math.log(3)] * 3, [-math.log(2), -math.log(2), -1e4 - math.log(2)]])
    assert difference(ops.log_softmax(Tensor(z)).data, expected) < 1e-7
    np.testing.assert_allclose(ops.softmax(Tensor(z)).data, [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]], rtol=1e-6)
    logits = Tensor(z, True)
    loss = ops.cross_entropy(logits, [1, 0, 0])
    loss.backward()
    np.testing.assert_allclose(loss.item(), (2e4 + math.log(3) + math.log(2)) / 3, rtol=1e-6)
    expected = np.array([[1, -1, 0], [-2 / 3, 1 / 3, 1 / 3], [-0.5, 0.5, 0]]) / 3
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-5)


def test_cross_entropy_of_equal_logits_is_log_k():
    assert abs(ops.cross_entropy(Tensor(np.zeros((6, 10))), np.arange(6)).item() - math.log(10)) < 1e-15


def test_cross_entropy_is_the_mean_of_its_parts():
    z, labels = normal(5, 4), [3, 0, 3, 1, 2]
    parts = (-ops.log_softmax(Tensor(z), 1)[np.arange(5), np.array(labels)]).mean()
    assert abs(ops.cross_entropy(Tensor(z), labels).item() - parts.item()) < 1e-15


# ---------------------------------------------------------------------------------------- batch norm


def test_batch_norm_of_a_large_mean_keeps_its_digits():  # E[x^2] - mean^2 would lose all of them in float32
    x = (1e4 + normal(16, 3, 4, 5)).astype(np.float32)
    gamma, beta = np.float32([1, 2, 0.5]), np.float32([0, 1, -1])
    y32 = ops.batch_norm(Tensor(x), Tensor(gamma), Tensor(beta))[0].data
    exact = ops.batch_norm(*(Tensor(a.astype(np.float64)) for a in (x, gamma, beta)))[0].data
    assert y32.dtype == np.float32 and difference(y32, exact) < 2e-3  # only the mean is rounded


def test_a_constant_channel_is_normalised_to_beta():
    x = np.full((4, 2, 3, 5), 7.0)
    y, mean, var = ops.batch_norm(Tensor(x), Tensor(np.ones(2)), Tensor(np.array([0.5, -1])))
    assert (y.data[:, 0] == 0.5).all() and (y.data[:, 1] == -1).all()
    assert mean.tolist() == [7, 7] and var.tolist() == [0, 0]


def test_eps_stands_inside_the_square_root():
    y, _, _ = ops.batch_norm(Tensor(np.array([[1.0], [-1.0]])), Tensor(np.ones(1)), Tensor(np.zeros(1)), eps=3.0)
    assert y.data.tolist() == [[0.5], [-0.5]]  # 1 / sqrt(1 + 3), not 1 / (1 + sqrt(3))


# ------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout(p):
    x = Tensor(np.ones((300, 400), np.float32), True)
    y = ops.dropout(x, p, rng=np.random.default_rng(1))
    kept = y.data != 0
    assert set(np.unique(y.data)) == {np.float32(0), np.float32(1 / (1 - p))}
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / kept.size)
    y.backward(np.full(y.shape, 2, np.float32))
    assert same_bits(x.grad, 2 * y.data)
    assert same_bits(y.data, ops.dropout(x, p, rng=np.random.default_rng(1)).data)  # the same seed gives the same mask
    assert not same_bits(y.data, ops.dropout(x, p, rng=np.random.default_rng(2)).data)


def test_dropout_draws_the_same_mask_for_both_dtypes():
    masks = [ops.dropout(Tensor(np.ones(1000, d)), 0.3, rng=np.random.default_rng(1)).data != 0
             for d in (np.float32, np.float64)]
    assert (masks[0] == masks[1]).all()


def test_dropout_that_does_nothing_returns_its_input():
    x, rng = Tensor(np.ones(5)), np.random.default_rng(0)
    assert ops.dropout(x, 0.5, training=False, rng=rng) is x and ops.dropout(x, 0, rng=rng) is x
    assert rng.random() == np.random.default_rng(0).random()  # it drew no numbers


def test_every_op_takes_read_only_arrays_that_it_leaves_alone():
    for ours, _, arrays in CASES.values():
        copies = [read_only(a.copy()) for a in arrays]
        output_and_grads(ours, copies)
        assert all(same_bits(a, b) for a, b in zip(copies, arrays, strict=True))


def test_a_window_of_a_dilated_pool_that_would_see_only_padding_is_refused():
    """With gaps a window may step over a small image; and it may be wider than twice the padding."""
    with pytest.raises(ValueError, match=r"padding \(1, 1\), dilation \(3, 3\): a window of the kernel \(2, 2\) would"):
        ops.max_pool2d(Tensor(np.ones((1, 1, 2, 2))), 2, 1, 1, dilation=3)
    x = normal(1, 2, 9, 9)
    y = ops.max_pool2d(Tensor(x), 3, 1, 2, dilation=2).data
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=-np.inf)
    taps = [padded[:, :, i:i + 9, j:j + 9] for i in (0, 2, 4) for j in (0, 2, 4)]
    assert np.isfinite(y).all() and (y == np.max(taps, 0)).all()
