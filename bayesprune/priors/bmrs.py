r"""Bayesian model reduction of truncated log-normal gates: the evidence for a prior that has the unit gone.

With t = log z, q(t) = N(μ, σ²) on [a, b], the prior p uniform on it, and a reduced prior p̃, the evidence
changes by

.. math:: \Delta F = \log \mathbb{E}_{q}\Big[\frac{\tilde p(t)}{p(t)}\Big]

without a look at the data (Friston & Penny 2011), and a unit is removed where ΔF ≥ 0. The two reduced priors
are those of Wright, Igel & Selvan, "BMRS: Bayesian Model Reduction for Structured Pruning" (arXiv
2406.01345). Both formulas are tested by quadrature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesprune.priors.truncated_normal import log_mass

LOW, HIGH = -20.0, 0.0
SPIKE, SPIKE_SCALE = -20.0, 1e-6
MANTISSA = 23
"""Bits of a float32's fraction: what is under 2⁻²³ is lost beside one."""


def normal_reduction(
    loc: Tensor, scale: Tensor, spike: float = SPIKE, spike_scale: float = SPIKE_SCALE
) -> Tensor:
    r"""ΔF for a reduced prior that is a log-normal on the same interval, as narrow as a point (BMRS_N).

    .. math:: \Delta F = \log\frac{(b - a)\, Z_{\tilde q}}{Z_q Z_{\tilde p}}
              + \tfrac12 \log\frac{\tilde\sigma_q^2}{\sigma^2 \tilde\sigma^2}
              - \tfrac12 \Big(\frac{\mu^2}{\sigma^2} + \frac{\tilde\mu^2}{\tilde\sigma^2}
              - \frac{\tilde\mu_q^2}{\tilde\sigma_q^2}\Big) - \tfrac12\log 2\pi

    with :math:`1/\tilde\sigma_q^2 = 1/\sigma^2 + 1/\tilde\sigma^2` and
    :math:`\tilde\mu_q = \tilde\sigma_q^2 (\mu/\sigma^2 + \tilde\mu/\tilde\sigma^2)`. The last two terms are
    computed as −½ (μ − μ̃)²/(σ² + σ̃²), which they equal, since as they stand they cancel to nothing.

    Args:
        loc: (...), μ.
        scale: (...), σ > 0.
        spike: μ̃, in [a, b].
        spike_scale: σ̃ > 0.

    Returns:
        (...), float64, nats.
    """
    loc, scale = loc.double(), scale.double()
    narrow = torch.as_tensor(spike_scale, dtype=torch.double, device=loc.device)
    total = scale.square() + narrow.square()
    joint = scale * narrow / total.sqrt()
    centre = (loc * narrow.square() + spike * scale.square()) / total
    middle = torch.as_tensor(spike, dtype=torch.double, device=loc.device)
    masses = _mass(centre, joint) - _mass(loc, scale) - _mass(middle, narrow)
    overlap = -0.5 * (loc - spike).square() / total - 0.5 * (2 * math.pi * total).log()
    return math.log(HIGH - LOW) + masses + overlap


def uniform_reduction(loc: Tensor, scale: Tensor, bits: float = 8.0) -> Tensor:
    r"""ΔF for a reduced prior that is log-uniform where a factor is lost in rounding (BMRS_U).

    .. math:: \Delta F = \log\frac{q(t \in [c, d])}{p(t \in [c, d])},
              \qquad c = -23 \log 2, \quad d = -\mathrm{bits} \cdot \log 2

    Args:
        loc: (...), μ.
        scale: (...), σ > 0.
        bits: a factor under 2^-bits counts as none, in (0, 23).

    Returns:
        (...), float64, nats.
    """
    loc, scale = loc.double(), scale.double()
    low, high = -MANTISSA * math.log(2), -bits * math.log(2)
    inside = log_mass((low - loc) / scale, (high - loc) / scale)
    return inside - _mass(loc, scale) - math.log((high - low) / (HIGH - LOW))


def _mass(loc: Tensor, scale: Tensor) -> Tensor:
    return log_mass((LOW - loc) / scale, (HIGH - loc) / scale)
