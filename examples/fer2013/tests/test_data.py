"""The three layouts give the same faces, by class name; what is broken is named."""

import subprocess
import sys

import cv2
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
        ("0," + "-1 " * 2304 + ",Training", "line 2: not an emotion's number and pixels"),
        ("0," + "0.5 " * 2304 + ",Training", "line 2: not an emotion's number and pixels"),
        ("3.0," + "0 " * 2304 + ",Training", "line 2: not an emotion's number and pixels"),
        ("-1," + "0 " * 2304 + ",Training", "line 2: expected an emotion 0 to 6, got -1"),
        ("," + "0 " * 2304 + ",Training", "line 2: not an emotion's number and pixels"),
        ("0," + "0 " * 2305 + ",Training", "line 2: expected 2304 pixels, got 2305"),
        ("0," + "0," * 2304 + "Training", "line 2: expected 2304 pixels, got 1"),
        ('0,"' + "0 " * 70_000 + ",Training", "is not a CSV file as UTF-8: field larger"),
    ],
)
def test_broken_rows(tmp_path, row, message):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n" + row + "\n")
    with pytest.raises(ValueError, match=message):
        data.load(path)


@pytest.mark.parametrize("last", ["Tr", "", None])
def test_a_truncated_csv(tmp_path, csv_file, last):
    """A copy that broke off in its last row, wherever that was."""
    lines = csv_file.read_text().splitlines()
    row = lines[10].rsplit(",", 1)[0]
    lines[10:] = [row[:4000] if last is None else f"{row},{last}"]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"line 11: expected (2304 pixels|one of the official)"):
        data.load(tmp_path)


def test_a_csv_with_a_byte_order_mark(tmp_path, csv_file):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"\xef\xbb\xbf" + csv_file.read_bytes().replace(b"\n", b"\r\n"))
    assert as_set(data.load(path)) == as_set(data.load(csv_file))


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="is not a CSV file as UTF-8"):
        data.load(path)
    path.write_bytes(b"emotion,pixels,Usage\n0," + b"\xff" * 9 + b",Training\n")
    with pytest.raises(ValueError, match="is not a CSV file as UTF-8"):
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
    cv2.imwrite(str(file), np.zeros((48, 64), np.uint8))
    with pytest.raises(ValueError, match="expected a readable 48x48 picture, it is 64x48"):
        data.load(tmp_path)
    file.unlink()
    stray = file.with_name("holiday.png")
    cv2.imwrite(str(stray), np.zeros((48, 48), np.uint8))
    with pytest.raises(ValueError, match=r"holiday\.png: expected one of the official splits"):
        data.load(tmp_path)
    stray.unlink()
    (tmp_path / "train" / "contempt").mkdir()
    with pytest.raises(ValueError, match="expected a folder named after one of"):
        data.load(tmp_path)


def keys(world, *, count=23, shuffle=True, epoch=4):
    samplers = [
        data.EpochSampler(count, shuffle=shuffle, seed=1, rank=rank, world=world)
        for rank in range(world)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_out_what_one_takes(world):
    (alone,), shares = keys(1), keys(world)
    together = [key for step in zip(*shares, strict=True) for key in step]
    assert together == alone[: len(together)]
    assert len(alone) - len(together) == 23 % world
    (alone,), shares = keys(1, shuffle=False), keys(world, shuffle=False)
    assert sorted(key for share in shares for key in share) == alone
    assert alone == [(4, index) for index in range(23)]


def test_each_epoch_has_its_own_order():
    orders = [[index for _, index in keys(1, epoch=epoch)[0]] for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[2] == [index for _, index in keys(1, epoch=2)[0]]


def test_a_faces_change_depends_on_its_epoch_and_seed_alone(csv_file):
    loaded = data.load(csv_file)
    noise = data.FaceDataset(loaded, torch.rand_like, seed=1)
    state = torch.get_rng_state()
    first = noise[0, 3][0]
    torch.rand(5)
    assert torch.equal(noise[0, 3][0], first)
    assert not torch.equal(noise[1, 3][0], first)
    assert not torch.equal(noise[0, 4][0], first)
    assert not torch.equal(data.FaceDataset(loaded, torch.rand_like, seed=2)[0, 3][0], first)
    torch.set_rng_state(state)
    noise[0, 3]
    assert torch.equal(torch.get_rng_state(), state)


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
