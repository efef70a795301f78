"""Prior inclusion probabilities that are known, not inferred: a constant, or a rule of the layer's shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.priors.checks import checked
from bayesprune.priors.gates import Gates
from bayesprune.structure.groups import Group


class KnownRate:
    r"""Gates ~ Bern(λ) with a known λ for each group: no site, and with H the entropy

    .. math:: \mathrm{penalty}(\theta)
              = \sum_i \mathrm{KL}(\mathrm{Bern}(\theta_i) \,\|\, \mathrm{Bern}(\lambda))
              = -H(\theta) - \operatorname{logit}(\lambda) \textstyle\sum_i \theta_i - K \log(1 - \lambda).

    A subclass says ``log_rate(group)``, which must be negative.
    """

    def log_rate(self, group: Group) -> float:
        """Log λ of this group, < 0."""
        raise NotImplementedError

    def price(self, group: Group) -> float:
        """-logit λ: what keeping a unit rather than removing it costs, in nats."""
        log_rate = self.log_rate(group)
        return math.log(-math.expm1(log_rate)) - log_rate

    def logits(self, group: Group) -> Tensor:
        """(group.size,), log-odds of λ."""
        return torch.full((group.size,), -self.price(group))

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Nothing to sample: λ is known."""
        checked(group, inclusion_prob)

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """Divergence of q(gates) from the prior: scalar, nats."""
        theta = checked(group, inclusion_prob)
        log_removed = math.log(-math.expm1(self.log_rate(group)))  # log(1 - λ)
        cross = theta.sum() * self.price(group) - group.size * log_removed
        return (cross - Gates(probs=theta).entropy()).to(inclusion_prob.dtype)


@dataclass(frozen=True)
class Fixed(KnownRate):
    """A constant prior inclusion probability.

    With it the posterior log-odds are logit p + the unit's gain, which reach neither 0 nor 1.

    Args:
        p: prior probability of keeping a unit, in (0, 1).

    Raises:
        PriorError: p outside (0, 1).

    Example:
        >>> import torch
        >>> from bayesprune.priors import Fixed
        >>> from bayesprune.structure.groups import Group
        >>> round(Fixed(0.5).penalty(Group("fc1", size=3), torch.tensor([1.0, 0.0, 0.5])).item(), 4)
        1.3863
    """

    p: float

    def __post_init__(self) -> None:
        if not (isinstance(self.p, (int, float)) and 0 < self.p < 1):
            raise PriorError(f"Fixed needs a probability strictly between 0 and 1, and got p={self.p!r}.")

    def log_rate(self, group: Group) -> float:
        """Log p."""
        return math.log(self.p)


@dataclass(frozen=True)
class LayerAdaptive(KnownRate):
    r"""A prior inclusion probability that shrinks with a layer's width, and exponentially with its fan-in.

    .. math:: \log\lambda = \max(-\log(\mathrm{size}) - \mathrm{strength} \cdot (\mathrm{fan\_in} + 1),
              \ \log(\mathrm{floor}))

    After Jantre, Bhattacharya & Maiti, "Layer Adaptive Node Selection in Bayesian Neural Networks" (arXiv
    2108.11000). Taken from the authors' public code: log λ = -log(size) - 1e-9 · (fan_in + 1) · ϑ. Chosen
    here: their ϑ, (fan_in + 1)² plus logarithms of the sample size and of every layer's width, asks for the
    whole network and the data, and is folded into one constant; for the 784-400-400 network of that code 1e-9
    · ϑ is 6e-4 and 2e-4, the default strength is 1e-3. The floor keeps λ away from zero where the fan-in is
    in the tens of thousands.

    Args:
        strength: nats for each incoming weight and the bias, > 0.
        floor: smallest λ, in (0, 1).

    Raises:
        PriorError: a strength that is not positive and finite, or a floor outside (0, 1).

    Example:
        >>> from bayesprune.priors import LayerAdaptive
        >>> from bayesprune.structure.groups import Group
        >>> round(LayerAdaptive().log_rate(Group("fc1", size=300, fan_in=784)), 3)
        -6.489
    """

    strength: float = 1e-3
    floor: float = 1e-50

    def __post_init__(self) -> None:
        if not (isinstance(self.strength, (int, float)) and 0 < self.strength < math.inf):
            raise PriorError(f"LayerAdaptive needs a positive finite strength, and got {self.strength!r}.")
        if not (isinstance(self.floor, (int, float)) and 0 < self.floor < 1):
            raise PriorError(f"LayerAdaptive needs a floor strictly between 0 and 1, and got {self.floor!r}.")

    def log_rate(self, group: Group) -> float:
        """Log λ of this group, nats."""
        shrunk = -math.log(group.size) - self.strength * (group.fan_in + 1)
        return max(shrunk, math.log(self.floor))
