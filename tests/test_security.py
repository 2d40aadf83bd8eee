"""SECURITY.md says what the readers of files accept and where they stop. It must say what the source says."""
import importlib
import inspect
import re
from pathlib import Path

import pytest
from fuzz import campaign, mutations, programs
from short import every

from minires import weights
from minires.datasets import cifar, idx
from minires.files import archives, arrays, pickles, records, sharded, torchfile
from minires.runs import sweep

TEXT = (Path(__file__).resolve().parents[1] / "SECURITY.md").read_text(encoding="utf-8")
ROWS = {cells[0].strip(): cells[-1].strip() for line in TEXT.splitlines() if line.startswith("| ")
        and len(cells := line.strip("|").split("|")) == 4}
MIB = 2**20


@pytest.mark.parametrize("row, bound", [
    ("weights: `.safetensors`", f"at most {archives.FREE_LIST // MIB} MiB and a sixteenth of the file"),
    ("weights: `.npz`", f"at most {archives.FREE_LIST // MIB} MiB and a sixteenth of the file"),
    ("weights: `torch.save`'s zip file", f"at most {pickles.MOST_BYTES // MIB} MiB and may build "
     f"{pickles.FREE_MEMORY // MIB} MiB and {pickles.MEMORY} bytes for each byte of the file"),
    ("weights: `torch.save`'s zip file", f"most {pickles.FREE_MEMORY // MIB} MiB and {torchfile.READS} times the file"),
    ("CIFAR, python batches", f"{2 * cifar.PIXELS + 200:,} bytes for each image of a file and {cifar.MORE:,} bytes"),
    ("CIFAR, python batches", f"may build {cifar.FREE_MEMORY // MIB} MiB and a byte for each byte"),
    ("CIFAR, `tar.gz` archives", f"and {10 * cifar.MORE:,} bytes; at most {archives.MOST_HEADERS:,} members"),
    ("CIFAR, `tar.gz` archives", f"most {archives.MOST_MORE // 1024} KiB, and at most {archives.MOST_IN_A_ROW} of"),
    ("MNIST, Fashion-MNIST: IDX, with or without gzip", f"most {idx.FREE // MIB} MiB and {idx.RATIO} times the file"),
    ("`config.json`, `metrics.jsonl`, `results.json`", f"{records.MOST_BYTES // MIB} MiB"),
    ("weights: pickled NumPy arrays", f"at most {arrays.MOST_BYTES >> 30} GiB and may build "
     f"{pickles.FREE_MEMORY // MIB} MiB and {pickles.MEMORY} bytes for each byte of the file"),
    ("weights: an index and its files", f"{sharded.MOST_BYTES // MIB} MiB and names at most {sharded.MOST_FILES} f"),
    ("any of these, with `read_weights`", f"{weights.MOST_READ // MIB} MiB and {weights.READ_RATIO} times the file"),
    ("the grid of `minires sweep`", f"{sweep.MOST_BYTES // 1024} KiB; in TOML at most {sweep.MOST_DOTS} dots"),
])
def test_the_table_has_the_bounds_of_the_source(row, bound):
    assert bound in ROWS[row]


def test_the_bound_of_a_list_is_a_sixteenth_of_the_file():
    assert archives.most_list(16 * 10**6) - archives.most_list(0) == 10**6


def test_every_operation_of_a_pickle_is_charged():
    """At least what CPython takes for it: an item of a list, an entry of the memo, an object with attributes."""
    assert min(pickles.SCALAR, pickles.CONTAINER, pickles.CALL, pickles.ITEM) >= 64 and pickles.ARGUMENT >= 8
    loads = pickles._Reader.dispatch.values()  # private: what `read` allows is public, how it counts is not
    assert len(loads) > 50 and all("_charged" in load.__qualname__ for load in loads)


def test_every_reader_in_the_table_is_in_the_fuzzing():
    suites = {suite: inspect.getsource(importlib.import_module(f"fuzz.{suite}")) for suite in campaign.SUITES}
    for name in ("safetensors", "npz", "today", "legacy", "tar.gz", "cifar10", "read_idx", "checkpoint", "config.json",
                 "metrics.jsonl", "results.json", "grid.json", "grid.toml", "arrays, new programs", "weight_map",
                 "read_weights"):
        assert any(name in source for source in suites.values()), name
    assert re.search(r"100,000 pickles, 1,000,000 damaged files", TEXT)


# --------------------------------------------------------------------------------------------- a short campaign


@pytest.mark.parametrize("number, suite", [pytest.param(number, suite, marks=marks) for number, marks in
                                           ((15, []), (40, [pytest.mark.slow])) for suite in campaign.SUITES])
def test_a_short_campaign(suite, number):
    """The same files as the first of the long campaign, in this process."""
    with importlib.import_module(f"fuzz.{suite}").cases() as cases:
        for name, case in cases.items():
            came = mutations.run({name: case}, number)
            assert came[f"{name}: refused"] > number // 4


def test_the_bounds_of_cifars_files():
    for name, form in [(name, form) for name, forms in cifar.FORMATS.items() for form in forms]:
        each = cifar.PIXELS + 2 if form.test.endswith(".bin") else 6344
        most = cifar.most_bytes(form)
        assert most[form.test] == 10_000 * each + 10_000, name
        assert sum(most[file] for file in form.train) == 50_000 * each + 10_000 * len(form.train)


@pytest.mark.slow
@pytest.mark.system
def test_a_file_that_takes_too_much_ends_its_process_and_is_a_failure(tmp_path, monkeypatch):
    """`planted` reads files of which one allocates without end, one computes without end, and one ends the process."""
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "planted.py").write_text(PLANTED)
    here = Path(campaign.__file__).parent
    for module in "mutations", "campaign":
        text = (here / f"{module}.py").read_text().replace("SECONDS = 1 << 30, 5", "SECONDS = 1 << 30, 1")
        (tmp_path / "fuzz" / f"{module}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    counts, failures = campaign.piece("planted", "files", 0, 8, 0)
    assert counts["refused"] == 4 and counts["loaded"] == 1
    assert [(failure["number"], failure["what"].partition(":")[0]) for failure in failures] == [
        (2, "files, seed 0, number 2"), (4, "SIGXCPU"), (6, "SIGSEGV")]


PLANTED = """
import contextlib, os, random, signal
NUMBERS = {random.Random(f"0 {i}").random(): i for i in range(8)}
@contextlib.contextmanager
def cases():
    def case(rng):
        number = NUMBERS[rng.random()]
        def refuse(): raise ValueError("the file")
        def hungry(): return bytearray(2 << 30)
        def endless():
            while True: pass
        def dies(): os.kill(os.getpid(), signal.SIGSEGV)
        return {2: hungry, 3: lambda: None, 4: endless, 6: dies}.get(number, refuse), ["the file"]
    yield {"files": case}
"""


@pytest.mark.parametrize("number", every(2, [40, 300]))
def test_a_program_is_always_a_whole_pickle(number):
    """Whatever it does, its operations fit each other: Python's own pickletools can follow it to its end."""
    import pickletools
    import random

    for seed in range(number):
        made = programs.Programs(random.Random(seed), cifar.ALLOWED).program()
        *_, (last, _, at) = pickletools.genops(made)
        assert last.name == "STOP" and at == len(made) - 1
