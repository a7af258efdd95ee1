"""The gradients of a score by the image: saliency, deconvnet, guided backprop, guided Grad-CAM."""

from __future__ import annotations

from typing import final

from . import heatmap
from .explainers import (
    Attribution,
    GradientAttribution,
    LayerExplainer,
    fused_maps,
    image_gradients,
)
from .intercept import BackwardRule, Rule
from .methods import cam
from .methods import gradient as rules
from .probe import Probe
from .registration import place

__all__ = ["Deconvnet", "GuidedBackprop", "GuidedGradCAM", "Saliency"]


@final
class Saliency(GradientAttribution):
    """The gradient of a score by the image (Simonyan et al. 2013, arXiv:1312.6034).

    ``raw`` is the largest absolute gradient over the channels, ``gradients`` keeps the signs.
    """

    @property
    def rule(self) -> None:
        """None: gradients pass as they are."""


@final
class Deconvnet(GradientAttribution):
    """Deconvnet (Zeiler and Fergus 2013), see :func:`camlens.methods.gradient.deconvnet_rule`.

    For models whose rectifiers are ReLU or ReLU6, in any spelling.
    """

    @property
    def rule(self) -> Rule:
        """Gradients pass where they are positive."""
        return rules.deconvnet_rule


@final
class GuidedBackprop(GradientAttribution):
    """Guided backprop (Springenberg et al. 2014), :func:`camlens.methods.gradient.guided_rule`.

    For models whose rectifiers are ReLU or ReLU6, in any spelling. It shows sharp structure, but
    hardly depends on the class or even on the upper layers' weights (Adebayo et al. 2018,
    arXiv:1810.03292): look at it for texture, not as evidence for a class.
    """

    @property
    def rule(self) -> Rule:
        """Gradients pass where they are positive and the unit was active."""
        return rules.guided_rule


@final
class GuidedGradCAM(LayerExplainer):
    """Guided backprop times Grad-CAM, see :func:`camlens.methods.gradient.guided_grad_cam`.

    Both come from one forward pass; Grad-CAM's gradients are the plain ones.
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
