"""Layer-wise relevance propagation: distributes a score over the image's values, layer by layer.

The model is not changed: :mod:`camlens.intercept` applies the rules as the layers are called.
"""

from __future__ import annotations

import abc
from typing import Any, Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from ..intercept import AttentionRelevance, Relevance, Rules
from ..methods import path
from ..methods.relevance import Epsilon, Gamma, ZBox, ZPlus, conservation_gap
from ..probe import Probe
from .base import Attribution, Explainer, at_least_float32
from .image_gradients import image_gradients

__all__ = ["LRP", "AttnLRP", "RelevanceAttribution"]


@runtime_checkable
class Composite(Protocol):
    """Interface of zennit's composites, which apply rules to a model within a context."""

    def context(self, module: nn.Module) -> Any:
        """Return a context manager that applies the rules to a module."""

    def remove(self) -> None:
        """Remove the rules."""


class RelevanceAttribution(Explainer):
    """Base class of layer-wise relevance propagation (LRP).

    ``gradients`` (N, K, C, *size) is the signed relevance of each value of the image, in units of
    the score; ``raw`` (N, K, *size) is the positive part of its sum over the channels;
    ``measures["conservation_gap"]`` (N, K) is the absolute difference between its sum over the
    image and the score.

    A subclass defines :meth:`interception`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)

    @abc.abstractmethod
    def interception(self, probe: Probe) -> Relevance:
        """Return the function mode that applies the rules to the model's layers."""

    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward and one backward pass through the whole model."""
        mode = self.interception(probe)
        traced = probe.run(start="images", mode=mode)
        mode.check(traced.scores)
        relevance = image_gradients(traced)
        if not mode.first_ruled:
            relevance = relevance * at_least_float32(probe.images).unsqueeze(1)
        return of_relevance(relevance, traced.scores)


def of_relevance(relevance: Tensor, scores: Tensor) -> Attribution:
    """Return the attribution for (N, K, C, *size) relevance and (N, K) scores."""
    return Attribution(
        raw=path.positive_evidence(relevance),
        gradients=relevance,
        reduction=path.positive_evidence,
        measures={
            "conservation_gap": conservation_gap(relevance, at_least_float32(scores.detach()))
        },
    )


@final
class LRP(RelevanceAttribution):
    r"""Layer-wise relevance propagation (Bach et al. 2015) for convolutional networks.

    .. math:: R_i = \sum_j \frac{a_i w_{ij}}{z_j + \varepsilon\,\mathrm{sign}\,z_j} R_j

    is the epsilon rule: input :math:`a_i` of a layer receives a share of the relevance
    :math:`R_j` of each output :math:`z_j`. The relevance of the output is the explained score, that
    of the image is the result. Two presets of zennit select the rules
    (:mod:`camlens.methods.relevance`). ``"epsilon_plus"``: the z+ rule for convolutions and the
    epsilon rule for linear layers. ``"epsilon_gamma_box"``: the z-box rule for the layer that
    receives the image, the gamma rule for other convolutions and the epsilon rule for linear
    layers. Sums, means and average pooling distribute relevance in proportion to their summands,
    max pooling passes it to the largest value, and activations pass it unchanged.

    ``gradients`` (N, K, C, *size) is the signed relevance, in units of the score; ``raw``
    (N, K, *size) is the positive part of its sum over the channels.
    ``measures["conservation_gap"]`` (N, K) is the part of the score that does not reach the image:
    biases, the shifts of BatchNorm and other constants that the model adds take a share, and
    epsilon takes a little. (The z-box rule gives biases no share.) Without biases the gap is zero
    up to rounding. Targets must be linear in the model's outputs: a logit or a contrast of logits,
    not a probability.

    Source: Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by
    Layer-Wise Relevance Propagation", PLoS ONE 2015.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        composite: the name of a preset, or a zennit composite with its canonizers. In that case
            zennit changes the model during the call and restores it afterwards, so no other thread
            may run the model meanwhile.
        epsilon: epsilon of the epsilon rule, in units of a layer's outputs; other rules add 1e-6 to
            keep their denominators from zero.
        gamma: gamma of the gamma rule, dimensionless.
        low: the smallest possible value of a pixel, as the model receives it (normalized): a
            number, or a tensor that broadcasts to the images, such as (3, 1, 1). Required by
            ``"epsilon_gamma_box"``.
        high: the largest possible value of a pixel, in the same form as ``low``.

    Raises:
        ValueError: an option is out of range; when called, if an operation between the images and
            the score has no rule, such as the gates of squeeze-and-excitation, GroupNorm or
            attention, or if the model recomputes activations in a ``torch.utils.checkpoint``.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
        >>> _ = model[1].weight.requires_grad_(False).copy_(torch.tensor([[2.0, -1.0]]))
        >>> explanation = LRP(model)(torch.tensor([[[3.0, 5.0]]]))
        >>> explanation.gradients.round(decimals=3).tolist(), explanation.raw.shape
        ([[[[6.0, -5.0]]]], torch.Size([1, 1, 2]))
    """

    cost = "2 F + F for each target"

    def __init__(
        self,
        model: nn.Module,
        composite: Literal["epsilon_plus", "epsilon_gamma_box"] | Composite = "epsilon_plus",
        *,
        epsilon: float = 1e-6,
        gamma: float = 0.25,
        low: float | Tensor | None = None,
        high: float | Tensor | None = None,
    ) -> None:
        super().__init__(model)
        if isinstance(composite, str):
            if composite not in ("epsilon_plus", "epsilon_gamma_box"):
                raise ValueError(
                    'expected composite "epsilon_plus", "epsilon_gamma_box" or a zennit composite, '
                    f"got {composite!r}"
                )
        elif not callable(getattr(composite, "context", None)):
            raise TypeError(
                'expected composite "epsilon_plus", "epsilon_gamma_box" or an object with a '
                f"context(model) method, such as a composite of zennit, got {composite!r}"
            )
        boxed = composite == "epsilon_gamma_box"
        if boxed and (low is None or high is None):
            raise ValueError(
                "epsilon_gamma_box needs low and high, the smallest and largest possible value of "
                "a pixel as the model receives it: for pixels from 0 to 1 that are normalized, "
                "low = (0 - mean) / std and high = (1 - mean) / std"
            )
        if not boxed and (low is not None or high is not None):
            raise ValueError(
                "low and high are options of composite='epsilon_gamma_box' only: omit them, or "
                "choose that composite"
            )
        self.composite = composite
        self.epsilon = not_negative("epsilon", epsilon)
        self.gamma = not_negative("gamma", gamma)
        self.low, self.high = low, high

    def interception(self, probe: Probe) -> Relevance:
        """Return the function mode with the rules of the preset."""
        constants = list(probe.model.parameters())
        dense = Epsilon(self.epsilon)
        if self.low is None or self.high is None:
            return Relevance(Rules(dense, ZPlus()), constants)
        low, high = (self._bound(bound, probe.images) for bound in (self.low, self.high))
        outside = (probe.images < low) | (probe.images > high) | ~(low < high)
        if bool(outside.any()):
            raise ValueError(
                "expected images between low and high, with low less than high, but some values "
                "are outside. Give both as the model receives the images: for pixels from 0 to 1 "
                "that are normalized, low = (0 - mean) / std and high = (1 - mean) / std"
            )
        return Relevance(Rules(dense, Gamma(self.gamma), ZBox(low, high)), constants)

    @staticmethod
    def _bound(bound: float | Tensor, images: Tensor) -> Tensor:
        value = torch.as_tensor(bound, dtype=images.dtype, device=images.device)
        try:
            return value.expand(1, *images.shape[1:])
        except RuntimeError as error:
            raise ValueError(
                f"expected low and high to broadcast to an image {tuple(images.shape[1:])}, got "
                f"{tuple(value.shape)}"
            ) from error

    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward and one backward pass through the whole model."""
        if isinstance(self.composite, str):
            return super().attribute(probe)
        try:
            with self.composite.context(probe.model):
                traced = probe.run(start="images")
                scores = at_least_float32(traced.scores.detach())
                count = scores.shape[1]
                parts = [  # one target at a time: zennit's hooks do not support several at once
                    traced.image_gradients(slice(k, k + 1), keep_graph=k < count - 1)
                    for k in range(count)
                ]
        finally:
            self.composite.remove()  # again, in case an interrupt hit the context as it ended
        # zennit's gradients are the relevance for a score of 1.
        relevance = at_least_float32(torch.cat(parts, dim=1))
        relevance = relevance * scores.view(*scores.shape, *[1] * (relevance.ndim - 2))
        return of_relevance(relevance, traced.scores)


@final
class AttnLRP(RelevanceAttribution):
    r"""AttnLRP (Achtibat et al. 2024): layer-wise relevance propagation for transformers.

    .. math:: R_i = \sum_j \frac{a_i w_{ij}}{z_j + \varepsilon\,\mathrm{sign}\,z_j} R_j

    is the epsilon rule, which linear layers and convolutions follow; with ``gamma`` they follow the
    gamma rule (:mod:`camlens.methods.relevance`). LayerNorm and RMSNorm count as linear with a
    constant scale, activations such as GELU pass relevance unchanged, the two factors of a product
    (queries and keys, probabilities and values, gated units) receive half of the relevance each,
    and a softmax passes its gradient times its input
    (:class:`camlens.intercept.AttentionRelevance`).

    With the epsilon rule alone, the map of a deep transformer is as noisy as its gradient. The
    authors recommend the gamma rule for vision transformers, with a gamma tuned for each model.

    ``gradients`` (N, K, C, *size) is the signed relevance, in units of the score; ``raw``
    (N, K, *size) is the positive part of its sum over the channels.
    ``measures["conservation_gap"]`` (N, K) is the part of the score that does not reach the image:
    biases, position embeddings and class tokens take a share, and with ``attention="softmax"`` so
    does the softmax, which is not zero at zero. With ``attention="values"`` and without biases and
    embeddings the gap is zero up to rounding.

    Source: Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
    Transformers", ICML 2024 (arXiv:2402.05602).

    Args:
        model: any module whose output, or part of it, is a score for each image.
        attention: ``"softmax"``, as in the paper: relevance also passes to queries and keys.
            ``"values"``: attention probabilities are constants (CP-LRP, Ali et al. 2022), as in
            the authors' library for torchvision's vision transformers.
        gamma: gamma of the gamma rule: a number, or a pair (convolutions, linear layers). 0: the
            epsilon rule.
        epsilon: of the epsilon rule, in units of a layer's outputs. Even a small value changes the
            maps of deep transformers by a percent.

    Raises:
        ValueError: an option is out of range; when called, if an operation between the images and
            the score has no rule, or if the model recomputes activations in a
            ``torch.utils.checkpoint``.
    """

    cost = "F + F for each target"

    def __init__(
        self,
        model: nn.Module,
        *,
        attention: Literal["softmax", "values"] = "softmax",
        gamma: float | tuple[float, float] = 0.0,
        epsilon: float = 0.0,
    ) -> None:
        super().__init__(model)
        if attention not in ("softmax", "values"):
            raise ValueError(f'expected attention "softmax" or "values", got {attention!r}')
        self.attention: Literal["softmax", "values"] = attention
        pair = gamma if isinstance(gamma, tuple) else (gamma, gamma)
        if len(pair) != 2:
            raise ValueError(f"expected gamma as a number or a pair of numbers, got {gamma!r}")
        self.gamma = (not_negative("gamma", pair[0]), not_negative("gamma", pair[1]))
        self.epsilon = not_negative("epsilon", epsilon)

    def interception(self, probe: Probe) -> Relevance:
        """Return the function mode with the rules of layers, attention and norms."""
        convolution, dense = (
            Gamma(gamma) if gamma else Epsilon(self.epsilon) for gamma in self.gamma
        )
        constants = list(probe.model.parameters())
        return AttentionRelevance(Rules(dense, convolution), constants, self.attention)


def not_negative(name: str, value: float) -> float:
    """Return an option as a float, after checking that it is finite and not negative.

    Raises:
        ValueError: it is not a finite number of at least 0.
    """
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"expected {name} as a number of at least 0, got {value!r}")
    return float(value)
