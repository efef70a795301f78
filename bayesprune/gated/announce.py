"""Telling Pyro's SVI which parameters a module has, without its global store."""

from __future__ import annotations

from pyro.poutine.runtime import effectful
from torch import nn


def announce_parameters(module: nn.Module) -> None:
    """Tell ``pyro.infer.SVI`` what to train, as ``PyroModule`` does with local parameters.

    The values are the module's own, and Pyro's global store never hears of them. Call it inside a guide.

    Args:
        module: whose parameters they are.
    """
    for name, parameter in module.named_parameters():
        value = parameter.view_as(parameter)
        value.unconstrained = lambda parameter=parameter: parameter  # type: ignore[attr-defined]
        effectful(lambda value=value: value, type="param")(name=f"param/{name}")
