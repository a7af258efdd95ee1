"""Selects the rows of a model's further inputs that belong to changed images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

#: The inputs with a row for each image, as positions and keywords.
Followers = frozenset[int | str]


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tensor changed, or a copy of lists, tuples and dictionaries with theirs changed.

    Other values are returned unchanged.

    Example:
        >>> import torch
        >>> each_tensor({"age": [torch.tensor(3.0)], "unit": "years"}, torch.neg)
        {'age': [tensor(-3.)], 'unit': 'years'}
    """
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(each_tensor(item, change) for item in value)
    if type(value) is dict:
        return {key: each_tensor(item, change) for key, item in value.items()}
    return value


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
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    names: list[int | str] = []
    named: list[tuple[int | str, Any]] = [*enumerate(inputs), *keywords.items()]
    for name, value in named:
        found.clear()
        each_tensor(value, keep)
        if any(_has_rows(tensor, n) for tensor in found):
            names.append(name)
    sizes = range(len(names), -1, -1)
    return [frozenset(s) for size in sizes for s in itertools.combinations(names, size)]


def follow(
    inputs: Sequence[Any],
    keywords: Mapping[str, Any],
    rows: Tensor,
    followers: Followers,
    n: int,
) -> tuple[list[Any], dict[str, Any]]:
    """Return the inputs for images that were made from the given rows.

    Args:
        inputs: the positional inputs after the images.
        keywords: the keyword inputs.
        rows: (m,) int64, the image that each changed image was made from.
        followers: the inputs with a row for each image: tensors, or lists, tuples and dictionaries
            that hold such tensors.
        n: number of images.

    Example:
        >>> import torch
        >>> rows, tabular = torch.tensor([1, 1, 0]), {"age": torch.tensor([5, 7])}
        >>> follow([tabular], {"scale": 2.0}, rows, frozenset({0}), 2)
        ([{'age': tensor([7, 7, 5])}], {'scale': 2.0})
    """

    def chosen(name: int | str, value: Any) -> Any:
        return each_tensor(value, of_rows) if name in followers else value

    def of_rows(tensor: Tensor) -> Tensor:
        return tensor[rows.to(tensor.device)] if _has_rows(tensor, n) else tensor

    return (
        [chosen(position, value) for position, value in enumerate(inputs)],
        {name: chosen(name, value) for name, value in keywords.items()},
    )


def _has_rows(tensor: Tensor, n: int) -> bool:
    return tensor.ndim > 0 and len(tensor) == n
