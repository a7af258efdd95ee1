"""What metrics cost beside Quantus, captum, torchcam and grad-cam, and beside bare forward passes.

A ResNet-18 with random weights, 8 images of 64 pixels, smooth random maps without ties. All tools
change the same number of images wherever they can be told to; who cannot is said in the table.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import captum.attr
import captum.metrics
import numpy as np
import quantus
import torch
import torchcam.metrics
from measure import ratios
from networks import build, random_images
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from test_metric_parity import GivenMaps, saliency
from torch import Tensor, nn
from torch.nn.functional import interpolate

import camlens
from camlens import faithfulness

TOOLS = ("camlens", "torchcam", "captum", "grad-cam", "Quantus")
HEAD = (
    "metric",
    "bare passes of an image",
    *(f"{tool}, over them" for tool in TOOLS),
    "Quantus over camlens",
    "bars: 5, 1.1",
)
_BATCH = 32  # of changed images, camlens' default
_SHARES = (20, 50, 80)


@dataclasses.dataclass(frozen=True)
class Workload:
    """What all metrics are given."""

    model: nn.Module
    images: Tensor
    maps: Tensor
    targets: Tensor
    masks: Tensor

    def bare(self, passes: int) -> Callable[[], Any]:
        """Return what runs each image so many times, in batches."""
        batch = self.images.repeat(_BATCH // len(self.images), 1, 1, 1)
        rows = passes * len(self.images)
        parts = [batch[: min(_BATCH, rows - first)] for first in range(0, rows, _BATCH)]

        def run() -> None:
            with torch.no_grad():
                for part in parts:
                    self.model(part)

        return run

    def camlens(self, metric: Callable[..., Any], *where: Tensor, **options: Any) -> Any:
        """Return a call of a metric of camlens, without floors."""
        options = {"targets": self.targets, "floors": (), "progress": False, **options}
        return lambda: metric(self.model, self.images, self.maps, *where, **options)

    def quantus(
        self,
        metric: Callable[..., Any],
        *,
        places: bool = False,
        explain: bool = False,
        **given: Any,
    ) -> Callable[[], Any]:
        """Return a call of a metric of Quantus."""
        call = {
            "model": self.model,
            "x_batch": self.images.numpy(),
            "y_batch": self.targets.numpy(),
            "a_batch": None if explain else self.maps.numpy(),
            "s_batch": self.masks.numpy() if places else None,
            "explain_func": saliency if explain else None,
            "channel_first": True,
            "device": "cpu",
        }
        return lambda: metric(**given)(**call)


@dataclasses.dataclass(frozen=True)
class Row:
    """A metric, how many passes of each image it needs, and who computes it.

    Attributes:
        base: what the times are divided by; None: bare forward passes.
        extra: calls whose time is told beside, such as the solver's.
    """

    name: str
    passes: int
    calls: Mapping[str, Callable[[], Any]]
    base: Callable[[], Any] | None = None
    extra: Mapping[str, Callable[[], Any]] = dataclasses.field(default_factory=dict)
    runs_model: bool = True


def workload(*, quick: bool, channels: int = 3) -> Workload:
    count, size = (2, 32) if quick else (8, 64)
    model, images = build("resnet18"), random_images(count, size)[:, :channels].contiguous()
    if channels == 1:
        model = copy.deepcopy(model)
        model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False).eval()
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(count, 1, 8, 8, generator=generator)
    maps = interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    maps = (maps - maps.amin() + 1e-3) / (maps.amax() - maps.amin() + 1e-3)
    masks = torch.zeros(count, 1, size, size, dtype=torch.bool)
    masks[:, :, size // 4 : size // 2, size // 4 : size // 2] = True
    return Workload(model, images, maps, torch.arange(count), masks)


def rows(load: Workload) -> list[Row]:
    """Return what is measured of images of three channels."""
    model, images, maps = load.model, load.images, load.maps
    pixels, targets = maps[0].numel(), load.targets.tolist()
    given = GivenMaps(model, maps[:, 0])
    cams, outputs = maps[:, 0].numpy(), [ClassifierOutputTarget(target) for target in targets]
    steps, subsets, samples = 12, 32, 5
    step, masks = -(-pixels // steps), load.masks

    def torchcams(metric: Any) -> Callable[[], Any]:
        return lambda: metric.update(images, targets)

    def softmax(logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def both() -> None:
        options = {"step": step, "baseline": 0.0}
        for metric in (faithfulness.deletion, faithfulness.insertion):
            load.camlens(metric, **options)()

    def perturb(repeated: Tensor) -> tuple[Tensor, Tensor]:
        kept = (torch.rand(len(repeated), 1, *repeated.shape[2:]) > 0.2).float()
        return (1 - kept).expand_as(repeated), repeated * kept

    def several_targets() -> None:
        for target in range(4):
            call = dataclasses.replace(load, targets=torch.full_like(load.targets, target))
            call.quantus(quantus.FaithfulnessCorrelation, **subset)()

    def with_floors() -> None:
        floors = [make(images, torch.arange(len(images))) for make in faithfulness.FLOORS.values()]
        for floor in (maps, *floors):
            call = dataclasses.replace(load, maps=floor)
            call.quantus(quantus.FaithfulnessCorrelation, **subset)()

    def of_captum(images: Any, target: Tensor) -> Any:
        return captum.attr.Saliency(model).attribute(images, target)

    explainer = camlens.Saliency(model)

    def explained(times: int) -> Callable[[], Any]:
        return lambda: [explainer(images, targets=load.targets) for _ in range(times)]

    subset = {"nr_runs": subsets, "subset_size": pixels // 5}
    four = {
        "targets": torch.arange(4).expand(len(images), 4),
        "floors": (),
        "progress": False,
        "subsets": subsets,
    }
    layers = sum(hasattr(module, "reset_parameters") for module in model.modules())
    found = [
        Row(
            f"deletion, {steps} steps",
            steps + 1,
            {
                "camlens": load.camlens(faithfulness.deletion, step=step),
                "Quantus": load.quantus(
                    quantus.PixelFlipping, features_in_step=3 * pixels // steps
                ),
            },
        ),
        Row(
            f"deletion, {pixels // 16} pixels, or Quantus' values, at a time",
            17,
            {
                "camlens": load.camlens(faithfulness.deletion, step=pixels // 16),
                # A pixel is three values to it, and three times 256 it refuses: no part of 4096.
                "Quantus": load.quantus(quantus.PixelFlipping, features_in_step=pixels // 16),
            },
        ),
        Row(
            f"deletion and insertion, {steps} steps",
            2 * steps + 2,
            {
                "camlens": both,
                "torchcam": torchcams(
                    torchcam.metrics.DeletionInsertionMetric(given, softmax, steps=steps)
                ),
            },
        ),
        Row(
            "average drop",
            2,
            {
                "camlens": load.camlens(faithfulness.average_drop),
                "torchcam": torchcams(torchcam.metrics.ClassificationMetric(given, softmax)),
                "grad-cam": lambda: DropInConfidence()(images, cams, outputs, model),
            },
        ),
        Row(
            f"mu-fidelity, {subsets} subsets",
            subsets + 1,
            {
                "camlens": load.camlens(faithfulness.mu_fidelity, subsets=subsets),
                "Quantus": load.quantus(quantus.FaithfulnessCorrelation, **subset),
            },
        ),
        Row(
            f"mu-fidelity, {subsets} subsets, 4 targets",
            subsets + 1,
            {
                "camlens": lambda: faithfulness.mu_fidelity(
                    model, images, maps.expand(-1, 4, -1, -1), **four
                ),
                "Quantus": several_targets,
            },
        ),
        Row(
            f"mu-fidelity, {subsets} subsets, with the floors",
            subsets + 1,
            {
                "camlens": load.camlens(
                    faithfulness.mu_fidelity, subsets=subsets, floors=tuple(faithfulness.FLOORS)
                ),
                "Quantus": with_floors,
            },
        ),
        Row(
            f"infidelity, {subsets} subsets",
            subsets + 1,
            {
                "camlens": load.camlens(
                    faithfulness.infidelity, subsets=subsets, activation="none"
                ),
                "captum": lambda: captum.metrics.infidelity(
                    model,
                    perturb,
                    images,
                    maps.expand_as(images),
                    target=load.targets,
                    n_perturb_samples=subsets,
                    max_examples_per_batch=_BATCH,
                ),
                "Quantus": load.quantus(
                    quantus.Infidelity,
                    perturb_patch_sizes=[images.shape[-1] // 4],
                    n_perturb_samples=subsets // 16,
                ),
            },
        ),
        Row(
            f"sensitivity of Saliency, {samples} draws (over bare calls of it)",
            samples + 1,
            {
                "camlens": lambda: faithfulness.sensitivity(
                    model, images, explainer, samples=samples, targets=load.targets, floors=()
                ),
                "captum": lambda: captum.metrics.sensitivity_max(
                    of_captum, images, n_perturb_samples=samples, target=load.targets
                ),
                "Quantus": load.quantus(quantus.MaxSensitivity, explain=True, nr_samples=samples),
            },
            base=explained(samples + 1),
        ),
        Row(
            f"randomization of Saliency, {layers} layers (over bare calls of it)",
            layers + 1,
            {
                "camlens": lambda: faithfulness.randomization(
                    model, images, explainer, steps=None, targets=load.targets, floors=()
                ),
                "Quantus": load.quantus(quantus.MPRT, explain=True),
            },
            base=explained(layers + 1),
        ),
        Row(
            f"ROAD, {len(_SHARES)} shares, both orders",
            2 * len(_SHARES) + 1,
            {
                "camlens": load.camlens(faithfulness.road, percentages=_SHARES),
                "grad-cam": lambda: ROADCombined(list(_SHARES))(images, cams, outputs, model),
            },
            extra={"the solver alone": solver(load, both=True)},
        ),
    ]
    still = {
        "pointing game": (
            load.camlens(faithfulness.pointing_game, masks, tolerance=0),
            load.quantus(quantus.PointingGame, places=True),
        ),
        "energy pointing game": (
            load.camlens(faithfulness.energy_pointing_game, masks),
            load.quantus(quantus.RelevanceMassAccuracy, places=True),
        ),
        "sparseness": (load.camlens(faithfulness.sparseness), load.quantus(quantus.Sparseness)),
        "complexity": (load.camlens(faithfulness.complexity), load.quantus(quantus.Complexity)),
    }
    for name, (ours, theirs) in still.items():
        calls = {"camlens": ours, "Quantus": theirs}
        found.append(Row(f"{name} (over one pass)", 1, calls, runs_model=False))
    return found


def grey_rows(load: Workload) -> list[Row]:
    """Return what is measured of images of one channel: Quantus' ROAD takes no others."""
    calls = {
        "camlens": load.camlens(faithfulness.road, order="most", percentages=_SHARES),
        "Quantus": load.quantus(quantus.ROAD, percentages=list(_SHARES)),
    }
    name = f"ROAD of one channel, {len(_SHARES)} shares"
    extra = {"the solver alone": solver(load, both=False)}
    return [Row(name, len(_SHARES) + 1, calls, extra=extra)]


def solver(load: Workload, *, both: bool) -> Callable[[], Any]:
    """Return the imputations of a call of ROAD, in its batches."""
    images, maps = load.images, load.maps[:, 0]
    places = maps.flatten(1).argsort(dim=1).argsort(dim=1).view_as(maps) / maps[0].numel()
    shares = [share / 100 for share in _SHARES]
    orders = [[places >= 1 - share for share in shares], [places < share for share in shares]]

    def run() -> None:
        for removed in orders[: 1 + both]:
            stacked = torch.stack(removed, dim=1).flatten(0, 1)
            repeated = images.repeat_interleave(len(shares), dim=0)
            for part, holes in zip(repeated.split(_BATCH), stacked.split(_BATCH), strict=True):
                faithfulness.impute(part, holes)

    return run


def line(row: Row, load: Workload, rounds: int) -> tuple[str, ...]:
    """Measure a row; the bars are those of the issue."""
    base = row.base or load.bare(row.passes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers'
        np.random.seed(0)  # noqa: NPY002
        found = ratios(base, {**row.calls, **row.extra}, "cpu", rounds)
    cells = [f"{found[tool]:.2f}" if tool in found else "-" for tool in TOOLS]
    bars = []
    if "Quantus" in found:
        faster = found["Quantus"] / found["camlens"]
        bars.append("met" if faster >= 5 else "MISSED")
    else:
        faster = None
        bars.append("-")
    if row.runs_model:
        own = found["camlens"] - found.get("the solver alone", 0.0)
        bars.append("met" if own <= 1.1 else "MISSED")
    else:
        bars.append("-")
    told = "".join(f"; {name} {found[name]:.2f}" for name in row.extra)
    speed = "-" if faster is None else f"{faster:.2f}"
    return (row.name + told, str(row.passes), *cells, speed, ", ".join(bars))


def metric_speed(rounds: int, *, quick: bool) -> list[tuple[str, ...]]:
    """Return the lines of the table, in the order of :data:`HEAD`."""
    lines = []
    for channels, of in ((3, rows), (1, grey_rows)):
        load = workload(quick=quick, channels=channels)
        lines += [line(row, load, rounds) for row in of(load)]
    return lines
