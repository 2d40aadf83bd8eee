"""`minires evaluate` counts as a plain loop does, gives the published ResNet-20 its error, and reports wrong use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minires import Tensor, cli, datasets, evaluate, load_weights, models, no_grad, save_weights, train

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "akamaster_resnet20.safetensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LOGITS = [-5.3097, -0.4958, 0.8773, 23.7305, -4.1050, 4.4637, -0.2346, -5.4179, -3.7118, -9.8822]


def stripes():
    return datasets.load("stripes")[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return (path, network): a file with the weights of a network for the stripes data set, and the network."""
    net = models.resnet20(width=2, num_classes=len(stripes().classes), rng=np.random.default_rng(3))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(net, path)
    return path, net


def command(*args):
    return cli.main(["evaluate", *map(str, args)])


# ------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_the_score_is_the_plain_loops(tiny, batch_size):
    _, net = tiny
    test = stripes()
    images = datasets.to_float(test.images)
    score = evaluate.score(net, images, test.labels, test.classes, batch_size)
    net.eval()
    with no_grad():
        found = [int(net(Tensor(image[None])).data.argmax()) for image in images]
    net.train()
    right = [f == label for f, label in zip(found, test.labels, strict=True)]
    assert (score.correct, score.total) == (sum(right), len(right)) and 0 < score.correct < score.total
    assert score.error == pytest.approx(100 * (1 - sum(right) / len(right)))
    assert score.error == train.error(net, images, test.labels) == evaluate.error(net, images, test.labels)
    for k, name in enumerate(test.classes):
        of_class = [r for r, label in zip(right, test.labels, strict=True) if label == k]
        assert score.per_class[name] == (sum(of_class), len(of_class))
    assert score.images_per_second == pytest.approx(score.total / score.seconds) and score.seconds > 0


@pytest.mark.parametrize("wrong, total, percent", [(0, 7, 0.0), (7, 7, 100.0), (3, 8, 37.5), (np.int64(1), 4, 25.0)])
def test_the_error_in_percent(wrong, total, percent):
    assert evaluate.error_percent(wrong, total) == percent


@pytest.mark.parametrize("wrong, total", [(-1, 7), (8, 7), (0, 0), (0, -1)])
def test_an_error_of_nothing_or_of_more_than_all_is_refused(wrong, total):
    with pytest.raises(ValueError, match=f"error_percent: expected 0 <= wrong <= total and total >= 1, got {wrong} of "
                                         f"{total}"):
        evaluate.error_percent(wrong, total)


def test_logits_are_in_eval_mode_and_modes_are_kept(tiny):
    _, net = tiny
    images = datasets.to_float(stripes().images[:9])
    net.train()
    seen = []
    found = evaluate.logits(net, images, 4, each=seen.append)
    assert all(m.training for _, m in net.modules()) and seen == [4, 4, 1]
    with no_grad():
        np.testing.assert_allclose(found, net.eval()(Tensor(images)).data, rtol=1e-5, atol=1e-6)
    net.train()


@pytest.mark.parametrize("images, labels, message", [
    (0, 0, "expected at least one image"), (3, 4, r"one label for each of 3 images, an integer, got int\d+\(4,\)")])
def test_nothing_to_count(tiny, images, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate.is_right(tiny[1], np.zeros((images, 3, 8, 8), np.float32), np.zeros(labels, int))


@pytest.mark.parametrize("count", [evaluate.is_right, train.error])
@pytest.mark.parametrize("label", [7, -1])
def test_labels_beyond_the_classes(tiny, label, count):
    with pytest.raises(ValueError, match=rf"expected labels in 0\.\.\d, got {label}"):
        count(tiny[1], np.zeros((2, 3, 8, 8), np.float32), np.array([0, label]))


@pytest.mark.parametrize("count", [evaluate.is_right, train.error, lambda *a: evaluate.score(*a, classes="abcdefg")])
def test_labels_that_are_no_integers(tiny, count):
    with pytest.raises(ValueError, match=r"an integer, got float64\(2,\)"):
        count(tiny[1], np.zeros((2, 3, 8, 8), np.float32), np.array([0, 1.5]))


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_prints_the_count_and_every_class(tiny, capsys):
    path, net = tiny
    assert command("resnet20", path, "--dataset", "stripes", "--width", 2, "--normalize", "none") == 0
    test = stripes()
    score = evaluate.score(net, datasets.to_float(test.images), test.labels, test.classes)
    out = capsys.readouterr().out
    assert out.startswith(f"resnet20 on stripes, {score.total} test images\ninput pixels / 255\n"
                          "option A shortcuts, zero channels half on each side (--pad both)\n"
                          f"{score.correct}/{score.total} correct, error {score.error:.2f} %, ")
    assert max(map(len, out.splitlines())) <= 80
    assert "images/s" in out and all(f"{c}/{n}" in out and name in out for name, (c, n) in score.per_class.items())


@pytest.mark.parametrize("right, says", [(12, True), (19, True), (20, False), (93, False)])
def test_an_error_near_chance_names_the_other_padding(right, says):
    from minires.commands import evaluate as command_of
    from minires.commands.subject import Subject

    found = evaluate.Score(right, 100, {str(k): (1, 10) for k in range(10)}, 1.0)
    for pad, other in ("both", "--pad end: "), ("end", "--pad both: "):
        subject = Subject("ResNet-8", models.cifar(8, width=1, pad=pad), lambda: None)
        lines = command_of.near_chance(subject, found)
        assert bool(lines) == says and (not says or any(other in line for line in lines))
        assert not says or "Guessing gives about 10 correct" in lines[0]
    plain = Subject("VGG", models.cifar(8, False, width=1), lambda: None)
    assert not any("--pad" in line for line in command_of.near_chance(plain, found))
    run = Subject("ResNet-8", models.cifar(8, width=1), lambda: None, words={"recipe": "demo"})  # decides both itself
    assert not any("--" in line for line in command_of.near_chance(run, found))


@pytest.mark.parametrize("wrong, total, percent", [(3182, 10_000, 31.82), (1, 3, 100 / 3), (7, 1000, 0.7),
                                                   (29, 100, 29)])
def test_an_error_prints_as_a_person_writes_it(wrong, total, percent):
    assert repr(evaluate.error_percent(wrong, total)) == repr(float(percent))


def test_json_is_all_that_is_on_stdout(tiny, tmp_path):
    path, net = tiny
    words = f"evaluate resnet20 {path} --dataset stripes --width 2 --mean 0.5 0.4 0.3 --std 0.25 0.25 0.25 --json"
    done = subprocess.run([sys.executable, "-W", "error", "-m", "minires.cli", *words.split(), "--device", "cpu"],
                          capture_output=True, text=True, timeout=300, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])})
    assert done.returncode == 0, done.stderr
    given, test = json.loads(done.stdout), stripes()
    score = evaluate.score(net, datasets.prepared("stripes", normalize=((0.5, 0.4, 0.3), [0.25] * 3)).test[0],
                           test.labels, test.classes)
    assert (given["correct"], given["total"], given["error"]) == (score.correct, score.total, score.error)
    assert given["per_class"] == {name: {"correct": c, "total": n} for name, (c, n) in score.per_class.items()}
    assert given["images_per_second"] > 0 and given["input"] == "(pixels / 255 - (0.5, 0.4, 0.3)) / (0.25, 0.25, 0.25)"


@pytest.mark.parametrize("option, normalize, words", [
    ("--mean", ([0.5, 0.4, 0.3], [1] * 3), "(pixels / 255 - (0.5, 0.4, 0.3)) / (1, 1, 1)"),
    ("--std", ([0] * 3, [0.5, 0.4, 0.3]), "(pixels / 255 - (0, 0, 0)) / (0.5, 0.4, 0.3)")])
def test_mean_or_std_alone(tiny, option, normalize, words, capsys):
    path, net = tiny
    assert command("resnet20", path, "--dataset", "stripes", "--width", 2, option, 0.5, 0.4, 0.3, "--json") == 0
    given, data = json.loads(capsys.readouterr().out), datasets.prepared("stripes", normalize=normalize)
    assert given["input"] == words and given["correct"] == evaluate.score(net, *data.test, data.classes).correct


def test_rename_shortcut_and_pad_reach_the_network(tiny, tmp_path, monkeypatch, capsys):
    options = {"width": 2, "in_channels": 3, "num_classes": len(stripes().classes)}
    net = models.resnet20(shortcut="B", rng=np.random.default_rng(1), **options)
    state = {n.replace("conv1", "conv_a").replace("fc", "head"): t.data for n, t in net.state().items()}
    np.savez(tmp_path / "w.npz", **{f"module.{n}": a for n, a in state.items()})
    args = ["resnet20", tmp_path / "w.npz", "--dataset", "stripes", "--width", 2, "--shortcut", "B"]
    assert command(*args) == 2 and "unexpected conv_a.weight" in capsys.readouterr().err
    assert command(*args, "--rename", "conv_a=conv1", "--rename", "head=fc", "--json") == 0
    both = json.loads(capsys.readouterr().out)
    data = datasets.prepared("stripes")
    assert both["correct"] == evaluate.score(net, *data.test, data.classes).correct

    built, build = [], models.build
    monkeypatch.setattr(models, "build", lambda name, **given: built.append(given) or build(name, **given))
    assert command("resnet20", tiny[0], "--dataset", "stripes", "--width", 2, "--pad", "end") == 0
    assert built == [{**options, "pad": "end"}]


@pytest.mark.parametrize("args, message", [
    (["resnet21", "w", "--dataset", "stripes"], "model: unknown name 'resnet21'; did you mean resnet"),
    (["resnet20", "w", "--dataset", "stripe"], "data set: unknown name 'stripe'; did you mean stripes"),
    (["resnet20", "no such file", "--dataset", "stripes"], "no such file: No such file or directory"),
    (["resnet20", "w", "--dataset", "stripes", "--mean", "0.5", "0.5", "--std", "1", "1"],
     "normalize: mean: expected 3 finite numbers"),
    (["resnet20", "w", "--dataset", "stripes", "--std", "0", "1", "1", "--mean", "0", "0", "0"],
     "normalize: std: expected numbers above 0"),
    (["resnet20", "w", "--dataset", "stripes", "--mean", "0.5", "0.5"], "normalize: mean: expected 3 finite numbers"),
    (["resnet20", "w", "--dataset", "stripes", "--std", "1", "1"], "normalize: std: expected 3 finite numbers"),
    (["resnet20", "w", "--dataset", "stripes", "--mean", "0", "0", "0", "--normalize", "none"], "leave one of them"),
    (["resnet20", "w", "--dataset", "stripes", "--std", "1", "--mean", "0", "--normalize", "none"],
     "leave one of them"),
    (["vgg16", "w", "--dataset", "stripes", "--pad", "end"], "model vgg16: there is no option 'pad'"),
    (["resnet20", "w", "--dataset", "cifar10", "--data-dir", "nowhere"], "cifar10: not found"),
    (["resnet20", "w"], "dataset missing: a network's name needs both"),
    (["resnet20", "w", "--dataset", "stripes", "--image-size", "5"], "average_pool"),
    (["resnet20"], "weights and dataset missing: a network's name needs both"),
    (["."], ". is not the folder of a run: there is no config.json in it"),
    (["runs/resnet20"], "runs/resnet20 is neither the folder of a run nor the name of a network; `minires models`"),
    (["a.th"], "a.th is a file: give the name of its network before it, as in minires evaluate resnet20 a.th"),
    ([".", "--pad", "end", "--normalize", "channel", "--device", "cpu"], "is not the folder of a run: there is no")])
def test_errors_of_use_are_one_line(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.th").touch()
    assert command(*args) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.startswith("minires evaluate: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("pair", ["fc", "=fc", ""])
def test_a_rename_that_is_no_pair(pair, capsys):
    with pytest.raises(SystemExit):
        command("resnet20", "w", "--dataset", "stripes", "--rename", pair)
    assert "expected OLD=NEW" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ the weights that ship


SHIPPED = Path(__file__).resolve().parents[1] / "data" / "weights" / "fashion-mnist"


def test_the_weights_that_ship_get_the_error_that_was_recorded_for_them(capsys):
    """The images are prepared as in training: averaged, minus the training set's mean image."""
    told = json.loads((SHIPPED / "weights.json").read_text(encoding="utf-8"))["resnet20"]
    assert command("resnet20", SHIPPED / "resnet20.safetensors", "--width", 8, "--dataset", "fashion_mnist_small",
                   "--normalize", "pixel-mean", "--image-size", told["data"]["image_size"], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["error"] == pytest.approx(told["test_error_float16"], abs=0.11) and found["total"] == 2000
    assert found["input"] == "pixels / 255, averaged to 14x14 - the training set's mean image"


def test_a_pipe_that_nobody_reads_any_more_ends_quietly():
    run = "import sys; from minires import cli; sys.exit(cli.main(['info']))"
    with subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


# ------------------------------------------------------------------------------------ a published network


@pytest.fixture(scope="module")
def published():
    """Return (the file of the published weights, the folder of CIFAR-10), or skip with the reason."""
    if not REFERENCE.is_file():
        pytest.skip("the published ResNet-20 is not beside this repository")
    root = os.environ.get("MINIRES_CIFAR10")
    try:
        datasets.cifar10(root)
    except FileNotFoundError as e:
        pytest.skip(str(e))
    return REFERENCE, root


def test_the_published_resnet20s_logits(published):
    weights, root = published
    net = models.resnet20()
    load_weights(net, weights)
    images = datasets.prepared("cifar10", root, normalize=(MEAN, STD), train=False).test[0]
    np.testing.assert_allclose(evaluate.logits(net, images[:1])[0], LOGITS, atol=1e-3)


def test_the_published_resnet20_gets_its_9173(published, capsys):
    """The published accuracy is 91.73 %. Another order of summation may change 2 images either way."""
    weights, root = published
    folder = [] if root is None else ["--data-dir", root]
    assert command("resnet20", weights, "--dataset", "cifar10", "--mean", *MEAN, "--std", *STD, *folder, "--json") == 0
    given = json.loads(capsys.readouterr().out)
    assert abs(given["correct"] - 9173) <= 2 and given["total"] == 10_000
    assert given["error"] == pytest.approx(100 - given["correct"] / 100)
    assert sum(c["correct"] for c in given["per_class"].values()) == given["correct"]
