"""One mirror step, number by number."""

import pytest
import torch

from bayesprune.svi import GateSteps
from bayesprune.svi.mirror import mirror_step

pytestmark = pytest.mark.usefixtures("double_precision")


def step(velocity, log_odds, gradient, price=1.0, **settings):
    given = [torch.tensor([value]) for value in (velocity, log_odds, gradient, price)]
    settings = {"learning_rate": 0.1, "momentum": 0.0, "clip": 10.0, "bound": 8.0, **settings}
    moved = mirror_step(GateSteps(**settings), *given)
    return tuple(value.item() for value in moved)


@pytest.mark.parametrize(
    ("momentum", "velocity", "gradient", "expected"),
    [(0.0, 7.0, 2.0, 2.0), (0.9, 7.0, 2.0, 6.5), (0.75, -4.0, 8.0, -1.0)],
)
def test_velocity_is_an_exponential_mean_of_gradients(momentum, velocity, gradient, expected):
    moved, log_odds = step(velocity, 0.5, gradient, momentum=momentum)
    assert moved == pytest.approx(expected, abs=1e-12)
    assert log_odds == pytest.approx(0.5 - 0.1 * expected, abs=1e-12)


def test_steps_are_measured_in_the_price():
    assert step(0.0, 0.0, 6.0, price=3.0)[1] == pytest.approx(-0.2)
    assert step(0.0, 0.0, 6.0, price=3.0)[0] == pytest.approx(6.0)  # the velocity stays in nats


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_change_is_clipped_on_both_sides(sign):
    assert step(0.0, 1.0, sign * 1e6, clip=0.4)[1] == pytest.approx(1.0 - sign * 0.4)
    assert step(0.0, 1.0, sign * 3.9, clip=0.4)[1] == pytest.approx(1.0 - sign * 0.39)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_odds_stay_within_their_bound(sign):
    assert step(0.0, sign * 7.9, -sign * 5.0)[1] == pytest.approx(sign * 8.0)
    assert step(0.0, sign * 7.9, -sign * 0.5)[1] == pytest.approx(sign * 7.95)


def test_what_is_given_stays_as_it_was():
    given = [torch.tensor([1.0, -2.0]) for _ in range(4)]
    mirror_step(GateSteps(), *given)
    assert all(torch.equal(value, torch.tensor([1.0, -2.0])) for value in given)
