import dataclasses
import json

import numpy as np
import pytest
import torch

import camlens
from camlens.dataset import explain_dataset
from camlens.report import gallery
from camlens.report.gallery import link
from camlens.report.run_tables import load

from .made import write_run


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
    (maps, of) = usual.maps, ["image", "method", "k"]
    probabilities = maps.set_index(of)["probability"]
    assert [m["confidence"] for m in record["maps"]] == pytest.approx(
        [probabilities[9, method, k] for method in ("GradCAM", "LayerCAM") for k in range(3)]
    )
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
        assert np.allclose(one["error"], 0.2)
        assert np.allclose(one["probability_error"], 0.02)
        assert one["agreement"] == pytest.approx(rows["agreement"].iloc[0], rel=1e-3)
        assert np.allclose(record["area"], rows["area"], rtol=1e-3)


def test_numbers_are_rounded_once(usual):
    # 1.00529 as four digits, 1.005, would be 1.00 on a card beside 1.01 among the findings.
    table = usual.regions.assign(density=1.00529)
    (record,) = gallery.records(dataclasses.replace(usual, regions=table), [9])
    assert {value for one in record["maps"] for value in one["density"]} == {1.00529}


def test_records_are_json_without_nan(usual):
    images = usual.images["image"].tolist()
    json.dumps(gallery.records(usual, images), allow_nan=False)
    assert [r["image"] for r in gallery.records(usual, images)] == images


def test_of_many_targets_label_prediction_and_the_highest_scores_are_kept(tmp_path):
    classes = tuple(f"c{i}" for i in range(30))
    tables = load(write_run(tmp_path / "run", images=6, classes=classes, every_class=True))
    for record in gallery.records(tables, range(6)):
        kept = {m["target"] for m in record["maps"]}
        assert len(kept) == gallery.MOST_TARGETS == gallery.most_targets(tables, range(6))
        assert {record["label"], record["prediction"]} <= kept
        rows = tables.maps[tables.maps["image"] == record["image"]]
        rest = [t for t in rows.sort_values("score")["target"] if t not in kept]
        others = kept - {record["label"], record["prediction"]}
        scores = rows.set_index("target")["score"]
        assert scores[rest].max() <= scores[list(others)].min()


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


def test_pages_of_many_images_hold_fewer_targets(usual):
    assert gallery.most_targets(usual, range(1500)) == 2  # of two methods
    assert gallery.most_targets(usual, range(10**6)) == 2
    kept = gallery.records(usual, usual.images["image"].tolist())
    assert {len(one["maps"]) for one in kept} == {6}


class TestLinks:
    @pytest.fixture
    def root(self, tmp_path):
        for name in (
            "a/b c.png",
            "a/100% <#?>.png",
            "\u05e9.png",
            "javascript:alert(1)",
            "x\udcff",
        ):
            path = tmp_path / "data" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(b"x")
        (tmp_path / "secret").write_bytes(b"x")
        return tmp_path / "data"

    def test_files_are_linked_relative_to_the_page_and_encoded(self, root, tmp_path):
        assert link(str(root), "a/b c.png", tmp_path) == "data/a/b%20c.png"
        assert link(str(root), "a/b c.png", tmp_path / "out") == "../data/a/b%20c.png"
        assert link(str(root), "a/100% <#?>.png", root) == "a/100%25%20%3C%23%3F%3E.png"
        assert link(str(root), "\u05e9.png", root) == "%D7%A9.png"
        assert link(str(root), "javascript:alert(1)", root) == "javascript%3Aalert%281%29"
        assert link(str(root), "x\udcff", root) == "x%FF"

    @pytest.mark.parametrize(
        "name",
        ["../secret", "a/../../secret", "/etc/passwd", "no such", "a", "", "\0", "x" * 10_000],
    )
    def test_nothing_else_is(self, root, tmp_path, name):
        assert link(str(root), name, tmp_path) is None

    def test_nothing_is_linked_without_a_folder(self, root, tmp_path):
        for unknown in (None, "", 7, ["x"], "no such folder", "\0"):
            assert link(unknown, "a/b c.png", tmp_path) is None
        assert link(str(root), str(root / "a" / "b c.png"), tmp_path) is None
        assert link(str(root), "a/b c.png", None) is None


def test_a_class_that_was_asked_for_twice_is_shown_once(tmp_path):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    images = [(torch.rand(3, 8, 8), label) for label in range(3)]
    explainers = [camlens.GradCAM(net, "1"), camlens.Saliency(net)]
    asked = camlens.targets.several(None, "label")
    run = explain_dataset(explainers, images, tmp_path / "run", targets=asked, progress=False)
    for record in gallery.records(load(run), range(3)):
        wanted = {record["prediction"], record["label"]}
        shown = [(one["setting"], one["target"]) for one in record["maps"]]
        assert len(shown) == len(set(shown)) == 2 * len(wanted)
        assert {target for _, target in shown} == wanted
