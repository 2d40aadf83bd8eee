"""Damaged PyTorch files: every one is refused cleanly or loads whole, and nothing that it asks for is done.

    cd tests && python -m fuzz.fuzz_pytorch [N] [--seed S]
    cd tests && python -m fuzz.fuzz_pytorch make      the two files anew, by PyTorch where that is installed

today.pth and legacy.pth hold one checkpoint, as training scripts save it (a model behind DataParallel, an optimizer, an
epoch, a score), of models.cifar(8, width=1), in both of PyTorch's formats; PyTorch 2.13 wrote them. Damage: to any
bytes, to the operations of the pickles in a file that is in order otherwise, and to the entries of a whole zip file.
"""
import contextlib
import io
import pathlib
import pickletools
import sys
import tempfile
import warnings
import zipfile

import numpy as np
from fuzz.mutations import damaged, main, operations, reordered

from minires import load_weights, models

HERE = pathlib.Path(__file__).resolve().parent
TODAY, LEGACY = HERE / "today.pth", HERE / "legacy.pth"


def unzipped(content):
    """[(name, content)] of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def zipped(entries, method=zipfile.ZIP_STORED):
    """A whole zip file, checksums and all."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")  # two entries of one name are part of the plan
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def entries_damaged(entries, rng):
    """The zip file after one change of its entries: gone, twice, renamed, exchanged, of another length, compressed."""
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
    """The five pickles of a legacy file, and what comes behind them."""
    file, parts = io.BytesIO(legacy), []
    for _ in range(5):
        start = file.tell()
        list(pickletools.genops(file))
        parts.append(legacy[start:file.tell()])
    return parts, legacy[file.tell():]


@contextlib.contextmanager
def cases():
    """{name: case} for mutations.run."""
    today, legacy = TODAY.read_bytes(), LEGACY.read_bytes()
    entries = unzipped(today)
    at, pickled = next((i, content) for i, (name, content) in enumerate(entries) if name.endswith("/data.pkl"))
    in_zip = operations(pickled)
    in_legacy, behind = pickles_of(legacy)
    model = models.cifar(8, width=1)
    warm_up(model, entries)
    right = {name: t.data for name, t in model.state().items()}
    before = {name: np.zeros_like(a) for name, a in right.items()}

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "damaged.pth"

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

        def one_pickle(rng):
            i = rng.choice([0, 1, 2, 3, 3, 3, 3, 4])
            parts = list(in_legacy)
            parts[i] = reordered(operations(parts[i]), rng)
            return b"".join(parts) + behind

        yield {
            "today, any bytes": lambda rng: reads(damaged(today, rng, today), checksums=True),
            "today, its pickle": lambda rng: reads(
                zipped([*entries[:at], (entries[at][0], reordered(in_zip, rng)), *entries[at + 1:]])),
            "today, its entries": lambda rng: reads(entries_damaged(entries, rng)),
            "legacy, any bytes": lambda rng: reads(damaged(legacy, rng, today)),
            "legacy, its pickles": lambda rng: reads(one_pickle(rng)),
        }


def warm_up(model, entries):
    """Have imported what reading imports at first use: the watch refuses any import."""
    for file in TODAY, LEGACY:
        load_weights(model, file)
    for codec in "cp437", "utf_8", "latin_1", "unicode_escape", "raw_unicode_escape", "ascii":
        b"".decode(codec)
    for content in b"", zipped(entries, zipfile.ZIP_DEFLATED), TODAY.read_bytes()[:-30], b"PK\3\4":
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ValueError):
            (pathlib.Path(folder) / "x").write_bytes(content)
            load_weights(model, pathlib.Path(folder) / "x")


def make():
    """The two files."""
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
