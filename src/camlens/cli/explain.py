"""``camlens explain``: a few photographs, each to pictures, an explanation and a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from .. import regions
from ..explainers import Explainer
from ..explanation import Explanation
from ..faithfulness import ablate_regions
from ..files import write_whole
from ..loading import LoadedModel, read_photograph
from ..loading.faults import is_machine_fault
from ..targets import probabilities
from . import console, errors, faces, options, outputs


def explain(
    files: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Image files.", show_default=False)
    ],
    *,
    model: options.Model,
    weights: options.Weights = None,
    method: Annotated[str, typer.Option(help="See camlens methods.")] = "GradCAM",
    layer: options.Layers = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="predicted, all, or a class by number or name; several with an option for each.",
            show_default="predicted",
        ),
    ] = None,
    region_kind: options.RegionsOption = "none",
    infill: options.Infill = None,
    activation: options.Activation = "softmax",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("camlens-out"),
    size: options.Size = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    mean: options.Mean = None,
    std: options.Std = None,
    classes: options.Classes = None,
    device: options.Device = "cpu",
    unsafe_pickle: options.UnsafePickle = False,
    as_json: options.Json = False,
) -> None:
    """Explain photographs: where in each did the model find its evidence?

    For each photograph the folder --out gets NAME.overlay.png and NAME.contours.png (of the
    picture as the model saw it), NAME.safetensors (the explanation, for
    camlens.Explanation.load) and, with --regions, NAME.regions.csv. Files of these names that are
    there, such as an earlier call's, are replaced, but never one of the photographs given. A
    photograph that cannot be explained is listed with its reason, the others are explained all
    the same, and the exit code is then 1.
    """
    faces.check_infill(infill, region_kind)
    options.check_activation(activation)
    loaded = options.load_model(
        model,
        weights,
        size=size,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        classes=classes,
        device=device,
        trusted_pickle=unsafe_pickle,
    )
    options.note_missing_preprocessing(loaded)
    (explainer,) = options.explainers([method], loaded.model, layer)
    wanted = options.targets(target or ["predicted"], loaded.classes)
    task = _Task(
        loaded=loaded,
        explainer=explainer,
        targets=wanted,
        regions_of=faces.named(region_kind),
        infill=infill,
        activation=activation,
        out=out,
        photos=files,
    )
    outputs.prepare(out)
    done, failed = [], []
    for file in console.counted(files, "Explaining"):
        try:
            done.append(task.run(file))
        except Exception as error:  # whatever one photograph does, the others are explained
            if is_machine_fault(error):
                raise
            reason = errors.described(error)
            named = reason if str(file) in reason else f"{file}: {reason}"
            failed.append({"photo": str(file), "reason": named})
    if as_json:
        console.document({"out": str(out), "photos": done, "failed": failed})
    else:
        for record in done:
            _show(record)
    for record in failed:
        console.note(record["reason"], kind="Not explained", style="red")
    if failed:
        console.error(f"{len(failed)} of {len(files)} photographs could not be explained")
        raise typer.Exit(errors.FAILED)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Task:
    """What is done with each photograph."""

    loaded: LoadedModel
    explainer: Explainer
    targets: Any
    regions_of: Any
    infill: str | None
    activation: str
    out: Path
    photos: Sequence[Path]
    names: outputs.Names = dataclasses.field(default_factory=outputs.Names)

    def run(self, file: Path) -> dict[str, Any]:
        """Explain one photograph, write its files, and return what is said of it."""
        image, picture = self.loaded.preprocessing(read_photograph(file))
        images = image[None].to(next(self.explainer.model.parameters(), image).device)
        explanation, prediction = self._explained(images)
        table = None
        if self.regions_of is not None:
            table = self._table(images, picture, explanation)
        name = self.names.of(file)
        chosen = explanation.targets[0].tolist()
        files = outputs.paths(self.out, name, chosen, regions=table is not None)
        outputs.refuse_to_replace(self.photos, files.values())
        outputs.write(files, picture, explanation)
        if table is not None:
            write_whole(files["regions"], table.to_csv(index=False).encode())
        return {
            "photo": str(file),
            "method": explanation.method,
            "layers": list(explanation.layers),
            "grid": list(explanation.grid),
            "prediction": prediction,
            "targets": self._targets(explanation),
            "regions": None if table is None else console.rows_of(table),
            "files": {kind: str(path) for kind, path in files.items()},
        }

    def _explained(self, images: Tensor) -> tuple[Explanation, dict[str, Any]]:
        """Explain one image, and say what the model predicts, from the same forward pass."""
        try:
            explanation = self.explainer(images, targets=options.for_images(self.targets, 1))
        except RuntimeError as error:
            raise RuntimeError(
                f"the model failed on a picture of {tuple(images.shape)} (N, C, H, W): {error}; "
                "if it takes another size, say so with --size"
            ) from error
        if explanation.outputs is None:
            raise ValueError("the model returned no (N, classes) scores")
        logits = explanation.outputs[0].float()
        best = int(logits.argmax())
        probability = float(probabilities(logits[None], self.activation)[0, best])
        said = {
            **self._class(best),
            "score": float(logits[best]),
            "probability": None if math.isnan(probability) else probability,
        }
        return explanation, said

    def _table(self, images: Tensor, picture: Tensor, explanation: Explanation) -> Any:
        found = self.regions_of(picture[None]).to(images.device)
        ablation = None
        if self.infill is not None:
            model, targets = self.explainer.model, explanation.targets
            ablation = ablate_regions(
                model,
                images,
                found,
                targets=targets,
                infill=self.infill,
                activation=self.activation,
            )
        return regions.table(
            regions.score(explanation, found), ablation=ablation, classes=self.loaded.classes
        )

    def _targets(self, explanation: Explanation) -> list[dict[str, Any]]:
        columns = (explanation.targets[0], explanation.scores[0], explanation.evidence[0])
        return [
            {**self._class(target), "score": score, "evidence": evidence}
            for target, score, evidence in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def _class(self, index: int) -> dict[str, Any]:
        names = self.loaded.classes
        known = names is not None and index < len(names)
        return {"class": index, "name": names[index] if names and known else None}


def _show(record: dict[str, Any]) -> None:
    """Write what is said of one photograph as tables."""
    said, grid = record["prediction"], "x".join(map(str, record["grid"]))
    console.line(record["photo"])
    facts = f"score {said['score']:.4g}"
    if said["probability"] is not None:  # a model with one output has none
        facts += f", probability {said['probability']:.1%}"
    console.line(f"  predicted: {_name(said)} ({facts})")
    where = f" at {', '.join(record['layers'])}" if record["layers"] else ""
    console.line(f"  {record['method']}{where}, grid {grid}")
    console.show(
        [
            {
                "explained": _name(target),
                "score": target["score"],
                "evidence": "yes" if target["evidence"] else "none",
            }
            for target in record["targets"]
        ]
    )
    if record["regions"] is not None:
        several = len(record["targets"]) > 1
        console.show([_region(row, several=several) for row in record["regions"]])
    for path in record["files"].values():
        console.line(f"  {path}")
    console.line()


def _region(row: dict[str, Any], *, several: bool) -> dict[str, Any]:
    """Return what is shown of a row of the regions' table."""
    if not row["area"]:
        density = "not found"
    elif not row["resolvable"]:
        density = "too coarse"
    elif not row["evidence"]:
        density = "no evidence"
    else:
        density = f"{row['density']:.2f}"
    shown = {"explained": row["target"]} if several else {}
    shown |= {"region": row["region"], "density": density}
    for name in ("share", "area"):
        shown[name] = None if row[name] is None else f"{row[name]:.1%}"
    if "excess" in row:
        shown["excess"] = None if row["excess"] is None else f"{row['excess']:.3g}"
    return shown


def _name(said: dict[str, Any]) -> str:
    return f"class {said['class']}" if said["name"] is None else f"{said['name']} ({said['class']})"
