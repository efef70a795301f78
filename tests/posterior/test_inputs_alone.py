"""Rows without targets are predicted, and nothing else; targets that are kept suit ArviZ's checks."""

import arviz
import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError, PosteriorError
from bayesprune.posterior import read, write
from bayesprune.posterior.arviz import unwrap

matplotlib.use("Agg")
ROWS = 25


def gated(likelihood, outputs):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(2.0))
    return bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=likelihood)


def inputs():
    return torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1))


KINDS = {
    "Gaussian": (bp.Gaussian(ROWS), torch.linspace(-1, 1, ROWS), 1),
    "Gaussian, two columns": (bp.Gaussian(ROWS), torch.linspace(-1, 1, 2 * ROWS).reshape(ROWS, 2), 2),
    "Poisson": (bp.Poisson(ROWS), torch.arange(ROWS) % 3, 1),
    "Bernoulli": (bp.Bernoulli(ROWS), torch.arange(ROWS) % 2, 1),
    "Categorical": (bp.Categorical(ROWS), torch.arange(ROWS) % 3, 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_alone_are_predicted_as_they_are_beside_targets(kind, tmp_path):
    likelihood, y, outputs = KINDS[kind]
    posterior, x = bp.Posterior.of(gated(likelihood, outputs)), inputs()
    both = unwrap(posterior.to_arviz(20, prior=0, rows=(x, y)))
    alone = posterior.to_arviz(20, prior=0, rows=x)
    groups = unwrap(read(write(alone, tmp_path / "alone.nc")))
    assert set(groups) == set(both) - {"log_likelihood"}
    assert set(groups["sample_stats"]) == set(both["sample_stats"]) - {"elbo", "score"}
    assert set(groups["posterior_predictive"]) == set(both["posterior_predictive"]) - {"hard_score"}
    for name in groups["posterior_predictive"]:
        np.testing.assert_array_equal(
            groups["posterior_predictive"][name], both["posterior_predictive"][name]
        )


@pytest.mark.filterwarnings("ignore::matplotlib.MatplotlibDeprecationWarning")  # ArviZ's own calls
@pytest.mark.parametrize("kind", KINDS)
def test_arviz_sets_drawn_targets_beside_observed_ones(kind):
    likelihood, y, outputs = KINDS[kind]
    made = bp.Posterior.of(gated(likelihood, outputs)).to_arviz(20, rows=(inputs(), y), observed=True)
    drawn, observed = made["posterior_predictive"]["y"], made["observed_data"]["y"]
    assert observed.dims == drawn.dims[2:]
    np.testing.assert_array_equal(observed.values.reshape(y.shape), y.numpy())
    if not hasattr(arviz, "plot_ppc"):
        pytest.skip("ArviZ 1.x draws plot_ppc_dist, from the same groups")
    axes = np.atleast_1d(arviz.plot_ppc(made, num_pp_samples=5, random_seed=0))
    assert len(axes[0].lines) >= 7  # five draws, their mean, and the observed
    matplotlib.pyplot.close("all")


def test_what_needs_targets_says_so():
    model = gated(bp.Categorical(ROWS), 3)
    posterior = bp.Posterior.of(model)
    with pytest.raises(
        PosteriorError, match=r"observed=True keeps the targets of rows=, which are inputs alone"
    ):
        posterior.to_arviz(5, rows=inputs(), observed=True)
    with pytest.raises(DataError, match="inputs alone"):
        bp.diagnose(model, rows=inputs())
    with pytest.raises(DataError, match="inputs alone"):
        bp.evidence(model, inputs())
