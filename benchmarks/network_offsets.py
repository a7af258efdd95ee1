"""Measure where the cells of default layers lie in networks with random weights.

``python benchmarks/network_offsets.py`` needs torchvision and timm, as ``make test`` installs them,
and takes about 10 minutes of one core. It prints a line for each network of the table in
``docs/howto/choose_a_layer.rst``: the middle of the layer's cells minus the middle of the image.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

import camlens

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.layers import networks


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")  # timm's own
    for rows, build in (
        (networks.TORCHVISION, networks.from_torchvision),
        (networks.TIMM, networks.from_timm),
    ):
        for name, size, options, layer, _ in rows:
            torch.manual_seed(0)
            explainer = camlens.EigenCAM(build(name, options), layer, registration="measured")
            registration = explainer(torch.rand(2, 3, size, size)).registration
            axes = zip(registration.offset, registration.offset_error, strict=True)
            offsets = ", ".join(f"{offset:+.1f} +- {error:.1f}" for offset, error in axes)
            proven = "" if registration.proven else "not proven"
            print(name, layer, registration.grid, offsets, proven, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
