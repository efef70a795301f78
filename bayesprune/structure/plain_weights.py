"""Weights that are computed before every call, written into plain parameters."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bayesprune.structure.altered import bake_
from bayesprune.structure.copying import copy_of

Module = TypeVar("Module", bound=nn.Module)


def plain_weights(network: Module) -> Module:
    """A copy whose weights are parameters with the values that they have in evaluation.

    Parametrizations of ``torch.nn.utils``, weight norm, spectral norm, orthogonal and one's own, go, and so
    do the older norms and masks that compute a weight in a hook. In evaluation the copy returns what the
    network returns. What it learns from there on is held by nothing: a spectral norm bounds it no more, and
    masked weights are no more held at zero.

    Args:
        network: left alone.

    Returns:
        The copy, of the user's own classes, in the same modes.

    Example:
        >>> network = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), nn.ReLU())
        >>> plain = plain_weights(network)
        >>> plain[0], [name for name, _ in plain.named_parameters()]
        (Linear(in_features=4, out_features=3, bias=True), ['0.bias', '0.weight'])
        >>> x = torch.randn(5, 4)
        >>> torch.equal(plain.eval()(x), network.eval()(x))
        True
    """
    twin = copy_of(network)
    modes = [(module, module.training) for module in twin.modules()]
    bake_(twin)
    made: dict[tuple[int, ...], Tensor] = {}
    for module in list(twin.modules()):
        if parametrize.is_parametrized(module):
            _write_(module, made)
    for module, training in modes:
        module.training = training
    return twin


def _write_(module: Any, made: dict[tuple[int, ...], Tensor]) -> None:
    """Give one module its own class and plain tensors; PyTorch's way takes the class of its copies apart.

    Args:
        module: changed in place, in evaluation.
        made: tensors that a weight was computed from → the weight, which others may share.
    """
    found = {}
    for name, how in module.parametrizations.items():
        with torch.no_grad():
            value = getattr(module, name).detach().clone()
        origins = [getattr(how, key) for key in (*how._parameters, *how._buffers)]
        shared = made.setdefault(tuple(map(id, origins)), _like(origins, value))
        found[name] = shared if torch.equal(shared, value) else _like(origins, value)
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, tensor in found.items():
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, tensor)
        else:
            module.register_buffer(name, tensor)


def _like(origins: list[Tensor], value: Tensor) -> Tensor:
    """A value as what it was computed from: a parameter, one that does not learn, or a buffer."""
    learnt = [origin.requires_grad for origin in origins if isinstance(origin, nn.Parameter)]
    return nn.Parameter(value, any(learnt)) if learnt else value
