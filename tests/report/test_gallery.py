import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from camlens.report import gallery
from camlens.report.tables import load

from .made import GRID, write_run


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "usual"
    made = {"images": 30, "every_class": True, "empty": (2,), "unreadable": (4,), "shard_size": 8}
    return load(write_run(folder, methods=("GradCAM", "LayerCAM"), **made))


def test_records_hold_what_the_tables_say(usual):
    record = gallery.records(usual, [9])[0]
    image = usual.images.set_index("image").loc[9]
    for name in ("name", "label", "prediction", "width", "height"):
        assert record[name] == image[name]
    assert record["confidence"] == pytest.approx(image["confidence"], rel=1e-6)
    assert [(m["setting"], m["k"], m["target"]) for m in record["maps"]] == [
        (place, k, k) for place in (0, 1) for k in range(3)
    ]
    table = usual.regions
    for one in record["maps"]:
        method = ("GradCAM", "LayerCAM")[one["setting"]]
        rows = table[(table["image"] == 9) & (table["method"] == method) & (table["k"] == one["k"])]
        assert np.allclose(one["density"], rows["density"], rtol=1e-3)
        assert np.allclose(one["excess"], rows["excess"], rtol=1e-3)
        assert np.allclose(one["probability"], rows["probability_excess"], rtol=1e-3)
        assert one["agreement"] == pytest.approx(rows["agreement"].iloc[0], rel=1e-3)
        assert np.allclose(record["area"], rows["area"], rtol=1e-3)


def test_heat_is_the_stored_bytes(usual):
    stored = usual.heat([9]).set_index(["method", "k"])["heat"]
    for one in gallery.records(usual, [9])[0]["maps"]:
        method = ("GradCAM", "LayerCAM")[one["setting"]]
        assert base64.b64decode(one["heat"]) == stored[method, one["k"]]
        assert (one["height"], one["width"]) == (GRID, GRID)


def test_half_precision_becomes_bytes(tmp_path):
    kinds = [load(write_run(tmp_path / t, images=3, dtype=t)) for t in ("uint8", "float16")]
    a, b = (
        [base64.b64decode(r["maps"][0]["heat"]) for r in gallery.records(t, [0, 1, 2])]
        for t in kinds
    )
    # Half precision near 1 has steps of 1/2048, so rounding may differ by one byte.
    away = np.abs(np.frombuffer(b"".join(a), "u1").astype(int) - np.frombuffer(b"".join(b), "u1"))
    assert away.max() <= 1
    assert (away == 0).mean() > 0.9


def test_a_map_without_evidence_has_no_heat(usual):
    for one in gallery.records(usual, [2])[0]["maps"]:
        assert (one["evidence"], one["heat"]) == (False, "")
        assert one["density"] == [None] * 8


def test_records_are_json_without_nan(usual):
    images = usual.images["image"].tolist()
    json.dumps(gallery.records(usual, images), allow_nan=False)
    assert [r["image"] for r in gallery.records(usual, images)] == images


def test_large_maps_are_averaged_down():
    fine = np.zeros((128, 128), "u1")
    fine[:2, :2], fine[2:4, :2] = 100, 50
    heat, size = gallery._bytes(fine.tobytes(), (128, 128))
    found = np.frombuffer(heat, "u1").reshape(size)
    assert size == (64, 64)
    assert (found[0, 0], found[1, 0], found.sum()) == (255, 128, 383)


def test_of_many_targets_label_prediction_and_the_highest_scores_are_kept(tmp_path):
    classes = tuple(f"c{i}" for i in range(30))
    tables = load(write_run(tmp_path / "run", images=6, classes=classes, every_class=True))
    for record in gallery.records(tables, range(6)):
        kept = {m["target"] for m in record["maps"]}
        assert len(kept) == gallery.MOST_TARGETS
        assert {record["label"], record["prediction"]} <= kept
        rows = tables.maps[tables.maps["image"] == record["image"]]
        rest = [t for t in rows.sort_values("score")["target"] if t not in kept]
        others = kept - {record["label"], record["prediction"]}
        scores = rows.set_index("target")["score"]
        assert scores[rest].max() <= scores[list(others)].min()


def test_pictures_are_pictures_or_nothing(usual):
    first, none = gallery.pictures(usual, [0, 4])
    assert first.startswith("data:image/png;base64,")
    assert none == ""
    assert gallery._address(b"<svg onload=alert(1)>") == ""
    assert gallery._address(b"\xff\xd8\xff broken").startswith("data:image/jpeg;base64,")


def test_a_picture_of_many_bytes_becomes_a_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    address = gallery._address(out.getvalue())
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < len(out.getvalue())
    damaged = out.getvalue()[:50_000]
    assert gallery._address(damaged).startswith("data:image/png;base64,")


def test_targets_to_choose_from(usual, tmp_path):
    assert gallery.targets(usual, usual.images["image"]) == [
        {"id": "prediction", "name": "predicted class"},
        {"id": "label", "name": "true class"},
        {"id": "k0", "name": "angry"},
        {"id": "k1", "name": "happy"},
        {"id": "k2", "name": "sad"},
    ]
    alone = load(write_run(tmp_path / "run", images=5))
    assert gallery.targets(alone, range(5)) == [{"id": "prediction", "name": "predicted class"}]
