"""From the decided mask to the best that moves lead to, each mask by its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.rows import Pair
from bayesprune.structure.groups import close_over
from bayesprune.svi.candidates import Twins
from bayesprune.svi.mask_evidence import MaskEvidence, log_prior, tensors_of

LEAST_GAIN = 0.01
"""Nats; by less two masks differ where searches for their modes have ended in slightly different places."""
ENOUGH = LEAST_GAIN / 10
"""Nats that a search may leave in its last step: Gauss–Newton steps of curved networks close in on a mode by
the same share each time, and a hundredth of these nats takes twice as many."""


@dataclass(frozen=True)
class Terms:
    """Under which terms masks are compared, where prices follow from cost.

    Attributes:
        log_prior: (units of all groups,) mask → nats, up to a constant of all masks.
        allows: (units of all groups,), bool, mask → whether it may be.
        exchange: whether any two units of a group may be exchanged, since no other mask may cost as much.
    """

    log_prior: Callable[[Tensor], float]
    allows: Callable[[Tensor], bool]
    exchange: bool = False


@dataclass(frozen=True)
class Step:
    """One move: which units change, and who stands for them.

    Attributes:
        units: one, or two of a group, by their places among the units of all groups.
        twins: whom they were asked with; None for a unit by itself.
    """

    units: tuple[int, ...]
    twins: Twins | None = None


class Climb:
    """Masks that were asked.

    Args:
        gated: the model.
        rows: training rows.
        steps: pairs and units by themselves, in the order in which they are asked.
        most: masks to ask.
        least: units that a group keeps.
        terms: where prices follow from cost.
    """

    def __init__(
        self,
        gated: GatedModel,
        rows: Pair,
        pairs: Sequence[Twins],
        alone: Sequence[int],
        most: int,
        least: int,
        terms: Terms | None = None,
    ) -> None:
        self.gated, self.pairs, self.alone, self.most, self.least = gated, pairs, alone, most, least
        self.terms = terms
        self.names = tensors_of(gated)
        self.problem = MaskEvidence.of(gated, rows, self.names, ENOUGH)
        self.known: dict[bytes, tuple[float, Tensor]] = {}

    def run(self, keep: Tensor) -> tuple[Tensor, list[tuple[Step, Tensor, float]], bool]:
        """From one mask to the best that moves lead to.

        Args:
            keep: (units of all groups,), bool.

        Returns:
            The mask; each step, the mask before it, and its nats; and whether all around the end were asked.
        """
        taken: list[tuple[Step, Tensor, float]] = []
        complete, here = True, self.ask(keep)
        while here > -torch.inf:
            best: tuple[float, Tensor, Step] | None = None
            complete = True
            for step, mask in self._around(keep):
                if _key(mask) not in self.known and len(self.known) >= self.most:
                    complete = False
                    continue
                there = self.ask(mask, beside=keep)
                if there > here + LEAST_GAIN and (best is None or there > best[0]):
                    best = there, mask, step
            if best is None:
                break
            taken.append((best[2], keep, best[0] - here))
            here, keep, _ = best
        return keep, taken, complete and here > -torch.inf

    def ask(self, mask: Tensor, beside: Tensor | None = None) -> float:
        """log p(z, y), nats; −∞ where the weights' mode was not reached.

        Args:
            mask: (units of all groups,), bool.
            beside: a mask that was asked, from whose mode the search begins: most weights stay near it.
        """
        key = _key(mask)
        if key not in self.known:
            begin = None if beside is None else self.problem.beside(self.known[_key(beside)][1])
            log_evidence, mode, reached = self.problem.log_evidence(mask, begin)
            prior = log_prior(self.problem.gated, mask) if self.terms is None else self.terms.log_prior(mask)
            self.known[key] = log_evidence + prior if reached else -torch.inf, mode
        return self.known[key][0]

    def put_weights_(self, gated: GatedModel, mask: Tensor) -> None:
        """The weights that were integrated out, at their mode under a mask that was asked."""
        tensors, mode, at = gated.weight_tensors(), self.known[_key(mask)][1], 0
        for name in self.names:
            tensor = tensors[name]
            tensor.data.copy_(mode[at : at + tensor.numel()].reshape(tensor.shape))
            at += tensor.numel()

    def _around(self, keep: Tensor) -> Iterator[tuple[Step, Tensor]]:
        """Masks one move away: those of the most correlated units first, exchanges of any units last."""
        seen: set[bytes] = {_key(keep)}
        for step in (*self._of_pairs(keep), *(Step((unit,)) for unit in self.alone), *self._exchanges(keep)):
            mask = keep.clone()
            mask[list(step.units)] = ~mask[list(step.units)]
            if _key(mask) not in seen and self._stands(mask):
                seen.add(_key(mask))
                yield step, mask

    def _of_pairs(self, keep: Tensor) -> Iterator[Step]:
        for pair in self.pairs:
            if bool(keep[pair.first] ^ keep[pair.second]):
                yield Step((pair.first, pair.second), pair)
            yield Step((pair.first,), pair)
            yield Step((pair.second,), pair)

    def _exchanges(self, keep: Tensor) -> list[Step]:
        """A kept unit for a closed one of its group, in the order of what their gates say of it."""
        if self.terms is None or not self.terms.exchange:
            return []
        log_odds, found = self.gated.log_odds.detach().cpu(), []
        for part in self.gated.slices().values():
            units = [unit for unit in self.alone if part.start <= unit < part.stop]
            for out in (u for u in units if bool(keep[u])):
                for into in (u for u in units if not bool(keep[u])):
                    found.append((float(log_odds[out] - log_odds[into]), out, into))
        return [Step((out, into)) for _, out, into in sorted(found)]

    def _stands(self, mask: Tensor) -> bool:
        """Whether no group is emptied, nothing is kept that nobody reads, and the budget is."""
        parts = self.gated.by_group(mask)
        alive = self.gated.by_group(self.gated.alive.cpu())
        closed = close_over(self.gated.network.slots, parts)
        whole = all(torch.equal(closed[name], parts[name]) for name in parts) and all(
            int(parts[g.name].sum()) >= min(self.least, int(alive[g.name].sum()))
            for g in self.gated.groups
            if not g.optional
        )
        return whole and (self.terms is None or self.terms.allows(mask))


def _key(mask: Tensor) -> bytes:
    return mask.numpy().tobytes()
