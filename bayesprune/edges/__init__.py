"""Single weights, after units: a network that goes on learning while its edges become fewer."""

from bayesprune.edges.thin import Thinned, prune_edges

__all__ = ["Thinned", "prune_edges"]
