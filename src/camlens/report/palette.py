"""Colours for the cells of the region tables."""

from __future__ import annotations

import numpy as np
import torch

from .. import render
from ..regions.masks import COLORS
from ..regions.plots import STRONGEST, shade

#: A cell's shade is between -STEPS and STEPS; 0 is chance.
STEPS = 8

# Colours on a dark page: the page's surface for chance, far below chance, and far above chance.
_SURFACE, _BELOW, _ABOVE = (33, 37, 42), (124, 98, 196), (224, 130, 50)


def step(value: float, *, strongest: float = STRONGEST, ratio: bool = True) -> int:
    """Return the shade of a density (1 is chance) or of a difference (0 is chance).

    Example:
        >>> step(1.0), step(2.0), step(0.25), step(-0.1, strongest=0.2, ratio=False)
        (0, 4, -8, -4)
    """
    if ratio:
        far = float(np.log2(max(value, 1 / strongest)) / np.log2(strongest))
    else:
        far = value / strongest if strongest > 0 else 0.0
    return round(STEPS * min(1.0, max(-1.0, far)))


def stylesheet() -> str:
    """Return the CSS rules of the heat's colour bar and of the shades on light and dark pages."""
    steps = range(-STEPS, STEPS + 1)
    light = "\n".join(_rule(s, _light(s / STEPS)) for s in steps)
    dark = "\n".join(_rule(s, _dark(s / STEPS)) for s in steps)
    return (
        f"{_color_bar()}\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    )


def lines() -> list[str]:
    """Return the colours of the regions' outlines, those of :meth:`camlens.regions.Regions.draw`.

    Example:
        >>> lines()[0]
        '#e69e00'
    """
    return [f"#{bytes(round(255 * part) for part in color).hex()}" for color in COLORS]


def _color_bar() -> str:
    """Return the CSS rule of ``colors``, which shows how the page draws heat from 0 to 1."""
    ramp = torch.linspace(0, 1, 17).view(1, 1, 1, -1)
    drawn = render.overlay(torch.zeros(1, 1, 1, 17), ramp, alpha=1.0)[0, 0, :, 0]
    stops = ", ".join(f"#{bytes(color).hex()}" for color in drawn.T.tolist())
    return f".colors {{ background: linear-gradient(to right, {stops}); }}"


def _light(far: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in shade(STRONGEST**far)[:3])


def _dark(far: float) -> tuple[int, ...]:
    end = _ABOVE if far > 0 else _BELOW
    return tuple(round(a + (b - a) * abs(far)) for a, b in zip(_SURFACE, end, strict=True))


def _rule(number: int, color: tuple[int, ...]) -> str:
    # Black or white, whichever has the higher contrast by the luminance of WCAG 2.
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in color]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    ink = "#000" if luminance > 0.179 else "#fff"
    return f".shade-{number + STEPS} {{ background: rgb{color}; color: {ink}; }}"
