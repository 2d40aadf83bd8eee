"""This module compares results of the GPU with results of NumPy.

It covers operations, kernels at the sizes of real networks, models, and a training run. Each function yields rows
{"what", "error", "limit", "repeats", "ok"}. "error" is the largest relative error over outputs and gradients: the
Euclidean norm of the difference, divided by the norm of NumPy's result. "repeats" is True if a second run gave the same
bits.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minires import Tensor, device, kernels, models, no_grad, ops, optim, train
from minires.cuda_graph import GraphedStep
from minires.datasets.augment import crop_and_flip
from minires.kernels import reference

F4 = np.float32
LIMIT = 1e-4  # relative error, for float32
Row = dict[str, Any]

# {name: (function, shapes of its inputs)}
INDEX = np.array([2, 0, 2])
OPERATIONS = {
    "add": (lambda a, b: a + b, (2, 3, 4, 5), (2, 3, 4, 5)), "add, broadcast": (lambda a, b: a + b, (2, 3), (3,)),
    "sub": (lambda a, b: 1 - a - b, (2, 3), (2, 1)), "mul": (lambda a, b: 2.5 * a * b, (2, 3), (2, 3)),
    "div": (lambda a, b: 1 / (a * a + 1) / (b * b + 1), (2, 3), (3,)), "neg": (lambda a: -a, (4,)),
    "pow": (lambda a: a ** 3 + a ** 0, (2, 3)), "exp": (lambda a: a.exp(), (2, 3)),
    "log": (lambda a: (a * a + 1).log(), (5,)), "sqrt": (lambda a: (a * a + 1).sqrt(), (5,)),
    "tanh": (lambda a: a.tanh(), (5,)), "sigmoid": (lambda a: (3 * a).sigmoid(), (5,)),
    "relu": (lambda a: a.relu(), (2, 3, 4, 5)), "abs": (lambda a: abs(a), (5,)),
    "maximum": (lambda a, b: ops.maximum(a, b), (5,), (5,)), "minimum": (lambda a: ops.minimum(0.3, a), (2, 5)),
    "power": (lambda a, b: (a * a + 1) ** b + 2.0 ** b, (2, 3), (3,)), "clip": (lambda a: a.clip(-0.5, 0.7), (2, 5)),
    "where": (lambda a, b: ops.where(a.data > 0, a, b), (2, 3), (3,)),
    "stack": (lambda a, b: ops.stack([a, b], 1), (2, 3), (2, 3)),
    "leaky_relu": (lambda a: ops.leaky_relu(a, 0.2), (2, 3, 4, 5)), "gelu": (ops.gelu, (2, 3, 4, 5)),
    "matmul": (lambda a, b: a @ b, (2, 3, 4), (4, 5)),
    "vectors": (lambda a, b: a @ b, (4,), (4,)),
    "linear": (ops.linear, (6, 4), (3, 4), (3,)),
    "linear, three axes": (ops.linear, (2, 6, 4), (3, 4), (3,)),
    "sum": (lambda a: a.sum((0, 2)), (2, 3, 4)), "mean": (lambda a: a.mean(1, keepdims=True), (2, 3, 4)),
    "var": (lambda a: a.var(0, correction=1), (4, 3)), "std": (lambda a: a.std(1), (2, 5)),
    "min": (lambda a: a.min(1), (2, 5)), "max": (lambda a: a.max((0, 2)), (2, 3, 4)),
    "reshape": (lambda a: a.reshape(3, -1), (2, 3, 4)), "transpose": (lambda a: a.transpose(2, 0, 1), (2, 3, 4)),
    "getitem": (lambda a: a[1:, ..., 0], (3, 4, 2)),
    "getitem, an array": (lambda a: a[device.of(a.data).asarray(INDEX)], (3, 4)),
    "concatenate": (lambda a, b: ops.concatenate([a, b], 1), (2, 3), (2, 4)),
    "pad": (lambda a: ops.pad(a, ((1, 0), (2, 3)), 0.5), (2, 3)),
    "broadcast_to": (lambda a: ops.broadcast_to(a, (4, 2, 3)), (2, 3)),
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, 1, 1), (3, 2, 7, 5), (4, 2, 3, 3), (4,)),
    "conv2d, stride 2": (lambda x, w: ops.conv2d(x, w, None, 2, (0, 1)), (3, 2, 7, 6), (4, 2, 3, 2)),
    "conv2d, 1x1": (lambda x, w: ops.conv2d(x, w), (3, 2, 7, 6), (4, 2, 1, 1)),
    "conv2d, dilation": (lambda x, w: ops.conv2d(x, w, None, 2, 1, (2, 1)), (3, 2, 8, 6), (4, 2, 3, 2)),
    "conv2d, groups": (lambda x, w: ops.conv2d(x, w, None, 1, 1, groups=2), (3, 6, 7, 6), (4, 3, 3, 3)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 3, 2, 1), (2, 3, 7, 6)),
    "max_pool2d, dilation": (lambda x: ops.max_pool2d(x, 3, 2, 1, True, 2), (2, 3, 8, 7)),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, (2, 3), 2), (2, 3, 7, 6)),
    "avg_pool2d, ceil": (lambda x: ops.avg_pool2d(x, 3, 2, 1, True, False), (2, 3, 8, 6)),
    "adaptive_avg_pool2d": (lambda x: ops.adaptive_avg_pool2d(x, (3, 2)), (2, 3, 7, 5)),
    "global_avg_pool2d": (ops.global_avg_pool2d, (2, 3, 4, 5)),
    "batch_norm": (lambda x, g, b: ops.batch_norm(x, g, b)[0], (5, 3, 4, 5), (3,), (3,)),
    "batch_norm, (N, C)": (lambda x, g, b: ops.batch_norm(x, g, b)[0], (6, 3), (3,), (3,)),
    "batch_norm_relu": (lambda x, g, b: ops.batch_norm_relu(x, g, b)[0], (5, 3, 4, 5), (3,), (3,)),
    "batch_norm_relu, skip": (lambda x, g, b, s: ops.batch_norm_relu(x, g, b, skip=s)[0], (5, 3, 4, 5), (3,), (3,),
                              (5, 3, 4, 5)),
    "batch_norm_eval": (lambda x, g, b: ops.batch_norm_eval(x, g, b, abs(g.data), abs(b.data) + 1), (5, 3, 4, 5),
                        (3,), (3,)),
    "subsample_and_pad": (lambda x: ops.subsample_and_pad(x, 2, 7, "both"), (2, 3, 5, 4)),
    "dropout": (lambda x: ops.dropout(x, 0.4, rng=np.random.default_rng(0)), (4, 5)),
    "softmax": (lambda x: ops.softmax(x, 1), (4, 5)), "log_softmax": (lambda x: ops.log_softmax(x, 0), (4, 5)),
    "cross_entropy": (lambda z: ops.cross_entropy(z, device.of(z.data).asarray(np.array([1, 0, 4]))), (3, 5)),
    "cross_entropy, options": (lambda z: ops.cross_entropy(
        z, device.of(z.data).asarray(np.array([[1, 0], [3, 4], [3, 3]])), device.of(z.data).arange(1.0, 6.0), 3, 0.1),
        (3, 5, 2)),
    "astype": (lambda a: a.astype(np.float64).astype(F4), (3,)),
}


def _cifar(depth: int = 8, **options: Any) -> Any:
    return partial(models.cifar, depth, **options)


# {name of a kind of network: (function that builds a small one, smallest size of its images)}. The function still needs
# the arguments in_channels, width and rng.
NETS: dict[str, tuple[Callable[..., Any], int]] = {
    "plain": (_cifar(residual=False), 8), "residual": (_cifar(), 8), "by hand": (_cifar(by_hand=True), 8),
    "option B": (_cifar(shortcut="B"), 8), "by hand, option C": (_cifar(by_hand=True, shortcut="C"), 8),
    "pre-activation": (_cifar(block="preact"), 8),
    "pre-activation by hand": (_cifar(block="preact", by_hand=True, shortcut="B"), 8),
    "bottleneck": (_cifar(11, block="bottleneck", shortcut="B"), 8),
    "pre-activation, bottleneck": (_cifar(11, block="preact_bottleneck"), 8),
    "no norm": (_cifar(residual=False, norm="none"), 8), "fixup": (_cifar(norm="fixup"), 8),
    "gated shortcuts": (partial(models.shortcut_study, "exclusive_gating", 8), 8),
    "BN after the addition": (partial(models.placement_study, "bn_after_addition", 8), 8),
    "ResNet-50": (partial(models.imagenet, 50, num_classes=10), 32),
    "ResNeXt-50": (partial(models.imagenet, 50, num_classes=10, groups=2, width_per_group=64), 32),
    "VGG-16 with BN": (partial(models.vgg, 16, batch_norm=True, num_classes=10, hidden=9), 32),
    "GoogLeNet": (partial(models.googlenet, num_classes=10), 32),
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal float32 numbers, the same for the same shape and seed."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F4)


def difference(got: Any, expected: Any) -> float:
    """Return ||got - expected|| / ||expected||, or infinity if shapes differ or a value is not finite."""
    got, expected = np.asarray(device.to(got, "cpu"), np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    scale = float(np.linalg.norm(expected.ravel()))
    return float(np.linalg.norm((got - expected).ravel())) / (scale or 1.0)


def compare(what: str, compute: Callable[..., list[Any]], rounding: bool = False) -> Row:
    """Compare compute("gpu"), which runs twice, with compute("cpu") on the reference kernels.

    compute: compute(where) returns a list of arrays; with `rounding` it also takes a dtype.
    rounding: True raises the limit to ten times the difference between float32 and float64 on the CPU, if this is more
        than LIMIT.
    """
    with kernels.using("reference"):
        expected = compute("cpu")
        limit = LIMIT
        if rounding:
            limit = max(limit, *(10 * difference(a, b) for a, b in zip(expected, compute("cpu", np.float64),
                                                                       strict=True)))
    first, second = ([device.to(a, "cpu") for a in compute("gpu")] for _ in range(2))
    error = max(difference(a, b) for a, b in zip(first, expected, strict=True))
    repeats = all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    return {"what": what, "error": error, "limit": limit, "repeats": repeats, "ok": error <= limit and repeats}


def operations() -> Iterator[Row]:
    """Compare every operation and its gradients."""
    for name, (f, *shapes) in OPERATIONS.items():
        def compute(where: str, f: Any = f, shapes: Any = shapes) -> list[Any]:
            tensors = [Tensor(device.to(normal(*s, seed=i), where), True) for i, s in enumerate(shapes)]
            y = f(*tensors)
            y.backward(device.to(normal(*y.shape, seed=9), where))
            return [y.data, *(t.grad for t in tensors)]
        yield compare(name, compute)


def real_sizes(n: int = 128, small: bool = False) -> Iterator[Row]:
    """Compare the kernels of a training step, at the shapes of CIFAR and ImageNet networks."""
    shapes = [(n, 3, 16, 32, 3, 1), (n, 16, 16, 32, 3, 1), (n, 16, 32, 32, 3, 2), (n, 64, 64, 8, 3, 1),
              (n // 16, 3, 64, 224, 7, 2), (n // 16, 64, 256, 56, 1, 1), (n // 16, 256, 512, 56, 1, 2)]
    for N, C, O, size, k, stride in shapes[:4] if small else shapes:
        def conv(where: str, a: Any = (N, C, O, size, k, stride)) -> list[Any]:
            N, C, O, size, k, stride = a
            x, w = (device.to(v, where) for v in (normal(N, C, size, size), normal(O, C, k, k, seed=1)))
            K, geometry = kernels.of(x), ((stride, stride), (k // 2, k // 2))
            y = K.conv2d(x, w, *geometry)
            return [y, *K.conv2d_backward(device.to(normal(*y.shape, seed=2), where), x, w, *geometry)]
        yield compare(f"convolution {C} -> {O}, {k}x{k}, stride {stride}, of {N}x{size}x{size}", conv)

        def norm(where: str, shape: Any = (N, O, size // stride, size // stride)) -> list[Any]:
            x, g, skip = (device.to(normal(*shape, seed=s), where) for s in range(3))
            gamma, beta = (device.to(normal(shape[1], seed=s), where) for s in range(2))
            K = kernels.of(x)
            y, mean, var, saved = K.batch_norm_relu(x, gamma, beta, 1e-5, skip)
            return [y, mean, var, *K.batch_norm_relu_backward(g, gamma, saved)]
        yield compare(f"BatchNorm, ReLU and addition of {(N, O, size // stride, size // stride)}", norm)
    def loss(where: str) -> list[Any]:
        z = device.to(normal(n, 1000), where)
        labels = device.to(np.arange(n) % 1000, where)
        K = kernels.of(z)
        value, saved = K.cross_entropy(z, labels)
        return [value, K.cross_entropy_backward(device.to(np.ones((), F4), where), saved, labels)]
    yield compare(f"cross-entropy of {n}x1000", loss)
    def update(where: str) -> list[Any]:
        w, g, v = (device.to(normal(270_000, seed=s), where) for s in range(3))
        return list(kernels.of(w).sgd(w, reference.join([g]), v, 0.1, 0.9, 1e-4))
    yield compare("SGD of 270,000 weights", update)


def images_of(n: int, size: int, classes: int = 10, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and labels, the same at every call."""
    return normal(n, channels, size, size), np.random.default_rng(1).integers(0, classes, n)


def whole_models(n: int = 16, size: int = 16, width: int = 16) -> Iterator[Row]:
    """Compare loss, gradients, statistics and evaluation of every kind of network."""
    for name, (build, least) in NETS.items():
        def compute(where: str, dtype: Any = F4, build: Any = build, size: int = max(size, least)) -> list[Any]:
            model = build(in_channels=3, width=width, rng=np.random.default_rng(0)).astype(dtype).to(where)
            images, labels = images_of(n, size)
            images, labels = device.to(images.astype(dtype), where), device.to(labels, where)
            loss = ops.cross_entropy(model(Tensor(images)), labels)
            loss.backward()
            with no_grad():
                logits = model.eval()(Tensor(images)).data
            # All gradients are joined, because the gradient of a bias before a BatchNorm is 0 and thus only rounding.
            return [loss.data, logits, reference.join([p.grad for p in model.parameters()]),
                    reference.join([t.data for t in model.state().values()])]
        yield compare(name, compute, rounding=True)  # rounding errors grow from layer to layer


def losses(where: str, steps: int, graphed: bool = False, dtype: Any = F4, width: int = 16, n: int = 32,
           size: int = 32) -> list[float]:
    """Return the losses of a short training run of ResNet-8 with augmentation, copied to the host at the end."""
    model = models.cifar(8, width=width, rng=np.random.default_rng(0)).astype(dtype).to(where)
    images, labels = images_of(8 * n, size)
    images, labels = device.to(images.astype(dtype), where), device.to(labels, where)
    optimizer = optim.SGD(model.parameters(), 0.02, 0.9, 1e-4)
    rng, found = np.random.default_rng(3), []
    step = GraphedStep(model, optimizer, images[:n], labels[:n]) if graphed else None
    for number in range(steps):
        rows = device.to(rng.permutation(8 * n)[:n], where)
        batch = crop_and_flip(images[rows], rng=rng), labels[rows]
        found.append(step(*batch) if step else train.step(model, optimizer, *batch, number))
    return [float(v) for v in found]


def training(steps: int = 200, **sizes: Any) -> Row:
    """Compare a training run on the GPU, ordinary and graphed, with the run on NumPy.

    The row also has the difference between float32 and float64 on the CPU, as a yardstick: rounding errors grow from
    step to step on every device.
    """
    cpu, exact = losses("cpu", steps, **sizes), losses("cpu", min(steps, 10), dtype=np.float64, **sizes)
    gpu, again = (losses("gpu", steps, **sizes) for _ in range(2))
    try:
        row: Row = {"graphed_has_the_same_bits": losses("gpu", steps, graphed=True, **sizes) == gpu}
    except Exception as e:  # the other results are still useful
        row = {"graphed_error": f"{type(e).__name__}: {e}"}

    def worst(a: list[float], b: list[float], count: int) -> float:
        return max(abs(x - y) / abs(y) for x, y in zip(a[:count], b[:count], strict=True))
    marks = [m for m in (1, 10, 50, 100, 200) if m <= steps]
    return {"steps": steps, "relative_error_after": {m: worst(gpu, cpu, m) for m in marks}, "limit": LIMIT,
            "float32_and_float64_on_the_cpu": {m: worst(cpu, exact, m) for m in marks if m <= len(exact)},
            "within_limit": worst(gpu, cpu, steps) <= LIMIT, "same_bits_twice": gpu == again,
            **row, "losses": {"cpu": cpu, "gpu": gpu}}
