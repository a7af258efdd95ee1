"""What is written where: results to the standard output, everything else to the error stream."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?%?")

# A pipe has no width, so nothing is wrapped or cut off there.
_ENDLESS = 10_000


def results() -> Console:
    """Return the console of results, as wide as the terminal."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS)


def messages() -> Console:
    """Return the console of everything but results."""
    return Console(stderr=True, soft_wrap=True)


def plain(text: object) -> str:
    r"""Return a text that cannot steer a terminal: what is not printable is written as an escape.

    Example:
        >>> plain("a\x1b[31mb.jpg"), plain("two words")
        ('a\\x1b[31mb.jpg', 'two words')
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def note(text: object, *, kind: str = "Note", style: str = "yellow") -> None:
    """Write one paragraph to the error stream."""
    messages().print(Text.assemble((f"{kind}: ", style), plain(text)), soft_wrap=True)


def error(text: object) -> None:
    """Write what went wrong to the error stream."""
    note(text, kind="Error", style="bold red")


def line(text: object = "") -> None:
    """Write one line of results."""
    results().print(Text(plain(text)), soft_wrap=True)


def show(rows: Sequence[Mapping[str, object]], *, title: str = "") -> None:
    """Write rows as a table; columns with numbers are set to the right, a dash is missing."""
    table = Table(box=box.SIMPLE, title=Text(plain(title)) if title else None, title_justify="left")
    cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
    for name in rows[0] if rows else ():
        numeric = any(_NUMBER.fullmatch(row[name]) for row in cells)
        table.add_column(plain(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row.values()))
    results().print(table)


def document(content: object) -> None:
    """Write one JSON document."""
    typer.echo(json.dumps(jsonable(content), indent=2, allow_nan=False))


def jsonable(value: Any) -> Any:
    """Return a value as JSON can hold it: what is not a number becomes null.

    Example:
        >>> jsonable({"a": (1, float("nan"))})
        {'a': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | str | None) else str(value)


def rows_of(table: Any) -> list[dict[str, Any]]:
    """Return a pandas table's rows with Python's own values, None where one is missing."""
    wide = table.astype(object).where(table.notna(), None)
    return [
        {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()}
        for row in wide.to_dict("records")
    ]


def counted(items: Sequence[T], what: str) -> Iterable[T]:
    """Go through items, with a progress bar if someone is looking and there is more than one."""
    console = messages()
    if len(items) < 2 or not console.is_terminal:
        yield from items
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else plain(value)
