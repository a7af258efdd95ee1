"""The commands demo and evaluate, and errors of the command line."""

import re

import cv2
import numpy as np
import pytest
import torch
from made_up_faces import made_up_faces, write_csv

import camlens
from camlens import dataset
from fer2013 import __main__ as command
from fer2013.__main__ import main
from fer2013.data import photographs


@pytest.mark.exhaustive
def test_the_demo_explains_two_photographs_and_measures_regions(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^Grace Hopper: \w+ \(\d+%\), \w+ \(\d+%\)$", printed, re.MULTILINE)
    assert "Eileen Collins: happy" in printed  # she smiles
    assert "12x12 grid" in printed
    assert f"wrote {tmp_path}/new/demo.html" in printed
    sheet = cv2.imread(str(tmp_path / "new" / "demo.png"))
    assert sheet.shape[0] > 4 * photographs.SHOWN
    assert sheet.shape[1] > 6 * photographs.SHOWN
    assert sheet.std() > 20
    density, effect = (
        dict(zip(table.split("\n")[0].split(), map(float, row.split()), strict=True))
        for table in re.findall(r"( +brows .*?)\n\n", printed, re.DOTALL)
        for row in re.findall(r"Eileen Collins, happy +(.*)", re.sub(r" \(\d+%\)", "", table))
    )
    assert list(density)[:4] == ["brows", "eyes", "nose", "mouth"]
    assert density["mouth"] > 1.5
    assert density["forehead"] < 0.5
    assert max(effect, key=effect.get) == "mouth"  # the network needs her smile
    assert re.search(r"Eileen Collins, happy: [+-]0\.\d\d", printed)


@pytest.fixture
def no_metrics(monkeypatch):
    """Skip the page's faithfulness metrics, which take most of the time."""
    options = dataset.RunOptions
    monkeypatch.setattr(dataset, "RunOptions", lambda **o: options(**{**o, "metrics": ()}))


@pytest.mark.shared
@pytest.mark.usefixtures("no_metrics")
def test_the_demo_detects_the_face(tmp_path, capsys, shared):
    pytest.importorskip("pooch")
    from skimage.data import astronaut

    cv2.imwrite(str(tmp_path / "her.png"), astronaut()[:, :, ::-1])
    model = shared / "models" / "face_detection_yunet_2026may.onnx"
    found = photographs.find(tmp_path / "her.png", camlens.faces.YuNet(model))
    by_hand = photographs.packaged()[1]
    likeness = np.corrcoef(found.pixels.ravel(), by_hand.pixels.ravel())[0, 1]
    assert likeness > 0.6  # a few pixels apart, of 48
    arguments = ["demo", str(tmp_path / "her.png"), "--yunet", str(model)]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "her: happy" in capsys.readouterr().out
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(
        ValueError, match=r"found no face in .*grey\.png: specify its square with --box"
    ):
        photographs.find(tmp_path / "grey.png", camlens.faces.YuNet(model))


@pytest.mark.usefixtures("no_metrics")
def test_the_demo_explains_a_given_photograph(tmp_path, capsys):
    face = photographs.packaged()[1]
    photo = np.full((300, 400, 3), 90, np.uint8)
    photo[20:212, 100:292] = face.picture.permute(1, 2, 0).numpy()[:, :, ::-1]
    cv2.imwrite(str(tmp_path / "me.png"), photo)
    arguments = ["demo", str(tmp_path / "me.png"), "--box", "100,20,292,212"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "me: happy" in capsys.readouterr().out
    written = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert written.keys() == {"demo.png", "demo.html"}
    assert min(written.values()) > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "--yunet", "no.onnx"], "no.onnx"),
        (["--box", "0,0,5,5"], "pass the photograph too"),
        (["missing.png", "--box", "0,0,5,5"], "there is no photograph missing.png"),
    ],
)
def test_errors_of_the_demo(arguments, message, capsys):
    assert main(["demo", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_boxes_beyond_the_photograph_and_other_files_are_errors(tmp_path):
    photo = np.arange(600).reshape(10, 20, 3) % 251
    cut = photographs.cut(photo.astype(np.uint8), (4, 2, 5, 3), "x")  # one pixel
    assert torch.equal(cut.picture[:, 7, 9], torch.from_numpy(photo[2, 4]))
    for box in ((15, 0, 25, 10), (0, 0, 0, 5), (4, 2, 8, 8)):  # beyond, empty, not a square
        with pytest.raises(ValueError, match="square left,top,right,bottom inside the 20x10 photo"):
            photographs.cut(photo.astype(np.uint8), box, "x")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match="not a picture that OpenCV can read"):
        photographs.read(tmp_path / "text.png", (0, 0, 1, 1))


def test_evaluate_prints_the_accuracy_and_the_report(csv_file, tmp_path, capsys):
    assert main(["evaluate", "--data", str(csv_file), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "PublicTest, 14 faces, mean of the logits" in printed
    assert re.search(r"accuracy +\d+\.\d\d% \[", printed)
    assert re.search(r"surprise +\d\.\d\d +\d\.\d\d +\d\.\d\d +2", printed)


def test_train_names_the_run_to_train_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(made_up_faces(training=20, public=1), tmp_path / "fer2013.csv")  # a batch is 128
    assert main(["train", "base", "--data", str(tmp_path)]) == 2
    assert "run 'python -m fer2013 train first' first" in capsys.readouterr().err


def test_evaluate_without_data_is_an_error(tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path)]) == 2
    assert "no FER2013 at" in capsys.readouterr().err


def test_every_command_has_help(capsys):
    for name in ("", *command._COMMANDS):
        with pytest.raises(SystemExit, match="0"):
            main([*name.split(), "--help"])
        assert f"usage: fer2013 {name}" in capsys.readouterr().out
