"""Gaussian integrals of both activations against numerical integration."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from bayesprune.errors import TheoryError
from bayesprune.theory import Activation, activation_named

CASES = [(0.3, 1.0, 0.7), (-0.5, 0.4, 2.0), (0.0, 1.0, 1.0), (1.1, 1.3, 1.0), (0.69, 0.7, 0.7)]
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)


def smooth(function, c, a, b):
    """E[f(x, y)] on a grid, for smooth f."""
    x = np.sqrt(a) * NODES[:, None]
    y = c / np.sqrt(a) * NODES[:, None] + np.sqrt(b - c**2 / a) * NODES[None, :]
    return WEIGHTS @ function(x, y) @ WEIGHTS / (2 * np.pi)


def given_first(function, c, a, b):
    """∫_0^∞ f(x, mean and deviation of y given x) dP(x): ReLU's first factor is 0 below 0."""
    deviation = np.sqrt(b - c**2 / a)
    inside = lambda x: function(x, c / a * x, deviation) * norm.pdf(x, scale=np.sqrt(a))  # noqa: E731
    return quad(inside, 0, 12 * np.sqrt(a), epsabs=1e-12)[0]


def rectified(mean, deviation):
    return mean * norm.cdf(mean / deviation) + deviation * norm.pdf(mean / deviation)


@pytest.mark.parametrize("case", CASES)
def test_erf(case):
    g = activation_named("erf")
    curve = lambda x: -x * g.slope(x)  # noqa: E731
    for found, product in (
        (g.overlap, lambda x, y: g.value(x) * g.value(y)),
        (g.slopes, lambda x, y: g.slope(x) * g.slope(y)),
        (g.curvature, lambda x, y: curve(x) * g.value(y)),
    ):
        assert found(*map(np.float64, case)) == pytest.approx(smooth(product, *case), abs=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_relu(case):
    g = activation_named("relu")
    c, a, b = map(np.float64, case)
    assert g.overlap(c, a, b) == pytest.approx(
        given_first(lambda x, m, s: x * rectified(m, s), c, a, b), abs=1e-9
    )
    assert g.slopes(c, a, b) == pytest.approx(given_first(lambda x, m, s: norm.cdf(m / s), c, a, b), abs=1e-9)
    at_zero = norm.pdf(0, scale=np.sqrt(a)) * rectified(0.0, np.sqrt(b - c**2 / a))
    assert g.curvature(c, a, b) == pytest.approx(at_zero, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_price(case, activation):
    """The other two are derivatives of the first."""
    g, step = activation_named(activation), 1e-5
    c, a, b = case
    by_c = (g.overlap(c + step, a, b) - g.overlap(c - step, a, b)) / (2 * step)
    by_a = (g.overlap(c, a + step, b) - g.overlap(c, a - step, b)) / (2 * step)
    assert g.slopes(c, a, b) == pytest.approx(by_c, abs=1e-7)
    assert g.curvature(c, a, b) == pytest.approx(2 * by_a, abs=1e-7)


def test_slope_is_the_derivative_and_is_bounded(activation):
    g = activation_named(activation)
    x = np.linspace(-3, 3, 1000)
    assert g.slope(x) == pytest.approx((g.value(x + 1e-6) - g.value(x - 1e-6)) / 2e-6, abs=1e-5)
    assert np.abs(g.slope(x)).max() <= g.lipschitz * (1 + 1e-12)


def test_units_without_weights_and_rounding_make_no_nan(activation):
    g = activation_named(activation)
    zero, one = np.zeros(1), np.ones(1)
    assert g.overlap(zero, zero, one) == 0 and g.value(zero) == 0
    assert np.isfinite(g.overlap(one * (1 + 1e-15), one, one))
    if activation == "erf":
        assert g.overlap(one, one, one) == pytest.approx(1 / 3)  # 2/π asin ½
    else:
        assert g.overlap(one, one, one) == pytest.approx(1 / 2)  # half of E[x²]


def test_names():
    erf = activation_named("erf")
    assert activation_named(erf) is erf and isinstance(erf, Activation)
    with pytest.raises(TheoryError, match="Activation 'tanh' has no closed forms here: use 'erf' or 'relu'"):
        activation_named("tanh")
