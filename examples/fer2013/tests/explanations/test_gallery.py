"""Galleries: the images shown, their captions, and maps without evidence."""

import numpy as np
import pandas as pd
import pytest
import torch

import camlens
from fer2013.__main__ import main
from fer2013.configurations.recipes import CONFIGS
from fer2013.data.faces import CLASSES, Faces
from fer2013.explanations import gallery, pictures
from fer2013.networks import architectures, weights


@pytest.fixture
def faces():
    """Return 12 images, of which the packaged network misclassifies every third."""
    images = np.random.default_rng(0).integers(0, 256, (12, 48, 48), dtype=np.uint8)
    with torch.no_grad():
        said = weights.load()(torch.from_numpy(images).unsqueeze(1) / 255).argmax(dim=1).numpy()
    labels = np.where(np.arange(12) % 3 == 0, (said + 1) % 7, said)
    return Faces(images, labels, np.full(12, 1), np.array([f"row{i}" for i in range(12)]))


def collect(monkeypatch):
    """Return a dict that will contain the sheets' texts by file."""
    texts = {}

    def keep(figure, path):
        texts[path.name] = [t.get_text() for t in [*figure.texts, *figure.axes[0].texts]]

    monkeypatch.setattr(gallery, "write_figure", keep)
    return texts


def test_sheets_of_correct_and_wrong_predictions(faces, tmp_path, monkeypatch):
    texts = collect(monkeypatch)
    model = weights.load()
    lines = list(gallery.gallery(model, faces, tmp_path, network="base", count=2))
    assert lines[0] == "base: 8 of 12 PublicTest images correct, without averaging over views"
    assert "do not publish" in lines[-1]
    index = pd.read_csv(tmp_path / "index.csv")
    with torch.no_grad():
        logits = model(torch.from_numpy(faces.images).unsqueeze(1) / 255)
    probabilities = logits.softmax(dim=1)
    for row in index.itertuples():
        place = int(row.face.removeprefix("row"))
        assert row.true == CLASSES[faces.labels[place]]
        assert row.predicted == CLASSES[logits[place].argmax()]
        assert (row.true == row.predicted) == row.sheet.endswith("_correct.png")
        assert row.sheet.startswith(row.true)
        expected = probabilities[place, CLASSES.index(row.explained)].item()
        assert row.probability == pytest.approx(expected, rel=1e-3)
    for name, rows in index.groupby("sheet"):
        kind = faces.labels == CLASSES.index(name.split("_")[0])
        same = (logits.argmax(dim=1).numpy() == faces.labels) == name.endswith("_correct.png")
        first = [f"row{i}" for i in np.flatnonzero(kind & same)[:2]]  # without selection
        assert list(dict.fromkeys(rows["face"])) == first
        assert set(rows["role"]) == ({"predicted", "true"} if "wrong" in name else {"predicted"})
        title, *labels = texts[name]
        assert "Grad-CAM at blocks.block4, 12x12 cells of 4 pixels" in title
        true, said = (word.capitalize() for word in rows.iloc[0][["true", "predicted"]])
        assert any(f"True: {true} | Pred: {said}\n" in label for label in labels)
    assert set(texts) == set(index["sheet"])


def test_a_sheet_without_images_is_removed(faces, tmp_path):
    said = CLASSES[faces.labels[1]]
    few = faces.take(np.array([1]))
    (tmp_path / f"{said}_wrong.png").write_bytes(b"of another network")
    lines = list(gallery.gallery(weights.load(), few, tmp_path, network="base"))
    assert f"{said}: no sheet, as no prediction is wrong" in lines
    assert f"{said}: {said}_correct.png has 1 of 1 correct" in lines
    assert {path.name for path in tmp_path.iterdir()} == {f"{said}_correct.png", "index.csv"}


def test_captions_name_maps_without_evidence(faces, tmp_path, monkeypatch):
    texts = collect(monkeypatch)
    model = architectures.BaseCNN().eval()
    torch.nn.init.zeros_(model.head[-1].weight)
    lines = list(gallery.gallery(model, faces, tmp_path, network="nothing", count=1))
    index = pd.read_csv(tmp_path / "index.csv")
    assert set(index["evidence Grad-CAM"]) == {"no"}
    assert f"maps without evidence: {2 * len(index)} of {2 * len(index)}" in lines
    assert all("no evidence: Grad-CAM, Grad-CAM++" in t[-1] for t in texts.values())


def test_maps_without_evidence_are_not_drawn():
    raw = torch.zeros(2, 1, 3, 3)
    raw[1, 0, 0, 0] = 1
    explanation = camlens.Explanation(
        raw=raw,
        scores=torch.ones(2, 1),
        targets=torch.zeros(2, 1).long(),
        size=(48, 48),
        grid=(3, 3),
    )
    backgrounds = torch.full((2, 3, pictures.SHOWN, pictures.SHOWN), 90, dtype=torch.uint8)
    (column,) = pictures.columns(backgrounds, {"Grad-CAM": explanation})
    assert torch.equal(column[0, 0], backgrounds[0])
    assert (column[1, 0] != backgrounds[1]).float().mean() > 0.9


@pytest.mark.usefixtures("narrow_vgg")
def test_the_last_layer_of_vgg19_is_too_coarse(faces, tmp_path):
    model = architectures.build(CONFIGS["config1"]).eval()
    few = faces.take(np.arange(2))
    lines = gallery.gallery(model, few, tmp_path, network="config1", layer="features.35", count=1)
    printed = "\n".join(lines)
    assert "Grad-CAM at features.35, 3x3 cells of 16 pixels of 48" in printed
    assert "cells are too coarse for these regions: brows, eyes, nose, m" in printed


def test_errors_of_explain(csv_file, tmp_path, capsys):
    arguments = ["explain", "--data", str(csv_file), "--out", str(tmp_path)]
    assert main([*arguments, "--layer", "blocks.blok4"]) == 2
    assert "no layer 'blocks.blok4'; similar names: blocks.block4" in capsys.readouterr().err
    assert main([*arguments, "--count", "0"]) == 2
    assert "expected at least 1 image per sheet, got 0" in capsys.readouterr().err


def test_the_command_writes_the_sheets(csv_file, tmp_path, capsys):
    assert main(["explain", "--data", str(csv_file), "--out", str(tmp_path), "--count", "1"]) == 0
    printed = capsys.readouterr().out
    sheets = set(pd.read_csv(tmp_path / "index.csv")["sheet"])
    assert sheets == {path.name for path in tmp_path.glob("*.png")}
    assert all(name in printed for name in sheets)
