"""The command ``train``: killed runs resume, and errors are printed."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from made_up_faces import made_up_faces, write_csv
from run_folders import assert_same_run

from fer2013.__main__ import main
from fer2013.configurations.recipes import CONFIGS

COMMAND = [sys.executable, "-m", "fer2013", "train"]
OPTIONS = ["--device", "cpu", "--precision", "32-true", "--epochs", "3", "--data"]


@pytest.fixture(scope="module")
def csv_of_batches(tmp_path_factory):
    """20 images of each class: one batch of 128."""
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    write_csv(made_up_faces(training=20), path)
    return str(path)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Three epochs of 28 images, long enough to be killed."""
    root = tmp_path_factory.mktemp("short")
    write_csv(made_up_faces(training=4, public=1), root / "fer2013.csv")
    config = dataclasses.replace(CONFIGS["first"], batch_size=14)
    record = {"config": dataclasses.asdict(config), "seed": 0, "precision": "32-true"}
    (root / "run.json").write_text(json.dumps(record))
    return [*COMMAND, str(root), *OPTIONS, str(root)]


def kill_after_first_checkpoint(command, folder, how):
    # Background jobs of a shell ignore Ctrl-C, and child processes inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        end = time.monotonic() + 120
        while not (folder / "last.ckpt").is_file() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(how)
        return process.wait(60)
    finally:
        process.kill()


@pytest.mark.exhaustive
def test_ctrl_c_stops_a_run_and_keeps_its_checkpoint(command, tmp_path):
    command = [*command, "--out", str(tmp_path)]
    assert kill_after_first_checkpoint(command, tmp_path, signal.SIGINT) != 0
    assert (tmp_path / "last.ckpt").is_file()
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.slow
def test_a_killed_run_resumes(command, tmp_path, capsys):
    data = command[-1]
    command = [*command, "--out", str(tmp_path / "killed")]
    kill_after_first_checkpoint(command, tmp_path / "killed", signal.SIGKILL)
    assert not list((tmp_path / "killed").glob("*.safetensors"))
    assert main(command[3:]) == 0
    assert "resuming from" in capsys.readouterr().out
    # repeat the run from its folder, including seed and precision
    again = ["train", str(tmp_path / "killed"), "--device", "cpu", "--data", data]
    assert main([*again, "--out", str(tmp_path / "straight")]) == 0
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_errors_are_printed(csv_of_batches, tmp_path, capsys):
    command = ["train", "first", *OPTIONS, csv_of_batches, "--out", str(tmp_path)]
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert main(command) == 2
    assert "Remove it to start the run again" in capsys.readouterr().err
    (tmp_path / "last.ckpt").unlink()
    absent = "mps" if torch.cuda.is_available() else "cuda"
    assert main([*command, "--device", absent]) == 2
    assert "this machine has no such accelerator" in capsys.readouterr().err
    assert main([*command, "--devices", "3"]) == 2
    assert "a number of devices that divides the batch of 128" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
