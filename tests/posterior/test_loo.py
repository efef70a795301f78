"""Leave-one-out from draws of a guide that is wrong on purpose, against closed forms and ArviZ 1.x."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError, PosteriorError
from bayesprune.posterior import loo
from bayesprune.posterior.loo import loo_of
from bayesprune.posterior.weighed import Weighed, weighed
from bayesprune.svi.result import FitResult, Samples

SLAB = 0.5


def orthogonal(rows, inputs, seed=0):
    """Inputs of which each has a square sum of ``rows``, and targets that the first two explain."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linalg.qr(torch.randn(rows, inputs, generator=generator, dtype=torch.double))[0] * rows**0.5
    y = 0.6 * x[:, :1] - 0.4 * x[:, 1:2] + torch.randn(rows, 1, generator=generator, dtype=torch.double)
    return x, y


def linear(x, theta, mean=None, scale=None, prior=None):
    """A linear model of known noise; weights N(mean, scale²) in the guide, or points at zero."""
    rows, inputs = x.shape
    weights = bp.priors.NormalWeights(SLAB, posterior="delta" if scale is None else "normal")
    gated = bp.gate(
        nn.Sequential(nn.Linear(inputs, 1, bias=False)).double(), x[:1], inputs=True, weights=weights,
        prior=prior or bp.priors.BernoulliGates(bp.priors.Flattening(1.0)),
        likelihood=bp.Gaussian(rows=rows, scale=1.0, learn_scale=False).double(),
    )  # fmt: skip
    gated.log_odds.data[:] = torch.logit(torch.tensor(theta, dtype=torch.double), eps=1e-13)
    if mean is not None:
        gated.weight_tensors()["0.weight"].data[0] = torch.as_tensor(mean)
    if scale is not None:
        gated.log_scales["0/weight"].data[0] = torch.as_tensor(scale).log()
    return gated


def evidence(x, y, price):
    """log p(y), all masks and all weights integrated out."""
    scores = []
    for mask in itertools.product((0.0, 1.0), repeat=x.shape[1]):
        covariance = np.eye(len(x)) + SLAB**2 * (x * mask) @ x.T
        scores.append(multivariate_normal.logpdf(y, np.zeros(len(x)), covariance) - price * sum(mask))
    return logsumexp(scores) - x.shape[1] * np.log1p(np.exp(-price))


def exact_elpd(x, y, price):
    """(rows,), log p(y_i | the others) by two evidences."""
    x, y = x.numpy(), y.numpy()[:, 0]
    rest = [np.delete(np.arange(len(x)), row) for row in range(len(x))]
    return np.array([evidence(x, y, price) - evidence(x[r], y[r], price) for r in rest])


def test_a_guide_too_narrow_is_corrected_to_the_closed_form():
    """Every deviation three quarters of the exact one: k = 1 − 9/16 in the limit, below 0.7."""
    rows, inputs = 100, 4
    x, y = orthogonal(rows, inputs)
    precision = rows + 1 / SLAB**2
    mean = (x.T @ y)[:, 0] / precision
    exact_lpd, exact = np.empty(rows), np.empty(rows)
    for row in range(rows):
        keep = np.arange(rows) != row
        for where, found in ((keep, exact), (np.ones(rows, bool), exact_lpd)):
            seen = x[where]
            covariance = torch.linalg.inv(seen.T @ seen + torch.eye(inputs) / SLAB**2)
            centre = covariance @ seen.T @ y[where]
            variance = 1 + x[row] @ covariance @ x[row]
            found[row] = norm.logpdf(float(y[row]), float(x[row] @ centre), float(variance) ** 0.5)
    narrow = torch.full((inputs,), 0.75 * precision**-0.5, dtype=torch.double)
    gated = linear(x, [1.0] * inputs, mean, narrow)
    drawn = weighed(bp.Posterior.of(gated), (x, y), 4000, seed=0)
    found, plain = loo_of(drawn), loo_of(drawn, corrected=False)
    assert found.elpd_loo == pytest.approx(exact.sum(), abs=0.25)
    assert np.abs(found.elpd - exact).max() < 0.06
    assert found.p_loo == pytest.approx((exact_lpd - exact).sum(), abs=0.3)
    assert found.bad <= 1 and found.guide_k < found.limit == pytest.approx(0.7)
    assert plain.elpd_loo - exact.sum() > 1.5  # as the draws are, it flatters
    assert plain.p_loo < 0.7 * (exact_lpd - exact).sum()
    assert not found.points and found.saw == ("4 of 4 gates as decided",)
    alone = loo(gated, (x, y), draws=50)
    assert alone.elpd == pytest.approx(loo_of(weighed(bp.Posterior.of(gated), (x, y), 50, seed=0)).elpd)


def test_masks_and_weights_together_against_evidence_of_all_masks():
    """Gates at 0.6 whatever the data say, weights from the prior: two evidences for each row are exact."""
    x, y = orthogonal(25, 3, seed=1)
    exact = exact_elpd(x, y, price=1.0)
    gated = linear(x, [0.6] * 3, [0.3, -0.2, 0.0], torch.full((3,), SLAB, dtype=torch.double))
    drawn = weighed(bp.Posterior.of(gated), (x, y), 3000, seed=0)
    found, plain = loo_of(drawn), loo_of(drawn, corrected=False)
    assert found.bad == 0 and found.elpd_loo == pytest.approx(exact.sum(), abs=0.3)
    assert np.abs(found.elpd - exact).max() < 0.1
    assert abs(plain.elpd_loo - exact.sum()) > 1.5
    assert not found.saw


@pytest.mark.parametrize("theta", [0.3, 0.8])
def test_the_prior_of_masks_does_not_follow_the_guide(theta):
    """Under a flattening prior the price counts, and not the rate π that was best for the guide."""
    x, y = orthogonal(25, 3, seed=1)
    gated = linear(x, [theta] * 3, [0.3, -0.2, 0.0], torch.full((3,), SLAB, dtype=torch.double))
    drawn = weighed(bp.Posterior.of(gated), (x, y), 2500, seed=0)
    weights = np.exp(drawn.log_ratio - logsumexp(drawn.log_ratio))
    exact = bp.posterior.integrate_weights(gated, (x, y)).inclusion_prob()
    assert weights @ drawn.gates.double().numpy() == pytest.approx(exact, abs=0.06)


def test_draws_of_a_sampler_are_taken_as_they_are():
    x, y = orthogonal(30, 3)
    precision = 30 + 1 / SLAB**2
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(1500, 1, 3, generator=generator, dtype=torch.double) * precision**-0.5
    drawn += (x.T @ y)[:, 0] / precision
    gated = linear(x, [1.0] * 3, [0.0] * 3)
    nothing = torch.zeros(1500, dtype=torch.double)
    samples = Samples(torch.ones(1500, 3), {"0.weight": drawn}, {}, nothing, nothing)
    fit = FitResult(gated, (), 0.0, 0, None, at_decision=gated, samples=samples)
    found = loo(fit, (x, y), draws=1500, at="decision")
    exact = exact_elpd(x, y, price=-50.0)  # paid for being open: all of them are
    assert found.elpd_loo == pytest.approx(exact.sum(), abs=0.15) and found.bad == 0
    assert np.isnan(found.guide_k) and not found.saw


def test_points_flatter_by_a_nat_each():
    """Least squares of ten inputs: refits by the hat matrix have ten nats less, within a quarter."""
    x, y = orthogonal(200, 10)
    weights = torch.linalg.lstsq(x, y).solution[:, 0]
    gated = linear(x, [1.0] * 10, weights)
    found = loo(gated, (x, y), draws=20)
    leverage = (x @ torch.linalg.inv(x.T @ x) * x).sum(1).numpy()
    residuals = (y[:, 0] - x @ weights).numpy()
    refits = norm.logpdf(residuals / (1 - leverage)).sum()
    assert found.points == 10 and "10 fitted points (0.weight)" in found.saw
    assert found.elpd_loo == pytest.approx(norm.logpdf(residuals).sum(), abs=1e-4)
    assert found.elpd_loo - refits == pytest.approx(10, rel=0.25)
    assert np.isnan(found.pareto_k).all() and found.p_loo == pytest.approx(0, abs=1e-6)
    assert found.optimistic


def arrays():
    """Log-likelihoods (400 draws, 6 rows), log p and log q, as ``arviz_stats`` 1.3.3 was given them."""
    random = np.random.default_rng(3)
    nats = random.normal(-1, 1, (400, 6)) - random.exponential(1, (400, 1)) * 0.3
    return nats, random.normal(0, 1.2, 400), random.normal(0, 0.6, 400)


def of_arrays():
    nats, log_p, log_q = arrays()
    nothing = np.zeros(400)
    return Weighed(torch.zeros(400, 1), nothing, nothing, log_p - log_q, nats, nothing, nothing, (), 0)


def test_numbers_are_those_of_arviz_1():
    """What ``arviz_stats.loo_approximate_posterior`` of version 1.3.3 gave for the same arrays."""
    found = loo_of(of_arrays())
    elpd = [-1.7463916978, -1.6964285225, -2.0346206953, -1.9653534841, -1.7368220154, -1.7227470441]
    k = [0.6915472134, 0.4539914918, 0.7369205151, 0.6020489680, 0.2539158130, 0.6122931644]
    assert found.elpd == pytest.approx(elpd, abs=1e-8) and found.pareto_k == pytest.approx(k, abs=1e-6)
    assert found.elpd_loo == pytest.approx(-10.9023633594) and found.se == pytest.approx(0.3536144403)
    assert found.limit == pytest.approx(0.6156891066) and found.bad == 2
    plain_mean = logsumexp(arrays()[0], axis=0) - np.log(400)
    assert (plain_mean - found.elpd).sum() == pytest.approx(6.5149406506)  # p_loo there


def test_numbers_are_those_of_the_arviz_that_is_installed():
    arviz_stats = pytest.importorskip("arviz_stats")
    from arviz_base import from_dict

    nats, log_p, log_q = arrays()
    data = from_dict({"posterior": {"x": log_p[None]}, "log_likelihood": {"y": nats[None]}})
    with pytest.warns(UserWarning, match="Pareto"):
        theirs = arviz_stats.loo_approximate_posterior(data, log_p, log_q, pointwise=True)
    found = loo_of(of_arrays())
    assert found.elpd == pytest.approx(theirs.elpd_i.values, abs=1e-10)
    assert found.pareto_k == pytest.approx(theirs.pareto_k.values, abs=1e-10)


def test_a_row_that_a_draw_forbids_is_bad():
    drawn = of_arrays()
    nats = drawn.by_row.copy()
    nats[7, 2] = -np.inf
    found = loo_of(replace(drawn, by_row=nats))
    assert found.pareto_k[2] == np.inf and found.elpd[2] == -np.inf and found.bad == 2
    assert np.isfinite(np.delete(found.elpd, 2)).all()


def test_what_cannot_be_left_out_is_refused():
    x, y = orthogonal(20, 2)
    gated = linear(x, [0.5] * 2)
    with pytest.raises(PosteriorError, match="several side by side"):
        loo([gated, gated], (x, y))
    with pytest.raises(PosteriorError, match=r"all 20 training rows, and got 10"):
        loo(gated, (x[:10], y[:10]))
    with pytest.raises(PosteriorError, match=r"draws=0"):
        loo(gated, (x, y), draws=0)
    with pytest.raises(PosteriorError, match="at='decision'"):
        loo(FitResult(gated, (), 0.0, 0, None), (x, y), at="decision")
    fit = bp.fit(linear(x, [0.99] * 2), (x, y), epochs=1, progress=False)
    with pytest.raises(DataError, match="not trained on"):
        loo(fit, (x + 1, y))
    taught = bp.Distilled(bp.Gaussian(rows=20, scale=1.0).double(), teacher=gated)
    pupil = bp.gate(nn.Sequential(nn.Linear(2, 1)).double(), x[:1], likelihood=taught, prior=gated.prior)
    with pytest.raises(PosteriorError, match="teacher has spoken"):
        loo(pupil, (x, y))
