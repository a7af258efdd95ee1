"""Which map to trust on faces: methods by metrics, and whether region ablation agrees.

``.venv/bin/python benchmarks/faithfulness_of_faces.py fer2013.csv --images 200`` judges the maps of
the case study's base network on the first faces of PublicTest that it gets right. Beside the
metrics stands, for each method, the mean rank correlation over the face's regions of a map's
density with what region ablation says the score needs (``camlens.regions.agreement``). The masks of
the metrics of localization are the region whose removal costs the score of a face most. ``--docs``
writes the tables and the figure of docs/which_map_to_trust.rst.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import torch
import trust_tables

import camlens
from camlens import faces, faithfulness, regions
from camlens.faithfulness import FLOORS
from camlens.regions.intervals import Resampling
from fer2013.data.faces import load, to_batch
from fer2013.networks import weights

#: Faces of 48 pixels; eight rows of them change in a step.
STEP = 8 * 48

METRICS = {
    "deletion": functools.partial(faithfulness.deletion, step=STEP),
    "insertion": functools.partial(faithfulness.insertion, step=STEP),
    "road": functools.partial(faithfulness.road, percentages=(20, 50, 80)),
    "sufficiency": faithfulness.sufficiency,
    "average_drop": faithfulness.average_drop,
    "randomization": functools.partial(faithfulness.randomization, steps=1),
    "pointing_game": functools.partial(faithfulness.pointing_game, tolerance=1),
    "energy_pointing_game": faithfulness.energy_pointing_game,
    "intersection_over_union": faithfulness.intersection_over_union,
    "sparseness": faithfulness.sparseness,
}
REGIONS = ("brows", "eyes", "nose", "mouth", "cheeks", "forehead")


def explainers(model: torch.nn.Module) -> dict[str, camlens.Explainer]:
    return {
        **{
            name: getattr(camlens, name)(model)
            for name in (
                *("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "AblationCAM", "LRP"),
                *("Saliency", "GuidedBackprop", "GuidedGradCAM", "FullGrad"),
            )
        },
        "IntegratedGradients": camlens.IntegratedGradients(model, steps=16, progress=False),
        "Occlusion": camlens.Occlusion(model, progress=False),
    }


def agreements(
    model: torch.nn.Module,
    images: torch.Tensor,
    classes: torch.Tensor,
    face: regions.Regions,
    ablation: faithfulness.RegionAblation,
) -> list[tuple[str, float, float, float]]:
    """Return for each method, and each floor, the mean agreement with region ablation."""
    rows = []
    maps = {
        name: explainer(images, targets=classes) for name, explainer in explainers(model).items()
    }
    seeds = torch.arange(len(images))
    some = next(iter(maps.values()))
    for floor, make in FLOORS.items():
        maps[floor] = camlens.Explanation(
            raw=make(images, seeds).float(),
            scores=some.scores,
            targets=some.targets,
            size=some.size,
            grid=some.size,
            method=floor,
        )
    for name, explanation in maps.items():
        found = regions.agreement(regions.score(explanation, face), ablation).flatten()
        known = found[found.isfinite()].double().numpy()
        low, high = Resampling(resamples=2000, seed=0).mean(known[:, None])
        rows.append((name, float(known.mean()), float(low[0]), float(high[0])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--docs", type=Path, help="write STEM.csv, _agreement.csv and .png")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = weights.load()
    public = load(args.data).split("PublicTest")
    images, labels = to_batch(public.images), torch.from_numpy(public.labels).long()
    images, labels = images[: 2 * args.images], labels[: 2 * args.images]
    with torch.no_grad():
        right = model(images).argmax(dim=1) == labels
    images, labels = images[right][: args.images], labels[right][: args.images]
    print(f"{len(images)} faces that the network gets right")
    face = faces.face_template(48).pick(*REGIONS)
    ablation = faithfulness.ablate_regions(model, images, face, targets=labels, placements=8)
    needed = ablation.excess[:, 0].argmax(dim=1)
    counts = torch.bincount(needed, minlength=len(REGIONS)).tolist()
    print("needed most:", dict(zip(REGIONS, counts, strict=True)))
    rows = agreements(model, images, labels, face, ablation)
    for name, mean, low, high in rows:
        print(f"| {name} | {mean:+.2f} | {low:+.2f} to {high:+.2f} |")
    found = faithfulness.evaluate(
        explainers(model),
        model,
        list(zip(images, labels, face.masks[0, needed], strict=True)),
        metrics=METRICS,
        targets="label",
        batch_size=32,
    )
    columns = ["metric", "method", "mean", "low", "high", "best_floor"]
    columns += ["above_floor", "above_low", "above_high", "clear", "level", "seconds"]
    print(found.table[columns].round(3).to_string(index=False))
    print(found.agreement().round(2).to_string())
    if args.docs is not None:
        told = {name: f"{mean:+.2f}" for name, mean, _, _ in rows}
        trust_tables.write(found, args.docs, {"region ablation": told})
    if args.out is not None:
        found.save(args.out)


if __name__ == "__main__":
    main()
