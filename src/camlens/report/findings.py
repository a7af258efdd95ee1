"""Summarise a run: a line of facts about the images, and a table of findings about the maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import pandas as pd

from .. import regions
from . import wording
from .columns import MEASURES
from .region_tables import MIN_IMAGES
from .run_tables import Setting, Tables, select


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """A finding about the maps of one setting.

    Attributes:
        text: the number in a few words.
        note: its interval or details; may be empty.
    """

    text: str
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A row of the table of findings.

    Attributes:
        label: name of the numbers.
        help: how to read them.
        values: one for each setting, in the run's order, or None.
    """

    label: str
    help: str
    values: tuple[Value | None, ...]


def facts(tables: Tables) -> list[str]:
    """Return short facts: numbers of images, of correct predictions, and the top confusion."""
    texts = [wording.count(len(tables.images), "image")]
    judged = tables.images.dropna(subset=["correct"])
    if n := len(judged):
        right = int(judged["correct"].sum())
        texts.append(f"{right:,} of {n:,} predicted correctly{_accuracy(right, n)}")
        wrong = judged[~judged["correct"].astype(bool)]
        if confusion := _confusion(tables, wrong):
            texts.append(confusion)
    if len(tables.unreadable):
        texts.append(f"{len(tables.unreadable):,} unreadable")
    return texts


def _accuracy(right: int, n: int) -> str:
    """Return a share with its interval after Wilson 1927; an empty string for few images."""
    from scipy.stats import binomtest

    if n < MIN_IMAGES:
        return ""
    bounds = binomtest(right, n).proportion_ci(method="wilson")
    low, high = 100 * bounds.low, 100 * bounds.high
    return f": {wording.percent(right, n)} (95% interval {low:.1f} to {high:.1f}%)"


def _confusion(tables: Tables, wrong: pd.DataFrame) -> str:
    """Return the most frequent confusion of two classes, if it occurs more than once."""
    pairs = wrong.groupby(["label", "prediction"]).size()
    if pairs.max() < 2 or pairs.empty:
        return ""
    (label, prediction), size = pairs.idxmax(), int(pairs.max())
    taken = f"{_class(tables, label)} mistaken for {_class(tables, prediction)}"
    alike = int((pairs == size).sum()) - 1
    others = f", like {wording.count(alike, 'other pair')}" if alike else ""
    return f"most often {taken} ({size:,} of {len(wrong):,} wrong{others})"


def _class(tables: Tables, target: int) -> str:
    return wording.name(tables.class_name(target))


def findings(tables: Tables) -> list[Finding]:
    """Return the rows of findings that have a value for at least one setting."""
    if not len(tables.maps):
        return []
    found = [
        _row(tables, "maps without evidence", _EVIDENCE, _without_evidence),
        _row(tables, "too coarse for the region", _COARSE, _too_coarse),
        _row(tables, "densest region", _DENSEST, _densest),
        _row(tables, "heat and effect agree", _AGREEMENT, _agreement),
    ]
    for name in tables.measures:
        label, better = MEASURES[name]
        found.append(_row(tables, label, better.capitalize() + ".", _measure(name)))
    return [row for row in found if any(value is not None for value in row.values)]


_EVIDENCE = "The method found no evidence for the class at this layer. The means omit these maps."
_COARSE = "Pairs of a map and a region smaller than a cell of the map's grid: they have no value."
_DENSEST = "Share of the heat divided by share of the area; uniform heat has density 1."
_AGREEMENT = (
    "Rank correlation of a region's heat and the score's drop without the region. 1: the regions "
    "with the most heat cause the largest drops; 0: no relation."
)


def _row(
    tables: Tables, label: str, text: str, of: Callable[[Tables, Setting], Value | None]
) -> Finding:
    values = tuple(of(tables, setting) for setting in tables.settings)
    return Finding(label=label, help=text, values=values)


def _without_evidence(tables: Tables, setting: Setting) -> Value | None:
    """Count the maps of one setting without evidence, if any setting has such maps."""
    if tables.maps["evidence"].all():
        return None
    maps = select(tables.maps, setting)
    empty = int((~maps["evidence"].astype(bool)).sum())
    return Value(text=f"{empty:,} of {len(maps):,}", note=wording.percent(empty, len(maps)))


def _too_coarse(tables: Tables, setting: Setting) -> Value | None:
    """Return the share of regions that the grid is too coarse for, and the most frequent ones."""
    if tables.regions is None:
        return None
    table = select(tables.regions, setting)
    present = table[table["area"] > 0]  # regions that are absent from an image do not count
    coarse = present[~present["resolvable"].astype(bool)]
    if coarse.empty:
        return None
    shares = coarse.groupby("region", sort=False).size() / present.groupby("region").size()
    worst = shares.dropna().sort_values(ascending=False, kind="stable").head(3)
    named = ", ".join(f"{wording.name(str(r))} {100 * share:.0f}%" for r, share in worst.items())
    return Value(text=wording.percent(len(coarse), len(present)), note=f"most often {named}")


def _densest(tables: Tables, setting: Setting) -> Value | None:
    """Return the region with the highest mean density."""
    shown = tables.shown_regions(setting)
    if shown is None:
        return None
    summary = regions.summarize(shown, by=[], value="density", min_images=MIN_IMAGES)
    known = summary[summary["mean"].notna()]
    # Otherwise a region in a single image could be reported.
    enough = known[known["enough"].astype(bool)]
    candidates = known if enough.empty else enough
    if candidates.empty:
        return None
    top = candidates.loc[candidates["mean"].idxmax()].to_dict()
    text = f"{wording.name(top['region'])} {top['mean']:.2f}"
    return Value(text=text, note=_bounds(top, ".2f"))


def _agreement(tables: Tables, setting: Setting) -> Value | None:
    """Return the mean agreement of the regions' heat and their effect on the score."""
    shown = tables.shown_regions(setting)
    if shown is None or "agreement" not in shown:
        return None
    once = shown.drop_duplicates("image").assign(region="map")
    return _mean(once, "agreement", "+.2f")


def _measure(name: str) -> Callable[[Tables, Setting], Value | None]:
    """Return a function that averages one of the :data:`MEASURES`."""

    def of(tables: Tables, setting: Setting) -> Value | None:
        maps = select(tables.maps[tables.maps["shown"]], setting).drop(columns="grid")
        return _mean(maps.assign(k=0, region="map", resolvable=True), name, ".3f")

    return of


def _mean(once: pd.DataFrame, value: str, form: str) -> Value | None:
    """Return the mean of a column that has one row per image."""
    if once.empty or once[value].isna().all():
        return None
    summary = regions.summarize(once, by=[], value=value, min_images=MIN_IMAGES)
    (row,) = summary.to_dict("records")
    return Value(text=f"{row['mean']:{form}}", note=_bounds(row, form))


def _bounds(row: dict[str, float], form: str) -> str:
    """Return a mean's interval, or the number of maps if there are too few for an interval."""
    if row["enough"] and math.isfinite(row["low"]):
        return f"{row['low']:{form}} to {row['high']:{form}}"
    return f"mean of {wording.count(int(row['n']), 'map')}" if row["n"] > 1 else ""


def records(tables: Tables, rows: list[Finding]) -> Iterator[dict[str, object]]:
    """Return the findings as rows of a file: finding, method, layer, value and note."""
    for row in rows:
        for (method, layer), value in zip(tables.settings, row.values, strict=True):
            if value is not None:
                yield {
                    **{"finding": row.label, "method": method, "layer": layer},
                    **{"value": value.text, "note": value.note},
                }
