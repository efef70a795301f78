"""Sizes that rows may have: only those at which a network and what was traced of it are known to agree."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.running import evaluating


def free_sizes(found: GraphNetwork, network: nn.Module, example: Tensor) -> Iterable[int]:
    """Dimensions of the example that may have another size.

    Those behind the units' own, of a row of layers, if the network takes an example of twice their sizes
    and what was traced of it computes the same from it; convolutions and a global pooling do. All others are
    fixed: rows of another size are refused.

    Args:
        found: what was traced.
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts.
    """
    if found.structure.row is None or example.ndim < 3:
        return ()
    larger = example[:2].repeat(1, 1, *[2] * (example.ndim - 2))
    with evaluating(network), evaluating(found), torch.random.fork_rng(devices=[]):
        try:
            theirs = network(larger.clone())
            ours = found(larger)
        except (RuntimeError, ValueError, IndexError):  # a linear layer that reads every position
            return ()
    same = ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    return range(2, example.ndim) if same else ()
