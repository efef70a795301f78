"""GatedNetwork: a network, which of its units are alive, and how probably each of them is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesprune.gated.draws import run_each_draw, several_draws
from bayesprune.rows import Form, Inputs
from bayesprune.structure import Group, Slot
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.surgery.cut import Moments
from bayesprune.structure.groups import WHOLE, close_over


def number_type(network: nn.Module) -> torch.dtype:
    """The type of a network's real numbers: that of its first one."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def careful(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` of ``Module._apply``, but for types coarser than float32."""

    def applied(tensor: Tensor) -> Tensor:
        new = fn(tensor)
        if not new.is_floating_point() or new.dtype.itemsize >= torch.float32.itemsize:
            return new
        return tensor.to(new.device, torch.promote_types(tensor.dtype, torch.float32))

    return applied


class GatedNetwork(nn.Module):
    """A network that runs under given gates, and loses units for good.

    Attributes:
        network: the working copy of the user's network.
        log_odds: (units of all groups,), log q(z=1)/q(z=0), a parameter.
        alive: (units of all groups,), bool: still in the network.
        pinned: (units of all groups,), log-odds of gates that the prior is certain of, which stay; zeros for
            all others; None where there are no such gates.
        log_scales: tensor name → log standard deviation of the weights' posterior; empty where weights are
            points. Names are written with ``/`` for ``.``, as a ``ParameterDict`` needs.
        dense_numel: tensor name → numbers in the dense network's weight or bias.
        dense_parameters: parameters of the dense network.
        dense_macs: multiply-accumulates of the dense network, per row.
        form: what a batch of rows is: shapes and types of inputs, as the network was gated on them.
    """

    alive: Tensor
    pinned: Tensor | None
    is_gated = True
    """By which rooms below this one tell it from a network of a user's."""

    def __init__(self, network: GraphNetwork, log_odds: Tensor, form: Form) -> None:
        super().__init__()
        self.network = network
        self.form = form
        self.log_odds = nn.Parameter(log_odds)
        self.register_buffer("alive", torch.ones_like(log_odds, dtype=torch.bool))
        self.register_buffer("pinned", None, persistent=False)
        self.log_scales = nn.ParameterDict()
        self._made: dict[str, list[Slot]] | None = None
        self.dense_numel = {name: tensor.numel() for name, tensor in self.weight_tensors().items()}
        self.dense_parameters, self.dense_macs = network.parameter_count(), network.macs()

    def _apply(self, fn: Any, recurse: bool = True) -> GatedNetwork:
        """``to``, ``double`` and their like: rows of real numbers are then to be of the new type.

        Gates, and what priors, guide and likelihood hold, stay in single precision at least: a step of the
        gates is smaller than bfloat16 can tell.
        """
        before = number_type(self.network)
        for child in self.children():
            child._apply(fn if child in (self.network, self.log_scales) else careful(fn))
        super()._apply(careful(fn), recurse=False)  # type: ignore[no-untyped-call]
        self.form = self.form.moved(before, number_type(self.network))
        return self

    # ---- reading

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the dense network, in order."""
        return self.network.groups

    def slices(self) -> dict[str, slice]:
        """Group → its part of ``log_odds`` and ``alive``."""
        ends, start = {}, 0
        for group in self.groups:
            ends[group.name] = slice(start, start + group.size)
            start += group.size
        return ends

    def inclusion_prob(self) -> Tensor:
        """(units of all groups,) q(z = 1); exactly zero for units that were removed."""
        return torch.sigmoid(self.log_odds) * self.alive

    def draw_gates(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Masks of independent gates, on the CPU: (draws, units of all groups), bool.

        Args:
            draws: how many.
            generator: of the random numbers; torch's own by default.
        """
        theta = self.inclusion_prob().detach().cpu()
        return torch.rand(draws, len(theta), generator=generator, dtype=theta.dtype) < theta

    def by_rule(self, below: float) -> tuple[Tensor, Tensor] | None:
        """Units that die by a rule of their own, and those of them that it would have gone; None for none.

        Args:
            below: q(z = 1) below which the others die.

        Returns:
            (units of all groups,) and (units of all groups,), bool.
        """
        return None

    def by_group(self, flat: Tensor) -> dict[str, Tensor]:
        """Split a (units of all groups,) tensor: group → (size,)."""
        return {name: flat[part] for name, part in self.slices().items()}

    def kept(self) -> dict[str, int]:
        """Group → units still in the network."""
        return {name: int(mask.sum()) for name, mask in self.by_group(self.alive).items()}

    def weight_tensors(self) -> dict[str, nn.Parameter]:
        """Name → weight or bias that has a prior.

        These are the numbers that products and convolutions sum with, and embedding tables. Norms' scales and
        shifts, positions and class tokens are points without a penalty. A tensor that several layers share
        has one prior, and is there once.
        """
        names = self.network.weight_names()
        return {n: p for n, p in self.network.named_parameters() if n in names}

    def log_scales_by_tensor(self) -> dict[str, nn.Parameter]:
        """Tensor name → log posterior standard deviations, for the weights that have a posterior."""
        return {key.replace("/", "."): value for key, value in self.log_scales.items()}

    def made_by(self, tensor: str) -> tuple[Slot, ...]:
        """What a weight or bias belongs to: the units that it makes, and the sections that it stands in.

        A layer's rows make units, and an embedding table's columns. Without any of them it is of no effect.

        Args:
            tensor: its name.

        Returns:
            Slots of one dimension, as the tensor is now, and of the whole tensor; none where nothing of its
            own is gated. A shared tensor whose units are read along the dimension that makes them, as a tied
            embedding's are, has none of that dimension.
        """
        if self._made is None:
            self._made = {}
            for slot in self.network.slots:
                if not slot.reads and slot.dim in (WHOLE, 0, 1):
                    self._made.setdefault(slot.tensor, []).append(slot)
        slots = self._made.get(tensor, [])
        first = min((slot.dim for slot in slots if slot.dim != WHOLE), default=WHOLE)
        return tuple(slot for slot in slots if slot.dim in (first, WHOLE))

    def read_by(self, tensor: str) -> tuple[Slot, ...]:
        """The units that a weight reads, where they are not those that it makes as well.

        Args:
            tensor: its name.

        Returns:
            Slots of one dimension, as the tensor is now. A channel of a residual stream that a weight both
            reads and makes is one gate, and counts where it is made.
        """
        made = {slot.group for slot in self.made_by(tensor)}
        found: dict[tuple[str, int], Slot] = {}
        for slot in self.network.slots:
            if slot.tensor == tensor and slot.reads and slot.dim >= 0 and slot.group not in made:
                found.setdefault((slot.group, slot.dim), slot)
        return tuple(found.values())

    def share_of_ends(self, tensor: str, open_units: Mapping[str, Tensor]) -> Tensor | None:
        """How much of each number of a weight joins two units: that of ``share_left`` times those it reads.

        Args:
            tensor: name of the weight or bias.
            open_units: group → (..., size) by original unit id: gates, or probabilities of independent ones.

        Returns:
            Broadcastable against the tensor, behind the leading dimensions; None where nothing is gated.
        """
        share, numbers = self.share_left(tensor, open_units), self.weight_tensors()[tensor].ndim
        if share is not None:  # (..., n, 1, ...) → as many dimensions as the tensor has, behind the draws'
            lead = next(iter(open_units.values())).ndim - 1
            behind = share.ndim - lead
            share = share.reshape(share.shape[:lead] + (1,) * (numbers - behind) + share.shape[lead:])
        for slot in self.read_by(tensor):
            values = open_units[slot.group]
            ids = slot.unit_ids.to(values.device)
            factor = torch.where(ids >= 0, values[..., ids.clamp_min(0)], 1.0)
            shape = (1,) * slot.dim + factor.shape[-1:] + (1,) * (numbers - 1 - slot.dim)
            factor = factor.reshape(factor.shape[:-1] + shape)
            share = factor if share is None else share * factor
        return share

    def share_left(self, tensor: str, open_units: Mapping[str, Tensor]) -> Tensor | None:
        """How much of each number of a weight is there: the product over all that it belongs to.

        Args:
            tensor: name of the weight or bias.
            open_units: group → (..., size) by original unit id: gates, or their probabilities.

        Returns:
            (..., n, 1, ...), to multiply the tensor by; None where nothing of its own is gated.
        """
        made, share = self.made_by(tensor), None
        for slot in made:
            values = open_units[slot.group]
            ids = slot.unit_ids.to(values.device)
            factor = torch.where(ids >= 0, values[..., ids.clamp_min(0)], 1.0)
            share = factor if share is None else share * factor
        if share is None:
            return None
        dim = min((slot.dim for slot in made if slot.dim != WHOLE), default=0)
        return share.reshape(share.shape + (1,) * (self.weight_tensors()[tensor].ndim - 1 - dim))

    # ---- running

    def outputs(
        self,
        x: Inputs,
        gates: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the network under given gates and weights.

        Args:
            x: (batch, ...), inputs.
            gates: group → (..., size), by original unit id.
            weights: tensor name → values; by default the network's own. Those of several draws,
                ``(draws..., 1, *shape)``, go with gates of (draws..., 1 or batch, size): a network for each
                draw.
            noise: group → (batch, living units), factors on the units.

        Returns:
            (..., batch, outputs).
        """
        alive = self.by_group(self.alive)
        living = {}
        for name, z in gates.items():
            z = z if bool(alive[name].all()) else z[..., alive[name]]
            living[name] = z.to(self.log_odds.dtype)  # a user's prior may work in double precision
        for name, factor in (noise or {}).items():
            living[name] = living[name] * factor
        weights = dict(weights or {})
        if several_draws(weights, self.network):
            return run_each_draw(self.network, x, living, weights)
        return functional_call(self.network, weights, (x, living))  # type: ignore[no-any-return]

    # ---- changes in place

    def spread_weights_(self, scale: float) -> None:
        """Widen the guide of all weights from points to Gaussians.

        Args:
            scale: standard deviation to begin with.
        """
        for name, tensor in self.weight_tensors().items():
            self.log_scales[name.replace(".", "/")] = nn.Parameter(torch.full_like(tensor, math.log(scale)))

    def pin_(self, pinned: Tensor | None = None) -> None:
        """Put the gates that the prior is certain of where they belong.

        Args:
            pinned: (units of all groups,), their log-odds, zeros for all others; as before by default.
        """
        if pinned is not None:
            self.pinned = pinned.to(self.log_odds) if bool(pinned.any()) else None
            self._start = self.log_odds.detach().clone()
        if self.pinned is not None:
            self.log_odds.data.copy_(torch.where(self.pinned != 0, self.pinned, self.log_odds.data))

    def unpinned(self) -> Tensor:
        """(units of all groups,), a copy of the log-odds; of pinned gates those that they began with."""
        if self.pinned is None:
            return self.log_odds.detach().clone()
        return torch.where(self.pinned != 0, self._start.to(self.log_odds), self.log_odds.detach())

    def remove_(self, dead: Tensor, optimiser: Moments | None = None) -> None:
        """Remove units from network, optimiser and guide; outputs stay what they were at gate zero.

        Args:
            dead: (units of all groups,), bool.
            optimiser: its moments are cut alike.
        """
        alive = {name: mask.cpu() for name, mask in self.by_group(self.alive & ~dead).items()}
        alive = close_over(self.network.slots, alive)
        self.network.cut_(alive, optimiser, self.log_scales_by_tensor())
        self.alive = torch.cat(list(alive.values())).to(self.alive.device)
        self._made = None
