"""Formulas of class activation maps, from a layer's activations and their gradients.

Throughout, ``activations`` A is (N, C, *grid), the output of a layer for N images, and
``gradients`` g is (N, K, C, *grid), the derivatives of each image's K scores with respect to A. The
grid has one axis for signals, two for images and three for volumes. The map is (N, K, *grid),
neither resized nor scaled; negative values are set to zero, since each method shows the evidence
*for* a score.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Activations = Float[Tensor, "n c *grid"]
Gradients = Float[Tensor, "n k c *grid"]
Maps = Float[Tensor, "n k *grid"]
Weights = Float[Tensor, "n k c"]


def grad_cam(activations: Activations, gradients: Gradients) -> Maps:
    r"""Grad-CAM: channels weighted by their mean gradient.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big), \quad
              w_c = \frac{1}{hw} \sum_{ij} g_{cij}

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", ICCV 2017 (arXiv:1610.02391), equations 1 and 2.

    Example:
        Two channels with mean gradients 1 and -1: the map is zero where the second one is stronger.

        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
        >>> gradients = torch.tensor([[[[[1.0, 1.0]], [[-1.0, -1.0]]]]])
        >>> grad_cam(activations, gradients).tolist()
        [[[[0.0, 3.0]]]]
    """
    return _weighted_sum(gradients.flatten(3).mean(dim=3), activations)  # eq. 1


def grad_cam_plus_plus(activations: Activations, gradients: Gradients) -> Maps:
    r"""Grad-CAM++: channels weighted by their positive gradients, each with its own alpha.

    .. math:: w_c = \sum_{ij} \alpha_{cij}\, \mathrm{ReLU}(g_{cij}), \quad
              \alpha_{cij} = \frac{g_{cij}^2}{2 g_{cij}^2 + g_{cij}^3 \sum_{ab} A_{cab}}

    The second and third derivatives of the paper's ``Y = exp(score)`` are ``Y g^2`` and
    ``Y g^3`` at the *same* place (i, j); the sum is over the activations alone. The code reduces
    the fraction by ``g^2``, which changes no value and keeps small gradients from underflowing.

    Source: Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for
    Deep Convolutional Networks", WACV 2018 (arXiv:1710.11063), equations 5, 10 and 19. It
    assumes activations that are not negative, that is, the output of a ReLU.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]]]])
        >>> gradients = torch.tensor([[[[[0.5, -2.0]]]]])  # alpha = 1 / (2 + 0.5 * 4)
        >>> grad_cam_plus_plus(activations, gradients).tolist()
        [[[[0.125, 0.375]]]]
    """
    places = gradients.flatten(3)
    total = activations.flatten(2).sum(dim=2)[:, None, :, None]
    denominator = 2 + total * places  # eq. 19, divided by g^2
    alpha = torch.where(denominator == 0, 0, 1 / denominator)
    return _weighted_sum((alpha * places.relu()).sum(dim=3), activations)  # eq. 5


def hires_cam(activations: Activations, gradients: Gradients) -> Maps:
    r"""HiResCAM: activations times gradients, cell by cell, summed over the channels.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c g_c \odot A_c\Big)

    Unlike Grad-CAM, it does not average a channel's gradient over the cells.

    Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", 2020 (arXiv:2011.08891), section 3.3.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])
        >>> gradients = torch.tensor([[[[[1.0, 0.0]], [[1.0, -1.0]]]]])
        >>> hires_cam(activations, gradients).tolist()
        [[[[3.0, 0.0]]]]
    """
    return torch.einsum("nkc...,nc...->nk...", gradients, activations).relu()


def layer_cam(activations: Activations, gradients: Gradients) -> Maps:
    r"""LayerCAM: activations weighted cell by cell with their positive gradients.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c \mathrm{ReLU}(g_c) \odot A_c\Big)

    Source: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for
    Localization", IEEE Transactions on Image Processing 30, 2021, equations 6 to 8.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])
        >>> gradients = torch.tensor([[[[[1.0, 0.0]], [[1.0, -1.0]]]]])
        >>> layer_cam(activations, gradients).tolist()
        [[[[3.0, 0.0]]]]
    """
    return hires_cam(activations, gradients.relu())


def xgrad_cam(activations: Activations, gradients: Gradients) -> Maps:
    r"""XGrad-CAM: channels weighted by their activation-weighted mean gradient.

    .. math:: w_c = \frac{\sum_{ij} A_{cij}\, g_{cij}}{\sum_{ij} A_{cij}}

    A channel whose activations sum to zero has weight 0. The method assumes activations that are
    not negative.

    Source: Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of
    CNNs", BMVC 2020 (arXiv:2008.02312), equation 8.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]]]])
        >>> gradients = torch.tensor([[[[[4.0, 0.0]]]]])
        >>> xgrad_cam(activations, gradients).tolist()
        [[[[1.0, 3.0]]]]
    """
    total = activations.flatten(2).sum(dim=2).unsqueeze(1)
    product = torch.einsum("nkcp,ncp->nkc", gradients.flatten(3), activations.flatten(2))
    return _weighted_sum(torch.where(total == 0, 0, product / total), activations)


def class_activation_map(activations: Activations, gradients: Gradients) -> Maps:
    r"""CAM: channels weighted by their weights in the linear layer after global average pooling.

    .. math:: M = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big)

    If average pooling and a linear layer follow, each cell's gradient is ``w_c / hw``, so the
    weights are the sums of the gradients over the grid. Nothing else may follow the layer;
    :class:`camlens.CAM` checks this.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016
    (arXiv:1512.04150), equation 2.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
        >>> gradients = torch.tensor([[[[[0.5, 0.5]], [[-0.5, -0.5]]]]])  # weights 1 and -1
        >>> class_activation_map(activations, gradients).tolist()
        [[[[0.0, 3.0]]]]
    """
    return _weighted_sum(gradients.flatten(3).sum(dim=3), activations)


def eigen_cam(activations: Activations, gradients: Gradients | None = None) -> Maps:
    r"""Eigen-CAM: the projection of the activations onto their first principal direction.

    .. math:: O = U \Sigma V^\top, \quad L = \mathrm{ReLU}(O V_1)

    with O the activations as an (hw, C) matrix. As in the paper O is not centred, so for ReLU
    activations all of ``O V_1`` has one sign. A singular vector's sign is arbitrary: the function
    takes the one for which the sum of ``O V_1`` is positive. The map does not depend on a class,
    and ``gradients`` are ignored.

    Source: Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components",
    IJCNN 2020 (arXiv:2008.00299), section III.

    Returns:
        (N, 1, *grid), one map for each image.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
        >>> eigen_cam(activations).round(decimals=4).tolist()
        [[[[5.0, 0.0]]]]
    """
    matrix = activations.flatten(2).transpose(1, 2)  # (N, cells, C)
    left, singular, _ = torch.linalg.svd(matrix, full_matrices=False)
    projection: Tensor = left[..., 0] * singular[:, :1]  # O V_1 = sigma_1 U_1
    sign = torch.where(projection.sum(dim=1, keepdim=True) < 0, -1, 1)
    return (projection * sign).relu().view(len(activations), 1, *activations.shape[2:])


def eigen_grad_cam(activations: Activations, gradients: Gradients) -> Maps:
    r"""EigenGrad-CAM: Eigen-CAM of activations times gradients.

    .. math:: O = g \odot A = U \Sigma V^\top, \quad L = \mathrm{ReLU}(\pm\, O V_1)

    with O as an (hw, C) matrix, not centred. A singular vector's sign is arbitrary: the function
    takes the one for which the projection agrees with the evidence ``sum_c g_c A_c``, so that the
    positive part is evidence for the score.

    Source: Gildenblat et al., pytorch-grad-cam, 2021, which leaves the sign to chance; after
    Muhammad and Yeasin 2020 (arXiv:2008.00299).

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
        >>> signs = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])  # of two scores, in both channels
        >>> gradients = signs.view(1, 2, 1, 1, 2).expand(1, 2, 2, 1, 2)
        >>> eigen_grad_cam(activations, gradients).round(decimals=4).abs().tolist()
        [[[[5.0, 0.0]], [[0.0, 0.0]]]]
    """
    products = gradients * activations.unsqueeze(1)
    n, k, channels = products.shape[:3]
    matrix = products.flatten(3).reshape(n * k, channels, -1).transpose(1, 2)  # (NK, cells, C)
    left, singular, _ = torch.linalg.svd(matrix, full_matrices=False)
    projection: Tensor = left[..., 0] * singular[:, :1]
    evidence = matrix.sum(dim=2)
    sign = torch.where((projection * evidence).sum(dim=1, keepdim=True) < 0, -1, 1)
    return (projection * sign).relu().view(n, k, *activations.shape[2:])


def ablation_cam(activations: Activations, falls: Weights, scores: Float[Tensor, "n k"]) -> Maps:
    r"""Ablation-CAM: channels weighted by the score's drop without them.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big), \quad w_c = \frac{y - y_c}{|y|}

    with ``y_c`` the score when channel c is replaced. The paper divides by y, which would invert
    the map of a negative score; for positive scores the two agree.

    Args:
        activations: (N, C, *grid).
        falls: (N, K, C), the drops ``y - y_c``.
        scores: (N, K), the scores ``y`` of the unchanged images.

    Source: Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network
    via Gradient-free Localization", WACV 2020, equations 2 and 3.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
        >>> falls = torch.tensor([[[2.0, -1.0]]])
        >>> ablation_cam(activations, falls, torch.tensor([[2.0]])).tolist()
        [[[[0.0, 3.0]]]]
    """
    size = scores.abs().unsqueeze(2)
    return _weighted_sum(falls / size.where(size > 0, 1), activations)


def layer_integrated_gradients(
    activations: Activations, baseline: Activations, gradients: Gradients
) -> Maps:
    r"""Layer integrated gradients: the activations' change from a baseline times the mean gradient.

    The result is signed: its sum over the cells is the score minus that of the baseline
    (completeness). The explainer's map is the positive part.

    .. math:: L = \sum_c (A_c - B_c) \odot
              \int_0^1 \frac{\partial y}{\partial A_c}\big(B + t (A - B)\big)\, dt

    Args:
        activations: (N, C, *grid), A.
        baseline: (N, C, *grid), B.
        gradients: (N, K, C, *grid), the integral: the mean gradient on the line from B to A.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017
    (arXiv:1703.01365), equations 1 and 3, at a layer in place of the image.

    Example:
        >>> import torch
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
        >>> gradients = torch.tensor([[[[[1.0, 1.0]], [[-1.0, -1.0]]]]])
        >>> layer_integrated_gradients(activations, activations * 0, gradients).tolist()
        [[[[-1.0, 3.0]]]]
    """
    return ((activations - baseline).unsqueeze(1) * gradients).sum(dim=2)


def _weighted_sum(weights: Weights, activations: Activations) -> Maps:
    return torch.einsum("nkc,nc...->nk...", weights, activations).relu()
