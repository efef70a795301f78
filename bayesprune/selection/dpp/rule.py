"""DPP: keep units whose activations differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.selection.activations import unit_vectors
from bayesprune.selection.dpp.kernel import gaussian_kernel
from bayesprune.selection.dpp.sample import KDPP
from bayesprune.selection.family import Family, by_sizes, check_scope
from bayesprune.selection.masks import Masks, fed
from bayesprune.selection.rows import inputs_of
from bayesprune.selection.rule import Rule, Scope
from bayesprune.selection.subject import Subject
from bayesprune.structure.naming import no_group


@dataclass(frozen=True, eq=False)
class DPP(Rule):
    r"""A set of units drawn from a k-DPP over their activations, in every group.

    .. math:: P(S) \propto \det L_S, \quad |S| = k, \qquad
              L_{ij} = e^{-\beta \lVert v_i - v_j \rVert^2} + \varepsilon\, \delta_{ij}

    with v_i the activations of unit i at its readers, over rows (and positions). Mariet & Sra (2016),
    Diversity Networks, arXiv 1511.05077. Draws of different sizes are independent, not nested.

    Attributes:
        k: units to keep, one number for all groups or by group; groups not named stay whole. Without it the
            size comes from the budget that is asked for.
        beta: ``"rows"``, ``"median"`` or a number; see ``bandwidth``.
        jitter: ε, which lets copies in only once all that differs is there (dead units are copies of each
            other). 0.01 as in Diversity Networks (literature, not re-read here).
        rows: (rows, ...), inputs; by default the subject's example.
    """

    k: int | Mapping[str, int] | None = None
    beta: float | str = "rows"
    jitter: float = 0.01
    rows: Tensor | None = field(default=None, repr=False)

    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """The same share of every group, drawn anew at each size.

        Raises:
            SelectionError: a global scope, which subsets of given sizes have no order for.
        """
        check_scope(scope)
        if scope == "global":
            raise SelectionError("A k-DPP draws sets of a given size in each group: use scope='layer'.")
        samplers = self._samplers(subject)
        return by_sizes(subject, lambda sizes: _draw(subject, samplers, sizes, seed))

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """One draw of k units in each group.

        Raises:
            SelectionError: no k, unknown groups, or a k that is below 1 or above the units that there are.
        """
        sizes = self._sizes(subject)
        return _draw(subject, self._samplers(subject), sizes, seed)

    def _sizes(self, subject: Subject) -> dict[str, int]:
        living = {g.name: int(subject.alive[g.name].sum()) for g in subject.groups}
        if self.k is None:
            return super().masks(subject)  # type: ignore[return-value]
        units = {g.name for g in subject.groups if not g.optional}
        asked = dict(self.k) if isinstance(self.k, Mapping) else dict.fromkeys(units, self.k)
        wrong = [no_group(name, living) for name in asked if name not in living]
        for name, k in asked.items():
            if name in living and (
                isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= living[name]
            ):
                wrong.append(
                    f"k={k!r} for {name!r}, which has {living[name]} units: between 1 and {living[name]}"
                )
        if wrong:
            raise SelectionError("DPP: " + "; ".join(wrong) + ".")
        return {**living, **asked}

    def _samplers(self, subject: Subject) -> dict[str, KDPP]:
        """group → its kernel over the living units, decomposed once."""
        vectors = unit_vectors(subject, inputs_of(subject, self.rows, "DPP"))
        return {
            name: KDPP.of(gaussian_kernel(v[subject.alive[name]].numpy(), self.beta), self.jitter)
            for name, v in vectors.items()
        }


def _draw(subject: Subject, samplers: dict[str, KDPP], sizes: dict[str, int], seed: int) -> Masks:
    """One draw a group, each with random numbers of its own."""
    masks: Masks = {}
    for number, group in enumerate(subject.groups):
        alive = subject.alive[group.name]
        masks[group.name] = alive.clone()
        if sizes[group.name] == int(alive.sum()) or group.name not in samplers:
            continue
        generator = np.random.default_rng([seed, number])
        chosen = torch.from_numpy(samplers[group.name].sample(sizes[group.name], generator))
        masks[group.name].fill_(False)
        masks[group.name][alive.nonzero().squeeze(1)[chosen]] = True
    return fed(subject.groups, subject.slots, masks, subject.alive, seed)
