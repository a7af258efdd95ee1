"""Twins: the made ones are found, of each kind, and nothing else; what is leaked and redundant."""

import cv2
import numpy as np
import pytest
from made_up_twins import as_faces, pictures, twinned

from fer2013.data import duplicates


@pytest.fixture(scope="module")
def found():
    return duplicates.find(twinned())


def test_each_kind_of_twin_is_found_and_nothing_else(found):
    kinds = {tuple(p): str(k) for p, k in zip(found.pairs.tolist(), found.kinds, strict=True)}
    assert kinds == {
        (0, 30): "exact",
        (1, 2): "exact",
        (1, 31): "near",
        (3, 4): "mirrored",
        (5, 6): "exact",
        (38, 39): "exact",
    }
    assert [g.tolist() for g in found.groups] == [[0, 30], [1, 2, 31], [3, 4], [5, 6], [38, 39]]
    assert found.correlations[found.kinds == "exact"].tolist() == [1.0] * 4
    assert (found.correlations >= 0.97).all()


def test_kinds_can_be_told_apart(found):
    exact = found.only("exact")
    assert [g.tolist() for g in exact.groups] == [[0, 30], [1, 2], [5, 6], [38, 39]]
    assert found.only("mirrored").pairs.tolist() == [[3, 4]]
    assert found.only().groups == ()
    with pytest.raises(ValueError, match="expected kinds out of"):
        found.only("similar")


def test_a_leaked_face_has_a_twin_in_training(found):
    faces = twinned()
    leaked = duplicates.twins(faces, found)
    assert np.flatnonzero(leaked).tolist() == [1, 2, 3, 4, 5, 6, 30, 31]
    assert np.flatnonzero(duplicates.twins(faces, found, usage="PublicTest")).tolist() == [
        0,
        1,
        2,
        38,
        39,
    ]
    with pytest.raises(ValueError, match="expected a split"):
        duplicates.twins(faces, found, usage="Validation")


def test_redundant_are_twins_of_test_faces_and_all_but_one_in_training(found):
    faces = twinned()
    assert np.flatnonzero(duplicates.redundant(faces, found)).tolist() == [0, 1, 2, 4, 6]
    assert len(duplicates.deduplicated(faces, found)) == 35
    # of three copies one of the majority's label stays
    labels = [3, 5, 5]
    three = as_faces(np.repeat(pictures(1), 3, axis=0), labels, [0, 0, 0])
    assert duplicates.redundant(three, duplicates.find(three)).tolist() == [True, False, True]


def test_groups_whose_labels_conflict(found):
    assert duplicates.conflicting(twinned(), found).tolist() == [False, False, False, True, True]


def test_groups_have_numbers(found):
    numbers = found.group_of(40)
    assert numbers[[0, 30]].tolist() == [0, 0]
    assert numbers[[1, 2, 31]].tolist() == [1, 1, 1]
    assert len(set(numbers.tolist())) == 40 - 6


def test_blanks_are_flat_or_nearly():
    images = pictures(4)
    images[1] = 0
    images[2] = 128
    images[2, 5:7, 9:12] = 140  # specks
    images[3] = np.linspace(100, 160, 48).astype(np.uint8)  # a gradient only
    assert duplicates.blanks(as_faces(images, [0] * 4, [0] * 4)).tolist() == [
        False,
        True,
        True,
        True,
    ]


def test_no_faces_and_one_face_have_no_twins():
    one = as_faces(pictures(1), [0], [0])
    assert duplicates.find(one).groups == ()
    assert duplicates.find(one.take(np.zeros(1, bool))).pairs.shape == (0, 2)


def test_chunks_do_not_change_what_is_found(found, monkeypatch):
    monkeypatch.setattr(duplicates, "_CHUNK", 7)
    again = duplicates.find(twinned())
    for field in ("pairs", "kinds", "correlations"):
        np.testing.assert_array_equal(getattr(again, field), getattr(found, field))


@pytest.mark.shared
def test_real_faces_that_are_cut_again_are_found(real_faces):
    images = real_faces.images[:100]
    inner = [cv2.resize(image[1:47, 1:47], (48, 48)) for image in images]
    darker = (np.array(inner) * 0.8 + 20).astype(np.uint8)
    faces = as_faces(np.concatenate([images, darker]), [0] * 200, [0] * 200)
    pairs = {tuple(pair) for pair in duplicates.find(faces).pairs.tolist()}
    assert sum((i, 100 + i) in pairs for i in range(100)) >= 97
    assert len(pairs) <= 105  # each face's own copy, and hardly another one
