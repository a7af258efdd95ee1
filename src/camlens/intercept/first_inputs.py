"""Follows the images through a model's own padding, cropping and resizing to its first layers."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .modes import Interception

_CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
#: Calls that combine the values of several pixels or channels by weights.
_MIXING = frozenset(
    [
        *(*_CONVOLUTIONS, "convolution", "linear", "bilinear", "einsum"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "addmm", "baddbmm", "tensordot"),
    ]
)


@dataclasses.dataclass(frozen=True)
class FirstInput:
    """The images as one of the model's first layers gets them.

    Attributes:
        shape: (N, C, *size) or (N, *size, C), with another size than the images' if the model pads,
            crops or resizes them.
        tensor: of this shape, with its graph; None in a run without gradients.
        padding: rows along each axis by which that layer lacks padding of its own at each end: so
            much of the padding in ``tensor`` belongs to the layer, as TensorFlow's does.
    """

    shape: torch.Size
    tensor: Tensor | None
    padding: tuple[float, ...]


class FirstInputs(Interception):
    """Function mode that follows the images until a convolution or product mixes their pixels.

    Args:
        shape: of the images, (N, C, *size).
        unbroken: whether to keep the tensors with their graph, even where the model switches
            gradients off.

    Attributes:
        found: what the model's first layers get, in the order of their calls.
    """

    def __init__(self, shape: Sequence[int], *, unbroken: bool = False) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.unbroken = unbroken
        self.found: list[FirstInput] = []
        # By the id of each tensor that is made from the images: the tensor, and the images at the
        # last size from which it was made; None if their pixels are mixed.
        self._sources: dict[int, tuple[weakref.ref[Tensor], Tensor | None]] = {}
        self._ids: set[int] = set()

    def source(self, value: Tensor) -> Tensor | None:
        """Return the images at the last size from which a tensor was made; None if it is mixed."""
        return next(iter(self._known([value])), None)

    def _known(self, values: Iterable[Tensor]) -> list[Tensor | None]:
        """Return the sources of those tensors that are made from the images."""
        entries = [(value, self._sources.get(id(value))) for value in values]
        return [entry[1] for value, entry in entries if entry and entry[0]() is value]

    def _set(self, value: Tensor, source: Tensor | None) -> None:
        self._sources[id(value)] = weakref.ref(value), source

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Execute every call unchanged, and record what it makes of the images."""
        if self.unbroken and func is torch._C._set_grad_enabled and not args[0]:
            return None
        name = getattr(func, "__name__", "").partition(".")[0]
        given = [*_tensors(args), *_tensors(kwargs.values())]
        if not self._sources:
            for value in given:
                if value.shape == self.shape:
                    self._set(value, value)
        known = self._known(given)
        mixing = name in _MIXING or name.startswith("fft_")
        if mixing:
            arguments = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
            self._find(given, arguments if name in _CONVOLUTIONS else {})
        result = super().intercept(func, args, kwargs)
        if mixing or known:
            mixed = mixing or any(source is None for source in known)
            for value in _changed(name, args, result):
                self._set(value, None if mixed else value if self._is_image(value) else known[0])
        return result

    def _is_image(self, value: Tensor) -> bool:
        """Return whether a tensor has a row for each image, and all its axes."""
        return (
            value.ndim == len(self.shape)
            and len(value) == self.shape[0]
            and all(side > 1 for side in value.shape[2:])
        )

    def _find(self, given: Sequence[Tensor], arguments: Mapping[str, Any]) -> None:
        """Record what a layer gets, if it gets images whose pixels are not mixed yet."""
        sources = self._known(given)
        if not sources and not self.found:
            # A part of the model that is not intercepted may have made it, such as NumPy.
            sources = [value for value in given[:1] if self._is_image(value)]
        for source in sources[:1]:
            if source is not None and id(source) not in self._ids:
                self._ids.add(id(source))
                self._set(source, source)  # kept alive, so that no other tensor takes its id
                tensor = source.clone() if self.unbroken else None  # the model may write to it
                none = (0.0,) * (len(self.shape) - 2)
                padding = _lacking(arguments, none) if self.unbroken else none
                self.found.append(FirstInput(source.shape, tensor, padding))


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among some values, and in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Tensor))


def _changed(name: str, args: Sequence[Any], result: Any) -> Iterator[Tensor]:
    """Yield the tensors that a call returns or writes to, also through a view."""
    yield from _tensors([result])
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    if writes and args and isinstance(args[0], Tensor):
        yield args[0]
        if args[0]._base is not None:
            yield args[0]._base


def _lacking(arguments: Mapping[str, Any], none: tuple[float, ...]) -> tuple[float, ...]:
    """Return the padding at each end that a convolution lacks to keep the size of its input."""
    weight, padding = arguments.get("weight"), arguments.get("padding", 0)
    # Quantized weights are not a tensor, and a convolution may run along some of the axes only.
    if padding == "same" or not isinstance(weight, Tensor) or weight.ndim != len(none) + 2:
        return none
    stride, dilation = arguments.get("stride", 1), arguments.get("dilation", 1)
    given = [_each(value, len(none)) for value in (stride, dilation, padding)]
    return tuple(
        max(0.0, (d * (side - 1) + 1 - s) / 2 - p)
        for side, s, d, p in zip(weight.shape[2:], *given, strict=True)
    )


def _each(value: int | str | Sequence[int], axes: int) -> Sequence[int]:
    if isinstance(value, str):  # "valid"
        return (0,) * axes
    return (value,) * axes if isinstance(value, int) else tuple(value) * (axes // len(value))
