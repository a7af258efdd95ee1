"""``camlens dataset``, ``report`` and ``compare``: explain a folder, report and compare runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console, errors, methods, options, regions, targets
from .evaluation_tables import evaluated_rows, show_evaluation
from .photographs import Photographs

if TYPE_CHECKING:
    import pandas as pd

    from ..dataset import RegionsOf, Run
    from ..loading import LoadedModel

# At most this many unreadable images are listed.
_NAMED = 20


def dataset(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of image files.")],
    *,
    model: options.Model,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    weights: options.Weights = None,
    method: options.Methods = ["GradCAM"],  # noqa: B006  (Typer only reads the default)
    layer: options.Layers = None,
    target: options.Target = None,
    region_kind: options.RegionsOption = "none",
    infill: options.Infill = None,
    placements: options.Placements = None,
    activation: options.Activation = "softmax",
    batch_size: options.BatchSize = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images per shard; an interrupted shard is repeated.")
    ] = 256,
    heatmaps: Annotated[
        str, typer.Option(help="Data type of stored maps: uint8 (256 levels) or float16.")
    ] = "uint8",
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
    """Explain all images of a folder and its subfolders, and write a run.

    An image's label is the direct subfolder of DIR that contains it, if a class has that name.
    Repeating an interrupted command resumes after the last finished shard. Images that cannot be
    read are listed, and the exit code is then 1.
    """
    from ..dataset import RunOptions, explain_dataset
    from ..dataset.options import HEAT_TYPES

    if heatmaps not in HEAT_TYPES:
        raise typer.BadParameter(
            f"expected --heatmaps as {' or '.join(HEAT_TYPES)}, got {heatmaps!r}"
        )
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
    wanted, tags = targets.read(target or ["predicted"], loaded.classes)
    found_by, photographs, more = photographs_of([root], loaded, region_kind)
    targets.check_labels(tags, photographs.labels)
    run_options = RunOptions(
        regions=found_by,
        targets=wanted,
        infill=infill,
        placements=placements or 4,
        activation=activation,
        classes=None if loaded.classes is None else list(loaded.classes),
        batch_size=min(batch_size, loaded.batch or batch_size),
        num_workers=workers,
        shard_size=shard_size,
        heatmaps=heatmaps,
        notes=[*notes, *more],
    )
    explainers = methods.explainers(method, loaded.model, layer)
    with console.redirected():
        run = explain_dataset(explainers, photographs, out, run_options)
    finish(run, out, as_json=as_json)


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A folder that dataset, evaluate or explain wrote."),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option(help="File of the page.", show_default="RUN/report.html")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a run's report: a single HTML file that needs no server or network."""
    from ..report import write_report

    if not (run / "manifest.json").exists() and (run / "run" / "manifest.json").exists():
        out = out or run / "report.html"  # the folder of camlens explain, which contains its run
        run = run / "run"
    page = write_report(run, out)
    if as_json:
        console.document({"report": str(page)})
    else:
        console.line(page)


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B")],
    *,
    by: Annotated[str | None, typer.Option(help="A column to group by, such as label.")] = None,
    value: Annotated[
        str,
        typer.Option(help="The value to compare: density, share, pointing_game, iou, excess, ..."),
    ] = "density",
    method: Annotated[
        str | None, typer.Option(help="The method to compare, for runs of several methods.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare the region scores of two runs over the same images, paired by image.

    The difference is RUN_A minus RUN_B, with its 95% interval, the p-value of a permutation test,
    and that p-value corrected for all tests of the table.
    """
    from ..dataset import Run
    from ..regions import compare as compare_regions

    a, b = Run(run_a), Run(run_b)
    if list(a.images["name"]) != list(b.images["name"]):
        raise ValueError(
            f"{run_a} and {run_b} contain different images: a comparison is paired by image, so "
            "create both runs from the same folder"
        )
    tables = [_regions(run, path, method) for run, path in ((a, run_a), (b, run_b))]
    rows = console.rows_of(compare_regions(*tables, by=by, value=value))
    if as_json:
        console.document({"a": str(run_a), "b": str(run_b), "value": value, "rows": rows})
    else:
        names = {"k": "target (0: the first)"}
        shown = [{names.get(name, name): cell for name, cell in row.items()} for row in rows]
        console.show(shown, title=f"{value}: a = {run_a}, b = {run_b}")


def photographs_of(
    paths: Sequence[Path], loaded: LoadedModel, region_kind: str
) -> tuple[RegionsOf | None, Photographs, list[str]]:
    """Return the source of regions, the photographs, and notes about them, which it also writes.

    Args:
        paths: one folder, or image files.
        loaded: the model.
        region_kind: the value of --regions.

    Raises:
        typer.BadParameter: the regions are unknown, or a folder is not the only path.
        FileNotFoundError, ValueError: a path does not exist, or a folder has no photograph.
    """
    found_by, region_files = regions.named(region_kind)
    notes = []
    paths = list(dict.fromkeys(paths))  # a photograph that counts twice is no further evidence
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]} does not exist: pass a folder or image files")
    if len(paths) == 1 and not paths[0].is_file():
        photographs = Photographs.below(paths[0], loaded, region_files)
        if photographs.unknown:
            notes.append(_without_label(photographs.unknown, loaded.classes is not None))
    elif folders := [path for path in paths if path.is_dir()]:
        raise typer.BadParameter(
            f"expected one folder, or only image files, got {len(paths)} paths of which "
            f"{folders[0]} is a folder: pass the folder that contains them all"
        )
    else:
        photographs = Photographs.named(paths, loaded, region_files)
    notes += regions.notes(region_kind, photographs)
    return found_by, photographs, console.notes(notes)


def _without_label(folders: list[str], known: bool) -> str:
    listed = f"{', '.join(folders[:5])}{', ...' * (len(folders) > 5)}"
    if known:
        return f"the model has no class {listed}: images in folders with these names have no label"
    return (
        f"the class names are unknown, so images in the folders {listed} have no label: pass the "
        "class names with --classes FILE"
    )


def finish(run: Run, out: Path, *, as_json: bool, done: str = "explained") -> None:
    """Report a run's progress, its evaluation, and the images that could not be read.

    Args:
        run: the run.
        out: the run's folder.
        as_json: whether to answer with one JSON document.
        done: the verb for the processed images.

    Raises:
        typer.Exit: some images could not be explained.
    """
    if not run.manifest["complete"]:  # WORLD_SIZE in the environment: other ranks do the rest
        rank, ranks = (os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE"))
        if as_json:
            console.document({"run": str(out), "complete": False, "shards": len(run.shards)})
        else:
            console.line(
                f"rank {rank} of {ranks} has finished its shards; {out} contains "
                f"{len(run.shards)} in total; the run is complete when every rank has finished"
            )
        return
    unreadable = _unreadable(run)
    count = run.manifest["images"] - run.manifest["unreadable"]
    if as_json:
        found = {} if run.evaluation is None else {"table": evaluated_rows(run.evaluation)}
        answer = {"run": str(out), "images": count, "unreadable": unreadable, **found}
        console.document(answer)
    else:
        if run.evaluation is not None:
            show_evaluation(run.evaluation)
        console.line(f"{count} images {done} into {out}; next: camlens report {out}")
    for row in unreadable[:_NAMED]:
        console.note(f"{row['name']}: {row['reason']}", kind="Not explained", style="red")
    if unreadable:
        more = f"; the run lists {len(unreadable) - _NAMED} more" * (len(unreadable) > _NAMED)
        console.error(f"{len(unreadable)} images could not be explained{more}")
        raise typer.Exit(errors.FAILED)


def _unreadable(run: Run) -> list[dict[str, Any]]:
    """Return the images that could not be read, shard by shard and without the thumbnails."""
    from ..dataset.shards import read_table

    columns, rows = ["image", "name", "reason"], []
    for shard in run.shards if run.manifest["unreadable"] else ():
        table = read_table(run.path / shard / "images.parquet", columns, run.identity, only=columns)
        rows += console.rows_of(table[table["reason"].notna()])
    return rows


def _regions(run: Run, path: Path, method: str | None) -> pd.DataFrame:
    if run.regions is None:
        raise ValueError(
            f"{path} has no regions to compare: create it with camlens dataset ... --regions face"
        )
    if method is None:
        return run.regions
    rows = run.regions[run.regions["method"] == method]
    if rows.empty:
        available = ", ".join(sorted(run.regions["method"].unique()))
        raise LookupError(f"{path} has no method {method!r}: choose from {available}")
    return rows
