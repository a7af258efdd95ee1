"""Noisy linear imputation: replace removed pixels with averages of their neighbours, as in ROAD."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

#: The solver stops when the residual is at most this fraction of the right-hand side.
_TOLERANCE = 1e-5
#: The largest number of steps, in units of the image's height plus width. A hole needs about one
#: step for each pixel of its width, so reaching the limit is an error.
_MOST_STEPS = 20
#: Number of values that a CPU solves at once, about one image of 3 x 224 x 224: more do not fit
#: into its cache, and each step takes two to three times as long.
_CACHED = 150_000
#: Number of steps between reads of the residual, each of which synchronises an accelerator.
_STEPS_AT_ONCE = 8


@torch.no_grad()
def impute(images: Tensor, removed: Tensor) -> Tensor:
    r"""Replace removed pixels with weighted means of their neighbours, removed ones included.

    Each removed pixel p solves

    .. math:: u_p \sum_q w_{pq} = \sum_q w_{pq} u_q

    over its neighbours q inside the image. The weight is 1/6 for the four direct neighbours and
    1/12 for the diagonal ones; :math:`u_q` of a pixel that is not removed is its own value. Rong et
    al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022
    (arXiv:2202.00449), and their code (tleemann/road_evaluation, imputations.py). :func:`road` adds
    the noise.

    The images are solved together on their device in float32, by conjugate gradients with Jacobi's
    preconditioner. The initial values are means over increasingly large squares. Each image stops
    at a relative residual of 1e-5; its values are then within about 1e-3 of the exact solution.

    Args:
        images: (M, C, H, W) floating point.
        removed: (M, H, W) bool.

    Returns:
        (M, C, H, W). Pixels that are not removed are unchanged. An image without remaining pixels
        is replaced by its mean colour.

    Raises:
        RuntimeError: the solver did not converge.
        TypeError: the images are not floating point, or ``removed`` is not bool.
        ValueError: the images are signals or volumes, for which the weights are not defined, or the
            shapes do not match.

    Example:
        >>> row = torch.tensor([[[[0.0, 9.0, 2.0]]]])
        >>> impute(row, torch.tensor([[[False, True, False]]])).round(decimals=3).tolist()
        [[[[0.0, 1.0, 2.0]]]]
    """
    _check(images, removed)
    gone = removed.unsqueeze(1)
    values = images.float()
    left = (~gone).sum(dim=(2, 3), keepdim=True)
    known = values.masked_fill(gone, 0.0)  # removed values, even NaN, must have no effect
    middle = known.sum(dim=(2, 3), keepdim=True) / left.clamp(min=1)
    middle = middle.where(left > 0, values.mean(dim=(2, 3), keepdim=True))
    # Centred at zero, so that the tolerance is relative to the contrast. Without remaining pixels
    # all values are zero: nothing is solved, and the mean colour remains.
    hole = gone.to(values)
    known = (values - middle).masked_fill(gone, 0.0)
    each = len(images)
    if images.device.type == "cpu":
        each = max(1, _CACHED // images[0].numel())
    parts = zip(known.split(each), hole.split(each), strict=True)
    filled = torch.cat([_solve(*part) for part in parts]) + middle
    return images.where(~gone, filled.to(images))


def check_planar(images: Tensor) -> None:
    """Check that images are 2-D, since the weights are not defined for signals and volumes.

    Raises:
        ValueError: the images are not 2-D.
    """
    if images.ndim != 4:
        raise ValueError(
            f"expected 2-D images (N, C, H, W) to impute, got {tuple(images.shape)}: for signals "
            "and volumes use deletion or insertion"
        )


def _check(images: Tensor, removed: Tensor) -> None:
    check_planar(images)
    if not images.is_floating_point() or removed.dtype != torch.bool:
        raise TypeError(
            "expected floating-point images and removed pixels as bool, got "
            f"{images.dtype} and {removed.dtype}"
        )
    shape = (len(images), *images.shape[2:])
    if tuple(removed.shape) != shape:
        raise ValueError(
            f"expected removed pixels as (M, H, W) = {shape}, got {tuple(removed.shape)}"
        )


def _solve(known: Tensor, hole: Tensor) -> Tensor:
    """Solve A u = b by conjugate gradients, and return the values of all pixels.

    On the hole, A u is the sum of a pixel's weights times u minus the weighted sum of its
    neighbours. A is symmetric, and positive definite if any pixel remains. b is the weighted sum
    of the known neighbours. All weights are multiplied by twelve: 1 2 1, 2 0 2, 1 2 1. The centre
    weight cancels in A and multiplies a zero in b, so both use 1 2 1, 2 4 2, 1 2 1.

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
    # If all known pixels around the hole are zero, the right-hand side is zero too.
    least = _TOLERANCE**2 * _sums(goal.square()).maximum(_sums(residual.square()))
    filled, rows = known.clone(), torch.arange(len(known), device=known.device)
    for step in range(_MOST_STEPS * sum(known.shape[2:]) + 1):
        if step % _STEPS_AT_ONCE == 0:
            # Solved images are removed, so that no image depends on the others.
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
        f"the imputation of images of shape {tuple(known.shape)} did not converge: check for "
        "values too large for float32"
    )


def _nine(values: Tensor) -> Tensor:
    """Return the sum over 3 x 3 pixels with weights 1 2 1, 2 4 2, 1 2 1 and zero padding.

    Along each axis, 1 2 1 is two sums of pairs. Sums of slices are faster than a convolution on a
    CPU, and user settings such as TF32 or autocast do not lower their precision.

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
    """Fill holes with the mean of the smallest pyramid square that contains a known pixel."""
    if max(known.shape[2:]) == 1:
        return known / weight.where(weight > 0, 1)
    coarse = [
        avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (known, weight)
    ]
    below = interpolate(_means(*coarse), known.shape[2:], mode="bilinear", align_corners=False)
    return (known / weight.where(weight > 0, 1)).where(weight > 0, below)


def _sums(values: Tensor) -> Tensor:
    return values.sum(dim=(2, 3), keepdim=True)
