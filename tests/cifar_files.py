"""Write small files and archives in CIFAR's two official formats for the tests, from the formats' description."""
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

from minires.datasets import cifar


def images(n, name="cifar10", seed=0):
    """Return pixels uint8 (n, 3072) and {kind: labels uint8 (n,)}, in which the classes follow each other in turn."""
    rng = np.random.default_rng([seed, n])
    labels = {kind: (np.arange(n) % len(names)).astype(np.uint8) for kind, names in cifar.CLASSES[name].items()}
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), labels


def binary(pixels, labels):
    return np.concatenate([*(each[:, None] for each in labels.values()), pixels], axis=1).tobytes()


def python2(pixels, labels, title):
    """Return the pickle with the operations that Python 2 wrote."""
    def text(s): return b"U" + bytes([len(s)]) + s.encode()                # SHORT_BINSTRING
    def items(parts): return b"](" + b"".join(parts) + b"e"                # EMPTY_LIST MARK ... APPENDS
    def put(i): return b"q" + bytes([i]) if i < 256 else b"r" + struct.pack("<I", i)
    array = (b"cnumpy.core.multiarray\n_reconstruct\n" + put(200) + b"cnumpy\nndarray\n" + put(201) + b"K\x00\x85"
             + text("b") + b"\x87R" + put(202) + b"(K\x01M" + struct.pack("<H", len(pixels)) + b"M\x00\x0c\x86"
             + b"cnumpy\ndtype\n" + put(203) + text("u1") + b"K\x00K\x01\x87R" + put(204) + b"(K\x03" + text("|")
             + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", pixels.size) + pixels.tobytes()
             + b"tb")
    lists = b"".join(text(kind) + items([b"K" + bytes([v]) for v in each]) for kind, each in labels.items())
    names = items([text(f"photo_{i:04}.png") + put(300 + i) for i in range(len(pixels))])
    return (b"\x80\x02}q\x01(" + text("batch_label") + put(2) + text(title) + lists + text("data") + array
            + text("filenames") + names + b"u.")


def python3(pixels, labels, title):
    """Return the pickle of the same data as this Python and NumPy write it."""
    lists = {kind: each.tolist() for kind, each in labels.items()}
    return pickle.dumps({"batch_label": title, "data": pixels, **lists}, protocol=2)


def files(name, form, python=python2, parts=None):
    """Return {file name: bytes} of a complete data set in one format. `parts`: (pixels, labels), train then test."""
    each = cifar.TRAIN // len(form.train)
    parts = parts or [images(n, name, i) for i, n in enumerate([each] * len(form.train) + [cifar.TEST])]
    titles = [f"training batch {i + 1} of {len(form.train)}" for i in range(len(form.train))] + ["testing batch 1 of 1"]
    made = {}
    for file, title, part in zip((*form.train, form.test), titles, parts, strict=True):
        made[file] = binary(*part) if file.endswith(".bin") else python(*part, title)
    meta = {}
    for kind, place in form.names.items():
        file, _, key = place.partition(":")
        names = cifar.CLASSES[name][kind]
        if key:
            meta.setdefault(file, {})[key] = list(names)
        else:
            made[file] = "\n".join([*names, ""]).encode()
    return made | {file: pickle.dumps(content, protocol=2) for file, content in meta.items()}


def write(folder, made):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return folder


def archive(folder, made, change=None):
    """Return the bytes of a tar.gz. change(member) may edit a member's header before it is written."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for name, content in made.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            if change:
                change(member)
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return packed.getvalue()
