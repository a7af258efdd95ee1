"""``camlens evaluate``: compare methods by faithfulness metrics over photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..faithfulness.evaluation.evaluate import DEFAULT_METRICS
from ..faithfulness.evaluation.named_metrics import (
    judges,
    known_metrics,
    named_metrics,
    needs_place,
)
from ..faithfulness.metric.floors import FLOORS
from ..faithfulness.metric.options import MOST_SEED
from ..loading.factories import attribute
from . import console, methods, options, targets
from .runs import finish, photographs_of


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="A folder of image files, or image files.",
            show_default=False,
        ),
    ],
    *,
    model: options.Model,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    weights: options.Weights = None,
    method: options.Methods = ["GradCAM"],  # noqa: B006  (Typer only reads the default)
    layer: options.Layers = None,
    metric: Annotated[
        list[str],
        typer.Option(
            "--metric",
            help=f"{', '.join(known_metrics())}, or package.module:function, which runs code: "
            "only use functions you trust.",
            show_default=", ".join(DEFAULT_METRICS),
        ),
    ] = list(DEFAULT_METRICS),  # noqa: B006
    floor: Annotated[
        list[str],
        typer.Option(
            "--floor",
            help=f"Maps made without the model, for comparison: {', '.join(FLOORS)}; or none.",
            show_default="all",
        ),
    ] = list(FLOORS),  # noqa: B006
    target: options.Target = None,
    region_kind: options.RegionsOption = "none",
    activation: options.Activation = "softmax",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the metrics' random numbers.")] = 0,
    batch_size: options.BatchSize = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images per shard; an interrupted shard is repeated.")
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
    """Compare methods by faithfulness metrics over photographs, and write a run.

    Each mean has a 95% interval over images and is compared with floors: maps made without the
    model. The run is like one of camlens dataset, with an additional table of values: repeating an
    interrupted command resumes after the last finished shard, and camlens report writes its page.
    Localization metrics take the object from --regions FILE or FOLDER.
    """
    from ..dataset import RunOptions, explain_dataset

    options.check_activation(activation)
    judged_by = _metrics(metric)
    floors = () if floor == ["none"] else tuple(floor)
    if unknown := [name for name in floors if name not in FLOORS]:
        raise typer.BadParameter(
            f"expected --floor as {', '.join(FLOORS)}, or only none, got {unknown[0]!r}"
        )
    if seed > MOST_SEED:
        raise typer.BadParameter(f"expected --seed of at most {MOST_SEED}, got {seed}")
    placed = [name for name, one in judged_by.items() if needs_place(one)]
    if placed and region_kind == "none":
        raise typer.BadParameter(
            f"--metric {placed[0]} needs the locations of the objects: add --regions FILE or FOLDER"
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
    notes = console.notes(options.notes(model, weights, loaded))
    wanted, tags = targets.read(target or ["predicted"], loaded.classes)
    found_by, photographs, more = photographs_of(paths, loaded, region_kind)
    targets.check_labels(tags, photographs.labels)
    run_options = RunOptions(
        regions=found_by,
        targets=wanted,
        activation=activation,
        classes=None if loaded.classes is None else list(loaded.classes),
        batch_size=min(batch_size, loaded.batch or batch_size),
        num_workers=workers,
        shard_size=shard_size,
        metrics=judged_by,
        floors=floors,
        seed=seed,
        notes=[*notes, *more],
    )
    explainers = methods.explainers(method, loaded.model, layer)
    with console.redirected():
        run = explain_dataset(explainers, photographs, out, run_options)
    finish(run, out, as_json=as_json, done="evaluated")


def _metrics(texts: Sequence[str]) -> dict[str, Any]:
    """Return metrics by name; a user's metric by its function's name.

    Raises:
        typer.BadParameter: a value is not a metric, or is given twice.
        LookupError: no metric has a given name.
    """
    named = [attribute(text, "--metric") if ":" in text else text for text in texts]
    for text, metric in zip(texts, named, strict=True):
        if not isinstance(metric, str) and (not callable(metric) or judges(metric) is None):
            raise typer.BadParameter(
                f"expected --metric {text} as a function (model, images, explanation, **options), "
                f"got {metric!r:.60}"
            )
    if len(set(texts)) < len(texts):
        raise typer.BadParameter(f"expected each --metric once, got {', '.join(texts)}")
    return dict(named_metrics(named))
