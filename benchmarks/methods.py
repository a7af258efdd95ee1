"""A row for each method: operations, time and memory over a bare forward pass, beside the peers.

``python benchmarks/methods.py`` measures the three networks in turn, ``--network vgg19`` one of
them, ``--method RISE`` some rows. ``make bench ARGS="--only methods"`` writes all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import SLOW, flops, ratios
from method_adapters import METHODS, Method
from networks import Case, Loaded, load
from peers import TOOLS, bare_forward
from table import facts, table
from torch.nn.attention import SDPBackend, sdpa_kernel

NETWORKS = ("resnet50", "vgg19", "vit_b_16")
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the images are and how often things are repeated."""

    batch: int = 4
    size: int = 224
    rounds: int = 3
    memory: bool = True
    targets: tuple[int | None, ...] = (None, 7)

    def case(self, method: Method, network: str, targets: int | None) -> Case:
        """Return a method's workload."""
        small = method.small
        return Case(
            network,
            1 if small else self.batch,
            targets=targets,
            method=method.name,
            size=64 if small and self.size > 64 else self.size,
        )


def rows(network: str, device: str, scale: Scale, only: str = "") -> list[tuple[str, ...]]:
    """Measure every method that a network can be explained by."""
    kind = "transformer" if network.startswith("vit") else "cnn"
    found = []
    for method in METHODS:
        if method.models not in ("both", kind) or only.lower() not in method.name.lower():
            continue
        for targets in scale.targets:
            cells = _costs(method, network, targets, device, scale)
            found.append((network, method.name, str(targets or 1), *cells))
            print(", ".join(found[-1]), file=sys.stderr, flush=True)
    return found


def _costs(
    method: Method, network: str, targets: int | None, device: str, scale: Scale
) -> tuple[str, ...]:
    """Return operations, time and memory, each by tool."""
    case = scale.case(method, network, targets)
    loaded = load(case, device)
    calls = {tool: adapter(loaded) for tool, adapter in method.tools.items()}
    if targets and method.name != "GradCAM":
        # The other peers' K targets are K of their calls, which the row of Grad-CAM shows.
        several = ("camlens",) if method.small else ("camlens", "torchcam")
        calls = {tool: call for tool, call in calls.items() if tool in several}
    calls["camlens"]()  # the first call measures the model
    with _unfused():
        base = flops(bare_forward(loaded)) * method.forwards
        counted = {tool: flops(call) / base for tool, call in calls.items()}
    timed = {}
    if scale.rounds:
        # A peer's repeated passes take minutes: its first call is enough to tell 21 from 1.
        slow = SLOW * method.forwards
        taken = ratios(bare_forward(loaded), calls, device, scale.rounds, slow=slow, slow_rounds=0)
        timed = {tool: ratio / method.forwards for tool, ratio in taken.items()}
    del loaded, calls
    gc.collect()
    held = {}
    if scale.memory and targets is None:
        held = {tool: _peak(case, tool, device) for tool in ("forward", *method.tools)}
    return (
        _cells(counted, "{:.3f}"),
        _cells(timed, "{:.2f}"),
        _cells({tool: held[tool] - held["forward"] for tool in method.tools if held}, "{:.0f}"),
    )


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Count attention by its definition: torch has no formula for fused kernels on a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _cells(costs: dict[str, float], form: str) -> str:
    """Return camlens' cost, and those of the peers in brackets."""
    if not costs:
        return "-"
    peers = [f"{tool} {form.format(costs[tool])}" for tool in TOOLS[1:] if tool in costs]
    own = form.format(costs["camlens"])
    return f"{own} ({', '.join(peers)})" if peers else own


def _peak(case: Case, tool: str, device: str) -> float:
    """Return the peak of a tool's second call in a process of its own, in MiB."""
    command = [sys.executable, str(Path(__file__).resolve()), "--device", device, "--peak", tool]
    command += ["--case", json.dumps(dataclasses.asdict(case))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def peak_of_this_process(case: Case, tool: str, device: str) -> float:
    """Run a tool twice and return the peak of the second call in MiB."""
    loaded: Loaded = load(case, device)
    method = next(method for method in METHODS if method.name == case.method)
    call = bare_forward(loaded) if tool == "forward" else method.tools[tool](loaded)
    call()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) / MIB
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (man 5 proc); Linux only
    call()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def as_table(found: list[tuple[str, ...]]) -> str:
    """Lay out the rows."""
    head = ("network", "method", "K", "operations", "time", "memory, MiB more")
    return table(head, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--method", default="", help="rows whose name holds this")
    parser.add_argument("--rounds", type=int, default=3, help="0: no times")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--one-target", action="store_true", help="the predicted class alone")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--quick", action="store_true", help="try the code; numbers mean nothing")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(peak_of_this_process(Case(**json.loads(args.case)), args.peak, args.device))
        return
    scale = Scale(batch=args.batch, rounds=args.rounds, memory=not args.no_memory)
    if args.one_target:
        scale = dataclasses.replace(scale, targets=(None,))
    if args.quick:
        scale = Scale(batch=2, size=224, rounds=1, memory=False)
    measured = functools.partial(rows, device=args.device, scale=scale, only=args.method)
    print(facts(args.device))
    print(as_table([row for network in args.network for row in measured(network)]))


if __name__ == "__main__":
    main()
