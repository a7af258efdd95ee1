"""Noisy linear imputation: removed pixels become averages of their neighbours, as ROAD does it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate

#: Weights of direct and diagonal neighbours.
_DIRECT, _DIAGONAL = 1 / 6, 1 / 12

#: The solver ends where the residual is this part of the right-hand side, or smaller.
_TOLERANCE = 1e-4
_MOST_STEPS = 2000
#: How many steps run before the residual is read, which waits for an accelerator.
_STEPS_AT_ONCE = 8


def impute(images: Tensor, removed: Tensor) -> Tensor:
    r"""Replace removed pixels by weighted means of their neighbours, removed ones included.

    Each removed pixel p solves

    .. math:: u_p \sum_q w_{pq} = \sum_q w_{pq} u_q

    over its neighbours q inside the image, with a weight of 1/6 of the four direct ones and of 1/12
    of the diagonal ones; :math:`u_q` of a pixel that is not removed is its own value. Rong et al.,
    "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022
    (arXiv:2202.00449), section 4.2. All images are solved together on their device, by conjugate
    gradients that begin at means over ever larger squares, to a relative residual of 1e-4.

    Args:
        images: (M, C, H, W) floating point.
        removed: (M, H, W) bool.

    Returns:
        (M, C, H, W). An image of which no pixel is left becomes its mean colour.

    Raises:
        ValueError: signals or volumes, for which the weights are not defined.

    Example:
        >>> row = torch.tensor([[[[0.0, 9.0, 2.0]]]])
        >>> impute(row, torch.tensor([[[False, True, False]]])).round(decimals=3).tolist()
        [[[[0.0, 1.0, 2.0]]]]
    """
    if images.ndim != 4:
        raise ValueError(
            f"expected 2-D images (M, C, H, W) to impute, got {tuple(images.shape)}: on signals "
            "and volumes use deletion or insertion"
        )
    values = images.float()
    gone = removed.unsqueeze(1)
    whole = gone.flatten(1).all(dim=1).view(-1, 1, 1, 1)
    hole = (gone & ~whole).to(values)
    known = values * (1 - hole)
    total = _neighbours(torch.ones_like(hole[:1]))
    # A = total - neighbours, on the removed pixels; it is symmetric and positive definite.
    goal = hole * _neighbours(known)
    solution = hole * _means(known, 1 - hole)
    residual = goal - hole * (total * solution - _neighbours(solution))
    scaled = residual / total
    direction = scaled
    product = _sums(residual * scaled)
    least = _TOLERANCE**2 * _sums(goal * goal)
    for step in range(_MOST_STEPS):
        if step % _STEPS_AT_ONCE == 0 and bool((_sums(residual * residual) <= least).all()):
            break
        image = hole * (total * direction - _neighbours(direction))
        curvature = _sums(direction * image)
        length = product / curvature.where(curvature > 0, 1)
        solution = solution + length * direction
        residual = residual - length * image
        scaled = residual / total
        before, product = product, _sums(residual * scaled)
        direction = scaled + product / before.where(before > 0, 1) * direction
    mean = values.mean(dim=(2, 3), keepdim=True)
    filled = known + solution
    return filled.where(~whole, mean).to(images)


def _neighbours(values: Tensor) -> Tensor:
    """Return the weighted sum of each pixel's neighbours inside the image."""
    kernel = values.new_tensor(
        [
            [_DIAGONAL, _DIRECT, _DIAGONAL],
            [_DIRECT, 0.0, _DIRECT],
            [_DIAGONAL, _DIRECT, _DIAGONAL],
        ]
    )
    return conv2d(values.flatten(0, 1).unsqueeze(1), kernel.view(1, 1, 3, 3), padding=1).view(
        values.shape
    )


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
