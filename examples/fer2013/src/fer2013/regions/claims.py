"""What is said about where an emotion shows, and whether the numbers support it."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: The slide deck's reading of its Grad-CAM pictures. The upper lip is part of the mouth's region.
DECK = {
    "happy": ("mouth", "cheeks", "eyes"),
    "fear": ("eyes", "brows"),
    "disgust": ("nose", "mouth"),
    "sad": ("eyes", "brows", "mouth"),
}

#: Where the facial action units are seen (FACS; Ekman, Friesen and Hager 2002).
_UNITS = {
    1: "brows",  # inner brow raiser
    2: "brows",  # outer brow raiser
    4: "brows",  # brow lowerer
    5: "eyes",  # upper lid raiser
    6: "cheeks",  # cheek raiser
    7: "eyes",  # lid tightener
    9: "nose",  # nose wrinkler
    12: "mouth",  # lip corner puller
    15: "mouth",  # lip corner depressor
    16: "mouth",  # lower lip depressor
    20: "mouth",  # lip stretcher
    23: "mouth",  # lip tightener
    26: "chin",  # jaw drop
}

#: The units of each basic emotion (EMFACS, as commonly listed).
_EMOTIONS = {
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "fear": (1, 2, 4, 5, 7, 20, 26),
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
}

#: The regions in which an emotion's action units are seen.
ACTION_UNITS = {
    emotion: tuple(dict.fromkeys(_UNITS[unit] for unit in units))
    for emotion, units in _EMOTIONS.items()
}

#: Every expectation, by who says it.
CLAIMS = {"deck": DECK, "action units": ACTION_UNITS}

SUPPORTED, NOT_SUPPORTED, NOT_RESOLVABLE = "supported", "not supported", "not resolvable"
TOO_FEW = "too few images"


def judge(density: pd.DataFrame, effect: pd.DataFrame) -> pd.DataFrame:
    """Set each claim beside the numbers.

    A region is supported as a place of evidence for an emotion if three 95% intervals agree:
    density above 1 (the map prefers it to chance), lift above 1 (more than for the other emotions,
    so it is not the map's habit), and excess above 0 (taking it away costs the score more than
    taking away any place of its size and shape). Each interval stands for itself: they
    are not corrected for their number.

    Args:
        density: ``regions.summarize(table, by="target")`` of one method, layer and k.
        effect: the same with ``value="excess"``.

    Returns:
        A row for each claim and region: source, emotion, region, n, density, lift and excess with
        their intervals, and verdict.

    Raises:
        ValueError: a summary is of several methods, layers or k.
    """
    claimed = pd.DataFrame(
        [
            (source, emotion, region)
            for source, claims in CLAIMS.items()
            for emotion, parts in claims.items()
            for region in parts
        ],
        columns=["source", "emotion", "region"],
    )
    tables = [summary.set_index(["target", "region"]) for summary in (density, effect)]
    if any(table.index.has_duplicates for table in tables):
        raise ValueError("expected a summary of one method, layer and k, got several: filter it")
    key = pd.MultiIndex.from_frame(claimed[["emotion", "region"]])
    where, cost = (table.reindex(key).reset_index(drop=True) for table in tables)
    mean, lift = ("mean", "low", "high"), ("lift", "lift_low", "lift_high")
    numbers = {
        f"{name}{end}": table[column]
        for name, table, columns in (
            ("density", where, mean),
            ("lift", where, lift),
            ("excess", cost, mean),
        )
        for end, column in zip(("", " low", " high"), columns, strict=True)
    }
    # Without any face there is no row.
    enough = where["enough"].eq(True) & cost["enough"].eq(True)
    above = (where["low"] > 1) & (where["lift_low"] > 1) & (cost["low"] > 0)
    verdict = np.select(
        [where["note"] == NOT_RESOLVABLE, ~enough, above],
        [NOT_RESOLVABLE, TOO_FEW, SUPPORTED],
        NOT_SUPPORTED,
    )
    return claimed.assign(n=where["n"].fillna(0).astype(int), **numbers, verdict=verdict)


def overall(judged: pd.DataFrame) -> pd.DataFrame:
    """Return one verdict a claim: supported only if each of its regions is.

    Beside it stand the claim's regions that are supported, and those that the score needs (whose
    excess is above 0), whatever the heatmaps show.
    """
    order = (SUPPORTED, NOT_SUPPORTED, TOO_FEW, NOT_RESOLVABLE)
    rows = []
    for (source, emotion), parts in judged.groupby(["source", "emotion"], sort=False):
        supported = parts["region"][parts["verdict"] == SUPPORTED]
        needed = parts["region"][parts["excess low"] > 0]
        rows.append(
            {
                "source": source,
                "emotion": emotion,
                "regions": ", ".join(parts["region"]),
                "supported": ", ".join(supported) or "none",
                "needed": ", ".join(needed) or "none",
                "verdict": max(parts["verdict"], key=order.index),
            }
        )
    return pd.DataFrame(rows)
