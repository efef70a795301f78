"""Curvature-corrected straight-through, without randomness: its expectation is summed over all gates."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bayesprune.svi import CurvedStraightThrough, StraightThrough
from bayesprune.svi.estimators import GateProblem, all_configurations

pytestmark = pytest.mark.usefixtures("double_precision")
PROBS = [0.15, 0.97, 0.9, 0.35, 0.7]
UNITS = {"a": 2, "b": 3}


@dataclass(frozen=True)
class Told(GateProblem):
    """A problem whose rows all draw the gates that they are told."""

    told: Tensor | None = None

    def draw(self):
        return {name: z.clone() for name, z in self.split(self.told.expand(self.rows, -1)).items()}


def expectation(estimator, row_losses, probs, rows, units=UNITS):
    """Σ_z q(z) estimate(z), exactly: rows are averaged over, so it does not matter that they share their z.

    Args:
        estimator: under test.
        row_losses: (rows, units) gates → (rows,).
        probs: q(z = 1) of every unit.
        rows: of the batch.
        units: group → units.
    """
    probs, total, weight = torch.tensor(probs), 0.0, torch.ones((), requires_grad=True)

    def nll(gates, factors=None):  # the path to a weight that every network has
        return row_losses(torch.cat(list(gates.values()), -1)) * weight

    for z in all_configurations(len(probs)).double():
        share = torch.where(z > 0, probs, 1 - probs).prod()
        problem = Told(nll, probs, torch.logit(probs), units, rows, told=z)
        total = total + share * estimator(problem).differentiated()
    return total


def exact_gradient(row_losses, probs, rows):
    """∂/∂q(z_u = 1) of Σ_z q(z) · mean loss: E[L | z_u = 1] − E[L | z_u = 0]."""
    probs = torch.tensor(probs, requires_grad=True)
    z = all_configurations(len(probs)).double()
    losses = torch.stack([row_losses(one.expand(rows, -1)).mean() for one in z])
    return torch.autograd.grad(torch.where(z > 0, probs, 1 - probs).prod(-1) @ losses, probs)[0]


ROWS = 6
X = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
LABELS = torch.tensor([0, 1, 1, 0, 1, 0]).double()
WEIGHT = torch.tensor([0.8, -1.5, 2.0, 0.4, -0.7]).double()


def logistic(z):
    """(rows,) Bernoulli NLL with the log-odds Σ_u w_u x_u z_u − 0.3."""
    odds = (X * WEIGHT * z).sum(-1) - 0.3
    return torch.nn.functional.softplus(odds) - LABELS * odds


def test_its_expectation_is_the_formula():
    """E_z[mean over rows of ℓ′ + (½ − z) min(ℓ′², |ℓ′|)], with ℓ′ = (sigmoid(odds) − y) w_u x_u by hand."""
    formula = torch.zeros(5)
    for z in all_configurations(5).double():
        share = torch.tensor([p if on else 1 - p for p, on in zip(PROBS, z, strict=True)]).prod()
        for x, y in zip(X, LABELS, strict=True):
            odds = sum(w * v * on for w, v, on in zip(WEIGHT, x, z, strict=True)) - 0.3
            for unit in range(5):
                slope = (1 / (1 + torch.exp(-odds)) - y) * WEIGHT[unit] * x[unit]
                formula[unit] += share * (slope + (0.5 - z[unit]) * min(slope**2, abs(slope))) / ROWS
    ours = expectation(CurvedStraightThrough(), logistic, PROBS, ROWS)
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)


def errors(size):
    """Largest error of the plain and of the curved estimator, on a loss of slopes of that size."""
    step = size * torch.tensor([0.5, -0.3, 1.0, 0.2, -0.8])

    def mixture(z):  # −log of a probability that is linear in every gate: ℓ″ = (ℓ′)² exactly
        return -torch.log(1 + z @ step).expand(ROWS)

    exact = exact_gradient(mixture, PROBS, ROWS)
    return [
        (expectation(estimator, mixture, PROBS, ROWS) - exact).abs().max().item()
        for estimator in (StraightThrough(), CurvedStraightThrough())
    ]


def test_one_order_more_where_curvature_is_the_squared_slope():
    """Halve the slopes: the plain error falls four times (second order), the curved one eight (third)."""
    (plain, curved), (half_plain, half_curved) = errors(0.02), errors(0.01)
    assert plain / half_plain == pytest.approx(4.0, rel=0.05)
    assert curved / half_curved == pytest.approx(8.0, rel=0.05)
    assert curved < plain / 10 and half_curved < half_plain / 20


def test_it_sees_a_unit_that_the_weights_have_adapted_to():
    """Labels occur as often as the open network says, so ℓ′(1) is zero on average, and the plain estimator
    sees nothing of the unit; by the information equality the mean of ℓ′² is that of ℓ″.
    """
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0])
    open_odds, share = torch.tensor(3.0).log(), 0.2  # sigmoid(log 3) = ¾ of the labels

    def adapted(z):
        odds = open_odds - share * (1 - z[:, 0])
        return torch.nn.functional.softplus(odds) - labels * odds

    probs = [1 - 1e-9]
    exact = exact_gradient(adapted, probs, 4).item()
    plain, curved = (
        expectation(estimator, adapted, probs, 4, units={"a": 1}).item()
        for estimator in (StraightThrough(), CurvedStraightThrough())
    )
    assert exact < -3e-3 and abs(plain) < 1e-9
    assert curved == pytest.approx(exact, rel=0.05)
    assert curved == pytest.approx(-0.5 * 0.75 * 0.25 * share**2, rel=1e-6)  # half the Fisher information


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("effect", [0.1, 1.0, 10.0, 100.0])
def test_rows_that_a_closed_gate_throws_far_off_do_not_turn_the_sign(probability, effect):
    """A unit moves the mean of a Gaussian by so many standard deviations, to where it should be.

    ℓ = ½ effect² (1 − z)², so ℓ′(0) = −effect², and (ℓ′)² is effect² times the true curvature.
    """

    def gaussian(z):
        return 0.5 * (effect * (1 - z[:, 0])) ** 2

    exact = exact_gradient(gaussian, [probability], 4).item()
    ours = expectation(CurvedStraightThrough(), gaussian, [probability], 4, units={"a": 1}).item()
    assert exact == pytest.approx(-0.5 * effect**2)
    slope = effect**2
    assert ours == pytest.approx(-(1 - probability) * (slope - 0.5 * min(slope, slope**2)))
    assert ours < 0
