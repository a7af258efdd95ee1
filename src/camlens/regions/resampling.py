"""What scipy's resampling says of images by regions: intervals and p-values.

Images are drawn, and each brings its values of all regions along. scipy is therefore handed
the images' places instead of their values, and a draw's sum is a matrix product: how often it
holds each image, times the values. The result is that of a call for each region with the same
draws, several times as fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Draws times images that are held at once: some 100 MB.
_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampling:
    """How to resample.

    Each call starts at the seed, so that a group's numbers do not depend on the groups before it.

    Attributes:
        resamples: how many draws.
        seed: of the draws.
        confidence: of intervals, in (0, 1).
        least: of how many images at least an interval or a p-value is given.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> low, high = Resampling(resamples=100, seed=0).mean(np.full((5, 1), 3.0))
        >>> float(low[0]), float(high[0])
        (3.0, 3.0)
    """

    resamples: int
    seed: int
    confidence: float = 0.95
    least: int = 10

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.resamples < 1 or self.least < 2 or not 0 < self.confidence < 1:
            raise ValueError(
                "expected resamples of at least 1, least of at least 2 and a confidence in (0, 1), "
                f"got {self.resamples}, {self.least} and {self.confidence}"
            )

    def mean(self, values: Array) -> Array:
        """Bound the mean over images: (n, R) values to (2, R), low and high."""
        return self._interval(lambda index: _sums(index, values) / len(values), len(values))

    def lift(self, values: Array, rest: Array) -> Array:
        """Bound the ratio of a group's mean to the mean of the group and the rest together.

        The two are drawn separately, each at its own size. A draw that is zero throughout has
        a ratio of 1: neither has more than the other.

        Args:
            values: (n, R) of the group, not negative.
            rest: (m, R) of all others.

        Returns:
            (2, R), low and high.
        """
        n, m = len(values), len(rest)

        def ratio(index: Array, others: Array) -> Array:
            own = _sums(index, values)
            pooled = (own + _sums(others, rest)) / (n + m)
            found: Array = np.where(pooled > 0, own / n / np.where(pooled > 0, pooled, 1), 1.0)
            return found

        return self._interval(ratio, n, m)

    def difference(self, a: Array, b: Array) -> Array:
        """Bound the difference of two groups' means: (n, R) and (m, R) to (2, R)."""
        return self._interval(
            lambda i, j: _sums(i, a) / len(a) - _sums(j, b) / len(b), len(a), len(b)
        )

    def p_of_groups(self, a: Array, b: Array) -> Array:
        """Test whether two groups differ in the mean: images change groups.

        Args:
            a: (n, R) of one group.
            b: (m, R) of the other.

        Returns:
            (R,) two-sided p-values.
        """
        values = np.concatenate([a, b])
        values = values - values[0]  # what is the same everywhere is then exactly 0
        total = values.sum(axis=0)

        def difference(index: Array, _: Array, axis: int) -> Array:
            own = _sums(index, values)  # and the other group has what is left
            found: Array = own / len(a) - (total - own) / len(b)
            return found

        places = np.arange(len(values))
        return self._p((places[: len(a)], places[len(a) :]), difference, "independent", len(values))

    def p_of_pairs(self, differences: Array) -> Array:
        """Test whether paired differences are zero in the mean: pairs change signs.

        Args:
            differences: (n, R), a row for each image.

        Returns:
            (R,) two-sided p-values.
        """
        n = len(differences)

        def mean(signs: Array, axis: int) -> Array:
            found: Array = signs @ differences / n
            return found

        return self._p((np.ones(n),), mean, "samples", 4 * n)

    def _interval(self, statistic: Callable[..., Array], *sizes: int) -> Array:
        from scipy import stats

        found = stats.bootstrap(
            tuple(np.arange(size) for size in sizes),
            # Draws come first here and last in scipy.
            lambda *index, axis: np.moveaxis(statistic(*index), 0, -1),
            n_resamples=self.resamples,
            batch=max(1, _AT_ONCE // sum(sizes)),
            vectorized=True,
            confidence_level=self.confidence,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        )
        return np.stack(found.confidence_interval)

    def _p(
        self, samples: tuple[Array, ...], statistic: Callable[..., Array], kind: str, size: int
    ) -> Array:
        from scipy import stats

        found = stats.permutation_test(
            samples,
            statistic,
            permutation_type=kind,
            n_resamples=self.resamples,
            batch=max(1, _AT_ONCE // size),
            vectorized=True,
            rng=np.random.default_rng(self.seed),
        )
        p: Array = found.pvalue
        return p


def corrected(p: Array) -> Array:
    """Correct p-values for their number, after Benjamini and Hochberg 1995.

    Args:
        p: (tests,), NaN where there was no test.

    Returns:
        (tests,): those below q hold, in the mean, at most a part q of false discoveries.

    Example:
        >>> corrected(np.array([0.01, np.nan, 0.04])).tolist()
        [0.02, nan, 0.04]
    """
    from scipy import stats

    done = np.isfinite(p)
    found = np.full(p.shape, np.nan)
    if done.any():
        found[done] = stats.false_discovery_control(p[done], method="bh")
    return found


def _sums(index: Array, values: Array) -> Array:
    """Sum the rows that each draw holds: (draws, n) places of (images, R) values to (draws, R).

    Places of one draw alone, (n,), give (R,).
    """
    rows = np.atleast_2d(index)
    first = np.arange(len(rows))[:, None] * len(values)
    counts = np.bincount((rows + first).ravel(), minlength=len(rows) * len(values))
    found: Array = counts.reshape(len(rows), -1).astype(np.float64) @ values
    return found if index.ndim > 1 else found[0]
