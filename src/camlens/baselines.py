"""Baselines: images that stand for missing evidence, in the same units as the images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: A number, a tensor that broadcasts to the images, or a function from images to such a tensor.
Baseline = float | Tensor | Callable[[Tensor], Tensor]


def check_baseline(baseline: Baseline) -> Baseline:
    """Return a baseline after checking its type.

    Raises:
        TypeError: it is not a number, a tensor or a function.
    """
    number = isinstance(baseline, (int, float)) and not isinstance(baseline, bool)
    if number or isinstance(baseline, Tensor) or callable(baseline):
        return baseline
    raise TypeError(
        "expected a baseline as a number, a tensor that broadcasts to the images or a function of "
        f"the images, got {type(baseline).__name__}"
    )


def baseline_images(baseline: Baseline, images: Tensor) -> Tensor:
    """Return a baseline as (N, C, *size) images, as a view where possible.

    Args:
        baseline: see :data:`Baseline`.
        images: (N, C, *size).

    Raises:
        TypeError: the baseline is not a floating-point tensor, or its function returns none.
        ValueError: the baseline does not broadcast to the images.

    Example:
        >>> import torch
        >>> images = torch.tensor([[[1.0, 3.0]]])
        >>> baseline_images(lambda x: x.mean(dim=-1, keepdim=True), images).tolist()
        [[[2.0, 2.0]]]
    """
    if isinstance(baseline, (int, float)):
        return images.new_full((), baseline).expand_as(images)
    values = baseline if isinstance(baseline, Tensor) else baseline(images)
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"expected a baseline in floating point, got {kind}")
    try:
        return values.to(images).expand_as(images)
    except RuntimeError:
        raise ValueError(
            f"expected a baseline that broadcasts to the images' {tuple(images.shape)}, got "
            f"{tuple(values.shape)}"
        ) from None
