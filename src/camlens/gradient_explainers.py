"""The input gradients as explainers; their rules are in ``methods/gradient.py``."""

from __future__ import annotations

import abc
import contextlib
from typing import final

import torch
from torch import Tensor

from . import explain, heatmap, modules, taps
from .cam_explainers import CAM
from .derivatives import derivatives
from .explain import Call, Explainer
from .explanation import Explanation
from .methods import cam
from .methods import gradient as rules
from .rectifiers import rectifiers


class InputFamily(Explainer):
    """What the input gradients share: one forward and one backward pass through all of the model.

    Args:
        model: any module whose output (or part of it) is a score for each image.
    """

    @abc.abstractmethod
    def _backward_rule(self) -> contextlib.AbstractContextManager[object]: ...

    def _explain(self, call: Call) -> Explanation:
        leaf = call.images.detach().clone().requires_grad_()
        with torch.enable_grad():
            with modules.eager(self.model), self._backward_rule():
                selection = call.scores(self.model, leaf.clone())
            gradients = _by_images(selection.scores, leaf)
        raw = rules.saliency(gradients)
        return self._finish(call, selection, raw, grid=call.size, gradients=gradients)


@final
class InputGradient(InputFamily):
    """The plain gradient of a score by the image (Simonyan et al. 2013, arXiv:1312.6034)."""

    def _backward_rule(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


@final
class Deconvnet(InputFamily):
    """Deconvnet (Zeiler and Fergus 2013), see :func:`camlens.methods.gradient.deconvnet_rule`.

    For models whose rectifiers are ReLU or ReLU6, in any spelling.
    """

    def _backward_rule(self) -> contextlib.AbstractContextManager[object]:
        return rectifiers(rules.deconvnet_rule)


@final
class GuidedBackprop(InputFamily):
    """Guided backprop (Springenberg et al. 2014), :func:`camlens.methods.gradient.guided_rule`.

    For models whose rectifiers are ReLU or ReLU6, in any spelling. It shows sharp structure, but
    hardly depends on the class or even on the upper layers' weights (Adebayo et al. 2018,
    arXiv:1810.03292): look at it for texture, not as evidence for a class.
    """

    def _backward_rule(self) -> contextlib.AbstractContextManager[object]:
        return rectifiers(rules.guided_rule)


@final
class GuidedGradCAM(CAM):
    """Guided backprop times Grad-CAM, see :func:`camlens.methods.gradient.guided_grad_cam`.

    Both come from one forward pass; Grad-CAM's gradients are the plain ones.
    """

    method = staticmethod(cam.grad_cam)

    def _explain(self, call: Call) -> Explanation:
        names = self._names(call)
        leaf = call.images.detach().clone().requires_grad_()
        with taps.tap(self.model, names, gradients=True) as tapped, torch.enable_grad():
            with rectifiers(rules.plain_rule) as mode:
                selection = call.scores(self.model, leaf.clone())
            maps = self._raw(tapped, selection, call.size, keep=True)
            mode.rule = rules.guided_rule
            guided = _by_images(selection.scores, leaf)
        heat = heatmap.scale(heatmap.resize(maps, call.size))
        gradients = rules.guided_grad_cam(guided, heat)
        return self._finish(
            call,
            selection,
            rules.saliency(gradients),
            grid=explain.grid_of(maps),
            names=names,
            gradients=gradients,
        )


def _by_images(scores: Tensor, leaf: Tensor) -> Tensor:
    """Return (N, K, C, H, W) float32 derivatives of the scores by the images."""
    chunks = explain.chunks(scores.shape[1], [leaf])
    parts = [
        derivatives(
            scores, [leaf], names=["the images"], columns=chunk, keep_graph=chunk is not chunks[-1]
        )[0].float()
        for chunk in chunks
    ]
    return torch.cat(parts, dim=1)
