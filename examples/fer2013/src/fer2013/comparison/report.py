"""The comparison as a table for a terminal of 120 columns, and as a plot."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.predictions import MEANINGS
from . import deck

WIDTH = 120

# Test sets are compared with care: what is easy on one may be hard on another.
_CAUTION = (
    f"The deck's accuracies are over PublicTest and PrivateTest together, {deck.TEST_FACES:,} "
    "faces, ours over the test set that is named: figures on different test sets are not the same "
    "measurement, and their intervals say nothing of that difference."
)


def as_text(table: pd.DataFrame) -> str:
    """Return the comparison as text, at most :data:`WIDTH` columns wide.

    Args:
        table: as :func:`fer2013.comparison.table.rows` returns it.
    """
    numbers = _numbers(table)
    shown = [
        {
            "configuration": textwrap.shorten(str(row["configuration"]), 21, placeholder="..."),
            "network": row["network"],
            "deck": f"{row['deck_training']}/{row['deck_validation']}".strip("/"),
            "test": _number(row["deck_test"], 2),
            "ours": "/".join(
                filter(None, (_number(row[c], 0) for c in ("training", "validation")))
            ),
            "test ": _words(row["accuracy"], row["low"], row["high"]) or row["status"],
            "no twins": _number(row["distinct"], 1),
            "notes": " ".join(str(numbers[note]) for note in _notes(row)),
        }
        for _, row in table.iterrows()
    ]
    frame = pd.DataFrame(shown)
    widths = {name: max(frame[name].map(len).max(), len(name)) for name in frame}
    lines = [" ".join(name.ljust(width) for name, width in widths.items())]
    for _, row in frame.iterrows():
        lines.append(" ".join(row[name].ljust(width) for name, width in widths.items()))
    return "\n".join(line.rstrip() for line in lines)


def notes(table: pd.DataFrame) -> Iterator[str]:
    """Explain the table's numbers, and say what would measure what is unmeasured."""
    for note, number in _numbers(table).items():
        yield from _wrapped(f"{number}  {note}")
    yield from _wrapped(
        "Percent. deck, ours: accuracy in training / in validation, ours of the last epoch, with "
        "augmentation and dropout in training. test: with the 95% Wilson interval of the test "
        "set's size; another training run moves the figures too. no twins: without the faces that "
        "have a twin in Training."
    )
    yield from _wrapped(_CAUTION)
    unmeasured = table[table["status"] == "unmeasured"]
    if len(unmeasured):
        yield "\nunmeasured, and what measures it; DATA is all of FER2013:"
    for _, row in unmeasured.iterrows():
        # On a line of its own, to be copied.
        yield f"  {row['command']}".replace(" && ", " \\\n    && ")


def draw(table: pd.DataFrame) -> Figure:
    """Return the accuracies with their intervals: the deck's, and ours, each with its test set."""
    points = [
        (
            f"{row['configuration']}, the deck ({deck.TEST})",
            "tab:gray",
            *(row["deck_test"], row["deck_low"], row["deck_high"]),
        )
        for _, row in table.drop_duplicates("configuration").iterrows()
        if math.isfinite(row["deck_test"])
    ]
    for _, row in table[table["status"] == "measured"].iterrows():
        label = f"{row['configuration']}, {row['network']}, {row['averaging']} ({row['on']})"
        points.append((label, "tab:blue", row["accuracy"], row["low"], row["high"]))
    figure = Figure(figsize=(8.5, 1.1 + 0.32 * len(points)), layout="constrained")
    axes = figure.subplots()
    for place, (_, colour, value, low, high) in enumerate(points):
        errors = [[value - low], [high - value]]
        axes.errorbar(value, place, xerr=errors, fmt="o", color=colour, capsize=3)
    axes.set_yticks(range(len(points)), [label for label, *_ in points])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel="accuracy in percent, 95% Wilson interval; test sets differ")
    return figure


def _words(value: float, low: float, high: float) -> str:
    return f"{value:.2f} ({low:.1f}-{high:.1f})" if math.isfinite(value) else ""


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _notes(row: Mapping[str, Any]) -> list[str]:
    where = f"on {row['on']}, {MEANINGS[row['averaging']]}" if row["on"] else ""
    return [note for note in (where, *str(row["note"]).split("; ")) if note]


def _numbers(table: pd.DataFrame) -> dict[str, int]:
    """Return a number for each note, in the order in which they come."""
    distinct = dict.fromkeys(note for _, row in table.iterrows() for note in _notes(row))
    return {note: number for number, note in enumerate(distinct, start=1)}


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="   ")
