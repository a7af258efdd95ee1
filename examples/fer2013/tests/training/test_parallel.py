"""Training with two processes equals training with one."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from made_up_faces import made_up_faces, write_csv

from fer2013.__main__ import main
from fer2013.configurations.config import Augmentation
from fer2013.configurations.recipes import CONFIGS
from fer2013.networks import weights

pytestmark = pytest.mark.exhaustive

# A VGG19 without dropout and augmentation: BatchNorm's statistics and random numbers differ between
# processes. The loss has class weights.
CONFIG = dataclasses.replace(
    CONFIGS["config3"],
    name="two",
    weights="none",
    dropout=0.0,
    augmentation=Augmentation(mirror=0.0, rotation=0.0),
    epochs=2,
    batch_size=16,
    rate=0.01,
)


def run_here(command):
    """Run the command in this process, and return its output."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(command) == 0
    finally:
        torch.set_num_threads(threads)
    return printed.getvalue()


def run(command):
    """Run the command in a process of its own, and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "fer2013", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("parallel")
    # 33 training and 9 validation images: both odd
    faces = made_up_faces(training=6, public=1)
    write_csv(faces, root / "fer2013.csv")
    record = {"config": dataclasses.asdict(CONFIG), "seed": 3, "precision": "32-true"}
    (root / "run.json").write_text(json.dumps(record))
    common = ["train", str(root), "--data", str(root), "--device", "cpu"]
    one = run_here([*common, "--out", str(root / "one")])
    two = run([*common, "--devices", "2", "--strategy", "ddp", "--out", str(root / "two")])
    yield root, one, two
    for checkpoint in root.glob("*/*.ckpt"):  # 80 MB each
        checkpoint.unlink()


def test_both_have_the_same_metrics(folders):
    root, _, _ = folders
    one, two = (pd.read_csv(root / name / "history.csv") for name in ("one", "two"))
    assert one.epoch.tolist() == two.epoch.tolist() == [1, 2]
    for metric in ("train_accuracy", "val_accuracy", "rate"):
        assert one[metric].tolist() == two[metric].tolist()
    for metric in ("train_loss", "val_loss"):
        assert two[metric].tolist() == pytest.approx(one[metric].tolist(), abs=1e-3)
    files = [weights.read_facts(root / name / "two.safetensors") for name in ("one", "two")]
    assert files[0]["accuracy"] == files[1]["accuracy"]


def test_both_have_the_same_weights(folders):
    root, _, _ = folders
    one, two = (
        torch.load(root / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-4)


def test_files_and_lines_are_written_once(folders):
    root, one, two = folders
    names = [sorted(p.name for p in (root / folder).iterdir()) for folder in ("one", "two")]
    assert names[0] == names[1]
    for printed in (one, two):
        lines = printed.splitlines()
        assert [line[:7] for line in lines[:2]] == ["epoch 1", "epoch 2"]
        assert len(lines) == 3
