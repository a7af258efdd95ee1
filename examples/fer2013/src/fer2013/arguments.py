"""The command line's arguments: ``python -m fer2013 COMMAND``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .configurations.recipes import CONFIGS
from .data.faces import USAGES
from .data.splits import TESTS
from .evaluation.predictions import MEANINGS
from .networks import weights

DESCRIPTION = "From training and evaluation to what a network looks at, on FER2013's faces."

#: Where training runs are kept.
RUNS = Path("runs")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``command`` is the chosen one."""
    found = argparse.ArgumentParser("fer2013", description=DESCRIPTION)
    commands = found.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a configuration; resumes a stopped run")
    train.add_argument("name", help=f"{', '.join(CONFIGS)}, or a run's folder to repeat")
    train.add_argument("--index", type=Path, metavar="FILE", help="what audit --drop writes")
    train.add_argument("--out", type=Path, help="the run's folder; default runs/NAME")
    train.add_argument(
        "--weights",
        help="none, imagenet, pretrain or a file to start from; default: the configuration's",
    )
    train.add_argument("--epochs", type=_positive, help="instead of the configuration's")
    train.add_argument(
        "--side",
        type=int,
        choices=(48, 96, 224),
        help="input size of VGG; default: the configuration's",
    )
    train.add_argument("--seed", type=int, help="default 0, or that of the run to repeat")
    as_lightning = "as Lightning's Trainer takes it"
    train.add_argument(
        "--precision", help=f"{as_lightning}; default bf16-mixed, or that of the run to repeat"
    )
    train.add_argument("--devices", type=_positive, default=1, help=as_lightning)
    train.add_argument("--num-nodes", type=_positive, default=1, help=as_lightning)
    train.add_argument("--strategy", default="auto", help=as_lightning)

    _add_pretrain(commands)

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

    compare = commands.add_parser("compare", help="set all runs beside the deck's figures")
    compare.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs; default runs")
    compare.add_argument("--out", type=Path, default=Path("out/compare"), help="folder to write to")

    study, explain, leakage = _add_studies(commands)
    audit = _add_audit(commands)

    template = commands.add_parser("template", help="measure camlens's face template anew")
    template.add_argument("--limit", type=int, default=4000, help="faces to look at; default 4000")

    demo = commands.add_parser("demo", help="explain two photographs, or one of your own")
    demo.add_argument("photo", type=Path, nargs="?", metavar="PHOTO")
    demo.add_argument(
        "--box",
        type=_box,
        metavar="x,y,w,h",
        help="the face: brows to chin, square; default: YuNet finds it",
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the sheet to write")

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
    return found


def _add_pretrain(commands: Any) -> None:
    pretrain = commands.add_parser(
        "pretrain", help="train VGG19 on Tiny ImageNet, where ImageNet's weights cannot be had"
    )
    pretrain.add_argument(
        "photographs", type=Path, metavar="FOLDER", help="with train/ and val/, a folder a class"
    )
    pretrain.add_argument("--out", type=Path, default=RUNS / "pretrain", help="folder to write to")
    pretrain.add_argument("--epochs", type=_positive, default=15, help="default 15")
    pretrain.add_argument(
        "--start", metavar="CHECKPOINT", help="last.ckpt of an earlier run to begin with"
    )
    pretrain.add_argument(
        "--rate", type=float, default=0.1, help="highest learning rate; default 0.1"
    )
    pretrain.add_argument(
        "--smallest", type=int, default=32, help="pixels a side in the first epoch; default 32"
    )
    pretrain.add_argument("--limit", type=_positive, help="only so many photographs, to try it out")
    pretrain.add_argument("--seed", type=int, default=0, help="default 0")
    pretrain.add_argument("--device", default="auto", help="default auto")
    pretrain.add_argument("--precision", default="bf16-mixed", help="default bf16-mixed")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


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

    beside = commands.add_parser("beside", help="set the regions of two networks side by side")
    beside.add_argument("ours", type=Path, metavar="FOLDER", help="what regions wrote for one")
    beside.add_argument("theirs", type=Path, metavar="FOLDER", help="and for the other")
    beside.add_argument("--out", type=Path, default=Path("out/beside"), help="folder of the tables")

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

    leakage = commands.add_parser("leakage", help="show what leaking splits do to the accuracy")
    leakage.add_argument("--faces", type=int, default=5000, help="most faces; default 5000")
    leakage.add_argument("--epochs", type=int, default=16, help="of each training; default 16")
    leakage.add_argument("--seeds", type=int, default=2, help="repetitions; default 2")
    leakage.add_argument("--out", type=Path, default=Path("out/leakage"), help="folder of the runs")
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
    return audit
