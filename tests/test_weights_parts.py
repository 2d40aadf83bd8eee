"""Test loading in part, reading without a model, pickled arrays, several files, and renames by regular expressions."""

import collections
import io
import json
import pickle
import sys

import numpy as np
import pytest
from fuzz import fuzz_pytorch
from helpers import needs_torch, same_bits, torch
from weight_files import One, arrays, described, drawn, holds, npz, refuser, safetensors, small, tensor, torch_zip

import minires
from minires import cli, datasets, load_weights, models, nn, read_weights, save_weights
from minires.files import pickles, sharded
from minires.names import Substitution
from minires.weights import MOST_READ, LeftOut


@pytest.fixture
def refuses(tmp_path):
    return refuser(tmp_path)


# ------------------------------------------------------------------------------------------- loading in part


def test_a_new_head_keeps_its_weights():
    """Fine-tuning: another number of classes, and all else from the file."""
    source = drawn(small())
    net = small()
    net.fc = nn.Linear(4, 3, rng=np.random.default_rng(5))
    head = net.fc.weight.data
    left = load_weights(net, source, skip="fc.*")
    assert left == LeftOut(("fc.weight", "fc.bias"), ("fc.weight", "fc.bias"))
    assert net.fc.weight.data is head
    assert net.eval()(minires.Tensor(np.zeros((2, 3, 8, 8), np.float32))).shape == (2, 3)
    assert all(same_bits(t.data, source[name]) for name, t in net.state().items() if not name.startswith("fc"))


@pytest.mark.parametrize("options, kept", [
    ({"only": "layer1"}, lambda name: not name.startswith("layer1.")),
    ({"only": ["layer[12]", "conv1.weight"]}, lambda name: name[:6] not in ("layer1", "layer2", "conv1.")),
    ({"skip": ("fc", "*.bn?")}, lambda name: name.startswith("fc.") or ".bn" in name),
    ({"only": "layer1", "skip": "*.weight"}, lambda name: not name.startswith("layer1.") or name.endswith("weight")),
    ({}, lambda name: False),
])
def test_patterns_choose_what_is_loaded(options, kept):
    net, source = small(), drawn(small())
    before = arrays(net)
    left = load_weights(net, source, **options)
    names = tuple(name for name in before if kept(name))
    assert left.model == names and sorted(left.source) == sorted(names)
    assert all(same_bits(t.data, (before if kept(name) else source)[name]) for name, t in net.state().items())


def test_the_rest_must_still_fit(refuses):
    net, source = small(), drawn(small())
    source["fc.weight"], source["conv1.weight"] = np.zeros((7, 4), "f4"), np.zeros(3, "f4")
    with pytest.raises(ValueError, match=r"1 entry does not fit the \d+ of CifarNet: conv1.weight: expected shape"):
        load_weights(net, source, skip="fc.*")
    left = load_weights(net, {**source, "extra.w": np.zeros(2)}, only="bn1")  # nothing else is looked at
    assert "extra.w" in left.source and "conv1.weight" in left.source


@pytest.mark.parametrize("options, says", [({"skip": "head"}, "load_weights: skip: unknown name 'head'"),
                                           ({"only": ["fc", "lyer1"]}, "load_weights: only: unknown name 'lyer1'")])
def test_a_pattern_that_nothing_has_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        load_weights(small(), drawn(small()), **options)
    with pytest.raises(TypeError, match="load_weights: skip: expected patterns of names as text, got int"):
        load_weights(small(), drawn(small()), skip=[3])
    with pytest.raises(TypeError, match="load_weights: only: expected patterns of names as text, got int"):
        load_weights(small(), drawn(small()), only=3)


@pytest.mark.parametrize("options", [{"skip": "*"}, {"only": []}, {"only": "fc", "skip": "fc.*"}])
def test_loading_nothing_is_refused(options):
    with pytest.raises(ValueError, match=r"load_weights: skip and only leave out all \d+ names of the model"):
        load_weights(small(), drawn(small()), **options)


@pytest.mark.parametrize("source", [0, None, [1, 2]])
def test_a_source_that_is_no_path(source):
    """open(0) would read what is typed."""
    for read in (read_weights, lambda source: load_weights(small(), source)):
        with pytest.raises(TypeError, match=f"expected a path or a dict of arrays, got {type(source).__name__}"):
            read(source)


def test_masked_arrays_in_a_dict_are_refused():
    source = drawn(small())
    source["fc.bias"] = np.ma.array(source["fc.bias"], mask=True)
    with pytest.raises(ValueError, match=r"it holds masked arrays; give array.filled\(0\) instead"):
        load_weights(small(), source)


def test_names_that_only_the_source_has_can_be_skipped():
    source = {**drawn(small()), "head.weight": np.zeros((2, 2), "f4")}
    assert load_weights(small(), source, skip="head").source == ("head.weight",)


# ------------------------------------------------------------------------------------------- hints in errors


@pytest.mark.parametrize("options, theirs, says", [
    ({}, {"width": 2}, r"The first layer has 1 channels, and 2 in the source: .* width=2 \(--width 2\)"),
    ({}, {"in_channels": 1}, "The source is for images of 1 channels: in_channels=1"),
    ({}, {"num_classes": 7}, r'has 7 classes: build the network with num_classes=7, or .* skip="fc\.\*"'),
    ({}, {"shortcut": "B"}, r'has its own projections .* shortcut="B" \(--shortcut B\)'),
    ({"shortcut": "B"}, {}, r'has no projections in the shortcuts: .* shortcut="A" \(--shortcut A\)'),
])
def test_an_error_names_the_option_that_would_help(options, theirs, says):
    with pytest.raises(ValueError, match=says) as caught:
        load_weights(small(**options), drawn(models.cifar(8, **{"width": 1, **theirs})))
    assert ("rename" in str(caught.value)) is False


def test_an_error_names_rename_and_the_layers():
    source = {name.replace("layer", "stage"): a for name, a in drawn(small()).items()}
    with pytest.raises(ValueError, match=r"as stage\S+ for layer\S+: translate them with rename=\{...\} \(--rename"):
        load_weights(small(), source)


# ------------------------------------------------------------------------------------------- renames


@pytest.mark.parametrize("text, name, becomes", [
    (r"s/layer(\d)/stage\1/", "layer2.0.w", "stage2.0.w"), (r"s|^net\.||", "net.fc.w", "fc.w"),
    (r"s/block(\d+)\./layer{\1+1}./", "block0.w", "layer1.w"), (r"s/\.(\d+)/.{\1-3}/g", "a.13.b.4", "a.10.b.1"),
    ("s/a/b/", "aa", "ba"), ("s/a/b/g", "aa", "bb"), (r"s/a\/b/c/", "a/b", "c"),
    (r"s/a/b\/c/", "a", "b/c"), (r"s.block0.layer1\.0.", "block0", "layer1.0"), (r"s/(x)?y/\1z/", "y", "z")])
def test_a_substitution_is_seds(text, name, becomes):
    assert Substitution(text)(name) == becomes


@pytest.mark.parametrize("text, says", [
    ("s/a/b", "expected s/OLD/NEW/"), ("s//b/", "expected s/OLD/NEW/"), ("s/a/b/x", "expected s/OLD/NEW/"),
    ("a=b", "expected s/OLD/NEW/"), ("s/(/b/", "is not a regular expression"), (r"s/a/\1/", "does not have"),
    ("s/a{99999999999}/b/", "is not a regular expression"),
    (f"s/{'(' * 5000}a{')' * 5000}/b/", "is not a regular expression"), ("s/[[a]/b/", "Possible nested set"),
    (r"s/(\w)\1/x/", r"expected no reference such as \\1 in OLD"),
    ("s/(a+)+b/x/", r"expected no group to repeat, got \)\+"),
    ("s/(a|ab){2,}c/x/", r"got \)\{2,\} after one"), ("s/(?i)fc/x/", r"expected groups as \(...\), got \(\?i"),
    (5, "expected s/OLD/NEW/")], ids=lambda text: str(text)[:20])
def test_a_substitution_that_is_none(text, says):
    with pytest.raises(ValueError, match=f"rename: .*{says}"):
        Substitution(text)
    with pytest.raises(ValueError, match=r"expected \\1 to be a whole number, got 'x' in 'ax'"):
        Substitution(r"s/a(.)/{\1+1}/")("ax")
    with pytest.raises(ValueError, match=r"expected \\1 to be a whole number"):
        Substitution(r"s/(\d+)/{\1+1}/")("9" * 400)


@pytest.mark.parametrize("text, most, too_long", [
    ("s/(.*)_(.*)x/b/", 300, 2000), ("s/a*a*a*b/x/", 150, 400), ("s/.*?.*?.*?.*?x/b/", 40, 150),
    (f"s/{'a?' * 12}b/x/", 200, 200_000), (f"s/{'(a|a)' * 10}b/x/", 200, 10**6)], ids=lambda value: str(value)[:20])
def test_the_time_of_a_substitution_is_bounded(text, most, too_long):
    """Each of these took hours, or for ever, on a long name."""
    assert Substitution(text)("a" * most) == "a" * most
    with pytest.raises(ValueError, match=r"ways to match it with these names, and at most 2e\+08 are tried; write"):
        Substitution(text)("a" * too_long)
    many = {"a" * most + str(i): np.zeros(1, "f4") for i in range(200_000 // most)}
    if Substitution(text).repeats > 2:
        with pytest.raises(ValueError, match="ways to match it with these names"):
            load_weights(small(), many, Substitution(text))


def test_the_repeats_of_a_substitution_are_counted():
    for text, repeats, choices in ((r"s/[*+?(|]+\+\[a*/x/", 2, 0), (r"s/a{2}b{1,3}c+?(d)?|e/x/", 3, 3),
                                   (r"s/[]*]a[^]+]b/x/", 0, 0), (r"s/\\*(\d+)\.(\w+)/x/", 3, 0)):
        assert (Substitution(text).repeats, Substitution(text).choices) == (repeats, choices), text


def test_rules_in_order():
    source = {name.replace("layer", "net.blocks.").replace("conv1.weight", "kernel"): a
              for name, a in drawn(small()).items()}
    source = {(f"net.blocks.{int(n[11]) - 1}{n[12:]}" if n.startswith("net.") else n): a for n, a in source.items()}
    assert "net.blocks.0.0.kernel" in source
    net = small()
    load_weights(net, source, [Substitution(r"s/^net\.blocks\.(\d)/layer{\1+1}/"), {"kernel": "conv1.weight"}, str])
    assert holds(net, drawn(small()))
    with pytest.raises(ValueError, match=r"rename: s/xyz/a/ changes none of the \d+ names, such as"):
        load_weights(small(), source, Substitution("s/xyz/a/"))
    with pytest.raises(TypeError, match="expected a dict of names, a function or a list of these, got int"):
        load_weights(small(), source, 3)


@pytest.mark.parametrize("rename, error, says", [
    ({"": "net"}, ValueError, "rename: expected a name in the source to replace, got ''"),  # it never ended
    ({".": "net"}, ValueError, "rename: expected a name in the source to replace"),
    ({"fc": None}, TypeError, "rename: expected names as text, got NoneType"),
    ({0: "fc"}, TypeError, "rename: expected names as text, got int"),
    (lambda name: None, TypeError, "rename: expected the function to return a name, got NoneType")])
def test_wrong_rules_are_refused(rename, error, says):
    with pytest.raises(error, match=says):
        load_weights(small(), drawn(small()), rename)


def test_the_command_renames_by_regular_expressions(tmp_path, capsys):
    net = models.resnet20(width=1, num_classes=len(datasets.stripes()[1].classes))
    names = {n: n.replace("conv1", "convA") if not n.startswith("layer") else f"stage{int(n[5]) - 1}{n[6:]}"
             for n in net.state()}
    np.savez(tmp_path / "w.npz", **{names[n]: t.data for n, t in net.state().items()})
    args = ["evaluate", "resnet20", str(tmp_path / "w.npz"), "--dataset", "stripes", "--width", "1"]
    assert cli.main(args) == 2 and "--rename" in capsys.readouterr().err
    assert cli.main([*args, "--rename", r"s/stage(\d)/layer{\1+1}/", "--rename", "convA=conv1"]) == 0
    out = capsys.readouterr().out
    assert "option A shortcuts, zero channels half on each side (--pad both)" in out
    with pytest.raises(SystemExit):
        cli.main([*args, "--rename", "s/(/a/"])
    assert "'(' is not a regular expression" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- reading without a model


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_what_is_saved_is_read(tmp_path, suffix):
    net = small()
    load_weights(net, drawn(net))
    save_weights(net, tmp_path / f"w.{suffix}")
    found = read_weights(tmp_path / f"w.{suffix}")
    assert sorted(found) == sorted(net.state()) and holds(net, {n: found[n] for n in net.state()})
    assert all(a.flags.writeable and a.flags.c_contiguous for a in found.values())


@pytest.mark.parametrize("file", [fuzz_pytorch.TODAY, fuzz_pytorch.LEGACY], ids=["today", "legacy"])
def test_a_checkpoint_of_pytorch_is_read(file):
    found = read_weights(file)
    net = small()
    load_weights(net, file)
    state = {name.removeprefix("module."): a for name, a in found.items() if a.dtype.kind == "f"}
    assert holds(net, {n: state[n] for n in net.state()}) and all(type(a) is np.ndarray for a in found.values())


def test_what_read_weights_refuses(tmp_path):
    path = tmp_path / "w"
    for content, says in ((b"", "it is empty"), (torch_zip({"epoch": 3}), "it holds no array"),
                          (npz(**{"w" * 1001: np.zeros(1)}), "it has a name of 1001 characters")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"read_weights: {path}: .*{says}"):
            read_weights(path)


def test_the_memory_of_read_weights_is_bounded(tmp_path):
    path = tmp_path / "w.pth"
    size = MOST_READ // 4
    path.write_bytes(torch_zip({"w": tensor((2, size), (0, 0))}))  # one number, 32 million times
    with pytest.raises(ValueError, match=r"its arrays would take \d+ bytes, and the file has \d+"):
        read_weights(path)
    path.write_bytes(torch_zip({"w": tensor((2, 3), (0, 1))}))
    assert read_weights(path)["w"].shape == (2, 3)


# ------------------------------------------------------------------------------------------- pickled arrays


KINDS = {"float32": np.arange(6, dtype="f4").reshape(2, 3), "float64": np.arange(3.0), "big-endian": np.ones(2, ">f8"),
         "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "empty": np.zeros((0, 3), "f4"),
         "scalar": np.array(3.0), "whole": np.arange(4), "half": np.ones(3, "f2")}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_are_read(tmp_path, protocol):
    (tmp_path / "params.pkl").write_bytes(pickle.dumps({**KINDS, "epoch": 3, "lr": np.float32(0.5)}, protocol))
    found = read_weights(tmp_path / "params.pkl")
    assert set(found) == {*KINDS, "lr"} and found["lr"] == np.float32(0.5)
    for name, a in KINDS.items():
        assert found[name].dtype == a.dtype.newbyteorder("=") and found[name].shape == a.shape
        assert np.array_equal(found[name], a)


@pytest.mark.parametrize("wrap", [dict, collections.OrderedDict, lambda d: {"state_dict": d}, lambda d: {"net": d}])
def test_pickled_arrays_load_into_a_model(tmp_path, wrap):
    net, source = small(), drawn(small())
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(wrap(source)))
    load_weights(net, tmp_path / "w.pkl")
    assert holds(net, source)


def test_a_list_of_arrays_has_numbers_as_names(tmp_path):
    net, w = One(3), np.arange(3, dtype="f4")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps([w]))
    load_weights(net, tmp_path / "w.pkl", {"0": "w"})
    assert net.w.data.tolist() == [0, 1, 2]


PYTHON_2 = (b"\x80\x02}q\x00U\x01wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U"
            b"\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01\x85q\x08cnumpy\ndtype\nq\tU\x02f8q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U"
            b"\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x08\x00\x00\x00\x00\x00\x00\xf0\xbfq\x0ftq"
            b"\x10bs.")


def test_a_pickle_of_python_2(tmp_path):
    (tmp_path / "w.pkl").write_bytes(PYTHON_2)
    assert read_weights(tmp_path / "w.pkl")["w"].tolist() == [-1.0]


def hostile(reduced):
    class Evil:
        def __reduce__(self): return reduced
    return pickle.dumps({"w": Evil()}, 2)


def array(shape, code, numbers, order=b"<", fortran=False):
    """Return a pickle of {"w": an array}, written by hand, whose parts need not fit each other."""
    dtype = np.dtype("f4")
    made = pickle.dumps({"w": np.zeros(1, "f4")}, 2)
    assert dtype.str == "<f4"
    head, state = made[:made.index(b"(K\x01K\x01\x85")], b""
    state = b"(K\x01" + shape + b"cnumpy\ndtype\n" + b"X" + len(code).to_bytes(4, "little") + code
    state += b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state += (b"\x88" if fortran else b"\x89") + b"C" + bytes([len(numbers)]) + numbers + b"tb"
    return head + state + b"s."


def test_an_array_written_by_hand(tmp_path):
    (tmp_path / "w").write_bytes(array(b"K\x02\x85", b"f4", np.array([1, 2], "<f4").tobytes()))
    assert read_weights(tmp_path / "w")["w"].tolist() == [1, 2]


@pytest.mark.parametrize("content, says", [
    (hostile((eval, ("1",))), "it names .*builtin.*.eval, which such a file does not need; nothing was run"),
    (hostile((np.load, ("x",))), "it names numpy.*, which such a file does not need; nothing was run"),
    (pickle.dumps({"w": np.ma.array([1.0])}), "it holds masked arrays; save array.filled"),
    (pickle.dumps({"w": np.array([{}], object)}), "an array whose dtype is not one of numbers"),
    (pickle.dumps({"w": np.array(["a"])}), "an array whose dtype is not one of numbers"),
    (pickle.dumps({"w": np.zeros(2, "f4,i4")}), "an array whose dtype is not one of numbers"),
    (pickle.dumps({"w": 3}), "it is a pickle, but neither torch.save wrote it, nor does it hold NumPy arrays"),
    (pickle.dumps({"w": np.ones(3, "f4")}) + b"more", "it has more after its first pickle"),
    (pickle.dumps({"w": np.ones(3, "f4")})[:-20], "it is damaged"),
    (array(b"K\x03\x85", b"f4", bytes(8)), r"an array of shape \(3,\) and type float32 with 8 bytes"),
    (array(b"J\xff\xff\xff\xff\x85", b"f4", bytes(8)), "shape, order or numbers are invalid"),
    (array(b"]K\x02a", b"f4", bytes(8)), "shape, order or numbers are invalid"),
    (array(b"K\x08\x85", b"O8", bytes(8)), "an array whose dtype is not one of numbers"),
    (array(b"K\x08\x85", b"f4", bytes(8), order=b"X"), "it has a dtype whose state NumPy would not write"),
    (b"\x80\x02}X\x01\x00\x00\x00wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87Rs.",
     "it has an array without numbers"),
    (b"\x80\x02}X\x01\x00\x00\x00wcnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87Rs.",
     "it makes an array of a class that is not numpy.ndarray"),
    (b"\x80\x05}X\x01\x00\x00\x00w\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc", "it is damaged"),
])
def test_pickles_that_are_refused(tmp_path, content, says):
    path, net = tmp_path / "given", One(3)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^load_weights: {path}.*{says}"):
        load_weights(net, path)
    assert net.w.data.tolist() == [0, 0, 0]


def test_byte_arrays_are_refused_elsewhere():
    content = pickle.dumps(bytearray(b"abc"), 5)
    with pytest.raises(pickles.Refused, match="it has the operation BYTEARRAY8"):
        pickles.read(io.BytesIO(content), {})
    assert pickles.read(io.BytesIO(content), {}, byte_arrays=True) == b"abc"


def test_many_arrays_of_one_text_take_no_memory(tmp_path):
    """Python 2's bytes are text; each array that shares them must not copy them before it is read."""
    import tracemalloc

    text = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\x01"
    one = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01J\x40\x42\x0f\x00\x85"
           b"cnumpy\ndtype\n(U\x02u1tR\x89h\x01tb")
    body = b"".join(b"X\x04\x00\x00\x00%04d" % i + one for i in range(500))
    (tmp_path / "w").write_bytes(b"\x80\x02" + text + b"0}(" + body + b"u.")
    tracemalloc.start()
    with pytest.raises(ValueError, match="would take 500000000 bytes"):
        read_weights(tmp_path / "w")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


# ------------------------------------------------------------------------------------------- several files


def shards(folder, **changes):
    """Write the index of two files, and return its path and their arrays."""
    source = drawn(small())
    names = list(source)
    for i, part in enumerate((names[:5], names[5:])):
        at, header, numbers = 0, {}, b""
        for name in part:
            a = source[name]
            header[name] = described(at, at + a.nbytes, a.shape)
            numbers, at = numbers + a.tobytes(), at + a.nbytes
        (folder / f"part-{i}.safetensors").write_bytes(safetensors(header, numbers))
    places = {name: f"part-{int(i >= 5)}.safetensors" for i, name in enumerate(names)}
    index = {"metadata": {"total_size": 1}, "weight_map": {**places, **changes}}
    (folder / "index.json").write_text(json.dumps(index))
    return folder / "index.json", source


def test_several_files_with_their_index(tmp_path):
    path, source = shards(tmp_path)
    net = small()
    load_weights(net, path)
    assert holds(net, source)
    found = read_weights(path)
    assert set(found) == set(source) and all(same_bits(found[name], source[name]) for name in source)


@needs_torch
def test_several_files_of_pytorch(tmp_path):
    source = {name: torch.tensor(a) for name, a in drawn(small()).items()}
    names = list(source)
    for i, part in enumerate((names[:5], names[5:])):
        torch.save({name: source[name] for name in part}, tmp_path / f"{i}.bin")
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {n: f"{int(i > 4)}.bin" for i, n in enumerate(names)}}))
    net = small()
    load_weights(net, tmp_path / "i.json")
    assert holds(net, drawn(small()))


@pytest.mark.parametrize("changes, says", [
    ({"fc.bias": "../w.safetensors"}, "fc.bias is in '../w.safetensors', which is not the name of a file in the "),
    ({"fc.bias": "/etc/passwd"}, "is in '/etc/passwd', which is not the name of a file"),
    ({"fc.bias": ".."}, "which is not the name of a file"), ({"fc.bias": "a\0b"}, "which is not the name of a file"),
    ({"fc.bias": "C:w"}, "which is not the name of a file"), ({"fc.bias": 3}, 'expected its "weight_map"'),
    ({"fc.bias": "missing"}, "it names missing, which cannot be read: No such file"),
    ({"fc.bias": "part-0.safetensors"}, "part-0.safetensors: it should hold fc.bias, but does not"),
    ({"more": "part-0.safetensors"}, "part-0.safetensors: it should hold more, but does not"),
    ({str(i): f"f{i}" for i in range(sharded.MOST_FILES)}, "it names 202 files; expected at most 200"),
])
def test_an_index_that_is_refused(tmp_path, changes, says):
    path, _ = shards(tmp_path, **changes)
    net = small()
    before = arrays(net)
    with pytest.raises(ValueError, match="load_weights: ") as caught:
        load_weights(net, path)
    assert says in str(caught.value) and str(path) in str(caught.value) and holds(net, before)


def test_an_index_that_names_itself(tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {"w": "index.json"}}))
    with pytest.raises(ValueError, match=r"index.json: index.json: it is a JSON file, which holds no weights"):
        load_weights(One(3), tmp_path / "index.json")


def test_a_file_that_holds_more_than_its_index_says(tmp_path):
    path, _ = shards(tmp_path)
    index = json.loads(path.read_text())
    del index["weight_map"]["fc.bias"]
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"part-1.safetensors: it holds fc.bias, which the index does not say"):
        load_weights(small(), path)


def test_one_damaged_file_of_several(tmp_path):
    path, _ = shards(tmp_path)
    part = tmp_path / "part-1.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"index.json: part-1.safetensors: it is damaged: its arrays have"):
        load_weights(small(), path)


def test_the_public_name():
    assert minires.read_weights is read_weights and "read_weights" in dir(minires) and sys.modules["minires.weights"]
