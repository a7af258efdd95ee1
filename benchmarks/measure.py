"""How floating-point operations and time are measured, as ratios to the bare forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from networks import Case, load
from peers import ADAPTERS, bare_forward
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

#: Calls that take longer than this many forward passes are repeated this often only.
SLOW, SLOW_ROUNDS = 8.0, 3


class FlopCounter(TorchDispatchMode):
    """Adds up torch's own formulas (``torch.utils.flop_counter``) of every operation that runs.

    The mode sits below autograd and vmap, so a batched backward pass is counted by the large
    convolutions and matrix products it is carried out as (test_measure.py). Torch's own
    ``FlopCounterMode`` also tracks modules, and that raises inside ``torch.autograd.grad`` by a
    module's input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:  # a composite operation is counted by its parts
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def flops(call: Callable[[], Any]) -> int:
    """Count a call's floating-point operations."""
    with FlopCounter() as counter:
        call()
    return counter.total


def flop_ratios(case: Case, device: str) -> dict[str, float]:
    """Return each tool's operations over those of a forward pass, from its second call on.

    What camlens' first call measures of a model is counted in ``first_call.py``.
    """
    loaded = load(case, device)
    base = flops(bare_forward(loaded))
    ratios = {}
    for tool, adapter in ADAPTERS[case.method].items():
        call = adapter(loaded)
        call()
        ratios[tool] = flops(call) / base
    return ratios


def time_ratios(case: Case, device: str, rounds: int) -> dict[str, float]:
    """Return each tool's time over that of a forward pass."""
    loaded = load(case, device)
    calls = {tool: adapter(loaded) for tool, adapter in ADAPTERS[case.method].items()}
    return ratios(bare_forward(loaded), calls, device, rounds)


def ratios(
    base: Callable[[], Any],
    calls: Mapping[str, Callable[[], Any]],
    device: str,
    rounds: int,
    *,
    slow: float = SLOW,
    slow_rounds: int = SLOW_ROUNDS,
) -> dict[str, float]:
    """Return the median over the rounds of time over the base's time in the same round.

    A round runs everything once, so that a processor that slows down slows all of it. The order
    turns by one each round, so that nobody always runs behind the same neighbour's leftovers in
    the caches. Calls that take longer than ``slow`` forward passes are repeated ``slow_rounds``
    times only; if 0, the first call counts, which for others warms up.
    """
    everything = {"": base, **calls}
    warm = {name: seconds(call, device) for name, call in everything.items()}
    rare = {name for name, took in warm.items() if took > slow * warm[""]}
    found: dict[str, list[float]] = {name: [] for name in calls}
    if not slow_rounds:
        found |= {name: [warm[name] / warm[""]] for name in rare}
    names = list(everything)
    for i in range(rounds):
        names = names[1:] + names[:1]
        running = [n for n in names if n not in rare or i < slow_rounds]
        took = {name: seconds(everything[name], device) for name in running}
        for name in running:
            if name:
                found[name].append(took[name] / took[""])
    return {name: statistics.median(values) for name, values in found.items()}


def seconds(call: Callable[[], Any], device: str) -> float:
    """Time one call; its result is freed after the clock has stopped."""
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    took = time.perf_counter() - start
    del result
    return took


def synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
