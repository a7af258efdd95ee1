"""Regions of photographs from files: they lie where they are, in what the model sees."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from camlens import loading
from camlens.cli.region_files import RegionFiles

SIZE, SEEN = (48, 96), (16, 16)
#: The model sees the middle, columns 24 to 72.
BOX = loading.Preprocessing(size=SEEN).box(SIZE)


def made(path, content, names=None):
    """Write a file of regions of its suffix's kind."""
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".safetensors":
        save_file(content, path)
    else:
        Image.fromarray(content).save(path)
        (path.parent / "names.json").write_text(json.dumps(names))
    return RegionFiles(path)


@pytest.fixture
def labels():
    """Left third of what is seen: 1; lower half of the rest: 2; 7 is outside of what is seen."""
    made = np.zeros(SIZE, dtype=np.uint8)
    made[:, :24], made[:, 24:40], made[24:, 40:72] = 7, 1, 2
    return made


@pytest.mark.parametrize("kind", ["json", "safetensors", "png"])
def test_regions_lie_where_they_are(tmp_path, labels, kind):
    parts = {"left": labels == 1, "lower": labels == 2, "outside": labels == 7}
    content = {
        "json": {"left": [24, 0, 40, 48], "lower": [40, 24, 72, 48], "outside": [0, 0, 24, 48]},
        "safetensors": {name: torch.from_numpy(mask) for name, mask in parts.items()},
        "png": labels,
    }[kind]
    names = {"1": "left", "2": "lower", "7": "outside"}
    found = made(tmp_path / f"regions.{kind}", content, names).of(Path("a/x.jpg"), SIZE, SEEN, BOX)
    assert sorted(found.names) == ["left", "lower", "outside"]
    masks = dict(zip(found.names, found.masks[0], strict=True))
    # Columns 24 to 40 of the photograph are the first third of 16 columns.
    left, lower = torch.zeros(SEEN), torch.zeros(SEEN)
    left[:, :5], left[:, 5] = 1, 1 / 3
    lower[8:, 5], lower[8:, 6:] = 2 / 3, 1
    assert (masks["left"] - left).abs().max() < 1e-5
    assert (masks["lower"] - lower).abs().max() < 1e-5
    assert masks["outside"].max() == 0


def test_a_folder_holds_a_file_for_each(tmp_path):
    (tmp_path / "cat").mkdir()
    made(tmp_path / "cat" / "one.json", {"eye": [24, 0, 72, 48]})
    made(tmp_path / "two.json", {"eye": [24, 0, 48, 48]})
    files = RegionFiles(tmp_path)
    assert files.of(Path("cat/one.jpg"), SIZE, SEEN, BOX).masks.mean() == 1
    assert files.of(Path("dog/two.png"), SIZE, SEEN, BOX).masks.mean() == 0.5
    with pytest.raises(LookupError, match=r"contains no regions of dog/three.png: expected three"):
        files.of(Path("dog/three.png"), SIZE, SEEN, BOX)
    before = files.fingerprint()
    (tmp_path / "names.json").write_text("{}")  # names labels, of which there are none
    assert RegionFiles(tmp_path).fingerprint() == before
    made(tmp_path / "two.json", {"eye": [24, 0, 25, 48]})
    assert RegionFiles(tmp_path).fingerprint() != before
    moved = RegionFiles(tmp_path).fingerprint()
    (tmp_path / "two.json").rename(tmp_path / "cat" / "two.json")
    assert RegionFiles(tmp_path).fingerprint() != moved


def test_a_file_is_found_by_the_longest_part_of_the_path_whatever_else_is_given(tmp_path):
    (tmp_path / "cat").mkdir()
    made(tmp_path / "cat" / "1.json", {"eye": [24, 0, 72, 48]})
    made(tmp_path / "1.json", {"eye": [24, 0, 48, 48]})
    files = RegionFiles(tmp_path)
    assert files.of(Path("/photos/cat/1.png"), SIZE, SEEN, BOX).masks.mean() == 1
    assert files.of(Path("/photos/dog/1.png"), SIZE, SEEN, BOX).masks.mean() == 0.5
    files.check([Path("/photos/cat/1.png"), Path("/photos/dog/1.png")])
    with pytest.raises(ValueError, match=r"1.json matches both .*dog/1.png and .*cow"):
        files.check([Path("/photos/dog/1.png"), Path("/photos/cow/1.png")])


def test_boxes_of_each_photograph_in_one_file(tmp_path):
    boxes = {"cat/one.jpg": {"eye": [24, 0, 72, 48]}, "two": {"eye": [24, 0, 48, 48]}}
    files = made(tmp_path / "boxes.json", boxes)
    assert files.of(Path("cat/one.jpg"), SIZE, SEEN, BOX).masks.mean() == 1
    assert files.of(Path("cat/two.png"), SIZE, SEEN, BOX).masks.mean() == 0.5
    with pytest.raises(LookupError, match=r"boxes.json contains no regions of three.png"):
        files.of(Path("three.png"), SIZE, SEEN, BOX)
    files.check([Path("cat/one.jpg"), Path("dog/one.jpg"), Path("cat/two.png")])
    with pytest.raises(ValueError, match=r"'two' of .*boxes.json matches both cat/two.png and dog"):
        files.check([Path("cat/two.png"), Path("dog/two.png")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "as a JSON object"),
        ("a.json", b"[[1, 2, 3, 4]]", r"{\"NAME\": \[left, top, right, bottom\], ...}, got \[\[1"),
        ("a.json", b"{}", "contains no region"),
        ("a.json", b'{"eye": [1, 2, 3]}', r"\[left, top, right, bottom\].*for 'eye'"),
        ("a.json", b'{"eye": [1, 2, NaN, 3]}', r"\[left, top, right, bottom\]"),
        ("a.json", b'{"eye": [1, 2, true, 3]}', r"\[left, top, right, bottom\]"),
        ("a.json", b'{"eye": [1, 2, 1%s, 3]}' % (b"0" * 400), r"\[left, top, right, bottom\]"),
        ("a.json", b'{"eye": [9, 0, 1, 2]}', "contains no pixel of x.jpg, which is 96 pixels wide"),
        ("a.json", b'{"eye": [200, 0, 300, 9]}', "contains no pixel of x.jpg"),
        ("a.json", b'{"eye": [0, 0, 1, 2], "eye": [0, 0, 1, 3]}', "'eye' occurs twice"),
        ("a.safetensors", b"cut", "to contain masks"),
        ("a.png", b"cut", "is not a label map"),
    ],
)
def test_what_is_wrong_names_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        RegionFiles(tmp_path / name).of(Path("x.jpg"), SIZE, SEEN, BOX)
    assert name in str(caught.value)


def test_boxes_beyond_the_photograph_are_told(run, model, folder):
    boxes = {"in": [0, 0, 64, 64], "out": [10, 10, 64, 65], "left": [-1, 0, 9, 9]}
    (folder / "boxes.json").write_text(json.dumps(boxes))
    words = ("explain", "hopper.png", *model, "--mean", "0", "--regions")
    got = run(*words, "boxes.json")
    assert got.code == 0, got.err
    note = (
        "boxes reach beyond the photograph and are cut at its edge: 'out' in hopper.png, 'left' in "
        "hopper.png. Expected [left, top, right, bottom] in pixels of the photograph"
    )
    assert note in " ".join(got.err.split())
    assert note.split(":", maxsplit=1)[0] in (folder / "camlens-out" / "report.html").read_text(
        "utf-8"
    )
    (folder / "boxes.json").write_text(json.dumps({"in": boxes["in"]}))
    assert "boxes reach" not in run(*words, "boxes.json").err
    save_file({"in": torch.ones(64, 64)}, folder / "masks.safetensors")
    assert "boxes reach" not in run(*words, "masks.safetensors").err


def test_a_label_map_that_lies_on_its_side_is_turned_as_photographs_are(tmp_path):
    values = np.zeros((48, 48), dtype=np.uint8)
    values[:12] = 1
    files = made(tmp_path / "a.png", values, {"1": "top"})
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored top is the upright right
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    found = files.of(Path("x.jpg"), (48, 48), (48, 48), (0.0, 0.0, 48.0, 48.0)).masks[0, 0]
    assert found[:, 36:].min() == 1
    assert found.mean() == 0.25


def test_a_label_that_is_named_twice_is_refused(tmp_path, labels):
    files = made(tmp_path / "a.png", labels, {"1": "left", "01": "right"})
    with pytest.raises(ValueError, match=r"names.json names a label twice"):
        files.of(Path("x.jpg"), SIZE, SEEN, BOX)


def test_other_sizes_kinds_and_unknown_places(tmp_path, labels):
    small = made(tmp_path / "small.png", labels[:10], {"1": "left"})
    with pytest.raises(ValueError, match=r"has 10 x 96 pixels, but x.jpg has 48 x 96"):
        small.of(Path("x.jpg"), SIZE, SEEN, BOX)
    with pytest.raises(
        ValueError, match=r"the position of the model's picture in x.jpg is unknown"
    ):
        small.of(Path("x.jpg"), SIZE, SEEN, None)
    coloured = made(tmp_path / "coloured.png", np.zeros((*SIZE, 3), dtype=np.uint8), {"1": "a"})
    with pytest.raises(ValueError, match=r"expected grey or palette pixels.*got RGB"):
        coloured.of(Path("x.jpg"), SIZE, SEEN, BOX)
    with pytest.raises(FileNotFoundError, match=r"file or folder of regions .* does not exist"):
        RegionFiles(tmp_path / "absent.json")
    (tmp_path / "notes.txt").write_text("no")
    with pytest.raises(ValueError, match=r"expected regions as .json"):
        RegionFiles(tmp_path / "notes.txt")


def test_label_maps_need_names(tmp_path, labels):
    Image.fromarray(labels).save(tmp_path / "map.png")
    with pytest.raises(FileNotFoundError, match=r"is missing: expected names of the maps' labels"):
        RegionFiles(tmp_path / "map.png").of(Path("x.jpg"), SIZE, SEEN, BOX)


@pytest.mark.slow
def test_the_commands_take_files(run, model, folder):
    (folder / "boxes.json").write_text('{"face": [16, 8, 48, 56], "rest": [0, 0, 64, 8]}')
    words = ("--regions", "boxes.json", "--infill", "mean")
    got = run("explain", "hopper.png", *model, *words, "--json", "--out", "out")
    assert got.code == 0, got.err
    rows = got.json["photos"][0]["regions"]
    assert [row["region"] for row in rows] == ["face", "rest"]
    assert [row["area"] for row in rows] == pytest.approx([32 * 48 / 64**2, 8 / 64])
    assert all(row["excess"] is not None for row in rows)
    (folder / "images").mkdir()
    (folder / "hopper.png").rename(folder / "images" / "hopper.png")
    got = run("dataset", "images", *model, *words, "--out", "run", "--json")
    assert got.code == 0, got.err
    (folder / "boxes.json").write_text('{"face": [16, 8, 48, 57], "rest": [0, 0, 64, 8]}')
    got = run("dataset", "images", *model, *words, "--out", "run")
    assert got.code == 1
    assert "the data set differs" in got.err


@pytest.mark.slow
@pytest.mark.shared
def test_a_template_on_a_picture_without_a_face_is_told(run, model, shared):
    env = {"CAMLENS_MODELS": str(shared / "models")}
    words = (*model, "--regions", "template", "--mean", "0")
    got = run("explain", "hopper.png", "noise.png", *words, env=env)
    assert got.code == 0, got.err
    flat = " ".join(got.err.split())
    assert "YuNet finds no face in noise.png; the template assumes a face that fills" in flat
    assert "hopper" not in flat


def test_that_faces_were_not_looked_for_is_told(run, model, tmp_path):
    words = (*model, "--regions", "template", "--mean", "0")
    got = run("explain", "hopper.png", *words, env={"CAMLENS_YUNET": str(tmp_path / "none")})
    assert got.code == 0
    assert re.search(
        "could not check .*, since YuNet's model file is missing", " ".join(got.err.split())
    )


@pytest.mark.slow
@pytest.mark.shared
def test_mediapipe_finds_the_regions(run, model, shared):
    env = {"CAMLENS_MODELS": str(shared / "models")}
    got = run("explain", "hopper.png", *model, "--regions", "mediapipe", "--json", env=env)
    assert got.code == 0, got.err
    areas = {row["region"]: row["area"] for row in got.json["photos"][0]["regions"]}
    assert 0.001 < areas["eyes"] < 0.05
    assert areas["background"] < 0.95
