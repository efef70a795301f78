"""A guide whose gates know of each other: how it is asked for, and what it learns for one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesprune.errors import PriorError, SettingsError
from bayesprune.priors.linked_gates import MOST_RANK, Before, LinkedGates, check_lags
from bayesprune.priors.naming import by_name
from bayesprune.structure import Group
from bayesprune.structure.naming import check_names, check_order

MOST_SLOPE = 50.0


@dataclass(frozen=True)
class Autoregressive:
    r"""Ask ``bp.gate`` for a guide that holds correlation between the gates of a group.

    .. math:: q(z_i = 1 \mid z_{<i}, s) = \theta_i + \textstyle\sum_l c_{li}\, (z_{i-l} - \theta_{i-l})
              + \sum_r \lambda_{ri}\, s_r

    θ are the inclusion probabilities, exactly, as under the guide of independent gates; c and λ are learnt
    beside them. See :class:`~bayesprune.priors.LinkedGates`. Lags count in the group's own order, by original
    unit id: channels one after the other, the pixels of an image row by row. Units that were removed read as
    closed.

    Args:
        lags: places between a gate and those before it that it looks at, at most 4, in ascending order.
        rank: shared signs, at most 6, for what all units of the group have in common.

    Raises:
        SettingsError: lags or rank are none, or both are empty.

    Example:
        >>> import torch, bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
        >>> gated = bp.gate(
        ...     network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100),
        ...     guide={"0": bp.Autoregressive(lags=(1,))},
        ... )
        >>> gated.gate_guide("0").covariance().shape
        torch.Size([8, 8])
    """

    lags: tuple[int, ...] = (1,)
    rank: int = 0

    def __post_init__(self) -> None:
        lags = (self.lags,) if isinstance(self.lags, int) else self.lags
        try:
            check_lags(lags)
        except PriorError as problem:
            raise SettingsError(f"Autoregressive: {problem}") from None
        object.__setattr__(self, "lags", tuple(lags))
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or not 0 <= self.rank <= MOST_RANK:
            raise SettingsError(f"Autoregressive: rank={self.rank!r} must be from 0 to {MOST_RANK}.")
        if not self.lags and not self.rank:
            raise SettingsError("Autoregressive needs lags or a rank: without both, gates are independent.")


Guide = Autoregressive | Mapping[str, Autoregressive | None] | None
"""One for all groups, or by group name or glob; None, and groups not named, have independent gates."""


def guides_of(guide: Guide, groups: Sequence[Group], exclude: tuple[str, ...]) -> dict[str, Autoregressive]:
    """Group → what was asked for, of the groups whose gates are linked.

    Args:
        guide: as ``gate`` takes it.
        groups: of the network.
        exclude: names that were excluded, which a table may name too.

    Raises:
        SettingsError: something else, or for a group that there is not.
    """
    if guide is None:
        return {}
    table: dict[str, Autoregressive | None] = dict(guide) if isinstance(guide, Mapping) else {"*": guide}
    names = [group.name for group in groups]
    check_names("guide", table, names, besides=exclude)
    check_order("guide", list(table), names, SettingsError)
    table.setdefault("*", None)
    found = {}
    for group in groups:
        asked = by_name(table, group.name, "guide")
        if asked is not None and not isinstance(asked, Autoregressive):
            raise SettingsError(
                f"guide of group {group.name!r} is {asked!r}: give bp.Autoregressive(lags=(1,)), or None for "
                "independent gates."
            )
        if asked is not None and group.size > 1:
            found[group.name] = asked
    return found


class Links(nn.Module):
    """What the guide of one group learns beside its inclusion probabilities.

    Units that were removed keep their places, with links of zero.

    Args:
        units: of the group, in the dense network.
        asked: lags and rank.
        like: a tensor of the type that they are to have.

    Attributes:
        coupling: (lags, units), c.
        loading: (rank, units), λ.
        coupling_velocity: (lags, units), smoothed slopes, nats.
        loading_velocity: (rank, units), smoothed slopes, nats.
        prior_slope: (units,), smoothed slope of the prior's nats in θ: a control variate.
    """

    coupling_velocity: Tensor
    loading_velocity: Tensor
    prior_slope: Tensor

    def __init__(self, units: int, asked: Autoregressive, like: Tensor) -> None:
        super().__init__()
        self.asked = asked
        self.coupling = nn.Parameter(like.new_zeros(len(asked.lags), units))
        noise = torch.rand(asked.rank, units, generator=torch.Generator().manual_seed(0))
        self.loading = nn.Parameter(0.02 * (2 * noise - 1).to(like))  # zero would be a saddle
        self.register_buffer("coupling_velocity", torch.zeros_like(self.coupling.data))
        self.register_buffer("loading_velocity", torch.zeros_like(self.loading.data))
        self.register_buffer("prior_slope", like.new_zeros(units))
        self._whole = Before.of(units, asked.lags)
        self._living: tuple[Tensor, Before] | None = None

    def before(self, device: torch.device) -> Before:
        """Which gates each gate of the dense group looks at."""
        self._whole = self._whole.to(device)
        return self._whole

    def gates(self, probs: Tensor) -> LinkedGates:
        """q of all gates of the group.

        Args:
            probs: (units,), θ, zero for units that were removed.
        """
        return LinkedGates(probs, self.coupling, self.before(probs.device), self.loading, validate_args=False)

    def living(self, probs: Tensor, alive: Tensor, part: slice) -> LinkedGates:
        """q of the gates that are there, without gradient.

        Args:
            probs: (living units,), θ.
            alive: (units of all groups,), bool; the same object until it changes.
            part: which of them are this group's.
        """
        if self._living is None or self._living[0] is not alive:
            whole = Before.of(self.coupling.shape[1], self.asked.lags, alive[part].cpu())
            self._living = alive, whole.to(probs.device)
        before = self._living[1]
        coupling, loading = self.coupling.detach(), self.loading.detach()
        if not before.whole:
            coupling, loading = coupling[:, alive[part]], loading[:, alive[part]]
        return LinkedGates(probs, coupling, before, loading, validate_args=False)

    @torch.no_grad()
    def shrink_(self, probs: Tensor) -> None:
        """Put links to what the probabilities allow.

        Args:
            probs: (units,), θ.
        """
        coupling, loading = self.gates(probs).links()
        self.coupling.copy_(coupling)
        self.loading.copy_(loading)

    @torch.no_grad()
    def follow_(self, slope: Tensor, probs: Tensor, rate: float) -> None:
        """Let the control variate follow the prior's slope.

        Any will do, but a wild one adds to the variance that it is there to take out, and would then be told
        by it: gates near certain, whose slopes are the noisiest and matter least, move it as much less, and
        it stays within ± 50 nats.

        Args:
            slope: (units,), an estimate, nats.
            probs: (units,), θ.
            rate: of the running mean, for a gate that is as likely open as not.
        """
        weight = 4 * rate * probs * (1 - probs)
        within = slope.to(self.prior_slope).clamp(-MOST_SLOPE, MOST_SLOPE)
        self.prior_slope.lerp_(within, weight.to(self.prior_slope))

    @torch.no_grad()
    def cut_(self, probs: Tensor, gone: Tensor) -> Tensor:
        """Close gates for good: every conditional of the others stays what it was, at z = 0 of those.

        Args:
            probs: (units,), θ before.
            gone: (units,), bool.

        Returns:
            (units,), θ now: zero for what is gone, and for the others the mean of their conditionals.
        """
        self.shrink_(probs)
        theta, index = probs.double().cpu().clone(), self._whole.index.cpu()
        c = self.coupling.double().cpu()
        began, closed = theta.clone(), gone.cpu()
        for i in range(len(theta)):
            if closed[i]:
                theta[i] = 0.0
                continue
            for number in range(len(c)):
                j = int(index[number, i])
                if j >= 0 and float(c[number, i]) != 0.0:
                    theta[i] += c[number, i] * (theta[j] - began[j])
        self.coupling[:, gone] = 0.0
        self.loading[:, gone] = 0.0
        for number in range(len(c)):
            here = index[number].to(gone.device)
            self.coupling[number, (here >= 0) & gone[here.clamp_min(0)]] = 0.0
        return theta.clamp(0, 1).to(probs)
