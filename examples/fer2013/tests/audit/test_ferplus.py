"""FER+'s votes, from a synthetic file: reading, majorities, and contradicted labels."""

import numpy as np
import pandas as pd
import pytest
from made_up_twins import as_faces, pictures

from fer2013.audit import ferplus
from fer2013.data.faces import CLASSES, USAGES

HAPPY, SAD, NEUTRAL = (CLASSES.index(name) for name in ("happy", "sad", "neutral"))


@pytest.fixture
def faces():
    return as_faces(pictures(5), [HAPPY, HAPPY, SAD, NEUTRAL, SAD], [0, 0, 0, 1, 2])


@pytest.fixture
def table(faces):
    """Return votes that agree, contradict, tie, and choose "no face" and contempt."""
    votes = pd.DataFrame(0, index=range(5), columns=list(ferplus.COLUMNS))
    votes.loc[0, "happiness"] = 10
    votes.loc[1, ["sadness", "happiness"]] = (7, 3)
    votes.loc[2, ["sadness", "anger"]] = (5, 5)
    votes.loc[3, "NF"] = 10
    votes.loc[4, ["contempt", "sadness"]] = (6, 4)
    votes.insert(0, "Image name", [f"fer{i:07d}.png" for i in range(5)])
    votes.insert(0, "Usage", [USAGES[u] for u in faces.usages])
    return votes


def written(table, tmp_path):
    table.to_csv(tmp_path / "fer2013new.csv", index=False)
    return tmp_path / "fer2013new.csv"


def test_the_majority_decides(table, faces, tmp_path):
    winners = ferplus.majority(ferplus.read_votes(written(table, tmp_path), faces))
    assert winners.tolist() == [HAPPY, SAD, ferplus.TIED, ferplus.OTHER, ferplus.OTHER]
    found = ferplus.contradiction(faces.labels, winners)
    assert (found["decided"], found["contradicted"], found["tied"]) == (4, 3, 1)
    assert found["fraction"] == 0.75
    assert found["interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert found["text"].startswith("3 of 4 (75.0%, 95% interval 30.1% to 95.4%; 1 more")
    assert ferplus.contradiction(faces.labels[2:3], winners[2:3])["fraction"] is None


def test_votes_follow_the_order_of_the_images(table, faces, tmp_path):
    votes = ferplus.read_votes(written(table, tmp_path), faces.take(np.array([4, 0, 3, 2, 1])))
    assert votes[1].tolist() == [0, 10, 0, 0, 0, 0, 0, 0, 0, 0]
    assert votes[0, 7] == 6


def test_a_split_may_be_missing(table, faces, tmp_path):
    votes = ferplus.read_votes(written(table, tmp_path), faces.take(faces.usages < 2))
    assert len(votes) == 4


def test_rows_of_other_images_are_errors(table, faces, tmp_path):
    swapped = table.iloc[[3, 1, 2, 0, 4]]
    with pytest.raises(ValueError, match="row 0 is PublicTest, but Training in the data"):
        ferplus.read_votes(written(swapped, tmp_path), faces)
    with pytest.raises(ValueError, match="3 Training rows and the data 2 images"):
        ferplus.read_votes(written(table, tmp_path), faces.take(np.array([0, 1, 3, 4])))


def test_images_in_folders_have_no_rows(table, faces, tmp_path):
    named = as_faces(faces.images, faces.labels, faces.usages)
    named.names[:] = "x"
    with pytest.raises(ValueError, match="pass the CSV file as --data"):
        ferplus.read_votes(written(table, tmp_path), named)


def test_other_files_are_errors(table, faces, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"github\.com/microsoft/FERPlus"):
        ferplus.read_votes(tmp_path / "none.csv", faces)
    with pytest.raises(ValueError, match=r"lacks FER\+'s columns \['NF'\]"):
        ferplus.read_votes(written(table.drop(columns="NF"), tmp_path), faces)
    table["fear"] = table["fear"].astype(object)
    table.loc[2, "fear"] = "many"
    with pytest.raises(ValueError, match="line 4: expected numbers of votes"):
        ferplus.read_votes(written(table, tmp_path), faces)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="not a CSV file"):
        ferplus.read_votes(tmp_path / "empty.csv", faces)
