"""This benchmark times each layer shape of ResNet-20 separately, forward and backward, for minires and PyTorch.

    python benchmarks/ops.py --out benchmarks/results/ops.json
    python benchmarks/ops.py --grouped       # convolutions with groups or gaps, which ResNet-20 does not have

minires runs with its fast and with its textbook kernels. Each system runs in its own process, and for every layer the
systems take turns round by round.
"""
from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import common
from common import Workers

SYSTEMS = "minires", "minires-reference", "torch"


def layers(batch: int, width: int, size: int) -> list[dict[str, Any]]:
    """Return the layers of ResNet-20 for images of size x size, and how often each layer occurs.

    A "conv" is 3x3. With `first` it needs no gradient of its input, which is the image. A "bn" is BatchNorm + ReLU, or
    with `skip` BatchNorm + addition + ReLU, which ends a residual block.
    """
    w, s, cases = width, size, []

    def conv(name, channels, out, side, stride, count, first=False):
        cases.append({"name": name, "op": "conv", "shape": [batch, channels, side, side], "out": out, "stride": stride,
                      "first": first, "count": count})

    def bn(name, channels, side, skip, count):
        cases.append({"name": name, "op": "bn", "shape": [batch, channels, side, side], "skip": skip, "count": count})

    conv("conv, first", 3, w, s, 1, 1, first=True)
    conv("conv, stage 1", w, w, s, 1, 6)
    conv("conv, to stage 2, stride 2", w, 2 * w, s, 2, 1)
    conv("conv, stage 2", 2 * w, 2 * w, s // 2, 1, 5)
    conv("conv, to stage 3, stride 2", 2 * w, 4 * w, s // 2, 2, 1)
    conv("conv, stage 3", 4 * w, 4 * w, s // 4, 1, 5)
    for stage, relu in (1, 4), (2, 3), (3, 3):
        channels, side = w * 2 ** (stage - 1), s // 2 ** (stage - 1)
        bn(f"bn + relu, stage {stage}", channels, side, False, relu)
        bn(f"bn + add + relu, stage {stage}", channels, side, True, 3)
    return cases


def grouped(batch: int, width: int, size: int) -> list[dict[str, Any]]:
    """Return 3x3 convolutions with groups, as in ResNeXt, or with gaps between the taps (dilation)."""
    def conv(name, channels, side, groups=1, dilation=1):
        return {"name": name, "op": "conv", "shape": [batch, channels, side, side], "out": channels, "stride": 1,
                "first": False, "count": 1, "groups": groups, "dilation": dilation}

    w, s = width, size
    return [conv("2 groups", 2 * w, s // 2, groups=2), conv("8 groups", 4 * w, s // 2, groups=8),
            conv("32 groups", 8 * w, s // 4, groups=32), conv("a group for each channel", 4 * w, s // 2, groups=4 * w),
            conv("dilation 2", 2 * w, s // 2, dilation=2), conv("dilation 4", 4 * w, s // 4, dilation=4)]


def main(argv: Sequence[str]) -> int:
    """Measure, print, write."""
    p = common.parser("Time each layer shape of ResNet-20 separately, forward and backward.", rounds=7)
    p.add_argument("--repeats", type=common.positive, default=5, metavar="N", help="timed runs in each turn")
    p.add_argument("--batch", type=common.positive, default=128, metavar="N", help="images in a batch")
    p.add_argument("--width", type=common.positive, default=16, metavar="N", help="channels of the first stage")
    p.add_argument("--size", type=common.positive, default=32, metavar="N", help="height and width of the images")
    p.add_argument("--threads", type=common.positive, default=common.cores(), metavar="N", help="for every system")
    p.add_argument("--grouped", action="store_true",
                   help="measure convolutions with groups or gaps instead of the layers of ResNet-20")
    common.add_pythons(p)
    args = p.parse_args(argv)
    if args.size % 4:
        p.error(f"--size: expected a multiple of 4, got {args.size}")

    result = common.header("ops", argv) | measure(args)
    common.finish(result, table(result), getattr(args, "out", None))
    return 0


def measure(args: Any) -> dict[str, Any]:
    """Return {"layers": [case + {"forward": {system: ...}, "backward": {system: ...}}]} and what was left out."""
    cases = (grouped if args.grouped else layers)(args.batch, args.width, args.size)
    python = common.pythons(args)
    with Workers() as workers:
        for system in SYSTEMS:
            workers.start(system, system, python(system), args.threads, lambda w: w.ask("layer", case=cases[0]))
        for case in cases:
            for worker in workers.running.values():
                worker.ask("layer", case=case)
            for way in "forward", "backward":
                times = common.interleave({s: w.turn(way, args.repeats) for s, w in workers.running.items()},
                                          args.rounds, args.pause)
                case[way] = {s: summary(ms, times.get("torch")) for s, ms in times.items()}
        left_out = workers.left_out
    return {"threads": args.threads, "rounds": args.rounds, "repeats": args.repeats, "layers": cases,
            "left_out": left_out}


def summary(ms: common.Times, torch: common.Times | None) -> dict[str, Any]:
    """Summarise the times of one system for one layer."""
    ratios = common.ratios(ms, torch) if torch else None
    return {"ms": ms, "median_ms": common.median(ms), "best_ms": common.best(ms), "ratio_to_torch": ratios,
            "median_ratio_to_torch": statistics.median(ratios) if ratios else None}


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table. The last row is the sum, which for `layers` is that of a ResNet-20."""
    systems = [s for s in SYSTEMS if s not in result["left_out"]]
    rows, totals = [], dict.fromkeys(systems, 0.0)
    for case in result["layers"]:
        for way in "forward", "backward":
            times = case[way]
            for s in systems:
                totals[s] += case["count"] * times[s]["median_ms"]
            rows.append([f"{case['name']}: {way}", "x".join(map(str, case["shape"][1:])), str(case["count"]),
                         *(common.number(times[s]["median_ms"], 2) for s in systems),
                         common.spread(times["minires"]["ratio_to_torch"])])
    other = "groups" in result["layers"][0]
    ratio = common.number(totals["minires"] / totals["torch"], 2) if "torch" in totals else common.number(None)
    name = "sum" if other else "sum over ResNet-20"
    rows.append([name, "", "", *(common.number(totals[s], 2) for s in systems), ratio])
    what = "3x3 convolutions" if other else "Layers of ResNet-20"
    title = (f"{what}: median ms at batch {result['layers'][0]['shape'][0]}, "
             f"{common.plural(result['threads'], 'thread')}, {common.plural(result['rounds'], 'round')} of "
             f"{result['repeats']}")
    left_out = [f"Left out: {name} ({reason})." for name, reason in result["left_out"].items()]
    return "\n\n".join([title, common.table(["", "input", "times", *systems, "minires / torch"], rows), *left_out])


if __name__ == "__main__":
    common.script(main)
