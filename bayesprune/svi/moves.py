r"""Moves between correlated units at the decision: what independent gates cannot say, evidence is asked.

Two units that carry the same signal share its weight while they learn, and then each looks indispensable,
since the other is held where it is: both stay, at twice the price; or both fade together. So before gates are
put at their vertices, masks beside the decided one are compared with the weights integrated out under each:

.. math:: \Delta = \log p(z', y) - \log p(z, y), \qquad
          p(z, y) = p(z) \int p(y \mid w, z)\, p(w)\, dw

(``mask_evidence``: exact where outputs are linear in the weights and targets are Gaussian, Laplace's method
with the Gauss–Newton curvature elsewhere). Of all single moves, each unit of a correlated pair removed or
added, or exchanged for the other, the one with the largest Δ > 0 is taken, and so on until there is none: the
add, delete and swap moves of Bayesian variable selection (Brown, Vannucci & Fearn 1998, JRSS B 60, 627;
literature), climbing. Whoever stays takes over the work of who goes: the weights are put at their mode under
the mask that was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.rows import InMemory, Items, Pair, Rows
from bayesprune.structure.graph.readings import unit_vectors
from bayesprune.structure.groups import close_over
from bayesprune.svi.mask_evidence import MaskEvidence, affordable, log_prior, tensors_of, why_not_integrated
from bayesprune.svi.settings import Moves

FEWEST_MASKS = 4
"""A pair has that many; where no more can be afforded, nothing is asked."""
MOST_ROWS = 2000
"""By which correlations are told."""
LEAST_GAIN = 0.01
"""Nats; by less two masks differ where searches for their modes have ended in slightly different places."""


@dataclass(frozen=True)
class Move:
    """One change of the decided mask, and what it is worth.

    Attributes:
        group: whose units are meant.
        out: unit that goes, by its original number; None where none does.
        into: unit that comes in; None where none does.
        twin: the unit that stays, or goes, and to which the other is correlated.
        correlation: of the two, over the training rows.
        nats: by which log p(z, y) rises, weights integrated out.
    """

    group: str
    out: int | None
    into: int | None
    twin: int
    correlation: float
    nats: float

    def __str__(self) -> str:
        what = {
            (True, True): f"{self.into} instead of {self.out}",
            (True, False): f"{self.out} goes, {self.twin} does its work",
            (False, True): f"{self.into} comes back, beside {self.twin}",
        }[self.out is not None, self.into is not None]
        return f"{self.group}: {what} (correlation {self.correlation:.3f}, {self.nats:+.2f} nats)"


@dataclass(frozen=True)
class Decision:
    """What was tried when gates were decided.

    Attributes:
        moves: that were made, in order.
        pairs: of correlated units, among those that were left.
        masks: whose evidence was asked.
        complete: whether all moves around the mask that was chosen were asked.
        why_none: why no move was tried; empty where they were, or where no two units were correlated.
    """

    moves: tuple[Move, ...] = ()
    pairs: int = 0
    masks: int = 0
    complete: bool = True
    why_none: str = ""


@dataclass(frozen=True)
class Twins:
    """Two units of a group that say much the same, by their places among the units of all groups."""

    group: str
    first: int
    second: int
    correlation: float


def why_not_moved(gated: GatedModel) -> str:
    """Why no evidence of masks can be asked; empty if it can.

    Args:
        gated: the model.
    """
    if not gated.likelihood.by_row:
        return "the likelihood has one loss for a batch"
    return why_not_integrated(gated)


def twins(gated: GatedModel, rows: Pair, settings: Moves) -> list[Twins]:
    """Pairs of correlated units whose readers' weights can be integrated out, the most alike first.

    Args:
        gated: the model.
        rows: (inputs, targets), training rows.
        settings: from which correlation on.
    """
    names = tensors_of(gated)
    weights = sum(gated.weight_tensors()[name].numel() for name in names)
    if weights == 0 or most_masks(gated, len(rows[0]), settings) < FEWEST_MASKS:
        return []
    alive, found = gated.by_group(gated.alive.cpu()), []
    starts, fixed = gated.slices(), None if gated.pinned is None else gated.pinned.cpu() != 0
    vectors = unit_vectors(gated.network, alive, rows[0][:MOST_ROWS])
    for group in _read_by(gated, names) & set(vectors):
        living = alive[group].nonzero().squeeze(1)
        alike = _correlations(vectors[group][living])
        for i, j in (alike.abs() >= settings.correlation).triu(1).nonzero().tolist():
            a, b = (starts[group].start + int(living[k]) for k in (i, j))
            if fixed is None or not bool(fixed[a] | fixed[b]):
                found.append(Twins(group, a, b, float(alike[i, j])))
    return sorted(found, key=lambda pair: (-abs(pair.correlation), pair.first, pair.second))


def rows_for(gated: GatedModel, source: Rows | None, settings: Moves) -> Pair | str:
    """The rows by which moves are judged; or why there are none.

    Args:
        gated: the model.
        source: of the training rows. Tensors are taken as they are, and a data set is gone through once
            where it is small enough that moves are tried at all; what a loader deals is its own affair.
        settings: of the moves.
    """
    if isinstance(source, InMemory) and source.y is not None:
        return source.x, source.y
    if not isinstance(source, Items):
        return "no training rows are known" if source is None else "a loader deals the training rows"
    if most_masks(gated, source.count, settings) < FEWEST_MASKS:
        return "they would take too long for so many rows"
    with torch.random.fork_rng(devices=[]):  # a data set may draw
        x, y = source.tensors()
    device = gated.log_odds.device
    return "the rows have no targets" if y is None else (x.to(device), y.to(device))


def most_masks(gated: GatedModel, rows: int, settings: Moves) -> int:
    """How many masks are asked at most: as many as were allowed, else what takes a matter of seconds."""
    return affordable(gated, rows) if settings.masks is None else settings.masks


def spared(gated: GatedModel, rows: Pair, settings: Moves, dead: Tensor) -> Tensor:
    """Dead units that have a twin, and are not removed before the decision.

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
        for pair in twins(gated, rows, settings):
            kept[[pair.first, pair.second]] = True
    return kept & dead


@torch.no_grad()
def decide_(
    gated: GatedModel, rows: Pair, settings: Moves, keep: Tensor, least: int
) -> tuple[Tensor, Decision]:
    """Climb from the decided mask by moves between correlated units.

    Args:
        gated: the model before units are removed; where moves are made, its weights are put at their mode.
        rows: (inputs, targets), training rows.
        settings: of the moves.
        keep: (units of all groups,), bool, the decided mask.
        least: units that a group keeps.

    Returns:
        (units of all groups,), bool, the mask; and what was tried.
    """
    pairs = twins(gated, rows, settings)
    if not pairs:
        return keep, Decision()
    search = _Climb(gated, rows, pairs, most_masks(gated, len(rows[0]), settings), least)
    try:
        search.ask(keep.cpu())
    except RuntimeError as problem:  # what a user's operation says to double precision
        reason = str(problem).strip().partition("\n")[0]
        return keep, Decision(
            pairs=len(pairs), complete=False, why_none=f"no evidence could be had: {reason}"
        )
    mask, found = search.run(keep.cpu())
    if found.moves:
        search.put_weights_(gated, mask)
    return mask.to(keep.device), found


class _Climb:
    """Masks that were asked.

    Args:
        gated: the model.
        rows: training rows.
        pairs: of correlated units.
        most: masks to ask.
        least: units that a group keeps.
    """

    def __init__(self, gated: GatedModel, rows: Pair, pairs: list[Twins], most: int, least: int) -> None:
        self.gated, self.pairs, self.most, self.least = gated, pairs, most, least
        self.names = tensors_of(gated)
        self.problem = MaskEvidence.of(gated, rows, self.names)
        self.known: dict[bytes, tuple[float, Tensor]] = {}

    def run(self, keep: Tensor) -> tuple[Tensor, Decision]:
        """From one mask to the best that moves lead to."""
        moves: list[Move] = []
        complete, here = True, self.ask(keep)
        while here > -torch.inf:
            best: tuple[float, Tensor, Twins] | None = None
            complete = True
            for pair, mask in self._around(keep):
                if _key(mask) not in self.known and len(self.known) >= self.most:
                    complete = False
                    continue
                there = self.ask(mask)
                if there > here + LEAST_GAIN and (best is None or there > best[0]):
                    best = there, mask, pair
            if best is None:
                break
            moves.append(self._move(keep, best[1], best[2], best[0] - here))
            here, keep, _ = best
        return keep, Decision(tuple(moves), len(self.pairs), len(self.known), complete and here > -torch.inf)

    def ask(self, mask: Tensor) -> float:
        """log p(z, y), nats; −∞ where the weights' mode was not reached."""
        key = _key(mask)
        if key not in self.known:
            log_evidence, mode, reached = self.problem.log_evidence(mask)
            total = log_evidence + log_prior(self.problem.gated, mask)
            self.known[key] = total if reached else -torch.inf, mode
        return self.known[key][0]

    def put_weights_(self, gated: GatedModel, mask: Tensor) -> None:
        """The weights that were integrated out, at their mode under a mask that was asked."""
        tensors, mode, at = gated.weight_tensors(), self.known[_key(mask)][1], 0
        for name in self.names:
            tensor = tensors[name]
            tensor.data.copy_(mode[at : at + tensor.numel()].reshape(tensor.shape))
            at += tensor.numel()

    def _around(self, keep: Tensor) -> Iterator[tuple[Twins, Tensor]]:
        """Masks one move away, those of the most correlated units first."""
        seen: set[bytes] = {_key(keep)}
        for pair in self.pairs:
            changes = [[pair.first], [pair.second]]
            if bool(keep[pair.first] ^ keep[pair.second]):
                changes.insert(0, [pair.first, pair.second])
            for units in changes:
                mask = keep.clone()
                mask[units] = ~mask[units]
                if _key(mask) not in seen and self._stands(mask):
                    seen.add(_key(mask))
                    yield pair, mask

    def _stands(self, mask: Tensor) -> bool:
        """Whether no group is emptied, and nothing is kept that nobody reads."""
        parts = self.gated.by_group(mask)
        alive = self.gated.by_group(self.gated.alive.cpu())
        closed = close_over(self.gated.network.slots, parts)
        return all(torch.equal(closed[name], parts[name]) for name in parts) and all(
            int(parts[g.name].sum()) >= min(self.least, int(alive[g.name].sum()))
            for g in self.gated.groups
            if not g.optional
        )

    def _move(self, before: Tensor, after: Tensor, pair: Twins, nats: float) -> Move:
        start = self.gated.slices()[pair.group].start
        out = (before & ~after).nonzero().squeeze(1).tolist()
        into = (after & ~before).nonzero().squeeze(1).tolist()
        changed = out[0] if out else into[0]
        twin = into[0] if out and into else pair.second if changed == pair.first else pair.first
        return Move(
            pair.group, out[0] - start if out else None, into[0] - start if into else None, twin - start,
            pair.correlation, nats,
        )  # fmt: skip


def _read_by(gated: GatedModel, names: tuple[str, ...]) -> set[str]:
    """Groups whose units are read by these weights alone; all where these are all there are."""
    if len(names) == len(gated.weight_tensors()):
        return {group.name for group in gated.groups}
    readers: dict[str, set[str]] = {}
    for slot in gated.network.slots:
        if slot.reads:
            readers.setdefault(slot.group, set()).add(slot.tensor)
    return {group for group, tensors in readers.items() if tensors <= set(names)}


def _correlations(vectors: Tensor) -> Tensor:
    """(units, units), of what readers see of them; 0 for a unit that says always the same."""
    centred = vectors.double() - vectors.double().mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    unit = torch.where(length > 1e-9 * vectors.double().norm(dim=1, keepdim=True), centred / length, 0.0)
    return unit @ unit.T


def _key(mask: Tensor) -> bytes:
    return mask.numpy().tobytes()
