"""One chain: draws of one fit's guide with everything that is computed for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.posterior.density import gates_and_hyper, point_weights, weight_draws, weights_log_probs
from bayesprune.posterior.draws import Draws, draw, over_draws
from bayesprune.posterior.rows import Asked, RowScorer, RowScores, distinct, outputs_of
from bayesprune.structure import ExpectedCost
from bayesprune.svi.result import Samples


@dataclass(frozen=True)
class Chain:
    """Draws of one fit.

    Attributes:
        draws: gates and hyper-sites, with log q of gates, hyper-sites and weights.
        lp: (draws,), float64, nats: log p of gates, hyper-sites and weights.
        macs: (draws,), multiply-accumulates of a row under each draw's mask.
        parameters: (draws,), numbers left under each draw's mask.
        weights: tensor name → (draws, ...), if they were asked for.
        rows: what the draws say about the rows, if there are any.
        of_weights: (draws,), float64, nats: log p − log q of the weights that have a posterior, as far as it
            is in ``lp`` and ``log_q``; a sampler's draws are of the posterior, and have none.
    """

    draws: Draws
    lp: Tensor
    macs: Tensor
    parameters: Tensor
    weights: dict[str, Tensor]
    rows: RowScores | None
    of_weights: Tensor


def run_chain(gated: GatedModel, draws: int, thin: int, weights: bool, rows: Asked | None) -> Chain:
    """Draw, thin, and score.

    Args:
        gated: a fitted model, in eval mode.
        draws: before thinning.
        thin: keep every so many.
        weights: keep drawn weights.
        rows: (inputs, targets) to score the draws on.
    """
    full = draw(gated, draws)
    hyper = {g: {n: v[::thin] for n, v in sites.items()} for g, sites in full.hyper.items()}
    found = Draws(full.gates[::thin], hyper, full.log_q[::thin].clone())
    lp = gates_and_hyper(gated, found) + point_weights(gated)
    masks, which = distinct(found.gates)
    macs, parameters = costs(gated, masks)
    scorer = None if rows is None else RowScorer(gated, rows, len(found.gates))
    kept: dict[str, list[Tensor]] = {}
    of_weights = torch.zeros_like(lp)
    if gated.log_scales_by_tensor():
        for part, drawn in weight_draws(gated, len(found.gates)):
            log_p, log_q = weights_log_probs(gated, drawn, found.gates[part])
            lp[part] += log_p
            found.log_q[part] += log_q
            of_weights[part] = log_p - log_q
            for name, values in drawn.items() if weights else ():
                kept.setdefault(name, []).append(values.cpu())
            for offset, mask in enumerate(found.gates[part]) if scorer else ():
                one = {name: values[offset] for name, values in drawn.items()}
                scorer.add(outputs_of(gated, scorer.x, mask, one), torch.tensor([part.start + offset]))  # type: ignore[union-attr]
    elif scorer:
        for number, mask in enumerate(masks):
            places = (which == number).nonzero().squeeze(1)
            scorer.add(outputs_of(gated, scorer.x, mask), places)
    return Chain(
        found,
        lp,
        macs[which],
        parameters[which],
        {name: torch.cat(parts) for name, parts in kept.items()},
        scorer.result() if scorer else None,
        of_weights,
    )


def run_samples(
    gated: GatedModel, samples: Samples, draws: int, thin: int, weights: bool, rows: Asked | None
) -> Chain:
    """A sampler's draws, thinned and scored.

    Args:
        gated: the model that they are of, in eval mode.
        samples: the draws.
        draws: the first ones, before thinning.
        thin: keep every so many.
        weights: keep drawn weights.
        rows: (inputs, targets) to score the draws on.
    """
    some = slice(0, draws, thin)
    gates, drawn = samples.gates[some].to(torch.int8), {n: w[some] for n, w in samples.weights.items()}
    hyper: dict[str, dict[str, Tensor]] = {group.name: {} for group in gated.groups}
    hyper[gated.groups[0].name] = {name: value[some] for name, value in samples.hyper.items()}
    masks, which = distinct(gates)
    macs, parameters = costs(gated, masks)
    scorer = None if rows is None else RowScorer(gated, rows, len(gates))
    for number, mask in enumerate(gates) if scorer else ():
        one = {name: values[number] for name, values in drawn.items()}
        scorer.add(outputs_of(gated, scorer.x, mask, one), torch.tensor([number]))  # type: ignore[union-attr]
    return Chain(
        Draws(gates, hyper, samples.log_joint[some].double()),
        samples.log_prior[some].double(),
        macs[which],
        parameters[which],
        drawn if weights else {},
        scorer.result() if scorer else None,
        torch.zeros(len(gates), dtype=torch.double),
    )


def costs(gated: GatedModel, masks: Tensor) -> tuple[Tensor, Tensor]:
    """MACs and parameters of what each mask leaves.

    Args:
        gated: the model.
        masks: (masks, units of all groups), zeros and ones.

    Returns:
        (masks,) and (masks,), float64.
    """
    expected = ExpectedCost(gated.network)

    def one(z: Tensor) -> Tensor:
        cost = expected(gated.by_group(z))
        return torch.stack([cost.macs, cost.parameters])

    both = over_draws(one, masks.cpu().double())
    return both[:, 0], both[:, 1]


def elbo_of(chain: Chain, dataset_rows: int) -> Any:
    """(draws,), nats: log p + the rows' nats scaled up to the data set − log q."""
    if chain.rows is None or chain.rows.log_likelihood is None:
        return np.full(len(chain.lp), np.nan)
    scale = dataset_rows / chain.rows.log_likelihood.shape[1]
    return (chain.lp - chain.draws.log_q).numpy() + scale * chain.rows.learnt_from
