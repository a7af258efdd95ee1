"""Images of many sizes are one way of making heatmaps; a run that has not ended has its regions."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import camlens
from camlens import regions
from camlens.dataset import Run, RunOptions, explain_dataset
from camlens.dataset import manifest as manifests
from camlens.report import gallery, region_tables, write_report
from camlens.report.findings import findings
from camlens.report.pictures import drawn_size, pictures
from camlens.report.run_tables import load
from camlens.report.wording import name

from .test_pictures import decoded

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
    assert tables.setting_name(SETTING) == "GradCAM"
    assert tables.setting_detail(SETTING) == "0, grids from 8x10 to 19x10"


def test_every_map_is_in_the_gallery(run):
    tables = load(run)
    records = gallery.records(tables, tables.images["image"].tolist())
    assert [m["setting"] for r in records for m in r["maps"]] == [0] * 24
    drawn = [decoded(one["heat"][0]).shape[:2] for one in pictures(tables, records)]
    assert drawn == [drawn_size(16 + 2 * (i % 12), 20) for i in range(24)]
    density = run.regions.pivot(index="image", columns="region", values="density").to_numpy()
    shown = np.array([r["maps"][0]["density"] for r in records], dtype=float)
    np.testing.assert_allclose(shown, density, rtol=1e-3)


def test_means_are_over_all_sizes(run):
    means = run.regions.groupby("region")["density"].mean()
    (densest,) = (one for one in findings(load(run)) if one.label == "densest region")
    assert densest.values[0].text == f"{name(means.idxmax())} {means.max():.2f}"
    low, high = map(float, densest.values[0].note.split(" to "))
    assert low < means.max() < high
    (grid,) = region_tables.density_grids(load(run))
    assert [cell.text for cell in grid.rows[0].cells] == [f"{means[n]:.2f}" for n in grid.columns]
    assert all("to" in cell.note for cell in grid.rows[0].cells)


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
    assert [value.text for value in found["densest region"].values]
    assert '<h2 id="density-title">' in page
