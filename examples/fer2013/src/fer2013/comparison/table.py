"""All networks beside the deck's figures, each on the test set that it was measured on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS
from ..evaluation.records import MEASURED
from ..evaluation.report import ROWS
from ..files import write_csv, write_figure, write_json
from ..training.initial_weights import PRETRAIN
from . import deck, verdicts
from .report import as_text, draw, notes
from .results import RANDOM, Result, collect, representative

#: What has a row even where nothing was measured.
ALWAYS = ("base", "config1", "config2", "config3", "config4", "config5")


def compare(runs: Path, out: Path, *, measured: Path = MEASURED) -> Iterator[str]:
    """Set every run's figures beside the deck's, write them, and say them line by line.

    Args:
        runs: the folder of the runs; it need not be there.
        out: the folder of comparison.csv, per_class.csv, verdicts.csv, comparison.json and
            comparison.png.
        measured: the records that come with the package.

    Raises:
        OSError: the folder is not writable, or the disk is full.
    """
    results, skipped = collect(runs, measured)
    table, classes = rows(results), per_class(results)
    yield as_text(table)
    yield ""
    yield from notes(table)
    judged = verdicts.judge(results)
    yield "\nwhat the deck concludes, and whether it holds here:"
    for verdict in judged:
        yield f"  {verdict.words}"
    yield "\nF1 by emotion, each network on the test set in its heading:"
    yield classes.round(2).to_string(index=False)
    yield "\npublished, by other protocols:"
    for what, percent, on, source in deck.OTHERS:
        yield f"  {percent:5.2f}  {what}, {on}; {source}"
    for line in skipped:
        yield f"skipped: {line}"
    write_csv(table, out / "comparison.csv")
    write_csv(classes, out / "per_class.csv")
    write_csv(pd.DataFrame(map(dataclasses.asdict, judged)), out / "verdicts.csv")
    write_figure(draw(table), out / "comparison.png", dpi=110)
    found = {
        "deck": deck.SOURCE,
        "rows": table.astype(object).where(table.notna(), None).to_dict("records"),
        "verdicts": [dataclasses.asdict(verdict) for verdict in judged],
        "f1": classes.astype(object).where(classes.notna(), None).to_dict("records"),
        "published": [
            dict(zip(("what", "percent", "on", "source"), row, strict=True)) for row in deck.OTHERS
        ],
        "skipped": skipped,
    }
    write_json(found, out / "comparison.json")
    yield f"\nwrote {out}"


def rows(results: Sequence[Result]) -> pd.DataFrame:
    """Return the comparison, a row for each figure, and one for each that is still unmeasured.

    Args:
        results: of our networks.

    Returns:
        Columns configuration, source, network, split; deck_training, deck_validation (as the deck
        writes them), deck_test, deck_low, deck_high; training and validation (of the last epoch),
        accuracy, low, high and distinct (without faces that have a twin in Training), in percent,
        NaN where there is none; on, faces, averaging; status ("measured", "unmeasured", "no
        result" or "unfinished"); note; command.
    """
    names = [*ALWAYS, *(name for name in CONFIGS if name not in ALWAYS)]
    names += sorted({result.config.name for result in results} - set(names))
    found: list[dict[str, Any]] = []
    for name in names:
        ours = [result for result in results if result.config.name == name]
        faithful = any(not result.deviations and not result.substituted for result in ours)
        if name in ALWAYS and not faithful:
            found.append(_unmeasured(CONFIGS[name]))
        found += [_measured(result) for result in ours]
    return pd.DataFrame(found)


def commands(config: Config) -> str:
    """Return what measures a configuration: the one training, and its test."""
    given = f" --weights {config.weights}" if config.weights in ("imagenet", "none") else ""
    before = (
        "pretrain FOLDER" if config.weights == PRETRAIN else f"train {config.weights} --data DATA"
    )
    first = f"python -m fer2013 {before} && " if not given else ""
    test = "deck-test" if config.split == "deck" else "PublicTest"
    return (
        f"{first}python -m fer2013 train {config.name} --data DATA{given} && "
        f"python -m fer2013 evaluate --weights runs/{config.name}/{config.name}.safetensors "
        f"--data DATA --split {test}"
    )


def _unmeasured(config: Config) -> dict[str, Any]:
    return {
        **_described(Result(config, "", {})),
        "status": "unmeasured",
        "note": "",
        "command": commands(config),
    }


def _measured(result: Result) -> dict[str, Any]:
    """Return a result's row; random weights in place of ImageNet's give no figure."""
    # A run in a folder of another name must be told from the configuration's own.
    named = result.source == "package" or Path(result.source).name == result.config.name
    where = [] if named else [f"the run in {result.source}"]
    row = {
        **_described(result),
        "status": "measured",
        "note": "; ".join([*where, *result.deviations, *result.notes]),
        "command": result.command,
    }
    if not result.count:
        return {**row, "status": "unfinished", "command": commands(result.config)}
    if RANDOM in result.deviations:
        return {**row, "status": "no result", "note": "; ".join([*where, *result.deviations])}
    low, high = result.interval
    figures = {"accuracy": 100 * result.accuracy, "low": 100 * low, "high": 100 * high}
    for column, name in (("training", "train_accuracy"), ("validation", "val_accuracy")):
        figures[column] = 100 * result.facts.get("last_epoch", {}).get(name, math.nan)
    if result.distinct is not None:
        figures["distinct"] = 100 * result.distinct[1] / result.distinct[0]
    return {
        **row,
        **figures,
        "on": result.on,
        "faces": result.count,
        "averaging": result.averaging,
    }


def _described(result: Result) -> dict[str, Any]:
    """Return a row's first columns, with the deck's figures where it has any."""
    config = result.config
    row: dict[str, Any] = {
        "configuration": config.name,
        "source": result.source,
        "network": result.network,
        "split": config.split,
        **dict.fromkeys(("deck_training", "deck_validation"), ""),
        **dict.fromkeys(("deck_test", "deck_low", "deck_high"), math.nan),
        **dict.fromkeys(
            ("training", "validation", "accuracy", "low", "high", "distinct"), math.nan
        ),
        "on": "",
        "faces": 0,
        "averaging": "",
    }
    published = deck.CONFIGURATIONS.get(config.name)
    if published is not None:
        low, high = published.interval
        row |= {
            "deck_training": published.training,
            "deck_validation": published.validation,
            "deck_test": published.test,
            "deck_low": 100 * low,
            "deck_high": 100 * high,
        }
    return row


def per_class(results: Sequence[Result]) -> pd.DataFrame:
    """Return each emotion's F1: of the deck's configuration 4, and of each network trained here.

    Only what follows its configuration is here, at most with other photographs to pretrain on.

    Returns:
        Columns emotion, and one for each network, named with its test set.
    """
    table = {
        "emotion": ROWS,
        f"config4, the deck ({deck.TEST})": [deck.REPORT[name]["f1-score"] for name in ROWS],
    }
    for result in representative(results):
        title = f"{result.config.name}, ours ({result.on})"
        if not any(name.startswith(f"{result.config.name}, ours") for name in table):
            table[title] = [result.report[emotion]["f1-score"] for emotion in ROWS]
    return pd.DataFrame(table)
