"""What stands in for a module whose section was removed: plain PyTorch, without parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import fx, nn

from bayesprune.structure.graph.own.around import note_alike_

ZERO, INPUT, PAIR, NUMBER = "zeros", "its input", "zeros and None", "a zero"
KINDS = (ZERO, INPUT, PAIR, NUMBER)
"""What a stand-in returns: zeros like its first input, that input, a pair as attention does, or one number,
which can be added to anything of another shape."""


def stand_in(kind: str) -> nn.Module:
    """A module that takes whatever is given and returns next to nothing.

    It is a layer of PyTorch's, or a graph of one operation, so that ``torch.save`` and ``torch.load`` need
    no class of this library.

    Args:
        kind: of ``KINDS``.

    Example:
        >>> stand_in(ZERO)(torch.ones(2), torch.ones(3), mask=None)
        tensor([0., 0.])
    """
    if kind == INPUT:
        return nn.Identity()
    graph = fx.Graph()
    x, *_ = (graph.placeholder(name) for name in ("x", "*others", "**named"))
    if kind == NUMBER:
        zero = graph.call_method("new_zeros", (x, ()))
    else:
        zero = graph.call_function(torch.zeros_like, (x,))
    graph.output((zero, None) if kind == PAIR else zero)
    return fx.GraphModule(nn.Module(), graph)  # copies lose any other name


@dataclass(frozen=True)
class StandIn:
    """A module in the place of another one.

    Attributes:
        module: name of the place.
        kind: what it returns.
    """

    module: str
    kind: str

    def set_(self, network: nn.Module) -> None:
        """Put it there."""
        there, other = network.get_submodule(self.module), stand_in(self.kind)
        note_alike_(other, there)
        Module(self.module, other.train(there.training)).set_(network)

    def now(self, network: nn.Module) -> Module:
        """What is there now."""
        return module_at(network, self.module)


@dataclass(frozen=True)
class Module:
    """A module that runs in its place.

    Attributes:
        module: name of the place.
        itself: the module.
    """

    module: str
    itself: nn.Module

    def set_(self, network: nn.Module) -> None:
        """Put it there."""
        parent, _, name = self.module.rpartition(".")
        network.get_submodule(parent)._modules[name] = self.itself

    def now(self, network: nn.Module) -> Module:
        """What is there now."""
        return module_at(network, self.module)


def module_at(network: nn.Module, name: str) -> Module:
    """The module in a place."""
    return Module(name, network.get_submodule(name))


def modules_gone(network: nn.Module, gone: Collection[str]) -> list[str]:
    """Modules of which no parameter is left, those inside of others left out.

    Args:
        network: of the user's class, or a part of it.
        gone: names of its tensors that were removed.
    """
    there, lost = Counter[str](), Counter[str]()
    for name, _ in network.named_parameters(remove_duplicate=False):
        parts = name.split(".")[:-1]
        places = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        there.update(places)
        lost.update(places if name in gone else ())
    empty = [name for name in lost if lost[name] == there[name]]
    return [name for name in empty if name.rpartition(".")[0] not in empty]
