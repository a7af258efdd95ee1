"""The result of an explainer: a frozen record of maps, scores and targets."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import explanation_file, heatmap
from .concept_maps import Concepts
from .image_rows import ImageReference, Index, rows_of
from .registration import Registration, place

if TYPE_CHECKING:
    from .render.figures import Figure

# The fields with a row for each image.
_TENSORS = ("raw", "scores", "targets", "gradients", "outputs")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """The result of an explainer: maps of K targets for each of N images, with their scores.

    A *grid* has one axis for signals (N, C, L), two for images (N, C, H, W) and three for volumes
    (N, C, D, H, W); ``size`` and ``grid`` have one number for each axis.

    ``len(explanation)`` is N. ``explanation[i]`` is the explanation of one image (N = 1);
    ``explanation[index]`` with a slice, a sequence of indices, an (M,) int64 tensor or an (N,) mask
    is that of several. A notebook displays an explanation as :meth:`show` draws it.

    Attributes:
        raw: (N, K, *grid) floating point, not negative: the maps on the layer's grid, neither
            scaled nor resized. For several layers: the mean of their maps, each scaled to a maximum
            of 1, on the finest grid. For input gradients, (N, K, *size): the largest absolute
            gradient over the channels. For paths and perturbations, (N, K, *size): the positive
            part of the sum of ``gradients`` over the channels.
        scores: (N, K) floating point, the explained scores.
        targets: (N, K) int64 class ids; -1 where a callable computed the score.
        size: the images' size in pixels, (H, W).
        grid: the finest grid that the method resolves, (h, w). For guided Grad-CAM it is the grid
            of its Grad-CAM, since the structure within a cell is not specific to a class.
        layers: names of the explained layers; empty for input gradients.
        method: name of the method, such as ``"GradCAM"``.
        gradients: (N, K, C, *size) floating point, signed: gradients with respect to the image, or
            what a path or perturbation method attributes to each value of the image (C = 1: to each
            pixel); None for class activation maps.
        outputs: (N, ...) the model's output for the unchanged images, detached; None where the
            output is not a single tensor of scores.
        measures: quantities that the method measured along with its maps, by name, (N, K) or
            (N, K, *size) floating point. ``"standard_error"``: of each pixel, for maps that are
            means of random draws. ``"completeness_gap"``: the absolute difference between the sum
            of the attributions and the score's difference from the baseline's.
        concepts: the concepts of a factorization of the layer; None for other methods.
        registration: where the grid's cells lie in the image; None for methods that explain no
            layer, such as input gradients.
        images: constructor argument only, not stored: the explained images, for :meth:`show`. The
            explanation holds a weak reference and does not keep them in memory.

    Raises:
        TypeError: a tensor has the wrong type.
        ValueError: the shapes contradict each other.

    Example:
        >>> raw = torch.tensor([[[[0.0, 2.0]]]])
        >>> e = Explanation(
        ...     raw=raw,
        ...     scores=torch.ones(1, 1),
        ...     targets=torch.zeros(1, 1).long(),
        ...     size=(1, 4),
        ...     grid=(1, 2),
        ... )
        >>> e.heatmaps.flatten().tolist(), e.evidence.tolist()
        ([0.0, 0.25, 0.75, 1.0], [[True]])
    """

    raw: Tensor
    scores: Tensor
    targets: Tensor
    size: tuple[int, ...]
    grid: tuple[int, ...]
    layers: tuple[str, ...] = ()
    method: str = ""
    gradients: Tensor | None = None
    outputs: Tensor | None = None
    measures: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    concepts: Concepts | None = None
    registration: Registration | None = None
    images: dataclasses.InitVar[Tensor | None] = None
    # dataclasses.replace resets it, so that maps are never drawn over other images.
    _images: ImageReference = dataclasses.field(
        init=False, repr=False, default_factory=ImageReference
    )

    def __post_init__(self, images: Tensor | None) -> None:
        """Check the fields against each other."""
        self._check_types()
        self._check_shapes()
        object.__setattr__(self, "_images", ImageReference(images))

    @functools.cached_property
    def heatmaps(self) -> Tensor:
        """(N, K, *size) in [0, 1]: the maps at the images' size, divided by their maximum.

        Each map is placed at the image's size according to ``registration``, or else stretched over
        the whole image, and then divided by its maximum. A map without evidence is all zero.

        Computed at the first access and cached. For a thousand classes the heatmaps are a thousand
        times as large as the images; ``raw`` is not.
        """
        # Maps that are not on the registered grid have the image's size already.
        if self.registration is None or self.raw.shape[2:] != self.registration.grid:
            return heatmap.scale(heatmap.resize(self.raw, self.size))
        return heatmap.scale(place(self.raw, self.registration))

    @property
    def evidence(self) -> Tensor:
        """(N, K) bool: whether the map has any positive value."""
        return heatmap.evidence(self.raw)

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.raw)

    def __iter__(self) -> Iterator[Explanation]:
        """Iterate over the explanations of single images."""
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: Index) -> Explanation:
        """Return the explanation of some of the images.

        Args:
            index: an int for one image (the result has N = 1); a slice, a sequence of ints, an (M,)
                int64 tensor or an (N,) bool mask for several.

        Raises:
            IndexError: there is no such image, or the mask has the wrong length.
            TypeError: the index has another type.
        """
        rows = rows_of(index, len(self))
        return self._each(
            lambda t: t[rows if isinstance(rows, slice) else rows.to(t.device)], self._images[rows]
        )

    def to(self, device: torch.device | str) -> Explanation:
        """Return the explanation with its tensors on another device."""
        return self._each(lambda t: t.to(device), self._images)

    def cpu(self) -> Explanation:
        """Return the explanation with its tensors on the CPU."""
        return self.to("cpu")

    def show(
        self,
        images: Tensor | None = None,
        *,
        classes: Sequence[str] | None = None,
        rows: int = 4,
        columns: int = 4,
    ) -> Figure:
        """Draw images and heatmaps, with targets, scores and a colour bar.

        Each row shows an image, each column a target. Images are drawn beside their overlays;
        volumes are cut at the slice with the most heat; signals are drawn as lines over their heat.

        The explanation does not keep the images it explains. Without ``images`` the figure uses the
        explained images if your program still holds them unchanged; otherwise it draws the maps
        alone.

        Args:
            images: (N, C, *size), the explained images or pictures of the same view at another
                resolution: uint8, or floating point in [0, 1]. Other values, such as normalised
                ones, are stretched to full contrast, and the caption says so.
            classes: names of the classes, in the order of the model's outputs.
            rows: the largest number of images to draw. The caption says how many are omitted.
            columns: the largest number of targets to draw for each image; those with the highest
                scores are drawn.

        Returns:
            A matplotlib figure. A notebook displays it at the end of a cell.

        Raises:
            TypeError: the images or class names have the wrong type.
            ValueError: their number or shape does not fit, or there is nothing to draw.
        """
        from .render import display

        images = self._images.get(len(self)) if images is None else images
        return display.draw(self, images, classes=classes, rows=rows, columns=columns)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the explanation to a safetensors file, completely or not at all.

        Raises:
            OSError: the folder is missing or not writable, or the disk is full. An existing file
                then stays unchanged.
        """
        facts = {
            "size": self.size,
            "grid": self.grid,
            "layers": self.layers,
            "method": self.method,
            "registration": self.registration and self.registration.to_dict(),
        }
        concepts = {} if self.concepts is None else vars(self.concepts)
        explanation_file.write(
            path, self._tensors(), facts, measures=self.measures, concepts=concepts
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read a file that :meth:`save` wrote. No code in the file is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not an explanation, is damaged, or has another format.
        """
        fields = explanation_file.read(path)
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not an explanation that can be read: {error}") from error

    def _tensors(self) -> dict[str, Tensor]:
        fields = {name: getattr(self, name) for name in _TENSORS}
        return {name: value for name, value in fields.items() if isinstance(value, Tensor)}

    def _each(self, change: Callable[[Tensor], Tensor], images: ImageReference) -> Explanation:
        """Return a copy of the explanation with a function applied to each tensor."""
        changes: dict[str, Any] = {name: change(t) for name, t in self._tensors().items()}
        changes["concepts"] = self.concepts and self.concepts.each(change)
        changes["measures"] = {name: change(t) for name, t in self.measures.items()}
        explanation = dataclasses.replace(self, **changes)
        object.__setattr__(explanation, "_images", images)
        return explanation

    def _check_types(self) -> None:
        for name in ("raw", "scores", "targets"):
            if not isinstance(getattr(self, name), Tensor):
                kind = type(getattr(self, name)).__name__
                raise TypeError(f"expected {name} as a tensor, got {kind}")
        if not isinstance(self.measures, Mapping):
            raise TypeError(f"expected tensors of measures by name, got {self.measures!r:.60}")
        for name, measure in self.measures.items():
            if not isinstance(measure, Tensor):
                raise TypeError(f"expected the measure {name} as a tensor, got {measure!r:.60}")
        for name, tensor in (*self._tensors().items(), *self.measures.items()):
            if name == "targets":
                if tensor.dtype != torch.int64:
                    raise TypeError(f"expected targets as int64 class ids, got {tensor.dtype}")
            elif not tensor.is_floating_point():
                raise TypeError(f"expected {name} in floating point, got {tensor.dtype}")

    def _check_shapes(self) -> None:
        shape, size, grid = self.raw.shape, tuple(self.size), tuple(self.grid)
        if len(shape) not in (3, 4, 5) or len(size) != len(grid) or len(size) != len(shape) - 2:
            raise ValueError(
                "expected raw as (N, K, *grid), and size and grid with 1 to 3 numbers each, got "
                f"raw of {tuple(shape)}, size {size} and grid {grid}"
            )
        if tuple(shape[2:]) not in (grid, size):
            raise ValueError(f"expected raw on the grid {grid} or {size}, got {tuple(shape)}")
        for name in ("scores", "targets"):
            if getattr(self, name).shape != shape[:2]:
                raise ValueError(
                    f"expected {name} as (N, K) = {tuple(shape[:2])} to match raw, got "
                    f"{tuple(getattr(self, name).shape)}"
                )
        signed = None if self.gradients is None else tuple(self.gradients.shape)
        if signed is not None and (signed[:2] != tuple(shape[:2]) or signed[3:] != size):
            raise ValueError(
                f"expected gradients as (N, K, C, *size) of {tuple(shape[:2])} and {size}, got "
                f"{signed}"
            )
        if self.outputs is not None and self.outputs.shape[:1] != shape[:1]:
            raise ValueError(
                f"expected outputs with {shape[0]} rows, got {tuple(self.outputs.shape)}"
            )
        for name, measure in self.measures.items():
            if tuple(measure.shape) not in (tuple(shape), tuple(shape[:2])):
                raise ValueError(
                    f"expected the measure {name} as {tuple(shape[:2])} or {tuple(shape)} to "
                    f"match raw, got {tuple(measure.shape)}"
                )
        if self.concepts is not None:
            self.concepts.check(self.raw)
        record = self.registration
        if record is not None and (record.size, record.grid) != (size, grid):
            raise ValueError(
                f"expected a registration of size {size} and grid {grid}, got {record.size} and "
                f"{record.grid}"
            )

    def _repr_png_(self) -> bytes | None:
        """Return the figure for a notebook; None if nothing can be drawn, so that it shows text."""
        drawable = self.raw.numel() > 0 and not self.raw.is_meta
        return self.show()._repr_png_() if drawable else None

    def __repr__(self) -> str:
        """Return one line with the method, layers, sizes and device, without the values."""
        n, k = self.scores.shape
        layers = f" at {', '.join(self.layers)}" if self.layers else ""
        images = f"{n} image{'s' * (n != 1)} of {tuple(self.size)}"
        targets = f"{k} target{'s' * (k != 1)}{' each' * (n != 1)}"
        return (
            f"Explanation({self.method}{layers}: {images}, {targets}, grid {tuple(self.grid)}, on "
            f"{self.raw.device})"
        )
