"""Test `minires detect`: train, stop and resume in a folder; evaluate; show; COCO's JSON; scenes from a file."""

import dataclasses
import errno
import json
import math
import os
import re
import shutil
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest

from minires import Tensor, cli, datasets, detection, load_weights, plot, save_weights, shipped_file
from minires.commands import detect
from minires.detection import Detections
from minires.models import canonical
from minires.runs import checkpoint

SMALL = ["detect", "train", "resnet20", "--weights", "none", "--width", "2", "--device", "cpu"]


def small(folder, task, images, *more):
    return [*SMALL, "--task", task, "--images", str(images), "--out", str(folder), *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return {task: the folder of a finished training}."""
    base = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "HELD_BACK", 20)
        for task in "detection", "segmentation":
            assert cli.main(small(base / task, task, 40)) == 0
    return {task: base / task for task in ("detection", "segmentation")}


# --------------------------------------------------------------------------------------------------- train


def test_a_folder_has_all_that_was_chosen_and_measured(trained, capsys):
    folder = trained["detection"]
    config, results = (json.loads((folder / name).read_text()) for name in ("config.json", "results.json"))
    assert config["task"] == "detection" and config["recipe"]["images"] == 40 and config["width"] == 2
    assert {"versions", "machine", "threads", "kernels", "started", "commit"} <= set(config["recorded"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5] and lines[-1]["images"] == 40
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert 0 <= results["score"]["ap"] <= results["score"]["ap50"] < 0.1 and results["held_back"]["scenes"] == 20
    assert detect.read_settings(folder).recipe == dataclasses.replace(detection.RECIPES["detection"], images=40)


@pytest.mark.parametrize("task", ["detection", "classification"])
def test_a_stopped_training_resumes_with_the_same_bits(task, tmp_path, capsys, monkeypatch):
    images = 40 if task == "detection" else 250
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    monkeypatch.setattr(detection, "score", lambda *args, **kwargs: {"measured": 1.0})
    assert cli.main(small(whole, task, images)) == 0
    assert cli.main(small(parts, task, images, "--time-limit", "1e-9")) == 0
    text = capsys.readouterr().out
    assert "Stopped by the time limit at step 1 of 5" in text and not (parts / "weights.safetensors").exists()
    assert f"minires detect train --resume --out {parts}" in text
    assert cli.main(["detect", "train", "--resume", "--out", str(parts), "--time-limit", "1e-9"]) == 0
    assert cli.main(small(parts, task, images, "--resume")) == 0
    assert (whole / "weights.safetensors").read_bytes() == (parts / "weights.safetensors").read_bytes()
    lines = [[{k: v for k, v in json.loads(line).items() if k != "seconds"}
              for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (whole, parts)]
    assert lines[0] == lines[1] and len(lines[0]) == 5


def test_a_finished_training_is_not_repeated(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detect, "HELD_BACK", 20)
    folder = tmp_path / "copy"
    shutil.copytree(trained["segmentation"], folder)
    before = (folder / "weights.safetensors").read_bytes()
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 0
    assert (folder / "weights.safetensors").read_bytes() == before and "step 5 of 5" in capsys.readouterr().out


@pytest.mark.parametrize("argv, text", [
    (["train"], "BACKBONE is missing"),
    (["train", "resnet20", "--task", "detektion"], "task: unknown name 'detektion'; did you mean detection"),
    (["train", "resnet21"], "did you mean"),
    (["train", "resnet32", "--task", "detection"], "ships no weights of ResNet-32 to start from; give a file with"),
    (["train", "--resume", "--out", "OUT", "--seed", "1"], "takes all settings from the folder: leave out --seed"),
    (["train", "--resume", "--out", "OUT"], "found no training to resume"),
    (["train", "resnet20", "--weights", "absent.npz"], "absent.npz"),
    (["evaluate"], "give either the folder of a training or --detections FILE"),
    (["train", "resnet20", "--images", "7"], "--images: expected at least 8, because detection trains on batches of 8"),
    (["evaluate", "OUT"], "is not the folder of a training"),
    (["evaluate", "OUT/resnet20"], "is not the folder of a training"),
    (["evaluate", "resnet19"], "ships no detector of this name. It ships resnet20 and resnet56"),
    (["show", "OUT"], "is not the folder of a training"),
])
def test_wrong_use_is_one_line(argv, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["detect", *("none" if a == "OUT" else a for a in argv)]) == 2
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_a_training_that_cannot_begin_leaves_nothing(trained, tmp_path, capsys):
    weights = trained["detection"] / "weights.safetensors"  # of a detector, where those of a classifier are needed
    out = tmp_path / "new" / "run"
    assert cli.main(["detect", "train", "resnet20", "--weights", str(weights), "--device", "cpu", "--out",
                     str(out)]) == 2
    assert capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_new_training_that_fails_at_its_start_leaves_nothing(tmp_path, capsys, monkeypatch):
    """Weights that are not finite; a full disk at the first checkpoint; a loss that is not finite."""
    net = detection.build("classification", "resnet20", width=2, rng=np.random.default_rng(0))
    net.layer3[0].conv1.weight.data[0] = np.nan
    save_weights(net, tmp_path / "nan.safetensors")
    out, weights = tmp_path / "new" / "run", tmp_path / "nan.safetensors"
    argv = ["detect", "train", "resnet20", "--width", "2", "--device", "cpu", "--out", str(out), "--weights"]
    assert cli.main([*argv, str(weights)]) == 2
    assert "nan.safetensors: layer3.0.conv1.weight is not finite" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint-000000000.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        assert cli.main([*argv, "none"]) == 2
    assert "No space left" in capsys.readouterr().err and not (tmp_path / "new").exists()
    monkeypatch.setattr(detection.FasterRCNN, "loss", lambda *args, **kwargs: Tensor(np.array(np.nan), True))
    assert cli.main([*argv, "none"]) == 2
    assert "step 1: the loss is nan" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detect, "HELD_BACK", 20)
    folder, write = tmp_path / "run", os.replace

    def full(source, target):
        if target.name == "checkpoint-000000002.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")  # as a write does: without a file's name
        write(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert cli.main(small(folder, "segmentation", 40)) == 2
    error = capsys.readouterr().err
    assert f"{folder}/checkpoint-000000002.safetensors: No space left on device. The last checkpoint in" in error
    assert list(folder.glob(".*.tmp")) == []
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 0
    assert "step 1 of 5" in capsys.readouterr().out


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_again(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detect, "HELD_BACK", 20)
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained["detection"] / "config.json", folder)
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 2
    assert "found no checkpoint to resume from" in capsys.readouterr().err
    assert cli.main(small(folder, "detection", 40, "--resume")) == 0
    assert (folder / "weights.safetensors").read_bytes() == (trained["detection"] / "weights.safetensors").read_bytes()


def test_weights_that_are_no_file_are_refused(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")  # opening it would never end
    for path in tmp_path / "pipe", tmp_path:
        assert cli.main(["detect", "train", "resnet20", "--weights", str(path), "--out", str(tmp_path / "x")]) == 2
        assert f"{path}: expected a file, got a folder, a pipe or a device" in capsys.readouterr().err
        with pytest.raises(ValueError, match="expected a file, got a folder"):
            detect.read_scenes(path)


def test_a_write_that_was_killed_leaves_nothing_after_the_next_call(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained["detection"], folder)
    (folder / ".config.json.0123abcd.tmp").write_text("half")
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 0
    assert list(folder.glob(".*.tmp")) == []


def test_a_folder_with_other_settings_is_refused(trained, capsys):
    folder = trained["detection"]
    assert cli.main(small(folder, "detection", 48, "--resume")) == 2
    assert "holds a training with other settings: images: 40 there, 48 asked for. Use" in capsys.readouterr().err
    assert cli.main([*small(folder, "detection", 40, "--resume"), "--seed", "3"]) == 2
    assert "holds a training with other settings: seed: 0 there, 3 asked for. Use" in capsys.readouterr().err
    assert cli.main(small(folder, "detection", 40)) == 2
    assert "is not empty: give --resume" in capsys.readouterr().err


@pytest.mark.parametrize("change, text", [
    ({"format": 2}, "format: expected at most 1, got 2: a later version"), ({"seed": -1}, "seed: expected a whole"),
    ({"task": "boxes"}, "task: unknown name"), ({"recipe": {"images": 2}}, "recipe: expected images from 8"),
    ({"sed": 1}, "unknown name 'sed'"), ({"device": "tpu"}, "device: unknown name 'tpu'")])
def test_a_damaged_config_is_named(change, text, trained, tmp_path):
    config = json.loads((trained["detection"] / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"config.json: .*{text}"):
        detect.read_settings(tmp_path)


def test_damaged_checkpoints_are_skipped_or_refused(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detect, "HELD_BACK", 20)
    folder = tmp_path / "copy"
    shutil.copytree(trained["detection"], folder)
    newest = max(folder.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 0
    assert "skipped a damaged checkpoint" in capsys.readouterr().out
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 2
    assert "found no checkpoint to resume from" in capsys.readouterr().err
    shutil.copy(max(trained["segmentation"].glob("checkpoint-*")), folder)
    assert cli.main(["detect", "train", "--resume", "--out", str(folder)]) == 2
    assert "it belongs to another training" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ evaluate


def test_evaluate_prints_the_tables(trained, capsys, tmp_path):
    assert cli.main(["detect", "evaluate", str(trained["detection"]), "--count", "20"]) == 0
    text = capsys.readouterr().out
    assert "detection with ResNet-20" in text and "20 scenes, " in text and "AP of Ankle boot" in text
    assert "localisation errors over" in text and "AP of small objects, from 0 to 200 pixels" in text
    assert "AP, AR and IoU are from 0 to 1" in text
    assert cli.main(["detect", "evaluate", str(trained["detection"]), "--count", "1", "--seed", "1"]) == 0
    text = capsys.readouterr().out
    held = datasets.scenes(1, 1, "test")
    assert len(held.boxes) == 1 and "1 scene, 1 object, " in text and "over 1 scene with one object" in text
    assert re.search("to 400 pixels +no object|from 400 pixels +no object", text)  # at most one size has an object
    assert cli.main(["detect", "evaluate", str(trained["segmentation"]), "--count", "5"]) == 0
    text = capsys.readouterr().out
    assert "IoU are from 0 to 1" in text and "IoU of        5 scenes" in text
    assert "\nground " in text and "\nmean " in text


def test_coco_s_json_goes_out_and_comes_back(trained, tmp_path, capsys):
    """True boxes in COCO's format score 1; what the detector writes scores what the detector scores."""
    held = datasets.scenes(20, 0, "test")
    perfect = Detections(held.boxes, np.linspace(1, 0.1, len(held.boxes)), held.labels.astype(int), held.scene)
    path = tmp_path / "perfect.json"
    path.write_text(detect.coco(perfect))
    back = detect.read_detections(path, held)
    assert (back.boxes == held.boxes).all() and (back.labels == held.labels).all()
    assert cli.main(["detect", "evaluate", "--detections", str(path), "--count", "20"]) == 0
    assert f"{'AP, mean over IoU 0.50 to 0.95':<44}     1.000" in capsys.readouterr().out
    written = tmp_path / "found.json"
    _, net = detect.load(trained["detection"])
    found = net.detect(detection.inputs(held.images), 0.0)
    written.write_text(detect.coco(found))
    again = detect.read_detections(written, held)
    np.testing.assert_allclose(again.boxes, found.boxes, rtol=1e-6)
    same = [detection.average_precision(d, held).ap(0.5) for d in (found, again)]
    assert same[0] == same[1]
    assert cli.main(["detect", "evaluate", str(trained["detection"]), "--count", "4", "--write", str(written)]) == 0
    assert isinstance(json.loads(written.read_text()), list)


GOOD = {"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize("entries, text", [
    ({"a": 1}, "expected a list of detections, got dict"), ([3], "detection 0: expected keys and values, got int"),
    ([GOOD, GOOD | {"image_id": 5}], "detection 1: image_id: expected one from 0 to 2, got 5"),
    ([GOOD | {"category_id": 0}], "detection 0: category_id: expected one from 1 to 10, got 0"),
    ([GOOD | {"category_id": 11}], "detection 0: category_id: expected one from 1 to 10, got 11"),
    ([GOOD | {"score": float("nan")}], "detection 0: score: expected a finite number, got nan"),
    ([GOOD | {"bbox": [1, 2, 0, 4]}], "detection 0: bbox: expected .* with width and height above 0"),
    ([GOOD | {"bbox": [1, 2, 3]}], "detection 0: bbox: expected"),
    ([GOOD | {"bbox": "1 2"}], "detection 0: bbox: expected a list"),
    ([GOOD, GOOD | {"bbox": [1e17, 0, 1, 1]}], "Detections: detection 1: expected a box"),
    ([GOOD | {"bbox": [0, 0, 1e308, 1e308]}], "Detections: detection 0: expected a box with coordinates from"),
    ([GOOD | {"bbox": [1.0] * 1000}], r"detection 0: bbox: expected .{1,200}[.]{3}$"),
    ([GOOD | {"image_id": 10**4000}], r"detection 0: image_id: expected one from 0 to 2, got 10{1,80}[.]{3}$"),
    ([{k: v for k, v in GOOD.items() if k != "score"}], "detection 0: there is no score"),
])
def test_wrong_detections_in_json_are_named(entries, text, tmp_path):
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=f"detections.json: {text}"):
        detect.read_detections(path, datasets.scenes(3, 0, "test"))


def test_more_keys_and_no_detections_are_valid(tmp_path):
    path, held = tmp_path / "detections.json", datasets.scenes(3, 0, "test")
    path.write_text(json.dumps([GOOD | {"id": 7, "segmentation": []}]))
    assert detect.read_detections(path, held).boxes.tolist() == [[1, 2, 4, 6]]
    path.write_text("[]")
    assert len(detect.read_detections(path, held)) == 0


def test_scenes_from_a_file(trained, tmp_path, capsys):
    held = datasets.scenes(6, 4, "test")
    arrays = {"images": held.images, "boxes": held.boxes, "labels": held.labels, "scene": held.scene}
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays, masks=held.masks)
    back = detect.read_scenes(path)
    assert all((getattr(back, n) == getattr(held, n)).all() for n in (*arrays, "masks"))
    texts = []
    for options in (["--scenes", str(path)], ["--count", "6", "--seed", "4"]):
        assert cli.main(["detect", "evaluate", str(trained["detection"]), *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    texts = []
    for options in (["--scenes", str(path), "--count", "2"], ["--count", "2", "--seed", "4"]):  # the file is cut
        assert cli.main(["detect", "evaluate", str(trained["detection"]), *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "\n2 scenes, " in texts[0]
    np.savez(path, **arrays)
    assert cli.main(["detect", "evaluate", str(trained["segmentation"]), "--scenes", str(path)]) == 2
    assert "expected masks" in capsys.readouterr().err


@pytest.mark.parametrize("change, text", [
    ({"boxes": None}, "missing: boxes"), ({"boxes": np.array([[3, 0, 3, 5]])}, "object 0 of image 0: expected a box"),
    ({"labels": np.array([10])}, "expected a label below 10"), ({"label": np.zeros(1)}, "unknown name 'label'"),
    ({"images": np.zeros((1, 9, 9))}, "images: expected a NumPy array of uint8, got float64"),
    ({"images": np.zeros((1, 7, 9), np.uint8)}, "with H and W from 8"),
    ({"boxes": np.array([[None] * 4])}, "boxes: it is damaged .*Object arrays"),
    ({"scene": np.array([0, 0])}, "of M objects, got"),
])
def test_wrong_scenes_in_a_file_are_named(change, text, tmp_path):
    arrays = {"images": np.zeros((1, 9, 9), np.uint8), "boxes": np.array([[1, 1, 5, 5]]), "labels": np.array([0]),
              "scene": np.array([0])} | change
    path = tmp_path / "mine.npz"
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=f"mine.npz.*{text}"):
        detect.read_scenes(path)


def test_one_large_image_is_refused_and_some_large_images_are_seen_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "LARGEST", 80)
    test_wrong_scenes_in_a_file_are_named({}, "images: expected at most 80 pixels each, got 81", tmp_path)
    empty = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int)
    assert [detect.together(datasets.Scenes(np.zeros((2, n, n), np.uint8), *empty)) for n in (8, 56, 200, 500)] == [
        50, 50, 3, 1]


@pytest.mark.parametrize("argv, text", [
    (["evaluate", "segmentation", "--write", "x.json"], "--write needs the folder of a detector; "),
    (["evaluate", "--detections", "found.json", "--write", "x.json"], "--write needs the folder of a detector"),
    (["evaluate", "detection", "--write", "absent/x.json"], "absent/x.json: No such file or directory"),
    (["evaluate", "detection", "--write", "."], ".: Is a directory"),
    (["show", "detection", "--out", "x.jpg"], "x.jpg: expected a file name that ends in .png"),
    (["show", "detection", "--out", "absent/x.png"], "absent/x.png: No such file or directory"),
    (["show", "detection", "--count", "61"], "--count: expected at most 60 scenes in one picture, got 61"),
    (["show", "detection", "--least-score", "nan"], "least_score: expected a number from 0 to 1, got nan"),
    (["show", "detection", "--scenes", "two.npz", "--first", "2"], "--first: expected a number from 0 to 1, because"),
])
def test_options_without_an_effect_and_files_that_cannot_be_written(argv, text, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = datasets.scenes(2, 0, "test")
    np.savez("two.npz", images=two.images, boxes=two.boxes, labels=two.labels, scene=two.scene)
    (tmp_path / "found.json").write_text("[]")
    before = sorted(tmp_path.iterdir())
    assert cli.main(["detect", *(str(trained.get(a, a)) for a in argv)]) == 2
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1 and sorted(tmp_path.iterdir()) == before


def test_scenes_with_too_many_pixels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "MOST_PIXELS", 80)
    test_wrong_scenes_in_a_file_are_named({}, "images: expected at most 80 pixels, got 81", tmp_path)


# ---------------------------------------------------------------------------------------------------- show


def test_show_draws_boxes_and_masks(trained, tmp_path, capsys):
    for task in "detection", "segmentation":
        out = tmp_path / f"{task}.png"
        assert cli.main(["detect", "show", str(trained[task]), "--count", "2", "--out", str(out)]) == 0
        assert out.read_bytes().startswith(b"\x89PNG") and f"Wrote {out}" in capsys.readouterr().out


def test_the_detectors_that_ship_need_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sorted(detect.DETECTORS) == sorted(
        p.stem for p in shipped_file("weights/detection/resnet20.safetensors").parent.iterdir())
    for name in *detect.DETECTORS, "ResNet-20":
        settings, net = detect.load(Path(name))
        expected = detection.build("detection", settings.backbone, rng=np.random.default_rng(1))
        load_weights(expected, shipped_file(f"weights/detection/{settings.backbone}.safetensors"))
        state = net.state()
        assert all((state[k].data == value.data).all() for k, value in expected.state().items())
        assert (settings.task, settings.width, settings.seed) == ("detection", 8, 0) and canonical(name) == \
            settings.backbone
    assert cli.main(["detect", "evaluate", "resnet20", "--count", "3"]) == 0
    assert "detection with ResNet-20, which ships with minires\n3 scenes" in capsys.readouterr().out
    assert cli.main(["detect", "show", "resnet20", "--count", "1", "--out", "a.png"]) == 0
    (tmp_path / "resnet20").mkdir()  # a folder of that name comes first
    assert cli.main(["detect", "evaluate", "resnet20"]) == 2
    assert "resnet20 is not the folder of a training: there is no config.json" in capsys.readouterr().err


def test_train_says_how_many_images_and_prints_one_measure_in_a_line(tmp_path, capsys, monkeypatch):
    found = {"ap": 0.4625, "localisation_scenes": 7, "localisation_box_alone": 12.5}
    monkeypatch.setattr(detection, "score", lambda *args, **kwargs: found)
    assert cli.main(small(tmp_path / "run", "detection", 12)) == 0
    text = capsys.readouterr().out
    assert "8 images (1 batch of 8; 12 were asked for), step 0 of 1" in text
    assert "measured on 300 test scenes that were held back. AP, AR and IoU are from 0 to 1" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in ("AP, mean over IoU 0.50 to 0.95 0.463", "scenes with one object 7",
                 "localisation error, box alone 12.5 %"):
        assert line in lines
    monkeypatch.undo()
    assert set(detect.MEASURES) >= {name for runs in detect.records.read(
        shipped_file("results/detection/results.json"))["detection"].values() for run in runs for name in run["score"]}
    found = {"error": 9.125}
    monkeypatch.setattr(detection, "score", lambda *args, **kwargs: found)
    assert cli.main(small(tmp_path / "patches", "classification", 100)) == 0
    text = capsys.readouterr().out
    assert "100 images (2 batches of 50), step 0 of 2" in text and "2,000 test patches that were held back\n" in text
    assert re.search(r"\nerror +9.12 %\n", text)


def test_the_caption_says_what_is_drawn(trained, tmp_path, monkeypatch):
    captions, draw = [], plot.detected
    monkeypatch.setattr(plot, "detected", lambda *args, caption: captions.append(caption) or draw(
        *args, caption=caption))
    for options in ["--count", "1"], ["--first", "4", "--count", "2", "--seed", "5", "--least-score", "0.25"]:
        assert cli.main(["detect", "show", str(trained["detection"]), *options, "--out", str(tmp_path / "a.png")]) == 0
    trained_on = "ResNet-20, trained with seed 0 on 40 scenes; "
    assert captions == [
        f"{trained_on}test scene 0 of seed 0; boxes with a score above 0.3",
        f"{trained_on}test scenes 4 to 5 of seed 5; boxes with a score above 0.25"]


def test_a_wrong_class_in_the_right_place_is_drawn_with_the_true_class():
    """Also drawn: a second box of the right class, and a box in a wrong place, which are wrong in another way."""
    true = np.array([[10, 10, 30, 30]]), np.array([6]), np.array([0])
    found = np.array([[10, 10, 30, 28], [10, 10, 30, 29], [40, 40, 50, 50]]), np.array([3, 6, 3]), np.zeros(3, int)
    images, classes = np.zeros((1, 56, 56), np.uint8), datasets.scenes(1, 0, "test").classes
    figure = plot.detected(images, true, (*found, np.full(3, 0.5), np.zeros(3, bool)), classes)
    assert figure.get_suptitle() == "3 boxes found, 0 of them right; the scene has 1 object"
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ["Dress (Shirt) 0.50", "Shirt 0.50", "Dress 0.50"]


@pytest.mark.parametrize("count, columns", [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_a_figure_of_few_scenes_has_no_empty_columns(count, columns):
    none = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int)
    figure = plot.detected(np.zeros((count, 56, 56), np.uint8), none, (*none, np.zeros(0), np.zeros(0, bool)), "ab")
    assert len(figure.axes) == count and figure.axes[0].get_gridspec().ncols == columns


def test_the_figure_of_boxes_says_what_is_right():
    held = datasets.scenes(4, 0, "test")
    labels = held.labels.astype(int)
    labels[0] = (labels[0] + 1) % 10
    found = Detections(held.boxes, np.linspace(0.9, 0.5, len(labels)), labels, held.scene)
    right = detection.true_positives(found, held)
    assert right.tolist() == [False] + [True] * (len(labels) - 1)
    figure = plot.detected(held.images, (held.boxes, held.labels, held.scene),
                           (found.boxes, found.labels, found.scene, found.scores, right), held.classes)
    n = len(labels)
    assert figure.get_suptitle() == f"{n} boxes found, {n - 1} of them right; the scenes have {n} objects"
    panels = figure.axes
    assert len(panels) == 4 and [len(a.patches) for a in panels] == [2 * int(c) for c in np.bincount(held.scene)]
    x0, y0, x1, y1 = held.boxes[0]
    assert panels[0].patches[0].get_bbox().extents.tolist() == [x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5]
    assert panels[0].texts[0].get_text() == f"{held.classes[labels[0]]} ({held.classes[held.labels[0]]}) 0.90"
    right, wrong = (next(p for p in panels[0].patches if p.get_edgecolor()[:3] == matplotlib.colors.to_rgb(colour))
                    for colour in (plot.COLOURS["resnet"][0], "#fd8d3c"))
    assert right.get_linestyle() != wrong.get_linestyle()  # in grey print, too


def test_the_figure_of_kinds_of_boxes():
    images = datasets.scenes(2, 0, "test").images
    kinds = {"object": [np.array([[1, 2, 30, 40]]), np.zeros((0, 4))], "anchor": [np.array([[-5, 0, 9, 60.0]] * 2), []]}
    figure = plot.boxed(images, kinds, "title", headings=("one", "two"))
    first, second = figure.axes
    drawn = [patch.get_bbox().extents.tolist() for patch in first.patches]
    assert drawn == [[0.5, 1.5, 29.5, 39.5], *[[-5.5, -0.5, 8.5, 59.5]] * 2]
    assert not second.patches and first.get_xlim()[0] <= -5.5 and first.get_ylim()[0] >= 59.5  # nothing is cut off
    assert first.get_title() == "one" and [t.get_text() for t in figure.legends[0].get_texts()] == list(kinds)
    assert len({(p.get_edgecolor(), p.get_linestyle()) for p in first.patches}) == 2
    assert plot.boxed(images, {}, "no boxes").axes[0].get_xlim() == (-0.5, 55.5)
    with pytest.raises(ValueError, match="boxed, 'object': expected boxes for each of 2 images, got 1"):
        plot.boxed(images, {"object": [np.zeros((0, 4))]}, "title")
    with pytest.raises(ValueError, match="boxed: expected at most 4 kinds of boxes, got 5"):
        plot.boxed(images, {str(i): [np.zeros((0, 4))] * 2 for i in range(5)}, "title")


def test_the_figure_of_masks():
    held = datasets.scenes(3, 0, "test")
    figure = plot.segmented(held.images, held.masks, held.masks, held.classes)
    title = "100\N{NO-BREAK SPACE}% of the pixels have the right class"
    assert len(figure.axes) == 9 and figure.get_suptitle() == title
    assert [a.get_title() for a in figure.axes[:3]] == ["image", "true mask", "predicted mask"]
    assert len(plot.segmented(held.images, None, held.masks, held.classes).axes) == 6
    for number, axes in enumerate(figure.axes[1::3]):  # every class is named on a pixel of its own
        names = {held.classes[held.masks[number][int(y), int(x)] - 1]: text.get_text()
                 for text in axes.texts for x, y in [text.get_position()]}
        assert set(names) == {held.classes[k] for k in held.objects(number)[1]}
        assert all(name == text for name, text in names.items())


def test_a_classifier_has_nothing_to_show(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detection, "score", lambda *args, **kwargs: {"error": 90.0})
    assert cli.main(small(tmp_path / "c", "classification", 100)) == 0
    assert cli.main(["detect", "show", str(tmp_path / "c"), "--out", str(tmp_path / "x.png")]) == 2
    assert "a classifier of patches finds neither boxes nor masks" in capsys.readouterr().err
    assert cli.main(["detect", "evaluate", str(tmp_path / "c")]) == 0
    assert "error on 2,000 test patches: 90.00 %" in capsys.readouterr().out
