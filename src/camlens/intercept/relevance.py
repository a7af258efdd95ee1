"""Layer-wise relevance as modified gradients: a function mode that gives layers rules.

The product of an activation and its *modified* gradient is its relevance. Residual sums, views,
concatenation, pooling and ReLUs then are autograd's own, in whatever spelling, in place or not, and
only layers with weights are replaced. Had relevance itself been the gradient, each of these would
have needed a rule that divides by a sum.
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

from .calls import BOUNDS, CONVOLUTIONS, LOOKING, RATIOS, WRITING, Given, arguments
from .evidence_graph import MOVES, PRODUCTS, EvidenceGraph, function, kind, refused
from .linear_maps import Convolution, Dense, Scale, convolution
from .modes import Interception
from .relevance_functions import Affine, Halved, LayerCall, LinearRule, Prepared, Ratio


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which rule each kind of layer takes.

    Attributes:
        dense: of linear layers.
        convolution: of convolutions, and of BatchNorm that no layer takes in.
        first: of the layers that see the image itself; they pass relevance, not gradients. None:
            they take the rule of their kind.
    """

    dense: LinearRule
    convolution: LinearRule
    first: LinearRule | None = None


class Relevance(Interception):
    """Give convolutions, linear layers and BatchNorm rules of relevance, as they are called.

    The gradient by the image, times the image, is then its relevance; or the gradient alone, where
    the first layers have a rule of their own (:attr:`first_ruled`).

    BatchNorm in inference mode right after a convolution or linear layer is taken into its weights;
    elsewhere, as before the convolutions of a DenseNet, it is a convolution of each channel by
    itself.

    Args:
        rules: of the kinds of layers.
        constants: the model's parameters, which are no evidence.

    Attributes:
        first_ruled: whether a first layer took the rule of first layers.
    """

    #: For the error of an operation without a rule.
    name = "LRP"
    remedy = (
        "use camlens.IntegratedGradients, which needs no rules, or a class activation map such as "
        "camlens.GradCAM; of a transformer camlens.AttnLRP"
    )

    #: Kinds of operations that pass relevance as their gradient says, beside the common ones.
    allowed: frozenset[str] = frozenset()

    def __init__(self, rules: Rules, constants: Iterable[Tensor]) -> None:
        super().__init__()
        self.rules = rules
        self.graph = EvidenceGraph(constants, [Affine, Ratio, Halved], self.allowed)
        self.first_ruled = False
        self.count = 0
        self._calls = WeakTensorKeyDictionary()
        self._pending: tuple[Prepared, LayerCall] | None = None
        #: Of a layer that a BatchNorm took in: what its output needs if it is used once more.
        self._merged = WeakTensorKeyDictionary()

    def check_used(self) -> None:
        """Check that a layer has run whose relevance a rule says.

        Raises:
            ValueError: none has.
        """
        self._finish()
        if self.count == 0:
            raise ValueError(
                f"{self.name} saw no convolution or linear layer that depends on the images; if "
                f"the model has some, they are hidden in a scripted module: {self.remedy}"
            )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the call of a layer; let every other call through."""
        kwargs = kwargs or {}
        if not self.live or self.suspended:
            return func(*args, **kwargs)
        spelled = getattr(func, "__name__", "").partition(".")[0]
        if spelled not in LOOKING:
            self._finish()
        if self._merged and spelled != "batch_norm":
            self._use_again([*args, *kwargs.values()])
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        replace = self.replacement(spelled)
        if replace is None:
            self._check_part(spelled, args)
            return func(*args, **kwargs)
        values = {**dict(zip(arguments(spelled), args, strict=False)), **kwargs}
        if not any(map(self.graph.holds, values.values())):
            return func(*args, **kwargs)
        return replace(Given(spelled, func, args, kwargs, values))

    def _check_part(self, spelled: str, args: Sequence[Any]) -> None:
        """Check what is written into a part of a tensor: the graph does not tell what it is."""
        inplace = spelled.endswith("_") and not spelled.startswith("_")
        if inplace and spelled not in WRITING and isinstance(args[0], Tensor):
            part = args[0]._is_view()
            if part and any(map(self.graph.holds, args)):
                raise ValueError(self.unruled(f"{spelled} on a part of a tensor"))

    def replacement(self, spelled: str) -> Callable[[Given], Any] | None:
        """Return what stands for a function; None: itself."""
        name = spelled.rstrip("_")
        if name in CONVOLUTIONS:
            return self._convolution
        if name in RATIOS:
            return self._ratio
        return {"linear": self._linear, "batch_norm": self._norm}.get(spelled)

    def check(self, scores: Tensor) -> None:
        """Check that every operation from the images to the scores passes relevance rightly.

        Raises:
            ValueError: one does not.
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
                    "the images reach the score beside the first layer too, so that the rule of "
                    "first layers cannot share its relevance out: use composite='epsilon_plus'"
                )

    def unruled(self, what: str) -> str:
        """Return the text of the error for an operation without a rule."""
        return f"{self.name} has no rule for {what}, on the way to the score: {self.remedy}"

    def _finish(self) -> None:
        """Let the last layer's rule prepare: no BatchNorm follows, or its outputs are used."""
        if self._pending is not None:
            prepared, call = self._pending
            self._pending = None
            prepared.finish(call)

    def _use_again(self, values: Iterable[Any]) -> None:
        """Let the rule of a layer prepare whose output is used beside the norm that took it in."""
        for value in values:
            if isinstance(value, (list, tuple)):
                self._use_again(value)
            elif isinstance(value, Tensor) and (prepared := self._merged.pop(value, None)):
                version, call = self._calls[value]
                if (value._version, call.inputs._version) != (version, call.version):
                    raise ValueError(self.unruled("a layer whose input or output is overwritten"))
                prepared.finish(dataclasses.replace(call, outputs=value.detach()))

    def _convolution(self, given: Given) -> Tensor:
        values = given.values
        if values["input"].ndim != values["weight"].ndim:
            raise ValueError(self.unruled(f"{given.spelled} of images that are not in a batch"))
        layer, inputs = convolution(given.spelled, values)
        return self._applied(layer, self.rules.convolution, {**values, "input": inputs})

    def _linear(self, given: Given) -> Tensor:
        return self._applied(Dense(), self.rules.dense, given.values)

    def _applied(
        self, layer: Dense | Convolution, rule: LinearRule, values: Mapping[str, Any]
    ) -> Tensor:
        inputs, weight, bias = values["input"], values["weight"], values.get("bias")
        if self.graph.holds(weight) or self.graph.holds(bias):
            raise ValueError(self.unruled("weights that depend on the image"))
        with torch.no_grad():
            outputs = layer(inputs, weight, bias)
        return self._result(self._called(layer, rule, inputs, weight, bias), outputs)

    def _called(
        self,
        layer: Dense | Convolution | Scale,
        rule: LinearRule,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> LayerCall:
        first = self.rules.first is not None and not self.graph.behind_a_rule(inputs)
        if first and self.rules.first is not None:
            if what := self.graph.moved(inputs):
                raise ValueError(
                    f"the model changes the images ({what}) before its first layer, so that low "
                    "and high are not the bounds of what that layer sees: do that before the "
                    "model, or use composite='epsilon_plus'"
                )
            rule = self.rules.first
            self.first_ruled = True
        return LayerCall(
            layer,
            weight.detach(),
            None if bias is None else bias.detach(),
            inputs,
            inputs,
            inputs._version,
            rule,
            not self.graph.nonnegative(inputs),
            first,
        )

    def _result(self, call: LayerCall, outputs: Tensor) -> Tensor:
        self._finish()
        self.count += 1
        prepared = Prepared(call)
        result: Tensor = Affine.apply(call.inputs, (outputs,), prepared)
        self._pending = (prepared, dataclasses.replace(call, outputs=outputs))
        self._calls[result] = (result._version, call)
        return result

    def _norm(self, given: Given) -> Tensor:
        values = given.values
        mean, variance = values.get("running_mean"), values.get("running_var")
        if values.get("training", False) or mean is None or variance is None:
            raise ValueError(
                f"{self.name} needs BatchNorm with running statistics, in eval mode: with those of "
                "the batch an image's score depends on the other images"
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
            raise ValueError(self.unruled("a layer whose input is overwritten before its norm"))
        if self._pending is not None and self._pending[1].weight is call.weight:
            # What the layer without its norm needs is not computed, unless it is used once more.
            self._merged[inputs] = self._pending[0]
            self._pending = None
        merged = shift if call.bias is None else call.bias * scale + shift
        weight = call.layer.scaled(call.weight, scale)
        return self._result(dataclasses.replace(call, weight=weight, bias=merged), outputs)

    def _ratio(self, given: Given) -> Any:
        values, name = given.values, given.spelled.rstrip("_")
        inputs, at_zero = values["input"], RATIOS[name]
        if name in BOUNDS:
            bounds = [values.get(b, d) for b, d in BOUNDS[name]]
            low, high = bounds
            if not all(isinstance(b, (int, float)) for b in bounds) or not low <= 0 < high:
                return given.call()  # a ReLU, or what the graph refuses
            at_zero = 0.0 if low == 0 else 1.0
        inplace = given.spelled.endswith("_") or bool(values.get("inplace", False))
        if inplace and inputs._is_view():
            raise ValueError(self.unruled(f"{name} in place on a part of a tensor"))
        options = {k: v for k, v in values.items() if k not in ("input", "inplace")}
        with torch.no_grad():
            own = inputs.detach().clone() if inplace else inputs.detach()
            outputs = given.func(own, **options)
        return Ratio.apply(inputs, (outputs,), at_zero, inplace)


def _products(node: Node) -> Iterator[Node]:
    """Yield the product that a halved result comes from, behind what moves its values."""
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
    """Return of how many dimensions results are whose second is that of a layer's outputs."""
    return 2 if isinstance(call.layer, Dense) else call.inputs.ndim
