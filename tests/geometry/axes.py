"""Networks whose layers' axes are known, and a plain way to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from camlens import geometry

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Shown(nn.Module):
    """Apply a function, so that its result is a layer's output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Tensor) -> Tensor:
        return self.function(value)


def runner(model: nn.Module, *inputs: object) -> geometry.Run:
    """Return a function that runs a model and captures the layers named."""
    modules = dict(model.named_modules())

    def run(images: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        captured: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: object, output: object) -> None:
                first = output[0] if isinstance(output, tuple) else output
                if isinstance(first, Tensor) and first.is_floating_point():
                    captured[name] = first.clone()

            return hook

        handles = [modules[name].register_forward_hook(keep(name)) for name in names]
        try:
            with torch.no_grad():
                model(images, *inputs)
        finally:
            for handle in handles:
                handle.remove()
        return captured

    return run


def read(
    model: nn.Module,
    images: Tensor,
    *inputs: object,
    names: Sequence[str] | None = None,
    fixed: bool = False,
) -> dict[str, geometry.Reading]:
    """Measure layers of a model, all of them by default."""
    kinds = {name: type(module) for name, module in model.eval().named_modules() if name}
    run = runner(model, *inputs)
    ran = run(images, list(kinds))
    kinds = {name: kind for name, kind in kinds.items() if name in ran}
    return geometry.measure(run, names or list(kinds), images, kinds=kinds, fixed=fixed)
