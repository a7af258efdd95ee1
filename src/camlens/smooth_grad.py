"""SmoothGrad: any explainer, averaged over noisy images."""

from __future__ import annotations

import dataclasses
from typing import Literal, final

import torch
from torch import Tensor

from . import heatmap
from .explainers import (
    Attribution,
    Explainer,
    LayerAttribution,
    LayerExplainer,
    at_least_float32,
)
from .options import integer
from .probe import Probe, Tail
from .progress import progress_bar

__all__ = ["SmoothGrad"]

#: More samples than anyone draws: no two seeds share a sample.
_SAMPLES = 2**20


@final
class SmoothGrad(Explainer):
    """SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825): the mean over noisy copies of an image.

    Of any explainer: of one whose maps are made of signed gradients, the gradients are averaged
    and the map made of their mean, as in the paper; of a class activation map the maps. The
    targets are those of the unchanged image. Measures and concepts of single copies are left out.

    With ``at="layer"`` the noise is put on the activations of the explained layer of a class
    activation map: its gradients are averaged, at the price of the model from that layer on.

    Args:
        explainer: what explains each noisy copy, such as ``Saliency(model)``.
        at: where the noise is put: on the ``"images"``, or the ``"layer"``.
        samples: copies, a call of the explainer each; the paper finds little change above 50.
        noise: the standard deviation of the noise, as a share of the range of the image, or of
            the activations: the largest value less the smallest. The paper finds 0.1 to 0.2 best.
        seed: of the noise, which is the same for all images and at every call.
        progress: whether a progress bar is shown. None: where standard error is a terminal.

    Example:
        >>> from torch import nn
        >>> from camlens import Saliency
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
        >>> SmoothGrad(Saliency(model), samples=5)(torch.rand(2, 3, 8, 8)).raw.shape
        torch.Size([2, 1, 8, 8])
    """

    needs = "an explainer"
    cost = "its explainer's, for each sample"

    def __init__(
        self,
        explainer: Explainer,
        *,
        at: Literal["images", "layer"] = "images",
        samples: int = 50,
        noise: float = 0.15,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        if not isinstance(explainer, Explainer):
            raise TypeError(
                "expected an explainer, such as SmoothGrad(Saliency(model)), got "
                f"{type(explainer).__name__}"
            )
        super().__init__(explainer.model, create_graph=explainer.create_graph)
        if not noise >= 0:
            raise ValueError(f"expected noise of at least 0, got {noise!r}")
        if at not in ("images", "layer"):
            raise ValueError(f'expected at="images" or at="layer", got {at!r}')
        if at == "layer" and (
            not isinstance(explainer, LayerAttribution) or explainer.create_graph
        ):
            raise ValueError(
                'expected for at="layer" a class activation map that is not trained with, such '
                f"as GradCAM(model), got {explainer!r}"
            )
        self.explainer, self.at, self.noise, self.seed = explainer, at, noise, seed
        self.samples = integer("samples", samples, least=2)
        self._progress = progress

    def attribute(self, probe: Probe) -> Attribution:
        """Average the explainer's maps, or their gradients, over noisy images or activations."""
        if self.at == "layer" and isinstance(self.explainer, LayerAttribution):
            return self._of_the_layer(probe, self.explainer)
        images = probe.images
        if isinstance(self.explainer, LayerExplainer):
            self.explainer.sites(probe)  # measured on images without noise
        width = self._width(images)
        rows = torch.arange(len(images), device=images.device)
        parts: Attribution | None = None
        with progress_bar(self.samples, type(self).__name__, shown=self._progress) as advance:
            for sample in range(self.samples):
                noisy = images + (self._noise(sample, images) * width).to(images.dtype)
                part = self.explainer.attribute(probe.changed(noisy, rows))
                parts = part if parts is None else _added(parts, part)
                advance(1)
        if parts is None:
            raise RuntimeError("a mean of no samples")
        raw, gradients = parts.raw / self.samples, parts.gradients
        if gradients is not None:
            gradients = gradients / self.samples
            raw = raw if parts.reduction is None else parts.reduction(gradients)
        return dataclasses.replace(parts, raw=raw, gradients=gradients, measures={}, concepts=None)

    def _width(self, values: Tensor) -> Tensor:
        """Return the standard deviation of the noise of each of N tensors, (N, 1, ...)."""
        flat = at_least_float32(values).flatten(1)
        width = self.noise * (flat.amax(dim=1) - flat.amin(dim=1))
        return width.view(-1, *[1] * (values.ndim - 1))

    def _of_the_layer(self, probe: Probe, explainer: LayerAttribution) -> Attribution:
        traced = explainer.trace(probe)
        maps = [self._map(explainer, Tail(probe, site, traced)) for site in traced.sites]
        return explainer.attribution(probe, traced, heatmap.fuse(maps, explainer.fuse))

    def _map(self, explainer: LayerAttribution, tail: Tail) -> Tensor:
        activations, samples = tail.activations, self.samples
        width = self._width(activations)

        def make(rows: slice) -> Tensor:
            index = torch.arange(rows.start, min(rows.stop, len(activations) * samples))
            noise = torch.stack([self._noise(i % samples, activations) for i in index.tolist()])
            own = (index // samples).to(activations.device)
            return activations[own] + (noise * width[own]).to(activations.dtype)

        gradients = tail.mean_gradients(make, samples)
        return explainer.maps(at_least_float32(activations), gradients)

    def _noise(self, sample: int, like: Tensor) -> Tensor:
        """Return one sample's noise, the same for all images, in any order, on any device."""
        generator = torch.Generator().manual_seed(self.seed * _SAMPLES + sample)
        return torch.randn(like.shape[1:], generator=generator).to(like.device)


def _added(one: Attribution, other: Attribution) -> Attribution:
    gradients = one.gradients
    if gradients is not None and other.gradients is not None:
        gradients = gradients + other.gradients
    return dataclasses.replace(one, raw=one.raw + other.raw, gradients=gradients)
