"""Selection of the K scores of each image to explain, from a model's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: The class id of a score that a callable computed.
NO_CLASS = -1


@dataclasses.dataclass(frozen=True)
class Top:
    """Target for the K classes with the highest scores, highest first; made by :func:`top`."""

    count: int


@dataclasses.dataclass(frozen=True)
class Several:
    """Several targets, concatenated along K; made by :func:`several`."""

    parts: tuple[Any, ...]


#: None (the predicted class), a class, (N,) or (N, K) classes, "all", ``top(k)``,
#: ``several(...)``, or a callable.
Targets = int | str | Top | Several | Tensor | Sequence[Any] | Callable[[Any], Tensor] | None


def top(count: int) -> Top:
    """Target for each image's ``count`` classes with the highest scores, highest first.

    Raises:
        ValueError: ``count`` is not at least 1.

    Example:
        >>> select(torch.tensor([[1.0, 5.0, 2.0]]), top(2)).classes.tolist()
        [[1, 2]]
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"expected top(count) with a count of at least 1, got {count!r}")
    return Top(count)


def several(*parts: Targets) -> Several:
    """Concatenate several targets of each image, in the given order.

    Args:
        parts: each None (the predicted class), a class, (N,) or (N, K) classes, ``"all"`` or
            ``top(k)``; in a data set run also ``"label"``. Several parts may select the same class.

    Raises:
        TypeError: a part is a callable or the result of :func:`several`.
        ValueError: no part is given.

    Example:
        >>> select(torch.tensor([[1.0, 5.0, 2.0]]), several(None, top(2), 0)).classes.tolist()
        [[1, 1, 2, 0]]
    """
    if not parts:
        raise ValueError("expected several(...) of at least one target, got none")
    for part in parts:
        if callable(part) or isinstance(part, Several):
            raise TypeError(
                f"expected the parts of several(...) as classes, top(k) or None, got {part!r}: a "
                "callable can return (N, K) scores itself"
            )
    return Several(parts)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The K scores of each of N images to explain, with their classes.

    Attributes:
        scores: (N, K), part of the autograd graph.
        classes: (N, K) int64 class ids; ``NO_CLASS`` (-1) if a callable computed the score.
        class_count: number of the model's classes; 0 if a callable computed the scores.
        logits: (N, classes) scores that the model returned, part of the autograd graph; None if the
            output has no single tensor of scores.
    """

    scores: Tensor
    classes: Tensor
    class_count: int
    logits: Tensor | None = None

    def check(self, maps: Tensor) -> None:
        """Check the values of ``classes``, ``scores`` and the maps computed from them.

        Reading a value from an accelerator synchronises with it, so this happens once, at the end.
        In float32 a tiny float64 map would look like a map without evidence, which is an error.

        Args:
            maps: (N, K, *grid), float32 or wider.

        Raises:
            ValueError: a class is out of range, a score or a map is not finite in float32, or a
                map vanishes there.
        """
        computed = self.class_count == 0
        in_range = ((self.classes >= 0) & (self.classes < self.class_count)) | computed
        finite = self.scores.float().isfinite()
        narrow = maps.float()
        vanished = maps.flatten(2).any(dim=2) & ~narrow.flatten(2).any(dim=2)
        valid = in_range.all() & finite.all() & narrow.isfinite().all() & ~vanished.any()
        if valid.item():
            return
        if not in_range.all():
            wrong = self.classes[~in_range].unique().tolist()[:5]
            raise ValueError(
                f"expected classes 0 to {self.class_count - 1}, got {wrong}: the model has "
                f"{self.class_count} outputs"
            )
        wide = self.scores.isfinite().all() and maps.isfinite().all()
        if wide and not (finite.all() and narrow.isfinite().all()):
            raise ValueError(
                f"the {self.scores.dtype} scores or their maps exceed the range of float32, in "
                "which explanations are kept: explain smaller scores, such as their logarithm or "
                "targets=lambda out: out[:, 3] / 1e300"
            )
        if not self.scores.isfinite().all():
            rows = (~finite).any(dim=1).nonzero().flatten().tolist()[:5]
            raise ValueError(
                f"the explained scores of the images {rows} are not finite: look for NaN or "
                "infinity in the images and in the model's weights"
            )
        if maps.isfinite().all():
            raise ValueError(
                f"the {maps.dtype} maps are too small for float32, in which explanations are kept, "
                "and would all be zero: explain larger scores, such as "
                "targets=lambda out: out[:, 3] * 1e30"
            )
        raise ValueError(
            "the scores are finite but their gradients or the layer's activations are not: in "
            "half precision they may have overflowed; try bfloat16 or float32"
        )


def select(outputs: Any, targets: Targets) -> Selection:
    """Select the scores to explain from a model's output.

    Args:
        outputs: the model's output. Unless ``targets`` is a callable: (N, classes) scores, or an
            object that holds them (:func:`scores_in`).
        targets: None: each image's class with the highest score. An int: that class. (N,) ints:
            one class for each image. (N, K) ints: K classes for each image. (1, K), such as
            ``[[3, 5]]``: the same K classes for every image. ``"all"``: every class. ``top(k)``:
            each image's k classes with the highest scores. ``several(...)``: such targets
            concatenated. A callable: maps the output to (N,) or (N, K) scores.

    Returns:
        The selected scores and their classes.

    Raises:
        TypeError: the output holds no scores, or the targets are not integers.
        ValueError: a shape does not fit.

    Example:
        >>> logits = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
        >>> select(logits, None).classes.tolist()
        [[1], [0]]
        >>> select(logits, [[0, 1]]).scores.tolist()
        [[1.0, 5.0], [4.0, 0.0]]
    """
    if callable(targets):
        logits = scores_in(outputs)
        if logits is not None:
            logits = logits.clone()  # the callable may write to the outputs
        return _computed(targets(outputs), logits)
    logits = _logits(outputs)
    n, classes = logits.shape
    if isinstance(targets, str) and targets == "all":
        every = torch.arange(classes, device=logits.device).expand(n, classes)
        return Selection(logits, every, classes, logits)
    parts = targets.parts if isinstance(targets, Several) else (targets,)
    picked = torch.cat([_picked(logits, part) for part in parts], dim=1)
    scores = logits.gather(1, picked.clamp(0, classes - 1))  # Selection.check checks the range
    return Selection(scores, picked, classes, logits)


def _picked(logits: Tensor, targets: Targets) -> Tensor:
    """Return the (N, K) classes that targets other than a callable select."""
    n, classes = logits.shape
    if targets is None:
        return logits.detach().argmax(dim=1, keepdim=True)
    if isinstance(targets, Top):
        if targets.count > classes:
            raise ValueError(
                f"expected top(count) of at most {classes} classes, got top({targets.count})"
            )
        return logits.detach().topk(targets.count, dim=1).indices
    if isinstance(targets, str):
        if targets != "all":
            raise ValueError(f'expected targets "all", a class or classes, got {targets!r}')
        return torch.arange(classes, device=logits.device).expand(n, classes)
    classes_of_each: Any = targets  # a callable has been called before
    return as_classes(classes_of_each, n).to(logits.device, non_blocking=True)


def scores_in(outputs: Any) -> Tensor | None:
    """Return the (N, classes) scores in a model's output, or None if there are none.

    The output may be the tensor itself, an object or mapping with ``logits``, or a tuple, list
    or mapping in which exactly one tensor has the shape of scores.

    Example:
        >>> scores_in({"logits": torch.zeros(2, 3), "hidden": torch.zeros(2, 5)}).shape
        torch.Size([2, 3])
    """
    if isinstance(outputs, Tensor):
        return outputs if _are_scores(outputs) else None
    mapping = isinstance(outputs, Mapping)
    logits = outputs.get("logits") if mapping else getattr(outputs, "logits", None)
    if _are_scores(logits):
        return logits
    if mapping:
        parts = list(outputs.values())
    elif isinstance(outputs, (tuple, list)):
        parts = list(outputs)
    else:
        return None
    candidates = [part for part in parts if _are_scores(part)]
    return candidates[0] if len(candidates) == 1 else None


def as_classes(targets: int | Tensor | Sequence[Any], n: int) -> Tensor:
    """Convert one class, or (N,), (N, K) or (1, K) classes, to (N, K) int64 classes.

    Raises:
        TypeError: they are not integers.
        ValueError: a shape does not fit.
    """
    try:
        classes = targets if isinstance(targets, Tensor) else torch.as_tensor(targets, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected targets as integers, got {targets!r}") from error
    if classes.numel() == 0:
        raise ValueError("expected at least one class as targets, got none")
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(f"expected targets as integers, got {classes.dtype}")
    classes = classes.long()
    if classes.ndim == 0:
        return classes.expand(n, 1)
    if classes.ndim == 2 and len(classes) == 1:
        return classes.expand(n, -1)
    if classes.ndim > 2 or len(classes) != n:
        raise ValueError(
            f"expected targets as one class, ({n},) with a class for each image, ({n}, K) with K "
            f"classes for each image, or (1, K) with the same classes for every image, got "
            f"{tuple(classes.shape)}"
        )
    return classes.unsqueeze(1) if classes.ndim == 1 else classes


def _are_scores(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim == 2
        and 0 not in value.shape
        and value.is_floating_point()
    )


def _logits(outputs: Any) -> Tensor:
    logits = scores_in(outputs)
    if logits is not None:
        return logits
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model returned {type(outputs).__name__} without exactly one (N, classes) tensor: "
            'say what to explain with a callable, such as targets=lambda out: out["logits"][:, 3]'
        )
    if not outputs.is_floating_point():
        raise TypeError(f"the model returned {outputs.dtype}, expected floating-point scores")
    raise ValueError(
        f"the model returned {tuple(outputs.shape)}, expected (N, classes): say what to "
        "explain with a callable that gives (N,) or (N, K) scores, such as "
        "targets=lambda out: out[:, 3].mean(dim=(-2, -1)) for a segmentation map"
    )


def _computed(scores: Any, logits: Tensor | None) -> Selection:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"the targets callable returned {kind}, expected a floating-point tensor")
    if scores.ndim not in (1, 2) or scores.numel() == 0:
        raise ValueError(
            f"the targets callable returned {tuple(scores.shape)}, expected (N,) or (N, K) scores"
        )
    scores = scores.unsqueeze(1) if scores.ndim == 1 else scores
    classes = torch.full(scores.shape, NO_CLASS, device=scores.device)
    return Selection(scores, classes, 0, logits)
