r"""Moves of units at the decision: what independent gates cannot say, evidence is asked.

Two units that carry the same signal share its weight while they learn, and then each looks indispensable,
since the other is held where it is: both stay, at twice the price; or both fade together. And a unit whose
weights begin on the wrong side of zero may have faded before they have crossed. So before gates are put at
their vertices, masks beside the decided one are compared with the weights integrated out under each:

.. math:: \Delta = \log p(z', y) - \log p(z, y), \qquad
          p(z, y) = p(z) \int p(y \mid w, z)\, p(w)\, dw

(``mask_evidence``: exact where outputs are linear in the weights and targets are Gaussian, Laplace's method
with the Gauss–Newton curvature elsewhere). Of all single moves, a unit removed or added, or exchanged for one
that it is correlated to, the one with the largest Δ > 0 is taken, and so on until there is none: the
add, delete and swap moves of Bayesian variable selection (Brown, Vannucci & Fearn 1998, JRSS B 60, 627;
literature), climbing. Whoever stays takes over the work of who goes: the weights are put at their mode under
the mask that was chosen. Under a budget a move has to keep it (``Pricing.terms``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.rows import Pair
from bayesprune.svi.candidates import most_masks, singles, twins
from bayesprune.svi.climb import Climb, Step, Terms
from bayesprune.svi.mask_evidence import why_not_integrated
from bayesprune.svi.settings import Moves


@dataclass(frozen=True)
class Move:
    """One change of the decided mask, and what it is worth.

    Attributes:
        group: whose units are meant.
        out: unit that goes, by its original number; None where none does.
        into: unit that comes in; None where none does.
        twin: the unit that stays, or goes, and to which the other is correlated; None where a unit was asked
            about by itself, or two were exchanged that are not.
        correlation: of the two, over the training rows; None likewise.
        nats: by which log p(z, y) rises, weights integrated out.
    """

    group: str
    out: int | None
    into: int | None
    twin: int | None
    correlation: float | None
    nats: float

    def __str__(self) -> str:
        alone = self.twin is None
        what = {
            (True, True): f"{self.into} instead of {self.out}",
            (True, False): f"{self.out} goes" + f", {self.twin} does its work" * (not alone),
            (False, True): f"{self.into} comes back" + f", beside {self.twin}" * (not alone),
        }[self.out is not None, self.into is not None]
        alike = "" if self.correlation is None else f"correlation {self.correlation:.3f}, "
        return f"{self.group}: {what} ({alike}{self.nats:+.2f} nats)"


@dataclass(frozen=True)
class Decision:
    """What was tried when gates were decided.

    Attributes:
        moves: that were made, in order.
        pairs: of correlated units, among those that were left.
        units: asked about by themselves.
        rows: by which masks were judged; all of the training, as far as a pass deals them.
        masks: whose evidence was asked.
        complete: whether all moves around the mask that was chosen were asked.
        why_none: why no move was tried; empty where they were, or where there was none to try.
    """

    moves: tuple[Move, ...] = ()
    pairs: int = 0
    units: int = 0
    rows: int = 0
    masks: int = 0
    complete: bool = True
    why_none: str = ""


def why_not_moved(gated: GatedModel) -> str:
    """Why no evidence of masks can be asked; empty if it can.

    Args:
        gated: the model.
    """
    if not gated.likelihood.by_row:
        return "the likelihood has one loss for a batch"
    return why_not_integrated(gated)


def spared(gated: GatedModel, rows: Pair, settings: Moves, dead: Tensor) -> Tensor:
    """Dead units that may come back, and are not removed before the decision.

    Args:
        gated: the model.
        rows: (inputs, targets), training rows.
        settings: of the moves.
        dead: (units of all groups,), bool, units about to be removed.

    Returns:
        (units of all groups,), bool.
    """
    kept = torch.zeros_like(dead)
    if bool(dead.any()):
        alone = singles(gated, len(rows[0]), settings)
        kept[alone] = True
        for pair in () if alone else twins(gated, rows, settings):
            kept[[pair.first, pair.second]] = True
    return kept & dead


@torch.no_grad()
def decide_(
    gated: GatedModel, rows: Pair, settings: Moves, keep: Tensor, least: int, terms: Terms | None = None
) -> tuple[Tensor, Decision]:
    """Climb from the decided mask by moves of units.

    Args:
        gated: the model before units are removed; where moves are made, its weights are put at their mode.
        rows: (inputs, targets), training rows.
        settings: of the moves.
        keep: (units of all groups,), bool, the decided mask.
        least: units that a group keeps.
        terms: under which masks are compared, where prices follow from cost.

    Returns:
        (units of all groups,), bool, the mask; and what was tried.
    """
    count = len(rows[0])
    alone, pairs = singles(gated, count, settings), twins(gated, rows, settings)
    if not alone and not pairs:
        return keep, Decision(rows=count)
    search = Climb(gated, rows, pairs, alone, most_masks(gated, count, settings), least, terms)
    found = Decision(pairs=len(pairs), units=len(alone), rows=count, complete=False)
    try:
        search.ask(keep.cpu())
    except RuntimeError as problem:  # what a user's operation says to double precision
        reason = str(problem).strip().partition("\n")[0]
        return keep, replace(found, why_none=f"no evidence could be had: {reason}")
    mask, steps, complete = search.run(keep.cpu())
    if steps:
        search.put_weights_(gated, mask)
    moves = tuple(_move(gated, *step) for step in steps)
    return mask.to(keep.device), replace(found, moves=moves, masks=len(search.known), complete=complete)


def _move(gated: GatedModel, step: Step, before: Tensor, nats: float) -> Move:
    """A step by original numbers."""
    group, start = next((n, p.start) for n, p in gated.slices().items() if p.start <= step.units[0] < p.stop)
    out = [unit - start for unit in step.units if bool(before[unit])]
    into = [unit - start for unit in step.units if not bool(before[unit])]
    twin: int | None = None
    if step.twins is not None:
        pair = {step.twins.first - start, step.twins.second - start}
        twin = into[0] if out and into else (pair - {*out, *into}).pop()
    return Move(
        group, out[0] if out else None, into[0] if into else None, twin,
        None if step.twins is None else step.twins.correlation, nats,
    )  # fmt: skip
