"""Simulation-based calibration of fit and what it predicts: truths are drawn from the model, and ranked.

Truth and targets are drawn from a model of ours, ``fit`` learns from the targets, and the true mean of each
new row is ranked among draws from the fitted posterior (Talts et al., arXiv 1804.06788). All weights have a
posterior and gates stay undecided: of nothing else can ranks be uniform. Each model ranks four rows; χ² of
ten bins is held against FALSE_ALARM over all of them, so that a right posterior fails in one of ten thousand
runs of this file.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.posterior import simulate_ranks

FALSE_ALARM = 1e-4
SIMULATIONS, ROWS, DRAWS = 100, 60, 99
MODELS = {
    "gaussian": (lambda: nn.Linear(3, 1), bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False), 1.0),
    "bernoulli": (lambda: nn.Linear(3, 1), bp.Bernoulli(rows=ROWS), 1.0),
    "poisson": (lambda: nn.Linear(3, 1), bp.Poisson(rows=ROWS), 0.5),
}


def ranked(name, sharpened=1.0):
    """Ranks of four rows' outputs; with a guide whose standard deviations are multiplied by a factor."""
    torch.manual_seed(1)
    x, new = torch.randn(ROWS, 3), torch.randn(4, 3)
    layer, likelihood, scale = MODELS[name]
    gated = bp.gate(
        nn.Sequential(layer()), x[:2], prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=likelihood, weights=bp.priors.NormalWeights(scale, posterior="normal"),
        initial_inclusion=0.5,
    )  # fmt: skip
    never = bp.Shrink(every=10**6)  # the guide of a cut model has other sites than the truth
    recipe = bp.Recipe(warmup=0.2, ramp=0.0, learning_rate=2e-2, compact_weights=None, shrink=never)

    def infer(model, rows):
        result = bp.fit(
            model, rows, epochs=120, batch_size=20, seed=0, recipe=recipe, decide=False, progress=False
        )
        with torch.no_grad():
            for log_scale in result.gated.log_scales_by_tensor().values():
                log_scale += torch.tensor(sharpened).log()
        network, zero = result.gated.network, torch.zeros(1, 1)
        location, unit = network.framed(zero), network.framed(zero + 1) - network.framed(zero)

        def guide(x):  # counts are learnt from their mean rate on: what the layers compute is not all of it
            result.gated.guide(x)
            pyro.sample("location", dist.Delta(location, event_dim=2))
            pyro.sample("unit", dist.Delta(unit, event_dim=2))

        return guide

    def outputs(sites):
        parts = {
            kind: {n.removeprefix(f"{kind}/"): v for n, v in sites.items() if n.startswith(f"{kind}/")}
            for kind in ("gate", "weight")
        }
        found = gated.outputs(new, parts["gate"], parts["weight"])
        found = sites.get("location", 0.0) + sites.get("unit", 1.0) * found
        return {f"row {number}": float(value) for number, value in enumerate(found)}

    return simulate_ranks(gated, x, infer, outputs, simulations=SIMULATIONS, draws=DRAWS, progress=False)


@pytest.mark.nightly
@pytest.mark.parametrize("name", MODELS)
def test_ranks_of_what_fit_predicts_are_uniform(name):
    p = ranked(name).uniformity()
    assert min(p.values()) > FALSE_ALARM / (len(MODELS) * len(p)), p


@pytest.mark.nightly
def test_a_posterior_half_as_wide_is_seen():
    p = ranked("gaussian", sharpened=0.5).uniformity()
    assert min(p.values()) < FALSE_ALARM / (len(MODELS) * len(p)), p
