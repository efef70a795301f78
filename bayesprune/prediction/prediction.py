"""Prediction: what targets may be, and how much of the doubt more data could lift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.prediction.families import Family, weighted
from bayesprune.ranges import check_seed, is_whole


@dataclass(frozen=True)
class Prediction:
    r"""The posterior predictive of some rows: a mixture, one component for each network that was drawn.

    The doubt divides into what is left when the network is known, the *aleatoric* part, and what the networks
    disagree in, the *epistemic* part. For classes and labels, in nats (Depeweg et al. 2018, arXiv
    1710.07283):

    .. math:: H[\textstyle\sum_m \omega_m p_m] = \sum_m \omega_m H[p_m] + I(y; m),

    and for real targets and counts, in their squared unit,
    :math:`\mathrm{Var}[y] = E_m[\mathrm{Var}[y \mid m]] + \mathrm{Var}_m[E[y \mid m]]`.

    Attributes:
        components: the distributions of all networks, (members, rows, ...).
        shares: (members,), double, the weight of each; they sum to one.
        of_fits: (fits,), double, how much each fit counts.
    """

    components: Family
    shares: Tensor
    of_fits: Tensor

    @classmethod
    def of(cls, families: Sequence[Family], of_fits: Tensor) -> Prediction:
        """Of several fits.

        Args:
            families: the components of each.
            of_fits: (fits,), the weight of each.
        """
        shares = torch.cat([share * f.shares for share, f in zip(of_fits, families, strict=True)])
        first, *others = families
        return cls(first.joined(others) if others else first, shares, of_fits)

    def __repr__(self) -> str:
        kind = type(self.components.likelihood).__name__
        return f"Prediction({kind}, {len(self)} rows, {len(self.shares)} networks, {len(self.of_fits)} fits)"

    def __len__(self) -> int:
        """Rows."""
        return int(self.components.outputs.shape[1])

    @property
    def mean(self) -> Tensor:
        """(rows, ...), double: probabilities of classes or labels, mean targets, or rates."""
        return weighted(self.components.means(), self.shares)

    @property
    def aleatoric(self) -> Tensor:
        """(rows,) nats for classes, (rows, d) nats for labels, else (rows, d) variances: the mean within."""
        return weighted(self.components.within(), self.shares)

    @property
    def epistemic(self) -> Tensor:
        """As ``aleatoric``: what the networks disagree in. Zero of a single network."""
        means = self.components.means()
        return self.components.of_mean(weighted(means, self.shares), means, self.shares)

    @property
    def total(self) -> Tensor:
        """As ``aleatoric``: entropy, or variance, of the whole prediction."""
        return self.aleatoric + self.epistemic

    @property
    def distribution(self) -> Any:
        """The Pyro distribution of the targets, batch shape (rows,).

        Raises:
            PosteriorError: a distribution of the user's own: use ``log_prob`` and ``sample``.
        """
        found = self.components.mixture(self.shares)
        if found is None:
            raise PosteriorError(
                f"A mixture of {type(self.components.likelihood).__name__}'s distributions is none that Pyro "
                "has: take .log_prob(targets), .sample(draws) and .interval(level)."
            )
        return found

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """The central interval.

        Args:
            level: share of the distribution that lies within, in (0, 1).

        Returns:
            Lower and upper end, (rows, ...) each. Of real targets and counts: of the target itself, column by
            column. Of classes and labels: of each probability, over networks.

        Raises:
            PosteriorError: a level out of range.
        """
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
            raise PosteriorError(f"interval: level={level!r} must lie between 0 and 1.")
        tail = (1 - level) / 2
        low, high = self.components.quantiles(self.shares, (tail, 1 - tail))
        return low, high

    def log_prob(self, targets: Tensor) -> Tensor:
        """Of each row's target.

        Args:
            targets: (rows, ...), as the data set holds them.

        Returns:
            (rows,), double, nats.

        Raises:
            PosteriorError: targets of another number of rows, or that the likelihood cannot score.
        """
        targets = torch.as_tensor(targets).cpu()
        problems = self.components.likelihood.problems(self.components.example, targets)
        if targets.ndim == 0 or len(targets) != len(self):
            problems = [f"{len(targets) if targets.ndim else 'no'} targets, and {len(self)} rows."]
        if problems:
            raise PosteriorError(f"log_prob: {' '.join(problems)}")
        return torch.logsumexp(self.components.log_prob(targets) + self.shares.log().unsqueeze(1), 0)

    def sample(self, draws: int = 1, seed: int = 0) -> Tensor:
        """Targets, each from one network for all rows.

        Args:
            draws: how many.
            seed: of the draws.

        Returns:
            (draws, rows, ...).

        Raises:
            PosteriorError: a number out of range.
        """
        if not is_whole(draws) or draws < 1:
            raise PosteriorError(f"sample: draws={draws!r} must be a whole number, at least 1.")
        check_seed(seed, PosteriorError)
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.shares, draws, replacement=True, generator=generator)
        return self.components.sample(which, seed)
