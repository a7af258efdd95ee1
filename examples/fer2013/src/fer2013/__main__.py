"""``python -m fer2013 COMMAND``: from training and evaluation to what a network looks at."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camlens import regions

from . import weights
from .averaging import MEANINGS
from .config import CONFIGS, find_run
from .data import USAGES, load, to_batch
from .splits import TESTS

#: Where training runs are kept.
RUNS = Path("runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, or 2 if it could not be carried out."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ImportError, LookupError, OSError, ValueError) as error:
        print(f"fer2013 {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _train(options: argparse.Namespace) -> None:
    from .train import Machine, train

    faces = load(options.data)
    if options.index is not None:
        from .cleaned import read_index

        faces = read_index(options.index, faces)
    config, repeated = find_run(options.name)
    changes = {"weights": options.weights, "epochs": options.epochs, "side": options.side}
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    path = train(
        config,
        faces,
        out=options.out or RUNS / config.name,
        seed=repeated.get("seed", 0) if options.seed is None else options.seed,
        machine=Machine(
            options.device,
            options.devices,
            options.num_nodes,
            options.strategy,
            options.precision or repeated.get("precision", "bf16-mixed"),
            options.workers,
        ),
        runs=RUNS,
    )
    if path is not None:
        facts = weights.read_facts(path)
        print(f"{path}: {facts['accuracy']:.2%} on {facts['accuracy_on']} ({facts['averaging']})")


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluation_records import MEASURED
    from .evaluation_study import Way, study

    config = weights.config_of(weights.read_facts(options.weights))
    lines = study(
        options.weights,
        load(options.data),
        tests=options.split or (),
        way=Way(options.averaging, options.device, options.precision),
        out=options.out,
        record=MEASURED / f"{config.name}.json" if options.record else None,
    )
    for line in lines:
        print(line, flush=True)


def _compare(options: argparse.Namespace) -> None:
    from .compare import compare

    for line in compare(options.runs, options.out):
        print(line)


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


def _network(path: Path) -> str:
    """Return what titles call a file's network: its configuration, and its architecture."""
    config = weights.config_of(weights.read_facts(path))
    return config.name if config.name == config.network else f"{config.name} ({config.network})"


def _explain(options: argparse.Namespace) -> None:
    from .gallery import gallery

    lines = gallery(
        weights.load(options.weights),
        load(options.data).split(options.split),
        options.out,
        network=_network(options.weights),
        layer=options.layer,
        count=options.count,
        device=options.device,
    )
    for line in lines:
        print(line, flush=True)


def _regions(options: argparse.Namespace) -> None:
    import torch

    from .region_study import study
    from .region_subject import prepare

    # A detector's model file is looked for before anything is computed.
    yunet, mesh = regions.YuNet(options.yunet), None
    if not options.no_mesh:
        mesh = regions.MediaPipe(options.landmarker)
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
    network = _network(options.weights)
    for line in study(subject, options.out, yunet=yunet, mesh=mesh, network=network):
        print(line, flush=True)


def _beside(options: argparse.Namespace) -> None:
    from .region_comparison import beside

    for line in beside(options.ours, options.theirs, options.out):
        print(line)


def _audit(options: argparse.Namespace) -> None:
    from .audit import Plan, audit
    from .train import Machine

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
    for line in audit(load(options.data), options.out, plan):
        print(line, flush=True)


def _leakage(options: argparse.Namespace) -> None:
    from .leakage import experiment
    from .leakage_runs import Plan

    plan = Plan(options.faces, options.epochs, options.seeds, device=options.device)
    for line in experiment(load(options.data), options.out, plan):
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


def _add_studies(commands: Any) -> tuple[argparse.ArgumentParser, ...]:
    """Add the commands regions, beside, explain and leakage; return those that read the data."""
    study = commands.add_parser(
        "regions", help="measure where the evidence is, and whether it is needed"
    )
    study.add_argument("--split", choices=USAGES, default="PublicTest")
    study.add_argument("--limit", type=int, help="only the first faces; default all")
    study.add_argument("--out", type=Path, default=Path("out/regions"), help="folder of the tables")
    study.add_argument("--no-mesh", action="store_true", help="without MediaPipe's comparison")
    study.add_argument(
        "--layer", action="append", help="repeat for several; default: two that suit the network"
    )
    study.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the check, which is most of the work; default float32",
    )
    study.set_defaults(run=_regions)

    beside = commands.add_parser("beside", help="set the regions of two networks side by side")
    beside.add_argument("ours", type=Path, metavar="FOLDER", help="what regions wrote for one")
    beside.add_argument("theirs", type=Path, metavar="FOLDER", help="and for the other")
    beside.add_argument("--out", type=Path, default=Path("out/beside"), help="folder of the tables")
    beside.set_defaults(run=_beside)

    explain = commands.add_parser(
        "explain", help="galleries of right and wrong faces: do not share"
    )
    explain.add_argument("--split", choices=USAGES, default="PublicTest")
    explain.add_argument(
        "--layer", help="where Grad-CAM looks; default: one that tells parts apart"
    )
    explain.add_argument("--count", type=int, default=4, help="faces a sheet at most; default 4")
    explain.add_argument(
        "--out", type=Path, default=Path("out/explain"), help="folder of the sheets"
    )
    explain.set_defaults(run=_explain)

    leakage = commands.add_parser("leakage", help="show what leaking splits do to the accuracy")
    leakage.add_argument("--faces", type=int, default=5000, help="most faces; default 5000")
    leakage.add_argument("--epochs", type=int, default=16, help="of each training; default 16")
    leakage.add_argument("--seeds", type=int, default=2, help="repetitions; default 2")
    leakage.add_argument("--out", type=Path, default=Path("out/leakage"), help="folder of the runs")
    leakage.set_defaults(run=_leakage)
    return study, explain, leakage


def _add_audit(commands: Any) -> argparse.ArgumentParser:
    """Add the command audit, and return it."""
    audit: argparse.ArgumentParser = commands.add_parser(
        "audit", help="find twins, blanks and doubtful labels"
    )
    audit.add_argument(
        "--folds", type=int, default=0, help="judge Training's labels by so many networks; slow"
    )
    audit.add_argument("--config", default="first", help="trains the folds; default first")
    audit.add_argument("--epochs", type=int, help="of a fold, instead of the configuration's")
    audit.add_argument("--seed", type=int, default=0, help="of the folds")
    audit.add_argument("--ferplus", type=Path, metavar="FILE", help="FER+'s fer2013new.csv")
    audit.add_argument(
        "--drop",
        metavar="KINDS",
        help="write an index for train --index, without some of duplicates,blanks,labels",
    )
    audit.add_argument("--shown", type=int, default=10, help="faces a sheet; default 10")
    audit.add_argument("--out", type=Path, default=Path("out/audit"), help="folder of the results")
    audit.set_defaults(run=_audit)
    return audit


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fer2013", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a configuration; resumes a stopped run")
    train.add_argument("name", help=f"{', '.join(CONFIGS)}, or a run's folder to repeat")
    train.add_argument("--index", type=Path, metavar="FILE", help="what audit --drop writes")
    train.add_argument("--out", type=Path, help="the run's folder; default runs/NAME")
    train.add_argument(
        "--weights", help="none, imagenet or a file to start from; default: the configuration's"
    )
    train.add_argument("--epochs", type=int, help="instead of the configuration's")
    train.add_argument("--side", type=int, choices=(48, 96, 224), help="input size; default 48")
    train.add_argument("--seed", type=int, help="default 0, or that of the run to repeat")
    as_lightning = "as Lightning's Trainer takes it"
    train.add_argument(
        "--precision", help=f"{as_lightning}; default bf16-mixed, or that of the run to repeat"
    )
    train.add_argument("--devices", type=int, default=1, help=as_lightning)
    train.add_argument("--num-nodes", type=int, default=1, help=as_lightning)
    train.add_argument("--strategy", default="auto", help=as_lightning)
    train.add_argument("--workers", type=int, default=1, help="loading processes a device")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate", help="measure a network: report by class, confusions, calibration, intervals"
    )
    evaluate.add_argument(
        "--split", nargs="+", choices=tuple(TESTS), help="default: PublicTest, PrivateTest"
    )
    evaluate.add_argument(
        "--averaging", choices=tuple(MEANINGS), help="default: that of the configuration"
    )
    evaluate.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    evaluate.add_argument(
        "--out", type=Path, help="folder; default: evaluation in a run's, or out/evaluate/NAME"
    )
    evaluate.add_argument(
        "--record", action="store_true", help="keep the figures in the package, for compare"
    )
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser("compare", help="set all runs beside the deck's figures")
    compare.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs; default runs")
    compare.add_argument("--out", type=Path, default=Path("out/compare"), help="folder to write to")
    compare.set_defaults(run=_compare)

    study, explain, leakage = _add_studies(commands)
    audit = _add_audit(commands)

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

    for command in (train, evaluate, study, template, explain, audit, leakage):
        command.add_argument(
            "--data", type=Path, default=Path("data"), help="a CSV file or folder; default data"
        )
    for command in (evaluate, study, demo, explain, audit):
        command.add_argument("--weights", type=Path, default=weights.SHIPPED)
    for command in (study, template, demo):
        command.add_argument("--yunet", type=Path, help="YuNet's model file; default: fetched once")
    for command in (study, template):
        command.add_argument("--landmarker", type=Path, help="MediaPipe's model file; likewise")
    on_cpu = [(command, "cpu") for command in (evaluate, explain, study, audit, leakage, demo)]
    for command, default in ((train, "auto"), *on_cpu):
        command.add_argument("--device", default=default, help=f"default {default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
