"""Which map to trust, on photographs: methods by metrics, with floors and intervals.

``python benchmarks/faithfulness.py FOLDER WEIGHTS`` with the folder that
``../shared/tiny_imagenet/from_snapshot.py`` writes and the weights of
``benchmarks/train_tiny_imagenet.py``. It prints three tables: methods by metrics, the agreement of
the metrics, and what measured placement changes in the pointing games. ``--images 200`` and
``--registration 2000`` take a part, the first of each class in turn; 0 leaves a table out. With
``--out`` the evaluation is kept, to be read by ``camlens.faithfulness.Evaluation.load``; ``--docs``
writes the tables and the figure of docs/which_map_to_trust.rst.
"""

from __future__ import annotations

import argparse
import csv
import functools
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import trust_tables
from safetensors.torch import load_file
from tiny_imagenet import SIZE, network, normalized, photographs
from torch import Tensor, nn

import camlens
from camlens import faithfulness as measure
from camlens.regions.intervals import Resampling

#: A photograph of 64 pixels for one of some 500, where the pointing game's tolerance is 15.
TOLERANCE = 2
LAYERS = ("layer3", "layer4")

METHODS: dict[str, Callable[[nn.Module], camlens.Explainer]] = {
    **{
        f"{name} at layer3": functools.partial(getattr(camlens, name), layer="layer3")
        for name in (
            *("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "EigenCAM"),
            *("EigenGradCAM", "LayerIntegratedGradients"),
        )
    },
    "GradCAM at layer4": functools.partial(camlens.GradCAM, layer="layer4"),
    "AblationCAM at layer4": functools.partial(camlens.AblationCAM, layer="layer4"),
    "AblationCAM of cells at layer3": functools.partial(
        camlens.AblationCAM, layer="layer3", ablate="cells"
    ),
    **{
        name: getattr(camlens, name)
        for name in ("Saliency", "Deconvnet", "GuidedBackprop", "FullGrad", "LRP")
    },
    "GuidedGradCAM": functools.partial(camlens.GuidedGradCAM, layer="layer3"),
    "IntegratedGradients": functools.partial(camlens.IntegratedGradients, steps=16, progress=False),
    "SmoothGrad of Saliency": lambda model: camlens.SmoothGrad(
        camlens.Saliency(model), samples=10, progress=False
    ),
    "Occlusion": functools.partial(camlens.Occlusion, window=16, stride=8, progress=False),
    "RISE": functools.partial(camlens.RISE, masks=200, center=True, progress=False),
}

METRICS = {
    "deletion": functools.partial(measure.deletion, step=4 * SIZE),
    "insertion": functools.partial(measure.insertion, step=4 * SIZE),
    "road": functools.partial(measure.road, percentages=(20, 50, 80)),
    "sufficiency": measure.sufficiency,
    "average_drop": measure.average_drop,
    "mu_fidelity": functools.partial(measure.mu_fidelity, subsets=50, grid=8),
    "saco": measure.saco,
    "pointing_game": functools.partial(measure.pointing_game, tolerance=TOLERANCE),
    "energy_pointing_game": measure.energy_pointing_game,
    "intersection_over_union": measure.intersection_over_union,
    "randomization": functools.partial(measure.randomization, steps=1),
    "sparseness": measure.sparseness,
}


def boxes(folder: Path, files: list[str]) -> Tensor:
    """Return (N, 4): left, top, right and bottom edge of each photograph's object."""
    with (folder / "val_boxes.csv").open(newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    edges = [[int(rows[name][key]) for key in ("x0", "y0", "x1", "y1")] for name in files]
    return torch.tensor(edges) + torch.tensor([0, 0, 1, 1])  # the last pixel belongs to the box


def masks(edges: Tensor) -> Tensor:
    """Return (N, SIZE, SIZE) masks of boxes."""
    pixels = torch.arange(SIZE)
    inside = [
        (pixels >= edges[:, first, None]) & (pixels < edges[:, last, None])
        for first, last in ((1, 3), (0, 2))
    ]
    return (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).float()


def spread(classes: Tensor, count: int) -> Tensor:
    """Return the places of so many photographs, of all classes in turn."""
    within = torch.stack([(classes[:i] == c).sum() for i, c in enumerate(classes.tolist())])
    return (within * (int(classes.max()) + 1) + classes).argsort()[:count].sort().values


def registration(model: nn.Module, data: list[tuple[Tensor, ...]], batch: int) -> pd.DataFrame:
    """Return by how many points measured placement moves the pointing games, image by image."""
    methods = {
        f"{layer} {how}": camlens.GradCAM(model, layer, registration=how)
        for layer in LAYERS
        for how in ("stretched", "measured")
    }
    games = {name: METRICS[name] for name in ("pointing_game", "energy_pointing_game")}
    found = measure.evaluate(
        methods, model, data, metrics=games, targets="label", floors=(), batch_size=batch
    )
    rows = []
    for game in games:
        for layer in LAYERS:
            values = found.values.query("metric == @game")
            wide = values.pivot_table(index="image", columns="method", values="value")
            gain = 100 * (wide[f"{layer} measured"] - wide[f"{layer} stretched"]).dropna()
            low, high = Resampling(resamples=5000, seed=0).mean(np.asarray(gain)[:, None])
            rows.append(
                {
                    **{"game": game.replace("_", " "), "layer": layer, "photographs": len(gain)},
                    "stretched, %": f"{100 * wide[f'{layer} stretched'].mean():.1f}",
                    "measured adds, points": f"{gain.mean():+.2f}",
                    "95% interval": f"{low[0]:+.2f} to {high[0]:+.2f}",
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--registration", type=int, default=10_000)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--metric", nargs="+", choices=METRICS, default=list(METRICS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--docs", type=Path, help="write STEM.csv, _agreement.csv and so on")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = network()
    model.load_state_dict(load_file(args.weights))
    model.eval().requires_grad_(False)
    pixels, classes, files = photographs(args.folder, "val")
    objects = masks(boxes(args.folder, files))

    def part(count: int) -> list[tuple[Tensor, ...]]:
        rows = spread(classes, count)
        return list(zip(normalized(pixels[rows]), classes[rows], objects[rows], strict=True))

    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(f"top-1 of all {len(classes)} photographs: {top1(model, pixels, classes):.1%}\n")
    if args.registration:
        moved = registration(model, part(args.registration), args.batch)
        print(moved.to_string(index=False), flush=True)
        if args.docs is not None:
            args.docs.parent.mkdir(parents=True, exist_ok=True)
            moved.to_csv(args.docs.with_name(f"{args.docs.name}_registration.csv"), index=False)
    if not args.images:
        return
    found = measure.evaluate(
        {name: METHODS[name](model) for name in args.method},
        model,
        part(args.images),
        metrics={name: METRICS[name] for name in args.metric},
        targets="label",
        batch_size=args.batch,
    )
    columns = ["metric", "method", "images", "mean", "low", "high", "best_floor"]
    columns += ["above_floor", "above_low", "above_high", "clear", "level", "seconds"]
    print(found.table.sort_values(["metric", "method"])[columns].round(3).to_string(index=False))
    print(found.agreement().round(2).to_string())
    if args.docs is not None:
        trust_tables.write(found, args.docs, {})
    if args.out is not None:
        found.save(args.out)


@torch.no_grad()
def top1(model: nn.Module, pixels: Tensor, classes: Tensor) -> float:
    right = [
        (model(normalized(some)).argmax(dim=1) == own).float()
        for some, own in zip(pixels.split(250), classes.split(250), strict=True)
    ]
    return float(torch.cat(right).mean())


if __name__ == "__main__":
    main()
