"""Gains against exact enumeration, closed forms, removal and the one-by-one pass.

Randomised tests compare with standard errors that the table reports itself; 4.5 of them are exceeded by
chance in about 1e-5 of all comparisons (t-distributed, at least 96 degrees of freedom: 2e-5).
"""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import nn

import bayesprune as bp
from bayesprune.gated.dead import median_units
from bayesprune.posterior.diagnose.joint import log_joint
from bayesprune.posterior.evidence.passes import Setting, left_out_gains
from bayesprune.priors import BernoulliGates, Fixed, Flattening
from bayesprune.svi.estimators import ESTIMATORS, all_configurations
from tests.gated.graphs import Residual
from tests.svi.small import EXACT, HALF, small_batch, small_gated

pytestmark = pytest.mark.usefixtures("double_precision")
SIGMAS = 4.5
ROWS = 40


def batch():
    return small_batch(ROWS)


def residual():
    """A graph of 3 + 2 channels and a section, in eval mode's numbers."""
    torch.manual_seed(1)
    gated = bp.gate(
        Residual(), torch.zeros(2, 2), prior=BernoulliGates(Flattening(2.0)), likelihood=bp.Categorical(ROWS)
    )
    gated.log_odds.data.normal_()
    return gated


def enumerated(gated, x, y, probs):
    """(units of all groups,), N · (E[L | z_u = 0] − E[L | z_u = 1]), summed over all configurations."""
    living = gated.alive.nonzero().squeeze(1)
    z = torch.zeros(2 ** len(living), len(gated.alive))
    z[:, living] = all_configurations(len(living)).to(z)
    with torch.no_grad():
        outputs = gated.outputs(x, {n: z[:, None, part] for n, part in gated.slices().items()})
        losses = gated.likelihood.nll(outputs, y).mean(-1)
    gains = torch.full((len(gated.alive),), math.nan)
    for unit in living.tolist():
        others = [u for u in living.tolist() if u != unit]
        share = torch.where(z > 0, probs, 1 - probs)[:, others].prod(-1)
        off = z[:, unit] == 0
        gains[unit] = gated.likelihood.rows * (share[off] @ losses[off] - share[~off] @ losses[~off])
    return gains


@pytest.mark.parametrize("build", ["chain", "removed", "graph"])
def test_exact_gains_are_those_of_enumeration(build):
    """Every living unit, gates at inclusion probabilities between 0.1 and 0.9."""
    gated = residual() if build == "graph" else small_gated(EXACT["flattening"], removed=build == "removed")
    gated.eval()
    x, y = batch()
    exact = enumerated(gated, x, y, gated.inclusion_prob().detach())[gated.alive].numpy()
    assert len(exact) <= 10 and np.abs(exact).max() > 0.1
    table = bp.evidence(gated, (x, y), units="all", estimator="enumeration", draws=100, progress=False)
    assert bool((table.exact_error > 0).all())
    assert table.exact_error.max() < 0.2 * np.abs(exact).max()
    assert bool((np.abs(table.exact - exact) < SIGMAS * table.exact_error).all())
    np.testing.assert_allclose(table.estimate, exact, rtol=1e-10, atol=1e-12)  # of the enumerating estimator
    assert table.estimate_error.max() < 1e-9
    hard = bp.evidence(gated, (x, y), units="all", others="hard", progress=False)
    vertex = median_units(gated).double()
    np.testing.assert_allclose(hard.exact, enumerated(gated, x, y, vertex)[gated.alive].numpy(), rtol=1e-9)
    assert not hard.exact_error.any() and not hard.estimate_error.any()


def linear(units=6, rows=50, inclusion=None):
    """y ~ N(x · (w z), 1) with known weights: gains and their spread have closed forms."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, units, generator=generator)
    weight = torch.linspace(1.0, -0.4, units)
    y = x @ weight + torch.randn(rows, generator=generator)
    network = nn.Sequential(nn.Linear(units, 1, bias=False))
    network[0].weight.data = weight[None]
    gated = bp.gate(
        network, x[:1], prior=BernoulliGates(Fixed(0.3)),
        likelihood=bp.Gaussian(rows=rows, learn_scale=False).double(),
    )  # fmt: skip
    theta = torch.linspace(0.1, 0.95, units) if inclusion is None else torch.full((units,), inclusion)
    gated.log_odds.data = torch.logit(theta)
    return gated, x, y, weight, theta


def test_gains_and_errors_of_a_linear_regression_in_closed_form():
    r"""gain_u = Σ_n w x_nu (y_n − Σ_{v ≠ u} θ_v w_v x_nv) − ½ (w x_nu)²; its variance is that of the sum."""
    gated, x, y, weight, theta = linear()
    effect = x * weight  # (rows, units)
    residual = y[:, None] - (effect * theta).sum(1, keepdim=True) + effect * theta
    closed = (effect * residual - 0.5 * effect.square()).sum(0).numpy()
    spread = theta * (1 - theta) * effect.square()
    variance = (effect.square() * (spread.sum(1, keepdim=True) - spread)).sum(0)
    draws = 150
    table = bp.evidence(
        gated, (x, y[:, None]), units="all", estimator="second_order", draws=draws, progress=False
    )
    assert bool((np.abs(table.exact - closed) < SIGMAS * table.exact_error).all())
    # A standard error from 150 draws is off by 1/√(2 · 149) = 5.8 % at most, where one batch outweighs all.
    np.testing.assert_allclose(table.exact_error, (variance / draws).sqrt().numpy(), rtol=SIGMAS * 0.058)
    # The trapezoid rule is exact on average for a quadratic loss, so the estimates must agree too.
    assert bool((np.abs(table.estimate - closed) < SIGMAS * table.estimate_error).all())
    plain = bp.evidence(gated, (x, y[:, None]), estimator="straight_through", draws=draws, progress=False)
    bias = ((theta - 0.5) * effect.square().sum(0)).numpy()  # (θ − ½) ∂²L/∂z²: see tests/svi
    assert bool((np.abs(plain.estimate - (closed - bias)) < SIGMAS * plain.estimate_error).all())
    assert np.abs(bias).max() > 10 * plain.estimate_error.max()


@pytest.mark.nightly
def test_standard_errors_are_calibrated():
    """z-scores of 60 seeds of few draws have unit variance: χ² at a false-alarm rate of 1e-4, two-sided."""
    gated, x, y, *_ = linear()
    runs = [
        bp.evidence(gated, (x, y[:, None]), units="all", draws=4, seed=s, progress=False) for s in range(60)
    ]
    for kind in ("exact", "estimate"):
        values = np.stack([getattr(run, kind) for run in runs])
        errors = np.stack([getattr(run, f"{kind}_error") for run in runs])
        ratio = values.var(0, ddof=1) / np.square(errors).mean(0)
        low, high = chi2.ppf([1e-5, 1 - 1e-5], 59) / 59
        assert bool(((ratio > low) & (ratio < high)).all()), (kind, ratio)


@pytest.mark.parametrize("build", ["chain", "graph"])
@pytest.mark.parametrize("at_once", [2, 5, 100])
def test_the_batched_pass_is_the_one_by_one_pass(build, at_once):
    gated = (small_gated(EXACT["flattening"]) if build == "chain" else residual()).eval()

    def gains(at_once):
        generator = torch.Generator().manual_seed(3)
        probs = gated.inclusion_prob().detach()
        setting = Setting(gated, probs, 3, False, 16, generator)
        return left_out_gains(setting, batch(), torch.arange(len(probs)), lambda rows: None, at_once)

    for together, alone in zip(gains(at_once), gains(1), strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("build", ["chain", "graph"])
def test_a_gain_at_hard_values_is_what_removal_costs(build):
    gated = (small_gated(EXACT["flattening"]) if build == "chain" else residual()).eval()
    gated.log_odds.data.fill_(30.0)
    x, y = batch()
    table = bp.evidence(gated, (x, y), units="all", progress=False)

    def total(model):
        with torch.no_grad():
            return float(model.likelihood.nll(model.network(x), y).sum())

    for place in range(len(table)):
        smaller, dead = copy.deepcopy(gated), torch.zeros_like(gated.alive)
        dead[place] = True
        try:
            smaller.remove_(dead)
        except bp.BayespruneError:
            continue
        if int(smaller.alive.sum()) == len(table) - 1:  # nothing else follows it
            assert table.exact[place] == pytest.approx(total(smaller) - total(gated), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(
    "name", ["flattening", "flattening, by group", "fixed", "layer adaptive", "beta", "per group"]
)
def test_margins_at_hard_values_are_log_joint_ratios(name):
    """exact − price = log p(z with u, y) − log p(z without u, y), of every prior with a closed form."""
    gated, (x, y) = small_gated(EXACT[name]).eval(), batch()
    table = bp.evidence(gated, (x, y), units="all", others="hard", progress=False)
    hard = median_units(gated).double()
    masks = hard.repeat(2 * len(hard), 1)
    for unit in range(len(hard)):
        masks[2 * unit, unit], masks[2 * unit + 1, unit] = 1.0, 0.0
    scores = log_joint(gated, masks, (x, y)).reshape(-1, 2)
    np.testing.assert_allclose(table.margin, scores[:, 0] - scores[:, 1], rtol=1e-9, atol=1e-9)


def test_weights_with_a_posterior_are_drawn_and_shared_by_both_ends():
    """Linear regression, w ~ N(m, s²): the closed form loses ½ s² x², and everything is drawn."""
    gated, x, y, weight, theta = linear(units=3)
    gated.spread_weights_(0.2)
    effect = x * weight
    residual = y[:, None] - (effect * theta).sum(1, keepdim=True) + effect * theta
    closed = (effect * residual - 0.5 * effect.square() - 0.5 * 0.04 * x.square()).sum(0).numpy()
    table = bp.evidence(
        gated, (x, y[:, None]), units="all", estimator="second_order", draws=150, progress=False
    )
    assert bool((np.abs(table.exact - closed) < SIGMAS * table.exact_error).all())
    assert bool((np.abs(table.estimate - closed) < SIGMAS * table.estimate_error).all())
    assert "weights drawn from their posterior" in table.conditions
    hard = bp.evidence(gated, (x, y[:, None]), units="all", others="hard", progress=False)
    assert not hard.exact_error.any() and "weights as they are" in hard.conditions


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "enumeration"])
def test_every_estimator_can_be_asked_and_leaves_the_model_alone(name):
    gated, (x, y) = small_gated(EXACT["flattening"], HALF), batch()
    before, state = torch.get_rng_state(), copy.deepcopy(gated.state_dict())
    table = bp.evidence(gated, (x, y), estimator=name, draws=3, progress=False)
    assert bool(np.isfinite(table.estimate).all()) and bool((table.estimate_error > 0).all())
    assert torch.equal(before, torch.get_rng_state()) and gated.training
    assert all(p.grad is None and p.requires_grad for p in gated.parameters())
    assert all(torch.equal(v, state[k]) for k, v in gated.state_dict().items())
    again = bp.evidence(gated, (x, y), estimator=name, draws=3, progress=False)
    np.testing.assert_array_equal(table.estimate, again.estimate)


def test_some_rows_stand_for_all():
    gated, (x, y) = small_gated(EXACT["flattening"], rows=400).eval(), batch()
    some = bp.evidence(gated, (x, y), units="all", others="hard", progress=False)
    all_ = bp.evidence(gated, (x.repeat(10, 1), y.repeat(10)), units="all", others="hard", progress=False)
    np.testing.assert_allclose(some.exact, all_.exact, rtol=1e-9)
    assert "40 rows scaled up to 400" in some.conditions and "scaled" not in all_.conditions
