"""Runs a model for an explainer: captures layers' outputs, computes gradients, changes images."""

from .passes import Pass, Site
from .probe import Probe
from .tails import Tail

__all__ = ["Pass", "Probe", "Site", "Tail"]
