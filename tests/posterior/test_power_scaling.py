"""Price and likelihood to a power near one: against all masks enumerated, and where draws cannot tell."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior import power_scaling
from bayesprune.posterior.distance import cumulative_distance, distance_of_bits
from bayesprune.svi.result import FitResult

ROWS, WEIGHT, PRICE = 60, 0.35, 2.0


def model(units=8, correlation=0.4, theta=0.5, price=PRICE, seed=0):
    """Known weights on correlated inputs, of which half count; gates all at one probability."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.linalg.qr(torch.randn(ROWS, units, generator=generator, dtype=torch.double))[0] * ROWS**0.5
    covariance = (1 - correlation) * torch.eye(units) + correlation
    x = raw @ torch.linalg.cholesky(covariance.double()).T
    y = WEIGHT * x[:, : units // 2].sum(1, keepdim=True)
    y = y + torch.randn(ROWS, 1, generator=generator, dtype=torch.double)
    network = nn.Sequential(nn.Linear(units, 1, bias=False)).double()
    nn.init.constant_(network[0].weight, WEIGHT)
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
    noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double()
    gated = bp.gate(network, x[:1], inputs=True, prior=prior, likelihood=noise, initial_inclusion=theta)
    gated.network.requires_grad_(False)
    return gated, (x, y)


def enumerated(rows, price=PRICE, power=1.0):
    """(masks, units) and (masks,): p(z | y) at a price, the likelihood to a power."""
    x, y = (part.numpy() for part in rows)
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=x.shape[1])))
    residuals = y[:, 0] - WEIGHT * masks @ x.T
    scores = -0.5 * power * np.square(residuals).sum(1) - price * masks.sum(1)
    p = np.exp(scores - scores.max())
    return masks, p / p.sum()


def exact(rows, alphas, of):
    """Distance and change of a quantity at re-priced posteriors, and at powers of the likelihood."""
    masks, base = enumerated(rows)
    values = of(masks)
    found = {}
    for name, key in (("price", "price"), ("likelihood", "power")):
        start = PRICE if key == "price" else 1.0
        scaled = [enumerated(rows, **{key: start * alpha})[1] for alpha in alphas]
        logs = np.abs(np.log2(alphas))
        found[name] = np.mean([cumulative_distance(values, base, p) for p in scaled] / logs)
        found[f"{name}_change"] = (scaled[1] - scaled[0]) @ values / logs.sum()
    return found


@pytest.mark.parametrize("alphas", [(0.99, 1.01), (0.8, 1.25)])
@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.9])
def test_powers_of_the_price_are_prices(alphas, correlation):
    """Of 8 gates all 256 masks at α · price, and the likelihood to a power: within 1 %."""
    gated, rows = model(correlation=correlation)
    found = power_scaling(gated, rows, alphas=alphas, at="end")
    assert found.answered and 0 < found.summed <= 256 and f"Summed over {found.summed} masks" in str(found)
    right = exact(rows, alphas, lambda masks: masks.sum(1))
    for name in ("input", "all units"):
        for what, value in right.items():
            assert getattr(found[name], what) == pytest.approx(value, rel=0.01), (name, what)
    macs = exact(rows, alphas, lambda masks: 100 * masks.sum(1) / 8)  # all of a linear layer's
    assert found["MACs"].price == pytest.approx(macs["price"], rel=0.01)
    assert found["MACs"].price_change == pytest.approx(macs["price_change"], rel=0.01)
    units = [exact(rows, alphas, lambda masks, u=u: masks[:, u]) for u in range(8)]
    for name in ("price", "likelihood"):
        expected = pytest.approx([u[name] for u in units], rel=0.05, abs=0.01)
        assert getattr(found["input"], f"unit_{name}") == expected
    assert found["all units"].price_change < 0 < found["all units"].likelihood_change
    assert len(found["MACs"].unit_price) == 0


def test_draws_of_many_gates_are_weighed_to_the_same(monkeypatch):
    """Twelve gates, 4,096 masks: from 20,000 draws distances and changes within 5 %."""
    monkeypatch.setattr(sys.modules["bayesprune.posterior.power_scaling"], "MOST_GATES", 0)
    gated, rows = model(units=12, correlation=0.0)
    theta = enumerated(rows)
    gated.log_odds.data[:] = torch.logit(torch.as_tensor(theta[1] @ theta[0]).clamp(0.1, 0.9))
    found = power_scaling(gated, rows, draws=20_000, at="end")
    assert found.answered, found.why_not
    assert found.summed == 0 and not found.pareto_k > found.limit and found.effective > 1000
    for what, value in exact(rows, (0.99, 1.01), lambda masks: masks.sum(1)).items():
        assert getattr(found["all units"], what) == pytest.approx(value, rel=0.05), what


def test_of_a_guide_each_gate_is_moved_by_its_price():
    """Independent gates under exp(−(α − 1) price) are independent: log-odds less (α − 1) price."""
    gated, rows = model(theta=0.7)
    found = power_scaling(gated, rows, draws=10_000, at="end", base="guide")
    theta = [0.7, *(1 / (1 + np.exp(-(np.log(7 / 3) - (a - 1) * PRICE))) for a in (0.99, 1.01))]
    logs = np.log2(1.01) - np.log2(0.99)
    assert found["all units"].price_change == pytest.approx(8 * (theta[2] - theta[1]) / logs, rel=0.05)
    assert "taken for the posterior's" in str(found)


def test_units_that_save_what_they_cost_are_a_conflict():
    """Eight units worth 3.7 nats each, at 3.7 nats: price and data pull the count either way."""
    gated, (x, _) = model(correlation=0.0, price=3.7)
    found = power_scaling(gated, (x, WEIGHT * x.sum(1, keepdim=True)), at="end")["input"]
    assert found.diagnosis == "price against data"
    assert found.price_change == pytest.approx(-8 * 3.7 * np.log(2) / 4, rel=0.05)  # θ (1 − θ) a nat
    assert found.likelihood_change == pytest.approx(-found.price_change, rel=0.05)


def test_a_weak_likelihood_is_told_from_a_conflict():
    """Targets that say nothing of any unit: the price alone decides how many there are."""
    gated, (x, y) = model()
    gated.weight_tensors()["0.weight"].data *= 1e-3
    found = power_scaling(gated, (x, y), draws=4000, at="end")
    assert found["input"].diagnosis == "strong price, weak data"
    assert found["input"].likelihood < 0.05 < found["input"].price


def test_a_mean_that_stands_still_is_no_finding():
    """Distances are relative, and large of a count that is all but certain; its mean hardly moves."""
    gated, rows = model(units=4, price=0.5)
    gated.weight_tensors()["0.weight"].data[:] = 0.5
    x, _ = rows
    found = power_scaling(gated, (x, 0.5 * x.sum(1, keepdim=True)), at="end")["input"]
    assert found.price > 0.05 and abs(found.price_change) < 0.5 and found.diagnosis == "–"


def test_where_weights_are_bad_there_is_no_answer(monkeypatch):
    gated, rows = model(units=10, theta=0.5)
    theta = torch.tensor([0.02] * 5 + [0.98] * 5, dtype=torch.double)  # sure of the wrong half
    gated.log_odds.data[:] = torch.logit(theta)
    assert power_scaling(gated, rows, at="end").answered  # by the masks around those that are drawn
    monkeypatch.setattr(sys.modules["bayesprune.posterior.power_scaling"], "MOST_GATES", 0)
    found = power_scaling(gated, rows, draws=2000, at="end")
    assert not found.answered and np.isnan(found["input"].price) and np.isnan(found["input"].unit_price).all()
    assert found["input"].diagnosis == "not answered" and "base='guide'" in str(found)
    assert power_scaling(gated, rows, draws=2000, at="end", base="guide").answered
    gated.log_odds.data[:] = torch.where(theta > 0.5, 40.0, -40.0)
    assert "every draw is the same mask" in power_scaling(gated, rows, draws=50, at="end").why_not


def test_weights_that_have_a_posterior_are_weighed_too():
    """A guide of weights as wide as the prior: the same answer as all masks with weights integrated out."""
    _, (x, y) = model(units=3, correlation=0.0)
    gated = bp.gate(
        nn.Sequential(nn.Linear(3, 1, bias=False)).double(), x[:1], inputs=True, initial_inclusion=0.5,
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(PRICE)),
        likelihood=bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double(),
        weights=bp.priors.NormalWeights(0.5, posterior="normal"),
    )  # fmt: skip
    gated.weight_tensors()["0.weight"].data[:] = 0.2
    gated.log_scales["0/weight"].data[:] = float(np.log(0.5))
    found = power_scaling(gated, (x, y), draws=4000, at="end")
    masks = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    log_joint = bp.posterior.integrate_weights(gated, (x, y), masks).log_joint
    p = [np.exp(log_joint - (a - 1) * PRICE * masks.sum(1).numpy()) for a in (1.0, 0.99, 1.01)]
    means = [each @ masks.sum(1).numpy() / each.sum() for each in p]
    change = (means[2] - means[1]) / (np.log2(1.01) - np.log2(0.99))
    assert found.answered and found["input"].price_change == pytest.approx(change, rel=0.15)


def test_a_fit_is_asked_before_its_decision():
    gated, rows = model(theta=0.5)
    fit = FitResult(gated, (), 0.0, 0, 1, at_decision=model(theta=0.6)[0])
    found = power_scaling(fit, rows, draws=4000)
    assert found["all units"].price_change == power_scaling(
        fit.at_decision, rows, draws=4000, at="end"
    )["all units"].price_change  # fmt: skip
    with pytest.raises(PosteriorError, match="has kept nothing of a decision"):
        power_scaling(replace(fit, at_decision=None), rows)


def test_distances_are_those_of_arviz_1():
    """What ``arviz_stats.psense`` of version 1.3.3 gave for counts that cost 2 nats each: 0.56593."""
    random = np.random.default_rng(3)
    random.normal(-1, 1, (400, 6)), random.exponential(1, (400, 1)), random.normal(0, 1.2, 400)
    random.normal(0, 0.6, 400), random.normal(size=(1, 400))
    counts = random.binomial(8, 0.6, 400).astype(float)
    assert counts[:5].tolist() == [4, 6, 3, 6, 4]
    equal, distances = np.full(400, 1 / 400), []
    for alpha in (0.99, 1.01):
        weights = np.exp(-2 * (alpha - 1) * counts)
        distances.append(cumulative_distance(counts, equal, weights / weights.sum()) / abs(np.log2(alpha)))
    assert np.mean(distances) == pytest.approx(0.5659267, rel=2e-3)  # they smooth the weights


def test_a_gate_is_a_count_of_one():
    random = np.random.default_rng(0)
    first, second = random.dirichlet(np.ones(50)), random.dirichlet(np.ones(50))
    bits = (random.random((50, 3)) < 0.4).astype(float)
    bits[:, 2] = 1
    found = distance_of_bits(bits, first, second)
    assert found == pytest.approx([cumulative_distance(bits[:, u], first, second) for u in range(3)])
    assert found[2] == 0 and cumulative_distance(bits[:, 0], first, first) == 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"alphas": (1.01, 0.99)}, "alphas="),
        ({"alphas": 0.5}, "alphas="),
        ({"base": "prior"}, "base='prior'"),
        ({"draws": 0}, "draws=0"),
        ({"at": "decision"}, "at='end'"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, message):
    gated, rows = model(units=4)
    with pytest.raises(PosteriorError, match=message):
        power_scaling(gated, rows, **{"at": "end", **settings})
    with pytest.raises(PosteriorError, match="of one fit"):
        power_scaling([gated], rows)
    with pytest.raises(PosteriorError, match="all 60 training rows"):
        power_scaling(gated, (rows[0][:9], rows[1][:9]), at="end")
