"""A network of any form that runs under gates and loses units: what the analysis is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import RemovalError
from bayesprune.rows.call import Call, CallForm, Inputs
from bayesprune.rows.nested import Leaf, put_together
from bayesprune.structure.altered import check_present
from bayesprune.structure.copying import copy_of
from bayesprune.structure.counting import Counter
from bayesprune.structure.frame import Framed
from bayesprune.structure.graph.analysis.costs import living_terms
from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.analysis.weights import weight_names
from bayesprune.structure.graph.capture.bind import (
    CompiledGraph,
    adopt_,
    alike,
    are_certain,
    graph_forward,
    same,
    share,
)
from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.capture.experts import experts_routed
from bayesprune.structure.graph.capture.flat import flat
from bayesprune.structure.graph.capture.lent import shared_memory_copy
from bayesprune.structure.graph.capture.recording import Inputs as CallInputs
from bayesprune.structure.graph.capture.same import of_one_form, outputs_of
from bayesprune.structure.graph.gating.batch_norm import renormalise_
from bayesprune.structure.graph.gating.insert import gated_graph
from bayesprune.structure.graph.gating.noise import Noise, insert_noise_
from bayesprune.structure.graph.gating.pack import GroupGates, batch_shape, flat_rows, living
from bayesprune.structure.graph.own.excerpt import Excerpts
from bayesprune.structure.graph.own.noted import noted_sizes, without_shortcuts
from bayesprune.structure.graph.shipped import plain_graph_of
from bayesprune.structure.graph.surgery.adapt import EVERYWHERE, adapted
from bayesprune.structure.graph.surgery.cut import (
    Backup,
    Moments,
    cut_tensor_,
    follow_counts_,
    kept_places,
    living_slots,
    shorter_lengths,
    strip_,
    tensors_gone,
    whole_shapes,
)
from bayesprune.structure.graph.surgery.resize import resize_by_inputs_, resize_layers_
from bayesprune.structure.groups import Group, Slot
from bayesprune.structure.pretrained import configure_
from bayesprune.structure.pretrained.configure import CannotSave, refuse_
from bayesprune.structure.running import DrawingAnyOrder, drawing_alike, run_as_called
from bayesprune.structure.terms import Term


@dataclass(frozen=True)
class _Reads:
    """Which result is read.

    Attributes:
        leaf: training or not → its number.
        of_batch: whether it is one number for the whole batch.
    """

    leaf: dict[bool, int]
    of_batch: bool


class GraphNetwork(Framed):
    """A copy of the user's network that runs its captured graphs, with a gate in front of every reader.

    Attributes:
        network: the copy, of the user's own classes; it owns all parameters and buffers.
        structure: groups, slots, and what is frozen.
        alive: (units of all groups,), bool: not cut.
    """

    network: nn.Module
    structure: Structure
    alive: Tensor
    _graphs: _Graphs
    _left: dict[str, Tensor]
    _compiling: dict[str, Any] | None
    _slots: tuple[Slot, ...]
    _weights: frozenset[str]
    _form: CallForm
    _reads: _Reads | None
    _cut: dict[bool, fx.GraphModule]

    def __init__(self, structure: Structure, alive: Tensor | None = None) -> None:
        super().__init__()
        adopt_(self, structure.captured.network)
        self._no_frame()
        object.__setattr__(self, "structure", structure)
        object.__setattr__(self, "_weights", weight_names(structure.captured))
        object.__setattr__(self, "_reads", None)
        object.__setattr__(self, "_compiling", None)
        object.__setattr__(self, "_cut", {})  # graphs after a last cut, where it is only handed over
        whole = torch.ones(sum(group.size for group in structure.groups), dtype=torch.bool)
        object.__setattr__(self, "alive", whole if alive is None else alive)
        self._rebuild()

    def forward(
        self,
        *inputs: Any,
        gates: Mapping[str, Tensor] | None = None,
        noise: Noise | None = None,
        **named: Any,
    ) -> Any:
        """Run the network.

        Args:
            inputs: as the user's network takes them, or one ``Call``; where those are tensors by position, or
                it is a call, gates, and noise after them, may follow.
            gates: group → (size,), or (rows, size), or (draws..., 1 or rows, size), by original unit, or by
                the units that are left; groups not named are open. Leading dimensions beyond the rows are
                carried through to the outputs.
            noise: perturbs the weights; None leaves them as they are.
            named: inputs by name.

        Returns:
            What the user's network returns, or the part of it that ``reads_`` named.

        Raises:
            DataError: inputs of another form than the example's.
        """
        form, call = self.call_form, isinstance(inputs[0], Call) if inputs else False
        own = 1 if call else len(form.positional)
        if len(inputs) > own and (call or form.plain):
            gates, noise, *_ = (*inputs[own:], noise)
            inputs = inputs[:own]
        if call and inputs[0].form.is_called_as(form):
            tensors = form.checked(inputs[0].tensors, "forward")
        else:
            inputs, named = inputs[0].arguments() if call else (inputs, named)
            tensors = form.tensors(inputs, named, "forward")
        lead = batch_shape(gates or {})
        if lead and gates and self._reads is not None and self._reads.of_batch:
            return self._each(Call(tensors, form), gates, lead, noise)
        if lead and gates:
            rows = len(tensors[0])
            tensors = tuple(x.expand(lead + x.shape).reshape(-1, *x.shape[1:]) for x in tensors)
            gates = {group: flat_rows(z, lead, rows) for group, z in gates.items()}
        graph = self._graphs[self.training]
        given = GroupGates(self.structure.groups, self._left, gates) if gates else None
        leaves = None
        if self._compiling is not None and noise is None and not lead:
            leaves = self._graphs.compiled(self.training, self._compiling).run(self, *tensors, gates=given)
        if leaves is None:
            leaves = graph_forward(graph, self, *tensors, gates=given, noise=noise)
        if self._reads is not None:
            outputs = leaves[self._reads.leaf[self.training]]
            outputs = outputs.expand(len(tensors[0])) if self._reads.of_batch else outputs
            outputs = _led(outputs, lead, len(tensors[0])) if lead else outputs
        else:
            leaves = [_led(leaf, lead, len(tensors[0])) for leaf in leaves] if lead else leaves
            outputs = put_together(self.structure.captured.outputs[self.training], leaves)
        return outputs if self._frame_unit is None else self.framed(outputs)

    def _each(
        self, call: Call, gates: Mapping[str, Tensor], lead: tuple[int, ...], noise: Noise | None
    ) -> Tensor:
        """(draws..., rows): the loss of a batch under each draw by itself, which a larger batch would mix."""
        flat = {name: z.expand(*lead, *z.shape[-2:]).flatten(0, -3) for name, z in gates.items()}
        draws = [{name: z[i] for name, z in flat.items()} for i in range(math.prod(lead))]
        return torch.stack([self.forward(call, one, noise) for one in draws]).reshape(*lead, -1)

    def reads_(self, part: Callable[[Any], Leaf], of_batch: bool = False) -> None:
        """Return one part of what the user's network returns, from now on.

        Args:
            part: finds it in a tree of outputs, see ``bayesprune.rows.nested``.
            of_batch: whether it may be one number for the whole batch, which is then returned for each row.
        """
        outputs = self.structure.captured.outputs
        leaf = {training: part(outputs[training]).number for training in (True, False)}
        with torch.no_grad(), torch.random.fork_rng():
            leaves = graph_forward(self._graphs[False], self, *self._example(), gates=None)
        object.__setattr__(self, "_reads", _Reads(leaf, of_batch and leaves[leaf[False]].ndim == 0))

    def compile(self, *args: Any, **options: Any) -> None:
        """Run under gates by ``torch.compile`` from now on: each graph, as it is after every removal.

        Draws of masks one beside the other, noise of weights, and parameters that somebody has put in the
        place of the network's own (as Pyro does) run as they did. Graphs are compiled for the rows of a
        batch, for other numbers of them, and for steps in which gates learn or stand still: a few times for
        each removal.

        Args:
            args: there are none; here because modules have a method of this name.
            options: of ``torch.compile``.

        Raises:
            TypeError: something by position.
        """
        if args:
            raise TypeError("options of torch.compile are given by name: compile(mode=…, backend=…).")
        object.__setattr__(self, "_compiling", options)
        self._graphs.compiled_ones.clear()

    @property
    def call_form(self) -> CallForm:
        """How the user's network is called, and of which sizes its inputs must be now."""
        return self._form

    def _rebuild(self, plain: dict[bool, fx.GraphModule] | None = None) -> None:
        """Graphs for the units that are left, over the parameters as they are now."""
        alive = self.alive
        plain = plain or ({} if bool(alive.all()) else self._adapted(alive))  # what is whole gathers nothing
        self._follow_form_(plain)

        def gated(training: bool) -> fx.GraphModule:
            graph = plain.pop(training, None) or adapted(self.structure, training, alive)
            share(graph, self.network)
            graph = gated_graph(self.structure, graph, training, alive)
            insert_noise_(self.structure, graph, training, self._weights)
            return graph.to(self._like().device)

        object.__setattr__(self, "_graphs", _Graphs(gated))
        object.__setattr__(self, "_left", living(self.structure.groups, alive))
        object.__setattr__(self, "_slots", living_slots(self.structure, self.alive))

    def _follow_form_(self, plain: Mapping[bool, fx.GraphModule]) -> None:
        """Sizes are fixed where a cut graph reads from positions that hold at one size alone."""
        captured = self.structure.captured
        form = captured.form.at(captured.example) if any(map(_gathers, plain.values())) else captured.form
        object.__setattr__(self, "_form", form)

    def _adapted(self, alive: Tensor) -> dict[bool, fx.GraphModule]:
        return {training: adapted(self.structure, training, alive) for training in (True, False)}

    def _apply(self, fn: Any, recurse: bool = True) -> GraphNetwork:
        """``to``, ``double`` and their like: the graphs follow the parameters, which they share."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._follow_()
        return self

    def _follow_(self) -> None:
        for graph in self._graphs.values():
            graph.to(self._like().device)

    def _like(self) -> Tensor:
        return next(p for p in self.network.parameters() if p.is_floating_point())

    def _example(self) -> tuple[Tensor, ...]:
        """Copies of the inputs that were traced, on the parameters' device, of their type if they were."""
        like, captured = self._like(), self.structure.captured
        types = {captured.dtype: like.dtype}
        inputs = captured.example
        return tuple(x.to(like.device, types.get(x.dtype, x.dtype), copy=True) for x in inputs)

    # ---- reading

    @property
    def groups(self) -> tuple[Group, ...]:
        """The units that can be removed, as in the dense network."""
        return self.structure.groups

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where the units that are left sit; another object after every cut."""
        return self._slots

    def cut_names(self) -> frozenset[str]:
        """The tensors that units are cut from; zeros that a forward appends have slots, and are none."""
        nodes = [node for graph in self.structure.captured.graphs.values() for node in graph.graph.nodes]
        held = {str(node.target) for node in nodes if node.op == "get_attr"}
        return frozenset(slot.tensor for slot in self.slots if slot.tensor in held)

    def terms(self) -> tuple[Term, ...]:
        """What its parameters and multiply-accumulates are the sum of, now."""
        return living_terms(self.structure, self.alive)

    def weight_names(self) -> frozenset[str]:
        """The parameters that have a prior: those of products and convolutions, and embedding tables."""
        return self._weights

    def parameter_count(self) -> int:
        """Trainable numbers, now."""
        return sum(p.numel() for p in self.parameters())

    def macs(self) -> int:
        """Multiply-accumulates of one row, now: of all products and convolutions, attention's too."""
        example = self._example()
        with Counter() as counter, torch.no_grad():
            graph_forward(self._graphs[False], self, *example, gates=None)
        return counter.macs // len(example[0])

    def batch(self, rows: int, of: Inputs | None = None) -> Call:
        """Inputs, over and over, as so many rows; on the parameters' device.

        Args:
            rows: how many.
            of: (some rows, ...), inputs of this network; by default those that were traced.
        """
        given = of.tensors if isinstance(of, Call) else self._example() if of is None else (of,)
        device = self._like().device
        parts = (x.to(device).repeat(-(-rows // len(x)), *[1] * (x.ndim - 1))[:rows] for x in given)
        return Call(tuple(x.clone() for x in parts), self.call_form)  # in memory of their own

    def evaluation(self) -> fx.GraphModule:
        """The graph of evaluation as it is now, without gates, over this network's own parameters."""
        graph = adapted(self.structure, False, self.alive)
        share(graph, self.network)
        return graph.to(self._like().device)

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphNetwork:
        twin = copy_of(self.network, memo)
        captured = replace(self.structure.captured, network=twin)
        network = GraphNetwork(replace(self.structure, captured=captured), self.alive.clone())
        network.training = self.training
        for hooks in ("_forward_hooks", "_forward_pre_hooks"):  # a copy is looked at as this one is
            getattr(network, hooks).update(getattr(self, hooks))
        network.take_frame_(self)
        object.__setattr__(network, "_reads", self._reads)
        object.__setattr__(network, "_compiling", self._compiling)
        memo[id(self)] = network
        return network

    # ---- changes in place

    def cut_(
        self,
        alive: Mapping[str, Tensor],
        optimiser: Moments | None = None,
        companions: Mapping[str, nn.Parameter] | None = None,
        gated: bool = True,
    ) -> None:
        """Remove units; with their gates at zero, outputs stay what they were.

        Args:
            alive: group → (size,), bool, by original unit; groups not named stay whole.
            optimiser: its state tensors of a parameter's shape are cut with the parameter.
            companions: parameter → another one of its shape (a posterior's scale), which is cut alike.
            gated: whether it goes on running under gates; False where only ``plain`` follows.

        Raises:
            CannotAdapt: an operation that has no form for this cut; nothing has been changed.
            RemovalError: the network would compute something else; nothing has been changed.
            UnsupportedNetworkError: a layer has lost the tensor that it had when it was gated; the same.
        """
        check_present(self.network, self.cut_names())
        groups = self.structure.groups
        flat = torch.cat([alive.get(g.name, torch.ones(g.size, dtype=torch.bool)).cpu() for g in groups])
        before, after = self.alive, self.structure.closed(self.alive & flat)
        plain = self._adapted(after)  # every operation can follow
        masked = self._probe(after)
        beside = {id(self._tensor(name)): twin for name, twin in (companions or {}).items()}
        places = kept_places(self.structure, before, after)
        changed = [(self._tensor(n), dim, s) for n, dim, s in places]
        changed += [(beside[id(t)], dim, stays) for t, dim, stays in changed if id(t) in beside]
        lengths = shorter_lengths(self.structure, places)
        backup = [
            Backup(tensor, optimiser) for tensor in (*(t for t, _, _ in changed), *(g for g, _ in lengths))
        ]
        problem: Exception | None = None
        try:
            object.__setattr__(self, "alive", after)
            for tensor, values in lengths:
                tensor.data = values
            for tensor, dim, stays in changed:
                cut_tensor_(tensor, dim, stays, optimiser)
            self._resize_()
            if gated:
                self._rebuild(plain)
            else:
                object.__setattr__(self, "_cut", plain)
                self._follow_form_(plain)
            small = self._probe(graph=None if gated else plain[False])
            same_as_masked = alike(small, masked, self.structure.findings[False].coarsest, ulps=4.0)
        except Exception as raised:  # whatever an operation says to sizes that it was not written for
            problem, same_as_masked = raised, False
        if not same_as_masked:
            object.__setattr__(self, "alive", before)
            for saved in backup[::-1]:
                saved.restore_(optimiser)
            self._resize_()
            self._rebuild()
            said = "" if problem is None else f" ({str(problem).strip().splitlines()[0]})"
            raise RemovalError(
                f"Removing {int((before & ~after).sum())} units changed what the network computes on the "
                f"example{said}, so nothing was removed. List the groups that are read in an unusual way in "
                "exclude=, and please report the network."
            ) from problem

    def _tensor(self, name: str) -> Tensor:
        tensor = find_tensor(self.network, name)
        assert tensor is not None, name
        return tensor

    def _probe(self, gates: Tensor | None = None, graph: fx.GraphModule | None = None) -> list[Tensor]:
        """What the network computes on the example, in evaluation, under given gates or by another graph."""
        example, graph = self._example(), graph or self._graphs[False]
        flat = None if gates is None else torch.cat([gates, gates.new_ones(1)]).to(self._like())
        with torch.no_grad(), drawing_alike():
            leaves = graph_forward(graph, self, *example, **({} if flat is None else {"gates": flat}))
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def _resize_(self) -> None:
        """Layers' own size attributes agree with their parameters again."""
        resize_layers_(self.network)
        follow_counts_(self.structure, self.alive)
        captured = self.structure.captured
        with flat(self.network, captured.form, captured.outputs[False]):
            resize_by_inputs_(self.network, self._example())

    def renormalise_(self, batches: Iterable[Inputs]) -> None:
        """Take running statistics of batch normalisation anew, for the weights as they are now.

        Args:
            batches: (rows, ...) each, inputs.
        """
        tensors = (x.tensors if isinstance(x, Call) else (x,) for x in batches)
        renormalise_(self.network, self._graphs, tensors)

    def plain(self, handed_over: bool = False, own_class: bool = False, saves: bool = True) -> nn.Module:
        """The network as it is now, without gates: of the user's own classes where they run as such.

        A row of layers is an ``nn.Sequential`` of them, with a selection where not all that comes is read.
        Of other classes the sizes that their modules note follow. Where more is written down they fail, or
        compute something else; both is seen on the example, and then a graph module of the same parameter
        names is returned, which says why.

        Args:
            handed_over: give away this network's own parameters instead of copies; it is not used any more.
            own_class: a row of layers is of the user's own class too, where it reads all of its inputs and
                features.
            saves: a network that has a config gets the one that says its sizes, or ``save_pretrained`` says
                why there is none; and sizes that modules note are found: not needed where it is only run.
        """
        own, graphs = self.network if handed_over else copy_of(self.network), {}
        if not handed_over:
            own.zero_grad(set_to_none=True)
        for training in (True, False):
            graphs[training] = self._cut.get(training) or adapted(self.structure, training, self.alive)
            share(graphs[training], own)  # comparing moves statistics, and puts its own back
        gone, read = tensors_gone(self.structure, self.alive), self.selected()
        if saves and self._configured_(own, graphs, gone):
            return self.folded_(own)
        row = None if self.structure.row is None else self.structure.row.sequential(own, read)
        forms = [own] if row is None else [own, row] if own_class else [row]
        why = "it reads all of its inputs and features" if read else ""
        for plain in forms:
            whole = not gone and self._same(plain, graphs, self._example())
            if not whole and plain is own and not read and saves:
                why = self._follow_sizes_(own, graphs, gone)
                whole = not why
            if whole:
                self.folded_(own)
                return plain
        refusal = vars(own).get("save_pretrained")
        strip_(own, gone)
        captured = replace(self.structure.captured, network=own, form=self.call_form)
        plain_graph = plain_graph_of(captured, graphs, why)
        if isinstance(refusal, CannotSave):
            refuse_(plain_graph, refusal.reason)
        return self.folded_(plain_graph)

    def _same(self, plain: nn.Module, graphs: Mapping[bool, fx.GraphModule], inputs: CallInputs) -> bool:
        """Whether a network of its own classes does what the graphs do, in both modes."""
        with flat(plain, self.call_form, self.structure.captured.outputs[False]):
            return all(same(plain, graph, training, inputs) for training, graph in graphs.items())

    def _runs(self, own: nn.Module) -> bool:
        """Whether it runs as anybody runs it, whatever a forward says to a stand-in."""
        try:
            run_as_called(own, Call(self._example(), self.call_form))
        except Exception:
            return False
        return True

    def _follow_sizes_(self, own: nn.Module, graphs: Mapping[bool, fx.GraphModule], gone: set[str]) -> str:
        """Let the user's class note the new sizes, and run without lost sections, as the graphs do.

        Returns:
            Where it cannot, why; it is then what it was.
        """
        example, twin = self._example(), shared_memory_copy(own)

        def run(network: nn.Module, training: bool) -> list[Tensor]:
            with experts_routed(network):  # its parameters are used in the order of the graph
                return outputs_of(network.train(training), network, example)

        followed = {training: graphs[training] for training in (False, True)}
        excerpts = Excerpts(own, graphs, self.structure.captured.calls, self.call_form, example, gone)
        drawing = DrawingAnyOrder() if gone else nullcontext()
        with flat(twin, self.call_form, self.structure.captured.outputs[False]), drawing:
            found = noted_sizes(twin, followed, own, run, whole_shapes(self.structure), gone, excerpts)
        if found.module is not None:
            return found.told()
        before = _set_(own, found.changes)
        before += _set_(own, without_shortcuts(own))
        sizes = excerpts.sizes if found.excerpts else excerpts.rows
        whole = not any(find_tensor(own, name) is not None for name in gone)
        known = {t for t, both in found.outputs.items() if are_certain(*both)}  # seen on the example
        with DrawingAnyOrder() if gone else nullcontext():
            whole = whole and self._same(own, {t: g for t, g in graphs.items() if t not in known}, example)
            modes = {False: graphs[False]} if of_one_form(graphs[True], graphs[False]) else graphs
            whole = whole and all(self._same(own, modes, inputs) for inputs in sizes[1:])
        if whole and self._runs(own):
            return ""
        for former in before[::-1]:
            former.set_(own)
        return f"{type(own).__name__} computes something else with the sizes that are left"

    def _configured_(self, own: nn.Module, graphs: Mapping[bool, fx.GraphModule], gone: set[str]) -> bool:
        """Whether a network's config has been found that says what it has become."""
        if bool(self.alive.all()):
            return False
        example = self._example()
        units, owners = dict[str, tuple[int, int]](), dict[tuple[str, int], tuple[str, int]]()
        parts = self.alive[: sum(g.size for g in self.groups)].split([g.size for g in self.groups])
        for group, alive in zip(self.groups, parts, strict=True):
            if not group.optional and 0 < int(alive.sum()) < group.size:
                units[group.name] = group.size, int(alive.sum())
        held, names = own.state_dict(keep_vars=True), dict[int, list[str]]()
        for name, tensor in held.items():
            names.setdefault(id(tensor), []).append(name)  # all of what is tied
        for slot in self.structure.slots:
            if slot.group in units and slot.tensor in held:
                for name in names[id(held[slot.tensor])]:
                    owners[name, slot.dim] = slot.group, units[slot.group][0]

        def same_as_graphs() -> bool:
            return self._same(own, graphs, example)

        return configure_(own, frozenset(units.values()), gone, same_as_graphs, owners)

    def selected(self) -> dict[str, tuple[int, Tensor]]:
        """What is read of inputs, and of features behind a flatten, where not all that comes is.

        Returns:
            Group → (numbers that come, positions of those that are read).
        """
        known, found = torch.cat([self.alive, torch.ones(1, dtype=torch.bool)]), {}
        for born in self.structure.findings[True].labels.born.values():
            there = known[self.structure.unit_of[born.owners]]
            read = known[self.structure.unit_of[born.labels]][there]
            if not bool(read.all()):
                found[born.name] = int(there.sum()), read.nonzero().squeeze(1)
        return found


class _Graphs(dict[bool, fx.GraphModule]):
    """Training or not → the graph under gates, which is made when it is asked for first: a cut needs one."""

    def __init__(self, made: Callable[[bool], fx.GraphModule]) -> None:
        super().__init__()
        self.made = made
        self.compiled_ones: dict[bool, CompiledGraph] = {}

    def compiled(self, training: bool, options: dict[str, Any]) -> CompiledGraph:
        """The graph of a mode, compiled when it is asked for first."""
        if training not in self.compiled_ones:
            self.compiled_ones[training] = CompiledGraph(self[training], options)
        return self.compiled_ones[training]

    def __missing__(self, training: bool) -> fx.GraphModule:
        with torch.device("cpu"), torch.inference_mode(False):  # whatever it is asked for inside of
            graph = self[training] = self.made(training)
        return graph


def _led(leaf: Any, lead: tuple[int, ...], rows: int) -> Any:
    """A result with the leading dimensions of gates in front of its rows; one without rows stays."""
    if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == rows:
        return leaf.reshape(*lead, -1, *leaf.shape[1:])
    return leaf


def _set_(network: nn.Module, changes: Sequence[Any]) -> list[Any]:
    """Make changes, and give those that take them back."""
    before = []
    for change in changes:
        before.append(change.now(network))
        change.set_(network)
    return before


def _gathers(graph: fx.GraphModule) -> bool:
    """Whether a cut graph reads from positions that hold at one size of the inputs alone."""
    return any(
        node.op == "get_attr" and str(node.target).startswith(EVERYWHERE) for node in graph.graph.nodes
    )
