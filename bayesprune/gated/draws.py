"""Running a network once for each draw of its weights: what enumeration and vectorised particles ask for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.rows import Inputs


def several_draws(weights: Mapping[str, Tensor], network: nn.Module) -> bool:
    """Whether any weight has dimensions in front of its own.

    Args:
        weights: tensor name → (..., *shape).
        network: whose weights they are.
    """
    return any(value.ndim > network.get_parameter(name).ndim for name, value in weights.items())


def run_each_draw(
    network: nn.Module, x: Inputs, gates: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Tensor:
    """Run a network under several draws of its weights and gates at once, with ``torch.func.vmap``.

    Args:
        network: called as ``network(x, gates)``.
        x: (batch, ...), inputs; every draw sees the same.
        gates: group → (units,) or (draws..., 1 or batch, units).
        weights: tensor name → (*shape) or (draws..., 1, *shape); the 1 is the place of Pyro's rows, which
            share the weights.

    Returns:
        (draws..., batch, ...), the network's outputs.

    Raises:
        UnsupportedNetworkError: weights that differ from row to row.
    """
    leads = {
        name: value.shape[: value.ndim - network.get_parameter(name).ndim] for name, value in weights.items()
    }
    for name, lead in leads.items():
        if lead[-1:] not in ((), (1,)):
            raise UnsupportedNetworkError(
                f"Weight {name!r} has {tuple(lead)} in front of its own shape: all rows share a draw of "
                "weights, so the last of these must be 1. Sample weights outside of plate 'rows'."
            )
    gates = {name: z if z.ndim > 1 else z.unsqueeze(0) for name, z in gates.items()}
    draws = torch.broadcast_shapes(
        *(lead[:-1] for lead in leads.values()), *(z.shape[:-2] for z in gates.values())
    )
    pack_gates = {name: _flat(z, draws, z.shape[-2:]) for name, z in gates.items()}
    flat_weights = {
        name: _flat(
            value.squeeze(len(leads[name]) - 1) if leads[name] else value,
            draws,
            value.shape[len(leads[name]) :],
        )
        for name, value in weights.items()
    }

    def one(z: dict[str, Tensor], w: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = functional_call(network, w, (x, z))
        return outputs

    outputs = vmap(one, randomness="different")(pack_gates, flat_weights)
    result: Tensor = outputs.reshape(*draws, *outputs.shape[1:])
    return result


def _flat(value: Tensor, draws: torch.Size, own: torch.Size) -> Tensor:
    """(draws..., *own) → (all draws, *own)."""
    return value.expand(*draws, *own).reshape(-1, *own)
