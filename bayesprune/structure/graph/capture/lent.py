"""Copies of a network that hold no numbers of their own: to analyse it, and to cut without copying first."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bayesprune.structure.copying import copy_of


def shared_memory_copy(network: nn.Module) -> nn.Module:
    """A copy whose parameters are objects of their own over the *same memory*; buffers are copied.

    It is for reading: what writes into its parameters in place writes into the network's. What puts another
    tensor into a parameter (``parameter.data = …``, as a cut does) leaves the network alone.

    Args:
        network: left alone.

    Returns:
        A network of the same classes, modes and tied parameters.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), p.requires_grad)
        for p in network.parameters()
        if type(p) is nn.Parameter  # whatever another kind holds is copied with it
    }
    return copy_of(network, memo)


def unshare_(network: nn.Module, lender: nn.Module) -> nn.Module:
    """Give a lent copy memory of its own for every parameter that still lies in the lender's.

    Args:
        network: changed in place.
        lender: whose memory some of its parameters may lie in.

    Returns:
        The same network.
    """
    lent = memory(lender)
    for parameter in network.parameters():
        if _memory(parameter) in lent:
            parameter.data = parameter.data.clone()
    return network


def memory(network: nn.Module) -> set[int]:
    """Where the numbers of a network's parameters lie."""
    return {_memory(p) for p in network.parameters()}


class WouldWrite(BaseException):
    """An operation would have written into memory that is only lent.

    Not an ``Exception``: no handler in anybody's ``forward`` may swallow it.
    """


def check_writes(target: Any, args: Any, kwargs: Any, lent: set[int]) -> None:
    """Stop before an operation writes into lent memory.

    Args:
        target: the operation.
        args: its arguments.
        kwargs: and those given by name.
        lent: as :func:`memory` gives it.

    Raises:
        WouldWrite: it would.
    """
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            if any(isinstance(t, Tensor) and _memory(t) in lent for t in tree_leaves(given)):
                raise WouldWrite


class Watch(TorchDispatchMode):
    """Inside, an operation that would write into lent memory raises ``WouldWrite``.

    Args:
        lent: as :func:`memory` gives it.
    """

    def __init__(self, lent: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lent = lent

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else it is imported, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then do it."""
        check_writes(func, args, kwargs or {}, self.lent)
        return func(*args, **(kwargs or {}))


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
