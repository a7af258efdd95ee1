"""Callable targets other than a single class: contrasts, regressions and similarities.

Each function returns a callable from a model's output to (N, K) scores, to be passed as
``targets=``. The callables are plain objects: they can be pickled, compared and fingerprinted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from .per_image import PerImage, select_rows
from .selection import scores_in


def contrast(
    chosen: int, others: Sequence[int] | int, gamma: float = 0.6
) -> Callable[[Any], Tensor]:
    r"""Target for the difference between a class and others (Finer-CAM, with any method).

    .. math:: y_c - \gamma\, \frac{1}{T} \sum_t y_{d_t}

    Args:
        chosen: the class c.
        others: the T classes d to compare with; or T itself: the other classes with the highest
            scores in each unchanged image.
        gamma: weight of the other classes.

    Returns:
        A target with K = 1.

    Raises:
        ValueError: there is no other class, or ``others`` contains the chosen one.

    Source: Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual
    Explanation", CVPR 2025 (arXiv:2501.11309). The others have equal weights and gamma is 0.6, as
    in the library torchcam; the authors' code weights them by their probabilities.

    Example:
        >>> contrast(0, [1, 2], gamma=0.5)(torch.tensor([[4.0, 1.0, 3.0]])).tolist()
        [[3.0]]
    """
    if isinstance(others, int):
        if others < 1:
            raise ValueError(f"expected at least 1 other class, got {others}")
    elif not len(others) or chosen in others:
        raise ValueError(f"expected classes other than {chosen}, got {list(others)}")
    return Contrast(chosen, others if isinstance(others, int) else tuple(others), gamma)


def rest(chosen: int) -> Callable[[Any], Tensor]:
    r"""Target for a class's logit plus its log-probability, which depends on the other classes too.

    .. math:: y_c + \log \mathrm{softmax}(y)_c

    Args:
        chosen: the class c.

    Returns:
        A target with K = 1.

    Source: Cai, "CAMs as Shapley Value-based Explainers", 2025 (arXiv:2501.06261), where it is
    called "residual softmax target-class".

    Example:
        >>> rest(0)(torch.tensor([[0.0, 0.0]]))
        tensor([[-0.6931]])
    """
    return Rest(chosen)


def regression(sign: int = 1, output: int = 0) -> Callable[[Any], Tensor]:
    """Target for a number that a model predicts: the evidence for a large or for a small value.

    Args:
        sign: 1 for a large value, -1 for a small one.
        output: index of the model's output.

    Returns:
        A target with K = 1.

    Raises:
        ValueError: the sign is neither 1 nor -1.

    Example:
        >>> regression(-1)(torch.tensor([[3.0]])).tolist()
        [[-3.0]]
    """
    if sign not in (1, -1):
        raise ValueError(f"expected sign 1 or -1, got {sign!r}")
    return Regression(sign, output)


def similarity(embeddings: Tensor) -> Callable[[Any], Tensor]:
    """Target for the cosine similarity of the model's embedding of an image with given embeddings.

    Args:
        embeddings: (D,) or (K, D), such as the embedding of another image.

    Returns:
        A target with K scores (1 for a single embedding), for models that return (N, D) embeddings.

    Raises:
        ValueError: a shape is wrong, or an embedding is zero or not finite.

    Example:
        >>> similarity(torch.tensor([0.0, 2.0]))(torch.tensor([[3.0, 4.0]])).round(decimals=4)
        tensor([[0.8000]])
    """
    return Similarity(_as_rows(embeddings), 1.0)


def text(embeddings: Tensor, scale: float = 100.0) -> Callable[[Any], Tensor]:
    """Target for the similarity of an image and texts, in models such as CLIP: scaled cosines.

    Encode the texts once, beforehand. The scores are not normalised by a softmax over the texts:
    the score of a text would then depend on the other texts, and that of a single text would
    always be 1.

    Args:
        embeddings: (D,) or (K, D), the text encoder's embeddings of K texts.
        scale: factor of the cosine, such as ``model.logit_scale.exp()``.

    Returns:
        A target with K scores (1 for a single text), for models that return (N, D) embeddings of
        images.

    Raises:
        ValueError: a shape is wrong, or an embedding is zero or not finite.
    """
    return Similarity(_as_rows(embeddings), float(scale))


@dataclasses.dataclass(frozen=True)
class Contrast(PerImage):
    """The target of :func:`contrast`, before the other classes of each image are known."""

    chosen: int
    others: tuple[int, ...] | int
    gamma: float

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        return self.fixed(outputs)(outputs)

    def fixed(self, outputs: Any) -> ContrastOfImages:
        """Return the contrast with the other classes that these images' outputs select."""
        logits = _logits(outputs).detach()
        _check_classes(logits, self.chosen, self.others)
        if isinstance(self.others, tuple):
            others = torch.tensor(self.others, device=logits.device).expand(len(logits), -1)
        else:
            ranked = logits.clone()
            ranked[:, self.chosen] = -torch.inf
            others = ranked.topk(self.others, dim=1).indices
        return ContrastOfImages(self.chosen, others, self.gamma)

    def rows(self, index: Tensor) -> Contrast:
        """Return the target itself, which holds no data of single images."""
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class ContrastOfImages(PerImage):
    """The target of :func:`contrast`, with (N, T) other classes, T for each image."""

    chosen: int
    others: Tensor
    gamma: float

    @property
    def count(self) -> int:
        """See :class:`PerImage`."""
        return len(self.others)

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        logits = _logits(outputs)
        against = logits.gather(1, self.others.to(logits.device))
        return logits[:, self.chosen, None] - self.gamma * against.mean(dim=1, keepdim=True)

    def fixed(self, outputs: Any) -> ContrastOfImages:
        """Return the target itself."""
        return self

    def rows(self, index: Tensor) -> ContrastOfImages:
        """Return the target of some of the images."""
        return dataclasses.replace(self, others=select_rows(self.others, index))


@dataclasses.dataclass(frozen=True)
class Rest:
    """The target of :func:`rest`."""

    chosen: int

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        logits = _logits(outputs)
        _check_classes(logits, self.chosen, 0)
        both = logits + logits.log_softmax(dim=1)
        return both[:, self.chosen, None]


@dataclasses.dataclass(frozen=True)
class Regression:
    """The target of :func:`regression`."""

    sign: int
    output: int

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        values = outputs if isinstance(outputs, Tensor) and outputs.ndim == 1 else _logits(outputs)
        values = values.unsqueeze(1) if values.ndim == 1 else values
        if not 0 <= self.output < values.shape[1]:
            raise ValueError(f"expected an output below {values.shape[1]}, got {self.output}")
        return self.sign * values[:, self.output, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Similarity:
    """The target of :func:`similarity` and :func:`text`."""

    embeddings: Tensor
    scale: float

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, K) scores."""
        images = _logits(outputs)
        given = self.embeddings.to(images)
        if images.shape[1] != given.shape[1]:
            raise ValueError(
                f"expected embeddings of {images.shape[1]} numbers, like those of the model, got "
                f"{given.shape[1]}"
            )
        cosines: Tensor = cosine_similarity(images.unsqueeze(1), given.unsqueeze(0), dim=2)
        return self.scale * cosines


def _logits(outputs: Any) -> Tensor:
    scores = scores_in(outputs)
    if scores is None:
        kind = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"expected a model that returns (N, D) numbers, got {kind}")
    return scores


def _check_classes(logits: Tensor, chosen: int, others: tuple[int, ...] | int) -> None:
    classes = logits.shape[1]
    named = [chosen, *(others if isinstance(others, tuple) else ())]
    if wrong := [one for one in named if not 0 <= one < classes]:
        raise ValueError(f"expected classes 0 to {classes - 1}, got {wrong}")
    if isinstance(others, int) and others >= classes:
        raise ValueError(f"expected at most {classes - 1} other classes, got {others}")


def _as_rows(embeddings: Tensor) -> Tensor:
    rows = embeddings.detach()
    rows = rows.unsqueeze(0) if rows.ndim == 1 else rows
    if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
        raise ValueError(
            f"expected embeddings as (D,) or (K, D) floating point, got "
            f"{tuple(embeddings.shape)} of {embeddings.dtype}"
        )
    if not rows.isfinite().all() or not rows.any(dim=1).all():
        raise ValueError("expected embeddings that are finite and not zero")
    return rows
