"""How far heat is drawn from planted evidence, with cells stretched over the image and measured.

    python benchmarks/planted_offsets.py

Trains twelve small networks (about 9 minutes of one core; kept in ``benchmarks/.planted``) and
prints a table. The heat's centre is the mean pixel position, weighted by the heat, of Grad-CAM's
heatmap of the picture's class; the patch's own centre is subtracted, and the difference is
averaged over held-out pictures. Heat elsewhere draws the centre towards the middle of the picture,
for patches on either side alike, so that it cancels in the mean.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Literal

import planted_networks
import torch
from torch import Tensor, nn

import camlens
from camlens.registration import Registration

#: Pixels: the largest mean distance along an axis with measured cells.
BAR = 1.5
#: So many pictures are given to the call that measures.
_MEASURED = 8


@dataclasses.dataclass(frozen=True)
class Row:
    """One network's offsets along y and x, in pixels.

    Attributes:
        accuracy: share of the held-out pictures that are classified correctly.
        stretched: heat minus evidence with the cells stretched over the picture.
        measured: the same with the cells at their measured centres.
        error: standard error of ``measured``; that of ``stretched`` is the same within a tenth.
        registration: what was measured.
    """

    variant: str
    seed: int
    accuracy: float
    stretched: tuple[float, ...]
    measured: tuple[float, ...]
    error: tuple[float, ...]
    registration: Registration

    @property
    def good(self) -> bool:
        """Whether the bar is met on both axes."""
        return all(abs(m) <= BAR for m in self.measured)


def heat_centres(heatmaps: Tensor) -> Tensor:
    """Return (N, 2): the mean position weighted by the heat, y and x; NaN without heat."""
    heat = heatmaps[:, 0]
    axes = zip((heat.sum(dim=2), heat.sum(dim=1)), heat.shape[1:], strict=True)
    weighted = [h @ (torch.arange(n) + 0.5) / h.sum(dim=1) for h, n in axes]
    return torch.stack(weighted, dim=1)


def explain(
    model: nn.Module, images: Tensor, classes: Tensor, kind: Literal["stretched", "measured"]
) -> tuple[Tensor, Registration]:
    """Return (N, 1, H, W) heatmaps, and the registration by which they are drawn."""
    explainer = camlens.GradCAM(model, planted_networks.LAYER, registration=kind)
    explainer(images[:_MEASURED], targets=classes[:_MEASURED])  # measures, and keeps it
    explanation = explainer(images, targets=classes)
    return explanation.heatmaps, explanation.registration


def measure(variant: str, seed: int, steps: int, count: int) -> Row:
    """Train a network, or load it, and return its row."""
    model = planted_networks.trained(variant, seed, steps)
    generator = torch.Generator().manual_seed(1000 + seed)
    images, classes, evidence = planted_networks.pictures(count, generator)
    with torch.no_grad():
        accuracy = (model(images).argmax(dim=1) == classes).float().mean().item()
    means, errors = [], []
    for kind in ("stretched", "measured"):
        heatmaps, registration = explain(model, images, classes, kind)
        off = heat_centres(heatmaps) - evidence
        off = off[off.isfinite().all(dim=1)]
        means.append(tuple(off.mean(dim=0).tolist()))
        errors.append(tuple((off.std(dim=0) / len(off) ** 0.5).tolist()))
    return Row(
        variant=variant,
        seed=seed,
        accuracy=accuracy,
        stretched=means[0],
        measured=means[1],
        error=errors[1],
        registration=registration,
    )


def line(row: Row) -> str:
    """Return a row of the table: pixels along y and x."""
    place = row.registration
    return "  ".join(
        (
            f"{row.variant:10} {row.seed}",
            f"{row.accuracy:8.3f}",
            _numbers(row.stretched),
            _numbers(place.offset) + " +-" + _numbers(place.offset_error, sign=""),
            _numbers(row.measured) + " +-" + _numbers(row.error, sign=""),
            "" if row.good else "missed",
        )
    ).rstrip()


def _numbers(values: Sequence[float] | None, sign: str = "+") -> str:
    return " ".join(f"{v:{sign}5.1f}" for v in values or ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of 32 pictures, in training")
    parser.add_argument("--pictures", type=int, default=512, help="held out, in each mean")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    print("network   seed  accuracy  stretched (y x)  cells measured off by    measured (y x)")
    rows = []
    for seed in range(args.seeds):
        for variant in planted_networks.VARIANTS:
            rows.append(measure(variant, seed, args.steps, args.pictures))
            print(line(rows[-1]), flush=True)
    print(f"at most {BAR} px on both axes: {sum(r.good for r in rows)} of {len(rows)} networks")


if __name__ == "__main__":
    main()
