"""Fits of the same rows in one table: its numbers, its order, and what it says of itself."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError, PosteriorError
from bayesprune.posterior import compare, loo

ROWS = 120


def data(seed, rows=ROWS):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.double)
    return x, x[:, :2].sum(1, keepdim=True) + torch.randn(rows, 1, generator=generator, dtype=torch.double)


ROWS_SEEN, HELD = data(0), data(1, 400)


def gated(keep, posterior="normal", likelihood=None, price=2.0):
    """A linear model of some inputs, weights at the ridge regression's posterior, one by one."""
    x, y = ROWS_SEEN
    model = bp.gate(
        nn.Sequential(nn.Linear(5, 1, bias=False)).double(), x[:1], inputs=True,
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=likelihood or bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double(),
        weights=bp.priors.NormalWeights(0.5, posterior=posterior),
    )  # fmt: skip
    mask = torch.zeros(5, dtype=torch.bool)
    mask[keep] = True
    model.log_odds.data[:] = torch.where(mask, 40.0, -40.0)
    part = x[:, mask]
    precision = part.T @ part + 4 * torch.eye(len(keep))
    weight = model.weight_tensors()["0.weight"]
    weight.data[0] = 0
    weight.data[0, mask] = torch.linalg.solve(precision, part.T @ y)[:, 0]
    if posterior == "normal":
        model.log_scales["0/weight"].data[0] = torch.tensor(0.5).log()  # the prior's, where the gate is shut
        model.log_scales["0/weight"].data[0, mask] = precision.diagonal().rsqrt().log()
    return model


@pytest.fixture(scope="module")
def table():
    fits = {"one": gated([0]), "two": gated([0, 1]), "all": gated([0, 1, 2, 3, 4])}
    return compare(fits, ROWS_SEEN, HELD, draws=1500)


def test_the_best_is_first_and_differences_are_row_by_row(table):
    assert [fit.name for fit in table.fits][-1] == "one" and table.by == "elpd_loo"
    best, last = table.fits[0], table["one"]
    apart = last.loo.elpd - best.loo.elpd
    assert table.difference("one") == pytest.approx((apart.sum(), (len(apart) * apart.var(ddof=1)) ** 0.5))
    assert table.difference(best.name) == (0.0, 0.0)
    lacks, error = table.difference("one")
    assert lacks < -4 * error  # the second input is worth half a nat a row


def test_numbers_are_those_of_the_functions_beside_it(table):
    fit = gated([0, 1])
    alone = loo(fit, ROWS_SEEN, draws=1500)
    assert table["two"].loo.elpd == pytest.approx(alone.elpd)
    predicted = bp.predict(fit, HELD[0], draws=4000).log_prob(HELD[1])
    assert table["two"].held_out.mean() == pytest.approx(float(predicted.mean()), abs=2e-3)
    assert table["two"].kept == 2 and table["two"].macs_percent == 40 and table["two"].units == 5
    frame = table.to_dataframe()
    assert frame.loc["two", "elpd_loo"] == pytest.approx(alone.elpd_loo)
    assert list(frame.index) == [fit.name for fit in table.fits] and frame.loc["two", "kept"] == 2


@pytest.mark.parametrize("prior", ["price", "fixed", "beta"])
def test_the_bound_is_the_evidence_where_the_guide_is_the_posterior(prior):
    """Two orthogonal inputs, both there: log p(y) of a conjugate model, and the mask's own probability."""
    x, y = data(3, 60)
    column = torch.linalg.qr(x[:, :2])[0] * 60**0.5
    priors = {
        "price": (bp.priors.Flattening(2.0), 2 * (-2.0 - np.log1p(np.exp(-2.0)))),
        "fixed": (bp.priors.Fixed(0.3), 2 * np.log(0.3)),
        "beta": (bp.priors.Beta(1.0, 3.0), np.log(0.1)),
    }
    hyper, log_p = priors[prior]
    model = bp.gate(
        nn.Sequential(nn.Linear(2, 1, bias=False)).double(), column[:1], inputs=True,
        prior=bp.priors.BernoulliGates(hyper), weights=bp.priors.NormalWeights(0.5, posterior="normal"),
        likelihood=bp.Gaussian(rows=60, scale=1.0, learn_scale=False).double(),
    )  # fmt: skip
    model.log_odds.data[:] = 40.0
    precision = 60 + 4
    model.weight_tensors()["0.weight"].data[:] = (column.T @ y).T / precision
    model.log_scales["0/weight"].data[:] = -0.5 * np.log(precision)
    found = compare([model], (column, y), draws=20).fits[0]
    covariance = np.eye(60) + 0.25 * (column @ column.T).numpy()
    right = multivariate_normal.logpdf(y.numpy()[:, 0], np.zeros(60), covariance) + log_p
    assert found.elbo == pytest.approx(right, abs=1e-3) and found.elbo_error < 1e-3


def test_leave_one_out_and_held_out_rows_agree(table):
    """Of other rows from the same source: per row within four standard errors of both together."""
    for fit in table.fits:
        together = np.hypot(fit.loo.elpd.std() / ROWS**0.5, fit.held_out.std() / 20)
        assert fit.loo.elpd.mean() == pytest.approx(fit.held_out.mean(), abs=4 * together)


def test_the_table_says_what_it_conditions_on(table):
    text = str(table)
    assert text.splitlines()[0].split()[:2] == ["fit", "elpd_loo"] and max(map(len, text.splitlines())) <= 110
    assert "5 of 5 gates as decided. That was learnt from every row, the left-out one too" in text.replace(
        "\n  ", " "
    )
    assert "*" not in text and "weighed by p(y, z, w) / q(z, w)" in text


def test_points_are_starred_and_lead_to_held_out_rows():
    fits = {"points": gated([0, 1], "delta"), "posterior": gated([0, 1])}
    found = compare(fits, ROWS_SEEN, HELD, draws=200)
    assert found.by == "held_out" and "points is optimistic" in found.why
    assert found["points"].loo.optimistic and not found["posterior"].loo.optimistic
    text = str(found).replace("\n  ", " ")
    assert "* elpd_loo and ELBO are optimistic (points): numbers that are points saw the row" in text
    assert "NormalWeights(posterior='normal')" in text
    assert found.difference(found.fits[1].name)[1] > 0
    alone = compare(fits, ROWS_SEEN, draws=200)
    assert alone.by == "elpd_loo" and "give held_out= rows" in alone.why
    assert compare(fits, ROWS_SEEN, HELD, draws=200, by="elpd_loo").why == "as asked"


def test_a_bad_tail_is_counted_and_said():
    fit = gated([0, 1])
    fit.log_scales["0/weight"].data -= 1.5  # a guide of a fifth of the width
    found = compare([fit], ROWS_SEEN, HELD, draws=500)
    assert found.by == "held_out" and found.fits[0].loo.bad > ROWS / 2
    assert "rests on a few draws of the guide" in str(found).replace("\n  ", " ")


def test_a_fit_that_learnt_from_a_teacher_has_no_elpd_but_a_place():
    taught = bp.Distilled(bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double(), gated([0, 1]))
    fits = {"pupil": gated([0, 1], likelihood=taught), "plain": gated([0])}
    found = compare(fits, ROWS_SEEN, HELD, draws=100)
    assert found["pupil"].loo is None and found.by == "held_out" and found.fits[0].name == "pupil"
    assert "pupil has no elpd_loo: a teacher has spoken" in str(found).replace("\n  ", " ")
    assert np.isnan(compare(fits, ROWS_SEEN, draws=100).difference("pupil")[0])


def test_fits_that_learnt_are_compared_under_their_names_before_the_decision_too():
    fits = {}
    for price in (0.5, 30.0):
        prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
        network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)).double()
        model = bp.gate(network, ROWS_SEEN[0][:1], prior=prior, likelihood=bp.Gaussian(rows=ROWS).double())
        fits[f"price {price}"] = bp.fit(model, ROWS_SEEN, epochs=4, progress=False)
    for at in ("end", "decision"):
        found = compare(fits, ROWS_SEEN, HELD, draws=60, at=at)
        assert set(found.to_dataframe().index) == set(fits) and str(found)
    with pytest.raises(DataError, match="held_out"):
        compare(fits, ROWS_SEEN, ROWS_SEEN, draws=60)


@pytest.mark.parametrize(
    "results, settings, message",
    [
        ([], {}, "got none"),
        ({"a": 3}, {}, "got a"),
        ("fits", {"by": "held_out"}, "there are none"),
        ("fits", {"by": "waic"}, "by='waic'"),
        ("fits", {"draws": 2.5}, "draws=2.5"),
    ],
)
def test_what_cannot_be_compared_is_refused(results, settings, message):
    fits = [gated([0])] if results == "fits" else results
    with pytest.raises(PosteriorError, match=message):
        compare(fits, ROWS_SEEN, **settings)


def test_densities_are_not_compared_with_probabilities():
    x, y = ROWS_SEEN
    counts = (x, y.round().clamp_min(0))
    poisson = bp.gate(
        nn.Sequential(nn.Linear(5, 1)).double(),
        x[:1],
        prior=gated([0]).prior,
        likelihood=bp.Poisson(rows=ROWS),
    )
    with pytest.raises(PosteriorError, match="b has probabilities"):
        compare({"a": gated([0]), "b": poisson}, counts, draws=10)
