"""Counting multiply-accumulates of what runs: PyTorch's own counter, and what it does not know."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bayesprune.structure.kernels import formulas
from bayesprune.structure.unaccounted import Watch

PLAIN = ("aten", "prim", "prims", "_c10d_functional", "profiler")
"""Namespaces whose operations are known here, or nothing to count; those of others are looked into."""


class Counter:
    """A counter of multiply-accumulates, to be entered as a context.

    Products and convolutions count, attention's and recurrent layers' too; what works number by number
    (activations, normalisation, scaling) does not, as is usual. Custom operations (experts', say) are counted
    by what their own kernels run.

    Args:
        network: whose weights are followed, to tell which of them were multiplied by and not counted; none by
            default.

    Example:
        >>> with Counter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.macs
        24
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        self._counter = FlopCounterMode(display=False, custom_mapping=formulas())
        self._inside = _Inside(self)
        self._watch = None if network is None else Watch(network, self.knows)
        self._more = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates counted so far."""
        return int(self._counter.get_total_flops()) // 2 + self._more

    def __enter__(self) -> Counter:
        self._more = 0
        if self._watch is not None:
            self._watch.__enter__()  # type: ignore[no-untyped-call]
        # outside of the counter, which takes composite operations apart
        self._inside.__enter__()  # type: ignore[no-untyped-call]
        self._counter.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._counter.__exit__(*problem)
        self._inside.__exit__(*problem)  # type: ignore[no-untyped-call]
        if self._watch is not None:
            self._watch.__exit__(*problem)  # type: ignore[no-untyped-call]

    def warn(self) -> None:
        """Name the weights that were multiplied by and not counted, and nothing where there are none.

        Warns:
            CountWarning: there are such weights.
        """
        if self._watch is not None:
            self._watch.warn()

    def knows(self, operation: Any) -> bool:
        """Whether there is a count for an operation."""
        return getattr(operation, "_overloadpacket", operation) in self._counter.flop_registry


class _Inside(TorchDispatchMode):
    """Runs the kernels of custom operations under a counter of their own."""

    def __init__(self, owner: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = owner

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "namespace", "aten") in PLAIN or self.owner.knows(func):
            return func(*args, **kwargs)
        key = _kernel_key(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        with Counter() as counter:
            result = func._op_dk(key, *args, **kwargs)
        self.owner._more += counter.macs
        if not counter.macs and self.owner._watch is not None:
            self.owner._watch.closed(func, (args, kwargs))
        return result


def _kernel_key(func: Any, args: Any, kwargs: Any) -> torch._C.DispatchKey | None:
    """Where the kernel of a custom operation stands; None if it has none of its own."""
    devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
    names = [device.upper() for device in devices if device in ("cpu", "cuda")]
    for name in (*names, "CompositeExplicitAutograd"):
        key = getattr(torch._C.DispatchKey, name)
        if func.has_kernel_for_dispatch_key(key):
            return key  # type: ignore[no-any-return]
    return None
