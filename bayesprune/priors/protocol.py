"""What a prior is: a Pyro program of one argument. What a shipped one has in addition: its closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesprune.structure import Costed
from bayesprune.structure.groups import Group


class GatePrior(Protocol):
    """A prior over the gates of a group: any callable, a plain function too.

    It may ``pyro.sample`` hyper-parameters at sites named after the group (``'pi/conv1'``), and returns a
    distribution over {0,1}^size with event shape (group.size,), such as :class:`~bayesprune.priors.Gates`.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from bayesprune.priors import Gates
        >>> def shared_rate(group):
        ...     rate = pyro.sample(f"rate/{group.name}", dist.Uniform(0.0, 1.0))
        ...     return Gates(probs=rate.expand(group.size))
    """

    def __call__(self, group: Group) -> Any:
        """The distribution over the group's gates."""
        ...


@runtime_checkable
class ClosedFormPrior(GatePrior, Protocol):
    """A prior whose hyper-posterior and contribution to the ELBO are known in closed form."""

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample the hyper-sites from their exact posterior given q(gates) = Bernoulli(inclusion_prob)."""
        ...

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """E_q[log q(gates, hyper) - log p(gates, hyper)] under that guide: scalar, nats."""
        ...


class HyperPrior(Protocol):
    """What :class:`~bayesprune.priors.BernoulliGates` asks of a hyper-prior."""

    def logits(self, group: Group) -> Tensor:
        """Sample the hyper-sites; (..., group.size), prior log-odds of keeping each unit."""
        ...

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample the same sites from their exact posterior given q(gates) = Bernoulli(inclusion_prob)."""
        ...

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """E_q[log q(gates, hyper) - log p(gates, hyper)] under that guide: scalar, nats."""
        ...

    def price(self, group: Group) -> float:
        """What the last unit costs when every other one is kept, in nats."""
        ...


@runtime_checkable
class NetworkPrior(Protocol):
    """A prior that has to see the whole network before it can speak of one group: ``gate()`` binds it."""

    def bind(self, network: Costed, inclusion_prob: Mapping[str, Tensor], rows: int) -> GatePrior:
        """The prior of this network.

        Args:
            network: the dense network.
            inclusion_prob: group → (group.size,), q(z = 1) to begin with.
            rows: training rows.

        Returns:
            A prior of one group at a time.
        """
        ...


def bound(prior: Any, network: Costed, log_odds: Tensor, rows: int) -> Any:
    """A prior as it holds for a network: bound where it asks for it, else as it is.

    Args:
        prior: any prior.
        network: the dense network.
        log_odds: (units of all groups,), log q(z = 1)/q(z = 0) to begin with.
        rows: training rows.
    """
    if not callable(getattr(prior, "bind", None)):
        return prior
    parts = torch.sigmoid(log_odds.detach().double()).split([group.size for group in network.groups])
    return prior.bind(network, {g.name: p for g, p in zip(network.groups, parts, strict=True)}, rows)


def member(prior: Any, group: Group) -> Any:
    """The prior that holds for one group, where a prior stands for several, as PerGroup does with ``of``.

    Args:
        prior: any prior; one inside another is followed to the end.
        group: the group.
    """
    while callable(getattr(prior, "of", None)):
        prior = prior.of(group)
    return prior


def closed_form(prior: Any, group: Group) -> ClosedFormPrior | None:
    """The prior of one group, if its hyper-posterior and penalty are known in closed form.

    Args:
        prior: any prior; one that dispatches by group, as PerGroup does with ``of``, is followed.
        group: the group.

    Returns:
        The prior that holds for the group, or None where it is a plain program, left to Pyro's ELBO.
    """
    prior = member(prior, group)
    known = callable(getattr(prior, "penalty", None)) and callable(getattr(prior, "guide", None))
    found: ClosedFormPrior | None = prior if known else None
    return found
