"""``camlens layers`` and ``camlens methods``."""

import re

import pytest
import torch

import camlens
from tests.cli.conftest import net


def test_methods_come_from_the_classes(run):
    rows = run("methods", "--json").json["methods"]
    names = {row["method"] for row in rows}
    assert names == {
        *("CAM", "Deconvnet", "EigenCAM", "GradCAM", "GradCAMPlusPlus", "GuidedBackprop"),
        *("GuidedGradCAM", "HiResCAM", "Saliency", "LayerCAM", "XGradCAM"),
        *("AblationCAM", "EigenGradCAM", "FullGrad", "LayerIntegratedGradients"),
        *("ExpectedGradients", "IntegratedGradients", "Occlusion", "RISE", "ScoreCAM"),
        *("SmoothGrad", "LeGrad", "GenericAttention", "AttentionRollout"),
        *("AttnLRP", "DeepFeatureFactorization", "LRP"),
    }
    assert {r["method"] for r in rows if not r["layer"]} == {
        *("AttentionRollout", "GenericAttention", "LeGrad"),
        *("Deconvnet", "FullGrad", "GuidedBackprop", "Saliency"),
        *("ExpectedGradients", "IntegratedGradients", "Occlusion", "RISE", "SmoothGrad"),
        *("AttnLRP", "LRP"),
    }
    assert {r["method"] for r in rows if r["in Python only"]} == {"ExpectedGradients", "SmoothGrad"}
    needs = {r["method"]: r["needs"] for r in rows}
    assert (needs["GradCAM"], needs["LeGrad"], needs["Saliency"]) == ("a layer", "attention", "")
    assert needs["IntegratedGradients"] == "a baseline"
    assert all(r["costs"] for r in rows)
    for r in rows:
        assert (r["needs"] == "a layer") == r["layer"]
    assert next(r for r in rows if r["method"] == "GradCAM")["what it is"] == (
        "Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient"
    )
    assert not any(":func:" in row["what it is"] for row in rows)
    row = r"HiResCAM +HiResCAM \(Draelos and Carin 2020\): .* +a layer +F \+ T for each target"
    assert re.search(row, run("methods").out)


def test_layers(run):
    got = run("layers", "tests.cli.conftest:net", "--size", "16", "--json").json
    found = camlens.find_layers(net().eval(), torch.rand(1, 3, 16, 16))
    expected = [(x.name, x.type, x.channels, "x".join(map(str, x.grid))) for x in found]
    assert [
        (row["layer"], row["type"], row["channels"], row["grid"]) for row in got["layers"]
    ] == expected
    assert [row["layer"] for row in got["layers"] if row["default"]] == ["4"]
    text = run("layers", "tests.cli.conftest:net").out
    assert "at 224x224 pixels" in text
    assert re.search(r"4 +ReLU +8 +112x112 +yes +<-", text)


@pytest.mark.slow
def test_layers_of_torchvision(run):
    got = run("layers", "torchvision:squeezenet1_1", "--weights", "none", "--json").json
    assert {"features.12", "features.12.expand3x3"} <= {row["layer"] for row in got["layers"]}
    assert sum(row["default"] for row in got["layers"]) == 1


def test_a_model_without_layers(run):
    got = run("layers", "torch.nn:Flatten")
    assert got.code == 0
    assert "no layer is a map through which all evidence passes" in got.err


def test_a_wrong_name(run):
    got = run("layers", "torchvision:vgg91", "--weights", "none")
    assert got.code == 2
    assert "did you mean vgg19" in got.err
