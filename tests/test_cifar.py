"""CIFAR's readers: both official formats are read, packed and unpacked, and damaged or hostile files are refused."""
import contextlib
import gzip
import io
import os
import pickle
import pickletools
import tarfile
import tracemalloc
from pathlib import Path

import cifar_files as make
import numpy as np
import pytest
from fuzz import fuzz_cifar, mutations
from short import every

from minires import datasets
from minires.datasets import cifar

PYTHON, BINARY = cifar.FORMATS["cifar10"]
PYTHON100, BINARY100 = cifar.FORMATS["cifar100"]
EVERY = [(name, form) for name, forms in cifar.FORMATS.items() for form in forms]
READ = {"cifar10": datasets.cifar10, "cifar100": datasets.cifar100}


@pytest.fixture
def small(monkeypatch):
    """Make the data sets 60 images large, so that the tests can write complete ones. Nothing else changes."""
    monkeypatch.setattr(cifar, "TRAIN", 50)
    monkeypatch.setattr(cifar, "TEST", 10)


def same(a, b):
    return all(np.array_equal(x.images, y.images) and np.array_equal(x.labels, y.labels) and x.classes == y.classes
               for x, y in zip(a, b, strict=True))


def expected(name, kind):
    """Return the splits that a data set of make.files holds, by a loop over the bytes."""
    each = 50 // len(cifar.FORMATS[name][0].train)
    parts = [make.images(n, name, i) for i, n in enumerate([each] * (50 // each) + [10])]
    found = []
    for group in parts[:-1], parts[-1:]:
        rows = [row.tobytes() for pixels, _ in group for row in pixels]
        picture = np.zeros((len(rows), 32, 32, 3), np.uint8)
        for n, row in enumerate(rows):
            for c in range(3):
                for i in range(32):
                    picture[n, i, :, c] = list(row[1024 * c + 32 * i:1024 * c + 32 * i + 32])
        labels = np.concatenate([labels[kind] for _, labels in group])
        found.append(datasets.Split(picture, labels, cifar.CLASSES[name][kind]))
    return found


@pytest.mark.parametrize("name, form", EVERY, ids=[form.folder for _, form in EVERY])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_every_form_gives_the_same_arrays(small, tmp_path, name, form, packed):
    made = make.files(name, form)
    if packed:
        (tmp_path / form.archive).write_bytes(make.archive(form.folder, made))
    else:
        make.write(tmp_path / form.folder, made)
    got = READ[name](tmp_path)
    assert same(got, expected(name, list(cifar.CLASSES[name])[-1]))
    for part, n in zip(got, (50, 10), strict=True):
        assert part.images.shape == (n, 32, 32, 3) and part.images.flags.c_contiguous
        assert part.images.dtype == part.labels.dtype == np.uint8
        assert not part.images.flags.writeable and not part.labels.flags.writeable
    if packed:
        assert sorted(path.name for path in tmp_path.iterdir()) == [form.archive]  # nothing was unpacked to disk


def test_coarse_and_fine_labels(small, tmp_path):
    make.write(tmp_path / BINARY100.folder, make.files("cifar100", BINARY100))
    assert same(datasets.cifar100(tmp_path, labels="coarse"), expected("cifar100", "coarse_labels"))
    assert same(datasets.cifar100(tmp_path, labels="fine"), expected("cifar100", "fine_labels"))
    assert datasets.cifar100(tmp_path, labels="coarse")[0].labels.max() == 19
    with pytest.raises(ValueError, match="cifar100, labels: unknown name 'fin'; did you mean fine"):
        datasets.cifar100(tmp_path, labels="fin")


def test_the_classes_are_a_hundred_of_five_in_each_of_twenty():
    assert len(cifar.CIFAR10_CLASSES) == 10 and len(set(cifar.FINE_CLASSES)) == 100
    assert len(set(cifar.COARSE_CLASSES)) == 20
    assert all(list(names) == sorted(names) for names in (cifar.FINE_CLASSES, cifar.CIFAR10_CLASSES))


def test_a_batch_that_todays_python_saved_again_is_read(small, tmp_path):
    make.write(tmp_path / PYTHON.folder, make.files("cifar10", PYTHON, python=make.python3))
    assert same(datasets.cifar10(tmp_path), expected("cifar10", "labels"))


@pytest.mark.parametrize("where", ["", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_places_in_root(small, tmp_path, where):
    make.write(tmp_path / where, make.files("cifar10", BINARY))
    assert same(datasets.cifar10(tmp_path), expected("cifar10", "labels"))


def test_root_by_environment(small, tmp_path, monkeypatch):
    make.write(tmp_path / "cifar10", make.files("cifar10", BINARY))
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path))
    assert same(datasets.load("cifar10"), expected("cifar10", "labels"))


def test_absent(tmp_path):
    said = r"cifar10: not found\. Looked in .*cifar10, .* for cifar-10-batches-py/ or cifar-10-python\.tar\.gz or .*bin"
    with pytest.raises(FileNotFoundError, match=said + r".*download=True"):
        datasets.cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cifar100: not found\. .*cifar-100-python"):
        datasets.cifar100(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------------- bad input

def bad(tmp_path, form, file, change):
    """Return a folder in which one file is changed."""
    made = make.files("cifar10" if form in (PYTHON, BINARY) else "cifar100", form)
    made[file] = change(made[file]) if callable(change) else change
    return make.write(tmp_path / form.folder, {k: v for k, v in made.items() if v is not None}).parent


def relabelled(kind, values):
    def change(content):
        batch = pickle.loads(content, encoding="latin1")
        batch[kind] = values
        return pickle.dumps(batch, protocol=2)
    return change


BAD = {
    "binary, empty": (BINARY, "data_batch_2.bin", b"", r"expected 10 images of 3073 bytes each, 30730 bytes, got 0"),
    "binary, truncated": (BINARY, "test_batch.bin", lambda b: b[:-1], "30730 bytes, got 30729"),
    "binary, a whole image less": (BINARY, "test_batch.bin", lambda b: b[3073:], "30730 bytes, got 27657"),
    "binary, too long": (BINARY, "test_batch.bin", lambda b: b + b"\0", "30730 bytes, got 30731"),
    "binary, enormous": (BINARY, "test_batch.bin", bytes(200_000), "expected at most 40740 bytes, got 200000"),
    "binary, label": (BINARY, "data_batch_5.bin", lambda b: b[:3073] + b"\x0a" + b[3074:],
                      "labels: expected numbers from 0 to 9, got 10 at index 1"),
    "binary, names": (BINARY, "batches.meta.txt", b"cat\ndog\n", "names of the classes, airplane, automobile, bird"),
    "binary, 100's in its place": (BINARY, "data_batch_1.bin", bytes(3074 * 10), "of 3073 bytes each, 30730 bytes"),
    "binary, renamed": (BINARY, "test_batch.bin", lambda b: b[:3073] * 10, r"of each class, got \[10, 0, .*renamed\?"),
    "coarse label": (BINARY100, "test.bin", lambda b: b"\x14" + b[1:], "coarse_labels: .* 0 to 19, got 20 at index 0"),
    "fine label": (BINARY100, "test.bin", lambda b: b"\0\x64" + b[2:], "fine_labels: .* 0 to 99, got 100 at index 0"),
    "python, empty": (PYTHON, "data_batch_1", b"", "python format: it is damaged: EOFError"),
    "python, truncated": (PYTHON, "data_batch_1", lambda b: b[:-1], "python format: it is damaged"),
    "python, half": (PYTHON, "test_batch", lambda b: b[:len(b) // 2], "python format: it is damaged"),
    "python, text": (PYTHON, "test_batch", b"<p>404</p>", "python format: it is damaged"),
    "python, web page": (PYTHON, "test_batch", b"<html>404</html>", "it is a web page, not the file itself"),
    "binary, Git LFS": (BINARY, "test_batch.bin", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "python, Git LFS": (PYTHON, "data_batch_1", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "python, state as a list": (PYTHON, "test_batch", lambda b: b.replace(b"(K\x03U\x01|", b"](K\x03U\x01|").replace(
        b"tb", b"eb"), "damaged|NumPy would write"),
    "python, no dictionary": (PYTHON, "test_batch", pickle.dumps([1]), "expected a pickled dictionary, got list"),
    "python, no data": (PYTHON, "test_batch", pickle.dumps({"labels": [1]}), "data: expected a uint8 array .*no array"),
    "python, renamed": (PYTHON, "test_batch", lambda b: b.replace(b"testing batch 1 of 1", b"training batch 1 of5"),
                        "batch_label: expected 'testing batch 1 of 1', got 'training batch 1 of5'; has the file"),
    "python, label": (PYTHON, "test_batch", relabelled("labels", [0] * 9 + [10]), "0 to 9, got 10 at index 9"),
    "python, negative": (PYTHON, "test_batch", relabelled("labels", [-1] * 10), "0 to 9, got -1 at index 0"),
    "python, huge": (PYTHON, "test_batch", relabelled("labels", [1 << 9999] * 10), "got a huge number at index 0"),
    "python, few labels": (PYTHON, "test_batch", relabelled("labels", [1] * 9), "a list of 10 integers, got 9 items"),
    "python, no labels": (PYTHON, "test_batch", relabelled("labels", None), "a list of 10 integers, got NoneType"),
    "python, true": (PYTHON, "test_batch", relabelled("labels", [True] * 10), "a list of 10 integers, got 10 items"),
    "python, fine": (PYTHON100, "test", relabelled("fine_labels", [100] * 10), "fine_labels: .* got 100 at index 0"),
    "python, fewer images": (PYTHON, "test_batch", relabelled("data", np.zeros((9, 3072), np.uint8)),
                             r"array of shape \(10, 3072\), got shape \(9, 3072\)"),
    "python, shape": (PYTHON, "test_batch", relabelled("data", np.zeros((3072, 10), np.uint8)),
                      r"its array does not have the shape \(n, 3072\)"),
    "python, dtype": (PYTHON, "test_batch", relabelled("data", np.zeros((10, 3072), np.int16)), "not have dtype"),
    "python, objects": (PYTHON, "test_batch", relabelled("data", np.array([[None]])), "not have dtype uint8"),
    "python, names": (PYTHON, "batches.meta", pickle.dumps({"label_names": ["cat"]}), "names of the classes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_name(small, tmp_path, case):
    form, file, change, message = BAD[case]
    root = bad(tmp_path, form, file, change)
    with pytest.raises(ValueError, match=f"{form.folder}.*{file}.*{message}"):
        (datasets.cifar10 if form in (PYTHON, BINARY) else datasets.cifar100)(root)


def test_a_missing_file_is_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"bin: expected the files data_batch_1\.bin, .*data_batch_4\.bin is m"):
        datasets.cifar10(bad(tmp_path, BINARY, "data_batch_4.bin", None))


def test_without_the_file_of_names_it_reads_all_the_same(small, tmp_path):
    assert same(datasets.cifar10(bad(tmp_path, BINARY, "batches.meta.txt", None)), expected("cifar10", "labels"))


class Evil:
    def __init__(self, call, *args): self.call, self.args = call, args
    def __reduce__(self): return self.call, self.args


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
def test_a_pickle_that_would_run_a_program_is_refused_and_not_run(small, tmp_path, file):
    made = tmp_path / "made"
    program = pickle.dumps({"data": Evil(os.system, f"echo > {made}")}, protocol=2)
    with pytest.raises(ValueError, match=rf"py: {file}: .*it names (posix|nt)\.system, .*nothing was run"):
        datasets.cifar10(bad(tmp_path, PYTHON, file, program))
    assert not made.exists()
    pickle.loads(program)  # pickle itself runs the program
    assert made.exists()


NAMES = [b"c" + b"\n".join(name.encode() for name in pair) + b"\n" for pair in cifar.ALLOWED]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_pickle_may_name_is_harmless_whatever_it_does_with_it(name):
    """The pickle calls the stand-in, makes an instance, or sets the state of the class. Each gives an error or an empty
    object, and the next file is read as before."""
    batch = make.images(2)
    good = make.python3(*batch, "t")
    for given in (b")", b"(K\x01K\x02K\x03t", b"(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibt", b"N", b"}",
                  b"(N}X\x0c\x00\x00\x00__setstate__Nst", b"(N}X\x07\x00\x00\x00__new__Nst"):
        for then in b"R", b"\x81", b"b", b"}\x92", b"a", b"s":
            content = b"\x80\x02" + name + given + then + b"."
            with contextlib.suppress(ValueError):
                cifar._batch("here", content)  # private: the public readers need a complete folder
            pixels, labels = cifar.read_python("good", good, 2, cifar.CLASSES["cifar10"], "t")
            same = np.array_equal(pixels, batch[0]) and np.array_equal(labels["labels"], batch[1]["labels"])
            assert same, (given, then)


def test_an_array_in_fortran_order_is_put_right():
    pixels, labels = make.images(3)
    content = make.python3(np.asfortranarray(pixels), labels, "t")
    assert np.array_equal(cifar.read_python("f", content, 3, cifar.CLASSES["cifar10"], "t")[0], pixels)


# -------------------------------------------------------------------------------------------------- damaged archives

def link(member):
    if member.name.endswith("test_batch.bin"):
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0


def folder(member):
    if member.name.endswith("test_batch.bin"):
        member.type, member.size = tarfile.DIRTYPE, 0


def elsewhere(member):
    if member.name.endswith("test_batch.bin"):
        member.name = "../../test_batch.bin"


def dotted(member): member.name = "./" + member.name


def header(name, size=b"0", kind=b"0"):
    """Return the 512 bytes before a member in a tar file."""
    made = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    made[124:136], made[156:157] = size.ljust(12, b"\0"), kind
    made[148:156] = b"%06o\0 " % (sum(made[:148]) + 256 + sum(made[156:]))
    return bytes(made)


def pax(records): return header("pax", b"%o" % len(records), b"x") + records.ljust(512, b"\0")


def archive(change=None, **more): return make.archive(BINARY.folder, make.files("cifar10", BINARY) | more, change)


ARCHIVES = {
    "empty": (lambda: b"", "cannot be read"),
    "no gzip": (lambda: b"<p>" * 99, "cannot be read: Not a gzipped file"),
    "web page": (lambda: b"<html>" * 99, "cannot be read: it is a web page, not the file itself"),
    "truncated": (lambda: archive()[:-30000], "cannot be read: Compressed file ended"),
    "cut in the checksum": (lambda: archive()[:-3], "cannot be read: Compressed file ended"),
    "checksum": (lambda: archive()[:-8] + bytes(4) + archive()[-4:], "cannot be read: CRC check failed"),
    "link": (lambda: archive(link), r"test_batch\.bin in it is not a plain file of at most"),
    "folder": (lambda: archive(folder), r"test_batch\.bin in it is not a plain file of at most"),
    "large member": (lambda: archive(**{"test_batch.bin": bytes(180_000)}), r"test_batch\.bin in it is not a plain f"),
    "bomb": (lambda: archive(zeros=bytes(10**6)), "it has a member of 1000000 bytes; expected at most"),
    "bomb in pieces": (lambda: archive(**{f"zeros{i}": bytes(10**5) for i in range(9)}), "unpacks to more bytes than"),
    "bomb at its end": (lambda: gzip.compress(gzip.decompress(archive()) + bytes(10**6)), "unpacks to more bytes than"),
    "2^87 bytes": (lambda: gzip.compress(header("a", b"\x80" + b"\x7f" * 11)), r"a member of 2\^63 or more bytes"),
    "size below 0": (lambda: gzip.compress(header("a", b"\xff" * 11 + b"\xfe")), "a member of -2 bytes; expected at"),
    "long names": (lambda: gzip.compress((header("a", kind=b"L", size=b"1") + b"a".ljust(512, b"\0")) * 500),
                   "it has more than 8 additional headers in a row"),
    "long name": (lambda: gzip.compress(header("a", kind=b"L", size=b"%o" % 10**6)), "a member of 1000000 bytes; exp"),
    "pax size": (lambda: gzip.compress(pax(b"22 size=%d\n" % 10**12) + header("a")), "a member of 1000000000000 b"),
    "pax sizes": (lambda: gzip.compress(pax(b"10 size=a\n") + header("a")), "the size of a member is not a number"),
    "pax digits": (lambda: gzip.compress(pax(b"9" * 400 + b" a=b\n")), "a pax header has a record without its length"),
    "pax endless": (lambda: gzip.compress(pax(b"0 a=b\n")), "a pax header has a record without its length"),
    "sparse": (lambda: gzip.compress(pax(b"22 GNU.sparse.major=1\n") + header("a")), "a sparse member"),
    "cut member": (lambda: gzip.compress(header("a", b"%o" % 100) + b"a"), "it ends inside a member"),
    "bad header": (lambda: gzip.compress(b"\1" * 512), "it is damaged: invalid header"),
    "twice": (lambda: archive(**{"./test_batch.bin": b""}), r"test_batch\.bin in it is not a .*, or is there twice"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_bad_archives_are_refused_by_name(small, tmp_path, case):
    content, message = ARCHIVES[case]
    (tmp_path / BINARY.archive).write_bytes(content())
    with pytest.raises(ValueError, match=rf"cifar-10-binary\.tar\.gz: expected a tar\.gz archive.*{message}"):
        datasets.cifar10(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [BINARY.archive]


def test_an_archive_of_many_members(tmp_path):
    """Without `small`: 600,000 members would still be fewer bytes than the data set has."""
    (tmp_path / BINARY.archive).write_bytes(gzip.compress(header("a") * 2000))
    with pytest.raises(ValueError, match=r"binary\.tar\.gz: .* it has more than 1000 members"):
        datasets.cifar10(tmp_path)


@pytest.mark.slow
def test_a_small_archive_of_a_large_pickle(tmp_path):
    """Files of 40 MB of the operation that makes a list, in a megabyte. One file's lists would take 3 GB."""
    made = make.archive(PYTHON.folder, dict.fromkeys((*PYTHON.train, PYTHON.test), b"]" * 40_000_000))
    (tmp_path / PYTHON.archive).write_bytes(made)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"tar\.gz: data_batch_1: .* it builds more than a file of this size"):
            datasets.cifar10(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 500 * 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("long", ["", "a" * 200 + "/", "ä" * 60 + "/"], ids=["", "long", "not ASCII"])
def test_archives_of_every_tar_format_are_read(small, tmp_path, form, long):
    """With a time that is a fraction, which makes pax headers, and beside a file with a name that needs a header."""
    packed, made = io.BytesIO(), make.files("cifar10", BINARY)
    with tarfile.open(fileobj=packed, mode="w:gz", format=form, compresslevel=1) as tar:
        for name, content in {f"../{long}readme": b"x" * 700, **made}.items():
            member = tarfile.TarInfo(f"{BINARY.folder}/{name}")
            member.size, member.mtime = len(content), 1.5
            try:
                tar.addfile(member, io.BytesIO(content))
            except ValueError:
                assert long and form == tarfile.USTAR_FORMAT  # it holds no names of 200 bytes
    (tmp_path / BINARY.archive).write_bytes(packed.getvalue())
    assert same(datasets.cifar10(tmp_path), expected("cifar10", "labels"))


def test_long_names_in_an_archive_are_whole_names(small, tmp_path):
    """A member whose additional header has another name than its own is known by the additional header."""
    made = make.files("cifar10", BINARY)
    name, content = BINARY.folder + "/test_batch.bin", made.pop("test_batch.bin")
    rest = gzip.decompress(make.archive(BINARY.folder, made))
    size, padded = b"%o" % len(content), content + bytes(-len(content) % 512)
    named = header("x", b"%o" % len(name), b"L") + name.encode().ljust(512, b"\0") + header("y", size) + padded
    record = f"path={name}\n"
    path = pax(f"{len(record) + 3} {record}".encode()) + header("y", size) + padded
    for first in named, path:
        (tmp_path / BINARY.archive).write_bytes(gzip.compress(first + rest))
        assert same(datasets.cifar10(tmp_path), expected("cifar10", "labels"))


def test_archive_members_are_known_by_their_whole_name(small, tmp_path):
    (tmp_path / BINARY.archive).write_bytes(archive(elsewhere))
    with pytest.raises(FileNotFoundError, match=r"binary\.tar\.gz: .*test_batch\.bin is missing"):
        datasets.cifar10(tmp_path)
    (tmp_path / BINARY.archive).write_bytes(archive(dotted))
    assert same(datasets.cifar10(tmp_path), expected("cifar10", "labels"))


# ---------------------------------------------------------------------------------------------------- the real files

def real(form):
    """Return the folder with the real CIFAR-10 in this format, or skip the test."""
    for variable in "MINIRES_CIFAR10", "MINIRES_DATA":
        for place in "", "cifar10":
            folder = Path(os.environ.get(variable) or "nowhere") / place / form.folder
            if (folder / form.test).is_file():
                return folder
    return pytest.skip(f"neither MINIRES_CIFAR10 nor MINIRES_DATA names a folder with {form.folder}/")


def test_the_real_files_of_both_formats_agree(tmp_path):
    both = []
    for form in PYTHON, BINARY:
        (tmp_path / form.folder).mkdir()
        (tmp_path / form.folder / form.folder).symlink_to(real(form), target_is_directory=True)
        both.append(datasets.cifar10(tmp_path / form.folder))
    assert same(*both)
    train, test = both[0]
    assert np.bincount(train.labels).tolist() == [5000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
    assert train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]   # frog, truck, truck, deer, ...
    assert test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]    # cat, ship, ship, airplane, ...
    mean = train.images.mean((0, 1, 2)) / 255  # the channels' means that are widely quoted
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("python", [make.python2, make.python3])
@pytest.mark.parametrize("name, n", [("cifar10", 10_000), ("cifar100", 50_000)])
def test_files_as_large_as_the_real_ones_are_within_every_bound(name, n, python):
    """CIFAR-100's training file has 155 MB, and 231 MB if today's Python wrote it again."""
    form, batch = cifar.FORMATS[name][0], make.images(n, name)
    content = python(*batch, "t")
    assert len(content) < cifar.most_bytes(form)[form.train[0]]
    pixels, labels = cifar.read_python("whole", content, n, cifar.CLASSES[name], "t")
    assert np.array_equal(pixels, batch[0]) and all(np.array_equal(labels[kind], batch[1][kind]) for kind in labels)


def test_a_real_batch_is_written_as_the_tests_write_it(small):
    """The pickles that these tests write use the same operations as the real file."""
    content = (real(PYTHON) / "test_batch").read_bytes()
    pixels, labels = make.images(10)
    used = lambda b: {op.name for op, _, _ in pickletools.genops(io.BytesIO(b))}
    assert used(make.python2(pixels, labels, "testing batch 1 of 1")) == used(content)


# --------------------------------------------------------------------------------------------------- damage at random

@pytest.mark.parametrize("number", every(2, [150, 400]))
def test_damage_of_every_kind(number):
    """Run the cases of tests/fuzz/fuzz_cifar.py; the script runs them 20,000 times."""
    with fuzz_cifar.cases() as cases:
        came = mutations.run(cases, number, seed=7)
    assert came.total() - came["slowest, ms"] == number
    assert all(came[f"{name}: refused"] for name in cases) and came["pickle: loaded"] and came["bytes: loaded"]


def test_the_watch_over_the_damaged_files_sees():
    """mutations.run reports what must never happen: another error, a program that runs, a file that is written, and a
    refusal that does not name the file."""
    def meets(read): mutations.run({"planted": lambda rng: (read, ["the file"])}, 1)

    def refuse(): raise ValueError("it is bad")

    for read, said in ((lambda: {}["x"], "KeyError"), (lambda: os.system("true"), "led to os.system"),
                       (lambda: Path("made").write_text("x"), "led to open"), (refuse, "it is bad: names no file")):
        with pytest.raises(AssertionError, match=f"planted.*number 0.*{said}"):
            meets(read)
    assert not os.path.exists("made")


def test_a_memo_index_costs_no_memory():
    """Four damaged bytes can name entry 2^27 of the memo, for which CPython's own reader allocates 2 GB."""
    tracemalloc.start()
    try:
        assert cifar._batch("here", b"\x80\x02}r\x00\x00\x00\x08.") == {}  # private: as above
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
