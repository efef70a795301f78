"""The posterior as draws in ArviZ's form; the only file that speaks to ArviZ."""

from __future__ import annotations

from typing import Any

import arviz
import torch
from pyro import poutine
from pyro.infer import Predictive

from bayesprune.gated import GatedModel
from bayesprune.svi.result import FitResult


def to_arviz(result: FitResult | GatedModel, draws: int = 1000, seed: int = 0) -> Any:
    """Draws from the guide: gates, hyper-sites, and the weights that have a posterior.

    Args:
        result: of a fit, or a gated model.
        draws: how many, in one chain.
        seed: of the draws.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x), with the group ``posterior``:
        variables ``gate/<group>`` of dimensions (chain, draw, <group>_unit), units by their number in the
        dense network, and the other latent sites by their Pyro names.

    Example:
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> to_arviz(gated, draws=50).posterior["gate/input"].shape
        (1, 50, 4)
    """
    gated = result.gated if isinstance(result, FitResult) else result
    points = {f"weight/{name}" for name in gated.weight_tensors()}
    points -= {f"weight/{name}" for name in gated.log_scales_by_tensor()}
    was_training = gated.training
    gated.eval()  # noise on units is for training, and no parameter of the model
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            rows = torch.zeros(1, device=gated.log_odds.device)
            nodes = poutine.trace(gated.guide).get_trace(rows).nodes
            samples = Predictive(gated.guide, num_samples=draws)(rows)
    finally:
        gated.train(was_training)
    shapes = {name: torch.as_tensor(nodes[name]["value"]).shape for name in samples if name not in points}
    posterior = {n: samples[n].reshape(1, draws, *shape).cpu().numpy() for n, shape in shapes.items()}
    dims = {f"gate/{group.name}": [f"{group.name}_unit"] for group in gated.groups}
    if hasattr(arviz, "InferenceData"):
        return arviz.from_dict(posterior=posterior, dims=dims)
    return arviz.from_dict({"posterior": posterior}, dims=dims)
