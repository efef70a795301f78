"""Noise on units: a site of model and guide, of the declared mean and deviation, for living units alone."""

import copy
import math

import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import SettingsError

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-5  # of each randomised test: |error| > 5.1 standard errors, for up to thirty numbers
SIGMAS = 5.1
ROWS = 50


def gate(unit_noise, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
    prior = priors.BernoulliGates(priors.Flattening(price=1.0))
    return bp.gate(
        network, torch.zeros(1, 3), prior=prior, likelihood=bp.Categorical(rows=ROWS), unit_noise=unit_noise,
        **settings,
    )  # fmt: skip


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 3, generator=generator)
    return x, (x[:, 0] > 0).long()


def factor(share, deviation):
    """The factor on a unit that a draw from Uniform(0, 1) stands for."""
    return 1 + 3**0.5 * deviation * (2 * share - 1)


def noise_sites(program):
    trace = poutine.trace(program).get_trace(*data())
    return {name: site["value"] for name, site in trace.nodes.items() if name.startswith("noise/")}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.0, {}),
        (0.4, {"input": 0.4, "0": 0.4}),
        ({"input": 0.4}, {"input": 0.4}),
        ({"in*": 0.1, "*": 0.2}, {"input": 0.1, "0": 0.2}),
        ({"*": 1, "0": 0}, {"input": 1.0}),  # a group's own name goes before a pattern
    ],
)
def test_groups_named_have_it(given, expected):
    gated = gate(given)
    assert gated.unit_noise == expected
    for program in (gated.model, gated.guide):
        assert set(noise_sites(program)) == {f"noise/{group}" for group in expected}


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf, "0.4", True, None])
def test_what_is_no_deviation_is_refused_by_group(wrong):
    with pytest.raises(SettingsError, match="unit_noise of group 'input' is "):
        gate(wrong)
    with pytest.raises(SettingsError, match="unit_noise of group '0' is "):
        gate({"input": 0.1, "0": wrong})


@pytest.mark.parametrize("setting", ["unit_noise", "initial_inclusion"])
def test_a_name_that_fits_no_group_is_refused(setting):
    with pytest.raises(SettingsError, match=rf"{setting} names 'fc\*'.*There are 'input', '0'"):
        gate(**{"unit_noise": 0.0, setting: {"fc*": 0.5}})


@pytest.mark.parametrize("program", ["model", "guide"])
def test_factors_have_mean_one_the_declared_deviation_and_bounded_support(program):
    """Standard errors of a uniform's mean, σ/√n, and variance, σ²√(0.8/n); rows are one draw each."""
    gated = gate({"input": 0.4, "0": 0.7})
    draws = [noise_sites(getattr(gated, program)) for _ in range(200)]
    for group, units, deviation in (("input", 3, 0.4), ("0", 4, 0.7)):
        factors = factor(torch.cat([draw[f"noise/{group}"] for draw in draws]), deviation)
        count = 200 * ROWS
        assert factors.shape == (count, units)
        assert bool(((factors.mean(0) - 1).abs() < SIGMAS * deviation / count**0.5).all())
        variance = (factors - 1).square().mean(0)
        assert bool(((variance - deviation**2).abs() < SIGMAS * deviation**2 * (0.8 / count) ** 0.5).all())
        assert (factors - 1).abs().max() <= 3**0.5 * deviation
        correlation = torch.corrcoef(factors.T)[torch.triu_indices(units, units, 1).unbind()]
        assert bool((correlation.abs() < SIGMAS / count**0.5).all())


def test_model_reads_the_units_times_their_noise():
    """The outputs under a guide's draw are those of the network with its inputs multiplied by hand."""
    gated, (x, y) = gate({"input": 0.4}, exclude=("0",)), data()
    guide = poutine.trace(gated.guide).get_trace(x, y)
    outputs = (
        poutine.trace(poutine.replay(gated.model, trace=guide)).get_trace(x, y).nodes["_RETURN"]["value"]
    )
    gates, noise = guide.nodes["gate/input"]["value"], guide.nodes["noise/input"]["value"]
    torch.testing.assert_close(outputs, gated.network(x * gates * factor(noise, 0.4)))


def test_a_draw_at_the_edge_costs_no_nats_either(monkeypatch):
    """In float32 low + u · (high − low) can round up to high, where a uniform density is zero."""
    largest = 1 - 2.0**-24
    gated, (x, y) = gate({"input": 0.5, "0": 0.3}), data()
    monkeypatch.setattr(torch, "rand", lambda *shape, **kinds: torch.full(shape[0], largest, **kinds))
    sites = noise_sites(gated.guide)
    assert all(bool((site == largest).all()) for site in sites.values()) and len(sites) == 2
    monkeypatch.undo()
    conditioned = poutine.condition(gated.model, data=sites)
    assert torch.isfinite(poutine.trace(conditioned).get_trace(x, y).log_prob_sum())


def test_noise_costs_no_nats():
    gated, (x, y) = gate(0.4), data()
    guide = poutine.trace(gated.guide).get_trace(x, y)
    model = poutine.trace(poutine.replay(gated.model, trace=guide)).get_trace(x, y)
    for trace in (guide, model):
        trace.compute_log_prob()
    for name in ("noise/input", "noise/0"):
        torch.testing.assert_close(guide.nodes[name]["log_prob_sum"], model.nodes[name]["log_prob_sum"])


def test_noise_follows_the_living_units():
    gated = gate({"0": 0.4})
    dead = torch.zeros_like(gated.alive)
    dead[-1] = dead[0] = True
    gated.remove_(dead)
    assert gated.unit_noise == {"0": 0.4}
    for program in (gated.model, gated.guide):
        assert noise_sites(program)["noise/0"].shape == (ROWS, 3)


def test_a_copy_has_noise_of_its_own():
    gated = gate(0.4)
    copied = copy.deepcopy(gated)
    gated.unit_noise.clear()
    assert copied.unit_noise == {"input": 0.4, "0": 0.4}
    assert set(noise_sites(copied.guide)) == {"noise/input", "noise/0"} and not noise_sites(gated.guide)


def test_the_plain_network_knows_nothing_of_it():
    noisy, quiet, (x, y) = gate(0.4), gate(0.0), data()
    assert torch.equal(bp.prune(noisy)(x), bp.prune(quiet)(x))
    assert bp.evaluate(noisy, (x, y)) == bp.evaluate(quiet, (x, y))


def test_predictive_draws_it_for_every_row():
    gated, x = gate({"input": 0.4}), data()[0]
    for guide in (gated.guide, None):
        draws = Predictive(gated.model, guide=guide, num_samples=20)(x)
        assert draws["y"].shape == (20, ROWS)
        noise = factor(draws["noise/input"], 0.4)
        assert noise.shape == (20, ROWS, 3)
        assert (noise.std() - 0.4).abs() < SIGMAS * 0.4 * (0.2 / noise.numel()) ** 0.5
