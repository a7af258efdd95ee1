"""Training and validation splits."""

import numpy as np
import pytest
from made_up_faces import made_up_faces

from fer2013.data.faces import CLASSES
from fer2013.data.splits import divide


def names(faces):
    return set(faces.names.tolist())


def test_the_standard_split_is_the_official_one():
    faces = made_up_faces(training=3, public=2, private=4)
    parts = divide(faces, "standard", seed=9)
    assert (parts.train.usages == 0).all()
    assert (parts.validation.usages == 1).all()
    assert (len(parts.train), len(parts.validation)) == (21, 14)


def test_the_decks_split_is_a_stratified_fifth_of_training():
    faces = made_up_faces(training=20, public=3, private=3)
    uneven = faces.take(np.flatnonzero((faces.labels != 1) | (np.arange(len(faces)) % 2 == 0)))
    parts = divide(uneven, "deck", seed=0)
    assert (parts.train.usages == 0).all()
    assert (parts.validation.usages == 0).all()
    assert names(parts.train) | names(parts.validation) == names(uneven.split("Training"))
    assert not names(parts.train) & names(parts.validation)
    assert np.bincount(parts.validation.labels).tolist() == [4, 2, 4, 4, 4, 4, 4]
    assert np.bincount(parts.train.labels).tolist() == [16, 8, 16, 16, 16, 16, 16]


def test_the_decks_split_depends_on_the_seed():
    faces = made_up_faces(training=10)
    first, again, other = (divide(faces, "deck", seed=seed) for seed in (0, 0, 1))
    assert names(first.validation) == names(again.validation)
    assert names(first.validation) != names(other.validation)


def test_missing_data_are_errors():
    faces = made_up_faces(training=2, public=1)
    with pytest.raises(ValueError, match="expected the split 'standard' or 'deck', got 'own'"):
        divide(faces, "own")
    lacking = faces.take(faces.labels != CLASSES.index("disgust"))
    message = "at least {} Training images of each class, got fewer of disgust: is this the whole"
    for split, least in (("standard", 1), ("deck", 2)):
        with pytest.raises(ValueError, match=message.format(least)):
            divide(lacking, split)
    with pytest.raises(ValueError, match="a fifth with all 7 classes, got 14"):
        divide(faces, "deck")
    with pytest.raises(ValueError, match="the data has no PublicTest images"):
        divide(made_up_faces(training=2, public=0), "standard")
    with pytest.raises(ValueError, match="the data has no Training images"):
        divide(made_up_faces(training=0, public=2), "standard")
