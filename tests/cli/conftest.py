"""A runner of the command, in a folder of its own with a tiny model and a photograph in it."""

import json
import os
import subprocess
import sys

import matplotlib.cbook
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from camlens.cli.app import app


def net():
    """Return five classes' scores of RGB pictures of any size, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        )


class Done:
    """What a call of the command gave."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: a photograph of a face, 64 x 64, a picture of noise, five names."""
    monkeypatch.chdir(tmp_path)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = Image.open(file).crop((140, 20, 410, 290)).resize((64, 64))
    hopper.save("hopper.png")
    noise = torch.randint(0, 256, (48, 80, 3), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save("noise.png")
    (tmp_path / "names.txt").write_text("angry\nhappy\nsad\ncalm\nsurprised\n")
    return tmp_path


@pytest.fixture
def run(folder):
    """Call the command in this process."""

    def call(*words, env=None):
        got = CliRunner().invoke(app, [str(word) for word in words], env=env)
        if got.exception is not None and not isinstance(got.exception, SystemExit):
            raise got.exception
        return Done(got.exit_code, got.stdout, got.stderr)

    return call


@pytest.fixture
def process(folder):
    """Call the command as a process of its own."""

    def call(*words, env=None, **options):
        got = subprocess.run(
            [sys.executable, "-m", "camlens", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            **options,
        )
        return Done(got.returncode, got.stdout, got.stderr)

    return call


@pytest.fixture
def model():
    """The words that name the tiny model."""
    return ("--model", "tests.cli.conftest:net")
