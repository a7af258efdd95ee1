"""Function mode that applies relevance rules to linear layers, by modified gradients.

The relevance of a value is its product with its *modified gradient*. Residual sums, views,
concatenation, pooling and ReLUs, in all forms and in place or not, then need only autograd; only
layers with weights are replaced. If the gradient itself were the relevance, each of these
operations would need its own rule, which divides by a sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from ...methods.linear_layers import Dense, LinearLayer, Scale
from ...methods.relevance import Rule
from ..modes import Interception, check_no_checkpoint
from .backward import Activation, Affine, Halved, LayerCall, Prepared
from .calls import (
    ACTIVATIONS,
    BOUNDS,
    CONVOLUTIONS,
    INSPECTIONS,
    SAFE_ON_PARTS,
    ReplacedCall,
    arguments,
    convolution,
)
from .evidence_graph import MOVES, PRODUCTS, EvidenceGraph, function, kind, refused


@dataclasses.dataclass(frozen=True)
class Rules:
    """The relevance rule for each kind of layer, from :mod:`camlens.methods.relevance`.

    Attributes:
        dense: rule of linear layers.
        convolution: rule of convolutions, and of a BatchNorm that does not directly follow a layer.
        first: rule of the layers that receive the images themselves; it returns relevance, not
            gradients. None: the rule of their kind.
    """

    dense: Rule
    convolution: Rule
    first: Rule | None = None


class Relevance(Interception):
    """Function mode that applies relevance rules to convolutions, linear layers and BatchNorm.

    Within it, the gradient with respect to the images times the images is their relevance; or the
    gradient alone, if the first layers have their own rule (``first_ruled``).

    A BatchNorm in inference mode that directly follows a convolution or linear layer is merged into
    its weights. Elsewhere, as before the convolutions of a DenseNet, it counts as a convolution of
    each single channel.

    Args:
        rules: the rule for each kind of layer.
        constants: the model's parameters, which get no relevance.

    Attributes:
        first_ruled: whether the rule of first layers was applied.
    """

    #: The method's name in error messages.
    name = "LRP"
    #: The remedy in error messages about operations without a rule.
    remedy = (
        "use camlens.IntegratedGradients, which needs no rules, or a class activation map such as "
        "camlens.GradCAM; for a transformer use camlens.AttnLRP"
    )

    #: Operations that pass relevance by their plain gradient, in addition to the common ones.
    allowed: frozenset[str] = frozenset()

    def __init__(self, rules: Rules, constants: Iterable[Tensor]) -> None:
        super().__init__()
        self.rules = rules
        self.graph = EvidenceGraph(constants, [Affine, Activation, Halved], self.allowed)
        self.first_ruled = False
        self.count = 0
        self._calls = WeakTensorKeyDictionary()
        self._pending: tuple[Prepared, LayerCall] | None = None
        #: For layers merged with a BatchNorm: the rule to prepare if their output is used again.
        self._merged = WeakTensorKeyDictionary()

    def check_used(self) -> None:
        """Check that at least one layer with a rule ran.

        Raises:
            ValueError: no layer with a rule ran.
        """
        self._finish()
        if self.count == 0:
            raise ValueError(
                f"{self.name} expected a convolution or linear layer that depends on the images, "
                f"but saw none; if the model has some, they are inside a scripted module: "
                f"{self.remedy}"
            )

    def intercept(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Replace calls of layers; execute other calls unchanged."""
        spelled = getattr(func, "__name__", "").partition(".")[0]
        if spelled not in INSPECTIONS:
            self._finish()
        if self._merged and spelled != "batch_norm":
            self._use_again([*args, *kwargs.values()])
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        replace = self.replacement(spelled)
        if replace is None:
            self._check_part(spelled, args)
            return func(*args, **kwargs)
        values = arguments(spelled, args, kwargs)
        if not any(map(self.graph.holds, values.values())):
            return func(*args, **kwargs)
        check_no_checkpoint(f"{self.name}'s rules")
        return replace(ReplacedCall(spelled, func, args, kwargs, values))

    def _check_part(self, spelled: str, args: Sequence[Any]) -> None:
        """Refuse in-place writes to a part of a tensor, which the graph does not show correctly."""
        inplace = spelled.endswith("_") and not spelled.startswith("_")
        if inplace and spelled not in SAFE_ON_PARTS and isinstance(args[0], Tensor):
            part = args[0]._is_view()
            if part and any(map(self.graph.holds, args)):
                raise ValueError(self.unruled(f"{spelled} on a part of a tensor"))

    def replacement(self, spelled: str) -> Callable[[ReplacedCall], Any] | None:
        """Return the function that replaces calls of this name, or None."""
        name = spelled.rstrip("_")
        if name in CONVOLUTIONS:
            return self._convolution
        if name in ACTIVATIONS:
            return self._activation
        return {"linear": self._linear, "batch_norm": self._norm}.get(spelled)

    def check(self, scores: Tensor) -> None:
        """Check that every operation between the images and the scores has a relevance rule.

        Args:
            scores: tensor of any shape that was computed within this mode.

        Raises:
            ValueError: an operation has no rule.
        """
        nodes = list(self.graph.to_the_image(scores))
        shared = {p for n in nodes if function(n) is Halved for p in _products(n)}
        for node in nodes:
            if what := refused(self.graph, node, shared):
                raise ValueError(self.unruled(what))
        if self.first_ruled:
            beside = self.graph.to_the_image(scores, lambda node: getattr(node, "first", False))
            if any(kind(node) == "AccumulateGrad" for node in beside):
                raise ValueError(
                    "the images also reach the score by a path around the first layer, so the rule "
                    "for first layers cannot account for all relevance: use "
                    "composite='epsilon_plus'"
                )

    def unruled(self, what: str) -> str:
        """Return the error message for an operation without a rule."""
        return f"{self.name} has no rule for {what}, on the way to the score: {self.remedy}"

    def _finish(self) -> None:
        """Prepare the last layer's rule, once it is known that no BatchNorm follows it."""
        if self._pending is not None:
            prepared, call = self._pending
            self._pending = None
            prepared.finish(call)

    def _use_again(self, values: Iterable[Any]) -> None:
        """Prepare the rules of layers whose outputs are used after a BatchNorm was merged."""
        for value in values:
            if isinstance(value, (list, tuple)):
                self._use_again(value)
            elif isinstance(value, Tensor) and (prepared := self._merged.pop(value, None)):
                version, call = self._calls[value]
                if (value._version, call.inputs._version) != (version, call.version):
                    raise ValueError(self.unruled("a layer whose input or output is overwritten"))
                prepared.finish(dataclasses.replace(call, outputs=value.detach()))

    def _convolution(self, call: ReplacedCall) -> Tensor:
        values = call.values
        if values["input"].ndim != values["weight"].ndim:
            raise ValueError(self.unruled(f"{call.spelled} of images that are not in a batch"))
        layer, inputs = convolution(call.spelled, values)
        return self._applied(layer, self.rules.convolution, {**values, "input": inputs})

    def _linear(self, call: ReplacedCall) -> Tensor:
        return self._applied(Dense(), self.rules.dense, call.values)

    def _applied(self, layer: LinearLayer, rule: Rule, values: Mapping[str, Any]) -> Tensor:
        inputs, weight, bias = values["input"], values["weight"], values.get("bias")
        if self.graph.holds(weight) or self.graph.holds(bias):
            raise ValueError(self.unruled("weights that depend on the image"))
        with torch.no_grad():
            outputs = layer(inputs, weight, bias)
        return self._result(self._called(layer, rule, inputs, weight, bias), outputs)

    def _called(
        self,
        layer: LinearLayer,
        rule: Rule,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> LayerCall:
        """Return the call of a layer, without its outputs."""
        first = self.rules.first is not None and not self.graph.behind_a_rule(inputs)
        if first and self.rules.first is not None:
            if what := self.graph.changed(inputs):
                raise ValueError(
                    f"the model changes the images ({what}) before its first layer, so low and "
                    "high are not the bounds of that layer's inputs: apply this step to the images "
                    "before you call the model, or use composite='epsilon_plus'"
                )
            rule = self.rules.first
            self.first_ruled = True
        return LayerCall(
            layer=layer,
            weight=weight.detach(),
            bias=None if bias is None else bias.detach(),
            inputs=inputs,
            outputs=inputs,
            version=inputs._version,
            rule=rule,
            signed=not self.graph.nonnegative(inputs),
            first=first,
        )

    def _result(self, call: LayerCall, outputs: Tensor) -> Tensor:
        self._finish()
        self.count += 1
        prepared = Prepared(call)
        result: Tensor = Affine.apply(call.inputs, (outputs,), prepared)
        self._pending = (prepared, dataclasses.replace(call, outputs=outputs))
        self._calls[result] = (result._version, call)
        return result

    def _norm(self, replaced: ReplacedCall) -> Tensor:
        values = replaced.values
        mean, variance = values.get("running_mean"), values.get("running_var")
        if values.get("training", False) or mean is None or variance is None:
            raise ValueError(
                f"{self.name} needs BatchNorm with running statistics, in eval mode: with the "
                "statistics of the batch, an image's score depends on the other images; call "
                "model.eval(), or replace BatchNorm layers that have no running statistics"
            )
        inputs, epsilon = values["input"], values.get("eps", 1e-5)
        weight, bias = values.get("weight"), values.get("bias")
        with torch.no_grad():
            outputs = functional.batch_norm(inputs, mean, variance, weight, bias, eps=epsilon)
            scale = (variance + epsilon).rsqrt()
            scale = scale if weight is None else scale * weight
            shift = -mean * scale if bias is None else bias - mean * scale
        version, call = self._calls.get(inputs, (None, None))
        if call is None or version != inputs._version or inputs.ndim != _dimensions(call):
            self._finish()
            call = self._called(Scale(), self.rules.convolution, inputs, scale, shift)
            return self._result(call, outputs)
        if call.inputs._version != call.version:
            raise ValueError(
                self.unruled("a layer whose input is overwritten before its BatchNorm")
            )
        if self._pending is not None and self._pending[1].weight is call.weight:
            # The layer's own rule is prepared only if its output is used again.
            self._merged[inputs] = self._pending[0]
            self._pending = None
        merged = shift if call.bias is None else call.bias * scale + shift
        weight = call.layer.scaled(call.weight, scale)
        return self._result(dataclasses.replace(call, weight=weight, bias=merged), outputs)

    def _activation(self, call: ReplacedCall) -> Any:
        values, name = call.values, call.spelled.rstrip("_")
        inputs, at_zero = values["input"], ACTIVATIONS[name]
        if name in BOUNDS:
            bounds = [values.get(b, d) for b, d in BOUNDS[name]]
            low, high = bounds
            if not all(isinstance(b, (int, float)) for b in bounds) or not low <= 0 < high:
                return call.execute()  # a ReLU, or an operation that the check of the graph refuses
            at_zero = 0.0 if low == 0 else 1.0
        inplace = call.spelled.endswith("_") or bool(values.get("inplace", False))
        if inplace and inputs._is_view():
            raise ValueError(self.unruled(f"{name} in place on a part of a tensor"))
        options = {k: v for k, v in values.items() if k not in ("input", "inplace")}
        with torch.no_grad():
            copied = inputs.detach().clone() if inplace else inputs.detach()
            outputs = call.func(copied, **options)
        return Activation.apply(inputs, (outputs,), at_zero, inplace)


def _products(node: Node) -> Iterator[Node]:
    """Yield the products before a halved result, skipping operations that move values."""
    stack = [following for following, _ in node.next_functions]
    while stack:
        following = stack.pop()
        if following is None:
            continue
        if kind(following) in PRODUCTS:
            yield following
        elif kind(following) in MOVES | {"Sum"}:
            stack += [behind for behind, _ in following.next_functions]


def _dimensions(call: LayerCall) -> int:
    """Return the number of dimensions of a layer's outputs if the second holds the channels."""
    return 2 if isinstance(call.layer, Dense) else call.inputs.ndim
