"""Load and save weights: safetensors, NumPy's .npz, and PyTorch's own files (which are only read, without PyTorch).

    minires.load_weights(model, "resnet20.safetensors")
    minires.load_weights(model, "checkpoint.th", rename={"classifier": "fc", "conv_a": "conv1"})
    minires.load_weights(model, "imagenet.safetensors", skip="fc.*")       # a new head keeps its own weights
    minires.read_weights("checkpoint.th")                                  # {name: array}, without a model
    minires.save_weights(model, "resnet20.safetensors", dtype="float16")

The models use torchvision's names, so weights published for PyTorch fit by name.
"""
from __future__ import annotations

import functools
import io
import math
import os
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from . import device, nn
from .files import arrays, sharded, tensors, torchfile
from .files.archives import open_zip
from .files.atomic import write_atomically
from .files.kinds import HEAD, other_kind
from .files.pickles import Refused
from .files.torchfile import Stored
from .names import Substitution, UsageError, unknown
from .names import fits as has_pattern
from .tensor import Tensor

Rule = Mapping[str, str] | Callable[[str], str]
Rename = Rule | Sequence[Rule]

NESTED = ("state_dict", "model_state_dict", "model", "net")   # keys under which checkpoints keep the weights
WRAPPERS = ("module", "_orig_mod")                            # DataParallel and torch.compile put these into names
SYNONYMS = {"linear": "fc", "shortcut": "downsample"}         # names in widely copied CIFAR repositories
MOST_NAME = 1000  # characters of an entry's name
MOST_READ, READ_RATIO = 64 << 20, 64  # read_weights: bytes of all arrays together, and bytes for each byte of the file
SHOWN = 5  # how many names of each kind an error shows: missing, unexpected, misshapen


class LeftOut(NamedTuple):
    """Says what load_weights left out because of `skip` or `only`."""

    source: tuple[str, ...]  # names in the source that were not loaded
    model: tuple[str, ...]   # names in the model that kept their values


def load_weights(model: nn.Module, source: str | os.PathLike[str] | Mapping[str, Any], rename: Rename | None = None, *,
                 skip: str | Iterable[str] = (), only: str | Iterable[str] | None = None) -> LeftOut:
    """Fill `model` with the weights and running statistics of `source`. If any of them does not fit, load none.

    source   a file, whose content decides which format it is: .safetensors; the index (.json) of .safetensors or
             PyTorch files next to it; .npz; a file that torch.save wrote, with or without zip; a pickled dict of NumPy
             arrays. No code in a file is run. Or a dict {name: array} from NumPy, CuPy, PyTorch or minires.
    skip     patterns of names in the model, such as "fc.*" or "layer4", that keep their values: nothing that the source
             has under such a name is looked at
    only     patterns of the names to load; everything else is left out. By default all names are loaded

    Returns what was left out. Without `skip` and `only` that is nothing, because everything must fit.

    Floating-point numbers of any width, bfloat16 included, are converted to the model's dtype, on the model's device.

    Some differences need no `rename`: weights under "state_dict", "model_state_dict", "model" or "net"; names with
    "module." or "_orig_mod." in them; `linear` for `fc`; `shortcut` for `downsample`; and `num_batches_tracked`, which
    is ignored. For other names give `rename`:

    {source's name: model's name}   a whole name, or neighbouring parts between its dots. The parts are replaced at the
                                    beginning of a name ("classifier": "fc"), and inside a name if the result is a name
                                    of the model ("conv_a": "conv1"). "" as the model's name removes the parts.
    a function                      takes a name of the source and returns the name of the model.
                                    weights.Substitution("s/OLD/NEW/") is one, from a regular expression
    a list of these                 applies them in order

    Raises ValueError if the file is damaged, has another format, or names code that is not allowed.
    Raises ValueError, with both shapes, if entries are missing, unexpected or misshapen.
    Raises ValueError for a pattern or a rule of `rename` that no name has, and if `skip` and `only` leave out
    everything.
    Raises TypeError if an argument has another type.
    Raises OSError if the file cannot be read.
    After an error the model is unchanged.
    """
    with _found(source, "load_weights") as (entries, where, _):
        new, left_out = _fitted(model, entries, rename, where, _patterns("skip", skip),
                                ["*"] if only is None else _patterns("only", only))
    for name, t in model.state().items():
        t.data = new.get(name, t.data)
    return left_out


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return {name: array} of all arrays in a file of weights, of any of the formats that load_weights reads.

    The names are those in the file; a state_dict inside a checkpoint is found as by load_weights. bfloat16 becomes
    float32. The arrays are new, contiguous and in the machine's byte order. Entries that are not arrays, such as an
    epoch's number, are left out.

    Raises ValueError if the file is damaged, has another format, names code that is not allowed, or holds no array.
    Raises ValueError if the arrays would take more than 64 MiB and 64 times the file, as only a forged file does.
    Raises OSError if the file cannot be read.
    """
    with _found(path, "read_weights") as (entries, where, size):
        stored = {name: entry for name, entry in entries.items() if isinstance(entry, Stored)}
        if not stored:
            raise ValueError(f"read_weights: {where}: it holds no array")
        if (long := max(map(len, stored))) > MOST_NAME:
            raise ValueError(f"read_weights: {where}: it has a name of {long} characters; expected at most {MOST_NAME}")
        total = sum(math.prod(entry.shape) * entry.dtype.itemsize for entry in stored.values())
        if total > MOST_READ + READ_RATIO * size:
            raise ValueError(f"read_weights: {where}: its arrays would take {total} bytes, and the file has {size}")
        found = {}
        for name, entry in stored.items():
            with _explained(f"{where}, {name}", "read_weights"):
                found[name] = np.array(entry.read(), entry.dtype.newbyteorder("="), order="C")
    return found


def save_weights(model: nn.Module, path: str | os.PathLike[str], dtype: Any = None) -> None:
    """Write the model's weights and running statistics to `path`, completely or not at all.

    path    ends in .safetensors or .npz
    dtype   of the weights in the file; the model's own if not given. "float16" halves the file, and keeps 3 significant
            digits instead of 7. Running statistics keep the model's dtype, because a variance may be larger than
            65,504, the largest float16.

    Both formats load into PyTorch by name: use safetensors.torch.load_file or numpy.load, then
    load_state_dict(..., strict=False), because BatchNorm's num_batches_tracked is not in the file.

    Raises ValueError for another suffix, for a dtype that is not floating-point, and for numbers too large for `dtype`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".safetensors", ".npz"):
        raise ValueError(f"save_weights: expected a file name that ends in .safetensors or .npz, got {str(path)!r}; "
                         "PyTorch reads both")
    if dtype is not None and getattr(dtype, "__name__", str(dtype)) not in ("float16", "float32", "float64"):
        raise ValueError(f"save_weights: dtype: expected float16, float32 or float64, got {dtype}")
    arrays: dict[str, Any] = {}
    frozen = {f"{prefix}.{name}" if prefix else name for prefix, m in model.modules() for name in m.kept}
    for name, t in model.state().items():
        with _explained(f"{path}, {name}", "save_weights"):
            given = dtype is not None and (t.requires_grad or name in frozen)
            arrays[name] = _converted(device.to(t.data, "cpu"), np.dtype(dtype) if given else t.dtype)
    if suffix == ".npz":
        file = io.BytesIO()
        np.savez(file, **arrays)
        content = file.getvalue()
    else:
        from safetensors.numpy import save
        content = save(arrays)
    write_atomically(path, content)


# ------------------------------------------------------------------------------------------ what is in a file


@contextmanager
def _explained(where: str, operation: str = "load_weights") -> Iterator[None]:
    """Turn any error that damage causes into a ValueError that names the operation and the file."""
    try:
        yield
    except Refused as e:
        raise ValueError(f"{operation}: {where}: {e}") from e
    except ImportError:
        raise
    except Exception as e:  # zipfile, NumPy and safetensors raise nearly anything
        raise ValueError(f"{operation}: {where}: it is damaged ({type(e).__name__}: {e})") from e


@contextmanager
def _found(source: str | os.PathLike[str] | Mapping[str, Any], operation: str
           ) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield (entries, what errors call the source, bytes of its files). The entries are readable in this context."""
    if isinstance(source, Mapping):
        with _explained(where := "the given dict", operation):
            entries = _tensors(source)
        yield entries, where, 0
        return
    if not isinstance(source, str | os.PathLike):  # open() would take a number as a file that is open already
        raise TypeError(f"{operation}: expected a path or a dict of arrays, got {type(source).__name__}")
    with open(source, "rb") as file, ExitStack() as stack:
        with _explained(where := str(source), operation):
            head = file.read(HEAD)
            file.seek(0)
            shards = _shards(file, Path(source).parent, stack) if sharded.is_index(head) else {"": file}
            entries = _entries(file) if "" in shards else _joined(file, shards)
        yield entries, where, sum(part.seek(0, os.SEEK_END) for part in shards.values())


def _shards(index: BinaryIO, folder: Path, stack: ExitStack) -> dict[str, BinaryIO]:
    """Return {name: open file} of the files that an index names."""
    files: dict[str, BinaryIO] = {}
    for name in sharded.read(index):
        try:
            files[name] = stack.enter_context((folder / name).open("rb"))
        except OSError as e:
            raise Refused(f"it names {name}, which cannot be read: {e.strerror}; the files of an index belong in its "
                          "folder") from e
    return files


def _joined(index: BinaryIO, files: Mapping[str, BinaryIO]) -> dict[str, Any]:
    """Return {name: Stored} of all files of an index, which must hold exactly the arrays that the index says."""
    entries: dict[str, Any] = {}
    for place, names in sharded.read(index).items():
        try:
            part = _entries(files[place])
        except Refused as e:
            raise Refused(f"{place}: {e}") from e
        if wrong := sorted({*names} ^ {name for name, entry in part.items() if isinstance(entry, Stored)}):
            said = "which the index does not say" if wrong[0] not in names else "but does not"
            raise Refused(f"{place}: it {'holds' if wrong[0] not in names else 'should hold'} {wrong[0][:MOST_NAME]}, "
                          f"{said}; are the files from one model?")
        entries |= part
    return entries


def _entries(file: BinaryIO) -> dict[str, Any]:
    """Return {name: Stored} of a file in any of the formats. The content decides which format it is."""
    head = file.read(HEAD)
    if kind := other_kind(head):
        raise Refused(kind)
    if head[:4] == torchfile.ZIP_MAGIC:
        archive = open_zip(file)
        if all(name.endswith(".npy") for name in archive.namelist()):
            return _npz(archive)
    elif sharded.is_index(head):
        raise Refused("it is a JSON file, which holds no weights")
    elif head[8:9] == b"{":
        return dict(tensors.read(file).arrays)
    elif head[257:262] == b"ustar":
        raise Refused("it is a tar file, which PyTorch wrote before 0.2; load it with PyTorch and save its state_dict")
    elif not head:
        raise Refused("it is empty")
    torch = head[:4] == torchfile.ZIP_MAGIC or head.startswith(torchfile.LEGACY_START)
    try:
        return _tensors(torchfile.read(file) if torch else arrays.read(file))
    except Refused as e:
        if head[:4] == torchfile.ZIP_MAGIC or head[:1] == b"\x80":
            raise
        raise Refused(f"it does not begin like a .safetensors, .npz or PyTorch file; read as a pickle, {e}") from e


def _tensors(saved: Any) -> dict[str, Any]:
    """Return {name: Stored} of the state_dict in a saved object; values that are not arrays stay unchanged."""
    for _ in range(2):  # checkpoints are nested twice at most: {"model": {"state_dict": ...}}
        if isinstance(saved, Mapping):
            saved = next((saved[key] for key in NESTED if isinstance(saved.get(key), Mapping)), saved)
    if not isinstance(saved, Mapping):
        given = "one array" if isinstance(saved, Stored) else type(saved).__name__
        raise Refused(f"expected a dict of arrays, or such a dict under {' or '.join(map(repr, NESTED))}, got {given}; "
                      "torch.save(model.state_dict(), ...) and pickle.dump write one")
    entries = {name.decode("latin1") if isinstance(name, bytes) else str(name): _in_memory(value)
               for name, value in saved.items()}
    if not any(isinstance(value, Stored) for value in entries.values()) and (places := _nested(saved)):
        raise Refused(f"the weights are under {' and '.join(places[:SHOWN])}, where they are not looked for; load the "
                      "file with the program that wrote it, and save that dict alone")
    return entries


def _nested(saved: Mapping[Any, Any]) -> list[str]:
    """Return the keys of the dicts with arrays that are in a dict without arrays, one or two levels deep."""
    seen: set[int] = set()  # one dict may be there under many keys

    def new(value: Any) -> bool:
        if not isinstance(value, Mapping) or id(value) in seen:
            return False
        seen.add(id(value))
        return True

    def has_arrays(value: Mapping[Any, Any]) -> bool:
        return any(isinstance(item, (Stored, Tensor)) or hasattr(item, "dtype") for item in value.values())

    places = []
    for key, value in saved.items():
        if new(value):
            places += [f"{key!r:.80}"] * has_arrays(value)
            places += [f"{key!r:.80}, {inner!r:.80}" for inner, deeper in value.items()
                       if new(deeper) and has_arrays(deeper)]
    return places


def _in_memory(value: Any) -> Any:
    array = value.data if isinstance(value, Tensor) else value
    if hasattr(array, "detach"):  # PyTorch's tensor; converted to float64, because NumPy has no bfloat16
        array = array.detach().cpu()
        array = (array.double() if array.is_floating_point() else array).numpy()
    if isinstance(value, Stored) or not hasattr(array, "dtype"):
        return value
    if hasattr(array, "mask"):
        raise Refused("it holds masked arrays; give array.filled(0) instead")
    return Stored(tuple(array.shape), np.dtype(array.dtype), lambda: device.to(array, "cpu"))


def _npz(archive: zipfile.ZipFile) -> dict[str, Stored]:
    """Read only the headers of the arrays, because a shape may claim more than memory holds."""
    entries = {}
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"its entry {info.filename[:80]} is compressed in a way that numpy.savez does not use")
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):  # later versions are only for records and very long headers
                raise Refused(f"{info.filename} has version {version} of the .npy format, expected (1, 0)")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        entries[info.filename.removesuffix(".npy")] = Stored(shape, dtype, functools.partial(_npy, archive, info))
    return entries


def _npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


# ---------------------------------------------------------------------------------------- what fits the model


def _patterns(option: str, given: str | Iterable[str]) -> tuple[str, ...]:
    patterns = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if wrong := [p for p in patterns if not isinstance(p, str)]:
        raise TypeError(f"load_weights: {option}: expected patterns of names as text, got {type(wrong[0]).__name__}")
    return patterns


def _fitted(model: nn.Module, entries: Mapping[str, Any], rename: Rename | None, where: str, skip: Sequence[str],
            only: Sequence[str]) -> tuple[dict[str, Any], LeftOut]:
    """Return {name in the model: array with the model's dtype, on its device}, and what was left out. Raise ValueError
    unless all else fits."""
    whole = model.state()
    if (long := max(map(len, entries), default=0)) > MOST_NAME:
        raise ValueError(f"load_weights: {where}: it has a name of {long} characters; expected at most {MOST_NAME}")
    translated = _translated(entries, whole, rename)
    for option, patterns in ("skip", skip), ("only", only):
        for pattern in patterns:
            if not any(has_pattern(name, pattern) for name in chain(whole, translated.values())):
                raise unknown(f"load_weights: {option}", pattern, whole)

    def wanted(name: str) -> bool:
        return any(has_pattern(name, p) for p in only) and not any(has_pattern(name, p) for p in skip)

    mine = {name: t for name, t in whole.items() if wanted(name)}
    if not mine:
        raise UsageError(f"load_weights: skip and only leave out all {len(whole)} names of the model")
    fits: dict[str, Any] = {}
    names: dict[str, str] = {}
    left = []
    for theirs, name in translated.items():
        if name not in mine and (name.endswith("num_batches_tracked") or name.partition(".")[0] in model.unused):
            continue
        if not wanted(name):
            left.append(theirs)
            continue
        if name in fits:
            raise ValueError(f"load_weights: {where}: both {names[name]} and {theirs} would become {name}")
        fits[name], names[name] = entries[theirs], theirs
    wrong = [*nn.misfits(mine, fits), [f"{n}: expected floating-point numbers, got {entry.dtype}"
                                       for n, entry in fits.items() if isinstance(entry, Stored)
                                       and entry.dtype.kind != "f"]]
    if count := sum(map(len, wrong)):
        some = [text + f"; and {len(kind) - SHOWN} more like these" * (len(kind) > SHOWN)
                for kind in wrong if (text := "; ".join(kind[:SHOWN]))]
        hints = "".join(f". {hint}" for hint in _hints(mine, fits, names))
        raise ValueError(f"load_weights: {where}: {count} {'entry does' if count == 1 else 'entries do'} not fit "
                         f"the {len(mine)} of {type(model).__name__}: {'; '.join(some)}{hints}")
    new = {}
    for name, t in mine.items():
        with _explained(f"{where}, {names[name]}"):
            new[name] = device.of(t.data).asarray(_converted(fits[name].read(), t.dtype))
    return new, LeftOut(tuple(left), tuple(name for name in whole if name not in mine))


def _hints(mine: Mapping[str, Tensor], fits: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    """Yield sentences that say which options would make entries fit, as far as names and shapes show it."""
    missing = {name: t.shape for name, t in mine.items() if name not in fits}
    unexpected = {name: e.shape for name, e in fits.items() if name not in mine and isinstance(e, Stored)}
    misshapen = {name: (t.shape, fits[name].shape) for name, t in mine.items()
                 if isinstance(fits.get(name), Stored) and fits[name].shape != t.shape}
    for projects, option, says in (missing, "A", "no"), (unexpected, "B", "its own"):
        if any("downsample" in name.split(".") or "shortcut" in name.split(".") for name in projects):
            yield (f'The source has {says} projections in the shortcuts: build the network with shortcut="{option}" '
                   f"(--shortcut {option})")
    first, last = next(iter(mine), ""), next((n for n in reversed(list(mine)) if len(mine[n].shape) == 2), "")
    if first in misshapen and len(misshapen[first][1]) == 4:
        (channels, inputs, *_), (their_channels, their_inputs, *_) = misshapen[first]
        if channels != their_channels:
            yield (f"The first layer has {channels} channels, and {their_channels} in the source: if the network has "
                   f"that option, build it with width={their_channels} (--width {their_channels})")
        elif inputs != their_inputs:
            yield f"The source is for images of {their_inputs} channels: in_channels={their_inputs}"
    elif last in misshapen and misshapen[last][0][1:] == misshapen[last][1][1:]:
        head = last.rpartition(".")[0]
        yield (f"The source has {misshapen[last][1][0]} classes: build the network with num_classes="
               f'{misshapen[last][1][0]}, or load all but the head with skip="{head}.*"')
    alike = next(((theirs, name) for name, shape in missing.items() for theirs, other in unexpected.items()
                  if shape == other), None)
    if alike:
        theirs, name = names[alike[0]], alike[1]
        yield (f"The source may have other names for the same layers, as {theirs} for {name}: translate them with "
               f"rename={{...}} (--rename OLD=NEW or --rename 's/OLD/NEW/')")


def _converted(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a copy in `dtype`. Raise Refused if a finite number becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        new = array.astype(dtype, order="C")
    if new.dtype.itemsize < array.dtype.itemsize and (np.isinf(new) & np.isfinite(array)).any():
        raise Refused(f"it holds numbers too large for {dtype}, up to {np.abs(array[np.isfinite(array)]).max():g}")
    return new


def _translated(theirs: Iterable[str], mine: Container[str], rename: Rename | None) -> dict[str, str]:
    """Return {name in the source: name in the model}."""
    rules: Any = () if not rename else [rename] if isinstance(rename, Mapping) or callable(rename) else rename
    if not isinstance(rules, (list, tuple)) or not all(isinstance(r, Mapping) or callable(r) for r in rules):
        raise TypeError("load_weights: rename: expected a dict of names, a function or a list of these, got "
                        f"{type(rename).__name__}")
    names = {name: name for name in theirs}
    for rule in rules:
        if isinstance(rule, Substitution):
            rule.check(names.values())
        now = ({name: rule(name) for name in names.values()} if callable(rule)
               else _replaced_parts(names.values(), mine, rule))
        if wrong := [type(new).__name__ for new in now.values() if not isinstance(new, str)]:
            raise TypeError(f"load_weights: rename: expected the function to return a name, got {wrong[0]}")
        if isinstance(rule, Substitution) and names and all(a == b for a, b in now.items()):
            raise UsageError(f"load_weights: rename: {rule.text} changes none of the {len(now)} names, such as "
                             f"{next(iter(now))[:MOST_NAME]}")
        names = {name: now[current] for name, current in names.items()}
    return {name: _usual(current, mine) for name, current in names.items()}


def _replaced_parts(theirs: Iterable[str], mine: Container[str], rename: Mapping[str, str]) -> dict[str, str]:
    """Return {name: name after the rules of a dict}."""
    if wrong := [name for pair in rename.items() for name in pair if not isinstance(name, str)]:
        raise TypeError(f"load_weights: rename: expected names as text, got {type(wrong[0]).__name__}")
    rules = {_parts(old): _parts(new) for old, new in rename.items()}
    if () in rules:  # it would match everywhere
        raise UsageError("load_weights: rename: expected a name in the source to replace, got ''")
    parts = {name: _parts(name) for name in theirs}
    for old in rules:
        if not any(p[i:i + len(old)] == old for p in parts.values() for i in range(len(p))):
            raise unknown("load_weights: rename", ".".join(old), {*parts, *chain(*parts.values())})
    names = {}
    for name in parts:
        everywhere, at_start = (_usual(_replaced(parts[name], rules, n), mine) for n in (len(parts[name]), 1))
        names[name] = everywhere if everywhere in mine else at_start
    return names


def _parts(name: str) -> tuple[str, ...]:
    """Split a name at its dots, without wrappers: "module.conv1.weight" -> ("conv1", "weight")."""
    return tuple(part for part in name.split(".") if part and part not in WRAPPERS)


def _replaced(parts: tuple[str, ...], rules: Mapping[tuple[str, ...], tuple[str, ...]], places: int) -> str:
    """Apply all rules at once, from left to right, the longest first; a match may begin in the first `places` parts."""
    new: list[str] = []
    i = 0
    while i < len(parts):
        old = max((old for old in rules if i < places and parts[i:i + len(old)] == old), key=len, default=None)
        new += parts[i:i + 1] if old is None else rules[old]
        i += 1 if old is None else len(old)
    return ".".join(new)


def _usual(name: str, mine: Container[str]) -> str:
    """Return the first of these that the model has: the name, the name without wrappers, its synonym.

    Return the name without wrappers if the model has none of them.
    """
    plain = ".".join(_parts(name))
    synonym = ".".join(SYNONYMS.get(part, part) for part in _parts(name))
    return next((n for n in (name, plain, synonym) if n in mine), plain)
