"""Confidence intervals and p-values of means, by scipy's bootstrap and permutation tests.

The resampled unit is the image, with its values for all regions. scipy therefore resamples the
images' indices, and the sum over a resample is a matrix product: the number of times that each
image occurs in it, times the values. The result equals that of one call per region with the same
resamples, in a fraction of the time.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Largest number of resamples times images in memory at once: about 100 MB.
_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampling:
    """Bootstrap intervals and permutation tests with fixed options.

    Each call starts at the seed, so that a group's numbers do not depend on other groups.

    Attributes:
        resamples: number of resamples.
        seed: seed of the resamples.
        confidence: level of intervals, in (0, 1).
        min_images: smallest group for which an interval or a p-value is computed.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> low, high = Resampling(resamples=100, seed=0).mean(np.full((5, 1), 3.0))
        >>> float(low[0]), float(high[0])
        (3.0, 3.0)
    """

    resamples: int
    seed: int
    confidence: float = 0.95
    min_images: int = 10

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.resamples < 1 or self.min_images < 2 or not 0 < self.confidence < 1:
            raise ValueError(
                "expected resamples of at least 1, min_images of at least 2 and a confidence in "
                f"(0, 1), got {self.resamples}, {self.min_images} and {self.confidence}"
            )

    def mean(self, values: Array) -> Array:
        """Return the (2, R) interval, low and high, of the mean over images of (n, R) values."""
        return self._interval(lambda index: _sums(index, values) / len(values), len(values))

    def above(self, values: Array, others: Array) -> Array:
        """Return the interval of a mean minus the largest of other means, on the same images.

        Args:
            values: (n, 1).
            others: (n, R), values of R others; the largest is chosen anew in each resample.

        Returns:
            (2,), low and high.

        Example:
            >>> pairs = np.full((5, 1), 3.0), np.full((5, 2), 1.0)
            >>> Resampling(resamples=100, seed=0).above(*pairs).tolist()
            [2.0, 2.0]
        """

        def margin(index: Array) -> Array:
            largest: Array = _sums(index, others).max(axis=-1)
            return (_sums(index, values)[..., 0] - largest) / len(values)

        return self._interval(margin, len(values))

    def lift(self, values: Array, rest: Array) -> Array:
        """Return the interval of a group's mean divided by the mean of the group and the rest.

        Group and rest are resampled separately, each at its own size. A resample of zeros has a
        ratio of 1: neither part has more than the other.

        Args:
            values: (n, R), values of the group, not negative.
            rest: (m, R), values of all others.

        Returns:
            (2, R), low and high.
        """
        n, m = len(values), len(rest)

        def ratio(index: Array, rest_index: Array) -> Array:
            group = _sums(index, values)
            pooled = (group + _sums(rest_index, rest)) / (n + m)
            ratios: Array = np.where(pooled > 0, group / n / np.where(pooled > 0, pooled, 1), 1.0)
            return ratios

        return self._interval(ratio, n, m)

    def difference(self, a: Array, b: Array) -> Array:
        """Return the interval of the difference of two groups' means: (n, R), (m, R) to (2, R)."""
        return self._interval(
            lambda i, j: _sums(i, a) / len(a) - _sums(j, b) / len(b), len(a), len(b)
        )

    def p_of_groups(self, a: Array, b: Array) -> Array:
        """Test whether two groups differ in their means, by permuting images between them.

        Args:
            a: (n, R), values of one group.
            b: (m, R), values of the other.

        Returns:
            (R,) two-sided p-values.
        """
        values = np.concatenate([a, b])
        values = values - values[0]  # constant values become exactly 0
        total = values.sum(axis=0)

        def difference(index: Array, _: Array, axis: int) -> Array:
            first = _sums(index, values)  # the second group's sum is the remainder
            differences: Array = first / len(a) - (total - first) / len(b)
            return differences

        images = np.arange(len(values))
        return self._p((images[: len(a)], images[len(a) :]), difference, "independent", len(values))

    def p_of_pairs(self, differences: Array) -> Array:
        """Test whether paired differences have a mean of zero, by flipping their signs.

        Args:
            differences: (n, R), a row for each image.

        Returns:
            (R,) two-sided p-values.
        """
        n = len(differences)

        def mean(signs: Array, axis: int) -> Array:
            means: Array = signs @ differences / n
            return means

        return self._p((np.ones(n),), mean, "samples", 4 * n)

    def _interval(self, statistic: Callable[..., Array], *sizes: int) -> Array:
        result = _stats().bootstrap(
            tuple(np.arange(size) for size in sizes),
            # Resamples are the first axis here and the last in scipy.
            lambda *index, axis: np.moveaxis(statistic(*index), 0, -1),
            n_resamples=self.resamples,
            batch=max(1, _AT_ONCE // sum(sizes)),
            vectorized=True,
            confidence_level=self.confidence,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        )
        return np.stack(result.confidence_interval)

    def _p(
        self, samples: tuple[Array, ...], statistic: Callable[..., Array], kind: str, size: int
    ) -> Array:
        result = _stats().permutation_test(
            samples,
            statistic,
            permutation_type=kind,
            n_resamples=self.resamples,
            batch=max(1, _AT_ONCE // size),
            vectorized=True,
            rng=np.random.default_rng(self.seed),
        )
        p: Array = result.pvalue
        return p


def corrected(p: Array) -> Array:
    """Correct p-values for multiple tests (Benjamini and Hochberg 1995).

    Args:
        p: (tests,), NaN for missing tests.

    Returns:
        (tests,): rejecting those below q keeps the expected false discovery rate at or below q.

    Example:
        >>> corrected(np.array([0.01, np.nan, 0.04])).tolist()
        [0.02, nan, 0.04]
    """
    tested = np.isfinite(p)
    adjusted = np.full(p.shape, np.nan)
    if tested.any():
        adjusted[tested] = _stats().false_discovery_control(p[tested], method="bh")
    return adjusted


def _stats() -> Any:
    """Return scipy.stats, which is loaded when it is first used."""
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise ImportError(
            f'intervals and p-values need scipy: pip install "camlens[metrics]" ({error})'
        ) from error


def _sums(index: Array, values: Array) -> Array:
    """Sum the values of each resample: (resamples, n) indices of (images, R) to (resamples, R).

    Indices of a single resample, (n,), give (R,).
    """
    rows = np.atleast_2d(index)
    first = np.arange(len(rows))[:, None] * len(values)
    counts = np.bincount((rows + first).ravel(), minlength=len(rows) * len(values))
    sums: Array = counts.reshape(len(rows), -1).astype(np.float64) @ values
    return sums if index.ndim > 1 else sums[0]
