"""Weights whose products no counter counts: found while the network runs, to be named."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from bayesprune.errors import CountWarning

FREE = {
    "add", "sub", "rsub", "maximum", "minimum", "where", "copy_", "copy", "embedding", "_embedding_bag",
    "index", "index_select", "index_put_", "index_put", "index_copy", "gather", "take", "cat", "stack",
    "masked_fill", "masked_scatter", "scatter", "scatter_add", "slice_scatter", "select_scatter",
    "searchsorted", "eq", "ne", "lt", "le", "gt", "ge", 
    "native_layer_norm", "native_batch_norm", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "_batch_norm_with_update", "_batch_norm_no_update",
    "cudnn_batch_norm", "miopen_batch_norm", "native_group_norm", "_fused_rms_norm", "_prelu_kernel",
}  # fmt: skip
"""Operations between a weight and something else that multiply nothing, or, as norms do, number by number."""


class Watch(TorchDispatchMode):
    """Follows a network's weights, and what is computed of them alone, to the operations that use them.

    A weight is one with at least two dimensions longer than one; scales and shifts are none.

    Args:
        network: about to be run.
        knows: whether there is a count for an operation.
    """

    def __init__(self, network: nn.Module, knows: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.knows = knows
        self.operations: set[str] = set()
        self.counted: set[str] = set()
        self.uncounted: dict[str, str] = {}
        self._made_of: Any = WeakIdKeyDictionary()
        for name, parameter in network.named_parameters():
            wide = sum(length > 1 for length in parameter.shape) > 1
            self._made_of[parameter] = frozenset({name} if wide else ())
        for buffer in network.buffers():
            self._made_of[buffer] = frozenset()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.see(func, (args, kwargs), result)
        return result

    def see(self, func: Any, given: Any, result: Any) -> None:
        """Note what became of the weights among an operation's arguments."""
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        made_of = [self._made_of.get(x) for x in tensors]
        weights: frozenset[str] = frozenset().union(*(m for m in made_of if m))
        if self.knows(func):
            self.counted |= weights
        elif weights and None in made_of and multiplies(func):
            self.uncounted |= dict.fromkeys(weights - self.uncounted.keys(), _name(func))
        if None not in made_of:
            for x in tree_leaves(result):
                if isinstance(x, Tensor) and x not in self._made_of:
                    self._made_of[x] = weights

    def closed(self, func: Any, given: Any) -> None:
        """Note an operation that was looked into, and in which nothing was found."""
        leaves = tree_leaves(given)
        weights = [self._made_of.get(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
        for name in frozenset().union(*(w for w in weights if w)):
            self.uncounted.setdefault(name, _name(func))
        if any(isinstance(leaf, torch.ScriptObject) for leaf in leaves):  # weights packed for one kernel
            self.operations.add(_name(func))

    def warn(self) -> None:
        """Name what was not counted.

        Warns:
            CountWarning: there is something.
        """
        missed = [
            f"{name!r} (in {operation})"
            for name, operation in sorted(self.uncounted.items())
            if name not in self.counted
        ]
        missed += [f"what {operation} holds" for operation in sorted(self.operations)]
        if missed:
            more = f" and {len(missed) - 4} more" if len(missed) > 4 else ""
            warnings.warn(
                f"Multiply-accumulates with {', '.join(missed[:4])}{more} are not counted, so that counts, "
                "prices and budgets in MACs do not see them. Write them as products (torch.matmul, "
                "nn.Linear, torch.einsum), or budget parameters instead.",
                CountWarning,
                stacklevel=3,
            )


def multiplies(func: Any) -> bool:
    """Whether an operation may hold products: by its name, and not if it only moves or compares numbers."""
    name = func._overloadpacket.__name__ if hasattr(func, "_overloadpacket") else str(func)
    if name.rstrip("_") in ("mul", "addcmul", "multiply"):
        return True
    tags = getattr(func, "tags", ())
    return name not in FREE and name.rstrip("_") not in FREE and torch.Tag.pointwise not in tags


def _name(func: Any) -> str:
    return str(func).removeprefix("aten.").rpartition(".")[0] or str(func)
