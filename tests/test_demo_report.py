"""Test the report: the numbers support its statements, the page is valid, and it is written whole or not at all."""

import base64
import copy
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mutations import refusals
from short import every
from test_plot import FINAL, MEANS, synthetic_net, synthetic_nets

from minires import plot
from minires.commands import demo_report
from minires.commands.page import POLICY
from minires.files.atomic import write_atomically

PICTURES = ("error_curves.png", "gradient_norms.png", "responses.png")


@pytest.fixture
def results() -> dict:
    return {
        "nets": synthetic_nets(),
        "settings": {
            "look_images": 200, "seed": 0, "epochs": 3, "batch_size": 100, "lr": 0.1, "momentum": 0.9,
            "weight_decay": 0.0001,
            "width": 8, "shortcut": "A", "image_size": 14, "train_images": 10000, "test_images": 2000,
            "dataset": "Fashion-MNIST, averaged to 14x14", "device": "cpu", "quick": False,
            "command": "minires demo",
        },
        "versions": {"minires": "0.1.0", "python": "3.11", "numpy": "2.0", "blas": "none", "platform": "-"},
        "started": "2026-01-05T10:11:12+00:00",
        "seconds": 86.4,
    }


class Page(HTMLParser):
    """Checks that tags are balanced, and collects the tags and texts for the tests."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"attribute given twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Return images that are drawn once, since most tests look only at the text around them."""
    picture = plot.png(plot.error_curves({}), dpi=20)
    return dict.fromkeys(("error_curves", "gradient_norms", "responses"), picture)


def page(results: dict, images: dict[str, bytes]) -> Page:
    return Page(demo_report.report_html(results, images))


# ---------------------------------------------------------------------------------------------------- writing


def test_write_report_writes_three_figures_and_one_page_that_holds_them(results, tmp_path):
    path = demo_report.write_report(results, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([*PICTURES, "report.html"])
    text = path.read_text(encoding="utf-8")
    sources = [attrs["src"] for attrs in Page(text).all("img")]
    assert len(sources) == 3
    for source, name in zip(sources, PICTURES, strict=True):
        data = (path.parent / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert source == "data:image/png;base64," + base64.b64encode(data).decode()


def test_write_report_writes_nothing_when_the_results_are_wrong(results, tmp_path):
    del results["seconds"]
    with pytest.raises(ValueError, match="there is no seconds"):
        demo_report.write_report(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_atomic_writing(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    assert write_atomically(path, "größer\n") == path
    assert path.read_bytes() == "größer\n".encode()
    write_atomically(str(path), b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]

    def fail(*_):
        raise KeyboardInterrupt

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(KeyboardInterrupt):
                write_atomically(path, "half")
        assert path.read_bytes() == b"\x00new"  # the old file is unchanged
        assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]  # and there is no other file
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "folder.txt", "")


# --------------------------------------------------------------------------------------------------- the page


def test_the_page_is_self_contained_and_well_formed(results, images):
    text = demo_report.report_html(results, images)
    found = Page(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert {"charset": "utf-8"} in found.all("meta")
    assert any(attrs.get("name") == "viewport" for attrs in found.all("meta"))
    assert found.text["title"][0]
    assert len(found.all("img")) == 3
    assert all(
        len(attrs["alt"]) > 40 and attrs["src"].startswith("data:image/png;base64,")
        for attrs in found.all("img")
    )
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed"}
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r'src="[^"]*"', "", text))
    assert not any(key.startswith("on") for _, attrs in found.tags for key in attrs)
    assert len(found.all("table")) == len(found.all("caption")) == 3
    assert all(attrs.get("scope") in ("col", "row") for attrs in found.all("th"))
    assert len(found.all("h1")) == 1


def test_there_are_three_paragraphs_under_the_claims(results, images):
    text = demo_report.report_html(results, images)
    section = re.search(r'<section id="claims">(.*?)</section>', text, re.S)[1]
    assert "<h2>What this run shows, and what is not claimed</h2>" in section
    paragraphs = Page(section).text["p"]
    assert paragraphs == demo_report.paragraphs(results)
    assert [p.split(":")[0] for p in paragraphs] == ["Degradation", "Gradients", "Responses"]
    assert text.count("<p>") == 3


def test_values_are_escaped(results, images):
    results["settings"]["dataset"] = "<script>alert(1)</script> & 'more' \"quotes\""
    results["settings"]["new <b>"] = "<i>"
    results["versions"]["blas"] = "<script src=x>"
    text = demo_report.report_html(results, images)
    assert "<script" not in text and "<b>" not in text and "<i>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#x27;more&#x27; &quot;quotes&quot;" in text
    assert "<script>alert(1)</script> & 'more' \"quotes\"" in Page(text).text["td"]


def test_the_tables_hold_the_numbers_of_the_results(results, images):
    found = page(results, images)
    cells = found.text["td"]
    for i, (name, net) in enumerate(results["nets"].items()):
        row = cells[9 * i : 9 * i + 9]
        layers = 20 if name.endswith("20") else 56
        assert row == [
            str(layers), f"{net['parameters']:,}", f"{net['macs']:,}", "3", f"{FINAL[name]:.1f}",
            f"{FINAL[name] + 1.5:.1f}", "1.00", f"{MEANS[name]:.2f}", f"{net['seconds']:.1f}",
        ]
    for values in (results["settings"], results["versions"]):
        for key, value in values.items():
            assert key in found.text["th"] and str(value) in cells


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_says_that_it_proves_nothing(results, images, quick):
    results["settings"]["quick"] = quick
    assert ("too little to judge the networks by" in demo_report.report_html(results, images)) == quick


def test_captions_say_what_was_measured_and_how(results, images):
    results["settings"]["seed"] = 7
    errors, gradients, responses = page(results, images).text["figcaption"]
    assert "eval mode" in errors
    assert "before any training" in gradients and "one batch of 200" in gradients
    assert (
        "train mode on a fixed batch" in responses and "after BN and before the addition or ReLU" in responses
    )
    assert all("Seed 7, width 8" in caption for caption in (errors, gradients, responses))


# -------------------------------------------------------------------------------------------------- the prose


def test_the_findings_are_stated_with_their_numbers(results):
    assert demo_report.headline(results) == (
        "After 3 epochs depth hurts the plain network in training error: 62.0 % with 56 layers against "
        "21.0 % with 20; with the skip connection it is 17.0 % with 56 layers and 14.0 % with 20 (seed 0)."
    )
    errors, gradients, responses = demo_report.paragraphs(results)
    assert "plain-56 is 62.0 %, 41.0 points above that of plain-20 (21.0 %)" in errors
    assert "so overfitting does not explain it" in errors
    assert ("With the skip connection, and the same number of parameters, the error is 17.0 % after 3 epochs, 45.0 "
            "points below plain-56.") in errors
    assert errors.endswith("ResNet-56 has 17.0 % and ResNet-20 14.0 % after 3 epochs, 3.0 points more: this is one "
                           "seed.")
    total = plot.number(1.21**53)
    assert "plain-56 with BN grows toward the input" in gradients
    assert (
        f"is {total} times the norm in the last 3x3 layer, a factor of 1.21 per layer (geometric mean over 53"
        in gradients
    )
    assert "In plain-56 without BN the norm shrinks (a factor of 0.97 per layer" in gradients
    assert "do not vanish" in gradients and '"unlikely to be caused by vanishing gradients"' in gradients
    assert "Not claimed: that skip connections cure vanishing gradients" in gradients
    assert "plain-20 0.85, ResNet-20 0.75, plain-56 0.59, ResNet-56 0.45" in responses
    assert '"generally smaller"' in responses and "smaller mean at depth 20 and 56" in responses
    for limit in ("one seed (0), 3 epochs, width 8 and 14x14 images", "not the paper's numbers",
                  "no error bars", "nothing is claimed about test accuracy"):
        assert limit in responses


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_not_shown_is_not_stated(results, images, quick):
    results["settings"]["quick"] = quick
    for name, net in results["nets"].items():
        net["train_error"], net["test_error"] = [80.0], [80.5]
        net["responses"] = [1.0] * len(net["responses"])
        if name == "plain-56":
            net["gradient_norms_init"].reverse()
    text = " ".join([demo_report.headline(results), *demo_report.paragraphs(results)])
    for claim in ("hurts the plain network in", "with the skip connection it is", "With the skip", "overfitting",
                  "do not vanish", "agrees"):
        assert claim not in text
    assert demo_report.headline(results).endswith(
        "does not show that depth hurts the plain network: the training errors are plain-20 80.0 %, plain-56 80.0 % "
        "after 1 epoch."
    )
    start = "this quick run is too short to show" if quick else "this run does not show"
    assert f"Degradation: {start} that depth hurts a plain network" in text
    assert f'{start.capitalize()} the "generally smaller" responses' in text
    assert "the gradients of this run do shrink, so this run does not support that statement" in text
    assert "Not claimed: that skip connections cure vanishing gradients" in text
    page(results, images)


def test_a_skip_connection_that_does_not_help_is_reported(results):
    results["nets"]["resnet-56"]["train_error"][-1] = 70.0
    assert demo_report.headline(results).endswith("; this run does not show that the skip connection helps.")
    assert "70.0 % after 3 epochs, against 62.0 % without: this run does not show" in demo_report.about_errors(
        results
    )


@pytest.mark.parametrize("error, says", [
    (12.5, ": a difference of 1.5 points on one seed shows nothing about their order."),
    (15.9, ": a difference of 1.9 points on one seed shows nothing about their order."),
    (9.0, ", 5.0 points less: this is one seed."), (16.0, ", 2.0 points more: this is one seed.")])
def test_the_residual_networks_are_compared_as_far_as_one_seed_allows(results, error, says):
    results["nets"]["resnet-56"]["train_error"][-1] = error
    assert demo_report.about_errors(results).endswith(
        f"ResNet-56 has {error} % and ResNet-20 14.0 % after 3 epochs{says}")


def test_a_control_that_fails_is_reported(results):
    results["nets"]["plain-20"]["responses_init"][3] = 0.5
    text = demo_report.about_responses(results)
    assert "the control fails" in text and "between 0.50 and 1.00" in text


@pytest.mark.usefixtures("blank_pictures")
def test_an_interrupted_run_is_compared_at_the_epoch_all_have_finished(results, tmp_path):
    plain = results["nets"]["plain-56"]
    plain.update(train_error=[88.0, 84.0], test_error=[89.0, 85.0], train_loss=[2.1, 2.0], responses=[], complete=False)
    results["nets"]["resnet-56"].update(
        train_error=[], test_error=[], train_loss=[], responses=[], responses_init=[], gradient_norms_init=[],
        complete=False,
    )
    assert demo_report.headline(results) == (
        "After 2 epochs depth hurts the plain network in training error: 84.0 % with 56 layers against 27.0 % "
        "with 20; the residual network of that depth has no finished epoch."
    )
    assert "the run says nothing about the skip connection" in demo_report.about_errors(results)
    table = demo_report.summary_table(results)
    assert "2 of 3, stopped" in table and "0 of 3, stopped" in table
    found = Page(demo_report.write_report(results, tmp_path).read_text(encoding="utf-8"))
    assert len(found.all("img")) == 3 and len(found.text["p"]) == 3


@pytest.mark.parametrize("names", [(), ("plain-20",), ("plain-56", "resnet-56"), ("resnet-20", "resnet-56")])
def test_missing_nets_make_no_claims(results, images, names):
    results["nets"] = {name: synthetic_net(name) for name in names}
    found = page(results, images)
    assert len(found.text["p"]) == 3
    expected = "says nothing about depth" if names else "there is nothing to compare"
    assert expected in found.text["h1"][0]
    assert "hurts" not in " ".join(found.text["p"])


# -------------------------------------------------------------------------------------------------- the table


def test_the_summary_table_is_aligned_and_shows_the_last_epoch_not_the_best(results):
    results["nets"]["resnet-20"]["train_error"] = [14.0, 9.0, 33.3]
    heading, rule, *rows = demo_report.summary_table(results).splitlines()
    assert [row.split()[0] for row in rows] == ["plain-20", "ResNet-20", "plain-56", "ResNet-56"]
    assert len({len(line) for line in (heading, rule, *rows)}) == 1
    assert "33.3" in rows[1] and "9.0" not in rows[1]
    assert rows[2].split() == [
        "plain-56",
        "56",
        "214,000",
        "6,010,000",
        "3",
        "62.0",
        "63.5",
        "1.00",
        "0.59",
        "11.2",
    ]


# --------------------------------------------------------------------------------------- reading and checking


def test_results_survive_the_trip_through_json(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    assert demo_report.load(path) == results


@pytest.mark.parametrize("change, message", [
    (lambda r: r.pop("nets"), r"results: there is no nets$"),
    (lambda r: r.update(nets=[]), r"results: nets: expected keys and values, got a list of 0"),
    (lambda r: r.update(started=0), r"results: started: expected text, got 0 \(int\)"),
    (lambda r: r["nets"].update({"vgg-x": r["nets"]["plain-20"]}),
     r"nets: expected the names of plain and residual networks, got 'vgg-x'"),
    (lambda r: r["nets"]["plain-20"].pop("macs"), r"results: nets.plain-20: there is no macs"),
    (lambda r: r["nets"]["plain-20"].update(macs=1.5), r"nets.plain-20.macs: expected a whole number >= 0, got 1.5"),
    (lambda r: r["nets"]["plain-20"].update(complete=1), r"nets.plain-20.complete: expected true or false, got 1"),
    (lambda r: r["nets"]["plain-20"].update(responses="no"), r"nets.plain-20.responses: expected a list, got 'no'"),
    (lambda r: r["nets"]["plain-20"]["responses"].append(None),
     r"nets.plain-20.responses\[19\]: expected a finite number >= 0, got None"),
    (lambda r: r["nets"]["plain-20"].update(train_error=[math.nan]), r"nets.plain-20.train_error\[0\]: .* got nan"),
    (lambda r: r["nets"]["plain-20"].update(train_error=[1, 2, 101]),
     r"nets.plain-20.train_error\[2\]: expected a finite number from 0 to 100, got 101"),
    (lambda r: r["nets"]["plain-20"]["test_error"].pop(), r"as many test errors as training errors, got 2 and 3"),
    (lambda r: r["nets"]["plain-20"]["gradient_norms_init"].append(-1), r"\[20\]: expected .* >= 0, got -1"),
    (lambda r: r["settings"].pop("seed"), r"results: settings: there is no seed"),
    (lambda r: r["settings"].update(sede=1), r"results: settings: key: unknown name 'sede'; did you mean seed"),
    (lambda r: r["settings"].update(seed=True), r"settings.seed: expected a whole number, got True"),
    (lambda r: r["settings"].update(lr="0.1"), r"settings.lr: expected a finite number, got '0.1'"),
    (lambda r: r["versions"].update(blas=None), r"versions.blas: expected text, got None"),
])
def test_wrong_results_are_named(results, change, message):
    demo_report.check_results(results)
    wrong = copy.deepcopy(results)
    change(wrong)
    with pytest.raises(ValueError, match=message):
        demo_report.check_results(wrong)


@pytest.mark.parametrize("step", every(2, [5, 1]))
def test_every_wrong_value_in_results_json_is_named(tmp_path, step):
    recorded = Path(__file__).resolve().parents[1] / "data" / "results" / "demo" / "results.json"
    results = json.loads(recorded.read_text(encoding="utf-8"))
    net = results["nets"]["plain-20"]  # one network and one number of each list represent all of them
    results["nets"] = {"plain-20": net | {key: value[:1] for key, value in net.items() if isinstance(value, list)}}
    path = tmp_path / "results.json"

    def use():
        found = demo_report.load(path)
        assert demo_report.headline(found) and demo_report.paragraphs(found) and demo_report.summary_table(found)

    refused, accepted = refusals(results, path, json.dumps, use, step)
    assert refused > 500 // step and accepted > 50 // step


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_a_wrong_file_is_named(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json(: | cannot be read)"):
        demo_report.load(path)


def test_numpy_numbers_are_welcome(results):
    np = pytest.importorskip("numpy")
    net = results["nets"]["plain-20"]
    net["responses"] = [np.float32(value) for value in net["responses"]]
    net["parameters"] = np.int64(net["parameters"])
    demo_report.check_results(results)


# ----------------------------------------------------------------------------------------------- in a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")
MEASURE = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length]),
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth }) })</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_the_three_figures(results, tmp_path):
    path = demo_report.write_report(results, tmp_path / "out")
    text = path.read_text(encoding="utf-8")
    # The page forbids scripts. The test's copy allows the script that measures.
    assert POLICY in text
    copy_path = Path(tmp_path, "copy.html")
    copy_path.write_text(
        text.replace(POLICY, POLICY + "; script-src 'unsafe-inline'").replace(
            "</body>", MEASURE + "</body>"
        ),
        encoding="utf-8",
    )
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [BROWSER, *QUIET, profile, "--window-size=900,900", "--dump-dom", copy_path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    measured = json.loads(re.search(r"<title>(.*?)</title>", dom, re.S)[1])
    assert len(measured["images"]) == 3
    assert all(complete and width > 1000 and alt > 40 for complete, width, alt in measured["images"])
    assert measured["overflow"] <= 0  # nothing sticks out of the page
