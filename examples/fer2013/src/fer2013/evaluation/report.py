"""Write an evaluation as CSV tables and plots; none of them contains images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from ..data.faces import CLASSES
from ..files import write_csv, write_figure
from .accuracy import Evaluation

#: The emotions in the slide deck's order, which is alphabetical.
ROWS = tuple(sorted(CLASSES))

_ORDER = [*ROWS, "accuracy", "macro avg", "weighted avg"]
_HEADER = {"precision": "Precision", "recall": "Recall", "f1-score": "F1-score"}


def by_emotion(report: dict[str, Any]) -> pd.DataFrame:
    """Return scikit-learn's classification report (a dict) as a table in the deck's layout."""
    total = report["macro avg"]["support"]
    accuracy = {"f1-score": report["accuracy"], "support": total}
    table = pd.DataFrame({**report, "accuracy": accuracy}).T.loc[_ORDER]
    table = table.astype({"support": int}).rename(columns={**_HEADER, "support": "Support"})
    return table.rename_axis("Label").reset_index()[["Label", *_HEADER.values(), "Support"]]


def layout(report: dict[str, Any]) -> str:
    """Return a classification report as text in the deck's layout."""
    return str(by_emotion(report).to_string(index=False, na_rep="", float_format="{:.2f}".format))


def confusions(matrix: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a confusion matrix (7, 7) in the deck's order: counts, and fractions of each row."""
    counts = pd.DataFrame(matrix, CLASSES, CLASSES).loc[list(ROWS), list(ROWS)]
    counts = counts.rename_axis("true")
    return counts, counts.div(counts.sum(axis=1), axis=0)  # NaN for a class without images


def write(evaluation: Evaluation, folder: Path, title: str) -> None:
    """Write an evaluation's tables as CSV and its plots as PNG."""
    counts, shares = confusions(evaluation.confusion)
    write_csv(by_emotion(evaluation.report), folder / "report.csv")
    write_csv(counts.reset_index(), folder / "confusion.csv")
    write_csv(shares.reset_index(), folder / "confusion_shares.csv")
    write_csv(evaluation.calibration["bins"], folder / "reliability.csv")
    write_figure(draw_confusion(evaluation.confusion, title), folder / "confusion.png", dpi=110)
    write_figure(draw_reliability(evaluation, title), folder / "reliability.png", dpi=110)


def draw_confusion(matrix: np.ndarray, title: str) -> Figure:
    """Plot a confusion matrix with the fractions of each true class, and the counts."""
    counts, shares = confusions(matrix)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    drawn = ConfusionMatrixDisplay(shares.to_numpy(), display_labels=ROWS).plot(
        ax=figure.subplots(),
        cmap="Blues",
        values_format=".2f",
        xticks_rotation=35,
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 8},
    )
    for text, count in zip(drawn.text_.flat, counts.to_numpy().flat, strict=True):
        text.set_text(f"{text.get_text()}\n{count}")
    drawn.ax_.set(xlabel="predicted", ylabel="true", title=title)
    drawn.im_.colorbar.set_label("share of the true class")
    return figure


def draw_reliability(evaluation: Evaluation, title: str) -> Figure:
    """Plot the reliability diagram: accuracy by confidence, and the number of images per bin."""
    bins = evaluation.calibration["bins"]
    width = bins["high"] - bins["low"]
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(bins["low"], bins["accuracy"].fillna(0), width, align="edge", ec="white")
    upper.plot((0, 1), (0, 1), "k--", lw=1, label="confidence = accuracy")
    upper.plot(bins["confidence"], bins["accuracy"], "o", c="tab:orange", ms=4, label="bin's mean")
    error = evaluation.calibration["expected calibration error"]
    upper.set(
        ylabel="accuracy", ylim=(0, 1), title=f"{title}\nexpected calibration error {error:.3f}"
    )
    upper.legend(loc="upper left")
    lower.bar(bins["low"], bins["faces"], width, align="edge", color="tab:gray", ec="white")
    lower.set(xlabel="confidence (largest probability)", ylabel="faces", xlim=(0, 1))
    return figure
