"""From a model to the page: what is shown is what the explainer found."""

import base64

import numpy as np
import pytest
import torch
from torch import nn

import camlens
from camlens import regions
from camlens.dataset import Run, RunOptions, explain_dataset
from camlens.report import write_report

from .test_pictures import decoded, overlaid

SIDE = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    ).eval()
    items = [(torch.rand(3, SIDE, SIDE), i % 3) for i in range(14)]
    quarters = [[x, y, x + 20, y + 20] for y in (0, 20) for x in (0, 20)]
    boxes = regions.Regions.from_boxes(["a", "b", "c", "d"], quarters, (SIDE, SIDE))
    out = tmp_path_factory.mktemp("real") / "run"
    return explain_dataset(
        [camlens.GradCAM(net, "2"), camlens.LayerCAM(net, "0")],
        items,
        out,
        RunOptions(
            regions=boxes,
            targets="all",
            infill="mean",
            classes=["x", "y", "z"],
            shard_size=5,
        ),
        progress=False,
    )


@pytest.mark.slow
def test_the_page_shows_the_runs_heatmaps_and_photographs(browser, run):
    browser.open(write_report(run))
    browser.choose("target", "all")
    shown = browser.until(
        "const tiles = [...document.querySelectorAll('#cards [data-map] .picture')];"
        "const images = tiles.map((tile) => [...tile.querySelectorAll('img')]);"
        "return tiles.length > 5 && images.flat().every((image) => image.complete) &&"
        "images.map((pair) => pair.map((image) => image.src))"
    )
    maps = run.maps.sort_values(["image", "method", "k"], kind="stable")
    thumbnails = [base64.b64encode(one).decode() for one in run.images["thumbnail"]]
    some = 0
    for (photo, *heat), (_, row) in zip(shown, maps.iterrows(), strict=False):
        assert photo.split(",")[1] == thumbnails[row["image"]]
        assert len(heat) == row["evidence"]
        if heat:
            h, w = row["heat_height"], row["heat_width"]
            cells = np.frombuffer(row["heat"], "u1").reshape(1, 1, h, w).astype("float32")
            large = camlens.heatmap.resize(torch.from_numpy(cells), (224, 224))
            expected = overlaid(camlens.heatmap.scale(large), (224, 224))
            assert np.abs(decoded(heat[0]) - expected).mean() < 6
            some += 1
    assert some > 5


@pytest.mark.slow
def test_a_folder_does_as_well(run):
    page = write_report(run)
    first = page.read_bytes()
    assert write_report(run.path).read_bytes() == first
    assert isinstance(run, Run)
    assert np.array_equal(run.images["image"], np.arange(14))
