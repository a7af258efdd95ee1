"""A program that runs, kills and counts in forked processes, which need no second import.

python -m tests.dataset.kills kill OUT N   N runs, killed at random points and resumed
python -m tests.dataset.kills race OUT N   N runs, each written by three processes at once
python -m tests.dataset.kills ranks OUT    a run of two ranks, one of which dies, and again
python -m tests.dataset.kills memory OUT   the peak memory of a run over few and over many images
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas  # noqa: F401  imported once, before all forks
import pyarrow.parquet  # noqa: F401
import torch

from .made import Noise, files, run

ROOT = Path(__file__).parents[2]
#: Numbers of images between which a run's memory must not grow.
FEW, MANY = 200, 1400


def program(*words: object) -> dict[str, object]:
    """Run this file as a program of one thread and return what it found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.dataset.kills", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def forked(work: Callable[[], object]) -> int:
    """Start work in a process of its own and return its number."""
    if child := os.fork():
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def together(*works: Callable[[], object]) -> list[int]:
    """Do all works at once, each in a process of its own; return their exit codes."""
    children = [forked(work) for work in works]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def waited(work: Callable[[], object]) -> None:
    if together(work) != [0]:
        raise RuntimeError("a run that was not killed failed")


def small_shards(out: Path, number: int = 0) -> None:
    """Run over shards of two images, so that much of the time goes into writing them."""
    run(out, 40, shard_size=2, num_workers=number % 2)


def kill(out: Path, kills: int) -> dict[str, object]:
    waited(lambda: small_shards(out / "warm"))
    start = time.perf_counter()
    waited(lambda: small_shards(out / "whole"))
    took = time.perf_counter() - start
    expected = files(out / "whole")
    points = random.Random(5)
    killed, shards, different = 0, [], []
    for number in range(5 * kills):
        if killed == kills:
            break
        folder = out / f"run{number}"
        child = forked(lambda folder=folder, number=number: small_shards(folder, number))
        time.sleep(points.uniform(0.01, took))
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            continue  # it had ended before
        killed += 1
        shards.append(len(list(folder.glob("shard-*"))))
        # A half-written manifest is removed when it is old; it might be another process's.
        for part in folder.glob(".manifest.json.*.part"):
            os.utime(part, (0, 0))
        waited(lambda folder=folder: small_shards(folder))
        if files(folder) != expected:
            different.append(number)
    return {"killed": killed, "shards": shards, "different": different, "seconds": took}


def race(out: Path, turns: int) -> dict[str, object]:
    waited(lambda: small_shards(out / "whole"))
    codes, different = [], []
    for turn in range(turns):
        folder = out / f"run{turn}"
        codes += together(*[lambda folder=folder: small_shards(folder)] * 3)
        if files(folder) != files(out / "whole"):
            different.append(turn)
    return {"codes": codes, "different": different}


def ranks(out: Path) -> dict[str, object]:
    die = out / "die"
    die.write_text("26")  # of shard 3, and so of rank 1

    def rank(number: int) -> None:
        os.environ.update(RANK=str(number), WORLD_SIZE="2")  # as torchrun does
        run(out / "run", dataset=Noise(40, die=die))

    both = [lambda number=number: rank(number) for number in range(2)]
    killed = together(*both)
    left = sorted(path.name for path in (out / "run").glob("shard-*"))
    return {"killed": killed, "left": left, "again": together(*both)}


def memory(out: Path) -> dict[str, object]:
    peaks = {}
    for items in (FEW, MANY):
        note = out / f"{items}.json"

        def work(items: int = items, note: Path = note) -> None:
            run(out / str(items), items, shard_size=64, batch_size=16)
            note.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

        waited(work)
        peaks[items] = int(note.read_text()) / 1024
    return peaks


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, folder, *count = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    folder.mkdir(parents=True, exist_ok=True)
    programs = {"kill": kill, "race": race, "ranks": ranks, "memory": memory}
    print(json.dumps(programs[what](folder, *count)))
