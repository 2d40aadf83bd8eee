"""Read damaged pickles of NumPy arrays, and damaged weights in several files: each is refused cleanly or loads
completely, and no code from it runs.

    cd tests && python -m fuzz.fuzz_parts [N] [--seed S]

The damage is to any bytes, to the operations of a pickle, and to the JSON of an index. Other pickles are new programs.
Each file is also read with read_weights, without a model.
"""
import contextlib
import json
import pathlib
import pickle
import tempfile

import numpy as np
from fuzz.fuzz_pytorch import reader, unzipped, warm_up
from fuzz.mutations import damaged, deepened, edited, main, operations, reordered
from fuzz.programs import Programs, named, number, text

from minires import load_weights, models, read_weights, save_weights
from minires.files import arrays


def an_array(p, count=10, size=None, odd=True):
    """The operations that make an array, right or, if `odd`, slightly wrong. `p`: the Programs."""
    rng = p.rng

    def one(right, *others):
        return rng.choice([right] * 8 + list(others)) if odd else right

    core = rng.choice(["numpy.core", "numpy._core"])
    dtype = named("numpy", "dtype") + b"(" + text(one("f4", "f8", "u1", "O8", "V3", "f4,f4", "x" * 300, ""))
    dtype += b"\x89\x88tR"
    if one(True, False):
        dtype += b"(K\x03" + text(one("<", ">", "=", "|", "?")) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    size = size or p.axes()
    content = bytes(one(4 * count, 0, 1, 4 * count + 1))
    raw = one(b"B" + len(content).to_bytes(4, "little") + content,
              b"\x96" + len(content).to_bytes(8, "little") + content, p.value(8), text(content))
    if rng.random() < 0.3:
        return named(f"{core}.numeric", "_frombuffer") + b"(" + raw + dtype + size + text(one("C", "F", "x")) + b"tR"
    kind = p.name() if odd and rng.random() < 0.1 else named("numpy", "ndarray")
    start = named(f"{core}.multiarray", "_reconstruct") + b"(" + kind + b"K\x00\x85C\x01btR"
    return start + b"(K\x01" + size + dtype + one(b"\x89", b"\x88", b"N") + raw + b"tb"


def a_program(rng, shapes):
    """Return a pickle that is like a dict of arrays in more or fewer respects. `shapes`: {name: shape}."""
    p = Programs(rng, arrays.allowed(), {"array": an_array}, list(shapes)[:3])
    if rng.random() < 0.3:
        return p.program()
    items, wrong = [], rng.random() < 0.7
    for name, shape in shapes.items():
        odd = wrong and rng.random() < 0.1
        size = None if odd and rng.random() < 0.3 else b"(" + b"".join(map(number, shape)) + b"t"
        items.append(text(name) + p.put("object", an_array(p, int(np.prod(shape)), size, odd)))
        if wrong and rng.random() < 0.05:
            items[-1] += p.change(2)
    body = p.put("dict", b"}") + b"(" + b"".join(items) + b"u"
    return p.program(rng.choice([body, b"}" + text("state_dict") + body + b"s"]))


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run."""
    from safetensors.numpy import save

    model = models.cifar(8, width=1)
    right = {name: np.full(t.shape, i + 1, np.float32) for i, (name, t) in enumerate(model.state().items())}
    model.load_state(right)
    shapes = {name: a.shape for name, a in right.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "damaged"
        index = {"metadata": {"total_size": 9}, "weight_map": {}}
        parts = {}
        for i, names in enumerate((list(right)[:7], list(right)[7:])):
            part = path.with_name(f"part-{i}.safetensors")
            parts[part] = save({name: right[name] for name in names})
            part.write_bytes(parts[part])
            index["weight_map"] |= dict.fromkeys(names, part.name)
        save_weights(model, path.with_suffix(".npz"))
        warm_up(model, unzipped(path.with_suffix(".npz").read_bytes()))
        pickled = {protocol: pickle.dumps(right, protocol) for protocol in (0, 2, 4, 5)}
        for content in (*pickled.values(), json.dumps(index).encode()):
            path.write_bytes(content)
            load_weights(model, path)
            read_weights(path)
        in_pickle = operations(pickled[2])
        loads = reader(model, path, right)

        def reads(content, part=None, other=b""):
            for at, whole in parts.items():
                at.write_bytes(other if at == part else whole)
            load, names = loads(content)

            def read():
                with contextlib.suppress(ValueError):
                    found = read_weights(path)
                    assert all(type(a) is np.ndarray and a.dtype.kind in "fiubc" for a in found.values())
                load()
            return read, names

        def one_part(rng):
            part = rng.choice(list(parts))
            return reads(json.dumps(index).encode(), part, damaged(parts[part], rng, pickled[4]))

        yield {
            "arrays, new programs": lambda rng: reads(a_program(rng, shapes)),
            "arrays, any bytes": lambda rng: reads(damaged(pickled[rng.choice(list(pickled))], rng, pickled[5])),
            "arrays, its pickle": lambda rng: reads(reordered(in_pickle, rng)),
            "index, any bytes": lambda rng: reads(damaged(json.dumps(index).encode(), rng, pickled[4])),
            "index, its values": lambda rng: reads(deepened(json.dumps(edited(index, rng)), rng).encode()),
            "index, one of its files": one_part,
        }


if __name__ == "__main__":
    with cases() as found:
        main(__doc__.splitlines()[0], found)
