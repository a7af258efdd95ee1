"""Choose the images that the page shows if there are too many for the gallery."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..regions.intervals import Array


def sample(images: pd.DataFrame, limit: int, *, seed: int = 0) -> list[int]:
    """Draw a random sample of images in proportion to the labels.

    The numbers of images per label are rounded by largest remainders, so that they sum to the
    limit. If the limit is at least the number of labels, each label gets at least one image. Images
    without a label count as a label of their own.

    Args:
        images: a table with the columns ``image`` (the dataset's index) and ``label``.
        limit: largest number of images.
        seed: seed of the draw.

    Returns:
        Dataset indexes in ascending order; all of them if the limit allows.

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
    """Divide a limit among groups in proportion to their sizes, as integers that sum to it."""
    quota = limit * sizes / sizes.sum()
    parts: Array = np.floor(quota).astype(int)
    parts[np.argsort(parts - quota, kind="stable")[: limit - parts.sum()]] += 1
    if limit >= len(sizes):
        for none in np.flatnonzero(parts == 0):
            parts[none], parts[parts.argmax()] = 1, parts.max() - 1
    return parts
