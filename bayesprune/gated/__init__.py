"""Gated models: a network, a prior and a likelihood become a Pyro program over which units exist."""

from bayesprune.gated.build import gate
from bayesprune.gated.links import Autoregressive
from bayesprune.gated.model import GatedModel
from bayesprune.gated.network import GatedNetwork
from bayesprune.priors.program import Prior

__all__ = ["Autoregressive", "GatedModel", "GatedNetwork", "Prior", "gate"]
