"""Use a callable of a user or a library to convert a PIL image to a model's input.

A model gets the transform's output, bit for bit. If the transform is a resize, a centre crop and a
normalisation, camlens reads these steps and compares them with its output. Then the picture before
normalisation and the position of the model's input in the photograph are known too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .faults import is_machine_fault
from .preprocessing import Preprocessing
from .transform_steps import steps_of

__all__ = ["Transform"]

#: (H, W) of the pictures that a transform is tested on: one wide, one tall.
_TRIALS = ((300, 410), (411, 290))

#: Number of tests on one picture: a random flip goes undetected once in 4,000 times.
_DRAWS = 12

#: Mean and largest difference, in grey levels of 255, between a transform and its steps: Pillow
#: rounds between the two passes of a resize, torch does not.
_MEAN_LEVELS, _MOST_LEVELS = 1.0, 4.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Transform:
    """A callable from a PIL image to a model's input, with the interface of :class:`Preprocessing`.

    Created by :meth:`of`, which tests the callable.

    Attributes:
        function: converts an RGB ``PIL.Image`` to (C, H, W) floating point.
        source: the transform's origin, for messages.
        steps: an equivalent :class:`Preprocessing`; None if none is known.
        size: (H, W) of the model's input; None if it depends on the picture.
        channels: C.
    """

    function: Callable[[Any], Any]
    source: str
    steps: Preprocessing | None
    size: tuple[int, int] | None
    channels: int

    @classmethod
    def of(
        cls, function: Callable[[Any], Any], source: str, steps: Preprocessing | None = None
    ) -> Transform:
        """Test a transform on two pictures and wrap it.

        Args:
            function: converts an RGB ``PIL.Image`` to (C, H, W) floating point.
            source: the origin in messages, such as ``"package.module:function"``.
            steps: the expected steps. None: camlens reads them if the transform consists of
                torchvision's ``Resize``, ``CenterCrop``, ``ToTensor`` and ``Normalize`` (either
                version). They are kept only if they give the same output, up to rounding of grey
                levels and a crop that is shifted by one pixel of the input.

        Raises:
            TypeError: the transform does not return a floating-point tensor.
            ValueError: the transform failed, returned a shape other than (C, H, W), or values that
                are not finite, or is random.
        """
        plain = cls(function=function, source=source, steps=None, size=None, channels=3)
        with contextlib.redirect_stdout(sys.stderr):  # keep its output out of the results
            made = [plain.values(_trial(size)) for size in _TRIALS]
            again = [plain.values(_trial(_TRIALS[0])) for _ in range(_DRAWS)]
        if not all(torch.equal(made[0], each) for each in again):
            raise ValueError(
                f"the transform of {source} returns different values for the same picture each "
                "time: expected the transform for evaluation, not for training"
            )
        sizes = {(values.shape[1], values.shape[2]) for values in made}
        if len({len(values) for values in made}) > 1:
            raise ValueError(f"the transform of {source} returns varying numbers of channels")
        steps = steps_of(function) if steps is None else steps
        return cls(
            function=function,
            source=source,
            steps=steps if steps is not None and _agrees(steps, made) else None,
            size=sizes.pop() if len(sizes) == 1 else None,
            channels=len(made[0]),
        )

    def __call__(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model's input for a picture.

        Args:
            picture: (3, H, W) uint8 RGB, as :func:`camlens.loading.read_photograph` returns it.

        Returns:
            The input, (C, h, w) float32, as the transform returns it, and its picture, (3, h, w)
            uint8. If the steps are known, the picture is the input with its normalisation undone.
            Otherwise an input in [0, 1] is shown as it is, and another input is stretched from its
            minimum to its maximum; with other than 1 or 3 channels, their mean is shown.

        Raises:
            TypeError: the transform did not return a floating-point tensor.
            ValueError: the transform failed, or returned a shape other than (C, H, W), or values
                that are not finite.
        """
        values = self.values(picture)
        if self.steps is not None:
            mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.steps.mean, self.steps.std))
            shown = (values * std + mean).clamp(0, 1)
        else:
            shown = _stretched(values if len(values) in (1, 3) else values.mean(0, keepdim=True))
        return values, (shown * 255).round().to(torch.uint8).expand(3, -1, -1).contiguous()

    def values(self, picture: Tensor) -> Tensor:
        """Return only the input, (C, h, w) float32."""
        from PIL import Image

        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        h, w = picture.shape[-2:]
        try:
            made = self.function(image)
        except Exception as error:
            if is_machine_fault(error):
                raise
            raise ValueError(
                f"the transform of {self.source} failed on a picture of {h} x {w} pixels with "
                f"{type(error).__name__}: {error}"
            ) from error
        return self._checked(made)

    def seen(self, picture: Tensor) -> Tensor:
        """Return only the input's picture, (3, h, w) uint8."""
        return self(picture)[1]

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """Return the part of a photograph that the input shows; None if it is unknown.

        See :meth:`Preprocessing.box`; exact to one pixel of the input.
        """
        return None if self.steps is None else self.steps.box(size)

    def _checked(self, made: object) -> Tensor:
        expected = f"expected the transform of {self.source} to return (C, H, W) floating point"
        if not isinstance(made, Tensor) or not made.is_floating_point():
            kind = made.dtype if isinstance(made, Tensor) else type(made).__name__
            raise TypeError(f"{expected}, got {kind}: end it with ToTensor()")
        if made.ndim != 3 or 0 in made.shape:
            hint = ": leave the batch dimension out" if made.ndim == 4 else ""
            raise ValueError(f"{expected}, got {tuple(made.shape)}{hint}")
        if not made.isfinite().all():
            raise ValueError(f"{expected}, got values that are NaN or infinite")
        # torchvision's tensor subclasses carry more than values.
        return made.detach().as_subclass(Tensor).float().cpu().contiguous()


def _trial(size: tuple[int, int]) -> Tensor:
    """Return a fixed picture of smooth noise, (3, H, W) uint8."""
    noise = torch.rand(1, 3, 29, 31, generator=torch.Generator().manual_seed(0))
    return (interpolate(noise, size, mode="bilinear")[0] * 255).to(torch.uint8)


def _agrees(steps: Preprocessing, made: list[Tensor]) -> bool:
    std = torch.tensor(steps.std).view(-1, 1, 1)
    for size, values in zip(_TRIALS, made, strict=True):
        expected = steps.values(_trial(size))
        if expected.shape != values.shape or min(values.shape[1:]) < 3:
            return False
        h, w = values.shape[1:]
        inner = values[:, 1:-1, 1:-1]
        # Libraries round half a pixel differently, which shifts a crop by one pixel.
        if not any(
            _is_close((inner - expected[:, y : y + h - 2, x : x + w - 2]) * std * 255)
            for y, x in ((1, 1), *itertools.product(range(3), range(3)))
        ):
            return False
    return True


def _is_close(levels: Tensor) -> bool:
    difference = levels.abs()
    return bool((difference.mean() <= _MEAN_LEVELS) & (difference.max() <= _MOST_LEVELS))


def _stretched(values: Tensor) -> Tensor:
    low, high = values.amin(), values.amax()
    if low >= 0 and high <= 1:
        return values
    return (values - low) / (high - low).where(high > low, 1)
