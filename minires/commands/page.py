"""Build the HTML pages into which `minires demo`, `inspect` and `animate` write their results. They open from disk."""
from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from typing import Any

from ..plot import written

# A page has no font and no web address, and no script except its own, so it opens from disk. It can be printed, and it
# follows the reader's light or dark setting.
STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #c8c8c8; --soft: #555; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #161616; --line: #4a4a4a; --soft: #b0b0b0; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --line: #999; --soft: #333; }
  figure, table { break-inside: avoid; }
}
body { font: 1rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.3; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
figure { margin: 2rem 0; }
img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
figcaption, caption, .soft { color: var(--soft); font-size: 0.9rem; }
caption { text-align: left; padding-bottom: 0.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin-bottom: 1.5rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.45rem; border-bottom: 1px solid var(--line);
         text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
thead th { vertical-align: bottom; }
tbody th { font-weight: 600; white-space: nowrap; }
code { font-size: 0.95em; overflow-wrap: anywhere; }
"""

# This tells the browser to fetch nothing and to run nothing. A page with a script of its own also allows its hash.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: str, script: str = "", style: str = "") -> str:
    """Return the complete page.

    script: JavaScript, the only script that the page lets the browser run, at the end of the body
    style: CSS, after that of all pages

    Raises ValueError if the script contains "</", which would end it early.
    """
    if "</" in script:
        raise ValueError('document: script: expected no "</", because it would end the script early')
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"{POLICY}; script-src 'sha256-{allowed}'" if script else POLICY
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escaped(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<main>
{body}
</main>
{f"<script>{script}</script>" if script else ""}</body>
</html>
"""


def escaped(value: Any) -> str:
    """Return the value as text, escaped for HTML, with a no-break space before each % sign."""
    return html.escape(str(value)).replace(" %", "&nbsp;%")


def figure(image: bytes, alt: str, caption: str) -> str:
    """Return the HTML of a figure: the PNG `image` itself, its text alternative `alt`, and its caption below."""
    data = base64.b64encode(image).decode("ascii")
    width, height = (int.from_bytes(image[i : i + 4], "big") for i in (16, 20))  # the PNG's first chunk has both
    return (
        f'<figure>\n<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escaped(alt)}">\n<figcaption>{escaped(caption)}</figcaption>\n</figure>'
    )


def pairs_table(title: str, pairs: Mapping[str, Any]) -> str:
    """Return an HTML table with names and values in two columns."""
    body = "\n".join(f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(written(value))}</td></tr>'
                     for name, value in pairs.items())
    return (
        f'<table>\n<caption>{escaped(title)}</caption>\n<thead><tr><th scope="col">name</th>'
        f'<th scope="col">value</th></tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'
    )
