"""The documentation site misses no public name and no error message, and Sphinx builds it without a network."""
import html
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import minires

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def loaded(name):
    """Return a module of docs/. Its folder is on the path only meanwhile, and last, because it has a build.py."""
    sys.path.append(str(ROOT / "docs"))
    try:
        spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "docs"))


reference, errors, build = loaded("reference"), loaded("errors"), loaded("build")


@pytest.fixture(scope="module")
def pages():
    return reference.pages()


# ------------------------------------------------------------------------------------------- the reference


def public():
    """Return {module: its public names} from what the README says, without the code that writes the reference."""
    said = README.partition("\nThese names are public: ")[2].partition("; the command line")[0]
    values = {name: getattr(minires, name) for name in re.findall(r"`(\w+)`", said)}
    found = {"minires": {name for name, value in values.items() if not isinstance(value, ModuleType)}}
    rooms = [name for name, value in values.items() if isinstance(value, ModuleType)]
    for room in [*rooms, *re.findall(r"`(\w+\.\w+)`", said)]:
        module = importlib.import_module(f"minires.{room}")
        listed = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if not name.startswith("_")
            and f"{getattr(value, '__module__', None)}.".startswith(f"{module.__name__}.")]
        found[room] = {name for name in listed if not isinstance(getattr(module, name), ModuleType)}
    return found


PUBLIC = public()


@pytest.mark.parametrize("room", PUBLIC)
def test_the_reference_has_every_public_name(room, pages):
    shown = set(re.findall(r"^`+\{py:\w+\} (\w+)", pages[room], re.MULTILINE))
    assert PUBLIC[room] - shown == set()


def test_public_names_are_found():
    assert len(PUBLIC) > 20 and {"Tensor", "load_weights"} <= PUBLIC["minires"]
    assert {"conv2d", "relu"} <= PUBLIC["ops"] and "fit" in PUBLIC["train"] and "Figure" in PUBLIC["plot.style"]


@pytest.mark.parametrize("doc, says", [
    ("Do it.\n\nx, w: (N, C)\n    of images\nRaises ValueError for `x` of 2 * 3_4.",
     "Do it.\n\n`x`, `w`\n: (N, C) of images\n\n**Raises** `ValueError` for `x` of 2 \\* 3\\_4."),
    ("Do it.\n\nwords: are no argument", "Do it.\n\nwords: are no argument"),
    ("x   (N,)\ncount   how many\n        there are", "`x`\n: (N,)\n\n`count`\n: how many there are"),
    ("For example:\n\n    f(1)\n\n    g(2)\n", "For example:\n\n```python\nf(1)\n\ng(2)\n```"),
    ("The formula:\n\n    y = gamma xhat\n", "The formula:\n\n```text\ny = gamma xhat\n```"),
    ("a b   c d\nkey   one   two", "```text\na b   c d\nkey   one   two\n```"),
])
def test_a_docstring_becomes_markdown(doc, says):
    assert reference.markdown(doc, {"x", "w"}) == says


def test_arguments_errors_and_fields_of_a_class_are_in_its_entry(pages):
    assert "`epochs: int = 3`" in pages["recipes"] and "number of updates, instead of epochs" in pages["recipes"]
    assert "`x`, `w`, `bias`\n: (N, C, H, W)" in pages["ops"]
    assert "**Raises** `TypeError`" in pages["minires"]
    assert "class Tanh(Function)" in pages["ops"]  # an operation without a docstring shows its code


@pytest.mark.parametrize("module, name, says", [
    ("minires", "Tensor.backward", "def backward"), ("minires", "load_weights", "def load_weights"),
    ("minires.nn", "Conv2d", "class Conv2d"), ("minires.models", "resnet20", "partial(cifar"),
    ("minires.train", "Recipe", "class Recipe"),
])
def test_a_link_to_the_source_leads_to_the_definition(module, name, says):
    path, line = reference.place(importlib.import_module(module), name)
    assert any(says in text for text in path.read_text(encoding="utf-8").splitlines()[line - 1:line + 1])


# ----------------------------------------------------------------------------------------------- messages


@pytest.fixture(scope="module")
def found():
    return errors.messages()


def test_the_page_has_every_message_and_what_to_do(found):
    page, without = errors.page(), []
    for m in found:
        at = page.find(f"#L-{m.line})")
        assert at >= 0 and f"(/{m.path}#L-{m.line})" in page and re.split("[`\\n]", m.text)[0].strip() in page
        says = errors.says_what_to_do(m.text) or "expected" in m.text
        if not says and not (errors.advice(m) and errors.advice(m) in page):
            without.append(m)
    assert len(found) > 400 and without == []


@pytest.mark.parametrize("text, says", [
    ("load: expected a file, got …", False), ("load: it is empty; use another file", True),
    ("the graph is gone. Run the forward pass again", True), ("2 of 3 do not fit; missing …", False)])
def test_a_message_that_says_what_to_do_is_recognised(text, says):
    assert errors.says_what_to_do(text) is says


def test_every_advice_fits_a_message(found):
    texts = [f"{m.error}: {m.text}" for m in found]
    assert [pattern for pattern, _ in errors.ADVICE if not any(re.search(pattern, text) for text in texts)] == []


def test_every_part_of_minires_with_messages_is_on_the_page(found):
    listed = {room for rooms in errors.PARTS.values() for room in rooms}
    assert {errors.room_of(m.path) for m in found} - listed == set()


def test_messages_are_read_as_they_are_raised(found):
    texts = {m.text for m in found}
    assert "the truth value of a Tensor is ambiguous; use .data or .item()" in texts
    assert f"Tensor(data): expected floating-point numbers, got {errors.HOLE}; convert with .astype(numpy.float32) " \
        "first, stored images with datasets.to_float" in texts
    assert all((ROOT / m.path).is_file() for m in found)


# --------------------------------------------------------------------------------------------------- pages


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """Write the pages, as Sphinx gets them. This raises for a link that leads nowhere."""
    stage = build.Stage(tmp_path_factory.mktemp("pages"))
    stage.write()
    return stage


def test_every_notebook_guide_and_assignment_is_a_page(staged):
    texts = "".join(path.read_text(encoding="utf-8") for path in staged.folder.glob("index.md"))
    for name, page in staged.pages.items():
        file = staged.folder / (f"{page}.ipynb" if name.startswith("notebooks/") else f"{page}.md")
        assert file.is_file(), name
        listed = page in texts or page.startswith(("notebooks/0", "notebooks/1")) or page == "index"
        assert listed, f"index.md does not lead to {page}"


def test_generated_parts_are_in_their_pages(staged):
    for page, says in ("conventions", "| derivative of ReLU"), ("guides/errors", "### Weights and other files"), \
            ("index", "/notebooks/course/a5"):
        text = (staged.folder / f"{page}.md").read_text(encoding="utf-8")
        assert says in text and "<!-- every" not in text and "<!-- the README's" not in text


def test_a_link_to_a_file_that_does_not_exist_is_found(tmp_path):
    stage = build.Stage(tmp_path)
    text = stage.rewritten("See [a *file*](../../minires/ops/x.py) and `[x](y)`.\n", "docs/guides/x.md", "guides/x")
    assert stage.missing[0] == "docs/guides/x.md: ../../minires/ops/x.py" and text.startswith("See a *file* and ")


def test_links_within_the_repository_lead_to_pages_of_the_site(tmp_path):
    stage = build.Stage(tmp_path)
    for link, becomes in [
            ("[a](../../notebooks/10-gpu.ipynb)", "[a](../notebooks/10-gpu.ipynb)"),
            ("[a](../../notebooks/course/a3.ipynb)", "[a](../notebooks/course/a3.ipynb)"),
            ("[`a`](../../minires/nn)", "[`a`](../reference/nn.md)"),
            ("[a](../../README.md#same-bits)", "[a](../project/readme.md#same-bits)"),
            ("[a](/minires/tensor.py#L-3)", '<a href="../source/minires/tensor.py.html#L-3">a</a>'),
            ("[a](https://arxiv.org/abs/1512.03385)", "[a](https://arxiv.org/abs/1512.03385)")]:
        assert stage.rewritten(link, "docs/guides/x.md", "guides/x") == becomes


def test_solutions_of_the_course_are_not_on_the_site(staged):
    for path in staged.folder.glob("notebooks/course/*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert "NotImplementedError" in text and "BEGIN SOLUTION" not in text


def test_a_folder_that_holds_something_else_is_kept(tmp_path):
    (tmp_path / "mine").write_text("1")
    with pytest.raises(ValueError, match=r"holds something other than a site; choose another --out"):
        build.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


LOADS = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//
                       |<link\b[^>]*\bhref=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//""", re.VERBOSE)


@pytest.mark.slow
@pytest.mark.system
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    for package in "sphinx", "myst_nb", "furo", "latex2mathml":
        pytest.importorskip(package, reason='the site needs pip install -e ".[docs]"')
    command = [sys.executable, str(ROOT / "docs" / "build.py"), "--out", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not LOADS.search(path.read_text(encoding="utf-8")), path
    chapter = (site / "notebooks" / "03-batch-normalisation.html").read_text(encoding="utf-8")
    assert chapter.count("<math") > 30 and "MathJax" not in chapter
    assert 'class="reference external"' in (site / "reference" / "ops.html").read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [site]
    assert broken(site) == []


def broken(site):
    """Return "page: link" of every link within the site that leads to no page, or to no place on it."""
    texts = {path.resolve(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    places = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for path, text in texts.items()}
    found = []
    for path, text in texts.items():
        for link in re.findall(r'<a [^>]*href="([^"]*)"', text):
            file, _, place = html.unescape(link).partition("#")
            there = (path.parent / file).resolve() if file else path
            if not re.match(r"[a-z]+:", link) and (not there.exists() or (place and place not in places[there])):
                found.append(f"{path.name}: {link}")
    return found


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="#x"> <a href="b.html"> <a class="c" href="a.html#y">',
                                     encoding="utf-8")
    assert broken(tmp_path) == ["a.html: b.html", "a.html: a.html#y"]


def test_the_search_for_loads_from_elsewhere_finds_them():
    for text in ('<script src="https://x/y.js">', "<img alt='a' src=//x/y.png>", '<link rel="a" href="http://x/y.css">',
                 "@import 'x'", "url(https://x)"):
        assert LOADS.search(text), text
    assert not LOADS.search('<a href="https://arxiv.org"><img src="a.png"> url(data:x)')
