"""These tests run benchmarks/gpu.py on the CPU with the stand-in for CuPy: sections finish, failures are reported."""

import json
import sys
import time
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import common  # noqa: E402
import gpu  # noqa: E402

from minires import device  # noqa: E402

pytestmark = pytest.mark.system
needs_kernels = pytest.mark.skipif(fake_cupy.missing() is not None, reason=str(fake_cupy.missing()))


# Slow on the stand-in; test_cupy.py covers the models.
LONG = ("parity_models", "resnet20", "resnet56", "resnet110", "resnet50")


def run(out, *options):
    status = gpu.main(["--dry-run", "--one-process", "--out", str(out), *options])
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
        if name == "resnet20":
            check_systems(section)
        elif name != "parity_models":
            assert all("ms" in s or "left_out" in s for s in section["systems"].values())
            assert max(section["losses_differ_by"].values()) < 1e-3
    assert told["sections"]["parity_models"]["ok"] and told["sections"]["parity_models"]["compared"] == 17


@pytest.mark.slow
def test_no_section_fails(result):
    assert {name: s["error"] for name, s in result.items() if "error" in s} == {}
    for section in result.values():
        assert section["section_seconds"] >= 0


@pytest.mark.slow
def test_parity_is_complete(result):
    for name, least in ("parity_operations", 40), ("parity_kernels", 10):
        section = result[name]
        assert section["ok"] and section["all_were_compared"] and section["compared"] == len(section["rows"]) >= least
    training = result["parity_training"]
    assert training["within_limit"] and training["same_bits_twice"] and training["graphed_has_the_same_bits"]


def check_systems(section):
    """They do the same work."""
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


@pytest.mark.slow
def test_shares_add_up(result):
    section = result["shares"]
    assert section["all_were_measured"] and section["graphed_step_ms"] > 0
    assert {how for k in section["kernels"] for how in k["measured"]} == {"2 launches as one CUDA graph"}
    assert sum(k["share"] for k in section["kernels"]) == pytest.approx(1)
    assert sum(k["launches"] for k in section["kernels"]) == section["launches"]
    named = {k["kernel"] for k in section["kernels"]}
    assert {"im2col", "normalise", "normalise_backward", "sgd", "cross_entropy", "copy_pieces"} <= named
    assert any(k["kernel"].startswith("GEMM") and k["flop"] > 0 for k in section["kernels"])
    assert all(k["bytes"] > 0 for k in section["kernels"])


@pytest.mark.slow
@needs_kernels
def test_what_cannot_be_recorded_is_launched_one_by_one(tmp_path, monkeypatch):
    from minires.kernels import cublas
    monkeypatch.setattr(cublas, "_open", lambda xp: None)  # private: as if cuBLAS were missing; then CuPy multiplies
    status, told = run(tmp_path, "--sections", "shares,parity_training")
    found, training = told["sections"].values()
    assert status == 1 and "cuBLAS API during stream capture" in found["graphed_error"]
    assert "cuBLAS API during stream capture" in training["graphed_error"] and training["same_bits_twice"]
    for kernel in found["kernels"]:
        assert ("one by one" in kernel["measured"][0]) == kernel["kernel"].startswith("GEMM")
    undo = fake_cupy.install()
    try:
        b = gpu.Bench(sys.modules["cupy"], True)
        a = b.cp.zeros((2, 2), np.float32)
        ms, how = gpu.device_time(b, lambda: a @ a)
        assert ms > 0 and how.startswith("2 launches one by one, host included: RuntimeError: calling cuBLAS")
        assert gpu.device_time(b, lambda: a + a)[1] == "2 launches as one CUDA graph"
    finally:
        undo()


@pytest.mark.slow
def test_the_whole_training_counts_its_iterations(result):
    section = result["whole_training"]
    assert (section["iterations"], section["of"], section["finished"]) == (6, 6, True)
    assert 0 < section["of_them_evaluating"] < section["seconds"] and len(section["loss_after_each_pass"]) == 2


WORKER = """
import os, sys, time
sys.path.insert(0, {folder!r})
import gpu

def gone(b):
    def add(*args):
        raise RuntimeError("an illegal memory access was encountered")
    b.cp.__dict__["ones"] = add
    return {{"this": 1}}

gpu.SECTIONS = {{"device": gpu.SECTIONS["device"], "aborts": (lambda b: os.abort(), 5), "leaves": (gone, 5),
                "hangs": (lambda b: time.sleep(600), 0), "numbers": (lambda b: {{"of": b.cp}}, 5)}}
gpu.common.script(gpu.main)
"""


@pytest.fixture
def other_sections(tmp_path, monkeypatch):
    """Replace the script of the second process and the sections."""
    (tmp_path / "worker.py").write_text(WORKER.format(folder=str(BENCHMARKS)), encoding="utf-8")
    monkeypatch.setattr(gpu, "SECOND", [sys.executable, str(tmp_path / "worker.py")])
    names = ["device", "aborts", "leaves", "hangs", "numbers"]
    monkeypatch.setattr(gpu, "SECTIONS", dict.fromkeys(names, (None, 60)) | {"hangs": (None, 1 - gpu.GRACE)})
    return names


@needs_kernels
@pytest.mark.slow
def test_a_crash_a_hang_or_a_lost_device_costs_one_section(other_sections, tmp_path, monkeypatch, capfd):
    assert gpu.main(["--dry-run", "--out", str(tmp_path)]) == 1
    told = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["sections"]
    assert [*told] == other_sections and told["device"]["name"] == "a stand-in"
    assert told["aborts"]["error"] == "the process ended: SIGABRT"
    assert told["leaves"]["this"] == 1  # and another process ran the next sections
    assert told["hangs"]["error"] == "the process ended: it took too long"
    assert "module" in told["numbers"]["of"]  # a value that JSON cannot hold becomes text
    assert "aborts: FAILED: the process ended: SIGABRT" in capfd.readouterr().out


def test_a_process_that_never_begins_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SECOND", [sys.executable, "-c", "import sys; sys.exit(7)"])
    with pytest.raises(common.Failed, match="ended before its first section: status 7"):
        gpu.main(["--out", str(tmp_path)])
    assert not (tmp_path / "gpu.json").exists()
    later = [[{"name": "device", "found": {"section_seconds": 1}}], [{"cannot": "it is gone"}]]
    monkeypatch.setattr(gpu, "messages", lambda *args: iter(later.pop(0)))
    assert gpu.main(["--out", str(tmp_path), "--sections", "device,ceilings,shares"]) == 1
    told = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["sections"]
    assert [s.get("error") for s in told.values()] == [None, "it is gone", "it is gone"]


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
    # private: no section of the dry run ends in the middle of its rows, so the function is called here
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
    assert "there is no section 'speed'; the sections are device, ceilings" in capsys.readouterr().err


def test_the_sections_fit_into_the_budget():
    assert gpu.BUDGET < 480 and sum(seconds for _, seconds in gpu.SECTIONS.values()) <= 1.1 * gpu.BUDGET


def test_a_system_that_fails_is_not_good():
    ok, bad = {"systems": {"a": {"ms": 1}, "b": {"left_out": "no time"}}}, {"systems": {"a": {"error": "it broke"}}}
    assert gpu.good(ok) and not gpu.good(bad) and gpu.good({"left_out": "no time"})
