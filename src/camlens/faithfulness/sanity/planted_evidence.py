"""Planted evidence: test a method on a small network whose evidence is known."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...explainers.base import Explainer
from ...options import integer
from . import planted_pictures as planted

#: A map passes if its heat is this many times denser on the patch than by chance.
DENSE = 3.0
#: The share of the pictures in which a method has to pass.
SHARE = 0.95


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PlantedEvidence:
    """A method's results on pictures whose only evidence is one patch.

    Attributes:
        density: (N,): the patch's share of the heat divided by its share of the area; 1 is chance.
        hottest: (N,) bool: whether the hottest window of the patch's size overlaps the patch by
            more than a quarter.
        offset: (N, 2): position of the heat's maximum minus the patch's centre, down and right, in
            pixels.
        shuffled: (N,): ``density`` for the network with shuffled weights.
    """

    density: Tensor
    hottest: Tensor
    offset: Tensor
    shuffled: Tensor

    @property
    def share(self) -> float:
        """The share of the pictures with a density above 3 and the hottest window on the patch."""
        return ((self.density > DENSE) & self.hottest).float().mean().item()

    @property
    def found(self) -> bool:
        """Whether the evidence is found in at least 95% of the pictures."""
        return self.share >= SHARE

    @property
    def destroyed(self) -> bool:
        """Whether shuffling the weights destroys the heat on the patch."""
        low = self.shuffled.median() < 0.6 * self.density.median()
        return bool(low) and bool((self.shuffled > DENSE).float().mean() < 0.5)

    def __repr__(self) -> str:
        """Return the shares and densities, in one line."""
        return (
            f"PlantedEvidence(found in {self.share:.0%} of {len(self.density)} pictures, density "
            f"{self.density.median().item():.1f}, with shuffled weights "
            f"{self.shuffled.median().item():.1f})"
        )


def planted_evidence(
    make: Callable[[nn.Module], Explainer],
    *,
    transformer: bool = False,
    pictures: int = 40,
    seed: int = 1,
) -> PlantedEvidence:
    """Test a method on a small trained network whose evidence is known.

    Each picture is 48 x 48 pixels of noise with one patch of 8 x 8, whose pattern determines the
    class. A network is trained on such pictures once per process, which takes a few seconds on one
    core.

    Args:
        make: returns an explainer of a given model, such as ``camlens.GradCAM``.
        transformer: whether to use a vision transformer (needs timm) instead of a convolutional
            network.
        pictures: number of pictures; those that the network misclassifies are left out.
        seed: seed of the pictures.

    Raises:
        ImportError: the transformer needs timm.
        TypeError: ``make`` does not return an explainer.

    Example:
        >>> import camlens
        >>> planted_evidence(camlens.GradCAM).found
        True
    """
    model = planted.trained_transformer() if transformer else planted.trained()
    step = planted.PATCH if transformer else 4
    images, classes, masks = planted.pictures(integer("pictures", pictures), seed, step)
    with torch.no_grad():
        right = model(images).argmax(dim=1) == classes
    images, classes, masks = images[right], classes[right], masks[right]
    heat, shuffled = (
        made(make, network)(images.clone(), targets=classes).heatmaps[:, 0].cpu()
        # Copies, so that changes that a method makes to a model do not affect later calls.
        for network in (copy.deepcopy(model), planted.shuffled(model))
    )
    peak = heat.flatten(1).argmax(dim=1)
    peaks = torch.stack([peak // planted.SIZE, peak % planted.SIZE], dim=1).float()
    return PlantedEvidence(
        density=planted.density(heat, masks),
        hottest=_hottest(heat, masks),
        offset=peaks - _centres(masks),
        shuffled=planted.density(shuffled, masks),
    )


def made(make: object, model: nn.Module) -> Explainer:
    """Create an explainer of a model.

    Raises:
        TypeError: ``make`` does not return an explainer.
    """
    if isinstance(make, Explainer):
        name = type(make).__name__
        raise TypeError(
            f"expected a function that creates an explainer of a model, got an explainer ({name}) "
            f"of one model: pass the class, {name}, or, to set options, "
            f"lambda model: {name}(model, ...)"
        )
    explainer = make(model) if callable(make) else make
    if not isinstance(explainer, Explainer):
        raise TypeError(
            "expected a function that creates an explainer of a model, such as camlens.GradCAM or "
            f"lambda model: camlens.RISE(model, masks=500), got {make!r:.80}"
        )
    return explainer


def _hottest(heat: Tensor, masks: Tensor) -> Tensor:
    """Return (N,): whether the hottest window overlaps the patch by more than a quarter."""
    places = functional.avg_pool2d(heat.unsqueeze(1), planted.PATCH, 2).flatten(1)
    patch = functional.avg_pool2d(masks.unsqueeze(1), planted.PATCH, 2).flatten(1)
    return patch.gather(1, places.argmax(dim=1, keepdim=True)).squeeze(1) > 0.25


def _centres(masks: Tensor) -> Tensor:
    """Return (N, 2): the centre of each mask, in pixels."""
    pixels = torch.arange(planted.SIZE, dtype=torch.float32)
    area = masks.sum(dim=(1, 2))
    return torch.stack(
        [(masks.sum(dim=2) * pixels).sum(dim=1), (masks.sum(dim=1) * pixels).sum(dim=1)], dim=1
    ) / area.unsqueeze(1)
