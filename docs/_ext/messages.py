"""Fail the build for a message on the page "Troubleshooting" that camlens does not raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

PAGE = "troubleshooting"
SOURCE = Path(__file__).parents[2] / "src" / "camlens"

#: What stands for names and numbers in a quoted message.
GAP = "..."

_log = logging.getLogger(__name__)


def texts(source: Path) -> Iterator[str]:
    """Yield the string literals of a package, with the values of f-strings as null characters."""
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "\0" for p in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def parts(message: str) -> list[str]:
    """Return what a quoted message says between its gaps.

    Example:
        >>> parts("expected classes 0 to ..., got ...")
        ['expected classes 0 to', ', got']
    """
    return [part.strip() for part in message.split(GAP) if part.strip()]


def check(_: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every message in the terms of the page that no string of the sources contains."""
    sources = list(texts(SOURCE))
    for term in env.get_doctree(PAGE).findall(nodes.term):
        for literal in term.findall(nodes.literal):
            for part in parts(literal.astext()):
                if not any(part in text for text in sources):
                    _log.warning("camlens raises no message %r", part, location=term)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check when everything has been read."""
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
