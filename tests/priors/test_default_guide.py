"""The default guide: Normals in unconstrained space, for the hyper-sites of a prior that has no guide."""

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.priors.default_guide import DefaultGuide
from bayesprune.structure.groups import Group

GROUPS = [Group("body.fc1", size=3), Group("fc2", size=2)]
OWN = priors.BernoulliGates(priors.Beta(1.0, 1.0))


def rate_and_tilt(group):
    """A rate in the unit interval and a vector; and a point and a factor, which are no hyper-sites."""
    rate = pyro.sample(f"rate/{group.name}", dist.Beta(200.0, 600.0))
    tilt = pyro.sample(f"tilt/{group.name}", dist.Normal(torch.arange(float(group.size)), 0.01).to_event(1))
    pyro.sample(f"point/{group.name}", dist.Delta(torch.tensor(0.5)))
    pyro.factor(f"factor/{group.name}", tilt.sum())
    return priors.Gates(logits=torch.logit(rate) + tilt)


def guide_of(prior, dtype=torch.float):
    torch.manual_seed(0)
    return DefaultGuide(prior, GROUPS, dtype=dtype)


def test_it_has_a_normal_for_each_hyper_site_where_the_prior_is():
    guide = guide_of(rate_and_tilt, torch.double)
    assert set(guide.loc) == set(guide.log_scale) == {
        "rate/body|fc1", "tilt/body|fc1", "rate/fc2", "tilt/fc2"
    }  # fmt: skip
    assert guide.loc["rate/fc2"].item() == pytest.approx(math.log(200 / 600), abs=0.1)
    torch.testing.assert_close(guide.loc["tilt/body|fc1"].data, torch.arange(3).double(), atol=0.01, rtol=0.0)
    for scale in guide.log_scale.values():
        assert scale.dtype == torch.double and bool((scale == -2.0).all())
    assert guide.log_scale["tilt/fc2"].shape == (2,)


def test_its_draws_have_the_density_of_a_normal_carried_onto_the_support():
    guide = guide_of(rate_and_tilt, torch.double)
    trace = poutine.trace(guide).get_trace(GROUPS[0])
    values = trace.nodes["_RETURN"]["value"]
    assert values.keys() == {"rate/body.fc1", "tilt/body.fc1"}
    rate, tilt = values["rate/body.fc1"], values["tilt/body.fc1"]
    assert 0 < rate.item() < 1 and tilt.shape == (3,)
    loc = guide.loc["rate/body|fc1"]
    expected = dist.Normal(loc, math.exp(-2)).log_prob(torch.logit(rate)) - torch.log(rate * (1 - rate))
    torch.testing.assert_close(trace.nodes["rate/body.fc1"]["fn"].log_prob(rate), expected)
    expected = dist.Normal(guide.loc["tilt/body|fc1"], math.exp(-2)).log_prob(tilt).sum()
    torch.testing.assert_close(trace.nodes["tilt/body.fc1"]["fn"].log_prob(tilt), expected)


def test_it_is_empty_for_groups_whose_prior_has_a_guide():
    guide = guide_of(priors.PerGroup({"fc2": OWN, "*": rate_and_tilt}))
    assert set(guide.loc) == {"rate/body|fc1", "tilt/body|fc1"}
    first = guide_of(priors.PerGroup({"body*": OWN, "*": rate_and_tilt}))
    assert set(first.loc) == {"rate/fc2", "tilt/fc2"}
    assert guide(GROUPS[1]) == {} and guide(GROUPS[0]).keys() == {"rate/body.fc1", "tilt/body.fc1"}


def test_groups_without_hyper_sites_have_none():
    guide = guide_of(lambda group: dist.Bernoulli(torch.full((group.size,), 0.5)).to_event(1))
    assert guide(GROUPS[0]) == {} and not list(guide.parameters())


def discrete(group):
    return priors.Gates(probs=1 / (2 + pyro.sample("which", dist.Poisson(2.0)).expand(group.size)))


def broken(group):
    return group.width


MESSAGES = {
    "discrete": (
        discrete,
        "Hyper-site 'which' of the prior is discrete (Poisson), and has no finite list of values to sum "
        "over: take one that has (Categorical, Bernoulli, Binomial), make it continuous, or give the prior a "
        "method guide(group, inclusion_prob) that samples it from a distribution without anything to learn.",
    ),
    "broken": (
        broken,
        "The prior fails for group 'body.fc1': AttributeError: 'Group' object has no attribute 'width'. It "
        "is called with the group, and returns a distribution over its gates.",
    ),
    "the library's own": (priors.PerGroup({"fc3": OWN}).of, "No prior for 'body.fc1'"),
}


@pytest.mark.parametrize("prior, message", MESSAGES.values(), ids=MESSAGES)
def test_what_is_no_prior_is_named(prior, message):
    end = "$" if message.endswith(".") else ""
    with pytest.raises(PriorError, match=f"^{re.escape(message)}{end}"):
        guide_of(prior)


def test_what_is_not_implemented_says_so_itself():
    def unfinished(group):
        raise NotImplementedError("some day")

    with pytest.raises(NotImplementedError, match="some day"):
        guide_of(unfinished)
