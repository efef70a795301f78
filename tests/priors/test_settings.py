"""Settings of the priors: tables by name, numbers out of range, and what the rules give."""

import math

import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.priors.naming import by_name
from bayesprune.structure.groups import Group

GROUP = Group("fc1", size=300, fan_in=784)


@pytest.mark.parametrize(
    "price", [0, -1.0, math.nan, math.inf, "12", None, True, {}, {"conv1": 3.0, "fc1": -2.0}]
)
def test_flattening_refuses_what_is_no_price(price):
    with pytest.raises(PriorError, match="positive finite number of nats"):
        priors.Flattening(price=price)


def test_flattening_names_the_price_that_is_wrong():
    with pytest.raises(PriorError, match=r"'fc1': -2\.0"):
        priors.Flattening(price={"conv1": 3.0, "fc1": -2.0})


def test_flattening_names_the_group_without_a_price():
    with pytest.raises(PriorError, match=r"No price for 'fc1'.*'conv\*'"):
        priors.Flattening(price={"conv*": 3.0}).price(GROUP)


def test_exact_names_come_before_patterns_and_patterns_in_order():
    table = {"*": 1, "conv*": 2, "conv1": 3}
    assert by_name(table, "conv1", "price") == 3
    assert by_name(table, "conv2", "price") == 1
    assert by_name({"conv*": 2, "*": 1}, "conv2", "price") == 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: priors.Beta(0.0, 1.0),
        lambda: priors.Beta(1.0, math.nan),
        lambda: priors.Beta.from_expected_kept(-3),
        lambda: priors.Beta.from_expected_kept(3, concentration=0),
        lambda: priors.Beta.from_expected_kept(300).counts(GROUP),
        lambda: priors.Fixed(0.0),
        lambda: priors.Fixed(1.0),
        lambda: priors.Fixed(math.nan),
        lambda: priors.LayerAdaptive(strength=0.0),
        lambda: priors.LayerAdaptive(strength=math.nan),
        lambda: priors.LayerAdaptive(floor=1.0),
        lambda: priors.BernoulliGates(12.0),
        lambda: priors.SpikeAndSlab(slab_scale=-1.0),
        lambda: priors.PerGroup({}),
        lambda: priors.PerGroup({"a": priors.SpikeAndSlab(), "*": priors.BernoulliGates(priors.Fixed(0.5))}),
        lambda: priors.NormalWeights(scale=0.0),
        lambda: priors.NormalWeights(scale={}),
        lambda: priors.NormalWeights(scale={"*": math.inf}),
        lambda: priors.NormalWeights(posterior="laplace"),
        lambda: priors.NormalWeights(initial_scale=-1.0),
    ],
)
def test_settings_out_of_range_are_refused(build):
    with pytest.raises(PriorError):
        build()


@pytest.mark.parametrize("size", [31, 300, 5000])
def test_beta_from_expected_kept_expects_so_many_units(size):
    group = Group("fc1", size=size)
    a, b = priors.Beta.from_expected_kept(30).counts(group)
    assert size * a / (a + b) == pytest.approx(30) and a + b == pytest.approx(10)


def test_layer_adaptive_follows_its_formula_down_to_the_floor():
    assert priors.LayerAdaptive(strength=0.01).log_rate(GROUP) == pytest.approx(-math.log(300) - 7.85)
    assert priors.LayerAdaptive(strength=10.0).log_rate(GROUP) == pytest.approx(math.log(1e-50))
    assert priors.LayerAdaptive().log_rate(Group("x", size=1, fan_in=1)) < 0
    gates = priors.BernoulliGates(priors.LayerAdaptive(strength=10.0))(GROUP)
    torch.testing.assert_close(gates.logits, torch.full((300,), math.log(1e-50)))


def test_spike_and_slab_brings_masked_gaussian_weights():
    weights = priors.SpikeAndSlab(slab_scale=0.5).weights
    assert (weights.scale, weights.posterior, weights.masked) == (0.5, "normal", True)


def test_weights_find_their_scale_by_name():
    weights = priors.NormalWeights(scale={"*.bias": 10.0, "*": 0.5})
    assert (weights.scale_of("fc1.bias"), weights.scale_of("fc1.weight")) == (10.0, 0.5)
    assert priors.NormalWeights(scale=2.0).scale_of("fc1.weight") == 2.0
    with pytest.raises(PriorError, match=r"No scale for 'fc1\.weight'"):
        priors.NormalWeights(scale={"*.bias": 10.0}).scale_of("fc1.weight")


def plain(group):
    """A user's prior: a function, nothing more."""
    rate = dist.Uniform(0.0, 1.0).sample()
    return priors.Gates(probs=rate.expand(group.size))


def test_per_group_dispatches_and_forwards():
    beta, slab = priors.BernoulliGates(priors.Beta(1.0, 1.0)), priors.BernoulliGates(priors.Flattening(5.0))
    prior = priors.PerGroup({"conv*": beta, "*": slab})
    conv, theta = Group("conv1", size=3), torch.tensor([0.1, 0.5, 1.0])
    assert prior.of(conv) is beta and prior.of(GROUP) is slab
    assert "rate/conv1" in poutine.trace(prior).get_trace(conv).nodes
    assert "rate/conv1" in poutine.trace(prior.guide).get_trace(conv, theta).nodes
    assert prior.penalty(conv, theta) == beta.penalty(conv, theta)
    assert prior.price(GROUP) == 5.0 and prior.weights is None


def test_per_group_agrees_on_the_weights_of_its_members():
    prior = priors.PerGroup(
        {"conv*": priors.SpikeAndSlab(), "*": priors.SpikeAndSlab(inclusion=priors.Fixed(0.5))}
    )
    assert prior.weights == priors.SpikeAndSlab().weights


def test_per_group_says_what_a_plain_program_lacks():
    prior = priors.PerGroup({"*": plain})
    assert prior(GROUP).event_shape == (300,) and math.isnan(prior.price(GROUP))
    assert priors.closed_form(prior, GROUP) is None and priors.closed_form(plain, GROUP) is None
    for method in (prior.guide, prior.penalty):
        with pytest.raises(PriorError, match=r"'fc1'.*no guide and penalty"):
            method(GROUP, torch.zeros(300))
    with pytest.raises(PriorError, match="No prior for 'fc1'"):
        priors.PerGroup({"conv*": plain})(GROUP)


def test_priors_are_printed_readably():
    assert repr(priors.BernoulliGates(priors.Fixed(0.5))) == "BernoulliGates(Fixed(p=0.5))"
    assert "conv*" in repr(priors.PerGroup({"conv*": priors.SpikeAndSlab()}))
