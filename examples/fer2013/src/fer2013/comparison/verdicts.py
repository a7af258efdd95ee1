"""What the slide deck concludes, beside what was measured here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..data.faces import CLASSES
from ..evaluation.accuracy import wilson
from .results import Result, representative

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "cannot be told"
UNMEASURED = "unmeasured"

# Points between the training and the validation accuracy of the last epoch.
_SMALL_GAP, _LARGE_GAP = 5.0, 15.0

_DECK = ("config1", "config2", "config3", "config4")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One conclusion of the deck.

    Attributes:
        claim: in the deck's words.
        evidence: the numbers, and what they are of.
        verdict: :data:`HOLDS`, :data:`FAILS`, :data:`UNDECIDED` where an interval has both signs,
            or :data:`UNMEASURED`.
    """

    claim: str
    evidence: str
    verdict: str

    @property
    def words(self) -> str:
        """Return all of it in a line."""
        return f"{self.verdict:<15} {self.claim}: {self.evidence}"


@dataclasses.dataclass(frozen=True)
class _Runs:
    """A configuration's runs on one test set, one for each seed.

    Attributes:
        accuracies: of each run, in [0, 1].
        gaps: training minus validation accuracy of each run's last epoch, in points.
        training: of each run's last epoch, in percent.
        faces: of the test set.
        of_disgust: in how many of the faces of disgust the runs were right, on average; and faces.
    """

    accuracies: list[float]
    gaps: list[float]
    training: list[float]
    faces: int
    of_disgust: tuple[float, int]

    @property
    def share(self) -> tuple[float, int]:
        """Return the mean accuracy, and the faces."""
        return float(np.mean(self.accuracies)), self.faces

    @property
    def gap(self) -> float:
        """Return the mean gap."""
        return float(np.mean(self.gaps))

    @property
    def accuracy(self) -> str:
        """Return the accuracy in words, with the range over seeds."""
        mean = f"{100 * np.mean(self.accuracies):.1f}%"
        if len(self.accuracies) == 1:
            return mean
        low, high = (100 * f(self.accuracies) for f in (min, max))
        return f"{mean} ({len(self.accuracies)} seeds, {low:.1f} to {high:.1f})"


def judge(results: Sequence[Result]) -> list[Verdict]:
    """Set each of the deck's conclusions beside the figures.

    Runs that follow their configuration count, pretrained on whichever photographs. Differences are
    between test accuracies on the same faces, with Newcombe's 95% interval for independent samples
    (1998, method 10), which is wide for the same faces.

    Args:
        results: as :func:`fer2013.comparison.results.collect` returns them.
    """
    runs = _by_configuration(results)
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


def _by_configuration(results: Sequence[Result]) -> dict[str, _Runs]:
    """Return each configuration's runs on the first choice of its test sets."""
    found: dict[str, list[Result]] = {}
    for result in representative(results):
        kept = found.setdefault(result.config.name, [])
        same = not kept or (result.on, result.averaging) == (kept[0].on, kept[0].averaging)
        if same and result.sha256 not in {run.sha256 for run in kept}:
            kept.append(result)
    return {name: _runs(kept) for name, kept in found.items()}


def _runs(kept: list[Result]) -> _Runs:
    last = [run.facts.get("last_epoch", {}) for run in kept]
    training = [100 * epoch.get("train_accuracy", np.nan) for epoch in last]
    validation = [100 * epoch.get("val_accuracy", np.nan) for epoch in last]
    disgust = kept[0].report[CLASSES[1]]
    recall = float(np.mean([run.report[CLASSES[1]]["recall"] for run in kept]))
    return _Runs(
        [run.accuracy for run in kept],
        [a - b for a, b in zip(training, validation, strict=True)],
        training,
        kept[0].count,
        (recall, int(disgust["support"])),
    )


def _underfits(runs: Mapping[str, _Runs]) -> Verdict:
    claim = "a frozen backbone underfits (1)"
    if not {"config1", "config2"} <= runs.keys():
        return Verdict(claim, "configurations 1 and 2 are to be trained", UNMEASURED)
    one, two = runs["config1"], runs["config2"]
    evidence = (
        f"training {np.mean(one.training):.0f}% where configuration 2 reaches "
        f"{np.mean(two.training):.0f}%; gap to validation {one.gap:+.0f} points"
    )
    low = np.mean(one.training) < np.mean(two.training) - 2 * _SMALL_GAP
    return Verdict(claim, evidence, HOLDS if low and one.gap < _SMALL_GAP else FAILS)


def _overfits(runs: Mapping[str, _Runs]) -> Verdict:
    claim = "deeper fine-tuning overfits severely (2)"
    if "config2" not in runs:
        return Verdict(claim, "configuration 2 is to be trained", UNMEASURED)
    gap = runs["config2"].gap
    evidence = f"training is {gap:.0f} points above validation in the last epoch"
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
    with_, without = "config2", "config2-unweighted"
    if not {with_, without} <= runs.keys():
        return Verdict(claim, f"{with_} and {without} are to be trained", UNMEASURED)
    shares = runs[with_].of_disgust, runs[without].of_disgust
    difference, low, high = _difference(*shares)
    evidence = (
        f"{shares[0][0]:.0%} and {shares[1][0]:.0%} of {shares[0][1]} faces, "
        f"{difference:+.0f} points [{low:+.0f}, {high:+.0f}]; accuracy {runs[with_].accuracy} and "
        f"{runs[without].accuracy}"
    )
    return Verdict(claim, evidence, _sign(low, high))


def _better(runs: Mapping[str, _Runs], claim: str, names: tuple[str, str]) -> Verdict:
    """Return whether the first configuration's test accuracy is above the second's."""
    if missing := [name for name in names if name not in runs]:
        return Verdict(claim, f"{' and '.join(missing)} to be trained", UNMEASURED)
    first, second = (runs[name] for name in names)
    difference, low, high = _difference(first.share, second.share)
    interval = f"{difference:+.1f} points [{low:+.1f}, {high:+.1f}]"
    evidence = f"{first.accuracy} and {second.accuracy}, {interval}"
    return Verdict(claim, evidence, _sign(low, high))


def _sign(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED


def _difference(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float, float]:
    """Return the difference of two proportions with Newcombe's 95% interval, in points."""
    (p, n), (q, m) = first, second
    (p_low, p_high), (q_low, q_high) = wilson(round(p * n), n), wilson(round(q * m), m)
    low = p - q - np.hypot(p - p_low, q_high - q)
    high = p - q + np.hypot(p_high - p, q - q_low)
    return 100 * (p - q), 100 * float(low), 100 * float(high)
