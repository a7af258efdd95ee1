"""``camlens explain``: explain a few photographs, and write pictures, tables and a report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..explainers.base import Explainer
from ..files import write_whole
from ..loading import LoadedModel, read_photograph
from . import console, errors, methods, options, output_folder, pictures, regions, results, targets
from .photographs import Photographs


def explain(
    files: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Image files.", show_default=False)
    ],
    *,
    model: options.Model,
    weights: options.Weights = None,
    method: options.Methods = ["GradCAM"],  # noqa: B006  (Typer only reads the default)
    layer: options.Layers = None,
    target: options.Target = None,
    region_kind: options.RegionsOption = "none",
    infill: options.Infill = None,
    placements: options.Placements = None,
    activation: options.Activation = "softmax",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("camlens-out"),
    batch_size: options.BatchSize = 8,
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
    """Explain photographs: show where in each one the model found its evidence.

    Writes into the folder --out: report.html, a page of all photographs; results.json and
    results.csv; and for each photograph NAME.sheet.png (the photograph and all its maps),
    NAME.overlay.png and NAME.contours.png (at the photograph's size; parts that the model did not
    see are darkened), NAME.signed.png (for methods with gradients of the image) and
    NAME.safetensors (the explanation, for camlens.Explanation.load). --regions adds regions.csv.
    With several methods or targets, the file names contain them. The command replaces an earlier
    call's page, tables and files of the same photographs. It never replaces a file that no earlier
    call wrote: this is an error. If the call fails, the folder does not change. A photograph that
    cannot be explained is listed with the reason, the others are explained, and the exit code is 1.
    """
    regions.check_infill(infill, placements, region_kind)
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
    notes = console.notes(options.notes(model, weights, loaded))
    explainers = methods.explainers(method, loaded.model, layer)
    wanted, tags = targets.read(target or ["predicted"], loaded.classes)
    found_by, region_files = regions.named(region_kind)
    photographs = Photographs.named(files, loaded, region_files)
    targets.check_labels(tags, photographs.labels)
    notes += console.notes(regions.notes(region_kind, photographs))
    output_folder.prepare(out)
    namer = output_folder.Names()
    names = [namer.of(file) for file in files]
    inputs = [*files, *(Path(text) for text in (weights, classes, region_kind) if text)]
    output_folder.check(
        out, [*output_folder.SINGLE, *(f"{name}.sheet.png" for name in names)], inputs
    )
    call = _Call(loaded=loaded, photographs=photographs, names=names, tags=tags, out=out)
    run_options = {
        "targets": wanted,
        "regions": found_by,
        "infill": infill,
        "placements": placements or 16,
        "activation": activation,
        "notes": notes,
    }
    with output_folder.staged(out, names) as stage, console.redirected():
        failed = call.run(explainers, stage.path, batch_size, run_options)
        stage.keep = bool(call.found)
    page = str(out / "report.html") if call.found else None
    document = {"out": str(out), "report": page, "photos": call.records, "failed": failed}
    if as_json:
        console.document(document)
    else:
        for record in call.records:
            results.show(record)
        if infill is not None:
            console.line(results.EXCESS)
        if page is not None:
            console.line(page)
    for photo in failed:
        console.note(photo["reason"], kind="Not explained", style="red")
    if failed:
        console.error(f"{len(failed)} of {len(files)} photographs could not be explained")
        raise typer.Exit(errors.FAILED)


@dataclasses.dataclass(kw_only=True)
class _Call:
    """One call of the command: its model and photographs, and the records written so far."""

    loaded: LoadedModel
    photographs: Photographs
    names: Sequence[str]
    tags: Sequence[str]
    out: Path
    stage: Path = Path()
    found: dict[int, results.Record] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> list[results.Record]:
        """The records so far, in the order of the photographs."""
        return [self.found[index] for index in sorted(self.found)]

    def run(
        self,
        explainers: Sequence[Explainer],
        stage: Path,
        batch_size: int,
        run_options: dict[str, Any],
    ) -> list[dict[str, str]]:
        """Explain all photographs into a folder, and return those that could not be explained."""
        from ..dataset import RunOptions, ShardTask
        from ..report import rendered
        from ..report.run_tables import load

        self.stage = stage
        preprocessing = self.loaded.preprocessing
        if preprocessing.size is None:
            batch_size = 1  # photographs at their original size may be large
        names = None if self.loaded.classes is None else list(self.loaded.classes)
        run_options["classes"] = names
        chosen = RunOptions(
            batch_size=min(batch_size, self.loaded.batch or batch_size), **run_options
        )
        task = ShardTask(explainers, self.photographs, stage / "run", chosen, resumable=False)
        task.start()
        try:
            with console.progress(len(self.photographs), "Explaining") as advance:
                task.run(range(task.shards), progress=advance, watch=self.draw)
        except RuntimeError as error:
            if not any("--size" in note for note in getattr(error, "__notes__", ())):
                error.add_note("if the model needs pictures of another size, set it with --size")
            raise
        run = task.finish()
        self._add_regions(run.regions)
        failed = [
            {"photo": str(self.photographs.files[index]), "reason": self._reason(index, reason)}
            for index, reason in run.unreadable[["image", "reason"]].itertuples(index=False)
        ]
        if self.found:
            write_whole(stage / "results.csv", results.table(self.records))
            write_whole(stage / "report.html", rendered(load(run), self.out))
            self._write_json(failed)
        return failed

    def _write_json(self, failed: list[dict[str, str]]) -> None:
        content = {"made_by": output_folder.MADE_BY, "photos": self.records, "failed": failed}
        text = json.dumps(console.jsonable(content), indent=2, allow_nan=False)
        write_whole(self.stage / output_folder.RESULTS, f"{text}\n".encode())

    def draw(self, group: Any) -> None:
        """Write the pictures and explanations of a group of photographs."""
        tags = self.tags or [str(int(k)) for k in group.explanations[0].targets[0]]
        for place, index in enumerate(group.indexes):
            file = self.photographs.files[index]
            record = results.record(group, place, str(file), self.loaded.classes, tags)
            self._draw(index, record, group.pictures[place], [e[place] for e in group.explanations])
            self.found[index] = record

    def _draw(self, index: int, record: results.Record, seen: Any, explanations: Any) -> None:
        photograph = read_photograph(self.photographs.files[index])
        size = (photograph.shape[-2], photograph.shape[-1])
        box = self.loaded.preprocessing.box(size)
        if box is None:  # for an unknown transform, draw on its output
            photograph = seen.expand(3, -1, -1)
            box = (0.0, 0.0, float(seen.shape[-2]), float(seen.shape[-1]))
        columns = []
        for explanation, entry in zip(explanations, record["explanations"], strict=True):
            name = self.names[index]
            name += f".{explanation.method}" if len(explanations) > 1 else ""
            for kind, each in pictures.drawn(photograph, box, explanation).items():
                for target, picture in zip(entry["targets"], each, strict=True):
                    tag = f"-{target['asked']}" if len(each) > 1 else ""
                    path = self._write(f"{name}.{kind}{tag}.png", pictures.png(picture))
                    target["files"][kind] = path
                if kind != "contours":
                    label = explanation.method + (", signed" if kind == "signed" else "")
                    columns.append((label, each))
            explanation.save(self.stage / f"{name}.safetensors")
            entry["files"]["explanation"] = str(self.out / f"{name}.safetensors")
        rows = [_row(target) for target in record["explanations"][0]["targets"]]
        whole = pictures.side_by_side(photograph, columns, rows, _title(record))
        record["files"]["sheet"] = self._write(f"{self.names[index]}.sheet.png", whole)

    def _write(self, name: str, content: bytes) -> str:
        write_whole(self.stage / name, content)
        return str(self.out / name)

    def _add_regions(self, table: Any) -> None:
        if table is None or not len(table):
            return
        photos = [str(self.photographs.files[index]) for index in table["image"]]
        rows = table.drop(columns="image")
        named = rows.assign(photo=photos)[["photo", *rows.columns]]
        text = named.to_csv(index=False)
        write_whole(self.stage / "regions.csv", text.encode("utf-8", "backslashreplace"))
        for index, record in self.found.items():
            record["regions"] = console.rows_of(rows[table["image"] == index])

    def _reason(self, index: int, reason: str) -> str:
        file = str(self.photographs.files[index])
        return reason if file in reason else f"{file}: {reason}"


def _title(record: results.Record) -> str:
    predicted = record["prediction"]
    parts = [Path(record["photo"]).name]
    if record["label"] is not None:
        parts.append(f"true: {results.name_of(record['label'])}")
    probability = "" if predicted["probability"] is None else f", {predicted['probability']:.0%}"
    parts.append(f"predicted: {results.name_of(predicted)}{probability}")
    return "   |   ".join(parts)


def _row(target: results.Record) -> str:
    """Return the label of a target's row: the requested target and its class."""
    tag, name = target["asked"], results.name_of(target)
    return name if tag.isdecimal() else f"{tag}:\n{name}"
