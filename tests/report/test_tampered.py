"""Tables that no run wrote, though checksums fit: an error that names the file, or a true page."""

import json
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from camlens.report import write_report

from .made import change_manifest, seal, write_run

#: What a column becomes, by file; each is refused.
REFUSED = {
    "images": {
        "image": ["x", -1, 0, 0.5, None, 2**60],
        "name": [3, None, b"x", ["x"], pd.Timestamp(0)],
        "label": ["happy", -5, 0.5, 2**60, True],
        "prediction": ["happy", -5],
        "confidence": ["0.5", float("inf"), True],
        "width": [-3, 0, 1.5, "48", None, float("inf")],
        "height": [-3, 0, None],
        "reason": [3, ["x"]],
        "thumbnail": ["text", 3, [1, 2]],
        "outlines": ["text", "[" * 200_000, "[]", '{"nose": "<svg>"}', 3],
    },
    "maps": {
        "image": [77, -1, None, "x"],
        "k": [-1, 0.5, "0", None],
        "method": [None, 3, ["x"]],
        "layer": [None, 3],
        "grid": [None, 12],
        "target": [-2, 0.5, "happy", None, float("nan"), 2**60],
        "score": ["3", pd.Timestamp(0)],
        "evidence": [None, 2, "yes"],
        "heat": [b"", b"x" * 143, "text", 7, None],
        "heat_height": [-12, 0, 13, "12", 0.5, None],
        "heat_width": [-12, 0, 2**40],
    },
    "regions": {
        "image": ["x", -1, None],
        "region": [None, 3, "same"],
        "density": ["2", -1.0, [1.0]],
        "area": [7.0, -0.1, "x"],
        "resolvable": [None, "yes"],
        "evidence": [None],
        "agreement": ["x"],
        "infill": [3],
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return write_run(folder, images=12, methods=("GradCAM", "LayerCAM"), every_class=True)


@pytest.fixture
def tampered(whole, tmp_path):
    """Return what makes a copy of a run, one of whose tables is changed."""
    return lambda table, change: _tampered(
        whole, tmp_path / f"run{time.monotonic_ns()}", table, change
    )


def _tampered(whole, folder, table, change):
    run = shutil.copytree(whole, folder)
    path = run / "shard-00000" / f"{table}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    seal(run)
    return run


def with_column(name, value):
    """Return what sets a column to a value."""
    return lambda table: table.assign(**{name: pd.Series([value] * len(table), index=table.index)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "name", "value"),
    [(t, name, v) for t, columns in REFUSED.items() for name, vs in columns.items() for v in vs],
)
def test_what_no_run_writes_is_one_error_that_names_the_file(tampered, table, name, value):
    run = tampered(table, with_column(name, value))
    with pytest.raises(ValueError, match=rf"{table}\.parquet") as caught:
        write_report(run)
    assert str(run) in str(caught.value)
    assert not list(run.glob("*.html"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "name"), [(t, name) for t, columns in REFUSED.items() for name in columns]
)
def test_a_missing_column_is_said(tampered, table, name):
    run = tampered(table, lambda frame: frame.drop(columns=name))
    with pytest.raises(ValueError, match=rf"{table}\.parquet.*{name}"):
        write_report(run)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_heat_that_is_none_is_refused(tampered, value):
    heat = np.full(144, value, "<f2").tobytes()
    run = tampered("maps", with_column("heat", heat))
    with pytest.raises(ValueError, match=r"maps\.parquet, image 0, .* not heat"):
        write_report(run)


def read(page):
    text = page.read_text("utf-8")
    return text, json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


@pytest.mark.slow
class TestTruePages:
    def test_classes_without_a_name_have_their_number(self, tampered):
        run = tampered("images", with_column("label", 999))
        text, data = read(write_report(run))
        assert "0 of 12 predicted correctly" in text
        assert data["classes"]["999"] == "class 999"
        run = tampered("maps", with_column("target", 99))
        assert read(write_report(run))[1]["classes"]["99"] == "class 99"

    def test_unknown_numbers_are_unknown(self, tampered):
        run = tampered("images", with_column("confidence", float("nan")))
        assert {one["confidence"] for one in read(write_report(run))[1]["images"]} == {None}
        run = tampered("maps", with_column("score", float("inf")))
        maps = [one for image in read(write_report(run))[1]["images"] for one in image["maps"]]
        assert {one["score"] for one in maps} == {None}
        run = tampered("regions", with_column("density", float("nan")))
        text, _ = read(write_report(run))
        assert "densest region" not in text

    def test_what_is_no_picture_is_not_shown(self, tampered):
        junk = b"<svg onload=alert(1)>"
        run = tampered("images", with_column("thumbnail", junk))
        text, _ = read(write_report(run))
        shown = json.loads(re.search(r'id="pictures">(.*?)</script>', text)[1])
        assert {one["photo"] for one in shown} == {""}
        assert "svg onload" not in text

    def test_images_without_maps_and_maps_without_regions(self, tampered):
        run = tampered("maps", lambda maps: maps[maps["image"] > 2])
        images = read(write_report(run))[1]["images"]
        assert [len(one["maps"]) for one in images] == [0] * 3 + [6] * 9
        run = tampered("regions", lambda table: table[table["image"] > 2])
        images = read(write_report(run))[1]["images"]
        assert ["density" in one["maps"][0] for one in images] == [False] * 3 + [True] * 9
        run = tampered("maps", lambda maps: maps.iloc[:0])
        text, _ = read(write_report(run))
        assert "Findings" not in text

    def test_a_manifest_of_odd_values(self, tmp_path):
        run = write_run(tmp_path / "run", images=12)
        odd = {
            "classes": [1, None, ["</script>"]],
            "versions": {"a": {"b": [1]}, "c": None},
            "model": {"name": ["<b>"], "weights": 7},
            "root": 3,
        }
        change_manifest(run, **odd)
        text, data = read(write_report(run))
        assert data["classes"]["0"] == "1"
        assert "&lt;b&gt;" in text
        assert "<b>" not in text
