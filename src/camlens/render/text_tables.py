"""Small tables of numbers as plain text, which ``print`` shows, without pandas."""

from __future__ import annotations

from collections.abc import Sequence

from .html_tables import cell_text

#: Rows of a table; the rest are counted.
_ROWS = 24


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str | float]], *, missing: str = ""
) -> str:
    """Return a table as text, at most 24 rows of it.

    Args:
        header: a name for each column.
        rows: cells; numbers are written with two decimals and aligned right.
        missing: written for NaN.

    Example:
        >>> print(text_table(["region", "density"], [["nose", 1.234], ["mouth", 12.0]]))
        region  density
        nose       1.23
        mouth     12.00
    """
    shown = rows[:_ROWS]
    columns = []
    for i, name in enumerate(header):
        cells = [row[i] for row in shown]
        texts = [name, *(cell_text(cell, missing) for cell in cells)]
        width = max(map(len, texts))
        right = bool(cells) and not isinstance(cells[0], str)
        columns.append([text.rjust(width) if right else text.ljust(width) for text in texts])
    lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    if len(rows) > _ROWS:
        lines.append(f"and {len(rows) - _ROWS} more")
    return "\n".join(lines)
