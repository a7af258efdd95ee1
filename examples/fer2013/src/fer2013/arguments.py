"""The options of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .configurations.recipes import CONFIGS
from .data.faces import USAGES
from .data.splits import TESTS
from .evaluation.predictions import MEANINGS, PRECISIONS
from .networks import weights
from .training.initial_weights import RUNS


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``command`` is the chosen one."""
    found = argparse.ArgumentParser(
        "fer2013", description="Train, measure and explain emotion networks on FER2013."
    )
    commands = found.add_subparsers(dest="command", required=True)
    data = _shared("--data", type=Path, default=Path("data"), help="CSV file or folder")
    network = _shared("--weights", type=Path, default=weights.SHIPPED, help="weights file")
    device = _shared("--device", default="cpu", help="default cpu")
    _add_training(commands, data)
    _add_evaluation(commands, [data, network, device])
    _add_explanations(commands, data, [network, device])
    _add_audit(commands, [data, network, device])

    leakage = commands.add_parser(
        "leakage", parents=[data, device], help="measure the effect of leaking splits"
    )
    leakage.add_argument("--faces", type=int, default=5000, help="maximum of images; default 5000")
    leakage.add_argument("--epochs", type=int, default=16, help="epochs per training; default 16")
    leakage.add_argument("--seeds", type=int, default=2, help="repetitions; default 2")
    leakage.add_argument("--out", type=Path, default=Path("out/leakage"), help="output folder")
    return found


def _shared(*names: str, **options: Any) -> argparse.ArgumentParser:
    """Return a parent parser with an option that several commands have."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(*names, **options)
    return shared


def _add_training(commands: Any, data: argparse.ArgumentParser) -> None:
    train = commands.add_parser("train", parents=[data], help="train, or resume, a configuration")
    train.add_argument("name", help=f"{', '.join(CONFIGS)}, or a run's folder to repeat")
    train.add_argument("--index", type=Path, metavar="FILE", help="an index by audit --drop")
    train.add_argument("--out", type=Path, help="the run's folder; default runs/NAME")
    train.add_argument(
        "--weights",
        help="initial weights: none, imagenet, pretrain or a file; default: the configuration's",
    )
    train.add_argument("--epochs", type=_positive, help="default: the configuration's")
    train.add_argument(
        "--side",
        type=int,
        choices=(48, 96, 224),
        help="input size of VGG in pixels; default: the configuration's",
    )
    train.add_argument("--seed", type=int, help="default 0, or that of the run to repeat")
    of_trainer = "option of Lightning's Trainer"
    train.add_argument("--device", default="auto", help="accelerator; default auto")
    train.add_argument(
        "--precision", help=f"{of_trainer}; default bf16-mixed, or that of the run to repeat"
    )
    train.add_argument("--devices", type=_positive, default=1, help=of_trainer)
    train.add_argument("--num-nodes", type=_positive, default=1, help=of_trainer)
    train.add_argument("--strategy", default="auto", help=of_trainer)

    pretrain = commands.add_parser(
        "pretrain", help="train VGG19 on Tiny ImageNet, as a substitute for ImageNet's weights"
    )
    pretrain.add_argument(
        "photographs", type=Path, metavar="FOLDER", help="with train/<class>/ and val/<class>/"
    )
    pretrain.add_argument("--out", type=Path, default=RUNS / "pretrain", help="output folder")
    pretrain.add_argument("--epochs", type=_positive, default=15, help="default 15")
    pretrain.add_argument(
        "--start", metavar="CHECKPOINT", help="last.ckpt of an earlier run to start from"
    )
    pretrain.add_argument(
        "--rate", type=float, default=0.1, help="maximum learning rate; default 0.1"
    )
    pretrain.add_argument(
        "--smallest", type=int, default=32, help="image size in the first epoch; default 32"
    )
    pretrain.add_argument("--limit", type=_positive, help="maximum of photographs, for a trial")
    pretrain.add_argument("--seed", type=int, default=0, help="default 0")
    pretrain.add_argument("--device", default="auto", help="accelerator; default auto")
    pretrain.add_argument("--precision", default="bf16-mixed", help="default bf16-mixed")


def _add_evaluation(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser(
        "evaluate", parents=shared, help="measure accuracy, confusions and calibration"
    )
    evaluate.add_argument(
        "--split", nargs="+", choices=tuple(TESTS), help="default: PublicTest, PrivateTest"
    )
    evaluate.add_argument(
        "--averaging", choices=tuple(MEANINGS), help="default: the configuration's"
    )
    evaluate.add_argument("--precision", choices=PRECISIONS, default="float32")
    evaluate.add_argument(
        "--out", type=Path, help="folder; default: evaluation in the run's, or out/evaluate/NAME"
    )
    evaluate.add_argument(
        "--record", action="store_true", help="store the results in the package, for compare"
    )

    compare = commands.add_parser("compare", help="compare all runs with the slide deck's results")
    compare.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs; default runs")
    compare.add_argument("--out", type=Path, default=Path("out/compare"), help="output folder")


def _add_explanations(
    commands: Any, data: argparse.ArgumentParser, network: list[argparse.ArgumentParser]
) -> None:
    yunet = _shared("--yunet", type=Path, help="YuNet's model file; default: download it once")
    mesh = _shared("--landmarker", type=Path, help="MediaPipe's model file; default: download it")
    demo = commands.add_parser(
        "demo", parents=[*network, yunet], help="explain two photographs, or one of your own"
    )
    demo.add_argument("photo", type=Path, nargs="?", metavar="PHOTO")
    demo.add_argument(
        "--box",
        type=_box,
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="the face's square in pixels, the brows a quarter from the top and the chin at the "
        "lower edge; default: YuNet detects it",
    )
    demo.add_argument("--out", type=Path, default=Path("out"), help="output folder; default out")

    explain = commands.add_parser(
        "explain",
        parents=[data, *network],
        help="explain correct and wrong predictions; do not publish the images",
    )
    explain.add_argument("--split", choices=USAGES, default="PublicTest")
    explain.add_argument(
        "--layer", help="Grad-CAM's layer; default: the last that resolves eyes and mouth"
    )
    explain.add_argument("--count", type=int, default=4, help="images per sheet; default 4")
    explain.add_argument("--out", type=Path, default=Path("out/explain"), help="output folder")

    regions = commands.add_parser(
        "regions",
        parents=[data, *network, yunet, mesh],
        help="measure which regions heatmaps highlight and which regions the score needs",
    )
    regions.add_argument("--split", choices=USAGES, default="PublicTest")
    regions.add_argument("--limit", type=int, help="only the first images; default: all")
    regions.add_argument("--out", type=Path, default=Path("out/regions"), help="output folder")
    regions.add_argument("--no-mesh", action="store_true", help="do not compare with MediaPipe")
    regions.add_argument("--layer", action="append", help="repeatable; default: two layers")
    regions.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the ablations, which take most of the time; default float32",
    )

    beside = commands.add_parser("beside", help="compare the regions of two networks")
    for name in ("first", "second"):
        beside.add_argument(name, type=Path, metavar="FOLDER", help="an output folder of regions")
    beside.add_argument("--out", type=Path, default=Path("out/beside"), help="output folder")

    template = commands.add_parser(
        "template", parents=[data, yunet, mesh], help="measure camlens's face template again"
    )
    template.add_argument("--limit", type=int, default=4000, help="number of images; default 4000")


def _add_audit(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser(
        "audit", parents=shared, help="find duplicates, blank images and label errors"
    )
    audit.add_argument(
        "--folds", type=int, default=0, help="cross-validate Training's labels; default 0: do not"
    )
    audit.add_argument("--config", default="first", help="the folds' configuration; default first")
    audit.add_argument("--epochs", type=int, help="epochs per fold; default: the configuration's")
    audit.add_argument("--seed", type=int, default=0, help="seed of the folds; default 0")
    audit.add_argument("--ferplus", type=Path, metavar="FILE", help="FER+'s fer2013new.csv")
    audit.add_argument(
        "--drop",
        metavar="KINDS",
        help="write an index for train --index without some of duplicates,blanks,labels",
    )
    audit.add_argument("--shown", type=int, default=10, help="images per sheet; default 10")
    audit.add_argument("--out", type=Path, default=Path("out/audit"), help="output folder")


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
