"""Verdicts on the deck's conclusions, from synthetic results."""

import dataclasses

import pytest

from fer2013.comparison.results import Result
from fer2013.comparison.verdicts import FAILS, HOLDS, UNDECIDED, UNMEASURED, judge
from fer2013.configurations.recipes import CONFIGS

FACES = 3589


def result(name, accuracy, *, last=(0.6, 0.6), seed=0, recall=0.5, **changes):
    config = CONFIGS[name]
    facts = {
        "seed": seed,
        "last_epoch": {"train_accuracy": last[0], "val_accuracy": last[1]},
        "pretrained_on": "Tiny ImageNet",
    }
    found = Result(
        config,
        f"runs/{name}",
        facts,
        on="PublicTest",
        averaging=config.averaging,
        count=FACES,
        correct=round(accuracy * FACES),
        report={"disgust": {"recall": recall, "support": 56}},
        sha256=f"{name} {seed}",
    )
    return dataclasses.replace(found, **changes)


def verdicts(*results):
    order = ("frozen", "deeper", "fewer", "augmented", "vgg", "transfer", "weights")
    return dict(zip(order, judge(results), strict=True))


def test_without_results_everything_is_unmeasured():
    assert {verdict.verdict for verdict in judge([])} == {UNMEASURED}


def test_results_like_the_decks_support_all_conclusions():
    found = verdicts(
        result("base", 0.55),
        result("config1", 0.44, last=(0.52, 0.50)),
        result("config2", 0.51, last=(0.95, 0.57), recall=0.7),
        result("config2-unweighted", 0.52, last=(0.95, 0.57), recall=0.2),
        result("config3", 0.58, last=(0.77, 0.74)),
        result("config3-random", 0.4),
        result("config4", 0.63),
    )
    assert {verdict.verdict for verdict in found.values()} == {HOLDS}
    assert found["deeper"].evidence == "training 38 points above validation in the last epoch"
    # Newcombe 1998, method 10, from the Wilson intervals by hand
    assert found["augmented"].evidence == "63.0% and 58.0%, +5.0 points [+2.7, +7.2]"
    assert found["weights"].evidence.startswith("70% and 20% of 56 images, +50 points [+32, +")
    assert "config4, the best" in found["vgg"].claim


def test_opposite_results_support_no_conclusion():
    found = verdicts(
        result("base", 0.685),
        result("config1", 0.44, last=(0.9, 0.4)),
        result("config2", 0.6, last=(0.6, 0.55), recall=0.2),
        result("config2-unweighted", 0.6, recall=0.7),
        result("config3", 0.55, last=(0.9, 0.4)),
        result("config3-random", 0.6),
        result("config4", 0.5),
    )
    assert {verdict.verdict for verdict in found.values()} == {FAILS}


def test_a_small_difference_is_inconclusive_and_seeds_are_averaged():
    found = verdicts(
        *(result("config3", 0.58 + 0.02 * seed, seed=seed) for seed in (-1, 0, 1)),
        result("config4", 0.585),
        result("config4", 0.9, deviations=("epochs 2, not 30",), sha256="x"),
    )
    assert found["augmented"].verdict == UNDECIDED
    assert "58.5% and 58.0% (3 seeds, 56.0 to 60.0)" in found["augmented"].evidence


def test_a_larger_gap_is_not_better_generalisation():
    found = verdicts(
        result("config2", 0.51, last=(0.7, 0.6)), result("config3", 0.58, last=(0.9, 0.6))
    )
    assert found["fewer"].verdict == FAILS
    assert found["fewer"].evidence.endswith("gap of training and validation 10 and 30")


@pytest.mark.parametrize("name", ["config2-unweighted", "config3-random"])
def test_controls_differ_in_one_field(name):
    control, original = (dataclasses.asdict(CONFIGS[n]) for n in (name, name.split("-")[0]))
    changed = {key for key in control if control[key] != original[key]}
    assert changed == {"name", "class_weights" if name.startswith("config2") else "weights"}
