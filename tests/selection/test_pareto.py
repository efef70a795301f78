"""Error against cost from one fit: against all masks, enumerated; and against a network that is cut."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError

mpl.use("Agg")
ROWS, INPUTS, WEIGHT, PRICE = 80, 6, 0.3, 1.5


def orthogonal():
    """A linear model of known weights on orthogonal inputs: gates are independent in the exact posterior."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(ROWS, INPUTS, generator=generator, dtype=torch.double))[0] * ROWS**0.5
    y = WEIGHT * x[:, :4].sum(1, keepdim=True)
    y = y + torch.randn(ROWS, 1, generator=generator, dtype=torch.double)
    network = nn.Sequential(nn.Linear(INPUTS, 1, bias=False)).double()
    nn.init.constant_(network[0].weight, WEIGHT)
    noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double()
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICE))
    return bp.gate(network, x[:1], prior=prior, likelihood=noise), (x, y)


def test_points_are_those_of_all_masks_at_their_price():
    """q ∝ exp(log p(z, y) − λ cost), summed over 64 masks; means of 2,000 draws within 5 standard errors."""
    gated, (x, y) = orthogonal()
    front = bp.pareto(
        gated, (x, y), budgets=[0.6, 0.4, 0.25], draws=2000, adapt=False, estimator="enumeration"
    )
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=INPUTS)))
    residuals = y.numpy()[:, 0] - masks * WEIGHT @ x.numpy().T
    joint = -0.5 * np.square(residuals).sum(1) - PRICE * masks.sum(1)
    costs = 100 * masks.sum(1) / INPUTS
    for n, budget in enumerate((60.0, 40.0, 25.0)):
        log = joint - front.price[n] * costs
        p = np.exp(log - log.max())
        p /= p.sum()
        assert p @ masks == pytest.approx(front.inclusion[n], abs=1e-4)
        assert p @ costs == pytest.approx(budget, abs=1e-2)
        spread = np.sqrt(p @ costs**2 - (p @ costs) ** 2)
        assert front.cost[n] == pytest.approx(budget, abs=5 * spread / 2000**0.5)
        blocks = np.array([np.square(part).mean(0) for part in np.array_split(residuals.T, 40)]).T
        weights = np.random.default_rng(0).dirichlet(np.ones(40), 2000)  # of blocks of two rows
        errors = np.sqrt(blocks @ weights.T)  # (masks, 2000), RMSE
        mean, second = p @ errors.mean(1), p @ np.square(errors).mean(1)
        assert front.error[n] == pytest.approx(mean, abs=5 * np.sqrt((second - mean**2) / 2000))
        drawn = np.repeat(p, 2000) / 2000
        order = np.argsort(errors.reshape(-1))
        reached = drawn[order].cumsum()
        ends = [errors.reshape(-1)[order][np.searchsorted(reached, q)] for q in (0.05, 0.95)]
        assert front.error_interval[n] == pytest.approx(ends, abs=0.02)
        assert front.mask_cost[n] <= budget + 1e-9
        assert front.mask_cost[n] + 100 / INPUTS > budget  # one more would be too many


def twins():
    """Two inputs that are all but one, one of its own, and one of no use; a network that has learnt."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 4, generator=generator)
    x[:, 1] = x[:, 0] + 0.01 * x[:, 1]
    y = x[:, :1] + 0.7 * x[:, 2:3] + 0.5 * torch.randn(300, 1, generator=generator)
    network = nn.Sequential(nn.Linear(4, 1, bias=False))
    network[0].weight.data[:] = torch.tensor([[0.5, 0.5, 0.7, 0.0]])
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    noise = bp.Gaussian(rows=300, scale=0.5, learn_scale=False)
    gated = bp.gate(network, x[:1], prior=prior, likelihood=noise)
    gated.log_odds.data[:] = 8.0
    return gated, (x, y)


def test_readers_follow_masks_where_units_stand_for_each_other():
    gated, rows = twins()
    whole = bp.evaluate(gated, rows).score
    fixed = bp.pareto(gated, rows, budgets=[0.5], adapt=False, draws=20)
    adapted = bp.pareto(gated, rows, budgets=[0.75, 0.5], draws=20)
    assert fixed.mask_error[0] > whole + 0.1
    assert adapted.mask_error[1] < whole + 0.01
    assert adapted.masks[1, :2].sum() == 1 and adapted.masks[1, 2]
    small = adapted.prune(1)
    (linear,) = (m for m in small.modules() if isinstance(m, nn.Linear))
    assert linear.weight.detach()[0].tolist() == pytest.approx([1.0, 0.7], abs=0.02)
    assert bp.evaluate(small, rows, gated.likelihood).score == pytest.approx(adapted.mask_error[1], abs=1e-5)
    assert "readers re-weighted" in adapted.conditions and "training rows, which flatter" in str(adapted)


def classes(weights):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(120, 5, generator=generator)
    y = (x[:, 0] + x[:, 1] > 0).long()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(0.5))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=120), weights=weights)
    return bp.fit(gated, (x, y), epochs=10, batch_size=30, progress=False), (x, y)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
@pytest.mark.parametrize("posterior", ["delta", "normal"])
def test_a_fit_is_asked_at_even_budgets_and_its_masks_can_be_had(posterior):
    result, rows = classes(bp.priors.NormalWeights(posterior=posterior))
    state = torch.random.get_rng_state()
    front = bp.pareto(result, rows, rows, points=3, draws=4, cost="parameters", at="decision")
    again = bp.pareto(result, rows, rows, points=3, draws=4, cost="parameters", at="decision")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(front.error, again.error) and np.array_equal(front.masks, again.masks)
    assert len(front) == 3 and (np.diff(front.mask_cost) <= 0).all()
    assert (front.error_interval[:, 0] <= front.error).all() and "rows held out" in front.conditions
    assert ("drawn from their posterior" in front.conditions) == (posterior == "normal")
    small = front.prune(2)
    percent = 100 * sum(p.numel() for p in small.parameters()) / result.gated.dense_parameters
    assert percent == pytest.approx(front.mask_cost[2], abs=1e-6)
    likelihood = result.gated.likelihood
    assert bp.evaluate(small, rows, likelihood).score == pytest.approx(front.mask_error[2], abs=1e-4)
    axes = bp.plots.plot_pareto(front)
    assert axes.get_xlabel() == "parameters (% of dense)" and axes.get_xscale() == "log"
    assert "the mask" in axes.get_legend().get_texts()[-1].get_text()


def test_filters_and_the_features_that_they_are_flattened_to_go_together():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 1, 6, 6, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    gated = bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Flattening(0.1)),
        likelihood=bp.Categorical(rows=60),
    )  # fmt: skip
    front = bp.pareto(gated, (x, y), budgets=[0.7, 0.5, 0.3], draws=10)
    assert np.isfinite(front.error).all() and (front.mask_cost <= [70, 50, 30]).all()
    for n in range(3):
        small = front.prune(n)
        assert 100 * bp.count(small, x[:1]).macs / gated.dense_macs == pytest.approx(
            front.mask_cost[n], abs=1e-6
        )
        assert bp.evaluate(small, (x, y), gated.likelihood).score == pytest.approx(
            front.mask_error[n], abs=1e-4
        )
    with pytest.raises(PosteriorError, match=r"budgets=\[0\.05\]: a network of one unit in every group"):
        bp.pareto(gated, (x, y), budgets=[0.7, 0.05])


def test_what_is_beaten_in_both_is_not_on_the_front():
    gated, rows = orthogonal()
    front = bp.pareto(gated, rows, budgets=[0.6, 0.4], draws=50, adapt=False)
    object.__setattr__(front, "cost", np.array([60.0, 40.0, 40.0]))
    object.__setattr__(front, "error", np.array([1.1, 1.0, 1.0]))
    assert front.undominated.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cost": "joules"}, "cost='joules' must be one of 'macs', 'parameters'"),
        ({"draws": 1}, "draws=1 must be a whole number, at least 2"),
        ({"budgets": [0.5, 1.5]}, "must be shares of the dense cost"),
        ({"at": "start"}, "at='start' must be"),
        ({"at": "decision"}, "takes the result of fit"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, said):
    gated, rows = orthogonal()
    with pytest.raises(PosteriorError, match=said):
        bp.pareto(gated, rows, **settings)


def test_more_than_is_left_is_refused():
    gated, rows = orthogonal()
    gated.remove_(torch.arange(INPUTS) >= 3)
    with pytest.raises(PosteriorError, match=r"budgets=\[0\.8\]: what is left of the network is 0\.5 of"):
        bp.pareto(gated, rows, budgets=[0.8, 0.2])
