"""Targets at a place in the image: a class within a segmentation mask, a detected box."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .per_image import PerImage, select_rows

#: Maps a detector's output to (N, A, 4) boxes and (N, A, classes) scores of A candidates.
ReadBoxes = Callable[[Any], tuple[Tensor, Tensor]]


def segmentation(chosen: int, mask: Tensor | None = None) -> Callable[[Any], Tensor]:
    """Target for a class of a segmentation: the mean of its logits within a mask.

    Args:
        chosen: the class.
        mask: (h, w) or (N, h, w) at the output's size, boolean or non-negative weights. None: the
            pixels of the unchanged image at which the class has the highest logit, or all pixels if
            there are none.

    Returns:
        A target with K = 1, for models that return (N, classes, h, w) logits, or an object with
        such ``logits`` or ``"out"``.

    Raises:
        ValueError: a mask is empty, has negative weights, or has a wrong shape.

    Example:
        >>> logits = torch.tensor([[[[1.0, 5.0]], [[2.0, 0.0]]]])
        >>> segmentation(0)(logits).tolist(), segmentation(0, torch.ones(1, 2))(logits).tolist()
        ([[5.0]], [[3.0]])
    """
    if mask is not None:
        if mask.ndim not in (2, 3):
            raise ValueError(f"expected a mask of (h, w) or (N, h, w), got {tuple(mask.shape)}")
        if (mask.is_floating_point() and not mask.isfinite().all()) or (mask < 0).any():
            raise ValueError("expected a mask of finite weights that are not negative")
        if not mask.flatten(-2).any(dim=-1).all():
            raise ValueError("expected a mask with at least one pixel, got an empty one")
    return Segmentation(chosen, mask)


def box(
    boxes: Tensor, labels: Tensor | Sequence[int] | int, *, read: ReadBoxes | None = None
) -> Callable[[Any], Tensor]:
    r"""Target for detections: the score of the detected box that best fits each given box.

    .. math:: \max_j \mathrm{IoU}(b, b_j)\, s_j

    over the detections j of the given class, with b the given box and :math:`s_j` the score of
    detection j. Give boxes and classes that the detector returned for the unchanged image; the
    target is then the detection's own score. In changed images the detection is found again by its
    overlap, not by its position in the detector's list. Gradients flow through the score s, not
    through the overlap.

    Args:
        boxes: (4,), or (K, 4) for every image, or (N, K, 4): x0, y0, x1, y1 in the coordinates of
            the detector's output.
        labels: the classes: one int, (K,) or (N, K).
        read: maps the model's output to (N, A, 4) boxes and (N, A, classes) scores of A candidates,
            before non-maximum suppression. None: the output is that of torchvision's detectors, for
            each image a dictionary of ``"boxes"``, ``"labels"`` and ``"scores"``.

    Returns:
        A target with K scores, one for each box.

    Raises:
        TypeError: the labels are not integers.
        ValueError: a shape is wrong; when called, if no detection in the unchanged image has an IoU
            of at least 0.5 with a box.

    Source: the similarity of Petsiuk et al., "Black-box Explanation of Object Detectors via
    Saliency Maps", CVPR 2021 (D-RISE, arXiv:2006.03204), equation 3, without the other classes'
    probabilities, which torchvision's detectors do not return.

    Example:
        >>> found = {
        ...     "boxes": torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4]]),
        ...     "labels": torch.tensor([1, 1]),
        ...     "scores": torch.tensor([0.5, 0.9]),
        ... }
        >>> box(found["boxes"], found["labels"])([found])
        tensor([[0.5000, 0.9000]])
    """
    corners = boxes.detach().unsqueeze(0) if boxes.ndim == 1 else boxes.detach()
    if corners.ndim not in (2, 3) or corners.shape[-1] != 4 or 0 in corners.shape:
        raise ValueError(
            f"expected boxes as (4,), (K, 4) or (N, K, 4) of x0, y0, x1, y1, got "
            f"{tuple(boxes.shape)}"
        )
    corners = corners.float()
    if not (corners[..., 2:] > corners[..., :2]).all() or not corners.isfinite().all():
        raise ValueError("expected boxes as x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    classes = torch.as_tensor(labels, device=corners.device)
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(f"expected labels as integers, got {classes.dtype}")
    if classes.ndim and classes.shape != corners.shape[:-1]:
        raise ValueError(
            f"expected a label for each of {tuple(corners.shape[:-1])} boxes, got "
            f"{tuple(classes.shape)}"
        )
    return Box(corners, classes.long().expand(corners.shape[:-1]), read)


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation(PerImage):
    """The target of :func:`segmentation`."""

    chosen: int
    mask: Tensor | None

    @property
    def count(self) -> int | None:
        """See :class:`PerImage`."""
        return None if self.mask is None or self.mask.ndim == 2 else len(self.mask)

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, 1) scores."""
        scores = self._scores(outputs)
        mask = self._predicted(outputs) if self.mask is None else self.mask
        if mask.shape[-2:] != scores.shape[1:] or (mask.ndim == 3 and len(mask) != len(scores)):
            raise ValueError(
                f"expected a mask of the output's size {tuple(scores.shape[1:])}, one for all or "
                f"for each of {len(scores)} images, got {tuple(mask.shape)}"
            )
        weights = mask.to(scores).expand_as(scores)
        return ((scores * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))).unsqueeze(1)

    def fixed(self, outputs: Any) -> Segmentation:
        """Return the target with the pixels that these images' outputs assign to the class."""
        if self.mask is not None:
            return self
        return Segmentation(self.chosen, self._predicted(outputs))

    def rows(self, index: Tensor) -> Segmentation:
        """Return the target of some of the images."""
        if self.mask is None or self.mask.ndim == 2:
            return self
        return Segmentation(self.chosen, select_rows(self.mask, index))

    def _scores(self, outputs: Any) -> Tensor:
        logits = _maps(outputs)
        if not 0 <= self.chosen < logits.shape[1]:
            raise ValueError(
                f"expected a class 0 to {logits.shape[1] - 1}, got {self.chosen}: the model's "
                f"output is {tuple(logits.shape)}"
            )
        return logits[:, self.chosen]

    def _predicted(self, outputs: Any) -> Tensor:
        """Return (N, h, w): where the class has the highest logit; all True if it never has."""
        self._scores(outputs)
        where = _maps(outputs).detach().argmax(dim=1) == self.chosen
        return where | ~where.flatten(1).any(dim=1).view(-1, 1, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Box(PerImage):
    """The target of :func:`box`."""

    boxes: Tensor
    labels: Tensor
    read: ReadBoxes | None
    found: bool = False

    @property
    def count(self) -> int | None:
        """See :class:`PerImage`."""
        return None if self.boxes.ndim == 2 else len(self.boxes)

    def __call__(self, outputs: Any) -> Tensor:
        """Return (N, K) scores; 0 where nothing of the class overlaps."""
        return self._best(outputs)[0]

    def fixed(self, outputs: Any) -> Box:
        """Return the target after checking that these images have a detection at each box."""
        if self.found:
            return self
        overlaps = self._best(outputs)[1]
        if (overlaps < _HALF).any():
            n, k = (overlaps < _HALF).nonzero()[0].tolist()
            raise ValueError(
                f"expected a detection of class {int(self._of(self.labels, n)[k])} at the box "
                f"{self._of(self.boxes, n)[k].tolist()} of image {n}, but the nearest overlaps it "
                f"by {overlaps[n, k]:.2f}: pass a box and a label that the model returned for the "
                "unchanged image"
            )
        return dataclasses.replace(self, found=True)

    def rows(self, index: Tensor) -> Box:
        """Return the target of some of the images."""
        if self.boxes.ndim == 2:
            return self
        boxes, labels = select_rows(self.boxes, index), select_rows(self.labels, index)
        return dataclasses.replace(self, boxes=boxes, labels=labels)

    def _of(self, values: Tensor, image: int) -> Tensor:
        return values[image] if self.boxes.ndim == 3 else values

    def _best(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Return (N, K) scores, and the overlaps of the detections that they belong to."""
        found = self._detections(outputs)
        if self.boxes.ndim == 3 and len(self.boxes) != len(found):
            raise ValueError(f"expected boxes of {len(found)} images, got {len(self.boxes)}")
        scores, overlaps = [], []
        for image, (boxes, of_class) in enumerate(found):
            own = self._of(self.boxes, image).to(boxes.device)
            values = of_class(self._of(self.labels, image).to(boxes.device))  # (K, A)
            overlap = _overlaps(own, boxes.detach().float())
            if overlap.shape[1] == 0:
                scores.append(values.new_zeros(len(own)))
                overlaps.append(overlap.new_zeros(len(own)))
                continue
            best = (overlap * values.detach()).argmax(dim=1, keepdim=True)
            overlap = overlap.gather(1, best)
            scores.append((overlap * values.gather(1, best)).squeeze(1))
            overlaps.append(overlap.squeeze(1).where(values.gather(1, best).squeeze(1) > 0, 0))
        return torch.stack(scores), torch.stack(overlaps)

    def _detections(self, outputs: Any) -> list[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Return for each image the (A, 4) boxes, and a function from (K,) labels to scores."""
        if self.read is not None:
            boxes, scores = self.read(outputs)
            if boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[:2] != scores.shape[:2]:
                raise ValueError(
                    "expected read=... to return (N, A, 4) boxes and (N, A, classes) scores, got "
                    f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
                )
            return [(b, _OfEachClass(s)) for b, s in zip(boxes, scores, strict=True)]
        wanted = {"boxes", "labels", "scores"}
        if not isinstance(outputs, (list, tuple)) or not all(
            isinstance(each, Mapping) and wanted <= set(each) for each in outputs
        ):
            raise ValueError(
                "expected for each image a dictionary of boxes, labels and scores, as "
                f"torchvision's detectors return, got {type(outputs).__name__}: pass read=... to "
                "read another output"
            )
        return [(each["boxes"], _Labelled(each["labels"], each["scores"])) for each in outputs]


@dataclasses.dataclass(frozen=True, eq=False)
class _OfEachClass:
    """The scores of candidates that have a score for each class, (A, classes)."""

    scores: Tensor

    def __call__(self, labels: Tensor) -> Tensor:
        """Return (K, A): each candidate's score for each label."""
        if not ((labels >= 0) & (labels < self.scores.shape[1])).all():
            raise ValueError(
                f"expected labels 0 to {self.scores.shape[1] - 1}, got {labels.tolist()}"
            )
        return self.scores[:, labels].T


@dataclasses.dataclass(frozen=True, eq=False)
class _Labelled:
    """The scores of detections that have one class each."""

    labels: Tensor
    scores: Tensor

    def __call__(self, labels: Tensor) -> Tensor:
        """Return (K, A): each detection's score if it has the label, else 0."""
        return self.scores * (self.labels == labels.unsqueeze(1))


#: Smallest intersection over union at which a detection fits a box.
_HALF = 0.5


def _overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Return (K, A) intersection over union of (K, 4) and (A, 4) boxes."""
    one, other = boxes.unsqueeze(1), others.unsqueeze(0)
    least = torch.maximum(one[..., :2], other[..., :2])
    most = torch.minimum(one[..., 2:], other[..., 2:])
    shared = (most - least).clamp(min=0).prod(dim=-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (one, other)]
    return shared / (areas[0] + areas[1] - shared)


def _maps(outputs: Any) -> Tensor:
    for name in ("logits", "out"):
        held = outputs.get(name) if isinstance(outputs, dict) else getattr(outputs, name, None)
        outputs = held if isinstance(held, Tensor) else outputs
    if not isinstance(outputs, Tensor) or outputs.ndim != 4:
        kind = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"expected a segmentation's (N, classes, h, w) logits, got {kind}")
    return outputs
