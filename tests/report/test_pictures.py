"""The page's pictures: heat is what camlens draws, photographs are what the run holds."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import camlens
from camlens.dataset import Run
from camlens.faces import face_template
from camlens.regions.outlines import outlines
from camlens.report import gallery, pictures
from camlens.report.run_tables import load

from .made import SIDE, write_run


def decoded(address):
    kind, content = address.split(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{picture.format.lower()}"
    return np.asarray(picture.convert("RGB")).astype(float)


def overlaid(heatmaps, size):
    """Return (H, W, 3) colours of a heatmap, as camlens.overlay draws it."""
    drawn = camlens.overlay(torch.zeros(1, 3, *size), heatmaps, alpha=1.0)[0, 0]
    return drawn.permute(1, 2, 0).numpy().astype(float)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "usual"
    made = {"images": 30, "every_class": True, "empty": (2,), "unreadable": (4,), "shard_size": 8}
    return load(write_run(folder, methods=("GradCAM", "LayerCAM"), **made))


def test_heat_is_that_of_the_run(usual, monkeypatch):
    # At the images' own size, where Run.heatmaps has the numbers.
    monkeypatch.setattr(pictures, "SIDE", 48)
    run = Run(usual.run.path)
    records = gallery.records(usual, [9, 20])
    for record, found in zip(records, pictures.pictures(usual, records), strict=True):
        assert len(found["heat"]) == len(record["maps"]) == 6
        for one, address in zip(record["maps"], found["heat"], strict=True):
            rows = run.maps[(run.maps["image"] == record["image"]) & (run.maps["k"] == one["k"])]
            row = rows[rows["method"] == ("GradCAM", "LayerCAM")[one["setting"]]]
            expected = overlaid(run.heatmaps(row)[None], (48, 48))
            assert np.abs(decoded(address) - expected).mean() < 8  # of 255; WebP is not exact
            others = [decoded(other) for other in found["heat"] if other != address]
            assert min(np.abs(other - expected).mean() for other in others) > 8


def test_heat_is_drawn_from_its_own_grid_and_large_enough(usual):
    record = gallery.records(usual, [9])
    address = pictures.pictures(usual, record)[0]["heat"][0]
    row = usual.heat([9]).iloc[0]
    cells = np.frombuffer(row["heat"], "u1").reshape(1, 1, 12, 12).astype("float32")
    heat = camlens.heatmap.scale(camlens.heatmap.resize(torch.from_numpy(cells), (224, 224)))
    shown = decoded(address)
    assert shown.shape == (224, 224, 3)
    assert np.abs(shown - overlaid(heat, (224, 224))).mean() < 3


def test_half_precision_and_bytes_are_the_same_heat():
    values = np.random.default_rng(0).integers(0, 256, (12, 9)).astype("u1")
    half = (values / 255).astype("<f2")
    a, b = (
        np.asarray(Image.open(io.BytesIO(pictures.draw(one.tobytes(), (12, 9), (48, 36)))))
        for one in (values, half)
    )
    assert np.abs(a.astype(int) - b).mean() < 2


def test_maps_finer_than_the_picture_are_averaged():
    fine = np.zeros((128, 128), "u1")
    fine[:2, :2], fine[2:4, :2] = 100, 50
    found = np.asarray(Image.open(io.BytesIO(pictures.draw(fine.tobytes(), (128, 128), (64, 64)))))
    cells = torch.zeros(1, 1, 64, 64)
    cells[0, 0, 0, 0], cells[0, 0, 1, 0] = 1.0, 0.5
    assert np.abs(found - overlaid(cells, (64, 64))).mean() < 3


def test_a_map_without_evidence_has_no_picture(usual):
    records = gallery.records(usual, [2])
    assert pictures.pictures(usual, records)[0]["heat"] == [""] * 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_is_no_heat_is_refused(value):
    heat = np.full((3, 3), value, "<f2").tobytes()
    with pytest.raises(ValueError, match="not heat"):
        pictures.draw(heat, (3, 3), (8, 8))


def test_photographs_are_the_runs_or_nothing(usual):
    found = pictures.pictures(usual, gallery.records(usual, [0, 3]))
    thumbnails = usual.pictures([0, 3])["thumbnail"]
    assert [base64.b64decode(one["photo"].split(",")[1]) for one in found] == thumbnails.tolist()
    assert pictures.photo(b"", 100) == ""
    assert pictures.photo(b"<svg onload=alert(1)>", 100) == ""
    assert pictures.photo(b"RIFFxxxxWEBP", 100) == ""
    assert pictures.photo(b"\xff\xd8\xff broken", 5).startswith("data:image/jpeg;base64,")


def test_outlines_are_those_of_the_regions_in_their_order(usual):
    (found,) = pictures.pictures(usual, gallery.records(usual, [3]))
    expected = outlines(face_template(SIDE))[0]
    assert found["outlines"] == [expected.get(name, "") for name in usual.region_names]
    assert found["outlines"][usual.region_names.index("background")] == ""


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"nose": 3}', '{"nose": "M1,1"/>"}'])
def test_what_is_no_path_is_refused(content):
    with pytest.raises(ValueError, match=r"outlines are not (paths|JSON)"):
        pictures.outlines(content, ["nose"])


def test_a_photograph_of_many_bytes_becomes_a_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    address = pictures.photo(out.getvalue(), 30_000)
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < len(out.getvalue())
    damaged = out.getvalue()[:50_000]
    assert pictures.photo(damaged, 30_000).startswith("data:image/png;base64,")
