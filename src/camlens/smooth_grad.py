"""SmoothGrad: any explainer, averaged over noisy images."""

from __future__ import annotations

import dataclasses
from typing import final

import torch

from .explainers import Attribution, Explainer, LayerExplainer, at_least_float32
from .options import integer
from .probe import Probe
from .progress import progress_bar


@final
class SmoothGrad(Explainer):
    """SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825): the mean over noisy copies of an image.

    Of any explainer: of one whose maps are made of signed gradients, the gradients are averaged
    and the map made of their mean, as in the paper; of a class activation map the maps. The
    targets are those of the unchanged image.

    Args:
        explainer: what explains each noisy copy, such as ``Saliency(model)``.
        samples: copies, a call of the explainer each; the paper finds little change above 50.
        noise: the standard deviation of the noise, as a share of the image's range, its largest
            value less its smallest; the paper finds 0.1 to 0.2 best.
        seed: of the noise, which is the same for all images and at every call.
        progress: whether a progress bar is shown. None: where standard error is a terminal.

    Example:
        >>> from torch import nn
        >>> from camlens import Saliency
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
        >>> SmoothGrad(Saliency(model), samples=5)(torch.rand(2, 3, 8, 8)).raw.shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
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
        self.explainer, self.noise, self.seed = explainer, noise, seed
        self.samples = integer("samples", samples, least=2)
        self._progress = progress

    def attribute(self, probe: Probe) -> Attribution:
        """Average the explainer's maps, or their gradients, over noisy images."""
        images = probe.images
        if isinstance(self.explainer, LayerExplainer):
            self.explainer.sites(probe)  # measured on images without noise
        values = at_least_float32(images).flatten(1)
        width = self.noise * (values.amax(dim=1) - values.amin(dim=1))
        width = width.view(-1, *[1] * (images.ndim - 1))
        rows = torch.arange(len(images), device=images.device)
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same on any device
        parts: Attribution | None = None
        with progress_bar(self.samples, type(self).__name__, shown=self._progress) as advance:
            for _ in range(self.samples):
                noise = torch.randn(images.shape[1:], generator=generator).to(images.device)
                noisy = images + (noise * width).to(images.dtype)
                part = self.explainer.attribute(probe.changed(noisy, rows))
                parts = part if parts is None else _added(parts, part)
                advance(1)
        if parts is None:
            raise RuntimeError("a mean of no samples")
        raw, gradients = parts.raw / self.samples, parts.gradients
        if gradients is not None:
            gradients = gradients / self.samples
            raw = raw if parts.reduction is None else parts.reduction(gradients)
        return dataclasses.replace(parts, raw=raw, gradients=gradients, measures={})


def _added(one: Attribution, other: Attribution) -> Attribution:
    gradients = one.gradients
    if gradients is not None and other.gradients is not None:
        gradients = gradients + other.gradients
    return dataclasses.replace(one, raw=one.raw + other.raw, gradients=gradients)
