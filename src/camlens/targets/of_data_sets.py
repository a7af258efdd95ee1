"""Targets of a data set, and their rows for the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .per_image import PerImage
from .selection import Several, Targets, as_classes


def as_data_set_targets(targets: Targets) -> Targets:
    """Return the targets of a data set, with the classes of all images as one tensor.

    Args:
        targets: as for an explainer, or ``"label"``. (M,) or (M, K) classes, and masks or boxes of
            each image, have one row for each of the M items of the data set.

    Raises:
        ValueError: a string is neither ``"all"`` nor ``"label"``.
    """
    if isinstance(targets, str):
        if targets not in ("all", "label"):
            raise ValueError(
                f'expected targets None, "all", "label", a class or classes, got {targets!r}'
            )
        return targets
    if isinstance(targets, Several):
        return Several(tuple(as_data_set_targets(part) for part in targets.parts))
    if isinstance(targets, (Tensor, Sequence)):
        if isinstance(targets, Tensor) and targets.ndim == 0:
            return int(targets)
        return as_classes(targets, len(targets)).cpu()
    return targets


def targets_of(
    targets: Targets, indexes: Sequence[int], labels: Sequence[int], names: Sequence[str]
) -> Targets:
    """Return the targets of some images of a data set.

    Args:
        targets: the targets of the whole run.
        indexes: the positions of N images in the data set.
        labels: N class ids; -1 if unknown.
        names: N names, for error messages.

    Raises:
        ValueError: a required label is unknown, or the targets have no row for an image.
    """
    if isinstance(targets, Several):
        parts = [targets_of(part, indexes, labels, names) for part in targets.parts]
        return Several(tuple(parts))
    if isinstance(targets, str) and targets == "label":
        if min(labels) < 0:
            name = names[list(labels).index(min(labels))]
            raise ValueError(
                f'targets="label" explains each image\'s own class, but {name!r} has no label: '
                "use targets=None for the predicted class"
            )
        return torch.tensor(labels)
    count = row_count(targets)
    if count is not None and max(indexes) >= count:
        raise ValueError(
            f"expected targets as one class or with a row for each item of the data set, got "
            f"{count} rows, but the data set has an item {max(indexes)}"
        )
    if isinstance(targets, PerImage):
        return targets if count is None else targets.rows(torch.tensor(indexes))
    return targets[list(indexes)] if isinstance(targets, Tensor) and count else targets


def row_count(targets: Targets) -> int | None:
    """Return the number of images that targets have rows for; None if all images share them."""
    if isinstance(targets, Several):
        counts = [count for part in targets.parts if (count := row_count(part)) is not None]
        return max(counts, default=None)
    if isinstance(targets, PerImage):
        return targets.count
    return len(targets) if isinstance(targets, Tensor) and len(targets) > 1 else None
