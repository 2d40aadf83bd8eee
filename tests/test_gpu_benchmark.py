"""benchmarks/gpu.py on the CPU: every section runs to its end on the stand-in for CuPy, and what fails is told."""

import json
import sys
import time
from pathlib import Path

import fake_cupy
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import common  # noqa: E402
import gpu  # noqa: E402

from minires import device  # noqa: E402

needs_kernels = pytest.mark.skipif(fake_cupy.missing() is not None, reason=str(fake_cupy.missing()))


LONG = ("parity_models", "resnet56", "resnet110", "resnet50")  # on the stand-in; test_cupy.py has the models too


def run(out, *options):
    status = gpu.main(["--dry-run", "--out", str(out), *options])
    return status, json.loads((out / "gpu.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    if fake_cupy.missing():
        pytest.skip(fake_cupy.missing())
    before = sys.modules.get("cupy")
    some = [s for s in gpu.SECTIONS if s not in LONG]
    status, told = run(tmp_path_factory.mktemp("gpu"), "--sections", ",".join(some))
    assert status == 0 and sys.modules.get("cupy") is before
    assert [*told["sections"]] == some and told["dry_run"] is True
    return told["sections"]


@pytest.mark.slow
@needs_kernels
def test_the_sections_that_take_longer(tmp_path):
    status, told = run(tmp_path, "--sections", ",".join(LONG))
    assert status == 0 and [*told["sections"]] == [*LONG]
    for name, section in told["sections"].items():
        assert "error" not in section
        if name != "parity_models":
            assert all("ms" in s or "left_out" in s for s in section["systems"].values())
            assert max(section["losses_differ_by"].values()) < 1e-3
    assert told["sections"]["parity_models"]["ok"] and told["sections"]["parity_models"]["compared"] == 16


def test_no_section_fails(result):
    assert {name: s["error"] for name, s in result.items() if "error" in s} == {}
    for section in result.values():
        assert section["section_seconds"] >= 0


def test_parity_is_complete(result):
    for name, least in ("parity_operations", 40), ("parity_kernels", 10):
        section = result[name]
        assert section["ok"] and section["all_were_compared"] and section["compared"] == len(section["rows"]) >= least
    training = result["parity_training"]
    assert training["within_limit"] and training["same_bits_twice"] and training["graphed_has_the_same_bits"]


def test_systems_do_the_same_work(result):
    section = result["resnet20"]
    assert set(section["systems"]) == set(gpu.SYSTEMS)
    timed = {name for name, s in section["systems"].items() if "ms" in s}
    assert {name for name in gpu.SYSTEMS if name.startswith("minires")} <= timed
    assert max(section["losses_differ_by"].values()) < 1e-3
    for name in timed:
        s = section["systems"][name]
        assert len(set(s["losses"])) == 4 and len(s["rounds_ms"]) == 2 and min(s["rounds_ms"]) <= s["ms"]
    assert "CUDA graphs" in section["systems"]["torch graphed, channels_last"]["left_out"] \
        or "not installed" in section["systems"]["torch graphed, channels_last"]["left_out"]
    assert all(r["median"] > 0 for name, r in section["ratios"].items() if "memory" not in name)


def test_shares_add_up(result):
    section = result["shares"]
    assert sum(k["share"] for k in section["kernels"]) == pytest.approx(1)
    assert sum(k["launches"] for k in section["kernels"]) == section["launches"]
    named = {k["kernel"] for k in section["kernels"]}
    assert {"im2col", "normalise", "normalise_backward", "sgd", "cross_entropy", "copy_pieces"} <= named
    assert any(k["kernel"].startswith("GEMM") and k["flop"] > 0 for k in section["kernels"])


def test_the_whole_training_counts_its_iterations(result):
    section = result["whole_training"]
    assert (section["iterations"], section["of"], section["finished"]) == (6, 6, True)
    assert 0 < section["of_them_evaluating"] < section["seconds"] and len(section["loss_after_each_pass"]) == 2


@needs_kernels
def test_a_section_that_fails_does_not_stop_the_next(tmp_path, monkeypatch, capsys):
    def fails(b):
        raise ValueError("at /a/folder/of/mine.py it broke")

    monkeypatch.setattr(gpu, "SECTIONS", {"fails": (fails, 5), "device": gpu.SECTIONS["device"]})
    status, told = run(tmp_path, "--sections", "fails,device")
    assert status == 1 and told["sections"]["device"]["name"] == "a stand-in"
    assert "it broke" in told["sections"]["fails"]["error"] and "fails" in told["sections"]["fails"]["traceback"]
    assert "fails: FAILED: ValueError" in capsys.readouterr().out


@needs_kernels
def test_time_that_is_used_up_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BUDGET", -1.0)
    status, told = run(tmp_path, "--sections", "device,ceilings")
    assert status == 0 and all("used up" in s["left_out"] for s in told["sections"].values())
    b = gpu.Bench(None, True)
    b.until = time.monotonic() + 5
    assert not b.late() and b.late(10)
    b.until = time.monotonic() - 1
    rows = gpu._rows(b, iter([{"what": "a", "error": 1e-3, "ok": False}, {"what": "b", "error": 0, "ok": True}]))
    assert rows["compared"] == 1 and rows["not_ok"] == ["a"] and not rows["all_were_compared"] and not rows["ok"]


@needs_kernels
def test_parity_that_fails_is_the_exit_status(tmp_path, monkeypatch):
    from minires.kernels import cuda
    monkeypatch.setattr(cuda, "sgd", lambda w, g, v, *rest: (w, v))
    status, told = run(tmp_path, "--sections", "parity_kernels")
    assert status == 1 and told["sections"]["parity_kernels"]["not_ok"] == ["SGD of 270,000 weights"]


def test_without_a_gpu_the_reason_is_told(tmp_path):
    if device.use("auto") == "gpu":
        pytest.skip("there is a GPU")
    with pytest.raises(common.Failed, match="No GPU is used: "):
        gpu.main(["--out", str(tmp_path)])
    assert not (tmp_path / "gpu.json").exists()


def test_an_unknown_section_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--sections", "device,speed"])
    assert "there is no 'speed'; there are device, ceilings" in capsys.readouterr().err


def test_the_sections_fit_into_the_budget():
    assert sum(seconds for _, seconds in gpu.SECTIONS.values()) <= 490 and gpu.BUDGET < 480
