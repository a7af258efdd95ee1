"""Class activation maps (GradCAM, LayerCAM, ...), from a layer's activations and gradients."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from . import heatmap
from .explainers import Attribution, LayerAttribution, LayerExplainer, at_least_float32, fused_maps
from .methods import cam
from .probe import Probe

__all__ = [
    "CAM",
    "EigenCAM",
    "EigenGradCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "XGradCAM",
]


@final
class GradCAM(LayerAttribution):
    """Grad-CAM (Selvaraju et al. 2017), see :func:`camlens.methods.cam.grad_cam`.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> explanation = GradCAM(net.eval(), "1")(torch.rand(4, 3, 8, 8), targets="all")
        >>> explanation.heatmaps.shape, explanation.grid
        (torch.Size([4, 2, 8, 8]), (6, 6))
    """

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return equation 2 of the paper."""
        return cam.grad_cam(activations, gradients)


@final
class GradCAMPlusPlus(LayerAttribution):
    """Grad-CAM++ (Chattopadhay et al. 2018), see :func:`camlens.methods.cam.grad_cam_plus_plus`."""

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the map with the weights of equation 19."""
        return cam.grad_cam_plus_plus(activations, gradients)


@final
class HiResCAM(LayerAttribution):
    """HiResCAM (Draelos and Carin 2020), see :func:`camlens.methods.cam.hires_cam`."""

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the sum of activations times gradients."""
        return cam.hires_cam(activations, gradients)


@final
class LayerCAM(LayerAttribution):
    """LayerCAM (Jiang et al. 2021), see :func:`camlens.methods.cam.layer_cam`."""

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the sum of activations times positive gradients."""
        return cam.layer_cam(activations, gradients)


@final
class XGradCAM(LayerAttribution):
    """XGrad-CAM (Fu et al. 2020), see :func:`camlens.methods.cam.xgrad_cam`."""

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the map with the weights of equation 8."""
        return cam.xgrad_cam(activations, gradients)


@final
class EigenGradCAM(LayerAttribution):
    """EigenGrad-CAM (library grad-cam 2021), see :func:`camlens.methods.cam.eigen_grad_cam`.

    Raises:
        ValueError: ``create_graph`` was asked for.
    """

    def __init__(self, model: nn.Module, layer: Any = None, **options: Any) -> None:
        super().__init__(model, layer, **options)
        if self.create_graph:
            raise ValueError(_NO_GRADIENT.format("EigenGrad-CAM"))

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the first direction of activations times gradients."""
        return cam.eigen_grad_cam(activations, gradients)


@final
class CAM(LayerExplainer):
    """CAM (Zhou et al. 2016), see :func:`camlens.methods.cam.class_activation_map`.

    Defined for a score that is average pooling and a linear layer behind the explained layer;
    any other model is refused. There it equals Grad-CAM but for the scale.

    Raises:
        ValueError: when called, if what is behind the layer is not pooling and linear.
    """

    cost = "F + T for each target"

    def attribute(self, probe: Probe) -> Attribution:
        """Read the linear layer's weights off the gradients, and check that they are that."""
        traced = self.trace(probe)
        if nonlinear := traced.operations() - LINEAR:
            raise ValueError(
                "CAM is defined for average pooling and a linear layer behind the explained "
                f"layer, but the score also passes {', '.join(sorted(nonlinear))}: use GradCAM, "
                "which equals CAM where that is defined"
            )

        def maps(activations: Tensor, gradients: Tensor) -> Tensor:
            weights = gradients.flatten(3)
            spread = (weights.amax(dim=3) - weights.amin(dim=3)).amax()
            if (spread > 1e-3 * weights.abs().amax()).item():
                raise ValueError(
                    "CAM is defined for average pooling and a linear layer behind the explained "
                    "layer, but here cells of one channel have different weights: use HiResCAM "
                    "or GradCAM"
                )
            return cam.class_activation_map(activations, gradients)

        return self.attribution(
            probe,
            traced,
            fused_maps(traced, maps, fuse=self.fuse, create_graph=self.create_graph),
        )


_NO_GRADIENT = (
    "{} has no gradient where singular values are equal, such as those of dead channels: train "
    "with another map, such as GradCAM or HiResCAM"
)

#: Operations of average pooling and a linear layer, by the names of their autograd nodes.
LINEAR = frozenset(
    [
        *("AccumulateGrad", "Addmm", "Mm", "Bmm", "T", "Linear", "Add", "Convolution"),
        *("Mean", "Sum", "Div", "AvgPool", "AdaptiveAvgPool", "AvgPool2D", "AvgPool3D"),
        *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "View", "UnsafeView", "ReshapeAlias"),
        *("Squeeze", "Unsqueeze", "Permute", "Transpose", "Expand", "Clone", "Alias"),
        *("Gather", "Gather of the model", "Select", "Slice", "Index"),
        *("ToCopy", "Sub", "Rsub", "Neg"),
    ]
)


@final
class EigenCAM(LayerExplainer):
    """Eigen-CAM (Muhammad and Yeasin 2020), see :func:`camlens.methods.cam.eigen_cam`.

    It does not depend on the target: the K maps of an image are the same, and no gradient is
    computed.
    """

    cost = "F"

    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward pass and decompose the activations.

        Raises:
            ValueError: ``create_graph`` was asked for.
        """
        if self.create_graph:
            raise ValueError(_NO_GRADIENT.format("Eigen-CAM"))
        traced = probe.run(sites=self.sites(probe), start=None)
        activations = [at_least_float32(maps) for maps in traced.activations()]
        try:
            maps = heatmap.fuse([cam.eigen_cam(a) for a in activations], self.fuse)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            # NaN in the activations, and most likely in the scores
            traced.selection.check(activations[-1])
            raise
        raw = maps.expand(-1, traced.scores.shape[1], *maps.shape[2:])
        return self.attribution(probe, traced, raw)
