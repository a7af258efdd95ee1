"""A program that runs, kills and counts in forked processes, which need no second import.

python -m tests.dataset.kills kill OUT    20 runs killed at random points and gone on with
python -m tests.dataset.kills memory OUT  the peak memory of a run over 300 and over 3,000 images
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas  # noqa: F401  imported once, before all forks
import pyarrow.parquet  # noqa: F401
import torch

from .made import files, run

KILLS = 20


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


def waited(work: Callable[[], object]) -> None:
    if os.waitpid(forked(work), 0)[1] != 0:
        raise RuntimeError("a run that was not killed failed")


def small_shards(out: Path, number: int = 0) -> None:
    """Run over shards of two images, so that much of the time goes into writing them."""
    run(out, 40, shard_size=2, num_workers=number % 2)


def kill(out: Path) -> dict[str, object]:
    waited(lambda: small_shards(out / "warm"))
    start = time.perf_counter()
    waited(lambda: small_shards(out / "whole"))
    took = time.perf_counter() - start
    expected = files(out / "whole")
    points = random.Random(5)
    killed, shards, different = 0, [], []
    for number in range(5 * KILLS):
        if killed == KILLS:
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


def memory(out: Path) -> dict[str, object]:
    peaks = {}
    for items in (300, 3000):
        note = out / f"{items}.json"

        def work(items: int = items, note: Path = note) -> None:
            run(out / str(items), items, shard_size=64, batch_size=16)
            note.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

        waited(work)
        peaks[items] = int(note.read_text()) / 1024
    return peaks


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"kill": kill, "memory": memory}[what](folder)))
