"""Distilled: a likelihood of the targets, and of what a teacher says of the same rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bayesprune.errors import LikelihoodError, LikelihoodWarning
from bayesprune.likelihoods.base import Frame, Likelihood
from bayesprune.likelihoods.output_range import OutputRange, range_of
from bayesprune.likelihoods.taught import Taught
from bayesprune.likelihoods.teacher import SAME, Teacher, problems_of
from bayesprune.rows import Inputs


class Distilled(Likelihood):
    r"""A likelihood whose network learns from a teacher too (Hinton, Vinyals & Dean, arXiv 1503.02531).

    With :math:`\eta_n` the network's outputs for row n, :math:`\eta'_n` the teacher's, w the weight and T the
    temperature, a row costs

    .. math:: \ell_n = (1 - w)\,[-\log p(y_n \mid \eta_n)]
        + w\, T^2\, \mathrm{KL}\big(p(\cdot \mid \eta'_n / T) \,\big\Vert\, p(\cdot \mid \eta_n / T)\big)

    nats. It is a relative entropy, not a cross-entropy: they differ by the teacher's entropy, which no weight
    and no gate changes, and so w = 1 costs nothing where the network says what its teacher says. Outputs are
    divided by T where they are natural parameters, so the divergence is

    - ``Categorical``: :math:`T^2 \sum_c p'_c \log (p'_c / p_c)`, p = softmax(outputs / T);
    - ``Bernoulli``: the same of yes and no, p = sigmoid(outputs / T), summed over the labels;
    - ``Poisson``: :math:`T^2 \sum_d [\lambda' \log(\lambda'/\lambda) - \lambda' + \lambda]`,
      λ = exp(outputs / T);
    - ``Gaussian``: :math:`\lVert \eta' - \eta \rVert^2 / 2 \sigma^2`, whatever T: the teacher's mean is the
      target, and σ the noise of the targets. T drops out of a Gaussian.

    T² keeps gradients of one size: for large T the first becomes half the squared difference of centred
    log-odds over C. At T = 1 it is, but for that constant, the expected negative log-likelihood of targets
    drawn from the teacher: a row then counts as (1 − w) of an observed and w of a taught row. At other T the
    taught share is the likelihood of a softened target to the power T², and exp(−ℓ) a generalised likelihood
    (Bissiri, Holmes & Walker 2016, arXiv 1306.6430), which updates the same prior. Either way the ELBO
    is −(N · E_q[mean ℓ] + KL), scaled by the N rows as ever, and units pay their prices in these nats.

    Training alone listens to the teacher: ``fit``, steps and ``gated.model``. Whatever scores given targets
    (``evaluate``, evidence, selection, log-likelihoods and draws of the posterior) scores them by
    ``likelihood``, for that is what predictions are of. Parameters that the likelihood has of its own, as the
    noise of a ``Gaussian``, are learnt from the targets alone, at full weight: a teacher's outputs say
    nothing of them.

    Rows in memory are told by the teacher once, before the first step (a table of a network's outputs for
    each row); rows of loaders and streams, which may be augmented, as they come. It runs in evaluation,
    without gradients, where its own parameters lie. It is never saved: what ``prune``, ``save`` or a
    checkpoint gives does not hold it, and a checkpoint is gone on from with the same teacher alone.

    Args:
        likelihood: of the targets: ``Categorical``, ``Bernoulli``, ``Gaussian``, ``Poisson``, or one of your
            own that has ``teacher_nats`` and ``pooled``.
        teacher: a network that takes what the one that learns takes, and returns outputs like its; a function
            of such inputs; what ``fit`` returned, or a gated model: the mean over 32 draws of its guide
            (Bayesian dark knowledge, Korattikara et al. 2015, arXiv 1506.04416), ``result.as_teacher(draws)``
            for other numbers; or a list of these, an ensemble: the mean of class probabilities, means or
            rates.
        temperature: T > 0.
        weight: w of the teacher, in [0, 1]. At 0 it is never asked.

    Raises:
        LikelihoodError: no likelihood, or one for which no divergence is known; no teacher; or a temperature
            or weight out of range.

    Example:
        >>> import bayesprune as bp
        >>> teacher = lambda x: 3.0 * x
        >>> likelihood = bp.Distilled(bp.Categorical(rows=2), teacher, temperature=2.0, weight=0.5)
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> likelihood.nll(torch.zeros(2, 2), y)  # of targets alone
        tensor([0.6931, 0.6931])
        >>> likelihood.nll(torch.zeros(2, 2), likelihood.taught(x, y))
        tensor([0.7828, 0.7828])
    """

    def __init__(
        self, likelihood: Likelihood, teacher: Any, temperature: float = 1.0, weight: float = 0.5
    ) -> None:
        _check(likelihood, temperature, weight)
        super().__init__(likelihood.rows, likelihood.output, likelihood.target)
        self.likelihood = likelihood
        self.temperature, self.weight = float(temperature), float(weight)
        self.teacher = Teacher.of(teacher)
        self.score_name, self.by_row = likelihood.score_name, likelihood.by_row
        self.asks_for_targets = likelihood.asks_for_targets

    # ---- the teacher

    @property
    def plain(self) -> Likelihood:
        """Of the targets alone."""
        return self.likelihood

    def taught(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Targets with what the teacher says of their rows.

        Args:
            inputs: (rows, ...).
            targets: (rows, ...); left as they are where they bring it along, or where the weight is 0.

        Raises:
            LikelihoodError: the teacher does not run on the rows; or, on a CPU, says what is not finite.
        """
        if not self.weight or isinstance(targets, Taught):
            return targets
        said = self.teacher(inputs, self.likelihood)
        if said.device.type == "cpu":  # elsewhere to look would wait for the device in every step
            self._refuse(problems_of(said, said))
        return Taught.of(targets, said)

    def check_teacher(self, inputs: Inputs, outputs: Tensor) -> None:
        """Ask the teacher about some rows, before training.

        Args:
            inputs: (rows, ...).
            outputs: (1 or more, ...), what the network that learns returns for some of them.

        Raises:
            LikelihoodError: it says nothing, other things than the network, or probabilities for log-odds.

        Warns:
            LikelihoodWarning: all that it says lies in [0, 1], where log-odds are meant.
        """
        if not self.weight:
            return
        said = self.teacher(inputs, self.likelihood)
        self._refuse(problems_of(said, outputs))
        seen = range_of(said)
        doubt = self.likelihood.doubt(seen) if seen.within_unit else None
        if doubt and seen.sums_to_one:
            self._refuse(
                ["the teacher's " + doubt + " Or give its logarithm, teacher=lambda x: net(x).log()."]
            )
        if doubt:
            warnings.warn(f"{self._name}: the teacher's {doubt}", LikelihoodWarning, stacklevel=2)

    def identity(self, targets: Tensor | None = None) -> str:
        """Likelihood, temperature, weight, and a digest of the teacher, which is not the teacher's name."""
        told = f"{self._name}, temperature={self.temperature:g}, weight={self.weight:g}"
        said = targets.said if isinstance(targets, Taught) else None
        return f"{told}, teacher {self.teacher.identity(said)}" if self.weight else told

    # ---- nats

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats: ℓ above of targets that were ``taught``; of others those of ``likelihood``."""
        if not isinstance(targets, Taught):
            return self.likelihood.nll(outputs, targets)
        return self._mixed(lambda found: self.likelihood.nll(found, targets), outputs, targets.said)

    def site(self, outputs: Tensor, targets: Tensor | None) -> Any:
        """What Pyro scores: ℓ above of targets that were ``taught``."""
        if not isinstance(targets, Taught):
            return self.likelihood(outputs)
        return _Site(self, outputs, targets.said)

    def _mixed(self, hard: Callable[[Tensor], Tensor], outputs: Tensor, said: Tensor) -> Tensor:
        """ℓ, with ``hard`` the nats of the targets as a function of outputs."""
        if said.shape != outputs.shape[-said.ndim :]:  # which might be broadcast
            self._refuse(
                [f"the teacher says {tuple(said.shape)}, and the network {tuple(outputs.shape)}: {SAME}."]
            )
        outputs = outputs if torch.finfo(outputs.dtype).bits >= 32 else outputs.float()  # of autocast
        soft = self.likelihood.teacher_nats(outputs, said.to(outputs.dtype), self.temperature)
        nats = soft if self.weight == 1 else hard(outputs).lerp(soft, self.weight)
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.likelihood.parameters()):
            alone = hard(outputs.detach())  # what has no gradient above gets the rest of its own here
            nats = nats + self.weight * (alone - alone.detach())
        return nats

    # ---- what is the likelihood's own

    @property
    def fitted(self) -> bool:
        """Whether an inference has learnt its parameters."""
        return self.likelihood.fitted

    @fitted.setter
    def fitted(self, value: bool) -> None:
        self.likelihood.fitted = value

    def forward(self, outputs: Tensor) -> Any:
        """The Pyro distribution of the targets, as ``likelihood`` has it."""
        return self.likelihood(outputs)

    def part(self, outputs: Any, rows: int) -> Tensor:
        """As ``likelihood`` reads it."""
        return self.likelihood.part(outputs, rows)

    def observe(self, targets: Tensor) -> Tensor:
        """As ``likelihood`` observes them."""
        return self.likelihood.observe(targets)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), that of ``likelihood``."""
        return self.likelihood.score(outputs, targets)

    def mean_score(self, total: float, rows: int) -> float:
        """That of ``likelihood``."""
        return self.likelihood.mean_score(total, rows)

    def guesses(self) -> tuple[str, ...]:
        """Those of ``likelihood``."""
        return self.likelihood.guesses()

    def learnt(self) -> dict[str, float]:
        """What ``likelihood`` has learnt."""
        return self.likelihood.learnt()

    def doubt(self, seen: OutputRange) -> str | None:
        """That of ``likelihood``."""
        return self.likelihood.doubt(seen)

    def frame(self, targets: Tensor) -> Frame | None:
        """That of ``likelihood``; a teacher speaks in the targets' own unit."""
        return self.likelihood.frame(targets)

    def explains(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether ``likelihood`` finds so."""
        return self.likelihood.explains(outputs, targets)

    def start_(self, outputs: Tensor, targets: Tensor, all_targets: Tensor) -> None:
        """Start the parameters of ``likelihood``."""
        self.likelihood.start_(outputs, targets, all_targets)

    def followed(self) -> tuple[nn.Parameter, ...]:
        """Those of ``likelihood``."""
        return self.likelihood.followed()

    def follow_(self, targets: Tensor, window: int) -> None:
        """Move those of ``likelihood``, whose slopes are those of the targets' whole nats."""
        self.likelihood.follow_(targets, window)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Those of ``likelihood``."""
        return self.likelihood.problems(outputs, targets)

    @property
    def _name(self) -> str:
        return f"Distilled({type(self.likelihood).__name__})"

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise LikelihoodError(f"{self._name}: {' '.join(problems)}")


class _Site(TorchDistribution):
    """Targets under a likelihood and a teacher: log_prob(y) = −ℓ; drawn as the likelihood draws."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, likelihood: Distilled, outputs: Tensor, said: Tensor) -> None:
        self.likelihood, self.outputs, self.said = likelihood, outputs, said
        self.base_dist = likelihood.likelihood(outputs)
        super().__init__(self.base_dist.batch_shape, self.base_dist.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the likelihood."""
        return self.base_dist.support

    def sample(self, sample_shape: Any = ()) -> Any:
        """As the likelihood draws."""
        return self.base_dist.sample(torch.Size(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same for more draws."""
        own = self.outputs.shape[len(self.batch_shape) :]
        return _Site(self.likelihood, self.outputs.expand(*batch_shape, *own), self.said)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., batch), −ℓ."""
        plain = self.likelihood.likelihood
        return -self.likelihood._mixed(lambda found: -plain(found).log_prob(value), self.outputs, self.said)


def _check(likelihood: Any, temperature: Any, weight: Any) -> None:
    """Everything that is not as it must be, at once."""
    wrong = []
    if not isinstance(likelihood, Likelihood):
        wrong.append(
            f"likelihood={likelihood!r} is none: give that of the targets, as bp.Categorical(rows=…)"
        )
    elif isinstance(likelihood, Distilled):
        wrong.append("likelihood= is distilled already: give its own, and both teachers as a list")
    elif type(likelihood).teacher_nats is Likelihood.teacher_nats:
        wrong.append(likelihood.no_teacher())
    if not _is_number(temperature) or not temperature > 0:
        wrong.append(f"temperature={temperature!r} must be a finite number above 0")
    if not _is_number(weight) or not 0 <= weight <= 1:
        wrong.append(f"weight={weight!r} must be a number in [0, 1]: the teacher's share of a row")
    if wrong:
        raise LikelihoodError(f"Distilled: {'; '.join(wrong)}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
