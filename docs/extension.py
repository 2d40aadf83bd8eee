"""This Sphinx extension writes formulas as MathML, links code in the text to the reference, and numbers source lines.

Formulas: browsers draw MathML themselves, so a page needs no script and no network. Links: `ops.conv2d` in the text of
a page leads to its entry in the reference. Source: every line of a source file that is shown has an anchor, to which
the reference and the list of error messages link.
"""
from __future__ import annotations

import importlib
import re
from typing import Any

import reference
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

import minires

TOP = set(reference.names(minires))  # the names that need no module before them: Tensor, gradcheck


def inline(writer: Any, node: nodes.Element) -> None:
    """Write a formula within a line."""
    writer.body.append(f'<span class="math">{_mathml(node, "inline")}</span>')
    raise nodes.SkipNode


def block(writer: Any, node: nodes.Element) -> None:
    """Write a formula that stands alone. It scrolls where it is wider than the page."""
    writer.body.append(f'<div class="math">{_mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, display: str) -> str:
    try:
        return convert(node.astext(), display=display)
    except Exception as e:
        raise ValueError(f"this formula cannot be converted to MathML: {node.astext()} ({e})") from e


class CodeLinks(SphinxPostTransform):
    """Make a link of every `code` in the text that is the name of something in the reference."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        known = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            code = re.fullmatch(r"(?:minires\.)?([\w.]+)(?:\([^()]*\))?", node.astext())
            name = code[1] if code else ""
            found = known.get(f"minires.{name}") if "." in name or name in TOP else None
            if found is not None and not isinstance(node.parent, (nodes.reference, nodes.title)):
                node.replace_self(make_refnode(self.app.builder, self.env.docname, found.docname, found.node_id,
                                               node.deepcopy()))


class LineAnchors(SphinxPostTransform):
    """Give every line of a source file an anchor: L-1, L-2 and so on."""

    default_priority = 6

    def run(self, **options: Any) -> None:
        if self.env.docname.startswith("source/"):
            for node in self.document.findall(nodes.literal_block):
                node.setdefault("highlight_args", {})["lineanchors"] = "L"


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of the line that defines a name, seen from the pages of the reference."""
    if domain != "py" or not info.get("module"):
        return None
    found = reference.place(importlib.import_module(info["module"]), info["fullname"])
    if found is None:
        return None
    path, line = found
    return f"../source/{path.relative_to(reference.PACKAGE.parent).as_posix()}.html#L-{line}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    app.add_post_transform(CodeLinks)
    app.add_post_transform(LineAnchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
