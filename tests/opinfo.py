"""Compare minires with PyTorch on the inputs of PyTorch's own tests (OpInfo), in float64 and float32.

    python tests/opinfo.py      prints how many inputs agree, are refused, or are listed as different

OURS writes each operation of PyTorch in minires. For every sample input, the result and the gradient of every input,
from a random output gradient, agree with PyTorch's; or minires raises an error that says in words what it expects; or
LISTED says why minires has no such option or another convention. Everything else is "wrong".
"""
import itertools
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from minires import Tensor, ops  # noqa: E402

DTYPES = {torch.float64: 1e-10, torch.float32: 1e-4}


class Listed(Exception):
    """minires does not have this option, or it has another convention. The text says what to write instead."""


def listed(why):
    raise Listed(why)


def scaled(how):
    return lambda x, y, alpha=1: how(x, y if alpha == 1 else y * alpha)


def divide(x, y, rounding_mode=None):
    return x / y if rounding_mode is None else listed("rounding has no gradient; write numpy.floor(x.data / y.data)")


def clamp(x, low=None, high=None):
    if any(isinstance(bound, Tensor) for bound in (low, high)):
        x = x if low is None else ops.maximum(x, low)
        return x if high is None else ops.minimum(x, high)
    return x.clip(low, high)


def reduced(how):
    """Write a reduction. PyTorch reads an empty tuple of axes as all axes; NumPy and minires reduce over no axis."""
    def ours(x, dim=None, keepdim=False, **options):
        if dim is not None and not isinstance(dim, int) and len(dim) == 0:
            listed("an empty tuple of axes means no axis, as in NumPy; write axis=None for all axes")
        return how(x, dim if dim is None or isinstance(dim, int) else tuple(dim), keepdim, **options)
    return ours


def spread(how):
    def ours(x, dim=None, keepdim=False, **options):
        if isinstance(dim, bool):  # var(x, unbiased)
            dim, options["unbiased"] = None, dim
        correction = options.get("correction")
        correction = float(options.get("unbiased", True)) if correction is None else correction
        return reduced(how)(x, dim, keepdim, correction=correction)
    return ours


def largest(how, both):
    def ours(x, *args, **options):
        return both(x, *args) if args and isinstance(args[0], Tensor) else reduced(how)(x, *args, **options)
    return ours


def transpose(x, i, j):
    order = list(range(x.ndim)) or [0]
    order[i], order[j] = order[j], order[i]
    return ops.transpose(x, *order) if x.ndim else x


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    return ops.max_pool2d(x, kernel_size, stride, padding, ceil_mode, dilation)  # the indices are not compared


def avg_pool2d(x, kernel, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None):
    if divisor is not None:
        kh, kw = ops.pair(kernel)
        return ops.avg_pool2d(x, kernel, stride, padding) * (kh * kw / divisor) if not ceil_mode else listed(
            "divisor_override with ceil_mode; write avg_pool2d(pad(x, ...), kernel) * (kh * kw / divisor)")
    return ops.avg_pool2d(x, kernel, stride or None, padding, ceil_mode, count_include_pad)


def batch_norm(x, mean, var, gamma=None, beta=None, training=False, momentum=0.1, eps=1e-5):
    gamma = Tensor(np.ones(x.shape[1:2], x.dtype)) if gamma is None else gamma
    beta = Tensor(np.zeros(x.shape[1:2], x.dtype)) if beta is None else beta
    if training:
        return ops.batch_norm(x, gamma, beta, eps)[0]
    return ops.batch_norm_eval(x, gamma, beta, mean.data, var.data, eps)


def converted(how):
    return lambda x, dim, dtype=None: how(x if dtype is None else x.astype(str(dtype).removeprefix("torch.")), dim)


def cross_entropy(x, labels, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    return ops.cross_entropy(x, labels, weight, ignore_index, label_smoothing, reduction)


def pad(x, widths, mode="constant", value=None):
    pairs = [(0, 0)] * (x.ndim - len(widths) // 2) + [*zip(widths[::2], widths[1::2], strict=True)][::-1]
    return ops.pad(x, pairs, value or 0.0)


COMPARE = {"gt": lambda x, y: x > y, "ge": lambda x, y: x >= y, "lt": lambda x, y: x < y, "le": lambda x, y: x <= y,
           "eq": lambda x, y: x == y, "ne": lambda x, y: x != y}
MATMUL = dict.fromkeys(["matmul", "mm", "bmm", "mv", "dot"], lambda a, b: a @ b)
# {PyTorch's operation: the same in minires}
OURS = {
    "add": scaled(lambda x, y: x + y), "sub": scaled(lambda x, y: x - y), "mul": lambda x, y: x * y, "div": divide,
    "true_divide": divide, "neg": lambda x: -x, "pow": ops.pow, "square": lambda x: x ** 2,
    "__radd__": lambda x, y: y + x, "__rsub__": lambda x, y: y - x, "__rmul__": lambda x, y: y * x,
    "__rdiv__": lambda x, y: y / x, "__rpow__": lambda x, y: y ** x, "__rmatmul__": lambda x, y: y @ x,
    "exp": ops.exp, "log": ops.log, "sqrt": ops.sqrt, "tanh": ops.tanh, "sigmoid": ops.sigmoid, "abs": ops.abs,
    "maximum": ops.maximum, "minimum": ops.minimum, "clamp": clamp, "clamp_min": ops.maximum, "clamp_max": ops.minimum,
    "where": lambda a, condition, b: ops.where(condition, a, b), **MATMUL, **COMPARE,
    "sum": reduced(ops.sum), "mean": reduced(ops.mean), "amax": reduced(ops.max), "amin": reduced(ops.min),
    "var": spread(ops.var), "std": spread(ops.std), "max": largest(ops.max, ops.maximum),
    "min": largest(ops.min, ops.minimum), "reshape": ops.reshape, "permute": lambda x, *axes: ops.transpose(x, *axes),
    "transpose": transpose, "T": lambda x: x.T, "__getitem__": lambda x, index: x[index],
    "cat": lambda parts, dim=0: ops.concatenate(parts, dim), "stack": lambda parts, dim=0: ops.stack(parts, dim),
    "broadcast_to": lambda x, shape: ops.broadcast_to(x, shape),
    "nn.functional.linear": ops.linear, "nn.functional.conv2d": ops.conv2d, "nn.functional.max_pool2d": max_pool2d,
    "nn.functional.avg_pool2d": avg_pool2d, "nn.functional.adaptive_avg_pool2d": ops.adaptive_avg_pool2d,
    "nn.functional.batch_norm": batch_norm, "nn.functional.relu": lambda x, inplace=False: ops.relu(x),
    "nn.functional.leaky_relu": lambda x, negative_slope=0.01, inplace=False: ops.leaky_relu(x, negative_slope),
    "nn.functional.gelu": ops.gelu, "softmax": converted(ops.softmax), "log_softmax": converted(ops.log_softmax),
    "nn.functional.cross_entropy": cross_entropy, "nn.functional.pad": pad,
}
OTHER_VARIANTS = {"triton_optimized", "without_cudnn", "reflect", "replicate", "replicate_negative", "circular"}


def operations():
    """Return the OpInfos of the operations in OURS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db  # here, because it takes seconds
    return [op for op in op_db if op.name in OURS and op.variant_test_name not in OTHER_VARIANTS]


def samples(op, dtype, most=None):
    """Return the samples of an operation, or the first `most` of them."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=op.supports_autograd), most))


def minires_value(value, pairs):
    """Return a value of PyTorch for minires. Tensors of floats are appended to `pairs`, with their counterparts."""
    if isinstance(value, torch.Tensor):
        array = value.detach().numpy().copy()
        if array.dtype.kind != "f":
            return array
        pairs.append((value, Tensor(array, value.requires_grad)))
        return pairs[-1][1]
    if isinstance(value, (list, tuple)):
        return type(value)(minires_value(v, pairs) for v in value)
    if isinstance(value, dict):
        return {k: minires_value(v, pairs) for k, v in value.items()}
    return value


def outcome(op, sample, tolerance):
    """Return "agrees", "refused: ...", "listed: ..." or "wrong: ..."."""
    pairs = []
    x, args, options = (minires_value(v, pairs) for v in (sample.input, sample.args, sample.kwargs))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        theirs = op(sample.input, *sample.args, **sample.kwargs)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        try:
            y = OURS[op.name](x, *args, **options)
        except Listed as e:
            return f"listed: {e}"
        except (ValueError, TypeError, IndexError) as e:
            worded = ": " in str(e) and "keyword argument" not in str(e) and "positional argument" not in str(e)
            return f"{'refused' if worded else 'wrong, not in words'}: {e}"
        if not isinstance(y, Tensor):
            same = y.dtype == bool and y.shape == tuple(theirs.shape) and (y == theirs.numpy()).all()
            return "agrees" if same else "wrong: another comparison"
        expected = theirs.detach().numpy()
        if y.shape != expected.shape or y.dtype != expected.dtype:
            return f"wrong: {y.dtype}{y.shape} instead of {expected.dtype}{expected.shape}"
        if not close(y.data, expected, tolerance):
            return "wrong: the result"
        if theirs.requires_grad:
            g = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
            asked = [(t, mine) for t, mine in pairs if t.requires_grad]
            gradients = torch.autograd.grad(theirs, [t for t, _ in asked], torch.tensor(g), allow_unused=True)
            y.backward(g)
            wanted = [np.zeros(t.shape) if g is None else g.numpy() for g, (t, _) in zip(gradients, asked, strict=True)]
            floor = 1e-2 * max(np.linalg.norm(np.nan_to_num(want)) for want in wanted)
            for want, (_, mine) in zip(wanted, asked, strict=True):
                if not close(np.zeros(want.shape) if mine.grad is None else mine.grad, want, tolerance, floor):
                    return "wrong: a gradient"
    return "agrees"


def close(got, expected, tolerance, floor=0.0):
    """Return True if both have NaN and infinities in the same places, and elsewhere agree within the tolerance.

    floor: A smaller norm counts as this norm. The gradient of a BatchNorm of two numbers is nothing but rounding.
    """
    finite = np.isfinite(expected)
    if got.shape != expected.shape or not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
        return False
    error = np.linalg.norm((got - expected)[finite].astype(np.float64))
    return error <= tolerance * max(np.linalg.norm(expected[finite].astype(np.float64)), floor) + 1e-30


def outcomes(op, dtype, most=None):
    """Yield (sample, outcome) for the samples of an operation, or for the first `most` of them."""
    for sample in samples(op, dtype, most):
        yield sample, outcome(op, sample, DTYPES[dtype])


def report():
    """Print the counts, and the texts of what is not equal."""
    total, texts = Counter(), Counter()
    for op in operations():
        counts = Counter()
        for dtype in DTYPES:
            for sample, result in outcomes(op, dtype):
                kind = result.partition(":")[0].partition(",")[0]
                counts[kind] += 1
                if kind != "agrees":
                    texts[op.name, result.partition("\n")[0]] += 1
                    if kind == "wrong":
                        print("WRONG", op.name, dtype, result, str(sample)[:300])
        total += counts
        print(f"{op.name + ' ' + op.variant_test_name:<42}" + "  ".join(f"{k} {n}" for k, n in counts.items()))
    print("\n".join(f"{n:5} {name}: {text}" for (name, text), n in sorted(texts.items())))
    print(f"PyTorch {torch.__version__}: {total.total()} inputs: " + ", ".join(f"{k} {n}" for k, n in total.items()))


if __name__ == "__main__":
    report()
