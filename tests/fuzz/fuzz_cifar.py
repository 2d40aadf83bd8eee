"""Read damaged CIFAR-10 files: each is refused cleanly or read as 60 images with labels in range.

    cd tests && python -m fuzz.fuzz_cifar [N] [--seed S]

The images are real if MINIRES_CIFAR10 or MINIRES_DATA names a folder with the binary format, and noise otherwise. There
are only 60 of them, so that a file is read in a millisecond. The damage is to the bytes of a batch in either format, to
the operations of a pickle, to the bytes of a tar file that is then compressed again, and to the compressed bytes. New
programs take the place of a batch.
"""
import contextlib
import gzip
import os
import pathlib
import struct
import tempfile
from unittest import mock

import cifar_files as make
import numpy as np
from fuzz.mutations import damaged, main, operations, reordered
from fuzz.programs import Programs, named, number, text

from minires.datasets import cifar

PYTHON, BINARY = cifar.FORMATS["cifar10"]
FORMS = {form.folder: form for form in (PYTHON, BINARY)}
other = {PYTHON.folder: BINARY.folder, BINARY.folder: PYTHON.folder}.__getitem__


def parts():
    """Return (pixels, labels) of six small batches, real if available. The test batch has one image of each class."""
    for variable in "MINIRES_CIFAR10", "MINIRES_DATA":
        folder = pathlib.Path(os.environ.get(variable) or "nowhere") / BINARY.folder
        if (folder / BINARY.test).is_file():
            rows = [np.fromfile(folder / file, np.uint8, 3073 * 200).reshape(-1, 3073)
                    for file in (*BINARY.train, BINARY.test)]
            first = [int((rows[-1][:, 0] == label).argmax()) for label in range(10)]
            rows = [batch[:10] for batch in rows[:-1]] + [rows[-1][first]]
            return [(batch[:, 1:], {"labels": batch[:, 0]}) for batch in rows]
    return [make.images(10, seed=i) for i in range(6)]


def array(p, pixels=bytes(10 * 3072), rows=10):
    """The operations that make an array, right or slightly wrong."""
    rng = p.rng
    made = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + rng.choice(
        [b"K\x00\x85U\x01b\x87R"] * 4 + [b"\x85R", b"N\x86R"])
    shape = number(rng.choice([rows] * 8 + [rows + 1, 0, 2**40])) + number(3072) + b"\x86"
    if rng.random() < 0.2:
        shape = rng.choice([p.axes, lambda: p.put("list", b"]") + b"(" + number(rows) + number(3072) + b"e",
                            lambda: p.value(8)])()
    dtype = named("numpy", "dtype") + text(rng.choice(["u1"] * 8 + ["O", "f8", "u2", "|u1"])) + b"K\x00K\x01\x87R"
    if rng.random() < 0.8:
        dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = b"T" + struct.pack("<I", len(pixels)) + pixels if rng.random() < 0.9 else p.value(8)
    return made + b"(K\x01" + shape + dtype + rng.choice([b"\x89"] * 4 + [b"\x88", b"N"]) + data + b"tb"


def encoded(p):
    """The operations that call _codecs.encode."""
    return named("_codecs", "encode") + text("abc") + text(p.rng.choice(["latin1", "latin1", "zlib"])) + b"\x86R"


def a_program(rng, title, pixels, labels):
    """Return a pickle that is like a batch in more or fewer respects."""
    p = Programs(rng, cifar.ALLOWED, {"array": lambda p: array(p, pixels, len(labels)), "encoded": encoded},
                 ["data", "labels", "batch_label", "label_names"])
    if rng.random() < 0.3:
        return p.program()
    items = p.put("list", b"]") + b"(" + b"".join(
        p.value(8) if rng.random() < 0.01 else number(int(label)) for label in labels) + b"e"
    body = p.put("dict", b"}") + text("labels") + items + b"s"
    body += text("data") + p.put("object", array(p, pixels, len(labels))) + b"s"
    body += text("batch_label") + text(title) + b"s"
    if rng.random() < 0.2:
        body += p.key() + p.value(4) + b"s"
    return p.program(body)


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run. In this context the data set has 60 images."""
    with mock.patch.multiple(cifar, TRAIN=50, TEST=10), tempfile.TemporaryDirectory() as temporary:
        made_of = parts()
        made = {form.folder: make.files("cifar10", form, parts=made_of) for form in (PYTHON, BINARY)}
        archives = {folder: make.archive(folder, files) for folder, files in made.items()}
        pickles = {name: operations(content) for name, content in made[PYTHON.folder].items()}
        whole, packed = pathlib.Path(temporary) / "whole", pathlib.Path(temporary) / "packed"
        packed.mkdir()
        last = {}

        def load(root):
            train, test = cifar.cifar10(root)
            assert train.images.shape == (50, 32, 32, 3) and test.images.shape == (10, 32, 32, 3)
            assert len(train.labels) == 50 and len(test.labels) == 10
            assert train.labels.max() < 10 and test.labels.max() < 10

        for folder, files in made.items():
            make.write(whole / folder / folder, files)  # a root for each format, in which one file changes at a time

        def in_folder(folder, name, content):
            root = whole / folder
            make.write(root / folder, {file: made[folder][file] for file in last.get(folder, ())} | {name: content})
            last[folder] = [name]
            return lambda: load(root), [str(root / folder)]

        def in_archive(folder, content):
            (packed / FORMS[other(folder)].archive).unlink(missing_ok=True)
            path = packed / FORMS[folder].archive
            path.write_bytes(content)
            return lambda: load(packed), [str(path)]

        def files_bytes(rng):
            folder = rng.choice(list(FORMS))
            name, donor = rng.choices(list(made[folder]), k=2)
            return in_folder(folder, name, damaged(made[folder][name], rng, made[folder][donor]))

        def new_programs(rng):
            i = rng.randrange(6)
            name, (pixels, labels) = (*PYTHON.train, PYTHON.test)[i], made_of[i]
            title = "testing batch 1 of 1" if i == 5 else f"training batch {i + 1} of 5"
            return in_folder(PYTHON.folder, name, a_program(rng, title, pixels.tobytes(), labels["labels"]))

        def pickle_operations(rng):
            name = rng.choice(list(pickles))
            return in_folder(PYTHON.folder, name, reordered(pickles[name], rng))

        def tar_bytes(rng):
            folder = rng.choice(list(FORMS))
            tar = bytearray(gzip.decompress(archives[folder]))
            starts = [i for i in range(0, len(tar), 512) if tar[i + 257:i + 262] == b"ustar"]
            if rng.random() < 0.7:  # most bytes are pixels, so aim at a header
                start = rng.choice(starts)
                tar[start:start + 512] = damaged(bytes(tar[start:start + 512]), rng)
                if rng.random() < 0.5:  # with a checksum that fits the damage
                    header = tar[start:start + 148] + b" " * 8 + tar[start + 156:start + 512]
                    tar[start + 148:start + 156] = b"%06o\0 " % sum(header)
            else:
                tar = bytearray(damaged(bytes(tar), rng, made[folder][FORMS[folder].test]))
            return in_archive(folder, gzip.compress(bytes(tar), 1))

        def gzip_bytes(rng):
            folder = rng.choice(list(FORMS))
            return in_archive(folder, damaged(archives[folder], rng, archives[PYTHON.folder]))

        yield {"new programs": new_programs, "bytes": files_bytes, "pickle": pickle_operations,
               "tar": tar_bytes, "tar.gz": gzip_bytes}


if __name__ == "__main__":
    with cases() as found:
        main(__doc__, found)
