"""Claims about which regions show an emotion, and tests of these claims."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: The slide deck's interpretation of its Grad-CAM maps; the upper lip belongs to the mouth.
DECK = {
    "happy": ("mouth", "cheeks", "eyes"),
    "fear": ("eyes", "brows"),
    "disgust": ("nose", "mouth"),
    "sad": ("eyes", "brows", "mouth"),
}

#: The regions of facial action units (FACS; Ekman, Friesen and Hager 2002).
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

#: The action units of each basic emotion (EMFACS, as commonly listed).
_EMOTIONS = {
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "fear": (1, 2, 4, 5, 7, 20, 26),
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
}

#: The regions of each emotion's action units.
ACTION_UNITS = {
    emotion: tuple(dict.fromkeys(_UNITS[unit] for unit in units))
    for emotion, units in _EMOTIONS.items()
}

#: All claims by source.
CLAIMS = {"deck": DECK, "action units": ACTION_UNITS}

SUPPORTED, NOT_SUPPORTED, NOT_RESOLVABLE = "supported", "not supported", "not resolvable"
TOO_FEW = "too few images"


def judge(density: pd.DataFrame, effect: pd.DataFrame) -> pd.DataFrame:
    """Test whether each claimed region shows its emotion.

    A region is supported if three 95% intervals agree: density above 1 (the map prefers the region
    to chance), lift above 1 (more than for other emotions), and excess above 0 (removing the region
    lowers the score more than removing other places of its size and shape). The intervals are not
    corrected for multiple comparisons.

    Args:
        density: ``regions.summarize(table, by="target")`` of one method, layer and k.
        effect: the same with ``value="excess"``.

    Returns:
        A row for each claim and region: source, emotion, region, n, density, lift and excess with
        their intervals, and verdict.
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
    key = pd.MultiIndex.from_frame(claimed[["emotion", "region"]])
    where, cost = (
        table.set_index(["target", "region"]).reindex(key).reset_index(drop=True)
        for table in (density, effect)
    )
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
    # An emotion that is never predicted has no row.
    enough = where["enough"].eq(True) & cost["enough"].eq(True)
    above = (where["low"] > 1) & (where["lift_low"] > 1) & (cost["low"] > 0)
    verdict = np.select(
        [where["note"] == NOT_RESOLVABLE, ~enough, above],
        [NOT_RESOLVABLE, TOO_FEW, SUPPORTED],
        NOT_SUPPORTED,
    )
    return claimed.assign(n=where["n"].fillna(0).astype(int), **numbers, verdict=verdict)


def overall(judged: pd.DataFrame) -> pd.DataFrame:
    """Return one verdict for each claim, which is supported if all its regions are.

    ``supported`` lists the regions that are, and ``needed`` those whose excess is above 0,
    whatever the heatmaps show.
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
