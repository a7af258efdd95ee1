"""Scores that are no single class: differences, similarities; each a callable target.

Each function returns a callable from a model's output to (N, K) scores, as ``targets=`` takes it.
The callables are plain objects: they can be pickled, compared and fingerprinted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from .per_image import PerImage, rows_of
from .selection import scores_in


def contrast(
    chosen: int, others: Sequence[int] | int, gamma: float = 0.6
) -> Callable[[Any], Tensor]:
    r"""Explain what speaks for a class against others: Finer-CAM, with any method.

    .. math:: y_c - \gamma\, \frac{1}{T} \sum_t y_{d_t}

    Args:
        chosen: the class c.
        others: the classes d to compare with; or how many: the T other classes with the highest
            scores of each unchanged image.
        gamma: how much the others count.

    Returns:
        A target, of K = 1.

    Raises:
        ValueError: no other class, or the chosen one among the others.

    Source: Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual
    Explanation", CVPR 2025 (arXiv:2501.11309). The others weigh alike and gamma is 0.6, as in the
    library torchcam; the authors' code weighs them by their probabilities.

    Example:
        >>> contrast(0, [1, 2], gamma=0.5)(torch.tensor([[4.0, 1.0, 3.0]])).tolist()
        [[3.0]]
    """
    if isinstance(others, int):
        if others < 1:
            raise ValueError(f"expected at least 1 other class, got {others}")
    elif not len(others) or chosen in others:
        raise ValueError(f"expected others than class {chosen}, got {list(others)}")
    return Contrast(chosen, others if isinstance(others, int) else tuple(others), gamma)


def rest(chosen: int) -> Callable[[Any], Tensor]:
    r"""Explain a class's logit plus its log-probability, which the other classes take part in.

    .. math:: y_c + \log \mathrm{softmax}(y)_c

    Args:
        chosen: the class c.

    Returns:
        A target, of K = 1.

    Source: "residual softmax target-class" of Cai, "CAMs as Shapley Value-based Explainers", 2025
    (arXiv:2501.06261).

    Example:
        >>> rest(0)(torch.tensor([[0.0, 0.0]]))
        tensor([[-0.6931]])
    """
    return Rest(chosen)


def regression(sign: int = 1, output: int = 0) -> Callable[[Any], Tensor]:
    """Explain a number that a model returns: what makes it large, or with -1 small.

    Args:
        sign: 1 or -1.
        output: which of the model's outputs.

    Returns:
        A target, of K = 1.

    Raises:
        ValueError: the sign is neither.

    Example:
        >>> regression(-1)(torch.tensor([[3.0]])).tolist()
        [[-3.0]]
    """
    if sign not in (1, -1):
        raise ValueError(f"expected sign 1 or -1, got {sign!r}")
    return Regression(sign, output)


def similarity(embeddings: Tensor) -> Callable[[Any], Tensor]:
    """Explain how alike the model's embedding of an image and given ones are: cosines.

    Args:
        embeddings: (D,) or (K, D), such as of another image.

    Returns:
        A target, of K = 1 or K.

    Raises:
        ValueError: a wrong shape, or an embedding of zeros.

    Example:
        >>> similarity(torch.tensor([0.0, 2.0]))(torch.tensor([[3.0, 4.0]])).round(decimals=4)
        tensor([[0.8000]])
    """
    return Similarity(_as_rows(embeddings), 1.0)


def text(embeddings: Tensor, scale: float = 100.0) -> Callable[[Any], Tensor]:
    """Explain how alike an image and texts are: scaled cosines, not a softmax over the texts.

    The texts are encoded once, before: with a softmax the score of a text would depend on which
    others are given, and that of a single text would be 1 whatever the image.

    Args:
        embeddings: (D,) or (K, D), what the model's text encoder makes of K texts.
        scale: of the cosine, such as ``model.logit_scale.exp()``.

    Returns:
        A target, of K = 1 or K, for models that return (N, D) embeddings of images.

    Raises:
        ValueError: a wrong shape, or an embedding of zeros.
    """
    return Similarity(_as_rows(embeddings), float(scale))


@dataclasses.dataclass(frozen=True)
class Contrast(PerImage):
    """See :func:`contrast`."""

    chosen: int
    others: tuple[int, ...] | int
    gamma: float

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        return self.fixed(outputs)(outputs)

    def fixed(self, outputs: Any) -> ContrastOfImages:
        """Return the contrast with the other classes of these images."""
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
        """Return the target itself: it holds nothing of an image."""
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class ContrastOfImages(PerImage):
    """A contrast with (N, T) other classes of each image."""

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
        return dataclasses.replace(self, others=rows_of(self.others, index))


@dataclasses.dataclass(frozen=True)
class Rest:
    """See :func:`rest`."""

    chosen: int

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        logits = _logits(outputs)
        _check_classes(logits, self.chosen, 0)
        both = logits + logits.log_softmax(dim=1)
        return both[:, self.chosen, None]


@dataclasses.dataclass(frozen=True)
class Regression:
    """See :func:`regression`."""

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
    """See :func:`similarity` and :func:`text`."""

    embeddings: Tensor
    scale: float

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, K) scores."""
        images = _logits(outputs)
        given = self.embeddings.to(images)
        if images.shape[1] != given.shape[1]:
            raise ValueError(
                f"expected embeddings of {images.shape[1]} numbers as the model returns, got "
                f"{given.shape[1]}"
            )
        cosines: Tensor = cosine_similarity(images.unsqueeze(1), given.unsqueeze(0), dim=2)
        return self.scale * cosines


def _logits(outputs: Any) -> Tensor:
    found = scores_in(outputs)
    if found is None:
        kind = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"expected a model that returns (N, D) numbers, got {kind}")
    return found


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
