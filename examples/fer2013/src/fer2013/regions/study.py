"""The command ``regions``: where heatmaps find evidence, and whether the score needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torchvision.models import vgg19

import camlens
from camlens import regions

from ..data.faces import CLASSES, SIDE
from ..files import write_json
from . import claims
from .masks import compare_masks
from .planted_evidence import planted
from .report import FACTS, report, write_table
from .subject import Subject

#: The compared methods.
METHODS = (camlens.GradCAM, camlens.GradCAMPlusPlus, camlens.LayerCAM, camlens.GuidedGradCAM)

#: The regions with planted evidence.
PLANTED = ("brows", "eyes", "nose", "mouth", "cheeks", "forehead", "chin")

_FILLED = 500  # images for comparing infills


def study(
    subject: Subject,
    out: Path,
    *,
    mesh: camlens.faces.MediaPipe | None,
    yunet: camlens.faces.YuNet,
    network: str,
) -> Iterator[str]:
    """Run the study, write its tables and plots, and yield the results as lines of text.

    Args:
        subject: the network and the images.
        out: output folder.
        mesh: the detector to compare masks with, if any.
        yunet: the detector that placed the regions.
        network: the network's name.
    """
    write_facts(subject, network, out)
    found = subject.found.float().mean()
    yield f"{len(subject.images)} faces; YuNet located {found:.1%}, the others have the template"
    if mesh is not None:
        compared = compare_masks(subject.images[:1000], yunet, mesh)
        title = f"masks, mean IoU with MediaPipe's mesh over {compared.attrs['faces']} faces"
        yield from write_table(title, compared, out / "masks.csv")
    deck = at_the_decks_layer(subject)
    title = f"VGG19's last convolution at 48x48 pixels, with a grid of {deck.attrs['grid']}"
    yield from write_table(title, deck, out / "deck_layer.csv")
    unclear = set(deck["region"][deck["resolvable in"] < 0.5])
    for emotion, parts in claims.DECK.items():
        lost = [part for part in parts if part in unclear]
        verdict = f"{claims.NOT_RESOLVABLE} ({', '.join(lost)})" if lost else "resolvable"
        yield f"the deck's claim for {emotion} ({', '.join(parts)}): {verdict}"
    outcomes = pd.DataFrame([planted(subject.images[:2000].cpu(), r) for r in PLANTED])
    yield from write_table("planted evidence", outcomes, out / "planted.csv")
    yield from report(measure(subject), out)
    yield from write_table("infills", compare_infills(subject), out / "infills.csv")
    yield from write_table("action units", facial_action(subject), out / "units.csv")
    yield f"\nwrote {out}"


def write_facts(subject: Subject, network: str, out: Path) -> None:
    """Write the network's name, the layers and the number of images."""
    facts = {"network": network, "layers": subject.layers, "faces": len(subject.images)}
    write_json({**facts, "precision of the check": str(subject.precision)}, out / FACTS)


def measure(subject: Subject) -> pd.DataFrame:
    """Score every method at every layer, and ablate the regions of every image once.

    Returns:
        :func:`camlens.regions.table` of all methods and layers; k is 0 for the predicted class and
        1 for the runner-up.
    """
    ablation = subject.ablate()
    tables = [
        regions.table(
            regions.score(subject.explain(method, layer), subject.regions),
            labels=subject.labels,
            predictions=subject.targets[:, 0],
            ablation=ablation,
            classes=CLASSES,
        )
        for method in METHODS
        for layer in subject.layers
    ]
    return pd.concat(tables, ignore_index=True)


def compare_infills(subject: Subject) -> pd.DataFrame:
    """Return the mean drop and excess by region for each infill, on the same first images."""
    rows = []
    for infill in ("blur", "mean", "inpaint"):
        ablation = subject.ablate(_FILLED, infill)
        table = pd.DataFrame({"infill": infill, "region": ablation.names})
        table["faces"] = len(ablation.drop)
        for name in ("drop", "excess"):
            table[name] = getattr(ablation, name)[:, 0].nanmean(dim=0).tolist()
        rows.append(table)
    return pd.concat(rows)


def facial_action(subject: Subject) -> pd.DataFrame:
    """Compare heatmaps with the regions of action units, as in publications.

    Returns:
        A row for each emotion: Grad-CAM's mean cosine similarity and mean IoU (of the hottest
        pixels of the same area) with the mask of the emotion's regions, and with those of other
        emotions.
    """
    explanation = subject.explain(camlens.GradCAM, subject.layers[0])
    names = tuple(claims.ACTION_UNITS)
    masks = [
        subject.regions.pick(*parts).masks.sum(dim=1) for parts in claims.ACTION_UNITS.values()
    ]
    units = regions.Regions(names, torch.stack(masks, dim=1).clamp(0, 1))
    iou = regions.score(explanation, units).iou[:, 0]
    heat = explanation.heatmaps[:, :1].flatten(2)
    cosine = torch.cosine_similarity(heat, units.masks.flatten(2), dim=-1)
    cosine = cosine.where(explanation.evidence[:, :1], torch.nan)
    rows = []
    for index, name in enumerate(names):
        said = subject.targets[:, 0] == CLASSES.index(name)
        own = torch.arange(len(names)) == index
        row = {"emotion": name, "faces": int(said.sum())}
        for measure, values in (("cosine", cosine[said]), ("iou", iou[said])):
            row[measure] = values[:, own].nanmean().item()
            row[f"{measure}, other emotions' masks"] = values[:, ~own].nanmean().item()
        rows.append(row)
    return pd.DataFrame(rows)


def at_the_decks_layer(subject: Subject) -> pd.DataFrame:
    """Return which regions VGG19's last convolution can resolve at the deck's 48x48 pixels.

    The grid depends only on the architecture, so random weights suffice.

    Returns:
        A row for each region: its mean area and a cell's area in pixels, the fraction of images in
        which it is resolvable, and the deck's claims about it; the attribute ``grid`` is the
        layer's.
    """
    images, some = subject.images[:64], subject.regions.of_images(slice(64))
    explainer = camlens.GradCAM(vgg19(weights=None).to(images.device).eval(), "features.34")
    scores = regions.score(explainer(images.expand(-1, 3, -1, -1)), some)
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
