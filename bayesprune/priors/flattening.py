"""The flattening hyper-prior: it turns the prior side of the ELBO into a price in nats for each unit."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bayesprune.errors import PriorError
from bayesprune.priors.checks import as_real

_NO_SHAPE = torch.Size()


class FlatteningDistribution(TorchDistribution):
    r"""The flattening distribution of a prior inclusion probability.

    .. math:: p(\pi \mid \gamma) = \frac{\gamma - 1}{\log\gamma} \cdot \frac{1}{1 + (\gamma - 1)\pi},
              \qquad \pi \in [0, 1],\ \gamma > 1

    It is named for what it does: minimising over π leaves an objective that is flat (linear) in the inclusion
    probability θ,

    .. math:: \min_\pi \{ \mathrm{KL}(\mathrm{Bern}(\theta) \,\|\, \mathrm{Bern}(\pi))
              - \log p(\pi \mid \gamma) \} = \theta \log\gamma + \log\log\gamma - \log(\gamma - 1),

    attained where logit π* = logit θ - log γ. So log γ is a price in nats for each unit kept. The form of
    the density is that of Guenter & Sideris (arXiv 2205.04650); normalisation and identity are derived here,
    and tested by quadrature and by numerical minimisation. Everything is computed from log γ, since γ itself
    overflows.

    Args:
        log_gamma: (...), the price in nats, positive; stable from 1e-3 to 1e3 in float32.
        validate_args: check arguments and values; by default as torch does.

    Raises:
        PriorError: a price that is not a positive number.

    Example:
        >>> import torch
        >>> from bayesprune.priors import FlatteningDistribution
        >>> hyper = FlatteningDistribution(torch.tensor(12.0))
        >>> round(hyper.mean.item(), 4), round(hyper.icdf(torch.tensor(0.5)).item(), 4)
        (0.0833, 0.0025)
    """

    arg_constraints: ClassVar = {"log_gamma": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, log_gamma: Tensor | float, validate_args: bool | None = None) -> None:
        self.log_gamma = as_real(broadcast_all(log_gamma)[0])
        try:
            super().__init__(self.log_gamma.shape, validate_args=validate_args)
        except ValueError as error:
            raise PriorError(
                f"FlatteningDistribution needs a positive price log_gamma in nats, and got {log_gamma}."
            ) from error

    @property
    def mean(self) -> Tensor:
        """(...), 1 / log γ - 1 / (γ - 1)."""
        return 0.5 - self.log_gamma * self.variance

    @property
    def variance(self) -> Tensor:
        """(...), (1/2 - mean) / log γ."""
        price = self.log_gamma.double()
        # 1 / (γ - 1), written so that neither it nor its slope overflows at prices of hundreds of nats
        exact = (0.5 - 1 / price + torch.exp(-price) / -torch.expm1(-price)) / price
        # Bernoulli-number series of the same expression, which cancels to nothing as the price goes to zero.
        squared = price.masked_fill(price >= 0.5, 0.0) ** 2
        series = torch.zeros_like(price)
        for coefficient in (1 / 47900160, -1 / 1209600, 1 / 30240, -1 / 720, 1 / 12):
            series = series * squared + coefficient
        return torch.where(price < 0.5, series, exact).to(self.log_gamma.dtype)

    def expand(
        self, batch_shape: Any, _instance: FlatteningDistribution | None = None
    ) -> FlatteningDistribution:
        """The same distribution over a larger batch, still of this class."""
        new = self._get_checked_instance(FlatteningDistribution, _instance)  # type: ignore[no-untyped-call]
        new.log_gamma = self.log_gamma.expand(torch.Size(batch_shape))
        super(FlatteningDistribution, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        result: FlatteningDistribution = new
        return result

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats, log-density at a probability in [0, 1], in the precision of ``log_gamma``.

        The probability may be given in double precision, for prices beyond the range of float32 (87 nats).
        """
        if self._validate_args:
            self._validate_sample(value)
        value = as_real(value)
        return self._log_peak() - self._log_fall(value).to(self.log_gamma.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """(...), log(1 + (γ - 1) π) / log γ."""
        if self._validate_args:
            self._validate_sample(value)
        value = as_real(value)
        return self._log_fall(value) / self.log_gamma

    def icdf(self, value: Tensor) -> Tensor:
        """(...), the quantile (γ^u - 1) / (γ - 1) of u in [0, 1]."""
        price = self.log_gamma
        share = torch.expm1(-price * value) / torch.expm1(-price)
        return torch.exp(price * (value - 1)) * share

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws in closed form (inverse of the distribution function), sample_shape + (...)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.log_gamma.dtype, device=self.log_gamma.device)
        draws = self.icdf(uniform)
        return draws + (draws.clamp(0.0, 1.0) - draws).detach()  # what rounding took away has a slope too

    def _log_peak(self) -> Tensor:
        """log((γ - 1) / log γ), the log-density at zero."""
        return self.log_gamma + torch.log(-torch.expm1(-self.log_gamma) / self.log_gamma)

    def _log_fall(self, value: Tensor) -> Tensor:
        """log(1 + (γ - 1) π), exact at π = 0, with the slope γ - 1 there (zero where that is no number)."""
        price = self.log_gamma.to(torch.promote_types(self.log_gamma.dtype, value.dtype))
        log_excess = price + torch.log(-torch.expm1(-price))  # log(γ - 1)
        small, largest = torch.finfo(value.dtype).tiny, math.log(torch.finfo(price.dtype).max) - 1
        near = (value < small) & (log_excess < largest)  # no logarithm of these, and no overflow either
        product = torch.exp(log_excess.clamp_max(largest)) * torch.where(near, value, 0.0)
        exponent = log_excess + torch.where(near | (value == 0), small, value).log()
        fall = torch.where(near, product.log1p(), torch.logaddexp(exponent, torch.zeros_like(exponent)))
        return torch.where(near | (value != 0), fall, 0.0)
