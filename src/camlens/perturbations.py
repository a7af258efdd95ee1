"""Perturbations: masks in, scores out, and no gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from .baselines import Baseline, baseline_images, check_baseline
from .changed_scores import read_all
from .explainers import Attribution, Explainer, at_least_float32
from .layers.measured import inputs_key
from .methods import path, perturbation
from .options import each_axis, integer
from .probe import Probe

__all__ = ["RISE", "Occlusion", "Perturbation"]


class Perturbation(Explainer):
    """The family of changed images: scores of many of them, without gradients.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        batch_size: how many changed images run at once.
        progress: whether a progress bar is shown. None: where standard error is a terminal.
    """

    def __init__(
        self, model: nn.Module, *, batch_size: int = 32, progress: bool | None = None
    ) -> None:
        super().__init__(model)
        self.batch_size = integer("batch_size", batch_size)
        self._progress = progress
        #: Shapes of inputs for which an image's scores were seen not to depend on other images.
        self._measured: set[Hashable] = set()

    def scores(self, probe: Probe, make: Callable[[slice], Tensor], source: Tensor) -> Tensor:
        """Return the (M, K) scores of M changed images, with a progress bar.

        Args:
            probe: of the call.
            make: as :meth:`camlens.probe.Probe.selections` takes it.
            source: as :meth:`camlens.probe.Probe.selections` takes it.
        """
        shape = inputs_key(probe)
        scores = read_all(
            probe,
            make,
            source,
            lambda selection: selection.scores,
            batch_size=self.batch_size,
            label=type(self).__name__,
            progress=self._progress,
            check=callable(probe.targets) or shape not in self._measured,  # a callable may mix them
        )
        if not callable(probe.targets):
            self._measured.add(shape)
        return scores


@final
class Occlusion(Perturbation):
    """Occlusion (Zeiler and Fergus 2013), see :func:`camlens.methods.perturbation.occlusion`.

    ``gradients`` (N, K, 1, *size) is how far the score falls when a window covers the pixel, the
    mean over the windows that do, in the unit of the score; ``raw`` is its positive part. The
    score that ``targets`` select falls; for that of a probability give
    ``targets=lambda out: out.softmax(dim=1)[:, c]``.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        window: pixels of the window's sides, one number for all axes or one for each. None: a
            seventh of each side of the image.
        stride: pixels from one window to the next, at most ``window``. None: half a window. The
            last window of each axis is flush with the border.
        baseline: what replaces a window: a number, a tensor that broadcasts to the images, or a
            function of the images, such as a blur. 0 is the mean colour of normalised images.
        batch_size: how many changed images run at once.
        progress: whether a progress bar is shown. None: where standard error is a terminal.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False)).eval()
        >>> _ = nn.init.ones_(model[1].weight).requires_grad_(False)
        >>> images = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Occlusion(model, window=(1, 2), stride=(1, 2))(images).raw.tolist()
        [[[[3.0, 3.0, 7.0, 7.0]]]]
    """

    needs = "a baseline"
    cost = "F for each window"

    def __init__(
        self,
        model: nn.Module,
        *,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        baseline: Baseline = 0.0,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> None:
        super().__init__(model, batch_size=batch_size, progress=progress)
        self.window = window
        self.stride = stride
        self.baseline = check_baseline(baseline)

    def attribute(self, probe: Probe) -> Attribution:
        """Score each image with each window replaced.

        Raises:
            ValueError: the window or the stride does not fit the images.
        """
        images, n = probe.images, len(probe.images)
        covers = [cover.to(images.device) for cover in self._covers(probe.size)]
        counts = [len(cover) for cover in covers]
        each = math.prod(counts)
        baseline = baseline_images(self.baseline, images)
        source = torch.arange(n, device=images.device).repeat_interleave(each)
        places = torch.arange(n * each, device=images.device) % each

        def make(rows: slice) -> Tensor:
            inside = perturbation.covered(covers, places[rows]).unsqueeze(1)
            return baseline[source[rows]].where(inside, images[source[rows]])

        unchanged = at_least_float32(probe.unchanged().scores)
        scores = self.scores(probe, make, source).unflatten(0, (n, each))
        drops = (unchanged.unsqueeze(1) - scores).mT.unflatten(2, counts)
        with exact(images):
            falls = perturbation.occlusion(drops, covers).unsqueeze(2)
        return Attribution(
            raw=path.positive_evidence(falls),
            grid=tuple(counts),
            gradients=falls,
            reduction=path.positive_evidence,
        )

    def _covers(self, size: tuple[int, ...]) -> list[Tensor]:
        default = [max(1, round(length / 7)) for length in size]
        window = default if self.window is None else each_axis("window", self.window, size)
        half = [-(-pixels // 2) for pixels in window]
        stride = half if self.stride is None else each_axis("stride", self.stride, size)
        if any(pixels > length for pixels, length in zip(window, size, strict=True)):
            raise ValueError(f"expected a window within the images' size {size}, got {window}")
        if any(step > pixels for step, pixels in zip(stride, window, strict=True)):
            raise ValueError(
                f"expected a stride of at most the window's {window}, so that each pixel is "
                f"covered, got {stride}"
            )
        axes = zip(size, window, stride, strict=True)
        return [perturbation.window_covers(*axis) for axis in axes]


@final
class RISE(Perturbation):
    """RISE (Petsiuk et al. 2018), see :func:`camlens.methods.perturbation.rise`.

    ``gradients`` (N, K, 1, *size) is the map, ``raw`` its positive part, and
    ``measures["standard_error"]`` (N, K, *size) how far chance has moved each pixel.

    What is explained is the score that ``targets`` select. The paper's are probabilities: with
    ``targets=lambda out: out.softmax(dim=1)[:, [c]]`` the map is the paper's. A logit has no zero:
    with ``center=True`` its map is one of how far showing a pixel raises it.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        masks: how many; the paper has 4,000 for VGG-16 and 8,000 for ResNet-50. The masks are the
            same for each image and call.
        grid: cells of the masks along each axis.
        keep: the probability that a cell shows the image.
        center: whether the mean score of the masked images is subtracted from each. Zero is then a
            pixel that makes no difference, and the standard error is smaller.
        baseline: what is seen where the image is hidden, as :class:`Occlusion` takes it.
        seed: of the masks.
        batch_size: how many masked images run at once.
        progress: whether a progress bar is shown. None: where standard error is a terminal.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
        >>> explanation = RISE(model, masks=50, center=True)(torch.rand(2, 3, 8, 8))
        >>> explanation.raw.shape, explanation.measures["standard_error"].shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    needs = "a baseline"
    cost = "F for each mask"

    def __init__(
        self,
        model: nn.Module,
        *,
        masks: int = 4000,
        grid: int | Sequence[int] = 7,
        keep: float = 0.5,
        center: bool = False,
        baseline: Baseline = 0.0,
        seed: int = 0,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> None:
        super().__init__(model, batch_size=batch_size, progress=progress)
        if not 0 < keep < 1:
            raise ValueError(f"expected keep as a probability between 0 and 1, got {keep!r}")
        self.masks = integer("masks", masks, least=2)
        self.grid, self.keep, self.center = grid, float(keep), center
        self.baseline = check_baseline(baseline)
        self.seed = seed

    def attribute(self, probe: Probe) -> Attribution:
        """Score masked images, then make the masks once more to weigh them by their scores."""
        baselines = baseline_images(self.baseline, probe.images)
        cells, draw = self._draws(probe)
        maps, errors = [], []
        for row in range(len(probe.images)):
            image, baseline = probe.images[row : row + 1], baselines[row : row + 1]
            source = torch.full((self.masks,), row, device=image.device)

            def make(rows: slice, image: Tensor = image, baseline: Tensor = baseline) -> Tensor:
                return torch.lerp(baseline, image, draw(rows).unsqueeze(1).to(image.dtype))

            scores = self.scores(probe, make, source)
            with exact(image):
                kept, error = perturbation.rise(self._sums(scores, draw), self.masks, self.keep)
            maps.append(kept)
            errors.append(error)
        signed = torch.stack(maps).unsqueeze(2)
        return Attribution(
            raw=path.positive_evidence(signed),
            grid=cells,
            gradients=signed,
            reduction=path.positive_evidence,
            measures={"standard_error": torch.stack(errors)},
        )

    def _sums(self, scores: Tensor, draw: Callable[[slice], Tensor]) -> Tensor:
        scores = scores - scores.mean(dim=0) if self.center else scores
        parts = (
            perturbation.rise_sums(
                scores[rows], draw(rows).to(scores.dtype), self.keep, center=self.center
            )
            for first in range(0, self.masks, self.batch_size)
            for rows in (slice(first, first + self.batch_size),)
        )
        return functools.reduce(Tensor.add_, parts)

    def _draws(self, probe: Probe) -> tuple[tuple[int, ...], Callable[[slice], Tensor]]:
        """Return the masks' grid, and what makes some of the masks.

        Only the cells and shifts of all masks are kept, some tens of bytes each.
        """
        size, device = probe.size, probe.images.device
        cells = tuple(map(min, each_axis("grid", self.grid, size), size))
        tables = [perturbation.upsampling_table(*axis) for axis in zip(size, cells, strict=True)]
        # On the CPU, so that a seed means the same masks on every device.
        generator = torch.Generator().manual_seed(self.seed)
        shown = torch.rand(self.masks, *cells, generator=generator) < self.keep
        shifts = torch.stack(
            [torch.randint(len(t), (self.masks,), generator=generator) for t in tables], dim=1
        )
        tables = [table.to(device) for table in tables]
        shown, shifts = shown.to(device), shifts.to(device)

        def draw(rows: slice) -> Tensor:
            with exact(probe.images):
                return perturbation.smooth_masks(shown[rows].float(), shifts[rows], tables)

        return cells, draw


def exact(images: Tensor) -> torch.autocast:
    """Return a context in which sums over many passes are not made in half precision."""
    return torch.autocast(images.device.type, enabled=False)
