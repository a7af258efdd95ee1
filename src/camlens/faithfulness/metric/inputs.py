"""The inputs of every metric: a model, images, maps and options, checked once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from ...explainers.base import Explainer
from ...explainers.changed_scores import read_all
from ...explanation import Explanation
from ...methods import gradient, path
from ...model import check_batched, check_images, check_keywords, check_mode, check_model
from ...probe import Probe
from ...targets import Selection, Targets, probabilities
from .checks import check_same, checked_maps, explained_targets
from .floors import FLOORS
from .options import CheckedOptions, MetricOptions
from .result import Better, MetricResult
from .shared_passes import SharedPasses

#: Image seeds for consecutive values of ``seed`` are this far apart; torch uses 32 bits on a CPU.
_IMAGES = 1_000_003

#: Methods whose ``gradients`` are derivatives; used if the values alone cannot tell.
_DERIVATIVES = ("Saliency", "Deconvnet", "GuidedBackprop", "GuidedGradCAM", "SmoothGrad")


class MetricInputs:
    """Checked inputs of a metric: maps of N images and K targets, and the model they explain.

    Args:
        metric: the metric's name.
        model: in evaluation mode; None for metrics that do not run it.
        images: (N, C, *size), as the model takes them.
        explanation: an explanation of these images, or maps (N, K, *size) from any source, where
            larger values mark more important pixels. For an explanation, its heatmaps are used.
        options: see :class:`MetricOptions`.

    Attributes:
        maps: (N, K, *size) float32.
        unchanged: (N, K) float32: the tracked scores of the unchanged images.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes or numbers of targets do not match, maps or images contain NaN or
            infinity, the explanation is of other images, another model or other targets, or the
            model has no probability to track.
    """

    def __init__(
        self,
        metric: str,
        model: nn.Module | None,
        images: Tensor,
        explanation: Explanation | Tensor,
        **options: Unpack[MetricOptions],
    ) -> None:
        self.metric, self.images = metric, check_images(images)
        self.options = CheckedOptions(**options)
        self.shared = self.options.shared or SharedPasses()
        self.explanation = explanation if isinstance(explanation, Explanation) else None
        self.maps = checked_maps(explanation, images)
        first = self.options.seed * _IMAGES + self.options.first
        #: (N,) int64: a seed for each image.
        self.seeds = torch.arange(len(images), device="cpu") + first
        if model is not None:
            self._bind(model)

    def _bind(self, model: nn.Module) -> None:
        """Check the model and score the unchanged images."""
        module, options = check_model(model), self.options
        check_batched(model, self.images)
        check_mode(module)
        check_keywords(module, options.keywords)
        targets = explained_targets(self.explanation, options.targets)
        self.probe = self.shared.once(
            "probe",
            [module, self.images, targets, tuple(options.inputs), *options.keywords.items()],
            lambda: Probe(module, self.images, options.inputs, options.keywords, targets),
        )
        with torch.no_grad():
            selection = self.probe.unchanged()
        selection.check(selection.scores.unsqueeze(-1))
        if selection.scores.shape[1] != self.maps.shape[1]:
            raise ValueError(
                f"expected a map for each of {selection.scores.shape[1]} targets, got maps of "
                f"shape {tuple(self.maps.shape)}"
            )
        if self.explanation is not None:
            check_same(self.explanation, selection)
        self.targets = selection.classes
        self.unchanged = self.followed(selection)
        self._checked = False

    def followed(self, selection: Selection) -> Tensor:
        """Return the tracked scores of changed images, (m, K): probabilities or raw scores.

        Raises:
            ValueError: softmax is not defined for a model with one output.
        """
        activation = self.options.activation
        if not selection.class_count or activation == "none" or selection.logits is None:
            return selection.scores.detach().float()
        if selection.class_count == 1 and activation == "softmax":
            raise ValueError(
                "the model has one output, for which softmax is not defined: pass "
                'activation="sigmoid", or "none" to track its score'
            )
        chances = probabilities(selection.logits.detach(), activation)
        return chances.gather(1, selection.classes)

    @torch.no_grad()
    def scores(self, make: Callable[[slice], Tensor], source: Tensor) -> Tensor:
        """Return (M, K): the tracked scores of M changed images, made one batch at a time.

        Args:
            make: returns the changed images (m, C, *size) of a slice of the M.
            source: (M,) int64: the index of the image that each was made from.
        """
        values = read_all(
            self.probe,
            make,
            source,
            self.followed,
            batch_size=self.options.batch_size,
            label=self.metric,
            progress=self.options.progress,
            check=not self._checked,
        )
        self._checked = True
        if not values.isfinite().all():
            raise ValueError(
                f"the scores of images that {self.metric} changed are not finite: check the "
                "model's weights"
            )
        return values

    @torch.no_grad()
    def attributions(self, baseline: Tensor) -> Tensor:
        """Return (N, K, *size): how much of the score the explanation attributes to each pixel.

        Maps, and heatmaps, which are not negative, are used as they are. For an explanation with
        ``gradients``, attributions are summed over the channels; derivatives, such as those of
        :class:`camlens.Saliency`, are first multiplied by the difference of the image and the
        baseline. The explanation's map tells the two apart: it is the largest absolute value of
        derivatives, but the positive part of the sum of attributions. If both are equal, as for one
        channel without negative values, the method's name decides.

        Args:
            baseline: (N, C, *size).
        """
        explanation = self.explanation
        if explanation is None or explanation.gradients is None:
            return self.maps
        signed = explanation.gradients.to(self.images.device).float()
        raw = explanation.raw.to(signed)
        if raw.shape != signed.shape[:2] + signed.shape[3:]:
            return self.maps  # the map was not made from these signed values
        absolute = _close(raw, gradient.saliency(signed))
        positive = _close(raw, path.positive_evidence(signed))
        if absolute and (not positive or explanation.method in _DERIVATIVES):
            signed = signed * (self.images - baseline).float().unsqueeze(1)
        return signed.sum(dim=2)

    @torch.no_grad()  # floors need no gradients, even if the images require them
    def result(
        self,
        values_of: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]],
        *,
        better: Better,
        steps: Tensor | None = None,
        attributions: Tensor | None = None,
    ) -> MetricResult:
        """Apply a metric to the maps and to each floor.

        Args:
            values_of: from maps (N, M, *size) to (N, K) values, or to a pair of these and their
                (N, K, S) curves. M is K, or 1 for a floor, which stands for all K targets.
            better: see :class:`MetricResult`.
            steps: see :class:`MetricResult`.
            attributions: the maps to measure; None: ``maps``.
        """

        def parts(maps: Tensor) -> tuple[Tensor, Tensor | None]:
            outcome = values_of(maps)
            values, curve = outcome if isinstance(outcome, tuple) else (outcome, None)
            return values.expand(-1, self.maps.shape[1]).float(), curve

        values, curve = parts(self.maps if attributions is None else attributions)
        start = time.perf_counter()
        floors = {
            name: parts(FLOORS[name](self.images, self.seeds))[0] for name in self.options.floors
        }
        seconds = time.perf_counter() - start
        return MetricResult(
            metric=self.metric,
            values=values,
            better=better,
            floor_values=floors,
            curve=curve,
            steps=steps,
            seed=self.options.seed,
            floor_seconds=seconds,
        )


def own_targets(scores: Tensor) -> Tensor:
    """Return (N, K, S): the score of target k in images that were changed by target k's map.

    Args:
        scores: (N, M, S, K) of N images, M maps, S changes and K targets; M is K, or 1 for a map
            that stands for all targets.
    """
    if scores.shape[1] == 1:
        return scores[:, 0].transpose(1, 2)
    return scores.diagonal(dim1=1, dim2=3).transpose(1, 2)


def explained(
    model: nn.Module, images: Tensor, explainer: Explainer, **options: Unpack[MetricOptions]
) -> tuple[Explanation, Callable[[Tensor], Explanation]]:
    """Explain images, and return a function that explains changed images for the same targets.

    Returns:
        The explanation, and a function of (N, C, *size) images.

    Raises:
        TypeError: ``explainer`` is not an explainer.
        ValueError: the explainer belongs to another model.
    """
    if not isinstance(explainer, Explainer):
        raise TypeError(
            "expected an explainer such as camlens.GradCAM(model), to call it again on "
            f"changed images or models, got {type(explainer).__name__}"
        )
    if explainer.model is not check_model(model):
        raise ValueError(
            f"expected an explainer of the same model, got an explainer of another "
            f"{type(explainer.model).__name__}"
        )
    asked = CheckedOptions(**options)
    explanation = explainer(images, *asked.inputs, targets=asked.targets, **asked.keywords)
    fixed: Targets = explanation.targets
    if callable(asked.targets):
        probe = Probe(explainer.model, images, asked.inputs, asked.keywords, asked.targets)
        fixed = probe.fixed_targets()  # a box is matched on the unchanged images

    def again(changed: Tensor) -> Explanation:
        return explainer(changed, *asked.inputs, targets=fixed, **asked.keywords)

    return explanation, again


def _close(one: Tensor, other: Tensor) -> bool:
    """Return whether maps are equal except for rounding, relative to their largest value."""
    return bool((one - other).abs().amax() <= 1e-5 * one.abs().amax())
