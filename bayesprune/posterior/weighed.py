r"""Draws of a guide, and what each weighs in the posterior that the guide stands for.

.. math:: \log w_s = \log p(z_s) + \log p(w_s) + \sum_n \log p(y_n \mid z_s, w_s) - \log q(z_s) - \log q(w_s)

The prior of masks is the one that ``bp.diagnose`` enumerates: hyper-sites integrated out, or for a flattening
prior at their best, exp(−price) for each open unit. A prior without a closed form keeps its hyper-sites, and
their draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.chain import Chain
from bayesprune.posterior.density import gates_and_hyper, point_weights
from bayesprune.posterior.rows import Rows, check_rows, distinct
from bayesprune.posterior.value import Posterior
from bayesprune.priors.protocol import closed_form
from bayesprune.rows import Source
from bayesprune.svi.mask_evidence import log_prior
from bayesprune.svi.result import FitResult

Array = npt.NDArray[np.float64]
CERTAIN = 1e-9
"""Gates nearer to a vertex than this are decided."""


@dataclass(frozen=True)
class Weighed:
    """Draws of one fit, of its guide or its sampler.

    Attributes:
        gates: (draws, units of all groups), int8.
        log_price: (draws,), log p of the mask, nats; of hyper-sites too, where the prior has no closed form.
        nats: (draws,), log-likelihood of all training rows, as the fit counts them.
        log_ratio: (draws,), by which they weigh, nats, up to a constant.
        by_row: (draws, rows), log-likelihood of each, nats.
        elbo: (draws,), log p(z, w, y) − log q(z, w), nats, given what are points: of masks that have a
            normalised prior, so that priors can be compared; NaN of a sampler's.
        macs: (draws,), multiply-accumulates of a row.
        saw: what draws are conditional on and was learnt from every row, in words.
        points: numbers among it, of the network and the likelihood, that were fitted.
    """

    gates: Tensor
    log_price: Array
    nats: Array
    log_ratio: Array
    by_row: npt.NDArray[np.float32]
    elbo: Array
    macs: Array
    saw: tuple[str, ...]
    points: int


def all_training_rows(gated: GatedModel, rows: Source, what: str) -> Rows:
    """(inputs, targets) of a fit, all of them.

    Args:
        gated: the model.
        rows: as ``fit`` takes them.
        what: asks for them, for the message.

    Raises:
        PosteriorError: other rows, by their number.
        DataError, LikelihoodError: rows that do not fit the model.
    """
    pair = check_rows(gated, rows)
    if len(pair[0]) != gated.likelihood.rows:
        raise PosteriorError(
            f"{what} weighs draws by all {gated.likelihood.rows} training rows, and got {len(pair[0])}: give "
            "rows=(inputs, targets) that the model was fitted to."
        )
    return pair


def weighed(posterior: Posterior, rows: Rows, draws: int, seed: int) -> Weighed:
    """Draws of the only fit of a posterior.

    Args:
        posterior: of one fit.
        rows: all training rows.
        draws: how many; of a sampler's, the first ones.
        seed: of the draws.
    """
    (fit,) = posterior.fits
    gated = fit.gated
    chain = posterior.chain(0, draws, 1, seed, False, rows)
    assert chain.rows is not None and chain.rows.log_likelihood is not None
    nats = np.asarray(chain.rows.learnt_from, np.float64)
    joint = (chain.lp - chain.draws.log_q).numpy() + nats
    sampled = fit.samples is not None
    if any(closed_form(gated.prior, group) is None for group in gated.groups):
        price, ratio = _with_hyper(gated, chain, sampled), joint - point_weights(gated)
    else:
        price = log_prices(gated, chain.draws.gates)
        log_q = gated.gates_log_prob(chain.draws.gates).numpy()
        ratio = price - log_q + chain.of_weights.numpy() + nats
    elbo = ratio
    if sampled:
        ratio, elbo = np.zeros_like(nats), np.full_like(nats, np.nan)  # they are of the posterior already
    return Weighed(
        chain.draws.gates, price, nats, ratio, chain.rows.log_likelihood, elbo, chain.macs.double().numpy(),
        *saw(fit, chain),
    )  # fmt: skip


def log_prices(gated: GatedModel, gates: Tensor) -> Array:
    """(draws,), log p of masks under a prior with a closed form, nats.

    A price is a prior's best and sums to more than one over all masks; here it is normalised.

    Args:
        gated: the model.
        gates: (draws, units of all groups), zeros and ones.
    """
    masks, which = distinct(gates)
    with torch.no_grad():
        scores = np.array([log_prior(gated, mask) for mask in masks]) - _log_total(gated)
    return np.asarray(scores[which.numpy()], np.float64)


def _log_total(gated: GatedModel) -> float:
    """Log of what exp(−penalty) sums to over all masks, nats.

    Where the penalty is a sum over units, so is this. Else the units share a rate, which was integrated out
    of a probability.
    """
    total = 0.0
    for group in gated.groups:
        prior, one = closed_form(gated.prior, group), torch.eye(group.size, dtype=torch.double)
        assert prior is not None
        none, every = (float(prior.penalty(group, z)) for z in (torch.zeros_like(one[0]), one.sum(0)))
        slopes = np.array([float(prior.penalty(group, z)) for z in one]) - none
        if np.isclose(every - none, slopes.sum(), rtol=1e-4, atol=1e-6):
            total += float(np.logaddexp(0.0, -slopes).sum()) - none
    return total


def saw(fit: FitResult, chain: Chain | None = None) -> tuple[tuple[str, ...], int]:
    """What a posterior is conditional on and every row has taught, in words; and the numbers among it.

    Args:
        fit: whose posterior it is.
        chain: its draws, where it has hyper-sites.
    """
    gated, sampled, found = fit.gated, fit.samples, []
    drawn = set(gated.log_scales_by_tensor()) | (set(sampled.weights) if sampled else set())
    learnt = [*gated.network.named_parameters(), *gated.likelihood.named_parameters()]
    points = {name: p.numel() for name, p in learnt if p.requires_grad and name not in drawn}
    if points:
        found.append(f"{sum(points.values()):,} fitted points ({_listed(list(points))})")
    if sampled is None:
        theta = gated.inclusion_prob().detach()
        if units := int(((theta < CERTAIN) | (theta > 1 - CERTAIN)).sum()):
            found.append(f"{units:,} of {len(theta):,} gates as decided")
        if chain is not None and any(closed_form(gated.prior, group) is None for group in gated.groups):
            sites = {n: v for by_site in chain.draws.hyper.values() for n, v in by_site.items()}
            fixed = [name for name, values in sites.items() if values.stride(0) == 0]
            found += [f"hyper-sites at a point ({_listed(fixed)})"] if fixed else []
    return tuple(found), sum(points.values())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _with_hyper(gated: GatedModel, chain: Chain, sampled: bool) -> Array:
    drawn = chain.draws
    if sampled:  # a sampler's hyper-sites are kept with the first group, whichever they are of
        every = drawn.hyper[gated.groups[0].name]
        drawn = replace(drawn, hyper={group.name: every for group in gated.groups})
    with torch.no_grad():
        return np.asarray(gates_and_hyper(gated, drawn).numpy(), np.float64)
