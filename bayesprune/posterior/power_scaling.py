r"""How much the size of a network depends on the price, and on the likelihood: either to a power near one.

.. math:: p_\alpha(z \mid y) \propto p(z)^\alpha\, p(y \mid z) \quad\text{or}\quad p(z)\, p(y \mid z)^\alpha

Under a flattening prior log p(z) is minus the price for each open unit, so that its power α is the price
times α. The posterior's draws are weighed anew; nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.arviz import pareto_k, smoothed, values_in_tail
from bayesprune.posterior.chain import costs
from bayesprune.posterior.corrected import MaskSearch
from bayesprune.posterior.diagnose.faithful import tail_limit
from bayesprune.posterior.diagnose.joint import why_not as why_no_joint
from bayesprune.posterior.distance import cumulative_distance, distance_of_bits
from bayesprune.posterior.rows import Rows
from bayesprune.posterior.sensitivity import MACS, Base, PowerScaling, Sensitivity
from bayesprune.posterior.value import Posterior
from bayesprune.posterior.weighed import Weighed, all_training_rows, log_prices, saw, weighed
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.svi.result import FitResult

Array = npt.NDArray[np.float64]
BASES = ("posterior", "guide")
ALPHAS = (0.99, 1.01)
MOST_GATES, MOST_MASKS = 100, 2000
"""Of which all masks that matter are looked for."""
FEWEST = 100
"""Draws that must count: the standard error of a probability is then 0.05 at most."""


def power_scaling(
    result: FitResult | GatedModel,
    rows: Source,
    *,
    draws: int = 4000,
    alphas: tuple[float, float] = ALPHAS,
    base: Base = "posterior",
    at: str = "decision",
    seed: int = 0,
) -> PowerScaling:
    r"""How much kept units and MACs depend on the price, and on the likelihood.

    For each of both, and each quantity with distribution functions P and :math:`P_\alpha`, the sensitivity of
    Kallioinen, Paananen, Bürkner & Vehtari (2023, arXiv 2107.14054),

    .. math:: \tfrac12 \sum_{\alpha} \frac{D(P, P_\alpha)}{|\log_2 \alpha|}, \qquad
              D^2 = \frac{\int P \log_2 \frac{2P}{P + P_\alpha}
              + \int P_\alpha \log_2 \frac{2 P_\alpha}{P + P_\alpha}}{\int P + \int P_\alpha}

    the larger of that and of the same for the negated quantity; 0.05 is their threshold. Where weights are
    points and gates few, all masks that hold the probability are summed over, which ``corrected_inclusion``
    finds. Else draws of the guide are weighed as the posterior has them, by p(y, z, w) / q(z, w) with
    PSIS, and then by the power; where k̂ says that they cannot stand for it there is no answer, and
    ``why_not`` says so. ``base="guide"`` takes the guide's draws for the posterior's, which always has an
    answer, as good as the guide is.

    The distance is relative: of what is all but certain it measures the rare case. So the change of the mean
    stands beside it, and the diagnosis asks both. Only the prior of masks (with hyper-sites, where they
    cannot be integrated out) is scaled as the price, and not that of weights.

    Args:
        result: of a fit, or a gated model (``at="end"``).
        rows: (inputs, targets), all training rows.
        draws: of the guide; a forward pass over the rows for each different mask, or each draw where weights
            have a posterior.
        alphas: powers below and above one.
        base: ``"posterior"`` or ``"guide"``.
        at: ``"decision"``, gates as they were before they were decided; or ``"end"``.
        seed: of the draws.

    Returns:
        Quantity by quantity; ``print`` shows a table. Read ``answered`` first.

    Raises:
        PosteriorError: several fits, other rows than it was fitted to, a number out of range, or a fit
            without a decision.
        DataError: rows that do not fit the model.

    Example:
        >>> import torch, bayesprune as bp
        >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> gated = bp.gate(
        ...     torch.nn.Sequential(torch.nn.Linear(3, 1)), x[:1], inputs=True, initial_inclusion=0.5,
        ...     prior=bp.priors.BernoulliGates(bp.priors.Flattening(2.0)),
        ...     likelihood=bp.Gaussian(rows=60, scale=1.0),
        ... )
        >>> found = power_scaling(gated, (x, x[:, :1]), at="end", draws=500)
        >>> [each.name for each in found.quantities], found.quantities[0].price_change < 0
        (['input', 'all units', 'MACs'], True)
    """
    _check(result, draws, alphas, base)
    check_seed(seed, PosteriorError)
    if isinstance(result, GatedModel) and at == "decision":
        raise PosteriorError("power_scaling: a gated model has no decision: take at='end'.")
    posterior = Posterior.of(result, at)
    gated = posterior.fits[0].gated
    pair = all_training_rows(gated, rows, "power_scaling")
    found = _summed(posterior.fits[0], pair, seed) if base == "posterior" else None
    stands = found or _drawn(weighed(posterior, pair, draws, seed), base, alphas)
    first, scaled = np.exp(stands.log_weight), []
    for part in (stands.log_price, stands.nats):
        for alpha in alphas:
            logs = stands.log_weight + (alpha - 1) * part
            scaled.append(np.exp(logs - np.logaddexp.reduce(logs)))
    quantities = [
        _sensitivity(name, values, units, first, scaled, alphas, bool(stands.why_not))
        for name, values, units in _quantities(gated, stands)
    ]
    return PowerScaling(
        tuple(quantities), alphas, base, len(first) if found else 0, stands.k, stands.limit, stands.effective,
        stands.why_not, stands.conditions,
    )  # fmt: skip


# ---- parts


@dataclass(frozen=True, eq=False)
class _Stands:
    """Weighted masks that stand for the posterior."""

    gates: Tensor  # (masks, units of all groups)
    macs: Array  # (masks,)
    log_price: Array
    nats: Array
    log_weight: Array  # of weights that sum to one
    k: float
    limit: float
    effective: float
    why_not: str
    conditions: str


def _summed(fit: FitResult, rows: Rows, seed: int) -> _Stands | None:
    """All masks that hold the probability; None where they cannot be had, or are too many."""
    gated = fit.gated
    if fit.samples is not None or why_no_joint(gated) or int(gated.alive.sum()) > MOST_GATES:
        return None
    search = MaskSearch(gated, rows, MOST_MASKS, seed)
    search.run_()
    masks, joint = search.log_joint()
    if not search.complete:
        return None
    price, nan = log_prices(gated, masks), float("nan")
    said = f"Summed over {len(masks)} masks{_given(saw(fit)[0])}."
    return _Stands(
        masks, costs(gated, masks)[0].double().numpy(), price, joint - price,
        joint - np.logaddexp.reduce(joint), nan, nan, nan, "", said,
    )  # fmt: skip


def _drawn(drawn: Weighed, base: Base, alphas: Sequence[float]) -> _Stands:
    ratio = drawn.log_ratio if base == "posterior" else np.zeros_like(drawn.log_ratio)
    tilts = [(alpha - 1) * part for part in (drawn.log_price, drawn.nats) for alpha in alphas]
    k, limit, effective = _judged(ratio, tilts)
    told = "cannot be told" if np.isnan(k) else f"is {k:.2f}, at most {limit:.2f}"
    whose = "taken for the posterior's" if base == "guide" else "weighed as the posterior has them"
    said = f"{len(ratio)} draws, {whose}{_given(drawn.saw)}; k̂ {told}; {effective:.0f} of them count."
    return _Stands(
        drawn.gates, drawn.macs, drawn.log_price, drawn.nats, smoothed(ratio)[0], k, limit, effective,
        _why_not(drawn.gates, base, k, limit, effective), said,
    )  # fmt: skip


def _given(saw: Sequence[str]) -> str:
    return f", given {'; '.join(saw)}" if saw else ""


def _quantities(gated: GatedModel, drawn: _Stands) -> list[tuple[str, Array, Array]]:
    """Name, (draws,) values, (draws, units) gates of a group."""
    gates, none = drawn.gates.double().numpy(), np.empty((len(drawn.gates), 0))
    found = [(n, gates[:, part].sum(1), gates[:, part]) for n, part in gated.slices().items()]
    found.append(("all units", gates.sum(1), none))
    return [*found, (MACS, 100 * drawn.macs / gated.dense_macs, none)]


def _sensitivity(
    name: str, values: Array, units: Array, first: Array, weights: Sequence[Array], alphas: Sequence[float],
    unknown: bool,
) -> Sensitivity:  # fmt: skip
    logs = np.abs(np.log2(alphas))
    found: list[tuple[float, float, Array]] = []
    for pair in (weights[:2], weights[2:]):
        if unknown:
            found.append((np.nan, np.nan, np.full(units.shape[1], np.nan)))
            continue
        far = [cumulative_distance(values, first, w) for w in pair]
        bits = [distance_of_bits(units, first, w) for w in pair]
        change = float((pair[1] - pair[0]) @ values) / float(logs.sum())
        found.append(
            (float(np.mean(far / logs)), change, np.mean([b / g for b, g in zip(bits, logs, strict=True)], 0))
        )
    (price, price_change, unit_price), (data, data_change, unit_data) = found
    mean = np.nan if unknown else float(first @ values)
    return Sensitivity(name, mean, price, data, price_change, data_change, unit_price, unit_data)


def _judged(ratio: Array, scaled: Sequence[Array]) -> tuple[float, float, float]:
    """k̂ and its limit where they are worst, and the fewest draws that count."""
    found, effective = [], np.inf
    for tilt in (np.zeros_like(ratio), *scaled):
        logs = ratio + tilt
        found.append((pareto_k(logs), tail_limit(len(logs), values_in_tail(logs))))
        weights = np.exp(logs - logs.max())
        effective = min(effective, float(weights.sum() ** 2 / np.square(weights).sum()))
    k, limit = max(found, key=lambda pair: -np.inf if np.isnan(pair[0]) else pair[0] - pair[1])
    return k, limit, effective


def _why_not(gates: Tensor, base: Base, k: float, limit: float, effective: float) -> str:
    if len(gates.unique(dim=0)) == 1:
        return (
            "every draw is the same mask, whose size depends on nothing any more. Take at='decision', or a "
            "fit that leaves gates undecided, Recipe(decides=False)."
        )
    other = "base='guide' takes the guide's draws as they are; " if base == "posterior" else ""
    remedy = f"More draws may help; {other}inference/nuts_reference.py samples small networks' posteriors."
    if k > limit:
        return f"k̂ is {k:.2g}, above {limit:.2g}: draws of the guide cannot stand for the posterior. {remedy}"
    if effective < FEWEST:
        return f"{effective:.0f} of {len(gates)} draws count, fewer than {FEWEST}. {remedy}"
    return ""


def _check(result: Any, draws: Any, alphas: Any, base: Any) -> None:
    if isinstance(result, Sequence):
        raise PosteriorError("power_scaling is of one fit: its weights are given. Call it for each.")
    if not is_whole(draws) or draws < 1:
        raise PosteriorError(f"draws={draws!r} must be a whole number, at least 1.")
    if base not in BASES:
        raise PosteriorError(f"base={base!r} must be 'posterior' or 'guide'.")
    wrong = not isinstance(alphas, Sequence) or len(alphas) != 2
    if (
        wrong
        or not all(isinstance(a, int | float) for a in alphas)
        or not 0 < alphas[0] < 1 < alphas[1] < np.inf
    ):
        raise PosteriorError(f"alphas={alphas!r} must be two powers, one in (0, 1) and one above 1.")
