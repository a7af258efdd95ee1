"""Formulas as MathML, which browsers draw themselves: no script, and nothing from the network.

Sphinx's own renderer loads MathJax from elsewhere, so that a page without a network shows LaTeX.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml, pick_math_environment
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

# docutils knows \Bigl( and \Bigr), but not \Big( and \Big).
_OPENING, _CLOSING = re.compile(r"\\([Bb]ig)(?=[(\[])"), re.compile(r"\\([Bb]ig)(?=[)\]])")

_log = logging.getLogger(__name__)


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula as a ``<math>`` element.

    Raises:
        MathError: there is a command in it that docutils does not know.
    """
    latex = _CLOSING.sub(r"\\\1r", _OPENING.sub(r"\\\1l", latex))
    if block and pick_math_environment(latex) == "align*":  # it has several lines
        latex = f"\\begin{{aligned}}{latex}\\end{{aligned}}"
    return latex2mathml.tex2mathml(latex, as_block=block)


def drawn(node: nodes.math | nodes.math_block, *, block: bool) -> str:
    """Return a node's formula; one that cannot be drawn is a warning, and is shown as LaTeX."""
    try:
        return mathml(node.astext(), block=block)
    except MathError as error:
        _log.warning("cannot draw the formula %s: %s", node.astext(), error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a sentence."""
    translator.body.append(drawn(node, block=False))
    raise nodes.SkipNode


def display(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own; on a narrow screen it scrolls sideways."""
    translator.body.append(f'<div class="math">{drawn(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer as ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True}
