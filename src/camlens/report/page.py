"""Render tables as a single HTML file that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from . import findings, gallery, palette, region_tables, trust, wording
from .columns import MEASURES
from .curves import HEIGHT, WIDTH, curves
from .pictures import pictures
from .run_tables import Tables, shown_target
from .single_images import single_images

#: Largest number of unreadable images that the page lists.
MOST_UNREADABLE = 200


def render(tables: Tables, images: Sequence[int], folder: Path) -> str:
    """Render the page.

    Args:
        tables: the run's tables.
        images: dataset indexes of the images in the gallery.
        folder: the page's folder, to which links to images' files are relative.
    """
    records = gallery.records(tables, images, folder)
    found = findings.findings(tables)
    densities, ablations = region_tables.density_grids(tables), region_tables.ablation_grids(tables)
    downloads = {
        "findings.csv": _csv(findings.records(tables, found)),
        "regions.csv": _csv(region_tables.records([*densities, *ablations])),
    }
    evaluation = tables.evaluation
    if evaluation is not None:
        downloads["evaluation.csv"] = _csv(trust.records(evaluation))
    style = _static("report.css") + palette.stylesheet()
    script = _static("report.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("camlens.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = wording.count
    template = environment.get_template("report.html.j2")
    return template.render(
        policy=policy(style, script),
        style=Markup(style),  # trusted: like the script, it belongs to the package
        script=Markup(script),
        data=embedded({**_data(tables, images), "images": records, "files": downloads}),
        pictures=embedded(pictures(tables, records)),
        findings=found,
        densities=densities,
        ablations=ablations,
        trust=None if evaluation is None else trust.trust(evaluation),
        single_images=single_images(tables),
        curves=[] if evaluation is None else curves(evaluation),
        plot={"width": WIDTH, "height": HEIGHT},
        **_facts(tables, images),
    )


def embedded(value: Any) -> Markup:
    r"""Return JSON that is safe inside a script element, whatever strings it contains.

    ``</script>`` and ``<!--`` would end the element or change how it is parsed; the json module
    escapes everything beyond ASCII, including U+2028 and U+2029.

    Example:
        >>> str(embedded("</script>"))
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that only allows this style, this script and pictures."""
    return (
        "default-src 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _static(name: str) -> str:
    return files("camlens.report").joinpath("static", name).read_text(encoding="utf-8")


def _csv(rows: Iterable[dict[str, object]]) -> str:
    """Return rows as CSV without text that a spreadsheet could take for a formula."""
    table = pd.DataFrame([{k: wording.spreadsheet(v) for k, v in row.items()} for row in rows])
    return "" if table.empty else table.to_csv(index=False)


def _data(tables: Tables, images: Sequence[int]) -> dict[str, Any]:
    """Return the data, other than the images, that the page's script reads."""
    shown = set(tables.images.loc[tables.images["image"].isin(images), "label"].dropna())
    shown |= set(tables.images.loc[tables.images["image"].isin(images), "prediction"].dropna())
    shown |= set(tables.maps.loc[tables.maps["image"].isin(images), "target"])
    return {
        "classes": {int(one): tables.class_name(int(one)) for one in sorted(shown) if one >= 0},
        "regions": tables.region_names,
        "lines": palette.lines(),
        "settings": _settings(tables),
        "targets": gallery.targets(tables, images),
        "measures": [MEASURES[name][0] for name in tables.measures],
    }


def _settings(tables: Tables) -> list[dict[str, str]]:
    return [
        {"name": tables.setting_name(setting), "detail": tables.setting_detail(setting)}
        for setting in tables.settings
    ]


def _facts(tables: Tables, images: Sequence[int]) -> dict[str, Any]:
    """Return the values, other than the tables, that the template prints."""
    manifest = tables.manifest
    most = gallery.most_targets(tables, images)
    return {
        "model": manifest.get("model", {}).get("name") or "the model",
        "weights": manifest.get("model", {}).get("weights", ""),
        "versions": {str(k): v for k, v in manifest.get("versions", {}).items()},
        "complete": manifest.get("complete", True),
        "settings": _settings(tables),
        "target": shown_target(tables.maps),
        "facts": findings.facts(tables),
        "notes": tables.notes,
        "unreadable": tables.unreadable.head(MOST_UNREADABLE).to_dict("records"),
        "unreadable_count": len(tables.unreadable),
        "shown": len(images),
        "readable": len(tables.images),
        "labelled": tables.labelled,
        "targets_cut": most < _most(tables),
        "most_targets": most,
        "min_images": region_tables.MIN_IMAGES,
    }


def _most(tables: Tables) -> int:
    """Return the largest number of targets of an image."""
    return int(tables.maps["k"].max()) + 1 if len(tables.maps) else 0
