"""PlainGraph: a network as the operations that it runs, over parameters of its own names; plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn

from bayesprune.rows.call import CallForm
from bayesprune.rows.nested import put_together
from bayesprune.structure.plain.parts import Part, fill_
from bayesprune.structure.plain.program import (
    Program,
    by_position,
    place_of,
    program_data,
    program_from_data,
)

PROGRAM, WHY = "_bayesprune_program", "_bayesprune_why"
"""The two attributes that are not the network's own."""


class PlainGraph(nn.Module):
    """A network that runs as its graphs, one for training and one for evaluation.

    Its parameters and buffers have the names of the network that the graphs were taken from, under layers of
    ``torch.nn`` that show their sizes. Those layers are not called, so that hooks on them do not run, and
    ``train()`` or ``eval()`` of a part alone changes nothing: the mode is the whole network's. Constants of
    the graphs are buffers that are no part of the ``state_dict``.

    Args:
        tree: root of the tree of names, constants included.
        graphs: training or not → its graph; every ``get_attr`` names a tensor of the tree.
        outputs: training or not → tree of its results, see ``bayesprune.rows.nested``.
        form: how it is called; by default with the graphs' inputs by position.
        why: it runs as graphs and not as its class, for its ``repr``; files do not hold it.

    Example:
        >>> import torch
        >>> from bayesprune.structure.graph import as_plain_graph
        >>> as_plain_graph(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.zeros(2, 3))
        PlainGraph(
          a Sequential of 2 operations
          (0): Linear(in_features=3, out_features=2, bias=True)
        )
    """

    _bayesprune_program: Program

    def __init__(
        self,
        tree: Part,
        graphs: Mapping[bool, fx.Graph],
        outputs: Mapping[bool, Any],
        form: CallForm | None = None,
        why: str = "",
    ) -> None:
        super().__init__()
        fill_(self, tree)
        self._bayesprune_why = why
        form = form or by_position(graphs[False])
        self._bayesprune_program = Program(tree._get_name(), graphs, outputs, place_of(self), form)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network.

        Args:
            inputs: (rows, ...) each, as the network that it was takes them.
            named: the same, by name.

        Returns:
            What that network returns.

        Raises:
            DataError: inputs of another form than the example's that it was traced with.
        """
        program = self._bayesprune_program
        tensors = program.form.tensors(inputs, named, program.kind)
        leaves = program.run[self.training](self, *tensors)
        return put_together(program.outputs[self.training], leaves)

    def over(self, network: nn.Module) -> PlainGraph:
        """The same operations over the tensors of another network of the same names.

        Args:
            network: whose parameters and buffers are taken as they are; constants are this one's.
        """
        twin = type(self).__new__(type(self))
        nn.Module.__init__(twin)
        fill_(twin, network)
        for name, child in self._modules.items():
            if child is not None and name not in twin._modules and not any(True for _ in child.parameters()):
                twin.add_module(name, copy.deepcopy(child))
        for name in (PROGRAM, WHY):
            setattr(twin, name, getattr(self, name))
        return twin

    @property
    def call_form(self) -> CallForm:
        """How it is called."""
        return self._bayesprune_program.form

    def extra_repr(self) -> str:
        """Which network it was, and how many operations it runs."""
        program = self._bayesprune_program
        count = sum(node.op == "call_function" for node in program.graphs[False].nodes)
        why = getattr(self, WHY, "")
        return f"a {program.kind} of {count} operations" + (f", for {why}" if why else "")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PlainGraph:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._bayesprune_program = self._bayesprune_program.moved(place_of(self))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainGraph:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():  # the program is a value, never changed in place
            twin.__dict__[name] = value if name == PROGRAM else copy.deepcopy(value, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        program = self._bayesprune_program
        return {**self.__dict__, PROGRAM: (program_data(program), program.kind, program.place)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        data, kind, place = state.pop(PROGRAM)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._bayesprune_program = program_from_data(data, kind, tensor_names(self), place)


def graphs_inside(network: nn.Module) -> dict[str, str]:
    """Which modules of a network run as graphs, while the network is of its own class.

    Args:
        network: what ``bp.prune`` returns, for one.

    Returns:
        Name of the module → why it does not run as its class; none of a network that is a graph itself.
    """
    found = ((name, part) for name, part in network.named_modules() if isinstance(part, PlainGraph))
    return {name: part._bayesprune_why for name, part in found if name}


def tensor_names(network: nn.Module) -> set[str]:
    """Names of all parameters and buffers: of modules and tensors that have two names, both."""
    parameters = network.named_parameters(remove_duplicate=False)
    buffers = network.named_buffers(remove_duplicate=False)
    return {name for name, _ in (*parameters, *buffers)}
