"""``camlens evaluate``: which of several methods to trust for a model, on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..loading.factories import near
from . import console, errors, methods, options, regions, targets
from .photographs import Photographs

_COLUMNS = ("metric", "method", "better", "mean", "low", "high", "floor", "above", "clear", "level")


def evaluate(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of image files.")],
    *,
    model: options.Model,
    out: Annotated[Path, typer.Option(help="Folder of the evaluation.")],
    weights: options.Weights = None,
    method: options.Methods = ["GradCAM"],  # noqa: B006  (Typer reads it and makes its own)
    layer: options.Layers = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="deletion, insertion, road, sufficiency, mu_fidelity, randomization, ...; an "
            "option for each.",
            show_default="six of them",
        ),
    ] = None,
    target: options.Target = None,
    region_kind: options.RegionsOption = "none",
    region: Annotated[
        str | None, typer.Option(help="Of several regions, the object of localization metrics.")
    ] = None,
    activation: options.Activation = "softmax",
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 0,
    batch_size: options.BatchSize = 16,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images a shard: what a kill can cost.")
    ] = 64,
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
    """Measure the faithfulness of methods over a folder, beside maps that know nothing.

    Repeating an interrupted command resumes after the last finished shard. Images that cannot be
    read are listed, and the exit code is then 1. camlens report OUT makes a page of it.
    """
    from ..dataset import evaluate_dataset
    from ..dataset.evaluation import read_unreadable
    from ..faithfulness.metrics_by_name import DEFAULT_METRICS, METRICS

    options.check_activation(activation)
    for name in metric or ():
        if name not in METRICS:
            raise typer.BadParameter(
                f"expected --metric out of {', '.join(METRICS)}, got {name!r}"
                f"{near(name, list(METRICS))}"
            )
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
    wanted, _ = targets.read(target or ["predicted"], loaded.classes)
    found_by, region_files = regions.named(region_kind)
    if found_by is not None and found_by != "own":
        raise typer.BadParameter(
            "--regions of an evaluation is a FOLDER with a file of boxes or masks for each "
            "photograph"
        )
    photographs = Photographs.below(root, loaded, region_files)
    explainers = methods.explainers(method, loaded.model, layer)
    with console.redirected():
        found = evaluate_dataset(
            explainers,
            photographs,
            out,
            metrics=metric or DEFAULT_METRICS,
            targets=wanted,
            region=region,
            batch_size=min(batch_size, loaded.batch or batch_size),
            shard_size=shard_size,
            num_workers=workers,
            activation=activation,
            seed=seed,
        )
    unreadable = console.rows_of(read_unreadable(out))
    rows = console.rows_of(found.table)
    if as_json:
        console.document({"evaluation": str(out), "rows": rows, "unreadable": unreadable})
    else:
        console.show([{name: row.get(name) for name in _COLUMNS} for row in rows], title=str(out))
        console.line(f"next: camlens report {out}")
    for row in unreadable[:20]:
        console.note(f"{row['name']}: {row['reason']}", kind="Not evaluated", style="red")
    if unreadable:
        console.error(f"{len(unreadable)} images could not be evaluated")
        raise typer.Exit(errors.FAILED)
