"""The README's code, run as it stands but for the download and the photograph's name."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib.cbook
import matplotlib.image
import pytest
import torch

import camlens
from camlens.faithfulness.sanity import planted_pictures

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def blocks(folder):
    """Return the README's blocks of Python, with a photograph and without a download."""
    photo = str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for said, meant in {
        '"torchvision:resnet50"': '"torchvision:resnet50", weights="none"',
        '"photo.jpg"': repr(photo),
        '"heatmap.png"': repr(str(folder / "heatmap.png")),
    }.items():
        assert said in found[0]
        found[0] = found[0].replace(said, meant)
    return found


@pytest.fixture(scope="module")
def explained(blocks):
    """Return the names that the first block leaves."""
    names = {}
    exec(blocks[0], names)
    return names


@pytest.mark.slow
def test_a_photograph_is_explained(explained, folder):
    assert explained["explanation"].grid == (7, 7)
    assert explained["explanation"].layers == ("layer4",)
    sheet = matplotlib.image.imread(folder / "heatmap.png")
    assert sheet.shape[0] >= 224
    assert sheet.std() > 0.1


@pytest.mark.slow
def test_the_claim_is_checked(blocks, explained):
    names = dict(explained)
    exec(blocks[1].replace("regions.table(", "table = regions.table("), names)
    assert names["table"]["region"].tolist() == ["top", "middle", "bottom"]
    assert names["scores"].resolvable.all()
    middle = names["parts"].pick("middle").masks[0, 0]
    assert torch.equal(middle.nonzero().aminmax(dim=0).max, torch.tensor([159, 159]))
    (line,) = re.findall(r"`(explanation.show\(parts.*?)`", README.read_text())
    assert eval(line, names).axes  # a figure


@pytest.mark.slow
@pytest.mark.shared
def test_parts_of_a_face_are_found(blocks, explained, shared, monkeypatch):
    monkeypatch.setenv("CAMLENS_MODELS", str(shared / "models"))
    names = {**explained, "images": explained["image"].unsqueeze(0)}
    exec(blocks[2], names)
    mouth = names["face"].pick("mouth").masks[0, 0]
    rows, columns = torch.arange(224.0), torch.arange(224.0)
    middle = (mouth.sum(1) @ rows / mouth.sum(), mouth.sum(0) @ columns / mouth.sum())
    assert middle[0].item() == pytest.approx(104.6, abs=4)  # row 284 and
    assert middle[1].item() == pytest.approx(118.2, abs=4)  # column 270 of the photograph


@pytest.mark.slow
def test_maps_are_judged_beside_floors(blocks):
    model = planted_pictures.trained()
    images, classes, _ = planted_pictures.pictures(4, seed=5)
    explanation = camlens.GradCAM(model, "features")(images, targets=classes)
    names = {"camlens": camlens, "faithfulness": camlens.faithfulness}
    names |= {"model": model, "images": images, "explanation": explanation}
    exec(blocks[3], names)
    assert set(names["result"].floors) == set(camlens.faithfulness.FLOORS)
    assert names["result"].mean > 0.5
    assert set(names["found"].table["method"]) == {"GradCAM", "LRP"}


@pytest.mark.slow
def test_the_picture_shows_what_the_text_says(tmp_path, monkeypatch, capsys):
    script = str(README.parent / "docs" / "readme_picture.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "picture.png")])
    runpy.run_path(script, run_name="__main__")
    hottest, *numbers = capsys.readouterr().out.splitlines()
    before, mouth, elsewhere, nose, _ = re.findall(r"\d+%", " ".join(numbers))
    assert hottest.startswith("hottest first: nose mouth cheeks ")
    assert int(nose.rstrip("%")) >= int(before.rstrip("%"))
    for page in (README, README.parent / "docs" / "index.rst"):
        text = " ".join(page.read_text().split())
        assert "hottest on the nose, then on mouth and cheeks. Blurring mouth and cheeks" in text
        assert f"from {before} to {mouth} (the same shape at random places: to {elsewhere}" in text
        assert f"blurring the nose does not lower it ({nose})" in text
    assert (tmp_path / "picture.png").stat().st_size > 50_000
