"""SmoothGrad: any explainer, averaged over noisy copies of the image."""

from __future__ import annotations

import dataclasses
from typing import Literal, final

import torch
from torch import Tensor

from .. import heatmap
from ..options import integer
from ..probe import Probe, Tail
from ..progress import progress_bar
from .base import Attribution, Explainer, at_least_float32
from .layer_explainer import LayerAttribution, LayerExplainer

__all__ = ["SmoothGrad"]

#: More samples than anyone draws, so that no two seeds share a sample.
_SAMPLES = 2**20


@final
class SmoothGrad(Explainer):
    r"""SmoothGrad (Smilkov et al. 2017): any explainer, averaged over noisy copies of the image.

    .. math:: \bar g(x) = \frac{1}{S} \sum_{s=1}^{S} g(x + \varepsilon_s), \quad
              \varepsilon_s \sim \mathcal{N}(0, \sigma^2)

    x is the image and g the explainer's signed gradients, if it has any: camlens averages them and
    computes the map from their mean, as in the paper. For other explainers, such as class
    activation maps, g are the maps themselves. The targets are those of the unchanged image. The
    result has no measures and no concepts.

    With ``at="layer"`` the noise is added to the activations of the explained layer of a class
    activation map, and the gradients with respect to these activations are averaged. Each sample
    then costs only the part of the model that follows the layer.

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017 (arXiv:1706.03825).

    Args:
        explainer: the explainer to average, such as ``Saliency(model)``.
        at: where to add the noise: to the ``"images"`` or to the ``"layer"``.
        samples: number of noisy copies, one call of the explainer for each; the paper finds little
            change above 50.
        noise: the standard deviation of the noise, as a fraction of the range (maximum minus
            minimum) of the image or of the activations. The paper finds 0.1 to 0.2 best.
        seed: seed of the noise, which is the same for all images and calls.
        progress: whether to show a progress bar. None: if standard error is a terminal.

    Raises:
        TypeError: ``explainer`` is not an explainer.
        ValueError: an option is out of range, or ``at="layer"`` with an explainer that is not a
            class activation map or has ``create_graph``.

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
                'at="layer" needs a class activation map without create_graph, such as '
                f"GradCAM(model), got {explainer!r}"
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
            self.explainer.sites(probe)  # measure the layer on images without noise
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
            raise RuntimeError("expected at least one sample, got none")
        raw, gradients = parts.raw / self.samples, parts.gradients
        if gradients is not None:
            gradients = gradients / self.samples
            raw = raw if parts.reduction is None else parts.reduction(gradients)
        return dataclasses.replace(parts, raw=raw, gradients=gradients, measures={}, concepts=None)

    def _width(self, values: Tensor) -> Tensor:
        """Return the standard deviations of the noise of N tensors, (N, 1, ...)."""
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
            index = torch.arange(
                rows.start, min(rows.stop, len(activations) * samples), device="cpu"
            )
            noise = torch.stack([self._noise(i % samples, activations) for i in index.tolist()])
            image = (index // samples).to(activations.device)
            return activations[image] + (noise * width[image]).to(activations.dtype)

        gradients = tail.mean_gradients(make, samples)
        return explainer.maps(at_least_float32(activations), gradients)

    def _noise(self, sample: int, like: Tensor) -> Tensor:
        """Return a sample's noise: the same for all images, orders of samples and devices."""
        generator = torch.Generator("cpu").manual_seed(self.seed * _SAMPLES + sample)
        noise = torch.randn(like.shape[1:], generator=generator, device="cpu", dtype=torch.float32)
        return noise.to(like.device)


def _added(one: Attribution, other: Attribution) -> Attribution:
    gradients = one.gradients
    if gradients is not None and other.gradients is not None:
        gradients = gradients + other.gradients
    return dataclasses.replace(one, raw=one.raw + other.raw, gradients=gradients)
