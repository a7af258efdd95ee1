"""What does the network look at when it says "happy", and does that survive a check?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models import vgg19

import camlens
from camlens import regions

from . import claims
from .data import CLASSES, SIDE, Faces, to_batch
from .files import write_csv
from .masks import Located, compare_masks, locate
from .planted import planted
from .region_report import compare_methods, report

#: What is compared.
METHODS = (camlens.GradCAM, camlens.GradCAMPlusPlus, camlens.LayerCAM, camlens.GuidedGradCAM)

#: The last two blocks, both on a 12x12 grid: a cell is 4 pixels of 48, and an eye is 7 by 4.
LAYERS = ("blocks.block4", "blocks.block3")

#: Where evidence is planted.
PLANTED = ("brows", "eyes", "nose", "mouth", "cheeks", "forehead", "chin")

_BATCH = 64
_OTHER_FILLS = ("mean", "inpaint")
_FILLED = 500  # faces for the other fills, which only show that the choice matters little


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is explained: a network, faces with their labels and regions, and what it says of them.

    Attributes:
        model: in evaluation mode.
        images: (N, 1, 48, 48) in [0, 1].
        labels: (N,) class ids.
        targets: (N, 2), the predicted class and the runner-up.
        located: the faces' regions.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor
    located: Located

    def first(self, count: int) -> Subject:
        """Return the study of the first faces only."""
        masks = self.located.regions
        fewer = regions.Regions(masks.names, masks.masks[:count])
        located = Located(fewer, self.located.found[:count])
        return Subject(
            self.model, self.images[:count], self.labels[:count], self.targets[:count], located
        )


def prepare(model: nn.Module, faces: Faces, yunet: regions.YuNet, device: str = "cpu") -> Subject:
    """Predict the faces and find their regions."""
    images = to_batch(faces.images).to(device)
    # Channels last: the same numbers in two thirds of the time on the processors seen.
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(_BATCH)])
    labels = torch.from_numpy(faces.labels).to(device)
    return Subject(model, images, labels, logits.topk(2).indices, locate(images, yunet))


def measure(
    subject: Subject, *, fill: str = "blur", layers: tuple[str, ...] = LAYERS
) -> pd.DataFrame:
    """Score every method at every layer, and check every face once.

    Returns:
        :func:`camlens.regions.table` of all of them; k is 0 for the predicted class and 1 for the
        runner-up.
    """
    where = subject.located.regions
    effect = regions.effect(
        subject.model, subject.images, where, targets=subject.targets, fill=fill, batch=_BATCH
    )
    tables = []
    for method in METHODS:
        for layer in layers:
            explanation = _explained(method(subject.model, layer), subject)
            tables.append(
                regions.table(
                    regions.score(explanation, where),
                    labels=subject.labels,
                    predictions=subject.targets[:, 0],
                    effect=effect,
                    classes=CLASSES,
                )
            )
    return pd.concat(tables, ignore_index=True)


def _explained(
    explainer: Callable[..., camlens.Explanation], subject: Subject
) -> camlens.Explanation:
    """Explain all faces in batches, as one explanation without the gradients."""
    parts = [
        explainer(images, targets=targets)
        for images, targets in zip(
            subject.images.split(_BATCH), subject.targets.split(_BATCH), strict=True
        )
    ]
    return dataclasses.replace(
        parts[0],
        raw=torch.cat([part.raw for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        targets=subject.targets,
        gradients=None,
    )


def compare_fills(subject: Subject) -> pd.DataFrame:
    """Measure the effect with each fill on the same first faces: mean excess by region."""
    some = subject.first(_FILLED)
    rows = []
    for fill in ("blur", *_OTHER_FILLS):
        effect = regions.effect(
            some.model,
            some.images,
            some.located.regions,
            targets=some.targets[:, :1],
            fill=fill,
            batch=_BATCH,
        )
        for region, drop, excess in zip(
            effect.names, effect.drop[:, 0].T, effect.excess[:, 0].T, strict=True
        ):
            means = {"drop": drop.nanmean().item(), "excess": excess.nanmean().item()}
            rows.append({"fill": fill, "region": region, "faces": len(some.images), **means})
    return pd.DataFrame(rows)


def facial_action(subject: Subject, layer: str = LAYERS[0]) -> pd.DataFrame:
    """Set heatmaps beside the regions of each emotion's action units, as published studies do.

    Returns:
        A row for each explained emotion: mean cosine of Grad-CAM's heatmap and the mask of the
        emotion's own regions, the same for the masks of the other emotions, and the mean overlap
        (IoU with the hottest pixels of the same area).
    """
    explanation = _explained(camlens.GradCAM(subject.model, layer), subject)
    where = subject.located.regions
    names = tuple(claims.ACTION_UNITS)
    masks = [where.pick(*parts).masks.sum(dim=1) for parts in claims.ACTION_UNITS.values()]
    units = regions.Regions(names, torch.stack(masks, dim=1).clamp(0, 1))
    overlap = regions.score(explanation, units).overlap[:, 0]
    heat = explanation.heatmaps[:, :1].flatten(2)
    cosine = torch.cosine_similarity(heat, units.masks.flatten(2), dim=-1)
    cosine = cosine.where(explanation.evidence[:, :1], torch.nan)
    rows = []
    for index, name in enumerate(names):
        said = subject.targets[:, 0] == CLASSES.index(name)
        others = [i for i in range(len(names)) if i != index]
        rows.append(
            {
                "emotion": name,
                "faces": int(said.sum()),
                "cosine": cosine[said, index].nanmean().item(),
                "cosine, other emotions' masks": cosine[said][:, others].nanmean().item(),
                "overlap": overlap[said, index].nanmean().item(),
                "overlap, other emotions' masks": overlap[said][:, others].nanmean().item(),
            }
        )
    return pd.DataFrame(rows)


def at_the_decks_layer(subject: Subject) -> pd.DataFrame:
    """Say which regions VGG19's last convolution can tell apart at the deck's 48x48 pixels.

    The grid is a matter of the architecture, so random weights will do.

    Returns:
        A row for each region: its area in pixels, a cell's, for what part of the faces it is
        resolvable, and the deck's claims that rest on it; the attribute ``grid`` is the layer's.
    """
    some = subject.first(64)
    explainer = camlens.GradCAM(vgg19(weights=None).to(some.images.device).eval(), "features.34")
    scores = regions.score(explainer(some.images.expand(-1, 3, -1, -1)), some.located.regions)
    cell = SIDE * SIDE / (scores.grid[0] * scores.grid[1])
    frame = pd.DataFrame(
        {
            "region": scores.names,
            "mean area in pixels": (scores.area.mean(dim=0) * SIDE * SIDE).tolist(),
            "a cell's area": cell,
            "resolvable in": scores.resolvable[:, 0].float().mean(dim=0).tolist(),
            "claimed for": [
                ", ".join(emotion for emotion, parts in claims.DECK.items() if name in parts)
                for name in scores.names
            ],
        }
    )
    frame.attrs = {"grid": scores.grid}
    return frame


def study(
    subject: Subject, out: Path, *, mesh: regions.MediaPipe | None, yunet: regions.YuNet
) -> Iterator[str]:
    """Carry out the whole study, and say what was found, line by line."""
    out.mkdir(parents=True, exist_ok=True)
    found = subject.located.found.float().mean()
    yield f"{len(subject.images)} faces, {found:.1%} followed by YuNet, the rest by the template"
    if mesh is not None:
        compared = compare_masks(subject.images[:1000], yunet, mesh)
        write_csv(compared, out / "masks.csv")
        yield f"\nmasks against MediaPipe's mesh, mean IoU over {compared.attrs['faces']} faces:"
        yield compared.round(3).to_string(index=False)
    deck = at_the_decks_layer(subject)
    write_csv(deck, out / "deck_layer.csv")
    yield f"\nVGG19's last convolution at 48x48 has a grid of {deck.attrs['grid']}:"
    yield deck.round(2).to_string(index=False)
    unclear = set(deck["region"][deck["resolvable in"] < 0.5])
    for emotion, parts in claims.DECK.items():
        lost = [part for part in parts if part in unclear]
        verdict = f"{claims.NOT_RESOLVABLE} ({', '.join(lost)})" if lost else "resolvable"
        yield f"the deck's claim for {emotion} ({', '.join(parts)}): {verdict}"
    outcomes = [dataclasses.asdict(planted(subject.images[:2000].cpu(), r)) for r in PLANTED]
    write_csv(pd.DataFrame(outcomes), out / "planted.csv")
    yield "\nplanted evidence:"
    yield pd.DataFrame(outcomes).round(3).to_string(index=False)
    table = measure(subject)
    yield ""
    yield from report(table, out)
    write_csv(compare_methods(table), out / "methods.csv")
    for name, frame in (("fills", compare_fills(subject)), ("units", facial_action(subject))):
        write_csv(frame, out / f"{name}.csv")
        yield f"\n{name}:"
        yield frame.round(3).to_string(index=False)
    yield f"\nwrote {out}"
