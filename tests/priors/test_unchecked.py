"""Distributions check what they were asked to check, and nothing else; after ``expand`` too."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

from bayesprune.priors import FlatteningDistribution, Gates, SpikeAndSlabNormal

WRONG = {
    "gates": lambda **settings: Gates(probs=torch.tensor([[1.5]]), **settings),
    "flattening": lambda **settings: FlatteningDistribution(torch.tensor([-1.0]), **settings),
    "spike and slab": lambda **settings: SpikeAndSlabNormal(1.5, torch.zeros(1, 1), 1.0, **settings),
}
RIGHT = {
    "gates": (lambda **settings: Gates(probs=torch.tensor([[0.5]]), **settings), torch.tensor([0.5])),
    "flattening": (
        lambda **settings: FlatteningDistribution(torch.tensor([1.0]), **settings),
        torch.tensor(2.0),
    ),
    "spike and slab": (
        lambda **settings: SpikeAndSlabNormal(0.5, torch.zeros(1, 1), 1.0, **settings),
        torch.tensor([math.nan]),
    ),
}


@pytest.mark.parametrize("build", WRONG.values(), ids=WRONG)
def test_arguments_are_not_checked_where_that_was_asked_for(build):
    assert build(validate_args=False).expand((3,)).batch_shape == (3,)


@pytest.mark.parametrize("build, outside", RIGHT.values(), ids=RIGHT)
def test_values_are_checked_as_was_asked_for_after_expand_too(build, outside):
    for checked in (build(validate_args=True), build(validate_args=True).expand((3,))):
        with pytest.raises(ValueError, match=r"support|constraint"):
            checked.log_prob(outside)
    for unchecked in (build(validate_args=False), build(validate_args=False).expand((3,))):
        assert unchecked.log_prob(outside).shape == unchecked.batch_shape


@pytest.mark.parametrize("build, outside", RIGHT.values(), ids=RIGHT)
def test_expand_fills_the_instance_that_it_is_given(build, outside):
    """As torch asks of it: a subclass with arguments of its own hands in what it made."""
    distribution = build()
    given = type(distribution).__new__(type(distribution))
    assert distribution.expand((3,), given) is given and given.sample().shape[0] == 3


def test_numbers_that_are_none_pass_through_unchecked_weights():
    """A sampler may come by them; it wants a NaN, not an exception."""
    right = SpikeAndSlabNormal(0.5, torch.zeros(2), 1.0, validate_args=False)
    nowhere = SpikeAndSlabNormal(0.5, torch.full((2,), math.nan), 1.0, validate_args=False)
    never = SpikeAndSlabNormal(math.nan, torch.zeros(2), 1.0, validate_args=False)
    for score in (
        right.log_prob(torch.full((2,), math.nan)),
        nowhere.log_prob(torch.ones(2)),
        never.log_prob(torch.ones(2)),
        kl_divergence(right, nowhere),
        kl_divergence(nowhere, right),
        kl_divergence(never, right),
    ):
        assert bool(score.isnan())
