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


def test_layers_need_no_weights(run, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    got = run("layers", "torchvision:squeezenet1_1")
    assert got.code == 1
    said = " ".join(got.err.split())
    assert "could not get the weights IMAGENET1K_V1 of squeezenet1_1 (no network)" in said
    assert said.endswith("(layers do not depend on the weights: pass --weights none)")
    assert "layers do not" not in run("layers", "tests.cli.conftest:net", "--weights", "no.pth").err


def test_a_model_without_layers(run):
    got = run("layers", "torch.nn:Flatten")
    assert got.code == 0
    assert "no layer is a map through which all evidence passes" in got.err


def test_an_unknown_layer_names_the_command_that_lists_them(run):
    got = run("explain", "hopper.png", "--model", "tests.cli.conftest:net", "--layer", "nine")
    assert got.code == 2
    said = " ".join(got.err.split())
    assert "has no layer 'nine'" in said
    assert "camlens layers MODEL lists those that can be explained" in said


def test_a_wrong_name(run):
    got = run("layers", "torchvision:vgg91", "--weights", "none")
    assert got.code == 2
    assert "did you mean vgg19" in got.err
