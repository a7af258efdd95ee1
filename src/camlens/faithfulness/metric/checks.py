"""Check that maps match the images, and that an explanation matches the model and its images."""

from __future__ import annotations

from torch import Tensor

from ...explanation import Explanation
from ...targets import NO_CLASS, Selection, Targets

#: Scores that differ by more than this fraction of the largest belong to other images or models.
_OTHER = 0.1


def checked_maps(explanation: Explanation | Tensor, images: Tensor) -> Tensor:
    """Return maps (N, K, *size) in float32 on the images' device.

    Raises:
        TypeError: the argument contains no maps.
        ValueError: the maps' number or size is wrong, or a value is NaN or infinite.
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
            f"expected {what} as (N, K, *size) for {len(images)} images of size {size}, got shape "
            f"{tuple(maps.shape)}"
        )
    if tuple(maps.shape[2:]) != size:
        raise ValueError(
            f"expected {what} of the images' size {size}, got {tuple(maps.shape[2:])}: resize "
            f"them, for example by camlens.heatmap.resize(maps, {size})"
        )
    if not maps.is_floating_point():
        raise TypeError(f"expected {what} in floating point, got {maps.dtype}")
    maps = maps.detach().to(images.device).float()
    # Images too: a network's scores may be finite for infinite pixels, and some metrics do not
    # run the network.
    for values, name in ((maps, f"{what} of the images"), (images, "the images")):
        if not values.isfinite().all():
            rows = (~values.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()[:5]
            raise ValueError(f"{name} {rows} contain NaN or infinity: leave those images out")
    return maps


def check_same(explanation: Explanation, selection: Selection) -> None:
    """Check by classes and scores that an explanation is of this model, these images and targets.

    Raises:
        ValueError: the classes differ, or the scores differ by more than half precision explains.
    """
    known, actual = (one.scores.detach().float().cpu() for one in (explanation, selection))
    classes, wanted = explanation.targets.cpu(), selection.classes.cpu()
    same = classes == wanted
    other = ((classes != NO_CLASS) & (wanted != NO_CLASS) & ~same).any(dim=1)
    if other.any():
        row = int(other.nonzero()[0])
        raise ValueError(
            f"the explanation's targets differ from targets=: for image {row} it explains the "
            f"classes {classes[row].tolist()[:3]} instead of {wanted[row].tolist()[:3]}. Leave "
            "targets= out, or pass the explanation's heatmaps to measure them on other scores"
        )
    gap = (known - actual).abs().where(same, 0).amax(dim=1)
    most = known.abs().maximum(actual.abs()).amax()
    if (gap > _OTHER * most).any():
        rows = (gap > _OTHER * most).nonzero().flatten().tolist()
        row = rows[0]
        raise ValueError(
            "the explanation is of different images or a different model, or of another callable "
            f"than targets=: the scores of images {rows[:5]} differ, such as "
            f"{known[row].tolist()[:3]} instead of {actual[row].tolist()[:3]}. Explain these "
            "images with this model, or pass the explanation's heatmaps to skip this check"
        )


def explained_targets(explanation: Explanation | None, targets: Targets) -> Targets:
    """Return the targets that the maps explain."""
    if targets is not None or explanation is None:
        return targets
    if (explanation.targets == NO_CLASS).any():
        raise ValueError(
            "the explanation's scores were computed by a callable, which it does not store: "
            "pass the same callable as targets="
        )
    return explanation.targets
