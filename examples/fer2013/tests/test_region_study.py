"""The study of regions: planted evidence is found, claims are judged as said, files are written."""

import numpy as np
import pandas as pd
import pytest
import torch

from camlens import regions
from fer2013 import claims, masks, region_study, weights
from fer2013.__main__ import main
from fer2013.data import load
from fer2013.planted import plant, planted

YUNET = "face_detection_yunet_2026may.onnx"


def blobs(count):
    """Return smooth random pictures, (count, 1, 48, 48) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 1)


def test_planting_changes_the_region_only():
    mask = regions.face_template(48).pick("mouth").masks[0]
    grey = torch.full((2, 1, 48, 48), 0.5)
    level, upright = plant(grey, mask, torch.tensor([0, 1])) - grey
    assert not level[mask == 0].any()
    assert torch.allclose(level[mask == 1].abs(), torch.tensor(0.35))
    rows = mask[0] == 1
    assert len(set(level[0][38][rows[38]].tolist())) == 1  # along a row only
    assert len(set(upright[0][38][rows[38]].tolist())) == 2  # across it


@pytest.mark.slow
@pytest.mark.parametrize("region", ["eyes", "mouth"])
def test_planted_evidence_is_found(region):
    outcome = planted(blobs(800), region, steps=100)
    assert outcome.accuracy > 0.95
    assert outcome.found >= 0.95
    assert outcome.density > 3
    assert outcome.found_shuffled < 0.05
    assert outcome.density_shuffled < 2


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("region", masks.FEATURES)
def test_planted_evidence_is_found_in_real_faces(region, shared):
    faces = np.load(shared / "fer2013" / "fer2013_train_public.npz")["images"][:800]
    images = torch.from_numpy(faces).unsqueeze(1).float() / 255
    outcome = planted(images, region, steps=100)
    assert outcome.accuracy > 0.95
    assert outcome.found >= 0.95
    assert outcome.found_shuffled < 0.05


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


def test_a_claim_is_as_good_as_its_worst_region():
    both = pd.concat([summary(), summary(region="brows", lift_low=0.5)])
    judged = claims.judge(both, pd.concat([effect(), effect(region="brows")]))
    found = claims.overall(judged).set_index(["source", "emotion"])
    fear = found.loc[("deck", "fear")]
    assert fear["regions"] == "eyes, brows"
    assert fear["verdict"] == "not supported"
    assert fear["supported"] == "eyes"
    assert fear["needed"] == "eyes, brows"
    assert found.loc[("deck", "happy"), "verdict"] == "too few images"  # there are none


def test_a_summary_of_two_methods_is_refused():
    with pytest.raises(ValueError, match="several: filter it"):
        claims.judge(pd.concat([summary(), summary()]), effect())


def test_action_units_by_region():
    assert claims.ACTION_UNITS["disgust"] == ("nose", "mouth")
    assert claims.ACTION_UNITS["surprise"] == ("brows", "eyes", "chin")


class Blind:
    """A detector that finds the template's own points in some images and nothing in the others."""

    def __init__(self, found):
        self.found = found

    def __call__(self, images):
        points = regions.face.template_points() * 24 + 5  # half as large, shifted
        points = points.expand(len(images), 1, 5, 2).clone()
        points[~torch.tensor(self.found)] = torch.nan
        return regions.Faces(
            points=points,
            boxes=torch.zeros(len(images), 1, 4),
            confidence=torch.ones(len(images), 1),
            count=torch.ones(len(images), dtype=torch.long),
        )


def test_a_face_that_is_not_found_has_the_template():
    located = masks.locate(torch.zeros(2, 1, 48, 48), Blind([True, False]))
    template = regions.face_template(48)
    assert located.found.tolist() == [True, False]
    assert torch.equal(located.regions.masks[1], template.masks[0])
    mouth = located.regions.pick("mouth").masks[0, 0]
    whole = template.pick("mouth").masks.sum().item()
    assert mouth.sum().item() == pytest.approx(whole / 4, rel=0.05)
    rows = torch.arange(48) + 0.5
    assert (mouth.sum(dim=1) @ rows / mouth.sum()).item() == pytest.approx(0.79 * 24 + 5, abs=0.5)


@pytest.fixture
def subject(csv_file):
    faces = load(csv_file).split("PublicTest")
    return region_study.prepare(weights.load(), faces, Blind([True] * 7 + [False] * 7))


def test_the_decks_layer_resolves_none_of_its_features(subject):
    found = region_study.at_the_decks_layer(subject).set_index("region")
    assert region_study.at_the_decks_layer(subject).attrs["grid"] == (3, 3)
    assert found.loc[["brows", "eyes", "nose", "mouth"], "resolvable in"].tolist() == [0] * 4
    assert found.loc["eyes", "claimed for"] == "happy, fear, sad"


def test_a_measured_number_is_that_of_a_single_call(subject):
    import camlens

    table = region_study.measure(subject)
    assert len(table) == 14 * 2 * 8 * len(region_study.METHODS) * len(region_study.LAYERS)
    explained = camlens.LayerCAM(subject.model, "blocks.block3")(
        subject.images[3:4], targets=subject.targets[3:4]
    )
    where = subject.located.regions
    one = regions.Regions(where.names, where.masks[3:4])
    expected = regions.score(explained, one).density[0, 1].tolist()
    rows = table[(table["method"] == "LayerCAM") & (table["layer"] == "blocks.block3")]
    rows = rows[(rows["image"] == 3) & (rows["k"] == 1)]
    assert rows["region"].tolist() == list(where.names)
    assert rows["density"].tolist() == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert set(rows["target"]) == {region_study.CLASSES[subject.targets[3, 1]]}


@pytest.mark.slow
@pytest.mark.shared
def test_yunet_places_the_template_better_than_its_fixed_place(shared):
    pytest.importorskip("mediapipe")
    content = np.load(shared / "fer2013" / "fer2013_train_public.npz")
    images = torch.from_numpy(content["images"][content["usage"] == 1][:150]).unsqueeze(1) / 255
    found = masks.compare_masks(
        images,
        regions.YuNet(shared / "models" / YUNET),
        regions.MediaPipe(shared / "models" / "face_landmarker.task"),
    ).set_index("region")
    assert found.attrs["faces"] > 110
    fixed, moved = found["fixed template"], found["YuNet + template"]
    assert (moved[list(masks.FEATURES)] > fixed[list(masks.FEATURES)]).all()
    assert moved["mean of the four features"] >= 0.60


@pytest.mark.slow
@pytest.mark.shared
def test_the_command_writes_the_whole_study(csv_file, tmp_path, shared, capsys):
    arguments = ["regions", "--data", str(csv_file), "--no-mesh", "--out", str(tmp_path / "new")]
    assert main([*arguments, "--yunet", str(shared / "models" / YUNET)]) == 0
    printed = capsys.readouterr().out
    assert "the deck's claim for happy (mouth, cheeks, eyes): not resolvable (" in printed
    assert "GuidedGradCAM at blocks.block3, the predicted class:" in printed
    table = regions.read(tmp_path / "new" / "table.parquet")
    density = pd.read_csv(tmp_path / "new" / "density.csv")
    row = density[(density["n"] > 0) & (density["k"] == 0)].iloc[0]
    same = table[(table["k"] == 0)]
    for column in ("target", "method", "layer", "region"):
        same = same[same[column] == row[column]]
    assert same["density"].mean() == pytest.approx(row["mean"], rel=1e-3)
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"claims_GradCAM_blocks_block4.csv", "density_against_effect.png"} <= written


def test_the_study_without_a_detector(csv_file, tmp_path, capsys):
    arguments = ["regions", "--data", str(csv_file), "--yunet", str(tmp_path / "none.onnx")]
    assert main(arguments) == 2
    assert "none.onnx" in capsys.readouterr().err
