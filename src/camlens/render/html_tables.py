"""Small tables of numbers that notebooks show, without pandas."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

#: Rows of a table; the rest are counted.
_ROWS = 60


def html_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | float]],
    *,
    bold: Sequence[int] = (),
    missing: str = "",
) -> str:
    """Return a table as HTML, at most 60 rows of it.

    Args:
        caption: what the table shows, written above it.
        header: a name for each column.
        rows: cells; numbers are written with two decimals, text as it is.
        bold: the numbers of rows to emphasize.
        missing: written for NaN.

    Example:
        >>> html_table("c", ["region", "density"], [["<nose>", 1.234]])[-59:]
        '<tr><td>&lt;nose&gt;</td><td>1.23</td></tr></tbody></table>'
    """

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in cells) + "</tr>"

    body = []
    for number, row in enumerate(rows[:_ROWS]):
        texts = [html.escape(cell_text(value, missing)) for value in row]
        body.append(
            line([f"<strong>{t}</strong>" for t in texts] if number in bold else texts, "td")
        )
    if len(rows) > _ROWS:
        left_out = f"and {len(rows) - _ROWS} more"
        body.append(f'<tr><td colspan="{len(header)}">{left_out}</td></tr>')
    head = line([html.escape(name) for name in header], "th")
    return (
        f'<table class="dataframe"><caption>{html.escape(caption)}</caption>'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
    )


def cell_text(value: str | float, missing: str) -> str:
    """Return a cell's text: a number with two decimals, ``missing`` for NaN, or text as it is."""
    if isinstance(value, str):
        return value
    return missing if math.isnan(value) else f"{value:.2f}"


def each_map(
    targets: Sequence[Sequence[int]], regions: Sequence[str]
) -> tuple[list[str], list[list[str | float]]]:
    """Return the columns that say which map and region a row is about, and each row's cells.

    Images and targets are named only if there is more than one map.

    Example:
        >>> each_map([[3]], ["nose", "mouth"])
        (['region'], [['nose'], ['mouth']])
        >>> each_map([[3], [-1]], ["nose"])
        (['image', 'target', 'region'], [['0', '3', 'nose'], ['1', '', 'nose']])
    """
    maps = [(n, target) for n, row in enumerate(targets) for target in row]
    if len(maps) == 1:
        return ["region"], [[region] for region in regions]
    named: list[list[str | float]] = [
        [str(n), str(target) if target >= 0 else "", region]
        for n, target in maps
        for region in regions
    ]
    return ["image", "target", "region"], named
