"""What each likelihood's components are: their means, spreads, and how the uncertainty divides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from bayesprune.errors import LikelihoodError, PosteriorError
from bayesprune.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from bayesprune.prediction.quantiles import of_continuous, of_counts, of_values


class Family:
    """The distributions that several networks give some rows, and how they are averaged.

    Args:
        outputs: (members, rows, ...), what the networks return.
        shares: (members,), double, of each; they sum to one.
        likelihood: how outputs explain targets.
    """

    unit = "variance"
    """Of ``spread``: ``"variance"`` in the squared unit of the targets, or ``"nats"``."""

    def __init__(self, outputs: Tensor, shares: Tensor, likelihood: Likelihood) -> None:
        self.outputs, self.shares, self.likelihood = outputs, shares, likelihood

    @property
    def example(self) -> Tensor:
        """(rows, ...), outputs of one member."""
        return self.outputs[0]

    def tempered(self, temperature: float) -> Family:
        """The same at a temperature: p^(1/T), normalised.

        Raises:
            LikelihoodError: that is no member of the family.
        """
        if temperature == 1:
            return self
        raise LikelihoodError(
            f"temperature={temperature:g}: p^(1/T) of {type(self.likelihood).__name__} is no distribution of "
            "its kind. Categorical, Bernoulli and Gaussian have temperatures; leave it at 1."
        )

    def means(self) -> Tensor:
        """(members, rows, ...), double: probabilities, or mean targets."""
        raise NotImplementedError

    def within(self) -> Tensor:
        """(members, rows, ...): entropy, or variance, of each member's distribution."""
        raise NotImplementedError

    def of_mean(self, mean: Tensor, means: Tensor, shares: Tensor) -> Tensor:
        """What the average's spread is beyond the mean spread within members; here the variance of means."""
        far = (means - mean).square()
        return (shares.reshape(-1, *(1,) * (far.ndim - 1)) * far).sum(0)

    def log_prob(self, targets: Tensor) -> Tensor:
        """(members, rows), nats."""
        with torch.no_grad():
            return -self.likelihood.nll(self.outputs, targets).double()

    def sample(self, which: Tensor, generator_seed: int) -> Tensor:
        """(draws, rows, ...), targets of the members named, (draws,)."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(generator_seed)
            found: Tensor = self.likelihood(self.outputs[which]).sample()
            return found

    def mixture(self, shares: Tensor) -> Any:
        """The Pyro distribution of the targets, where the family has a closed one; else None."""
        return None

    def quantiles(self, shares: Tensor, levels: tuple[float, ...]) -> Tensor:
        """(levels, rows, ...), of the targets; of the probabilities, over members, for classes and labels."""
        raise NotImplementedError

    def joined(self, others: list[Family]) -> Family:
        """One family of the members of several fits, with shares as they are."""
        raise NotImplementedError


class Classes(Family):
    """Categorical: entropy H[mean p] = mean H[p] + mutual information."""

    unit = "nats"

    def tempered(self, temperature: float) -> Family:
        """Logits over T."""
        return type(self)(self.outputs / temperature, self.shares, self.likelihood)

    def means(self) -> Tensor:
        """(members, rows, classes), probabilities."""
        return self.outputs.double().softmax(-1)

    def within(self) -> Tensor:
        """(members, rows), nats."""
        return _entropy(self.means()).sum(-1)

    def of_mean(self, mean: Tensor, means: Tensor, shares: Tensor) -> Tensor:
        """(rows,), nats: what the target and the member say of each other."""
        within = (shares.unsqueeze(-1) * _entropy(means).sum(-1)).sum(0)
        return (_entropy(mean).sum(-1) - within).clamp_min(0.0)

    def mixture(self, shares: Tensor) -> Any:
        """Categorical of the mean probabilities."""
        return dist.Categorical(probs=weighted(self.means(), shares))

    def quantiles(self, shares: Tensor, levels: tuple[float, ...]) -> Tensor:
        """(levels, rows, classes), of the probabilities."""
        return of_values(self.means(), shares, levels)

    def joined(self, others: list[Family]) -> Family:
        """Outputs mean the same in all."""
        return type(self)(
            torch.cat([self.outputs, *(o.outputs for o in others)]), self.shares, self.likelihood
        )


class Labels(Classes):
    """Bernoulli: the same for each label."""

    def means(self) -> Tensor:
        """(members, rows, d), probabilities of yes."""
        return self.outputs.double().sigmoid()

    def within(self) -> Tensor:
        """(members, rows, d), nats."""
        return _entropy(self.means()) + _entropy(1 - self.means())

    def of_mean(self, mean: Tensor, means: Tensor, shares: Tensor) -> Tensor:
        """(rows, d), nats."""
        within = weighted(_entropy(means) + _entropy(1 - means), shares)
        return (_entropy(mean) + _entropy(1 - mean) - within).clamp_min(0.0)

    def mixture(self, shares: Tensor) -> Any:
        """Bernoulli of the mean probabilities where there is one label; several are not independent."""
        if self.outputs.shape[-1] != 1:
            return _mixture(dist.Bernoulli(logits=self.outputs.double().movedim(0, 1)).to_event(1), shares)
        return dist.Bernoulli(probs=weighted(self.means(), shares)).to_event(1)


class Normals(Family):
    """Gaussian: variance = mean noise variance + variance of the means.

    Args:
        outputs: (members, rows, d), means.
        shares: (members,).
        likelihood: of a fit.
        scale: (members,), standard deviations of the noise; by default the likelihood's.
    """

    def __init__(
        self, outputs: Tensor, shares: Tensor, likelihood: Likelihood, scale: Tensor | None = None
    ) -> None:
        super().__init__(outputs.double(), shares, likelihood)
        if scale is None:
            assert isinstance(likelihood, Gaussian)
            scale = likelihood.log_scale.detach().cpu().double().exp().expand(len(outputs))
        self.scale = scale

    def tempered(self, temperature: float) -> Family:
        """Noise variance times T."""
        return type(self)(self.outputs, self.shares, self.likelihood, self.scale * math.sqrt(temperature))

    def means(self) -> Tensor:
        """(members, rows, d)."""
        return self.outputs

    def within(self) -> Tensor:
        """(members, rows, d), variances."""
        return self._scales().square().expand(self.outputs.shape)

    def log_prob(self, targets: Tensor) -> Tensor:
        """(members, rows), nats."""
        y = self.likelihood.observe(targets).double()
        found: Tensor = dist.Normal(self.outputs, self._scales()).to_event(1).log_prob(y)
        return found

    def sample(self, which: Tensor, generator_seed: int) -> Tensor:
        """(draws, rows, d)."""
        noise = torch.Generator().manual_seed(generator_seed)
        chosen = self.outputs[which]
        return chosen + self._scales()[which] * torch.randn(chosen.shape, generator=noise, dtype=torch.double)

    def mixture(self, shares: Tensor) -> Any:
        """Of normals, one a member."""
        scale = self._scales().expand(self.outputs.shape)
        return _mixture(dist.Normal(self.outputs.movedim(0, 1), scale.movedim(0, 1)).to_event(1), shares)

    def quantiles(self, shares: Tensor, levels: tuple[float, ...]) -> Tensor:
        """(levels, rows, d), of each column of the targets."""
        reach = 10 * self._scales()
        low, high = (self.outputs - reach).amin(0), (self.outputs + reach).amax(0)

        def below(y: Tensor) -> Tensor:
            return weighted(torch.special.ndtr((y - self.outputs) / self._scales()), shares)

        return of_continuous(below, low, high, levels)

    def joined(self, others: list[Family]) -> Family:
        """Each fit has a noise of its own."""
        alike = [self, *(o for o in others if isinstance(o, Normals))]
        outputs, scale = torch.cat([o.outputs for o in alike]), torch.cat([o.scale for o in alike])
        return type(self)(outputs, self.shares, self.likelihood, scale)

    def _scales(self) -> Tensor:
        return self.scale.reshape(-1, *(1,) * (self.outputs.ndim - 1))


class Counts(Family):
    """Poisson: variance = mean rate + variance of the rates."""

    def means(self) -> Tensor:
        """(members, rows, d), rates."""
        return self.outputs.double().exp()

    def within(self) -> Tensor:
        """(members, rows, d), a rate is its own variance."""
        return self.means()

    def mixture(self, shares: Tensor) -> Any:
        """Of Poissons, one a member."""
        return _mixture(dist.Poisson(self.means().movedim(0, 1)).to_event(1), shares)

    def quantiles(self, shares: Tensor, levels: tuple[float, ...]) -> Tensor:
        """(levels, rows, d), the smallest counts that reach the levels."""
        rates = self.means()

        def up_to(count: Tensor) -> Tensor:
            return weighted(torch.special.gammaincc(count + 1, rates), shares)

        return of_counts(up_to, rates.amax(0), levels)

    def joined(self, others: list[Family]) -> Family:
        """Outputs mean the same in all."""
        return type(self)(
            torch.cat([self.outputs, *(o.outputs for o in others)]), self.shares, self.likelihood
        )


class Others(Family):
    """Any distribution, by its mean, variance, density and draws; each fit has parameters of its own."""

    def __init__(
        self, outputs: Tensor, shares: Tensor, likelihood: Likelihood, parts: list[Family] | None = None
    ) -> None:
        super().__init__(outputs, shares, likelihood)
        self.parts: list[Family] = [self] if parts is None else parts

    def means(self) -> Tensor:
        """(members, rows, ...)."""
        return torch.cat([_moment(part, "mean") for part in self.parts])

    def within(self) -> Tensor:
        """(members, rows, ...), variances."""
        return torch.cat([_moment(part, "variance") for part in self.parts])

    def log_prob(self, targets: Tensor) -> Tensor:
        """(members, rows), nats."""
        return torch.cat([Family.log_prob(part, targets) for part in self.parts])

    def sample(self, which: Tensor, generator_seed: int) -> Tensor:
        """(draws, rows, ...)."""
        ends = torch.tensor([len(part.outputs) for part in self.parts]).cumsum(0)
        drawn: dict[int, Tensor] = {}
        for number, part in enumerate(self.parts):
            start = 0 if number == 0 else int(ends[number - 1])
            mine = ((which >= start) & (which < ends[number])).nonzero().squeeze(1)
            if len(mine):
                values = Family.sample(part, which[mine] - start, generator_seed + number)
                drawn |= dict(zip(mine.tolist(), values, strict=True))
        return torch.stack([drawn[number] for number in range(len(which))])

    def quantiles(self, shares: Tensor, levels: tuple[float, ...]) -> Tensor:
        """(levels, rows, ...), of 10,000 draws."""
        generator = torch.Generator().manual_seed(0)
        which = torch.multinomial(shares, 10_000, replacement=True, generator=generator)
        drawn = self.sample(which, 0).double()
        return of_values(drawn, torch.full((len(drawn),), 1 / len(drawn), dtype=torch.double), levels)

    def joined(self, others: list[Family]) -> Family:
        """All parts as they are."""
        return Others(self.outputs, self.shares, self.likelihood, [self, *others])


def family_of(likelihood: Likelihood) -> Callable[[Tensor, Tensor, Likelihood], Family]:
    """The family of a likelihood's components.

    Args:
        likelihood: of the targets alone, ``plain``.

    Raises:
        LikelihoodError: it has the loss of a batch, and no distribution of a row's target.
    """
    if not likelihood.by_row:
        raise LikelihoodError(
            f"predict: {type(likelihood).__name__} has the mean loss of a batch, and no distribution of a "
            "row's target: gate the network with a likelihood of its outputs, such as bp.Categorical(rows=…, "
            "output='logits')."
        )
    known: dict[type, Any] = {Categorical: Classes, Bernoulli: Labels, Gaussian: Normals, Poisson: Counts}
    found: Callable[[Tensor, Tensor, Likelihood], Family] = known.get(type(likelihood), Others)
    return found


def weighted(values: Tensor, shares: Tensor) -> Tensor:
    """(rows, ...), the mean of some values over members.

    Args:
        values: (members, rows, ...), double.
        shares: (members,), double, which sum to one.
    """
    mean: Tensor = torch.tensordot(shares, values, dims=1)
    return mean


def _entropy(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs)


def _mixture(parts: Any, shares: Tensor) -> Any:
    """Of components of batch shape (rows, members)."""
    rows = parts.batch_shape[0]
    return dist.MixtureSameFamily(dist.Categorical(probs=shares.expand(rows, len(shares))), parts)


def _moment(part: Family, name: str) -> Tensor:
    with torch.no_grad():
        try:
            found = getattr(part.likelihood(part.outputs), name)
        except NotImplementedError:
            found = None
    if not isinstance(found, Tensor) or not bool(found.isfinite().all()):
        raise PosteriorError(
            f"The distribution of {type(part.likelihood).__name__} has no finite {name}: take "
            ".sample(draws), .interval(level) and .log_prob(targets)."
        )
    return found.double()
