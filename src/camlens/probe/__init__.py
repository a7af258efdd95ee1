"""Runs a model for an explainer: hooks on layers, captured outputs, gradients, changed images."""

from .passes import Pass, Site
from .probe import Probe
from .tails import Tail

__all__ = ["Pass", "Probe", "Site", "Tail"]
