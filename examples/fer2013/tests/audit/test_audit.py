"""The command audit: tables, counts, sheets, and an index for train."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from made_up_faces import write_csv
from made_up_twins import as_faces, pictures, twinned

from fer2013.__main__ import main
from fer2013.audit import audit, out_of_sample
from fer2013.audit.ferplus import COLUMNS
from fer2013.audit.out_of_sample import Plan
from fer2013.configurations.recipes import CONFIGS
from fer2013.data.duplicates import Duplicates, find
from fer2013.data.faces import CLASSES, USAGES, load
from fer2013.data.index import read_index, write_index
from fer2013.training.train import Machine

CPU = Machine(device="cpu", precision="32-true")
SHORT = dataclasses.replace(CONFIGS["first"], epochs=1, batch_size=7)


def votes_of(faces, path):
    """Write unanimous votes for surprise on every image."""
    table = pd.DataFrame(0, index=range(len(faces)), columns=list(COLUMNS))
    table["surprise"] = 10
    table.insert(0, "Usage", np.array(USAGES)[faces.usages])
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run an audit with votes and an index, and return its folder."""
    folder = tmp_path_factory.mktemp("audit")
    data = folder / "fer2013.csv"
    write_csv(twinned(), data)
    votes = votes_of(twinned(), folder / "votes.csv")
    command = ["audit", "--data", str(data), "--out", str(folder / "out"), "--shown", "3"]
    assert main([*command, "--drop", "duplicates,blanks", "--ferplus", str(votes)]) == 0
    return folder


def test_every_issue_is_listed(done):
    table = pd.read_csv(done / "out" / "issues.csv").set_index("name")
    blank = table[table["issue"] == "blank"]
    assert blank.index.tolist() == [38, 39]
    by = {issue: sorted(some.index) for issue, some in table.groupby("issue")}
    assert by["exact twin"] == [0, 1, 2, 5, 6, 30, 38, 39]
    assert by["near twin"] == [31]
    assert by["mirrored twin"] == [3, 4]
    assert by["conflicting twins"] == [5, 6, 38, 39]
    row = table.loc[31]
    assert (row["given"], row["usage"], row["twins"]) == ("disgust", "PublicTest", "1;2")
    assert 0.97 <= row["score"] < 1
    assert set(table["ferplus"]) == {"surprise"}


def test_the_summary_counts(done):
    summary = json.loads((done / "out" / "summary.json").read_text())
    exact, _, every = summary["twins"].values()
    assert exact["groups by splits"] == {
        "PublicTest": 1,
        "Training": 2,
        "Training + PublicTest": 1,
    }
    assert every["groups"] == 5
    assert every["conflicting groups"] == 2
    assert every["with a twin in Training"] == {"Training": 6, "PublicTest": 2}
    assert every["redundant in Training"] == 5
    assert summary["blank"] == {"Training": 0, "PublicTest": 2}
    labels = summary["labels"]["test"]
    assert labels["faces"] == 12 - 2 - 2
    assert labels["left out"] == {"blank": 2, "twin in Training": 2}
    votes = labels["contradicted by FER+"]
    decided = votes["flagged"]["decided"] + votes["not flagged"]["decided"]
    assert decided == 8
    contradicted = votes["flagged"]["contradicted"] + votes["not flagged"]["contradicted"]
    judged = [i for i in range(28, 38) if i not in {30, 31}]
    surprise = CLASSES.index("surprise")
    assert contradicted == sum(twinned().labels[i] != surprise for i in judged)


def test_sheets_and_confusions_are_written(done):
    assert (done / "out" / "twins.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(done / "out" / "confusions_test.csv")) == 21


def test_train_accepts_the_index_only_with_its_data(done, tmp_path, capsys):
    faces = load(done / "fer2013.csv")
    kept = read_index(done / "out" / "index.csv", faces)
    assert np.setdiff1d(faces.names.astype(int), kept.names.astype(int)).tolist() == [0, 1, 2, 4, 6]
    np.testing.assert_array_equal(kept.labels, faces.labels[np.isin(faces.names, kept.names)])
    write_csv(faces.take(np.arange(1, 40)), tmp_path / "fer2013.csv")
    command = ["train", "first", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main([*command, "--index", str(done / "out" / "index.csv")]) == 2
    assert "belongs to other data: 39 is not in the data" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def index(tmp_path):
    faces = as_faces(pictures(6), range(6), [0, 0, 0, 0, 1, 2])
    path = tmp_path / "index.csv"
    write_index(faces, np.array(["", "blanks", "", "", "", ""]), path)
    return faces, path, pd.read_csv(path, dtype=str, keep_default_na=False)


def test_labels_can_be_edited(index):
    faces, path, table = index
    table.loc[2, "label"] = "neutral"
    table.loc[3, "keep"] = "0"
    table.iloc[::-1].to_csv(path, index=False)  # in any order
    kept = read_index(path, faces)
    assert kept.names.tolist() == ["0", "2", "4", "5"]
    assert kept.labels.tolist() == [0, CLASSES.index("neutral"), 4, 5]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "bored", "line 2: expected label as one of angry, .* got 'bored'"),
        ("keep", "yes", "line 2: expected keep as one of 0, 1, got 'yes'"),
        ("name", "1", "contains 1 twice"),
        ("name", "99", "belongs to other data: 99 is not in the data"),
        ("digest", "0" * 12, "1 of 6 images differ in pixels or split, first 0"),
        ("usage", "PublicTest", "1 of 6 images differ in pixels or split, first 0"),
    ],
)
def test_invalid_indices_are_errors(index, column, value, message):
    faces, path, table = index
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        read_index(path, faces)


def test_other_files_are_not_indices(index, tmp_path):
    faces, path, table = index
    with pytest.raises(FileNotFoundError, match="audit --drop"):
        read_index(tmp_path / "none.csv", faces)
    table.drop(columns="digest").to_csv(path, index=False)
    with pytest.raises(ValueError, match="lacks the columns digest"):
        read_index(path, faces)
    table.assign(keep="0").to_csv(path, index=False)
    with pytest.raises(ValueError, match="keeps no images"):
        read_index(path, faces)
    table.iloc[:4].to_csv(path, index=False)
    with pytest.raises(ValueError, match="it lacks 4; 0 of its images"):
        read_index(path, faces)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"drop": ("twins",)}, "expected --drop as some of duplicates, blanks, labels, got twins"),
        ({"drop": ("labels",)}, "--drop labels needs --folds"),
        ({"folds": 1}, "expected 0 folds, or at least 2, got 1"),
        ({"shown": 0}, "at least 1 image per sheet"),
    ],
)
def test_invalid_options_write_nothing(plan, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        list(audit.audit(twinned(), tmp_path / "out", Plan(**plan)))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("narrow_base")
def test_hardly_trained_networks_cannot_drop_labels(tmp_path):
    faces = as_faces(pictures(49), [i % 7 for i in range(49)], [0] * 35 + [1] * 14)
    plan = Plan(folds=2, config=SHORT, drop=("labels",), machine=CPU)
    with pytest.raises(ValueError, match=r"agree with at least 50% of the labels, got \d+\.\d%"):
        list(audit.audit(faces, tmp_path, plan))
    assert [path.name for path in tmp_path.iterdir()] == ["folds"]


def test_duplicates_are_in_the_same_fold():
    faces = as_faces(pictures(70), [i % 7 for i in range(70)], [0] * 63 + [1] * 7)
    pairs = np.array([[0, 7], [7, 14], [1, 9]])
    groups = Duplicates(
        pairs, np.full(3, "near"), np.ones(3), (np.array([0, 7, 14]), np.array([1, 9]))
    )
    folds = out_of_sample.folds_of(faces, groups.group_of(70), 3)
    assert folds[0] == folds[7] == folds[14]
    assert folds[1] == folds[9]
    assert folds[63:].tolist() == [-1] * 7
    assert np.bincount(folds[:63]).min() >= 18
    with pytest.raises(ValueError, match="9 images for 10 folds"):
        out_of_sample.folds_of(faces, np.arange(70), 10)


def test_networks_trained_on_the_images_cannot_judge_them(tmp_path):
    plan = Plan(config=CONFIGS["base"])
    with pytest.raises(ValueError, match="'base' starts from 'first', which was trained on"):
        out_of_sample.held_out(twinned(), np.zeros(40, int), tmp_path, plan)


@pytest.mark.usefixtures("narrow_base")
def test_folds_are_judged_by_networks_trained_without_them(tmp_path, monkeypatch):
    faces = as_faces(pictures(49), [i % 7 for i in range(49)], [0] * 28 + [1] * 14 + [2] * 7)
    folds = out_of_sample.folds_of(faces, np.arange(49), 2)
    seen = []

    def remembered(config, part, **options):
        seen.append(part)
        return real(config, part, **options)

    real = out_of_sample.train
    monkeypatch.setattr(out_of_sample, "train", remembered)
    plan = Plan(config=SHORT, machine=CPU)
    found, paths = out_of_sample.held_out(faces, folds, tmp_path, plan)
    for fold, part in enumerate(seen):
        held = faces.names[folds == fold]
        assert set(part.names[part.usages == 0]) == set(faces.names[:28]) - set(held)
        assert part.names[part.usages == 2].tolist() == held.tolist()
    assert np.isnan(found[28:]).all()
    np.testing.assert_allclose(found[:28].sum(axis=1), 1)
    before = [path.stat().st_mtime_ns for path in paths]
    again, _ = out_of_sample.held_out(faces, folds, tmp_path, plan)
    np.testing.assert_array_equal(again, found)
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_duplicates_of_training_images_are_not_judged():
    faces = twinned()
    judged = out_of_sample.judge_tests(faces, find(faces), Plan())
    assert judged.where.tolist() == [28, 29, 32, 33, 34, 35, 36, 37]
    training = faces.take(faces.usages == 0)
    assert out_of_sample.judge_tests(training, find(training), Plan()) is None
