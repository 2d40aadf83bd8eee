"""Plain English: the prose of the project avoids phrases that read as translated.

Prose is every comment, docstring and other string of the Python files, the Markdown pages, and the notebooks' text.
CONTRIBUTING.md has the rules; this file holds what a machine can check.
"""

import io
import json
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# {what is refused: what to write instead}
REFUSED = {
    r"\b(?:the (?:first|last)|by|after|of|every) so many\b|\bso many (?:zeros|images|steps|layers)\b":
        "name the number: 'the first N images'",
    r"\bstands? behind\b": "say what supports what",
    r"\b(?:go|goes|going|gone|went) on (?:with|from|to)\b": "resume, continue",
    r"\bbehind\b(?! (?:it|them) on disk)": "after, or where it is",
    r"\bnone of ours\b|\bare ours\b|\bis ours\b|\bno run's folder\b": "say what the file is not",
    r"\b(?:is|are|was|were|be) told\b": "say who reports what",
    r"\bha(?:s|ve) no need of\b|\bha(?:s|ve) not the\b": "does not need, does not have",
    r"\b(?:is|are|was|were|be) said\b|\bif need be\b": "say who reports what; if necessary",
    r"\b(?:stands?|lies?) beside\b": "is next to",
    r"\blooked into\b": "inspected, analysed",
    r"\bof late\b": "recently",
    r"\botherwise than\b": "differently from",
    r"\bone behind the other\b": "one after the other",
    r"\bpassed over\b": "skipped",
    r"\bin place of\b": "instead of",
    r"\bfrom (?:here|there|now|then|it|them|each of them) on\b": "after this, from step N",
    r"\bto be had\b|\bcan be had\b|\bis had\b": "is available",
    r"\bwhat keeps\b": "why ... cannot",
    r"\b(?:hence|thereof|whereupon|whereof|lest|thereby|therein)\b": "so, because, for fear that",
    r"\bis no (?:number|file|folder|run|checkpoint|module|network|notebook|report|data set|name|integer|array)\b":
        "is not a ...",
    r"\bevery second image, at random\b": "each image with probability 1/2",
    r"\bgiven up\b": "abandoned, no longer tried",
    r"\bcomes? to (?:its|an) end\b": "ends",
    r"\bget on\b": "make progress",
    r"\bas (?:it|they) lies?\b": "in its memory order",
    r"\bfmt: (?:skip|off|on)\b": "nothing: no formatter runs here",
}
PATTERN = re.compile("|".join(f"(?:{phrase})" for phrase in REFUSED), re.IGNORECASE)
EXCEPT = {"tests/test_english.py", "CHANGELOG.md"}


def prose(path):
    """(line number, text) of every piece of prose in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py" and not PATTERN.search(" ".join(text.split())):  # the code included, so most files end here
        return
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
                yield token.start[0], " ".join(token.string.split())
    elif path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(text)["cells"], 1):  # importing nbformat takes seconds
            yield number, " ".join("".join(cell["source"]).split())
    else:
        yield from enumerate(text.splitlines(), 1)


def pages():
    for pattern in ("minires/**/*.py", "tests/**/*.py", "benchmarks/*.py", "data/**/*.py", "docs/*.py", "notebooks/*",
                    "**/*.md"):
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix in (".py", ".md", ".ipynb") and not name.startswith(".") \
                    and name not in EXCEPT:
                yield path


def test_prose_is_plain_english():
    found = [f"{path.relative_to(ROOT)}:{line}: {m[0]!r} in: {text[max(0, m.start() - 40):m.end() + 40]}"
             for path in pages() for line, text in prose(path) for m in PATTERN.finditer(text)]
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""Goes on with\n    the run."""\nbehind = 1  # of late\nx = f"{1} is told"\n')
    assert [m[0].lower() for _, text in prose(path) for m in PATTERN.finditer(text)] == [
        "goes on with", "of late", "is told"]
