"""The three layouts give the same faces, by class name; what is broken is named."""

import subprocess
import sys

import faces as made_up
import numpy as np
import pytest
import torch

from fer2013 import data


def as_set(loaded):
    rows = zip(loaded.images, loaded.labels, loaded.usages, strict=True)
    return {(image.tobytes(), int(label), int(usage)) for image, label, usage in rows}


def test_all_layouts_hold_the_same_faces(tmp_path, csv_file):
    made_up.write_csv(tmp_path / "icml_face_data.csv", "emotion, Usage, pixels")
    made_up.write_folders(tmp_path / "folders")
    expected = as_set(data.load(csv_file))
    assert len(expected) == len(made_up.ROWS)
    assert as_set(data.load(csv_file.parent)) == expected
    assert as_set(data.load(tmp_path)) == expected
    assert as_set(data.load(tmp_path / "folders")) == expected


def test_classes_go_by_name(tmp_path):
    """Sorted folders put neutral before sad; the CSV files' codes put sad (4) first."""
    made_up.write_folders(tmp_path)
    loaded = data.load(tmp_path)
    for image, label in zip(loaded.images, loaded.labels, strict=True):
        assert image[6 * label : 6 * label + 6].min() == 220


def test_official_splits_are_kept(csv_file):
    loaded = data.load(csv_file)
    assert [len(loaded.split(usage)) for usage in data.USAGES] == [28, 14, 14]
    with pytest.raises(ValueError, match="expected a split out of"):
        loaded.split("Validation")


def test_a_missing_split(tmp_path):
    made_up.write_folders(tmp_path)
    for file in tmp_path.glob("test/*/PrivateTest*"):
        file.unlink()
    with pytest.raises(ValueError, match="holds no PrivateTest faces"):
        data.load(tmp_path).split("PrivateTest")


def test_items_are_floats_in_zero_to_one(csv_file):
    loaded = data.load(csv_file)
    items = data.FaceDataset(loaded, lambda image: 1 - image)
    image, label = items[0, 3]
    assert image.shape == (1, 48, 48)
    expected = 1 - torch.from_numpy(loaded.images[3]).float() / 255
    torch.testing.assert_close(image[0], expected)
    assert label == loaded.labels[3]


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no FER2013 at .*expected fer2013\.csv or"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,1 2 3,Training", "line 2: expected 2304 pixels, got 3"),
        ("7," + "0 " * 2304 + ",Training", "line 2: expected an emotion 0 to 6, got 7"),
        ("0," + "0 " * 2304 + ",Test", "line 2: expected one of the official splits"),
        ("0," + "256 " * 2304 + ",Training", "line 2: not an emotion's number and pixels"),
        ("sad," + "0 " * 2304 + ",Training", "line 2: not an emotion's number and pixels"),
        ("0", "line 2: not an emotion's number and pixels"),
    ],
)
def test_broken_rows(tmp_path, row, message):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n" + row + "\n")
    with pytest.raises(ValueError, match=message):
        data.load(path)


def test_a_csv_of_something_else(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels\n")
    with pytest.raises(ValueError, match=r"FER2013 also has \['Usage'\]"):
        data.load(path)
    path.write_text("emotion,pixels,Usage\n")
    with pytest.raises(ValueError, match="holds no faces"):
        data.load(path)


def test_broken_folders(tmp_path):
    made_up.write_folders(tmp_path)
    file = next(tmp_path.glob("train/happy/*"))
    file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="expected a readable 48x48 picture, it is unreadable"):
        data.load(tmp_path)
    file.unlink()
    (tmp_path / "train" / "contempt").mkdir()
    with pytest.raises(ValueError, match="expected a folder named after one of"):
        data.load(tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize("layout", ["csv", "icml", "folders"])
def test_real_images_in_every_layout(shared, tmp_path, layout):
    script = shared / "fer2013" / "expand.py"
    options = ["--layout", layout, "--out", str(tmp_path), "--limit", "60"]
    subprocess.run([sys.executable, str(script), *options], check=True)
    loaded = data.load(tmp_path)
    with np.load(shared / "fer2013" / "fer2013_train_public.npz") as archive:
        for usage, name in enumerate(data.USAGES[:2]):
            first = np.flatnonzero(archive["usage"] == usage)[:60]
            part = loaded.split(name)
            expected = np.bincount(archive["label"][first], minlength=7)
            assert np.bincount(part.labels, minlength=7).tolist() == expected.tolist()
            if layout != "folders":  # JPEG changes pixels, and folders the order
                assert (part.images == archive["images"][first]).all()
