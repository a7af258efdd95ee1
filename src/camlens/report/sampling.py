"""Which images the page shows where there are more than it can hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..regions.intervals import Array


def sample(images: pd.DataFrame, limit: int, *, seed: int = 0) -> list[int]:
    """Draw images so that each label keeps its share.

    Of each label as many are drawn as its share of the limit says, rounded so that they sum to
    the limit (largest remainders), but one at least where the limit is no less than the number of
    labels. Images without a label are a label of their own.

    Args:
        images: with the columns ``image`` (the dataset's index) and ``label``.
        limit: of how many images at most.
        seed: of the draw.

    Returns:
        Dataset indexes in ascending order; all of them where the limit allows.

    Example:
        >>> images = pd.DataFrame({"image": range(100), "label": [0] * 90 + [1] * 10})
        >>> drawn = sample(images, 10)
        >>> len(drawn), sum(one >= 90 for one in drawn)
        (10, 1)
    """
    if len(images) <= limit:
        return sorted(images["image"].tolist())
    random = np.random.default_rng(seed)
    groups = [rows["image"].to_numpy() for _, rows in images.groupby("label", dropna=False)]
    sizes = _apportioned(np.array([len(group) for group in groups]), limit)
    drawn = [
        random.choice(group, size=size, replace=False)
        for group, size in zip(groups, sizes, strict=True)
    ]
    return sorted(map(int, np.concatenate(drawn)))


def _apportioned(sizes: Array, limit: int) -> Array:
    """Divide a limit among groups by their sizes: whole numbers that sum to it."""
    quota = limit * sizes / sizes.sum()
    parts: Array = np.floor(quota).astype(int)
    parts[np.argsort(parts - quota, kind="stable")[: limit - parts.sum()]] += 1
    if limit >= len(sizes):
        for none in np.flatnonzero(parts == 0):
            parts[none], parts[parts.argmax()] = 1, parts.max() - 1
    return parts
