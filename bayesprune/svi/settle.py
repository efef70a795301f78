"""From a posterior found by other means than ``fit`` to the result that everything else reads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.gated.dead import dead_units
from bayesprune.svi.result import Epoch


def record(
    gated: GatedModel, inclusion_prob: Tensor, *, epoch: int, elbo: float, nll: float, seconds: float
) -> Epoch:
    """The record of an epoch in which nothing was removed.

    Args:
        gated: the model.
        inclusion_prob: (units of all groups,), posterior probabilities of the gates.
        epoch: its number, from 1.
        elbo: nats, or NaN where there is none.
        nll: mean negative log-likelihood of a row, nats.
        seconds: it took.
    """
    probs = inclusion_prob.detach().cpu().clone()
    return Epoch(
        epoch=epoch,
        elbo=elbo,
        nll=nll,
        prior_weight=1.0,
        seconds=seconds,
        kept=gated.kept(),
        parameters_percent=100 * gated.network.parameter_count() / gated.dense_parameters,
        macs_percent=100 * gated.network.macs() / gated.dense_macs,
        undecided=int(((probs > 0.01) & (probs < 0.99)).sum()),
        inclusion=probs,
    )


@torch.no_grad()
def settle_(gated: GatedModel, inclusion_prob: Tensor, weights: Mapping[str, Tensor]) -> None:
    """Make a gated model the median-probability model of a posterior.

    Weights are put in place, units with a probability of one half or less are removed (every group keeps its
    most probable one), and the log-odds of the others stay what the posterior says.

    Args:
        gated: changed in place; no unit removed before.
        inclusion_prob: (units of all groups,), posterior probabilities of the gates.
        weights: tensor name → values for the dense network.

    Warns:
        EmptyGroupWarning: all of a group's probabilities are at most one half.
    """
    tiny = torch.finfo(gated.log_odds.dtype).eps
    gated.log_odds.copy_(torch.logit(inclusion_prob.to(gated.log_odds), eps=tiny))
    gated.pin_()
    for name, tensor in gated.weight_tensors().items():
        tensor.copy_(weights[name])
    gated.remove_(dead_units(gated, 0.5))
