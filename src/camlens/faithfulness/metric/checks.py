"""Whether maps fit the images, and an explanation the model and the images it is held against."""

from __future__ import annotations

from torch import Tensor

from ...explanation import Explanation
from ...targets import NO_CLASS, Selection, Targets

#: Scores of an explanation that differ by this part of the largest are not of the same images.
_OTHER = 0.1


def checked_maps(explanation: Explanation | Tensor, images: Tensor) -> Tensor:
    """Return maps (N, K, *size) in float32 on the images' device.

    Raises:
        TypeError: they are no maps.
        ValueError: they are of another number or size, or hold NaN or infinity.
    """
    if isinstance(explanation, Explanation):
        maps, what = explanation.heatmaps, "the explanation's heatmaps"
    elif isinstance(explanation, Tensor):
        maps, what = explanation, "maps"
    else:
        raise TypeError(
            "expected an explanation, or maps as a tensor (N, K, *size), got "
            f"{type(explanation).__name__}"
        )
    size = tuple(images.shape[2:])
    if maps.ndim != images.ndim or maps.shape[0] != len(images) or 0 in maps.shape:
        raise ValueError(
            f"expected {what} as (N, K, *size) of {len(images)} images of {size}, got "
            f"{tuple(maps.shape)}"
        )
    if tuple(maps.shape[2:]) != size:
        raise ValueError(
            f"expected {what} of the images' size {size}, got {tuple(maps.shape[2:])}: resize "
            f"them, such as by camlens.heatmap.resize(maps, {size})"
        )
    if not maps.is_floating_point():
        raise TypeError(f"expected {what} in floating point, got {maps.dtype}")
    maps = maps.detach().to(images.device).float()
    # Images too: a network may have finite scores of infinite ones, and some metrics run none.
    for values, name in ((maps, f"{what} of the images"), (images, "the images")):
        if not values.isfinite().all():
            rows = (~values.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()[:5]
            raise ValueError(f"{name} {rows} hold NaN or infinity: leave those images out")
    return maps


def check_same(explanation: Explanation, selection: Selection) -> None:
    """Check that an explanation is of this model, these images and targets, by classes and scores.

    Raises:
        ValueError: its classes are others, or its scores by more than half precision explains.
    """
    known, found = (one.scores.detach().float().cpu() for one in (explanation, selection))
    classes, asked = explanation.targets.cpu(), selection.classes.cpu()
    same = classes == asked
    other = ((classes != NO_CLASS) & (asked != NO_CLASS) & ~same).any(dim=1)
    if other.any():
        row = int(other.nonzero()[0])
        raise ValueError(
            f"the explanation is of other targets than targets= asks for: of image {row} it is of "
            f"the classes {classes[row].tolist()[:3]} in place of {asked[row].tolist()[:3]}. Leave "
            "targets= out, or pass the explanation's heatmaps to judge them by other scores"
        )
    gap = (known - found).abs().where(same, 0).amax(dim=1)
    most = known.abs().maximum(found.abs()).amax()
    if (gap > _OTHER * most).any():
        rows = (gap > _OTHER * most).nonzero().flatten().tolist()
        row = rows[0]
        raise ValueError(
            "the explanation is of other images or of another model, or targets= is another "
            f"callable than the one it explains: of the images {rows[:5]} its scores differ, such "
            f"as {known[row].tolist()[:3]} in place of {found[row].tolist()[:3]}. Explain these "
            "images by this model, or pass the explanation's heatmaps to judge them whatever they "
            "are of"
        )


def explained_targets(explanation: Explanation | None, targets: Targets) -> Targets:
    """Return what the maps explain."""
    if targets is not None or explanation is None:
        return targets
    if (explanation.targets == NO_CLASS).any():
        raise ValueError(
            "the explanation's scores were computed by a callable, which it does not contain: "
            "pass the same callable as targets="
        )
    return explanation.targets
