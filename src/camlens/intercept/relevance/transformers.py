"""Function mode that applies relevance rules to transformers: attention, norms and gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..attention_by_definition import check_explainable, multi_head, scaled_dot_product
from .backward import halved
from .calls import PRODUCTS, ReplacedCall
from .layers import Relevance, Rules


class AttentionRelevance(Relevance):
    """Function mode that applies relevance rules to all layers of a vision transformer.

    In addition to the layers of :class:`Relevance`: LayerNorm and RMSNorm count as linear, with
    their standard deviation as a constant. In a product of two results, as in attention and in
    gated units, each factor gets half of the relevance. Fused attention is computed from its
    definition, as two such products and a softmax, which passes its gradient times its input.

    Source: Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
    Transformers", ICML 2024 (arXiv:2402.05602).

    Args:
        rules: the rule for each kind of layer.
        constants: the model's parameters, which get no relevance.
        attention: ``"softmax"``: relevance passes through the softmax to queries and keys.
            ``"values"``: attention probabilities are constants, and only values get relevance.
    """

    name = "AttnLRP"
    remedy = (
        "use camlens.IntegratedGradients, which needs no rules, or a class activation map such as "
        "camlens.GradCAM"
    )
    allowed = frozenset(["Softmax", "SafeSoftmax", "Mm", "Bmm", "Mv", "Dot"])

    def __init__(
        self,
        rules: Rules,
        constants: Iterable[Tensor],
        attention: Literal["softmax", "values"] = "softmax",
    ) -> None:
        super().__init__(rules, constants)
        self.attention = attention
        self._sigmoids = WeakTensorKeyDictionary()
        self._multiples = WeakTensorKeyDictionary()

    def replacement(self, spelled: str) -> Callable[[ReplacedCall], Any] | None:
        """Return the function that replaces calls of this name, or None."""
        if spelled.rstrip("_") in PRODUCTS:
            return self._product
        if spelled == "sigmoid":
            return self._sigmoid
        if spelled == "softmax" and self.attention == "values":
            return _constant
        return {
            "layer_norm": lambda given: _normalized(given.values, centred=True),
            "rms_norm": lambda given: _normalized(given.values, centred=False),
            "normalize": lambda given: _of_unit_length(given.values),
            "scaled_dot_product_attention": self._attention,
            "multi_head_attention_forward": self._heads,
        }.get(spelled) or super().replacement(spelled)

    def _product(self, call: ReplacedCall) -> Any:
        tensors = [
            part
            for value in call.values.values()
            for part in (value if isinstance(value, (list, tuple)) else [value])
        ]
        factors = sum(map(self.graph.holds, tensors))
        if call.spelled in ("mul", "multiply"):
            left, right = tensors[:2]
            for x, gate in ((left, right), (right, left)):
                if self._gated_by_itself(x, gate):  # SiLU or CLIP's GELU, written out
                    return x * gate.detach()
        if factors > 2:
            raise ValueError(self.unruled("a product of more than two image-dependent tensors"))
        if factors == 2 and call.spelled.endswith("_") and tensors[0]._is_view():
            raise ValueError(self.unruled(f"{call.spelled} on a part of a tensor"))
        result = call.execute()
        if factors == 1 and call.spelled == "mul" and isinstance(tensors[1], (int, float)):
            self._multiples[result] = (tensors[0], tensors[0]._version)
        return halved(result) if factors == 2 else result

    def _sigmoid(self, call: ReplacedCall) -> Tensor:
        """Record a sigmoid's input, as x times the sigmoid of a multiple of x is an activation."""
        result: Tensor = call.execute()
        x = call.values["input"]
        self._sigmoids[result] = self._multiples.get(x, (x, x._version))
        return result

    def _gated_by_itself(self, x: object, gate: object) -> bool:
        if not isinstance(x, Tensor) or not isinstance(gate, Tensor):
            return False
        source, version = self._sigmoids.get(gate, (None, None))
        return source is x and version == x._version

    def _attention(self, call: ReplacedCall) -> Tensor:
        check_explainable(call.values)
        return self.intercepting(lambda: scaled_dot_product(call.values))

    def _heads(self, call: ReplacedCall) -> tuple[Tensor, Tensor | None]:
        check_explainable(call.values)
        return self.intercepting(lambda: multi_head(call.values))


def _constant(call: ReplacedCall) -> Tensor:
    result: Tensor = call.execute()
    return result.detach()


def _normalized(values: Any, *, centred: bool) -> Tensor:
    """Return the output of LayerNorm or RMSNorm, with the standard deviation as a constant."""
    x, shape = values["input"], values["normalized_shape"]
    axes = tuple(range(-(1 if isinstance(shape, int) else len(shape)), 0))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    epsilon = values.get("eps", 1e-5 if centred else None)
    if epsilon is None:
        epsilon = torch.finfo(x.dtype).eps
    if centred:
        wide = wide - wide.mean(axes, keepdim=True)
    y = wide * (wide.detach().square().mean(axes, keepdim=True) + epsilon).rsqrt()
    if values.get("weight") is not None:
        y = y * values["weight"]
    if values.get("bias") is not None:
        y = y + values["bias"]
    outputs: Tensor = y.to(x.dtype)
    return outputs


def _of_unit_length(values: Any) -> Tensor:
    """Return the output of ``F.normalize``, with the length as a constant."""
    x: Tensor = values["input"]
    order, axis = values.get("p", 2.0), values.get("dim", 1)
    length = x.detach().norm(order, axis, keepdim=True).clamp_min(values.get("eps", 1e-12))
    scaled: Tensor = x / length
    return scaled
