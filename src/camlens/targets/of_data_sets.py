"""The targets of some images out of those that were asked for of a whole data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .per_image import PerImage
from .selection import Several, Targets, as_classes


def as_data_set_targets(targets: Targets) -> Targets:
    """Return the targets of a whole data set with the classes of each image as one tensor.

    Args:
        targets: as an explainer takes them, and ``"label"``; (M,) or (M, K) classes and a target's
            masks or boxes of each image have a row for each of its M items.

    Raises:
        ValueError: it is another text.
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
        targets: of the whole run.
        indexes: N positions of the images.
        labels: N class ids, -1 where unknown.
        names: N names, for errors.

    Raises:
        ValueError: a label that is asked for is unknown.
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
    if isinstance(targets, PerImage):
        return targets if targets.count is None else targets.rows(torch.tensor(indexes))
    if not isinstance(targets, Tensor) or len(targets) == 1:
        return targets
    return targets[list(indexes)]
