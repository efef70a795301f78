"""Gated models: a network, a prior and a likelihood become a Pyro program over which units exist."""

from bayesprune.gated.build import gate
from bayesprune.gated.model import GatedModel, Prior
from bayesprune.gated.network import GatedNetwork

__all__ = ["GatedModel", "GatedNetwork", "Prior", "gate"]
