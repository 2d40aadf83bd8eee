"""Read damaged PyTorch files: each is refused cleanly or loads completely, and no code from it runs.

    cd tests && python -m fuzz.fuzz_pytorch [N] [--seed S]
    cd tests && python -m fuzz.fuzz_pytorch make      writes the two files again; this needs PyTorch

today.pth and legacy.pth hold the same checkpoint of models.cifar(8, width=1) in both of PyTorch's formats. PyTorch 2.13
wrote them. The checkpoint has what training scripts save: a model in DataParallel, an optimizer, an epoch, a score. The
damage is to any bytes, to the operations of the pickles in an otherwise correct file, and to the entries of a complete
zip file. Other files hold a new program instead of the saved object.
"""
import contextlib
import io
import pathlib
import pickle
import pickletools
import sys
import tempfile
import warnings
import zipfile

import numpy as np
from fuzz.mutations import damaged, main, operations, reordered
from fuzz.programs import Programs, named, number, text

from minires import load_weights, models
from minires.files import torchfile

HERE = pathlib.Path(__file__).resolve().parent
TODAY, LEGACY = HERE / "today.pth", HERE / "legacy.pth"


def unzipped(content):
    """Return [(name, content)] of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def zipped(entries, method=zipfile.ZIP_STORED):
    """Return a complete zip file with correct checksums."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")  # two entries with one name are intended
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def entries_damaged(entries, rng):
    """Return the zip file after one change: an entry is deleted, renamed, damaged, cut or gets another content, or all
    entries are compressed."""
    made, i, j = list(entries), rng.randrange(len(entries)), rng.randrange(len(entries))
    edit = rng.randrange(7)
    if edit == 0: del made[i]
    elif edit == 1: made[i] = (made[i][0], made[j][1])
    elif edit == 2: made[i] = (made[j][0] + rng.choice(["", "x"]), made[i][1])
    elif edit == 3: made[i] = (made[i][0], damaged(made[i][1], rng))
    elif edit == 4: made[i] = (made[i][0], made[i][1][:rng.randrange(len(made[i][1]) + 1)])
    elif edit == 5: made[i] = (made[i][0], rng.choice([b"", b"big", bytes(10**6)]))
    else: return zipped(made, zipfile.ZIP_DEFLATED)
    return zipped(made)


def pickles_of(legacy):
    """Return the five pickles of a legacy file, and the bytes after them."""
    file, parts = io.BytesIO(legacy), []
    for _ in range(5):
        start = file.tell()
        list(pickletools.genops(file))
        parts.append(legacy[start:file.tell()])
    return parts, legacy[file.tell():]


KINDS = list(torchfile.STORAGES)


def storage(p, key, count):
    """The operations that refer to a storage; `p`: the Programs."""
    rng = p.rng
    kind = named("torch", rng.choice(["FloatStorage"] * 8 + KINDS))
    key = text(rng.choice([key] * 12 + ["x", "a" * 300]))
    count = number(rng.choice([count] * 8 + [0, 1, 2**40, -1]))
    view = b"" if rng.random() < 0.8 else rng.choice([
        lambda: b"N", lambda: p.value(8),
        lambda: number(0) + number(0) + number(rng.choice([0, 1, 8, 2**40])) + b"\x87"])()
    return b"(" + text("storage") + kind + key + text("cpu") + count + view + b"tQ"


def tensor(p, key="0", count=10, size=None, stride=None):
    """The operations that make a tensor, right or slightly wrong."""
    rng = p.rng
    offset = number(rng.choice([0] * 8 + [1, 9, 2**40, -1]))
    build = rng.choice(["_rebuild_tensor_v2"] * 8 + ["_rebuild_tensor", "_rebuild_parameter"])
    before = b""
    if rng.random() < 0.1:
        how = rng.choice([lambda: named("torch._utils", "_rebuild_parameter"), p.name])()
        before = named("torch._tensor", "_rebuild_from_type_v2") + b"(" + how + named("torch", "Tensor") + b"("
    elif rng.random() < 0.1:
        before = named("torch._utils", "_rebuild_parameter") + b"("
    made = before + named("torch._utils", build) + b"(" + storage(p, key, count) + offset
    made += size or p.axes()
    made += stride or p.axes()
    made += b"\x89ccollections\nOrderedDict\n)R" if rng.random() < 0.7 else rng.choice([
        lambda: b"", lambda: b"\x89" + p.value(8), lambda: b"\x89}" + p.value(8)])()
    return made + b"tR" + (b"" if not before else b"\x88}t}tR" if b"_from_type" in before else b"\x88}tR")


def ordered(p):
    """The operations that call OrderedDict with a list, a dict or nothing."""
    arguments = p.rng.choice([lambda: b")", lambda: p.list(8) + b"\x85", lambda: p.dict(8) + b"\x85"])()
    return named("collections", "OrderedDict") + arguments + b"R"


def a_program(rng, entries):
    """Return a pickle that is like a state_dict in more or fewer respects. `entries`: {name: (key, count, shape)}."""
    p = Programs(rng, torchfile._allowed(None, None), {"tensor": tensor, "ordered": ordered}, list(entries)[:3])
    if rng.random() < 0.3:
        return p.program()
    wrong = rng.random() < 0.7
    items = []
    for name, (key, count, shape) in entries.items():
        odd = wrong and rng.random() < 0.03
        strides = np.array(np.empty(shape, np.int8).strides, int).tolist()
        size, stride = (b"(" + b"".join(map(number, axes)) + b"t" for axes in (shape, strides))
        if odd and rng.random() < 0.5:
            stride = p.put("list", b"]") + b"(" + stride[1:-1] + b"e"
        made = tensor(p, key, count, None if odd and rng.random() < 0.3 else size, stride) if odd else (
            named("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage") + named("torch", "FloatStorage")
            + text(key) + text("cpu") + number(count) + b"tQK\x00" + size + stride + b"\x89}tR")
        items.append(text(name) + p.put("object", made) + (p.change(2) if wrong and rng.random() < 0.05 else b""))
    body = p.put("dict", b"}") + b"(" + b"".join(items) + b"u"
    return p.program(rng.choice([body, b"}" + text("state_dict") + body + b"s", b"}" + text("ema") + body + b"s"]))


def reader(model, path, right):
    """Return a function from the content of a file to (read, names) for mutations.run.

    read() loads the file at `path` into the model, and checks that all its entries or none are loaded; with `checksums`
    also that the entries are `right`, {name: array}.
    """
    before = {name: np.zeros_like(a) for name, a in right.items()}

    def reads(content, checksums=False):
        path.write_bytes(content)
        for name, t in model.state().items():
            t.data = before[name]

        def read():
            state = model.state()
            try:
                load_weights(model, path)
            except BaseException:
                assert all(t.data is before[name] for name, t in state.items()), "half loaded"
                raise
            assert all(t.data.shape == before[name].shape and t.data.dtype == np.float32
                       and t.data is not before[name] for name, t in state.items()), "half loaded"
            assert not checksums or all((t.data == right[name]).all() for name, t in state.items()), "other numbers"
        return read, [str(path)]
    return reads


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run."""
    today, legacy = TODAY.read_bytes(), LEGACY.read_bytes()
    entries = unzipped(today)
    at, pickled = next((i, content) for i, (name, content) in enumerate(entries) if name.endswith("/data.pkl"))
    in_zip = operations(pickled)
    in_legacy, behind = pickles_of(legacy)
    model = models.cifar(8, width=1)
    warm_up(model, entries)
    right = {name: t.data for name, t in model.state().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "damaged.pth"

        reads = reader(model, path, right)

        def one_pickle(rng):
            i = rng.choice([0, 1, 2, 3, 3, 3, 3, 4])
            parts = list(in_legacy)
            parts[i] = reordered(operations(parts[i]), rng)
            return b"".join(parts) + behind

        in_file = [(name, t.size, t.shape) for name, t in model.state().items()]
        in_file = {name: (str(i), max(n, 1), shape) for i, (name, n, shape) in enumerate(in_file)}
        numbers = {key: rng_numbers(count) for key, count, _ in in_file.values()}

        def new_zip(rng):
            storages = [(f"a/data/{key}", raw) for key, raw in numbers.items()]
            return zipped([("a/data.pkl", a_program(rng, in_file)), *storages])

        def new_legacy(rng):
            storages = [len(raw).__floordiv__(4).to_bytes(8, "little") + raw for raw in numbers.values()]
            keys = pickle.dumps(list(numbers), 2)
            return b"".join([*in_legacy[:3], a_program(rng, in_file), keys, *storages])

        yield {
            "today, new programs": lambda rng: reads(new_zip(rng)),
            "legacy, new programs": lambda rng: reads(new_legacy(rng)),
            "today, any bytes": lambda rng: reads(damaged(today, rng, today), checksums=True),
            "today, its pickle": lambda rng: reads(
                zipped([*entries[:at], (entries[at][0], reordered(in_zip, rng)), *entries[at + 1:]])),
            "today, its entries": lambda rng: reads(entries_damaged(entries, rng)),
            "legacy, any bytes": lambda rng: reads(damaged(legacy, rng, today)),
            "legacy, its pickles": lambda rng: reads(one_pickle(rng)),
        }


def rng_numbers(count): return np.arange(1, count + 1, dtype="<f4").tobytes()


def warm_up(model, entries):
    """Load files once, so that everything that reading imports at first use is imported: the watch refuses imports."""
    for file in TODAY, LEGACY:
        load_weights(model, file)
    for codec in "cp437", "utf_8", "latin_1", "unicode_escape", "raw_unicode_escape", "ascii":
        b"".decode(codec)
    for content in b"", zipped(entries, zipfile.ZIP_DEFLATED), TODAY.read_bytes()[:-30], b"PK\3\4":
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ValueError):
            (pathlib.Path(folder) / "x").write_bytes(content)
            load_weights(model, pathlib.Path(folder) / "x")


def make():
    """Write the two files."""
    import torch

    rng = np.random.default_rng(0)
    state = {}
    for name, t in models.cifar(8, width=1).state().items():
        state[f"module.{name}"] = torch.tensor(rng.uniform(0.5, 1.5, t.shape).astype(np.float32))
        if name.endswith("running_var"):
            state[f"module.{name.replace('running_var', 'num_batches_tracked')}"] = torch.tensor(7)
    parameters = [torch.nn.Parameter(state[f"module.{name}"]) for name in ("conv1.weight", "fc.weight")]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
    sum(p.sum() for p in parameters).backward()
    optimizer.step()
    checkpoint = {"epoch": 3, "arch": "resnet8", "best_prec1": np.float64(91.25), "state_dict": state,
                  "optimizer": optimizer.state_dict()}
    torch.save(checkpoint, TODAY)
    torch.save(checkpoint, LEGACY, _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make()
    else:
        with cases() as prepared:
            main(__doc__.splitlines()[0], prepared)
