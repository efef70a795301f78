"""Gates: independent on/off switches of a group as one vector-valued distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.score_parts import ScoreParts
from torch import Tensor
from torch.distributions import Bernoulli, Independent, constraints, register_kl
from torch.distributions.utils import lazy_property

from bayesprune.errors import PriorError
from bayesprune.priors.checks import as_real

MOST_ENUMERABLE_UNITS = 12
_NO_SHAPE = torch.Size()


class _HardDraw(torch.autograd.Function):
    """Exact zeros and ones forwards, d value / d probability = 1 backwards.

    ``hard + soft - soft.detach()`` would give 0.99999994 now and then, which is outside the support.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(probs: Tensor, uniform: Tensor) -> Tensor:
        return (uniform < probs).to(probs.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is saved: the backward pass is the identity."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


class Gates(TorchDistribution):
    r"""Independent Bernoulli gates of one group, scored together as one vector.

    .. math:: p(z) = \prod_i \pi_i^{z_i} (1 - \pi_i)^{1 - z_i}, \qquad z \in \{0, 1\}^K

    Draws are exact zeros and ones, and carry a straight-through gradient: the derivative of a draw in its
    probability counts as one (Bengio, Léonard & Courville, arXiv 1308.3432). ``log_prob`` is linear in the
    value, so the straight-through gradient of ``log q(z) - log p(z)`` is the exact gradient of the
    Kullback-Leibler divergence. Values are exact at probability 0 and 1 (0 · log 0 = 0); gradients stay
    finite there.

    Args:
        probs: (..., units), probabilities of keeping, in [0, 1]. Give either this or ``logits``.
        logits: (..., units), log-odds of keeping.
        validate_args: check arguments and values; by default as torch does.

    Raises:
        PriorError: neither or both arguments given, a scalar, or a probability outside [0, 1].

    Example:
        >>> import torch
        >>> from bayesprune.priors import Gates
        >>> gates = Gates(probs=torch.tensor([0.0, 0.5, 1.0]))
        >>> gates.event_shape, gates.log_prob(torch.tensor([0.0, 1.0, 1.0])).exp().item()
        (torch.Size([3]), 0.5)
    """

    arg_constraints: ClassVar = {
        "probs": constraints.independent(constraints.unit_interval, 1),
        "logits": constraints.independent(constraints.real, 1),
    }
    support = constraints.independent(constraints.boolean, 1)
    has_rsample = True
    has_enumerate_support = True

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        given = probs if probs is not None else logits
        if given is None or (probs is not None and logits is not None):
            raise PriorError("Gates needs exactly one of probs= (probabilities) and logits= (log-odds).")
        if given.dim() == 0:
            raise PriorError(
                "Gates needs one number per unit, shape (..., units), and got a scalar: use x[None]."
            )
        given = as_real(given)
        self._from_probs = probs is not None
        self.__dict__["probs" if self._from_probs else "logits"] = given
        try:
            super().__init__(given.shape[:-1], given.shape[-1:], validate_args=validate_args)
        except ValueError as error:
            asked = "probabilities in [0, 1]" if self._from_probs else "real log-odds"
            low, high = given.min().item(), given.max().item()
            raise PriorError(f"Gates needs {asked}, and got values from {low:g} to {high:g}.") from error

    @lazy_property
    def probs(self) -> Tensor:
        """(..., units), probabilities of keeping."""
        return self.logits.sigmoid()

    @lazy_property
    def logits(self) -> Tensor:
        """(..., units), log-odds of keeping; infinite at probability 0 and 1."""
        return self.probs.log() - torch.log1p(-self.probs)

    @property
    def mean(self) -> Tensor:
        """(..., units), the probabilities."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """(..., units), π (1 - π)."""
        return self.probs * (1 - self.probs)

    def expand(self, batch_shape: Any, _instance: Gates | None = None) -> Gates:
        """The same gates over a larger batch, still of this class."""
        new: Gates = self._get_checked_instance(Gates, _instance)  # type: ignore[no-untyped-call]
        batch_shape = torch.Size(batch_shape)
        new._from_probs = self._from_probs
        for name in ("probs", "logits"):
            if name in self.__dict__:
                new.__dict__[name] = self.__dict__[name].expand(batch_shape + self.event_shape)
        super(Gates, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Hard draws with the straight-through gradient, sample_shape + (..., units)."""
        probs = self.probs.expand(self._extended_shape(torch.Size(sample_shape)))
        uniform = torch.rand_like(probs, requires_grad=False)
        draws: Tensor = _HardDraw.apply(probs, uniform)  # type: ignore[no-untyped-call]
        return draws

    def sample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Hard draws without gradient, sample_shape + (..., units)."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats; linear in the value, exact at probability 0 and 1."""
        if self._validate_args:
            self._validate_sample(value)
        log_on, log_off = self._log_probs()
        never_on, never_off = self.impossible()
        terms = value * log_on + (1 - value) * log_off
        impossible = (never_on & (value > 0)) | (never_off & (value < 1))
        return terms.masked_fill(impossible, -torch.inf).sum(-1)

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        """Which gradient estimator Pyro's ELBOs use for a value.

        A draw on the graph carries its gradient itself. An enumerated value, or a detached one, does not:
        Pyro must then weight it by its probability (it would otherwise weight every configuration by one).
        """
        log_prob = self.log_prob(x)
        enumerated = x.dim() > len(self.batch_shape) + 1
        absent: Any = 0  # the number zero is how Pyro marks a part that is not there
        if enumerated or (log_prob.requires_grad and not x.requires_grad):
            return ScoreParts(log_prob=log_prob, score_function=log_prob, entropy_term=absent)
        return ScoreParts(log_prob=log_prob, score_function=absent, entropy_term=log_prob)

    def entropy(self) -> Tensor:
        """(...), nats; exactly zero where every probability is 0 or 1."""
        log_on, log_off = self._log_probs()
        return -(self.probs * log_on + (1 - self.probs) * log_off).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All configurations, (2^units,) + batch_shape + (units,): one joint enumeration dimension per group.

        Args:
            expand: repeat the configurations over the batch, else leave batch dimensions of size 1.

        Raises:
            PriorError: more than 12 units, which would be more than 4096 configurations.
        """
        like = self.__dict__["probs" if self._from_probs else "logits"]
        return configurations(self.event_shape[0], self.batch_shape, like, expand)

    def _log_probs(self) -> tuple[Tensor, Tensor]:
        """log π and log(1 - π), with finite stand-ins where they are -inf: those are multiplied by zero."""
        if self._from_probs:
            info = torch.finfo(self.probs.dtype)
            last = (
                1 - info.eps / 2
            )  # the largest number below one, which a sigmoid often gives: it has a slope
            log_on = self.probs.masked_fill(self.probs < info.tiny, info.tiny).log()
            return log_on, torch.log1p(-self.probs.masked_fill(self.probs > last, last))
        largest = torch.finfo(self.logits.dtype).max
        logits = self.logits.nan_to_num(torch.nan, largest, -largest)
        return torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)

    def impossible(self) -> tuple[Tensor, Tensor]:
        """(..., units) each: where a gate can never be on, and where it can never be off."""
        if self._from_probs:
            return self.probs == 0, self.probs == 1
        return self.logits == -torch.inf, self.logits == torch.inf


def configurations(units: int, batch_shape: torch.Size, like: Tensor, expand: bool = True) -> Tensor:
    """All values of a group's gates, (2^units,) + batch_shape + (units,).

    Args:
        units: gates of the group.
        batch_shape: of the distribution that they are values of.
        like: a tensor of the type and device that they are to have.
        expand: repeat the configurations over the batch, else leave batch dimensions of size 1.

    Raises:
        PriorError: more than 12 units.
    """
    if units > MOST_ENUMERABLE_UNITS:
        raise PriorError(
            f"{units} gates have 2^{units} configurations: enumerate at most {MOST_ENUMERABLE_UNITS} in "
            "a group, or sample them (Trace_ELBO)."
        )
    counter = torch.arange(2**units, device=like.device).unsqueeze(-1)
    values = ((counter >> torch.arange(units, device=like.device)) & 1).to(like.dtype)
    values = values.reshape((-1,) + (1,) * len(batch_shape) + (units,))
    return values.expand((-1, *batch_shape, units)) if expand else values


def log_odds(probability: Tensor) -> Tensor:
    """Log-odds in default precision, of a probability that may be in double precision; infinite at 0, 1.

    Args:
        probability: (...), in [0, 1].
    """
    return (probability.log() - torch.log1p(-probability)).to(torch.get_default_dtype())


def _kl_gates_gates(q: Gates, p: Gates) -> Tensor:
    log_on, log_off = p._log_probs()
    never_on, never_off = p.impossible()
    q_log_on, q_log_off = q._log_probs()
    terms = q.probs * (q_log_on - log_on) + (1 - q.probs) * (q_log_off - log_off)
    impossible = (never_on & (q.probs > 0)) | (never_off & (q.probs < 1))
    return terms.masked_fill(impossible, torch.inf).sum(-1)


def _kl_gates_independent(q: Gates, p: Any) -> Tensor:
    base = p.base_dist
    if not isinstance(base, Bernoulli) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(f"no closed form for Gates against {p}")
    name = "probs" if "probs" in base.__dict__ else "logits"
    return _kl_gates_gates(q, Gates(**{name: getattr(base, name)}, validate_args=False))


register_kl(Gates, Gates)(_kl_gates_gates)
register_kl(Gates, Independent)(_kl_gates_independent)
