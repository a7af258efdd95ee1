"""Path methods, which average gradients between a baseline and the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from torch import Tensor, nn

from ..baselines import Baseline, baseline_images, check_baseline
from ..methods import path, perturbation
from ..options import integer
from ..probe import Probe
from ..progress import progress_bar
from .base import Attribution, Explainer, at_least_float32
from .image_gradients import image_gradients

__all__ = ["ExpectedGradients", "IntegratedGradients", "PathAttribution"]


class PathAttribution(Explainer):
    """Base class of path methods, which average gradients between a baseline and the image.

    ``gradients`` (N, K, C, *size) is the signed contribution of each value of the image to the
    score; ``raw`` (N, K, *size) is the positive part of its sum over the channels.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: see :class:`Explainer`; the graphs of all steps then stay in memory.
        progress: whether to show a progress bar. None: if standard error is a terminal.
    """

    def __init__(
        self, model: nn.Module, *, create_graph: bool = False, progress: bool | None = None
    ) -> None:
        super().__init__(model, create_graph=create_graph)
        self._progress = progress

    def gradients_at(self, probe: Probe, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return (n, K, C, *size) gradients at changed images.

        Args:
            probe: the call's model, images and targets.
            points: (n, C, *size), the changed images.
            rows: (n,) int64, the image that each point belongs to; None: all images in order.
        """
        if rows is None:
            traced = probe.run(points, start="images")
        else:
            traced = probe.changed(points, rows).run(start="images")
        return image_gradients(traced, create_graph=self.create_graph)


@final
class IntegratedGradients(PathAttribution):
    r"""Integrated gradients (Sundararajan et al. 2017): mean gradient on a line from a baseline.

    .. math:: A_i = (x_i - b_i) \int_0^1 \frac{\partial f}{\partial x_i}
              \big(b + \alpha (x - b)\big)\, d\alpha

    f is the explained score, x the image and b the baseline. ``gradients`` (N, K, C, *size) is A;
    over an image it adds up to f(x) - f(b). ``measures["completeness_gap"]`` (N, K) is the absolute
    difference between the two, which is not zero because the integral is a sum over finitely many
    points. ``raw`` (N, K, *size) is the positive part of the sum of ``gradients`` over the
    channels.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017
    (arXiv:1703.01365), equation 1, summed at the midpoints of equal steps. As a function of
    tensors: :func:`camlens.methods.path.integrated_gradients`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        steps: number of points on the line; each takes a forward and a backward pass.
        baseline: start of the line: a number, a tensor that broadcasts to the images, or a function
            of the images. 0 is the mean colour of normalised images, not black.
        tolerance: the largest acceptable completeness gap, in the unit of the score. If the gap is
            larger, the number of steps triples, reusing those already taken, for the images and
            targets above the tolerance. None: take ``steps`` steps, whatever the gap.
        max_steps: the largest number of steps.
        create_graph: see :class:`Explainer`; the graphs of all steps then stay in memory.
        progress: whether to show a progress bar. None: if standard error is a terminal.

    Raises:
        ValueError: an option is out of range; when called, if the gap is above the tolerance with
            as many steps as ``max_steps`` allows.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> _ = model[1].weight.requires_grad_(False).copy_(torch.tensor([[2.0, -1.0]]))
        >>> explanation = IntegratedGradients(model)(torch.tensor([[[3.0, 5.0]]]))
        >>> explanation.gradients.tolist(), explanation.raw.tolist()
        ([[[[6.0, -5.0]]]], [[[6.0, 0.0]]])
    """

    needs = "a baseline"
    cost = "2 F for each step"

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int = 32,
        baseline: Baseline = 0.0,
        tolerance: float | None = None,
        max_steps: int = 1000,
        create_graph: bool = False,
        progress: bool | None = None,
    ) -> None:
        super().__init__(model, create_graph=create_graph, progress=progress)
        if not isinstance(steps, int) or not 1 <= steps <= max_steps:
            raise ValueError(f"expected steps from 1 to max_steps={max_steps}, got {steps!r}")
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"expected a tolerance above 0, got {tolerance!r}")
        self.steps, self.max_steps = steps, max_steps
        self.baseline = check_baseline(baseline)
        self.tolerance = tolerance

    def attribute(self, probe: Probe) -> Attribution:
        """Average the gradients on the line, and compare their sum with the scores' difference."""
        images, steps = probe.images, self.steps
        baseline = baseline_images(self.baseline, images)
        way = at_least_float32(images) - baseline
        scores = [probe.unchanged().scores, probe.run(baseline, start=None).scores]
        end, start = (at_least_float32(part.detach()) for part in scores)
        total = self._sum(probe, baseline, path.midpoints(steps))
        gradients = path.integrated_gradients(total, steps, way)
        gap = path.completeness_gap(gradients, end - start)
        while self.tolerance is not None and bool((gap > self.tolerance).any()):
            if 3 * steps > self.max_steps:
                raise ValueError(self._unreached(gap, steps))
            above = gap > self.tolerance
            rows = above.any(dim=1).nonzero().flatten()
            more = self._sum(probe, baseline, path.finer_midpoints(steps), rows)
            total = total.index_add(0, rows, more)
            steps *= 3
            finer = path.integrated_gradients(total, steps, way)
            gradients = finer.where(above.view(*above.shape, *[1] * (way.ndim - 1)), gradients)
            gap = path.completeness_gap(gradients, end - start)
        return Attribution(
            raw=path.positive_evidence(gradients),
            gradients=gradients,
            reduction=path.positive_evidence,
            measures={"completeness_gap": gap.detach()},
        )

    def _sum(
        self, probe: Probe, baseline: Tensor, alphas: Iterable[float], rows: Tensor | None = None
    ) -> Tensor:
        """Return the sum of the gradients at the points ``alphas`` of the line."""
        images = probe.images
        if rows is not None:
            baseline, images = baseline[rows], images[rows]
        alphas, total = list(alphas), None
        with progress_bar(len(alphas), type(self).__name__, shown=self._progress) as advance:
            for alpha in alphas:
                part = self.gradients_at(probe, baseline.lerp(images, alpha), rows)
                total = part if total is None else total + part
                advance(1)
        if total is None:
            raise RuntimeError("expected a path with at least one point, got none")
        return total

    def _unreached(self, gap: Tensor, steps: int) -> str:
        rows = (gap > (self.tolerance or 0)).any(dim=1).nonzero().flatten().tolist()
        return (
            f"with {steps} steps the attributions of the images {rows[:5]} differ by up to "
            f"{gap.max().item():.3g} from the difference of the scores, and the tolerance is "
            f"{self.tolerance}: allow more than max_steps={self.max_steps}, or a larger tolerance"
        )


@final
class ExpectedGradients(PathAttribution):
    r"""Expected gradients (Erion et al. 2019): integrated gradients averaged over baselines.

    .. math:: A_i = E_{b,\, \alpha}\Big[(x_i - b_i)\, \frac{\partial f}{\partial x_i}
              \big(b + \alpha (x - b)\big)\Big]

    f is the explained score, x the image, b one of the given baselines and alpha uniform in [0, 1].
    The mean is over ``samples`` random pairs, the same for all images and calls
    (:func:`camlens.methods.path.expected_draws`). ``gradients`` (N, K, C, *size) is A, ``raw``
    (N, K, *size) the positive part of its sum over the channels, and ``measures["standard_error"]``
    (N, K, *size) the standard error of that sum for independent draws. The actual draws are
    stratified, which makes the error no larger.

    Source: Erion et al., "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients", 2019 (arXiv:1906.10670).

    Args:
        model: any module whose output, or part of it, is a score for each image.
        baselines: (B, C, *size), such as images of the training set; each dimension but the first
            may be 1.
        samples: number of points; each takes a forward and a backward pass.
        seed: seed of the draws.
        create_graph: see :class:`Explainer`; the graphs of all samples then stay in memory.
        progress: whether to show a progress bar. None: if standard error is a terminal.

    Raises:
        TypeError: the baselines are not a floating-point tensor.
        ValueError: the baselines are not (B, C, *size), or ``samples`` is less than 2.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> _ = model[1].weight.requires_grad_(False).copy_(torch.tensor([[2.0, -1.0]]))
        >>> baselines = torch.tensor([[[0.0, 0.0]], [[2.0, 2.0]]])
        >>> ExpectedGradients(model, baselines)(torch.tensor([[[3.0, 5.0]]])).gradients.tolist()
        [[[[4.0, -4.0]]]]
    """

    needs = "baselines"
    cost = "2 F for each sample"

    def __init__(
        self,
        model: nn.Module,
        baselines: Tensor,
        *,
        samples: int = 64,
        seed: int = 0,
        create_graph: bool = False,
        progress: bool | None = None,
    ) -> None:
        super().__init__(model, create_graph=create_graph, progress=progress)
        if not isinstance(baselines, Tensor) or not baselines.is_floating_point():
            raise TypeError("expected baselines as a floating-point tensor (B, C, *size)")
        if baselines.ndim < 3 or len(baselines) == 0:
            raise ValueError(f"expected baselines as (B, C, *size), got {tuple(baselines.shape)}")
        self.baselines = baselines
        self.samples = integer("samples", samples, least=2)
        self.seed = seed

    def attribute(self, probe: Probe) -> Attribution:
        """Average over samples the gradient times the difference from the sample's baseline."""
        images, count = probe.images, self.samples
        draws = path.expected_draws(count, len(self.baselines), self.seed)
        total = squares = None
        with progress_bar(count, type(self).__name__, shown=self._progress) as advance:
            for pick, alpha in draws:
                baseline = baseline_images(self.baselines[pick], images)
                part = self.gradients_at(probe, baseline.lerp(images, alpha))
                part = part * (at_least_float32(images) - baseline).unsqueeze(1)
                square = part.detach().sum(dim=2) ** 2
                total = part if total is None else total + part
                squares = square if squares is None else squares + square
                advance(1)
        if total is None or squares is None:
            raise RuntimeError("expected at least one sample, got none")
        _, error = perturbation.mean_and_error(total.detach().sum(dim=2), squares, count)
        gradients = total / count
        return Attribution(
            raw=path.positive_evidence(gradients),
            gradients=gradients,
            reduction=path.positive_evidence,
            measures={"standard_error": error},
        )
