"""Shapes such as (N, C, *grid) in docstrings: reStructuredText would read the star as emphasis."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

# A star that begins a word, outside of ``literals``.
_STAR = re.compile(r"(``.+?``)|(?<![*\w`\\])\*(?=[a-z{][a-z_]*\b(?!\*))")


def escape(line: str) -> str:
    r"""Escape the star of a shape.

    Example:
        >>> escape("maps (N, K, *grid), and ``(N, *size)``")
        'maps (N, K, \\*grid), and ``(N, *size)``'
    """
    return _STAR.sub(lambda match: match[1] or r"\*", line)


def process(_: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Escape the stars of a docstring, but for its doctests."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[index] = escape(line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
