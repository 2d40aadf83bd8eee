"""`minires inspect` works on weights and on a run's folder, writes one page, and reports errors before it writes."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import minires
from minires import analysis, cli, models
from minires.commands import inspect as inspection
from minires.commands.page import POLICY
from minires.commands.subject import Subject, Told, from_run


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file and its network, which has width 4, takes grey images and has halved gammas."""
    net = models.cifar(8, in_channels=1, width=4, rng=np.random.default_rng(3))
    for name, t in net.state().items():
        if "bn" in name and name.endswith(".weight"):
            t.data = t.data * 0.5
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    minires.save_weights(net, path)
    return path, net


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Give a network of 8 layers a name, and take few points, so that the tests are quick."""
    monkeypatch.setitem(models.BY_NAME, "resnet8", partial(models.cifar, 8, width=4))
    monkeypatch.setattr(inspection, "POINTS", (5, 3))


def inspect(*arguments):
    return cli.main(["inspect", *map(str, arguments)])


OPTIONS = "--model", "resnet8", "--dataset", "fashion_mnist_small", "--images", "40"


def test_weights_are_looked_into(weights, tmp_path, capsys):
    path, net = weights
    assert inspect(path, *OPTIONS, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "inspect.html")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"inspect.html", "inspect.json", "responses.png", "gradients.png", "lesions.png", "loss_line.png",
                     "loss_surface.png"}
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert found["left_out"] == {} and found["images"] == 40
    alone = analysis.responses_from_parameters(net, (28, 28))
    assert found["responses"]["per_layer"]["from gamma and beta"] == pytest.approx(alone)
    assert found["responses"]["mean"]["measured"] == pytest.approx(0.5, rel=1e-3)  # gamma 0.5, beta 0
    assert list(found["lesion"]["error_without"]) == ["layer1.0", "layer2.0", "layer3.0"]
    assert found["lesion"]["changes_shape"] == ["layer2.0", "layer3.0"]
    assert set(found["gradients"]) == {"at initialisation", "trained", "dead_units", "growth_per_layer"}
    assert len(found["landscape"]["line"]["loss"]) == 5 and len(found["landscape"]["surface"]["loss"]) == 3


@pytest.mark.usefixtures("blank_pictures")
def test_the_page_stands_alone(weights, tmp_path):
    assert inspect(weights[0], *OPTIONS, "--responses", "--lesion", "--out", tmp_path) == 0
    text = (tmp_path / "inspect.html").read_text(encoding="utf-8")
    assert text.count("<img src=\"data:image/png;base64,") == 2 and "://" not in text and "<script" not in text
    assert "Mean over the layers: 0.500 measured" in text and "Left out" not in text
    assert POLICY in text and "fashion_mnist_small" in text and "Inspection of ResNet-8" in text


def in_colour(folder):
    """Write the weights of a network for three channels, the number that a network has without a data set."""
    minires.save_weights(models.cifar(8, width=4), folder / "net.npz")
    return folder / "net.npz"


def test_without_a_data_set_gamma_and_beta_tell_the_responses(tmp_path):
    assert inspect(in_colour(tmp_path), "--model", "resnet8", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert list(found["responses"]["per_layer"]) == ["from gamma and beta"]
    assert list(found["left_out"]) == ["gradients", "lesion", "landscape"]
    assert "Left out" in (tmp_path / "out" / "inspect.html").read_text(encoding="utf-8")


def test_weights_for_grey_images_need_no_data_set(weights, tmp_path):
    assert inspect(weights[0], "--model", "resnet8", "--in-channels", "1", "--responses", "--out", tmp_path) == 0
    assert "responses" in json.loads((tmp_path / "inspect.json").read_text())


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_is_looked_into(finished_run, tmp_path):
    assert inspect(finished_run, "--images", "10", "--lesion", "--gradients", "--out", tmp_path) == 0
    found = json.loads((tmp_path / "inspect.json").read_text())
    assert found["subject"]["network"] == "resnet20" and found["images"] == 10
    subject = from_run(finished_run, Told())
    assert found["gradients"]["trained"]["weights"] == analysis.gradient_flow(
        subject.model, subject.images[:10], subject.labels[:10]).weights
    metrics = [json.loads(text) for text in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert analysis.lesions(subject.model, subject.images, subject.labels).whole == pytest.approx(
        metrics[-1]["test_error"], abs=1e-3)  # the same images and pixels as in the run


@pytest.mark.parametrize(
    "arguments, message",
    [(("{weights}",), "--model is missing: say which network"),
     (("{colour}", "--model", "resnet8", "--lesion"), "lesion needs images: name a data set, for example --dataset"),
     (("{weights}", "--model", "resnet9"), "unknown name 'resnet9'"),
     (("{weights}", "--model", "plain20"), "load_weights"),
     (("{run}", "--model", "resnet8"), "is the folder of a run, which decides these options: leave out --model"),
     (("{run}", "--normalize", "none"), "leave out --normalize"),
     (("{empty}",), "is not the folder of a run: there is no config.json in it"),
     (("{weights}.not", "--model", "resnet8"), "No such file")],
)
def test_what_is_wrong_is_said_and_nothing_written(arguments, message, weights, finished_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"weights": weights[0], "run": finished_run, "empty": tmp_path / "empty",
              "colour": in_colour(tmp_path)}
    out = tmp_path / "out"
    assert inspect(*(a.format(**places) for a in arguments), "--out", out) == 2
    error = capsys.readouterr().err
    assert error.startswith("minires inspect: error: ") and message in error and error.count("\n") == 1
    assert not out.exists()


def test_evaluate_refuses_options_for_a_run_too(finished_run, capsys):
    assert cli.main(["evaluate", str(finished_run), "--pad", "end", "--normalize", "none", "--json"]) == 2
    assert capsys.readouterr().err == (f"minires evaluate: error: {finished_run} is the folder of a run, which decides "
                                       "these options: leave out --normalize, --pad\n")
    assert cli.main(["evaluate", str(finished_run), "--device", "cpu", "--batch-size", "7"]) == 0
    assert capsys.readouterr().out.startswith("resnet20 on fashion_mnist_small, 20 test images\ninput pixels / 255, "
                                              "averaged to 7x7 - the training set's mean image\n")


def test_an_unfinished_run_says_how_to_go_on(finished_run, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((finished_run / "config.json").read_bytes())
    assert inspect(tmp_path, "--out", tmp_path / "out") == 2
    assert "the run is not finished" in (error := capsys.readouterr().err) and "minires train --resume --out" in error


def test_nothing_is_overwritten(weights, tmp_path, capsys):
    (tmp_path / "inspect.json").write_text("mine")
    assert inspect(weights[0], *OPTIONS, "--responses", "--out", tmp_path) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "inspect.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("blank_pictures")
def test_a_network_without_blocks_shows_the_rest(tmp_path):
    from minires import nn

    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, rng=rng),
                        nn.ReLU(), nn.Conv2d(4, 4, 3, rng=rng), nn.GlobalAvgPool2d(), nn.Linear(4, 3, rng=rng))
    x, y = rng.standard_normal((9, 1, 8, 8)).astype("f4"), rng.integers(0, 3, 9)
    subject = Subject("mine", net, lambda: net, x, y, {"network": "mine", "weights": "none"})
    inspection.run(subject, tmp_path)
    found = json.loads((tmp_path / "inspect.json").read_text())
    assert list(found["left_out"]) == ["lesion"] and "no residual or plain block" in found["left_out"]["lesion"]
    with pytest.raises(ValueError, match="no residual or plain block"):
        inspection.run(subject, tmp_path / "out", ["lesion"])


def test_numbers_that_json_does_not_know_become_null():
    # private: no network that a test can train has all of these
    assert inspection._plain({"a": [1.0, float("inf")], "b": (float("nan"), 2)}) == {"a": [1.0, None], "b": [None, 2]}


@pytest.mark.parametrize("name", ["inspect.html", "inspect.json", "responses.png", "loss_surface.png"])
def test_no_file_of_another_command_is_overwritten(name, tmp_path):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="exists already; choose another --out, nothing is overwritten"):
        inspection.check_folder(tmp_path)


def test_the_list_of_figures_is_whole():
    """check_folder looks for the files of these figures."""
    source = Path(inspection.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"(\w+)": plot\.', source)) == set(inspection.FIGURES)
