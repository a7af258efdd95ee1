"""What decides numbers is told apart, and described the same in every process."""

import functools
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from camlens import GradCAM, layouts
from camlens.dataset.descriptions import describe, describe_explainer, fingerprint, structure

from .made import HALVES, net


def test_a_fingerprint_is_of_names_types_shapes_and_bytes():
    model = nn.Linear(2, 3)
    before = fingerprint(model)
    assert fingerprint(nn.Sequential(model)) != before
    assert fingerprint(model.double()) != before
    assert fingerprint(model.float()) == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-3
    assert fingerprint(model) != before
    assert len(fingerprint(nn.Linear(2, 3, dtype=torch.bfloat16))) == 64


class Scaled(nn.Module):
    def __init__(self, scale=1.0, act=torch.relu):
        super().__init__()
        self.layer, self.scale, self.act = nn.Conv2d(1, 2, 3), scale, act
        self.calls = []

    def forward(self, images):
        return self.act(self.layer(images)) * self.scale


class Other(Scaled):
    def forward(self, images):
        return super().forward(images) + 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())),
        (nn.Conv2d(1, 1, 3, stride=1), nn.Conv2d(1, 1, 3, stride=2)),
        (Scaled(), Other()),
        (Scaled(1.0), Scaled(2.0)),
        (Scaled(act=torch.relu), Scaled(act=torch.sigmoid)),
        (Scaled(act=lambda x: x.clamp(0, 1)), Scaled(act=lambda x: x.clamp(0, 2))),
        (torch.fx.symbolic_trace(Scaled(1.0)), torch.fx.symbolic_trace(Scaled(2.0))),
    ],
)
def test_models_of_equal_weights_differ(a, b):
    b.load_state_dict(a.state_dict())
    assert fingerprint(a) == fingerprint(b)
    assert structure(a) == structure(a)
    assert structure(a) != structure(b)


def test_another_source_of_a_class_is_another_model(tmp_path, monkeypatch):
    found = set()
    for place, sign in enumerate("+-"):
        (tmp_path / str(place)).mkdir()
        path = tmp_path / str(place) / "signed.py"
        path.write_text(
            "from torch import nn\nclass Signed(nn.Module):\n"
            f"    def forward(self, images):\n        return {sign}images\n"
        )
        spec = importlib.util.spec_from_file_location("signed", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "signed", module)
        spec.loader.exec_module(module)
        found.add(structure(module.Signed()))
    assert len(found) == 2


def test_running_a_model_or_holding_itself_changes_nothing():
    model = Scaled()
    model.again = functools.partial(print, model)
    before = structure(model)
    model.calls.append(model(torch.rand(1, 1, 8, 8)))
    assert structure(model) == before


def test_options_of_an_explainer():
    model = net()
    assert describe_explainer(GradCAM(model, ["0", "1"]))["layers"] == ["0", "1"]
    assert describe_explainer(GradCAM(model))["options"] == {
        "create_graph": False,
        "layer": "last",
        "registration": "stretched",
    }
    found = [
        describe_explainer(GradCAM(model, "1", layout=layouts.tokens(prefix, (7, 7))))["options"]
        for prefix in (0, 1)
    ]
    assert found[0] != found[1]


class Finder:
    def __init__(self, threshold):
        self.threshold, self._cache = threshold, object()

    def __call__(self, pictures):
        return pictures

    def find(self, pictures):
        return pictures


def plain(images):
    """Say nothing."""
    return images + 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda x: x[:, 1], lambda x: x[:, 2]),
        (lambda x, k=1: x[:, k], lambda x, k=2: x[:, k]),
        (functools.partial(torch.mul, other=2), functools.partial(torch.mul, other=3)),
        (Finder(0.1), Finder(0.2)),
        (Finder(0.1).find, Finder(0.2).find),
        (HALVES, HALVES.pick("right", "left")),
        (torch.zeros(2), torch.zeros(3)),
        (net(0), net(1)),
        (torch.sigmoid, torch.tanh),
        ({"a": (1, 2)}, {"a": (1, 3)}),
    ],
)
def test_different_options_differ(a, b):
    assert describe(a) == describe(a)
    assert describe(a) != describe(b)


def test_equal_objects_are_described_equally():
    assert describe(Finder(0.1)) == describe(Finder(0.1))
    assert describe(plain)["constants"] == ["1"]


def test_what_holds_itself_has_an_end():
    finder = Finder(0.1)
    finder.threshold = [finder]
    assert describe(finder) == describe(finder)


@pytest.mark.slow
def test_another_process_describes_the_same():
    script = (
        "from camlens.dataset.descriptions import describe, structure; import json, torch\n"
        "print(structure(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())))\n"
        "print(json.dumps(describe([lambda x: x in {'a', 'b', 'c', 'd'}, str.upper, object()])))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert "at 0x" not in found.pop()
