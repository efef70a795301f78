r"""Gains: what every unit saves of the training rows' nats, by leaving it out.

.. math:: \mathrm{gain}_u = N \big( L(m_{-u}, m_u = 0) - L(m_{-u}, m_u = 1) \big)

with L(m) the mean negative log-likelihood of a row under masks m, and N the training rows. Exact for the
weights as they are: nothing is learnt anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.likelihoods import Likelihood
from bayesprune.rows import Inputs
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.subject import Subject
from bayesprune.structure.running import evaluating

ROWS_AT_ONCE = 2000


@dataclass(frozen=True, eq=False)
class Loss:
    """N · L(m): nats of all training rows, told from some of them.

    Attributes:
        subject: whose network runs under masks.
        likelihood: how outputs explain targets; it knows N.
        rows: (rows, ...), inputs.
        targets: (rows, ...).
    """

    subject: Subject
    likelihood: Likelihood
    rows: Inputs
    targets: Tensor

    def __call__(self, masks: Masks) -> float:
        """Nats under these masks."""
        network = self.subject.network
        like = next(p for p in network.parameters() if p.is_floating_point())
        gates = {
            name: mask[self.subject.alive[name]].to(device=like.device, dtype=like.dtype)
            for name, mask in masks.items()
        }
        total = 0.0
        with evaluating(network):
            for x, y in zip(self.rows.split(ROWS_AT_ONCE), self.targets.split(ROWS_AT_ONCE), strict=True):
                outputs = self.likelihood.part(network(x.to(like.device), gates), len(x))
                nll = self.likelihood.nll(outputs, y.to(like.device))
                total += float(nll.double().sum())
        return self.likelihood.rows * total / len(self.rows)


def gains(loss: Loss, masks: Masks) -> Scores:
    """The gain of every living unit, all others as the masks have them.

    Args:
        loss: nats under masks.
        masks: group → (size,) bool.

    Returns:
        group → (size,), nats; zero for removed units. A pass over the rows for each unit.
    """
    here = loss(masks)
    found: Scores = {}
    for name, alive in loss.subject.alive.items():
        found[name] = torch.zeros(len(alive), dtype=torch.float64)
        for unit in alive.nonzero().squeeze(1).tolist():
            there = loss(flipped(masks, name, unit))
            found[name][unit] = there - here if masks[name][unit] else here - there
    return found


def flipped(masks: Masks, group: str, unit: int) -> Masks:
    """The masks with one unit the other way round."""
    mask = masks[group].clone()
    mask[unit] = ~mask[unit]
    return {**masks, group: mask}


def descend(
    loss: Loss, masks: Masks, line: Scores, margins: Scores, keep: Masks, sweeps: int
) -> tuple[Masks, bool]:
    r"""Flip units one at a time as long as that lowers :math:`J(m) = N L(m) + \sum_u \mathrm{line}_u m_u`.

    Every flip lowers J, so it ends; where it does, each kept unit gains more than its line, and no removed
    one would: a vertex that no single flip improves. Units with the least to lose are looked at first.

    Args:
        loss: nats under masks.
        masks: to begin with.
        line: group → (size,), nats.
        margins: group → (size,), gain − line at these masks, the order in which units are looked at.
        keep: units that are not up for removal.
        sweeps: over all units, at most.

    Returns:
        The masks, and whether the last sweep changed nothing.
    """
    order = sorted(
        (float(margins[name][unit]), name, unit)
        for name, alive in loss.subject.alive.items()
        for unit in (alive & ~keep[name]).nonzero().squeeze(1).tolist()
    )
    here = loss(masks)
    for _ in range(sweeps):
        changed = False
        for _, name, unit in order:
            other = flipped(masks, name, unit)
            there = loss(other)
            on = bool(masks[name][unit])
            gain = there - here if on else here - there
            if (gain > float(line[name][unit])) != on:
                masks, here, changed = other, there, True
        if not changed:
            return masks, True
    return masks, False
