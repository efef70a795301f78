"""Whether a network, and a model of it, holds every parameter that it computes with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bayesprune.errors import PriorError, UnsupportedNetworkError
from bayesprune.likelihoods.strangers import strangers
from bayesprune.rows.call import Call
from bayesprune.rows.nested import taken_apart
from bayesprune.structure import Group
from bayesprune.structure.running import evaluating


def check_held(
    prior: Callable[[Group], TorchDistribution],
    guide: Callable[[Group, Tensor], None],
    group: Group,
    parameters: Iterable[nn.Parameter],
) -> None:
    """Run the prior of one group, and its guide, and look which parameters their densities depend on.

    Args:
        prior: samples hyper-sites, and returns the distribution of the group's gates.
        guide: samples the same sites, given the group and (size,) inclusion probabilities.
        group: the group.
        parameters: what the model holds.

    Raises:
        PriorError: they depend on a trainable tensor that the model does not hold, as a function's closure
            does: it would get gradients, and never a step.
    """
    held = list(parameters)
    with torch.enable_grad():
        trace = poutine.trace(prior).get_trace(group)
        gates: Any = trace.nodes["_RETURN"]["value"]
        dtype = held[0].dtype
        open_gates = gates.log_prob(torch.ones(group.size, dtype=dtype, device=held[0].device))
        _refuse("prior", group, strangers(trace.log_prob_sum() + open_gates.sum(), held))
        with torch.random.fork_rng(devices=[]):
            share = torch.full((group.size,), 0.5, dtype=dtype, device=held[0].device)
            trace = poutine.trace(guide).get_trace(group, share)
        sites = trace.log_prob_sum()
        if isinstance(sites, Tensor):
            _refuse("prior's guide", group, strangers(sites, held))


def check_network_held(network: nn.Module, example: Call) -> None:
    """Run a network, and look whether it holds every trainable tensor that its outputs depend on.

    Args:
        network: the user's; left alone.
        example: (rows, ...), inputs that it accepts.

    Raises:
        UnsupportedNetworkError: it does not, as where layers lie in a plain list: they would never be moved.
    """
    with evaluating(network), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        try:
            leaves, _ = taken_apart(example.on(network))
        except Exception:  # whoever traces the network says why it does not run
            return
    held = [*network.parameters(), *example.tensors]
    unknown = [t for leaf in leaves if isinstance(leaf, Tensor) for t in strangers(leaf, held)]
    if unknown:
        shapes = ", ".join(sorted({str(tuple(tensor.shape)) for tensor in unknown}))
        raise UnsupportedNetworkError(
            f"The network computes with trainable tensors that it does not hold (shapes {shapes}), which "
            "nobody would move or save: keep layers in an nn.ModuleList or nn.ModuleDict instead of a list "
            "or dict, and tensors as nn.Parameter attributes; or, where they are constants, detach() them."
        )


def _refuse(what: str, group: Group, unknown: list[Tensor]) -> None:
    if not unknown:
        return
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in unknown)
    raise PriorError(
        f"The {what} of group {group.name!r} depends on trainable tensors that it does not hold (shapes "
        f"{shapes}), which would get gradients and never a step: write it as an nn.Module with these as "
        "nn.Parameter attributes and forward(group); or, where they are constants, detach() them."
    )
