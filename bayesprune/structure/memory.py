"""How much memory a pass through a network takes: counted while it runs, exactly, on any device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bayesprune.rows.call import Call
from bayesprune.structure.running import evaluating, run_on, unmoved


def memory_of(network: nn.Module, inputs: Call) -> int:
    r"""Bytes that a pass of inference takes: weights, and the most that is held beside them at once.

    .. math:: \mathrm{bytes} = \sum_{w} \mathrm{bytes}(w)
              + \max_{t} \sum_{a \in H_t} \mathrm{bytes}(a)

    over all parameters and buffers w, and over the operations t of the pass in eval mode, without gradients:
    H_t is what is held in memory when t ends, inputs and t's own results included. Views take none of their
    own, and what two tensors share counts once. What an operation needs inside of itself alone (the columns
    of a convolution, a library's workspace), and what an allocator keeps in reserve, is not part of it.

    Args:
        network: any module; it is run once.
        inputs: (rows, ...), the batch.

    Returns:
        Bytes.

    Raises:
        UnsupportedNetworkError: it does not run on the inputs.

    Example:
        >>> import torch
        >>> from bayesprune.rows.call import call_of
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> x = torch.zeros(10, 4)
        >>> memory_of(network, call_of(network, x))  # (40 + 18) weights; 10 · (4 + 8 + 8) at the ReLU
        1032
    """
    weights = _storages([*network.parameters(), *network.buffers()])
    held = _Held(weights, inputs.tensors)
    with evaluating(network), unmoved(network), held:
        run_on(network, inputs)
    return sum(weights.values()) + held.most


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Storage → its bytes."""
    return {storage._cdata: storage.nbytes() for storage in map(Tensor.untyped_storage, tensors)}


class _Held(TorchDispatchMode):
    """Sums up what is held after every operation; what dies is no longer there at the next look."""

    def __init__(self, weights: dict[int, int], inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = weights
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0
        self._look(inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._look(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _look(self, made: Iterable[Tensor]) -> None:
        self._known = {key: (ref, size) for key, (ref, size) in self._known.items() if not ref.expired()}
        for storage in self._new(made):
            self._known[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, sum(size for _, size in self._known.values()))

    def _new(self, made: Iterable[Tensor]) -> Iterator[torch.UntypedStorage]:
        for tensor in made:
            if tensor.layout == torch.strided and tensor.untyped_storage()._cdata not in self._weights:
                yield tensor.untyped_storage()
