"""What is asked of each image, and what of it concerns some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..explainers import Explainer
from ..regions.masks import Regions
from ..targets import Targets
from .loading import Group

#: Regions of all images, or from pictures (N, 1 or 3, H, W) in [0, 1] to the regions of each.
RegionsOf = Regions | Callable[[Tensor], Regions]

#: How heat is kept: the type's name in the manifest, and how numpy reads it.
HEAT_TYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype(np.uint8), "float16": np.dtype("<f2")}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """What is asked of each image; see :func:`camlens.dataset.explain_dataset`."""

    explainers: tuple[Explainer, ...]
    targets: Targets = None
    regions: RegionsOf | None = None
    infill: str | None = None
    activation: str = "softmax"
    classes: Sequence[str] | None = None
    picture: Callable[[Tensor], Tensor] | None = None
    heatmaps: str = "uint8"
    batch_size: int = 32


def targets_of(group: Group, targets: Targets) -> Targets:
    """Return a group's part of the targets of a whole data set.

    Raises:
        ValueError: there are fewer targets than images, or a label that is asked for is unknown.
    """
    if isinstance(targets, str) and targets == "label":
        if min(group.labels) < 0:
            name = group.names[group.labels.index(min(group.labels))]
            raise ValueError(
                f'targets="label" explains each image\'s own class, but {name!r} has no label: '
                "use targets=None for the predicted class"
            )
        return torch.tensor(group.labels)
    if not isinstance(targets, Tensor):
        return targets
    if max(group.indexes) >= len(targets):
        raise ValueError(
            f"expected targets of every image, got {len(targets)} of them and an image "
            f"{max(group.indexes)}"
        )
    return targets[list(group.indexes)]


def regions_of(regions: RegionsOf, pictures: Tensor) -> Regions:
    """Return the regions of some pictures, (N, 1 or 3, H, W) uint8.

    Raises:
        TypeError: the function returned something else than regions.
        ValueError: it returned those of other pictures or of another size.
    """
    size = (pictures.shape[-2], pictures.shape[-1])
    if isinstance(regions, Regions):
        return regions.resize(size)
    found = regions(pictures.float() / 255)
    if not isinstance(found, Regions):
        raise TypeError(
            f"expected regions= to return camlens.regions.Regions, got {type(found).__name__}"
        )
    if found.size != size or len(found.masks) not in (1, len(pictures)):
        raise ValueError(
            f"expected regions= to return regions of {len(pictures)} pictures of {size}, got "
            f"{len(found.masks)} of {found.size}"
        )
    return found
