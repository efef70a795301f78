"""Dual ascent: on a problem whose multiplier is known it finds it, from any scale."""

import math

import pytest
import torch

from bayesprune.svi.dual import LOWEST, Ascent


class Prior:
    """The buffers of a ``CostGates`` that the ascent moves."""

    def __init__(self, budget, start=(1.0, 1.0), first=0.0):
        self.budget = torch.tensor(budget, dtype=torch.double)
        self.start = torch.tensor(start, dtype=torch.double)
        self.error = torch.zeros(2, dtype=torch.double)
        self.log_multipliers = torch.full((2,), first, dtype=torch.double)


LAG = 30  # gate steps in which two thirds of a network's answer to a price are seen


def run(prior, shares, steps=600, settle=600):
    ascent, now = Ascent(steps, prior.log_multipliers.clone()), torch.ones(2).double()
    for step in range(steps + settle):
        now = now + (shares(prior.log_multipliers.exp()) - now) / LAG
        ascent.ascend_(prior, now, min(1.0, step / steps))
    return prior.log_multipliers.exp()


@pytest.mark.parametrize("first", [-4.0, 0.0, 3.0])
@pytest.mark.parametrize("nats", [1.0, 30.0])
def test_it_finds_the_multiplier_at_which_the_cost_is_the_budget(first, nats):
    """Units whose evidence per cost is spread evenly over (0, nats): share kept = 1 - λ/nats."""
    prior = Prior((0.1, torch.nan), first=first)
    found = run(prior, lambda lam: (1 - lam / nats).clamp(1e-3, 1.0))
    assert float(found[0]) == pytest.approx(0.9 * nats, rel=0.02)
    assert float(found[1]) == pytest.approx(math.exp(first), rel=1e-12)  # no budget: left alone


def test_a_slack_constraint_loses_its_price_and_not_more_than_so_much():
    prior = Prior((0.2, 0.9))
    found = run(
        prior, lambda lam: torch.stack([(1 - lam[0] / 5).clamp(1e-3, 1), (1 - lam[0] / 5).clamp(1e-3, 1)])
    )
    assert float(found[0]) == pytest.approx(4.0, rel=0.02)
    assert float(found[1]) < 0.05
    assert float(prior.log_multipliers[1]) >= -LOWEST - 1e-12


def test_the_aim_sinks_geometrically_from_the_start_to_the_budget():
    prior, ascent = Prior((0.01, 0.25), start=(1.0, 1.0)), Ascent(10, torch.zeros(2).double())
    for progress, aim in ((0.0, (1.0, 1.0)), (0.5, (0.1, 0.5)), (1.0, (0.01, 0.25))):
        before = prior.log_multipliers.clone()
        prior.error.zero_()
        ascent.ascend_(prior, torch.tensor(aim).double(), progress)
        torch.testing.assert_close(prior.log_multipliers, before, atol=1e-6, rtol=0)
