"""From tables to one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from . import gallery, grids, palette, wording
from .findings import findings
from .tables import Tables, shown_target

#: How many unreadable images the page lists.
MOST_UNREADABLE = 200


def render(tables: Tables, images: Sequence[int]) -> str:
    """Return the page.

    Args:
        tables: of the run.
        images: dataset indexes of the images in the gallery.
    """
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
        style=Markup(style),  # like the script the package's own text
        script=Markup(script),
        data=embedded(_data(tables, images)),
        pictures=embedded(gallery.pictures(tables, images)),
        **_facts(tables, images),
    )


def embedded(value: Any) -> Markup:
    r"""Return JSON that can stand inside a script element, whatever strings it holds.

    ``</script>`` and ``<!--`` would end the element or change how it is read; everything beyond
    ASCII, and with it U+2028 and U+2029, is escaped by json itself.

    Example:
        >>> str(embedded("</script>"))
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy that lets nothing in but these two texts and pictures."""
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


def _data(tables: Tables, images: Sequence[int]) -> dict[str, Any]:
    """Return what the page's script reads."""
    shown = set(tables.images.loc[tables.images["image"].isin(images), "label"].dropna())
    shown |= set(tables.images.loc[tables.images["image"].isin(images), "prediction"].dropna())
    shown |= set(tables.maps.loc[tables.maps["image"].isin(images), "target"])
    return {
        "classes": {int(one): tables.class_name(int(one)) for one in sorted(shown) if one >= 0},
        "regions": tables.region_names,
        "settings": gallery.setting_names(tables),
        "targets": gallery.targets(tables, images),
        "colors": palette.colors(),
        "images": gallery.records(tables, images),
    }


def _facts(tables: Tables, images: Sequence[int]) -> dict[str, Any]:
    """Return what the template prints."""
    manifest = tables.manifest
    scored = tables.settings if tables.regions is not None else []
    ablations = [grids.ablation_grid(tables, setting) for setting in scored]
    return {
        "model": manifest.get("model", {}).get("name") or "the model",
        "weights": manifest.get("model", {}).get("weights", ""),
        "versions": manifest.get("versions", {}),
        "complete": manifest.get("complete", True),
        "settings": gallery.setting_names(tables),
        "target": shown_target(tables.maps),
        "findings": [
            (about, list(group))
            for about, group in itertools.groupby(findings(tables), lambda found: found.about)
        ],
        "unreadable": tables.unreadable.head(MOST_UNREADABLE).to_dict("records"),
        "unreadable_count": len(tables.unreadable),
        "densities": [grids.density_grid(tables, setting) for setting in scored],
        "ablations": [grid for grid in ablations if grid is not None],
        "shown": len(images),
        "readable": len(tables.images),
        "labelled": tables.labelled,
        "targets_cut": _most(tables) > gallery.MOST_TARGETS,
        "most_targets": gallery.MOST_TARGETS,
        "min_images": grids.MIN_IMAGES,
    }


def _most(tables: Tables) -> int:
    """Return how many targets the image with the most of them has."""
    return int(tables.maps["k"].max()) + 1 if len(tables.maps) else 0
