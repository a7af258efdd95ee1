"""An evaluation as the deck's table, as files and as plots; none of them shows a face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..data.faces import CLASSES
from ..files import write_csv, write_figure
from .accuracy import Evaluation

#: The deck's order of the emotions, which is the alphabet's.
ROWS = tuple(sorted(CLASSES))

_AVERAGES = ("macro avg", "weighted avg")
_MEASURES = {"Precision": "precision", "Recall": "recall", "F1-score": "f1-score"}


def layout(report: dict[str, Any]) -> str:
    """Return a classification report in the deck's layout.

    Args:
        report: as scikit-learn returns it, by class name.
    """
    header = f"{'Label':<12}" + "".join(f"{name:>11}" for name in (*_MEASURES, "Support"))
    total = f"{report['macro avg']['support']:11.0f}"
    rows = {name: _line(name, report[name]) for name in (*ROWS, *_AVERAGES)}
    accuracy = f"{'accuracy':<34}{report['accuracy']:11.2f}{total}"
    averages = [rows[name] for name in _AVERAGES]
    return "\n".join([header, *(rows[name] for name in ROWS), accuracy, *averages])


def _line(name: str, values: dict[str, float]) -> str:
    measures = "".join(f"{values[key]:11.2f}" for key in _MEASURES.values())
    return f"{name:<12}{measures}{values['support']:11.0f}"


def tables(evaluation: Evaluation) -> dict[str, pd.DataFrame]:
    """Return the report, the confusion matrix and the calibration's bins, by file name."""
    report = evaluation.report
    rows = [
        {
            "Label": name,
            **{title: report[name][key] for title, key in _MEASURES.items()},
            "Support": int(report[name]["support"]),
        }
        for name in (*ROWS, *_AVERAGES)
    ]
    accuracy = {"Label": "accuracy", "F1-score": report["accuracy"], "Support": evaluation.count}
    rows.insert(len(ROWS), accuracy)
    counts, shares = confusions(evaluation.confusion)
    return {
        "report": pd.DataFrame(rows),
        "confusion": counts.rename_axis("true").reset_index(),
        "confusion_shares": shares.rename_axis("true").reset_index(),
        "reliability": evaluation.calibration.bins,
    }


def confusions(matrix: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the confusion matrix in the deck's order: counts, and shares of each true class.

    Args:
        matrix: (7, 7) counts in the order of :data:`fer2013.data.faces.CLASSES`.
    """
    counts = pd.DataFrame(matrix, CLASSES, CLASSES).loc[list(ROWS), list(ROWS)]
    return counts, counts.div(counts.sum(axis=1), axis=0)  # NaN for a class without faces


def write(evaluation: Evaluation, folder: Path, title: str) -> None:
    """Write an evaluation's tables as CSV and its plots as PNG.

    Raises:
        OSError: the folder is not writable, or the disk is full.
    """
    for name, table in tables(evaluation).items():
        write_csv(table, folder / f"{name}.csv")
    write_figure(draw_confusion(evaluation.confusion, title), folder / "confusion.png", dpi=110)
    write_figure(draw_reliability(evaluation, title), folder / "reliability.png", dpi=110)


def draw_confusion(matrix: np.ndarray, title: str) -> Figure:
    """Return the confusion matrix as a picture: the share of each true class, and the count."""
    counts, shares = confusions(matrix)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(ROWS)):
        for column in range(len(ROWS)):
            share = shares.iat[row, column]
            words = f"{share:.2f}\n{counts.iat[row, column]}" if np.isfinite(share) else "-"
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, words, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(ROWS)), ROWS, rotation=35, ha="right")
    axes.set_yticks(range(len(ROWS)), ROWS)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(picture, label="share of the true class", shrink=0.8)
    return figure


def draw_reliability(evaluation: Evaluation, title: str) -> Figure:
    """Return the reliability diagram: accuracy by confidence, and how many faces are where."""
    bins = evaluation.calibration.bins
    width = bins["high"] - bins["low"]
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(bins["low"], bins["accuracy"].fillna(0), width, align="edge", ec="white")
    upper.plot((0, 1), (0, 1), "k--", lw=1, label="confidence = accuracy")
    upper.plot(bins["confidence"], bins["accuracy"], "o", c="tab:orange", ms=4, label="bin's mean")
    error = evaluation.calibration.error
    upper.set(
        ylabel="accuracy", ylim=(0, 1), title=f"{title}\nexpected calibration error {error:.3f}"
    )
    upper.legend(loc="upper left")
    lower.bar(bins["low"], bins["faces"], width, align="edge", color="tab:gray", ec="white")
    lower.set(xlabel="confidence (largest probability)", ylabel="faces", xlim=(0, 1))
    return figure
