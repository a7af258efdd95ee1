"""Whatever ends a run: run again, the files are byte for byte those of an undisturbed one."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from camlens import GradCAM
from camlens.dataset import ShardTask, shards
from camlens.files import write_whole

from .kills import FEW, MANY, program
from .made import Noise, asked, files, net, run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a run over 40 items that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return files(out)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("kills", [1, pytest.param(15, marks=pytest.mark.exhaustive)])
def test_killed_at_random_points(tmp_path, kills):
    found = program("kill", tmp_path, kills)
    assert found["different"] == []
    assert found["killed"] == kills
    if kills > 5:  # at different points
        assert len(set(found["shards"])) >= 5


@pytest.mark.exhaustive
@needs_fork
def test_memory_does_not_grow_with_the_data_set(tmp_path):
    few, many = program("memory", tmp_path).values()
    assert (many - few) / (MANY - FEW) < 12 / 2700  # MiB for each further image


@pytest.mark.slow
@pytest.mark.parametrize("call", range(8))
def test_a_full_disk(tmp_path, whole, monkeypatch, call):
    write, calls = shards._write_durably, iter(range(100))

    def full(path, content):
        if next(calls) == call:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(shards, "_write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    monkeypatch.undo()
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["manifest.json", *(["shard-00000"] if call > 3 else [])]
    run(tmp_path)
    assert files(tmp_path) == whole


# A worker that dies while it hands over a batch leaves the receiver a half-open file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies(tmp_path, whole):
    die = tmp_path / "die"
    die.write_text("30")
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a process that reads images died"):
        run(out, dataset=Noise(40, die=die), num_workers=1)
    there = {path.name for path in out.glob("shard-*")}
    assert there < {"shard-00000", "shard-00001", "shard-00002", "shard-00003"}
    run(out, dataset=Noise(40, die=die), num_workers=1)
    assert files(out) == whole


def test_an_error_keeps_the_shards_before_it(tmp_path, whole):
    class Odd(Noise):
        def __getitem__(self, index):
            return "no image" if index == 30 else super().__getitem__(index)

    Odd.__name__ = "Noise"
    with pytest.raises(TypeError, match="items as a tensor") as error:
        run(tmp_path, dataset=Odd(40))
    assert error.value.__notes__ == ["in item 30 of the data set"]
    assert len(list(tmp_path.glob("shard-*"))) == 3
    run(tmp_path)
    assert files(tmp_path) == whole


def test_interrupted_by_the_keyboard(tmp_path, whole):
    class Tired(Noise):
        def __getitem__(self, index):
            if index == 20:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    Tired.__name__ = "Noise"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dataset=Tired(40))
    assert len(list(tmp_path.glob("shard-*"))) == 2
    run(tmp_path)
    assert files(tmp_path) == whole


def test_a_shard_that_lost_a_file_is_made_again(tmp_path, whole):
    run(tmp_path)
    (tmp_path / "shard-00001" / "maps.parquet").unlink()
    run(tmp_path)
    assert files(tmp_path) == whole


def test_what_killed_processes_left_is_cleared(tmp_path, whole):
    run(tmp_path, part=(0, 2))
    part = tmp_path / ".shard-00001.0123.part"
    part.mkdir()
    (part / "images.parquet").write_bytes(b"half")
    (tmp_path / ".manifest.json.77.part").write_bytes(b"half")
    os.utime(tmp_path / ".manifest.json.77.part", (0, 0))
    run(tmp_path)
    assert files(tmp_path) == whole


def test_a_shard_that_another_process_wrote_is_left_alone(tmp_path, whole):
    run(tmp_path)
    before = (tmp_path / "shard-00001").stat().st_ino
    task = ShardTask(GradCAM(net(), "1"), Noise(40), tmp_path, asked())
    task.run([1])
    assert (tmp_path / "shard-00001").stat().st_ino == before
    assert files(tmp_path) == whole


def test_another_rank_begins_the_run_while_this_one_looks(tmp_path, whole, monkeypatch):
    task, other = (ShardTask(GradCAM(net(), "1"), Noise(40), tmp_path, asked()) for _ in range(2))
    mkdir = Path.mkdir

    def begun_in_between(path, *args, **keywords):  # after the first look for a manifest
        mkdir(path, *args, **keywords)
        monkeypatch.undo()
        other.start()

    monkeypatch.setattr(Path, "mkdir", begun_in_between)
    assert task.start() == other.start()
    run(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("attempt", range(5))
def test_many_ranks_may_begin_at_once(tmp_path, attempt):
    tasks = [ShardTask(GradCAM(net(), "1"), Noise(4), tmp_path / "run") for _ in range(8)]
    with ThreadPoolExecutor(len(tasks)) as pool:
        found = [begun.result() for begun in [pool.submit(task.start) for task in tasks]]
    assert all(one == found[0] for one in found)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["manifest.json"]


def test_parts_of_the_manifest_are_cleared_by_the_next_call(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda path, target: None)  # killed before it
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)
    for _ in range(2):
        write_whole(tmp_path / "manifest.json", b"half")
    monkeypatch.undo()
    assert len({path.name for path in tmp_path.iterdir()}) == 2  # though of one process
    run(tmp_path)
    assert len(list(tmp_path.glob(".*.part"))) == 2  # they may be another process's
    for path in tmp_path.glob(".*.part"):
        os.utime(path, (0, 0))
    run(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.slow
@needs_fork
def test_two_ranks_one_of_them_killed(tmp_path, whole):
    found = program("ranks", tmp_path)
    assert found["killed"] == [0, 1]
    assert not (tmp_path / "die").exists()
    assert {"shard-00000", "shard-00002", "shard-00004"} <= set(found["left"])
    assert "shard-00003" not in found["left"]
    assert found["again"] == [0, 0]
    assert files(tmp_path / "run") == whole


@pytest.mark.slow
@pytest.mark.exhaustive
def test_torchrun_with_two_processes_one_of_them_killed(tmp_path, whole):
    def torchrun(*words):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", HERE / "made.py", tmp_path / "run", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    die = tmp_path / "die"
    die.write_text("26")  # of shard 3, and so of rank 1
    assert torchrun(die).returncode != 0
    assert not die.exists()
    assert not (tmp_path / "run" / "shard-00003").exists()
    done = torchrun()
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "run") == whole
