"""The issue's table: one frozen row for each bar, and what comes of measuring it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from networks import Case

#: Ratios closer than this are level: the spread of repeated runs on an idle machine.
LEVEL = 0.02


@dataclasses.dataclass(frozen=True)
class Row:
    """A workload, how it is measured, and the most it may cost.

    Attributes:
        section: flops, time, memory or overlay: what the cost is.
        case: the workload.
        bar: the most that camlens may cost; None where the row is shown for information.
        ahead_of_captum: how many times as fast as captum camlens has to be as well.
        unit: of the cost: a ratio to the bare forward pass, a share of it, or MiB.
    """

    section: str
    case: Case
    bar: float | None
    ahead_of_captum: float | None = None
    unit: str = "ratio"

    @property
    def bar_text(self) -> str:
        if self.bar is None:
            return "-"
        ahead = f", {self.ahead_of_captum:g}x captum" if self.ahead_of_captum else ""
        return f"<= {self.text(self.bar)}{ahead}"

    def text(self, cost: float | None) -> str:
        """Write a cost in the row's unit."""
        if cost is None:
            return "-"
        if self.unit == "ratio":
            return f"{cost:.4f}" if self.section == "flops" else f"{cost:.2f}"
        return f"{cost:.1%}" if self.unit == "share" else f"{cost:.0f} MiB"

    def met(self, costs: Mapping[str, float]) -> bool | None:
        """Say whether the bar holds; None without a bar."""
        if self.bar is None:
            return None
        ahead = self.ahead_of_captum or 0
        return costs["camlens"] <= self.bar and costs.get("captum", ahead) >= ahead * (
            costs["camlens"] if self.ahead_of_captum else 0
        )

    def standing(self, costs: Mapping[str, float]) -> str:
        """Compare camlens with the best of the peers."""
        peers = {tool: cost for tool, cost in costs.items() if tool != "camlens"}
        if not peers:
            return "alone"
        best = min(peers, key=peers.__getitem__)
        # A share of extra cost is compared as the whole cost, forward pass included.
        offset = 1 if self.section == "memory" and self.unit == "share" else 0
        relation = (costs["camlens"] + offset) / (peers[best] + offset)
        if abs(relation - 1) <= LEVEL:
            return f"level with {best}"
        return f"ahead of {best}" if relation < 1 else f"behind {best}"


CAM, ALL, GUIDED = "Grad-CAM", "Grad-CAM, all classes", "Guided backprop"

ROWS = (
    Row("flops", Case("vgg19", 1), 1.01),
    Row("flops", Case("resnet50", 1), 1.005),
    Row("flops", Case("vgg19", 1, targets=7), 1.05),
    Row("flops", Case("resnet50", 1, targets=7), 1.01),
    Row("flops", Case("vgg19", 1, method=GUIDED), 2.01),
    Row("flops", Case("resnet50", 1, method=GUIDED), 2.01),
    Row("flops", Case("resnet50", 1, targets=1, method=GUIDED), None),
    Row("time", Case("resnet50", 8), 1.1),
    Row("time", Case("vgg19", 4), 1.15),
    Row("time", Case("resnet50", 8, targets=7), 1.15),
    Row("time", Case("vgg19", 4, targets=7), 1.25),
    Row("time", Case("resnet50", 8, method=GUIDED), 2.7, ahead_of_captum=1.3),
    Row("time", Case("vgg19", 4, method=GUIDED), 2.4, ahead_of_captum=1.3),
    Row("time", Case("resnet50", 8, targets=1, method=GUIDED), None),
    Row("time", Case("vgg19", 4, targets=1, method=GUIDED), None),
    Row("memory", Case("vgg19", 16), 0.10, unit="share"),
    Row("memory", Case("resnet50", 8, method=ALL), 1024, unit="MiB"),
    Row("overlay", Case("resnet50", 8, method="Overlays"), 0.05, unit="share"),
    Row("overlay", Case("vgg19", 4, method="Overlays"), 0.05, unit="share"),
)
