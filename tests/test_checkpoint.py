"""Test checkpoints: they are complete or absent, damage is detected, the one before is kept; and the folder's lock."""

import contextlib
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import same_bits

from minires.files import atomic
from minires.runs import checkpoint, run
from minires.runs.checkpoint import Damaged, newest, read, save

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {"a.weight": rng.standard_normal((3, 2, 5)).astype(np.float32), "one": np.float32([seed]),
            "count": np.array([2**40 + seed]), "turned": rng.standard_normal((4, 3)).astype(np.float32).T}


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_what_is_saved_is_read(tmp_path):
    header = {"step": 3, "loss": 0.1 + 0.2, "list": [1, None, "ä"]}
    path = save(tmp_path, 3, arrays(), header)
    found, said = read(path)
    assert said == header and set(found) == set(arrays())
    assert all(same_bits(found[name], a) for name, a in arrays().items())


def test_the_last_two_are_kept(tmp_path):
    for number in 1, 5, 1_234_567_890, 1_234_567_890:
        save(tmp_path, number, arrays(number), {"n": number})
    assert names(tmp_path) == ["checkpoint-000000005.safetensors", "checkpoint-1234567890.safetensors"]
    assert newest(tmp_path)[0][1] == {"n": 1_234_567_890}


def test_nothing_there(tmp_path):
    (tmp_path / "checkpoint-x.safetensors").write_bytes(b"")
    assert newest(tmp_path) == (None, [])


def damaged(content, how):
    if how == "empty":
        return b""
    if how == "text":
        return b"no checkpoint" * 100
    if how == "flipped in the data":
        return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    if how == "another header":
        assert content.count(b'\\"step\\": 20') == 1
        return content.replace(b'\\"step\\": 20', b'\\"step\\": 21')
    return content[: -int(how.removeprefix("cut by "))]


@pytest.mark.parametrize("how", ["empty", "text", "cut by 1", "cut by 100", "cut by 400", "flipped in the data",
                                 "another header"])
def test_a_damaged_newest_one_is_passed_over_and_named(tmp_path, how):
    save(tmp_path, 10, arrays(1), {"step": 10})
    path = save(tmp_path, 20, arrays(2), {"step": 20})
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(Damaged, match="checkpoint-000000020"):
        read(path)
    (found, header), said = newest(tmp_path)
    assert header == {"step": 10} and same_bits(found["one"], np.float32([1]))
    assert len(said) == 1 and "checkpoint-000000020.safetensors" in said[0]
    save(tmp_path, 15, arrays(3), {"step": 15})  # as after resuming: the damaged checkpoint is deleted
    assert names(tmp_path) == ["checkpoint-000000010.safetensors", "checkpoint-000000015.safetensors"]
    (_, header), said = newest(tmp_path)
    assert header == {"step": 15} and said == []


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch, where):
    save(tmp_path, 10, arrays(1), {"step": 10})

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        class Full:
            def __init__(self, path, mode):
                self.file = open(path, mode)  # noqa: SIM115

            def __enter__(self):
                return self

            def __exit__(self, *exc):
                self.file.close()

            def write(self, content):
                self.file.write(content[:100])
                full()

        monkeypatch.setattr(atomic, "open", Full, raising=False)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 20, arrays(2), {"step": 20})
    assert names(tmp_path) == ["checkpoint-000000010.safetensors"]
    assert newest(tmp_path)[0][1] == {"step": 10}


def test_a_limit_on_file_sizes_leaves_the_one_before(tmp_path):
    """Let the operating system refuse a write halfway through the file."""
    pytest.importorskip("resource", reason="this system sets no limits on its processes")
    code = ("import resource, sys, numpy as np\nfrom minires.runs.checkpoint import save\n"
            "save(sys.argv[1], 1, {'a': np.arange(9)}, 1)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
            "try: save(sys.argv[1], 2, {'a': np.arange(9_000)}, 2)\n"
            "except OSError as e: print(e.strerror)\n")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (os.strerror(errno.EFBIG), "")
    assert names(tmp_path) == ["checkpoint-000000001.safetensors"] and newest(tmp_path)[0][1] == 1


def test_a_checkpoint_without_a_checksum_is_none(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.arange(3)}, tmp_path / "checkpoint-000000001.safetensors")
    assert newest(tmp_path)[0] is None and "checksum" in newest(tmp_path)[1][0]


def test_every_name_dtype_shape_and_value_counts_in_the_checksum():
    a = {"x": np.arange(6, dtype=np.int32)}
    others = [{"y": a["x"]}, {"x": a["x"].reshape(2, 3)}, {"x": a["x"].view(np.float32)}, {"x": a["x"] + 1}, {}]
    checksum = checkpoint._checksum  # private: no two files that `save` writes differ only in one of these
    sums = {checksum("h", b) for b in [a, *others]} | {checksum("i", a)}
    assert len(sums) == len(others) + 2


def written(path, text, sha256="right", a=None):
    """Write a checkpoint with this text as its header, and with the checksum that fits it."""
    from safetensors.numpy import save_file

    given = {"a": np.arange(3) if a is None else a}
    if sha256 == "right":
        sha256 = checkpoint._checksum(text, given)  # private: `save` writes no such header
    save_file(given, path, {"header": text, "sha256": sha256})
    return path


@pytest.mark.parametrize("text, message", [("[" * 100_000, "its header cannot be read: .*nested too deeply"),
                                           ("{", "its header cannot be read: Expecting property name"),
                                           ("", "its header cannot be read: Expecting value"),
                                           ("1" * 5000, "its header cannot be read: Exceeds the limit")])
def test_a_header_that_is_no_json_is_named_although_the_checksum_fits(tmp_path, text, message):
    path = written(tmp_path / "checkpoint-000000001.safetensors", text)
    with pytest.raises(Damaged, match=rf"checkpoint-000000001\.safetensors.*{message}"):
        read(path)
    assert newest(tmp_path)[0] is None


@pytest.mark.parametrize("content", [b"version https://git-lfs", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0" + b"[" * 8,
                                     b"\x08\0\0\0\0\0\0\0{}      a"])
def test_other_files_are_no_checkpoints(tmp_path, content):
    (tmp_path / "checkpoint-000000001.safetensors").write_bytes(content)
    with pytest.raises(Damaged, match=r"checkpoint-000000001\.safetensors cannot be read: it is damaged"):
        read(tmp_path / "checkpoint-000000001.safetensors")


def test_what_is_read_can_be_changed(tmp_path):
    """A resumed run changes the arrays that it reads."""
    found, _ = read(save(tmp_path, 3, arrays(), {}))
    assert all(a.flags.writeable and a.flags.c_contiguous for a in found.values())


# -------------------------------------------------------------------------------------------------- the lock

HOLD = """
import sys, time
from minires.files.atomic import locked
with locked(sys.argv[1]):
    print('held', flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_until_its_process_is_gone_however_it_goes(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RuntimeError, match="is held by another process"), atomic.locked(path):
                pass
        finally:
            other.kill()
    with atomic.locked(path), pytest.raises(RuntimeError, match=r"\.lock is held"), atomic.locked(path):
        pass
    with atomic.locked(path):
        pass


def test_a_process_that_comes_second_leaves_the_lock_of_the_first(tmp_path, monkeypatch):
    """Both begin in a new folder at once: the second one sees no lock, and then finds it held."""
    @contextlib.contextmanager
    def lost(path):
        path.touch()  # the first process's
        raise RuntimeError("held")
        yield

    monkeypatch.setattr(run, "locked", lost)
    with pytest.raises(RuntimeError, match="held"), run.locked_folder(tmp_path / "new" / "run"):
        pass
    assert (tmp_path / "new" / "run" / ".lock").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """The error of a full disk names no file, and others name the temporary one."""
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    for folder in tmp_path / "absent", tmp_path:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match=r"x\.json") as error:
                atomic.write_atomically(folder / "x.json", "[]")
        assert error.value.filename == str(folder / "x.json") and list(tmp_path.iterdir()) == []
