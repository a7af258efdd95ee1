"""Synthetic duplicates of each kind are found, and nothing else; leaks and redundant images."""

import cv2
import numpy as np
import pytest
from made_up_twins import as_faces, pictures, twinned

from fer2013.data import duplicates


@pytest.fixture(scope="module")
def found():
    return duplicates.find(twinned())


def test_each_kind_of_duplicate_is_found_and_nothing_else(found):
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


def test_duplicates_can_be_filtered_by_kind(found):
    exact = found.only("exact")
    assert [g.tolist() for g in exact.groups] == [[0, 30], [1, 2], [5, 6], [38, 39]]
    assert found.only("mirrored").pairs.tolist() == [[3, 4]]
    assert found.only().groups == ()


def test_images_with_a_duplicate_in_training_leak(found):
    faces = twinned()
    leaked = duplicates.twins(faces, found)
    assert np.flatnonzero(leaked).tolist() == [1, 2, 3, 4, 5, 6, 30, 31]


def test_duplicates_of_test_images_and_all_but_one_in_training_are_redundant(found):
    faces = twinned()
    assert np.flatnonzero(duplicates.redundant(faces, found)).tolist() == [0, 1, 2, 4, 6]
    # of three copies, one with the majority's label stays
    labels = [3, 5, 5]
    three = as_faces(np.repeat(pictures(1), 3, axis=0), labels, [0, 0, 0])
    assert duplicates.redundant(three, duplicates.find(three)).tolist() == [True, False, True]


def test_groups_with_conflicting_labels(found):
    assert duplicates.conflicting(twinned(), found).tolist() == [False, False, False, True, True]


def test_images_of_a_group_share_a_number(found):
    numbers = found.group_of(40)
    assert numbers[[0, 30]].tolist() == [0, 0]
    assert numbers[[1, 2, 31]].tolist() == [1, 1, 1]
    assert len(set(numbers.tolist())) == 40 - 6


def test_blank_images_are_nearly_constant_or_a_gradient():
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


def test_one_image_and_none_have_no_duplicates():
    one = as_faces(pictures(1), [0], [0])
    assert duplicates.find(one).groups == ()
    assert duplicates.find(one.take(np.zeros(1, bool))).pairs.shape == (0, 2)


def test_the_chunk_size_does_not_change_the_result(found, monkeypatch):
    monkeypatch.setattr(duplicates, "_CHUNK", 7)
    again = duplicates.find(twinned())
    for field in ("pairs", "kinds", "correlations"):
        np.testing.assert_array_equal(getattr(again, field), getattr(found, field))


@pytest.mark.shared
def test_real_faces_that_are_cropped_again_are_found(training_faces):
    images = training_faces.images[:100]
    inner = [cv2.resize(image[1:47, 1:47], (48, 48)) for image in images]
    darker = (np.array(inner) * 0.8 + 20).astype(np.uint8)
    faces = as_faces(np.concatenate([images, darker]), [0] * 200, [0] * 200)
    pairs = {tuple(pair) for pair in duplicates.find(faces).pairs.tolist()}
    assert sum((i, 100 + i) in pairs for i in range(100)) >= 97
    assert len(pairs) <= 105  # each image's own copy, and few others
