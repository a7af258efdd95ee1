"""What a run found, in sentences with numbers that stay true for two images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from .. import regions
from . import wording
from .grids import MIN_IMAGES
from .tables import Setting, Tables, grids, select, shown_target


@dataclasses.dataclass(frozen=True)
class Finding:
    """A number, and the sentence that says what it is of.

    Attributes:
        figure: the number as it is printed large, such as ``"71.4%"``.
        label: what the number is, in a few words.
        text: one or more sentences; they can be read without the figure.
        about: the heatmaps it is of, as :func:`camlens.report.wording.setting` says it; empty
            where it is of the images.
        kind: ``"plain"``, or ``"warning"`` where a reader should be careful.
    """

    figure: str
    label: str
    text: str
    about: str = ""
    kind: str = "plain"


def findings(tables: Tables) -> list[Finding]:
    """Say what a run found, the most general first."""
    found = list(_numbers(tables))
    if len(tables.images):
        found += _accuracy(tables)
        for setting in tables.settings:
            name = tables.setting_name(setting)
            found += [dataclasses.replace(f, about=name) for f in _of_setting(tables, setting)]
    return found


def _numbers(tables: Tables) -> Iterator[Finding]:
    """Say how many images there are, and how many could not be read."""
    images, unreadable = len(tables.images), len(tables.unreadable)
    text = f"{wording.count(images, 'image was', 'images were')} explained"
    if tables.labelled:
        classes = tables.images["label"].nunique()
        text += f", with labels of {wording.count(classes, 'class', 'classes')}"
    text += "." if unreadable else ". None was unreadable."
    yield Finding(f"{images:,}", "images", text)
    if unreadable:
        text = (
            f"{wording.count(unreadable, 'image')} could not be read and {_are(unreadable)} in no "
            "number of this page. The list below says why."
        )
        yield Finding(f"{unreadable:,}", "unreadable", text, kind="warning")


def _accuracy(tables: Tables) -> Iterator[Finding]:
    """Say how many predictions are right, and what is mixed up most."""
    judged = tables.images.dropna(subset=["correct"])
    if judged.empty:
        yield Finding("unknown", "accuracy", "Without labels it is not known what is right.")
        return
    n, right = len(judged), int(judged["correct"].sum())
    text = (
        f"Of {wording.count(n, 'labelled image')}, {right:,} {_are(right)} predicted right: an "
        f"accuracy of {wording.percent(right, n)} ({_wilson(right, n)}).{_confidences(judged)}"
    )
    yield Finding(wording.percent(right, n), "accuracy", text)
    wrong = judged[~judged["correct"].astype(bool)]
    if wrong.empty:
        return
    yield _confusion(tables, wrong)


def _confusion(tables: Tables, wrong: pd.DataFrame) -> Finding:
    """Say which class is most often taken for which."""
    pairs = wrong.groupby(["label", "prediction"]).size()
    (label, prediction), size = pairs.idxmax(), int(pairs.max())
    taken = (
        f"{wording.name(tables.class_name(label))} is taken for "
        f"{wording.name(tables.class_name(prediction))}"
    )
    of_all = (
        f"{wording.percent(size, len(wrong))} of {wording.count(len(wrong), 'wrong prediction')}"
    )
    alike = int((pairs == size).sum())
    if alike == 1:
        text = f"Most often {taken}: in {wording.count(size, 'image')}, {of_all}."
    else:
        text = (
            f"{alike} confusions are equally frequent, with {wording.count(size, 'image')} each, "
            f"{of_all}. One of them: {taken}."
        )
    return Finding(f"{size:,}", "most frequent confusion", text)


def _wilson(right: int, n: int) -> str:
    """Return the interval of a proportion after Wilson 1927."""
    from scipy.stats import binomtest

    if n < MIN_IMAGES:
        return "too few images for an interval"
    bounds = binomtest(right, n).proportion_ci(method="wilson")
    return wording.interval(100 * bounds.low, 100 * bounds.high, ".1f") + "%"


def _confidences(judged: pd.DataFrame) -> str:
    """Say how sure the model is where it is right and where it is wrong."""
    means = judged.groupby("correct")["confidence"].mean()
    if not {True, False} <= set(means.dropna().index):
        return ""
    return f" Mean confidence is {means[True]:.2f} where right and {means[False]:.2f} where wrong."


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _of_setting(tables: Tables, setting: Setting) -> Iterator[Finding]:
    """Say what the heatmaps of one method and layer are worth, and where they point."""
    maps = select(tables.maps, setting)
    empty = int((~maps["evidence"].astype(bool)).sum())
    holds = "holds" if empty == 1 else "hold"
    text = f"{empty:,} of {wording.count(len(maps), 'map')} {holds} no evidence for the target."
    kind = "warning" if empty else "plain"
    yield Finding(wording.percent(empty, len(maps)), "maps without evidence", text, kind=kind)
    if tables.regions is None:
        text = "The run has no regions, so where the heat lies is said by the pictures alone."
        yield Finding("no regions", "density of heat", text)
        return
    table = select(tables.regions, setting)
    if table.empty:
        return
    yield _coarse(table)
    # Grid and place of the target may differ between images, which are still averaged.
    shown = table[table["shown"]].assign(k=0).drop(columns="grid")
    what = shown_target(tables.maps)
    yield _places(shown, what)
    if "agreement" in shown:
        yield _agreement(shown, what)


def _coarse(table: pd.DataFrame) -> Finding:
    """Say for how many regions the grid is too coarse to tell them from their surroundings."""
    there = table[table["area"] > 0]  # what is absent from an image is not the grid's fault
    coarse = there[~there["resolvable"].astype(bool)]
    figure, label = wording.percent(len(coarse), len(there)), "too coarse for the region"
    known = grids(table)
    cell = f"a cell of the {known[0]} grid" if len(known) == 1 else "a cell of its map's grid"
    if coarse.empty:
        text = f"Every region is at least as large as {cell} in every map."
        return Finding(figure, label, text)
    shares = coarse.groupby("region", sort=False).size() / there.groupby("region").size()
    worst = shares.dropna().sort_values(ascending=False, kind="stable").head(4)
    said = ", ".join(f"{wording.name(str(r))} {100 * share:.0f}%" for r, share in worst.items())
    text = (
        f"In {len(coarse):,} of {wording.count(len(there), 'pair')} of a map and a region, the "
        f"region is smaller than {cell}, and no number would mean anything. "
        f"Most often: {said} of the maps."
    )
    told = there.groupby(["image", "k"])["resolvable"].any()
    if not told.all():
        text += f" {wording.count(int((~told).sum()), 'map')} can tell no region at all."
    return Finding(figure, label, text, kind="warning")


def _places(shown: pd.DataFrame, what: str) -> Finding:
    """Say which region has the most heat for its area, and which the least."""
    summary = regions.summarize(shown, by=[], value="density", min_images=MIN_IMAGES)
    known = summary[summary["mean"].notna()]
    if known.empty:
        return Finding("unknown", "density of heat", "It cannot be told of any region.")
    # What one image has would else be the headline.
    enough = known[known["enough"].astype(bool)]
    some = known if enough.empty else enough
    top, last = (some.loc[at()].to_dict() for at in (some["mean"].idxmax, some["mean"].idxmin))
    text = f"In the maps of {what}, heat is densest on {_place(top)}"
    if len(some) > 1:
        text += f", and thinnest on {_place(last)}"
    text += ". Heat without any preference has a density of 1."
    if enough.empty:
        text += " These are too few maps for an interval."
    elif few := len(known) - len(enough):
        text += f" Left out: {wording.count(few, 'region')} with fewer than {MIN_IMAGES} maps."
    return Finding(f"{top['mean']:.2f}", f"densest: {wording.name(top['region'])}", text)


def _place(row: dict[str, Any]) -> str:
    maps = wording.count(row["n"], "map")
    bounds = wording.interval(row["low"], row["high"]) if row["enough"] else f"mean of {maps}"
    return f"{wording.name(row['region'])} with {row['mean']:.2f} ({bounds})"


def _agreement(shown: pd.DataFrame, what: str) -> Finding:
    """Say whether the regions with the heat are those that the score needs."""
    once = shown.drop_duplicates("image").assign(region="map")
    known = once["agreement"].dropna()
    label = "heat and effect agree"
    if known.empty:
        text = "It is unknown: no map has three regions or more of which heat and effect tell."
        return Finding("unknown", label, text)
    mean, above = float(known.mean()), int((known > 0).sum())
    text = (
        f"In the maps of {what}, the mean rank correlation of heat and effect is {mean:+.2f} "
        f"({_bounds(once)}; {wording.count(len(known), 'map')}). It is above 0 in {above:,} of "
        f"them, {wording.percent(above, len(known))}. 1: the regions with the most heat are those "
        "the score needs most; 0: no relation."
    )
    unknown = len(once) - len(known)
    if unknown:
        text += f" Of {wording.count(unknown, 'further map')} it is unknown."
    return Finding(f"{mean:+.2f}", label, text)


def _bounds(once: pd.DataFrame) -> str:
    summary = regions.summarize(once, by=[], value="agreement", min_images=MIN_IMAGES)
    (row,) = summary.to_dict("records")
    if not math.isfinite(row["low"]):
        return "too few for an interval"
    return wording.interval(row["low"], row["high"], "+.2f")
