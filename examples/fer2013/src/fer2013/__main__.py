"""``python -m fer2013 train|evaluate|regions|template|demo``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from camlens import regions

from . import weights
from .config import CONFIGS, find
from .data import USAGES, load, to_batch

#: Where training runs are kept.
RUNS = Path("runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, or 2 if it could not be carried out."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"fer2013 {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _train(options: argparse.Namespace) -> None:
    from .train import Machine, train

    config = find(options.name)
    changes = {"weights": options.weights, "epochs": options.epochs, "side": options.side}
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    path = train(
        config,
        load(options.data),
        out=options.out or RUNS / config.name,
        seed=options.seed,
        machine=Machine(
            options.device,
            options.devices,
            options.num_nodes,
            options.strategy,
            options.precision,
            options.workers,
        ),
        runs=RUNS,
    )
    if path is not None:
        facts = weights.read_facts(path)
        print(f"{path}: {facts['accuracy']:.2%} on {facts['accuracy_on']} ({facts['averaging']})")


def _evaluate(options: argparse.Namespace) -> None:
    from .averaging import MEANINGS
    from .evaluate import evaluate

    model = weights.load(options.weights)
    measured = evaluate(model, load(options.data).split(options.split), device=options.device)
    print(measured.text)
    print(f"accuracy {measured.accuracy:.2%} on {options.split} ({MEANINGS['mirror']})")


def _demo(options: argparse.Namespace) -> None:
    from . import photos
    from .demo import demo

    if options.photo is None and options.box is not None:
        raise ValueError("--box says where the face is in a photograph of your own: name one")
    if options.photo is None:
        faces = photos.packaged()
    elif options.box is None:
        faces = [photos.find(options.photo, regions.YuNet(options.yunet))]
    else:
        faces = [photos.read(options.photo, options.box)]
    for line in demo(weights.load(options.weights), faces, options.out, device=options.device):
        print(line)
    print(f"wrote {options.out}")


def _regions(options: argparse.Namespace) -> None:
    from .region_study import prepare, study

    # A detector's model file is looked for before anything is computed.
    yunet, mesh = regions.YuNet(options.yunet), None
    if not options.no_mesh:
        mesh = regions.MediaPipe(options.landmarker)
    faces = load(options.data).split(options.split)
    if options.limit is not None:
        faces = faces.first(options.limit)
    subject = prepare(weights.load(options.weights), faces, yunet, options.device)
    for line in study(subject, options.out, yunet=yunet, mesh=mesh):
        print(line, flush=True)


def _template(options: argparse.Namespace) -> None:
    from .masks import measure_template

    faces = load(options.data).split("Training").first(options.limit)
    yunet, mesh = regions.YuNet(options.yunet), regions.MediaPipe(options.landmarker)
    count, parts = measure_template(to_batch(faces.images), yunet, mesh)
    print(f"both detectors found {count} of the first {len(faces)} Training faces")
    for part, points in parts.items():
        print(part, points)


def _box(text: str) -> tuple[int, ...]:
    box = tuple(int(part) for part in text.split(","))
    if len(box) != 4:
        raise ValueError
    return box


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fer2013", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a configuration; resumes a stopped run")
    train.add_argument("name", help=f"{', '.join(CONFIGS)}, or a run's folder to repeat")
    train.add_argument("--out", type=Path, help="the run's folder; default runs/NAME")
    train.add_argument(
        "--weights", help="none, imagenet or a file to start from; default: the configuration's"
    )
    train.add_argument("--epochs", type=int, help="instead of the configuration's")
    train.add_argument("--side", type=int, choices=(48, 96, 224), help="input size; default 48")
    train.add_argument("--seed", type=int, default=0)
    as_lightning = "as Lightning's Trainer takes it"
    train.add_argument("--precision", default="bf16-mixed", help=as_lightning)
    train.add_argument("--devices", type=int, default=1, help=as_lightning)
    train.add_argument("--num-nodes", type=int, default=1, help=as_lightning)
    train.add_argument("--strategy", default="auto", help=as_lightning)
    train.add_argument("--workers", type=int, default=1, help="loading processes a device")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="print the accuracy and the report by class")
    evaluate.add_argument("--split", choices=USAGES, default="PublicTest")
    evaluate.set_defaults(run=_evaluate)

    study = commands.add_parser(
        "regions", help="measure where the evidence is, and whether it is needed"
    )
    study.add_argument("--split", choices=USAGES, default="PublicTest")
    study.add_argument("--limit", type=int, help="only the first faces; default all")
    study.add_argument("--out", type=Path, default=Path("out/regions"), help="folder of the tables")
    study.add_argument("--no-mesh", action="store_true", help="without MediaPipe's comparison")
    study.set_defaults(run=_regions)

    template = commands.add_parser("template", help="measure camlens's face template anew")
    template.add_argument("--limit", type=int, default=4000, help="faces to look at; default 4000")
    template.set_defaults(run=_template)

    demo = commands.add_parser("demo", help="explain two photographs, or one of your own")
    demo.add_argument("photo", type=Path, nargs="?", metavar="PHOTO")
    demo.add_argument(
        "--box",
        type=_box,
        metavar="x,y,w,h",
        help="the face: brows to chin, square; default: YuNet finds it",
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the sheet to write")
    demo.set_defaults(run=_demo)

    for command in (train, evaluate, study, template):
        command.add_argument(
            "--data", type=Path, default=Path("data"), help="a CSV file or folder; default data"
        )
    for command in (evaluate, study, demo):
        command.add_argument("--weights", type=Path, default=weights.SHIPPED)
    for command in (study, template, demo):
        command.add_argument("--yunet", type=Path, help="YuNet's model file; default: fetched once")
    for command in (study, template):
        command.add_argument("--landmarker", type=Path, help="MediaPipe's model file; likewise")
    for command, default in ((train, "auto"), (evaluate, "cpu"), (study, "cpu"), (demo, "cpu")):
        command.add_argument("--device", default=default, help=f"default {default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
