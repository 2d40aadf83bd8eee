"""Read damaged CIFAR-10 files: each is refused cleanly or read as 60 images with labels in range.

    cd tests && python -m fuzz.fuzz_cifar [N] [--seed S]

The images are real if MINIRES_CIFAR10 or MINIRES_DATA names a folder with the binary format, and noise otherwise. There
are only 60 of them, so that a file is read in a millisecond. The damage is to the bytes of a batch in either format, to
the operations of a pickle, to the bytes of a tar file that is then compressed again, and to the compressed bytes.
"""
import contextlib
import gzip
import os
import pathlib
import tempfile
from unittest import mock

import cifar_files as make
import numpy as np
from fuzz.mutations import damaged, main, operations, reordered

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


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run. In this context the data set has 60 images."""
    with mock.patch.multiple(cifar, TRAIN=50, TEST=10), tempfile.TemporaryDirectory() as temporary:
        made = {form.folder: make.files("cifar10", form, parts=parts()) for form in (PYTHON, BINARY)}
        archives = {folder: make.archive(folder, files) for folder, files in made.items()}
        pickles = {name: operations(content) for name, content in made[PYTHON.folder].items()}
        whole, packed = pathlib.Path(temporary) / "whole", pathlib.Path(temporary) / "packed"
        packed.mkdir()

        def load(root):
            train, test = cifar.cifar10(root)
            assert train.images.shape == (50, 32, 32, 3) and test.images.shape == (10, 32, 32, 3)
            assert len(train.labels) == 50 and len(test.labels) == 10
            assert train.labels.max() < 10 and test.labels.max() < 10

        def in_folder(folder, name, content):
            root = make.write(whole / folder, made[folder] | {name: content}).parent
            for file in made[other(folder)]:
                (root / other(folder) / file).unlink(missing_ok=True)
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

        yield {"bytes": files_bytes, "pickle": pickle_operations, "tar": tar_bytes, "tar.gz": gzip_bytes}


if __name__ == "__main__":
    with cases() as found:
        main(__doc__, found)
