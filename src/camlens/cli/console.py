"""Terminal output: results go to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?%?")

# A pipe has no width, so its lines are not wrapped or truncated.
_ENDLESS = 10_000


def results() -> Console:
    """Return the console for results, as wide as the terminal."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS)


def messages() -> Console:
    """Return the console for everything except results."""
    return Console(stderr=True, soft_wrap=True)


def plain(text: object) -> str:
    r"""Escape characters that are not printable, so that text cannot control the terminal.

    Example:
        >>> plain("a\x1b[31mb.jpg"), plain("two words")
        ('a\\x1b[31mb.jpg', 'two words')
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def note(text: object, *, kind: str = "Note", style: str = "yellow") -> None:
    """Write one paragraph to standard error."""
    messages().print(Text.assemble((f"{kind}: ", style), plain(text)), soft_wrap=True)


def notes(texts: Iterable[str]) -> list[str]:
    """Write notes to standard error, and return them for the report."""
    written = list(texts)
    for text in written:
        note(text)
    return written


def error(text: object) -> None:
    """Write an error message to standard error."""
    note(text, kind="Error", style="bold red")


def line(text: object = "") -> None:
    """Write one line of results."""
    results().print(Text(plain(text)), soft_wrap=True)


def show(rows: Sequence[Mapping[str, object]], *, title: str = "") -> None:
    """Write rows as a table; numeric columns are right-aligned, a dash marks a missing value."""
    table = Table(box=box.SIMPLE, title=Text(plain(title)) if title else None, title_justify="left")
    cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
    for name in rows[0] if rows else ():
        numeric = any(_NUMBER.fullmatch(row[name]) for row in cells)
        table.add_column(plain(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row.values()))
    results().print(table)


@dataclasses.dataclass
class _Answer:
    """Output state of the running command: whether it writes JSON, and whether it has done so."""

    as_json: bool = False
    written: bool = False


_answer = _Answer()


@contextlib.contextmanager
def answering(*, as_json: bool) -> Iterator[None]:
    """Within the block, write the results as one JSON document, or as text."""
    global _answer  # noqa: PLW0603  (a process runs one command at a time)
    before, _answer = _answer, _Answer(as_json)
    try:
        yield
    finally:
        _answer = before


@contextlib.contextmanager
def redirected() -> Iterator[None]:
    """Send the printed output of models and transforms to standard error, away from the results.

    Raises:
        RuntimeError: the model or its data called ``sys.exit``.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        raise RuntimeError(f"the model or its data called sys.exit({error})") from error


def document(content: object) -> None:
    """Write one JSON document."""
    _answer.written = True
    typer.echo(json.dumps(jsonable(content), indent=2, allow_nan=False))


def document_error(text: str) -> None:
    """Write an error as a JSON document if the command writes JSON and has not done so yet."""
    if _answer.as_json and not _answer.written:
        document({"error": text})


def jsonable(value: Any) -> Any:
    """Convert a value for JSON; NaN and infinity become null.

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
    """Return a pandas table's rows with plain Python values, None for missing ones."""
    wide = table.astype(object).where(table.notna(), None)
    return [
        {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()}
        for row in wide.to_dict("records")
    ]


@contextlib.contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar if standard error is a terminal and there is more than one item.

    Yields a function that advances the bar by a number of items, from any thread.
    """
    console = messages()
    if total < 2 or not console.is_terminal:
        yield lambda count: None
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else plain(value)
