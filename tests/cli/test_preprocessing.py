"""Options of preprocessing: what they change, what contradicts what, and what is said without."""

import dataclasses
import json
import re

import pytest
import torch
import typer
from torch import nn
from torchvision import transforms

import camlens
from camlens import loading
from camlens.cli.preprocessing import PreprocessingOptions
from camlens.loading import LoadedModel, Preprocessing, Transform
from tests.cli.conftest import net

IMAGENET = Preprocessing(
    size=(224, 224), resize=(256, 256), mean=(0.4,) * 3, std=(0.2,) * 3, interpolation="bicubic"
)
STEPS = transforms.Compose(
    [transforms.Resize(40), transforms.CenterCrop(32), transforms.ToTensor()]
)


def with_transform():
    return net(), STEPS, ["angry", "happy", "sad", "calm", "surprised"]


def with_function():
    return net(), lambda image: STEPS(image).flip(-1) * 2 - 1


def applied(how, known=True, **texts):
    loaded = LoadedModel(model=nn.Identity(), preprocessing=how, preprocessing_known=known)
    return PreprocessingOptions.read(**texts).applied(loaded, "net:make")


@pytest.mark.parametrize(
    ("texts", "changes"),
    [
        ({}, {}),
        ({"size": "100"}, {"size": (100, 100), "resize": None}),
        ({"size": "100x90"}, {"size": (100, 90), "resize": None}),
        ({"resize": "300"}, {"resize": (300, 300)}),
        ({"resize": "300x400"}, {"resize": (300, 400), "fit": "stretch"}),
        ({"crop": "200"}, {"size": (200, 200)}),
        ({"resize": "99", "crop": "80x99"}, {"resize": (99, 99), "size": (80, 99)}),
        ({"mean": "0.5", "std": "1,2,3"}, {"mean": (0.5,), "std": (1.0, 2.0, 3.0)}),
    ],
)
def test_options_change_a_known_preprocessing(texts, changes):
    loaded = applied(IMAGENET, **texts)
    assert loaded.preprocessing == dataclasses.replace(IMAGENET, **changes)
    assert loaded.preprocessing_known


@pytest.mark.parametrize(
    ("how", "texts", "expected"),
    [
        (Preprocessing(), {"resize": "80"}, Preprocessing(resize=(80, 80))),
        (Preprocessing(), {"crop": "80"}, Preprocessing(size=(80, 80), fit="keep")),
        (
            Preprocessing(),
            {"resize": "80x60", "crop": "50"},
            Preprocessing(resize=(80, 60), size=(50, 50), fit="stretch"),
        ),
        # The size of a crop stands for the resize that is not given, and stays it.
        (
            Preprocessing(size=(64, 64)),
            {"crop": "50"},
            Preprocessing(size=(50, 50), resize=(64, 64)),
        ),
        (
            Preprocessing(size=(64, 64), fit="stretch"),
            {"resize": "70"},
            Preprocessing(size=(64, 64), resize=(70, 70)),
        ),
        (
            Preprocessing(size=(64, 64), fit="keep"),
            {"crop": "50"},
            Preprocessing(size=(50, 50), fit="keep"),
        ),
    ],
)
def test_options_of_sizes(how, texts, expected):
    assert applied(how, **texts).preprocessing == expected


def test_options_change_the_steps_of_a_transform():
    how = Transform.of(STEPS, "net:make")
    assert applied(how).preprocessing is how
    changed = applied(how, mean="0.5").preprocessing
    assert changed == Preprocessing(size=(32, 32), resize=(40, 40), mean=(0.5,))
    unknown = Transform.of(with_function()[1], "net:make")
    message = "--crop, --mean would change the transform of net:make, which has steps other than"
    with pytest.raises(typer.BadParameter, match=message):
        applied(unknown, crop="3", mean="0.5")


@pytest.mark.parametrize(
    ("texts", "known"),
    [
        ({}, False),
        ({"size": "8"}, False),
        ({"mean": "0.5"}, False),
        ({"size": "8", "mean": "0"}, True),
        ({"resize": "8", "std": "1"}, True),
        ({"crop": "8", "std": "0.5"}, True),
    ],
)
def test_a_preprocessing_is_known_when_size_and_normalisation_are(texts, known):
    assert applied(Preprocessing(), known=False, **texts).preprocessing_known == known


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"size": "8", "resize": "9"}, "--size 8 sets both the resize and the crop, and --resize "),
        ({"size": "8", "crop": "9"}, "and --crop contradicts it: use only --size, or --resize and"),
        ({"resize": "0"}, "expected --resize as N or HxW pixels, such as 224, got '0'"),
        ({"crop": "8,9"}, "expected --crop as N or HxW pixels, such as 224, got '8,9'"),
        ({"mean": "a"}, "expected --mean as numbers with commas, .* got 'a'"),
        ({"std": "nan"}, "expected --std as numbers with commas, .* got 'nan'"),
        ({"std": "0"}, r"--std of net:make: expected std > 0, got \(0.0,\)"),
        ({"mean": "1,2"}, "--mean of net:make: expected one mean for all channels or one for eac"),
        ({"crop": "300"}, "--crop 300x300 is larger than --resize 256x256, .*black border: use a"),
        ({"resize": "100"}, "--crop 224x224 is larger than --resize 100x100, .*smaller --crop"),
    ],
)
def test_options_that_cannot_be_meant(texts, message):
    with pytest.raises(typer.BadParameter, match=message):
        applied(IMAGENET, **texts)


@pytest.mark.slow
def test_a_factorys_transform_and_classes(run, folder):
    words = ("explain", "noise.png", "--model", "tests.cli.test_preprocessing:with_transform")
    got = run(*words, "--out", "out", "--json")
    assert (got.code, got.err) == (0, "")
    record = got.json["photos"][0]
    image = STEPS(options_image(folder / "noise.png"))[None]
    with torch.no_grad():
        outputs = net().eval()(image)[0]
    assert record["prediction"]["class"] == int(outputs.argmax())
    assert record["prediction"]["score"] == pytest.approx(float(outputs.max()), rel=1e-4)
    assert record["prediction"]["name"] == with_transform()[2][int(outputs.argmax())]
    assert saved(got).size == (32, 32)
    got = run(*words, "--out", "other", "--json", "--crop", "24", "--resize", "24")
    assert saved(got).size == (24, 24)


def saved(got):
    explained = got.json["photos"][0]["explanations"][0]
    return camlens.Explanation.load(explained["files"]["explanation"])


def options_image(path):
    return transforms.ToPILImage()(loading.read_photograph(path))


def test_a_transform_of_unknown_steps_is_told(run):
    words = ("explain", "noise.png", "--model", "tests.cli.test_preprocessing:with_function")
    got = run(*words, "--out", "out")
    assert got.code == 0
    assert "the transform of tests.cli.test_preprocessing:with_function has steps other" in got.err
    got = run(*words, "--size", "8")
    assert got.code == 2
    flat = " ".join(got.err.replace("\u2502", " ").split())
    assert "--size would change the transform of tests.cli" in flat


def test_a_run_with_a_transform_is_continued(run, folder):
    words = ("dataset", ".", "--model", "tests.cli.test_preprocessing:with_transform")
    assert run(*words, "--out", "../run").code == 0
    assert run(*words, "--out", "../run").code == 0
    got = run(*words, "--out", "../run", "--mean", "0.5")
    assert got.code == 1
    assert "run" in got.err


@pytest.mark.slow
def test_what_is_fed_is_said(run, model):
    said = " ".join(run("explain", "noise.png", *model, "--size", "16", "--out", "o").err.split())
    assert "pixels in [0, 1], at 16 x 16 pixels, without normalisation" in said
    assert said.endswith("set --mean and --std (0 and 1 if this is right)")
    said = " ".join(run("explain", "noise.png", *model, "--mean", "0.5", "--out", "o").err.split())
    assert "at its own size, minus 0.5 and divided by 1. If" in said
    assert said.endswith("set --size, or --resize and --crop")


def test_open_clip_needs_classes(run, folder):
    def flat(*words):
        got = run("explain", "noise.png", "--model", "open_clip:ViT-B-32", *words)
        assert got.code == 2
        return " ".join(got.err.replace("\u2502", " ").split())

    assert "compares images with names and has no classes of its own" in flat()
    (folder / "gap.txt").write_text("cat\n\ndog\n")
    assert "line 2 of gap.txt is empty" in flat("--classes", "gap.txt")
    (folder / "twice.txt").write_text("cat\ndog\ncat\n")
    assert "lines 1 and 3 of twice.txt are both 'cat'" in flat("--classes", "twice.txt")


@pytest.mark.slow
def test_open_clip_explains(run, folder):
    pytest.importorskip("open_clip")
    from tests.loading.test_open_clip_models import MODEL, PREPROCESSING

    (folder / "clip").mkdir()
    facts = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING}
    (folder / "clip" / "open_clip_config.json").write_text(json.dumps(facts))
    words = ("--model", "open_clip:clip", "--weights", "none", "--classes", "names.txt", "--json")
    got = run("explain", "noise.png", *words, "--target", "sad")
    assert got.code == 0, got.err
    assert got.json["photos"][0]["explanations"][0]["targets"][0]["name"] == "sad"
    assert re.fullmatch(r"visual\..*", got.json["photos"][0]["explanations"][0]["layers"][0])


def test_every_kind_of_model_is_named_where_none_is_found(run):
    got = run("layers", "vgg")
    assert got.code == 2
    for kind in ("torchvision:NAME", "timm:NAME", "hf:NAME", "open_clip:NAME", "FILE.pt2"):
        assert kind in got.err
