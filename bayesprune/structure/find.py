"""Find the groups of a chain: walk its layers once, with the unit ids of every column in hand."""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bayesprune.errors import NothingToGateError, UnsupportedNetworkError
from bayesprune.structure.chain import Chain
from bayesprune.structure.groups import VALUES, Group, Slot
from bayesprune.structure.layers import ACROSS, NORMS, POOLS, PRODUCERS, Producer, Select, is_producer
from bayesprune.structure.naming import check_names
from bayesprune.structure.trace import evaluating, trace_layers


def find_chain(network: nn.Module, example: Tensor, exclude: Iterable[str] = ()) -> Chain:
    """Turn a feed-forward network into a chain whose units can be gated and removed.

    Every layer whose outputs another layer reads makes a group of its units; so do the network's inputs, and
    the features that channels are flattened to. The last layer's outputs are what the likelihood reads, and
    stay.

    Args:
        network: the user's network; left alone.
        example: (rows, ...), a batch that it accepts.
        exclude: names or globs of groups that must stay whole.

    Returns:
        The chain, with layers copied from the network.

    Raises:
        UnsupportedNetworkError: no removal rule for a module; it is named with the reason.
        NothingToGateError: no group is left.
        SettingsError: an exclusion that matches no group.
    """
    layers = trace_layers(network, example)
    walk = _Walk(exclude=tuple(exclude), last=_last_producer(layers))
    with evaluating(network):
        x = example
        for name, layer in layers.items():
            y = layer.eval()(x)
            walk.visit(name, layer, x, y)
            x = y
    for layer, original in zip(layers.values(), _modes(network, layers), strict=True):
        layer.train(original)
    walk.check()
    return Chain(walk.layers, walk.groups(), tuple(walk.slots), walk.gated_before, walk.positions)


def _modes(network: nn.Module, layers: Iterable[str]) -> list[bool]:
    modules = {name.replace(".", "_"): module.training for name, module in network.named_modules()}
    return [modules.get(name, network.training) for name in layers]


def _last_producer(layers: OrderedDict[str, nn.Module]) -> str:
    producers = [name for name, layer in layers.items() if type(layer) in PRODUCERS]
    if not producers:
        raise NothingToGateError("The network has nothing to gate: it holds no Linear or Conv layer.")
    return producers[-1]


@dataclass
class _Tally:
    """What a group's units cost, gathered while walking."""

    size: int
    fan_in: int = 1
    fan_out: int = 0
    parameters: float = 0.0
    macs: float = 0.0


@dataclass
class _Walk:
    exclude: tuple[str, ...]
    last: str
    layers: OrderedDict[str, nn.Module] = field(default_factory=OrderedDict)
    slots: list[Slot] = field(default_factory=list)
    gated_before: dict[str, tuple[str, ...]] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, _Tally] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(
        default_factory=dict
    )  # group → (columns,) unit ids of the current tensor
    entry: dict[str, str] = field(
        default_factory=dict
    )  # group → the layer before which its gate may stand so far
    finished: bool = False  # the last producer is behind us
    excluded: set[str] = field(default_factory=set)
    at_input: bool = True  # no layer with parameters yet

    def visit(self, name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        if isinstance(layer, nn.Flatten):
            self._flatten(name, layer, x, y)
            return
        if self.at_input and type(layer) in PRODUCERS | NORMS:
            self._born("input", x.shape[1])
            self.at_input = False
        if is_producer(layer):
            self._produce(name, layer, x, y)
        elif type(layer) in NORMS:
            self._norm(name, layer)
        elif type(layer) in POOLS and x.ndim != POOLS[type(layer)] + 2:
            raise UnsupportedNetworkError(
                f"Cannot gate module {name!r} ({type(layer).__name__}): it takes the {x.ndim} dimensions "
                f"{tuple(x.shape)} for one row and pools across units. Give it {POOLS[type(layer)] + 2} "
                "dimensions: (rows, units, ...)."
            )
        elif type(layer) in ACROSS and not self.finished and self.labels:
            raise UnsupportedNetworkError(
                f"Cannot gate module {name!r} ({type(layer).__name__}): it reads across units that could be "
                f"removed. List {', '.join(map(repr, self.labels))} in exclude=, or move it behind the last "
                "layer."
            )
        self.entry = {}  # no gate may stand in front of what was just passed: f(0) need not be 0
        self.layers[name] = layer

    def _born(self, group: str, size: int) -> None:
        """A group that no layer produces: a ``Select`` stands where it comes from."""
        if size < 2 or self._is_excluded(group):
            return
        select = f"{group}_select"
        self.layers[select] = Select(size)
        self.slots.append(Slot(f"{select}.index", 0, group, torch.arange(size)))
        for owner, ids in self.labels.items():
            self.slots.append(Slot(f"{select}.index", 0, owner, ids))
            self.slots.append(Slot(f"{select}.index", VALUES, owner, ids))
        self.tallies[group] = _Tally(size)
        self.labels[group] = torch.arange(size)

    def _is_excluded(self, group: str) -> bool:
        if any(fnmatch.fnmatchcase(group, pattern) for pattern in self.exclude):
            self.excluded.add(group)
            return True
        return False

    def _produce(self, name: str, layer: Producer, x: Tensor, y: Tensor) -> None:
        weight = layer.weight
        channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        if (isinstance(layer, nn.Linear) and x.ndim != 2) or x.shape[1] != channels:
            raise UnsupportedNetworkError(
                f"Cannot gate module {name!r}: it reads dimension {x.ndim - 1} of a tensor of shape "
                f"{tuple(x.shape)}; units must run along dimension 1. Flatten before it."
            )
        self.positions[name] = y[0, 0].numel()
        for group, ids in self.labels.items():
            self.slots.append(Slot(f"{name}.weight", 1, group, ids, reads=True))
            columns = len(ids) // self.tallies[group].size
            self._charge(
                group, weight.numel() // weight.shape[1] * columns, self.positions[name], outgoing=True
            )
            place = self.entry.get(group, name)
            self.gated_before[place] = (*self.gated_before.get(place, ()), group)
        self.labels = {}
        self.finished = name == self.last
        if not self.finished and not self._is_excluded(name):
            units = weight.shape[0]
            self.labels = {name: torch.arange(units)}
            self.tallies[name] = _Tally(units, fan_in=weight.numel() // units)
            self.slots.append(Slot(f"{name}.weight", 0, name, torch.arange(units)))
            if layer.bias is not None:
                self.slots.append(Slot(f"{name}.bias", 0, name, torch.arange(units)))
            self._charge(name, weight.numel() // units, self.positions[name])
            self.tallies[name].parameters += layer.bias is not None

    def _charge(self, group: str, weights: int, positions: int, outgoing: bool = False) -> None:
        tally = self.tallies[group]
        tally.parameters += weights
        tally.macs += weights * positions
        tally.fan_out += weights if outgoing else 0

    def _norm(self, name: str, layer: nn.Module) -> None:
        for group, ids in self.labels.items():
            for key in ("weight", "bias", "running_mean", "running_var"):
                tensor = getattr(layer, key, None)
                if tensor is not None:
                    self.slots.append(Slot(f"{name}.{key}", 0, group, ids))
                    self.tallies[group].parameters += (
                        isinstance(tensor, nn.Parameter) * len(ids) / self.tallies[group].size
                    )

    def _flatten(self, name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        self.layers[name] = layer
        spread = x[0, 0].numel()
        self.entry = dict.fromkeys(
            self.labels, name
        )  # flattening moves values only: gates may stand in front of it
        self.labels = {group: ids.repeat_interleave(spread) for group, ids in self.labels.items()}
        if self.at_input:
            self._born("input", y.shape[1])
            self.at_input = False
        elif spread > 1 and not self.finished:
            self._born(name, y.shape[1])

    def check(self) -> None:
        check_names("exclude", self.exclude, sorted(self.excluded | set(self.tallies)))
        if not self.tallies:
            raise NothingToGateError(
                "The network has nothing to gate: its one layer's outputs are what the likelihood reads, and "
                f"{'exclude= lists the rest' if self.excluded else 'it has one input'}."
            )

    def groups(self) -> tuple[Group, ...]:
        return tuple(
            Group(name, t.size, t.fan_in, t.fan_out, round(t.parameters), round(t.macs))
            for name, t in self.tallies.items()
        )
