"""A module that cannot follow a cut, as the operations that it runs in its network's graph.

Where a forward reads a size from what it is given (``C // self.num_heads``) no attribute helps. Its
operations stand in the graph of the whole network, which has been cut; they are taken out of it, and put
where the module was. What that is given and what it returns stay what they were, so that the rest of the
network remains of the user's own classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.rows.call import CallForm
from bayesprune.structure.graph.capture.called import Called, Calls
from bayesprune.structure.graph.capture.capture import Captured, Inputs, find_tensor
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.capture.sizes import axes_of, far, resized
from bayesprune.structure.graph.own.around import note_alike_
from bayesprune.structure.graph.own.stand_in import Module, module_at
from bayesprune.structure.graph.own.taking import Seen, Source, Taken, Tied, seen_in, values_in
from bayesprune.structure.graph.shipped import plain_graph_of
from bayesprune.structure.graph.surgery.cut import strip_
from bayesprune.structure.plain import PlainGraph
from bayesprune.structure.running import drawing_alike, unmoved


@dataclass(frozen=True)
class Excerpt:
    """A module as its own graph.

    Attributes:
        module: name of its place.
        graph: what runs there.
        gone: names, in the module, of tensors that went with their sections.
    """

    module: str
    graph: PlainGraph
    gone: frozenset[str]

    def set_(self, network: nn.Module) -> None:
        """Put it in its place, over the tensors that the module there has."""
        there = network.get_submodule(self.module)
        graph = self.graph.over(there)
        note_alike_(graph, there)
        strip_(graph, {name for name in self.gone if find_tensor(graph, name) is not None})
        Module(self.module, graph.train(there.training)).set_(network)

    def now(self, network: nn.Module) -> Module:
        """What is there now."""
        return module_at(network, self.module)


class Excerpts:
    """What can be taken out of a network's graphs.

    Args:
        network: whose tensors the graphs compute with.
        graphs: training or not → the graph after a cut.
        calls: training or not → which operations each module ran.
        form: how the network is called, and at which sizes.
        example: (rows, ...) each.
        gone: names of tensors that went with their sections.
    """

    def __init__(
        self,
        network: nn.Module,
        graphs: Mapping[bool, fx.GraphModule],
        calls: Mapping[bool, Calls],
        form: CallForm,
        example: Inputs,
        gone: Collection[str] = (),
    ) -> None:
        self.network, self.graphs, self.calls = network, graphs, calls
        self.form, self.example, self.gone = form, example, gone

    def length(self, module: str) -> int:
        """How many operations a module runs; 0 of one that is not called once."""
        call = self._call(module, False)
        return 0 if call is None else call.end - call.first

    def of(self, module: str, why: str) -> Excerpt | None:
        """What a module runs, if that can be taken out.

        Args:
            module: its name.
            why: it does not run as its class.
        """
        try:
            parts = {training: self._taken(module, training) for training in self.graphs}
        except Tied:
            return None
        if parts[True].form != parts[False].form:
            return None
        graphs = {
            training: fx.GraphModule(dict(part.tensors), part.graph) for training, part in parts.items()
        }
        results = {training: part.results for training, part in parts.items()}
        network, form = self.network.get_submodule(module), parts[False].form
        graph = plain_graph_of(Captured(network, graphs, results, (), form), graphs, why)
        inside = (name.removeprefix(f"{module}.") for name in self.gone if name.startswith(f"{module}."))
        return Excerpt(module, graph, frozenset(inside)) if self._for_any_rows(graph, parts[False]) else None

    @property
    def rows(self) -> list[Inputs]:
        """The example, and one of other rows, one more of them."""
        return [self.example, tuple(torch.cat([x.roll(1, 0), x[:1]]) for x in self.example)]

    @cached_property
    def sizes(self) -> list[Inputs]:
        """These, and the example at another size along every axis that may have one."""
        return [*self.rows, *(inputs for inputs in map(self._other, self._free) if inputs)]

    @cached_property
    def _free(self) -> list[tuple[int, Any]]:
        """Axes of the inputs that may be of other sizes, and their numbers."""
        sizes, axes = self.form.sizes, axes_of(self.example)
        return [(n, a) for n, a in enumerate(axes) if not sizes or sizes[a[0][0]][a[0][1] - 1] is None]

    def _other(self, axis: tuple[int, Any]) -> Inputs:
        """The example at another size along an axis; nothing where none runs."""
        number, places = axis
        tensor, dim = places[0]
        for size in far(self.example[tensor].shape[dim], number, grows=self.example[0].device.type == "cpu"):
            inputs = list(self.example)
            for tensor, dim in places:
                inputs[tensor] = resized(inputs[tensor], dim, size)
            try:
                for training in self.graphs:
                    self._run(training, tuple(inputs))
            except Exception:  # whatever operations say to a size that is too small for them
                continue
            return tuple(inputs)
        return ()

    def _run(self, training: bool, inputs: Inputs) -> Seen:
        with unmoved(self.network), torch.no_grad(), drawing_alike(), masks_as_given():
            return seen_in(self.graphs[training], inputs)

    def _call(self, module: str, training: bool) -> Called | None:
        return self.calls[training].once(module) if training in self.calls else None

    @cached_property
    def _sources(self) -> dict[bool, Source]:
        return {
            training: Source(
                graph, self.calls[training], self.network, [self._run(training, x) for x in self.sizes]
            )
            for training, graph in self.graphs.items()
        }

    def _taken(self, module: str, training: bool) -> Taken:
        call = self._call(module, training)
        if call is None:
            raise Tied
        return self._sources[training].taken(call)

    def _for_any_rows(self, graph: PlainGraph, part: Taken) -> bool:
        """Whether a module that is given several rows for each of the network's takes any number of them.

        Windows and heads are such rows, and some modules mix them. That shows at other sizes; where the
        network has none, a graph that mixes them would compute something else at one, and is no excerpt.
        """
        rows, first = len(self.example[0]), self._sources[False].runs[0]
        firsts = part.form.firsts or (None,) * len(part.given)
        mine = [n for n, size in zip(part.given, firsts, strict=True) if size is None and first[n][0] != rows]
        if not mine or len(self._free) == len(axes_of(self.example)):
            return True
        return self._same_for_fewer(graph, part.given, mine)

    def _same_for_fewer(self, graph: PlainGraph, given: tuple[str, ...], several: list[str]) -> bool:
        """Whether all but the last of its rows give what they give beside the last."""
        run = graph._bayesprune_program.run[False]
        with unmoved(self.network), torch.no_grad(), drawing_alike(), masks_as_given():
            values = values_in(self.graphs[False], self.example, given)
            whole = run(graph, *(values[name].clone() for name in given))
            try:
                less = run(graph, *(values[name][:-1] if name in several else values[name] for name in given))
            except Exception:  # a number of windows that is written down
                return False
        return all(_begins(a, b) for a, b in zip(whole, less, strict=True))


def _begins(whole: Tensor, less: Tensor) -> bool:
    """Whether a value is another one without its last row, up to rounding."""
    return whole[:-1].shape == less.shape and torch.allclose(whole[:-1], less, rtol=1e-3, atol=1e-5)
