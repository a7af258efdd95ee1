"""Images of many sizes are one way of making heatmaps; a run that has not ended has its regions."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import camlens
from camlens import regions
from camlens.dataset import Run, RunOptions, explain_dataset
from camlens.dataset import manifest as manifests
from camlens.report import gallery, grids, write_report
from camlens.report.findings import findings
from camlens.report.tables import load

SETTING = ("GradCAM", "0")
HALVES = regions.Regions.from_boxes(["left", "right"], [[0, 0, 8, 16], [8, 0, 16, 16]], (16, 16))


def halves(pictures):
    return HALVES.resize(pictures.shape[-2:])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over 24 images of 12 sizes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    ).eval()
    items = [(torch.rand(3, 16 + 2 * (i % 12), 20), i % 3) for i in range(24)]
    return explain_dataset(
        camlens.GradCAM(net, "0"),
        items,
        tmp_path_factory.mktemp("sizes") / "run",
        RunOptions(regions=halves, shard_size=8),
        progress=False,
    )


def test_the_grid_is_no_setting(run):
    tables = load(run)
    assert tables.settings == [SETTING]
    assert gallery.setting_names(tables) == ["GradCAM at 0, grids from 8x10 to 19x10"]


def test_every_map_is_in_the_gallery(run):
    tables = load(run)
    records = gallery.records(tables, tables.images["image"].tolist())
    found = [(m["setting"], m["height"], m["width"]) for r in records for m in r["maps"]]
    assert found == [(0, 8 + i % 12, 10) for i in range(24)]
    density = run.regions.pivot(index="image", columns="region", values="density").to_numpy()
    shown = np.array([r["maps"][0]["density"] for r in records], dtype=float)
    np.testing.assert_allclose(shown, density, rtol=1e-3)


def test_means_are_over_all_sizes(run):
    means = run.regions.groupby("region")["density"].mean()
    (densest,) = (one for one in findings(load(run)) if one.label.startswith("densest"))
    assert densest.figure == f"{means.max():.2f}"
    assert "95% interval" in densest.text
    whole = grids.density_grid(load(run), SETTING).rows[0]
    assert [cell.text for cell in whole.cells] == [f"{means[n]:.2f}" for n in ("left", "right")]
    assert all("to" in cell.note for cell in whole.cells)
    (coarse,) = (one for one in findings(load(run)) if one.label.startswith("too coarse"))
    assert "as a cell of its map's grid" in coarse.text


def test_an_unfinished_runs_regions_are_told(run):
    path = run.path / "manifest.json"
    whole = path.read_text("utf-8")
    # What a function finds is known at the end of the run only.
    changes = {"complete": False, "regions": None, "shards": []}
    manifests.write(run.path, {**json.loads(whole), **changes})
    part = Run(run.path, incomplete=True)
    found = {one.label: one for one in findings(load(part))}
    page = write_report(part).read_text("utf-8")
    path.write_text(whole)
    assert "density of heat" not in found
    assert any(label.startswith("densest") for label in found)
    assert not math.isnan(float(next(f for n, f in found.items() if "densest" in n).figure))
    assert "no regions" not in page
