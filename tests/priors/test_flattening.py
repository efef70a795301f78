"""The flattening distribution: normalisation, sampler, moments, and the identity it is named for."""

import math
import re
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import chisquare

from bayesprune.errors import PriorError
from bayesprune.priors import Flattening, FlatteningDistribution
from bayesprune.structure.groups import Group

FALSE_ALARM = 1e-4
PRICES = [1e-3, 0.3, 0.5, 2.0, 12.0, 60.0, 200.0, 1e3]


def double(value):
    return torch.tensor(value, dtype=torch.double)


def by_log_odds(function, price):
    """∫ function(π) p(π) dπ over log π, where the density of a large price lives, in pieces."""
    hyper = FlatteningDistribution(double(price))

    def integrand(s):
        return function(math.exp(s)) * math.exp(hyper.log_prob(double(s).exp()).item() + s)

    cuts = [-price - 40, -price - 10, -price, -10, -3, -1, 0] if price > 3 else [-40, -10, -3, -1, 0]
    cuts = sorted({max(cut, -700.0) for cut in cuts})
    return sum(quad(integrand, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairwise(cuts))


@pytest.mark.parametrize("price", [1e-3, 0.3, 0.5, 2.0, 12.0, 60.0, 200.0, 600.0])
def test_density_integrates_to_one_and_has_the_stated_moments(price):
    hyper = FlatteningDistribution(double(price))
    mean = by_log_odds(lambda x: x, price)
    assert by_log_odds(lambda x: 1.0, price) == pytest.approx(1.0, abs=1e-8)
    assert hyper.mean.item() == pytest.approx(mean, rel=1e-8)
    assert hyper.variance.item() == pytest.approx(by_log_odds(lambda x: (x - mean) ** 2, price), rel=1e-7)


@pytest.mark.parametrize("price", [0.05, 0.2, 0.35, 0.499])
def test_variance_of_small_prices_is_exact_where_its_formula_cancels(price):
    exact = Decimal(price)
    expected = (Decimal("0.5") - 1 / exact + 1 / (exact.exp() - 1)) / exact
    assert FlatteningDistribution(double(price)).variance.item() == pytest.approx(float(expected), rel=2e-11)
    assert FlatteningDistribution(torch.tensor(price)).variance.dtype == torch.float


@given(price=st.floats(1e-3, 1e3), inclusion=st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_float32_agrees_with_float64_and_quantiles_invert(price, inclusion):
    coarse, fine = (FlatteningDistribution(torch.tensor(price, dtype=t)) for t in (torch.float, torch.double))
    price32 = double(coarse.log_gamma.item())
    fine = FlatteningDistribution(price32)
    at = torch.tensor(inclusion, dtype=torch.float)
    scale = max(1.0, price)
    assert coarse.log_prob(at).item() == pytest.approx(fine.log_prob(at.double()).item(), abs=1e-5 * scale)
    assert coarse.icdf(at).isfinite() and 0 <= coarse.icdf(at).item() <= 1
    quantile = fine.icdf(at.double())
    if quantile > 1e-300:
        assert fine.cdf(quantile).item() == pytest.approx(at.item(), abs=1e-9)


@pytest.mark.parametrize("price", PRICES)
def test_draws_pass_a_chi_squared_test(price):
    torch.manual_seed(0)
    hyper = FlatteningDistribution(double(price))
    # 20 equally probable bins; the lowest 40 % are one: at 1000 nats they lie below the smallest double
    counts, _ = np.histogram(hyper.cdf(hyper.sample((20_000,))).numpy(), bins=[0, *np.linspace(0.4, 1.0, 13)])
    assert chisquare(counts, 20_000 * np.array([0.4] + 12 * [0.05])).pvalue > FALSE_ALARM


def test_draws_are_quantiles_of_uniform_numbers_in_the_precision_and_place_of_the_price():
    hyper = FlatteningDistribution(double([2.0, 60.0]))
    torch.manual_seed(0)
    uniform = torch.rand((5, 2), dtype=torch.double)
    torch.manual_seed(0)
    torch.testing.assert_close(hyper.rsample((5,)), hyper.icdf(uniform), rtol=1e-14, atol=0.0)
    assert FlatteningDistribution(torch.ones(2, device="meta"), validate_args=False).rsample().is_meta


def test_a_probability_in_double_precision_is_scored_in_that_of_the_price():
    score = FlatteningDistribution(torch.tensor(200.0)).log_prob(double(1e-80))
    assert score.dtype == torch.float
    assert score.item() == pytest.approx(FlatteningDistribution(double(200.0)).log_prob(double(1e-80)).item())


def test_draws_match_the_density_itself():
    """The sampler against bins integrated from log_prob, not against its own distribution function."""
    torch.manual_seed(1)
    hyper = FlatteningDistribution(double(4.0))
    edges = np.array([0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])
    bins = pairwise(edges)
    mass = [quad(lambda x: hyper.log_prob(double(x)).exp().item(), a, b)[0] for a, b in bins]
    counts, _ = np.histogram(hyper.sample((20_000,)).numpy(), bins=edges)
    assert chisquare(counts, np.array(mass) / sum(mass) * 20_000).pvalue > FALSE_ALARM


@pytest.mark.parametrize("price", [0.01, 1.0, 12.0, 30.0])
@pytest.mark.parametrize("theta", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
def test_minimum_over_the_prior_inclusion_is_the_price(price, theta):
    """min over π of KL(Bern θ ‖ Bern π) - log p(π), found numerically, is θ · price + const, at π*."""
    hyper = FlatteningDistribution(double(price))

    def objective(log_odds):
        log_on, log_off = -math.log1p(math.exp(-log_odds)), -math.log1p(math.exp(log_odds))
        entropy = -theta * math.log(theta) - (1 - theta) * math.log1p(-theta)
        fall = hyper.log_prob(double(log_odds).sigmoid()).item()
        return -entropy - theta * log_on - (1 - theta) * log_off - fall

    found = minimize_scalar(objective, bounds=(-60, 30), method="bounded", options={"xatol": 1e-9})
    best = math.log(theta) - math.log1p(-theta) - price
    closed = Flattening(price).penalty(Group("fc1", size=1), double([theta])).item()
    assert closed == pytest.approx(theta * price + math.log(price) - math.log(math.expm1(price)), abs=1e-9)
    assert found.fun == pytest.approx(closed, abs=1e-6)
    assert objective(best) == pytest.approx(closed, abs=1e-9)


def test_gradients_reach_the_price_and_are_finite_at_the_ends():
    price = double(3.0).requires_grad_()
    hyper = FlatteningDistribution(price)
    assert torch.autograd.gradcheck(lambda c: FlatteningDistribution(c).log_prob(double(0.3)), price)
    assert torch.autograd.gradcheck(lambda c: FlatteningDistribution(c).icdf(double(0.3)), price)
    ends = double([0.0, 1.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(hyper.log_prob(ends).sum(), ends)
    assert bool(gradient.isfinite().all())
    assert hyper.rsample().requires_grad


def test_expand_keeps_the_class_and_the_shapes():
    hyper = FlatteningDistribution(torch.tensor([1.0, 2.0, 3.0])).expand((5, 3))
    assert type(hyper) is FlatteningDistribution and hyper.batch_shape == (5, 3) and hyper.event_shape == ()
    assert hyper.sample((2,)).shape == (2, 5, 3)
    assert hyper.log_prob(torch.full((3,), 0.5)).shape == (5, 3)
    assert hyper.to_event(1).log_prob(torch.full((3,), 0.5)).shape == (5,)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan])
def test_prices_that_are_no_prices_are_refused(price):
    wrong = torch.tensor([1.0, price])
    message = f"FlatteningDistribution needs a positive price log_gamma in nats, and got {wrong}."
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        FlatteningDistribution(wrong, validate_args=True)
