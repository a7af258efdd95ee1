"""Measures how the outputs of a model's layers respond to changes of its images.

White noise is added to the images twice for each image axis: once with a strength that grows along
the axis from 0 to 1, once with a strength that falls from 1 to 0. A cell's response is the squared
difference from its output for unchanged images. The share of the first response in the sum of both
is the cell's position along the axis: for small noise it is the centroid of the squared gradient,
as a fraction of the axis. As a share it does not depend on how strongly a cell responds. Two more
runs identify the batch dimension: one changes a single image, the other reverses the images' order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

#: Runs the model on images, without gradients; returns the outputs of the layers named.
Run = Callable[[Tensor, Sequence[str]], Mapping[str, Tensor]]

#: Standard deviation of the noise, in standard deviations of the images.
NOISE = 0.3
#: Images with fewer pixels than this are repeated in a run, up to 32 times.
PIXELS = 4096
#: Squared response below which a row counts as unchanged, as a fraction of the changed row's.
#: Kernels that sum in a different order in each run cause about 1e-12.
LEAK = 1e-4
#: Squared response below which an index counts as unchanged, as a fraction of the largest one's.
SILENT = 1e-9


@dataclasses.dataclass(frozen=True)
class Response:
    """The response of one layer's output to changed images.

    Attributes:
        shape: the output's shape.
        images: number of images R in a run.
        fault: why the output does not have one row for each image: "" (it has), "absent" (no
            tensor), "shape" (its shape depends on the images' values), "silent" (no response),
            "rows" (no dimension of size R), "mixed" (there is one, but other rows respond to the
            first image), or "order" (the rows do not follow a reordering of the images).
        batch: dimension of the images.
        group: number of consecutive rows that belong to an image, if more than one; or 0.
        centres: for each dimension other than the batch, (2, d, length) centres of the response
            along each image axis, from two independent draws; NaN where nothing responds.
    """

    shape: tuple[int, ...] = ()
    images: int = 0
    fault: str = ""
    batch: int = 0
    group: int = 0
    centres: Mapping[int, Tensor] = dataclasses.field(default_factory=dict)


def respond(
    run: Run,
    names: Sequence[str],
    images: Tensor,
    *,
    fixed: bool = False,
    reverse: Run | None = None,
    content: str = "images",
) -> dict[str, Response]:
    """Measure how layers respond to changed images.

    The model runs 3 + 2 d times on two images (more if they are tiny). One of the two is flipped,
    so that image content at one position is not mistaken for a property of the model.

    Args:
        run: runs the model.
        names: layers to measure.
        images: (N, C, *size), preprocessed as the model expects.
        fixed: whether the model accepts only these N images; with a single image it runs
            2 (1 + 2 d) times.
        reverse: runs the model on images in reverse order; None: use ``run``.
        content: "images", or "noise" to replace them with noise of equal mean and deviation.

    Returns:
        Responses by layer name.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    scale = _scale(images)
    if content == "noise":
        images = images.float().mean() + scale * _noise(images, generator)
    measured = {name: _Sums() for name in names}
    for number, batch in enumerate(_batches(images, fixed, scale, generator)):
        noise = NOISE * scale * _noise(batch, generator)
        base = run(batch, names)
        if number == 0 and len(batch) > 1:
            first = torch.zeros_like(noise)
            first[0] = noise[0]
            rows = run((batch + first).to(batch.dtype), names)
            turned = run(batch.flip(0), names) if reverse is None else reverse(batch, names)
            for name, sums in measured.items():
                outputs = base.get(name), rows.get(name), turned.get(name)
                sums.find_rows(*outputs, len(batch))
            del rows, turned
        for axis, ramp in enumerate(_ramps(batch)):
            for direction, strength in enumerate((ramp, 1 - ramp)):
                changed = run((batch + noise * strength.sqrt()).to(batch.dtype), names)
                step = (axis, direction)
                for name, sums in measured.items():
                    sums.add(base.get(name), changed.get(name), step, number, len(batch))
                del changed
    return {name: sums.response(images.ndim - 2) for name, sums in measured.items()}


def _scale(images: Tensor) -> Tensor:
    values = images.detach().float()
    deviation = values.std() if values.numel() > 1 else values.abs().mean()
    fallback = torch.where(values.abs().mean() > 0, values.abs().mean(), torch.ones_like(deviation))
    return torch.where(deviation > 0, deviation, fallback)


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator, device="cpu", dtype=torch.float32)
    return noise.to(images.device)


def _batches(
    images: Tensor, fixed: bool, scale: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the unchanged images of each pass; those with odd indices are flipped.

    A measurement on few pixels is noisy but cheap, so noise images follow tiny images. They
    activate other units.
    """
    images = images.detach()
    draws = 2 * min(max(1, PIXELS // math.prod(images.shape[2:])), 16)
    if not fixed:
        images = torch.stack([images[0], images[-1]])
    turned = images.flip(tuple(range(2, images.ndim)))
    odd = torch.arange(len(images), device=images.device).view(-1, *[1] * (images.ndim - 1)) % 2
    passes = [images, turned] if len(images) == 1 else [torch.where(odd == 1, turned, images)]
    others = max(0, draws - len(passes) * len(images))
    noise = [
        (images.float().mean() + scale * _noise(images, generator)).to(images.dtype)
        for _ in range(2 * (others // (2 * len(images))))
    ]
    yield from passes + noise if fixed else [torch.cat(passes + noise)]


def _ramps(images: Tensor) -> list[Tensor]:
    """Return strengths that grow along each image axis from 0 to 1."""
    ramps = []
    for axis, size in enumerate(images.shape[2:]):
        steps = (torch.arange(size, device=images.device) + 0.5) / size
        ramps.append(steps.view([-1 if i == axis else 1 for i in range(images.ndim - 2)]))
    return ramps


class _Sums:
    """Squared responses of one layer, summed over all dimensions but one at a time."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.images = 0
        self.fault = ""
        self.batch: int | None = None
        self.group = 0
        # By ((axis, direction), dimension): (2, length) sums of both draws.
        self.energy: dict[tuple[tuple[int, int], int], Tensor] = {}

    def _difference(self, base: Tensor | None, changed: Tensor | None) -> Tensor | None:
        if base is None or changed is None:
            self.fault = self.fault or "absent"
            return None
        self.shape = self.shape or tuple(base.shape)
        if not self.shape == base.shape == changed.shape:
            self.fault = self.fault or "shape"
            return None
        return _difference(base, changed)

    def find_rows(
        self, base: Tensor | None, changed: Tensor | None, turned: Tensor | None, n: int
    ) -> None:
        """Find the dimension on which only index 0 responds to a change of image 0.

        Args:
            base: the output for the unchanged images.
            changed: the output with image 0 changed.
            turned: the output for the images in reverse order, or None. It shows whether the model
                orders the rows by the images' content.
            n: number of images.
        """
        self.images = n
        difference = self._difference(base, changed)
        if base is None or difference is None:
            return
        energy = difference.square()
        profiles = [_marginal(energy, dim) for dim in range(energy.ndim)]
        if not any((profile > 0).any() for profile in profiles):
            self.fault = self.fault or "silent"
            return
        sized = [dim for dim, length in enumerate(base.shape) if length == n]
        for dim in sized:
            if profiles[dim][1:].max() <= LEAK * profiles[dim][0]:
                self.batch = dim
                if turned is not None and turned.shape == base.shape:
                    moved = _marginal(_difference(base, turned.flip(dim)).square(), dim)
                    if moved.max() > LEAK * profiles[dim][0]:
                        self.fault = self.fault or "order"
                return
        self.fault = self.fault or ("mixed" if sized else "rows")
        if profiles and (count := len(profiles[0]) // n) > 1 and len(profiles[0]) == n * count:
            first, rest = profiles[0][:count], profiles[0][count:]
            self.group = count if rest.max() <= LEAK * first.max() else 0

    def add(
        self,
        base: Tensor | None,
        changed: Tensor | None,
        step: tuple[int, int],
        draw: int,
        n: int,
    ) -> None:
        """Add the responses of one run; even and odd rows are independent draws."""
        self.images = n
        difference = self._difference(base, changed)
        if difference is None or self.fault:
            return
        if self.batch is None:  # a single image: there are no other rows to compare with
            ones = [dim for dim, length in enumerate(difference.shape) if length == n]
            if not ones:
                self.fault = "rows"
                return
            self.batch = ones[0]
        energy = difference.movedim(self.batch, 0).square()
        for dim in range(1, energy.ndim):
            profile = _marginal(energy, dim, rows=True)
            draws = (
                torch.stack([profile[0::2].sum(0), profile[1::2].sum(0)])
                if n > 1
                else torch.stack([profile[0] * (draw % 2 == 0), profile[0] * (draw % 2 == 1)])
            )
            key = (step, dim - 1 if dim <= self.batch else dim)
            self.energy[key] = self.energy.get(key, 0) + draws

    def response(self, axes: int) -> Response:
        """Return the response, with centres as shares of the responses to growing ramps."""
        shape = self.shape or ()
        if self.fault or self.batch is None:
            fault = self.fault or "silent"
            return Response(shape, self.images, fault, group=self.group)
        centres = {}
        for dim in range(len(shape)):
            if dim == self.batch:
                continue
            growing = torch.stack([self.energy[(axis, 0), dim] for axis in range(axes)], dim=1)
            falling = torch.stack([self.energy[(axis, 1), dim] for axis in range(axes)], dim=1)
            full = growing + falling
            shares = (growing / full).masked_fill(full <= SILENT * full.max(), torch.nan)
            centres[dim] = shares.cpu()
        if all(centre.isnan().all() for centre in centres.values()):
            return Response(shape, self.images, "silent")
        return Response(shape, self.images, "", self.batch, 0, centres)


def _difference(base: Tensor, changed: Tensor) -> Tensor:
    # Masked scores are -inf in both outputs.
    return (changed.float() - base.float()).nan_to_num(0.0, 0.0, 0.0)


def _marginal(energy: Tensor, dim: int, *, rows: bool = False) -> Tensor:
    others = [i for i in range(int(rows), energy.ndim) if i != dim]
    return energy.sum(others) if others else energy
