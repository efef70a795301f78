"""Gates that know of each other: each one's log-odds are linear in the gates before it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from bayesprune.errors import PriorError
from bayesprune.priors import Gates

_NO_SHAPE = torch.Size()


class AutoregressiveGates(TorchDistribution):
    r"""Gates of one group whose log-odds depend on the gates before them: a fully visible sigmoid belief net.

    .. math:: q(z) = \prod_i \mathrm{Bern}\big(z_i;\ \sigma(a_i + \textstyle\sum_{j<i} B_{ij} z_j)\big),
              \qquad z \in \{0, 1\}^K

    With B = 0 these are :class:`~bayesprune.priors.Gates`. Two inputs that say the same get B_ij < 0: one or
    the other. After Frey, "Graphical Models for Machine Learning and Digital Communication" (1998); as a
    variational posterior, Mnih & Gregor (arXiv 1402.0030). Draws carry no gradient: Pyro's ELBOs enumerate
    them, or use their score.

    Args:
        logits: (..., units), a: log-odds of keeping while all gates before are closed.
        coupling: (units, units), B; what is on and above its diagonal is ignored.
        validate_args: check arguments and values; by default as torch does.

    Raises:
        PriorError: a coupling of another shape, or scalar logits.

    Example:
        >>> import torch
        >>> from bayesprune.svi.guides import AutoregressiveGates
        >>> gates = AutoregressiveGates(torch.zeros(2), torch.tensor([[0.0, 0.0], [-50.0, 0.0]]))
        >>> gates.log_prob(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).exp()  # never both
        tensor([0.5000, 0.2500])
    """

    arg_constraints: ClassVar = {"logits": constraints.independent(constraints.real, 1)}
    support = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(self, logits: Tensor, coupling: Tensor, validate_args: bool | None = None) -> None:
        units = logits.shape[-1:]
        if not units or coupling.shape != units + units:
            raise PriorError(
                "AutoregressiveGates needs logits of shape (..., units) and a coupling of shape "
                f"(units, units), and got {tuple(logits.shape)} and {tuple(coupling.shape)}."
            )
        self.logits, self.coupling = logits, coupling.tril(-1)
        super().__init__(logits.shape[:-1], units, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> AutoregressiveGates:
        """The same gates over a larger batch."""
        new = self._get_checked_instance(AutoregressiveGates, _instance)  # type: ignore[no-untyped-call]
        new.logits = self.logits.expand(torch.Size(batch_shape) + self.event_shape)
        new.coupling = self.coupling
        super(AutoregressiveGates, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        result: AutoregressiveGates = new
        return result

    def conditional(self, value: Tensor) -> Gates:
        """Each gate given the ones before it, as independent gates.

        Args:
            value: (..., units), all gates; gate i reads those before i only.
        """
        return Gates(logits=self.logits + value @ self.coupling.mT, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self.conditional(value).log_prob(value)

    def sample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws without gradient, gate after gate: sample_shape + (..., units)."""
        with torch.no_grad():
            value = self.logits.new_zeros(self._extended_shape(torch.Size(sample_shape)))
            uniform = torch.rand_like(value)
            for i in range(value.shape[-1]):
                log_odds = self.logits[..., i] + value @ self.coupling[i]
                value[..., i] = (uniform[..., i] < log_odds.sigmoid()).to(value.dtype)
            return value

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All configurations, as ``Gates`` enumerates them: one joint dimension, at most 12 units.

        Args:
            expand: repeat the configurations over the batch, else leave batch dimensions of size 1.

        Raises:
            PriorError: more than 12 units.
        """
        return Gates(logits=self.logits, validate_args=False).enumerate_support(expand)
