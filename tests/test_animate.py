"""Test `minires animate`: what it films, that its page is valid and loads nothing, and what a browser makes of it."""

import base64
import dataclasses
import hashlib
import json
import re
import subprocess

import pytest
from test_demo_report import BROWSER, QUIET, Page

from minires import analysis, cli, runs
from minires.commands import animate, page
from minires.names import UsageError
from minires.recipes import Recipe
from minires.runs.config import Data

SMALL = {"model_options": {"width": 2}, "data": Data(train_images=200, test_images=60, image_size=14)}


def choose(**options):
    return {name: dataclasses.replace(config, **SMALL)
            for name, config in animate.choose(20, Recipe(epochs=1, batch_size=50), where="cpu", **options).items()}


@pytest.fixture(scope="module")
def record():
    return animate.film(choose(), every=3, say=lambda text: None) | {"command": "minires animate"}


def test_the_record_is_that_of_the_training(record, tmp_path):
    assert record["steps"] == [0, 3, 4] and [net["name"] for net in record["nets"]] == ["plain-20", "ResNet-20"]
    assert [net["kind"] for net in record["nets"]] == ["plain", "resnet"] and record["filters"] == [2, 3, 3]
    config = choose()["ResNet-20"]
    sets, net = config.inputs(), record["nets"][1]
    runs.train(config, tmp_path / "run", say=lambda text: None)
    trained = runs.read(tmp_path / "run")
    for model, i in (trained.fresh(), 0), (trained.model, -1):
        flow = analysis.gradient_flow(model, sets.train[0][:200], sets.train[1][:200])
        assert net["gradients"][i] == pytest.approx(list(flow.weights.values()), rel=6e-3)
        assert net["responses"][i] == pytest.approx(list(analysis.responses(model, sets.train[0][:200]).values()),
                                                    rel=6e-3)
        shades = 255 * analysis.first_filters(model).ravel()
        assert net["filters"][i] == pytest.approx(shades, abs=0.51)
    last = runs.read_metrics(tmp_path / "run")[-1]
    assert (net["train_error"][-1], net["test_error"][-1]) == pytest.approx((last["train_error"], last["test_error"]),
                                                                            abs=0.01)
    assert len(net["gradients"][0]) == 20 and len(net["responses"][0]) == 19


def test_the_page_is_valid_and_loads_nothing(record):
    text = animate.html(record)
    found = Page(text)
    tags = [tag for tag, _ in found.tags]
    assert text.startswith("<!DOCTYPE html>") and tags.count("h1") == 1 and tags.count("script") == 2
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"{key}-{i}" for key in ("gradients", "responses", "filters") for i in (0, 1)} <= set(ids)
    assert set(re.findall(r'getElementById\("(\w+)"\)', animate.script())) <= set(ids)
    for tag, attrs in found.tags:
        assert not {"src", "href", "onclick", "onload"} & set(attrs)
        assert tag not in ("link", "iframe", "object", "embed")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)  # the name of SVG's elements, which is not loaded
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval|innerHTML)\b", animate.script())
    labelled = {attrs["for"] for tag, attrs in found.tags if tag == "label"}
    assert {attrs["id"] for tag, attrs in found.tags if tag in ("input", "select")} == labelled
    held = json.loads(re.search(r'<script id="record" type="application/json">(.*?)</script>', text, re.S)[1])
    assert held == {key: record[key] for key in ("steps", "filters", "nets")}


def test_the_browser_may_run_this_script_and_no_other(record):
    text = animate.html(record)
    allowed = base64.b64encode(hashlib.sha256(animate.script().encode()).digest()).decode()
    assert f"<script>{animate.script()}</script>" in text
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'" in text
    assert "script-src" not in page.document("t", "b") and "<script" not in page.document("t", "b")
    with pytest.raises(ValueError, match='document: script: expected no "</"'):
        page.document("t", "b", "x = '</script>'")


def test_text_from_outside_is_escaped(record):
    bad = '</script><img src=x onerror="alert(1)">&'
    text = animate.html(record | {"command": bad, "settings": {bad: bad},
                                  "nets": [net | {"name": bad} for net in record["nets"]]})
    found = Page(text)
    assert "<img" not in text and [tag for tag, _ in found.tags].count("script") == 2
    held = json.loads(re.search(r'<script id="record" type="application/json">(.*?)</script>', text, re.S)[1])
    assert held["nets"][0]["name"] == bad


def test_a_number_that_is_not_finite_becomes_a_gap(record):
    net = record["nets"][0]
    gaps = net | {"gradients": [[None, *row[1:]] for row in net["gradients"]]}
    held = animate.html(record | {"nets": [gaps, record["nets"][1]]})
    assert '"gradients":[[null,' in held and "NaN" not in held.partition('type="application/json">')[2].partition(
        "</script>")[0]


def test_the_command_writes_one_file_and_overwrites_none(record, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(animate, "film", lambda nets, every, say: {key: record[key] for key in record
                                                                    if key != "command"})
    monkeypatch.chdir(tmp_path)
    for name in "minires-animation.html", "minires-animation-2.html":
        assert cli.main(["animate", "--depth", "20"]) == 0
        assert name in capsys.readouterr().out and "<code>minires animate --depth 20</code>" in (
            tmp_path / name).read_text(encoding="utf-8")
    assert cli.main(["animate", "--out", "minires-animation.html"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["animate", "--depth", "30"]) == 2
    assert "--depth: expected the depth of a plain network" in capsys.readouterr().err
    monkeypatch.setattr(animate, "MOST_BYTES", 10_000)
    assert cli.main(["animate", "--out", "large.html"]) == 2 and "give a larger --every" in capsys.readouterr().err
    assert not (tmp_path / "large.html").exists()


def test_a_page_that_would_be_too_large_is_refused_after_the_first_frame(monkeypatch):
    seen = []

    def frames(config, sets, steps, watch):
        for step in steps:
            seen.append(step)
            yield {"filters": [0] * 1000}

    monkeypatch.setattr(animate, "frames", frames)
    monkeypatch.setattr(animate, "MOST_BYTES", 20_000)
    with pytest.raises(UsageError, match=r"the page would have about \d+,\d+ bytes, more than 20,000; give a larger"):
        animate.film(choose(), 1, say=lambda text: None)
    assert seen == [0]


def test_the_default_is_about_sixty_pictures(monkeypatch):
    seen = []
    monkeypatch.setattr(animate, "frames", lambda config, sets, steps, watch: seen.append(steps) or iter([{}]))
    animate.film(choose(), say=lambda text: None)
    assert seen == [[0, 1, 2, 3, 4]] * 2


DRIVE = """<script>addEventListener("load", () => {
  const shown = () => document.getElementById("now").textContent, step = document.getElementById("step");
  const key = name => document.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
  const path = () => document.querySelector("#gradients-1 .line").getAttribute("d");
  const found = {first: shown(), start: path()};
  key("End"); found.end = shown(); found.last = path(); found.value = step.value;
  key("ArrowLeft"); found.back = shown();
  step.value = 0; step.dispatchEvent(new Event("input")); found.scrubbed = shown();
  document.getElementById("play").click(); found.playing = document.getElementById("play").textContent;
  key(" "); found.paused = document.getElementById("play").textContent;
  found.ready = document.body.className;
  found.squares = document.querySelectorAll("#filters-0 rect[fill]").length;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.title = JSON.stringify(found) })</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.system
def test_a_browser_plays_it(record, tmp_path):
    text = animate.html(record)
    # The page allows its own script alone. The test's copy allows the script that drives it, too.
    text = re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text)
    path = tmp_path / "copy.html"
    path.write_text(text.replace("</body>", DRIVE + "</body>"), encoding="utf-8")
    command = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=600,900", "--dump-dom",
               path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = json.loads(re.search(r"<title>(.*?)</title>", dom, re.S)[1])
    assert found["first"].startswith("Step 0 of 4. plain-20: training error ")
    assert found["end"].startswith("Step 4 of 4")
    assert found["back"].startswith("Step 3 of 4") and found["scrubbed"].startswith("Step 0 of 4")
    assert found["start"] != found["last"] and found["start"].count("L") == 19 and found["value"] == "2"
    assert (found["playing"], found["paused"], found["ready"]) == ("Pause", "Play", "ready")
    assert found["squares"] == 18 and found["overflow"] <= 0
