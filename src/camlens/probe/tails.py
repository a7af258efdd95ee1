"""Runs the part of a model that follows a layer, on changed activations of that layer.

The part before the layer runs on an empty batch, which costs no arithmetic, and the layer's output
is then replaced. A model that stores the number of images for later receives shapes without values
instead (torch's fake tensors). If the scores depend on the images by another path, or the part
before the layer needs values, the whole model runs. This works for every model, but costs a
forward pass for each changed image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ..intercept import Interception
from ..layouts import read
from .inputs import follow
from .passes import Pass, Site
from .probe import Probe

#: Largest size in bytes of the changed activations in a batch.
_BYTES = 64 * 2**20
_MOST_ROWS = 256

#: Scores of unchanged activations must agree with the model's to this fraction of the largest.
_AGREES = 1e-3


class Tail:
    """The part of a model that follows a layer, run on changed activations of that layer.

    Args:
        probe: the call's model, images and targets.
        site: the layer, with its layout.
        whole: a pass of the probe's images that captured the site.
        batch: dimension of the images in the layer's output.

    Attributes:
        activations: (N, C, *grid), the layer's output for the unchanged images.
        before: input of the part before the layer: ``"none"`` (an empty batch), ``"shapes"``
            (tensors without values) or ``"images"``.

    Raises:
        ValueError: the layer's output does not have one row for each image, or unchanged
            activations give different scores than the model.
    """

    def __init__(self, probe: Probe, site: Site, whole: Pass, *, batch: int = 0) -> None:
        self.probe, self.site = probe, site
        self._batch = batch
        self._output = whole.captured[site.name].detach().movedim(batch, 0)
        self.activations = whole.activations()[whole.sites.index(site)].detach()
        self._places, self._whole = self._measured_places()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.before = "none"
        for before in ("none", "shapes", "images"):
            self.before = before
            if self._agrees():
                break
        else:
            raise ValueError(
                f"with layer {site.name!r}'s own output put back, the model returns other "
                "scores: it also uses that layer's output elsewhere, such as in a hook; choose "
                "another layer"
            )

    def passes(
        self,
        make: Callable[[slice], Tensor],
        source: Tensor,
        *,
        start: Literal["sites"] | None = None,
        mode: Interception | None = None,
    ) -> Iterator[Pass]:
        """Run the model on M changed activations, in batches.

        If the model fails on a batch and there is one image, it runs on one activation at a time.

        Args:
            make: returns the activations of a slice of the M, (m, C, *grid).
            source: (M,) int64, the image that each was made from. It is scored for that image's
                classes, with that image's further inputs.
            start: ``"sites"`` to record gradients from the layer on; None: no gradients.
            mode: function mode that intercepts the model's calls.

        Yields:
            The pass of each batch; its ``scores`` are (m, K).
        """
        first, step = 0, self.rows
        while first < len(source):
            rows = slice(first, first + step)
            try:
                part = self._run(make(rows), source[rows], start, mode)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # a model may take single images only, and fail in any way
                if step == 1 or len(self.activations) > 1:
                    raise
                step = 1
                continue
            yield part
            first = rows.stop

    def scores(self, make: Callable[[slice], Tensor], source: Tensor) -> Tensor:
        """Return the (M, K) scores of M changed activations, without gradients."""
        with torch.no_grad():
            return torch.cat([part.scores for part in self.passes(make, source)])

    def mean_gradients(self, make: Callable[[slice], Tensor], count: int) -> Tensor:
        """Return the mean gradient of the scores over ``count`` changed activations of each image.

        Args:
            make: returns the activations of a slice of the N * count, (m, C, *grid); those of an
                image are consecutive.
            count: number of changed activations of each image.

        Returns:
            (N, K, C, *grid), float32 or wider.
        """
        n = len(self.activations)
        source = torch.arange(n, device=self.activations.device).repeat_interleave(count)
        total: Tensor | None = None
        first = 0
        for part in self.passes(make, source, start="sites"):
            rows = slice(first, first + len(part.scores))
            chunks = part.chunks()
            for chunk in chunks:  # one at a time, as gradients of a thousand classes are large
                (some,) = part.gradients(chunk, keep_graph=chunk is not chunks[-1])
                some = some.to(torch.promote_types(some.dtype, torch.float32))
                if total is None:
                    total = some.new_zeros(n, part.scores.shape[1], *some.shape[2:])
                total[:, chunk].index_add_(0, source[rows], some)
            first = rows.stop
        if total is None:
            raise RuntimeError("expected at least one gradient, got none")
        return total / count

    @property
    def rows(self) -> int:
        """Number of changed activations in a batch."""
        each = self._output[0].numel() * self._output.element_size()
        if self.before == "images":
            each += self.probe.images[0].numel() * self.probe.images.element_size()
        return max(1, min(_MOST_ROWS, _BYTES // each))

    def _run(
        self,
        maps: Tensor,
        source: Tensor,
        start: Literal["sites"] | None,
        mode: Interception | None = None,
    ) -> Pass:
        probe = self.probe
        targets = probe.fixed_rows(source)
        n = len(probe.images)
        inputs, keywords = follow(probe.inputs, probe.keywords, source, probe.followers(), n)
        part = Probe(probe.model, self._images(source), inputs, keywords, targets)
        written = self._written(maps, source)
        return part.run(
            sites=[self.site], start=start, replaced=written, batch=self._batch, mode=mode
        )

    def _images(self, source: Tensor) -> Tensor:
        images = self.probe.images
        if self.before == "images":
            return images[source.to(images.device)]
        if self.before == "none":
            return images[:0]
        shape = len(source), *images.shape[1:]
        with self._mode:
            return torch.empty(shape, dtype=images.dtype, device=images.device)

    def _written(self, maps: Tensor, source: Tensor) -> Tensor:
        """Return the layer's output with the changed activations written into it."""
        if self._whole:  # the activations are the output, in order
            output = maps.reshape(len(maps), *self._output.shape[1:]).to(self._output.dtype)
            return output.movedim(0, self._batch)
        output = self._output[source.to(self._output.device)].clone()
        rows = output.view(len(output), -1)
        rows[:, self._places] = maps.flatten(1).to(rows.dtype)
        return output.movedim(0, self._batch)

    def _measured_places(self) -> tuple[Tensor, bool]:
        """Return the index of each activation in a row of the output, (C * cells,) int64.

        Also return whether these are the whole row in order. Both are read from the device at
        once, since a read synchronises with an accelerator.
        """
        self._output = self._output.contiguous()
        n = len(self.probe.images)
        numbers = torch.arange(self._output.numel(), device=self._output.device)
        rows = numbers.view(self._output.shape).movedim(0, self._batch)
        read_numbers = read(rows, self.site.layout, self.site.name, n)
        places = read_numbers.flatten(1)
        row = self._output.numel() // len(self._output)
        first = torch.arange(n, device=places.device).unsqueeze(1) * row
        alike = in_order = False
        if len(self._output) == n:
            every = torch.arange(places.shape[1], device=places.device)
            told = (places - first == places[:1]).all() + 2 * (places[0] == every).all()
            number = int(told.item())
            alike, in_order = number % 2 == 1, number >= 2
        if not alike:
            raise ValueError(
                f"the output of layer {self.site.name!r} holds several rows for each image, such "
                "as windows or proposals, which cannot be changed one image at a time: choose "
                "another layer"
            )
        return places[0], in_order and places.shape[1] == row

    def _agrees(self) -> bool:
        """Return whether unchanged activations give the scores of the unchanged images."""
        expected = self.probe.unchanged().scores.detach()
        try:
            with torch.no_grad():
                every = torch.arange(len(expected), device=self.activations.device)
                parts = [p.scores for p in self.passes(self.activations.__getitem__, every)]
                if any(isinstance(part, FakeTensor) for part in parts):
                    return False
                scores = torch.cat(parts)
        except Exception:
            if self.before != "images":  # the part before the layer needs images, or values
                return False
            raise
        largest = expected.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
        return bool((scores - expected).abs().amax() <= _AGREES * largest)
