"""What the first call measures of a model, and what a later call adds to forward plus backward.

The first call's extra cost is counted in operations, over those of a bare forward pass of one
image, so it does not depend on the machine. The overhead of a later call is timed on a network so
small that nothing but overhead is left.
"""

from __future__ import annotations

import functools
import gc
import statistics
from collections.abc import Callable

import torch
from measure import flops, seconds
from networks import build
from torch import Tensor, nn

import camlens

#: Name, images' side, and a layer for the rows with a named layer.
NETWORKS = (
    ("vgg19", 224, "features.34"),
    ("resnet50", 224, "layer4"),
    ("densenet121", 224, "features"),
    ("convnext_tiny", 224, "features"),
    ("swin_t", 224, "permute"),
    ("vit_b_16", 224, "encoder.layers.encoder_layer_10"),
)
#: Calls timed for the overhead of a later call.
_CALLS = 300


def first_call_costs(device: str, *, quick: bool) -> list[tuple[str, ...]]:
    """Return for each network the first call's extra operations in forward passes of an image."""
    lines = []
    for name, size, layer in NETWORKS[:2] if quick else NETWORKS:
        side = 64 if quick else size
        model = build(name).to(device)
        images = torch.randn(1, 3, side, side, device=device)
        forward = flops(functools.partial(_run, model, images))
        costs = []
        for explainer in (
            camlens.GradCAM(model, layer),
            camlens.GradCAM(model),
            camlens.GradCAM(model, layer, registration="measured"),
        ):
            call = functools.partial(explainer, images)
            first, later = flops(call), flops(call)
            costs.append((first - later) / forward)
        lines.append((f"{name}@{side}", *(f"{cost:.1f}" for cost in costs)))
    return lines


def later_call_overhead(device: str, *, quick: bool) -> tuple[str, ...]:
    """Return microseconds of a bare forward and backward, of a call, and their difference."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    model = model.eval().to(device)
    images = torch.rand(1, 1, 8, 8, device=device)
    explainer = camlens.GradCAM(model, "1")

    def bare() -> Tensor:
        hidden = model[1](model[0](images))
        scores = model[4](model[3](model[2](hidden)))
        return torch.autograd.grad(scores[:, 0].sum(), hidden)[0]

    calls: dict[str, Callable[[], object]] = {
        "bare": bare,
        "call": lambda: explainer(images, targets=0),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for _ in range(20 if quick else _CALLS):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    bare_time, call_time = (statistics.median(times[name]) * 1e6 for name in ("bare", "call"))
    difference = call_time - bare_time
    return tuple(f"{value:.0f} us" for value in (bare_time, call_time, difference))


@torch.no_grad()
def _run(model: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = model(images)
    return outputs
