"""A network called with its tensors one by one, which it returns so, however it is called otherwise."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.rows.call import CallForm
from bayesprune.rows.nested import Leaf, taken_apart

PLAIN = (tuple, list, dict)
"""Of what outputs may be built for PyTorch to trace them as they are."""


@contextlib.contextmanager
def flat(network: nn.Module, form: CallForm, returned: Any) -> Iterator[list[Any]]:
    """Inside, ``network(*tensors)`` runs it in a call of a form, and gives the tensors of what it returns.

    A network that takes tensors by position and returns tensors in tuples, lists or dicts stays as it is.

    Args:
        network: a copy; its ``forward`` is another one meanwhile.
        form: how it is called otherwise.
        returned: what it returns for one call, or the tree of that.

    Yields:
        The trees of what the calls returned, latest last; none where the network stays as it is.

    Raises:
        UnsupportedNetworkError: it has hooks of its own, which expect what is given otherwise.
    """
    trees: list[Any] = []
    if form.plain and _is_plain(returned):
        yield trees
        return
    if network._forward_hooks or network._forward_pre_hooks:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} itself has hooks, and takes or returns more than tensors by position: "
            "hooks can be followed on the layers inside of it. Remove them, or hang them on a layer."
        )
    before, own = vars(network).get("forward"), network.forward

    def forward(*tensors: Any) -> tuple[Any, ...]:
        positional, named = form.arguments(tensors)
        leaves, tree = taken_apart(own(*positional, **named))
        trees[:] = [tree]
        return tuple(leaves)

    one = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, one) for name in form.names])
    forward.__signature__ = signature  # type: ignore[attr-defined]
    forward.flat = True  # type: ignore[attr-defined]
    network.forward = forward
    try:
        yield trees
    finally:
        del network.forward
        if before is not None:
            network.forward = before


def _is_plain(value: Any) -> bool:
    """Whether PyTorch itself can take outputs apart."""
    if isinstance(value, Tensor | Leaf) or value is None:
        return True
    if not (type(value) in PLAIN or hasattr(value, "_fields")):
        return False
    return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
