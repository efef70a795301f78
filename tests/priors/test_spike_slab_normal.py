"""Spike-and-slab weights: density, sampler and divergence."""

import math
import re

import pytest
import torch
from pyro import distributions as dist
from scipy.integrate import quad
from scipy.stats import binomtest, kstest
from torch.distributions import kl_divergence

from bayesprune.errors import PriorError
from bayesprune.priors import SpikeAndSlabNormal

FALSE_ALARM = 1e-4


def double(value):
    return torch.tensor(value, dtype=torch.double)


def test_point_mass_and_density_add_up_to_one():
    weights = SpikeAndSlabNormal(0.3, double([0.5]), 0.7)
    slab, _ = quad(lambda x: weights.log_prob(double([x])).exp().item(), -6, 7, points=[0.5])
    assert slab == pytest.approx(0.3, abs=1e-9)
    assert weights.log_prob(double([0.0])).exp().item() == pytest.approx(0.7)


def test_draws_are_wholly_zero_or_wholly_gaussian():
    torch.manual_seed(0)
    weights = SpikeAndSlabNormal(0.3, double([0.5, -1.0, 2.0]), double([0.7, 1.0, 0.1]))
    draws = weights.sample((20_000,))
    there = (draws != 0).any(-1)
    assert bool((draws[there] != 0).all())
    assert binomtest(int(there.sum()), 20_000, 0.3).pvalue > FALSE_ALARM
    standard = (draws[there] - weights.loc) / weights.scale
    for column in standard.T:
        assert kstest(column.numpy(), "norm").pvalue > FALSE_ALARM
    error = 5 * (weights.variance / 20_000).sqrt()
    assert bool(((draws.mean(0) - weights.mean).abs() < error).all())
    torch.testing.assert_close(draws.var(0), weights.variance, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("inclusion", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("prior_inclusion", [0.1, 0.9])
def test_divergence_is_that_of_the_gate_plus_that_of_the_slab(inclusion, prior_inclusion):
    q = SpikeAndSlabNormal(inclusion, double([0.4]), 0.5)
    p = SpikeAndSlabNormal(prior_inclusion, double([0.0]), 1.5)

    def integrand(x):
        log_q, log_p = q.log_prob(double([x])).item(), p.log_prob(double([x])).item()
        return math.exp(log_q) * (log_q - log_p) if log_q > -700 else 0.0

    slab, _ = quad(integrand, -5, 6, points=[0.4])
    log_off = q.log_prob(double([0.0])).item()
    spike = math.exp(log_off) * (log_off - p.log_prob(double([0.0])).item()) if log_off > -math.inf else 0.0
    assert kl_divergence(q, p).item() == pytest.approx(slab + spike, abs=1e-8)


def test_divergence_agrees_with_monte_carlo_for_many_weights():
    torch.manual_seed(0)
    q = SpikeAndSlabNormal(0.6, torch.randn(6, dtype=torch.double), torch.rand(6, dtype=torch.double) + 0.1)
    p = SpikeAndSlabNormal(0.2, torch.zeros(6, dtype=torch.double), 1.0)
    draws = q.sample((20_000,))
    ratio = q.log_prob(draws) - p.log_prob(draws)
    assert abs(ratio.mean() - kl_divergence(q, p)) < 5 * ratio.std() / math.sqrt(20_000)


def test_divergence_is_infinite_only_where_the_prior_rules_the_unit_out():
    loc = torch.zeros(2)
    q, never = SpikeAndSlabNormal(0.5, loc, 1.0), SpikeAndSlabNormal(0.0, loc, 1.0)
    assert kl_divergence(q, never).item() == math.inf
    assert kl_divergence(never, never).item() == 0.0


def test_expand_and_broadcast_keep_class_and_shapes():
    weights = SpikeAndSlabNormal(torch.tensor([0.1, 0.9]), torch.zeros(3), torch.ones(2, 3))
    assert weights.batch_shape == (2,) and weights.event_shape == (3,)
    wide = weights.expand((4, 2))
    assert type(wide) is SpikeAndSlabNormal and wide.sample((5,)).shape == (5, 4, 2, 3)
    assert wide.log_prob(torch.zeros(3)).shape == (4, 2)
    assert kl_divergence(wide, weights.expand((4, 2))).shape == (4, 2)
    mixture = 0.9 * dist.Normal(0.0, 1.0).log_prob(torch.ones(3)).sum().exp()
    torch.testing.assert_close(wide.log_prob(torch.ones(3))[0, 1].exp(), mixture)


@pytest.mark.parametrize(
    "inclusion, loc, scale",
    [((), (2, 3), ()), ((), (3,), (2, 3)), ((2,), (3,), ()), ((2, 1), (4, 3), ()), ((), (4, 3), (2, 1, 1))],
)
def test_shapes_broadcast_whichever_argument_has_them(inclusion, loc, scale):
    shape = torch.broadcast_shapes((*inclusion, 1), loc, scale)
    weights = SpikeAndSlabNormal(torch.full(inclusion, 0.5), torch.zeros(loc), torch.ones(scale))
    assert weights.batch_shape == shape[:-1] and weights.event_shape == shape[-1:]
    assert weights.sample().shape == shape and weights.log_prob(torch.ones(shape)).shape == shape[:-1]


def test_numbers_are_put_where_the_weights_are():
    weights = SpikeAndSlabNormal(0.5, torch.zeros(3, device="meta"), 1.0, validate_args=False)
    assert weights.inclusion.is_meta and weights.scale.is_meta


def test_divergence_of_a_batch_is_that_of_each():
    loc, zeros = torch.tensor([[0.5, 1.0], [3.0, -1.0]]), torch.zeros(2)
    together = kl_divergence(
        SpikeAndSlabNormal(0.6, loc, 0.5), SpikeAndSlabNormal(0.2, zeros, 1.0).expand((2,))
    )
    each = [
        kl_divergence(SpikeAndSlabNormal(0.6, row, 0.5), SpikeAndSlabNormal(0.2, zeros, 1.0)) for row in loc
    ]
    torch.testing.assert_close(together, torch.stack(each))


def test_a_scalar_and_shapes_that_do_not_fit_are_named():
    scalar = "SpikeAndSlabNormal needs loc of shape (..., fan_in), and got a scalar: use loc[None]."
    with pytest.raises(PriorError, match=f"^{re.escape(scalar)}$"):
        SpikeAndSlabNormal(0.5, torch.tensor(0.0), 1.0)
    shapes = (
        "SpikeAndSlabNormal needs an inclusion in [0, 1] of shape (...), a real loc and a positive scale of "
        "shape (..., fan_in), and got shapes inclusion (4,), loc (3, 2), scale (): "
    )
    with pytest.raises(PriorError, match=f"^{re.escape(shapes)}"):
        SpikeAndSlabNormal(torch.full((4,), 0.5), torch.zeros(3, 2), 1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        (1.5, torch.zeros(2), 1.0),
        (0.5, torch.zeros(2), -1.0),
        (0.5, torch.tensor(0.0), 1.0),
        (0.5, torch.zeros(2), torch.ones(3)),
        (torch.full((4,), 0.5), torch.zeros(3, 2), 1.0),
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(PriorError, match="SpikeAndSlabNormal needs"):
        SpikeAndSlabNormal(*arguments, validate_args=True)
