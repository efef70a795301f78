"""How large the network may be: the distribution of units kept, parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.draws import refuse_continuous
from bayesprune.structure import ExpectedCost

Floats = NDArray[np.float64]
CERTAIN = 1e-9
"""A gate that is this near to 0 or 1 is not drawn."""
MOST_VALUES = 200_000
"""A cost that can take more values is drawn."""


@dataclass(frozen=True)
class Law:
    """A distribution over whole numbers.

    Attributes:
        values: (values,), ascending.
        probs: (values,), of each; they sum to one.
        exact: whether it was computed, and not drawn.
    """

    values: Floats
    probs: Floats
    exact: bool

    @property
    def mean(self) -> float:
        """Its mean."""
        return float(self.values @ self.probs)

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return float(np.sqrt((self.values - self.mean) ** 2 @ self.probs))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """The central interval: the smallest values that reach (1 - level) / 2 and (1 + level) / 2.

        Raises:
            PosteriorError: a level out of range.
        """
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
            raise PosteriorError(f"interval: level={level!r} must lie between 0 and 1.")
        reached = self.probs.cumsum()
        ends = [np.searchsorted(reached, share - 1e-12) for share in ((1 - level) / 2, (1 + level) / 2)]
        low, high = (float(self.values[min(int(end), len(self.values) - 1)]) for end in ends)
        return low, high

    def at_most(self, value: float) -> float:
        """The probability of a value, or less."""
        return float(self.probs[self.values <= value].sum())


@dataclass(frozen=True)
class Sizes:
    """What a posterior says of the network's size, before anything is rounded.

    Attributes:
        kept: group → units that are there.
        units: units of all groups.
        parameters: numbers left.
        macs: multiply-accumulates of a row.
    """

    kept: Mapping[str, Law]
    units: Law
    parameters: Law
    macs: Law

    def __str__(self) -> str:
        """A line for each, with the 90 % interval."""
        laws = {**self.kept, "all units": self.units, "parameters": self.parameters, "MACs": self.macs}
        wide = max(map(len, laws))
        lines = [f"{'':{wide}}  {'mean':>12}  {'90 % interval':>27}"]
        for name, law in laws.items():
            low, high = law.interval(0.9)
            drawn = "" if law.exact else "  drawn"
            lines.append(f"{name:{wide}}  {law.mean:12,.1f}  {low:12,.0f} … {high:12,.0f}{drawn}")
        return "\n".join(lines)


def sizes_of(models: Sequence[GatedModel], draws: int, seed: int) -> Sizes:
    """The mean over fits of what each one's guide says.

    Args:
        models: one a fit.
        draws: of a cost that has no closed distribution.
        seed: of these draws.
    """
    found = [_of_one(gated, draws, seed + number) for number, gated in enumerate(models)]
    names = found[0].kept
    return Sizes(
        kept={name: _mean([each.kept[name] for each in found]) for name in names},
        units=_mean([each.units for each in found]),
        parameters=_mean([each.parameters for each in found]),
        macs=_mean([each.macs for each in found]),
    )


def poisson_binomial(probs: Floats) -> Floats:
    """P(k of n independent events): the convolution of their (1 - p, p).

    Args:
        probs: (n,).

    Returns:
        (n + 1,).

    Example:
        >>> poisson_binomial(np.array([0.5, 0.5, 1.0])).tolist()
        [0.0, 0.25, 0.5, 0.25]
    """
    law = np.ones(1)
    for p in probs:
        law = np.convolve(law, [1 - p, p])
    return law


def _of_one(gated: GatedModel, draws: int, seed: int) -> Sizes:
    refuse_continuous(gated, "Sizes")
    if gated.guides:
        return _of_draws(gated, draws, seed)
    theta = gated.inclusion_prob().detach().cpu().double()
    theta = torch.where(theta < CERTAIN, 0.0, torch.where(theta > 1 - CERTAIN, 1.0, theta))
    kept = {name: _counts(probs.numpy()) for name, probs in gated.by_group(theta).items()}
    total = np.ones(1)
    for law in kept.values():
        total = np.convolve(total, law.probs)
    units = Law(np.arange(len(total), dtype=np.float64), total, True)
    parameters, macs = _costs(gated, theta, draws, seed)
    return Sizes(kept, units, parameters, macs)


def _of_draws(gated: GatedModel, draws: int, seed: int) -> Sizes:
    """All from masks: where gates are linked, counts are no sums of independent ones."""
    masks = gated.draw_gates(draws, torch.Generator().manual_seed(seed))

    def law(values: Tensor) -> Law:
        return _law(values.double().numpy(), np.full(draws, 1 / draws), exact=False)

    expected, distinct_of = ExpectedCost(gated.network), torch.unique(masks, dim=0, return_inverse=True)
    costs = [expected(gated.by_group(mask.double())) for mask in distinct_of[0]]
    drawn = torch.stack([torch.stack([cost.parameters, cost.macs]) for cost in costs])[distinct_of[1]]
    kept = {name: law(masks[:, part].sum(-1)) for name, part in gated.slices().items()}
    return Sizes(kept, law(masks.sum(-1)), law(drawn[:, 0]), law(drawn[:, 1]))


def _counts(probs: Floats) -> Law:
    law = poisson_binomial(probs)
    return Law(np.arange(len(law), dtype=np.float64), law, True)


def _costs(gated: GatedModel, theta: Tensor, draws: int, seed: int) -> tuple[Law, Law]:
    """Parameters and MACs: exact where they are linear in the gates that are undecided.

    A cost is multilinear with coefficients of one sign, so that it is linear in some gates just where its
    slopes are the same with all of them shut and with all of them open.
    """
    expected, open_to_doubt = ExpectedCost(gated.network), (theta > 0) & (theta < 1)

    def at(values: Tensor) -> Tensor:
        cost = expected(gated.by_group(values))
        return torch.stack([cost.parameters, cost.macs])

    shut, wide = (torch.where(open_to_doubt, end, theta) for end in (0.0, 1.0))
    slopes = [torch.autograd.functional.jacobian(at, end)[:, open_to_doubt] for end in (shut, wide)]
    base, probs, found = at(shut), theta[open_to_doubt].numpy(), []
    drawn: Tensor | None = None
    for number in range(2):
        alike = torch.allclose(slopes[0][number], slopes[1][number], rtol=1e-9, atol=1e-6)
        law = _linear(float(base[number]), slopes[0][number].numpy(), probs) if alike else None
        if law is None:
            drawn = _drawn(at, theta, draws, seed) if drawn is None else drawn
            law = _law(drawn[:, number].numpy(), np.full(draws, 1 / draws), exact=False)
        found.append(law)
    return found[0], found[1]


def _linear(base: float, slopes: Floats, probs: Floats) -> Law | None:
    """base + Σ slope · gate: counts of the gates of each slope, put together; None where that is too many."""
    values, law = np.array([base]), np.ones(1)
    rounded = slopes.round(6)
    for slope in np.unique(rounded):
        counts = poisson_binomial(probs[rounded == slope])
        if len(values) * len(counts) > MOST_VALUES:
            return None
        values = np.add.outer(values, slope * np.arange(len(counts))).reshape(-1)
        law = np.multiply.outer(law, counts).reshape(-1)
        merged = _law(values, law, exact=True)
        values, law = merged.values, merged.probs
    return _law(values, law, exact=True)


def _drawn(at: Any, theta: Tensor, draws: int, seed: int) -> Tensor:
    """(draws, 2), costs of drawn masks; equal masks are counted once."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(draws, len(theta), generator=generator, dtype=torch.double) < theta
    distinct, which = torch.unique(masks, dim=0, return_inverse=True)
    return torch.stack([at(mask.double()) for mask in distinct])[which]


def _law(values: Floats, probs: Floats, exact: bool) -> Law:
    """Equal values taken together."""
    ordered, which = np.unique(values.round(3), return_inverse=True)
    return Law(ordered, np.bincount(which.reshape(-1), weights=probs).astype(np.float64), exact)


def _mean(laws: Sequence[Law]) -> Law:
    if len(laws) == 1:
        return laws[0]
    values = np.concatenate([law.values for law in laws])
    probs = np.concatenate([law.probs / len(laws) for law in laws])
    return _law(values, probs, all(law.exact for law in laws))
