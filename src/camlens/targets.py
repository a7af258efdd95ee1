"""What to explain: from a model's output to one score for each image and target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

#: None (the predicted class), a class, (N,) or (N, K) classes, "all", or outputs -> scores.
Targets = int | str | Tensor | Sequence[Any] | Callable[[Any], Tensor] | None

#: The class id of a score that a callable computed.
NO_CLASS = -1

#: What turns a model's outputs into probabilities.
ACTIVATIONS = ("softmax", "sigmoid", "none")


@dataclasses.dataclass(frozen=True)
class Selection:
    """The scores to explain.

    Attributes:
        scores: (N, K), still part of the model's graph.
        classes: (N, K) int64 class ids; :data:`NO_CLASS` where a callable made the score.
        outputs: how many classes the model has; 0 where a callable made the scores.
    """

    scores: Tensor
    classes: Tensor
    outputs: int

    def check(self, maps: Tensor) -> None:
        """Check the values of ``classes``, ``scores`` and the maps made from them.

        On an accelerator looking at a value waits for it, so this is done once, at the end.

        Raises:
            ValueError: a class is out of range, or a score or a map is not finite.
        """
        in_range = ((self.classes >= 0) & (self.classes < self.outputs)) | (self.outputs == 0)
        finite = self.scores.isfinite()
        if (in_range.all() & finite.all() & maps.isfinite().all()).item():
            return
        if not in_range.all():
            wrong = self.classes[~in_range].unique().tolist()[:5]
            raise ValueError(
                f"expected classes 0 to {self.outputs - 1}, got {wrong}: the model has "
                f"{self.outputs} outputs"
            )
        if not finite.all():
            rows = (~finite).any(dim=1).nonzero().flatten().tolist()[:5]
            raise ValueError(
                f"the explained scores of the images {rows} are not finite: look for NaN or "
                "infinity in the images and in the model's weights"
            )
        raise ValueError(
            "the scores are finite but their gradients or the layer's activations are not: in "
            "half precision they may have overflowed; try bfloat16 or float32"
        )


def select(outputs: Any, targets: Targets) -> Selection:
    """Pick the scores to explain out of a model's output.

    Args:
        outputs: what the model returned. Unless ``targets`` is a callable, (N, classes) logits.
        targets: None for each image's highest score; an int for one class; (N,) for one class
            an image; (N, K) for K classes an image; ``"all"`` for every class; or a callable
            that turns the output into (N,) or (N, K) scores.

    Raises:
        TypeError: the output is no tensor, or the targets are no integers.
        ValueError: a shape does not fit.

    Example:
        >>> logits = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
        >>> select(logits, None).classes.tolist()
        [[1], [0]]
        >>> select(logits, [[0, 1], [2, 2]]).scores.tolist()
        [[1.0, 5.0], [3.0, 3.0]]
    """
    if callable(targets):
        return _computed(targets(outputs))
    logits = _logits(outputs)
    n, classes = logits.shape
    if targets is None:
        picked = logits.detach().argmax(dim=1, keepdim=True)
    elif isinstance(targets, str):
        if targets != "all":
            raise ValueError(f'expected targets "all", a class or classes, got {targets!r}')
        picked = torch.arange(classes, device=logits.device).expand(n, classes)
        return Selection(logits, picked, classes)
    else:
        picked = as_classes(targets, n).to(logits.device, non_blocking=True)
    scores = logits.gather(1, picked.clamp(0, classes - 1))  # Selection.check judges the range
    return Selection(scores, picked, classes)


def probabilities(outputs: Tensor, activation: str = "softmax") -> Tensor:
    """Turn a model's outputs into probabilities of its classes.

    A model with one output is a binary classifier or a regression. A softmax over one output is
    always 1, so it has no probability unless the caller says that the output is a sigmoid's.

    Args:
        outputs: (N, C) floating-point outputs.
        activation: ``"softmax"``: one class per image. ``"sigmoid"``: each class is independent,
            as in multi-label models. ``"none"``: the outputs are probabilities already.

    Returns:
        (N, C) float32; NaN for a single output unless ``activation`` is ``"sigmoid"``.

    Raises:
        ValueError: an unknown activation.

    Example:
        >>> probabilities(torch.tensor([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
        >>> single = torch.tensor([[0.0]])
        >>> probabilities(single).item(), probabilities(single, "sigmoid").item()
        (nan, 0.5)
    """
    check_activation(activation)
    values = outputs.float()
    if activation == "sigmoid":
        return values.sigmoid()
    if values.shape[1] == 1:
        return torch.full_like(values, torch.nan)
    return values.softmax(dim=1) if activation == "softmax" else values


def check_activation(activation: str) -> None:
    """Check the name of an activation.

    Raises:
        ValueError: an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"expected an activation out of {ACTIVATIONS}, got {activation!r}")


def _logits(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model returned {type(outputs).__name__}, expected a (N, classes) tensor: say "
            'what to explain with a callable, such as targets=lambda out: out["logits"][:, 3]'
        )
    if outputs.ndim != 2 or 0 in outputs.shape:
        raise ValueError(
            f"the model returned {tuple(outputs.shape)}, expected (N, classes): say what to "
            "explain with a callable that gives (N,) or (N, K) scores, such as "
            "targets=lambda out: out[:, 3].mean(dim=(-2, -1)) for a segmentation map"
        )
    if not outputs.is_floating_point():
        raise TypeError(f"the model returned {outputs.dtype}, expected floating-point scores")
    return outputs


def as_classes(targets: int | Tensor | Sequence[Any], n: int) -> Tensor:
    """Return (N, K) int64 classes of a class, (N,) or (N, K) classes.

    Raises:
        TypeError: they are no integers.
        ValueError: a shape does not fit.
    """
    try:
        classes = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected targets as integers, got {targets!r}") from error
    if classes.numel() == 0:
        raise ValueError("expected targets as at least one class, got none")
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(f"expected targets as integers, got {classes.dtype}")
    classes = classes.long()
    if classes.ndim == 0:
        return classes.expand(n, 1)
    if classes.ndim > 2 or len(classes) != n:
        raise ValueError(
            f"expected targets as one class, ({n},) with one class an image, or ({n}, K) with K "
            f"classes an image, got {tuple(classes.shape)}"
        )
    return classes.unsqueeze(1) if classes.ndim == 1 else classes


def _computed(scores: Any) -> Selection:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"the targets callable returned {kind}, expected a floating-point tensor")
    if scores.ndim not in (1, 2) or scores.numel() == 0:
        raise ValueError(
            f"the targets callable returned {tuple(scores.shape)}, expected (N,) or (N, K) scores"
        )
    scores = scores.unsqueeze(1) if scores.ndim == 1 else scores
    return Selection(scores, torch.full(scores.shape, NO_CLASS, device=scores.device), 0)
