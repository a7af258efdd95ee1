"""Input-gradient methods: saliency, deconvnet, guided backprop and guided Grad-CAM."""

from __future__ import annotations

import abc
from typing import final

import torch
from torch import Tensor

from .. import heatmap
from ..intercept import BackwardRule, Rule
from ..methods import cam
from ..methods import gradient as rules
from ..probe import Pass, Probe
from ..registration import place
from .base import Attribution, Explainer, at_least_float32
from .layer_explainer import LayerExplainer, fused_maps

__all__ = ["Deconvnet", "GradientAttribution", "GuidedBackprop", "GuidedGradCAM", "Saliency"]


class GradientAttribution(Explainer):
    """Base class of input-gradient methods: one forward and one backward pass to the image.

    A subclass defines :attr:`rule`, the backward rule of ReLUs. The arguments are those of
    :class:`Explainer`.
    """

    cost = "F + F for each target"

    @property
    @abc.abstractmethod
    def rule(self) -> Rule | None:
        """Backward rule of ReLUs, see :mod:`camlens.methods.gradient`; None: the derivative."""

    @final
    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward and one backward pass through the whole model."""
        # The rule applies to the gradients below only: the user's backward passes stay plain.
        mode = None if self.rule is None else BackwardRule(rules.plain_rule)
        traced = probe.run(start="images", mode=mode)
        gradients = image_gradients(traced, self.rule, create_graph=self.create_graph)
        raw = rules.saliency(gradients)
        return Attribution(raw=raw, gradients=gradients, reduction=rules.saliency)


def image_gradients(
    traced: Pass, rule: Rule | None = None, *, create_graph: bool = False
) -> Tensor:
    """Return (N, K, C, *size) gradients with respect to the images, in float32 or wider."""
    chunks = traced.chunks()
    parts = [
        traced.image_gradients(
            chunk, rule=rule, keep_graph=chunk is not chunks[-1], create_graph=create_graph
        )
        for chunk in chunks
    ]
    return at_least_float32(torch.cat(parts, dim=1))


@final
class Saliency(GradientAttribution):
    r"""Saliency (Simonyan et al. 2013): absolute gradient of a score with respect to the image.

    .. math:: L = \max_c \left| \frac{\partial y}{\partial x_c} \right|

    x is the image and y the explained score. ``raw`` (N, K, *size) is this map; ``gradients``
    (N, K, C, *size) are the signed derivatives.

    Source: Simonyan et al., "Deep Inside Convolutional Networks", 2013 (arXiv:1312.6034), section
    3.1. As a function of tensors: :func:`camlens.methods.gradient.saliency`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: see :class:`Explainer`.
    """

    @property
    def rule(self) -> None:
        """None: ReLUs pass their derivative."""


@final
class Deconvnet(GradientAttribution):
    r"""Deconvnet (Zeiler and Fergus 2013): input gradients; ReLUs pass only positive gradients.

    .. math:: g_{\mathrm{in}} = \mathrm{ReLU}(g_{\mathrm{out}})

    at each ReLU, whether the unit was active or not. ``gradients`` (N, K, C, *size) are the
    resulting signed gradients, ``raw`` (N, K, *size) their largest absolute value over the
    channels. For models whose activations are ReLU or ReLU6, called as a module, function or
    method.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013
    (arXiv:1311.2901); in this form Springenberg et al. 2014, figure 1c. As a function of tensors:
    :func:`camlens.methods.gradient.deconvnet_rule`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: see :class:`Explainer`.
    """

    @property
    def rule(self) -> Rule:
        """Rule that passes positive gradients."""
        return rules.deconvnet_rule


@final
class GuidedBackprop(GradientAttribution):
    r"""Guided backprop (Springenberg et al. 2014): input gradients; ReLUs pass only positive ones.

    .. math:: g_{\mathrm{in}} = \mathrm{ReLU}(g_{\mathrm{out}})\, [a > 0]

    at each ReLU with output a: only active units pass a gradient. ``gradients`` (N, K, C, *size)
    are the resulting signed gradients with respect to the image, ``raw`` (N, K, *size) their
    largest absolute value over the channels. For models whose activations are ReLU or ReLU6, called
    as a module, function or method.

    The map shows sharp structure, but hardly depends on the class or even on the weights of the
    upper layers (Adebayo et al. 2018, arXiv:1810.03292). Use it to look at texture, not as
    evidence for a class.

    Source: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014
    (arXiv:1412.6806), section 3.4 and figure 1c. As a function of tensors:
    :func:`camlens.methods.gradient.guided_rule`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: see :class:`Explainer`.
    """

    @property
    def rule(self) -> Rule:
        """Rule that passes positive gradients through active units."""
        return rules.guided_rule


@final
class GuidedGradCAM(LayerExplainer):
    """Guided Grad-CAM (Selvaraju et al. 2017): guided backprop times the Grad-CAM heatmap.

    ``gradients`` (N, K, C, *size) are the gradients of guided backprop, multiplied pixel by pixel
    with the Grad-CAM heatmap in [0, 1]; ``raw`` (N, K, *size) is their largest absolute value over
    the channels. Both factors come from one forward pass; Grad-CAM uses plain gradients. For
    models whose activations are ReLU or ReLU6.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv:1610.02391), section 3.2. As a function
    of tensors: :func:`camlens.methods.gradient.guided_grad_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer that Grad-CAM explains, by name or as a module; the maps of several are
            fused. None: the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.
    """

    cost = "F + F for each target"

    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward pass, a plain backward pass to the layer, a guided one to the image."""
        traced = probe.run(
            sites=self.sites(probe), start="images", mode=BackwardRule(rules.plain_rule)
        )
        maps = fused_maps(
            traced,
            cam.grad_cam,
            fuse=self.fuse,
            keep_graph=True,
            create_graph=self.create_graph,
        )
        registration = self.placed(probe, traced)
        guided = image_gradients(traced, rules.guided_rule, create_graph=self.create_graph)
        heat = heatmap.scale(place(maps, registration))
        gradients = rules.guided_grad_cam(guided, heat)
        return Attribution(
            raw=rules.saliency(gradients),
            grid=tuple(maps.shape[2:]),
            layers=tuple(site.name for site in traced.sites),
            registration=registration,
            gradients=gradients,
            reduction=rules.saliency,
        )
