"""The command line: ``python -m fer2013 COMMAND`` trains, measures and explains networks."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

import camlens

from .arguments import parser
from .configurations.recipes import find_run
from .data.faces import load, to_batch
from .networks import weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, print its results, and return the exit status: 0, or 2 after an error.

    It is 1 if the reader of the output left, as ``head`` does.
    """
    options = parser().parse_args(arguments)
    try:
        if options.command not in ("train", "pretrain") and "device" in options:
            _check_device(options.device)
        for line in _COMMANDS[options.command](options):
            print(line, flush=True)
    except BrokenPipeError:
        # Python writes what is left at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, LookupError, OSError, ValueError) as error:
        print(f"fer2013 {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"expected a device of this machine, such as cpu, got {name!r}: {reason}"
        ) from error


def _train(options: argparse.Namespace) -> Iterable[str]:
    from .data.index import read_index
    from .data.splits import divide
    from .training.initial_weights import RUNS
    from .training.train import Machine, fingerprint, train

    faces = load(options.data)
    if options.index is not None:
        faces = read_index(options.index, faces)
    config, repeated = find_run(options.name)
    changes = {"weights": options.weights, "epochs": options.epochs, "side": options.side}
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    seed = repeated.get("seed", 0) if options.seed is None else options.seed
    data = repeated.get("data") if repeated.get("seed") == seed else None
    if data is not None and data != fingerprint(divide(faces, config.split, seed=seed)):
        raise ValueError(
            f"{options.name} was trained on other images, labels or splits than those of "
            f"{options.data} and --index: use the run's data, or train the configuration by name"
        )
    machine = Machine(
        options.device,
        options.devices,
        options.num_nodes,
        options.strategy,
        options.precision or repeated.get("precision", "bf16-mixed"),
    )
    out = options.out or RUNS / config.name
    path = train(config, faces, out=out, seed=seed, machine=machine)
    if path is not None:
        facts = weights.read_facts(path)
        yield f"{path}: {facts['accuracy']:.2%} on {facts['accuracy_on']} ({facts['averaging']})"


def _pretrain(options: argparse.Namespace) -> Iterable[str]:
    from .training.photograph_classifier import Recipe
    from .training.pretraining import pretrain

    recipe = Recipe(
        epochs=options.epochs,
        smallest=options.smallest,
        rate=options.rate,
        seed=options.seed,
        start=options.start,
        limit=options.limit,
    )
    return pretrain(
        options.photographs,
        options.out,
        recipe,
        device=options.device,
        precision=options.precision,
    )


def _evaluate(options: argparse.Namespace) -> Iterable[str]:
    from .evaluation.records import MEASURED
    from .evaluation.study import InferenceOptions, study

    config, folder = weights.config_of(weights.read_facts(options.weights)), options.weights.parent
    # Runs of one configuration with different seeds differ by their folders' names.
    name = folder.name if (folder / "run.json").is_file() else config.name
    return study(
        options.weights,
        load(options.data),
        tests=options.split or (),
        inference=InferenceOptions(options.averaging, options.device, options.precision),
        out=options.out,
        record=MEASURED / f"{name}.json" if options.record else None,
    )


def _compare(options: argparse.Namespace) -> Iterable[str]:
    from .comparison.table import compare

    return compare(options.runs, options.out)


def _demo(options: argparse.Namespace) -> Iterable[str]:
    from .data import photographs
    from .explanations.demo import demo

    if options.photo is None and options.box is not None:
        raise ValueError("--box gives a face's place in a photograph: pass the photograph too")
    if options.photo is None:
        faces = photographs.packaged()
    elif options.box is None:
        faces = [photographs.find(options.photo, camlens.faces.YuNet(options.yunet))]
    else:
        faces = [photographs.read(options.photo, options.box)]
    return demo(weights.load(options.weights), faces, options.out, device=options.device)


def _title(path: Path) -> str:
    """Return the name of a network in titles: its configuration and architecture."""
    config = weights.config_of(weights.read_facts(path))
    return config.name if config.name == config.network else f"{config.name} ({config.network})"


def _explain(options: argparse.Namespace) -> Iterable[str]:
    from .explanations.gallery import gallery

    return gallery(
        weights.load(options.weights),
        load(options.data).split(options.split),
        options.out,
        network=_title(options.weights),
        layer=options.layer,
        count=options.count,
        device=options.device,
    )


def _regions(options: argparse.Namespace) -> Iterable[str]:
    from .regions.study import study
    from .regions.subject import prepare

    # Create the detectors first, so that a missing model file is an error at once.
    yunet = camlens.faces.YuNet(options.yunet)
    mesh = None if options.no_mesh else camlens.faces.MediaPipe(options.landmarker)
    faces = load(options.data).split(options.split)
    if options.limit is not None:
        faces = faces.first(options.limit)
    subject = prepare(
        weights.load(options.weights),
        faces,
        yunet,
        options.device,
        layers=tuple(options.layer or ()),
        precision=getattr(torch, options.precision),
    )
    return study(subject, options.out, yunet=yunet, mesh=mesh, network=_title(options.weights))


def _beside(options: argparse.Namespace) -> Iterable[str]:
    from .regions.comparison import beside

    return beside(options.first, options.second, options.out)


def _audit(options: argparse.Namespace) -> Iterable[str]:
    from .audit.audit import audit
    from .audit.out_of_sample import Plan
    from .training.train import Machine

    config = find_run(options.config)[0]
    if options.epochs is not None:
        config = dataclasses.replace(config, epochs=options.epochs)
    plan = Plan(
        options.weights,
        options.folds,
        config,
        drop=tuple(options.drop.split(",")) if options.drop else (),
        ferplus=options.ferplus,
        shown=options.shown,
        seed=options.seed,
        machine=Machine(options.device),
    )
    return audit(load(options.data), options.out, plan)


def _leakage(options: argparse.Namespace) -> Iterable[str]:
    from .leakage.experiment import experiment
    from .leakage.runs import Plan

    plan = Plan(options.faces, options.epochs, options.seeds, device=options.device)
    return experiment(load(options.data), options.out, plan)


def _template(options: argparse.Namespace) -> Iterable[str]:
    from .regions.masks import measure_template

    faces = load(options.data).split("Training").first(options.limit)
    yunet, mesh = camlens.faces.YuNet(options.yunet), camlens.faces.MediaPipe(options.landmarker)
    count, parts = measure_template(to_batch(faces.images), yunet, mesh)
    yield f"both detectors found {count} of the first {len(faces)} Training faces"
    for part, points in parts.items():
        yield f"{part} {points}"


_COMMANDS: dict[str, Callable[[argparse.Namespace], Iterable[str]]] = {
    "train": _train,
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "compare": _compare,
    "demo": _demo,
    "explain": _explain,
    "regions": _regions,
    "beside": _beside,
    "audit": _audit,
    "leakage": _leakage,
    "template": _template,
}

if __name__ == "__main__":
    sys.exit(main())
