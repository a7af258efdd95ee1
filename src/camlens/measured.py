"""Stub."""

from __future__ import annotations

from . import layouts
from .probe import Probe, Site
from .registration import Registration


class MeasuredLayers:
    def sites(self, probe: Probe, names, layout):
        if names is None:
            names = [
                n for n, m in probe.model.named_modules() if type(m).__name__ in ("Conv2d", "ReLU")
            ][-1:]
        return tuple(Site(n, layout or layouts.nchw) for n in names)

    def registration(self, probe, sites, kind):
        return Registration(kind, probe.size, ())
