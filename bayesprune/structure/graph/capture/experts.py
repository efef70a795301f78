"""Experts of transformers, each given the rows that chose it, as operations that a graph can have.

They come in several implementations that compute the same; what marks them is told by their attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from bayesprune.structure.plain.routed import routed_linear

KINDS = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed")
"""How the weights of experts are laid out, as their modules note it."""


@contextmanager
def experts_routed(network: nn.Module) -> Iterator[None]:
    """Inside, all experts are run by ``bayesprune::routed_linear``.

    Args:
        network: whose modules of that kind have another ``forward`` meanwhile.
    """
    found = [module for module in network.modules() if _is_experts(module)]
    for module in found:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in found:
            del module.forward


def _is_experts(module: nn.Module) -> bool:
    """Whether it takes (states, indices, weights), and says how."""
    known = vars(module)
    if not all(isinstance(known.get(name), bool) for name in KINDS) or not hasattr(module, "_apply_gate"):
        return False
    names = ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")
    weights = (getattr(module, name, None) for name in names)
    return "forward" not in known and all(isinstance(w, Tensor) and w.ndim == 3 for w in weights)


def _forward(experts: Any, states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Each row's chosen experts, weighed and summed.

    Args:
        experts: the module.
        states: (rows, width).
        index: (rows, choices), numbers of experts.
        weights: (rows, choices).

    Returns:
        (rows, width).
    """
    chosen = index.reshape(-1)

    def linear(x: Tensor, name: str) -> Tensor:
        weight, bias = getattr(experts, name), getattr(experts, f"{name}_bias") if experts.has_bias else None
        weight = weight.transpose(1, 2) if experts.is_transposed else weight
        return routed_linear(x, weight, bias, chosen)

    x = states.repeat_interleave(index.shape[-1], 0)  # (rows × choices, width)
    if experts.has_gate:
        hidden = experts._apply_gate(linear(x, "gate_up_proj"))
    else:
        hidden = experts.act_fn(linear(x, "up_proj"))
    y = linear(hidden, "down_proj")
    y = experts.post_expert_norm(y) if experts.has_post_expert_norm else y
    y = y * weights.reshape(-1, 1)
    return y.view(-1, index.shape[-1], y.shape[-1]).sum(1).to(states.dtype)
