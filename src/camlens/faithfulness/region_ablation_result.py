"""The result of a region ablation: drops, what chance costs, and how well that is known."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..render.html_tables import each_map, html_table
from ..render.text_tables import text_table

#: How to read the last two columns of a table of region ablation.
READING = (
    "Excess: the drop beyond the mean at random positions; ± is the standard error of that mean. "
    "The last column is the share of these positions where removing the same shape costs less: "
    "a region that matters costs more than nearly all, an arbitrary one more than any share of "
    "them."
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RegionAblation:
    """How much the K scores of N images fall when each of R regions is removed.

    Attributes:
        names: R region names.
        drop: (N, K, R), score of the unchanged image minus score without the region; negative
            if the score rises. NaN if the image does not contain the region, or if inpainting has
            no hole or no surroundings (no pixel of the mask is at least 0.5, or all are).
        baseline: (N, K, R), the mean drop when the same mask is placed at random positions of the
            same image: the cost of removing any area of that size and shape. The positions depend
            on the seed and on the image's index in the batch.
        standard_error: (N, K, R), the standard error of ``baseline``, and so of ``excess``: the
            standard deviation of the drop over the random positions, divided by the square root of
            their number. NaN with one placement.
        exceeds: (N, K, R) in [0, 1], the share of the random positions whose drop is smaller than
            the region's; equal drops count half. Single places differ more from each other than
            their mean is uncertain, so an excess of many standard errors can be ordinary, while
            an arbitrary region exceeds all P positions in one case of P + 1. NaN where ``drop`` is.
        probability_drop: (N, K, R), ``drop`` for the probability of the class; NaN if the model
            has no probability (a callable target, or a single output).
        probability_baseline: (N, K, R), ``baseline`` for the probability.
        probability_standard_error: (N, K, R), ``standard_error`` for the probability.
        infill: how regions were filled: ``"blur"``, ``"mean"`` or ``"inpaint"``.
        targets: (N, K) int64 class ids; -1 if a callable computed the score.
        placements: number of random positions that ``baseline`` averages.
    """

    names: tuple[str, ...]
    drop: Tensor
    baseline: Tensor
    standard_error: Tensor
    exceeds: Tensor
    probability_drop: Tensor
    probability_baseline: Tensor
    probability_standard_error: Tensor
    infill: str
    targets: Tensor
    placements: int

    @property
    def excess(self) -> Tensor:
        """(N, K, R): the drop beyond the baseline.

        Below 0, removing the region costs less than removing the same shape elsewhere, on average.
        Within two ``standard_error`` of 0, another seed may change its sign.
        """
        return self.drop - self.baseline

    @property
    def probability_excess(self) -> Tensor:
        """(N, K, R): ``excess`` for the probability."""
        return self.probability_drop - self.probability_baseline

    def __repr__(self) -> str:
        """Return a one-line summary without the numbers."""
        n, k, _ = self.drop.shape
        return (
            f"RegionAblation({self.infill}: {n} images, {k} targets each, {self.placements} "
            f"placements, regions {', '.join(self.names)})"
        )

    def __str__(self) -> str:
        """Return the summary and a table of the first numbers."""
        return f"{self!r}\n{text_table(*self._table('chance'), missing='absent')}"

    def _repr_html_(self) -> str:
        """Return a table for a notebook: the drop without each region, next to chance."""
        return html_table(
            f"Drop of the score when a region is replaced ({self.infill}). {READING}",
            *self._table(f"mean at {self.placements} random positions (chance)"),
            missing="absent",
        )

    def _table(self, chance: str) -> tuple[list[str], list[list[str | float]]]:
        """Return a header and a row for each image, target and region."""
        columns, names = each_map(self.targets.tolist(), self.names)
        numbers = torch.stack(
            [self.drop, self.baseline, self.excess, self.standard_error, self.exceeds], dim=-1
        )
        rows = [
            [*name, drop, baseline, plus_minus(excess, error), percent(exceeds)]
            for name, (drop, baseline, excess, error, exceeds) in zip(
                names, numbers.flatten(0, 2).tolist(), strict=True
            )
        ]
        return [*columns, "drop", chance, "excess ± standard error", "costs more than"], rows


def plus_minus(excess: float, standard_error: float) -> str:
    """Return an excess with its standard error; empty if there is no excess.

    Example:
        >>> plus_minus(0.3, 0.81), plus_minus(-12.34, math.nan), plus_minus(math.nan, math.nan)
        ('+0.3 ± 0.81', '-12.3 ± ?', '')
    """
    if math.isnan(excess):
        return ""
    return f"{excess:+.3g} ± {'?' if math.isnan(standard_error) else f'{standard_error:.2g}'}"


def percent(exceeds: float) -> str:
    """Return a share of random positions in per cent; empty if it is unknown.

    Example:
        >>> percent(0.9375), percent(math.nan)
        ('94% of places', '')
    """
    return "" if math.isnan(exceeds) else f"{exceeds:.0%} of places"
