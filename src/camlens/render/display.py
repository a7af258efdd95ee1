"""The figure of an explanation: images, heatmaps, targets, scores and a colour bar.

The module imports matplotlib, so import it where it is used.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Patch
from torch import Tensor

from .. import heatmap
from ..targets import NO_CLASS
from . import concept_pictures, drawable, overlays, slices
from .figures import Figure

if TYPE_CHECKING:
    from ..explanation import Explanation

_COLORMAP = "turbo"

# Inches: the widths of a picture and a signal, a signal's height, the colour bar with its label.
_PICTURE, _SIGNAL, _SIGNAL_HEIGHT, _BAR = 2.2, 3.6, 1.4, 1.0

# Names of a figure's rows, by the number of axes.
_KINDS = {1: "signal", 2: "image", 3: "volume"}


def draw(
    explanation: Explanation,
    images: Tensor | None,
    *,
    classes: Sequence[str] | None,
    rows: int,
    columns: int,
) -> Figure:
    """Draw an explanation; see :meth:`camlens.Explanation.show`."""
    n, k = explanation.scores.shape
    if min(n, k, rows, columns) < 1:
        raise ValueError(
            "expected at least one image, target, row and column to draw, got "
            f"{n} images, {k} targets, rows={rows} and columns={columns}"
        )
    _check_classes(explanation, classes)
    kind, rows, columns = _KINDS[len(explanation.size)], min(n, rows), min(k, columns)
    pictures, notes = drawable.prepare(images, explanation.size, count=n, rows=rows)
    # Columns of the images themselves, and of their concepts.
    images_first = int(pictures is not None and pictures.ndim > 3)
    beside = images_first + int(explanation.concepts is not None and len(explanation.size) == 2)
    figure, panels = _panels(explanation.size, rows, columns + beside)
    for row, line in enumerate(panels):
        if n > 1:
            line[0].set_ylabel(f"{kind} {row}", fontsize=9)
        picture = None if pictures is None else pictures[row : row + 1]
        if beside > images_first:
            _draw_concepts(line[images_first], explanation, row, picture)
        for place, target in enumerate(_drawn_targets(explanation, row, columns)):
            heat = _heat(explanation, row, target)
            title = _label(explanation, row, target, classes)
            if heat.ndim == 3:
                _draw_signal(line[place], heat[0, 0], None if picture is None else picture[0])
                line[place].set_title(title, fontsize=9, parse_math=False)
                continue
            heat, view, cut = _view(heat, picture)
            if view is not None and place == 0:
                line[0].imshow(overlays.as_rgb(view)[0].permute(1, 2, 0).numpy())
                line[0].set_title("image" + cut, fontsize=9)
            _draw_map(line[place + beside], heat, view)
            line[place + beside].set_title(title + cut, fontsize=9, parse_math=False)
    _annotate(figure, explanation, [*_left_out(kind, n, k, rows, columns), *notes])
    return figure


def _check_classes(explanation: Explanation, classes: Sequence[str] | None) -> None:
    if classes is None:
        return
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"expected classes as a sequence of names, got {classes!r:.60}")
    outputs = explanation.outputs
    if outputs is not None and outputs.ndim == 2 and len(classes) != outputs.shape[1]:
        raise ValueError(
            f"expected {outputs.shape[1]} class names, one for each of the model's outputs, got "
            f"{len(classes)}"
        )
    largest = int(explanation.targets.max())
    if largest >= len(classes):
        raise ValueError(
            f"expected at least {largest + 1} class names for class {largest}, got {len(classes)}"
        )


def _drawn_targets(explanation: Explanation, row: int, columns: int) -> list[int]:
    """Return the columns of the targets to draw: all, or those with the highest scores."""
    scores = explanation.scores[row].detach()
    if columns == len(scores):
        return list(range(columns))
    highest: list[int] = scores.float().topk(columns).indices.tolist()
    return highest


def _heat(explanation: Explanation, row: int, target: int) -> Tensor:
    """Return one heatmap, (1, 1, *size), as those of all targets may not fit into memory."""
    only = slice(row, row + 1), slice(target, target + 1)
    single = dataclasses.replace(
        explanation,
        raw=explanation.raw[only].detach().cpu(),
        scores=explanation.scores[only],
        targets=explanation.targets[only],
        gradients=None,
        outputs=None,
        measures={},
        concepts=None,
    )
    return single.heatmaps.float()


def _label(explanation: Explanation, row: int, target: int, classes: Sequence[str] | None) -> str:
    """Return the name and the score of a target, on two or three lines."""
    score = f"{float(explanation.scores[row, target]):.4g}"
    count, index = explanation.scores.shape[1], int(explanation.targets[row, target])
    if index == NO_CLASS:
        return f"computed score{f' {target + 1} of {count}' if count > 1 else ''}\n{score}"
    if classes is not None:
        lines = textwrap.wrap(classes[index], 26, max_lines=2, placeholder=" ...")
        return "\n".join([*lines, f"score {score}"])
    outputs = explanation.outputs
    if outputs is not None and (outputs.ndim == 1 or outputs.shape[1:] == (1,)):
        return f"the model's only output\n{score}"
    return f"class {index}\nscore {score}"


def _view(heat: Tensor, picture: Tensor | None) -> tuple[Tensor, Tensor | None, str]:
    """Return the map and the picture to draw, (1, ..., H, W), and the cut in words."""
    if picture is not None:
        heat = heatmap.resize(heat, picture.shape[2:])
    if heat.ndim == 4:
        return heat, picture, ""
    index = int(slices.hottest(heat))
    cut = f"\nslice {index} (0 to {heat.shape[2] - 1})"
    return heat[:, :, index], None if picture is None else picture[:, :, index], cut


def _draw_map(panel: Axes, heat: Tensor, picture: Tensor | None) -> None:
    """Draw a (1, 1, H, W) heatmap over its picture, or alone."""
    evidence = bool(heat.any())
    if picture is None:
        values = heat[0, 0].numpy() if evidence else np.full(heat.shape[2:], np.nan)
        panel.imshow(values, cmap=_COLORMAP, vmin=0, vmax=1)
    else:
        # Without evidence no heat is drawn: the colour of 0 over the whole image looks like heat.
        drawn = overlays.overlay(picture, heat, colormap=_COLORMAP, alpha=0.5 if evidence else 0.0)
        panel.imshow(drawn[0, 0].permute(1, 2, 0).numpy())
    if not evidence:
        _say_no_evidence(panel)


def _draw_concepts(panel: Axes, explanation: Explanation, row: int, picture: Tensor | None) -> None:
    """Draw an image's concepts in colours; the legend shows the change of its top score."""
    held = explanation[row].concepts
    if held is None:
        return
    shown = slice(0, len(concept_pictures.COLORS))
    maps = held.maps[:, shown].detach().cpu()
    placed = dataclasses.replace(
        explanation[row].cpu(),
        raw=maps,
        scores=maps.flatten(2).amax(dim=2),
        targets=torch.zeros(maps.shape[:2], dtype=torch.int64),
        gradients=None,
        outputs=None,
        measures={},
        concepts=None,
    ).heatmaps
    size = placed.shape[2:] if picture is None else picture.shape[2:]
    base = torch.full((1, 1, *size), 0.9) if picture is None else picture
    drawn = concept_pictures.concepts(base, heatmap.resize(placed, size).clamp(0, 1))
    panel.imshow(drawn[0].permute(1, 2, 0).numpy())
    target = _drawn_targets(explanation, row, 1)[0]
    falls = held.falls[0, target, shown].tolist()
    labels = [f"{i + 1}: {-fall:+.3g}" for i, fall in enumerate(falls)]
    handles = [Patch(color=color) for color in concept_pictures.COLORS[: len(labels)]]
    panel.legend(
        handles,
        labels,
        title="change of the score without it",
        ncols=2,
        fontsize=7,
        title_fontsize=7,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        frameon=False,
        handlelength=1,
        columnspacing=1,
    )
    more = held.maps.shape[1] - len(labels)
    panel.set_title("concepts" + (f"\n(first {len(labels)})" if more else ""), fontsize=9)


def _draw_signal(panel: Axes, heat: Tensor, signal: Tensor | None) -> None:
    """Draw the channels of a (C, L) signal as lines over its (L,) heat; without one, the heat."""
    evidence = bool(heat.any())
    lines = heat[None] if signal is None else signal
    channels = len(lines)
    if channels > 1:  # one below the other, each over its full range
        least, most = lines.amin(dim=1, keepdim=True), lines.amax(dim=1, keepdim=True)
        lines = (lines - least) / (most - least).where(most > least, 1) * 0.8 - 0.4
        lines = lines - torch.arange(channels)[:, None]
        panel.set_yticks(range(0, -channels, -1), [str(c) for c in range(channels)], fontsize=8)
        panel.set_ylabel("\n".join(filter(None, (panel.get_ylabel(), "channel"))), fontsize=9)
    panel.plot(lines.T.numpy(), color="black", linewidth=0.9)
    panel.tick_params(labelsize=8)
    panel.set_xlim(-0.5, len(heat) - 0.5)
    low, high = (-0.05, 1.05) if signal is None else panel.get_ylim()
    panel.set_ylim(low, high)
    if evidence:
        panel.imshow(
            heat[None].numpy(),
            cmap=_COLORMAP,
            vmin=0,
            vmax=1,
            alpha=0.5,
            aspect="auto",
            extent=(-0.5, len(heat) - 0.5, low, high),
        )
    else:
        _say_no_evidence(panel)


def _say_no_evidence(panel: Axes) -> None:
    panel.text(
        0.5,
        0.5,
        "no evidence",
        transform=panel.transAxes,
        ha="center",
        va="center",
        bbox={"facecolor": "white", "edgecolor": "0.5", "boxstyle": "round"},
    )


def _panels(size: tuple[int, ...], rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure and its panels by row and column."""
    signals = len(size) == 1
    aspect = _SIGNAL_HEIGHT / _SIGNAL if signals else min(max(size[-2] / size[-1], 0.3), 2.0)
    width = _SIGNAL if signals else _PICTURE
    # Two or three lines of title for each row, the title and the caption of the figure.
    height = rows * (width * aspect + 0.5) + 0.8
    figure = Figure(figsize=(columns * width + _BAR, height), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    if not signals:
        for panel in panels.flat:
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
    bar = figure.colorbar(
        ScalarMappable(cmap=_COLORMAP),  # of values from 0 to 1
        ax=panels.ravel().tolist(),
        ticks=[0, 0.5, 1],
        shrink=1 / rows,
        anchor=(0, 1),
        aspect=15,
        fraction=0.05,
    )
    bar.set_label("heat as a fraction of\nthe map's maximum", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure, panels.tolist()


def _annotate(figure: Figure, explanation: Explanation, notes: Sequence[str]) -> None:
    """Write the method, layers and grid above the panels, and the notes below them."""
    layers = f" at {', '.join(explanation.layers)}" if explanation.layers else ""
    cells = " x ".join(map(str, explanation.grid))
    characters = figure.get_size_inches()[0] * 15
    title = textwrap.fill(f"{explanation.method}{layers}, grid {cells}", int(characters / 1.4))
    figure.suptitle(title, fontsize=11, parse_math=False)
    if len(explanation.size) == 3:
        notes = ["Volumes are cut along D, at the slice with the most heat.", *notes]
    if notes:
        caption = "\n".join(textwrap.fill(note, int(characters)) for note in notes)
        figure.supxlabel(caption, fontsize=8, color="0.35", x=0.01, ha="left")


def _left_out(kind: str, n: int, k: int, rows: int, columns: int) -> list[str]:
    """Return a note on how many images and targets are not drawn."""
    parts, options = [], []
    if rows < n:
        parts.append(f"{n - rows} of {n} {kind}s")
        options.append("rows=...")
    if columns < k:
        parts.append(f"{k - columns} of {k} targets (those with the lowest scores)")
        options.append("columns=...")
    if not parts:
        return []
    return [f"Not shown: {' and '.join(parts)}; show({', '.join(options)}) draws more."]
