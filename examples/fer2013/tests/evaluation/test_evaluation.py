"""Metrics, compared with values computed by hand, and the files of an evaluation."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from fer2013.__main__ import main
from fer2013.comparison import deck
from fer2013.configurations.recipes import CONFIGS
from fer2013.data import splits
from fer2013.data.faces import CLASSES, load
from fer2013.evaluation import report
from fer2013.evaluation.accuracy import calibration, evaluate, measure, reliability, wilson
from fer2013.evaluation.predictions import averaged_logits, predict
from fer2013.evaluation.records import default_folder, remember
from fer2013.evaluation.report import confusions, layout
from fer2013.evaluation.study import InferenceOptions, study
from fer2013.networks import architectures, weights


def sure(labels, logit=3.0):
    """Return logits that predict the given classes."""
    return logit * nn.functional.one_hot(torch.as_tensor(labels), len(CLASSES)).float()


def by_hand(correct, count, z=1.959963984540054):
    p = correct / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half


@pytest.mark.parametrize(("correct", "count"), [(2459, 3589), (4243, 7178), (1, 7), (7, 7)])
def test_the_wilson_interval_equals_its_formula(correct, count):
    assert wilson(correct, count) == pytest.approx(by_hand(correct, count), abs=1e-9)


def test_calibration_equals_values_by_hand():
    # Probabilities of 0.8 for a true class, and of 0.6 for a wrong class and 0.4 for the true one.
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    found = calibration(probabilities.log(), torch.tensor([0, 1]))
    assert found["expected calibration error"] == pytest.approx(
        (abs(1 - 0.8) + abs(0 - 0.6)) / 2, abs=1e-6
    )
    assert found["log loss"] == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2, abs=1e-6)
    assert found["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2, abs=1e-6)
    filled = found["bins"].dropna()
    assert filled["confidence"].tolist() == pytest.approx([0.6, 0.8], abs=1e-6)
    assert filled["accuracy"].tolist() == [0, 1]


def test_the_calibration_error_equals_that_of_torchmetrics():
    logits, labels = torch.randn(500, 7).double(), torch.randint(7, (500,))
    found = calibration(logits, labels)
    theirs = multiclass_calibration_error(logits.softmax(dim=1), labels, 7, n_bins=15)
    assert found["expected calibration error"] == pytest.approx(theirs.item(), abs=1e-6)
    assert found["bins"]["faces"].sum() == 500


def test_bins_include_their_lower_edges_and_the_last_one_includes_1():
    found = reliability(np.array([0.25, 0.5, 1.0]), np.array([True, False, True]), bins=4)
    assert found["faces"].tolist() == [0, 1, 1, 1]


def test_an_evaluation_counts_predictions():
    labels = np.array([0, 0, 1, 3, 3, 3])
    found = measure(sure([0, 1, 1, 3, 3, 6]), labels)
    assert (found.correct, found.count) == (4, 6)
    assert found.accuracy == 4 / 6
    assert found.interval == wilson(4, 6)
    assert found.confusion[0, 1] == 1
    assert found.confusion[3, 6] == 1
    assert found.confusion.sum() == 6
    assert found.report["happy"]["recall"] == pytest.approx(2 / 3)
    counts, shares = confusions(found.confusion)
    assert counts.loc["happy", "neutral"] == 1
    assert shares.loc["happy", "happy"] == pytest.approx(2 / 3)
    assert shares.loc["sad"].isna().all()  # no images of this class
    values = json.loads(json.dumps(found.as_dict()))
    assert (values["n"], values["correct"], values["confusion"]["counts"][3][6]) == (6, 4, 1)
    assert [row["faces"] for row in values["calibration"]["bins"]] == [6]


def test_the_report_has_the_decks_layout():
    lines = [line.split() for line in layout(deck.REPORT).splitlines()]
    assert lines[0] == ["Label", "Precision", "Recall", "F1-score", "Support"]
    assert [line[0] for line in lines[1:8]] == sorted(CLASSES)
    assert lines[1] == ["angry", "0.52", "0.48", "0.50", "958"]
    assert lines[7] == ["surprise", "0.77", "0.73", "0.75", "831"]
    assert lines[8] == ["accuracy", "0.59", "7178"]
    assert lines[9] == ["macro", "avg", "0.60", "0.59", "0.59", "7178"]
    assert lines[10] == ["weighted", "avg", "0.60", "0.59", "0.59", "7178"]


def test_the_decks_averages_follow_from_its_rows():
    rows = pd.DataFrame({name: deck.REPORT[name] for name in CLASSES}).T
    assert rows["support"].sum() == deck.TEST_FACES
    # the rows are rounded to two digits
    for name in ("precision", "recall", "f1-score"):
        assert rows[name].mean() == pytest.approx(deck.REPORT["macro avg"][name], abs=0.01)
    # the weighted recall is the accuracy
    recall = (rows["recall"] * rows["support"]).sum() / deck.TEST_FACES
    assert recall == pytest.approx(deck.CONFIGURATIONS["config4"].test / 100, abs=0.005)


def test_the_files_hold_the_same_numbers(tmp_path):
    report.write(measure(sure([0, 1, 1, 3]), np.array([0, 0, 1, 3])), tmp_path, "title")
    table = pd.read_csv(tmp_path / "report.csv").set_index("Label")
    assert list(table.index)[-3:] == ["accuracy", "macro avg", "weighted avg"]
    assert table.loc["angry", "Recall"] == 0.5
    assert table.loc["accuracy", "F1-score"] == 0.75
    confusion = pd.read_csv(tmp_path / "confusion.csv").set_index("true")
    assert confusion.loc["angry", "disgust"] == 1
    assert len(pd.read_csv(tmp_path / "reliability.csv")) == 15


def test_no_images_and_infinite_logits_are_errors(csv_file):
    faces = load(csv_file)
    model = architectures.build(CONFIGS["base"])
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(model, faces.take(np.zeros(len(faces), bool)))
    with pytest.raises(ValueError, match=r"finite logits, got NaN or infinity for 1 of 2"):
        measure(torch.tensor([[torch.nan] * 7, [0.0] * 7]), np.array([0, 1]))


def test_bfloat16_equals_float32_within_its_precision(csv_file):
    model, faces = weights.load(), load(csv_file).split("PublicTest")
    whole = predict(model, faces)
    half = predict(model, faces, precision="bfloat16")
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.3


def test_views_are_averaged_in_float32():
    class Halves(nn.Module):
        def forward(self, images):
            # 1 and 1 + 2**-7 are adjacent in bfloat16, which cannot represent their mean
            return images[:, 0, 0, :1].bfloat16().expand(-1, 7)

    image = torch.full((1, 1, 48, 48), 1.0)
    image[..., -1] += 2**-7
    assert averaged_logits(Halves(), image, "mirror")[0, 0] == 1 + 2**-8


def test_test_sets_contain_their_official_splits(csv_file):
    faces = load(csv_file)
    both = splits.members(faces, "deck-test")
    assert (both == (faces.usages > 0)).all()
    public = faces.take(faces.usages < 2)
    with pytest.raises(
        ValueError,
        match="deck-test needs PublicTest and PrivateTest, but the data has no PrivateTest images",
    ):
        splits.members(public, "deck-test")


@pytest.fixture
def twins(csv_file):
    """Return images of which the first of PublicTest is a copy of the first of Training."""
    faces = load(csv_file)
    images = faces.images.copy()
    public = np.flatnonzero(faces.usages == 1)
    images[public[0]] = images[0]
    return dataclasses.replace(faces, images=images)


def test_a_study_measures_with_and_without_duplicates(tmp_path, twins):
    lines = "\n".join(study(weights.SHIPPED, twins, out=tmp_path))
    assert "PublicTest, 14 faces, mean of the logits over the picture and its mirror" in lines
    assert "the epoch was selected on these images" in lines
    values = json.loads((tmp_path / "PublicTest-mirror" / "evaluation.json").read_text())
    model = weights.load()
    full = evaluate(model, twins.split("PublicTest"))
    assert values["accuracy"] == full.accuracy
    assert values["interval"] == pytest.approx(list(full.interval))
    assert values["selected on it"]
    assert values["averaging"] == "mirror"
    assert values["precision"] == "float32"
    assert values["training"]["selected_on"] == "FER2013 PublicTest, 3589 faces"
    assert values["deduplicated"]["twins"] >= 1
    fewer = values["deduplicated"]["n"]
    assert fewer == 14 - values["deduplicated"]["twins"]
    private = json.loads((tmp_path / "PrivateTest-mirror" / "evaluation.json").read_text())
    assert not private["selected on it"]
    for name in ("report.csv", "confusion.csv", "reliability.csv"):
        assert len(pd.read_csv(tmp_path / "PublicTest-mirror" / name)) >= 7
    for name in ("confusion.png", "reliability.png"):
        assert (tmp_path / "PublicTest-mirror" / name).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_missing_test_sets_are_reported_or_errors(tmp_path, twins):
    public = twins.take(twins.usages == 1)
    lines = "\n".join(
        study(weights.SHIPPED, public, out=tmp_path, inference=InferenceOptions("single"))
    )
    assert "PrivateTest: not evaluated, as the data has none" in lines
    assert "de-duplicated not measured: the data has no Training images" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["PublicTest-single"]
    with pytest.raises(ValueError, match="has no PrivateTest images"):
        list(study(weights.SHIPPED, public, tests=["PrivateTest"], out=tmp_path))
    training = twins.take(twins.usages == 0)
    with pytest.raises(ValueError, match="choose a test set with --split Training"):
        list(study(weights.SHIPPED, training, out=tmp_path))


def test_a_full_disk_keeps_previous_results(tmp_path, twins, monkeypatch):
    public = twins.take(twins.usages == 1)
    list(study(weights.SHIPPED, public, out=tmp_path))
    folder = tmp_path / "PublicTest-mirror"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "draw_reliability", full)
    with pytest.raises(OSError, match="No space left"):
        list(
            study(
                weights.SHIPPED,
                public,
                out=tmp_path,
                inference=InferenceOptions("mirror", precision="bfloat16"),
            )
        )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["PublicTest-mirror"]


def test_evaluations_of_a_run_go_to_its_folder(tmp_path):
    path = tmp_path / "runs" / "config5" / "config5.safetensors"
    path.parent.mkdir(parents=True)
    assert default_folder(path).as_posix() == "out/evaluate/config5"
    (path.parent / "run.json").write_text("{}")
    assert default_folder(path) == path.parent / "evaluation"


def test_a_record_has_one_evaluation_per_test_set_and_averaging_of_the_same_weights(tmp_path):
    record = tmp_path / "measured" / "x.json"

    def values(averaging, accuracy, sha256="a"):
        known = {"on": "PublicTest", "averaging": averaging, "accuracy": accuracy}
        return {**known, "weights": {"sha256": sha256}}

    def held():
        found = json.loads(record.read_text())["evaluations"]
        return [(one["averaging"], one["accuracy"]) for one in found]

    for averaging, accuracy in (("single", 0.5), ("mirror", 0.6), ("single", 0.55)):
        remember(values(averaging, accuracy), record)
    assert held() == [("mirror", 0.6), ("single", 0.55)]
    remember(values("ten-crop", 0.7, "b"), record)
    assert held() == [("ten-crop", 0.7)]
    record.write_text("{}")
    with pytest.raises(ValueError, match="is not a record of evaluations"):
        remember(values("single", 0.5), record)


@pytest.mark.usefixtures("narrow_vgg")
def test_the_command_evaluate(tmp_path, csv_file, capsys):
    words = ["evaluate", "--data", str(csv_file), "--out", str(tmp_path), "--averaging", "single"]
    assert main([*words, "--split", "deck-test"]) == 0
    assert "deck-test, 28 faces, the picture itself" in capsys.readouterr().out
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"not weights")
    assert main([*words, "--weights", str(wrong)]) == 2
    assert "is not a complete safetensors file" in capsys.readouterr().err
    facts = {
        **weights.read_facts(),
        "network": "vgg19",
        "config": dataclasses.asdict(CONFIGS["config1"]),
    }
    weights.save(weights.load().state_dict(), facts, wrong)
    assert main([*words, "--weights", str(wrong)]) == 2
    assert "has the weights of another architecture" in capsys.readouterr().err
