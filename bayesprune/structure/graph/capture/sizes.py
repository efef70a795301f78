"""Which sizes of the inputs may be others than the example's, found by running on others and comparing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from bayesprune.structure.graph.capture.recording import Inputs
from bayesprune.structure.graph.capture.same import check_same, outputs_of, results_alike, same_at

Axis = tuple[tuple[int, int], ...]
"""Dimensions that vary together, as (which tensor, which dimension): the lengths of ids and of their mask."""

Kind = Callable[[int, int, bool], tuple[int, ...]]
"""A size, its axis' number, and whether it may grow → others, to be tried in turn until the network runs."""

LARGE = 64
"""Sizes from which about half is tried alone: the work of images grows with their square."""


@dataclass(frozen=True)
class Sizes:
    """What running on other sizes has shown.

    Attributes:
        free: axes along which the graphs do what the network does.
        baked: axes along which the network runs, and a graph does something else.
    """

    free: tuple[Axis, ...]
    baked: tuple[Axis, ...]


def check_same_far_away(network: nn.Module, graph: fx.GraphModule, inputs: Inputs) -> bool:
    """The graph does what the network does, as `check_same`, at sizes far away if it does there.

    One comparison at other values, rows and sizes says of all that none is baked in. Where it fails, and
    where the network does not run at such sizes, values and rows are compared by themselves.

    Args:
        network: in the mode of the graph; its buffers are afterwards what they were.
        graph: of one mode.
        inputs: two rows of each.

    Returns:
        Whether all sizes were others.

    Raises:
        UnsupportedNetworkError: as `check_same` does.
    """
    for other in _far_together(inputs):
        with redirect_stderr(io.StringIO()):  # where modules of torch.fx print what they raise
            same = same_at(network, graph, other)
        if same:
            return True
        if same is not None:
            break
    check_same(network, graph, inputs)
    return False


def _far_together(inputs: Inputs) -> Iterator[Inputs]:
    """The inputs with all axes of other sizes, no two alike, in the order in which each is tried alone."""
    found = _sizes_of(inputs, axes_of(inputs), far)
    for at in range(max(map(len, found.values()), default=0)):
        sizes = {axis: others[min(at, len(others) - 1)] for axis, others in found.items()}
        if len(set(sizes.values())) == len(sizes):
            yield _resized(inputs, sizes)


def free_sizes(
    network: nn.Module,
    graphs: Mapping[bool, nn.Module],
    inputs: Inputs,
    far_away: Set[bool] = frozenset(),
) -> Sizes:
    """Compare a network with its graphs at a size far away and, of small ones, at one nearby, in both modes.

    Axes are changed all at once, and one by one only where that fails. One along which the network does not
    run at any of the sizes is neither free nor baked. What branches on a size that was not tried is not seen.

    Args:
        network: its modes, and its buffers, are afterwards what they were.
        graphs: training or not → the graph.
        inputs: two rows of each.
        far_away: modes in which they were seen to be alike at sizes far away, of all axes at once.
    """
    axes, ran, baked = axes_of(inputs), set[Axis](), set[Axis]()
    for training, kind in ((False, far), (False, _near), (True, far)):
        left = [axis for axis in axes if axis not in baked and (axis in ran or not training)]
        if kind is far and training in far_away:
            seen = dict.fromkeys(left, True)
        else:
            with _in_mode(network, training):
                seen = _compared(network, graphs[training], inputs, left, ran or set(left), kind)
        ran = (ran & seen.keys()) if training else (ran | seen.keys())
        baked |= {axis for axis, same in seen.items() if not same}
    free = tuple(axis for axis in axes if axis in ran - baked)
    return Sizes(free, tuple(axis for axis in axes if axis in baked))


def _compared(
    network: nn.Module,
    graph: nn.Module,
    inputs: Inputs,
    axes: list[Axis],
    likely: Set[Axis],
    kind: Kind,
) -> dict[Axis, bool]:
    """Axis → whether the graph is the network at another size, for those where the network runs."""
    sizes = _sizes_of(inputs, axes, kind)
    together = {axis: found[0] for axis, found in sizes.items() if axis in likely}
    seen = {}
    if len(together) > 1 and _same_at(network, graph, inputs, together):
        seen = dict.fromkeys(together, True)
    for axis in [axis for axis in sizes if axis not in seen]:
        for size in sizes[axis]:
            same = _same_at(network, graph, inputs, {axis: size})
            if same is not None:
                seen[axis] = same
                break
    return seen


def _sizes_of(inputs: Inputs, axes: list[Axis], kind: Kind) -> dict[Axis, tuple[int, ...]]:
    """Axis → other sizes of it, for those that have some."""
    grows = all(x.device.type == "cpu" for x in inputs)  # beyond a table's end a GPU would stop for good
    sizes = {}
    for number, axis in enumerate(axes):
        tensor, dim = axis[0]
        sizes[axis] = kind(inputs[tensor].shape[dim], number, grows)
    return {axis: found for axis, found in sizes.items() if found}


def _same_at(network: nn.Module, graph: nn.Module, inputs: Inputs, sizes: Mapping[Axis, int]) -> bool | None:
    """Whether a graph does what its network does at other sizes; None where the network does not run."""
    other = _resized(inputs, sizes)
    with redirect_stderr(io.StringIO()):  # where modules of torch.fx print what they raise
        try:
            theirs = outputs_of(network, network, other)
        except Exception:  # whatever the user's forward says to sizes that it was not written for
            return None
        try:
            ours = outputs_of(graph, network, other)
        except Exception:  # numbers that were baked in do not fit any more
            return False
    return results_alike(ours, theirs)


def _resized(inputs: Inputs, sizes: Mapping[Axis, int]) -> Inputs:
    other = list(inputs)
    for axis, size in sizes.items():
        for tensor, dim in axis:
            other[tensor] = resized(other[tensor], dim, size)
    return tuple(other)


def resized(x: Tensor, dim: int, size: int) -> Tensor:
    """A tensor of another size along one dimension: its numbers, from the start again where more."""
    return x.index_select(dim, torch.arange(size, device=x.device) % x.shape[dim])


def axes_of(inputs: Inputs) -> list[Axis]:
    """Dimensions that may vary; those of several tensors that are of one size go together.

    Rows do, which is known, and channels of images do not.
    """
    found: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for tensor, x in enumerate(inputs):
        for dim in range(2 if x.ndim > 3 else 1, x.ndim):
            found.setdefault((x.ndim > 3, dim, x.shape[dim]), []).append((tensor, dim))
    return [tuple(axis) for axis in found.values()]


def other_size(size: int, number: int) -> int:
    """A size far away: the first that ``free_sizes`` tries of an axis of that number."""
    return far(size, number, grows=True)[0]


def _near(size: int, number: int, grows: bool) -> tuple[int, ...]:
    return _usable((size + 1 + 2 * number, size + 1, size - 1) if size < LARGE else (), size, grows)


def far(size: int, number: int, grows: bool) -> tuple[int, ...]:
    """Sizes far away, of an axis of that number, in the order in which they are tried."""
    half = (size // 2 + number, size // 2)  # an axis' own number: what was square is so no more
    more = 2 * size - number % 2 * (size // 2)  # nor here
    large = (*half, 5 * size // 4 + number, more)
    return _usable(large if size >= LARGE else (more, size // 2), size, grows)


def _usable(sizes: Iterable[int], size: int, grows: bool) -> tuple[int, ...]:
    return tuple(other for other in dict.fromkeys(sizes) if other > 0 and (grows or other < size))


@contextmanager
def _in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
