"""What scoring regions costs: 256 images, 7 targets, 8 regions at 48x48, beside a forward pass."""

from __future__ import annotations

import statistics
import time

import torch
from measure import ratios
from networks import Case, load
from peers import bare_forward

import camlens
from camlens import Explanation, regions

_GRIDS = ((12, 12), (48, 48))


def region_scores(device: str, rounds: int, *, quick: bool) -> list[tuple[str, ...]]:
    """Return rows of (grid, seconds, time over ResNet50's forward pass of the same images)."""
    images, targets, size = (8, 2, 48) if quick else (256, 7, 48)
    forward = bare_forward(load(Case("resnet50", images, size=size), device))
    face = camlens.faces.face_template(size).to(device)
    rows = []
    for grid in _GRIDS:
        explanation = Explanation(
            raw=torch.rand(images, targets, *grid, device=device),
            scores=torch.zeros(images, targets, device=device),
            targets=torch.zeros(images, targets, dtype=torch.long, device=device),
            size=(size, size),
            grid=grid,
        )
        _ = explanation.heatmaps  # computed once; scoring is what is timed

        def call(explanation: Explanation = explanation) -> float:
            return regions.score(explanation, face).share.sum().item()  # waits for the device

        call()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        ratio = ratios(forward, {"score": call}, device, rounds)["score"]
        what = f"{images} images, {targets} targets, {len(face)} regions, grid {grid[0]}x{grid[1]}"
        rows.append((what, f"{statistics.median(seconds):.2f} s", f"{ratio:.2f}"))
    return rows
