r"""Fuse: units that stay stand in for those that go.

Whoever read all units of a group reads the kept ones with other weights: with A the dense network's
activations at that reader (samples × columns), and K those of the pruned network at the columns that stay,

.. math:: C = \arg\min_C \lVert K C - A \rVert_F^2 + \lambda \lVert C - C_0 \rVert_F^2, \qquad W' = W C^\top,

C₀ the matrix that keeps what is kept. For a linear map W' is then what least squares gives for its own sums,
whatever W is. Of a convolution, columns are channels, mixed alike at all positions of its kernel. Readers
are taken in the order in which the network gets to them, each with what those before it really hand on.
After Mariet & Sra (2016), Diversity Networks, arXiv 1511.05077, where K is a part of A; derived here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from bayesprune.errors import SelectionError
from bayesprune.rows import Inputs
from bayesprune.selection.fuse_edges import reweighted_edges
from bayesprune.selection.rows import inputs_of
from bayesprune.selection.subject import Subject
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.readings import Reading, readings


@dataclass(frozen=True, eq=False)
class Fuse:
    """Re-weight by least squares: the readers of kept units, or of edges each unit's kept ones.

    Attributes:
        rows: (rows, ...), inputs; by default the subject's example. More than the units of a layer, or the
            ridge alone decides.
        ridge: λ as a share of the kept columns' mean squared norm. 0 leaves λ out: of all solutions that with
            the least change.
    """

    rows: Tensor | None = field(default=None, repr=False)
    ridge: float = 1e-3

    def __call__(self, subject: Subject, masks: Mapping[str, Tensor]) -> nn.Module:
        """The smaller network with its readers re-weighted.

        Args:
            subject: what is pruned; left alone.
            masks: group → (size,) bool, the units that stay.

        Returns:
            Plain PyTorch, of the same sizes as without fusing.

        Raises:
            SelectionError: masks that do not fit, no rows, activations that are not finite, a negative ridge.
        """
        rows, closed = self._rows(subject), subject.closed(masks)
        network = reweighted(subject.network, rows, closed, self.ridge)
        smaller = replace(subject, network=network, rows=None, gated=None)
        return smaller.cut(closed)

    def zeroed(self, subject: Subject, masks: Mapping[str, Tensor]) -> nn.Module:
        """The whole network with single weights at zero, and those that stay re-weighted unit by unit.

        Args:
            subject: what is pruned; left alone.
            masks: tensor → (its shape), bool, the weights that stay.

        Returns:
            Plain PyTorch, of the same zeros as ``subject.zeroed``; see ``bayesprune.selection.fuse_edges``.

        Raises:
            SelectionError: as for units.
        """
        subject.check_weights(masks)
        network = reweighted_edges(subject.network, self._rows(subject), masks, self.ridge)
        return replace(subject, network=network, rows=None).zeroed(masks)

    def _rows(self, subject: Subject) -> Inputs:
        if not self.ridge >= 0:
            raise SelectionError(f"Fuse(ridge={self.ridge!r}): it must be 0 or more.")
        return inputs_of(subject, self.rows, "Fuse")


def reweighted(
    network: GraphNetwork, rows: Inputs, masks: Mapping[str, Tensor], ridge: float = 1e-3
) -> GraphNetwork:
    """The same network with the readers of kept units re-weighted, and nothing cut.

    Args:
        network: left alone.
        rows: (rows, ...), inputs.
        masks: group → (size,) bool, the units that stay, all of them read.
        ridge: as ``Fuse`` has it.

    Returns:
        A copy, to be run under these masks as gates.
    """
    gates = {name: mask.double() for name, mask in masks.items()}
    new = copy_of(network)
    weights = dict(new.named_parameters())
    for place in fusable(network, rows):
        dense = readings(network, rows, only=place.name)[0]
        now = readings(new, rows, gates, only=place.name)[0]
        stays = _columns_left(place, masks)
        if not bool(stays.any()) or (bool(stays.all()) and torch.equal(dense.values, now.values)):
            continue  # nobody is left to stand in, or nobody has to
        mix = mixing(now.values[stays].T, dense.values.T, stays, ridge)
        for name in place.weights:
            _reweight_(weights[name], mix, stays)
    return new


def fusable(network: GraphNetwork, rows: Inputs) -> list[Reading]:
    """The places where fusing acts: those whose readers' weights are read at no other place.

    Args:
        network: that is pruned.
        rows: (rows, ...), inputs; one is enough.

    Returns:
        Readings at these rows, in the order in which the network gets to them; ``weights`` without the
        shared.
    """
    found = readings(network, rows[:2])
    times: dict[str, int] = {}
    for reading in found:
        for name in reading.weights:
            times[name] = times.get(name, 0) + 1
    alone = [
        Reading(r.name, r.values, r.units, tuple(w for w in r.weights if times[w] == 1), r.other)
        for r in found
    ]
    return [reading for reading in alone if reading.weights]


def mixing(kept: Tensor, dense: Tensor, stays: Tensor, ridge: float) -> Tensor:
    """How much of every dense column each kept one stands for.

    Args:
        kept: (samples, kept columns), the pruned network's.
        dense: (samples, columns), the dense network's.
        stays: (columns,), bool.
        ridge: share of the kept columns' mean squared norm.

    Returns:
        (kept columns, columns), C.
    """
    identity = torch.eye(len(stays), dtype=kept.dtype)[stays]
    size = kept.shape[1]
    triangle = torch.linalg.qr(torch.cat([kept, dense - kept @ identity], 1), mode="r").R  # less to solve
    left, right = triangle[:, :size], triangle[:, size:]
    if ridge > 0:
        strength = (ridge * kept.square().sum() / max(size, 1)).sqrt()
        left = torch.cat([left, strength * torch.eye(size, dtype=kept.dtype)])
        right = torch.cat([right, right.new_zeros(size, right.shape[1])])
    change: Tensor = torch.linalg.lstsq(left, right, driver="gelsd").solution
    return identity + change


def _columns_left(place: Reading, masks: Mapping[str, Tensor]) -> Tensor:
    """(columns,), those all of whose units stay."""
    stays = torch.ones(place.values.shape[0], dtype=torch.bool)
    for group, ids in place.units.items():
        stays &= torch.cat([masks[group], torch.ones(1, dtype=torch.bool)])[ids]
    return stays


@torch.no_grad()
def _reweight_(weight: Tensor, mix: Tensor, stays: Tensor) -> None:
    """W' = W Cᵀ over dimension 1, at the columns that stay; those that go are cut later."""
    columns = weight.detach().movedim(1, 0)
    mixed = mix @ columns.flatten(1).double().cpu()
    new = columns.clone()
    new[stays] = mixed.reshape(-1, *columns.shape[1:]).to(columns)
    weight.copy_(new.movedim(0, 1))
