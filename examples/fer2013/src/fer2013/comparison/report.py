"""The comparison as a text table of at most 120 columns, and as a plot."""

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

_LEGEND = (
    "Percent. deck, ours: training / validation accuracy, ours of the last epoch; training with "
    "augmentation and dropout. test: with the 95% Wilson interval, which covers the sampling of "
    "test images, not of training runs. no twins: without duplicates of Training images."
)
_CAUTION = (
    f"The deck's accuracies are over PublicTest and PrivateTest together, {deck.TEST_FACES:,} "
    "images, ours over the test set in the notes: figures on different test sets are not the same "
    "measurement, and their intervals do not cover the difference."
)


def as_text(table: pd.DataFrame) -> str:
    """Return :func:`fer2013.comparison.table.rows` as text of at most :data:`WIDTH` columns."""
    numbers = _numbers(table)
    lines = [["configuration", "network", "deck", "test", "ours", "test", "no twins", "notes"]]
    for _, row in table.iterrows():
        ours = [_number(row[name], 0) for name in ("training", "validation")]
        accuracy = f"{row['accuracy']:.2f} ({row['low']:.1f}-{row['high']:.1f})"
        lines.append(
            [
                textwrap.shorten(str(row["configuration"]), 21, placeholder="..."),
                row["network"],
                f"{row['deck_training']}/{row['deck_validation']}".strip("/"),
                _number(row["deck_test"], 2),
                "/".join(filter(None, ours)),
                accuracy if math.isfinite(row["accuracy"]) else row["status"],
                _number(row["distinct"], 1),
                " ".join(str(numbers[note]) for note in _notes(row)),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        " ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def notes(table: pd.DataFrame) -> Iterator[str]:
    """Yield the table's notes and legend, and the commands for unmeasured rows."""
    numbered = [f"{number}  {note}" for note, number in _numbers(table).items()]
    for text in (*numbered, _LEGEND, _CAUTION):
        yield from textwrap.wrap(text, WIDTH, subsequent_indent="   ")
    unmeasured = table[table["status"] == "unmeasured"]
    if len(unmeasured):
        yield "\nunmeasured; run these commands, with all of FER2013 as DATA:"
    for command in unmeasured["command"]:
        yield f"  {command}".replace(" && ", " \\\n    && ")


def draw(table: pd.DataFrame) -> Figure:
    """Plot the deck's and our accuracies with their intervals and test sets."""
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


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _notes(row: Mapping[str, Any]) -> list[str]:
    where = f"on {row['on']}, {MEANINGS[row['averaging']]}" if row["on"] else ""
    return [note for note in (where, *str(row["note"]).split("; ")) if note]


def _numbers(table: pd.DataFrame) -> dict[str, int]:
    """Number the distinct notes in order of appearance."""
    distinct = dict.fromkeys(note for _, row in table.iterrows() for note in _notes(row))
    return {note: number for number, note in enumerate(distinct, start=1)}
