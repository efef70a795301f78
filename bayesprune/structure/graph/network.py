"""A network of any form that runs under gates and loses units: what the analysis is for."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from bayesprune.errors import RemovalError
from bayesprune.structure.chain import batch_shape, flat_rows
from bayesprune.structure.graph.adapt import NOTHING_LEFT, CannotAdapt, adapted
from bayesprune.structure.graph.analyse import Structure, find_structure, without
from bayesprune.structure.graph.capture import Inputs, find_tensor, set_tensor
from bayesprune.structure.graph.gates import gated_graphs
from bayesprune.structure.graph.labels import Frozen
from bayesprune.structure.groups import Group, Slot
from bayesprune.structure.layers import is_producer, resize_
from bayesprune.structure.trace import evaluating


class GraphNetwork(nn.Module):
    """A copy of the user's network that runs its captured graphs, with a gate in front of every reader.

    Attributes:
        network: the copy, of the user's own classes; it owns all parameters and buffers.
        structure: groups, slots, and what is frozen.
        alive: (units of all groups,), bool: not cut.
        why: it is no chain of layers.
    """

    network: nn.Module
    structure: Structure
    alive: Tensor
    why: str
    _graphs: dict[bool, fx.GraphModule]

    def __init__(self, structure: Structure, alive: Tensor | None = None) -> None:
        super().__init__()
        adopt_(self, structure.captured.network)
        object.__setattr__(self, "structure", structure)
        object.__setattr__(self, "why", "")
        whole = torch.ones(sum(group.size for group in structure.groups), dtype=torch.bool)
        object.__setattr__(self, "alive", whole if alive is None else alive)
        self._rebuild()

    def forward(self, *inputs: Any, gates: Mapping[str, Tensor] | None = None) -> Any:
        """Run the network.

        Args:
            inputs: as the user's network takes them; gates may follow them.
            gates: group → (size,), or (rows, size), or (draws..., 1 or rows, size), by original unit, or by
                the units that are left; groups not named are open. Leading dimensions beyond the rows are
                carried through to the outputs.

        Returns:
            What the user's network returns.
        """
        if len(inputs) > len(self.structure.captured.example):
            *tensors, gates = inputs[: len(self.structure.captured.example) + 1]
            inputs = tuple(tensors)
        lead = batch_shape(gates or {})
        if lead and gates:
            rows = len(inputs[0])
            inputs = tuple(x.expand(lead + x.shape).reshape(-1, *x.shape[1:]) for x in inputs)
            gates = {group: flat_rows(z, lead, rows) for group, z in gates.items()}
        graph = self._graphs[self.training]
        leaves = graph_forward(graph, self, *inputs, gates=self._flat(gates))
        outputs = tree_unflatten(leaves, self.structure.captured.outputs[self.training])
        return outputs.reshape(*lead, -1, *outputs.shape[1:]) if lead else outputs

    def _flat(self, gates: Mapping[str, Tensor] | None) -> Tensor | None:
        """(units + 1,) or (rows, units + 1), the last one open."""
        if not gates:
            return None
        like = next(iter(gates.values()))
        rows = max((len(z) for z in gates.values() if z.ndim == 2), default=0)
        lead = (rows,) if rows else ()
        start, whole = 0, {}
        for group in self.structure.groups:
            alive = self.alive[start : start + group.size]
            start += group.size
            z = gates.get(group.name)
            if z is not None and z.shape[-1] != group.size:  # only the units that are left
                full = z.new_zeros(*z.shape[:-1], group.size)
                whole[group.name] = full.index_copy(-1, alive.nonzero().squeeze(1).to(z.device), z)
            elif z is not None:
                whole[group.name] = z
        gates = whole
        parts = [
            gates.get(g.name, like.new_ones(g.size)).expand(*lead, g.size) for g in self.structure.groups
        ]
        return torch.cat([*parts, like.new_ones(*lead, 1)], -1)

    def _rebuild(self) -> None:
        """Graphs for the units that are left, over the parameters as they are now."""
        plain = {t: adapted(self.structure, t, self.alive) for t in (True, False)}
        for graph in plain.values():
            share(graph, self.network)
        gated = gated_graphs(self.structure, plain, self.alive)
        object.__setattr__(self, "_graphs", gated)

    # ---- what a chain of layers has too

    @property
    def groups(self) -> tuple[Group, ...]:
        """The units that can be removed, as in the dense network."""
        return self.structure.groups

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where the units that are left sit."""
        alive = torch.cat([self.alive, torch.ones(1, dtype=torch.bool)])
        starts = self.structure.findings[True].labels.starts
        left = []
        for slot in self.structure.slots:
            start, size = starts[slot.tensor, slot.dim]
            stays = alive[self.structure.unit_of[start : start + size]]
            left.append(replace(slot, unit_ids=slot.unit_ids[stays]))
        return tuple(left)

    def producers(self) -> dict[str, nn.Module]:
        """The linear and convolutional layers, by name."""
        return {name: layer for name, layer in self.network.named_modules() if is_producer(layer)}

    def parameter_count(self) -> int:
        """Trainable numbers, now."""
        return sum(p.numel() for p in self.parameters())

    def macs(self) -> int:
        """Multiply-accumulates of one row, now: of all products and convolutions, attention's too."""
        from torch.utils.flop_counter import FlopCounterMode

        example = tuple(x.clone() for x in self.structure.captured.example)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            graph_forward(self._graphs[False], self, *example, gates=None)
        return int(counter.get_total_flops()) // 2 // len(example[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphNetwork:
        twin = copy.deepcopy(self.network, memo)
        captured = replace(self.structure.captured, network=twin)
        network = GraphNetwork(replace(self.structure, captured=captured), self.alive.clone())
        network.training = self.training
        memo[id(self)] = network
        return network

    # ---- changes in place

    def cut_(self, alive: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None) -> None:
        """Remove units; with their gates at zero, outputs stay what they were.

        Args:
            alive: group → (size,), bool, by original unit; groups not named stay whole.
            optimiser: its state tensors of a parameter's shape are cut with the parameter.

        Raises:
            CannotAdapt: an operation that has no form for this cut; nothing has been changed.
        RemovalError: the network would compute something else; nothing has been changed.
        """
        groups = self.structure.groups
        flat = torch.cat([alive.get(g.name, torch.ones(g.size, dtype=torch.bool)).cpu() for g in groups])
        before, after = self.alive, self.alive & flat
        for training in (True, False):
            adapted(self.structure, training, after)  # whether every operation can follow
        masked = self._probe(after)
        changed = kept_places(self.structure, before, after)
        backup = [_Backup(self._tensor(name), optimiser) for name, _, _ in changed]
        object.__setattr__(self, "alive", after)
        for name, dim, stays in changed:
            cut_tensor_(self._tensor(name), dim, stays, optimiser)
        self._resize_()
        self._rebuild()
        if not alike(self._probe(), masked):
            object.__setattr__(self, "alive", before)
            for saved in backup[::-1]:
                saved.restore_(optimiser)
            self._resize_()
            self._rebuild()
            raise RemovalError(
                f"Removing {int((before & ~after).sum())} units changed what the network computes on the "
                "example, so nothing was removed. List the groups that are read in an unusual way in "
                "exclude=, and please report the network."
            )

    def _tensor(self, name: str) -> Tensor:
        tensor = find_tensor(self.network, name)
        assert tensor is not None, name
        return tensor

    def _probe(self, gates: Tensor | None = None) -> list[Tensor]:
        """What the network computes on the example, in evaluation, under given gates."""
        example = tuple(x.clone() for x in self.structure.captured.example)
        graph = self._graphs[False]
        like = next(p for p in self.network.parameters() if p.is_floating_point())
        flat = None if gates is None else torch.cat([gates, gates.new_ones(1)]).to(like)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            leaves = graph_forward(graph, self, *example, gates=flat)
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def _resize_(self) -> None:
        """Layers' own size attributes agree with their parameters again."""
        for layer in self.network.modules():
            resize_(layer)
            if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and layer.weight is not None:
                layer.normalized_shape = tuple(layer.weight.shape)
            elif isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
                size = layer.weight if layer.affine else layer.running_mean
                layer.num_features = layer.num_features if size is None else len(size)
        known = torch.cat([self.alive, torch.ones(1, dtype=torch.bool)])
        for node, firsts in self.structure.findings[True].group_counts.items():
            layer = self.network.get_submodule(str(node.args[1].target).rpartition(".")[0])  # type: ignore[union-attr]
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                layer.groups = int(known[self.structure.unit_of[firsts]].sum())
                layer.in_channels = layer.weight.shape[1] * layer.groups
        self._resize_by_inputs_()

    def _resize_by_inputs_(self) -> None:
        """Norms without parameters take the size of what they are given."""

        def follow(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
                layer.normalized_shape = tuple(inputs[0].shape[-len(layer.normalized_shape) :])
            else:
                layer.num_features = inputs[0].shape[1]  # type: ignore[assignment]

        instance = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
        norms = [
            layer
            for layer in self.network.modules()
            if isinstance(layer, nn.LayerNorm | nn.RMSNorm | instance) and not list(layer.parameters())
        ]
        hooks = [layer.register_forward_pre_hook(follow) for layer in norms]
        try:
            if norms:
                with torch.no_grad(), evaluating(self.network):
                    self.network(*(x.clone() for x in self.structure.captured.example))
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError):
            pass  # a class with sizes written down; then graphs are run
        finally:
            for hook in hooks:
                hook.remove()

    def plain(self) -> nn.Module:
        """The network as it is now, without gates: of the user's own classes where they run as such.

        Classes that have sizes written down fail, or compute something else; both is seen on the example, and
        then a graph module of the same parameter names is returned.
        """
        own, graphs = copy.deepcopy(self.network), {}
        for training in (True, False):
            graphs[training] = adapted(self.structure, training, self.alive)
            share(graphs[training], self.network)
        example = self.structure.captured.example
        if all(_same(self.network, graphs[t], t, example) for t in (True, False)):
            return own
        return PlainGraph(own, graphs, self.structure.captured.outputs)


class PlainGraph(nn.Module):
    """A cut network whose own classes cannot hold it: its graphs, over parameters of the same names.

    Args:
        network: the cut network; only its parameters and buffers are used.
        graphs: training or not → what is run.
        outputs: training or not → how its results hang together.
    """

    network: nn.Module
    _graphs: dict[bool, fx.GraphModule]
    _outputs: dict[bool, Any]

    def __init__(
        self, network: nn.Module, graphs: Mapping[bool, fx.GraphModule], outputs: Mapping[bool, Any]
    ) -> None:
        super().__init__()
        adopt_(self, network)
        object.__setattr__(self, "_graphs", dict(graphs))
        object.__setattr__(self, "_outputs", dict(outputs))
        for graph in graphs.values():
            share(graph, network)

    def forward(self, *inputs: Tensor) -> Any:
        """As the user's network."""
        leaves = graph_forward(self._graphs[self.training], self, *inputs)
        return tree_unflatten(leaves, self._outputs[self.training])

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainGraph:
        return PlainGraph(copy.deepcopy(self.network, memo), copy.deepcopy(self._graphs, memo), self._outputs)


def adopt_(module: nn.Module, network: nn.Module) -> None:
    """Hold a network's parts under the network's own names, and the network itself beside them."""
    for name, parameter in network._parameters.items():
        module.register_parameter(name, parameter)
    for name, buffer in network._buffers.items():
        module.register_buffer(name, buffer, persistent=name not in network._non_persistent_buffers_set)
    for name, child in network._modules.items():
        module.add_module(name, child)
    object.__setattr__(module, "network", network)
    module.training = network.training


def graph_forward(graph: fx.GraphModule, module: nn.Module, *inputs: Any, **more: Any) -> Any:
    """Run a graph with the parameters that a module has at this moment, whoever put them there."""
    return type(graph).forward(_Bound(graph, module), *inputs, **more)


class _Bound:
    """What a graph's code sees as ``self``: a module, and beside it what only the graph has."""

    def __init__(self, graph: fx.GraphModule, module: nn.Module) -> None:
        self._graph, self._module = graph, module

    def __getattr__(self, name: str) -> Any:
        module = self._module
        if name in module._parameters or name in module._modules or name in module._buffers:
            return getattr(module, name)
        return getattr(self._graph, name)


def share(graph: fx.GraphModule, network: nn.Module) -> None:
    """Let a graph compute with a network's own parameters and buffers."""
    for node in graph.graph.nodes:
        tensor = find_tensor(network, str(node.target)) if node.op == "get_attr" else None
        if tensor is not None:
            set_tensor(graph, str(node.target), tensor)


def kept_places(structure: Structure, before: Tensor, after: Tensor) -> list[tuple[str, int, Tensor]]:
    """Parameter, dimension, and which of its present indices stay; only those that lose some."""
    before, after = (torch.cat([m, torch.ones(1, dtype=torch.bool)]) for m in (before, after))
    found, seen = [], set()
    for (name, dim), (start, size) in structure.findings[True].labels.starts.items():
        tensor = find_tensor(structure.captured.network, name)
        if tensor is None:
            continue  # zeros that a padding adds
        units = structure.unit_of[start : start + size]
        stays = after[units][before[units]]
        if not bool(stays.all()) and (id(tensor), dim) not in seen:
            seen.add((id(tensor), dim))
            found.append((name, dim, stays))
    return found


def cut_tensor_(
    tensor: Tensor, dim: int, stays: Tensor, optimiser: torch.optim.Optimizer | None = None
) -> None:
    """Cut a parameter, its gradient and its optimiser state; the object keeps its identity."""
    index, shape = stays.nonzero().squeeze(1).to(tensor.device), tensor.shape
    state = optimiser.state.get(tensor, {}) if optimiser is not None else {}
    for key, value in state.items():
        if torch.is_tensor(value) and value.shape == shape:
            state[key] = value.index_select(dim, index)
    gradient, tensor.grad = tensor.grad, None
    tensor.data = tensor.data.index_select(dim, index)
    if gradient is not None:
        tensor.grad = gradient.index_select(dim, index)


class _Backup:
    """A tensor as it was, to be put back if a cut was wrong."""

    def __init__(self, tensor: Tensor, optimiser: torch.optim.Optimizer | None) -> None:
        self.tensor, self.data, self.grad = tensor, tensor.data, tensor.grad
        self.state = dict(optimiser.state.get(tensor, {})) if optimiser is not None else {}

    def restore_(self, optimiser: torch.optim.Optimizer | None) -> None:
        """Put it back."""
        self.tensor.grad = None
        self.tensor.data = self.data
        self.tensor.grad = self.grad
        if optimiser is not None and self.state:
            optimiser.state[self.tensor] = self.state


def alike(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two lists of outputs are equal up to rounding in their type."""
    if len(first) != len(second):
        return False
    for a, b in zip(first, second, strict=True):
        tolerance = 1e-3 if torch.finfo(a.dtype).bits < 32 else 1e-4 if a.dtype == torch.float32 else 1e-8
        scale = float(b.abs().max()) if b.numel() else 1.0
        if a.shape != b.shape or not torch.allclose(
            a, b, rtol=0, atol=tolerance * max(scale, 1.0), equal_nan=True
        ):
            return False
    return True


def _same(network: nn.Module, graph: fx.GraphModule, training: bool, example: Inputs) -> bool:
    """Whether a network of its own classes does what its graph does; random numbers and statistics apart."""
    mode = network.training
    state = {name: tensor.clone() for name, tensor in network.named_buffers()}
    results = []
    try:
        for module in (network, graph):
            network.train(training)
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(0)
                results.append(tree_leaves(module(*(x.clone() for x in example))))
            for name, tensor in network.named_buffers():
                tensor.copy_(state[name])
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError):
        for name, tensor in network.named_buffers():
            tensor.copy_(state[name])
        return False
    finally:
        network.train(mode)
    return alike(*([leaf for leaf in leaves if isinstance(leaf, Tensor)] for leaves in results))


class Analysis:
    """What was found in a network, and what can be done with it.

    Attributes:
        gated: the network under gates.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.gated = GraphNetwork(structure)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The units that can be removed."""
        return self.structure.groups

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where they sit."""
        return self.structure.slots

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """What cannot be removed, and why."""
        return self.structure.frozen

    def cut(self, alive: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None) -> nn.Module:
        """A smaller copy without the units that are not alive; ``gated`` is left alone."""
        twin = copy.deepcopy(self.structure.captured.network)
        captured = replace(self.structure.captured, network=twin)
        network = GraphNetwork(replace(self.structure, captured=captured))
        network.cut_(alive, optimiser)
        return network.plain()

    def cut_(self, alive: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None) -> None:
        """Remove units from ``gated`` in place."""
        self.gated.cut_(alive, optimiser)


def analyse(network: nn.Module, example: Tensor | Inputs, exclude: Iterable[str] = ()) -> Analysis:
    """Find the units of any network, and what keeps the others.

    Args:
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts, or a tuple of them.
        exclude: names or globs of groups that must stay whole.

    Returns:
        Groups, slots and reasons; the network under gates; smaller copies of it.

    Example:
        >>> from torch import nn
        >>> class Residual(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        ...     def forward(self, x):
        ...         x = self.first(x).relu()
        ...         return self.head(x + self.second(x))
        >>> analysis = analyse(Residual(), torch.zeros(2, 4))
        >>> [(group.name, group.size) for group in analysis.groups]
        [('first', 6)]
        >>> small = analysis.cut({"first": torch.tensor([True, True, False, True, True, False])})
        >>> type(small).__name__, small.second.weight.shape
        ('Residual', torch.Size([4, 4]))
    """
    return Analysis(provable_structure(network, example, exclude))


def provable_structure(
    network: nn.Module, example: Tensor | Inputs, exclude: Iterable[str] = ()
) -> Structure:
    """The structure, after trial cuts: units that an operation cannot follow when they go one by one stay.

    Args:
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts, or a tuple of them.
        exclude: names or globs of groups that must stay whole.

    Returns:
        Its structure.
    """
    structure = find_structure(network, example, exclude)
    for _ in range(TRIALS):
        problem = _trial(structure)
        if problem is None:
            break
        structure = without(structure, problem.node, problem.reason, exclude)
    return structure


TRIALS = 50  # operations that are given up on, at most


def _trial(structure: Structure) -> CannotAdapt | None:
    """What cannot follow the first few random cuts, if anything."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        alive = torch.rand(sum(g.size for g in structure.groups), generator=generator) > 0.3
        start = 0
        for group in structure.groups:
            alive[start] = True
            start += group.size
        for training in (True, False):
            try:
                adapted(structure, training, alive)
            except CannotAdapt as problem:
                if problem.reason != NOTHING_LEFT:
                    return problem
    return None


__all__ = ["Analysis", "CannotAdapt", "GraphNetwork", "PlainGraph", "analyse"]
