"""Copies of a user's network: what cannot be copied is named, with what to do about it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bayesprune.errors import BayespruneError, UnsupportedNetworkError
from bayesprune.structure.altered import alterations, hint

Module = TypeVar("Module", bound=nn.Module)


def copy_of(network: Module, memo: dict[int, Any] | None = None) -> Module:
    """A deep copy, of tensors too that are computed before every call.

    Old weight norm, old spectral norm and masks of ``torch.nn.utils.prune`` leave the weight of the last call
    behind as a plain attribute, which PyTorch refuses to copy where it has a history. The copy gets its
    values: the next call computes them anew.

    Args:
        network: left alone.
        memo: what is copied already, as ``copy.deepcopy`` takes it.

    Returns:
        The copy.

    Raises:
        UnsupportedNetworkError: it holds something that cannot be copied; it is named.
    """
    memo = {} if memo is None else memo
    for alteration in alterations(network):
        if alteration.computed is not None:
            memo.setdefault(id(alteration.computed), alteration.computed.detach().clone())
    try:
        return copy.deepcopy(network, memo)
    except (BayespruneError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as problem:  # whatever a user's attribute does when it is copied
        reason = str(problem).partition("\n")[0].rstrip(".")
        raise UnsupportedNetworkError(
            f"The {type(network).__name__} cannot be copied: {_culprit(network)}"
            f"{type(problem).__name__}: {reason}.{hint(network)}"
        ) from problem


def _culprit(network: nn.Module) -> str:
    """The attributes that hold a tensor with a history, and what to do about them."""
    found = [
        f"{name + '.' if name else ''}{key}"
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    if not found:
        return ""
    return (
        f"{', '.join(map(repr, found[:4]))} hold tensors that were computed with gradients. Set them to "
        "None, keep them detached (value.detach()), or register them as buffers. "
    )


class Foreign(TorchFunctionMode):
    """Inside, notes which tensors of another network are computed with.

    A copy goes on computing with the original's where a function that was put on an instance holds them: a
    hook, a forward or a lambda, which are not copied with the network. No size and no value of the copy then
    bears on it.

    Args:
        network: that must not be read.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        held = {
            id(value): f"{name + '.' if name else ''}{key}"
            for name, module in network.named_modules()
            for key, value in (*module._parameters.items(), *module._buffers.items(), *vars(module).items())
            if isinstance(value, Tensor)
        }
        self._held, self._found, self._network = held, dict[str, None](), network

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then do it."""
        for leaf in tree_leaves((args, kwargs or {})):
            if id(leaf) in self._held:
                self._found[self._held[id(leaf)]] = None
        return func(*args, **(kwargs or {}))

    def check(self) -> None:
        """Nothing was read.

        Raises:
            UnsupportedNetworkError: something was; it is named.
        """
        if self._found:
            raise UnsupportedNetworkError(
                f"A copy of the {type(self._network).__name__} goes on computing with the original's "
                f"{', '.join(map(repr, list(self._found)[:4]))}: a function that was put on an instance (a "
                "hook, a forward, a lambda in __init__) holds them, and functions are not copied. Use the "
                f"module that the function is given, or write it as a method of the class."
                f"{hint(self._network)}"
            )
