"""Formulas of attention maps, from attention probabilities and their gradients.

Shapes: N images, K targets, h heads, q queries, k keys; T tokens, some of which are patches.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def legrad(gradients: Float[Tensor, "N K h q k"]) -> Float[Tensor, "N K k"]:
    r"""LeGrad values of a layer's keys: the mean positive gradient of its attention to a key.

    .. math:: E_k = \frac{1}{h q} \sum_{h, q} \mathrm{ReLU}(\partial s / \partial A_{h q k})

    Source: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature
    Formation Sensitivity", 2024 (arXiv:2404.03214).

    Args:
        gradients: (N, K, h, q, k), derivatives of the layer's score s with respect to its attention
            probabilities A.

    Returns:
        (N, K, k), not negative.

    Example:
        >>> import torch
        >>> legrad(torch.tensor([[[[[4.0, -1.0], [2.0, 6.0]]]]])).tolist()
        [[[3.0, 3.0]]]
    """
    return gradients.relu().mean(dim=(2, 3))


def relevance(
    gradients: Float[Tensor, "N K h q k"], probabilities: Float[Tensor, "N h q k"]
) -> Float[Tensor, "N K q k"]:
    r"""Gradient-weighted attention of a layer, averaged over its heads.

    .. math:: \bar A = E_h[(\nabla A \odot A)^+]

    Source: Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal
    and Encoder-Decoder Transformers", ICCV 2021 (arXiv:2103.15679), equation 5.

    Args:
        gradients: (N, K, h, q, k), derivatives of the scores with respect to the attention
            probabilities.
        probabilities: (N, h, q, k), the attention probabilities A.

    Returns:
        (N, K, q, k), not negative.

    Example:
        >>> import torch
        >>> gradients = torch.tensor([[[[[4.0, -2.0]], [[-2.0, 2.0]]]]])
        >>> relevance(gradients, torch.full((1, 2, 1, 2), 0.5)).tolist()
        [[[[1.0, 0.5]]]]
    """
    return (gradients * probabilities.unsqueeze(1)).relu().mean(dim=2)


def generic_attention_step(
    rows: Float[Tensor, "N K T"], mean: Float[Tensor, "N K T T"]
) -> Float[Tensor, "N K T"]:
    r"""Generic attention step: multiply rows accumulated over the layers above by one more layer.

    :math:`R \leftarrow R + \bar A R` from the first layer to the last is the product
    :math:`(I + \bar A_L) \cdots (I + \bar A_1)`; its rows are computed from the last layer to the
    first.

    Source: Chefer et al. 2021 (arXiv:2103.15679), equation 6.

    Args:
        rows: (N, K, T), rows of the product of the layers above.
        mean: (N, K, T, T), :math:`\bar A` of this layer, see :func:`relevance`.

    Returns:
        (N, K, T), rows of the product with this layer.

    Example:
        >>> import torch
        >>> mean = torch.tensor([[[[0.0, 2.0], [0.0, 0.0]]]])
        >>> generic_attention_step(torch.tensor([[[1.0, 1.0]]]), mean).tolist()
        [[[1.0, 3.0]]]
    """
    return rows + (rows.unsqueeze(2) @ mean).squeeze(2)


def rollout_step(
    rows: Float[Tensor, "N K T"], probabilities: Float[Tensor, "N T T"]
) -> Float[Tensor, "N K T"]:
    r"""Attention rollout step: multiply rows accumulated over the layers above by one more layer.

    .. math:: R = \prod_l (0.5 A_l + 0.5 I)

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020
    (arXiv:2005.00928), equation 1.

    Args:
        rows: (N, K, T), rows of the product of the layers above.
        probabilities: (N, T, T), the mean A of the layer's attention probabilities over its heads.

    Returns:
        (N, K, T), rows of the product with this layer.

    Example:
        >>> import torch
        >>> rollout_step(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.2, 0.8], [0.0, 1.0]]]))
        tensor([[[0.6000, 0.4000]]])
    """
    return 0.5 * rows + 0.5 * (rows @ probabilities)


def token_weights(
    sizes: Float[Tensor, "N K T"], patches: Bool[Tensor, T]
) -> Float[Tensor, "N K T"]:
    """Weights with which the model's head uses the last layer's tokens, from their gradients.

    If only class tokens or only patches have a gradient, all tokens with a gradient have equal
    weights: one class token, or the mean over the patches. If both have gradients, each of the two
    groups is weighted by the sum of its gradients' norms, and tokens within a group equally.

    Args:
        sizes: (N, K, T), the norm of each token's gradient, not negative.
        patches: (T,), True for patches, False for class tokens and registers.

    Returns:
        (N, K, T) weights that add up to 1; zeros if no token has a gradient.

    Example:
        >>> import torch
        >>> patches = torch.tensor([False, False, True, True])
        >>> token_weights(torch.tensor([[[2.0, 0.0, 0.0, 0.0]]]), patches).tolist()
        [[[1.0, 0.0, 0.0, 0.0]]]
        >>> token_weights(torch.tensor([[[2.0, 0.0, 1.0, 1.0]]]), patches).tolist()
        [[[0.5, 0.0, 0.25, 0.25]]]
    """
    total = sizes.sum(dim=2, keepdim=True)
    weights = sizes.new_zeros(sizes.shape)
    for group in (patches, ~patches):
        own = sizes * group
        used = (own > 0).to(sizes.dtype)
        count = used.sum(dim=2, keepdim=True).clamp(min=1)
        weights = weights + used / count * own.sum(dim=2, keepdim=True)
    return (weights / total).where(total > 0, 0)
