"""Selects the rows of a model's further inputs that belong to changed images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

#: The inputs with a row for each image, as positions and keywords.
Followers = frozenset[int | str]


def possible_followers(
    inputs: Sequence[Any], keywords: Mapping[str, Any], n: int
) -> list[Followers]:
    """Return the sets of inputs that may have a row for each of ``n`` images, largest first.

    The shape alone is ambiguous: n texts, or an offset for each of n classes, are shared by all
    images.

    Example:
        >>> import torch
        >>> possible_followers([torch.zeros(2, 5)], {"scale": 2.0}, 2)
        [frozenset({0}), frozenset()]
    """
    named: list[tuple[int | str, Any]] = [*enumerate(inputs), *keywords.items()]
    names = [
        name
        for name, value in named
        if isinstance(value, Tensor) and value.ndim and len(value) == n
    ]
    sizes = range(len(names), -1, -1)
    return [frozenset(s) for size in sizes for s in itertools.combinations(names, size)]


def follow(
    inputs: Sequence[Any], keywords: Mapping[str, Any], rows: Tensor, followers: Followers
) -> tuple[list[Any], dict[str, Any]]:
    """Return the inputs for images that were made from the given rows.

    Args:
        inputs: the positional inputs after the images.
        keywords: the keyword inputs.
        rows: (m,) int64, the image that each changed image was made from.
        followers: the inputs with a row for each image.

    Example:
        >>> import torch
        >>> follow([torch.tensor([5, 7])], {"scale": 2.0}, torch.tensor([1, 1, 0]), frozenset({0}))
        ([tensor([7, 7, 5])], {'scale': 2.0})
    """

    def chosen(name: int | str, value: Any) -> Any:
        return value[rows.to(value.device)] if name in followers else value

    return (
        [chosen(position, value) for position, value in enumerate(inputs)],
        {name: chosen(name, value) for name, value in keywords.items()},
    )
