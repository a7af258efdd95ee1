"""``camlens explain``: the numbers of the library, in files and tables."""

import csv
import html
import json
import math
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import camlens
from camlens import loading, regions
from camlens.cli import results
from tests.cli.conftest import net


def picture(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.fixture
def hopper(folder):
    return loading.read_photograph(folder / "hopper.png")[None]


@pytest.mark.slow
def test_random_weights_are_told(run):
    model = ("--model", "torchvision:squeezenet1_1", "--weights", "none")
    got = run("explain", "hopper.png", *model, "--out", "out")
    assert got.code == 0, got.err
    assert "Note: the weights are random, so scores and maps say nothing" in got.err


@pytest.mark.slow
def test_class_names_of_a_file_of_weights(run, folder):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), "w.pth")
    words = ("explain", "hopper.png", "--model", "torchvision:squeezenet1_1", "--weights", "w.pth")
    got = run(*words, "--json")
    assert "the class names are unknown: pass --classes imagenet" in " ".join(got.err.split())
    said = got.json["photos"][0]["prediction"]
    assert said["name"] is None
    got = run(*words, "--json", "--classes", "imagenet")
    names = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert got.err == ""
    assert got.json["photos"][0]["prediction"]["name"] == names[said["class"]]


@pytest.mark.slow
def test_the_page_repeats_the_notes(run, model, monkeypatch):
    monkeypatch.setenv("CAMLENS_YUNET", "absent")
    got = run("explain", "hopper.png", *model, "--regions", "template", "--out", "out")
    notes = [" ".join(one.split()) for one in got.err.split("Note: ")[1:]]
    assert [one[:20] for one in notes] == ["the model's preproce", "could not check whet"]
    page = html.unescape(Path("out/report.html").read_text("utf-8"))
    assert re.findall(r"Note:</strong> <bdi>(.*?)</bdi></p>", page) == notes
    run("report", "out", "--out", "again.html")
    assert notes[0] in html.unescape(Path("again.html").read_text("utf-8"))


def test_files_hold_what_the_library_gives(run, model, folder, hopper):
    got = run("explain", "hopper.png", *model, "--out", "out")
    assert got.code == 0, got.err
    flat = " ".join(got.err.split())
    assert flat.startswith(
        "Note: the model's preprocessing is unknown, so its input is each photograph's "
        "pixels in [0, 1], at its own size, without normalisation."
    )
    words = ("--mean", "0", "--crop", "64")
    assert run("explain", "hopper.png", *model, "--out", "again", *words).err == ""
    expected = camlens.GradCAM(net().eval())(hopper / 255)
    saved = camlens.Explanation.load(folder / "out" / "hopper.safetensors")
    assert torch.equal(saved.raw, expected.raw)
    assert torch.equal(saved.targets, expected.targets)
    assert saved.layers == expected.layers == ("4",)
    overlay = camlens.overlay(hopper, expected.heatmaps)[0, 0]
    assert torch.equal(picture("out/hopper.overlay.png"), overlay)
    lines = camlens.contours(hopper, expected.heatmaps)[0, 0]
    assert torch.equal(picture("out/hopper.contours.png"), lines)
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        *("hopper.contours.png", "hopper.overlay.png", "hopper.safetensors", "hopper.sheet.png"),
        *("report.html", "results.csv", "results.json", "run"),
    ]
    assert run("report", "out", "--json").json == {"report": "out/report.html"}


@pytest.mark.slow
def test_what_is_said(run, model, hopper, folder):
    got = run("explain", "hopper.png", *model, "--classes", "names.txt", "--json")
    (record,) = got.json["photos"]
    logits = net().eval()(hopper / 255)[0].detach()
    best = int(logits.argmax())
    names = ["angry", "happy", "sad", "calm", "surprised"]
    assert record["prediction"]["class"] == best
    assert record["prediction"]["name"] == names[best]
    assert record["prediction"]["score"] == pytest.approx(float(logits[best]), abs=1e-5)
    assert record["prediction"]["probability"] == pytest.approx(
        float(logits.softmax(0)[best]), abs=1e-5
    )
    assert record["explanations"][0]["grid"] == [32, 32]
    assert got.json["failed"] == []
    written = json.loads((folder / "camlens-out" / "results.json").read_text())
    assert (written["photos"], written["failed"]) == (got.json["photos"], [])
    assert set(written["written"]) == {p.name for p in (folder / "camlens-out").iterdir()}
    with (folder / "camlens-out" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["photo"], row["method"], row["layer"]) == ("hopper.png", "GradCAM", "4")
    assert row["prediction"] == row["target"] == f"{names[best]} ({best})"
    assert float(row["score"]) == pytest.approx(float(logits[best]), abs=1e-5)
    assert row["overlay"] == "camlens-out/hopper.overlay.png"
    text = run("explain", "hopper.png", *model, "--classes", "names.txt").out
    assert f"predicted: {names[best]} ({best}) (score {float(logits[best]):.4g}" in text
    assert "GradCAM at 4, grid 32x32" in text


def flat(text):
    """Return an error's text without its frame and line breaks."""
    return " ".join(text.replace("\u2502", " ").split())


FACTORY = """
import torch
from torch import nn

def one():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, {})
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_a_model_with_one_output_has_no_probability(run, folder, outputs, activation, capsys):
    name = f"factory_{outputs}"
    (folder / f"{name}.py").write_text(FACTORY.format(outputs))
    words = ("hopper.png", "--model", f"{name}:one", "--activation", activation)
    (record,) = run("explain", *words, "--json").json["photos"]
    sys.modules.pop(name)
    results.show(record)
    text = capsys.readouterr().out
    score, probability = record["prediction"]["score"], record["prediction"]["probability"]
    if activation == "sigmoid":
        assert probability == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-6)
    elif activation == "none":
        assert probability == score
    if outputs > 1 or activation != "softmax":
        assert f", probability {probability:.1%})" in text
    else:
        assert probability is None
        assert f"(score {score:.4g})" in text
        assert "probability" not in text


@pytest.mark.slow
def test_several_targets_by_number_and_name(run, model, hopper, folder):
    words = ("--target", "2", "--target", "Happy", "--classes", "names.txt")
    got = run("explain", "hopper.png", *model, *words, "--json", "--out", "out")
    (record,) = got.json["photos"]
    (explained,) = record["explanations"]
    assert [(t["class"], t["name"]) for t in explained["targets"]] == [(2, "sad"), (1, "happy")]
    expected = camlens.GradCAM(net().eval())(hopper / 255, targets=[[2, 1]])
    assert [t["score"] for t in explained["targets"]] == pytest.approx(expected.scores[0].tolist())
    shares = expected.outputs.softmax(1)[0, [2, 1]].tolist()
    assert [t["probability"] for t in explained["targets"]] == pytest.approx(shares)
    with (folder / "out" / "results.csv").open(newline="") as file:
        rows = [float(row["target_probability"]) for row in csv.DictReader(file)]
    assert rows == pytest.approx(shares)
    overlay = camlens.overlay(hopper, expected.heatmaps)[0]
    assert torch.equal(picture("out/hopper.overlay-1.png"), overlay[1])
    got = run("explain", "hopper.png", *model, "--target", "all", "--json", "--out", "all")
    (explained,) = got.json["photos"][0]["explanations"]
    assert [t["class"] for t in explained["targets"]] == [0, 1, 2, 3, 4]
    assert len(list((folder / "all").glob("hopper.overlay-*.png"))) == 5


@pytest.mark.slow
def test_methods_by_any_spelling(run, model, hopper, folder):
    names = {
        "hires-cam": "HiResCAM",
        "GradCAM++": "GradCAMPlusPlus",
        "guided_backprop": "GuidedBackprop",
        "EigenCAM": "EigenCAM",
    }
    words = [word for spelling in names for word in ("--method", spelling)]
    got = run("explain", "hopper.png", *model, *words, "--out", "out", "--json")
    explained = got.json["photos"][0]["explanations"]
    assert [one["method"] for one in explained] == list(names.values())
    for one in explained:
        expected = getattr(camlens, one["method"])(net().eval())(hopper / 255)
        saved = camlens.Explanation.load(one["files"]["explanation"])
        assert torch.equal(saved.raw, expected.raw)


def test_layers_and_preprocessing(run, model, hopper, folder):
    words = (
        "--layer",
        "1",
        "--layer",
        "4",
        "--size",
        "32",
        "--mean",
        "0.5",
        "--std",
        "0.1,0.2,0.4",
    )
    got = run("explain", "hopper.png", *model, *words, "--out", "out")
    assert got.code == 0, got.err
    saved = camlens.Explanation.load(folder / "out" / "hopper.safetensors")
    how = camlens.loading.Preprocessing(size=(32, 32), mean=(0.5,), std=(0.1, 0.2, 0.4))
    expected = camlens.GradCAM(net().eval(), ["1", "4"])(how(hopper[0])[0][None])
    assert torch.equal(saved.raw, expected.raw)
    assert picture("out/hopper.overlay.png").shape == (3, 64, 64)


def test_template_regions_and_their_effect(run, model, hopper, folder):
    words = ("--regions", "template", "--infill", "blur", "--target", "1", "--out", "out")
    got = run("explain", "hopper.png", *model, *words, "--json")
    net_, face = net().eval(), camlens.faces.face_template(64)
    expected = camlens.GradCAM(net_)(hopper / 255, targets=1)
    ablation = camlens.faithfulness.ablate_regions(
        net_, hopper / 255, face, targets=1, infill="blur"
    )
    table = regions.table(regions.score(expected, face), ablation=ablation)
    with (folder / "out" / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["region"] for row in rows] == list(table["region"])
    for name in ("area", "density", "share", "excess", "standard_error", "exceeds"):
        found = [float(row[name] or "nan") for row in rows]
        assert found == pytest.approx(table[name].tolist(), rel=1e-5, abs=1e-7, nan_ok=True)
    assert [row["density"] for row in got.json["photos"][0]["regions"]] == pytest.approx(
        [None if math.isnan(value) else value for value in table["density"]], rel=1e-5
    )


def test_the_excess_is_shown_with_its_standard_error(run, model, hopper):
    words = ("--regions", "template", "--infill", "blur", "--target", "1", "--out", "out")
    got = run("explain", "hopper.png", *model, *words, "--placements", "5")
    ablation = camlens.faithfulness.ablate_regions(
        net().eval(), hopper / 255, camlens.faces.face_template(64), targets=1, placements=5
    )
    assert re.search(r"excess of the score +costs more than", got.out)
    numbers = (ablation.excess[0, 0], ablation.standard_error[0, 0], ablation.exceeds[0, 0])
    for name, excess, error, exceeds in zip(ablation.names, *numbers, strict=True):
        shown = re.escape(f"{excess:+.3g} ± {error:.2g}")
        assert re.search(rf"{name} .* {shown} +{exceeds:.0%} of places", got.out)
    assert len(set(ablation.exceeds[0, 0].tolist())) > 2
    assert "explained score, not of its probability" in got.out
    assert "positions where removing the same shape costs less" in got.out
    words = ("--regions", "template", "--placements", "5", "--out", "more")
    got = run("explain", "hopper.png", *model, *words)
    assert got.code == 2
    assert "add --infill" in got.err


def test_a_region_that_is_too_coarse_is_said_to_be(run, model):
    words = ("--regions", "template", "--size", "6", "--target", "1")
    got = run("explain", "hopper.png", *model, *words)
    assert re.search(r"brows .* too coarse", got.out)


@pytest.mark.slow
@pytest.mark.shared
def test_face_regions(run, model, shared, hopper):
    env = {"CAMLENS_MODELS": str(shared / "models")}
    got = run("explain", "hopper.png", "noise.png", *model, "--regions", "face", "--json", env=env)
    face, nothing = got.json["photos"]
    points = camlens.faces.YuNet(shared / "models/face_detection_yunet_2026may.onnx")(hopper).points
    masks = camlens.faces.from_landmarks(points[:, 0], (64, 64)).masks.mean((-2, -1))[0]
    assert [row["area"] for row in face["regions"]] == pytest.approx(masks.tolist(), rel=1e-5)
    assert {row["area"] for row in nothing["regions"]} == {0.0}
    text = run("explain", "noise.png", *model, "--regions", "face", env=env).out
    assert re.search(r"mouth .* not found", text)


@pytest.mark.slow
def test_what_cannot_be_read_is_listed_and_the_rest_done(run, model, folder):
    (folder / "cut.png").write_bytes((folder / "hopper.png").read_bytes()[:3000])
    (folder / "text.jpg").write_text("no")
    words = ("cut.png", "hopper.png", "text.jpg", "absent.png", "noise.png", ".")
    got = run("explain", *words, *model, "--out", "out")
    assert got.code == 1
    assert "cut.png is damaged or truncated" in got.err
    assert "text.jpg is not an image of a known format" in got.err
    assert "there is no file absent.png" in got.err
    assert ". is a folder" in got.err
    assert "4 of 6 photographs could not be explained" in got.err
    assert {p.name for p in (folder / "out").glob("*.safetensors")} == {
        *("hopper.safetensors", "noise.safetensors"),
    }
    got = run("explain", *words, *model, "--json")
    assert got.code == 1
    assert [record["photo"] for record in got.json["photos"]] == ["hopper.png", "noise.png"]
    assert [record["photo"] for record in got.json["failed"]] == [
        "cut.png",
        "text.jpg",
        "absent.png",
        ".",
    ]


@pytest.mark.slow
def test_equal_names_are_numbered_and_none_leaves_the_folder(run, model, folder):
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "x.png").write_bytes((folder / "hopper.png").read_bytes())
    hostile = folder / "..\x1b[31m\u202e<script>.png"
    hostile.write_bytes((folder / "hopper.png").read_bytes())
    got = run("explain", "a/x.png", "b/../b/x.png", hostile, *model, "--out", "out")
    assert got.code == 0, got.err
    names = {p.name.removesuffix(".safetensors") for p in (folder / "out").glob("*.safetensors")}
    assert names == {"x", "x-2", "31m__script"}
    assert "\x1b" not in got.out
    assert "\u202e" not in got.out


@pytest.mark.slow
def test_a_second_call_replaces_the_first_ones_files(run, model, folder):
    run("explain", "hopper.png", *model, "--out", "out", "--target", "0")
    run("explain", "hopper.png", *model, "--out", "out", "--target", "1")
    saved = camlens.Explanation.load(folder / "out" / "hopper.safetensors")
    assert saved.targets.tolist() == [[1]]
    assert len(list((folder / "out").iterdir())) == 8
    assert camlens.dataset.Run(folder / "out" / "run").maps["target"].tolist() == [1]


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "name", ["hopper.contours.png", "hopper.overlay-3.png", "hopper.sheet.png", "results.csv"]
)
def test_nothing_but_an_earlier_calls_results_is_replaced(run, model, folder, name, given):
    (folder / "noise.png").rename(folder / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    target = "all" if "-3" in name else "0"
    words = (*model, "--out", folder, "--target", target)
    got = run("explain", "hopper.png", *([name] if given else []), *words)
    assert got.code == 1
    flat = " ".join(got.err.split())
    assert f"{name} exists, is not a result of an earlier call and would be replaced" in flat
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_results_of_an_earlier_call_are_no_photographs(run, model, folder):
    assert run("explain", "hopper.png", *model, "--out", "out").code == 0
    before = {path.name: path.read_bytes() for path in (folder / "out").glob("*.*")}
    got = run("explain", "out/hopper.overlay.png", *model, "--out", "out")
    assert got.code == 1
    assert "is a result of an earlier call in out" in " ".join(got.err.split())
    assert {path.name: path.read_bytes() for path in (folder / "out").glob("*.*")} == before
    link = folder / "link.png"
    link.symlink_to("out/hopper.overlay.png")
    assert run("explain", link, *model, "--out", "out").code == 1
    assert run("explain", link, *model, "--out", "other").code == 0


def test_a_run_of_another_command_is_not_replaced(run, model, folder):
    (folder / "images").mkdir()
    (folder / "noise.png").rename(folder / "images" / "noise.png")
    assert run("dataset", "images", *model, "--out", "out/run").code == 0
    before = (folder / "out" / "run" / "manifest.json").read_bytes()
    got = run("explain", "hopper.png", *model, "--out", "out")
    assert got.code == 1
    assert "out/run exists, is not a result of an earlier call" in " ".join(got.err.split())
    assert (folder / "out" / "run" / "manifest.json").read_bytes() == before
    masks = folder / "hopper.safetensors"
    masks.write_bytes(b"mine")
    got = run("explain", "hopper.png", *model, "--out", ".")
    assert got.code == 1
    assert masks.read_bytes() == b"mine"


@pytest.mark.slow
def test_what_an_earlier_call_wrote_besides_goes(run, model, folder):
    words = (*model, "--out", "out")
    assert (
        run("explain", "hopper.png", *words, "--target", "all", "--regions", "template").code == 0
    )
    (folder / "out" / "mine.txt").write_text("mine")
    (folder / "out" / ".camlens-killed").mkdir()
    assert run("explain", "noise.png", *words).code == 0
    assert (folder / "out" / "hopper.overlay-3.png").exists()  # of another photograph
    assert not (folder / "out" / "regions.csv").exists()
    for path in (folder / "out").glob("noise.*"):
        path.unlink()
    assert run("explain", "hopper.png", *words).code == 0
    assert {path.name for path in (folder / "out").iterdir()} == {
        *("hopper.contours.png", "hopper.overlay.png", "hopper.safetensors", "hopper.sheet.png"),
        *("report.html", "results.csv", "results.json", "run", "mine.txt"),
    }
    before = {path.name: path.read_bytes() for path in (folder / "out").glob("*.*")}
    assert run("explain", "absent.png", *words).code == 1
    assert {path.name: path.read_bytes() for path in (folder / "out").glob("*.*")} == before


@pytest.mark.slow
def test_a_photograph_given_twice_has_its_own_regions(run, model):
    words = ("hopper.png", "hopper.png", *model, "--regions", "template", "--json")
    first, second = run("explain", *words).json["photos"]
    assert first["regions"] == second["regions"]
    assert len({row["region"] for row in first["regions"]}) == len(first["regions"])


def test_what_a_model_prints_is_no_result(run):
    got = run("explain", "hopper.png", "--model", "tests.cli.test_explain:loud", "--json")
    assert got.code == 0
    assert len(got.json["photos"]) == 1
    assert "so loud" in got.err
    got = run("explain", "hopper.png", "--model", "tests.cli.test_explain:leaves", "--json")
    assert got.code == 1
    assert "called sys.exit(3)" in got.json["error"]


class Loud(torch.nn.Module):
    def __init__(self, leaves=False):
        super().__init__()
        self.inner, self.leaves = net(), leaves

    def forward(self, images):
        print("so loud")
        if self.leaves:
            sys.exit(3)
        return self.inner(images)


def loud():
    return Loud()


def leaves():
    return Loud(leaves=True)


def test_a_call_that_fails_leaves_the_earlier_results(run, model, folder):
    assert run("explain", "hopper.png", *model, "--out", "out").code == 0
    before = {path.name: path.read_bytes() for path in (folder / "out").glob("*.*")}
    assert run("explain", "hopper.png", *model, "--out", "out", "--target", "9").code == 1
    assert {path.name: path.read_bytes() for path in (folder / "out").glob("*.*")} == before
    assert not list((folder / "out").glob(".camlens-*"))


@pytest.mark.slow
def test_several_methods_at_the_photographs_own_size(run, model, folder):
    photograph = torch.randint(0, 256, (3, 48, 96), dtype=torch.uint8)
    Image.fromarray(photograph.permute(1, 2, 0).numpy()).save(folder / "wide.png")
    methods = ("--method", "GradCAM", "--method", "Saliency")
    words = (*methods, "--size", "16", "--target", "top2, 4", "--out", "out", "--json")
    got = run("explain", "wide.png", *model, *words)
    assert got.code == 0, got.err
    first, second = got.json["photos"][0]["explanations"]
    how = camlens.loading.Preprocessing(size=(16, 16))
    image = how(photograph)[0][None]
    logits = net().eval()(image)
    classes = [*logits.topk(2).indices[0].tolist(), 4]
    for explained, explainer in ((first, camlens.GradCAM), (second, camlens.Saliency)):
        assert [t["class"] for t in explained["targets"]] == classes
        assert [t["asked"] for t in explained["targets"]] == ["top1", "top2", "4"]
        expected = explainer(net().eval())(image, targets=[classes])
        saved = camlens.Explanation.load(folder / explained["files"]["explanation"])
        assert torch.allclose(saved.raw, expected.raw, atol=1e-6)
        # The model saw the middle, 48 x 48 pixels from column 24 on.
        heat = torch.zeros(1, 3, 48, 96)
        heat[..., 24:72] = torch.nn.functional.interpolate(
            expected.heatmaps, (48, 48), mode="bilinear", antialias=True
        )
        drawn = camlens.overlay(photograph[None], heat)[0]
        for k, target in enumerate(explained["targets"]):
            found = picture(folder / target["files"]["overlay"])
            assert found.shape == photograph.shape
            assert (found[..., 24:72].int() - drawn[k, ..., 24:72].int()).abs().max() <= 1
            dark = (photograph * 0.35).to(torch.uint8)
            assert torch.equal(found[..., :24], dark[..., :24])
            assert torch.equal(found[..., 72:], dark[..., 72:])
    assert set(second["targets"][0]["files"]) == {"overlay", "contours", "signed"}
    assert set(first["targets"][0]["files"]) == {"overlay", "contours"}
    signed = picture(folder / second["targets"][0]["files"]["signed"])
    assert signed.shape == photograph.shape
    sheet = picture(folder / got.json["photos"][0]["files"]["sheet"])
    assert sheet.shape[2] > 4 * 240  # the photograph, two methods, and the signed picture


@pytest.mark.slow
def test_the_label_is_the_folders_class(run, model, folder):
    (folder / "sad").mkdir()
    (folder / "hopper.png").rename(folder / "sad" / "hopper.png")
    words = ("--classes", "names.txt", "--target", "predicted,label")
    got = run("explain", "sad/hopper.png", *model, *words, "--json")
    (record,) = got.json["photos"]
    assert record["label"] == {"class": 2, "name": "sad"}
    asked = record["explanations"][0]["targets"]
    assert [t["asked"] for t in asked] == ["predicted", "label"]
    assert asked[0]["class"] == record["prediction"]["class"]
    assert asked[1]["class"] == 2
    assert "; true: sad (2)" in run("explain", "sad/hopper.png", *model, *words).out
    got = run("explain", "noise.png", *model, *words)
    assert got.code == 2
    assert "no folder has the name of a class" in flat(got.err)
    got = run("explain", "noise.png", "sad/hopper.png", *model, *words, "--json")
    assert got.code == 1
    assert [record["photo"] for record in got.json["photos"]] == ["sad/hopper.png"]
    assert "has no label" in got.err


@pytest.mark.parametrize(
    ("target", "told"),
    [("5", "as a class from 0 to 4, got 5"), ("top6", "topN of at most 5 classes, got 'top6'")],
)
def test_targets_beyond_the_classes(run, model, target, told):
    got = run("explain", "hopper.png", *model, "--classes", "names.txt", "--target", target)
    assert got.code == 2
    assert told in flat(got.err)


@pytest.mark.parametrize("option", ["--out", "--regions", "--classes"])
def test_an_empty_path_is_not_the_current_folder(run, model, folder, option):
    before = sorted(path.name for path in folder.iterdir())
    got = run("explain", "hopper.png", *model, option, "", "--json")
    assert got.code == 2
    assert "an argument is empty" in got.json["error"]
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(
    "content", ['["a", "b", "c", "d", "e"]', '[\n"a",\n"b",\n"c"\n]', '{"0": "a"}\n']
)
def test_class_names_in_json_are_refused(run, model, folder, content):
    (folder / "names.json").write_text(content)
    got = run("explain", "hopper.png", *model, "--classes", "names.json")
    assert got.code == 2
    assert "is JSON, expected text with one class name per line" in flat(got.err)


def test_a_file_that_an_error_quotes_cannot_control_the_terminal(run, model, folder):
    (folder / "names.txt").write_text("a\x1b[31m\nb\nc\nd\ne\n")
    got = run("explain", "hopper.png", *model, "--classes", "names.txt", "--target", "a[31m")
    assert got.code == 2
    assert "did you mean a\\x1b[31m?" in flat(got.err)
    assert "\x1b" not in got.err


class Mine(camlens.GradCAM.__mro__[1]):
    """A method of one's own."""

    def maps(self, activations, gradients):
        return (
            activations.clamp(min=0).sum(dim=1, keepdim=True).expand(-1, gradients.shape[1], -1, -1)
        )


def test_a_method_of_ones_own(run, model, hopper, folder):
    name = "tests.cli.test_explain:Mine"
    got = run("explain", "hopper.png", *model, "--method", name, "--layer", "4", "--out", "out")
    assert got.code == 0, got.err
    saved = camlens.Explanation.load(folder / "out" / "hopper.safetensors")
    expected = Mine(net().eval(), "4")(hopper / 255)
    assert saved.method == "Mine"
    assert torch.allclose(saved.raw, expected.raw)
    got = run("explain", "hopper.png", *model, "--method", "tests.cli.conftest:net")
    assert got.code == 2
    assert "as a subclass of camlens.Explainer" in " ".join(got.err.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sise", "3"), "No such option"),
        (("--target", "9"), "expected classes 0 to 4"),
        (("--method", "gradcamm"), "unknown method"),
        (
            ("--target", "1,happy", "--classes", "names.txt"),
            "each --target once, got 'happy' again",
        ),
        (("--target", "predicted,top2"), "leave predicted out"),
        (("--target", "2", "--classes", "numbers.txt"), "the number of one class and the name of"),
        (("--target", "all", "--classes", "numbers.txt"), "the name of a class: use the class's"),
        (("--target", "top0"), "with N of at least 1"),
        (("--target", "1,,2"), "words separated by commas"),
        (("--classes", "absent.txt"), "absent.txt: No such file"),
        (("--classes", "two.txt"), "expected a name for each of the model's 5 classes, got 2"),
        (("--method", "no.such.module:Thing"), "there is no module 'no'"),
    ],
)
def test_an_error_is_a_json_document_too(run, model, folder, words, message):
    (folder / "two.txt").write_text("a\nb\n")
    (folder / "numbers.txt").write_text("2\n0\n1\nall\n4\n")
    got = run("explain", "hopper.png", *model, *words, "--json")
    assert got.code != 0
    assert list(got.json) == ["error"]
    assert message in got.json["error"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--method", "gradcamm"), 2, "unknown method 'gradcamm'; did you mean GradCAM"),
        (("--layer", "44"), 2, "has no layer '44'; similar names: 4"),
        (("--size", "0"), 2, "expected --size as N or HxW"),
        (("--mean", "a"), 2, "expected --mean as numbers with commas"),
        (("--mean", "1,2"), 2, "expected one mean for all channels"),
        (("--target", "happy"), 2, "the class names are unknown; pass them with --classes"),
        (
            ("--target", "hapy", "--classes", "names.txt"),
            2,
            "unknown class 'hapy'; did you mean happy",
        ),
        (("--target", "all", "--target", "1"), 2, "--target all excludes other targets"),
        (
            ("--regions", "faces"),
            2,
            "expected --regions as face, mediapipe, template, none or a file.*mean face",
        ),
        (
            ("--activation", "sigmoyd"),
            2,
            "expected --activation as softmax, sigmoid, none, got 'sigmoyd'; did you mean sigmoid",
        ),
        (("--infill", "blur"), 2, "--infill removes regions, but there are none: add --regions"),
        (
            ("--infill", "blurr", "--regions", "template"),
            2,
            "expected --infill as blur, mean, inpaint, got 'blurr'; did you mean blur",
        ),
        (
            ("--layer", "1", "--method", "GuidedBackprop"),
            2,
            "--layer has no effect on GuidedBackprop: leave it out",
        ),
        (("--device", "gpu"), 2, "'gpu' is not available on this machine"),
        (("--classes", "absent.txt"), 1, "absent.txt: No such file"),
        (("--out", "hopper.png"), 1, "expected hopper.png to be a folder for the results"),
        (("--target", "9"), 1, "expected classes 0 to 4, got \\[9\\]: the model has 5 outputs"),
        (("--weights", "absent.safetensors"), 1, "there is no file absent.safetensors"),
        (
            ("--weights", "defaut"),
            2,
            "only models of torchvision, timm, hf and open_clip have named weights",
        ),
        (("--sise", "3"), 2, "No such option.*--size"),
    ],
)
def test_what_is_wrong_is_said_in_a_paragraph(run, model, words, code, message):
    got = run("explain", "hopper.png", *model, *words)
    assert got.code == code
    # Typer frames its own and breaks the lines.
    flat = " ".join(got.err.replace("\u2502", " ").split())
    assert re.search(message, flat), flat
    assert "Traceback" not in got.err
    assert got.out == ""


def test_usage(run, model):
    assert run("explain", *model).code == 2
    assert run("explain", "hopper.png").code == 2
    assert "PHOTO" in run("explain", "--help").out


def test_a_model_that_fails_says_what_may_help(run):
    got = run("explain", "hopper.png", "--model", "torch.nn:Identity")
    assert got.code == 1
    got = run("explain", "hopper.png", "--model", "tests.cli.test_explain:only_small")
    assert got.code == 1
    flat = " ".join(got.err.split())
    assert re.search(r"RuntimeError: .*while explaining hopper.png; .*set it with --size", flat)
    got = run(
        "explain", "hopper.png", "--model", "tests.cli.test_explain:only_small", "--size", "8"
    )
    assert got.code == 0, got.err


def only_small():
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))


def test_json_is_one_document_even_if_everything_fails(run, model):
    got = run("explain", "absent.png", *model, "--json")
    assert got.code == 1
    assert json.loads(got.out)["photos"] == []


def test_unsafe_pickle(run, model, folder):
    torch.save(net(), folder / "net.pt")
    got = run("explain", "hopper.png", "--model", "net.pt")
    assert got.code == 1
    assert "--unsafe-pickle" in got.err
    assert run("explain", "hopper.png", "--model", "net.pt", "--unsafe-pickle").code == 0
    text = " ".join(run("explain", "--help").out.replace("\u2502", " ").split())
    assert "the file can run any code with your permissions" in text
    assert "exported programs (.pt2)" in text


def test_a_full_disk_leaves_no_half_file(run, model, folder):
    words = ("explain", "hopper.png", "noise.png", *model, "--out", "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        got = run(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert got.code == 1
    assert "File too large" in got.err
    assert list((folder / "out").iterdir()) == []


@pytest.mark.slow
def test_methods_of_many_passes_and_what_they_measured(run, model, hopper, folder):
    words = ("--method", "occlusion", "--method", "IntegratedGradients", "--method", "Score-CAM")
    got = run("explain", "hopper.png", *model, *words, "--out", "out")
    assert got.code == 0, got.err
    files = sorted(folder.glob("out/**/*.safetensors"))
    saved = {e.method: e for e in (camlens.Explanation.load(file) for file in files)}
    for method in ("Occlusion", "IntegratedGradients", "ScoreCAM"):
        expected = getattr(camlens, method)(net().eval())(hopper / 255)
        torch.testing.assert_close(saved[method].raw, expected.raw)
        assert saved[method].measures.keys() == expected.measures.keys()


@pytest.mark.parametrize(
    ("method", "argument"), [("smoothgrad", "explainer"), ("expected-gradients", "baselines")]
)
def test_methods_that_need_python_say_so(run, model, method, argument):
    got = run("explain", "hopper.png", *model, "--method", method, "--out", "out")
    assert got.code == 2
    said = " ".join(got.err.replace("│", " ").split())
    assert f"needs {argument} as well as a model: create it in Python" in said
