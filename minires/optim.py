"""This module has the optimisers SGD, Adam and AdamW, gradient clipping, and learning-rate schedules."""
from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import device, kernels
from .tensor import Tensor


@dataclass(eq=False)  # eq=False: == of two Tensors is an array, not a bool
class Group:
    """A Group is a list of parameters with a learning rate or a weight decay of their own.

        SGD([Group(backbone, lr_factor=0.1), Group(head), Group(scales, weight_decay=0.0)], lr=0.01)

    lr_factor: the group's learning rate divided by the optimiser's. A schedule that sets `optimizer.lr` therefore moves
        the rates of all groups together
    weight_decay: of this group; None: the optimiser's

    Both may change between two steps.

    Raises TypeError if the parameters are not a list of Tensors, and ValueError if a number is negative.
    """

    parameters: Sequence[Tensor]
    lr_factor: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.parameters, "__len__"):  # a generator would be empty when it is read again
            raise TypeError("Group: expected a list of Tensors, such as net.fc.parameters(), got "
                            f"{type(self.parameters).__name__}")
        _tensors("Group", self.parameters)
        _check("Group", lr_factor=self.lr_factor)
        if self.weight_decay is not None:
            _check("Group", weight_decay=self.weight_decay)


def _tensors(name: str, given: Any) -> list[Tensor]:
    """Return a list of Tensors as given to `name`. Raises TypeError for anything else.

    A Tensor is refused, because its rows are new Tensors, whose training would change nothing.
    """
    if isinstance(given, Tensor | str) or hasattr(given, "parameters") or not isinstance(given, Iterable):
        raise TypeError(f"{name}: expected a list of Tensors, such as net.fc.parameters(), got {type(given).__name__}")
    found = list(given)
    if wrong := [type(p).__name__ for p in found if not isinstance(p, Tensor)]:
        raise TypeError(f"{name}: expected a list of Tensors, such as net.fc.parameters(), got a {wrong[0]} in it")
    return found


def _check(name: str, **values: Any) -> None:
    """Raise TypeError or ValueError, naming what the values are for, unless all are finite numbers >= 0."""
    for what, value in values.items():
        if not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: expected {what} as a number, got {value!r}")
        if not 0 <= float(value) < math.inf:
            raise ValueError(f"{name}: expected {what} >= 0{' and finite' * (float(value) > 0)}, got {value}")


def decay_matrices_only(parameters: Sequence[Tensor]) -> list[Group]:
    """Return groups in which weight decay acts only on parameters with two or more dimensions.

    Parameters with fewer dimensions are biases, BatchNorm's gamma and beta, and the scalars of Fixup. He et al. 2015
    decay all parameters.
    """
    parameters = _tensors("decay_matrices_only", parameters)
    chosen = ([p for p in parameters if p.data.ndim > 1], None), ([p for p in parameters if p.data.ndim < 2], 0.0)
    return [Group(members, weight_decay=decay) for members, decay in chosen if members]


class Optimizer:
    """Optimizer is the base class of SGD, Adam and AdamW, which differ in their rule for one update.

    All parameters are stored one after the other in one array, and the `.data` of each is a view into this array. An
    update is then a few operations on long arrays, not a few operations for each parameter. An update creates new
    arrays and leaves the old ones unchanged, so a graph that still uses the old weights stays valid.
    """

    kept: ClassVar[tuple[str, ...]] = ()   # names of the long arrays that the rule keeps between updates
    saved: ClassVar[tuple[str, ...]] = ()  # names of all arrays that a checkpoint needs besides the parameters

    def __init__(self, parameters: Sequence[Tensor] | Sequence[Group], lr: float, weight_decay: float):
        name = type(self).__name__
        refused = isinstance(parameters, Tensor) or hasattr(parameters, "parameters")  # one Tensor, or a Module
        given = list(parameters) if isinstance(parameters, Iterable) and not refused else _tensors(name, parameters)
        if wrong := [p for p in given if not isinstance(p, (Tensor, Group))]:
            raise TypeError(f"{name}: expected parameters as Tensors or optim.Groups, got {type(wrong[0]).__name__}; "
                            "parameters with a learning rate of their own are Group(parameters, lr_factor=...)")
        if any(isinstance(p, Group) for p in given) and any(isinstance(p, Tensor) for p in given):
            raise TypeError(f"{name}: expected either Tensors or Groups, got both; put the Tensors into a Group")
        groups: list[Any] = given if given and isinstance(given[0], Group) else [Group(given)]  # type: ignore[arg-type]
        self.groups: list[Group] = [group for group in groups if len(group.parameters)]
        self.parameters = [p for group in self.groups for p in group.parameters]
        if not self.parameters:
            raise ValueError(f"{name}: expected at least one parameter, got none; is anything set to "
                             "requires_grad=True?")
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError(f"{name}: expected every parameter once, got one of them twice; are two groups disjoint?")
        if made := [p for p in self.parameters if p.creator is not None]:
            raise ValueError(f"{name}: expected parameters, got the result of an operation, "
                             f"{type(made[0].creator).__name__}; an update would not change what it was computed from")
        _check(name, lr=lr, weight_decay=weight_decay)
        self.lr: Any = float(lr)
        self.weight_decay = float(weight_decay)
        self.shapes = [p.shape for p in self.parameters]
        self.ends = list(itertools.accumulate(p.size for p in self.parameters))
        self._lay_out(self._joined([p.data for p in self.parameters]))
        for array in self.kept:
            setattr(self, array, self.xp.zeros_like(self.flat))

    def step(self) -> None:
        """Update the parameters from their `.grad`. A parameter without a gradient, and what is kept for it, stay
        unchanged.

        Raises ValueError if the shape or dtype of a gradient differs from its parameter.
        """
        # A schedule may have set a NumPy number, which would promote float32. cuda_graph.py sets arrays of one element.
        self.lr = float(self.lr) if isinstance(self.lr, numbers.Real) else self.lr
        self.weight_decay = float(self.weight_decay)
        if any(p.data is not view for p, view in zip(self.parameters, self.views, strict=True)):
            for i, (p, shape) in enumerate(zip(self.parameters, self.shapes, strict=True)):
                if p.shape != shape:
                    raise ValueError(f"{type(self).__name__}: parameter {i}: expected shape {shape}, as when the "
                                     f"optimiser was made, got {p.shape}; make a new optimiser")
            self._lay_out(self._joined([p.data for p in self.parameters]))  # weights were loaded, moved or cast
            for array in self.kept:  # it must follow them
                setattr(self, array, self.xp.asarray(device.to(getattr(self, array), "cpu"), self.flat.dtype))
        dtype, grads = self.flat.dtype, [p.grad for p in self.parameters]
        for i, (p, g, view) in enumerate(zip(self.parameters, grads, self.views, strict=True)):
            if g is None:
                continue
            if not device.is_array(g) and not isinstance(g, np.ndarray):
                raise TypeError(f"{type(self).__name__}: parameter {i}: expected an array as gradient, got "
                                f"{type(g).__name__}")
            if g.shape != view.shape or g.dtype != dtype:
                raise ValueError(f"{type(self).__name__}: parameter {i}: expected a {self.flat.dtype}{p.shape} "
                                 f"gradient, got {p.grad.dtype}{p.grad.shape}; scale it by float(number), not a NumPy "
                                 "number")
        idle = [i for i, g in enumerate(grads) if g is None]
        g = self._joined([self.xp.zeros_like(view) if g is None else g
                          for g, view in zip(grads, self.views, strict=True)])
        self._count(idle)
        old = [self.flat, *(getattr(self, array) for array in self.kept)]
        new = self._updated(old, g)
        for i in idle:
            at = slice(self.ends[i] - self.parameters[i].size, self.ends[i])
            for now, before in zip(new, old, strict=True):
                now[at] = before[at]
        self.adopt(*new)

    def _updated(self, old: list[Any], g: Any) -> list[Any]:
        """Return the arrays `old`, which are the weights and what is kept for them, after one update of all groups."""
        parts, first, begin = [], 0, 0
        for group in self.groups:
            last = first + len(group.parameters)
            at = slice(begin, self.ends[last - 1])
            pieces = [*old, g] if len(self.groups) == 1 else [array[at] for array in (*old, g)]
            decay = self.weight_decay if group.weight_decay is None else float(group.weight_decay)
            lr = self.lr if group.lr_factor == 1 else self.lr * float(group.lr_factor)
            parts.append(self._rule(*pieces, lr, decay, slice(first, last)))
            first, begin = last, at.stop
        if len(parts) == 1:
            return list(parts[0])
        return [kernels.of(self.flat).join(list(arrays)) for arrays in zip(*parts, strict=True)]

    def _rule(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
        """Return the new arrays of one group, from its weights, what is kept for them, their gradient (which may be
        overwritten), the learning rate, the weight decay, and the places of the group's parameters in the list."""
        raise NotImplementedError

    def _count(self, idle: list[int]) -> None:
        """Note that an update begins, in which the parameters at the places `idle` have no gradient."""

    def adopt(self, flat: Any, *kept: Any) -> None:
        """Use these long arrays to hold the parameters and what is kept for them."""
        for name, array in zip(self.kept, kept, strict=True):
            setattr(self, name, array)
        self._lay_out(flat)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def __getstate__(self) -> dict[str, Any]:  # for copy.deepcopy and pickle; copy the model in the same call
        return {name: value for name, value in vars(self).items() if name not in ("xp", "flat", "views")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lay_out(self._joined([p.data for p in self.parameters]))

    def _joined(self, arrays: list[Any]) -> Any:
        name = type(self).__name__
        if len(dtypes := {a.dtype for a in arrays}) > 1:
            raise ValueError(f"{name}: expected parameters of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
        self.xp = device.of(*arrays, operation=name)
        return kernels.of(arrays[0]).join(arrays)

    def _lay_out(self, flat: Any) -> None:
        """Make the `.data` of every parameter a view into `flat`."""
        self.flat = flat
        self.views = []
        for p, end, shape in zip(self.parameters, self.ends, self.shapes, strict=True):
            p.data = flat[end - math.prod(shape):end].reshape(shape)
            self.views.append(p.data)


class SGD(Optimizer):
    """SGD updates each weight w by its gradient g:  v = momentum v + (g + weight_decay w);  w = w - lr v.

    The learning rate is not part of v, so a new learning rate takes full effect at once. This is PyTorch's form.
    Caffe's form, v = m v + lr g, differs only after a change of lr. Weight decay acts on every parameter, as in
    He et al. 2015; `decay_matrices_only` spares some.

    nesterov: look one step of the velocity ahead:  w = w - lr (g + weight_decay w + momentum v), with the new v. This
        is PyTorch's form of Nesterov's momentum, too

    parameters: Tensors, or Groups with learning rates of their own

    Raises ValueError if there is no parameter, if their dtypes differ, if a number is negative, or for nesterov without
    momentum.
    """

    kept = saved = ("velocity",)
    velocity: Any

    def __init__(self, parameters: Sequence[Tensor] | Sequence[Group], lr: float, momentum: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False):
        _check(type(self).__name__, lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and not momentum:
            raise ValueError("SGD: expected momentum > 0 with nesterov=True, got 0")
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = float(momentum), bool(nesterov)

    def step(self) -> None:
        """Update the parameters from their `.grad`. A parameter without a gradient, and its velocity, stay unchanged.

        Raises ValueError if the shape or dtype of a gradient differs from its parameter.
        """
        self.momentum = float(self.momentum)
        super().step()

    def constants(self) -> tuple[Any, ...]:
        """Return the numbers, besides the learning rate, that decide an update; cuda_graph.py records them."""
        return (self.momentum, self.weight_decay, self.nesterov,
                *((group.lr_factor, group.weight_decay) for group in self.groups))

    def _rule(self, w: Any, v: Any, g: Any, lr: Any, decay: float, members: slice) -> Sequence[Any]:
        if not self.nesterov:
            return kernels.of(w).sgd(w, g, v, lr, self.momentum, decay)
        if decay:
            g += decay * w
        v = self.momentum * v + g
        return w - lr * (g + self.momentum * v), v


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, Algorithm 1) divides the mean of the gradients by the root of the mean of their squares:

        m = beta1 m + (1 - beta1) g            an average of the gradients
        v = beta2 v + (1 - beta2) g^2          an average of their squares, element by element
        w = w - lr m' / (sqrt(v') + eps)       m' = m / (1 - beta1^t)   v' = v / (1 - beta2^t)

    t counts the updates of a parameter. m and v start at 0, and the divisions by 1 - beta^t undo this bias toward 0.
    Weight decay is part of the gradient, g + weight_decay w, as in PyTorch's Adam.

    parameters: Tensors, or Groups with learning rates of their own

    Raises ValueError if there is no parameter, if their dtypes differ, if a number is negative, or if a beta is not
    below 1.
    Raises TypeError for float16 parameters, in which the squares of small gradients are 0.
    """

    kept = "mean", "square"
    saved = *kept, "updates"
    mean: Any
    square: Any

    def __init__(self, parameters: Sequence[Tensor] | Sequence[Group], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0):
        name = type(self).__name__
        _check(name, eps=eps)
        if not (isinstance(betas, Sequence) and len(betas) == 2
                and all(isinstance(beta, numbers.Real) and 0 <= beta < 1 for beta in betas)):
            raise ValueError(f"{name}: expected two betas, each from 0 to below 1, got {betas}")
        super().__init__(parameters, lr, weight_decay)
        if self.flat.dtype.itemsize < 4:
            raise TypeError(f"{name}: expected parameters of float32 or float64, got {self.flat.dtype}, in which the "
                            'squares of small gradients are 0; model.astype("float32") converts them')
        self.betas, self.eps = (float(betas[0]), float(betas[1])), float(eps)
        self.updates = np.zeros(len(self.parameters), np.int64)  # t of every parameter

    def _count(self, idle: list[int]) -> None:
        more = np.ones_like(self.updates)
        more[idle] = 0
        self.updates = self.updates + more  # a new array, because a checkpoint may hold the old one

    def _rule(self, w: Any, m: Any, v: Any, g: Any, lr: Any, decay: float, members: slice) -> Sequence[Any]:
        w, g = self._decayed(w, g, lr, decay)
        m = m + (1 - self.betas[0]) * (g - m)
        v = self.betas[1] * v + (1 - self.betas[1]) * (g * g)
        one, two = (self._unbiased(beta, members) for beta in self.betas)
        return w - (lr / one) * m / (self.xp.sqrt(v) / two**0.5 + self.eps), m, v

    def _decayed(self, w: Any, g: Any, lr: Any, decay: float) -> tuple[Any, Any]:
        return w, g + decay * w if decay else g

    def _unbiased(self, beta: float, members: slice) -> Any:
        """Return 1 - beta^t: a number if t is the same for these parameters, else an array with a number for each of
        their elements."""
        shares = 1 - beta ** np.maximum(self.updates[members], 1).astype(np.float64)
        if (shares == shares[0]).all():
            return float(shares[0])
        sizes = [p.size for p in self.parameters[members]]
        return self.xp.asarray(np.repeat(shares, sizes).astype(self.flat.dtype))


class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019, Algorithm 2) is Adam with decoupled weight decay: before each update of Adam,

        w = w - lr weight_decay w

    So the decay is not divided by sqrt(v), as it is where it is part of the gradient. As in PyTorch, the learning rate
    multiplies it. Everything else is as for Adam.
    """

    def __init__(self, parameters: Sequence[Tensor] | Sequence[Group], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def _decayed(self, w: Any, g: Any, lr: Any, decay: float) -> tuple[Any, Any]:
        return w * (1 - lr * decay), g


def clip_gradients(parameters: Sequence[Tensor], most: float) -> Any:
    """Scale all gradients by one factor, so that their common Euclidean norm is at most `most`. Return the old norm.

    The factor is min(1, most / (norm + 1e-6)), as in PyTorch's clip_grad_norm_. Call this function between `backward`
    and `step`. Parameters without a gradient are left out. The gradients are new arrays; the norm is a number, on a GPU
    an array without dimensions, for which nothing waits. A norm that is not finite makes the gradients NaN or 0.

    Raises TypeError if the parameters are not a list of Tensors, and ValueError if `most` is not a number above 0.
    """
    if not isinstance(most, numbers.Real) or not most > 0:
        raise ValueError(f"clip_gradients: expected a norm above 0, got {most!r}")
    given = [p for p in _tensors("clip_gradients", parameters) if p.grad is not None]
    if not given:
        return 0.0
    xp = device.of(*(p.grad for p in given), operation="clip_gradients")
    # In float64, because the square of a small or large float32 is 0 or infinite.
    norm = xp.sqrt(sum(xp.square(p.grad.astype(np.float64)).sum() for p in given))
    factor = xp.minimum(float(most) / (norm + 1e-6), 1.0)
    for p in given:
        p.grad = xp.asarray(p.grad * factor.astype(p.grad.dtype))
    return norm


Schedule = Callable[[int], float]  # step, counted from 0 -> learning rate


def constant(lr: float) -> Schedule:
    """Return a schedule that is `lr` at every step. Raises ValueError if lr < 0."""
    _check("constant", lr=lr)
    return lambda step: lr


def step_decay(lr: float, at: Sequence[int], factor: float = 0.1) -> Schedule:
    """Return a schedule that starts at `lr` and multiplies it by `factor` at each of the steps `at`.

    He et al. 2015, section 4.2, use factor 0.1 at the steps (32000, 48000).

    Raises TypeError if `at` is not a list of numbers, and ValueError if a number is negative.
    """
    _check("step_decay", lr=lr, factor=factor)
    if isinstance(at, str) or not isinstance(at, Iterable):
        raise TypeError(f"step_decay, at: expected a list of steps, got {at!r}")
    drops = list(at)  # a generator could be read once only
    for step in drops:
        _check("step_decay, at", step=step)
    return lambda step: lr * factor ** sum(step >= s for s in drops)


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """Return a schedule that falls from `lr` to `end` in `steps` steps, along half a cosine, and then stays there:

        end + (lr - end) (1 + cos(pi step / steps)) / 2

    This is SGDR (Loshchilov & Hutter 2017) without restarts, and PyTorch's CosineAnnealingLR up to step `steps`.

    Raises ValueError if steps < 1 or a rate is negative.
    """
    _check("cosine", lr=lr, steps=steps, end=end)
    if steps < 1:
        raise ValueError(f"cosine: expected steps >= 1, got {steps}")
    return lambda step: end + (lr - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def one_cycle(lr: float, steps: int, rise: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
              ) -> Schedule:
    """Return a schedule that rises from lr / start_factor to `lr`, and then falls to lr / (start_factor * end_factor).

    steps: the length of the whole schedule; the last step has the lowest rate, which then stays
    rise: the share of the steps in which the rate rises

    Both parts are half a cosine. The idea is Smith & Topin's (2018); the form and the defaults are those of PyTorch's
    OneCycleLR, which by default also changes the momentum. Here the momentum stays.

    Raises ValueError if steps < 2, lr < 0, if `rise` is not between 0 and 1, or if a factor is not above 0.
    """
    _check("one_cycle", lr=lr, steps=steps, rise=rise, start_factor=start_factor, end_factor=end_factor)
    if steps < 2 or not 0 < rise < 1 or not min(start_factor, end_factor) > 0:
        raise ValueError(f"one_cycle: expected steps >= 2, rise between 0 and 1 and factors above 0, got {steps}, "
                         f"{rise}, {start_factor} and {end_factor}")
    low, top, last = lr / start_factor, rise * steps - 1, steps - 1

    def schedule(step: int) -> float:
        if step <= top:
            return low + (lr - low) * (1 - math.cos(math.pi * step / top)) / 2 if top > 0 else lr
        share = min((step - top) / (last - top), 1.0)
        return low / end_factor + (lr - low / end_factor) * (1 + math.cos(math.pi * share)) / 2

    return schedule


def warm_up(schedule: Schedule, steps: int, lr: float) -> Schedule:
    """Return a schedule that is `lr` for the first `steps` steps, then `schedule`.

    He et al. 2015, section 4.2, start a network of 110 layers with 0.01 for about 400 steps.

    Raises TypeError if `schedule` is not a schedule, and ValueError if a number is negative.
    """
    _check("warm_up", steps=steps, lr=lr)
    if not callable(schedule):
        raise TypeError(f"warm_up: expected a schedule, such as constant(0.1), got {schedule!r}")
    return lambda step: lr if step < steps else schedule(step)
