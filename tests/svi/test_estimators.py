"""Gradient estimators against enumeration; every randomised test declares its false-alarm rate."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2, kstest, uniform

from bayesprune.errors import SettingsError
from bayesprune.svi import (
    ARM,
    Concrete,
    CurvedStraightThrough,
    Enumeration,
    Reinforce,
    SecondOrderStraightThrough,
    StraightThrough,
)
from bayesprune.svi.estimators import GateProblem, all_configurations, find_estimator

pytestmark = pytest.mark.usefixtures("double_precision")
UNITS = {"a": 2, "b": 3}
PROBS = [0.15, 0.5, 0.9, 0.35, 0.7]
FALSE_ALARM = 1e-5  # of a whole test: 5 units, two-sided
SIGMAS = 4.8
DRAWS, ROWS = 400, 64


def problem_for(row_loss, seed=0, rows=ROWS, probs=PROBS):
    """row_loss: (..., units of all groups) → (...)."""
    probs = torch.tensor(probs)

    def nll(gates, factors=None):
        z = torch.cat([g.expand(*g.shape[:-2], -1, g.shape[-1]) for g in gates.values()], -1)
        losses = row_loss(z)
        return losses.expand(*losses.shape[:-1], rows) if losses.shape[-1] == 1 else losses

    return GateProblem(nll, probs, torch.logit(probs), UNITS, rows, torch.Generator().manual_seed(seed))


WEIGHT = torch.linspace(-1, 1, 5).double()
MIXING = torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.double)


def linear(z):
    return z @ WEIGHT


def quadratic(z):
    return (z @ MIXING).square().sum(-1)


def crooked(z):
    return torch.exp(torch.sin(2 * z @ MIXING)).sum(-1)


def exact_gradient(loss):
    probs = torch.tensor(PROBS, requires_grad=True)
    z = all_configurations(5).double()
    value = (torch.where(z > 0, probs, 1 - probs).prod(-1) * loss(z)).sum()
    value.backward()
    return value.detach(), probs.grad


def assert_unbiased(estimator, loss, rows=ROWS):
    value, gradient = exact_gradient(loss)
    problem = problem_for(loss, rows=rows)
    estimates = [estimator(problem) for _ in range(DRAWS)]
    values = torch.stack([e.nll.detach() for e in estimates])
    gradients = torch.stack([e.differentiated() for e in estimates])
    assert abs(values.mean() - value) <= SIGMAS * values.std() / DRAWS**0.5 + 1e-9
    error = SIGMAS * gradients.std(0) / DRAWS**0.5 + 1e-9
    assert bool(((gradients.mean(0) - gradient).abs() <= error).all())


def with_weight(loss):
    """The loss must have a path to a weight, as every network has."""
    weight = torch.ones((), requires_grad=True)
    return lambda z: loss(z) * weight


@pytest.mark.parametrize("loss", [linear, quadratic, crooked])
@pytest.mark.parametrize("estimator", [ARM(), Reinforce()], ids=["ARM", "REINFORCE"])
def test_score_function_estimators_are_unbiased_for_any_loss(estimator, loss):
    assert_unbiased(estimator, with_weight(loss))
    assert_unbiased(estimator, with_weight(loss), rows=2)  # a baseline that sees its own row shows most


@pytest.mark.parametrize("loss", [linear, quadratic])
def test_second_order_straight_through_is_exact_on_average_for_quadratic_losses(loss):
    assert_unbiased(SecondOrderStraightThrough(), with_weight(loss))


def test_plain_straight_through_is_exact_for_linear_losses_and_biased_for_others():
    (linear_estimate,) = (StraightThrough()(problem_for(with_weight(linear))),)
    torch.testing.assert_close(linear_estimate.differentiated(), WEIGHT)  # no variance either
    problem = problem_for(with_weight(quadratic))
    gradients = torch.stack([StraightThrough()(problem).differentiated() for _ in range(DRAWS)])
    _, exact = exact_gradient(quadratic)
    # E[∂L/∂z_u] = E[L|1] − E[L|0] + (θ_u − ½) ∂²L/∂z_u²: the bias is known for quadratic losses
    curvature = 2 * MIXING.square().sum(1)
    bias = (torch.tensor(PROBS) - 0.5) * curvature
    error = SIGMAS * gradients.std(0) / DRAWS**0.5
    assert bool(((gradients.mean(0) - exact - bias).abs() <= error).all())
    assert bool((bias.abs() > 3 * error).any())


@pytest.mark.parametrize("loss", [linear, quadratic, crooked])
def test_enumeration_is_exact(loss):
    value, gradient = exact_gradient(loss)
    estimate = Enumeration()(problem_for(with_weight(loss)))
    torch.testing.assert_close(estimate.nll.detach(), value)
    torch.testing.assert_close(estimate.differentiated(), gradient)


@pytest.mark.parametrize("hard", [True, False])
def test_concrete_differentiates_its_own_relaxed_objective(hard):
    """Finite differences in the log-odds, under the same noise; hard gates on a linear loss have that slope
    too.
    """
    loss, step = (linear if hard else crooked), 1e-6
    estimate = Concrete(hard=hard)(problem_for(with_weight(loss)))
    log_odds = torch.logit(torch.tensor(PROBS))

    def relaxed(shift):
        problem = problem_for(with_weight(loss))
        noise = torch.logit(problem.uniform(), eps=1e-7)
        return loss(torch.sigmoid((log_odds + shift + noise) / 0.5)).mean()

    gradient = estimate.differentiated()
    for unit, shift in enumerate(torch.eye(5) * step):
        slope = (relaxed(shift) - relaxed(-shift)) / (2 * step)
        theta = PROBS[unit]
        assert (gradient[unit] * theta * (1 - theta)).item() == pytest.approx(
            slope.item(), rel=1e-5, abs=1e-8
        )


ALL = [
    StraightThrough(), SecondOrderStraightThrough(), CurvedStraightThrough(), Concrete(), ARM(), Reinforce(),
    Enumeration(),
]  # fmt: skip


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_protocol(estimator):
    """All give a loss whose backward pass reaches the weights, and a gate gradient only when asked for."""
    for want in (True, False):
        weight = torch.ones(5, requires_grad=True)
        estimate = estimator(problem_for(lambda z, w=weight: (z * w).sum(-1)), want_gates=want)
        gradient = estimate.differentiated()
        assert weight.grad is not None and bool((weight.grad != 0).any())
        assert estimate.nll.requires_grad and estimate.nll.shape == ()
        assert (gradient is not None) == want
        if want:
            assert gradient.shape == (5,) and bool(gradient.isfinite().all())


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_a_loss_that_was_scaled_gives_the_same_gradient_of_the_gates(estimator):
    gradients = []
    for factor in (1.0, 4.0):
        weight = torch.ones(5, requires_grad=True)
        torch.manual_seed(0)
        estimate = estimator(problem_for(lambda z, w=weight: (z * w).sin().sum(-1)))
        (factor * estimate.nll).backward()
        gradients.append(estimate.gate_gradient(factor))
        gradients.append(estimate.gate_gradient(torch.tensor(factor)))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_weight_gradient_is_that_of_the_expected_loss(estimator):
    if isinstance(estimator, Concrete):
        estimator = Concrete(temperature=0.5, hard=True)
    weight = torch.ones(5, requires_grad=True)
    problem = problem_for(lambda z: (z * weight).sum(-1), rows=20_000)
    estimator(problem).differentiated()
    theta = torch.tensor(PROBS)
    error = SIGMAS * (theta * (1 - theta) / 20_000).sqrt()
    assert bool(((weight.grad - theta).abs() < error + 1e-4).all())


def test_draws_have_their_probabilities():
    """χ² over all units at once, at the declared false-alarm rate; a unit at probability 0 is never drawn."""
    rows, calls = 4096, 16
    probs = [1e-3, 0.3, 0.5, 0.77, 0.999]
    problem = problem_for(linear, rows=rows, probs=probs)
    counts = torch.zeros(5)
    for _ in range(calls):
        draws = torch.cat(list(problem.draw().values()), 1)
        assert draws.shape == (rows, 5) and bool(((draws == 0) | (draws == 1)).all())
        counts += draws.sum(0)
    total, theta = rows * calls, torch.tensor(probs)
    statistic = ((counts - total * theta).square() / (total * theta * (1 - theta))).sum().item()
    assert statistic < chi2.isf(FALSE_ALARM, 5)
    never = problem_for(linear, rows=rows, probs=[0.0, 0.5, 0.5, 0.5, 0.5])
    assert not never.draw()["a"][:, 0].any()


def test_draws_of_different_units_are_independent():
    problem = problem_for(linear, rows=60_000, probs=[0.5] * 5)
    draws = torch.cat(list(problem.draw().values()), 1)
    correlation = torch.corrcoef(draws.T)[torch.triu_indices(5, 5, 1).unbind()]
    assert bool((correlation.abs() < SIGMAS / 60_000**0.5).all())


@pytest.mark.parametrize("theta", [0.02, 0.5, 0.98])
def test_noise_from_the_gates_own_bits_is_uniform_around_one_where_they_are_open(theta):
    """Kolmogorov–Smirnov over all open gates, and no trace of the gates of other units or rows in it."""
    scale, rows = 0.4, 20_000
    problem = replace(problem_for(linear, rows=rows, probs=[theta] * 5), unit_noise={"a": scale})
    gates, factors = problem.draw_with_noise()
    assert set(factors) == {"a"} and factors["a"].shape == gates["a"].shape
    open_ = factors["a"][gates["a"] == 1]
    low = 1 - 3**0.5 * scale
    assert kstest(open_.numpy(), uniform(low, 2 * (1 - low)).cdf).pvalue > FALSE_ALARM
    both = (gates["a"] == 1).all(1)
    first, second = factors["a"][both][:, 0], factors["a"][both][:, 1]
    if len(first) > 100:
        assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < SIGMAS / len(first) ** 0.5
    assert torch.equal(gates["b"], problem_for(linear, rows=rows, probs=[theta] * 5).draw()["b"])


def test_too_many_gates_for_enumeration():
    with pytest.raises(
        SettingsError, match=r"13 gates have 2\^13 configurations: enumeration is for at most 12"
    ):
        all_configurations(13)


def test_estimators_by_name():
    assert find_estimator("second_order") == SecondOrderStraightThrough()
    assert find_estimator("curved") == CurvedStraightThrough()
    own = SecondOrderStraightThrough().__call__
    assert find_estimator(own) is own
