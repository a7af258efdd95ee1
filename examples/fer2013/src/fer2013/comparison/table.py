"""The table that compares all networks with the slide deck, and the command ``compare``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..configurations.config import Config
from ..configurations.recipes import CONFIGS
from ..evaluation.report import ROWS
from ..files import write_csv, write_figure, write_json
from ..training.initial_weights import PRETRAIN
from . import deck, verdicts
from .report import as_text, draw, notes
from .results import RANDOM, Result, collect, network, representative

#: Configurations that have a row even if they have not been measured.
ALWAYS = ("base", "config1", "config2", "config3", "config4", "config5")


def compare(runs: Path, out: Path) -> Iterator[str]:
    """Compare all runs with the slide deck, write the results, and yield them as lines of text.

    Args:
        runs: the folder of the runs, which need not exist.
        out: the folder of ``comparison.csv``, ``per_class.csv``, ``verdicts.csv``,
            ``comparison.json`` and ``comparison.png``.
    """
    results, skipped = collect(runs)
    table, classes = rows(results), per_class(results)
    yield as_text(table)
    yield ""
    yield from notes(table)
    judged = verdicts.judge(results)
    yield "\nthe deck's conclusions, and our results:"
    for verdict in judged:
        yield f"  {verdict.verdict:<15} {verdict.claim}: {verdict.evidence}"
    yield "\nF1 by emotion, with the test set of each network:"
    yield classes.round(2).to_string(index=False)
    yield "\npublished results of other protocols:"
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
    """Return the comparison, with a row for each result and each unmeasured configuration.

    Returns:
        Columns configuration, source, network, split; deck_training, deck_validation (the deck's
        text), deck_test, deck_low, deck_high; training and validation (of the last epoch),
        accuracy, low, high and distinct (without duplicates of Training images), in percent, or
        NaN; on, faces, averaging; status ("measured", "unmeasured", "no result" or "unfinished");
        note; command.
    """
    names = [*ALWAYS, *(name for name in CONFIGS if name not in ALWAYS)]
    names += sorted({result.config.name for result in results} - set(names))
    found: list[dict[str, Any]] = []
    for name in names:
        ours = [result for result in results if result.config.name == name]
        if name in ALWAYS and not any(result.faithful for result in ours):
            config = CONFIGS[name]
            row = _described(Result(config, "", {}))
            found.append({**row, "status": "unmeasured", "note": "", "command": _commands(config)})
        found += [_measured(result) for result in ours]
    return pd.DataFrame(found)


def _commands(config: Config) -> str:
    """Return the shell commands that train and evaluate a configuration."""
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


def _measured(result: Result) -> dict[str, Any]:
    """Return a result's row, without accuracy if random weights replace ImageNet's."""
    # Name the folder of a run whose folder does not have the configuration's name.
    named = result.source == "package" or Path(result.source).name == result.config.name
    where = [] if named else [f"the run in {result.source}"]
    row = {
        **_described(result),
        "status": "measured",
        "note": "; ".join([*where, *result.deviations, *result.notes]),
        "command": result.command,
    }
    if not result.count:
        return {**row, "status": "unfinished", "command": _commands(result.config)}
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
    """Return the first columns of a row, with the deck's results if there are any."""
    config = result.config
    row: dict[str, Any] = {
        "configuration": config.name,
        "source": result.source,
        "network": network(config, result.facts),
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
    """Return each emotion's F1: of the deck's configuration 4, and of each of our configurations.

    Returns:
        Columns emotion, and one for each network, whose name includes its test set.
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
