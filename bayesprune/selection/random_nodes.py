"""Random nodes: what any rule has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bayesprune.selection.masks import Scores
from bayesprune.selection.rule import Scored
from bayesprune.selection.subject import Subject


@dataclass(frozen=True)
class RandomNodes(Scored):
    """Units go in a random order, uniformly among all orders of a group."""

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), uniform numbers; sections stay."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {g.name: torch.rand(g.size, generator=generator, dtype=torch.float64) for g in subject.groups}
        return {g.name: drawn[g.name] for g in subject.groups if not g.optional}
