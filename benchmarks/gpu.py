"""Run every check and benchmark that needs a GPU, in under eight minutes: python benchmarks/gpu.py --out DIR

The first sections check that the GPU computes what NumPy computes. The others measure speed: minires readable, fused
and graphed, compared with PyTorch eager and graphed. Every section has its own time limit. If a section fails, its
error is recorded and the next section runs. The work is done in a second process. If this process crashes, hangs, or
leaves a device that does not respond, that is recorded too, and a new process continues with the next section.
DIR/gpu.json is written after each section. The program needs NumPy and CuPy, and PyTorch for the comparison
(torchvision too for ResNet-50). It needs no network.

--dry-run runs all sections on the CPU with tiny sizes and the tests' stand-in for CuPy. Its numbers mean nothing.
--one-process uses no second process, for a debugger or a profiler.
"""
from __future__ import annotations

import argparse
import contextlib
import gc
import json
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # this checkout comes first, so that it is measured

import common  # noqa: E402
import gpu_parity as parity  # noqa: E402
import workers  # noqa: E402

from minires import Tensor, device, info, kernels, models, no_grad, ops, optim, train  # noqa: E402
from minires.cuda_graph import GraphedStep  # noqa: E402
from minires.datasets.augment import crop_and_flip  # noqa: E402
from minires.files.atomic import write_atomically  # noqa: E402
from minires.kernels import cuda  # noqa: E402

F4 = np.float32
LR, MOMENTUM, WEIGHT_DECAY = workers.LR, workers.MOMENTUM, workers.WEIGHT_DECAY
Step = Callable[[], Any]
Found = dict[str, Any]  # result of a section; it is written as JSON


class LeftOut(Exception):
    """Something cannot be measured here. The text says why."""


class Bench:
    """A Bench has the device, the sizes of the work, and the time limit of the current section."""

    def __init__(self, cp: Any, dry: bool):
        self.cp, self.dry, self.until = cp, dry, 0.0

    def steps(self, full: int) -> int:
        return 2 if self.dry else full

    def late(self, needed: float = 0.0) -> bool:
        """Return True if the time of this section is used up, or will be after `needed` more seconds."""
        return time.monotonic() + needed > self.until

    def wait(self) -> None:
        """Wait until the device has finished all its work."""
        self.cp.cuda.get_current_stream().synchronize()

    def milliseconds(self, f: Step, count: int) -> float:
        """Return the milliseconds of one f(), by device events around `count` calls.

        PyTorch uses the same default stream, so the events also time PyTorch.
        """
        start, end = self.cp.cuda.Event(), self.cp.cuda.Event()
        start.record()
        for _ in range(count):
            f()
        end.record()
        end.synchronize()
        return self.cp.cuda.get_elapsed_time(start, end) / count

    def median_of(self, f: Step, seconds: float) -> float:
        """Return the median milliseconds of f(), measured for about `seconds` seconds after a warm-up."""
        f()
        self.wait()
        once = self.milliseconds(f, 1)
        count = 1 if self.dry else max(1, min(50, int(20 / max(once, 1e-3))))
        rounds = 2 if self.dry else max(3, min(15, int(1e3 * seconds / max(once * count, 1e-3))))
        return statistics.median(self.milliseconds(f, count) for _ in range(rounds))

    def pooled_bytes(self) -> int:
        """Return the bytes of device memory in CuPy's default pool, after its free blocks are released."""
        gc.collect()
        self.cp.get_default_memory_pool().free_all_blocks()
        return self.cp.get_default_memory_pool().total_bytes()


# ------------------------------------------------------------------------------------ the device and its limits


def the_device(b: Bench) -> Found:
    """Describe the device and the versions of the libraries."""
    found = b.cp.cuda.runtime.getDeviceProperties(0)
    return {"name": found["name"].decode(), "multiprocessors": found["multiProcessorCount"],
            "compute_capability": f"{found['major']}.{found['minor']}", "cuda": b.cp.cuda.runtime.runtimeGetVersion(),
            "driver": b.cp.cuda.runtime.driverGetVersion(), "cupy": b.cp.__version__, **info.versions(),
            "torch": _version("torch"), "torchvision": _version("torchvision"), "reason": device.reason}


def _version(name: str) -> str | None:
    try:
        return str(__import__(name).__version__)
    except ImportError:
        return None


def ceilings(b: Bench) -> Found:
    """Measure the limits of the device: bytes read and written per second by a copy, and FLOP/s of a GEMM."""
    size, n = (1 << 10, 64) if b.dry else (1 << 28, 8192)
    x, y = b.cp.zeros(size, F4), b.cp.empty(size, F4)
    ms = b.median_of(lambda: y.__setitem__(..., x), 1)
    a = device.to(parity.normal(n, n), "gpu")
    result = {"copy_bytes_per_s": 2 * x.nbytes / ms * 1e3}
    for name, on in ("float32", False), ("tf32", True):
        with kernels.tf32(on):
            result[f"gemm_{name}_flop_per_s"] = 2 * n ** 3 / b.median_of(lambda: cuda.matmul(a, a), 1) * 1e3
    return result


# --------------------------------------------------------------------------------------------------- parity


def parity_operations(b: Bench) -> Found:
    """Compare every operation and its gradients with NumPy."""
    return _rows(b, parity.operations())


def parity_kernels(b: Bench) -> Found:
    """Compare the kernels at the shapes of real networks with NumPy."""
    return _rows(b, parity.real_sizes(8 if b.dry else 128, small=b.dry))


def parity_models(b: Bench) -> Found:
    """Compare every kind of network with NumPy."""
    return _rows(b, parity.whole_models(*((4, 8, 4) if b.dry else (16, 16, 16))))


def parity_training(b: Bench) -> Found:
    """Compare 200 training steps with NumPy."""
    return parity.training(4, width=2, n=4, size=8) if b.dry else parity.training(200)


def _rows(b: Bench, rows: Iterator[parity.Row]) -> Found:
    done: list[parity.Row] = []
    finished = True
    for row in rows:
        done.append(row)
        if b.late():  # the rows not compared are unknown, so the section is not ok
            finished = False
            break
    return {"ok": finished and all(r["ok"] for r in done), "compared": len(done), "all_were_compared": finished,
            "not_ok": [r["what"] for r in done if not r["ok"]], "worst_error": max(r["error"] for r in done),
            "rows": done}


# ------------------------------------------------------------------------------------------- steps of the systems


def minires_step(model: Any, images: Any, labels: Any, graphed: bool) -> Step:
    """Return a function that runs one training step of `model` and returns the loss on the device, without waiting."""
    optimizer = optim.SGD(model.parameters(), LR, MOMENTUM, WEIGHT_DECAY)
    if graphed:
        step = GraphedStep(model, optimizer, images, labels)
        return lambda: step(images, labels)

    def eager() -> Any:
        model.train()
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(Tensor(images)), labels)
        loss.backward()
        optimizer.step()
        return loss.data
    return eager


def torch_step(torch: Any, model: Any, images: Any, labels: Any, graphed: bool, channels_last: bool) -> Step:
    """Return the training step in PyTorch, as its users write it. A graphed step follows PyTorch's manual."""
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def eager() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()
    if not graphed:
        return eager
    if images.device.type != "cuda":
        raise LeftOut("no CUDA graphs on the CPU")
    layers = getattr(model, "layers", model)
    start = {name: t.clone() for name, t in layers.state_dict().items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            eager()
    torch.cuda.current_stream().wait_stream(side)
    layers.load_state_dict(start)  # in place; undoes the training of the warm-up
    for state in optimizer.state.values():
        state["momentum_buffer"].zero_()
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = eager()

    def replay() -> Any:
        graph.replay()
        return loss
    return replay


class TorchCifar(workers.Torch):
    """TorchCifar is the PyTorch network of workers.py, moved to a device and callable as a module."""

    def __init__(self, w: workers.Arrays, depth: int, width: int, where: str):
        images, labels = workers.batch(1)
        super().__init__(w, images, labels, depth=depth, width=width, threads=1)
        self.layers.to(where).train()

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    def to(self, **options: Any) -> TorchCifar:
        self.layers.to(**options)
        return self

    def parameters(self) -> Any:
        return self.layers.parameters()


class Network:
    """A Network is one network for all systems, with the same weights and the same batch."""

    def __init__(self, name: str, dry: bool):
        self.name, self.dry, self.imagenet = name, dry, name == "resnet50"
        self.where = "cpu" if dry else "cuda"
        self.batch = 4 if dry else 64 if self.imagenet else 128
        size = (64 if dry else 224) if self.imagenet else 8 if dry else 32
        self.images, self.labels = parity.images_of(self.batch, size, 1000 if self.imagenet else 10)
        if not self.imagenet:
            self.depth, self.width = (8, 4) if dry else (int(name.removeprefix("resnet")), 16)
            self.weights = workers.start_weights(self.depth, self.width)

    def resnet50(self) -> Any:
        """Build ResNet-50 with the same weights at every call."""
        return models.imagenet(18, width=4) if self.dry else models.resnet50()

    def minires(self, graphed: bool) -> Step:
        if self.imagenet:
            model: Any = self.resnet50()
        else:
            model = models.cifar(self.depth, width=self.width)
            running = {n: t.data for n, t in model.state().items() if not t.requires_grad}
            model.load_state({**running, **self.weights})
        model.to("gpu")
        return minires_step(model, device.to(self.images, "gpu"), device.to(self.labels, "gpu"), graphed)

    def torch(self, graphed: bool, channels_last: bool, tf32: bool) -> Step:
        try:
            import torch
        except ImportError:
            raise LeftOut("PyTorch is not installed") from None
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True  # cuDNN tries its algorithms and uses the fastest
        if self.imagenet:
            try:
                import torchvision
            except ImportError:
                raise LeftOut("torchvision is not installed") from None
            if self.dry:
                raise LeftOut("torchvision's network has no tiny size")
            weights = self.resnet50().state()
            model: Any = torchvision.models.resnet50()
            model.load_state_dict({n: torch.from_numpy(t.data.copy()) for n, t in weights.items()}, strict=False)
            model = model.to(self.where).train()
        else:
            model = TorchCifar(self.weights, self.depth, self.width, self.where)
        images, labels = (torch.from_numpy(a).to(self.where) for a in (self.images, self.labels))
        return torch_step(torch, model, images, labels, graphed, channels_last)


SYSTEMS = {  # {name: (library, graphed, channels_last (torch) or readable (minires), TF32)}
    "minires readable": ("minires", False, True, False),
    "minires fused": ("minires", False, False, False), "minires fused, TF32": ("minires", False, False, True),
    "minires graphed": ("minires", True, False, False), "minires graphed, TF32": ("minires", True, False, True),
    "torch eager": ("torch", False, False, False), "torch eager, TF32": ("torch", False, False, True),
    "torch graphed, channels_last": ("torch", True, True, False),
    "torch graphed, channels_last, TF32": ("torch", True, True, True),
}


@contextlib.contextmanager
def conditions(name: str) -> Iterator[None]:
    """Set the kernels and precision of a system, while it is built and while it is timed."""
    library, _, readable, tf32 = SYSTEMS[name]
    if library == "torch":
        with contextlib.suppress(ImportError):
            import torch
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        yield
    else:
        with kernels.using("reference" if readable else "auto"), kernels.tf32(tf32):
            yield


def step_times(b: Bench, name: str) -> Found:
    """Measure all systems on one network: first the memory of each, then interleaved rounds of steps."""
    network = Network(name, b.dry)
    result: dict[str, Any] = {"batch": network.batch, "systems": {}}
    steps: dict[str, Step] = {}
    for system, (library, graphed, second, tf32) in SYSTEMS.items():
        entry = result["systems"][system] = {}
        if b.late(10):
            entry["left_out"] = "no time left"
            continue
        try:
            with conditions(system):
                before = b.pooled_bytes(), _torch_bytes(b, reset=True)
                step = network.minires(graphed) if library == "minires" else network.torch(graphed, second, tf32)
                entry["losses"] = [float(step()) for _ in range(2)]
                _torch_bytes(b, reset=True)  # the workspaces of the algorithms that cuDNN tried do not count
                entry["losses"] += [float(step()) for _ in range(2)]  # minires graphed replays from the third step
                after = _pool_total(b), _torch_bytes(b)
            entry["device_bytes"] = (after[0] - before[0] + _graph_bytes(step) if library == "minires"
                                     else after[1] - before[1])
            steps[system] = step
        except LeftOut as e:
            entry["left_out"] = str(e)
        except Exception as e:
            entry["error"] = f"{type(e).__name__}: {e}"
    rounds: dict[str, list[float]] = {system: [] for system in steps}

    def timed(system: str, count: int) -> float:
        """Return the milliseconds of a step, or 0 if it fails. A system that failed has no more rounds."""
        try:
            with conditions(system):
                return b.milliseconds(steps[system], count)
        except Exception as e:
            result["systems"][system]["error"] = f"{type(e).__name__}: {e}"
            del steps[system], rounds[system]
            return 0.0
    counts = {s: 1 if b.dry else max(2, min(40, int(100 / max(timed(s, 2), 0.1)))) for s in [*steps]}
    for _ in range(b.steps(9)):
        if b.late(sum(counts[s] * rounds[s][-1] for s in steps if rounds[s]) / 1e3):
            break
        for system in [*steps]:
            if ms := timed(system, counts[system]):
                rounds[system].append(ms)
    for system, times in rounds.items():
        if times:
            result["systems"][system].update(ms=statistics.median(times), rounds_ms=times,
                                             steps_per_turn=counts[system])
    result["ratios"] = _ratios(rounds, result["systems"])
    first = result["systems"]["minires readable"].get("losses", [])
    result["losses_differ_by"] = {system: max((abs(a - b) / abs(b) for a, b in zip(s["losses"], first, strict=True)))
                                  for system, s in result["systems"].items() if first and "losses" in s}
    return result


def _pool_total(b: Bench) -> int:
    return b.cp.get_default_memory_pool().total_bytes()


def _graph_bytes(step: Step) -> int:
    """Return the bytes in the memory pool of a recorded step."""
    graphed = next((c.cell_contents for c in step.__closure__ or () if isinstance(c.cell_contents, GraphedStep)), None)
    return graphed.replay.pool.total_bytes() if graphed else 0


def _torch_bytes(b: Bench, reset: bool = False) -> int:
    """Return the peak bytes of PyTorch's allocator."""
    if b.dry or _version("torch") is None:
        return 0
    import torch
    if reset:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return int(torch.cuda.max_memory_reserved())


def _ratios(rounds: dict[str, list[float]], systems: dict[str, Any]) -> Found:
    """Return the ratios of step times, round by round, and the ratio of memory."""
    wanted = {"torch eager / minires graphed": ("torch eager", "minires graphed"),
              "torch eager / minires graphed, TF32": ("torch eager, TF32", "minires graphed, TF32"),
              "torch graphed / minires graphed": ("torch graphed, channels_last", "minires graphed"),
              "torch graphed / minires graphed, TF32": ("torch graphed, channels_last, TF32", "minires graphed, TF32"),
              "minires readable / torch eager": ("minires readable", "torch eager")}
    found: dict[str, Any] = {}
    for name, (a, b) in wanted.items():
        if rounds.get(a) and rounds.get(b):
            each = [x / y for x, y in zip(rounds[a], rounds[b], strict=True)]
            found[name] = {"median": statistics.median(each), "rounds": each}
    bytes_of = {s: systems[s].get("device_bytes") for s in ("minires graphed", "torch eager")}
    if all(bytes_of.values()):
        found["memory, minires graphed / torch eager"] = bytes_of["minires graphed"] / bytes_of["torch eager"]
    return found


# --------------------------------------------------------------------------------------- where the time goes


def device_time(b: Bench, f: Step) -> tuple[float, str]:
    """Return (milliseconds of one f(), how they were measured).

    A short kernel finishes before the host has launched the next one. To exclude the host, many calls are recorded in
    one CUDA graph. Calls that cannot be recorded are launched one by one.
    """
    count = b.steps(50)

    def many() -> None:
        for _ in range(count):
            f()
    replay = device.Replay(many, b.cp.zeros(1, F4))
    try:
        for _ in range(3):  # the first two calls warm up; the third records
            replay()
    except Exception as e:
        return b.milliseconds(f, count), f"{count} launches one by one, host included: {type(e).__name__}: {e}"
    return (statistics.median(b.milliseconds(replay, 4) for _ in range(b.steps(5))) / count,
            f"{count} launches as one CUDA graph")


def shares(b: Bench) -> Found:
    """Measure every kernel and matrix product of one ResNet-20 step: milliseconds on the device, bytes of its arrays,
    and FLOPs of the products.

    Launches of one kernel on arrays of the same shapes are measured once, repeatedly on the same arrays. So data that
    fits into the cache of the device stays there. CuPy's own elementwise kernels are not included.
    """
    network = Network("resnet20", b.dry)
    calls: dict[tuple[str, str], list[Any]] = {}  # {(name, shapes): [again, bytes, FLOPs, number of launches]}
    launch, matmul = cuda._launch, cuda.matmul

    def note(name: str, shapes: str, again: Step, moved: int, flops: int) -> None:
        calls.setdefault((name, shapes), [again, moved, flops, 0])[-1] += 1

    def noted_launch(name: str, blocks: Any, like: Any, *args: Any) -> None:
        launch(name, blocks, like, *args)
        moved = sum(a.nbytes for a in args if device.on_gpu(a))
        moved += sum(8 * int(a["size"].sum()) for a in args if isinstance(a, np.ndarray))  # a table of copies
        note(name, repr([a.shape if device.on_gpu(a) else a for a in args]),
             lambda: launch(name, blocks, like, *args), moved, 0)

    def noted_matmul(x: Any, y: Any) -> Any:
        out = matmul(x, y)
        note(f"GEMM {x.shape[0]} x {x.shape[1]} x {y.shape[1]}", f"{x.strides} {y.strides}", lambda: matmul(x, y),
             x.nbytes + y.nbytes + out.nbytes, 2 * x.shape[0] * x.shape[1] * y.shape[1])
        return out

    with kernels.tf32():
        step = network.minires(graphed=False)
        whole: Found = {"eager_step_ms": b.median_of(step, 1)}
        try:
            whole["graphed_step_ms"] = b.median_of(network.minires(graphed=True), 1)
        except Exception as e:
            whole["graphed_error"] = f"{type(e).__name__}: {e}"
        cuda._launch, cuda.matmul = noted_launch, noted_matmul
        try:
            step()
        finally:
            cuda._launch, cuda.matmul = launch, matmul
        rows: dict[str, Found] = defaultdict(lambda: {"launches": 0, "ms": 0.0, "bytes": 0, "flop": 0, "measured": []})
        for (name, _), (again, moved, flops, times) in calls.items():
            if b.late():
                break
            row, (ms, how) = rows[name], device_time(b, again)
            for key, value in ("launches", 1), ("ms", ms), ("bytes", moved), ("flop", flops):
                row[key] += times * value
            row["measured"] += [how] * (how not in row["measured"])
    total, launches = sum(r["ms"] for r in rows.values()), sum(times for *_, times in calls.values())
    table = [{"kernel": name, **row, "share": row["ms"] / total, "bytes_per_s": row["bytes"] / row["ms"] * 1e3,
              "flop_per_s": row["flop"] / row["ms"] * 1e3} for name, row in rows.items()]
    return {**whole, "launches": launches, "sum_ms": total, "precision": "TF32",
            "all_were_measured": launches == sum(r["launches"] for r in rows.values()),
            "kernels": sorted(table, key=lambda r: -r["ms"])}


# --------------------------------------------------------------------------------------------- a whole training


def whole_training(b: Bench) -> Found:
    """Train ResNet-20 as in section 4.2, 64,000 iterations with augmentation, on random images of CIFAR-10's shape.

    After every 391 iterations it computes the error on 10,000 images. It stops when the time of the section is used up.
    """
    count, n, test, every, batch = (6, 40, 20, 3, 8) if b.dry else (64_000, 50_000, 10_000, 391, 128)
    network = Network("resnet20", b.dry)
    size = network.images.shape[-1]
    images, labels = (device.to(a, "gpu") for a in parity.images_of(n, size))
    model = models.cifar(network.depth, width=network.width, rng=np.random.default_rng(0)).to("gpu")
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    schedule = optim.step_decay(0.1, (count // 2, 3 * count // 4))
    rng, done, evaluating, losses = np.random.default_rng(1), 0, 0.0, []
    with kernels.tf32():
        step = GraphedStep(model, optimizer, images[:batch], labels[:batch])
        b.wait()
        start = time.perf_counter()
        while done < count and not b.late(3):
            for rows in np.array_split(rng.permutation(n)[:min(every, n // batch) * batch], min(every, n // batch)):
                rows = device.to(rows, "gpu")
                optimizer.lr = schedule(done)
                loss = step(crop_and_flip(images[rows], rng=rng), labels[rows])
                done += 1
                if done == count:
                    break
            losses.append(float(loss))  # waits for the device, so that the host is never more than an epoch ahead
            before = time.perf_counter()
            train.error(model, images[:test], labels[:test])
            evaluating += time.perf_counter() - before
        seconds = time.perf_counter() - start
    return {"iterations": done, "of": count, "finished": done == count, "seconds": seconds,
            "of_them_evaluating": evaluating, "ms_per_iteration": 1e3 * seconds / done, "precision": "TF32",
            "loss_after_each_pass": losses}


def inference(b: Bench) -> Found:
    """Time ResNet-20 in evaluation mode with batch 500, as in train.error."""
    network = Network("resnet20", b.dry)
    model = models.cifar(network.depth, width=network.width).to("gpu").eval()
    x = Tensor(device.to(parity.normal(8 if b.dry else 500, *network.images.shape[1:]), "gpu"))
    result: dict[str, Any] = {"batch": len(x)}
    with no_grad():
        for name, on in ("float32", False), ("tf32", True):
            with kernels.tf32(on):
                result[f"{name}_ms"] = b.median_of(lambda: model(x), 1)
    return result


SECTIONS: dict[str, tuple[Callable[[Bench], Found], float]] = {  # {name: (function, seconds)}
    "device": (the_device, 10), "ceilings": (ceilings, 15),
    "parity_operations": (parity_operations, 70),  # CuPy compiles about a hundred small kernels
    "parity_kernels": (parity_kernels, 50), "parity_models": (parity_models, 60),
    "parity_training": (parity_training, 50), "resnet20": (lambda b: step_times(b, "resnet20"), 40),
    "resnet56": (lambda b: step_times(b, "resnet56"), 30), "resnet110": (lambda b: step_times(b, "resnet110"), 35),
    "resnet50": (lambda b: step_times(b, "resnet50"), 50), "shares": (shares, 15), "inference": (inference, 5),
    "whole_training": (whole_training, 80),
}
BUDGET = 470.0  # seconds for all sections. The last sections use the time that earlier sections did not need
GRACE = 45.0    # extra seconds for a section before its process is killed


def summary(result: Found) -> str:
    """Summarise the result of every section."""
    lines = []
    for name, section in result["sections"].items():
        if "error" in section:
            lines.append(f"{name}: FAILED: {section['error']}")
        elif "ok" in section:
            lines.append(f"{name}: {'ok' if section['ok'] else 'NOT OK'}, {section['compared']} compared"
                         f"{'' if section['all_were_compared'] else ', NOT ALL for lack of time'}, worst error "
                         f"{section['worst_error']:.1e}" + "".join(f"; {what}" for what in section["not_ok"]))
        elif "systems" in section:
            rows = [[system, common.number(s.get("ms"), 2), common.number(s.get("device_bytes", 0) / 2 ** 20),
                     s.get("error", s.get("left_out", ""))] for system, s in section["systems"].items()]
            table = common.table(["system", "ms", "MB", "left out"], rows)
            lines.append(f"{name}, batch {section['batch']}:\n{table}")
            lines += [f"  {k}: {r['median'] if isinstance(r, dict) else r:.2f}" for k, r in section["ratios"].items()]
        else:
            plain = {k: v for k, v in section.items() if not isinstance(v, (list, dict)) or k == "relative_error_after"}
            lines.append(f"{name}: {plain}")
    return "\n".join(lines)


def good(section: Found) -> bool:
    """Return True if the section ran without an error and all its comparisons passed."""
    holds = (section.get(key) for key in ("ok", "same_bits_twice", "graphed_has_the_same_bits"))
    parts = (section, *section.get("systems", {}).values())
    return False not in holds and not any(key in part for part in parts for key in ("error", "graphed_error"))


def main(argv: Sequence[str]) -> int:
    """Run the sections. Return 0 if every section ran and all comparisons passed, else 1."""
    p = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for gpu.json")
    p.add_argument("--sections", default=",".join(SECTIONS), metavar="A,B", help="sections, in order (%(default)s)")
    p.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, with the tests' stand-in for CuPy")
    p.add_argument("--one-process", action="store_true", help="for a debugger or a profiler; a crash ends everything")
    p.add_argument("--tell", type=float, help=argparse.SUPPRESS)  # for the second process: how many seconds are left
    args = p.parse_args(argv)
    names = args.sections.split(",")
    if unknown := [n for n in names if n not in SECTIONS]:
        p.error(f"--sections: there is no section {unknown[0]!r}; the sections are {', '.join(SECTIONS)}")
    if args.tell is not None:
        for message in work(names, args.dry_run, args.tell):
            print(MARK + json.dumps(message, default=str), flush=True)
        return 0
    result: Found = {**common.header("gpu", argv), "dry_run": args.dry_run, "sections": {}}
    file = args.out / "gpu.json"
    for message in (work if args.one_process else second_process)(names, args.dry_run, BUDGET):
        if "cannot" in message:
            raise common.Failed(message["cannot"])
        if "found" in message:
            found = result["sections"][message["name"]] = message["found"]
            args.out.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(result, indent=1, default=str) + "\n")
            print(f"{message['name']}: {found['section_seconds']} s", file=sys.stderr, flush=True)
    common.finish(result, summary(result), file)
    return int(not all(map(good, result["sections"].values())))


def work(names: Sequence[str], dry: bool, budget: float) -> Iterator[Found]:
    """Run the sections one after the other. Yield {"name"} before each section and {"name", "found"} after it.

    Yields {"cannot": reason} if there is no GPU. Raises RuntimeError if the device no longer responds, because only a
    new process can use it again.
    """
    undo = None
    if dry:
        sys.path.insert(0, str(HERE.parent / "tests"))
        import fake_cupy
        if why := fake_cupy.missing():
            yield {"cannot": f"--dry-run: {why}"}
            return
        undo = fake_cupy.install()
    try:
        if device.use("auto") != "gpu":
            yield {"cannot": device.reason}
            return
        import cupy
        b, end = Bench(cupy, dry), time.monotonic() + budget
        for name in names:
            yield {"name": name}
            section, seconds = SECTIONS[name]
            began = time.monotonic()
            b.until = end if dry else min(began + seconds, end)  # the seconds are those of a GPU
            try:
                if began >= end:
                    raise LeftOut("the time for all sections is used up")
                found = section(b)
            except LeftOut as e:
                found = {"left_out": str(e)}
            except Exception as e:  # after any exception the next section may still work
                found = {"error": f"{type(e).__name__}: {e}", "traceback": common.without_paths(traceback.format_exc())}
            gc.collect()
            yield {"name": name, "found": {**found, "section_seconds": round(time.monotonic() - began, 1)}}
            if float(cupy.ones(8, F4).sum()) != 8:
                raise RuntimeError("the device no longer computes a sum correctly")
    finally:
        if undo:
            undo()


MARK = "gpu.py: "  # starts every message from the second process
SECOND = [sys.executable, "-X", "faulthandler", str(Path(__file__).resolve())]


def second_process(names: Sequence[str], dry: bool, budget: float) -> Iterator[Found]:
    """Yield the messages of `work` from a second process. If it ends early, a new process runs the other sections."""
    left, end = list(names), time.monotonic() + budget
    while left:
        for message in messages(left, dry, end - time.monotonic()):
            if "cannot" in message and len(left) < len(names):  # an earlier process could use the device
                left, lost = [], left
                yield from ({"name": n, "found": {"error": message["cannot"], "section_seconds": 0.0}} for n in lost)
            else:
                if "found" in message:
                    left.remove(message["name"])
                yield message


def messages(names: Sequence[str], dry: bool, budget: float) -> Iterator[Found]:
    """Yield the messages of one process. If it ends within a section or takes too long, the last message says so."""
    ended: list[str] = []
    command = [*SECOND, "--out", ".", "--sections", ",".join(names), "--tell", str(budget), *["--dry-run"] * dry]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        name, any_found, began, seconds = "", False, time.monotonic(), 0.0
        while True:
            watch = threading.Timer(seconds + GRACE, lambda: (ended.append("it took too long"), process.kill()))
            watch.start()
            line = process.stdout.readline()
            watch.cancel()
            if line.startswith(MARK):
                message = json.loads(line.removeprefix(MARK))
                any_found |= "found" in message
                name = "" if "found" in message else message.get("name", "")
                began, seconds = time.monotonic(), SECTIONS[name][1] if name else 0.0
                yield message
                if "cannot" in message:
                    return
            elif not line:
                break
    finally:
        process.kill()
        process.stdout.close()
        status = process.wait()
    why = ended[0] if ended else signal.Signals(-status).name if status < 0 else f"status {status}"
    if name:
        yield {"name": name, "found": {"error": f"the process ended: {why}",
                                       "section_seconds": round(time.monotonic() - began, 1)}}
    elif not any_found:
        yield {"cannot": f"the process ended before its first section: {why}"}


if __name__ == "__main__":
    common.script(main)
