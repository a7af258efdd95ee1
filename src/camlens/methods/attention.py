"""Maps from attention probabilities and their gradients; pure functions on tensors.

T tokens, of which some are patches; N images, K targets.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def legrad(gradients: Float[Tensor, "N K h q k"]) -> Float[Tensor, "N K k"]:
    r"""Return a layer's LeGrad values of the keys (Bousselham et al. 2024).

    .. math:: E_k = \frac{1}{h q} \sum_{h, q} \mathrm{ReLU}(\partial s / \partial A_{h q k})

    Args:
        gradients: of the layer's scores by its attention probabilities.

    Example:
        >>> import torch
        >>> legrad(torch.tensor([[[[[4.0, -1.0], [2.0, 6.0]]]]])).tolist()
        [[[3.0, 3.0]]]
    """
    return gradients.relu().mean(dim=(2, 3))


def relevance(
    gradients: Float[Tensor, "N K h q k"], probabilities: Float[Tensor, "N h q k"]
) -> Float[Tensor, "N K q k"]:
    r"""Return :math:`\bar A` of a layer (Chefer, Gur and Wolf 2021b, equation 5).

    .. math:: \bar A = E_h[(\nabla A \odot A)^+]

    Args:
        gradients: of the scores by the attention probabilities.
        probabilities: the attention probabilities.

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
    r"""Return rows of a product of layers with one more layer below (Chefer et al., equation 6).

    :math:`R \leftarrow R + \bar A R` from the first layer to the last is the product
    :math:`(I + \bar A_L) \cdots (I + \bar A_1)`, whose rows are made from the left.

    Args:
        rows: rows of the product of the layers above.
        mean: :math:`\bar A` of this layer, see :func:`relevance`.

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
    r"""Return rows of a rollout with one more layer below (Abnar and Zuidema 2020, equation 1).

    .. math:: R = \prod_l (0.5 A_l + 0.5 I)

    Args:
        rows: rows of the product of the layers above.
        probabilities: A, the mean of the layer's attention probabilities over its heads.

    Example:
        >>> import torch
        >>> rollout_step(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.2, 0.8], [0.0, 1.0]]]))
        tensor([[[0.6000, 0.4000]]])
    """
    return 0.5 * rows + 0.5 * (rows @ probabilities)


def token_weights(
    sizes: Float[Tensor, "N K T"], patches: Bool[Tensor, T]
) -> Float[Tensor, "N K T"]:
    """Return the weights with which the head uses the last layer's tokens, from its gradients.

    If only class tokens or only patches have a gradient, those that have one get equal weights: one
    class token, or the mean over the patches. If both have, the class tokens together and the
    patches together are weighted by the sums of their gradients' sizes, and equally within a group.

    Args:
        sizes: the norm of each token's gradient, not negative.
        patches: which tokens are patches; the others are class tokens and registers.

    Returns:
        Weights that add up to 1; zeros where nothing has a gradient.

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
