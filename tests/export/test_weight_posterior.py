"""The posterior of the weights ships: drawn networks have its spread, and files keep it to the bit."""

import math

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import CheckpointError, SettingsError
from bayesprune.export.folder import DEVIATIONS
from bayesprune.structure import WeightPosterior

ROWS, DRAWS = 32, 4000


def rows():
    x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))
    return x, 5_000 + 1_000 * (x[:, :1] - x[:, 1:2]) + 300 * torch.randn(ROWS, 1)


@pytest.fixture(scope="module")
def result():
    """Two epochs under targets far from mean 0 and sd 1: the last layer is folded into their unit."""
    torch.manual_seed(0)
    x, y = rows()
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(0.5))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=ROWS))
    recipe = bp.Recipe(compact_weights="normal")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.ClockWarning)
        return bp.fit(gated, (x, y), epochs=20, batch_size=16, recipe=recipe, progress=False)


def test_drawn_networks_have_the_spread_of_predictions(result):
    """4,000 draws of each: two variances agree within 5 · √(2 · 2 / 4000) = 16 % but once in 10⁶."""
    posterior, x = bp.prune(result, posterior=True), rows()[0][:3]
    drawn = torch.stack([posterior.sample(seed)(x) for seed in range(DRAWS)])
    found = bp.predict(result, x, draws=DRAWS)
    ratio = drawn.var(0).double() / found.epistemic
    assert ((ratio - 1).abs() < 0.16).all() and (
        found.epistemic > 1
    ).all()  # euros squared, not standard units
    assert ((drawn.mean(0) - found.mean).abs() < 8 * (found.epistemic / DRAWS).sqrt()).all()
    torch.testing.assert_close(posterior.network(x), bp.prune(result)(x))
    torch.testing.assert_close(posterior.sample(3)(x), posterior.sample(3)(x))


def test_deviations_of_a_layer_are_those_that_were_learnt():
    """y = Wx + b with W, b ~ N(·, s²): Var y = s² (‖x‖² + 1), exactly."""
    network = nn.Sequential(nn.Linear(4, 1))
    weights = bp.priors.NormalWeights(scale=1.0, posterior="normal", initial_scale=0.3)
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Gaussian(rows=9), weights=weights)
    gated.log_odds.data.fill_(30.0)
    gated.log_odds.data[2] = -30.0  # a column less
    posterior, x = bp.prune(gated, posterior=True), rows()[0][:3]
    assert all(torch.allclose(d, torch.tensor(0.3)) for d in posterior.deviations.values())
    assert sum(d.numel() for d in posterior.deviations.values()) == 4
    drawn = torch.stack([posterior.sample(seed)(x) for seed in range(DRAWS)]).var(0)
    right = 0.09 * (x[:, [0, 1, 3]].square().sum(1, keepdim=True) + 1)
    assert ((drawn / right - 1).abs() < 5 * math.sqrt(2 / DRAWS)).all()


def test_files_keep_it_to_the_bit(result, tmp_path):
    posterior, (x, _) = bp.prune(result, posterior=True), rows()
    bp.save(posterior, tmp_path, x[:2])
    again = bp.load(tmp_path, posterior=True)
    assert isinstance(again, WeightPosterior) and again.deviations.keys() == posterior.deviations.keys()
    assert torch.equal(again.sample(7)(x), posterior.sample(7)(x))
    assert torch.equal(bp.load(tmp_path)(x), posterior.network(x))
    bp.save(posterior.network, tmp_path, x[:2])
    assert not (tmp_path / DEVIATIONS).exists()
    with pytest.raises(CheckpointError, match="saved without a posterior"):
        bp.load(tmp_path, posterior=True)


def test_deviations_of_another_network_are_refused(result, tmp_path):
    posterior, (x, _) = bp.prune(result, posterior=True), rows()
    one, other = tmp_path / "one", tmp_path / "other"
    bp.save(posterior, one, x[:2])
    bp.save(WeightPosterior(posterior.sample(0), posterior.deviations), other, x[:2])
    (other / DEVIATIONS).write_bytes((one / DEVIATIONS).read_bytes())
    with pytest.raises(CheckpointError, match="does not belong to"):
        bp.load(other, posterior=True)
    content = (one / DEVIATIONS).read_bytes()
    (one / DEVIATIONS).write_bytes(content[:-3])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        bp.load(one, posterior=True)


def test_points_have_no_posterior():
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    gated = bp.gate(
        nn.Sequential(nn.Linear(4, 2)), torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(9)
    )
    with pytest.raises(SettingsError, match=r"weights are points.*compact_weights='normal'"):
        bp.prune(gated, posterior=True)
    posterior = WeightPosterior(nn.Linear(2, 1), {"weight": torch.ones(1, 2)})
    with pytest.raises(SettingsError, match="seed=-1"):
        posterior.sample(-1)
