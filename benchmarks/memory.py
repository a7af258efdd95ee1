"""How peak memory is measured: each tool in a fresh process.

In a process of its own the model and one small warm-up call come first, so that libraries and
code loaded on first use do not count; then the kernel's high-water mark of resident memory is
reset, the tool runs once, and the mark is read. The same is done for the bare forward pass. What
the tool takes on top of that is reported over the whole peak of the forward pass, model included.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

from networks import Case

MIB = 2**20


def extra_peaks(case: Case, device: str, repeats: int) -> dict[str, tuple[float, float]]:
    """Return by tool (extra peak over the forward's peak, extra peak in MiB)."""
    from peers import ADAPTERS

    base = _peak(case, "forward", device, repeats)
    peaks = {tool: _peak(case, tool, device, repeats) for tool in ADAPTERS[case.method]}
    return {tool: ((p - base) / base, (p - base) / MIB) for tool, p in peaks.items()}


def _peak(case: Case, tool: str, device: str, repeats: int) -> float:
    facts = json.dumps(dataclasses.asdict(case))
    command = [sys.executable, str(Path(__file__).resolve()), facts, tool, device]
    runs = (subprocess.run(command, check=True, capture_output=True) for _ in range(repeats))
    return statistics.median(int(run.stdout.split()[-1]) for run in runs)


def peak_of_this_process(case: Case, tool: str, device: str) -> int:
    """Run a tool once and return the peak in bytes."""
    import torch
    from networks import load
    from peers import ADAPTERS, bare_forward

    adapter = bare_forward if tool == "forward" else ADAPTERS[case.method][tool]
    loaded = load(case, device)
    classes = None if loaded.classes is None else loaded.classes[:1]
    first = dataclasses.replace(loaded, images=loaded.images[:1], classes=classes)
    adapter(first)()
    call = adapter(loaded)
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (man 5 proc); Linux only
    call()
    return torch.cuda.max_memory_allocated(device) if on_cuda else _high_water_mark()


def _high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=peak_of_this_process.__doc__)
    parser.add_argument("case")
    parser.add_argument("tool")
    parser.add_argument("device")
    args = parser.parse_args()
    print(peak_of_this_process(Case(**json.loads(args.case)), args.tool, args.device))


if __name__ == "__main__":
    main()
