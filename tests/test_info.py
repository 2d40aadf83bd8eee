"""`minires info` and the record of every result: versions, BLAS, threads, and the commit of the source."""

import platform
import subprocess
import sys

import numpy as np
import pytest

import minires
from minires import info, kernels


def test_versions_are_texts_and_name_all_that_a_result_depends_on():
    found = info.versions()
    assert list(found) == ["minires", "python", "numpy", "blas", "platform"]
    assert found["minires"] == minires.__version__ and found["numpy"] == np.__version__
    assert found["python"] == platform.python_version() and all(isinstance(text, str) for text in found.values())


def test_blas_is_named_with_its_threads_or_as_numpy_was_built(monkeypatch):
    pools = [{"user_api": "openmp"}, {"user_api": "blas", "internal_api": "openblas", "version": "0.3.1",
                                      "num_threads": 3}]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: pools)
    assert info.blas() == "openblas 0.3.1, 3 threads"
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    assert info.blas() == f"{built['name']} {built['version']}".strip()


def test_the_text_says_which_kernels_are_used_on_how_many_threads():
    with kernels.session(threads=1):
        lines = dict(line.split(maxsplit=1) for line in info.text().splitlines())
        kernels_used = info.kernels_in_words()
    assert list(lines) == ["minires", "Python", "NumPy", "BLAS", "cores", "kernels", "device"]
    assert int(lines["cores"]) >= 1 and lines["kernels"] == kernels_used
    with kernels.using("reference"):
        assert "kernels  reference\n" in info.text()


@pytest.mark.parametrize("why", ["", "no C compiler is found"])
def test_the_text_says_why_kernels_are_not_those_in_c(why, monkeypatch):
    monkeypatch.setattr(kernels.native, "ready", lambda: not why)
    monkeypatch.setattr(kernels.native, "reason", lambda: why)
    with kernels.session(threads=1):
        with kernels.using("auto"):
            assert info.kernels_in_words() == (f"blocked, 1 thread; not native: {why}" if why else "native, 1 thread")
        with kernels.using("blocked"):
            assert info.kernels_in_words() == "blocked, 1 thread"
        if why:
            with kernels.using("native"), pytest.raises(RuntimeError, match=f'"native" were asked for: {why}'):
                info.kernels_in_words()


def git(folder, *command):
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True,
                   capture_output=True)


def test_the_commit_of_a_checkout_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    package = tmp_path / "minires"
    package.mkdir()
    (package / "info.py").write_text("")
    monkeypatch.setattr(info, "__file__", str(package / "info.py"))
    assert info.commit() is None  # an installed package: there is no checkout
    try:
        git(tmp_path, "init")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert info.commit() is None  # a checkout without a commit
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    first = info.commit()
    assert first is not None and len(first) == 40 and set(first) <= set("0123456789abcdef")
    (tmp_path / "notes").write_text("not of the package")
    assert info.commit() == first
    (package / "info.py").write_text("changed")
    assert info.commit() == f"{first}+changes"
    monkeypatch.setenv("PATH", str(tmp_path))  # git is not found
    assert info.commit() is None
