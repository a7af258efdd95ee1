"""Perturbation methods, which score changed images without gradients: occlusion and RISE."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from ..baselines import Baseline, baseline_images, check_baseline
from ..layers.measurement_cache import inputs_key
from ..methods import path, perturbation
from ..options import each_axis, integer
from ..probe import Probe
from .base import Attribution, Explainer, at_least_float32, without_autocast
from .changed_scores import read_all

__all__ = ["RISE", "Occlusion", "Perturbation"]


class Perturbation(Explainer):
    """Base class of methods that score many changed images, without gradients.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        batch_size: number of changed images in a batch.
        progress: whether to show a progress bar. None: if standard error is a terminal.
    """

    def __init__(
        self, model: nn.Module, *, batch_size: int = 32, progress: bool | None = None
    ) -> None:
        super().__init__(model)
        self.batch_size = integer("batch_size", batch_size)
        self._progress = progress
        #: Shapes of inputs for which a check showed that scores do not depend on other images.
        self._measured: set[Hashable] = set()

    def scores(self, probe: Probe, make: Callable[[slice], Tensor], source: Tensor) -> Tensor:
        """Return the (M, K) scores of M changed images, with a progress bar.

        Args:
            probe: the call's model, images and targets.
            make: computes changed images, see :meth:`camlens.probe.Probe.selections`.
            source: (M,) int64, the image that each was made from.
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
            check=callable(probe.targets) or shape not in self._measured,  # callables may mix rows
        )
        if not callable(probe.targets):
            self._measured.add(shape)
        return scores


@final
class Occlusion(Perturbation):
    r"""Occlusion (Zeiler and Fergus 2013): the score's mean drop when a window covers the pixel.

    .. math:: A_p = \frac{1}{|\{w \ni p\}|} \sum_{w \ni p} \big(f(x) - f(x_w)\big)

    f is the explained score, x the image and :math:`x_w` the image with window w replaced by the
    baseline; the mean is over the windows that cover pixel p. ``gradients`` (N, K, 1, *size) is A,
    in the unit of the score; ``raw`` (N, K, *size) is its positive part. To explain a probability
    instead of a logit, pass ``targets=lambda out: out.softmax(dim=1)[:, c]``.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014
    (arXiv:1311.2901), section 4.2. The paper draws the score at the window's position; camlens, as
    captum, gives each pixel the mean over the windows that cover it. As a function of tensors:
    :func:`camlens.methods.perturbation.occlusion`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        window: side lengths of the window in pixels, one number for all axes or one for each. None:
            a seventh of each side of the image.
        stride: distance between neighbouring windows in pixels, at most ``window``. None: half a
            window. The last window of each axis is flush with the border.
        baseline: the values inside a window: a number, a tensor that broadcasts to the images, or a
            function of the images, such as a blur. 0 is the mean colour of normalised images.
        batch_size: number of changed images in a batch.
        progress: whether to show a progress bar. None: if standard error is a terminal.

    Raises:
        ValueError: when called, if the window or the stride does not fit the images.

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
        with without_autocast(images):
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
    r"""RISE (Petsiuk et al. 2018): the mean score of randomly masked images that show the pixel.

    .. math:: S_p = \frac{1}{M\, E[m]} \sum_{i=1}^{M} f(x \odot m_i)\, m_{ip}

    f is the explained score, x the image and :math:`m_i` one of M random masks, 1 where the image
    is shown. ``gradients`` (N, K, 1, *size) is S, ``raw`` (N, K, *size) its positive part, and
    ``measures["standard_error"]`` (N, K, *size) the Monte-Carlo standard error of each pixel.

    The paper explains probabilities: pass ``targets=lambda out: out.softmax(dim=1)[:, [c]]`` to
    reproduce it. A logit has an arbitrary zero: with ``center=True`` the map shows how much a
    visible pixel raises the logit.

    Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", BMVC 2018 (arXiv:1806.07421), equation 6. As a function of tensors:
    :func:`camlens.methods.perturbation.rise`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        masks: number of masks; the paper uses 4,000 for VGG-16 and 8,000 for ResNet-50. All images
            and calls share the same masks.
        grid: cells of the masks along each axis.
        keep: the probability that a cell shows the image.
        center: whether to subtract the mean score of the masked images from each score. A value of
            zero then means that the pixel makes no difference, and the standard error is smaller.
        baseline: the values where the image is hidden: a number, a tensor that broadcasts to the
            images, or a function of the images. 0 is the mean colour of normalised images.
        seed: seed of the masks.
        batch_size: number of masked images in a batch.
        progress: whether to show a progress bar. None: if standard error is a terminal.

    Raises:
        ValueError: an option is out of range.

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
        """Score the masked images, then draw the same masks again and weight them by the scores."""
        baselines = baseline_images(self.baseline, probe.images)
        cells, draw = self._draws(probe)
        maps, errors = [], []
        for row in range(len(probe.images)):
            image, baseline = probe.images[row : row + 1], baselines[row : row + 1]
            source = torch.full((self.masks,), row, device=image.device)

            def make(rows: slice, image: Tensor = image, baseline: Tensor = baseline) -> Tensor:
                return torch.lerp(baseline, image, draw(rows).unsqueeze(1).to(image.dtype))

            scores = self.scores(probe, make, source)
            with without_autocast(image):
                mean, error = perturbation.rise(self._sums(scores, draw), self.masks, self.keep)
            maps.append(mean)
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
        """Return the masks' grid, and a function that draws some of the masks.

        Memory holds only the cells and shifts of all masks, a few dozen bytes each.
        """
        size, device = probe.size, probe.images.device
        cells = tuple(map(min, each_axis("grid", self.grid, size), size))
        tables = [perturbation.upsampling_table(*axis) for axis in zip(size, cells, strict=True)]
        # On the CPU, so that a seed gives the same masks on every device.
        generator = torch.Generator("cpu").manual_seed(self.seed)
        shown = (
            torch.rand(self.masks, *cells, generator=generator, device="cpu", dtype=torch.float32)
            < self.keep
        )
        shifts = torch.stack(
            [
                torch.randint(len(t), (self.masks,), generator=generator, device="cpu")
                for t in tables
            ],
            dim=1,
        )
        tables = [table.to(device) for table in tables]
        shown, shifts = shown.to(device), shifts.to(device)

        def draw(rows: slice) -> Tensor:
            with without_autocast(probe.images):
                return perturbation.smooth_masks(shown[rows].float(), shifts[rows], tables)

        return cells, draw
