"""Reads from the autograd graph what depends on the images, and which operations lack an LRP rule.

With relevance as the product of a value and its gradient, every operation that is linear or selects
values distributes it correctly. The graph shows all operations, however the model calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

#: Names of operations that move, select or repeat values.
MOVES = frozenset(
    [
        *("Alias", "AsStrided", "Clone", "Copies", "Copy", "ToCopy", "View", "UnsafeView"),
        *("ReshapeAlias", "Reshape", "Transpose", "Permute", "T", "Squeeze", "Unsqueeze"),
        *("Expand", "Repeat", "Slice", "Select", "Narrow", "Index", "IndexSelect", "Gather"),
        *("Take", "Cat", "Stack", "Split", "SplitWithSizes", "UnsafeSplit", "Unbind", "Flip"),
        *("Roll", "ConstantPadNd", "Unfold", "Im2Col", "PixelShuffle", "PixelUnshuffle"),
        *("ChannelShuffle", "Movedim", "Diagonal", "Triu", "Tril", "CopySlices", "IndexPut"),
        *("MaskedFill", "MaskedSelect", "ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D"),
        *("ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D", "Detach", "Contiguous"),
    ]
)
#: Linear operations without weights.
_SUMS = frozenset(
    [
        *("Add", "Sub", "Rsub", "Neg", "Sum", "Mean", "Where", "Cumsum", "Col2Im", "SumToSize"),
        *("AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D"),
        *("UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D", "UpsampleLinear1D"),
        *("UpsampleBilinear2D", "UpsampleTrilinear3D", "UpsampleBicubic2D"),
        *("UpsampleBilinear2DAa", "UpsampleBicubic2DAa", "UpsampleNearestExact2D"),
    ]
)
#: Piecewise linear operations whose pieces all pass through zero: f(x) = x f'(x).
_PIECEWISE = frozenset(
    [
        *("Relu", "LeakyRelu", "Prelu", "PreluKernel", "Abs", "Max", "Min", "Amax", "Amin"),
        *("Maximum", "Minimum", "Topk", "Sort", "Kthvalue", "Median"),
        *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "MaxPool2D"),
        *("AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "MkldnnMaxPool2D"),
    ]
)
#: Products, which are linear in each of their two factors.
PRODUCTS = frozenset(["Mul", "Mm", "Bmm", "Mv", "Dot"])
_PASSING = MOVES | _SUMS | _PIECEWISE | {"AccumulateGrad"}
#: Operations whose results are not negative if their inputs are not.
_KEEPING = MOVES - {"CopySlices", "IndexPut", "MaskedFill", "ConstantPadNd", "Copies"} | {
    *("Sum", "Mean", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D"),
    *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"),
}


def kind(node: Node) -> str:
    """Return the operation of a node, such as ``"Relu"``."""
    name = node.name().rpartition("::")[2].rstrip("0123456789")
    return name.removesuffix("Backward")


def function(node: Node) -> type | None:
    """Return the custom autograd function (ours or a user's) of a node, or None."""
    found: type | None = getattr(type(node), "_forward_cls", None)
    return found


class EvidenceGraph:
    """Queries on the autograd graph of one run: what its tensors depend on.

    Results are cached for each node.

    Args:
        constants: tensors that count as constants even if they require gradients: the model's
            parameters.
        rules: autograd functions with their own relevance rule.
        allowed: operations that pass relevance by their plain gradient, in addition to the common
            ones.
    """

    def __init__(
        self, constants: Iterable[Tensor], rules: Iterable[type], allowed: Iterable[str] = ()
    ) -> None:
        self._constants = {id(tensor) for tensor in constants}
        self.rules = frozenset(rules)
        self.allowed = frozenset(allowed)
        self._evidence: dict[Node, bool] = {}
        self._ruled: dict[Node, bool] = {}
        self._positive: dict[Node, bool] = {}

    def holds(self, value: object) -> bool:
        """Return whether a value is a tensor that depends on the images."""
        if not isinstance(value, Tensor) or not value.requires_grad:
            return False
        if value.grad_fn is None:
            return id(value) not in self._constants
        return self.reaches(value.grad_fn)

    def reaches(self, node: Node) -> bool:
        """Return whether a node's result depends on the images."""

        def alone(at: Node) -> bool | None:
            variable = getattr(at, "variable", None)
            return None if variable is None else id(variable) not in self._constants

        return _settled(node, self._evidence, alone, any)

    def behind_a_rule(self, tensor: Tensor) -> bool:
        """Return whether a layer with a rule lies between the images and a tensor."""
        if tensor.grad_fn is None:
            return False
        return _settled(
            tensor.grad_fn, self._ruled, lambda at: function(at) in self.rules or None, any
        )

    def nonnegative(self, tensor: Tensor) -> bool:
        """Return whether the graph alone proves that no value is negative."""

        def alone(at: Node) -> bool | None:
            if kind(at) == "Relu" or rectifies(at):
                return True
            if kind(at) == "Add":
                follow = [node for node, _ in at.next_functions]
                alike = getattr(at, "_saved_alpha", None) == 1 and None not in follow
                return None if alike else False
            return None if kind(at) in _KEEPING and function(at) is None else False

        return tensor.grad_fn is not None and _settled(tensor.grad_fn, self._positive, alone, all)

    def factors(self, node: Node) -> int:
        """Return the number of a node's operands that depend on the images."""
        return sum(n is not None and self.reaches(n) for n, _ in node.next_functions)

    def changed(self, tensor: Tensor) -> str | None:
        """Return an operation before a tensor that changes the images' values, or None."""
        for node in self._until(tensor.grad_fn, lambda _: False):
            if kind(node) not in {*MOVES, "AccumulateGrad"}:
                return named(node)
        return None

    def to_the_image(
        self, tensor: Tensor, last: Callable[[Node], bool] = lambda _: False
    ) -> Iterable[Node]:
        """Yield the nodes between a tensor and the images, stopping where ``last`` is true."""
        return self._until(tensor.grad_fn, last)

    def _until(self, start: Node | None, last: Callable[[Node], bool]) -> Iterator[Node]:
        stack, seen = [start], set[Node]()
        while stack:
            node = stack.pop()
            if node is None or node in seen or not self.reaches(node):
                continue
            seen.add(node)
            yield node
            if not last(node):
                stack += [following for following, _ in node.next_functions]


def refused(graph: EvidenceGraph, node: Node, shared: Container[Node]) -> str | None:
    """Return the name of an operation that has no relevance rule; None if it has one.

    Args:
        graph: the graph that the node is part of.
        node: an operation that depends on the images.
        shared: products whose relevance is divided between both factors.
    """
    what = kind(node)
    if function(node) is not None:
        return None if function(node) in graph.rules else named(node)
    if what in _PASSING or rectifies(node):
        return None
    if what == "Mul" or (what in PRODUCTS and what in graph.allowed):
        whole = graph.factors(node) == 1 or node in shared
        return None if whole else "a product of two image-dependent tensors, such as a gate"
    if what == "Div":
        divisor = node.next_functions[1][0] if len(node.next_functions) > 1 else None
        constant = divisor is None or not graph.reaches(divisor)
        return None if constant else "a division by an image-dependent tensor"
    return None if what in graph.allowed else named(node)


def rectifies(node: Node) -> bool:
    """Return whether a node is a clamp that is equivalent to a ReLU."""
    if kind(node) not in ("Clamp", "ClampMin"):
        return False
    return getattr(node, "_saved_min", None) == 0 and getattr(node, "_saved_max", None) is None


def named(node: Node) -> str:
    """Return an operation's name as users know it, such as ``native_layer_norm``."""
    known = function(node)
    name = kind(node) if known is None else known.__name__
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).strip("_")
    if known is None and name in _LAYERS:
        return (
            f"a layer ({words}) whose call camlens cannot see, as in a scripted module or in "
            "torch.vmap"
        )
    return words


#: Layers that have a rule if their call is intercepted.
_LAYERS = frozenset(
    [
        *("Convolution", "ConvolutionOverrideable", "MkldnnConvolution", "CudnnConvolution"),
        *("Addmm", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "Linear"),
    ]
)


def _settled(
    start: Node,
    known: dict[Node, bool],
    alone: Callable[[Node], bool | None],
    combine: Callable[[Iterable[bool]], bool],
) -> bool:
    """Evaluate a property of a node, from itself or from the nodes before it.

    A loop instead of a recursion, as graphs are deep.
    """
    stack = [start]
    while stack:
        node = stack[-1]
        if node in known:
            stack.pop()
            continue
        value = alone(node)
        if value is not None:
            known[node] = value
            continue
        follow = [following for following, _ in node.next_functions]
        missing = [n for n in follow if n is not None and n not in known]
        if missing:
            stack += missing
        else:
            known[node] = combine([n is not None and known[n] for n in follow]) and bool(follow)
    return known[start]
