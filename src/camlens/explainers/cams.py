"""Class activation maps (Grad-CAM, LayerCAM, ...) from a layer's activations and gradients."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from .. import heatmap
from ..methods import cam
from ..probe import Probe
from .base import Attribution, at_least_float32
from .layer_explainer import LayerAttribution, LayerExplainer, fused_maps

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
    r"""Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big), \quad
              w_c = \frac{1}{hw} \sum_{ij} \frac{\partial y}{\partial A_{cij}}

    A is the layer's output, (N, C, *grid), and y the explained score; h w is the number of cells.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", ICCV 2017 (arXiv:1610.02391), equations 1 and 2. As a function of
    tensors: :func:`camlens.methods.cam.grad_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> explanation = GradCAM(net.eval(), "1")(torch.rand(4, 3, 8, 8), targets="all")
        >>> explanation.heatmaps.shape, explanation.grid
        (torch.Size([4, 2, 8, 8]), (6, 6))
    """

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps of equation 2 of the paper."""
        return cam.grad_cam(activations, gradients)


@final
class GradCAMPlusPlus(LayerAttribution):
    r"""Grad-CAM++ (Chattopadhay et al. 2018): channels weighted by their positive gradients.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big), \quad
              w_c = \sum_{ij} \alpha_{cij}\, \mathrm{ReLU}(g_{cij}), \quad
              \alpha_{cij} = \frac{g_{cij}^2}{2 g_{cij}^2 + g_{cij}^3 \sum_{ab} A_{cab}}

    A is the layer's output, (N, C, *grid), and g the gradient of the explained score with respect
    to A. The method assumes activations that are not negative, that is, the output of a ReLU.

    Source: Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for
    Deep Convolutional Networks", WACV 2018 (arXiv:1710.11063), equations 5, 10 and 19. As a
    function of tensors: :func:`camlens.methods.cam.grad_cam_plus_plus`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.
    """

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps with the weights of equation 19."""
        return cam.grad_cam_plus_plus(activations, gradients)


@final
class HiResCAM(LayerAttribution):
    r"""HiResCAM (Draelos and Carin 2020): activations times gradients, summed over the channels.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c g_c \odot A_c\Big)

    A is the layer's output, (N, C, *grid), and g the gradient of the explained score with respect
    to A. Unlike Grad-CAM, HiResCAM does not average the gradient over the cells.

    Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", 2020 (arXiv:2011.08891), section 3.3. As a function of tensors:
    :func:`camlens.methods.cam.hires_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.
    """

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the positive part of the sum of activations times gradients."""
        return cam.hires_cam(activations, gradients)


@final
class LayerCAM(LayerAttribution):
    r"""LayerCAM (Jiang et al. 2021): activations weighted cell by cell with positive gradients.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c \mathrm{ReLU}(g_c) \odot A_c\Big)

    A is the layer's output, (N, C, *grid), and g the gradient of the explained score with respect
    to A.

    Source: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for
    Localization", IEEE Transactions on Image Processing 30, 2021, equations 6 to 8. As a function
    of tensors: :func:`camlens.methods.cam.layer_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.
    """

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the positive part of the sum of activations times positive gradients."""
        return cam.layer_cam(activations, gradients)


@final
class XGradCAM(LayerAttribution):
    r"""XGrad-CAM (Fu et al. 2020): channels weighted by their activation-weighted mean gradient.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big), \quad
              w_c = \frac{\sum_{ij} A_{cij}\, g_{cij}}{\sum_{ij} A_{cij}}

    A is the layer's output, (N, C, *grid), and g the gradient of the explained score with respect
    to A. A channel whose activations sum to zero has weight 0. The method assumes activations that
    are not negative.

    Source: Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of
    CNNs", BMVC 2020 (arXiv:2008.02312), equation 8. As a function of tensors:
    :func:`camlens.methods.cam.xgrad_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.
    """

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps with the weights of equation 8."""
        return cam.xgrad_cam(activations, gradients)


@final
class EigenGradCAM(LayerAttribution):
    r"""EigenGrad-CAM (library grad-cam 2021): first principal component of activations * gradients.

    .. math:: O = g \odot A = U \Sigma V^\top, \quad L = \mathrm{ReLU}(\pm\, O V_1)

    A is the layer's output, (N, C, *grid), and g the gradient of the explained score with respect
    to A; O is their product as an (hw, C) matrix, not centred. The sign of a singular vector is
    arbitrary: camlens takes the sign for which the projection agrees with the evidence
    ``sum_c g_c A_c``.

    Source: Gildenblat et al., pytorch-grad-cam, 2021, which leaves the sign to chance; after
    Muhammad and Yeasin 2020 (arXiv:2008.00299). As a function of tensors:
    :func:`camlens.methods.cam.eigen_grad_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        options: ``layout``, ``registration`` and ``fuse``, see :class:`LayerExplainer`.

    Raises:
        ValueError: ``create_graph`` is true.
    """

    def __init__(self, model: nn.Module, layer: Any = None, **options: Any) -> None:
        super().__init__(model, layer, **options)
        if self.create_graph:
            raise ValueError(_NO_GRADIENT.format("EigenGrad-CAM"))

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the first principal component of activations times gradients."""
        return cam.eigen_grad_cam(activations, gradients)


@final
class CAM(LayerExplainer):
    r"""CAM (Zhou et al. 2016): channels weighted by the weights of the final linear layer.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big)

    A is the layer's output, (N, C, *grid), and w the explained class's weights in the linear layer
    that follows global average pooling. CAM is defined only for models in which average pooling
    and a linear layer follow the explained layer; it refuses any other model. Where it is defined
    it equals Grad-CAM up to a factor.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016
    (arXiv:1512.04150), equation 2. As a function of tensors:
    :func:`camlens.methods.cam.class_activation_map`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse, create_graph: see :class:`LayerExplainer`.

    Raises:
        ValueError: when called, if anything but average pooling and a linear layer follows the
            explained layer.
    """

    cost = "F + T for each target"

    def attribute(self, probe: Probe) -> Attribution:
        """Derive the linear layer's weights from the gradients, and check that CAM is defined."""
        traced = self.trace(probe)
        if nonlinear := traced.operations() - LINEAR:
            raise ValueError(
                "CAM is defined for average pooling and a linear layer after the explained "
                f"layer, but the score also passes through {', '.join(sorted(nonlinear))}: use "
                "GradCAM, which equals CAM where that is defined"
            )

        def maps(activations: Tensor, gradients: Tensor) -> Tensor:
            weights = gradients.flatten(3)
            spread = (weights.amax(dim=3) - weights.amin(dim=3)).amax()
            if (spread > 1e-3 * weights.abs().amax()).item():
                raise ValueError(
                    "CAM is defined for average pooling and a linear layer after the explained "
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

#: Names of the autograd nodes of average pooling and linear layers.
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
    r"""Eigen-CAM (Muhammad and Yeasin 2020): first principal component of the activations.

    .. math:: O = U \Sigma V^\top, \quad L = \mathrm{ReLU}(O V_1)

    O is the layer's output as an (hw, C) matrix, not centred, with the sign of :math:`V_1` chosen
    so that the sum of :math:`O V_1` is not negative. The map does not depend on the target: the K
    maps of an image are equal, and no gradient is computed.

    Source: Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components",
    IJCNN 2020 (arXiv:2008.00299), section III. As a function of tensors:
    :func:`camlens.methods.cam.eigen_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are fused. None:
            the default layer.
        layout, registration, fuse: see :class:`LayerExplainer`.

    Raises:
        ValueError: when called, if ``create_graph`` is true.
    """

    cost = "F"

    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward pass and decompose the activations.

        Raises:
            ValueError: ``create_graph`` is true.
        """
        if self.create_graph:
            raise ValueError(_NO_GRADIENT.format("Eigen-CAM"))
        traced = probe.run(sites=self.sites(probe), start=None)
        activations = [at_least_float32(maps) for maps in traced.activations()]
        try:
            maps = heatmap.fuse([cam.eigen_cam(a) for a in activations], self.fuse)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            # The activations hold NaN, and most likely the scores too: check reports that.
            traced.selection.check(activations[-1])
            raise
        raw = maps.expand(-1, traced.scores.shape[1], *maps.shape[2:])
        return self.attribution(probe, traced, raw)
