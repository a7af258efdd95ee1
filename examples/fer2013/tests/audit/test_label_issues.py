"""Planted label errors are found, and the planted confusion ranks first."""

import numpy as np
import pytest

from fer2013.audit.label_issues import find_issues, rank_confusions, verdict
from fer2013.data.faces import CLASSES

SURPRISE, NEUTRAL = CLASSES.index("surprise"), CLASSES.index("neutral")


def planted(count=700, wrong=20):
    """Return true labels, labels with some surprise as neutral, and good probabilities."""
    true = np.arange(count) % 7
    given = true.copy()
    given[np.flatnonzero(true == SURPRISE)[:wrong]] = NEUTRAL
    sure = np.where(given == true, 0.82, 0.88)
    probabilities = np.repeat((1 - sure)[:, None] / 6, 7, axis=1)
    probabilities[np.arange(count), true] = sure
    return true, given, probabilities


def test_planted_label_errors_are_found():
    true, given, probabilities = planted()
    issues = find_issues(given, probabilities)
    wrong = true != given
    np.testing.assert_array_equal(issues.flagged, wrong)
    assert (issues.suggested[wrong] == SURPRISE).all()
    np.testing.assert_allclose(issues.quality, np.where(wrong, 0.02, 0.82))


def test_matrices_count_by_label_and_class():
    _, given, probabilities = planted()
    issues = find_issues(given, probabilities)
    assert issues.confusion[NEUTRAL, SURPRISE] == 20
    assert issues.joint[NEUTRAL, SURPRISE] == 20
    assert issues.confusion.sum() - np.trace(issues.confusion) == 20
    np.testing.assert_array_equal(issues.joint.sum(axis=1), np.bincount(given))


def test_the_planted_confusion_ranks_first():
    _, given, probabilities = planted()
    ranked = rank_confusions(find_issues(given, probabilities))
    assert len(ranked) == 21
    first = ranked.iloc[0]
    assert {first["a"], first["b"]} == {"surprise", "neutral"}
    assert first["confused"] == 20
    assert first["rank by confused"] == 1
    assert first["share"] == 1.0
    assert "surprise/neutral is the leading confusion: rank 1 of 21" in verdict(ranked)


def test_nan_is_an_error():
    _, given, probabilities = planted(70, 2)
    probabilities[3] = np.nan
    with pytest.raises(ValueError, match="expected finite probabilities"):
        find_issues(given, probabilities)


def test_a_class_may_have_no_labels():
    true, given, probabilities = planted()
    some = true != CLASSES.index("disgust")
    issues = find_issues(given[some], probabilities[some])
    assert issues.joint.shape == (7, 7)
    assert issues.flagged.sum() == 20
