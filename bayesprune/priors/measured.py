"""Limits in milliseconds and megabytes: what they are of a network, and a model of them in its units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.rows.call import Call, Inputs
from bayesprune.structure import Costed, Group, Slot, Term
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.analysis.passes import RUNS, Held, Operation, held, operations
from bayesprune.structure.memory import memory_of
from bayesprune.structure.running import drawing_alike
from bayesprune.structure.timing import Timer, in_turns, short_milliseconds

MEASURED = ("latency_ms", "memory_mb")
"""What is measured, in the order in which every tensor of this room has it."""

MB = 1e6
"""Bytes of a megabyte."""

NEAR = 0.5
"""Of its limit: a moment that holds less than this never decides."""

TICKS = 2.0**50
"""Whole numbers that the time of the dense network is counted in: of whole numbers sums are exact."""


@dataclass(frozen=True)
class Measured:
    r"""A network's limits in milliseconds, in megabytes, or both, and models of what these are spent on.

    .. math:: \mathrm{time}(z) = \sum_o t_o\, \mathbb{E}[\mathrm{share\ of}\ o\ \mathrm{that\ is\ left}],
              \qquad \mathrm{memory}(z) = \mathrm{bytes}(w) + \max_t \sum_{a \in H_t} \mathrm{bytes}(a)

    with t_o the measured time of operation o in the dense network, of whose products (or results) a share is
    left, and H_t what the graph holds at moment t (``memory_of``). Both are sums of products of units, as
    multiply-accumulates are, so that prices, and choices of units, follow from them alike. A model only says
    which units save most: what a network takes is measured on the network itself.

    Attributes:
        kinds: of ``MEASURED``, those that have a limit.
        limits: of each, in its unit.
        batch: rows of the pass.
        timer: (network, its input) → milliseconds of a pass.
        threads: of the processor, while time is measured.
        operations: of a pass.
        held: what a pass holds; None where memory has no limit.
        dense_bytes: of a pass through the dense network, measured; 0 where memory has no limit.
        parameters: of the dense network.
        number_bytes: of one parameter.
        buffer_bytes: of all buffers.
    """

    kinds: tuple[str, ...]
    limits: tuple[float, ...]
    batch: int
    timer: Timer
    threads: int
    operations: tuple[Operation, ...]
    held: Held | None
    dense_bytes: int
    parameters: int
    number_bytes: int
    buffer_bytes: int

    @classmethod
    def of(
        cls, network: GraphNetwork, limits: Mapping[str, float], batch: int, timer: Timer | None
    ) -> Measured:
        """The limits of one network.

        Args:
            network: the dense network.
            limits: of ``MEASURED``, in its unit.
            batch: rows of the pass.
            timer: as the attribute; by default the shortest of many.
        """
        parameters = list(network.parameters())
        buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
        found, size = None, 0
        if "memory_mb" in limits:
            found = held(network.structure, network.evaluation(), network.batch(batch).tensors)
            size = memory_of(cut(network, {}), network.batch(batch))
        return cls(
            tuple(limits), tuple(limits.values()), batch, timer or short_milliseconds,
            torch.get_num_threads(), operations(network.structure), found, size,
            network.parameter_count(), max(parameter.element_size() for parameter in parameters), buffers,
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Measured:
        return self  # it never changes, and a timer may hold what cannot be copied

    # ---- the models

    def costed(self, network: Costed, table: Tensor) -> Costed:
        """A network whose cost is counted in time and memory too, in ``Term.more``.

        Args:
            network: as it is now.
            table: (operations,), milliseconds of each in the dense network.
        """
        if not isinstance(network, GraphNetwork):  # it has nothing to measure
            return network
        return _Extended(network, (*self._times(table), *self._sizes), self._of_parameter)

    def kind_of(self) -> Tensor:
        """(columns,), to which of ``kinds`` each number of ``Term.more`` belongs: a moment of memory each."""
        time = [0] if "latency_ms" in self.kinds else []
        return torch.tensor([*time, *[len(self.kinds) - 1] * len(self._moments)])

    def whole(self, table: Tensor) -> Tensor:
        """(kinds,), what the dense network takes by the models.

        Args:
            table: (operations,), milliseconds of each.
        """
        whole = []
        if "latency_ms" in self.kinds:
            whole.append(sum(term.shape.numel() * term.more[0] for term in self._times(table)))
        if self.held is not None:
            whole.append(max(self._totals.values()))
        return torch.tensor(whole, dtype=torch.double)

    def of_model(self, more: Tensor) -> Tensor:
        """(kinds,), expected time and memory from expected ``Term.more``.

        Args:
            more: (columns,).
        """
        kinds = self.kind_of()
        return torch.stack([more[kinds == kind].amax() for kind in range(len(self.kinds))])

    def _times(self, table: Tensor) -> list[Term]:
        """Operations by time, in whole ticks."""
        if "latency_ms" not in self.kinds:
            return []
        tick = max(float(table.sum()), 1e-300) / TICKS
        return [
            replace(t, macs=0.0, more=(float(round(ms * t.macs / tick)), *[0.0] * len(self._moments)))
            for operation, ms in zip(self.operations, table.tolist(), strict=True)
            for t in operation.terms
        ]

    @property
    def _before(self) -> tuple[float, ...]:
        """What memory adds to the columns of time."""
        return (0.0,) if "latency_ms" in self.kinds else ()

    @property
    def _of_parameter(self) -> tuple[float, ...]:
        return (*self._before, *[float(self.number_bytes)] * len(self._moments))

    @cached_property
    def _sizes(self) -> list[Term]:
        """What is held, in bytes, at each moment."""
        if self.held is None:
            return []
        always = Term(torch.Size(), (), more=(*self._before, *[float(self._fixed)] * len(self._moments)))
        found = [
            replace(t, macs=0.0, more=(*self._before, *(t.macs * of[number] for of in self._moments)))
            for number, t in enumerate(self.held.terms)
        ]
        return [always, *found]

    @property
    def _fixed(self) -> int:
        return self.buffer_bytes + (0 if self.held is None else self.held.fixed)

    @cached_property
    def _totals(self) -> dict[tuple[int, ...], float]:
        """Moment → bytes in the dense network, weights included."""
        if self.held is None:
            return {}
        sizes = [term.macs * term.shape.numel() for term in self.held.terms]
        always = self._fixed + self.parameters * self.number_bytes
        return {
            of: always + sum(n * size for n, size in zip(of, sizes, strict=True)) for of in self.held.moments
        }

    @cached_property
    def _moments(self) -> tuple[tuple[int, ...], ...]:
        """The moments that could be above the limit, or near it; the largest in any case.

        Memory only ever becomes less, so that others never are.
        """
        totals = self._totals
        most = max(totals.values(), default=0.0)
        near = NEAR * self.limits[-1] * MB / max(self.dense_bytes, 1) * most
        return tuple(of for of, total in totals.items() if total == most or total > near)

    # ---- what is measured

    def profile(self, network: GraphNetwork, rows: Inputs | None = None) -> Tensor:
        """(operations,), milliseconds of each operation of a pass, one by one.

        Args:
            network: the dense network.
            rows: (some, ...), inputs to time it on; by default the example.
        """
        times = _Profile(network.evaluation(), self.timer).of(network.batch(self.batch, rows))
        return torch.tensor([times[operation.name] for operation in self.operations], dtype=torch.double)

    def limit(self, kind: str) -> float:
        """The limit of what is measured, in its unit."""
        return self.limits[self.kinds.index(kind)]

    def measure(
        self,
        network: GraphNetwork,
        keep: Mapping[str, Tensor],
        rounds: int = 1,
        only: str | None = None,
        rows: Inputs | None = None,
    ) -> Tensor:
        """(kinds,), milliseconds and megabytes of a pass through a network, cut to some of its units.

        Args:
            network: left alone.
            keep: group → (group.size,), bool.
            rounds: how often time is measured; the shortest counts.
            only: the one kind that is measured; all by default.
            rows: (some, ...), inputs to time it on; by default the example.
        """
        small, inputs = cut(network, keep), network.batch(self.batch, rows)
        found = []
        for kind in self.kinds if only is None else (only,):
            if kind == "latency_ms":
                found += in_turns([small], inputs, self.timer, rounds)
            else:
                found.append(memory_of(small, inputs) / MB)
        return torch.tensor(found, dtype=torch.double)

    def told(self, kind: str, value: float) -> str:
        """A measured value in words."""
        return f"{value:.4g} {'ms' if kind == 'latency_ms' else 'MB'}"


def cut(network: GraphNetwork, keep: Mapping[str, Tensor]) -> nn.Module:
    """The plain network that comes out, in eval mode.

    Args:
        network: left alone.
        keep: group → (group.size,), bool; groups not named stay as they are.
    """
    small = copy_of(network)
    if keep:
        small.cut_(keep)
    return small.plain(handed_over=True).eval()


class _Step(nn.Module):
    """One operation of a graph as a network of one input."""

    def __init__(self, target: Any, args: Any, kwargs: Any) -> None:
        super().__init__()
        self.call = target, args, kwargs

    def forward(self, x: Tensor) -> Any:
        """Run it on what it has in the graph."""
        target, args, kwargs = self.call
        return target(*args, **kwargs)


class _Profile(fx.Interpreter):
    """Times the operations of a graph, one after the other."""

    def __init__(self, graph: fx.GraphModule, timer: Timer) -> None:
        super().__init__(graph)
        self.timer, self.times = timer, dict[str, float]()

    def of(self, inputs: Call) -> dict[str, float]:
        """Name of an operation → milliseconds."""
        self._x = inputs.tensors[0]
        with torch.no_grad(), drawing_alike():
            self.run(*inputs.tensors)
        return self.times

    def run_node(self, n: fx.Node) -> Any:
        if n.op == RUNS:
            self.times[n.name] = self.timer(_Step(n.target, *self.fetch_args_kwargs_from_env(n)), self._x)
        return super().run_node(n)


@dataclass(frozen=True)
class _Extended:
    """A network with terms of more costs than its own."""

    network: GraphNetwork
    dense: tuple[Term, ...]
    of_parameter: tuple[float, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.network.groups

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.network.slots

    def terms(self) -> Iterator[Term]:
        sizes = [group.size for group in self.groups]
        parts = zip(self.groups, self.network.alive.split(sizes), strict=True)
        alive = {group.name: mask for group, mask in parts}
        for term in self.network.terms():
            yield replace(term, more=self.of_parameter) if term.parameters else term
        for term in self.dense:
            left = term.living(alive)
            if left is not None:
                yield left

    def macs(self) -> int:
        return self.network.macs()

    def parameter_count(self) -> int:
        return self.network.parameter_count()


def masks_of(groups: tuple[Group, ...], share: float) -> dict[str, Tensor]:
    """About that share of the units of every group, drawn alike every time: group → (group.size,), bool."""
    generator = torch.Generator().manual_seed(0)
    return {g.name: torch.rand(g.size, generator=generator) < share for g in groups}
