"""Read damaged IDX files, plain and gzipped: each is refused cleanly or read as complete images with labels in range.

    cd tests && python -m fuzz.fuzz_idx [N] [--seed S]

The images are real: the first 40 training and 20 test images of the Fashion-MNIST that ships with minires. Half of the
damage is to bytes anywhere, and half is to headers, where damage has the most effect.
"""
import contextlib
import gzip
import math
import pathlib
import struct
import tempfile

import numpy as np
from fuzz.mutations import damaged, main

from minires.datasets import fashion_mnist, fashion_mnist_small, read_idx
from minires.datasets.mnist_family import FILES


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run."""
    train, test = fashion_mnist_small()
    made = dict(zip(FILES, map(idx, (train.images[:40], train.labels[:40], test.images[:20], test.labels[:20])),
                    strict=True))
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)

        def load():
            for part in fashion_mnist(root):
                assert part.images.shape[1:] == (28, 28) and part.labels.shape == (len(part.images),)
                assert part.images.dtype == part.labels.dtype == np.uint8 and part.labels.max() < 10

        def whole_set(name, content):
            for file, good in made.items():
                (root / file).write_bytes(content if file == name else good)
            return load, [str(root)]

        def one_file(name, content):
            path = root / "one-file"
            path.write_bytes(content)

            def read():
                array = read_idx(path)
                assert array.dtype.isnative and array.nbytes <= max(len(content), len(made[name])) * 1100
            return read, [str(path)]

        def changed(name, rng):
            good, donor = made[name], made[rng.choice(FILES)]
            if rng.random() < 0.5:
                return damaged(good, rng, donor)
            length = 4 + 4 * good[3]
            return damaged(good[:length], rng, donor) + good[length:]

        def plain(rng):
            name = rng.choice(FILES)
            return rng.choice([whole_set, one_file])(name, changed(name, rng))

        def inside_gzip(rng):
            name = rng.choice(FILES)
            return rng.choice([whole_set, one_file])(name, gzip.compress(changed(name, rng), 1))

        def header(rng):
            sizes = rng.choices([0, 1, 2, 28, 2**16, 2**31, 2**32 - 1], k=rng.choice([0, 1, 2, 3, 3, 4, 65, 255]))
            start = bytes([0, 0, rng.choice([8, 8, 9, 11, 12, 13, 14, 10]), len(sizes)])
            elements = rng.randbytes(min(math.prod(sizes), 784) * rng.choice([0, 1, 2, 4, 8]))
            return one_file(rng.choice(FILES), start + struct.pack(f">{len(sizes)}I", *sizes) + elements)

        def gzip_bytes(rng):
            name = rng.choice(FILES)
            packed = gzip.compress(made[name], 1)
            return rng.choice([whole_set, one_file])(name, damaged(packed, rng, gzip.compress(made[rng.choice(FILES)])))

        yield {"plain": plain, "inside gzip": inside_gzip, "gzip": gzip_bytes, "header": header}


if __name__ == "__main__":
    with cases() as found:
        main(__doc__, found)
