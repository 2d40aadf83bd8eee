"""The tasks of assignment a5: the residual block by hand."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .task import Case, Task, robust

Rng = np.random.Generator
Inputs = dict[str, Any]
WITHHELD = ("nn.Block", "nn.Bottleneck", "nn.PreactBlock", "nn.PreactBottleneck", "nn.FixupBlock", "nn.ResidualBlock",
            "nn.blocks", "residual", "models")
THREE: list[dict[str, Any]] = [{"filters": 3, "projection": True}, {"filters": 5, "stride": 2, "pad": "end"},
                               {"filters": 5}]  # three blocks that follow each other


# ------------------------------------------------------------------------------- inputs with open masks


def correlated(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """Return a convolution with a 3x3 kernel and padding 1, or with a 1x1 kernel and no padding."""
    p = w.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    found = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", found, w)


def normalised(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> np.ndarray:
    """Return BN in train mode."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return gamma.reshape(1, -1, 1, 1) * (x - mean) / np.sqrt(var + eps) + beta.reshape(1, -1, 1, 1)


def open_masks(x: np.ndarray, p: Inputs, eps: float, stride: int, pad: str) -> tuple[bool, np.ndarray]:
    """Return whether both ReLUs are open for 20 to 80 % of the pixels of every channel, and the block's y."""
    b1 = normalised(correlated(x, p["w1"], stride), p["gamma1"], p["beta1"], eps)
    z = normalised(correlated(np.maximum(b1, 0), p["w2"], 1), p["gamma2"], p["beta2"], eps)
    picked = x[:, :, ::stride, ::stride]
    if "ws" in p:
        z = z + normalised(correlated(x, p["ws"], stride), p["gammas"], p["betas"], eps)
    else:
        first = (z.shape[1] - x.shape[1]) // 2 if pad == "both" else 0
        z[:, first:first + x.shape[1]] += picked
    shares = np.concatenate([(a > 0).mean((0, 2, 3)) for a in (b1, z)])
    return bool(((shares >= 0.2) & (shares <= 0.8)).all()), np.maximum(z, 0)


def parameters(rng: Rng, channels: int, filters: int, projection: bool = False) -> Inputs:
    """Draw the parameters of a block."""
    p: Inputs = {}
    for i, (before, size) in {"1": (channels, 3), "2": (filters, 3), "s": (channels, 1)}.items():
        if i != "s" or projection:
            p[f"w{i}"] = rng.standard_normal((filters, before, size, size)) / size
            p[f"gamma{i}"] = rng.uniform(0.5, 1.5, filters) * rng.choice([-1, 1], filters)
            p[f"beta{i}"] = 0.3 * rng.standard_normal(filters)
    return p


def drawn(rng: Rng, shape: tuple[int, ...], filters: int, *, stride: int = 1, pad: str = "both",
          projection: bool = False, eps: float = 1e-2, x: np.ndarray | None = None) -> Inputs:
    """Draw the arguments of block_forward, again until every channel of both ReLUs has open and closed pixels.

    x: an input to use instead of a new one
    """
    for _ in range(1000):
        mine = rng.standard_normal(shape) if x is None else x
        p = parameters(rng, shape[1], filters, projection)
        if open_masks(mine, p, eps, stride, pad)[0]:
            return {"x": mine, "p": p, "eps": eps, "stride": stride, "pad": pad}
    raise RuntimeError(f"no inputs of shape {shape} with open masks in 1000 draws")


def with_dy(rng: Rng, arguments: Inputs) -> Inputs:
    """Add dy."""
    N, _, H, W = arguments["x"].shape
    s = arguments.get("stride", 1)
    return {**arguments, "dy": rng.standard_normal((N, len(arguments["p"]["w1"]), -(-H // s), -(-W // s)))}


def plain(arguments: Inputs) -> Inputs:
    """Leave out stride and pad, which residual_forward does not have."""
    return {name: value for name, value in arguments.items() if name not in ("stride", "pad")}


def empty_branch(rng: Rng, shape: tuple[int, ...]) -> Inputs:
    """Draw a block whose last gamma and beta are 0."""
    arguments = drawn(rng, shape, shape[1])
    zero = {name: np.zeros(shape[1]) for name in ("gamma2", "beta2")}
    return {**arguments, "p": {**arguments["p"], **zero}}


def tower(rng: Rng, shape: tuple[int, ...], sizes: list[dict[str, Any]], keep: Callable[[Inputs], Inputs]) -> Inputs:
    """Draw blocks that follow each other: x of the first, the other arguments of each, and dy of the last."""
    x = first = rng.standard_normal(shape)
    blocks = []
    for options in sizes:
        arguments = drawn(rng, x.shape, **options, x=x)
        x = open_masks(x, arguments["p"], arguments["eps"], arguments["stride"], arguments["pad"])[1]
        del arguments["x"]
        blocks.append(keep(arguments))
    return {"x": first, "blocks": blocks, "dy": rng.standard_normal(x.shape)}


# ------------------------------------------------------------------------------------------ 5.1 and 5.2


SHAPES = ((2, 3, 5, 4), 1e-2), ((3, 2, 4, 6), 0.1)
OTHERS = ((4, 2, 3, 5), 1e-2), ((2, 4, 6, 3), 0.05)


def identities(rng: Rng, shapes: Any) -> list[Inputs]:
    """Draw the inputs of blocks with the identity."""
    return [with_dy(rng, plain(drawn(rng, shape, shape[1], eps=eps))) for shape, eps in shapes]


def without_dy(inputs: Inputs) -> Inputs:
    """Leave out dy."""
    return {name: value for name, value in inputs.items() if name != "dy"}


def forward_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible shape."""
    return [Case(f"x {inputs['x'].shape}", without_dy(inputs)) for inputs in identities(rng, SHAPES)]


def forward_hidden(rng: Rng) -> list[Case]:
    """Other shapes, an empty branch, three blocks, float32, memory with gaps, a second call."""
    one, two = identities(rng, OTHERS)
    three = tower(rng, (2, 3, 4, 5), [{"filters": 3}] * 3, plain)
    return [Case(f"x {one['x'].shape}", without_dy(one)), Case(f"x {two['x'].shape}", without_dy(two)),
            Case("gamma2 = beta2 = 0", without_dy(plain(empty_branch(rng, (2, 3, 4, 5)))), "forward.identity"),
            Case("three blocks", without_dy(three), "forward.stacked"),
            Case("float32", without_dy(one), "forward.float32"),
            Case("inputs that are not contiguous in memory", without_dy(one), "forward.strided"),
            Case("a second call on other data", without_dy(two), "forward.kept")]


def backward_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible shape, and two blocks."""
    return [*(Case(f"x {inputs['x'].shape}", inputs) for inputs in identities(rng, SHAPES)),
            Case("two blocks", tower(rng, (3, 2, 5, 4), [{"filters": 2}] * 2, plain), "residual.stacked")]


def backward_hidden(rng: Rng) -> list[Case]:
    """Other shapes, an empty branch, three blocks, and the robustness cases."""
    one, two = identities(rng, OTHERS)
    return [Case(f"x {one['x'].shape}", one), Case(f"x {two['x'].shape}", two),
            Case("gamma2 = beta2 = 0", with_dy(rng, plain(empty_branch(rng, (2, 3, 4, 5)))), "residual.identity"),
            Case("three blocks", tower(rng, (2, 3, 4, 5), [{"filters": 3}] * 3, plain), "residual.stacked"),
            *robust("residual", identities(rng, SHAPES)[0])]


# ------------------------------------------------------------------------------------------ 5.3: option A


def option_a(rng: Rng, shape: tuple[int, ...], stride: int, channels: int, pad: str, whole: bool = False) -> Inputs:
    """Draw the inputs of shortcut_a, and dy. whole: in integers."""
    N, _, H, W = shape
    result = N, channels, -(-H // stride), -(-W // stride)
    x, dy = (rng.integers(-9, 10, s).astype(float) if whole else rng.standard_normal(s) for s in (shape, result))
    return {"x": x, "stride": stride, "channels": channels, "pad": pad, "dy": dy}


def described(inputs: Inputs) -> str:
    """Describe the inputs of shortcut_a."""
    return f'x {inputs["x"].shape}, stride {inputs["stride"]}, {inputs["channels"]} channels, pad "{inputs["pad"]}"'


def option_visible(rng: Rng) -> list[Case]:
    """Strides 1 and 2, both kinds of padding."""
    drawn = [option_a(rng, (2, 3, 5, 6), 2, 6, "both"), option_a(rng, (3, 2, 4, 7), 2, 5, "end"),
             option_a(rng, (2, 3, 4, 5), 1, 8, "both")]
    return [Case(described(inputs), inputs) for inputs in drawn]


def option_hidden(rng: Rng) -> list[Case]:
    """Other shapes, new arrays, the transpose in integers, float32, memory with gaps."""
    drawn = [option_a(rng, (2, 2, 7, 8), 3, 5, "both"), option_a(rng, (2, 3, 6, 5), 2, 3, "end"),
             option_a(rng, (1, 1, 1, 1), 2, 4, "both"), option_a(rng, (2, 2, 5, 4), 2, 5, "end")]
    more = option_a(rng, (2, 3, 5, 4), 2, 6, "both")
    return [*(Case(described(inputs), inputs) for inputs in drawn),
            Case("stride 1 and no new channels: results are new arrays", option_a(rng, (2, 3, 4, 5), 1, 3, "both"),
                 "shortcut_apart"),
            Case("backward is the transpose, in integers", option_a(rng, (2, 3, 5, 6), 2, 7, "both", True),
                 "shortcut_adjoint"),
            Case("float32", more, "shortcut_float32"),
            Case("inputs that are not contiguous in memory", more, "shortcut_strided")]


# --------------------------------------------------------------------------------- 5.4: the general block


def general_visible(rng: Rng) -> list[Case]:
    """The identity, options A and B, a tiny image, two blocks."""
    identity = with_dy(rng, drawn(rng, (2, 3, 5, 4), 3))
    option = with_dy(rng, drawn(rng, (3, 2, 5, 6), 5, stride=2))
    projection = with_dy(rng, drawn(rng, (4, 3, 6, 5), 4, stride=2, projection=True))
    tiny = drawn(rng, (6, 2, 4, 3), 4, stride=2, pad="end")
    return [Case("the identity", identity), Case('option A, stride 2, pad "both"', option),
            Case("option B, stride 2", projection, "projected"),
            Case('option A, 4x3 pixels, stride 2, pad "end", forward alone', tiny, "block_forward"),
            Case("two blocks: option A, then the identity",
                 tower(rng, (3, 2, 5, 6), [{"filters": 4, "stride": 2, "pad": "end"}, {"filters": 4}], dict),
                 "block.stacked")]


def general_hidden(rng: Rng) -> list[Case]:
    """Other shapes and shortcuts, an empty branch, three blocks, and the robustness cases."""
    end = with_dy(rng, drawn(rng, (3, 2, 7, 4), 5, stride=2, pad="end"))
    wider = with_dy(rng, drawn(rng, (2, 2, 4, 5), 5))
    coarse = with_dy(rng, drawn(rng, (6, 3, 4, 5), 3, stride=2))
    fitting = with_dy(rng, drawn(rng, (3, 3, 4, 5), 3, projection=True))
    return [Case('option A, stride 2, pad "end"', end), Case("option A, stride 1, more channels", wider),
            Case("option A, stride 2, no new channels", coarse),
            Case("option B, stride 1, equal channels", fitting, "projected"),
            Case("gamma2 = beta2 = 0", with_dy(rng, empty_branch(rng, (2, 3, 4, 5))), "block.identity"),
            Case("three blocks: options B and A, then the identity", tower(rng, (4, 2, 6, 7), THREE, dict),
                 "block.stacked"),
            *robust("projected", with_dy(rng, drawn(rng, (3, 2, 5, 6), 3, stride=2, projection=True)))]


# ---------------------------------------------------------------------------------- 5.5: the Module

NAMES = {"w1": "conv1.weight", "gamma1": "bn1.weight", "beta1": "bn1.bias", "w2": "conv2.weight",
         "gamma2": "bn2.weight", "beta2": "bn2.bias", "ws": "downsample.0.weight", "gammas": "downsample.1.weight",
         "betas": "downsample.1.bias"}


def state_of(rng: Rng, p: Inputs) -> Inputs:
    """Return the state of a Block with the parameters p, and drawn running statistics."""
    state = {NAMES[name]: array for name, array in p.items()}
    for norm in ("bn1", "bn2", "downsample.1"):
        if f"{norm}.weight" in state:
            size = len(state[f"{norm}.weight"])
            state[f"{norm}.running_mean"] = 0.5 * rng.standard_normal(size)
            state[f"{norm}.running_var"] = rng.uniform(0.5, 2, size)
    return state


def block(rng: Rng, shape: tuple[int, ...], filters: int, stride: int = 1, shortcut: str = "A",
          pad: str = "both") -> Inputs:
    """Draw the inputs of the driver `module`."""
    projection = shortcut == "B" and (stride != 1 or shape[1] != filters)
    arguments = with_dy(rng, drawn(rng, shape, filters, stride=stride, pad=pad, projection=projection, eps=1e-5))
    return {"sizes": [shape[1], filters, stride], "options": {"shortcut": shortcut, "pad": pad},
            "state": state_of(rng, arguments["p"]), "x": arguments["x"], "dy": arguments["dy"]}


def modules(rng: Rng, shape: tuple[int, ...], sizes: list[dict[str, Any]]) -> Inputs:
    """Draw the inputs of the driver `stacked`."""
    found = tower(rng, shape, [{**{k: v for k, v in one.items() if k != "shortcut"}, "eps": 1e-5} for one in sizes],
                  dict)
    channels, blocks = shape[1], []
    for one, arguments in zip(sizes, found["blocks"], strict=True):
        kind = "B" if one.get("projection") else "A"
        blocks.append({"sizes": [channels, one["filters"], one.get("stride", 1)],
                       "options": {"shortcut": kind, "pad": one.get("pad", "both")},
                       "state": state_of(rng, arguments["p"])})
        channels = one["filters"]
    return {**found, "blocks": blocks}


def module_visible(rng: Rng) -> list[Case]:
    """Every kind of shortcut, zero_gamma, a tiny image, two blocks."""
    return [Case("the identity", block(rng, (3, 3, 5, 4), 3)),
            Case('the identity, shortcut="B"', block(rng, (3, 2, 4, 6), 2, shortcut="B")),
            Case('shortcut="A", stride 2, pad="end"', block(rng, (3, 2, 5, 6), 5, 2, pad="end")),
            Case('shortcut="B", stride 2', block(rng, (4, 3, 6, 5), 4, 2, "B")),
            Case("zero_gamma()", block(rng, (3, 3, 5, 4), 3), "zeroed"),
            Case("4x3 pixels, stride 2", block(rng, (6, 2, 4, 3), 4, 2)),
            Case("two blocks with different pad",
                 modules(rng, (3, 2, 5, 6), [{"filters": 5, "stride": 2}, {"filters": 8, "pad": "end"}]), "stacked")]


def module_hidden(rng: Rng) -> list[Case]:
    """Other shortcuts, zero_gamma, modes, new blocks, float32, three blocks."""
    single = block(rng, (3, 2, 6, 5), 4, 2, "B")
    begin = {"sizes": [3, 5, 2], "options": {"shortcut": "B", "pad": "both"}, "seed": int(rng.integers(1000)),
             "names": list(single["state"])}
    fitting = {**begin, "sizes": [3, 3, 1], "names": list(block(rng, (3, 3, 4, 5), 3)["state"])}
    return [Case('shortcut="A", stride 1, more channels', block(rng, (3, 2, 4, 5), 5)),
            Case('shortcut="B", stride 1, more channels', block(rng, (3, 2, 4, 5), 4, shortcut="B")),
            Case('shortcut="B", stride 2, equal channels', block(rng, (4, 3, 5, 6), 3, 2, "B")),
            Case('zero_gamma(), shortcut="B"', block(rng, (4, 2, 6, 5), 4, 2, "B"), "zeroed"),
            Case("eval mode, then train mode", block(rng, (4, 2, 6, 5), 4, 2, "B"), "modes"),
            Case("a new block", begin, "start"), Case("a new block where the identity fits", fitting, "start"),
            Case("float32", {**single, "dtype": "float32"}),
            Case("three blocks", modules(rng, (4, 2, 6, 7), THREE), "stacked")]


TASKS = [
    Task("a5.1", "residual_forward", 10, ("residual_forward",), "forward", forward_visible, forward_hidden),
    Task("a5.2", "residual_backward", 25, ("residual_forward", "residual_backward"), "residual", backward_visible,
         backward_hidden),
    Task("a5.3", "shortcut_a", 10, ("shortcut_a", "shortcut_a_backward"), "shortcut", option_visible, option_hidden),
    Task("a5.4", "the general block", 20, ("block_forward",
                                           "block_backward"), "block", general_visible, general_hidden),
    Task("a5.5", "Block", 20, ("Block",), "module", module_visible, module_hidden, minires=True, withheld=WITHHELD),
]
