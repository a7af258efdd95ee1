"""The study of regions: locating faces, measuring layers, comparing networks, written files."""

import dataclasses
import functools
import shutil

import pandas as pd
import pytest
import torch
from narrow_vgg import NarrowVGG

import camlens
from camlens import regions
from fer2013.__main__ import main
from fer2013.configurations.recipes import CONFIGS
from fer2013.data.faces import load, to_batch
from fer2013.networks import architectures, weights
from fer2013.regions import claims, masks, study
from fer2013.regions.comparison import beside
from fer2013.regions.planted_evidence import planted
from fer2013.regions.report import report
from fer2013.regions.subject import prepare

YUNET = "face_detection_yunet_2026may.onnx"


class Blind:
    """A detector that finds the template's landmarks in some images and nothing in others."""

    def __init__(self, found):
        self.found = found

    def __call__(self, images):
        points = camlens.faces.template_points() * 24 + 5  # half as large, shifted
        points = points.expand(len(images), 1, 5, 2).clone()
        points[~torch.tensor(self.found)] = torch.nan
        return camlens.faces.Faces(
            points=points,
            boxes=torch.zeros(len(images), 1, 4),
            confidence=torch.ones(len(images), 1),
            count=torch.ones(len(images), dtype=torch.long),
        )


def test_a_face_that_is_not_found_has_the_fixed_template():
    located, found = masks.locate(torch.zeros(2, 1, 48, 48), Blind([True, False]))
    template = camlens.faces.face_template(48)
    assert found.tolist() == [True, False]
    assert torch.equal(located.masks[1], template.masks[0])
    mouth = located.pick("mouth").masks[0, 0]
    whole = template.pick("mouth").masks.sum().item()
    assert mouth.sum().item() == pytest.approx(whole / 4, rel=0.05)
    rows = torch.arange(48) + 0.5
    assert (mouth.sum(dim=1) @ rows / mouth.sum()).item() == pytest.approx(0.79 * 24 + 5, abs=0.5)


DETECTOR = Blind([True] * 4 + [False] * 4)


@pytest.fixture(scope="module")
def faces(csv_file):
    """Eight synthetic images of four emotions."""
    return load(csv_file).split("PublicTest").first(8)


@pytest.fixture(scope="module")
def subject(faces):
    return prepare(weights.load(), faces, DETECTOR)


@pytest.fixture
def two_methods(monkeypatch):
    """Skip two methods, whose tables and figures take time."""
    monkeypatch.setattr(study, "METHODS", (camlens.GradCAM, camlens.GuidedGradCAM))


@pytest.fixture
def narrow_deck(monkeypatch):
    """Replace the deck's VGG19 by a narrow one with the same grids."""
    monkeypatch.setattr(study, "vgg19", functools.partial(NarrowVGG, "vgg19"))


@pytest.mark.slow
def test_the_decks_layer_resolves_no_feature(subject):
    found = study.at_the_decks_layer(subject).set_index("region")
    assert found.attrs["grid"] == (3, 3)
    assert found.loc[["brows", "eyes", "nose", "mouth"], "resolvable in"].tolist() == [0] * 4
    assert found.loc["eyes", "claimed for"] == "happy, fear, sad"


def test_measurements_equal_those_of_a_single_call(subject):
    table = study.measure(subject)
    assert len(table) == 8 * 2 * 8 * len(study.METHODS) * len(subject.layers)
    explained = camlens.LayerCAM(subject.model, "blocks.block3")(
        subject.images[3:4], targets=subject.targets[3:4]
    )
    where = subject.regions
    expected = regions.score(explained, where.of_images(slice(3, 4))).density[0, 1].tolist()
    rows = table[(table["method"] == "LayerCAM") & (table["layer"] == "blocks.block3")]
    rows = rows[(rows["image"] == 3) & (rows["k"] == 1)]
    assert rows["region"].tolist() == list(where.names)
    assert rows["density"].tolist() == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert set(rows["target"]) == {study.CLASSES[subject.targets[3, 1]]}


def test_layers_depend_on_architecture_and_side():
    def layers(name, side):
        with torch.device("meta"):  # names do not depend on weights
            model = architectures.build(dataclasses.replace(CONFIGS[name], side=side))
        return architectures.finest_layer(model), architectures.study_layers(model)

    # the ReLUs of conv3_4 and conv4_4; at 96 pixels of conv4_4 and conv5_4; at 224 vice versa
    assert layers("config1", 48) == ("features.17", ("features.17", "features.26"))
    assert layers("config5", 48) == ("features.25", ("features.25", "features.38"))
    assert layers("config5", 44) == ("features.25", ("features.25", "features.38"))  # 11x11, 5x5
    assert layers("config5", 96) == ("features.38", ("features.38", "features.51"))
    assert layers("config1", 224) == ("features.35", ("features.35", "features.26"))
    assert layers("base", 48) == ("blocks.block4", ("blocks.block4", "blocks.block3"))


@pytest.mark.parametrize(("name", "index"), [("config1", 17), ("config1", 26), ("config5", 51)])
def test_the_named_layers_are_relus_before_a_pooling(name, index):
    with torch.device("meta"):
        features = architectures.build(CONFIGS[name]).features
    assert isinstance(features[index], torch.nn.ReLU)
    assert isinstance(features[index + 1], torch.nn.MaxPool2d)


def test_an_unknown_layer_is_an_error_before_the_ablations(faces):
    with pytest.raises(LookupError, match=r"no layer 'features\.25'; similar names"):
        prepare(weights.load(), faces, DETECTOR, layers=("features.25",))


def test_ablations_in_bfloat16_are_close_to_float32(subject):
    reduced = dataclasses.replace(subject, precision=torch.bfloat16)
    exact, rounded = (one.ablate(4).excess for one in (subject, reduced))
    assert not torch.equal(exact, rounded)
    # bfloat16's step between 1 and 2, the size of these logits
    assert (rounded - exact).abs().mean() < 2**-7
    few, where = slice(4), subject.regions.of_images(slice(4))
    plain = camlens.faithfulness.ablate_regions(
        subject.model,
        subject.images[few],
        where,
        targets=subject.targets[few],
        placements=4,
        batch=64,
    ).excess
    assert torch.equal(exact, plain)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("narrow_vgg", "two_methods")
def test_the_study_of_a_random_vgg19_at_96_pixels(faces, tmp_path):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIGS["config5"], side=96)
    subject = prepare(architectures.build(config), faces, DETECTOR, precision=torch.bfloat16)
    table = study.measure(subject)
    grids = table.groupby("layer", sort=False)["grid"].first()
    assert grids.to_dict() == {"features.38": "12x12", "features.51": "6x6"}
    # only resolvable regions have a density
    eyes = table[table["region"] == "eyes"]
    resolved = eyes[eyes["layer"] == "features.38"]
    assert resolved["density"].notna().mean() > 0.4
    assert table["excess"].notna().all()
    lines = list(report(table, tmp_path))
    assert "GradCAM at features.51, the runner-up class:" in "\n".join(lines)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"claims_GradCAM_features_38.csv", "verdicts_features_51_runner_up.csv"} <= written
    assert not any("block" in name for name in written)
    units = study.facial_action(subject)
    assert units["faces"].sum() + int((subject.targets[:, 0] == 6).sum()) == 8


@pytest.fixture(scope="module")
def studies(faces, tmp_path_factory):
    """Write the studies of the packaged network and of one with negated last weights."""
    folders = []
    for name, strength in (("base", 1.0), ("other", -1.0)):
        model = weights.load()
        model.head[-1].weight.data *= strength
        subject = prepare(model, faces, DETECTOR, layers=("blocks.block4",))
        out = tmp_path_factory.mktemp(name)
        study.write_facts(subject, name, out)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study, "METHODS", (camlens.GradCAM, camlens.LayerCAM))
            list(report(study.measure(subject), out))
        folders.append(out)
    return folders


def test_two_studies_are_compared(studies, tmp_path):
    printed = "\n".join(beside(*studies, tmp_path))
    found = pd.read_csv(tmp_path / "beside.csv")
    assert set(found["network"]) == {
        "base at blocks.block4 (12x12)",
        "other at blocks.block4 (12x12)",
    }
    for folder, name in zip(studies, ("base", "other"), strict=True):
        table = regions.read(folder / "table.parquet")
        own = table[(table["method"] == "GradCAM") & (table["k"] == 0)]
        rows = found[found["network"].str.startswith(name) & (found["n"] > 0)]
        emotion = rows["emotion"].iloc[0]
        mouth = own[(own["target"] == emotion) & (own["region"] == "mouth")]
        row = rows[(rows["emotion"] == emotion) & (rows["region"] == "mouth")].iloc[0]
        assert row["mean_density"] == pytest.approx(mouth["density"].mean(), rel=1e-3, nan_ok=True)
        assert row["mean_excess"] == pytest.approx(mouth["excess"].mean(), rel=1e-3)
    verdicts = pd.read_csv(tmp_path / "beside_verdicts.csv")
    assert len(verdicts) == len(claims.DECK) + len(claims.ACTION_UNITS)
    assert "verdict, other at blocks.block4 (12x12)" in verdicts
    assert "density of the heat (Grad-CAM of the predicted class" in printed
    assert (tmp_path / "beside.png").stat().st_size > 10_000


def test_incomparable_studies_are_errors(studies, tmp_path, capsys):
    with pytest.raises(ValueError, match="expected the studies of two networks, both are of base"):
        list(beside(studies[0], studies[0], tmp_path))
    fewer = tmp_path / "fewer"
    shutil.copytree(studies[1], fewer)
    table = regions.read(fewer / "table.parquet")
    regions.write(table[table["image"] < 5], fewer / "table.parquet")
    with pytest.raises(ValueError, match=r"of other faces \(8 and 5\): run both with the same"):
        list(beside(studies[0], fewer, tmp_path))
    assert main(["beside", str(studies[0]), str(tmp_path / "none")]) == 2
    assert "run 'python -m fer2013 regions --out" in capsys.readouterr().err


@pytest.mark.shared
def test_yunet_improves_on_the_fixed_template(shared, training_faces):
    pytest.importorskip("mediapipe")
    found = masks.compare_masks(
        to_batch(training_faces.images[:60]),
        camlens.faces.YuNet(shared / "models" / YUNET),
        camlens.faces.MediaPipe(shared / "models" / "face_landmarker.task"),
    ).set_index("region")
    assert found.attrs["faces"] > 44
    fixed, moved = found["fixed template"], found["YuNet + template"]
    assert (moved[list(masks.FEATURES)] > fixed[list(masks.FEATURES)]).all()
    assert moved["mean of the four features"] >= 0.60


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.usefixtures("two_methods", "narrow_deck")
def test_the_command_regions(csv_file, tmp_path, shared, capsys, monkeypatch):
    # planted evidence is tested elsewhere
    monkeypatch.setattr(study, "planted", functools.partial(planted, steps=1))
    monkeypatch.setattr(study, "_FILLED", 2)
    arguments = ["regions", "--data", str(csv_file), "--no-mesh", "--out", str(tmp_path / "new")]
    arguments += ["--limit", "6"]
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
    assert {"claims_GradCAM_blocks_block4.csv", "density_against_excess.png"} <= written
    outcomes = pd.read_csv(tmp_path / "new" / "planted.csv")
    assert outcomes["region"].tolist() == list(study.PLANTED)


def test_a_missing_detector_is_an_error(csv_file, tmp_path, capsys):
    arguments = ["regions", "--data", str(csv_file), "--yunet", str(tmp_path / "none.onnx")]
    assert main(arguments) == 2
    assert "none.onnx" in capsys.readouterr().err
