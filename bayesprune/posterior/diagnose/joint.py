"""log p(mask, targets) of any mask: what an exact posterior over masks is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.posterior.draws import quiet
from bayesprune.posterior.rows import Rows, outputs_of
from bayesprune.priors.protocol import closed_form


def why_not(gated: GatedModel) -> str:
    """Why there is no log-joint of masks alone; empty if there is."""
    if gated.log_scales_by_tensor():
        return "the weights have a posterior, so a mask alone has no likelihood"
    if any(closed_form(gated.prior, group) is None for group in gated.groups):
        return "the prior has no closed form"
    return ""


def log_joint(gated: GatedModel, masks: Tensor, rows: Rows) -> np.ndarray[Any, Any]:
    r"""log p(z) + N/n Σ log p(y | x, z), weights as they are.

    .. math:: \log p(z) = -\mathrm{penalty}(z)

    the prior side of the ELBO at that vertex: with the rate integrated out under ``Beta``, exact under
    ``Fixed`` and ``LayerAdaptive``, and at the best prior probability under ``Flattening``, where it is the
    price of the units that are on. It is the objective that ``fit`` works on.

    Args:
        gated: a model for which ``why_not`` is empty.
        masks: (masks, units of all groups), zeros and ones; zeros for removed units.
        rows: (inputs, targets); n of the N training rows.

    Returns:
        (masks,), float64, nats.
    """
    device = gated.log_odds.device
    x, y = rows[0].to(device), rows[1].to(device)
    y = gated.likelihood.taught(x, y)
    scale = gated.likelihood.rows / len(x)
    scores = np.empty(len(masks))
    with quiet(gated):
        for number, mask in enumerate(masks):
            parts = gated.by_group(mask.double())
            prior = 0.0
            for group in gated.groups:
                known = closed_form(gated.prior, group)
                if known is not None:
                    prior -= float(known.penalty(group, parts[group.name]))
            nll = gated.likelihood.nll(outputs_of(gated, x, mask), y).double().sum()
            scores[number] = prior - scale * float(nll)
    return scores
