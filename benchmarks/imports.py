"""How long ``import camlens`` takes beside ``import torch``, each in fresh processes, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def import_times(rounds: int) -> tuple[float, float, float]:
    """Return the median seconds of torch and of camlens, and the median of each round's ratio."""
    torch, camlens = [], []
    for _ in range(rounds + 1):
        torch.append(_seconds("import torch"))
        camlens.append(_seconds("import camlens"))
    ratios = [c / t for c, t in zip(camlens[1:], torch[1:], strict=True)]  # the first warms up
    return statistics.median(torch[1:]), statistics.median(camlens[1:]), statistics.median(ratios)


def _seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start
