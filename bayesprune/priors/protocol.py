"""What a prior is: a Pyro program of one argument. What a shipped one has in addition: its closed forms."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

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


def closed_form(prior: Any, group: Group) -> ClosedFormPrior | None:
    """The prior of one group, if its hyper-posterior and penalty are known in closed form.

    Args:
        prior: any prior; one that dispatches by group, as PerGroup does with ``of``, is followed.
        group: the group.

    Returns:
        The prior that holds for the group, or None where it is a plain program, left to Pyro's ELBO.
    """
    while callable(getattr(prior, "of", None)):
        prior = prior.of(group)
    known = callable(getattr(prior, "penalty", None)) and callable(getattr(prior, "guide", None))
    found: ClosedFormPrior | None = prior if known else None
    return found
