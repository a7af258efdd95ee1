"""Factorization of a layer's activations into concepts: channel directions and their maps.

``activations`` A is (n, cells, C), with a row for each cell of the layer's grid. For F concepts,
``presences`` H is (n, cells, F), not negative, and ``directions`` W is (n, F, C), of length 1. The
product H W approximates A.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Cells = Float[Tensor, "n cells c"]
Presences = Float[Tensor, "n cells f"]
Directions = Float[Tensor, "n f c"]


def factorize(
    activations: Cells, concepts: int, *, signed: bool = False, steps: int = 200
) -> tuple[Presences, Directions]:
    r"""Factorize activations A into presences H and directions W of concepts.

    .. math:: \min_{H \ge 0,\, W \ge 0} \lVert A - H W \rVert_F

    by coordinate descent, one concept at a time. The start is computed from the singular vectors,
    so the result is deterministic. With ``signed`` directions may be negative.

    Args:
        activations: A, not negative unless ``signed``.
        concepts: F, at most the smaller of cells and C.
        signed: whether directions may be negative.
        steps: number of updates of all concepts.

    Returns:
        H and W, the concept with the largest share of A first.

    Source: Collins, Achanta and Suesstrunk, "Deep Feature Factorization for Concept Discovery",
    ECCV 2018 (arXiv:1806.10206), equation 1; the updates are those of Cichocki and Phan 2009
    (HALS), the start that of Boutsidis and Gallopoulos 2008 (NNDSVDa). With ``signed`` it is the
    semi-nonnegative factorization of Ding, Li and Jordan, IEEE TPAMI 32, 2010.

    Example:
        Two cells, each with a direction of its own.

        >>> presences, directions = factorize(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), 2)
        >>> presences.round(decimals=3).tolist(), directions.round(decimals=3).abs().tolist()
        ([[[2.0, 0.0], [0.0, 1.0]]], [[[1.0, 0.0], [0.0, 1.0]]])
    """
    presences, directions = _start(activations, concepts)
    for _ in range(steps):
        presences = _descend(presences, activations @ directions.mT, directions @ directions.mT)
        product, square = activations.mT @ presences, presences.mT @ presences
        directions = _descend(directions.mT, product, square, signed=signed).mT
    length = directions.norm(dim=2, keepdim=True)
    directions = directions / length.where(length > 0, 1)
    presences = presences * length.mT
    order = presences.square().sum(dim=1).argsort(dim=1, descending=True)
    n = torch.arange(len(order), device=order.device).unsqueeze(1)
    return presences.mT[n, order].mT, directions[n, order]


def presences_of(activations: Cells, directions: Directions, *, steps: int = 200) -> Presences:
    """Return the non-negative presences H of given directions W that minimise ``||A - H W||``.

    Args:
        activations: A, of any sign.
        directions: W, of any sign.
        steps: number of updates of all concepts.

    Example:
        >>> directions = torch.tensor([[[1.0, 0.0]]])
        >>> presences_of(torch.tensor([[[3.0, 9.0], [-1.0, 2.0]]]), directions).flatten().tolist()
        [3.0, 0.0]
    """
    product, square = activations @ directions.mT, directions @ directions.mT
    presences = product.relu()
    for _ in range(steps):
        presences = _descend(presences, product, square)
    return presences


def concept_maps(
    falls: Float[Tensor, "n k f"], presences: Float[Tensor, "n f *grid"]
) -> Float[Tensor, "n k *grid"]:
    r"""Return the maps of targets: the score's drop without each concept, times its scaled map.

    .. math:: L = \sum_f \mathrm{ReLU}(y - y_f)\, \frac{H_f}{\sum_{ij} H_{f,ij}}

    with :math:`y_f` the score without concept f. The paper has maps of concepts only, not of
    targets.

    Args:
        falls: (n, K, F), the drops ``y - y_f``.
        presences: (n, F, *grid), the concepts' maps H.

    Returns:
        (n, K, *grid), not negative.

    Example:
        >>> presences = torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])
        >>> concept_maps(torch.tensor([[[4.0, -1.0]]]), presences).tolist()
        [[[1.0, 3.0]]]
    """
    total = presences.flatten(2).sum(dim=2).view(*presences.shape[:2], *[1] * (presences.ndim - 2))
    return torch.einsum("nkf,nf...->nk...", falls.relu(), presences / total.where(total > 0, 1))


def unexplained(
    activations: Cells, presences: Presences, directions: Directions
) -> Float[Tensor, " n"]:
    r"""Return the relative residual of each image's factorization, (n,).

    .. math:: \lVert A - H W \rVert_F\, /\, \lVert A \rVert_F

    Example:
        >>> presences, directions = torch.tensor([[[3.0]]]), torch.tensor([[[1.0, 0.0]]])
        >>> unexplained(torch.tensor([[[3.0, 4.0]]]), presences, directions).item()
        0.800000011920929
    """
    size = activations.flatten(1).norm(dim=1)
    rest = (activations - presences @ directions).flatten(1).norm(dim=1)
    left: Tensor = rest / size.where(size > 0, 1)
    return left


def _start(activations: Cells, concepts: int) -> tuple[Presences, Directions]:
    """Return initial factors: the larger signed part of each singular pair, zeros filled in."""
    left, values, right = torch.linalg.svd(activations, full_matrices=False)
    left, right = left[..., :concepts], right[:, :concepts]
    halves = [(left.relu(), right.relu()), ((-left).relu(), (-right).relu())]
    sizes = [a.norm(dim=1) * b.norm(dim=2) for a, b in halves]
    first = (sizes[0] >= sizes[1]).unsqueeze(1)
    columns = torch.where(first, halves[0][0], halves[1][0])
    rows = torch.where(first.mT, halves[0][1], halves[1][1])
    scale = values[:, :concepts].sqrt().unsqueeze(1)
    mean = activations.abs().mean(dim=(1, 2), keepdim=True).sqrt()
    presences, directions = columns * scale, rows * scale.mT
    return presences.where(presences > 0, mean), directions.where(directions > 0, mean)


def _descend(factor: Tensor, product: Tensor, square: Tensor, *, signed: bool = False) -> Tensor:
    """Minimize || A - X Y || over each column of X in turn.

    Args:
        factor: X, (n, rows, F).
        product: A Y^T, (n, rows, F).
        square: Y Y^T, (n, F, F).
        signed: whether X may be negative.
    """
    columns = list(factor.unbind(2))
    for f in range(len(columns)):
        rest = product[..., f] - (torch.stack(columns, dim=2) @ square[:, :, f, None]).squeeze(2)
        size = square[:, f, f, None]
        moved = columns[f] + rest / size.where(size > 0, 1)
        columns[f] = moved if signed else moved.relu()
    return torch.stack(columns, dim=2)
