"""The results of the leakage experiments as text and as a plot."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

_TITLES = {"copies": "copies of a face", "redrawn": "continued training with a redrawn split"}
_ALL = "all validation faces"
_PUBLIC = "PublicTest, never seen"


def sentences(runs: pd.DataFrame, summary: pd.DataFrame, share: float) -> Iterator[str]:
    """Yield the results as lines of text.

    Args:
        runs: a row for each seed, arm and kind of image, as in ``leakage.csv``.
        summary: the same over all seeds, with intervals.
        share: the fraction of a random fifth of Training with a copy in the rest.
    """
    yield "Accuracies with 95% Wilson intervals over all seeds, of few small images."
    yield summary.to_string(index=False, float_format="{:.1%}".format)
    both, together = "copies on both sides", "copies kept together"
    yield f"copies: leakage adds {_gaps(runs, (both, _ALL), (together, _ALL))}"
    yield (
        "  up to half of these images were chosen for having copies; of a random fifth of "
        f"Training {share:.1%} have a copy in the rest, so there the effect is smaller"
    )
    same, redrawn = "continued, same split", "continued, redrawn split"
    for where, kind in (("validation", _ALL), ("PublicTest", _PUBLIC)):
        gap = _gaps(runs, (redrawn, kind), (same, kind))
        yield f"redrawn: on {where}, redrawing adds {gap}"
    gap = _gaps(runs, (redrawn, _ALL), (redrawn, _PUBLIC))
    yield f"redrawn: with the redrawn split, validation is above PublicTest by {gap}"


def _gaps(runs: pd.DataFrame, a: tuple[str, str], b: tuple[str, str]) -> str:
    """Return the difference of accuracy of two (arm, kind of image): the mean, and by seed."""
    by_seed = runs.set_index(["arm", "faces", "seed"])["accuracy"].sort_index()
    gaps = 100 * (by_seed[a] - by_seed[b])
    return f"{gaps.mean():+.1f} points (by seed: {', '.join(f'{gap:+.1f}' for gap in gaps)})"


def draw(runs: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Plot the accuracy of each arm with its interval, and dots for seeds."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    figure.suptitle("The effect of leakage on the accuracy (95% Wilson intervals; dots: seeds)")
    for axes, (name, title) in zip(figure.subplots(1, 2), _TITLES.items(), strict=True):
        own, single = (table[table["experiment"] == name] for table in (summary, runs))
        kinds, arms = list(own["faces"].unique()), list(own["arm"].unique())
        for place, arm in enumerate(arms):
            height = {k: i + 0.22 * (place - (len(arms) - 1) / 2) for i, k in enumerate(kinds)}
            rows, dots = (table[table["arm"] == arm] for table in (own, single))
            value, color = rows["accuracy"], f"C{place}"
            spread = [value - rows["low"], rows["high"] - value]
            heights = rows["faces"].map(height)
            axes.errorbar(value, heights, xerr=spread, fmt="o", color=color, label=arm)
            axes.scatter(dots["accuracy"], dots["faces"].map(height), s=9, color=color, alpha=0.4)
        axes.axvline(1 / 7, color="0.6", linewidth=0.8)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.invert_yaxis()
        axes.set(title=title, xlabel="accuracy (grey line: 1 in 7)", xlim=(0, 1))
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(arms))
    return figure
