"""Noise for each image, drawn from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def noise_of_each(draw: Callable[..., Tensor], shape: Sequence[int], seeds: Tensor) -> Tensor:
    """Return (N, *shape) random numbers, float32 in main memory, row n from seed n.

    They are drawn on the CPU, whatever torch's default device, so that a seed gives the same
    numbers on every device.

    Args:
        draw: ``torch.rand`` or ``torch.randn``.
        shape: shape of each row.
        seeds: (N,) int64.

    Example:
        >>> noise = noise_of_each(torch.rand, (2, 3), torch.tensor([5, 7]))
        >>> noise[1].equal(torch.rand(2, 3, generator=torch.Generator().manual_seed(7)))
        True
    """
    rows = [
        draw(
            tuple(shape),
            generator=torch.Generator("cpu").manual_seed(seed),
            device="cpu",
            dtype=torch.float32,
        )
        for seed in seeds.tolist()
    ]
    return torch.stack(rows)
