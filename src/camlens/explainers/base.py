"""Base class of all explainers. The formulas are in :mod:`camlens.methods`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from ..concept_maps import Concepts
from ..explanation import Explanation
from ..model import (
    check_batched,
    check_images,
    check_keywords,
    check_mode,
    check_model,
)
from ..probe import Probe
from ..probe.hooks import undisturbed
from ..probe.inputs import each_tensor
from ..probe.randomness import random_scores_refused
from ..registration import Registration
from ..targets import Targets


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Attribution:
    """The maps of one call, as :meth:`Explainer.attribute` returns them.

    Attributes:
        raw: (N, K, *grid) maps, not negative.
        grid: the finest grid that the method resolves; None: the grid of ``raw``.
        layers: names of the explained layers.
        registration: where the grid's cells lie in the image; None: ``raw`` has the image's size.
        gradients: (N, K, C, *size), signed, for methods that explain the values of the image.
        reduction: the function that computed ``raw`` from ``gradients``, if one did. A method that
            averages maps, such as SmoothGrad, then averages the signed gradients and reduces the
            mean.
        measures: quantities that the method measured along with the maps, see
            :class:`Explanation`.
        concepts: the concepts that ``raw`` was computed from; None for other methods.
    """

    raw: Tensor
    grid: tuple[int, ...] | None = None
    layers: tuple[str, ...] = ()
    registration: Registration | None = None
    gradients: Tensor | None = None
    reduction: Callable[[Tensor], Tensor] | None = None
    measures: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    concepts: Concepts | None = None


class Explainer(abc.ABC):
    """Base class of all explainers: wraps a model and returns an explanation when called.

    An explainer holds a model and options, but no data of a call, so several threads can share
    one. A call leaves the model bit-identical: parameters, gradients, modes and hooks.

    To write your own method, subclass and override :meth:`attribute`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: whether maps and scores stay in the autograd graph, so that you can train
            with them. The model may then be in training mode.
    """

    #: Cost of a call, in words: F is a forward pass of the model, T the part of it after the
    #: explained layer. A backward pass counts as much as the forward pass that it reverses.
    cost: ClassVar[str] = ""
    #: What the method requires besides a model and images, in words.
    needs: ClassVar[str] = ""

    def __init__(self, model: nn.Module, *, create_graph: bool = False) -> None:
        self.model = check_model(model)
        self.create_graph = create_graph

    def __repr__(self) -> str:
        """Name the method, the model's class, the layers and the options."""
        options = [
            f"{name}={getattr(value, '__name__', None) or repr(value)}"
            for name, value in vars(self).items()
            if name != "model" and not name.startswith("_")
        ]
        return f"{type(self).__name__}({', '.join([type(self.model).__name__, *options])})"

    @final
    def __call__(
        self, images: Tensor, *inputs: Any, targets: Targets = None, **keywords: Any
    ) -> Explanation:
        """Explain K scores for each of N images.

        Args:
            images: the model's first input, (N, C, H, W) floating point, preprocessed as the model
                expects (normalised, on its device). (N, C, L) for signals, (N, C, D, H, W) for
                volumes.
            inputs: further positional inputs of the model.
            targets: what to explain. None: the predicted class. An int: that class. (N,) ints:
                one class for each image. (N, K) ints: K classes for each image. (1, K) ints, such
                as ``[[3, 5]]``: the same classes for every image. ``"all"``: every class.
                ``camlens.targets.top(k)``: the k classes with the highest scores. A callable: maps
                the model's output to (N,) or (N, K) scores. Score n must depend on image n alone,
                which rules out a mean or a softmax over the batch.
            keywords: keyword inputs of the model.

        Returns:
            The explanation, on the images' device.

        Raises:
            LookupError: a layer is unknown or did not run, or no layer can be explained.
            TypeError: the images, the targets or the model's output have the wrong type.
            ValueError: a shape is wrong, a layer's output is not a map of the image, the model is
                in training mode, a target is out of range, or scores are random, not finite or do
                not depend on the layer.
        """
        check_images(images)
        check_batched(self.model, images)
        if not self.create_graph:
            check_mode(self.model)
        check_keywords(self.model, keywords)
        return undisturbed(lambda: self._explain(images, inputs, targets, keywords))

    @abc.abstractmethod
    def attribute(self, probe: Probe) -> Attribution:
        """Compute the maps of one call, with as many passes of the model as the method needs."""

    def _explain(
        self, images: Tensor, inputs: Sequence[Any], targets: Targets, keywords: dict[str, Any]
    ) -> Explanation:
        with torch.inference_mode(False):
            plain = each_tensor(keywords, _outside_inference)
            probe = Probe(
                self.model,
                _outside_inference(images),
                [each_tensor(value, _outside_inference) for value in inputs],
                plain,
                targets,
                create_graph=self.create_graph,
            )
            # A model that trains with its maps may be random, as by dropout.
            guard = contextlib.nullcontext() if self.create_graph else random_scores_refused(probe)
            try:
                with guard:
                    attribution = self.attribute(probe)
            except RuntimeError as error:
                if "nference tensor" not in str(error):
                    raise
                raise ValueError(
                    "the model uses a tensor made in torch.inference_mode(), such as one that it "
                    "stored in an earlier call, which autograd cannot use: build or load the model "
                    "again, and predict under torch.no_grad() instead"
                ) from error
            return self._finish(probe, attribution, images)

    def _finish(self, probe: Probe, attribution: Attribution, images: Tensor) -> Explanation:
        selection = probe.unchanged()
        raw, gradients = attribution.raw, attribution.gradients
        selection.check(raw)

        def in_result(tensor: Tensor) -> Tensor:
            return tensor if self.create_graph else tensor.detach()

        return Explanation(
            raw=in_result(raw).float().contiguous(),
            scores=in_result(selection.scores).float(),
            targets=selection.classes,
            size=probe.size,
            grid=attribution.grid or tuple(raw.shape[2:]),
            layers=attribution.layers,
            method=type(self).__name__,
            gradients=gradients if gradients is None else in_result(gradients).float(),
            outputs=None if selection.logits is None else in_result(selection.logits),
            registration=attribution.registration,
            measures={name: in_result(m).float() for name, m in attribution.measures.items()},
            concepts=attribution.concepts
            and attribution.concepts.each(lambda t: in_result(t).float()),
            images=images,
        )


def at_least_float32(values: Tensor) -> Tensor:
    """Convert values to float32 or wider: half precision is too inaccurate for sums over a map."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def without_autocast(images: Tensor) -> torch.autocast:
    """Return a context without autocast: sums over many passes need more than half precision."""
    return torch.autocast(images.device.type, enabled=False)


def _outside_inference(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor that was made in inference mode, which autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor
