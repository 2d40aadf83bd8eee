"""Downloads from a local server: complete, resumed, refused, broken off, with wrong content, and on a full disk."""
import builtins
import errno
import gzip
import hashlib
import http.server
import re
import shlex
import socket
import sys
import threading
from pathlib import Path

import cifar_files as make
import numpy as np
import pytest
from fuzz.fuzz_idx import idx

from minires import cli, datasets
from minires.datasets import cifar, download, mnist_family, places
from minires.files import atomic

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files.

    server.ends     after how many bytes each of the next answers breaks off
    server.ranges   whether the server can resume
    server.length   the Content-Length, if it is not the right one; False: none
    """

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if self.server.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.length is not False:
            self.send_header("Content-Length", self.server.length or str(len(content) - start))
        self.end_headers()
        stop = start + self.server.ends.pop(0) if self.server.ends else len(content)
        return self.wfile.write(content[start:stop])

    def log_message(self, *_): pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.files, made.asked, made.ends, made.ranges, made.length = {"/file": CONTENT}, [], [], True, None
        made.url = f"http://127.0.0.1:{made.server_port}/"
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def names(folder): return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_whole_file_in_a_new_folder(server, tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    assert download.fetch([server.url + "file"], path, MD5) == path
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["file"]
    assert server.asked == [("/file", None)]


def test_it_goes_on_where_it_was_broken_off(server, tmp_path):
    path = tmp_path / "file"
    server.ends = [1_200_000, 700_000]
    for have in 1_200_000, 1_900_000:
        with pytest.raises(ConnectionError, match=rf"ended after {have} of 3000000 bytes\. Try again \(what has arr"):
            download.fetch([server.url + "file"], path, MD5)
        assert names(tmp_path) == ["file.part"] and (tmp_path / "file.part").read_bytes() == CONTENT[:have]
    download.fetch([server.url + "file"], path, MD5)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["file"]
    assert [asked for _, asked in server.asked] == [None, "bytes=1200000-", "bytes=1900000-"]


def test_it_starts_again_where_the_site_cannot_resume(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 5_000_000)  # longer than the file: none of these bytes may remain
    server.ranges = False
    assert download.fetch([server.url + "file"], tmp_path / "file", MD5).read_bytes() == CONTENT


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download.fetch([server.url + "file"], tmp_path / "file", MD5).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=3000000-"]


def test_another_content_is_refused_and_leaves_nothing(server, tmp_path):
    found = hashlib.md5(b"another").hexdigest()
    server.files["/file"] = b"another"
    with pytest.raises(ValueError, match=rf"/file: expected a file with MD5 {MD5}, got {found}; it was deleted\. Try"):
        download.fetch([server.url + "file"], tmp_path / "file", MD5)
    assert names(tmp_path) == []


def test_a_part_of_something_else_costs_one_try(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="expected a file with MD5"):
        download.fetch([server.url + "file"], tmp_path / "file", MD5)
    assert download.fetch([server.url + "file"], tmp_path / "file", MD5).read_bytes() == CONTENT


def test_nothing_is_overwritten(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="expected no file of that name"):
        download.fetch([server.url + "file"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == b"mine" and server.asked == []


def test_a_second_site_where_the_first_has_none(server, tmp_path):
    assert download.fetch([server.url + "gone", server.url + "file"], tmp_path / "file", MD5).read_bytes() == CONTENT
    with pytest.raises(ConnectionError, match=r"^none: could not be downloaded: .*/a answers 404 Not Found; .*/b ans"
                                              "wers 404 Not Found. Try again .* or put the file into"):
        download.fetch([server.url + "a", server.url + "b"], tmp_path / "none", MD5)
    assert names(tmp_path) == ["file"]


def test_no_site_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, but nothing listens
        with pytest.raises(ConnectionError, match=r"file: could not be downloaded: http://127.*refused"):
            download.fetch([f"http://127.0.0.1:{silent.getsockname()[1]}/file"], tmp_path / "file", MD5)


class Full:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file, room): self.file, self.room = file, room
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def __getattr__(self, name): return getattr(self.file, name)

    def write(self, data):
        if self.file.tell() + len(data) > self.room:
            self.file.write(data[:max(0, self.room - self.file.tell())])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


def test_a_disk_that_fills(server, tmp_path, monkeypatch):
    room = [1_500_000]
    opened = builtins.open
    monkeypatch.setattr(download, "open", lambda path, mode: Full(opened(path, mode), room[0]), raising=False)
    with pytest.raises(OSError, match=r"No space left on device; \d+ of 3000000 bytes are .*file\.part") as e:
        download.fetch([server.url + "file"], tmp_path / "file", MD5)
    assert e.value.errno == errno.ENOSPC and names(tmp_path) == ["file.part"]
    room[0] = 10**9
    assert download.fetch([server.url + "file"], tmp_path / "file", MD5).read_bytes() == CONTENT
    assert server.asked[1][1] == "bytes=1500000-"


def test_the_bar_shows_on_a_terminal(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    download.fetch([server.url + "file"], tmp_path / "file", MD5)
    assert "file: 100%" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- through the data sets

@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_downloaded_once_and_read(server, tmp_path, monkeypatch, name):
    monkeypatch.setattr(cifar, "TRAIN", 50)
    monkeypatch.setattr(cifar, "TEST", 10)
    form = cifar.FORMATS[name][1]
    packed = make.archive(form.folder, make.files(name, form))
    server.files["/" + form.archive] = packed
    monkeypatch.setattr(cifar, "SITE", server.url)
    changed = (cifar.FORMATS[name][0], form._replace(md5=hashlib.md5(packed).hexdigest()))
    monkeypatch.setitem(cifar.FORMATS, name, changed)
    train, test = datasets.load(name, tmp_path, download=True)
    assert len(train) == 50 and len(test) == 10 and names(tmp_path) == [form.archive]
    datasets.load(name, tmp_path)
    datasets.load(name, tmp_path, download=True)
    assert len(server.asked) == 1


def test_a_cifar_archive_with_another_checksum_is_never_used(server, tmp_path, monkeypatch):
    form = cifar.FORMATS["cifar10"][1]
    server.files["/" + form.archive] = make.archive(form.folder, {"x": b""})
    monkeypatch.setattr(cifar, "SITE", server.url)
    with pytest.raises(ValueError, match=rf"binary\.tar\.gz: expected a file with MD5 {form.md5}, got"):
        datasets.cifar10(tmp_path, download=True)
    assert names(tmp_path) == []


def test_mnist_files_are_downloaded_where_they_are_missing(server, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    held = {}
    for file, shape in zip(mnist_family.FILES, [(30, 28, 28), (30,), (20, 28, 28), (20,)], strict=True):
        held[file] = gzip.compress(idx(rng.integers(0, 10, shape, dtype=np.uint8)))
        server.files[f"/{file}.gz"] = held[file]
    del server.files[f"/{mnist_family.FILES[2]}.gz"]
    changed = mnist_family.SOURCES["mnist"]._replace(
        sites=(server.url + "gone/", server.url), md5=tuple(hashlib.md5(c).hexdigest() for c in held.values()))
    monkeypatch.setitem(mnist_family.SOURCES, "mnist", changed)
    with pytest.raises(ConnectionError, match=r"t10k-images-idx3-ubyte\.gz: could not be downloaded"):
        datasets.mnist(tmp_path, download=True)
    assert names(tmp_path) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    with pytest.raises(FileNotFoundError, match=r"mnist: .* holds some .* neither t10k-images.*download=True\) downl"):
        datasets.mnist(tmp_path)
    server.files[f"/{mnist_family.FILES[2]}.gz"] = held[mnist_family.FILES[2]]
    server.asked.clear()
    train, test = datasets.mnist(tmp_path, download=True)
    assert len(train) == 30 and len(test) == 20 and train.classes == tuple("0123456789")
    assert [path for path, _ in server.asked if "gone" not in path] == [f"/{f}.gz" for f in mnist_family.FILES[2:]]


@pytest.mark.parametrize("length", [None, False])
def test_a_file_without_end_is_not_downloaded(server, tmp_path, length):
    server.length = length
    with pytest.raises(ValueError, match="expected at most 1500000 bytes, got more; it was deleted"):
        download.fetch([server.url + "file"], tmp_path / "file", MD5, 1_500_000)
    assert names(tmp_path) == []
    assert download.fetch([server.url + "file"], tmp_path / "file", MD5, 3_000_000).read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["abc", "-5"])
def test_a_length_that_is_no_number_is_ignored(server, tmp_path, length):
    server.length = length
    assert download.fetch([server.url + "file"], tmp_path / "file", MD5).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"Not a directory; nothing can be downloaded there\. Choose .* MINIRES_DATA"):
        download.fetch([server.url + "file"], tmp_path / "file" / "cifar10" / "file", MD5)
    assert server.asked == []


def test_a_folder_that_cannot_be_written_to(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=r"Permission denied; nothing can be downloaded there\. Choose"):
        download.fetch([server.url + "file"], tmp_path / "file", MD5)
    assert server.asked == [] and names(tmp_path) == []


@pytest.fixture
def tiny_cifar(server, tmp_path, monkeypatch):
    """Serve a CIFAR-10 of 60 images, and make a folder for data sets that has none yet."""
    monkeypatch.setattr(cifar, "TRAIN", 50)
    monkeypatch.setattr(cifar, "TEST", 10)
    form = cifar.FORMATS["cifar10"][1]
    packed = make.archive(form.folder, make.files("cifar10", form))
    server.files["/" + form.archive] = packed
    monkeypatch.setattr(cifar, "SITE", server.url)
    changed = (cifar.FORMATS["cifar10"][0], form._replace(md5=hashlib.md5(packed).hexdigest()))
    monkeypatch.setitem(cifar.FORMATS, "cifar10", changed)
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return server


def test_the_readmes_command_works_where_there_is_no_data(tiny_cifar, tmp_path, capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^    minires (train \S+ --dataset cifar10 .*)$", readme, re.MULTILINE)
    typed = [*shlex.split(line), "--device", "cpu", "--set", "steps=2", "batch_size=20", "model.width=1"]
    assert "--download" in typed
    without = [word for word in typed if word != "--download"]
    assert cli.main(without) == 2 and not (tmp_path / "runs").exists()
    said = capsys.readouterr().err
    assert "cifar10: not found. Looked in" in said and "to download the data set (170 MB), give --download" in said
    assert cli.main(typed) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == (f"cifar10: fetching {tiny_cifar.url}cifar-10-binary.tar.gz (170 MB) into "
                                   f"{tmp_path / 'data' / 'cifar10'}")
    assert "Done: " in out and (tmp_path / typed[typed.index("--out") + 1] / "weights.safetensors").exists()
    assert len(tiny_cifar.asked) == 1
    run = typed[typed.index("--out") + 1]
    assert cli.main(["evaluate", run, "--download", "--json"]) == 0 and len(tiny_cifar.asked) == 1


def test_ctrl_c_keeps_what_has_arrived(tiny_cifar, tmp_path, monkeypatch, capsys):
    """The README's command is stopped half-way, and resumes when it is typed again."""
    class Stopped(Full):
        def write(self, data):
            self.file.write(data[:1000])
            raise KeyboardInterrupt

    typed = ["train", "resnet20", "--dataset", "cifar10", "--download", "--recipe", "paper-cifar", "--out", "run",
             "--resume", "--device", "cpu", "--set", "steps=2", "batch_size=20", "model.width=1"]
    opened = builtins.open
    with monkeypatch.context() as m:
        m.setattr(download, "open", lambda path, mode: Stopped(opened(path, mode), 0), raising=False)
        assert cli.main(typed) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "minires train: stopped"
    assert names(tmp_path) == ["cifar-10-binary.tar.gz.part"]
    assert cli.main(typed) == 0
    assert "MB of them left) into" in capsys.readouterr().err and tiny_cifar.asked[1][1] == "bytes=1000-"


def test_evaluate_downloads_too(tiny_cifar, tmp_path, capsys):
    from minires import models, save_weights

    save_weights(models.resnet20(width=1), tmp_path / "w.npz")
    command = ["evaluate", "resnet20", "w.npz", "--width", "1", "--dataset", "cifar10"]
    assert cli.main(command) == 2 and "give --download" in capsys.readouterr().err
    assert cli.main(["evaluate", "resnt20", *command[2:], "--download"]) == 2 and not tiny_cifar.asked
    assert cli.main([*command, "--download", "--json"]) == 0  # JSON alone is on stdout
    out, err = capsys.readouterr()
    assert out.startswith("{") and "cifar10: fetching" in err
    assert len(datasets.load("stripes", download=True)) == 2  # needs no files


def test_what_will_be_fetched_is_known_before(tmp_path):
    assert [one.path.name for one in cifar.missing("cifar100", tmp_path)] == ["cifar-100-binary.tar.gz"]
    assert sum(one.size for one in mnist_family.missing("mnist", tmp_path)) == 11_594_722
    assert sum(one.size for one in mnist_family.missing("fashion_mnist", tmp_path)) == 30_878_645
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / mnist_family.FILES[0]).touch()
    assert [one.path for one in mnist_family.missing("mnist", tmp_path)] == [
        tmp_path / "mnist" / f"{file}.gz" for file in mnist_family.FILES[1:]]
    assert [download.megabytes(n) for n in (4_542, 1_648_877, 9_912_422, 170_052_171)] == [
        "5 kB", "1.6 MB", "9.9 MB", "170 MB"]


def test_a_download_that_resumes_says_what_is_left(server, tmp_path, capsys):
    (tmp_path / "file.part").write_bytes(CONTENT[:1_000_000])
    one = download.Missing([server.url + "file"], tmp_path / "file", len(CONTENT), MD5)
    assert download.fetch_all("mine", [one]) == [tmp_path / "file"]
    assert capsys.readouterr().err.startswith(
        f"mine: fetching {server.url}file (3.0 MB, 2.0 MB of them left) into {tmp_path}\n")


def test_the_places_asked_are_the_published_ones():
    assert cifar.SITE == "https://www.cs.toronto.edu/~kriz/"
    checks = [form.md5 for forms in cifar.FORMATS.values() for form in forms]
    checks += [md5 for source in mnist_family.SOURCES.values() for md5 in source.md5]
    assert len(set(checks)) == 12 and all(len(md5) == 32 and int(md5, 16) for md5 in checks)


# -------------------------------------------------------------------------------------------------- the usual folder

@pytest.mark.parametrize("platform, environment, expected", [
    ("linux", {"MINIRES_DATA": "/a"}, "/a"),
    ("win32", {"MINIRES_DATA": "/a"}, "/a"),
    ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/minires"),
    ("linux", {}, "/h/.cache/minires"),
    ("darwin", {"XDG_CACHE_HOME": "/x"}, "/h/Library/Caches/minires"),
    ("win32", {"LOCALAPPDATA": "/l"}, "/l/minires"),
    ("win32", {}, "/h/AppData/Local/minires"),
])
def test_the_usual_folder(monkeypatch, platform, environment, expected):
    for name in "MINIRES_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA":
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(places.sys, "platform", platform)
    monkeypatch.setattr(places.Path, "home", lambda: places.Path("/h"))
    assert places.home() == places.Path(expected) == datasets.home()
    assert places.folders(None, "mnist") == [places.Path(expected) / "mnist", places.Path(expected)]
    assert places.folders("r", "mnist") == [places.Path("r/mnist"), places.Path("r")]


def test_a_file_that_another_process_downloads_is_left_to_it(server, tmp_path):
    path = tmp_path / "file"
    with atomic.locked(tmp_path / "file.part"), pytest.raises(RuntimeError, match=r"file\.part is held by another pr"):
        download.fetch([server.url + "file"], path, MD5)
    assert server.asked == [] and download.fetch([server.url + "file"], path, MD5).read_bytes() == CONTENT


def test_a_file_that_has_arrived_meanwhile_is_taken(server, tmp_path, monkeypatch):
    """The other process has renamed its file between the first look and the lock."""
    path, looks = tmp_path / "file", []
    exists = Path.exists

    def late(self, *args, **kwargs):
        if self == path and not looks:
            looks.append(path.write_bytes(CONTENT))
            return False
        return exists(self, *args, **kwargs)

    monkeypatch.setattr(Path, "exists", late)
    assert download.fetch([server.url + "file"], path, MD5) == path
    assert server.asked == [] and names(tmp_path) == ["file"]


def test_no_site_leaves_no_file(tmp_path):
    with pytest.raises(ConnectionError):
        download.fetch(["http://127.0.0.1:1/file"], tmp_path / "file", MD5)
    assert names(tmp_path) == []
