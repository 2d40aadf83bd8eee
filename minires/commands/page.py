"""A page of HTML that opens from disk: what `minires demo` and `minires inspect` write their findings into."""
from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

from ..plot import written

# No script, no font, no address: the page opens from disk, prints, and follows the reader's light or dark
# setting.
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

# Tells the browser what the page promises: nothing is fetched, nothing runs.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: str) -> str:
    """The whole page."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def escaped(value: Any) -> str:
    """Escaped for HTML; a number stays on one line with its % sign."""
    return html.escape(str(value)).replace(" %", "&nbsp;%")


def figure(image: bytes, alt: str, caption: str) -> str:
    """A PNG inside the page, with its text alternative, above its caption."""
    data = base64.b64encode(image).decode("ascii")
    width, height = (int.from_bytes(image[i : i + 4], "big") for i in (16, 20))  # from the PNG's first chunk
    return (
        f'<figure>\n<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escaped(alt)}">\n<figcaption>{escaped(caption)}</figcaption>\n</figure>'
    )


def pairs_table(title: str, pairs: Mapping[str, Any]) -> str:
    """Names and values in two columns."""
    body = "\n".join(f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(written(value))}</td></tr>'
                     for name, value in pairs.items())
    return (
        f'<table>\n<caption>{escaped(title)}</caption>\n<thead><tr><th scope="col">name</th>'
        f'<th scope="col">value</th></tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'
    )
