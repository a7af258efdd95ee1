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
def test_the_page_draws_the_runs_heatmaps(browser, run):
    browser.open(write_report(run))
    for setting, method in (("0", "GradCAM"), ("1", "LayerCAM")):
        browser.choose("setting", setting)
        for k in range(3):
            browser.choose("target", f"k{k}")
            found = browser.run(
                "return report.images.map((image) => { const map = chosenMap(image);"
                "return Array.from(heatmap(bytesOf(map.heat), map.height, map.width, 40, 40)); })"
            )
            maps = run.maps[(run.maps["k"] == k) & (run.maps["method"] == method)]
            expected = run.heatmaps(maps).flatten(1)
            shown = torch.tensor(maps["evidence"].tolist())
            assert shown.any()
            found = torch.tensor([one for one, fits in zip(found, shown, strict=True) if fits])
            assert torch.allclose(found, expected[shown], atol=2e-6)


@pytest.mark.slow
def test_the_page_has_the_runs_pictures(browser, run):
    browser.open(write_report(run))
    thumbnails = [base64.b64encode(one).decode() for one in run.images["thumbnail"]]
    assert browser.run("return pictures.map((address) => address.split(',')[1])") == thumbnails


def test_a_folder_does_as_well(run):
    page = write_report(run)
    first = page.read_bytes()
    assert write_report(run.path).read_bytes() == first
    assert isinstance(run, Run)
    assert np.array_equal(run.images["image"], np.arange(14))
