"""Sizes of the inputs that an exported file leaves free, beside the rows: lengths, heights, widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from bayesprune.rows.call import Call
from bayesprune.structure.graph.capture.sizes import Axis, axes_of, free_sizes, other_size, resized
from bayesprune.structure.plain import PlainGraph

ROWS = "rows"


def free_axes(network: nn.Module, inputs: Call) -> tuple[Axis, ...]:
    """Axes along which a network takes any size.

    Args:
        network: a graph, which knows them, or a sequence of layers, which is run at others.
        inputs: (rows, ...), two of each.
    """
    if isinstance(network, PlainGraph):
        sizes = network.call_form.sizes if network.call_form is not None else ()
        free = {(n, dim) for n, row in enumerate(sizes) for dim, size in enumerate(row, 1) if size is None}
        return tuple(axis for axis in axes_of(inputs.tensors) if free.issuperset(axis))
    return free_sizes(network, {True: network, False: network}, inputs.tensors).free


def named(axes: Sequence[Axis], inputs: Call) -> dict[tuple[int, int], str]:
    """(Which tensor, which dimension) → what a file calls its size: as the first input that has it."""
    names = inputs.form.names
    return {place: f"{names[axis[0][0]]}_{axis[0][1]}" for axis in axes for place in axis}


def elsewhere(network: nn.Module, inputs: Call, axes: Sequence[Axis]) -> Iterator[Call]:
    """The inputs at other sizes at which the network runs: of all axes at once, or else of each.

    Args:
        network: in eval mode.
        inputs: (rows, ...).
        axes: that it takes any size of.
    """
    for tried in dict.fromkeys([tuple(axes), *((axis,) for axis in axes)]):
        tensors = list(inputs.tensors)
        for number, axis in enumerate(tried):
            for tensor, dim in axis:
                size = other_size(inputs.tensors[tensor].shape[dim], number)
                tensors[tensor] = resized(tensors[tensor], dim, size)
        call = Call(tuple(tensors), inputs.form)
        if tried and _runs(network, call):
            yield call
            if len(tried) == len(axes):
                return


def _runs(network: nn.Module, call: Call) -> bool:
    try:
        with torch.no_grad():
            call.clone().on(network)
    except Exception:  # whatever the user's forward says to sizes that it was not written for
        return False
    return True
