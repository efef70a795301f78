"""With few rows and a noise to learn, weights get a posterior, so that the noise is honest."""

import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.svi.few_rows import ROWS_A_WEIGHT, covered_by_points
from tests.svi.fits import same


@pytest.mark.parametrize("rows_a_weight", [2.5, 5, 10])
def test_points_cover_what_the_formula_says(rows_a_weight):
    """Least squares on 40 coefficients, 400 data sets of 20 targets each: within 1.5 points."""
    weights, random, inside = 40, np.random.default_rng(0), []
    rows = round(rows_a_weight * weights)
    for _ in range(400):
        x, new = random.standard_normal((rows, weights)), random.standard_normal((20, weights))
        y, y_new = random.standard_normal(rows), random.standard_normal(20)
        found = np.linalg.lstsq(x, y, rcond=None)[0]
        noise = np.sqrt(((y - x @ found) ** 2).mean())  # the maximiser of the likelihood
        inside.append(np.abs(y_new - new @ found) < 1.6449 * noise)
    # rows of x are drawn, so that what comes differs by p / (N − p − 1), and not by p / N: a little more
    drawn = np.sqrt((1 - 1 / rows_a_weight) / (1 + weights / (rows - weights - 1)))
    exact = 2 * _cdf(1.6449 * drawn) - 1
    assert abs(np.mean(inside) - exact) < 0.015
    assert exact - 0.005 < covered_by_points(rows_a_weight) < exact + 0.09


def _cdf(z):
    return float(torch.special.ndtr(torch.tensor(z, dtype=torch.double)))


def fit(likelihood, rows, recipe=None, **settings):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, generator=generator)
    y = x[:, :1] + 0.3 * torch.randn(rows, 1, generator=generator)
    y = (y[:, 0] > 0).long() if isinstance(likelihood.plain, bp.Categorical) else y
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2 if y.ndim == 1 else 1))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(0.5))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood)
    return bp.fit(
        gated, (x, y), epochs=6, batch_size=16, recipe=recipe or bp.Recipe(), progress=False, **settings
    )


CASES = {
    "few rows": (lambda: bp.Gaussian(rows=32), 32, None, True),
    "few rows, taught": (lambda: bp.Distilled(bp.Gaussian(rows=32), lambda x: x[:, :1]), 32, None, True),
    "many rows": (lambda: bp.Gaussian(rows=400), 400, None, False),
    "a noise that is known": (lambda: bp.Gaussian(rows=32, scale=0.3, learn_scale=False), 32, None, False),
    "classes": (lambda: bp.Categorical(rows=32), 32, None, False),
    "points, as was asked": (lambda: bp.Gaussian(rows=32), 32, bp.Recipe(compact_weights="points"), False),
    "normal, as was asked": (lambda: bp.Gaussian(rows=400), 400, bp.Recipe(compact_weights="normal"), True),
}


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
@pytest.mark.parametrize("case", CASES)
def test_weights_have_a_posterior_where_rows_are_few_for_the_noise_beside_them(case):
    likelihood, rows, recipe, spread = CASES[case]
    result = fit(likelihood(), rows, recipe)
    assert bool(result.gated.log_scales) == spread
    if recipe is None and isinstance(result.likelihood.plain, bp.Gaussian):
        few = rows < ROWS_A_WEIGHT * result.gated.network.parameter_count()
        assert few == (rows == 32)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
@pytest.mark.parametrize("decide", [True, False])
def test_a_resumed_fit_keeps_what_was_chosen(tmp_path, decide):
    class Stop(Exception):
        pass

    def stop(record):
        if record.epoch == 5:
            raise Stop

    whole = fit(bp.Gaussian(rows=32), 32, decide=decide)
    with pytest.raises(Stop):
        fit(bp.Gaussian(rows=32), 32, decide=decide, checkpoint=tmp_path, on_epoch=stop)
    resumed = fit(bp.Gaussian(rows=32), 32, decide=decide, checkpoint=tmp_path, resume=True)
    assert resumed.gated.log_scales
    same(whole, resumed)


def test_what_no_recipe_knows_is_named():
    with pytest.raises(bp.errors.SettingsError, match="'points' or 'normal', or left out"):
        bp.Recipe(compact_weights="auto")
