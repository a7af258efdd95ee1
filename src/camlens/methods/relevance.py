r"""Rules of layer-wise relevance propagation (LRP) for linear layers, as functions of tensors.

LRP starts with a score and distributes it, layer by layer, over the inputs of each layer. Here the
relevance R of an activation a is written as a product, :math:`R = a\,g`, with a *modified gradient*
g. Operations that add, move, select or scale values then need no rule: the plain gradient
distributes relevance in proportion to the summands, and nothing is divided by an activation. Only
layers with weights have rules. A rule has two parts:

- ``prepare`` takes the layer's inputs a and outputs z, and returns the tensors that the backward
  pass needs, such as :math:`z / (z + \varepsilon\,\mathrm{sign}\,z)`;
- ``propagate`` turns the modified gradient of the outputs into that of the inputs.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .linear_layers import Forward, LinearLayer, positive_part

Values = Float[Tensor, "..."]


@runtime_checkable
class Rule(Protocol):
    """Interface of a rule: how relevance propagates backward through a linear layer."""

    def prepare(self, forward: Forward) -> tuple[Tensor, ...]:
        """Return the tensors that the backward pass needs."""

    def propagate(
        self, layer: LinearLayer, weight: Tensor, gradient: Tensor, prepared: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the modified gradient of the inputs, given that of the outputs."""


def stabilized(values: Values, epsilon: float) -> Values:
    r"""Return :math:`z + \varepsilon\,\mathrm{sign}\,z`, where the sign of 0 is 1.

    Example:
        >>> stabilized(torch.tensor([2.0, 0.0, -2.0]), 0.5).tolist()
        [2.5, 0.5, -2.5]
    """
    return values + torch.where(values < 0, -epsilon, epsilon).to(values)


def shared(rule: Rule, forward: Forward, relevance: Values) -> Values:
    """Return the inputs' relevance, given that of the outputs, for outputs that are not zero.

    Example:
        See :class:`Epsilon`.
    """
    gradient = relevance / forward.outputs
    prepared = rule.prepare(forward)
    return forward.inputs * rule.propagate(forward.layer, forward.weight, gradient, prepared)


@dataclasses.dataclass(frozen=True)
class Epsilon:
    r"""The epsilon rule: inputs share relevance in proportion to their contributions to an output.

    .. math:: R_i = \sum_j \frac{a_i w_{ij}}{z_j + \varepsilon\,\mathrm{sign}\,z_j} R_j

    With epsilon 0 it is LRP-0.

    Source: Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by
    Layer-Wise Relevance Propagation", PLoS ONE 2015, equation 58.

    Attributes:
        epsilon: absorbs the relevance of outputs near zero, in units of z. 0 is safe here, since
            nothing is divided by z.

    Example:
        A layer with :math:`z = 2 \cdot 3 - 1 \cdot 2 = 4`, distributed as 6 and -2.

        >>> from camlens.methods.linear_layers import Dense
        >>> a, w = torch.tensor([[3.0, 2.0]]), torch.tensor([[2.0, -1.0]])
        >>> forward = Forward(Dense(), w, None, a, torch.tensor([[4.0]]))
        >>> shared(Epsilon(0.0), forward, torch.tensor([[4.0]])).tolist()
        [[6.0, -2.0]]
        >>> shared(Epsilon(4.0), forward, torch.tensor([[4.0]])).tolist()
        [[3.0, -1.0]]
    """

    epsilon: float = 1e-6

    def prepare(self, forward: Forward) -> tuple[Tensor, ...]:
        """Return the outputs divided by the stabilized outputs; nothing if epsilon is 0."""
        if self.epsilon == 0:
            return ()
        return (forward.outputs / stabilized(forward.outputs, self.epsilon),)

    def propagate(
        self, layer: LinearLayer, weight: Tensor, gradient: Tensor, prepared: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the modified gradient of the inputs."""
        return layer.transposed(gradient * prepared[0] if prepared else gradient, weight)


@dataclasses.dataclass(frozen=True)
class ZPlus:
    r"""The z+ rule (alpha 1, beta 0): only positive contributions to an output get relevance.

    .. math:: R_i = \sum_j \frac{(a_i w_{ij})^+}{\sum_i (a_i w_{ij})^+ + b_j^+} R_j

    Inputs may have any sign: a negative input raises an output through a negative weight.

    Source: Bach et al. 2015, equation 60 with alpha 1; Montavon et al., "Explaining nonlinear
    classification decisions with deep Taylor decomposition", Pattern Recognition 2017.

    Attributes:
        epsilon: keeps the denominator from zero, in units of z.

    Example:
        >>> from camlens.methods.linear_layers import Dense
        >>> a, w = torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([[2.0, -1.0, -2.0]])
        >>> forward = Forward(Dense(), w, None, a, torch.tensor([[6.0]]))
        >>> shared(ZPlus(0.0), forward, torch.tensor([[6.0]])).tolist()
        [[4.5, 0.0, 1.5]]
    """

    epsilon: float = 1e-6

    def prepare(self, forward: Forward) -> tuple[Tensor, ...]:
        """Return the outputs divided by their positive parts, and which inputs are not negative."""
        ratio = forward.outputs / stabilized(positive_part(forward), self.epsilon)
        return (ratio, forward.inputs >= 0) if forward.signed else (ratio,)

    def propagate(
        self, layer: LinearLayer, weight: Tensor, gradient: Tensor, prepared: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the modified gradient of the inputs."""
        by_output = gradient * prepared[0]
        by_positive = layer.transposed(by_output, weight.clamp(min=0))
        if len(prepared) == 1:
            return by_positive
        return by_positive.where(prepared[1], layer.transposed(by_output, weight.clamp(max=0)))


@dataclasses.dataclass(frozen=True)
class Gamma:
    r"""The gamma rule: contributions with the sign of the output get a larger share of relevance.

    .. math:: R_i = \sum_{j: z_j > 0} \frac{a_i w_{ij} + \gamma (a_i w_{ij})^+}
              {z_j + \gamma \big(\sum_i (a_i w_{ij})^+ + b_j^+\big)} R_j
              + \sum_{j: z_j < 0} \frac{a_i w_{ij} + \gamma (a_i w_{ij})^-}
              {z_j + \gamma \big(\sum_i (a_i w_{ij})^- + b_j^-\big)} R_j

    Inputs may have any sign. With gamma 0 it is LRP-0; with a large gamma it is the z+ rule for
    positive outputs.

    Source: Montavon et al., "Layer-Wise Relevance Propagation: An Overview", 2019, for inputs
    that are not negative; Andeol et al., "Learning Domain Invariant Representations by Joint
    Wasserstein Distance Minimization", 2021, for signed ones.

    Attributes:
        gamma: extra weight of contributions with the sign of the output, dimensionless.
        epsilon: keeps the denominator from zero, in units of z.

    Example:
        Contributions 6 and -2 to an output of 4: with gamma 1 the positive one counts twice, which
        gives 12 and -2 of 10.

        >>> from camlens.methods.linear_layers import Dense
        >>> a, w = torch.tensor([[3.0, 2.0]]), torch.tensor([[2.0, -1.0]])
        >>> forward = Forward(Dense(), w, None, a, torch.tensor([[4.0]]))
        >>> shared(Gamma(1.0, 0.0), forward, torch.tensor([[10.0]])).tolist()
        [[12.0, -2.0]]
        >>> mirrored = Forward(Dense(), w, None, -a, torch.tensor([[-4.0]]))
        >>> shared(Gamma(1.0, 0.0), mirrored, torch.tensor([[10.0]])).tolist()
        [[12.0, -2.0]]
    """

    gamma: float = 0.25
    epsilon: float = 1e-6

    def prepare(self, forward: Forward) -> tuple[Tensor, ...]:
        """Return outputs / denominators of positive and negative outputs, and the inputs' signs."""
        z, positive = forward.outputs, positive_part(forward)
        negative = z - positive  # the negative parts of products and bias: z is the sum of both
        ratios = [
            torch.where(where, z / stabilized(z + self.gamma * part, self.epsilon), 0)
            for where, part in ((z > 0, positive), (z < 0, negative))
        ]
        return (*ratios, forward.inputs >= 0) if forward.signed else tuple(ratios)

    def propagate(
        self, layer: LinearLayer, weight: Tensor, gradient: Tensor, prepared: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the modified gradient of the inputs."""
        above, below = gradient * prepared[0], gradient * prepared[1]
        # For an input that is not negative: (w + g w^+)^T above + (w + g w^-)^T below, where w^- is
        # w - w^+. For a negative one w^+ and w^- are exchanged.
        plus = self.gamma * layer.transposed(above - below, weight.clamp(min=0))
        same = layer.transposed(above + (1 + self.gamma) * below, weight) + plus
        if len(prepared) == 2:
            return same
        return same.where(
            prepared[2], layer.transposed((1 + self.gamma) * above + below, weight) - plus
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ZBox:
    r"""The z-box rule, for the first layer: its inputs are pixels between two bounds.

    .. math:: R_i = \sum_j \frac{a_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}
              {\sum_i a_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-} R_j

    A pixel of value zero can receive relevance, so relevance is not the pixel times a gradient.
    The rule therefore returns relevance itself, and only operations that move values may lie
    between the image and this layer.

    Source: Montavon et al., "Explaining nonlinear classification decisions with deep Taylor
    decomposition", Pattern Recognition 2017.

    Attributes:
        low: the smallest possible value of a pixel, in a shape that broadcasts to the inputs.
        high: the largest possible value of a pixel, in such a shape.
        epsilon: keeps the denominator from zero, in units of z.

    Example:
        Pixels 3 and 2 between 0 and 4: :math:`3 \cdot 2 = 6` and :math:`-2 + 4 = 2` of 8.

        >>> from camlens.methods.linear_layers import Dense
        >>> a, w = torch.tensor([[3.0, 2.0]]), torch.tensor([[2.0, -1.0]])
        >>> forward = Forward(Dense(), w, None, a, torch.tensor([[4.0]]))
        >>> rule = ZBox(torch.tensor(0.0), torch.tensor(4.0), 0.0)
        >>> rule.propagate(Dense(), w, torch.tensor([[2.0]]), rule.prepare(forward)).tolist()
        [[6.0, 2.0]]
    """

    low: Tensor
    high: Tensor
    epsilon: float = 1e-6

    def prepare(self, forward: Forward) -> tuple[Tensor, ...]:
        """Return the outputs divided by the denominators, the inputs and their bounds."""
        a, weight, layer = forward.inputs, forward.weight, forward.layer
        one = a[:1]
        low, high = (bound.to(a).expand_as(one) for bound in (self.low, self.high))
        below = layer(low, weight.clamp(min=0)) + layer(high, weight.clamp(max=0))
        ratio = forward.outputs / stabilized(layer(a, weight) - below, self.epsilon)
        return ratio, a, low, high

    def propagate(
        self, layer: LinearLayer, weight: Tensor, gradient: Tensor, prepared: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the relevance of the inputs."""
        ratio, inputs, low, high = prepared
        by_output = gradient * ratio
        return (
            inputs * layer.transposed(by_output, weight)
            - low * layer.transposed(by_output, weight.clamp(min=0))
            - high * layer.transposed(by_output, weight.clamp(max=0))
        )


def conservation_gap(
    relevance: Float[Tensor, "n k c *size"], scores: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    r"""Conservation gap: the distance of the sum of an image's relevance from its score, (N, K).

    .. math:: \left| s - \sum_i R_i \right|

    Args:
        relevance: (N, K, C, *size), R.
        scores: (N, K), s.

    Example:
        >>> conservation_gap(torch.tensor([[[[2.0, 3.0]]]]), torch.tensor([[4.5]])).item()
        0.5
    """
    return (relevance.flatten(2).sum(dim=2) - scores).abs()
