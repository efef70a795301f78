"""Subject: a network about to be pruned, or a fitted model, as all rules see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import SelectionError
from bayesprune.gated import GatedModel
from bayesprune.gated.checks import names_of
from bayesprune.priors import ContinuousGuide
from bayesprune.rows import CallRows, Form, RowForm, finite_example
from bayesprune.selection.masks import Masks, whole
from bayesprune.structure import ExpectedCost, Group, Slot
from bayesprune.structure.copying import copy_of
from bayesprune.structure.expected import Expected
from bayesprune.structure.graph import GraphNetwork, provable_structure
from bayesprune.structure.groups import close_over
from bayesprune.svi.result import FitResult

Prunable = nn.Module | GatedModel | FitResult
"""What can be pruned: a trained network, or what a fit gave back."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What a rule looks at; nothing in it is changed by any rule.

    Attributes:
        network: runs under gates: a copy of the user's network, or the one in a gated model.
        alive: units that are still there; a fit may have removed some.
        rows: (rows, ...), inputs at which activations are looked at; None where only masks are asked for.
        gated: the posterior, where there is one.
        dense_parameters: parameters of the network before anything was removed; shares refer to it.
        form: what a batch of rows is.
        continuous: group → guide of its gates, where these are continuous and not decided; their means are in
            the network's weights.
    """

    network: GraphNetwork
    alive: Masks
    rows: Any = field(repr=False)
    gated: GatedModel | None
    dense_parameters: int
    form: Form
    _cost: ExpectedCost = field(repr=False)
    continuous: Mapping[str, ContinuousGuide] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(what: Prunable, example: Any = None, exclude: Iterable[str] = ()) -> Subject:
        """Find the units of a network, or take those of a fit.

        Args:
            what: a network, of which a copy is made; or a gated model, or the result of a fit.
            example: (rows, ...), inputs that it accepts, needed for a network. Rules that look at activations
                do so at these rows, so give some hundreds; others need one.
            exclude: names or globs of groups of a network that must stay whole.

        Raises:
            SelectionError: no network, or ``exclude`` for a fit, which has its groups already.
            DataError: no example for a network.
            UnsupportedNetworkError: the network cannot be traced.
            NothingToGateError: it has no unit to remove.
        """
        if isinstance(what, FitResult | GatedModel):
            gated = what.gated if isinstance(what, FitResult) else what
            if names_of(exclude):
                raise SelectionError(
                    f"exclude={list(exclude)!r}: a fit has its groups already. Give exclude= to bp.gate(...)."
                )
            alive = {name: mask.cpu().clone() for name, mask in gated.by_group(gated.alive).items()}
            live = gated.continuous.live
            if live:
                gated = _at_means(gated)
            network, costs = gated.network, ExpectedCost(gated.network)
            return Subject(network, alive, example, gated, gated.dense_parameters, gated.form, costs, live)
        if not isinstance(what, nn.Module):
            raise SelectionError(
                f"Cannot prune a {type(what).__name__}: give an nn.Module, a gated model, or a fit's result."
            )
        call = finite_example(what, example)
        x = call.alone
        # rules compare what layers make: inputs and flattened features have no incoming weights to go by
        network = GraphNetwork(provable_structure(what, call, names_of(exclude), "none", inputs=False))
        dense = sum(p.numel() for p in what.parameters())
        form = Form(RowForm.of(x) if isinstance(x, Tensor) else CallRows.of(x))
        return Subject(network, whole(network.groups), x, None, dense, form, ExpectedCost(network))

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the dense network, in order."""
        return self.network.groups

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where the units that are left sit."""
        return self.network.slots

    @property
    def posterior(self) -> GatedModel:
        """The gated model.

        Raises:
            SelectionError: there is none.
        """
        if self.gated is None:
            raise SelectionError(
                "This rule reads a posterior, and a plain network has none: give the result of "
                "bp.fit(...), or a rule for trained networks (Magnitude, Outgoing, Taylor, DPP, RandomNodes)."
            )
        return self.gated

    def closed(self, masks: Mapping[str, Tensor]) -> Masks:
        """Masks of all groups, without units that were gone already or that nobody would read any more.

        Raises:
            SelectionError: masks that do not fit the network, or would leave a group without any unit.
        """
        checked = {name: mask & self.alive[name] for name, mask in whole(self.groups, masks).items()}
        closed = close_over(self.slots, checked)
        sections = {g.name: checked[g.name] if g.optional else self.alive[g.name] for g in self.groups}
        standing = close_over(self.slots, sections)  # what is inside a section goes with it
        emptied = [
            f"{g.name!r} ({int(checked[g.name].sum())} of {g.size} units asked for)"
            for g in self.groups
            if not g.optional and bool(standing[g.name].any()) and not bool(closed[g.name].any())
        ]
        if emptied:
            raise SelectionError(
                f"These masks would leave {', '.join(emptied)} without a unit that is still read, and a "
                "layer without units is no network: let one more stay there, or one that reads it."
            )
        return closed

    def parameters(self, masks: Mapping[str, Tensor]) -> int:
        """Parameters of the network that the masks leave: exact, without building it."""
        return round(self._expected(masks).parameters.item())

    def macs(self, masks: Mapping[str, Tensor]) -> int:
        """Multiply-accumulates of one row of the network that the masks leave, likewise."""
        return round(self._expected(masks).macs.item())

    def _expected(self, masks: Mapping[str, Tensor]) -> Expected:
        return self._cost({name: mask.double() for name, mask in self.closed(masks).items()})

    def cut(self, masks: Mapping[str, Tensor]) -> nn.Module:
        """The smaller network, as plain PyTorch; outputs are those under gates of zero and one.

        Args:
            masks: group → (size,) bool, the units that stay.

        Raises:
            SelectionError: masks that do not fit the network.
            RemovalError: the network would compute something else.
        """
        closed, network = self.closed(masks), copy_of(self.network)
        network.cut_(closed)
        return network.plain(handed_over=True, own_class=self.gated is None)

    def edge_parameters(self, masks: Mapping[str, Tensor]) -> int:
        """Parameters that are left of the whole network when single weights are set to zero.

        Args:
            masks: tensor → (its shape), bool, the weights that stay; tensors not named stay whole.
        """
        total = sum(p.numel() for p in self.network.parameters())
        return total - sum(int((~mask).sum()) for mask in masks.values())

    def zeroed(self, masks: Mapping[str, Tensor]) -> nn.Module:
        """The whole network with single weights set to zero, as plain PyTorch.

        Args:
            masks: tensor → (its shape), bool, the weights that stay; tensors not named stay whole.

        Raises:
            SelectionError: a tensor that is no weight, or a mask of another shape or type.
        """
        self.check_weights(masks)
        network = copy_of(self.network)
        tensors = dict(network.named_parameters())
        with torch.no_grad():
            for name, mask in masks.items():
                tensors[name].masked_fill_(~mask.to(tensors[name].device), 0.0)
        return network.plain(handed_over=True, own_class=self.gated is None)

    def check_weights(self, masks: Mapping[str, Tensor]) -> None:
        """Masks of single weights must fit them.

        Raises:
            SelectionError: a tensor that is no weight, or a mask of another shape or type.
        """
        weights = self.weights()
        wrong = [
            f"{name!r} ({'no weight' if name not in weights else f'{tuple(mask.shape)} of {mask.dtype}'})"
            for name, mask in masks.items()
            if name not in weights or mask.shape != weights[name].shape or mask.dtype != torch.bool
        ]
        if wrong:
            raise SelectionError(
                f"Masks of weights must be of torch.bool and of their weight's shape, and these are not: "
                f"{', '.join(wrong)}."
            )

    def weights(self) -> dict[str, Tensor]:
        """Name → weight of a product or convolution, detached, as it is now; biases are left out."""
        names = self.network.weight_names()
        found = {n: p.detach() for n, p in self.network.named_parameters() if n in names and p.ndim >= 2}
        strange = [name for name, weight in found.items() if not bool(torch.isfinite(weight).all())]
        if strange:
            raise SelectionError(f"The weights of {', '.join(map(repr, strange))} are not all finite.")
        return found


def _at_means(gated: GatedModel) -> GatedModel:
    """A copy with the means of its continuous gates in the weights; its log-odds are their rules' still."""
    twin = copy_of(gated)
    twin.settle_continuous_()
    twin.log_odds.data.copy_(gated.log_odds.data)
    return twin
