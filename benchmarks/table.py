"""Markdown tables, and the facts of machine and versions that stand above them."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch
from peers import TOOLS
from rows import Row

import camlens

PACKAGES = ("torch", "torchvision", "torchcam", "captum", "grad-cam", "zennit", "quantus", "numpy")
SECTIONS = {
    "flops": "Operations over a bare forward pass",
    "time": "Time over a bare forward pass",
    "memory": "Extra peak memory over a bare forward pass",
    "overlay": "Drawing, time over a bare forward pass",
}


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Lay out a markdown table whose source is aligned too."""
    cells = [list(head), *map(list, lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    padded = [
        " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
        for row in (cells[0], rule, *cells[1:])
    ]
    return "\n".join(f"| {line} |" for line in padded) + "\n"


def bars(section: str, found: Mapping[Row, Mapping[str, float]]) -> str:
    """Return a section's rows: bar, every tool, verdict."""
    verdicts = {True: "met", False: "MISSED", None: "-"}
    lines = [
        (
            str(row.case),
            row.bar_text,
            *(row.text(costs.get(tool)) for tool in TOOLS),
            verdicts[row.met(costs)],
            row.standing(costs),
        )
        for row, costs in found.items()
    ]
    head = (SECTIONS[section], "bar", *TOOLS, "bar is", "camlens is")
    return table(head, lines)


def facts(device: str) -> str:
    """Say when, where and with what."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    command = shlex.join(["python", *sys.argv])
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"`{command}`, {now}\n\n"
        f"- Machine: {_machine(device)}; load average at the start {load}\n"
        f"- Python {platform.python_version()}, camlens {camlens.__version__}, {versions}\n"
    )


def _machine(device: str) -> str:
    processor = f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {processor}"
    return f"{processor}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
