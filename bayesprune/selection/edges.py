"""Edges: single weights set to zero, in a network that keeps its shape."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.selection.family import Family, check_scope
from bayesprune.selection.masks import Masks
from bayesprune.selection.rule import Rule, Scope
from bayesprune.selection.subject import Subject


class EdgeRule(Rule):
    """A rule over the single weights of products and convolutions; biases and norms stay.

    Masks are by tensor: name → (shape of the tensor), bool. The parameters of a network so pruned are counted
    without the zeros that its masks put there.
    """

    edges = True

    @abstractmethod
    def edge_scores(self, subject: Subject, seed: int = 0) -> dict[str, Tensor]:
        """Weight → scores of its shape; the lowest go first."""

    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """Nested masks; with ``"layer"`` every tensor has the same share of its weights."""
        check_scope(scope)
        scores = self.edge_scores(subject, seed)
        keys = [_places(s) if scope == "layer" else s.flatten().double() for s in scores.values()]
        order = torch.cat(keys).argsort(descending=True, stable=True)
        sizes, shapes = [s.numel() for s in scores.values()], [s.shape for s in scores.values()]

        def at(step: int) -> Masks:
            mask = torch.zeros(len(order), dtype=torch.bool)
            mask[order[:step]] = True
            parts = mask.split(sizes)
            return {n: part.reshape(s) for n, part, s in zip(scores, parts, shapes, strict=True)}

        return Family(len(order), at)


def _places(scores: Tensor) -> Tensor:
    """(numbers,), minus the share of the tensor that is there once this weight is."""
    flat = scores.flatten()
    places = torch.empty(len(flat), dtype=torch.float64)
    places[flat.argsort(descending=True, stable=True)] = torch.arange(1, len(flat) + 1, dtype=torch.float64)
    return -places / len(flat)


@dataclass(frozen=True)
class MagnitudeEdges(EdgeRule):
    """The smallest weights go: |w|. Han, Pool, Tran & Dally (2015), Learning both Weights and Connections."""

    def edge_scores(self, subject: Subject, seed: int = 0) -> dict[str, Tensor]:
        """Weight → |w|."""
        return {name: weight.abs().cpu() for name, weight in subject.weights().items()}


@dataclass(frozen=True)
class RandomEdges(EdgeRule):
    """Weights go in a random order, uniformly among all orders."""

    def edge_scores(self, subject: Subject, seed: int = 0) -> dict[str, Tensor]:
        """Weight → uniform numbers."""
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.rand(weight.shape, generator=generator, dtype=torch.float64)
            for name, weight in subject.weights().items()
        }
