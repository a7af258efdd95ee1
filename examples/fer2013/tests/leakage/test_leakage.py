"""Leakage experiments on random images and labels, where only memorised images are correct."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fer2013.data.faces import Faces
from fer2013.leakage import experiment
from fer2013.leakage.report import sentences
from fer2013.leakage.runs import Plan

# Advice of Lightning and torch that does not concern short runs.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:`isinstance"),
]

PLAN = Plan(faces=240, epochs=14, seeds=1, side=12, batch_size=24)
ALL = "all validation faces"


def noise(pairs, single, public):
    """Return noise with random labels: copied and single Training images, and PublicTest."""
    random = np.random.default_rng(3)
    count = pairs + single + public
    images = np.kron(random.integers(0, 256, (count, 12, 12)), np.ones((4, 4))).astype(np.uint8)
    labels = random.permutation(np.arange(count) % 7)
    rows = np.concatenate([np.arange(pairs), np.arange(count)])
    usages = (rows >= pairs + single).astype(np.int64)
    return Faces(images[rows], labels[rows], usages, np.arange(len(rows)).astype(str))


def by_kind(rows):
    return {(row["arm"], row["faces"]): (row["right"], row["n"]) for row in rows}


@pytest.mark.exhaustive
@pytest.mark.slow
def test_only_copies_on_both_sides_are_memorised(tmp_path):
    faces = noise(70, 100, 0)
    groups = np.concatenate([np.arange(70), np.arange(170)])
    found = by_kind(experiment.copies_across(faces, groups, tmp_path, PLAN, seed=0))
    right, n = found["copies on both sides", "a copy was trained on"]
    assert n >= 10
    assert right / n > 0.8
    for arm, kind in (
        ("copies on both sides", "without copies"),
        ("copies kept together", ALL),
    ):
        right, n = found[arm, kind]
        assert n >= 15
        assert right / n < 0.45  # chance is 0.14, for the best of 14 epochs
    assert ("copies kept together", "a copy was trained on") not in found


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_redrawn_split_is_memorised_and_a_rerun_gives_the_same(tmp_path):
    faces = noise(0, 144, 70)
    rows = experiment.redrawn_split(faces, tmp_path, PLAN, seed=0)
    found = by_kind(rows)
    right, n = found["continued, redrawn split", "trained on before"]
    assert n >= 18  # four fifths of a fifth of 144
    assert right / n > 0.8
    for arm in ("one training", "continued, same split"):
        right, n = found[arm, ALL]
        assert n == 29
        assert right / n < 0.45
    for arm in ("one training", "continued, same split", "continued, redrawn split"):
        right, n = found[arm, "PublicTest, never seen"]
        assert n == 70
        assert right / n < 0.35
    assert experiment.redrawn_split(faces, tmp_path, PLAN, seed=0) == rows
    with pytest.raises(ValueError, match="other values of epochs"):
        experiment.redrawn_split(faces, tmp_path, dataclasses.replace(PLAN, epochs=2), seed=0)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_base")
def test_the_experiment_writes_its_results(tmp_path):
    plan = dataclasses.replace(PLAN, faces=70, epochs=1, batch_size=12)
    lines = list(experiment.experiment(noise(30, 60, 30), tmp_path, plan))
    assert any(line.startswith("copies: leakage adds ") for line in lines)
    runs = pd.read_csv(tmp_path / "leakage.csv")
    both = runs[(runs["arm"] == "copies on both sides") & (runs["faces"] == ALL)]
    assert both["n"].tolist() == [14]
    assert (tmp_path / "leakage.png").stat().st_size > 10_000
    assert set(runs["arm"]) == set(pd.read_csv(tmp_path / "summary.csv")["arm"])


def test_half_the_images_have_copies_in_whole_groups():
    groups = np.concatenate([np.repeat(np.arange(20), 2), np.arange(20, 80)])
    chosen = experiment._enriched(groups, 40, np.random.default_rng(0))
    sizes = np.bincount(groups[chosen])
    assert len(set(chosen)) == 40
    assert (sizes[:20] % 2 == 0).all()
    assert sizes[:20].sum() == 20


def test_without_copies_is_an_error():
    with pytest.raises(ValueError, match="no Training image has a copy"):
        experiment._enriched(np.arange(9), 4, np.random.default_rng(0))


def test_the_expected_fraction_with_a_copy_in_the_rest():
    # the other one of a pair is in the rest with probability 0.8, one of a triple's with 0.96
    assert experiment.copied_share(np.array([0, 0, 1, 1, 1, 2])) == pytest.approx(
        (2 * 0.8 + 3 * 0.96) / 6
    )


def test_differences_are_in_points_and_by_seed():
    arms = {
        ("copies", "copies on both sides"): (60, 70),
        ("copies", "copies kept together"): (40, 45),
        ("redrawn", "one training"): (30, 30),
        ("redrawn", "continued, same split"): (35, 36),
        ("redrawn", "continued, redrawn split"): (80, 90),
    }
    rows = [
        {"experiment": e, "arm": arm, "faces": kind, "seed": seed, "n": 100, "right": right}
        for (e, arm), rights in arms.items()
        for kind, less in ((ALL, 0), ("PublicTest, never seen", 20))
        for seed, right in enumerate(r - less for r in rights)
    ]
    runs = pd.DataFrame(rows).assign(accuracy=lambda table: table["right"] / table["n"])
    summary = experiment.summarize(runs)
    row = summary.iloc[0]
    assert (row["n"], row["right"], row["accuracy"]) == (200, 130, 0.65)
    assert row["low"] == pytest.approx(0.582, abs=1e-3)  # Wilson's interval of 130 of 200
    assert row["high"] == pytest.approx(0.713, abs=1e-3)
    lines = list(sentences(runs, summary, 0.065))
    assert "copies: leakage adds +22.5 points (by seed: +20.0, +25.0)" in lines
    assert "redrawn: on validation, redrawing adds +49.5 points (by seed: +45.0, +54.0)" in lines
    assert "validation is above PublicTest by +20.0 points" in "".join(lines)
    assert "65.0% 58.2% 71.3%" in " ".join("".join(lines).split())
    assert any("6.5% have a copy in the rest" in line for line in lines)
