"""What decides numbers is told apart, and described the same in every process."""

import functools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from camlens import GradCAM, layers
from camlens.dataset.descriptions import describe, describe_explainer, fingerprint

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


def test_options_of_an_explainer():
    model = net()
    assert describe_explainer(GradCAM(model, ["0", "1"]))["layers"] == ["0", "1"]
    assert describe_explainer(GradCAM(model))["options"] == {"layer": "last"}
    found = [
        describe_explainer(GradCAM(model, "1", layout=layers.tokens(prefix, (7, 7))))["options"]
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


def test_another_process_describes_the_same():
    script = (
        "from camlens.dataset.descriptions import describe; import json\n"
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
