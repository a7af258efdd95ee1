"""Planted evidence is found in its region, and claims are tested by three intervals."""

import pandas as pd
import pytest
import torch

import camlens
from fer2013.data.faces import to_batch
from fer2013.regions import claims
from fer2013.regions.planted_evidence import plant, planted


def smooth_pictures(count):
    """Return smooth random pictures, (count, 1, 48, 48) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 1)


def test_stripes_change_only_the_region():
    mask = camlens.faces.face_template(48).pick("mouth").masks[0]
    grey = torch.full((2, 1, 48, 48), 0.5)
    level, upright = plant(grey, mask, torch.tensor([0, 1])) - grey
    assert not level[mask == 0].any()
    assert torch.allclose(level[mask == 1].abs(), torch.tensor(0.35))
    rows = mask[0] == 1
    assert len(set(level[0][38][rows[38]].tolist())) == 1  # horizontal stripes
    assert len(set(upright[0][38][rows[38]].tolist())) == 2  # vertical stripes


def few_and_many(few, many):
    """Parametrize a fast test with 60 test images, and an exhaustive one with 200."""
    exhaustive = pytest.param(many, 800, 100, marks=pytest.mark.exhaustive)
    return pytest.mark.parametrize(("region", "count", "steps"), [(few, 240, 60), exhaustive])


@pytest.mark.slow
@few_and_many("mouth", "eyes")
def test_planted_evidence_is_found(region, count, steps):
    outcome = planted(smooth_pictures(count), region, steps=steps)
    assert outcome["accuracy"] > 0.95
    assert outcome["found"] >= 0.95
    assert outcome["density"] > 3
    assert outcome["found_shuffled"] < 0.05
    assert outcome["density_shuffled"] < 2


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.shared
@few_and_many("eyes", "mouth")
def test_planted_evidence_is_found_in_real_faces(region, count, steps, training_faces):
    outcome = planted(to_batch(training_faces.images[:count]), region, steps=steps)
    assert outcome["accuracy"] > 0.95
    assert outcome["found"] >= 0.95
    assert outcome["found_shuffled"] < 0.05


def summary(**changes):
    row = {"target": "fear", "region": "eyes", "n": 50, "mean": 2.0, "low": 1.5, "high": 2.5}
    row |= {"lift": 1.5, "lift_low": 1.2, "lift_high": 1.8, "enough": True, "note": ""}
    return pd.DataFrame([row | changes])


def effect(**changes):
    return summary(mean=0.5, low=0.1, high=0.9, **changes)


def verdict(density, cost):
    judged = claims.judge(density, cost)
    row = judged[(judged["emotion"] == "fear") & (judged["region"] == "eyes")].iloc[0]
    return row["verdict"]


def test_a_claim_needs_all_three_intervals():
    assert verdict(summary(), effect()) == "supported"
    assert verdict(summary(low=0.9), effect()) == "not supported"
    assert verdict(summary(lift_low=0.9), effect()) == "not supported"
    assert verdict(summary(), effect().assign(low=-0.1)) == "not supported"
    assert verdict(summary(n=3, enough=False), effect()) == "too few images"
    assert verdict(summary(note="not resolvable", enough=False), effect()) == "not resolvable"


def test_a_claim_needs_all_its_regions():
    both = pd.concat([summary(), summary(region="brows", lift_low=0.5)])
    judged = claims.judge(both, pd.concat([effect(), effect(region="brows")]))
    found = claims.overall(judged).set_index(["source", "emotion"])
    fear = found.loc[("deck", "fear")]
    assert fear["regions"] == "eyes, brows"
    assert fear["verdict"] == "not supported"
    assert fear["supported"] == "eyes"
    assert fear["needed"] == "eyes, brows"
    assert found.loc[("deck", "happy"), "verdict"] == "too few images"  # there are none


def test_regions_of_action_units():
    assert claims.ACTION_UNITS["disgust"] == ("nose", "mouth")
    assert claims.ACTION_UNITS["surprise"] == ("brows", "eyes", "chin")
