"""What a path is: candidates, from the reference network to the sparsest, each built when it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn

from bayesprune.rows import Inputs


@dataclass(frozen=True)
class Candidate:
    """One pruned network on a path.

    Attributes:
        name: for people.
        build: makes it; always the same network.
        recipe: how it is made from the reference network again, as plain values; empty where it cannot be.
    """

    name: str
    build: Callable[[], nn.Module] = field(repr=False)
    recipe: dict[str, Any] = field(default_factory=dict, repr=False)


@runtime_checkable
class Path(Protocol):
    """A path of candidates. It must not depend on the calibration rows."""

    @property
    def name(self) -> str:
        """How the certificate calls it."""
        ...

    def candidates(self, reference: nn.Module, example: Inputs) -> Sequence[Candidate]:
        """The candidates, from no pruning upward.

        Args:
            reference: the network that is pruned; left alone.
            example: (rows, ...), inputs that it accepts; only their shape and type matter.
        """
        ...


def numbers_left(network: nn.Module) -> int:
    """Parameters that are not zero; one that several layers share counts once."""
    return sum(int(parameter.detach().count_nonzero()) for parameter in network.parameters())


def parameters_of(network: nn.Module) -> int:
    """All parameters, zeros included."""
    return sum(parameter.numel() for parameter in network.parameters())
