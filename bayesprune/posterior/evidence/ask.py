"""evidence(): which units pay for themselves, by how much, and how sure that is."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.gated.dead import median_units
from bayesprune.gated.precision import refuse_autocast
from bayesprune.posterior.draws import refuse_continuous
from bayesprune.posterior.evidence.passes import Array, Setting, estimated_gains, left_out_gains
from bayesprune.posterior.evidence.prices import unit_prices
from bayesprune.posterior.evidence.request import Units, check_request, model_of, places_of, training_rows
from bayesprune.posterior.evidence.table import EvidenceTable
from bayesprune.posterior.rows import Rows
from bayesprune.ranges import check_seed
from bayesprune.rows import Source
from bayesprune.structure.copying import copy_of
from bayesprune.svi.estimators import Estimator, find_estimator
from bayesprune.svi.result import FitResult
from bayesprune.svi.threads import threads_for, using_threads
from bayesprune.terminal import bar_hidden

Others = Literal["posterior", "hard"]

SURE = 1e-9
"""Gates nearer to a vertex than this stand on it."""

BATCHES, MOST_ROWS = 32, 512
"""Batches that rows are split into at the least, so that the standard errors have enough to stand on."""


def evidence(
    source: FitResult | GatedModel,
    rows: Source,
    units: Units = 0,
    others: Others = "posterior",
    estimator: str | Estimator = "curved",
    draws: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> EvidenceTable:
    r"""Price and evidence of every unit that is still there.

    .. math:: \mathrm{gain}_u = N \left( \mathbb{E}_{z_{-u}}[L \mid z_u = 0]
              - \mathbb{E}_{z_{-u}}[L \mid z_u = 1] \right)

    with L the mean negative log-likelihood of a row. A unit pays for itself where its gain is more than its
    price: the nats that a flattening prior or a budget charges for it; under other priors, which have no
    price, the prior's log-odds against it, so that in each case q(z_u = 1) > ½ at the optimum where the gain
    is more. Gains condition on the weights as they are, or drawn from their posterior where they have one:
    nothing is learnt anew, so that a unit whose work others could take over after some training looks dearer
    to lose than it is. The other gates are independent, as in the guide. Dropout and noise on units are off,
    and batch normalisation uses its running statistics. The estimates cost a forward and a backward pass over
    the rows for each draw, the exact gains a forward pass for each unit and draw.

    Args:
        source: a fit's result, or a gated model at any time of its training.
        rows: the training rows, as ``fit`` takes them; or some of them, scaled up to all.
        units: which gains to have exactly besides: a number of the units nearest to the line gain = price by
            their estimates, 'all', or group → original numbers of units.
        others: where the other gates are: 'posterior' draws them from q(z) for every row, 'hard' puts each at
            its nearer vertex and weights at their means, which is the network that ``prune`` returns.
        estimator: of the gates' gradient, a name or an ``Estimator``; the fit's default by default.
        draws: of gates (and weights) for every row; at least 2 for standard errors.
        seed: of the draws; torch's own random state is left alone.
        progress: show a progress bar on stderr.

    Returns:
        The table; ``print`` shows the units nearest to the line, ``plot_evidence`` all of them.

    Raises:
        DataError: rows that are none, not whole, or not like those that the network was gated on.
        PosteriorError: anything else as source, more rows than the training had, units that are not
            there, a number out of range, an estimator that sees nothing of decided gates, or outputs that are
            not finite.
        SettingsError: an unknown estimator, or ``torch.autocast`` around the call.
        LikelihoodError: rows that do not fit the likelihood.

    Example:
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> rows = torch.randn(100, 4), torch.randint(3, (100,))
        >>> table = evidence(gated, rows, units={"input": [0, 2]}, progress=False)
        >>> len(table), int(np.isfinite(table.exact).sum()), float(table.price[0])
        (12, 2, 5.0)
    """
    found, gated = find_estimator(estimator), model_of(source)
    refuse_autocast("evidence", gated.log_odds.device.type)
    check_seed(seed, PosteriorError)
    refuse_continuous(gated, "Prices and gains of units")
    pair: Rows = training_rows(gated, rows)
    gated = copy_of(gated).eval().requires_grad_(False)
    theta, living = _theta(gated, others), gated.alive.nonzero().squeeze(1)
    check_request(gated, theta[living], units, others, found, draws)
    setting = Setting(
        gated=gated,
        probs=theta[living],
        draws=draws,
        draw_weights=others == "posterior" and bool(gated.log_scales),
        batch_size=min(MOST_ROWS, math.ceil(len(pair[0]) / BATCHES)),
        generator=torch.Generator(gated.log_odds.device).manual_seed(seed),
    )
    if setting.settled() and not setting.draw_weights:
        setting = replace(setting, draws=1)
    threads = threads_for(gated.dense_macs, setting.batch_size)
    with using_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        price = unit_prices(gated, theta)[living.cpu()].numpy()
        estimate, estimate_error = _estimated(setting, pair, found, progress)
        asked = places_of(gated, units, np.abs(estimate - price))
        exact, exact_error = _left_out(setting, pair, asked, progress)
    _check_finite(estimate, exact[asked.numpy()])
    numbers = [mask.nonzero().squeeze(1) for mask in gated.by_group(gated.alive.cpu()).values()]
    return EvidenceTable(
        group=np.repeat(list(gated.kept()), list(gated.kept().values())),
        unit=torch.cat(numbers).numpy(),
        inclusion=gated.inclusion_prob()[living].double().cpu().numpy(),
        price=price,
        estimate=estimate,
        estimate_error=estimate_error,
        exact=exact,
        exact_error=exact_error,
        removed={group.name: group.size - gated.kept()[group.name] for group in gated.groups},
        conditions=_conditions(setting, others, found, len(pair[0])),
    )


def _theta(gated: GatedModel, others: Others) -> Tensor:
    """(units of all groups,), q(z = 1) with what is certain at its vertex, or the nearer vertex of all."""
    theta = gated.inclusion_prob()
    if others == "hard":
        return median_units(gated).to(theta)
    return torch.where(theta > 1 - SURE, 1.0, torch.where(theta < SURE, 0.0, theta))


def _estimated(setting: Setting, rows: Rows, estimator: Estimator, progress: bool) -> tuple[Array, Array]:
    with _bar("estimate", setting.draws * len(rows[0]), progress) as bar, torch.enable_grad():
        return estimated_gains(setting, rows, estimator, bar.update)


def _left_out(setting: Setting, rows: Rows, asked: Tensor, progress: bool) -> tuple[Array, Array]:
    """(living units,) gains and errors, NaN where not asked for."""
    exact, error = (np.full(len(setting.probs), np.nan) for _ in range(2))
    if len(asked):
        total = setting.draws * len(rows[0]) * (1 + len(asked))
        with _bar(f"leave out {len(asked)}", total, progress) as bar:
            exact[asked.numpy()], error[asked.numpy()] = left_out_gains(setting, rows, asked, bar.update)
    return exact, error


def _bar(label: str, total: int, show: bool) -> Any:
    return tqdm(
        total=total, desc=label, disable=bar_hidden(show), file=sys.stderr, unit=" rows", unit_scale=True,
        dynamic_ncols=True, mininterval=0.2,
    )  # fmt: skip


def _check_finite(*gains: np.ndarray[Any, Any]) -> None:
    wrong = sum(int((~np.isfinite(gain)).sum()) for gain in gains)
    if wrong:
        raise PosteriorError(
            f"{wrong} gains are not finite: the network's outputs on these rows are not, or their likelihood "
            "is zero. Look for NaN in weights and inputs."
        )


def _conditions(setting: Setting, others: Others, estimator: Estimator, rows: int) -> str:
    all_rows = setting.gated.likelihood.rows
    gates = "at their nearer vertices" if others == "hard" else "drawn from q(z) for every row"
    if others == "posterior" and setting.settled():
        gates = "as decided"
    weights = "drawn from their posterior" if setting.draw_weights else "as they are"
    times = f", {setting.draws} draws" if setting.draws > 1 else ""
    scaled = f", {rows} rows scaled up to {all_rows}" if rows < all_rows else ""
    return (
        f"Gains condition on weights {weights} and the other gates {gates}{times}{scaled}; estimates by "
        f"{type(estimator).__name__}."
    )
