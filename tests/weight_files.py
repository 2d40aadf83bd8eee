"""Models, their arrays, and files of weights of every format for the tests, written from the formats' descriptions."""
import io
import json
import pickle
import struct

import numpy as np
import pytest
from fuzz import fuzz_pytorch
from helpers import same_bits

from minires import Tensor, load_weights, models, nn


def small(**options):
    return models.cifar(8, width=1, **options)


def arrays(model):
    return {name: t.data.copy() for name, t in model.state().items()}


def drawn(model, seed=0):
    """{name: array} of random numbers that fit the model, float32."""
    return {name: normal(*t.shape, seed=[seed, i], dtype=np.float32) if t.ndim else t.data
            for i, (name, t) in enumerate(model.state().items())}


def normal(*shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def holds(model, expected):
    return list(model.state()) == list(expected) and all(same_bits(t.data, expected[n])
                                                         for n, t in model.state().items())


def refuser(tmp_path):
    """Return check(content or dict, *parts of the message, rename=None), which expects a ValueError with these parts,
    and an unchanged model. Content is written to a file, and the message must contain the file's name."""
    def check(source, *parts, rename=None, model=None):
        model = model or small()
        before, objects = arrays(model), [t.data for t in model.state().values()]
        if isinstance(source, bytes):
            (tmp_path / "given").write_bytes(source)
            source, parts = tmp_path / "given", (*parts, str(tmp_path / "given"))
        with pytest.raises(ValueError, match=r"^load_weights: ") as caught:
            load_weights(model, source, rename)
        assert type(caught.value) is ValueError
        assert [p for p in parts if p not in str(caught.value)] == [], str(caught.value)
        assert holds(model, before) and all(t.data is a for t, a in zip(model.state().values(), objects, strict=True))
    return check


def npz(**entries):
    file = io.BytesIO()
    np.savez(file, **entries)
    return file.getvalue()


def safetensors(header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def described(begin=0, end=12, shape=(3,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


# PyTorch's files, written without PyTorch


class Call:
    """In a pickle, it becomes a call of `name` with `args`, as PyTorch's files contain them."""

    def __init__(self, name, *args): self.name, self.args = name, args


class Storage(tuple):
    """In a pickle, it becomes a reference to data outside the pickle."""


def program(saved, protocol=2):
    """Return the pickle of `saved`, which consists of dicts, tuples, text, numbers, Calls and Storages."""
    def code(x):
        if isinstance(x, Call):
            module, _, name = x.name.rpartition(".")
            return f"c{module}\n{name}\n".encode() + (code(tuple(x.args)) + b"R" if x.args is not NAME else b"")
        if isinstance(x, Storage):
            return code(tuple(x)) + b"Q"
        if isinstance(x, dict):
            return b"}(" + b"".join(code(k) + code(v) for k, v in x.items()) + b"u"
        if isinstance(x, tuple):
            return b"(" + b"".join(map(code, x)) + b"t"
        return pickle.dumps(x, 2)[2:-1]
    return b"\x80" + bytes([protocol]) + code(saved) + b"."


NAME = object()


def named(name):
    """Return a Call that only names the object and does not call it."""
    made = Call(name)
    made.args = NAME
    return made


def tensor(size, stride, *, key="0", count=10, kind="FloatStorage", offset=0, rest=()):
    storage = Storage(("storage", named(f"torch.{kind}"), key, "cpu", count))
    return Call("torch._utils._rebuild_tensor_v2", storage, offset, size, stride, False, {}, *rest)


def torch_zip(saved, numbers=bytes(40), key="0", **more):
    entries = {"a/data.pkl": saved if isinstance(saved, bytes) else program(saved), f"a/data/{key}": numbers,
               "a/version": b"3\n", **more}
    return fuzz_pytorch.zipped(entries.items())


def torch_legacy(saved, *storages):
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    keys = pickle.dumps([key for key, _, _ in storages], 2)
    pickled = saved if isinstance(saved, bytes) else program(saved)
    return b"".join([*head, pickled, keys, *(struct.pack("<q", n) + raw for _, n, raw in storages)])


class One(nn.Module):
    """A model with one weight, `w`."""

    def __init__(self, *shape): self.w = Tensor(np.zeros(shape, np.float32), True)
