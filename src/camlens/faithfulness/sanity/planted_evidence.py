"""Planted evidence: a network whose evidence is known, to hold a method against."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...explainers import Explainer
from ...options import integer
from . import planted_pictures as planted

#: A map passes whose heat is so many times denser on the patch than chance would have it.
DENSE = 3.0
#: In so many of the pictures a method has to pass.
SHARE = 0.95


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PlantedEvidence:
    """What a method shows in pictures whose only evidence is one patch.

    Attributes:
        density: (N,): the share of the heat on the patch over the patch's share of the area; 1 is
            chance.
        hottest: (N,) bool: no place of the patch's size holds more heat than where the patch is.
        offset: (N, 2): the heat's maximum less the patch's centre, down and right, in pixels.
        shuffled: (N,): as ``density``, of the network with its weights in random order.
    """

    density: Tensor
    hottest: Tensor
    offset: Tensor
    shuffled: Tensor

    @property
    def share(self) -> float:
        """The share of the pictures with a density above 3 and the hottest place on the patch."""
        return ((self.density > DENSE) & self.hottest).float().mean().item()

    @property
    def found(self) -> bool:
        """Whether the evidence is found in at least 95% of the pictures."""
        return self.share >= SHARE

    @property
    def destroyed(self) -> bool:
        """Whether shuffled weights destroy what is found."""
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
    """Explain a small trained network whose evidence is known.

    Pictures of 48 pixels of noise hold one patch of 8, whose pattern decides the class. A network
    is trained on them, once in a process: some seconds on one core.

    Args:
        make: from a model to an explainer, such as ``camlens.GradCAM``.
        transformer: whether the network is a vision transformer and not convolutional; needs timm.
        pictures: how many; those that the network gets wrong are left out.
        seed: of the pictures.

    Raises:
        ImportError: a transformer without timm.
        TypeError: ``make`` makes no explainer.

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
        # Copies: what a method leaves behind in one must not reach later calls.
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
    """Make an explainer of a model.

    Raises:
        TypeError: what came is none.
    """
    if isinstance(make, Explainer):
        name = type(make).__name__
        raise TypeError(
            f"expected what makes an explainer of a model, got an explainer ({name}) of a model "
            f"that it cannot be parted from, and small networks have to be explained here: give "
            f"the class, {name}, or with options of yours lambda model: {name}(model, ...)"
        )
    explainer = make(model) if callable(make) else make
    if not isinstance(explainer, Explainer):
        raise TypeError(
            "expected what makes an explainer of a model, such as camlens.GradCAM or lambda model: "
            f"camlens.RISE(model, masks=500), got {make!r:.80}"
        )
    return explainer


def _hottest(heat: Tensor, masks: Tensor) -> Tensor:
    """Return (N,): whether no place of the patch's size holds more heat than where the patch is."""
    places = functional.avg_pool2d(heat.unsqueeze(1), planted.PATCH, 2).flatten(1)
    patch = functional.avg_pool2d(masks.unsqueeze(1), planted.PATCH, 2).flatten(1)
    return patch.gather(1, places.argmax(dim=1, keepdim=True)).squeeze(1) > 0.25


def _centres(masks: Tensor) -> Tensor:
    """Return (N, 2): the middle of each mask, in pixels."""
    pixels = torch.arange(planted.SIZE, dtype=torch.float32)
    area = masks.sum(dim=(1, 2))
    return torch.stack(
        [(masks.sum(dim=2) * pixels).sum(dim=1), (masks.sum(dim=1) * pixels).sum(dim=1)], dim=1
    ) / area.unsqueeze(1)
