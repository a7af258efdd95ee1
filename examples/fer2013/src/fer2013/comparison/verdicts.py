"""Test the slide deck's conclusions on our results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation.accuracy import wilson
from .results import Result, representative

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "inconclusive"
UNMEASURED = "unmeasured"

# Percentage points between training and validation accuracy in the last epoch.
_SMALL_GAP, _LARGE_GAP = 5.0, 15.0

_DECK = ("config1", "config2", "config3", "config4")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict on one conclusion.

    Attributes:
        claim: the deck's conclusion.
        evidence: our results.
        verdict: :data:`HOLDS`, :data:`FAILS`, :data:`UNDECIDED` if the interval includes 0, or
            :data:`UNMEASURED`.
    """

    claim: str
    evidence: str
    verdict: str


@dataclasses.dataclass(frozen=True)
class _Runs:
    """A configuration's runs with different seeds, on the same test set."""

    results: list[Result]

    def last_epoch(self, metric: str) -> float:
        """Return the mean of a metric in the last epoch, in percent."""
        last = [run.facts.get("last_epoch", {}) for run in self.results]
        return 100 * float(np.mean([epoch.get(metric, np.nan) for epoch in last]))

    @property
    def training(self) -> float:
        """The mean training accuracy in the last epoch, in percent."""
        return self.last_epoch("train_accuracy")

    @property
    def gap(self) -> float:
        """The mean of training minus validation accuracy in the last epoch, in points."""
        return self.training - self.last_epoch("val_accuracy")

    @property
    def share(self) -> tuple[float, int]:
        """The mean test accuracy, and the number of images."""
        return float(np.mean([run.accuracy for run in self.results])), self.results[0].count

    @property
    def disgust(self) -> tuple[float, int]:
        """The mean recall of disgust, and the number of images."""
        reports = [run.report["disgust"] for run in self.results]
        return float(np.mean([r["recall"] for r in reports])), int(reports[0]["support"])

    @property
    def accuracy(self) -> str:
        """The mean test accuracy, with the range over seeds, as text."""
        accuracies = [100 * run.accuracy for run in self.results]
        mean = f"{np.mean(accuracies):.1f}%"
        if len(accuracies) == 1:
            return mean
        return f"{mean} ({len(accuracies)} seeds, {min(accuracies):.1f} to {max(accuracies):.1f})"


def judge(results: Sequence[Result]) -> list[Verdict]:
    """Return a verdict on each of the deck's conclusions.

    Only runs without deviations count. Differences of test accuracies have Newcombe's 95% interval
    for independent samples (1998, method 10), which is conservative for the same images.
    """
    found: dict[str, list[Result]] = {}
    for result in representative(results):
        kept = found.setdefault(result.config.name, [])
        same = not kept or (result.on, result.averaging) == (kept[0].on, kept[0].averaging)
        if same and result.sha256 not in {run.sha256 for run in kept}:
            kept.append(result)
    runs = {name: _Runs(kept) for name, kept in found.items()}
    best = max(
        (name for name in _DECK if name in runs), key=lambda n: runs[n].share, default="config4"
    )
    return [
        _underfits(runs),
        _overfits(runs),
        _generalises(runs),
        _better(
            runs,
            "aggressive augmentation and label smoothing are a significant boost (4 over 3)",
            ("config4", "config3"),
        ),
        _better(
            runs, f"VGG19 significantly outperforms the base CNN ({best}, the best)", (best, "base")
        ),
        _better(
            runs,
            "transfer learning is powerful (3, pretrained over random weights)",
            ("config3", "config3-random"),
        ),
        _weights_help(runs),
    ]


def _underfits(runs: Mapping[str, _Runs]) -> Verdict:
    claim = "a frozen backbone underfits (1)"
    if missing := _missing(runs, "config1", "config2"):
        return Verdict(claim, missing, UNMEASURED)
    one, two = runs["config1"], runs["config2"]
    evidence = (
        f"training accuracy {one.training:.0f}%, and {two.training:.0f}% of configuration 2; "
        f"{one.gap:+.0f} points above validation"
    )
    low = one.training < two.training - 2 * _SMALL_GAP
    return Verdict(claim, evidence, HOLDS if low and one.gap < _SMALL_GAP else FAILS)


def _overfits(runs: Mapping[str, _Runs]) -> Verdict:
    claim = "deeper fine-tuning overfits severely (2)"
    if missing := _missing(runs, "config2"):
        return Verdict(claim, missing, UNMEASURED)
    gap = runs["config2"].gap
    evidence = f"training {gap:.0f} points above validation in the last epoch"
    return Verdict(claim, evidence, HOLDS if gap > _LARGE_GAP else FAILS)


def _generalises(runs: Mapping[str, _Runs]) -> Verdict:
    claim = "SGD with a plateau and fewer layers generalises better (3 over 2)"
    found = _better(runs, claim, ("config3", "config2"))
    if found.verdict == UNMEASURED:
        return found
    gaps = [runs[name].gap for name in ("config2", "config3")]
    evidence = f"{found.evidence}; gap of training and validation {gaps[0]:.0f} and {gaps[1]:.0f}"
    smaller = gaps[1] < gaps[0] / 2
    return Verdict(claim, evidence, found.verdict if smaller or found.verdict != HOLDS else FAILS)


def _weights_help(runs: Mapping[str, _Runs]) -> Verdict:
    claim = "class weighting is essential (2, disgust's recall with and without)"
    names = ("config2", "config2-unweighted")
    if missing := _missing(runs, *names):
        return Verdict(claim, missing, UNMEASURED)
    weighted, unweighted = (runs[name] for name in names)
    difference, low, high = _difference(weighted.disgust, unweighted.disgust)
    evidence = (
        f"{weighted.disgust[0]:.0%} and {unweighted.disgust[0]:.0%} of {weighted.disgust[1]} "
        f"images, {difference:+.0f} points [{low:+.0f}, {high:+.0f}]; accuracy "
        f"{weighted.accuracy} and {unweighted.accuracy}"
    )
    return Verdict(claim, evidence, _sign(low, high))


def _better(runs: Mapping[str, _Runs], claim: str, names: tuple[str, str]) -> Verdict:
    """Test whether the first configuration's test accuracy is higher than the second's."""
    if missing := _missing(runs, *names):
        return Verdict(claim, missing, UNMEASURED)
    first, second = (runs[name] for name in names)
    difference, low, high = _difference(first.share, second.share)
    interval = f"{difference:+.1f} points [{low:+.1f}, {high:+.1f}]"
    evidence = f"{first.accuracy} and {second.accuracy}, {interval}"
    return Verdict(claim, evidence, _sign(low, high))


def _missing(runs: Mapping[str, _Runs], *names: str) -> str:
    missing = [name for name in names if name not in runs]
    return f"not trained yet: {', '.join(missing)}" if missing else ""


def _sign(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED


def _difference(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float, float]:
    """Return the difference of two proportions with Newcombe's 95% interval, in points."""
    (p, n), (q, m) = first, second
    (p_low, p_high), (q_low, q_high) = wilson(round(p * n), n), wilson(round(q * m), m)
    low = p - q - np.hypot(p - p_low, q_high - q)
    high = p - q + np.hypot(p_high - p, q - q_low)
    return 100 * (p - q), 100 * float(low), 100 * float(high)
