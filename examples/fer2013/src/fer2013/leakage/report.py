"""The leakage experiment in sentences and as a plot."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

_TITLES = {"copies": "copies of a face", "redrawn": "going on with a redrawn split"}
_ALL = "all validation faces"
_PUBLIC = "PublicTest, never seen"


def sentences(runs: pd.DataFrame, summary: pd.DataFrame, share: float) -> Iterator[str]:
    """Say what leakage did.

    Args:
        runs: a row for each seed, arm and kind of face, as ``leakage.csv`` has them.
        summary: the same over all seeds, with intervals.
        share: what part of a random fifth of the whole Training has a copy in the rest.
    """
    accuracy = {
        (row.experiment, row.arm, row.faces): f"{row.accuracy:.1%} [{row.low:.1%}, {row.high:.1%}]"
        for row in summary.itertuples(index=False)
    }
    yield "Accuracies with 95% Wilson intervals over all seeds; small faces, few, no augmentation."
    both, together = (("copies", f"copies {how}") for how in ("on both sides", "kept together"))
    yield f"copies on both sides of the split: {accuracy[(*both, _ALL)]} of the validation faces"
    yield f"copies kept together:              {accuracy[(*together, _ALL)]}"
    yield f"  leakage adds {_gaps(runs, (*both, _ALL), (*together, _ALL))}"
    for arm, kind in (
        (both, "a copy was trained on"),
        (together, "copied, no copy was trained on"),
        (both, "without copies"),
        (together, "without copies"),
    ):
        if (*arm, kind) in accuracy:
            yield f"  {arm[1]}, faces: {kind}: {accuracy[(*arm, kind)]}"
    yield (
        "  half of these faces or fewer were chosen because they have copies; of a random fifth of "
        f"Training {share:.1%} have a copy in the rest, so there the effect is smaller"
    )
    same, redrawn = (("redrawn", f"goes on, {how} split") for how in ("same", "redrawn"))
    for arm in (("redrawn", "one training"), same, redrawn):
        yield (
            f"{arm[1]}: validation {accuracy[(*arm, _ALL)]}, PublicTest {accuracy[(*arm, _PUBLIC)]}"
        )
    yield f"  on validation, redrawing adds {_gaps(runs, (*redrawn, _ALL), (*same, _ALL))}"
    yield f"  on PublicTest, redrawing adds {_gaps(runs, (*redrawn, _PUBLIC), (*same, _PUBLIC))}"
    gap = _gaps(runs, (*redrawn, _ALL), (*redrawn, _PUBLIC))
    yield f"  after redrawing, validation is above PublicTest by {gap}"


def _gaps(runs: pd.DataFrame, a: tuple[str, str, str], b: tuple[str, str, str]) -> str:
    """Return a minus b, in points, the mean over seeds and each seed's."""
    first, second = (
        runs[
            (runs["experiment"] == key[0]) & (runs["arm"] == key[1]) & (runs["faces"] == key[2])
        ].set_index("seed")["accuracy"]
        for key in (a, b)
    )
    gaps = 100 * (first - second)
    return f"{gaps.mean():+.1f} points (by seed: {', '.join(f'{gap:+.1f}' for gap in gaps)})"


def draw(runs: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw both experiments: each arm's accuracy with its interval, and small dots for seeds."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    figure.suptitle("What leakage does to the accuracy (95% Wilson intervals; dots: seeds)")
    for axes, (name, title) in zip(figure.subplots(1, 2), _TITLES.items(), strict=True):
        own, single = (table[table["experiment"] == name] for table in (summary, runs))
        kinds, arms = list(own["faces"].unique()), list(own["arm"].unique())
        for place, arm in enumerate(arms):
            height = {k: i + 0.22 * (place - (len(arms) - 1) / 2) for i, k in enumerate(kinds)}
            rows = own[own["arm"] == arm]
            spread = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
            color = f"C{place}"
            axes.errorbar(
                rows["accuracy"],
                rows["faces"].map(height),
                xerr=spread,
                fmt="o",
                color=color,
                label=arm,
            )
            dots = single[single["arm"] == arm]
            axes.scatter(dots["accuracy"], dots["faces"].map(height), s=9, color=color, alpha=0.4)
        axes.axvline(single["chance"].iloc[0], color="0.6", linewidth=0.8)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.invert_yaxis()
        axes.set(title=title, xlabel="accuracy (grey line: 1 in 7)", xlim=(0, 1))
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(arms))
    return figure
