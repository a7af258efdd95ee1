"""Run folders of known content, in the format of ``camlens.dataset``, made without a model."""

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

import camlens
from camlens import heatmap, regions
from camlens.dataset import manifest as manifests
from camlens.dataset.shards import write_checksums
from camlens.faithfulness import RegionAblation
from camlens.regions.outlines import outlines

SIDE, GRID = 48, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What a made run holds; ``targets`` of more than one are those of all classes."""

    images: int = 24
    classes: tuple[str, ...] | None = ("angry", "happy", "sad")
    labels: bool = True
    methods: tuple[str, ...] = ("GradCAM",)
    every_class: bool = False
    scored: bool = True
    ablated: bool = True
    empty: tuple[int, ...] = ()
    names: dict[int, str] = dataclasses.field(default_factory=dict)
    unreadable: tuple[int, ...] = ()
    dtype: str = "uint8"
    shard_size: int = 1000
    region_names: tuple[str, ...] | None = None
    seed: int = 0


def write_run(folder, made=None, **changes):
    """Write a run and return its folder."""
    made = dataclasses.replace(made or Made(), **changes)
    random = np.random.default_rng(made.seed)
    shards = []
    for first in range(0, made.images, made.shard_size):
        last = min(made.images, first + made.shard_size)
        shards.append(f"shard-{len(shards):05d}")
        _write_shard(folder / shards[-1], made, np.arange(first, last), random)
    if not made.images:
        shards = ["shard-00000"]
        _write_shard(folder / shards[0], made, np.arange(0), random)
    manifests.write(folder, _manifest(made, shards))
    seal(folder)
    return folder


def seal(folder):
    """Write the checksums of the shards as they are now."""
    identity = manifests.identity(manifests.read(folder))
    for shard in folder.glob("shard-*"):
        write_checksums(shard, identity, int(shard.name.removeprefix("shard-")))


def change_manifest(folder, **changes):
    """Change what a run's manifest says."""
    manifests.write(folder, manifests.read(folder) | changes)
    seal(folder)


def _manifest(made, shards):
    return {
        "format": "camlens.run.1",
        "model": {"name": "Net", "weights": "0" * 64},
        "methods": [{"method": m, "layers": ["features.9"], "options": {}} for m in made.methods],
        "targets": "all" if made.every_class else "predicted",
        "heatmaps": made.dtype,
        "regions": list(_masks(made).names) if made.scored else None,
        "region_source": "made" if made.scored else None,
        "dataset": {"kind": "made"},
        "infill": "blur" if made.ablated else None,
        "classes": list(made.classes) if made.classes else None,
        "batch_size": 32,
        "shard_size": made.shard_size,
        "versions": {"camlens": "0.1.0", "torch": "2.14.1"},
        "complete": True,
        "images": made.images,
        "unreadable": len(made.unreadable),
        "shards": shards,
    }


def _masks(made):
    masks = camlens.faces.face_template(SIDE)
    return regions.Regions(made.region_names or masks.names, masks.masks)


def _outlines(made):
    return json.dumps(outlines(_masks(made))[0])


def _write_shard(folder, made, ids, random):
    folder.mkdir(parents=True)
    n, c = len(ids), len(made.classes or "abc")
    label = random.integers(0, c, n)
    prediction = np.where(random.random(n) < 0.75, label, random.integers(0, c, n))
    readable = ~np.isin(ids, made.unreadable)
    images = pd.DataFrame(
        {
            "image": ids.astype("int64"),
            "name": pd.array([made.names.get(i, f"folder/{i:05d}.png") for i in ids], "string"),
            "label": pd.array(label if made.labels else [pd.NA] * n, "Int64"),
            "prediction": pd.array(prediction, "Int64"),
            "confidence": pd.array((0.4 + 0.6 * random.random(n)).astype("float32"), "Float32"),
            "width": pd.array([SIDE] * n, "Int32"),
            "height": pd.array([SIDE] * n, "Int32"),
            "thumbnail": [
                face(i, p) if r else None for i, p, r in zip(ids, prediction, readable, strict=True)
            ],
            "outlines": pd.array(
                [_outlines(made) if r and made.scored else pd.NA for r in readable], "string"
            ),
            "reason": pd.array(
                [pd.NA if r else "cannot identify image file" for r in readable], "string"
            ),
        }
    )
    images.loc[~readable, ["label", "prediction", "confidence", "width", "height"]] = pd.NA
    images.to_parquet(folder / "images.parquet", index=False)
    ids, label, prediction = ids[readable], label[readable], prediction[readable]
    maps, tables = [], []
    for method in made.methods:
        own, table = _explained(made, method, ids, (label, prediction), random)
        maps.append(own)
        tables.append(table)
    pd.concat(maps).sort_values(["image", "method", "k"]).to_parquet(
        folder / "maps.parquet", index=False
    )
    if made.scored:
        pd.concat(tables).to_parquet(folder / "regions.parquet", index=False)


def _explained(made, method, ids, classes, random):
    """Return the rows of maps and of regions of one method; classes are labels, predictions."""
    label, prediction = classes
    n, c = len(ids), len(made.classes or "abc")
    k = c if made.every_class else 1
    targets = np.tile(np.arange(c), (n, 1)) if made.every_class else prediction[:, None]
    raw = blobs(targets, random)
    raw[np.isin(ids, made.empty)] = 0
    stored = raw / np.maximum(raw.max(axis=(2, 3), keepdims=True), 1e-9)
    stored = np.round(stored * 255).astype("u1") if made.dtype == "uint8" else stored.astype("<f2")
    scores = random.normal(3, 1, (n, k)).astype("float32")
    maps = pd.DataFrame(
        {
            "image": np.repeat(ids, k).astype("int64"),
            "k": np.tile(np.arange(k), n),
            "method": method,
            "layer": "features.9",
            "grid": f"{GRID}x{GRID}",
            "target": targets.reshape(-1).astype("int64"),
            "score": scores.reshape(-1),
            "probability": (1 / (1 + np.exp(-scores))).reshape(-1),
            "evidence": (raw.max(axis=(2, 3)) > 0).reshape(-1),
            "heat": [one.tobytes() for one in stored.reshape(n * k, GRID, GRID)],
            "heat_height": np.int32(GRID),
            "heat_width": np.int32(GRID),
        }
    )
    if not n or not made.scored:
        return maps, _no_regions(made)
    heat = heatmap.scale(heatmap.resize(torch.from_numpy(raw).float(), (SIDE, SIDE)))
    found = regions.score(heat, _masks(made), grid=(GRID, GRID))
    found = dataclasses.replace(
        found,
        targets=torch.from_numpy(targets),
        scores=torch.from_numpy(scores),
        method=method,
        layers=("features.9",),
    )
    table = regions.table(
        found,
        labels=torch.from_numpy(label) if made.labels else None,
        predictions=torch.from_numpy(prediction),
        ablation=_ablation(found, random) if made.ablated else None,
        classes=made.classes,
        images=[int(i) for i in ids],
    )
    return maps, table


def _no_regions(made):
    return regions.table(
        regions.score(torch.rand(1, 1, SIDE, SIDE), _masks(made), grid=(GRID, GRID))
    ).iloc[:0]


def _ablation(found, random):
    density = found.density.nan_to_num(0)
    drop = (density - 1) * 0.5 + torch.from_numpy(random.normal(0, 0.4, density.shape)).float()
    baseline, error = torch.zeros_like(drop), torch.full_like(drop, 0.2)
    return RegionAblation(
        names=found.names,
        drop=drop,
        baseline=baseline,
        standard_error=error,
        exceeds=drop.sigmoid(),
        probability_drop=drop / 10,
        probability_baseline=baseline,
        probability_standard_error=error / 10,
        infill="blur",
        targets=found.targets,
        placements=4,
    )


def blobs(targets, random):
    """Heat near the mouth, the eyes or the brows, by the target, with noise: (N, K, h, w)."""
    heights = np.array([0.78, 0.4, 0.3])[targets % 3] + random.normal(0, 0.06, targets.shape)
    across = random.normal(0.5, 0.12, targets.shape)
    y, x = (np.arange(GRID) + 0.5) / GRID, (np.arange(GRID) + 0.5) / GRID
    far = (y[:, None] - heights[..., None, None]) ** 2 + (x - across[..., None, None]) ** 2 / 2
    heat = np.exp(-far / 0.03) + 0.15 * random.random((*targets.shape, GRID, GRID))
    return np.maximum(heat - 0.1, 0)


def face(seed, mood):
    """A drawn face as PNG, of no person."""
    random = np.random.default_rng(int(seed))
    tint = [int(v) for v in random.integers(120, 235, 3)]
    picture = Image.new("RGB", (SIDE * 2, SIDE * 2), tuple(v // 3 for v in tint))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((12, 6, 84, 94), fill=tuple(tint))
    for x in (26, 58):
        pen.ellipse((x, 32, x + 12, 42), fill=(255, 255, 255))
        pen.ellipse((x + 4, 34, x + 9, 41), fill=(20, 20, 20))
    bow = {0: (34, 74, 62, 76), 1: (32, 60, 64, 82)}.get(int(mood), (34, 72, 62, 90))
    pen.arc(bow, 0 if mood == 1 else 180, 180 if mood == 1 else 360, fill=(90, 20, 20), width=3)
    out = io.BytesIO()
    picture.resize((SIDE, SIDE)).save(out, "PNG")
    return out.getvalue()
