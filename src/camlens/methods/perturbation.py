"""Formulas of perturbation methods: masks, and maps computed from the masked images' scores.

A mask is 1 where an image is shown and 0 where it is hidden. K scores of each changed image come
from one forward pass. The functions do not run a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

#: For one axis: which of its pixels each window covers, (windows, length).
Cover = Bool[Tensor, "_ _"]
#: For one axis, by shift and pixel: the weight of each cell of a coarse grid.
Table = Float[Tensor, "_ _ _"]


def window_covers(length: int, window: int, stride: int) -> Cover:
    """Return which pixels of an axis each window covers; the last window is flush with the end.

    Args:
        length: length of the axis in pixels.
        window: length of a window in pixels, at most ``length``.
        stride: distance between neighbouring windows in pixels, at most ``window``, so that every
            pixel is covered.

    Example:
        Windows of 2 pixels every 2 pixels on an axis of 5: the last one moves back by one.

        >>> window_covers(5, 2, 2).int().tolist()
        [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    """
    starts = [*range(0, length - window, stride), length - window]
    first = torch.tensor(starts, device="cpu").unsqueeze(1)
    pixels = torch.arange(length, device="cpu")
    return (pixels >= first) & (pixels < first + window)


def covered(covers: Sequence[Cover], windows: Int64[Tensor, " m"]) -> Bool[Tensor, m * size]:
    """Return the pixels that each of the given windows covers; windows have row-major numbers.

    Example:
        >>> covers = [window_covers(2, 1, 1), window_covers(3, 2, 1)]
        >>> covered(covers, torch.tensor([3])).int().tolist()
        [[[0, 0, 0], [0, 1, 1]]]
    """
    rows: list[Tensor] = []
    for cover in reversed(covers):
        rows.insert(0, cover[windows % len(cover)])
        windows = windows // len(cover)
    inside = rows[0]
    for row in rows[1:]:
        inside = inside.unsqueeze(-1) & row.view(len(row), *[1] * (inside.ndim - 1), -1)
    return inside


def occlusion(
    drops: Float[Tensor, "n k *windows"], covers: Sequence[Cover]
) -> Float[Tensor, "n k *size"]:
    r"""Occlusion: the mean drop of a score over the windows that cover a pixel.

    .. math:: A_p = \frac{1}{|\{w \ni p\}|} \sum_{w \ni p} \big(f(x) - f(x_w)\big)

    with :math:`x_w` the image with window w replaced by the baseline. Windows are products of
    intervals, one on each axis, so the mean is taken over one axis after the other.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014
    (arXiv:1311.2901), section 4.2. The paper draws the score at the window's position; here, as in
    captum, each pixel gets the mean over the windows that cover it.

    Args:
        drops: (N, K, *windows), the unchanged score minus the score with each window replaced.
        covers: for each axis, which pixels each window covers, see :func:`window_covers`.

    Returns:
        (N, K, *size), signed.

    Example:
        >>> covers = [window_covers(3, 2, 1)]  # pixels 0 and 1, pixels 1 and 2
        >>> occlusion(torch.tensor([[[4.0, 2.0]]]), covers).tolist()
        [[[4.0, 3.0, 2.0]]]
    """
    values: Tensor = drops
    for cover in covers:
        shares = cover.to(values.dtype) / cover.sum(dim=0)
        values = torch.tensordot(values, shares, dims=([2], [0]))  # the new axis is the last
    return values


def upsampling_table(length: int, cells: int) -> Table:
    r"""Return the weights of RISE's linear upsampling along one axis, for each possible shift.

    As in the paper, ``cells`` cells are upsampled to :math:`(cells + 1) C` pixels with
    :math:`C = \lceil length / cells \rceil`, of which ``length`` are cropped at a shift of 0 to
    :math:`C - 1`.

    Example:
        >>> upsampling_table(2, 1).tolist()  # every pixel has the value of the only cell
        [[[1.0], [1.0]], [[1.0], [1.0]]]
    """
    pitch = -(-length // cells)
    weights = torch.nn.functional.interpolate(
        torch.eye(cells, dtype=torch.float32, device="cpu").unsqueeze(0),
        (cells + 1) * pitch,
        mode="linear",
        align_corners=False,
    )[0].T  # (pixels, cells)
    places = torch.arange(pitch, device="cpu").unsqueeze(1) + torch.arange(length, device="cpu")
    return weights[places]


def smooth_masks(
    cells: Float[Tensor, m * grid], shifts: Int64[Tensor, "m axes"], tables: Sequence[Table]
) -> Float[Tensor, m * size]:
    """Return RISE's masks: coarse random cells, upsampled linearly, each with its own shift.

    If each cell is 1 with probability p, the mean of every pixel is p.

    Example:
        >>> tables = [upsampling_table(4, 2)]
        >>> smooth_masks(torch.tensor([[0.0, 1.0]]), torch.tensor([[1]]), tables).round(decimals=2)
        tensor([[0.0000, 0.3300, 0.6700, 1.0000]])
    """
    masks: Tensor = cells
    for axis, table in enumerate(tables):
        # The first grid axis becomes pixels and moves to the end, until all axes have.
        flat = masks.flatten(2) if masks.ndim > 2 else masks.unsqueeze(2)
        pixels = (table[shifts[:, axis]] @ flat).transpose(1, 2)  # (m, others, length)
        masks = pixels.reshape(len(masks), *masks.shape[2:], table.shape[1])
    return masks


def rise_sums(
    scores: Float[Tensor, "m k"], masks: Float[Tensor, m * size], keep: float, *, center: bool
) -> Float[Tensor, "2 k *size"]:
    """Return the sums over a batch of scores times masks, and of the squares of these products.

    Args:
        scores: (m, K), of the masked images; minus the mean of all scores if they are centred.
        masks: (m, *size), the masks of the batch.
        keep: the masks' mean.
        center: whether the scores are centred; the masks' mean is then subtracted from the masks.

    Returns:
        (2, K, *size).

    Example:
        >>> scores, masks = torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0], [0.5]])
        >>> rise_sums(scores, masks, 0.5, center=False).flatten().tolist()
        [4.0, 8.0]
    """
    shown = masks - keep if center else masks
    first = torch.einsum("mk,m...->k...", scores, shown)
    return torch.stack([first, torch.einsum("mk,m...->k...", scores**2, shown**2)])


def rise(
    sums: Float[Tensor, "2 k *size"], count: int, keep: float
) -> tuple[Float[Tensor, k * size], Float[Tensor, k * size]]:
    r"""RISE: the mean score of masked images that show a pixel, with its Monte-Carlo error.

    .. math:: S_p = \frac{1}{M\, E[m]} \sum_{i=1}^{M} f(x \odot m_i)\, m_{ip}

    Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", BMVC 2018 (arXiv:1806.07421), equation 6. The standard error is that of a mean of M
    independent draws.

    Args:
        sums: (2, K, *size), over all masks, see :func:`rise_sums`.
        count: M, the number of masks, at least 2.
        keep: E[m], the masks' mean.

    Returns:
        The signed map and its standard error, (K, *size) each.

    Example:
        >>> sums = torch.tensor([[[4.0]], [[8.0]]])  # 2 * 1 + 4 * 0.5, and the squares of the two
        >>> [part.item() for part in rise(sums, 2, 0.5)]
        [4.0, 0.0]
    """
    mean, error = mean_and_error(sums[0], sums[1], count)
    return mean / keep, error / keep


def mean_and_error(
    total: Float[Tensor, "*shape"], squares: Float[Tensor, "*shape"], count: int
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return the mean of ``count`` draws and its standard error, from the sum and sum of squares.

    Example:
        >>> total, squares = torch.tensor([4.0]), torch.tensor([10.0])  # of the draws 1 and 3
        >>> [part.item() for part in mean_and_error(total, squares, 2)]
        [2.0, 1.0]
    """
    mean = total / count
    return mean, ((squares / count - mean**2).clamp(min=0) / (count - 1)).sqrt()


def unit_masks(maps: Float[Tensor, "n k *size"]) -> Float[Tensor, "n k *size"]:
    """Scale each map linearly to [0, 1], from its minimum to its maximum, as Score-CAM does.

    Example:
        >>> unit_masks(torch.tensor([[[-1.0, 1.0, 3.0]]])).tolist()
        [[[0.0, 0.5, 1.0]]]
    """
    axes = tuple(range(2, maps.ndim))
    least, most = maps.amin(dim=axes, keepdim=True), maps.amax(dim=axes, keepdim=True)
    return (maps - least) / (most - least).where(most > least, 1)


def score_cam(
    activations: Float[Tensor, "n c *grid"],
    scores: Float[Tensor, "n c k"],
    alive: Bool[Tensor, "n c"],
    *,
    normalized: bool = True,
) -> Float[Tensor, "n k *grid"]:
    r"""Score-CAM: channels weighted by the score of the image masked with them.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c \alpha_c A_c\Big), \quad
              \alpha_c = \frac{e^{f(x \odot H_c)}}{\sum_b e^{f(x \odot H_b)}}

    :math:`H_c` is the channel at the image's size, scaled to [0, 1]. The paper subtracts the
    score of a baseline image from each score, which cancels in the softmax. Constant channels have
    weight 0.

    Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", CVPR Workshops 2020 (arXiv:1910.01279), equations 4 to 6 and algorithm 1.

    Args:
        activations: (N, C, *grid), the layer's output A.
        scores: (N, C, K), the scores f of the image masked by each channel.
        alive: (N, C), which channels served as masks; the scores of others are ignored.
        normalized: whether the weights are the softmax of the scores over the channels, as in the
            paper; False: the scores themselves, as in the authors' code.

    Returns:
        (N, K, *grid), not negative.

    Example:
        >>> activations = torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])
        >>> scores, alive = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[True, True]])
        >>> score_cam(activations, scores, alive).tolist()
        [[[1.5, 1.5]]]
    """
    used = alive.unsqueeze(2)
    weights = scores.where(used, -torch.inf).softmax(dim=1) if normalized else scores
    weights = weights.where(used, 0)  # all channels may be dead
    return torch.einsum("nck,nc...->nk...", weights, activations).relu()
