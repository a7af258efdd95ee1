"""Checks of explainers' options."""

from __future__ import annotations

from typing import Any


def integer(name: str, value: Any, *, least: int = 1) -> int:
    """Return an option after checking that it is an integer of at least ``least``.

    Raises:
        ValueError: it is not such an integer.

    Example:
        >>> integer("samples", 5)
        5
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"expected {name} as an integer of at least {least}, got {value!r}")
    return value


def each_axis(name: str, value: Any, size: tuple[int, ...]) -> list[int]:
    """Return a positive integer for each axis, given one for all axes or one for each.

    Raises:
        ValueError: the option is neither.

    Example:
        >>> each_axis("window", 3, (8, 8)), each_axis("window", (3, 2), (8, 8))
        ([3, 3], [3, 2])
    """
    numbers = list(value) if isinstance(value, (tuple, list)) else [value] * len(size)
    if len(numbers) != len(size) or not all(isinstance(v, int) and v > 0 for v in numbers):
        raise ValueError(
            f"expected {name} as a positive integer, or one for each axis of {size}, got {value!r}"
        )
    return numbers
