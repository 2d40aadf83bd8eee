"""This program runs one of the compared systems in its own process: `python workers.py SYSTEM THREADS`.

A worker reads one JSON request per line from its standard input and answers each with one line. All systems train the
same network from the same weights on the same batch, so that every loss can be compared with the loss of minires. The
network is the CIFAR ResNet of He et al. 2015 with option A shortcuts. Each system provides its own convolution,
BatchNorm and other layers through its public API (`conv`, `norm`, `linear`, `relu`, `shortcut`, `pool`), and `network`
composes them.
"""
from __future__ import annotations

import atexit
import contextlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LR, MOMENTUM, WEIGHT_DECAY, EPS = 0.01, 0.9, 1e-4, 1e-5
Arrays = dict[str, np.ndarray]


# ------------------------------------------------------------------------------ the work, for all


def start_weights(depth: int, width: int, channels: int = 3) -> Arrays:
    """Return {name: float32 array} of every parameter, named as in minires and torchvision."""
    rng = np.random.default_rng(1)
    arrays: Arrays = {}

    def conv_and_norm(prefix: str, number: int, channels: int, out: int) -> None:
        scale = np.float32((2 / (9 * channels)) ** 0.5)  # He et al. 2015b
        arrays[f"{prefix}conv{number}.weight"] = rng.standard_normal((out, channels, 3, 3), np.float32) * scale
        arrays[f"{prefix}bn{number}.weight"] = np.ones(out, np.float32)
        arrays[f"{prefix}bn{number}.bias"] = np.zeros(out, np.float32)

    conv_and_norm("", 1, channels, width)
    channels = width
    for prefix, out, _ in blocks(depth, width):
        conv_and_norm(prefix, 1, channels, out)
        conv_and_norm(prefix, 2, out, out)
        channels = out
    arrays["fc.weight"] = rng.standard_normal((10, channels), np.float32) * np.float32(channels ** -0.5)
    arrays["fc.bias"] = np.zeros(10, np.float32)
    return arrays


def blocks(depth: int, width: int) -> list[tuple[str, int, int]]:
    """Return (prefix of its names, channels, stride) of every residual block."""
    return [(f"layer{stage}.{i}.", width * 2 ** (stage - 1), 2 if stage > 1 and i == 0 else 1)
            for stage in (1, 2, 3) for i in range((depth - 2) // 6)]


def batch(size: int, image: Sequence[int] = (3, 32, 32)) -> tuple[np.ndarray, np.ndarray]:
    """Return random images (size, *image) float32 and labels (size,) int64, the same at every call."""
    rng = np.random.default_rng(2)
    return rng.standard_normal((size, *image), np.float32), rng.integers(0, 10, size)


def network(api: Any, w: Arrays, depth: int, width: int) -> Callable[[Any], Any]:
    """Return the forward pass from images to logits, composed of the layers of `api`."""
    def conv_norm(prefix, number, stride):
        conv = api.conv(w[f"{prefix}conv{number}.weight"], stride)
        norm = api.norm(w[f"{prefix}bn{number}.weight"], w[f"{prefix}bn{number}.bias"])
        return lambda x: norm(conv(x))

    stem = conv_norm("", 1, 1)
    body = [(conv_norm(p, 1, stride), conv_norm(p, 2, 1), stride, channels // 4)
            for p, channels, stride in blocks(depth, width)]
    head = api.linear(w["fc.weight"], w["fc.bias"])

    def forward(x):
        h = api.relu(stem(x))
        for first, second, stride, new in body:
            # Option A: where the map shrinks, take every second pixel, and add `new` channels of zeros on both sides.
            skip = h if stride == 1 else api.shortcut(h, new)
            h = api.relu(second(api.relu(first(h))) + skip)
        return head(api.pool(h))

    return forward


# ----------------------------------------------------------------------------------- the systems
#
# Each system has: step() -> loss before the update; logits() in evaluation mode -> array; parameters() -> number of
# trained values; versions() -> {name: version}.


class Minires:
    """Minires runs the minires model as a user builds it."""

    by_hand = False
    kernels = "auto"

    def __init__(self, w: Arrays, images: np.ndarray, labels: np.ndarray, *, depth: int, width: int, threads: int):
        self.used = minires_kernels(self.kernels).__name__.rpartition(".")[2]
        import minires
        from minires import info, kernels, models, optim, train

        self.minires, self.info, self.train, self.images, self.labels = minires, info, train, images, labels
        self.model = models.cifar(depth, in_channels=images.shape[1], width=width, by_hand=self.by_hand)
        running = {n: t.data for n, t in self.model.state().items() if not t.requires_grad}
        self.model.load_state({**running, **w})
        self.optimizer = optim.SGD(self.model.parameters(), LR, MOMENTUM, WEIGHT_DECAY)
        if self.kernels != "reference":  # a session for the life of this process, as in the loop of train.fit
            held = contextlib.ExitStack()
            held.enter_context(kernels.session())
            atexit.register(held.close)  # this also keeps a reference to the session, which would end without one

    def step(self) -> float:
        return self.train.step(self.model, self.optimizer, self.images, self.labels)

    def logits(self) -> np.ndarray:
        self.model.eval()
        with self.minires.no_grad():
            return self.model(self.minires.Tensor(self.images)).data

    def parameters(self) -> int:
        return self.model.count_parameters()

    def macs(self) -> int:
        return self.model.macs(self.images.shape[1:])

    def versions(self) -> dict[str, str]:
        told = self.info.versions()
        return {"minires": told["minires"], "blas": told["blas"], "kernels": self.used}


class MiniresBlocked(Minires):
    """The same on the kernels in NumPy, which serve where there is no C compiler."""

    kernels = "blocked"


class MiniresReference(Minires):
    """MiniresReference is Minires with the textbook kernels."""

    kernels = "reference"


class MiniresByHand(Minires):
    """MiniresByHand is Minires with the hand-written backward of the residual block."""

    by_hand = True


class Torch:
    """Torch runs eager PyTorch as its users write it: modules, and torch.optim.SGD with its defaults."""

    channels_last = False

    def __init__(self, w: Arrays, images: np.ndarray, labels: np.ndarray, *, depth: int, width: int, threads: int):
        import torch

        self.torch: Any = torch
        self.layers: Any = torch.nn.ModuleList()
        torch.set_num_threads(threads)
        self.forward = network(self, w, depth, width)
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        if self.channels_last:
            self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.layers.parameters(), LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def layer(self, module: Any, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
        with self.torch.no_grad():
            module.weight.copy_(self.torch.from_numpy(weight))
            if bias is not None:
                module.bias.copy_(self.torch.from_numpy(bias))
        self.layers.append(module)
        return module

    def conv(self, w, stride):
        return self.layer(self.torch.nn.Conv2d(w.shape[1], w.shape[0], 3, stride, 1, bias=False), w)

    def norm(self, gamma, beta):
        return self.layer(self.torch.nn.BatchNorm2d(len(gamma), EPS), gamma, beta)

    def linear(self, w, b):
        return self.layer(self.torch.nn.Linear(w.shape[1], w.shape[0]), w, b)

    def relu(self, x):
        return self.torch.nn.functional.relu(x)

    def shortcut(self, x, new):
        return self.torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new, new))

    def pool(self, x):
        return x.mean((2, 3))

    def step(self) -> float:
        self.layers.train()
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def logits(self) -> np.ndarray:
        self.layers.eval()
        with self.torch.inference_mode():
            return self.forward(self.images).numpy()

    def parameters(self) -> int:
        return sum(p.numel() for p in self.layers.parameters())

    def versions(self) -> dict[str, str]:
        return {"torch": self.torch.__version__}


class TorchChannelsLast(Torch):
    """TorchChannelsLast is Torch with images and weights in channels-last format."""

    channels_last = True


class DeZero:
    """DeZero runs DeZero 0.0.13.

    DeZero has no zero padding of channels, so option A is a Function defined here, as the DeZero book teaches.

    DeZero's BatchNorm divides by the number of pixels as a 0-d integer array. NumPy then makes the gradient float64
    (NumPy 1 if that number has more than 16 bits, NumPy 2 always), and the backward pass of all earlier layers runs in
    float64. The Function `Float32`, also defined here, converts the gradient back, so that the step is a float32 step.
    """

    float32 = True

    def __init__(self, w: Arrays, images: np.ndarray, labels: np.ndarray, *, depth: int, width: int, threads: int):
        restore_numpy_names()
        import dezero
        import dezero.functions as F

        class OptionA(dezero.Function):
            def forward(self, x):
                (N, C, H, W), new = x.shape, x.shape[1] // 2
                y = np.zeros((N, 2 * C, (H + 1) // 2, (W + 1) // 2), x.dtype)
                y[:, new:new + C] = x[:, :, ::2, ::2]
                return y

            def backward(self, gy):
                x, new = self.inputs[0], self.inputs[0].shape[1] // 2
                gx = np.zeros(x.shape, gy.dtype)
                gx[:, :, ::2, ::2] = gy.data[:, new:new + x.shape[1]]
                return dezero.Variable(gx)

        class Float32(dezero.Function):
            def forward(self, x):
                return x

            def backward(self, gy):
                return gy if gy.dtype == np.float32 else dezero.Variable(gy.data.astype(np.float32))

        self.dezero, self.F, self.option_a = dezero, F, OptionA
        self.as_float32 = (lambda x: Float32()(x)) if self.float32 else (lambda x: x)
        self.holder, self.count = dezero.Layer(), 0
        self.forward = network(self, w, depth, width)
        # With wider labels, the backward of its cross-entropy returns float64, and the whole backward pass is float64.
        self.images, self.labels = images, labels.astype(np.uint8)
        self.optimizer = dezero.optimizers.MomentumSGD(LR, MOMENTUM).setup(self.holder)
        self.optimizer.add_hook(dezero.optimizers.WeightDecay(WEIGHT_DECAY))

    def parameter(self, array: np.ndarray) -> Any:
        p = self.dezero.Parameter(array.copy())
        setattr(self.holder, f"p{self.count}", p)
        self.count += 1
        return p

    def conv(self, w, stride):
        weight = self.parameter(w)
        return lambda x: self.F.conv2d(x, weight, None, stride, 1)

    def norm(self, gamma, beta):
        gamma, beta = self.parameter(gamma), self.parameter(beta)
        mean, var = np.zeros_like(gamma.data), np.ones_like(gamma.data)
        return lambda x: self.F.batch_nrom(self.as_float32(x), gamma, beta, mean, var, 0.9, EPS)  # DeZero's spelling

    def linear(self, w, b):
        weight, bias = self.parameter(np.ascontiguousarray(w.T)), self.parameter(b)
        return lambda x: self.F.linear(x, weight, bias)

    def relu(self, x):
        return self.F.relu(x)

    def shortcut(self, x, new):
        return self.option_a()(x)

    def pool(self, x):
        return self.F.average_pooling(self.as_float32(x), x.shape[2]).reshape(x.shape[0], -1)

    def step(self) -> float:
        self.holder.cleargrads()
        loss = self.F.softmax_cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        dtypes = {str(p.grad.dtype) for p in self.holder.params() if p.ndim == 4}  # weights of the convolutions
        if self.float32 and dtypes != {"float32"}:
            raise RuntimeError(f"its gradients are {', '.join(sorted(dtypes))}: this would not be a float32 step")
        self.optimizer.update()
        return float(loss.data)

    def logits(self) -> np.ndarray:
        with self.dezero.test_mode(), self.dezero.no_grad():
            return self.forward(self.images).data

    def parameters(self) -> int:
        return sum(p.size for p in self.holder.params())

    def versions(self) -> dict[str, str]:
        return {"dezero": self.dezero.__version__}


class DeZeroAsIs(DeZero):
    """DeZeroAsIs is DeZero without the conversion, so that its gradients are float64 where DeZero makes them so."""

    float32 = False


class Chainer:
    """Chainer runs Chainer 7.8.1 on NumPy."""

    def __init__(self, w: Arrays, images: np.ndarray, labels: np.ndarray, *, depth: int, width: int, threads: int):
        restore_numpy_names()
        import chainer
        import chainer.functions
        import chainer.links

        self.chainer, self.F, self.L = chainer, chainer.functions, chainer.links
        self.links = chainer.ChainList()
        self.forward = network(self, w, depth, width)
        self.images, self.labels = images, labels.astype(np.int32)
        self.optimizer = chainer.optimizers.MomentumSGD(LR, MOMENTUM).setup(self.links)
        self.optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(WEIGHT_DECAY))

    def link(self, link: Any) -> Any:
        self.links.append(link)
        return link

    def conv(self, w, stride):
        return self.link(self.L.Convolution2D(w.shape[1], w.shape[0], 3, stride, 1, nobias=True, initialW=w))

    def norm(self, gamma, beta):
        return self.link(self.L.BatchNormalization(len(gamma), eps=EPS, initial_gamma=gamma, initial_beta=beta))

    def linear(self, w, b):
        return self.link(self.L.Linear(w.shape[1], w.shape[0], initialW=w, initial_bias=b))

    def relu(self, x):
        return self.F.relu(x)

    def shortcut(self, x, new):  # pooling with a 1x1 window takes every second pixel; slicing is slower in Chainer
        return self.F.pad(self.F.average_pooling_2d(x, 1, 2), ((0, 0), (new, new), (0, 0), (0, 0)), "constant")

    def pool(self, x):
        return self.F.average_pooling_2d(x, x.shape[2:]).reshape(len(x), -1)

    def step(self) -> float:
        self.links.cleargrads()
        loss = self.F.softmax_cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        self.optimizer.update()
        return float(loss.array)

    def logits(self) -> np.ndarray:
        with self.chainer.using_config("train", False), self.chainer.no_backprop_mode():
            return self.forward(self.images).array

    def parameters(self) -> int:
        return self.links.count_params()

    def versions(self) -> dict[str, str]:
        return {"chainer": self.chainer.__version__}


class Tinygrad:
    """Tinygrad runs tinygrad on its CPU device, which needs clang. The step uses TinyJit, as in tinygrad's README."""

    def __init__(self, w: Arrays, images: np.ndarray, labels: np.ndarray, *, depth: int, width: int, threads: int):
        from importlib.metadata import version

        os.environ["DEV"] = "CPU"
        from tinygrad import Context, Tensor, TinyJit, nn

        self.Tensor, self.nn, self.version = Tensor, nn, version("tinygrad")
        self.layers: list[Any] = []
        self.forward = network(self, w, depth, width)
        self.images, self.labels = Tensor(images).realize(), Tensor(labels.astype(np.int32)).realize()
        self.optimizer = nn.optim.SGD(nn.state.get_parameters(self.layers), LR, MOMENTUM, WEIGHT_DECAY)

        @TinyJit
        def jitted_step(images, labels):
            with Context(TRAINING=1):
                self.optimizer.zero_grad()
                loss = self.forward(images).sparse_categorical_crossentropy(labels).backward()
                return loss.realize(*self.optimizer.schedule_step())

        self.jitted_step, self.jitted_logits = jitted_step, TinyJit(lambda images: self.forward(images).realize())

    def layer(self, layer: Any, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
        layer.weight = self.Tensor(weight).contiguous().realize()
        if bias is not None:
            layer.bias = self.Tensor(bias).contiguous().realize()
        self.layers.append(layer)
        return layer

    def conv(self, w, stride):
        return self.layer(self.nn.Conv2d(w.shape[1], w.shape[0], 3, stride, 1, bias=False), w)

    def norm(self, gamma, beta):
        return self.layer(self.nn.BatchNorm(len(gamma), EPS), gamma, beta)

    def linear(self, w, b):
        return self.layer(self.nn.Linear(w.shape[1], w.shape[0]), w, b)

    def relu(self, x):
        return x.relu()

    def shortcut(self, x, new):
        return x[:, :, ::2, ::2].pad(((0, 0), (new, new), (0, 0), (0, 0)))

    def pool(self, x):
        return x.mean((2, 3))

    def step(self) -> float:
        return self.jitted_step(self.images, self.labels).item()

    def logits(self) -> np.ndarray:
        return self.jitted_logits(self.images).numpy()

    def parameters(self) -> int:
        return sum(p.numel() for p in self.optimizer.params)

    def versions(self) -> dict[str, str]:
        return {"tinygrad": self.version}


SYSTEMS: dict[str, Any] = {
    "minires": Minires, "minires-blocked": MiniresBlocked, "minires-reference": MiniresReference,
    "minires-by-hand": MiniresByHand,
    "torch": Torch, "torch-channels-last": TorchChannelsLast,
    "dezero": DeZero, "dezero-as-is": DeZeroAsIs, "chainer": Chainer, "tinygrad": Tinygrad,
}


def restore_numpy_names() -> None:
    """Restore NumPy's old aliases of Python's types, such as np.int, for DeZero and Chainer.

    NumPy 1.24 removed the aliases, and DeZero and Chainer are no longer developed. The aliases change no result.
    """
    for python_type in bool, int, float, complex, object, str:
        if python_type.__name__ not in vars(np):
            setattr(np, python_type.__name__, python_type)


# ---------------------------------------------------------------------------- one layer at a time


def minires_kernels(name: str) -> Any:
    """Select and return the float32 CPU kernels of minires for the whole process.

    name: "native", "blocked", "reference", or "auto", which is "native" if there is a C compiler, else "blocked".
    """
    os.environ["MINIRES_KERNELS"] = name
    from minires import kernels

    K = kernels.of(np.empty(0, np.float32))
    if name not in ("auto", K.__name__.rpartition(".")[2]):
        raise RuntimeError(f"{name} kernels were requested, but minires runs {K.__name__}")
    return K


def minires_layer(case: dict[str, Any], name: str) -> dict[str, Callable[[], Any]]:
    """Return {"forward": f, "backward": f} of one layer, by the kernels of minires."""
    K = minires_kernels(name)
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    def activation(N, C, H, W):  # with the memory layout that these kernels give the result of a convolution
        return K.conv2d(normal(N, 1, H, W), normal(C, 1, 3, 3), (1, 1), (1, 1))

    N, C, H, W = case["shape"]
    if case["op"] == "conv":
        need_x, groups = not case["first"], case.get("groups", 1)
        stride, dilation = ((case.get(key, 1),) * 2 for key in ("stride", "dilation"))  # the padding keeps the size
        x = activation(N, C, H, W) if need_x else normal(N, C, H, W)
        w = normal(case["out"], C // groups, 3, 3)
        g = activation(*K.conv2d(x, w, stride, dilation, dilation, groups).shape)
        return {"forward": lambda: K.conv2d(x, w, stride, dilation, dilation, groups),
                "backward": lambda: K.conv2d_backward(g, x, w, stride, dilation, need_x=need_x, dilation=dilation,
                                                      groups=groups)}
    x, g, gamma, beta = activation(N, C, H, W), activation(N, C, H, W), normal(C), normal(C)
    skip = activation(N, C, H, W) if case["skip"] else None
    *_, saved = K.batch_norm_relu(x, gamma, beta, EPS, skip)
    return {"forward": lambda: K.batch_norm_relu(x, gamma, beta, EPS, skip),
            "backward": lambda: K.batch_norm_relu_backward(g, gamma, saved)}


def torch_layer(case: dict[str, Any], threads: int) -> dict[str, Callable[[], Any]]:
    """Return {"forward": f, "backward": f} of one layer, by PyTorch. The forward records a graph for autograd."""
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    N, C, H, W = case["shape"]
    x = torch.randn(N, C, H, W, requires_grad=not case.get("first"))
    inputs = [x] if x.requires_grad else []
    if case["op"] == "conv":
        groups, dilation = case.get("groups", 1), case.get("dilation", 1)
        w = torch.randn(case["out"], C // groups, 3, 3, requires_grad=True)
        inputs.append(w)
        forward = lambda: F.conv2d(x, w, None, case["stride"], dilation, dilation, groups)
    else:
        gamma, beta = (torch.randn(C, requires_grad=True) for _ in range(2))
        mean, var = torch.zeros(C), torch.ones(C)
        skip = torch.randn(N, C, H, W, requires_grad=True) if case["skip"] else None
        inputs += [gamma, beta, *([] if skip is None else [skip])]

        def forward():
            y = F.batch_norm(x, mean, var, gamma, beta, training=True)
            return F.relu(y if skip is None else y + skip)

    y = forward()
    g = torch.randn_like(y)
    return {"forward": forward, "backward": lambda: torch.autograd.grad(y, inputs, g, retain_graph=True)}


# ------------------------------------------------------------------------------ requests, answers


class Requests:
    """Requests has a method for every request to a worker. The result of the method goes into the answer."""

    def __init__(self, system: str, threads: int):
        self.system, self.threads = system, threads
        self.running: dict[str, Callable[[], Any]] = {}

    def train(self, key: str, depth: int, width: int, batch_size: int, inference: bool, warm_up: int,
              image: Sequence[int] = (3, 32, 32)) -> dict[str, Any]:
        """Build the network, take `warm_up` steps, and return what is needed to check that the work is the same.

        key: the name under which the network is timed later. A worker may hold several networks.
        """
        images, labels = batch(batch_size, image)
        net = SYSTEMS[self.system](start_weights(depth, width, image[0]), images, labels, depth=depth, width=width,
                                   threads=self.threads)

        def loss_of_logits() -> float:
            z = net.logits().astype(np.float64)
            z -= z.max(1, keepdims=True)
            return float((np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]).mean())

        losses = [loss_of_logits() if inference else net.step() for _ in range(warm_up)]
        self.running[key] = net.logits if inference else net.step
        return {"parameters": net.parameters(), "losses": losses, "macs": net.macs() if hasattr(net, "macs") else None,
                "versions": {"python": platform.python_version(), "numpy": np.__version__, **net.versions()}}

    def layer(self, case: dict[str, Any]) -> None:
        """Prepare the forward and backward of one layer, which replace those of the previous layer."""
        self.running = {}
        made = (torch_layer(case, self.threads) if self.system == "torch"
                else minires_layer(case, SYSTEMS[self.system].kernels))
        for run in made.values():
            run()
        self.running = made

    def time(self, key: str, count: int) -> list[float]:
        """Return the milliseconds of each of `count` runs."""
        run, times = self.running[key], []
        for _ in range(count):
            start = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - start))
        return times

    def peak_rss_mb(self) -> float:
        """Return the peak memory of this process in MB (10^6 bytes)."""
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    """Answer requests until the pipe closes."""
    requests = Requests(sys.argv[1], int(sys.argv[2]))
    # The output of a library must not mix with the answers, so it goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": getattr(requests, request.pop("do"))(**request)}
        except Exception as e:  # any exception of a peer is the reason why the peer is left out
            first = (str(e).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(e).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
