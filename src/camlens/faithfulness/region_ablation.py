"""Region ablation: measure how much the score falls when a region of the image is removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..explanation import Explanation
from ..model import check_batched, check_images, check_mode, check_model
from ..probe import Probe
from ..regions.masks import Regions
from ..targets import (
    NO_CLASS,
    PerImage,
    Selection,
    Several,
    Targets,
    Top,
    as_classes,
    check_activation,
    probabilities,
)
from .infill import INFILLS, replace
from .region_ablation_result import RegionAblation


@torch.no_grad()
def ablate_regions(
    model: nn.Module | Callable[[Tensor], Any],
    images: Tensor,
    regions: Regions,
    *,
    targets: Targets | Explanation = None,
    infill: str = "blur",
    placements: int = 16,
    activation: str = "softmax",
    seed: int = 0,
    batch: int = 256,
) -> RegionAblation:
    """Measure how much scores fall when each region is removed.

    Any change moves an image away from the training distribution, which may lower the score by
    itself. The same mask is therefore also placed at random positions of the same image (wrapping
    around its edges); the mean drop there is the baseline, which has a standard error, and the
    region is ranked among these positions. The call takes 1 + R (1 + placements) forward passes
    per image.

    Args:
        model: a module in evaluation mode, which is left unchanged, or any function of the images.
            For a model with further inputs: ``lambda images: model(images, more)``.
        images: ``(N, C, *size)`` floating point, preprocessed for the model.
        regions: masks of the images' size, for N images or one set for all.
        targets: as explainers accept them, or an :class:`camlens.Explanation`, whose targets are
            used. A callable is called with the outputs of changed images, in batches of any size.
        infill: how a region is filled. ``"blur"``: with the image, blurred by a Gaussian with a
            standard deviation of a tenth of its shortest side. ``"mean"``: with the image's mean
            colour. ``"inpaint"``: by OpenCV's inpainting from the surroundings (Telea 2004; 2-D
            images only, on the CPU, masks thresholded at 0.5).
        placements: number of random positions, at least 1. With four times as many, the standard
            error halves. For means over many images, 4 are enough; to say of one image that
            fewer than one place in twenty costs as much takes 19 or more.
        activation: turns outputs into probabilities, see :func:`camlens.targets.probabilities`:
            ``"softmax"``, ``"sigmoid"`` (multi-label) or ``"none"`` (outputs are probabilities).
        seed: seed of the random positions, which are the same on every device.
        batch: number of images run at once.

    Returns:
        The ablation, on the images' device.

    Raises:
        ImportError: ``infill="inpaint"`` needs OpenCV.
        TypeError: images, targets or outputs have the wrong type.
        ValueError: a shape is wrong, the infill or activation is unknown, ``placements`` is below
            1, the model is in training mode, scores are not finite, or a callable computed the
            explanation's scores.
    """
    module = _checked(model, images, regions)
    if infill not in INFILLS:
        raise ValueError(f"expected infill to be one of {INFILLS}, got {infill!r}")
    check_activation(activation)
    if placements < 1 or batch < 1:
        raise ValueError(
            f"expected placements and batch of at least 1, got {placements} and {batch}"
        )
    wanted = _as_targets(targets, images)
    if isinstance(wanted, PerImage):
        wanted = Probe(module, images, targets=wanted).fixed_targets()
    unchanged = _run(module, images, wanted, activation, batch)
    Selection(unchanged.scores, unchanged.classes, unchanged.class_count).check(
        unchanged.scores.unsqueeze(-1)
    )
    fixed = wanted if callable(wanted) else unchanged.classes
    masks = regions.masks.to(images).expand(len(images), *[-1] * (images.ndim - 1))
    # Drawn together and in main memory, so that they are the same for every batch size and device.
    random = torch.Generator().manual_seed(seed)
    shape = (len(images), placements, len(regions), images.ndim - 2)
    shifts = torch.randint(2**31, shape, generator=random, device="cpu")
    # The first placement is the region itself.
    shifts = torch.cat([torch.zeros_like(shifts[:, :1]), shifts], dim=1).flatten(1, 2)
    shifts, count = shifts.to(images.device), shifts.shape[1]
    parts = []
    for rows in _slices(len(images), max(1, batch // count)):
        values = []
        for some in _slices(count, batch):
            region = torch.arange(count, device=images.device)[some] % len(regions)
            placed = _shifted(masks[rows, region], shifts[rows, some])
            changed = replace(images[rows], placed, infill).flatten(0, 1)
            source = torch.arange(len(images), device=images.device)[rows]
            own = _rows(fixed, source.repeat_interleave(placed.shape[1]))
            outcome = _run(module, changed, own, activation, batch)
            values.append(outcome.values.unflatten(1, placed.shape[:2]))
        scores = torch.cat(values, dim=2).unflatten(2, (1 + placements, len(regions)))
        parts.append(_beside_chance(unchanged.values[:, rows, None, None] - scores))
    present = _present(masks, infill).unsqueeze(-1)
    found = torch.cat(parts, dim=2).where(present, torch.nan).transpose(-1, -2)
    of_scores, of_probabilities = found.unbind(1)
    drop, baseline, error, exceeds = of_scores
    probability_drop, probability_baseline, probability_error, _ = of_probabilities
    return RegionAblation(
        names=regions.names,
        drop=drop,
        baseline=baseline,
        standard_error=error,
        exceeds=exceeds,
        probability_drop=probability_drop,
        probability_baseline=probability_baseline,
        probability_standard_error=probability_error,
        infill=infill,
        targets=unchanged.classes,
        placements=placements,
    )


def _beside_chance(drops: Tensor) -> Tensor:
    """Return regions' own drops; at random positions the mean, its error and the share below.

    Args:
        drops: (2, n, 1 + placements, R, K), of scores and probabilities; the regions' own first.

    Returns:
        (4, 2, n, R, K); the standard errors are NaN with one placement.
    """
    if not drops[0].isfinite().all():
        raise ValueError("the scores of changed images are not finite: check the model's weights")
    own, elsewhere = drops[:, :, 0], drops[:, :, 1:]
    placements = elsewhere.shape[2]
    error = torch.full_like(own, torch.nan)
    if placements > 1:
        error = elsewhere.std(dim=2) / placements**0.5
    below = (own.unsqueeze(2) - elsewhere).sign().mean(dim=2) / 2 + 0.5  # equal drops count half
    return torch.stack([own, elsewhere.mean(dim=2), error, below])


class _Function(nn.Module):
    """A function of images as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def _checked(
    model: nn.Module | Callable[[Tensor], Any], images: Tensor, regions: Regions
) -> nn.Module:
    """Check the inputs and return the model without its wrappers, or the function as a module."""
    check_images(images)
    if isinstance(model, nn.Module):
        check_batched(model, images)
    if not isinstance(regions, Regions):
        raise TypeError(f"expected regions as Regions(names, masks), got {type(regions).__name__}")
    size = tuple(images.shape[2:])
    if regions.size != size or len(regions.masks) not in (1, len(images)):
        raise ValueError(
            f"expected regions of the images' size {size}, for {len(images)} images or one set for "
            f"all, got {len(regions.masks)} of size {regions.size}: see Regions.resize"
        )
    if not isinstance(model, nn.Module):
        return _Function(model).eval()
    module = check_model(model)
    check_mode(module)
    return module


def _as_targets(targets: Targets | Explanation, images: Tensor) -> Targets:
    """Return targets with classes as a tensor on the images' device."""
    if isinstance(targets, Explanation):
        if (targets.targets == NO_CLASS).any():
            raise ValueError(
                "the explanation's scores were computed by a callable, which it does not store: "
                "pass the same callable as targets="
            )
        targets = targets.targets
    if callable(targets) or targets is None or isinstance(targets, (str, Top, Several)):
        return targets
    return as_classes(targets, len(images)).to(images.device)


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Scores and probabilities of some images, stacked as (2, N, K), and their classes."""

    values: Tensor
    classes: Tensor
    class_count: int

    @property
    def scores(self) -> Tensor:
        return self.values[0]


def _run(
    model: nn.Module, images: Tensor, targets: Targets, activation: str, batch: int
) -> _Outcome:
    """Run a model in batches; each batch takes its rows of (N, K) classes."""
    parts = []
    for rows in _slices(len(images), batch):
        part = _rows(targets, torch.arange(len(images), device=images.device)[rows])
        selection = Probe(model, images[rows], targets=part).run(start=None).selection
        values = torch.stack([selection.scores.float(), _probabilities(selection, activation)])
        parts.append(_Outcome(values, selection.classes, selection.class_count))
    values = torch.cat([part.values for part in parts], dim=1)
    return _Outcome(values, torch.cat([part.classes for part in parts]), parts[0].class_count)


def _rows(targets: Targets, index: Tensor) -> Targets:
    """Return the targets of some of the images."""
    if isinstance(targets, PerImage):
        return targets.rows(index)
    return targets[index] if isinstance(targets, Tensor) else targets


def _probabilities(selection: Selection, activation: str) -> Tensor:
    """Return the selected classes' probabilities, (N, K) float32; NaN if there are none."""
    if selection.logits is None or not selection.class_count:
        return torch.full_like(selection.scores, torch.nan, dtype=torch.float32)
    # Selection.check checks the range.
    classes = selection.classes.clamp(0, selection.class_count - 1)
    return probabilities(selection.logits, activation).gather(1, classes)


def _present(masks: Tensor, infill: str) -> Tensor:
    """Return (N, R): whether a region has pixels to remove and, to inpaint, pixels around it."""
    if infill != "inpaint":
        return masks.flatten(2).amax(dim=-1) > 0
    holes = (masks >= 0.5).flatten(2)
    return holes.any(dim=-1) & ~holes.all(dim=-1)


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))


def _shifted(masks: Tensor, shifts: Tensor) -> Tensor:
    """Shift (n, M, *size) masks by (n, M, axes) pixels around the edges."""
    size = masks.shape[2:]
    source = torch.zeros((), dtype=torch.long, device=masks.device)
    for axis, length in enumerate(size):
        shape = [-1 if position == axis else 1 for position in range(len(size))]
        shift = shifts[..., axis].view(*shifts.shape[:2], *[1] * len(size))
        position = torch.arange(length, device=masks.device).view(shape) + shift
        source = source * length + position % length
    shifted: Tensor = masks.flatten(2).gather(2, source.flatten(2)).unflatten(2, size)
    return shifted
