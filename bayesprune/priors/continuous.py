r"""Continuous gates: a factor on every unit, with a variational family and a rule of death of its own.

A gate need not be on or off. The methods of the field multiply units by noise, z_u ~ q(z_u), learn where q
lies and how wide it is, and remove the units whose signal drowns. Here such a prior is three things, which
this page says once:

- a Pyro program of a group, as every prior is: it may sample hyper-sites, and returns p(z);
- a *guide*, q(z): an ``nn.Module`` of the family's parameters, one of each for every unit;
- the divergence between them, in closed form, or by draws where nobody knows one (said aloud by ``gate``).

A fit draws a fresh z for every row, which estimates E_q of the batch's nats with less variance than one draw
for all its rows (Kingma, Salimans & Welling 2015, arXiv 1506.02557), and counts the divergence once for the
data set. A unit whose log-odds fall below the method's line is removed while the network learns. When gates
are decided z becomes its mean, and that is folded into the weights that read the unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints, kl_divergence

from bayesprune.errors import PriorError
from bayesprune.priors.checks import positive
from bayesprune.structure.groups import Group

DRAWS = 16
"""Of gates, for a divergence that nobody knows in closed form."""


class ContinuousGuide(nn.Module, ABC):
    """q of the gates of one group; its parameters are (size,) each, by original unit.

    Attributes:
        probable: whether ``log_odds`` are those of q(z ≠ 0). If so, a unit dies in training where Bernoulli
            gates do, below ``Shrink.below``; if not, they are a score, and its line holds all along.
        line: log-odds below which the method removes a unit.
    """

    probable: ClassVar[bool] = False
    line: float = 0.0

    @abstractmethod
    def posterior(self) -> TorchDistribution:
        """q(z), units being its batch: batch shape (size,), event shape ()."""

    @abstractmethod
    def sample(self, rows: int, units: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws, differentiable in the parameters.

        Args:
            rows: how many.
            units: (living,), which units.
            generator: of the random numbers, on the parameters' device.

        Returns:
            (rows, living).
        """

    @abstractmethod
    def mean(self) -> Tensor:
        """(size,), the factor that a unit is left with when gates are decided."""

    @abstractmethod
    def log_odds(self) -> Tensor:
        """(size,), what the rule of death looks at: a unit stays while it is above ``line``."""


class ContinuousPrior(ABC):
    """A prior of continuous gates. A subclass has a ``program`` and a ``family``, and ``nats`` if it can.

    Args:
        weight: what the divergence is multiplied by, > 0. At 1 the objective is the negative ELBO; the
            methods of the field often take another, and say so by a factor β on their penalty.

    Raises:
        PriorError: a weight that is no positive number.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not positive(weight):
            raise PriorError(f"{type(self).__name__}: weight={weight!r} must be a positive finite number.")
        self.weight = float(weight)

    @abstractmethod
    def __call__(self, group: Group) -> TorchDistribution:
        """Sample the hyper-sites; p(z) given them: batch shape (group.size,), event shape ()."""

    @abstractmethod
    def family(self, group: Group) -> ContinuousGuide:
        """The guide of a group's gates, where it is before training."""

    def guide(self, group: Group, q: ContinuousGuide, alive: Tensor) -> None:  # noqa: B027 (none is fine)
        """Sample the hyper-sites, given q(z); here there are none.

        Args:
            group: the group as it was at the start.
            q: of its gates.
            alive: (group.size,), bool: not removed.
        """

    def nats(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """E_q[log q(z, hyper) − log p(z, hyper)], without ``weight``.

        By default the exact divergence where Pyro knows one, else by 16 draws of z, unbiased as its slopes
        are.

        Args:
            group: the group as it was at the start.
            q: of its gates.
            alive: (group.size,), bool: what was removed costs nothing.

        Returns:
            (group.size,) or scalar, nats, whose sum counts; differentiable in q's parameters.
        """
        with poutine.block():
            hyper: Any = poutine.trace(self.guide).get_trace(group, q, alive)
            program: Any = poutine.trace(poutine.replay(self.__call__, trace=hyper)).get_trace(group)
        posterior, prior = q.posterior(), program.nodes["_RETURN"]["value"]
        try:
            divergence = kl_divergence(posterior, prior)
        except NotImplementedError:
            z = posterior.rsample(torch.Size([DRAWS]))
            divergence = (posterior.log_prob(z) - prior.log_prob(z)).mean(0)
        of_hyper = torch.as_tensor(hyper.log_prob_sum() - program.log_prob_sum())
        return torch.where(alive, divergence, 0.0).sum() + of_hyper

    def prices(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """(group.size,), nats that each unit pays for itself, with ``weight``: what evidence is held against.

        Args:
            group: the group as it was at the start.
            q: of its gates.
            alive: (group.size,), bool.
        """
        nats = self.nats(group, q, alive)
        return self.weight * (nats if nats.ndim else (nats / alive.sum().clamp_min(1)).expand(group.size))

    def presence(self, group: Group) -> Tensor:
        """(group.size,), a draw from the prior of which units are there; here all are.

        Args:
            group: the group.
        """
        return torch.ones(group.size)


def taken_over(name: str, size: int, support: Any = constraints.real) -> Tensor:
    """A hyper-site that is estimated and not drawn, (size,): of density one, with a point for its guide.

    What q's own parameters say is best of a prior's parameter is taken over from them (empirical Bayes).

    Args:
        name: of the site.
        size: units.
        support: where its values live.

    Raises:
        PriorError: it is to be drawn: an estimate has no prior.
    """
    value: Tensor = pyro.sample(name, _Estimated(support, size).to_event(1))  # type: ignore[no-untyped-call]
    return value


class _Estimated(dist.ImproperUniform):
    """Density one everywhere, from which nothing can be drawn."""

    def __init__(self, support: Any, size: int) -> None:
        super().__init__(support, torch.Size([size]), torch.Size())  # type: ignore[no-untyped-call]

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Estimated:
        """The same density of other shape."""
        return _Estimated(self._support, int(torch.Size(batch_shape).numel()))

    def sample(self, sample_shape: Any = None) -> Tensor:
        """Refuse.

        Raises:
            PriorError: always.
        """
        raise PriorError(
            "A scale that a prior takes over from its guide is estimated and has no prior to be drawn from: "
            "replay the model on a trace of its guide, or condition it on the estimate."
        )

    rsample = sample


def estimated_at(name: str, value: Tensor) -> None:
    """The guide of a site of ``taken_over``: a point.

    Args:
        name: of the site.
        value: (size,).
    """
    pyro.sample(name, dist.Delta(value, event_dim=1))
