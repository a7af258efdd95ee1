"""Measure camlens beside grad-cam, torchcam, captum, zennit and Quantus: ``make bench``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import methods
import torch
from dataset_cost import KEEP
from first_call import first_call_costs, later_call_overhead
from growth import GROWTH, formats, growth
from imports import import_times
from measure import flop_ratios, time_ratios
from memory import extra_peaks
from metric_speed import HEAD as METRIC_HEAD
from metric_speed import metric_speed
from models import HEAD, cells_of, checked, first_sentence
from networks import Case
from pictures import overlay_shares
from region_scores import region_scores
from rows import ROWS, Row
from table import bars, facts, table

HERE = Path(__file__).resolve().parent
Costs = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How often things are repeated, and whether they are made small."""

    rounds: int = 11
    processes: int = 1
    quick: bool = False

    def sized(self, case: Case) -> Case:
        """Shrink a case where only the code is tried out."""
        small = {"size": min(case.size, 64), "batch": min(case.batch, 2)}
        return dataclasses.replace(case, **small) if self.quick else case


QUICK = Effort(rounds=1, processes=1, quick=True)


def _memory(row: Row, device: str, effort: Effort) -> Costs:
    peaks = extra_peaks(effort.sized(row.case), device, effort.processes)
    return {tool: p[1] if row.unit == "MiB" else p[0] for tool, p in peaks.items()}


MEASURES: dict[str, Callable[[Row, str, Effort], Costs]] = {
    "flops": lambda row, device, effort: flop_ratios(effort.sized(row.case), device),
    "time": lambda row, device, effort: time_ratios(effort.sized(row.case), device, effort.rounds),
    "memory": _memory,
    "overlay": lambda row, device, effort: overlay_shares(
        effort.sized(row.case), device, effort.rounds
    ),
}


def bars_section(section: str, device: str, effort: Effort) -> str:
    """Measure the rows of one section of the issue's table."""
    found = {}
    for row in ROWS:
        if row.section == section:
            found[row] = MEASURES[section](row, device, effort)
            cells = ", ".join(f"{tool} {row.text(c)}" for tool, c in found[row].items())
            _progress(f"{section}: {row.case}: {cells}")
    return bars(section, found)


def precision_section(device: str, effort: Effort) -> str:
    """Measure what number formats and memory layouts bring."""
    lines = []
    for case in (Case("resnet50", 8), Case("vgg19", 4)):
        for name, forward, cam in formats(effort.sized(case), device, effort.rounds):
            lines.append((str(case), name, f"{forward:.2f}", f"{cam:.2f}"))
            _progress(f"precision: {', '.join(lines[-1])}")
    return table(("Time over the fp32 forward pass", "format", "forward", "Grad-CAM"), lines)


def growth_section(device: str, effort: Effort) -> str:
    """Measure how the price grows with batch, targets and image size."""
    lines = []
    for what, cases in GROWTH.items():
        for case in cases:
            ratio = growth(effort.sized(case), device, effort.rounds)
            lines.append((what, str(case), f"{ratio:.2f}"))
            _progress(f"growth: {', '.join(lines[-1])}")
    return table(("growth with", "camlens", "time over the same batch's forward pass"), lines)


def regions_section(device: str, effort: Effort) -> str:
    """Measure what scoring regions costs."""
    lines = region_scores(device, effort.rounds, quick=effort.quick)
    _progress(f"regions: {lines}")
    return table(("scoring regions", "time", "over ResNet50's forward pass at 48x48"), lines)


def dataset_section(device: str, effort: Effort) -> str:
    """Measure runs over data sets: their cost, what a process gets through, memory."""
    size = ["--images", "8"] if effort.quick else []
    on = ["--device", device]
    commands = (
        ["dataset_cost.py", *on, *size, *(["--rounds", "1"] if effort.quick else [])],
        ["dataset_rates.py", *on, *size],
        ["dataset_memory.py", *size],
    )
    found = []
    for script, *options in commands:
        command = [sys.executable, str(HERE / script), *options]
        done = subprocess.run(
            command, env={**os.environ, **KEEP}, stdout=subprocess.PIPE, text=True, check=True
        )
        mark = Path(script).stem
        found.append(f"<!-- {mark}: begin -->\n{done.stdout}<!-- {mark}: end -->\n")
        _progress(done.stdout)
    return "\n".join(found)


def metric_speed_section(device: str, effort: Effort) -> str:
    """Measure what metrics cost beside Quantus, captum, torchcam and grad-cam, on the CPU."""
    if torch.device(device).type != "cpu":
        return "Metrics are measured on the CPU, where Quantus and grad-cam compute.\n"
    lines = metric_speed(min(effort.rounds, 5), quick=effort.quick)
    for line in lines:
        _progress(f"metric_speed: {', '.join(line)}")
    return table(METRIC_HEAD, lines)


def first_call_section(device: str, effort: Effort) -> str:
    """Measure what the first call adds, and what each later call does."""
    head = ("Extra forward passes of one image in the first call", "named layer")
    lines = first_call_costs(device, quick=effort.quick)
    for line in lines:
        _progress(f"first call: {', '.join(line)}")
    costs = table((*head, "default layer", 'registration="measured"'), lines)
    overhead = later_call_overhead(device, quick=effort.quick)
    _progress(f"later calls: {', '.join(overhead)}")
    names = ("forward and backward of a tiny network", "Grad-CAM, a later call", "overhead")
    return costs + "\n" + table(names, [overhead])


def methods_section(device: str, effort: Effort) -> str:
    """Measure every method on three networks, beside the peers that have it."""
    scale = methods.Scale(batch=2, rounds=1, memory=False) if effort.quick else methods.Scale()
    found = [row for name in methods.NETWORKS for row in methods.rows(name, device, scale)]
    return methods.as_table(found)


def models_section(device: str, effort: Effort) -> str:
    """Check a hundred networks beside plain autograd, on the processor; with --quick YOLO's."""
    if torch.device(device).type != "cpu":
        _progress("models: on the processor")
    rows = list(checked("ultralytics" if effort.quick else ""))
    lines = [
        (row.architecture.library, *cells_of(row), first_sentence(row.error), *row.faults[:1])
        for row in rows
    ]
    wrong = sum(bool(row.faults) for row in rows)
    head = ("library", *HEAD, "error without a name", "wrong")
    lines = [(*line, *[""] * (len(head) - len(line))) for line in lines]
    return table(head, lines) + f"\n{len(rows)} networks, {wrong} wrong.\n"


def import_section(device: str, effort: Effort) -> str:
    """Measure what importing costs."""
    torch_s, camlens_s, ratio = import_times(effort.rounds)
    line = (f"{torch_s:.2f} s", f"{camlens_s:.2f} s", f"{ratio:.3f}", "<= 1.1")
    line = (*line, "met" if ratio <= 1.1 else "MISSED")
    _progress(f"import: {', '.join(line)}")
    return table(("import torch", "import camlens", "ratio", "bar", "bar is"), [line])


SECTIONS: dict[str, Callable[[str, Effort], str]] = {
    **{s: lambda device, effort, s=s: bars_section(s, device, effort) for s in MEASURES},
    "methods": methods_section,
    "first_call": first_call_section,
    "import": import_section,
    "precision": precision_section,
    "growth": growth_section,
    "regions": regions_section,
    "dataset": dataset_section,
    "metric_speed": metric_speed_section,
    "models": models_section,
}


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, help="the file to write; of all sections results.md")
    parser.add_argument("--quick", action="store_true", help="try the code; numbers mean nothing")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    effort = QUICK if args.quick else Effort()
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"--device {args.device}: this torch sees no CUDA device")
    start = time.perf_counter()
    warning = "**A quick run on tiny images: the numbers mean nothing.**\n" if args.quick else ""
    parts = [f"# Measured\n\n{facts(args.device)}", *([warning] if warning else [])]
    parts += [SECTIONS[name](args.device, effort) for name in args.only]
    parts.append(f"It took {(time.perf_counter() - start) / 60:.1f} minutes.\n")
    text = "\n".join(parts)
    print(text)
    out = args.out
    if out is None and args.only == list(SECTIONS) and not args.quick:
        out = HERE / "results.md"  # a part of it would take the place of the whole
    if out is not None:
        out.write_text(text)
        print(f"Written to {out}")


if __name__ == "__main__":
    main()
