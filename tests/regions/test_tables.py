"""The table: each number in its row, what is unknown is missing, one file, whole or not at all."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
import torch

from camlens.regions.tables import ABLATION_COLUMNS, COLUMNS, agreement, read, table, write

from .made import ablation_of, noise, scores_of

CLASSES = ["angry", "happy", "sad"]


def test_each_number_stands_in_its_row():
    targets = torch.tensor([[0, 2], [1, 0]])
    found = scores_of(noise(2, 2, 3), targets=targets, names=("eyes", "nose", "mouth"))
    rows = table(found, labels=[0, 2], predictions=torch.tensor([0, 1]))
    assert tuple(rows.columns) == COLUMNS
    assert rows["image"].tolist() == [0] * 6 + [1] * 6
    assert rows["k"].tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert rows["region"].tolist() == ["eyes", "nose", "mouth"] * 4
    assert rows["target"].tolist() == [0] * 3 + [2] * 3 + [1] * 3 + [0] * 3
    assert rows["label"].tolist() == [0] * 6 + [2] * 6
    assert rows["prediction"].tolist() == [0] * 6 + [1] * 6
    assert rows["correct"].tolist() == [True] * 6 + [False] * 6
    assert rows["score"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for name in ("share", "density", "pointing_game", "iou", "density_rank", "resolvable"):
        expected = getattr(found, name).flatten().numpy()
        np.testing.assert_array_equal(rows[name].to_numpy(), expected)
    assert set(rows["method"]) == {"GradCAM"}
    assert set(rows["layer"]) == {"features.34"}
    assert set(rows["grid"]) == {"12x10"}


def test_area_and_evidence_are_of_the_image_and_of_the_map():
    evidence = torch.tensor([[True, False], [False, True]])
    found = scores_of(noise(2, 2, 2), evidence=evidence)
    found.area[:] = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    rows = table(found)
    expected = torch.tensor([0.1, 0.2, 0.1, 0.2, 0.3, 0.4, 0.3, 0.4]).tolist()
    assert rows["area"].tolist() == expected
    assert rows["evidence"].tolist() == [True, True, False, False, False, False, True, True]
    assert rows["density"].isna().tolist() == (~rows["evidence"]).tolist()


def test_names_of_classes_images_and_several_layers():
    found = scores_of(
        noise(2, 1, 1), targets=torch.tensor([[2], [-1]]), layers=("block1", "block2")
    )
    rows = table(found, labels=[1, -1], classes=CLASSES, images=["a.png", "b.png"])
    assert rows["image"].tolist() == ["a.png", "b.png"]
    assert rows["layer"].tolist() == ["block1+block2"] * 2
    assert rows["target"].tolist() == ["sad", pd.NA]
    assert rows["label"].tolist() == ["happy", pd.NA]
    assert table(found, images=[7, 5])["image"].tolist() == [7, 5]


def test_without_labels_the_columns_are_there_and_missing():
    rows = table(scores_of(noise(2, 1, 2), targets=torch.full((2, 1), -1), layers=(), method=""))
    for name in ("label", "prediction", "correct", "target"):
        assert rows[name].isna().all()
    assert set(rows["layer"]) == set(rows["method"]) == {""}
    labelled = table(scores_of(noise(2, 1, 2)), labels=[0, 1])
    assert labelled["label"].notna().all()
    assert labelled["correct"].isna().all()
    assert (labelled.dtypes == rows.dtypes).all()


def test_an_ablation_adds_what_it_measured_and_the_agreement():
    found, change = scores_of(noise(3, 2, 4)), ablation_of(noise(3, 2, 4, seed=1), 0.25)
    rows = table(found, ablation=change)
    assert tuple(rows.columns) == (*COLUMNS, *ABLATION_COLUMNS)
    assert set(rows["infill"]) == {"blur"}
    for name in ABLATION_COLUMNS[1:-1]:
        np.testing.assert_array_equal(rows[name], getattr(change, name).flatten().numpy())
    np.testing.assert_allclose(rows["excess"], rows["drop"] - 0.25, rtol=1e-6)
    expected = agreement(found, change).flatten().repeat_interleave(4)
    np.testing.assert_array_equal(rows["agreement"], expected.numpy())


def test_it_does_not_matter_where_the_tensors_are(device):
    found = scores_of(noise(2, 1, 2))
    tensors = {k: v.to(device) for k, v in vars(found).items() if isinstance(v, torch.Tensor)}
    there = table(dataclasses.replace(found, **tensors), labels=torch.tensor([0, 1]).to(device))
    pd.testing.assert_frame_equal(there, table(found, labels=[0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0]}, r"expected labels of 2 images, got the shape \(1,\)"),
        ({"predictions": [[0, 1]]}, r"expected predictions of 2 images, got the shape \(1, 2\)"),
        ({"images": [1, 2, 3]}, "expected numbers or names for 2 images, got 3"),
        ({"images": ["a", "a"]}, "expected each image once, got 'a' again"),
        ({"labels": [0, 3], "classes": CLASSES}, "expected a name for class 3, got 3 classes"),
        (
            {"ablation": ablation_of(noise(2, 1, 3), 0, names=("a", "b", "c"))},
            "same images, targets",
        ),
        ({"ablation": ablation_of(noise(3, 1, 3), 0)}, "same images, targets"),
        (
            {"ablation": ablation_of(noise(2, 1, 3), 0, targets=torch.tensor([[0], [1]]))},
            "of different targets",
        ),
    ],
)
def test_what_does_not_belong_together(options, message):
    with pytest.raises(ValueError, match=message):
        table(scores_of(noise(2, 1, 3)), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["happy", "sad"]}, "expected labels as integer class ids"),
        ({"labels": torch.tensor([0.0, 1.0])}, "expected labels as integer class ids"),
        ({"images": [0.5, 1.5]}, "expected images as integers or strings"),
    ],
)
def test_what_is_of_the_wrong_type(options, message):
    with pytest.raises(TypeError, match=message):
        table(scores_of(noise(2, 1, 3)), **options)
    with pytest.raises(TypeError, match=r"expected Scores, as camlens\.regions\.score"):
        table(noise(2, 1, 3))


def two_methods():
    first = table(scores_of(noise(3, 2, 2)), labels=[0, 1, 2], classes=CLASSES)
    other = scores_of(noise(3, 2, 2, seed=1), method="LayerCAM", layers=("features.25",))
    return first, table(other, labels=[0, 1, 2], predictions=[0, 1, 1], classes=CLASSES)


def test_tables_put_together_survive_a_file(tmp_path):
    first, other = two_methods()
    both = pd.concat([first, other], ignore_index=True)
    assert (both.dtypes == first.dtypes).all()
    write(both, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "t.parquet"), both)
    assert os.listdir(tmp_path) == ["t.parquet"]  # noqa: PTH208


def test_further_columns_and_an_ablation_survive_a_file(tmp_path):
    rows = table(scores_of(noise(2, 1, 3)), ablation=ablation_of(noise(2, 1, 3), 0.5))
    rows = rows.assign(model="vgg")
    write(rows, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "t.parquet"), rows)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    first, other = two_methods()
    path = tmp_path / "t.parquet"
    write(first, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(other, path)
    pd.testing.assert_frame_equal(read(path), first)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_read_what_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")
    path = tmp_path / "t.parquet"
    path.write_text("image,k\n0,0\n")
    with pytest.raises(ValueError, match="not a complete table of region scores"):
        read(path)
    pd.DataFrame({"image": [0]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"no columns \['k', .*write it again with"):
        read(path)
    write(two_methods()[0], path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a complete table of region scores"):
        read(path)


def test_write_what_is_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"no columns .*make the table with camlens\.regions"):
        write(pd.DataFrame({"image": [0]}), tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_million_rows():
    found = scores_of(torch.arange(1_000_000.0).view(62_500, 2, 8))
    rows = table(found, labels=torch.zeros(62_500).long(), classes=CLASSES)
    assert np.array_equal(rows["density"], np.arange(1_000_000.0))
    assert rows["image"].iloc[[0, 15, 16, -1]].tolist() == [0, 0, 1, 62_499]
