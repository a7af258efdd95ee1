"""What has no bar but is good to know: number formats, and growth with the workload."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measure import ratios
from networks import Case, Loaded, load
from peers import bare_forward, camlens_grad_cam

FORMATS = ("fp32", "fp32, channels_last", "bf16 autocast", "bf16 autocast, channels_last")


def formats(case: Case, device: str, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Yield (format, forward, Grad-CAM), times over that of the fp32 forward pass."""
    plain = load(case, device)
    channels_last = dataclasses.replace(
        load(case, device), images=plain.images.to(memory_format=torch.channels_last)
    )
    channels_last.model.to(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], Any]] = {}
    for name in FORMATS:
        loaded = channels_last if "channels_last" in name else plain
        for what, adapter in (("forward", bare_forward), ("Grad-CAM", camlens_grad_cam)):
            call = adapter(loaded)
            calls[f"{what} {name}"] = _autocast(call, device) if "bf16" in name else call
    found = ratios(bare_forward(plain), calls, device, rounds)
    for name in FORMATS:
        yield name, found[f"forward {name}"], found[f"Grad-CAM {name}"]


def _autocast(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    def inside() -> Any:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            return call()

    return inside


#: What grows, and the workloads along which it does.
GROWTH = {
    "batch": [Case("resnet50", n) for n in (1, 2, 4, 8, 16)],
    "targets": [Case("resnet50", 8, targets=k) for k in (1, 2, 4, 7, 16)],
    "image size": [Case("resnet50", 4, size=s) for s in (112, 224, 448)],
}


def growth(case: Case, device: str, rounds: int) -> float:
    """Return camlens' Grad-CAM time over that of the forward pass of the same batch."""
    loaded: Loaded = load(case, device)
    calls = {"camlens": camlens_grad_cam(loaded)}
    return ratios(bare_forward(loaded), calls, device, rounds)["camlens"]
