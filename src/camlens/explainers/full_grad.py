"""FullGrad: the image and every bias of the network, each times its gradient."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from ..layers.measurement import measure_spans
from ..layers.measurement_cache import inputs_key
from ..methods.gradient import full_gradient_sizes
from ..probe import Probe, Site
from ..probe.hooks import in_evaluation
from ..registration import Registration, Span, place
from .base import Attribution, Explainer, at_least_float32

__all__ = ["FullGrad"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_KNOWN = (*_CONVOLUTIONS, *_NORMS, nn.Linear)


@final
class FullGrad(Explainer):
    r"""FullGrad (Srinivas and Fleuret 2019): image and biases, each times its gradient, summed.

    .. math:: L = \psi\Big(x \odot \frac{\partial y}{\partial x}\Big)
              + \sum_l \psi\Big(b_l \odot \frac{\partial y}{\partial b_l}\Big), \quad
              \psi(p) = \sum_c \frac{|p_c|}{\max |p|}

    x is the image, y the explained score and :math:`b_l` the biases of layer l at each cell; each
    layer's map is resized to the image. Biases of layers without a spatial grid, such as linear
    layers after pooling, count in the completeness gap only.

    In a network of convolutions, BatchNorm, linear layers and ReLUs, the score equals the sum of
    the image times its gradient and of every bias times its gradient.
    ``measures["completeness_gap"]`` (N, K) is the absolute difference between the two. It is large
    for other activations, such as GELU, and for parameters that the model adds itself: the map
    then omits part of the evidence.

    Source: Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization",
    NeurIPS 2019 (arXiv:1905.00780), equations 3 and 5. As a function of tensors:
    :func:`camlens.methods.gradient.full_gradient_sizes`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        create_graph: see :class:`Explainer`.

    Raises:
        ValueError: when called, if other layers have biases (such as attention or LayerNorm), or if
            a layer with a bias also applies an activation or runs several times.
    """

    cost = "F + F for each target"

    def __init__(self, model: nn.Module, *, create_graph: bool = False) -> None:
        super().__init__(model, create_graph=create_graph)
        #: For each shape of inputs, the layers with a bias that run, each once, and which part of
        #: the images each covers.
        self._measured: dict[Hashable, Mapping[str, Span | None]] = {}

    def attribute(self, probe: Probe) -> Attribution:
        """Run one forward pass, and one backward pass through the whole model."""
        biases = self._biases(probe)
        sites = [Site(name) for name in biases]
        traced = probe.run(sites=sites, start="images")
        total: Tensor | None = None
        maps: list[Tensor] = []
        images = at_least_float32(probe.images)
        scores = at_least_float32(traced.scores)
        count = scores.shape[1]
        for k in range(count):  # one target at a time, as the gradients of all layers are large
            last = k == count - 1
            by_image, by_layer = traced.all_gradients(
                slice(k, k + 1), keep_graph=not last, create_graph=self.create_graph
            )
            parts = [images * at_least_float32(by_image)[:, 0]]
            for (name, bias), gradient in zip(biases.items(), by_layer, strict=True):
                module = probe.model.get_submodule(name)
                rows = _channels_first(module, at_least_float32(gradient)[:, 0])
                if len(rows) != len(images):
                    raise ValueError(
                        f"the layer {name!r} has {len(rows)} rows for {len(images)} images, so its "
                        "bias cannot be attributed to an image: use IntegratedGradients"
                    )
                parts.append(rows * bias.view(1, -1, *[1] * (rows.ndim - 2)).to(rows))
            sums = torch.stack([part.flatten(1).sum(dim=1) for part in parts]).sum(dim=0)
            total = sums[:, None] if total is None else torch.cat([total, sums[:, None]], dim=1)
            spans = [None, *self._measured[inputs_key(probe)].values()]
            drawn = [
                _draw(full_gradient_sizes(part), probe.size, span)
                for part, span in zip(parts, spans, strict=True)
                if part.ndim == images.ndim
            ]
            maps.append(torch.stack(drawn).sum(dim=0))
        gap = scores if total is None else scores - total
        return Attribution(
            raw=torch.stack(maps, dim=1), measures={"completeness_gap": gap.detach().abs()}
        )

    def _biases(self, probe: Probe) -> dict[str, Tensor]:
        """Return the bias of each layer that runs; for BatchNorm, its bias in inference mode."""
        biases: dict[str, Tensor] = {}
        for name, module in probe.model.named_modules():
            if isinstance(module, _KNOWN):
                bias = bias_of(module)
                if bias is not None:
                    biases[name] = bias
            elif any("bias" in key for key in (*module._parameters, *module._buffers)):
                raise ValueError(
                    "FullGrad is defined for convolutions, BatchNorm and linear layers, but "
                    f"{name!r} is a {type(module).__name__} with a bias: use IntegratedGradients, "
                    "which is complete for every network"
                )
        calls = dict.fromkeys(biases, 0)
        custom = {name for name in biases if not _plain(probe.model.get_submodule(name))}

        def count(name: str, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            if name in custom and not _adds(probe.model.get_submodule(name), biases[name], inputs):
                kind = type(probe.model.get_submodule(name)).__name__
                raise ValueError(
                    f"the layer {name!r} is a {kind}, which computes more than a linear map of its "
                    "input plus its bias, such as an activation: use IntegratedGradients, which is "
                    "complete for every network"
                )

        shape = inputs_key(probe)
        if shape in self._measured:
            return {name: biases[name] for name in self._measured[shape]}
        probe.execute(list(biases), count)
        if several := [name for name, number in calls.items() if number > 1]:
            raise ValueError(
                f"the layer {several[0]!r} has a bias and runs {calls[several[0]]} times, so no "
                "single output has the gradient of the bias: use IntegratedGradients"
            )
        names = [name for name, number in calls.items() if number]
        self._measured[shape] = in_evaluation(probe.model, lambda: measure_spans(probe, names))
        return {name: biases[name] for name in names}


def _draw(sizes: Tensor, size: tuple[int, ...], span: Span | None) -> Tensor:
    """Return one layer's map, (N, *grid), at the images' size."""
    registration = Registration.stretched(size, tuple(sizes.shape[1:]), span=span or None)
    return place(sizes.unsqueeze(1), registration).squeeze(1)


def _channels_first(module: nn.Module, output: Tensor) -> Tensor:
    """Return a layer's output as (N, C, ...): a linear layer has its channels last."""
    return output.movedim(-1, 1) if isinstance(module, nn.Linear) else output


def _plain(module: nn.Module) -> bool:
    """Return whether a layer has the forward method of torch's own layer."""
    return any(type(module).forward is kind.forward for kind in _KNOWN)


def _adds(module: nn.Module, bias: Tensor, inputs: tuple[Any, ...]) -> bool:
    """Return whether a layer of a user's class is a linear map plus its bias for these inputs."""
    with torch.no_grad():
        one, other = (
            _channels_first(module, at_least_float32(module.forward(x)))
            for x in (inputs[0], -inputs[0])
        )
    twice = 2 * bias.view(1, -1, *[1] * (one.ndim - 2)).to(one)
    largest = one.abs().amax() + twice.abs().amax()
    return bool((one + other - twice).abs().amax() <= 1e-2 * largest)


def bias_of(module: nn.Module) -> Tensor | None:
    """Return the (C,) bias of a layer, or None if it has none.

    BatchNorm in inference mode is a scale and a bias; its statistics are part of that bias.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> _ = norm.running_mean.fill_(2.0), norm.running_var.fill_(4.0), norm.bias.data.fill_(3.0)
        >>> round(bias_of(norm).item(), 3)
        2.0
    """
    if isinstance(module, _NORMS):
        if module.running_mean is None or module.running_var is None:
            raise ValueError(
                "FullGrad needs BatchNorm with running statistics: without them an image's score "
                "depends on the other images of its batch"
            )
        scale = (module.running_var + module.eps).rsqrt()
        shift = -module.running_mean * scale
        if module.affine:
            shift = shift * module.weight + module.bias
        return shift
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, Tensor) else None
