r"""The normal distribution held to an interval: moments of its exponential, divergence from uniform, draws.

Everything is in terms of :math:`\alpha = (a - \mu)/\sigma`, :math:`\beta = (b - \mu)/\sigma` and
:math:`Z = \Phi(\beta) - \Phi(\alpha)`; logarithms of differences are taken on the side of the axis where Φ is
small, so that they keep their digits far out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Φ(high) − Φ(low)), of low < high.

    Args:
        low: (...), in standard deviations.
        high: (...).
    """
    flip = low > 0  # both in the upper tail: by symmetry in the lower one
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    top, bottom = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    gap = (bottom - top).clamp_max(-torch.finfo(top.dtype).tiny)
    near = gap > -math.log(2)  # log(1 − eˣ), each way where it is exact
    close, far = torch.where(near, gap, -1.0), torch.where(near, -1.0, gap)
    mass: Tensor = top + torch.where(near, (-torch.expm1(close)).log(), torch.log1p(-far.exp()))
    return mass


def log_density(x: Tensor) -> Tensor:
    """(...), log φ(x)."""
    return -0.5 * x.square() - HALF_LOG_TAU


def log_exponential_moment(order: float, loc: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    r"""log E[e^{kt}] of t ~ N(μ, σ²) on [a, b].

    .. math:: k\mu + \tfrac12 k^2\sigma^2
              + \log\frac{\Phi(\beta - k\sigma) - \Phi(\alpha - k\sigma)}{\Phi(\beta) - \Phi(\alpha)}

    Args:
        order: k.
        loc: (...), μ.
        scale: (...), σ > 0.
        low: a.
        high: b.
    """
    alpha, beta, shift = (low - loc) / scale, (high - loc) / scale, order * scale
    mass = log_mass(alpha - shift, beta - shift) - log_mass(alpha, beta)
    return order * loc + 0.5 * shift.square() + mass


def divergence_from_uniform(loc: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    r"""KL(N(μ, σ²) on [a, b] ‖ Uniform[a, b]), nats.

    .. math:: \log\frac{b - a}{\sigma Z} - \tfrac12 \log 2\pi e
              - \frac{\alpha\phi(\alpha) - \beta\phi(\beta)}{2Z}

    Args:
        loc: (...), μ.
        scale: (...), σ > 0.
        low: a.
        high: b.
    """
    alpha, beta = (low - loc) / scale, (high - loc) / scale
    log_z = log_mass(alpha, beta)
    ends = alpha * (log_density(alpha) - log_z).exp() - beta * (log_density(beta) - log_z).exp()
    return math.log(high - low) - scale.log() - log_z - HALF_LOG_TAU - 0.5 - 0.5 * ends


def quantile(uniform: Tensor, loc: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """(...), the value that has this share of the distribution below it; within [a, b] after rounding too.

    Args:
        uniform: (...), in [0, 1).
        loc: (...), μ.
        scale: (...), σ > 0; (b − μ)/σ above −10 in single precision.
        low: a.
        high: b.
    """
    alpha, beta = (low - loc) / scale, (high - loc) / scale
    below = torch.special.ndtr(alpha)
    share = below + uniform * (torch.special.ndtr(beta) - below)
    info = torch.finfo(share.dtype)
    standard: Tensor = torch.special.ndtri(share.clamp(info.tiny, 1 - info.eps / 2))
    return (loc + scale * standard).clamp(low, high)
