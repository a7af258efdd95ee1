"""Noisy linear imputation: removed pixels become averages of their neighbours, as ROAD does it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

#: The solver ends where the residual is this part of the right-hand side, or smaller.
_TOLERANCE = 1e-5
#: The most steps, times the image's height and width. Holes need about one for each pixel they are
#: wide, so that reaching it is a fault.
_MOST_STEPS = 20
#: Values of images that a CPU solves at once, one image of 3 x 224 x 224 at least: more leave its
#: cache, and each step takes two to three times as long.
_CACHED = 150_000
#: How many steps run before the residual is read, which waits for an accelerator.
_STEPS_AT_ONCE = 8


@torch.no_grad()
def impute(images: Tensor, removed: Tensor) -> Tensor:
    r"""Replace removed pixels by weighted means of their neighbours, removed ones included.

    Each removed pixel p solves

    .. math:: u_p \sum_q w_{pq} = \sum_q w_{pq} u_q

    over its neighbours q inside the image, with a weight of 1/6 of the four direct ones and of 1/12
    of the diagonal ones; :math:`u_q` of a pixel that is not removed is its own value. Rong et al.,
    "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022
    (arXiv:2202.00449), and their code (tleemann/road_evaluation, imputations.py). The noise that
    they add is :func:`road`'s.

    The images are solved together on their device in float32, by conjugate gradients with Jacobi's
    preconditioner. They begin at means over ever larger squares and end, each image by itself, at
    a relative residual of 1e-5; values are then within about 1e-3 of the exact ones.

    Args:
        images: (M, C, H, W) floating point.
        removed: (M, H, W) bool.

    Returns:
        (M, C, H, W). Pixels that are not removed are unchanged. An image of which no pixel is left
        has nothing to be imputed from, and becomes its mean colour.

    Raises:
        RuntimeError: the solver did not converge.
        TypeError: the images are not in floating point, or ``removed`` is not bool.
        ValueError: signals or volumes, for which the weights are not defined, or shapes that do not
            fit.

    Example:
        >>> row = torch.tensor([[[[0.0, 9.0, 2.0]]]])
        >>> impute(row, torch.tensor([[[False, True, False]]])).round(decimals=3).tolist()
        [[[[0.0, 1.0, 2.0]]]]
    """
    _check(images, removed)
    gone = removed.unsqueeze(1)
    values = images.float()
    left = (~gone).sum(dim=(2, 3), keepdim=True)
    known = values.masked_fill(gone, 0.0)  # what a removed pixel holds, NaN too, plays no part
    middle = known.sum(dim=(2, 3), keepdim=True) / left.clamp(min=1)
    middle = middle.where(left > 0, values.mean(dim=(2, 3), keepdim=True))
    # Values around zero, so that the tolerance is one of the contrast. Without a pixel left all of
    # this is zero: nothing is solved, and the mean colour remains.
    hole = gone.to(values)
    known = (values - middle).masked_fill(gone, 0.0)
    each = len(images)
    if images.device.type == "cpu":
        each = max(1, _CACHED // images[0].numel())
    parts = zip(known.split(each), hole.split(each), strict=True)
    filled = torch.cat([_solve(*part) for part in parts]) + middle
    return images.where(~gone, filled.to(images))


def check_planar(images: Tensor) -> None:
    """Check that images have the two axes that the weights are defined for.

    Raises:
        ValueError: they have not.
    """
    if images.ndim != 4:
        raise ValueError(
            f"expected 2-D images (N, C, H, W) to impute, got {tuple(images.shape)}: on signals "
            "and volumes use deletion or insertion"
        )


def _check(images: Tensor, removed: Tensor) -> None:
    check_planar(images)
    if not images.is_floating_point() or removed.dtype != torch.bool:
        raise TypeError(
            "expected images in floating point and removed pixels as bool, got "
            f"{images.dtype} and {removed.dtype}"
        )
    shape = (len(images), *images.shape[2:])
    if tuple(removed.shape) != shape:
        raise ValueError(
            f"expected removed pixels as (M, H, W) = {shape}, got {tuple(removed.shape)}"
        )


def _solve(known: Tensor, hole: Tensor) -> Tensor:
    """Solve A u = b by conjugate gradients, and return the solution of all pixels.

    A is the sum of a pixel's weights less its neighbours, on the hole: symmetric, and positive
    definite where a pixel is left. b is the neighbours' sum of the known. All weights are times
    twelve: 1 2 1, 2 0 2, 1 2 1. In A the pixel's own weight makes no difference, and in b it is
    that of a zero, so that both are made of 1 2 1, 2 4 2, 1 2 1.

    Args:
        known: (M, C, H, W), zero in the hole.
        hole: (M, 1, H, W), 1 in the hole and 0 elsewhere.
    """
    total = _nine(torch.ones_like(hole[:1]))
    diagonal = total - 4
    goal = hole * _nine(known)
    solution = hole * _means(known, 1 - hole)
    residual = goal - hole * (total * solution - _nine(solution))
    direction = residual / diagonal
    product = _sums(residual * direction)
    # Where the known pixels around the hole are all zero, so is the right-hand side.
    least = _TOLERANCE**2 * _sums(goal.square()).maximum(_sums(residual.square()))
    filled, rows = known.clone(), torch.arange(len(known), device=known.device)
    for step in range(_MOST_STEPS * sum(known.shape[2:]) + 1):
        if step % _STEPS_AT_ONCE == 0:
            # Solved images leave, so that none depends on the others and none waits for them.
            going = (_sums(residual.square()) > least).flatten(1).any(dim=1)
            done = ~going
            filled[rows[done]] += solution[done]
            if not going.any():
                return filled
            if done.any():
                rows, hole, solution, residual, direction, product, least = (
                    part[going]
                    for part in (rows, hole, solution, residual, direction, product, least)
                )
        image = (total * direction).sub_(_nine(direction)).mul_(hole)
        curvature = _sums(direction * image)
        length = product / curvature.where(curvature > 0, 1)
        solution.addcmul_(length, direction)
        residual.addcmul_(length, image, value=-1)
        scaled = residual / diagonal
        before, product = product, _sums(residual * scaled)
        direction.mul_(product / before.where(before > 0, 1)).add_(scaled)
    raise RuntimeError(
        f"the imputation of images of {tuple(known.shape)} did not converge: look for values too "
        "large for float32"
    )


def _nine(values: Tensor) -> Tensor:
    """Return the sum of 3 x 3 pixels, weighted 1 2 1, 2 4 2, 1 2 1; zero beyond the border.

    Each axis' 1 2 1 is two sums of pairs. Sums of slices are faster than a convolution on a CPU,
    and no setting of the user's, such as TF32 or autocast, lowers their precision.

    Args:
        values: (M, C, H, W).

    Example:
        >>> _nine(torch.ones(1, 1, 2, 3)).tolist()
        [[[[9.0, 12.0, 9.0], [9.0, 12.0, 9.0]]]]
    """
    wide = pad(values, (1, 1, 1, 1))
    columns = wide[..., 1:, :] + wide[..., :-1, :]
    columns = columns[..., 1:, :] + columns[..., :-1, :]
    rows = columns[..., 1:] + columns[..., :-1]
    return rows[..., 1:] + rows[..., :-1]


def _means(known: Tensor, weight: Tensor) -> Tensor:
    """Fill holes with the mean of the smallest square of a pyramid that holds a known pixel."""
    if max(known.shape[2:]) == 1:
        return known / weight.where(weight > 0, 1)
    coarse = [
        avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (known, weight)
    ]
    below = interpolate(_means(*coarse), known.shape[2:], mode="bilinear", align_corners=False)
    return (known / weight.where(weight > 0, 1)).where(weight > 0, below)


def _sums(values: Tensor) -> Tensor:
    return values.sum(dim=(2, 3), keepdim=True)
