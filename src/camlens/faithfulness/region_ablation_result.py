"""The result of a region ablation: drops, what chance costs, and how well that is known."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..render.html_tables import each_map, html_table
from ..render.text_tables import text_table

#: How to read the columns of :func:`plus_minus` and :func:`against_chance`.
READING = (
    "Below chance: removing the region costs less than removing the same shape elsewhere. "
    "Inconclusive: the excess is within two standard errors of 0; more placements may decide."
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
    probability_drop: Tensor
    probability_baseline: Tensor
    probability_standard_error: Tensor
    infill: str
    targets: Tensor
    placements: int

    @property
    def excess(self) -> Tensor:
        """(N, K, R): the drop beyond the baseline.

        Below 0, removing the region costs less than removing the same shape elsewhere. Within two
        ``standard_error`` of 0 it is inconclusive: another seed may change its sign.
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
        numbers = torch.stack([self.drop, self.baseline, self.excess, self.standard_error], dim=-1)
        rows = [
            [*name, drop, baseline, plus_minus(excess, error), against_chance(excess, error)]
            for name, (drop, baseline, excess, error) in zip(
                names, numbers.flatten(0, 2).tolist(), strict=True
            )
        ]
        return [*columns, "drop", chance, "excess ± standard error", "against chance"], rows


def plus_minus(excess: float, standard_error: float) -> str:
    """Return an excess with its standard error; empty if there is no excess.

    Example:
        >>> plus_minus(0.3, 0.81), plus_minus(-12.34, math.nan), plus_minus(math.nan, math.nan)
        ('+0.3 ± 0.81', '-12.3 ± ?', '')
    """
    if math.isnan(excess):
        return ""
    return f"{excess:+.3g} ± {'?' if math.isnan(standard_error) else f'{standard_error:.2g}'}"


def against_chance(excess: float, standard_error: float) -> str:
    """Compare a drop with chance: "above", "below", or "inconclusive"; empty if there is none.

    Example:
        >>> against_chance(0.3, 0.1), against_chance(-0.3, 0.1), against_chance(0.3, 0.8)
        ('above', 'below', 'inconclusive')
    """
    if math.isnan(excess):
        return ""
    if not abs(excess) > 2 * standard_error:  # nor with a single placement, whose error is NaN
        return "inconclusive"
    return "above" if excess > 0 else "below"
