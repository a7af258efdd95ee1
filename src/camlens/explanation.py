"""The result of explaining: frozen, movable between devices, saved without pickle."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from typing import Any

import torch
from torch import Tensor

from . import heatmap
from .files import write_whole

_FORMAT = "camlens.explanation.1"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """Maps for N images and K targets each, and what is needed to judge them.

    Attributes:
        raw: (N, K, h, w) float32, not negative: the map at the layer's own grid, not scaled and
            not resized. Of several layers, the mean of their maps, each scaled to a maximum of
            1, on the finest grid. Of the input-gradient family, (N, K, H, W): the largest
            absolute gradient over the channels.
        scores: (N, K) float32, the explained scores as the model gave them.
        targets: (N, K) int64 class ids; -1 where a callable computed the score.
        size: (H, W) of the images in pixels.
        grid: (h, w), the finest detail the method can tell apart. Of guided Grad-CAM the grid
            of its Grad-CAM, since the finer structure inside a cell is not specific to a class.
        layers: names of the explained layers; empty for the input-gradient family.
        method: name of the method, such as ``"GradCAM"``.
        gradients: (N, K, C, H, W) float32, signed; None for class activation maps.

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
    size: tuple[int, int]
    grid: tuple[int, int]
    layers: tuple[str, ...] = ()
    method: str = ""
    gradients: Tensor | None = None
    outputs: Tensor | None = None
    registration: object = None
    images: object = None

    @functools.cached_property
    def heatmaps(self) -> Tensor:
        """(N, K, H, W) float32 in [0, 1]: ``raw`` at the images' size, over its maximum.

        Each map is resized first and then divided by its own maximum, so that its largest
        value is 1; a map without evidence is all zero.

        Computed when first asked for, and kept: for a thousand classes it is a thousand times
        the size of the images, ``raw`` is not.
        """
        return heatmap.scale(heatmap.resize(self.raw, self.size))

    @property
    def evidence(self) -> Tensor:
        """(N, K) bool: whether the map has any positive value at all."""
        return heatmap.evidence(self.raw)

    def to(self, device: torch.device | str) -> Explanation:
        """Return the explanation with its tensors on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in self._tensors().items()}
        return dataclasses.replace(self, **moved)

    def cpu(self) -> Explanation:
        """Return the explanation with its tensors in main memory."""
        return self.to("cpu")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the explanation to one safetensors file, whole or not at all.

        Raises:
            OSError: the folder is missing or not writable, or the disk is full; a file that was
                there before is then unchanged.
        """
        from safetensors.torch import save

        facts = {
            "size": self.size,
            "grid": self.grid,
            "layers": self.layers,
            "method": self.method,
            "format": _FORMAT,
        }
        tensors = {k: v.cpu().contiguous() for k, v in self._tensors().items()}
        write_whole(path, save(tensors, metadata={"camlens": json.dumps(facts)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not an explanation, is damaged, or of a newer format.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("camlens", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        found = facts.pop("format", None)
        if found != _FORMAT:
            raise ValueError(
                f"{path} is of format {found!r}, expected {_FORMAT!r}: it was not written by "
                "Explanation.save, or by a newer camlens; upgrade with pip install -U camlens"
            )
        return cls(
            **tensors,
            size=tuple(facts["size"]),
            grid=tuple(facts["grid"]),
            layers=tuple(facts["layers"]),
            method=facts["method"],
        )

    def _tensors(self) -> dict[str, Tensor]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, Tensor)}

    def __repr__(self) -> str:
        """Return a line that says what is explained, without the numbers."""
        n, k = self.scores.shape
        where = f" at {', '.join(self.layers)}" if self.layers else ""
        return (
            f"Explanation({self.method}{where}: {n} images of {self.size}, {k} targets each, "
            f"grid {self.grid}, on {self.raw.device})"
        )
