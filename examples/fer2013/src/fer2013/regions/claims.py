"""What is said about where an emotion shows, and whether the numbers support it."""

from __future__ import annotations

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
    """
    rows = []
    for source, claims in CLAIMS.items():
        for emotion, regions in claims.items():
            for region in regions:
                where, cost = (_row(t, emotion, region) for t in (density, effect))
                rows.append(
                    {
                        "source": source,
                        "emotion": emotion,
                        "region": region,
                        "n": int(where["n"]),
                        **_interval("density", where, "mean", "low", "high"),
                        **_interval("lift", where, "lift", "lift_low", "lift_high"),
                        **_interval("excess", cost, "mean", "low", "high"),
                        "verdict": _verdict(where, cost),
                    }
                )
    return pd.DataFrame(rows)


def overall(judged: pd.DataFrame) -> pd.DataFrame:
    """Return one verdict a claim: supported only if each of its regions is.

    Beside it stand the claim's regions that are supported, and those that the score needs (whose
    excess is above 0), whatever the heatmaps show.
    """
    rows = []
    for (source, emotion), parts in judged.groupby(["source", "emotion"], sort=False):
        verdicts = set(parts["verdict"])
        worst = (v for v in (NOT_RESOLVABLE, TOO_FEW, NOT_SUPPORTED, SUPPORTED) if v in verdicts)
        rows.append(
            {
                "source": source,
                "emotion": emotion,
                "regions": ", ".join(parts["region"]),
                "supported": _listed(parts["region"][parts["verdict"] == SUPPORTED]),
                "needed": _listed(parts["region"][parts["excess low"] > 0]),
                "verdict": next(worst),
            }
        )
    return pd.DataFrame(rows)


def _listed(regions: pd.Series) -> str:
    return ", ".join(regions) or "none"


def _row(summary: pd.DataFrame, emotion: str, region: str) -> pd.Series:
    rows = summary[(summary["target"] == emotion) & (summary["region"] == region)]
    if len(rows) > 1:
        raise ValueError("expected a summary of one method, layer and k, got several: filter it")
    missing = {"n": 0, "enough": False, "note": "only 0 images"}
    return rows.iloc[0] if len(rows) else pd.Series(missing).reindex(summary.columns)


def _interval(name: str, row: pd.Series, mean: str, low: str, high: str) -> dict[str, float]:
    return {name: row[mean], f"{name} low": row[low], f"{name} high": row[high]}


def _verdict(where: pd.Series, cost: pd.Series) -> str:
    if where["note"] == NOT_RESOLVABLE:
        return NOT_RESOLVABLE
    if not (where["enough"] and cost["enough"]):
        return TOO_FEW
    supported = where["low"] > 1 and where["lift_low"] > 1 and cost["low"] > 0
    return SUPPORTED if supported else NOT_SUPPORTED
