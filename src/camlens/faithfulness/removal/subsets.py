"""Metrics that compare the heat of random sets of pixels with the score's drop without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ...baselines import Baseline, baseline_images, check_baseline
from ...explanation import Explanation
from ...options import each_axis, integer
from ..metric.inputs import MetricInputs
from ..metric.options import MetricOptions
from ..metric.result import MetricResult

#: A relative change of the score up to this value is rounding.
ROUNDING = 1e-6


def mu_fidelity(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    subsets: int = 100,
    share: float = 0.2,
    grid: int | Sequence[int] = 9,
    baseline: Baseline = 0.0,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Correlate the attributions in random subsets with the score's drop when they are removed.

    .. math:: \mu = \mathrm{corr}_S \Big(\sum_{p \in S} a_p,\; f(x) - f(x_{S \to b})\Big)

    Pearson's correlation over subsets of fixed size: Bhatt, Weller and Moura, "Evaluating and
    Aggregating Feature-based Model Explanations", IJCAI 2020 (arXiv:2005.00631), definition 3.
    A subset contains cells of a grid, since single pixels hardly change a photograph's score. All
    maps and floors are measured on the same subsets.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of the images, whose signed attributions are used if it has any
            (:meth:`MetricInputs.attributions`), or maps (N, K, *size) from any source.
        subsets: number of subsets, at least 3. Each takes a forward pass of each image.
        share: share of the cells in a subset, in (0, 1).
        grid: number of cells along each axis, one number for all axes or one for each.
        baseline: replacement for removed pixels, see :func:`deletion`.
        options: see :class:`MetricOptions`.

    Returns:
        Values in [-1, 1], higher is better, and their ``standard_error`` by the jackknife over
        subsets. NaN for a constant map, for which all subsets have the same sum, and if the score
        changes only by rounding, about 1e-6 of itself.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.

    Example:
        For a linear model, inputs times weights give the exact drops.

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 1)).eval()
        >>> images = torch.rand(1, 1, 3, 3)
        >>> attributions = images * model[1].weight.detach().view(1, 1, 3, 3)
        >>> found = mu_fidelity(
        ...     model, images, attributions, grid=3, share=0.4, activation="none", floors=()
        ... )
        >>> round(found.mean, 3)
        1.0
    """
    inputs = MetricInputs("mu_fidelity", model, images, explanation, **options)
    start, chosen, drops, cells = _without_subsets(inputs, baseline, subsets, share, grid)

    def sums(maps: Tensor) -> Tensor:
        return torch.einsum("nsc,nmc->nms", chosen.double(), _cell_sums(maps, cells))

    def correlated(maps: Tensor) -> tuple[Tensor, Tensor]:
        # Otherwise cells of different sizes would give a constant map a correlation by their areas.
        constant = (maps.flatten(2).amax(dim=2) == maps.flatten(2).amin(dim=2)).unsqueeze(2)
        value, error = _correlation(sums(maps).where(~constant, 0), drops)
        moved = drops.double().std(dim=2) > ROUNDING * inputs.unchanged.abs()
        return value.where(moved, torch.nan), error.where(moved, torch.nan)

    attributions = inputs.attributions(start)
    result = inputs.result(
        lambda maps: correlated(maps)[0], better="higher", attributions=attributions
    )
    return dataclasses.replace(result, standard_error=correlated(attributions)[1].float())


def infidelity(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation | Tensor,
    *,
    subsets: int = 100,
    share: float = 0.2,
    grid: int | Sequence[int] = 9,
    baseline: Baseline = 0.0,
    normalize: bool = True,
    **options: Unpack[MetricOptions],
) -> MetricResult:
    r"""Measure the squared error of attributions as predictions of the score's drop.

    .. math:: \mathrm{INFD} = E_I \big[(I^T \Phi - (f(x) - f(x - I)))^2\big]

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019
    (arXiv:1901.09392). The change I replaces a random subset of a grid's cells with the baseline;
    each subset is drawn independently. :math:`I^T \Phi` is then the sum of the attributions in the
    subset.

    Args:
        model: in evaluation mode; it is left unchanged.
        images: (N, C, *size), as the model takes them.
        explanation: see :func:`mu_fidelity`, also for the arguments below.
        subsets: number of subsets, at least 3.
        share: share of the cells in a subset.
        grid: number of cells along each axis.
        baseline: replacement for removed pixels.
        normalize: whether to first multiply each map by the factor of at least 0 that minimises
            its infidelity; a negative factor would reward a map of the opposite sign. Without it,
            only maps in the score's unit can be compared, and a heatmap's unit is arbitrary.
        options: see :class:`MetricOptions`.

    Returns:
        Values of at least 0 in the squared unit of the tracked score, lower is better, and their
        ``standard_error``. A map of zeros, and with ``normalize`` any map that is no better, has
        the mean squared drop.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the arguments do not match, see :class:`MetricInputs`.
    """
    inputs = MetricInputs("infidelity", model, images, explanation, **options)
    start, chosen, drops, cells = _without_subsets(inputs, baseline, subsets, share, grid)

    def squares_of(maps: Tensor) -> Tensor:
        attributed = torch.einsum("nsc,nmc->nms", chosen.double(), _cell_sums(maps, cells))
        lost = drops.double()
        factor = torch.ones((), dtype=torch.float64, device=attributed.device)
        if normalize:
            squares = attributed.square().sum(dim=2, keepdim=True)
            factor = (attributed * lost).sum(dim=2, keepdim=True) / squares.where(squares > 0, 1)
        return (factor.clamp(min=0) * attributed - lost).square()

    attributions = inputs.attributions(start)
    result = inputs.result(
        lambda maps: squares_of(maps).mean(dim=2), better="lower", attributions=attributions
    )
    error = squares_of(attributions).std(dim=2) / chosen.shape[1] ** 0.5
    return dataclasses.replace(result, standard_error=error.float())


def _without_subsets(
    inputs: MetricInputs,
    baseline: Baseline,
    subsets: int,
    share: float,
    grid: int | Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the baseline as images and the results of :func:`_removed`, shared by all maps."""
    start = baseline_images(check_baseline(baseline), inputs.images)
    options = inputs.options
    drawn = [options.seed, options.first, subsets, share, grid]
    removed = inputs.shared.once(
        "without subsets",
        [inputs.probe, options.activation, baseline, *drawn],
        lambda: _removed(inputs, start, subsets, share, grid),
    )
    return start, *removed


def _removed(
    inputs: MetricInputs,
    start: Tensor,
    subsets: int,
    share: float,
    grid: int | Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Score the images without random subsets of a grid's cells.

    Returns:
        The cells in each subset, (N, S, cells) bool; the score's drops, (N, K, S); and the cell of
        each pixel, (*size) int64.
    """
    images = inputs.images
    size, n = images.shape[2:], len(images)
    integer("subsets", subsets, least=3)
    if not 0 < share < 1:
        raise ValueError(f"expected a share of the cells in (0, 1), got {share!r}")
    shape = [min(pair) for pair in zip(each_axis("grid", grid, tuple(size)), size, strict=True)]
    number = torch.zeros((), dtype=torch.int64, device=images.device)
    for length, count in zip(size, shape, strict=True):
        places = torch.arange(length, device=images.device) * count // length
        number = number.unsqueeze(-1) * count + places
    cells = int(number.max()) + 1
    several = round(share * cells)
    if not 0 < several < cells:
        raise ValueError(
            f"expected a share that covers at least one of the grid's {cells} cells and not all, "
            f"got {share!r}"
        )
    chosen = torch.zeros(n, subsets, cells, dtype=torch.bool, device="cpu")
    for row, seed in enumerate(inputs.seeds.tolist()):
        generator = torch.Generator("cpu").manual_seed(seed)
        drawn = torch.rand(subsets, cells, generator=generator, device="cpu", dtype=torch.float32)
        order = drawn.argsort(dim=1)[:, :several]
        chosen[row].scatter_(1, order, True)
    chosen = chosen.to(images.device)
    rows = torch.arange(n * subsets, device=images.device)
    flat = chosen.flatten(0, 1)

    def make(part: slice) -> Tensor:
        image = rows[part] // subsets
        gone = flat[rows[part]][:, number].unsqueeze(1)
        return start[image].where(gone, images[image])

    without = inputs.scores(make, rows // subsets).unflatten(0, (n, subsets))
    drops = (inputs.unchanged.unsqueeze(1) - without).transpose(1, 2)
    return chosen, drops, number


def _cell_sums(maps: Tensor, cells: Tensor) -> Tensor:
    """Sum maps within cells: (N, M, *size) to (N, M, cells) float64, as sums may be large."""
    sums = maps.new_zeros(*maps.shape[:2], int(cells.max()) + 1, dtype=torch.float64)
    return sums.index_add_(2, cells.flatten(), maps.flatten(2).double())


def _correlation(attributed: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """Return Pearson's correlation along the last axis and its jackknife standard error."""
    x, y = attributed.double(), lost.double()
    count = x.shape[2]
    flat_x, flat_y = (v.std(dim=2) <= 1e-6 * v.abs().amax(dim=2) for v in (x, y))
    x, y = x - x.mean(dim=2, keepdim=True), y - y.mean(dim=2, keepdim=True)
    x, y = torch.broadcast_tensors(x, y)

    terms = {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}
    whole = {name: value.sum(dim=2, keepdim=True) for name, value in terms.items()}

    def ratio(sums: dict[str, Tensor], n: int) -> Tensor:
        covariance = sums["xy"] - sums["x"] * sums["y"] / n
        spread = (sums["xx"] - sums["x"] ** 2 / n) * (sums["yy"] - sums["y"] ** 2 / n)
        return covariance / spread.clamp(min=0).sqrt()

    value = ratio(whole, count).squeeze(2)
    others = ratio({name: whole[name] - terms[name] for name in terms}, count - 1)
    error = ((others - others.mean(dim=2, keepdim=True)).square().mean(dim=2) * (count - 1)).sqrt()
    undefined = flat_x | flat_y
    return value.clamp(-1, 1).where(~undefined, torch.nan), error.where(~undefined, torch.nan)
