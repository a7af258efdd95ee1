"""The driver of every explainer: checks, one call, the result."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from . import checks, modules
from .explanation import Explanation
from .targets import Selection, Targets, select

#: Gradients of so many bytes are computed at once; beyond, targets go in chunks.
CHUNK_BYTES = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an explainer: the model's inputs and what to explain of its output."""

    images: Tensor
    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    targets: Targets

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    def scores(self, model: nn.Module, images: Tensor) -> Selection:
        """Run the model on ``images`` and select the scores to explain."""
        selection = select(model(images, *self.inputs, **self.keywords), self.targets)
        if len(selection.scores) != len(images):
            raise ValueError(
                f"expected one row of scores for each of {len(images)} images, got "
                f"{tuple(selection.scores.shape)}"
            )
        return selection


class Explainer(abc.ABC):
    """What all explainers share: how they are called and what they check.

    An explainer holds a model and options, never the data of a call; several threads may
    use one. The model is left bit-identical: parameters, gradients, modes and hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        checks.check_model(model)
        self.model = modules.unwrap(model)

    @final
    def __call__(
        self, images: Tensor, *inputs: Any, targets: Targets = None, **keywords: Any
    ) -> Explanation:
        """Explain K scores for each of N images.

        Args:
            images: (N, C, H, W) floating point, exactly as the model takes them (normalised,
                on its device); its first input.
            inputs: further positional inputs of the model.
            targets: what to explain. None: the predicted class. An int: that class. (N,) ints:
                one class an image. (N, K) ints: K classes an image. ``"all"``: every class. A
                callable: from the model's output to (N,) or (N, K) scores.
            keywords: keyword inputs of the model.

        Returns:
            The explanation, on the images' device.

        Raises:
            LookupError: a layer is unknown or did not run.
            TypeError: images, targets or the model's output are of the wrong type.
            ValueError: a wrong shape, a model in training mode, a target out of range, scores
                that are not finite or do not depend on the layer.
        """
        checks.check_images(images)
        checks.check_mode(self.model)
        checks.check_keywords(self.model, keywords)
        with torch.inference_mode(False):
            plain = {k: _normal(v) for k, v in keywords.items()}
            call = Call(_normal(images), tuple(map(_normal, inputs)), plain, targets)
            try:
                return self._explain(call)
            except RuntimeError as error:
                if "nference tensor" not in str(error):
                    raise
                raise ValueError(
                    "the model uses a tensor made in torch.inference_mode(), such as one it keeps "
                    "from an earlier call, which autograd cannot use: build or load the model "
                    "anew, and predict under torch.no_grad() instead"
                ) from error

    @abc.abstractmethod
    def _explain(self, call: Call) -> Explanation: ...

    def _finish(
        self,
        call: Call,
        selection: Selection,
        raw: Tensor,
        *,
        grid: tuple[int, int],
        names: tuple[str, ...] = (),
        gradients: Tensor | None = None,
    ) -> Explanation:
        selection.check(raw)
        return Explanation(
            raw=raw.detach().float().contiguous(),
            scores=selection.scores.detach().float(),
            targets=selection.classes,
            size=call.size,
            grid=grid,
            layers=names,
            method=type(self).__name__,
            gradients=gradients,
        )


def grid_of(maps: Tensor) -> tuple[int, int]:
    """Return (h, w) of (..., h, w) maps."""
    return maps.shape[-2], maps.shape[-1]


def chunks(count: int, inputs: Sequence[Tensor]) -> list[slice]:
    """Cut ``count`` targets into slices whose gradients by ``inputs`` fit into CHUNK_BYTES."""
    each = sum(x.numel() for x in inputs) * 4
    step = max(1, CHUNK_BYTES // each)
    return [slice(start, start + step) for start in range(0, count, step)]


def wide(values: Tensor) -> Tensor:
    """Return the values in at least float32: sums over a map lose too much in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _normal(value: Any) -> Any:
    """Return a copy of a tensor made in inference mode, which autograd refuses to touch."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
