"""Chain: a feed-forward network as a sequence of plain layers, with gates at the inputs of its readers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bayesprune.structure.copying import copy_of
from bayesprune.structure.frame import Framed
from bayesprune.structure.groups import VALUES, Group, Slot
from bayesprune.structure.layers import Producer, Select, is_producer
from bayesprune.structure.terms import Term

Call = Callable[[str, nn.Module, Tensor], Tensor]
"""How a layer is applied: (its name, the layer, its input) → its output."""


class Chain(nn.Sequential, Framed):
    """The working copy of a user's network, that gates are applied to and units are cut from.

    Args:
        layers: name → layer, in order.
        groups: the units that can be removed.
        slots: where those units sit.
        gated_before: layer name → groups whose gates multiply that layer's input.
        positions: layer name → output positions per row (1 for linear layers): multiply-accumulates per
            weight.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        groups: tuple[Group, ...],
        slots: tuple[Slot, ...],
        gated_before: Mapping[str, tuple[str, ...]],
        positions: Mapping[str, int],
    ) -> None:
        super().__init__(OrderedDict(layers))
        self._no_frame()
        self.groups = groups
        self.slots = slots
        self.gated_before = dict(gated_before)
        self.positions = dict(positions)
        self.columns: dict[tuple[str, str], Tensor] = {}

    def forward(
        self, x: Tensor, gates: Mapping[str, Tensor] | None = None, call: Call | None = None
    ) -> Tensor:
        """Run the network, every gated unit multiplied by its gate at the input of its reader.

        Args:
            x: (rows, ...), a batch of inputs.
            gates: group → (units still in the network,), or (rows, units), or (draws..., 1 or rows, units):
                leading dimensions beyond the rows are carried through to the outputs. Groups not named are
                not gated.
            call: how layers are applied; by default ``layer(input)``.

        Returns:
            (rows, ...) or (draws..., rows, ...), the network's outputs.
        """
        lead, gates = batch_shape(gates or {}), dict(gates or {})
        if lead:
            rows = len(x)
            x = x.expand(lead + x.shape).reshape(-1, *x.shape[1:])
            gates = {g: flat_rows(z, lead, rows) for g, z in gates.items()}
        for name, layer in self._modules.items():
            for group in self.gated_before.get(name, ()):
                if group in gates:
                    x = self._gated(x, gates[group], name, group)
            x = layer(x) if call is None else call(name, layer, x)
        x = self.framed(x)
        return x.reshape(*lead, -1, *x.shape[1:]) if lead else x

    def _gated(self, x: Tensor, gate: Tensor, name: str, group: str) -> Tensor:
        if gate.shape[-1] != x.shape[1]:  # one unit, several columns
            gate = gate.index_select(-1, self._columns(name, group, gate.device))
        return x * (gate if x.ndim == 2 else gate.reshape(gate.shape + (1,) * (x.ndim - 2)))

    def _columns(self, name: str, group: str, device: torch.device) -> Tensor:
        """(columns,) the position among the living units of the unit that owns each column of a reader."""
        if (name, group) not in self.columns:
            slot = next(
                s for s in self.slots if s.tensor == f"{name}.weight" and s.group == group and s.reads
            )
            self.columns[name, group] = torch.unique(slot.unit_ids, return_inverse=True)[1]
        self.columns[name, group] = self.columns[name, group].to(device)
        return self.columns[name, group]

    def producers(self) -> dict[str, Producer]:
        """The layers with weights, by name, in order."""
        return {name: layer for name, layer in self.named_children() if is_producer(layer)}

    def weight_names(self) -> frozenset[str]:
        """The parameters that have a prior: weights and biases of the layers."""
        layers = self.producers().items()
        return frozenset(f"{name}.{key}" for name, layer in layers for key, _ in layer.named_parameters())

    def cut_names(self) -> frozenset[str]:
        """The tensors that units are cut from."""
        return frozenset(slot.tensor for slot in self.slots)

    def terms(self) -> list[Term]:
        """What its parameters and multiply-accumulates are the sum of, now."""
        positions = {f"{name}.weight": float(count) for name, count in self.positions.items()}
        return [
            Term(
                parameter.shape,
                tuple(s for s in self.slots if s.tensor == name and s.dim != VALUES),
                parameters=1.0,
                macs=positions.get(name, 0.0),
            )
            for name, parameter in self.named_parameters()
        ]

    def macs(self) -> int:
        """Multiply-accumulates of one row, now."""
        return sum(self.positions[name] * layer.weight.numel() for name, layer in self.producers().items())

    def parameter_count(self) -> int:
        """Trainable numbers, now: weights, biases, normalisation scales and shifts."""
        return sum(p.numel() for p in self.parameters())

    def plain(self) -> nn.Sequential:
        """A copy as plain PyTorch, without gates; a ``Select`` stays only where something is left out."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, layer in self.named_children():
            if not (isinstance(layer, Select) and len(layer.index) == layer.width):
                layers[name] = layer
        memo: dict[int, object] = {}
        plain = nn.Sequential(OrderedDict((n, _detached_copy(m, memo)) for n, m in layers.items()))
        self.folded_(plain)
        return plain


def _detached_copy(layer: nn.Module, memo: dict[int, object]) -> nn.Module:
    copy = copy_of(layer, memo)
    copy.zero_grad(set_to_none=True)
    return copy


def batch_shape(gates: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Leading dimensions of the gates beyond (rows, units)."""
    shapes = [z.shape[:-2] for z in gates.values() if z.ndim > 2]
    return tuple(torch.broadcast_shapes(*shapes)) if shapes else ()


def flat_rows(gate: Tensor, lead: tuple[int, ...], rows: int) -> Tensor:
    """Gates with draws in front → one row of gates for each row of the enlarged batch."""
    gate = gate if gate.ndim > 1 else gate.unsqueeze(0)
    units = gate.shape[-1]  # none of them may be left
    return gate.expand(*lead, rows, units).reshape(math.prod(lead) * rows, units)
