"""Does the network use a region? Take it away and see what becomes of the score.

A heatmap's share is a claim about where; this is the check, and the only part of
``camlens.regions`` that sees a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks, modules
from ..targets import Selection, Targets, as_classes, select
from .fills import FILLS, replaced
from .masks import Regions


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Effect:
    """What N images' K scores lose without each of R regions.

    Attributes:
        names: R region names.
        drop: (N, K, R), by how much the explained score falls when the region is taken away;
            negative where it rises. NaN where the region is absent from the image, and where
            inpainting has nothing to fill or to fill it from (no pixel of the mask is at least
            0.5, or all are).
        chance: (N, K, R), the mean fall for the same mask at random places of the same image. The
            places depend on the image's position among the images and on the seed.
        probability_drop: (N, K, R), as ``drop``, of the softmax over the model's outputs; NaN where
            a callable made the score.
        probability_chance: (N, K, R), as ``chance``, of the softmax.
        fill: what regions were replaced by: ``"blur"``, ``"mean"`` or ``"inpaint"``.
        targets: (N, K) int64 class ids; -1 where a callable computed the score.
        draws: how many random places ``chance`` is the mean of.
    """

    names: tuple[str, ...]
    drop: Tensor
    chance: Tensor
    probability_drop: Tensor
    probability_chance: Tensor
    fill: str
    targets: Tensor
    draws: int

    @property
    def excess(self) -> Tensor:
        """(N, K, R): the fall beyond what any place of that area and shape costs."""
        return self.drop - self.chance

    @property
    def probability_excess(self) -> Tensor:
        """(N, K, R): as ``excess``, of the probability."""
        return self.probability_drop - self.probability_chance

    def __repr__(self) -> str:
        """Return a line that says what was taken away and how, without the numbers."""
        n, k, _ = self.drop.shape
        return (
            f"Effect({self.fill}: {n} images, {k} targets each, {self.draws} random places, "
            f"regions {', '.join(self.names)})"
        )


@torch.no_grad()
def effect(
    model: nn.Module | Callable[[Tensor], Any],
    images: Tensor,
    regions: Regions,
    *,
    targets: Targets = None,
    fill: str = "blur",
    draws: int = 4,
    seed: int = 0,
    batch: int = 256,
) -> Effect:
    """Measure how scores fall when each region is taken away.

    Any change takes the image away from what the network knows, so the same mask, shifted to
    random places of the same image (around its edges), says how much a change of that size costs
    anywhere. It takes 1 + R (1 + draws) forward passes an image.

    Args:
        model: a module in evaluation mode, left as it is, or any function of images; of a model
            with further inputs, ``lambda images: model(images, more)``.
        images: (N, C, H, W) floating point, exactly as the model takes them.
        regions: of the images' size; of N images, or of one for all.
        targets: as the explainers take them; ``explanation.targets`` checks an explanation. A
            callable is given the outputs of changed images, in groups of any number.
        fill: what a region is replaced by: ``"blur"``, the image blurred (a Gaussian of a tenth of
            its shorter side); ``"mean"``, the image's mean colour; ``"inpaint"``, what OpenCV
            makes of the surroundings (Telea 2004, on the processor, masks cut at 0.5).
        draws: how many random places, at least 1.
        seed: of the random places; the same on every device.
        batch: how many images the model is given at once.

    Returns:
        The effect, on the images' device.

    Raises:
        ImportError: ``fill="inpaint"`` without OpenCV.
        TypeError: images, targets or outputs are of the wrong type.
        ValueError: a wrong shape, an unknown fill, no draws, a model in training mode, or scores
            that are not finite.
    """
    model = _checked(model, images, regions)
    if fill not in FILLS:
        raise ValueError(f"expected a fill out of {FILLS}, got {fill!r}")
    if draws < 1 or batch < 1:
        raise ValueError(f"expected at least 1 draw and a batch of 1, got {draws} and {batch}")
    if not (callable(targets) or targets is None or isinstance(targets, str)):
        targets = as_classes(targets, len(images)).to(images.device)
    intact = _run(model, images, targets, batch)
    Selection(intact.scores, intact.classes, intact.outputs).check(intact.scores)
    asked = targets if callable(targets) else intact.classes
    masks = regions.masks.to(images).expand(len(images), -1, -1, -1)
    # All at once and in main memory: the same for every batch size and device.
    random = torch.Generator().manual_seed(seed)
    shape = (len(images), draws, len(regions), 2)
    shifts = torch.randint(2**31, shape, generator=random, device="cpu").to(images.device)
    changed = 1 + draws
    after = []
    for some in _slices(len(images), max(1, batch // (len(regions) * changed))):
        own = masks[some]
        moved = torch.cat([own.unsqueeze(1), _shifted(own, shifts[some])], dim=1).flatten(1, 2)
        pictures = replaced(images[some], moved, fill).flatten(0, 1)
        each = asked if callable(asked) else asked[some].repeat_interleave(moved.shape[1], dim=0)
        after.append(
            _run(model, pictures, each, batch).values.unflatten(1, (len(own), changed, -1))
        )
    fall = intact.values[:, :, None, None] - torch.cat(after, dim=1)  # (2, N, changed, R, K)
    if not fall[0].isfinite().all():
        raise ValueError("the scores of changed images are not finite: look at the model's weights")
    present = _present(masks, fill)[:, None, :, None]
    fall = fall.where(present, torch.nan).transpose(-1, -2)
    drop, chance = fall[:, :, 0], fall[:, :, 1:].mean(dim=2)
    return Effect(
        names=regions.names,
        drop=drop[0],
        chance=chance[0],
        probability_drop=drop[1],
        probability_chance=chance[1],
        fill=fill,
        targets=intact.classes,
        draws=draws,
    )


def _checked(
    model: nn.Module | Callable[[Tensor], Any], images: Tensor, regions: Regions
) -> Callable[[Tensor], Any]:
    """Check the inputs and return the model without its wrappers."""
    checks.check_images(images)
    if not isinstance(regions, Regions):
        raise TypeError(f"expected regions as Regions(names, masks), got {type(regions).__name__}")
    size = (images.shape[-2], images.shape[-1])
    if regions.size != size or len(regions.masks) not in (1, len(images)):
        raise ValueError(
            f"expected regions of the images' size {size}, of {len(images)} images or one for all, "
            f"got {len(regions.masks)} of {regions.size}: see Regions.resize"
        )
    if isinstance(model, nn.Module):
        model = modules.unwrap(model)
        checks.check_mode(model)
    return model


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a model says of some images: scores and probabilities, (2, N, K), and of what."""

    values: Tensor
    classes: Tensor
    outputs: int

    @property
    def scores(self) -> Tensor:
        return self.values[0]


def _run(model: Callable[[Tensor], Any], images: Tensor, targets: Targets, batch: int) -> _Outcome:
    """Run a model in batches; of (N, K) classes each batch has its own."""
    parts = []
    for some in _slices(len(images), batch):
        outputs = model(images[some])
        selection = select(outputs, targets[some] if isinstance(targets, Tensor) else targets)
        if len(selection.scores) != len(images[some]):
            raise ValueError(
                f"expected one row of scores for each of {len(images[some])} images, got "
                f"{tuple(selection.scores.shape)}"
            )
        values = torch.stack([selection.scores.float(), _probabilities(outputs, selection)])
        parts.append(_Outcome(values, selection.classes, selection.outputs))
    values = torch.cat([part.values for part in parts], dim=1)
    return _Outcome(values, torch.cat([part.classes for part in parts]), parts[0].outputs)


def _present(masks: Tensor, fill: str) -> Tensor:
    """Return (N, R): whether there is anything to take away, and something to fill it from."""
    if fill != "inpaint":
        return masks.amax(dim=(-2, -1)) > 0
    holes = (masks >= 0.5).flatten(2)
    return holes.any(dim=-1) & ~holes.all(dim=-1)


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))


def _probabilities(outputs: Any, selection: Selection) -> Tensor:
    if not selection.outputs:
        return torch.full_like(selection.scores, torch.nan, dtype=torch.float32)
    classes = selection.classes.clamp(0, selection.outputs - 1)  # Selection.check judges the range
    probabilities: Tensor = outputs.float().softmax(dim=1)
    return probabilities.gather(1, classes)


def _shifted(masks: Tensor, shifts: Tensor) -> Tensor:
    """Shift (n, R, H, W) masks by (n, D, R, 2) pixels, around the edges: (n, D, R, H, W)."""
    h, w = masks.shape[-2:]
    down, right = shifts[..., None, None].unbind(-3)
    y = (torch.arange(h, device=masks.device).unsqueeze(1) + down) % h
    x = (torch.arange(w, device=masks.device) + right) % w
    source = (y * w + x).flatten(3)
    repeated = masks.flatten(2).unsqueeze(1).expand(-1, shifts.shape[1], -1, -1)
    moved = repeated.gather(3, source)
    return moved.reshape(*source.shape[:3], h, w)
