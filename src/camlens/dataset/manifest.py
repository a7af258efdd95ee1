"""A run's manifest: its inputs and options, and the state of its results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..regions.tables import COLUMNS
from .shards import NAME, read_table, shard_name
from .tables import IMAGES, MAPS

#: Name and version of the format of a run's folder, recorded in the manifest.
FORMAT = "camlens.run.1"

_FORMAT_NAME = re.compile(r"camlens\.run\.(\d+)")

#: Fields that a run fills in, or that no number depends on; a run resumes whatever they are.
_FOUND = ("format", "complete", "images", "unreadable", "shards", "regions", "root", "notes")


#: Suffixes of fields that are hashes, and the messages to show when they differ.
_HASHED = (".weights", ".code", ".attributes", ".fingerprint")
_WORDS = {
    "model.weights": "a weight or a buffer of the model differs",
    "model.code": "the code of the model's classes differs",
    "model.attributes": "an attribute or a hook of the model differs",
    "dataset.fingerprint": "the data set differs: its items, its transform or its code",
    "targets.fingerprint": "the targets function differs: its code or a value that it uses",
    "picture.fingerprint": "the picture function differs: its code or a value that it uses",
    "region_source.fingerprint": "the regions differ: their masks, or the function that finds them",
}


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _is_method(value: Any) -> bool:
    fits = isinstance(value, dict) and isinstance(value.get("method"), str)
    return fits and isinstance(value.get("layers"), (list, type(None)))


#: Required fields of a manifest, and checks of their values.
_FITS: dict[str, Callable[[Any], bool]] = {
    **{"model": _is(dict), "versions": _is(dict), "complete": _is(bool), "shards": _is(list)},
    **{"images": _is(int, type(None)), "unreadable": _is(int, type(None))},
    **{"batch_size": _is_positive, "shard_size": _is_positive, "heatmaps": _is(str)},
    **{"regions": _is(list, type(None)), "classes": _is(list, type(None))},
    "methods": lambda value: isinstance(value, list) and all(map(_is_method, value)),
}


def write(run: Path, manifest: Mapping[str, Any]) -> None:
    """Write a run's manifest atomically; equal manifests give equal bytes.

    Raises:
        OSError: the folder is not writable, or the disk is full.
    """
    sealed = {**manifest, "sha256": _checksum(manifest)}
    text = json.dumps(sealed, indent=2, ensure_ascii=False)
    write_whole(run / "manifest.json", (text + "\n").encode("utf-8", "backslashreplace"))


def identity(manifest: Mapping[str, Any]) -> str:
    """Return a hash of everything that affects a run's results; each shard stores it."""
    return _checksum(_settings(manifest))


def check_identity(run: Path, identity_of_run: str) -> None:
    """Check that a folder still belongs to the run that writes to it.

    Raises:
        ValueError: another call has started a run there before this run's first shard was written.
    """
    if identity(read(run)) != identity_of_run:
        raise ValueError(
            f"{run} now contains a different run, started by another call: give each run its own "
            "folder"
        )


def _checksum(manifest: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read(run: Path) -> dict[str, Any]:
    """Read and check a run's manifest, which is not trusted.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the manifest is damaged, has another or a newer format, or names invalid shards,
            such as folders outside the run.
    """
    path = run / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} contains no manifest.json: it is not the folder of a run that "
            "camlens.dataset.explain_dataset wrote"
        )
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}. Repeat the run in a new folder") from None
    manifest = manifest if isinstance(manifest, dict) else {}
    _check_format(path, manifest.get("format"))
    for name, fits in _FITS.items():
        if name not in manifest or not fits(manifest[name]):
            raise ValueError(
                f"{path} is damaged: {name!r} is {manifest.get(name)!r}. Repeat the run in a new "
                "folder"
            )
    _check_shards(path, manifest)
    if manifest.pop("sha256", None) != _checksum(manifest):
        raise ValueError(
            f"{path} is damaged: its checksum does not match its content. Repeat the run in a new "
            "folder"
        )
    return manifest


def _check_format(path: Path, name: Any) -> None:
    if name == FORMAT:
        return
    match = _FORMAT_NAME.fullmatch(name) if isinstance(name, str) else None
    if match and int(match[1]) > 1:
        raise ValueError(
            f"{path} has format {name!r}, written by a newer camlens; this version reads "
            f"{FORMAT!r}: upgrade with pip install -U camlens"
        )
    raise ValueError(f"{path} has format {name!r}, expected {FORMAT!r}: it is not a run of camlens")


def _check_shards(path: Path, manifest: Mapping[str, Any]) -> None:
    shards = manifest["shards"]
    for name in shards:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"{path} names a shard {name!r}, expected names such as 'shard-00000': it was "
                "changed by hand, or is not safe to read"
            )
    if sorted(set(shards)) != sorted(shards):
        raise ValueError(f"{path} names a shard twice: it was changed by hand")
    size, items = manifest["shard_size"], manifest["images"]
    if manifest["complete"] and (items is None or len(shards) < -(-items // size)):
        raise ValueError(
            f"{path} names {len(shards)} shards of {size} items for {items} items: it was changed "
            "by hand"
        )


def check_same(run: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Check that a run resumes with the inputs and options it started with.

    Raises:
        ValueError: something that affects the numbers differs; the message lists it.
    """
    differing = list(_differences("", _settings(old), _settings(new)))
    if differing:
        raise ValueError(
            f"{run} contains a different run, which would be mixed with this one: "
            f"{'; '.join(differing[:5])}. Choose another folder, or delete this one"
        )


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that affect the results."""
    settings = {name: value for name, value in manifest.items() if name not in _FOUND}
    settings["methods"] = [
        {**method, "layers": None} if finds_its_layer(method) else method
        for method in settings["methods"]
    ]
    settings["versions"] = {k: v for k, v in settings["versions"].items() if k != "python"}
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def finds_its_layer(method: Mapping[str, Any]) -> bool:
    """Return whether an explainer, described in a manifest, finds its layer itself."""
    options = method.get("options")
    return isinstance(options, dict) and options.get("layer") == "last"


def _differences(name: str, old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            inner = f"{name}.{key}" if name else key
            yield from _differences(inner, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{name}[{place}]", a, b)
    elif old != new and name.endswith(_HASHED):
        yield _WORDS.get(name, f"{name.rpartition('.')[0]} differs in its code or its contents")
    elif old != new:
        yield f"{name} was {_short(old)} and is now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def completed(run: Path, items: int) -> dict[str, Any]:
    """Return the manifest of a run whose shards are all present.

    Args:
        run: the run's folder.
        items: number of items in the data set.

    Raises:
        ValueError: a shard is damaged or contains the wrong images.
    """
    manifest = read(run)
    run_identity = identity(manifest)
    size = manifest["shard_size"]
    unreadable = 0
    names = [shard_name(number) for number in range(-(-items // size))]
    for number, name in enumerate(names):
        path = run / name / "images.parquet"
        images = read_table(path, list(IMAGES), run_identity, only=["image", "reason"])
        expected = range(number * size, min(items, (number + 1) * size))
        if images["image"].tolist() != list(expected):
            raise ValueError(
                f"{path} contains {len(images)} items, expected items {expected.start} to "
                f"{expected.stop - 1}: it belongs to a data set of another length. "
                f"Delete the folder {path.parent} and run explain_dataset again"
            )
        unreadable += int(images["reason"].notna().sum())
    results = {"complete": True, "images": items, "unreadable": unreadable, "shards": names}
    methods = _with_layers(run, names, manifest["methods"], run_identity)
    regions = manifest["regions"]
    if manifest["region_source"] is not None and regions is None:
        regions = _region_names(run, names, run_identity)
    return {**manifest, "methods": methods, "regions": regions, **results}


def _with_layers(
    run: Path, names: list[str], methods: list[dict[str, Any]], identity: str
) -> list[Any]:
    """Fill in the layers that explainers found themselves."""
    if not any(map(finds_its_layer, methods)):
        return methods
    for name in names:
        path = run / name / "maps.parquet"
        table = read_table(path, list(MAPS), identity, only=["image", "k", "layer"])
        if len(table):
            # An image's first targets, in the order of the explainers: two may use one method.
            first = table[(table["image"] == table["image"].iloc[0]) & (table["k"] == 0)]
            return [
                {**method, "layers": layer.split("+")} if finds_its_layer(method) else method
                for method, layer in zip(methods, first["layer"], strict=True)
            ]
    return methods


def _region_names(run: Path, names: list[str], identity: str) -> list[str] | None:
    """Return the names of the regions in all shards, in order of appearance."""
    names_seen: dict[str, None] = {}
    for name in names:
        path = run / name / "regions.parquet"
        table = read_table(path, COLUMNS, identity, only=["region"])
        names_seen |= dict.fromkeys(str(value) for value in table["region"].unique())
    return list(names_seen) or None
