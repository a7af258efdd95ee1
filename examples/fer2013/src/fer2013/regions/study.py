"""What does the network look at when it says "happy", and does that survive a check?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torchvision.models import vgg19

import camlens
from camlens import regions

from ..data.faces import CLASSES, SIDE
from ..explanations.methods import in_batches
from ..files import write_csv, write_json
from . import claims
from .masks import compare_masks
from .planted_evidence import planted
from .report import FACTS, compare_methods, report
from .subject import Subject

#: What is compared.
METHODS = (camlens.GradCAM, camlens.GradCAMPlusPlus, camlens.LayerCAM, camlens.GuidedGradCAM)

#: Where evidence is planted.
PLANTED = ("brows", "eyes", "nose", "mouth", "cheeks", "forehead", "chin")

_BATCH = 64
_OTHER_INFILLS = ("mean", "inpaint")
_FILLED = 500  # faces for the other infills, which only show that the choice matters little


def measure(subject: Subject) -> pd.DataFrame:
    """Score every method at every layer, and check every face once.

    Returns:
        :func:`camlens.regions.table` of all of them; k is 0 for the predicted class and 1 for the
        runner-up.
    """
    where = subject.located.regions
    ablation = camlens.faithfulness.ablate_regions(
        subject.scores, subject.images, where, targets=subject.targets, batch=_BATCH
    )
    tables = []
    for method in METHODS:
        for layer in subject.layers:
            explainer = method(subject.model, layer)
            explanation = in_batches(explainer, subject.images, subject.targets, gradients=False)
            tables.append(
                regions.table(
                    regions.score(explanation, where),
                    labels=subject.labels,
                    predictions=subject.targets[:, 0],
                    ablation=ablation,
                    classes=CLASSES,
                )
            )
    return pd.concat(tables, ignore_index=True)


def compare_infills(subject: Subject) -> pd.DataFrame:
    """Measure the ablation with each infill on the same first faces: mean excess by region."""
    some = subject.first(_FILLED)
    rows = []
    for infill in ("blur", *_OTHER_INFILLS):
        ablation = camlens.faithfulness.ablate_regions(
            some.scores,
            some.images,
            some.located.regions,
            targets=some.targets[:, :1],
            infill=infill,
            batch=_BATCH,
        )
        for region, drop, excess in zip(
            ablation.names, ablation.drop[:, 0].T, ablation.excess[:, 0].T, strict=True
        ):
            means = {"drop": drop.nanmean().item(), "excess": excess.nanmean().item()}
            rows.append({"infill": infill, "region": region, "faces": len(some.images), **means})
    return pd.DataFrame(rows)


def facial_action(subject: Subject) -> pd.DataFrame:
    """Set heatmaps beside the regions of each emotion's action units, as published studies do.

    Returns:
        A row for each explained emotion: mean cosine of Grad-CAM's heatmap and the mask of the
        emotion's own regions, the same for the masks of the other emotions, and the mean iou
        (IoU with the hottest pixels of the same area).
    """
    explainer = camlens.GradCAM(subject.model, subject.layers[0])
    explanation = in_batches(explainer, subject.images, subject.targets, gradients=False)
    where = subject.located.regions
    names = tuple(claims.ACTION_UNITS)
    masks = [where.pick(*parts).masks.sum(dim=1) for parts in claims.ACTION_UNITS.values()]
    units = regions.Regions(names, torch.stack(masks, dim=1).clamp(0, 1))
    iou = regions.score(explanation, units).iou[:, 0]
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
                "iou": iou[said, index].nanmean().item(),
                "iou, other emotions' masks": iou[said][:, others].nanmean().item(),
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


def write_facts(subject: Subject, network: str, out: Path) -> None:
    """Write which network and layers a folder's tables are of."""
    facts = {"network": network, "layers": subject.layers, "faces": len(subject.images)}
    write_json({**facts, "precision of the check": str(subject.precision)}, out / FACTS)


def study(
    subject: Subject,
    out: Path,
    *,
    mesh: camlens.faces.MediaPipe | None,
    yunet: camlens.faces.YuNet,
    network: str = "base",
) -> Iterator[str]:
    """Carry out the whole study, and say what was found, line by line."""
    out.mkdir(parents=True, exist_ok=True)
    write_facts(subject, network, out)
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
    for name, frame in (("infills", compare_infills(subject)), ("units", facial_action(subject))):
        write_csv(frame, out / f"{name}.csv")
        yield f"\n{name}:"
        yield frame.round(3).to_string(index=False)
    yield f"\nwrote {out}"
