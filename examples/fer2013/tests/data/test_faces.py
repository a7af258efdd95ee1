"""All three layouts give the same images and labels; errors name the file and the line."""

import contextlib
import dataclasses
import runpy
import sys

import cv2
import numpy as np
import pytest
from made_up_faces import made_up_faces, write_csv, write_folders

from fer2013.data import faces

MADE_UP = made_up_faces(training=4, public=2, private=2)


def as_set(loaded):
    rows = zip(loaded.images, loaded.labels, loaded.usages, strict=True)
    return {(image.tobytes(), int(label), int(usage)) for image, label, usage in rows}


def test_all_layouts_hold_the_same_faces(tmp_path, csv_file):
    write_csv(MADE_UP, tmp_path / "icml_face_data.csv", "emotion, Usage, pixels")
    write_folders(MADE_UP, tmp_path / "folders")
    expected = as_set(faces.load(csv_file))
    assert len(expected) == len(MADE_UP)
    assert as_set(faces.load(csv_file.parent)) == expected
    assert as_set(faces.load(tmp_path)) == expected
    assert as_set(faces.load(tmp_path / "folders")) == expected


def test_labels_follow_class_names(tmp_path):
    """In sorted folders neutral precedes sad; in the CSV files sad (4) precedes neutral."""
    write_folders(MADE_UP, tmp_path)
    loaded = faces.load(tmp_path)
    for image, label in zip(loaded.images, loaded.labels, strict=True):
        assert image[6 * label : 6 * label + 6].min() >= 150


def test_official_splits_are_kept(csv_file):
    loaded = faces.load(csv_file)
    assert [len(loaded.split(usage)) for usage in faces.USAGES] == [28, 14, 14]
    with pytest.raises(ValueError, match="expected one of the splits"):
        loaded.split("Validation")


def test_a_missing_split_is_an_error(tmp_path):
    write_folders(MADE_UP, tmp_path)
    for file in tmp_path.glob("test/*/PrivateTest*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no PrivateTest images"):
        faces.load(tmp_path).split("PrivateTest")


def test_a_folder_without_data_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no FER2013 at .*expected fer2013\.csv or"):
        faces.load(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,1 2 3,Training", "line 2: expected 2304 pixels, got 3"),
        ("7," + "0 " * 2304 + ",Training", "line 2: expected an emotion from 0 to 6, got 7"),
        ("0," + "0 " * 2304 + ",Test", "line 2: expected one of the official splits"),
        (
            "0," + "256 " * 2304 + ",Training",
            "line 2: expected the number of an emotion",
        ),
        (
            "sad," + "0 " * 2304 + ",Training",
            "line 2: expected the number of an emotion",
        ),
        ("0", "line 2: expected the number of an emotion"),
        (
            "0," + "-1 " * 2304 + ",Training",
            "line 2: expected the number of an emotion",
        ),
        (
            "0," + "0.5 " * 2304 + ",Training",
            "line 2: expected the number of an emotion",
        ),
        (
            "3.0," + "0 " * 2304 + ",Training",
            "line 2: expected the number of an emotion",
        ),
        ("-1," + "0 " * 2304 + ",Training", "line 2: expected an emotion from 0 to 6, got -1"),
        ("," + "0 " * 2304 + ",Training", "line 2: expected the number of an emotion"),
        ("0," + "0 " * 2305 + ",Training", "line 2: expected 2304 pixels, got 2305"),
        ("0," + "0," * 2304 + "Training", "line 2: expected 2304 pixels, got 1"),
        ('0,"' + "0 " * 70_000 + ",Training", "is not a CSV file in UTF-8: field larger"),
    ],
)
def test_invalid_rows_are_errors(tmp_path, row, message):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n" + row + "\n")
    with pytest.raises(ValueError, match=message):
        faces.load(path)


@pytest.mark.parametrize("last", ["Tr", "", None])
def test_a_truncated_csv_is_an_error(tmp_path, csv_file, last):
    """The file ends within its last row: in the pixels, or in the split."""
    lines = csv_file.read_text().splitlines()
    row = lines[10].rsplit(",", 1)[0]
    lines[10:] = [row[:4000] if last is None else f"{row},{last}"]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"line 11: expected (2304 pixels|one of the official)"):
        faces.load(tmp_path)


def test_a_byte_order_mark_is_ignored(tmp_path, csv_file):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"\xef\xbb\xbf" + csv_file.read_bytes().replace(b"\n", b"\r\n"))
    assert as_set(faces.load(path)) == as_set(faces.load(csv_file))


def test_a_binary_file_is_an_error(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="is not a CSV file in UTF-8"):
        faces.load(path)
    path.write_bytes(b"emotion,pixels,Usage\n0," + b"\xff" * 9 + b",Training\n")
    with pytest.raises(ValueError, match="is not a CSV file in UTF-8"):
        faces.load(path)


def test_other_csv_files_are_errors(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels\n")
    with pytest.raises(ValueError, match=r"FER2013 also has \['Usage'\]"):
        faces.load(path)
    path.write_text("emotion,pixels,Usage\n")
    with pytest.raises(ValueError, match="has no images"):
        faces.load(path)


def test_invalid_folders_are_errors(tmp_path):
    write_folders(MADE_UP, tmp_path)
    file = next(tmp_path.glob("train/happy/*"))
    file.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="expected a readable 48x48 picture, it is unreadable"):
        faces.load(tmp_path)
    cv2.imwrite(str(file), np.zeros((48, 64), np.uint8))
    with pytest.raises(ValueError, match="expected a readable 48x48 picture, it is 64x48"):
        faces.load(tmp_path)
    file.unlink()
    stray = file.with_name("holiday.png")
    cv2.imwrite(str(stray), np.zeros((48, 48), np.uint8))
    with pytest.raises(ValueError, match=r"holiday\.png: expected one of the official splits"):
        faces.load(tmp_path)
    stray.unlink()
    (tmp_path / "train" / "contempt").mkdir()
    with pytest.raises(ValueError, match="expected a folder named after one of"):
        faces.load(tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize("layout", ["csv", "icml", "folders"])
def test_real_images_load_from_every_layout(shared, training_faces, tmp_path, monkeypatch, layout):
    script = shared / "fer2013" / "expand.py"
    options = ["--layout", layout, "--out", str(tmp_path), "--limit", "60"]
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    # the script's input: few images, half of them as PublicTest's
    real = dataclasses.replace(training_faces.first(200), usages=np.repeat([0, 1], 100))
    archive = {"images": real.images, "label": real.labels, "usage": real.usages}
    monkeypatch.setattr(np, "load", lambda _: contextlib.nullcontext(archive))
    runpy.run_path(str(script), run_name="__main__")
    loaded = faces.load(tmp_path)
    for name in faces.USAGES[:2]:
        first, part = real.split(name).first(60), loaded.split(name)
        expected = np.bincount(first.labels, minlength=7)
        assert np.bincount(part.labels, minlength=7).tolist() == expected.tolist()
        if layout != "folders":  # JPEG changes pixels, and folders change the order
            assert (part.images == first.images).all()
