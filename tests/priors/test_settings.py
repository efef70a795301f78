"""Settings of the priors: tables by name, numbers out of range, and what the rules give."""

import math
import re

import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.priors.naming import by_name, check_tables
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
        lambda: priors.LayerAdaptive(strength=math.inf),
        lambda: priors.LayerAdaptive(floor=1.0),
        lambda: priors.LayerAdaptive(floor=0.0),
        lambda: priors.BernoulliGates(12.0),
        lambda: priors.SpikeAndSlab(slab_scale=-1.0),
        lambda: priors.NormalWeights(masked="ends"),
        lambda: priors.NormalWeights(relevance=True),
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


MIXED = {"a": priors.SpikeAndSlab(), "*": priors.BernoulliGates(priors.Fixed(0.5))}
MESSAGES = {
    "Flattening": (
        lambda: priors.Flattening({"a": -1.0, "b": math.nan, "c": 3.0}),
        "A price is a positive finite number of nats, and got 'a': -1.0, 'b': nan: raise it, or list the "
        "group in exclude= to keep all of its units.",
    ),
    "Flattening of nothing": (
        lambda: priors.Flattening({}),
        "A price is a positive finite number of nats, and got no price: raise it, or list the group in "
        "exclude= to keep all of its units.",
    ),
    "Beta": (
        lambda: priors.Beta(1.0, 0.0),
        "Beta needs two positive finite counts, and got a=1.0, b=0.0.",
    ),
    "Beta of expected units": (
        lambda: priors.Beta.from_expected_kept(-3, concentration=2.0),
        "from_expected_kept needs positive finite numbers, and got kept=-3, concentration=2.0.",
    ),
    "as many as there are": (
        lambda: priors.Beta.from_expected_kept(300).counts(GROUP),
        "Group 'fc1' has 300 units, so a prior that expects to keep 300 of them is impossible: expect fewer, "
        "or give this group a prior of its own with PerGroup.",
    ),
    "Fixed": (
        lambda: priors.Fixed(1.0),
        "Fixed needs a probability strictly between 0 and 1, and got p=1.0.",
    ),
    "LayerAdaptive's strength": (
        lambda: priors.LayerAdaptive(strength=math.inf),
        "LayerAdaptive needs a positive finite strength, and got inf.",
    ),
    "LayerAdaptive's floor": (
        lambda: priors.LayerAdaptive(floor=0.0),
        "LayerAdaptive needs a floor strictly between 0 and 1, and got 0.0.",
    ),
    "BernoulliGates": (
        lambda: priors.BernoulliGates(12.0),
        "BernoulliGates needs a hyper-prior, and 12.0 has no logits, guide, penalty, price: use "
        "Flattening(price=...), Beta(a, b), Fixed(p) or LayerAdaptive().",
    ),
    "PerGroup of nothing": (
        lambda: priors.PerGroup({}),
        "PerGroup needs at least one prior: add a catch-all '*'.",
    ),
    "PerGroup of two weights": (
        lambda: priors.PerGroup(MIXED),
        "PerGroup has members that disagree on the prior of the weights (SpikeAndSlab has its own): use "
        "SpikeAndSlab with one slab_scale for all, or for none and give gate() weights=...",
    ),
    "PerGroup of a plain program": (
        lambda: priors.PerGroup({"*": math.sqrt}).penalty(GROUP, torch.zeros(300)),
        "The prior of group 'fc1', <built-in function sqrt>, has no guide and penalty: give it both methods, "
        "or fit through Pyro's ELBO with a guide for its sites.",
    ),
    "NormalWeights": (
        lambda: priors.NormalWeights(scale={"a": -1.0, "b": 1.0}, initial_scale=0.0),
        "NormalWeights needs positive finite scales, and got a=-1.0, initial_scale=0.0.",
    ),
    "NormalWeights of one scale": (
        lambda: priors.NormalWeights(scale=0.0),
        "NormalWeights needs positive finite scales, and got scale=0.0.",
    ),
    "NormalWeights of nothing": (
        lambda: priors.NormalWeights(scale={}),
        "NormalWeights needs positive finite scales, and got no scale.",
    ),
    "NormalWeights' posterior": (
        lambda: priors.NormalWeights(posterior="laplace"),
        "NormalWeights has posterior 'delta' or 'normal', and got 'laplace'.",
    ),
    "a parameter without a scale": (
        lambda: priors.NormalWeights(scale={"*.bias": 10.0}).scale_of("fc1.weight"),
        "No scale for 'fc1.weight': the table has '*.bias'. Add 'fc1.weight', or a catch-all '*'.",
    ),
    "a scale without a parameter": (
        lambda: priors.NormalWeights(scale={"fc2.bias": 10.0}).check_names(["fc1.bias"]),
        "scale names 'fc2.bias', and no parameter is called so. Did you mean 'fc1.bias'? There are "
        "'fc1.bias'.",
    ),
    "a scale that never holds": (
        lambda: priors.NormalWeights(scale={"*": 1.0, "fc*": 2.0}).check_names(["fc1.bias"]),
        "scale: 'fc*' comes after '*', which takes all that it stands for. Patterns are tried in order: put "
        "'fc*' first.",
    ),
    "a group without a prior": (
        lambda: by_name({"conv*": 1, "head": 2}, "fc1", "prior"),
        "No prior for 'fc1': the table has 'conv*', 'head'. Add 'fc1', or a catch-all '*'.",
    ),
    "an empty table": (
        lambda: by_name({}, "fc1", "price"),
        "No price for 'fc1': the table has nothing. Add 'fc1', or a catch-all '*'.",
    ),
    "a price without a group": (
        lambda: check_tables(priors.BernoulliGates(priors.Flattening({"fc7": 3.0, "*": 1.0})), [GROUP]),
        "the table of prices names 'fc7', and no group is called so. Did you mean 'fc1'? There are 'fc1'.",
    ),
    "a price that never holds": (
        lambda: check_tables(priors.BernoulliGates(priors.Flattening({"*": 3.0, "fc*": 1.0})), [GROUP]),
        "the table of prices: 'fc*' comes after '*', which takes all that it stands for. Patterns are tried "
        "in order: put 'fc*' first.",
    ),
    "a prior without a group": (
        lambda: check_tables(
            priors.PerGroup({"fc7": priors.SpikeAndSlab(), "*": priors.SpikeAndSlab()}), [GROUP]
        ),
        "PerGroup names 'fc7', and no group is called so. Did you mean 'fc1'? There are 'fc1'.",
    ),
    "a member's price without a group": (
        lambda: check_tables(
            priors.PerGroup({"*": priors.BernoulliGates(priors.Flattening({"fc7": 3.0}))}), [GROUP]
        ),
        "the table of prices names 'fc7', and no group is called so. Did you mean 'fc1'? There are 'fc1'.",
    ),
    "probabilities of another group": (
        lambda: priors.Fixed(0.5).penalty(GROUP, torch.zeros(2)),
        "Group 'fc1' has 300 units, and got inclusion probabilities of shape (2,): pass one for each "
        "original unit, 0 for removed ones.",
    ),
}


@pytest.mark.parametrize("build, message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_names_place_value_and_remedy(build, message):
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        build()


def test_tables_may_name_groups_that_are_left_whole():
    table = priors.Flattening({"fc7": 3.0, "*": 1.0})
    check_tables(priors.BernoulliGates(table), [GROUP], exclude=["fc7"])
    check_tables(
        priors.PerGroup({"fc7": priors.SpikeAndSlab(), "*": priors.SpikeAndSlab()}), [GROUP], ["fc*"]
    )


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
    assert priors.SpikeAndSlab().weights.scale == 1.0
    assert priors.SpikeAndSlab().hyper == priors.LayerAdaptive()
    assert priors.SpikeAndSlab(inclusion=priors.Fixed(0.25)).hyper == priors.Fixed(0.25)


def test_weights_find_their_scale_by_name():
    weights = priors.NormalWeights(scale={"*.bias": 10.0, "*": 0.5})
    assert (weights.scale_of("fc1.bias"), weights.scale_of("fc1.weight")) == (10.0, 0.5)
    assert priors.NormalWeights(scale=2.0).scale_of("fc1.weight") == 2.0
    with pytest.raises(PriorError, match=r"No scale for 'fc1\.weight'"):
        priors.NormalWeights(scale={"*.bias": 10.0}).scale_of("fc1.weight")


def test_weights_are_scaled_and_stay_what_they_were_else():
    by_name, one = (
        priors.NormalWeights({"a": 1.5, "*": 0.5}, masked=True),
        priors.NormalWeights(2.0, "normal"),
    )
    assert by_name.scaled(4.0) == priors.NormalWeights({"a": 6.0, "*": 2.0}, masked=True)
    assert one.scaled(4.0) == priors.NormalWeights(8.0, "normal")


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


def test_per_group_holds_the_parameters_of_its_members():
    member = torch.nn.Linear(1, 1)
    held = dict(priors.PerGroup({"a": priors.SpikeAndSlab, "*": member}).named_parameters())
    assert held["members.0.weight"] is member.weight and len(held) == 2


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
    assert repr(priors.Flattening(3.0)) == "Flattening(price=3.0)"
    assert repr(priors.Flattening({"a": 3.0, "*": 2.0})) == "Flattening(price={'a': 3.0, '*': 2.0})"
    member = priors.BernoulliGates(priors.Beta(1.0, 2.0))
    assert repr(priors.PerGroup({"a": member})) == "PerGroup({'a': BernoulliGates(Beta(a=1.0, b=2.0))})"
