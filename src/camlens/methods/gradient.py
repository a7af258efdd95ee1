"""Formulas of input gradients: backward rules of ReLUs, and maps computed from gradients.

The ``output`` of a rule is the ReLU's output in the forward pass, positive where the unit was
active, and ``gradient`` the derivative with respect to it in the backward pass. Both have the same
shape.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Signed = Float[Tensor, "n k c *size"]


def plain_rule(gradient: Float[Tensor, "*s"], output: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Plain backpropagation: the gradient passes where the unit was active.

    Source: Simonyan et al., "Deep Inside Convolutional Networks", 2013 (arXiv:1312.6034).

    Example:
        >>> import torch
        >>> gradient, output = torch.tensor([1.0, -1.0, 1.0]), torch.tensor([2.0, 2.0, 0.0])
        >>> plain_rule(gradient, output).tolist()
        [1.0, -1.0, 0.0]
    """
    return _where_active(gradient, output)


def deconvnet_rule(
    gradient: Float[Tensor, "*s"], output: Float[Tensor, "*s"]
) -> Float[Tensor, "*s"]:
    """Deconvnet: the gradient passes where it is positive, whether the unit was active or not.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013
    (arXiv:1311.2901); in this form Springenberg et al., figure 1c.

    Example:
        >>> import torch
        >>> gradient, output = torch.tensor([1.0, -1.0, 1.0]), torch.tensor([2.0, 2.0, 0.0])
        >>> deconvnet_rule(gradient, output).tolist()
        [1.0, 0.0, 1.0]
    """
    return gradient.clamp(min=0)


def guided_rule(gradient: Float[Tensor, "*s"], output: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Guided backprop: the gradient passes where it is positive and the unit was active.

    Source: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014
    (arXiv:1412.6806), section 3.4 and figure 1c.

    Example:
        >>> import torch
        >>> gradient, output = torch.tensor([1.0, -1.0, 1.0]), torch.tensor([2.0, 2.0, 0.0])
        >>> guided_rule(gradient, output).tolist()
        [1.0, 0.0, 0.0]
    """
    return _where_active(gradient, output).clamp_(min=0)


def _where_active(gradient: Tensor, output: Tensor) -> Tensor:
    # ReLU's own derivative: one pass over memory; a comparison and a selection take two.
    passed: Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
    return passed


def saliency(gradients: Signed) -> Float[Tensor, "n k *size"]:
    """Saliency: the largest absolute gradient over an image's channels.

    Source: Simonyan et al. 2013 (arXiv:1312.6034), section 3.1.

    Example:
        >>> import torch
        >>> saliency(torch.tensor([[[[[1.0]], [[-2.0]]]]])).tolist()
        [[[[2.0]]]]
    """
    return gradients.abs().amax(dim=2)


def guided_grad_cam(gradients: Signed, heatmaps: Float[Tensor, "n k *size"]) -> Signed:
    """Guided Grad-CAM: guided backprop times the upsampled Grad-CAM heatmap, pixel by pixel.

    Source: Selvaraju et al. 2017 (arXiv:1610.02391), section 3.2.

    Args:
        gradients: (N, K, C, H, W) of guided backprop.
        heatmaps: (N, K, H, W) of Grad-CAM in [0, 1].

    Example:
        >>> import torch
        >>> gradients = torch.tensor([[[[[3.0, -2.0]]]]])
        >>> guided_grad_cam(gradients, torch.tensor([[[[0.0, 0.5]]]])).abs().tolist()
        [[[[[0.0, 1.0]]]]]
    """
    return gradients * heatmaps.unsqueeze(2)


def full_gradient_sizes(
    contributions: Float[Tensor, "n c *grid"],
) -> Float[Tensor, n * grid]:
    r"""FullGrad: magnitude of the contributions of one layer's biases, or of the image, to a score.

    .. math:: \psi(p) = \sum_c \frac{|p_c|}{\max |p|}

    for :math:`p_{lc} = b_{lc} \odot \partial y / \partial b_{lc}`, a bias times its gradient, cell
    by cell, or for the image times its gradient. The maximum is over channels and cells. The map is
    the sum over all layers, each resized to the image. The authors also subtract the minimum, which
    would hide a small contribution that is present everywhere.

    Args:
        contributions: (N, C, *grid), signed.

    Returns:
        (N, *grid), not negative.

    Source: Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization",
    NeurIPS 2019 (arXiv:1905.00780), equations 3 and 5.

    Example:
        >>> import torch
        >>> full_gradient_sizes(torch.tensor([[[[3.0, 0.0]], [[0.0, -6.0]]]])).tolist()
        [[[0.5, 1.0]]]
    """
    largest = contributions.abs().flatten(1).amax(dim=1)
    largest = largest.view(-1, *[1] * (contributions.ndim - 1))
    sizes: Tensor = (contributions.abs() / largest.where(largest > 0, 1)).sum(dim=1)
    return sizes
