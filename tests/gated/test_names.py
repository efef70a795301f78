"""A name that no group has is refused at ``gate``, with the nearest one, wherever groups are named."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PriorError, SettingsError
from bayesprune.priors import BernoulliGates, Beta, Fixed, Flattening, NormalWeights, PerGroup, SpikeAndSlab

X, LIKELIHOOD = torch.zeros(2, 4), bp.Categorical(rows=10)
HALF = BernoulliGates(Fixed(0.5))
WRONG = BernoulliGates(Flattening({"inptu": 2.0, "*": 1.0}))
PRICED = BernoulliGates(Flattening(5.0))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


class Residual(nn.Module):
    """Runs as a graph: no group is called ``input`` there."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x).relu()
        return self.head(x + self.second(x).relu())


def gate(of=network, **settings):
    return bp.gate(of(), X, **{"prior": PRICED, "likelihood": LIKELIHOOD, **settings})


UNKNOWN = {
    "a price": {"prior": BernoulliGates(Flattening({"inptu": 2.0, "*": 5.0}))},
    "a price of spike-and-slab": {"prior": SpikeAndSlab(inclusion=Flattening({"inptu": 2.0, "*": 5.0}))},
    "a prior": {"prior": PerGroup({"inptu": HALF, "*": HALF})},
    "a price in a prior": {"prior": PerGroup({"0": WRONG, "*": HALF})},
    "an exclusion": {"exclude": ["inptu"]},
    "an inclusion": {"initial_inclusion": {"inptu": 0.5}},
    "a noise": {"unit_noise": {"inptu": 0.1}},
}  # fmt: skip


@pytest.mark.parametrize("settings", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_name_is_refused_with_the_nearest_and_those_that_there_are(settings):
    with pytest.raises((PriorError, SettingsError), match=r"names 'inptu'.*Did you mean 'input'\?.*'input'"):
        gate(**settings)


@pytest.mark.parametrize("settings", [
    {"prior": BernoulliGates(Flattening({"conv*": 2.0, "*": 5.0}))},
    {"prior": PerGroup({"conv*": HALF, "*": HALF})},
    {"exclude": ["conv*"]}, {"initial_inclusion": {"conv*": 0.5}}, {"unit_noise": {"conv*": 0.1}},
])  # fmt: skip
def test_a_pattern_that_holds_for_nothing_is_refused(settings):
    with pytest.raises((PriorError, SettingsError), match=r"names 'conv\*', and no group is called so"):
        gate(**settings)


def test_all_unknown_names_are_told_at_once():
    with pytest.raises(PriorError, match=r"names 'fc9', 'conv\*', and no group"):
        gate(prior=BernoulliGates(Flattening({"fc9": 2.0, "conv*": 1.0, "*": 5.0})))


def test_a_price_that_a_graph_has_no_group_for_is_refused():
    with pytest.raises(PriorError, match=r"names 'input'.*There are 'first', 'layers'"):
        gate(Residual, prior=BernoulliGates(Flattening({"input": 2.0, "*": 5.0})))


def test_the_catch_all_may_hold_for_nothing_and_excluded_groups_may_have_a_price():
    named = {"input": 2.0, "0": 3.0, "2": 4.0, "*": 5.0}
    gate(prior=BernoulliGates(Flattening(named)))
    for exclude in (["input"], ["inp*"]):
        gated = gate(
            prior=BernoulliGates(Flattening(named)), exclude=exclude, initial_inclusion={"input": 0.5}
        )
        assert [group.name for group in gated.groups] == ["0", "2"]
    gate(prior=BernoulliGates(Flattening({"in*": 2.0, "*": 5.0})), exclude=["input"])
    both = BernoulliGates(Flattening({"input": 3.0, "0": 2.0, "2": 1.0}))  # one table for two entries
    gate(prior=PerGroup({"input": both, "*": both}))
    gate(prior=PerGroup({"input": HALF, "*": BernoulliGates(Beta(1.0, 2.0))}), exclude=["input"])


@pytest.mark.parametrize("settings", [
    {"prior": BernoulliGates(Flattening({"*": 5.0, "inp*": 2.0}))},
    {"prior": PerGroup({"*": HALF, "inp*": HALF})},
    {"initial_inclusion": {"*": 0.5, "inp*": 0.6}},
])  # fmt: skip
def test_a_pattern_behind_one_that_takes_all_is_refused(settings):
    with pytest.raises((PriorError, SettingsError), match=r"'inp\*' comes after '\*'.*put 'inp\*' first"):
        gate(**settings)


def test_an_exact_name_holds_wherever_it_stands():
    gated = gate(prior=BernoulliGates(Flattening({"*": 5.0, "input": 2.0})))
    assert [gated.prior.price(group) for group in gated.groups] == [2.0, 5.0, 5.0]
    overlapping = BernoulliGates(Flattening({"[02]": 3.0, "[0i]*": 2.0, "*": 1.0}))
    assert [gate(prior=overlapping).prior.price(group) for group in gated.groups] == [2.0, 3.0, 3.0]


def test_the_catch_all_may_be_left_with_nothing_by_patterns_before_it():
    gated = gate(prior=BernoulliGates(Flattening({"in*": 4.0, "[02]": 3.0, "*": 1.0})))
    assert [gated.prior.price(group) for group in gated.groups] == [4.0, 3.0, 3.0]


def test_a_pattern_of_which_a_part_is_taken_holds_for_the_rest():
    gated = gate(prior=BernoulliGates(Flattening({"[0i]*": 3.0, "[02]": 2.0, "*": 1.0})))
    assert [gated.prior.price(group) for group in gated.groups] == [3.0, 3.0, 2.0]


def test_the_nearest_name_is_that_of_the_first_that_has_any():
    with pytest.raises(SettingsError, match=r"names 'zzzzzzz', 'inptu'.*Did you mean 'input'"):
        gate(exclude=["zzzzzzz", "inptu"])


def test_scales_of_parameters_that_there_are_not_are_refused():
    with pytest.raises(PriorError, match=r"scale names '4.wieght'.*Did you mean '4.weight'"):
        gate(weights=NormalWeights(scale={"4.wieght": 1.0, "*": 2.0}))
    gate(weights=NormalWeights(scale={"4.weight": 1.0, "*.bias": 3.0, "*": 2.0}))


def test_one_name_by_itself_is_that_name_and_not_its_letters():
    assert [group.name for group in gate(exclude="input").groups] == ["0", "2"]
    assert [group.name for group in bp.analyse(network(), X, exclude="0").groups] == ["input", "2"]
    by_size = {"timer": lambda layer, x: layer.weight.numel(), "rounding": 1}
    latency = bp.Price.latency(network(), X, exclude="input", **by_size)
    assert set(latency.milliseconds) == {"0", "2"}


def test_names_are_checked_outside_of_gate_too():
    with pytest.raises(PriorError, match=r"rounding names 'inptu'.*Did you mean 'input'"):
        bp.Price.latency(network(), X, rounding={"inptu": 4, "*": 8}, timer=lambda layer, x: 1.0)
    with pytest.raises(SettingsError, match=r"cut: '3' is no group.*there are 'input', '0', '2'"):
        bp.analyse(network(), X).cut({"3": torch.ones(8, dtype=torch.bool)})
    prices = {"0x": 1.0, "*": 2.0}
    rule = bp.selection.FlatteningVertex(X, torch.zeros(2).long(), likelihood=LIKELIHOOD, price=prices)
    with pytest.raises(bp.errors.SelectionError, match=r"price names '0x'.*Did you mean '0'"):
        bp.selection.select(rule, bp.selection.Subject.of(network(), X))
