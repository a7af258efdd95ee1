"""A run is what was written: damaged, swapped or foreign files are told, and nothing is mixed."""

import errno
import os
import shutil
import socket
from email.message import Message
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn

from camlens import GradCAM
from camlens.dataset import Run, RunOptions, explain_dataset
from camlens.loading.faults import is_machine_fault

from .kills import program
from .made import Noise, net, run

FILES = ("images.parquet", "maps.parquet", "regions.parquet", "checksums.json")


def read(folder):
    made = Run(folder)
    return made.images, made.maps, made.regions, made.manifest


def same(one, other):
    return all(a.equals(b) for a, b in zip(one[:3], other[:3], strict=True)) and one[3] == other[3]


@pytest.mark.slow
@pytest.mark.parametrize("flips", [60, pytest.param(600, marks=pytest.mark.exhaustive)])
def test_every_flipped_bit_is_told_or_harmless(tmp_path, flips):
    run(tmp_path / "run", 12)
    whole = read(tmp_path / "run")
    paths = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    random = np.random.default_rng(0)
    told = 0
    for _ in range(flips):
        path = paths[random.integers(len(paths))]
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        reason = ""
        try:
            assert same(read(tmp_path / "run"), whole), path
        except ValueError as error:
            reason = str(error)
        told += bool(reason)
        assert not reason or path.name in reason or path.parent.name in reason
        path.write_bytes(content)
    assert told > flips / 2


@pytest.mark.slow
@pytest.mark.parametrize("names", [FILES[:1], FILES[1:2], FILES[2:3], FILES[3:], FILES])
def test_files_of_another_run_are_refused(tmp_path, names):
    run(tmp_path / "a", 12)
    run(tmp_path / "b", 12, explainer=GradCAM(net(1), "1"))
    for name in names:
        shutil.copy(tmp_path / "b/shard-00001" / name, tmp_path / "a/shard-00001" / name)
    with pytest.raises(
        ValueError, match=r"a/shard-00001/.*(does not match its checksum|another run)"
    ):
        read(tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"a/shard-00001/.*(does not match its checksum|another run)"
    ):
        same(read(tmp_path / "a"), read(tmp_path / "b"))


@pytest.mark.parametrize("broken", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_file_or_a_broken_link_in_a_shards_place_is_told(tmp_path, broken):
    run(tmp_path, 6, shard_size=3)
    shutil.rmtree(tmp_path / "shard-00001")
    broken(tmp_path / "shard-00001")
    with pytest.raises(NotADirectoryError, match=r"shard-00001 is a file or a broken link.*delete"):
        run(tmp_path, 6, shard_size=3)


def test_a_shard_in_another_ones_place_is_refused(tmp_path):
    run(tmp_path, 20)
    shutil.rmtree(tmp_path / "shard-00001")
    shutil.copytree(tmp_path / "shard-00000", tmp_path / "shard-00001")
    with pytest.raises(ValueError, match="the shard is number 0 and was renamed"):
        read(tmp_path)


# --- the same folder, several calls --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("turns", [1, pytest.param(12, marks=pytest.mark.exhaustive)])
def test_processes_that_write_the_same_run_do_not_fail_each_other(tmp_path, turns):
    found = program("race", tmp_path, turns)
    assert found == {"codes": [0, 0, 0] * turns, "different": []}


def test_the_parts_of_a_live_process_stay_and_those_of_a_dead_one_go(tmp_path):
    run(tmp_path, 12)
    live, dead = "a" * 32, "d" * 32
    for name in (live, dead):
        (tmp_path / f".shard-00009.{name}.part").mkdir()
        (tmp_path / f".{name}.writer").touch()
    lock = FileLock(tmp_path / f".{live}.writer")
    with lock:
        run(tmp_path, 12)
        left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
        assert left == {f".shard-00009.{live}.part", f".{live}.writer"}
    run(tmp_path, 12)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_call_that_failed_before_its_first_shard_does_not_block_the_next(tmp_path):
    with pytest.raises(ValueError, match="expected classes 0 to 2"):
        run(tmp_path, 12, targets=99)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    run(tmp_path, 12, targets=1)
    with pytest.raises(ValueError, match="a different run"):
        run(tmp_path, 12, targets=2)


def test_a_folder_that_another_call_took_over_is_told(tmp_path):
    class TakenOver(Noise):
        def __getitem__(self, index):
            if index == 3:
                run(tmp_path, 12, targets=2)
            return super().__getitem__(index)

    with pytest.raises(ValueError, match="now contains a different run"):
        run(tmp_path, 12, targets=1, dataset=TakenOver(12))
    assert set(Run(tmp_path).maps["target"]) == {2}


def test_a_finished_run_on_a_read_only_disk_is_returned(tmp_path, monkeypatch):
    made = run(tmp_path, 12)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "unlink", "rename", "replace", "write_bytes", "touch"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    again = run(tmp_path, 12)
    assert again.maps.equals(made.maps)
    assert again.manifest == made.manifest


# --- whose fault it is ---------------------------------------------------------------------------


def of_number(name):
    return OSError(getattr(errno, name), os.strerror(getattr(errno, name)))


def caused_by(error, cause):
    try:
        raise error from cause
    except type(error) as raised:
        return raised


def no_memory():
    try:
        torch.empty(10**17)
    except RuntimeError as error:
        return error
    raise AssertionError


MACHINE = [
    no_memory(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: device-side assert triggered"),
    MemoryError(),
    TimeoutError("timed out"),
    ConnectionResetError("reset by peer"),
    URLError(ConnectionRefusedError("refused")),
    HTTPError("http://a", 503, "Service Unavailable", Message(), None),
    IncompleteRead(b""),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    RuntimeError("unable to write to file </torch_12>: No space left on device (28)"),
    RuntimeError("can't start new thread"),
    caused_by(ValueError("no image could be read"), of_number("EIO")),
    # As requests raises it: the cause is an argument, which was raised from the system's error.
    OSError(caused_by(ValueError("retried too often"), ConnectionResetError("reset by peer"))),
    *map(of_number, ("EIO", "EAGAIN", "EBUSY", "EDQUOT", "ENOTCONN", "EHOSTUNREACH", "ENXIO")),
]
IMAGE = [
    *(ValueError("cut off"), OSError("cannot identify image file"), of_number("ENOENT")),
    HTTPError("http://a", 404, "Not Found", Message(), None),
    caused_by(ValueError("no image could be read"), KeyError("size")),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", [*MACHINE, *IMAGE], ids=repr)
@pytest.mark.parametrize("place", ["reading", "explaining"])
def test_the_machines_fault_ends_the_run_and_an_images_fault_is_listed(tmp_path, error, place):
    class Faulty(Noise):
        def __getitem__(self, index):
            if index == 4 and place == "reading":
                raise error
            sample = super().__getitem__(index)
            if index == 4:
                sample.image.fill_(7)
            return sample

    def fail(_, images):
        if (images[0] == 7).flatten(1).all(1).any():
            raise error

    model = net()
    model.register_forward_pre_hook(fail)
    how = {"explainer": GradCAM(model, "1"), "dataset": Faulty(6, corrupt=None), "shard_size": 3}
    fail.fingerprint = lambda: "fail"
    if error in MACHINE:
        assert is_machine_fault(error)
        with pytest.raises(type(error)):
            run(tmp_path, 6, **how)
        assert [path.name for path in tmp_path.glob("shard-*")] == ["shard-00000"]
    else:
        made = run(tmp_path, 6, **how)
        assert made.unreadable["image"].tolist() == [4]
        assert sorted(set(made.maps["image"])) == [0, 1, 2, 3, 5]


class Poor(nn.Module):
    """Scores an image of sevens as NaN."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, images):
        scores = self.net(images)
        return scores / (images.flatten(1) != 7).any(1, keepdim=True)


TWELVE = [torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(12)]


@pytest.fixture(scope="module")
def maps_of_twelve(tmp_path_factory):
    """The table of maps of twelve images that all can be explained, one at a time."""
    out = tmp_path_factory.mktemp("twelve")
    explainer = GradCAM(Poor().eval(), "net.1")
    return explain_dataset(explainer, TWELVE, out, RunOptions(batch_size=1), progress=False).maps


# Alone, first and last in its batch, and in a batch of all.
@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "at"), [(1, 5), (2, 0), (3, 11), (12, 5)])
def test_an_image_that_the_model_cannot_take_or_scores_as_nan(
    tmp_path, maps_of_twelve, batch_size, at
):
    whole = maps_of_twelve
    for name, image in {"nan": torch.full((1, 16, 16), 7.0), "tiny": torch.rand(1, 2, 2)}.items():
        given = [*TWELVE[:at], image, *TWELVE[at + 1 :]]
        made = explain_dataset(
            GradCAM(Poor().eval(), "net.1"),
            given,
            tmp_path / name,
            RunOptions(batch_size=batch_size),
            progress=False,
        )
        assert made.unreadable["image"].tolist() == [at]
        assert made.unreadable["reason"][0].startswith("cannot be explained: ")
        others = whole[whole["image"] != at]
        assert made.maps["image"].tolist() == others["image"].tolist()
        assert np.allclose(made.maps["score"], others["score"], atol=1e-6)


def test_a_question_without_any_answer_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match="single cell"):
        run(tmp_path, 6, explainer=GradCAM(net(), "2"))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
