"""Samples that no guide gave have a history without an ELBO: that is said, and nothing breaks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


@pytest.fixture(scope="module")
def sampled():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    gated = bp.gate(network, X[:1], prior=prior, likelihood=bp.Categorical(rows=60))
    result = bp.fit(gated, (X, Y), epochs=2, batch_size=20, progress=False)
    return replace(result, history=tuple(replace(e, elbo=float("nan")) for e in result.history))


def test_whether_it_is_optimised_is_not_asked(sampled):
    answer = bp.diagnose(sampled, draws=10).optimised
    assert answer.verdict == "not asked" and "no ELBO" in answer.why and "R-hat" in answer.next
    mixed = bp.diagnose([sampled, sampled.gated], draws=10).optimised  # the other has no history at all
    assert mixed.verdict == "not asked"


def test_there_is_no_line_to_draw(sampled):
    with pytest.raises(PosteriorError, match="has no ELBO"):
        bp.plots.plot_elbo(sampled)
    assert len(bp.plots.plot_cost(sampled).lines) == 1
