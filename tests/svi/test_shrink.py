"""Which units are dead, and which the guards spare."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import EmptyGroupWarning
from bayesprune.gated.dead import _spare_, dead_units, median_units
from bayesprune.posterior.diagnose.neighbours import certainty, neighbours
from bayesprune.structure.groups import Slot
from bayesprune.svi.settings import Shrink


def gated_with(probs, exclude=("input",)):
    """Four inputs, six hidden units; only the hidden ones are gated unless asked otherwise."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    likelihood = bp.Categorical(rows=10)
    gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=likelihood, exclude=exclude)
    gated.log_odds.data = torch.logit(torch.tensor(probs))
    return gated


def _dead(gated, settings, velocity, below=None):
    """As a training looks for them; at the decision, below one half whichever way the evidence points."""
    asked = None if below is not None else velocity
    return dead_units(gated, below or settings.below, asked, settings.least)


def dead(gated, velocity, below=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmptyGroupWarning)
        return _dead(gated, Shrink(**settings), torch.tensor(velocity), below).int().tolist()


PROBS = [0.005, 0.005, 0.02, 0.3, 0.6, 0.9]
DOWN = [1.0] * 6


def test_a_unit_is_dead_below_the_threshold_where_its_evidence_points_down():
    assert dead(gated_with(PROBS), [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]) == [1, 0, 0, 0, 0, 0]
    assert dead(gated_with(PROBS), [0.0, 1e-6, 1.0, 1.0, 1.0, 1.0]) == [0, 1, 0, 0, 0, 0]  # 0 is no fall


def test_the_threshold_is_the_settings():
    assert dead(gated_with(PROBS), DOWN, below=None) == [1, 1, 0, 0, 0, 0]
    with_other = Shrink(below=0.4)
    assert _dead(gated_with(PROBS), with_other, torch.tensor(DOWN)).int().tolist() == [1, 1, 1, 1, 0, 0]


def test_at_the_decision_the_evidence_is_not_asked():
    assert dead(gated_with(PROBS), [-1.0] * 6, below=0.5) == [1, 1, 1, 1, 0, 0]


def test_units_that_are_gone_do_not_die_again():
    gated = gated_with(PROBS)
    gone = torch.zeros(6, dtype=torch.bool)
    gone[0] = True
    gated.remove_(gone)
    gated.log_odds.data[0] = -9.0
    assert dead(gated, DOWN) == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("least", [1, 3])
def test_the_most_probable_units_of_a_group_stay_whatever_the_prior_says(least):
    probs = [0.001, 0.009, 0.002, 0.008, 0.003, 0.007]
    with pytest.warns(EmptyGroupWarning, match=rf"all of its 6 units gone. Kept the {least} most probable"):
        verdict = dead_units(gated_with(probs), 0.01, torch.tensor(DOWN), least)
    best = {1: [1], 3: [1, 3, 5]}[least]
    assert verdict.int().tolist() == [int(i not in best) for i in range(6)]


def test_of_a_group_that_has_lost_units_the_best_of_those_left_stay():
    gated = gated_with([0.9, 0.001, 0.002, 0.003, 0.004, 0.005])
    gone = torch.zeros(6, dtype=torch.bool)
    gone[0] = True
    gated.remove_(gone)
    with pytest.warns(EmptyGroupWarning) as told:
        verdict = dead_units(gated, 0.01, torch.tensor(DOWN), 2)
    assert verdict.int().tolist() == [0, 1, 1, 1, 0, 0]
    assert [str(entry.message) for entry in told] == [
        "Group '0': the prior wants all of its 6 units gone. Kept the 2 most probable: a layer without units "
        "would be no network. Lower the price of '0', or list it in exclude=."
    ]


def test_exactly_at_the_threshold_a_unit_lives():
    gated = gated_with([0.5, 0.4999, 0.5001, 0.9, 0.9, 0.9])
    assert dead(gated, [-1.0] * 6, below=0.5) == [0, 1, 0, 0, 0, 0]


def test_a_group_that_keeps_just_enough_is_left_alone():
    """The one that stays is the least probable, and its evidence points up: nobody is spared beside it."""
    gated = gated_with([0.001, 0.009, 0.008, 0.007, 0.006, 0.005])
    assert dead(gated, [-1.0, *[1.0] * 5]) == [0, 1, 1, 1, 1, 1]


def test_units_that_are_gone_are_none_of_those_that_a_group_keeps():
    """Filter 0 is gone. Of the two that die, the one that is the more probable itself stays."""
    gated = flattened([0.9, 0.002, 0.003, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1], filters=3)
    gated.remove_(torch.tensor([True, *[False] * 8]))
    gated.log_odds.data[0] = 9.0
    assert spared(gated, 1) == ([0, 1, 0, 0, 0, 0, 0, 0, 0], ["0"])


def test_what_is_in_a_section_that_dies_need_not_stay():
    """Sections are optional units, and the hidden units of one that goes have no floor."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up, self.down = nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.down(self.up(x).relu()))

    prior = priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(Residual(), torch.zeros(2, 4), prior=prior, likelihood=bp.Categorical(rows=10))
    groups = {name: gated.log_odds.data[part] for name, part in gated.slices().items()}
    assert {name: len(part) for name, part in groups.items()} == {"stem": 3, "up": 5, "layers": 1}
    gated.log_odds.data.fill_(3.0)
    groups["up"].fill_(-9.0)
    verdict, told = spared(gated, 2)
    assert told == ["up"] and gated.by_group(torch.tensor(verdict))["up"].sum() == 3
    groups["layers"].fill_(-9.0)
    verdict, told = spared(gated, 2)
    assert told == [] and gated.by_group(torch.tensor(verdict))["up"].sum() == 5


def test_groups_are_guarded_one_by_one():
    gated = gated_with([0.9, 0.001, 0.001, 0.9] + [0.001] * 5 + [0.002], exclude=())
    with pytest.warns(EmptyGroupWarning) as told:
        verdict = dead_units(gated, 0.01, torch.ones(10))
    assert verdict.int().tolist() == [0, 1, 1, 0, 1, 1, 1, 1, 1, 0]
    assert len(told) == 1 and "Group '0'" in str(told[0].message)


def flattened(probs, filters=2):
    """Filters whose maps of two pixels are flattened: two features each."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv1d(1, filters, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * filters, 2))
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(network, torch.zeros(1, 1, 3), prior=prior, likelihood=bp.Categorical(rows=10))
    gated.log_odds.data = torch.logit(torch.tensor(probs))
    return gated


def test_a_filter_whose_features_all_go_is_counted_as_gone():
    """Filter 0 is alive, and nobody would read it; filter 1 is dead, and would leave nothing at all."""
    gated = flattened([0.9, 0.002, 0.001, 0.001, 0.9, 0.9])  # two filters, then their four features
    with pytest.warns(EmptyGroupWarning):
        verdict = dead_units(gated, 0.01, torch.ones(6)).bool()
    staying = {name: mask for name, mask in gated.by_group(~verdict).items()}
    assert int(staying["0"].sum()) >= 1
    gated.remove_(verdict)
    assert min(gated.kept().values()) >= 1
    assert bool(torch.isfinite(gated.network(torch.randn(3, 1, 3))).all())


def test_nothing_is_spared_where_every_filter_keeps_a_feature():
    gated = flattened([0.9, 0.9, 0.001, 0.9, 0.9, 0.001])
    assert dead(gated, [1.0] * 6) == [0, 0, 1, 0, 0, 1]


def spared(gated, least):
    """(units,) of 0 and 1, what dies, and the groups that were told of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verdict = dead_units(gated, 0.01, torch.ones(len(gated.alive)), least)
    assert all(f"Kept the {least} most probable" in str(entry.message) for entry in caught)
    return verdict.int().tolist(), sorted({str(entry.message).split("'")[1] for entry in caught})


def test_a_starving_group_gets_the_column_with_the_most_probable_owners():
    """A column lives by its filter and its feature: 0.9 · 0.001 of filter 0, 0.002 · 0.9 of filter 1.

    The first filter is alive with nobody to read it, the second one dead with two features: it is spared.
    """
    gated = flattened([0.9, 0.002, 0.001, 0.001, 0.9, 0.9])
    assert spared(gated, 1) == ([0, 0, 1, 1, 0, 0], ["0", "2"])
    gated = flattened([0.9, 0.002, 0.0021, 0.001, 0.9, 0.9])
    assert spared(gated, 1) == ([0, 1, 0, 1, 0, 0], ["0", "2"])


def test_as_many_units_are_spared_as_a_group_must_keep_and_each_of_them_once():
    """Both columns of filter 1 come before those of filter 2, and are one unit."""
    gated = flattened([0.9, 0.003, 0.002, 0.0001, 0.0001, 0.9, 0.8, 0.7, 0.6], filters=3)
    assert spared(gated, 2) == ([0, 0, 0, 1, 1, 0, 0, 0, 0], ["0"])
    assert spared(gated, 1) == ([0, 0, 1, 1, 1, 0, 0, 0, 0], ["0", "2"])


def test_with_a_filter_its_best_feature_is_spared():
    """Filter 0 alone is alive, and filter 2 has the only features: of both groups two units must stay."""
    gated = flattened([0.9, 0.001, 0.002, 0.004, 0.005, 0.003, 0.002, 0.9, 0.9], filters=3)
    verdict, told = spared(gated, 2)
    assert told == ["0"]
    assert verdict == [0, 1, 0, 1, 0, 1, 1, 0, 0]


def slot(group, ids, tensor="out", reads=True):
    return Slot(tensor, 1, group, torch.tensor(ids), reads)


def spare(slots, probs, group, least):
    """Of two groups, 'a' with three units and 'b' with two, all dead: which `_spare_` lets live."""
    gated = SimpleNamespace(
        network=SimpleNamespace(slots=slots), slices=lambda: {"a": slice(0, 3), "b": slice(3, 5)}
    )
    dead = torch.ones(5, dtype=torch.bool)
    _spare_(gated, dead, torch.tensor(probs), group, least)
    return (~dead).int().tolist()


@pytest.mark.parametrize(
    ("group", "least", "expected"),
    [
        ("a", 1, [1, 0, 0, 0, 1]),  # column 3, of a's 0 and b's 1: 0.5 · 0.8
        ("a", 2, [1, 1, 0, 0, 1]),  # and column 2, of a's 1 alone: 0.3
        ("a", 3, [1, 1, 1, 1, 1]),  # and column 4, of a's 2 and b's 0
        ("b", 1, [0, 0, 0, 0, 1]),  # column 0, of b's 1 alone: 0.8
        ("b", 2, [0, 0, 1, 1, 1]),
    ],
)
def test_columns_that_belong_to_nobody_of_a_group_count_as_open_and_spare_nobody_of_it(
    group, least, expected
):
    slots = (
        slot("a", [0, 1, 2], "made", reads=False),
        slot("b", [0, 1, 0, 1, 0], "elsewhere"),
        slot("b", [1, -1, -1, 1, 0]),
        slot("a", [-1, -1, 1, 0, 2]),
    )
    if group == "b":
        slots = (slots[0], *slots[2:], slots[1])
    assert spare(slots, [0.5, 0.3, 0.2, 0.1, 0.8], group, least) == expected


def test_of_columns_that_are_alike_the_first_ones_are_spared():
    """Of twenty: fewer are sorted as they stand in any case."""
    gated = SimpleNamespace(
        network=SimpleNamespace(slots=(slot("a", list(range(20))),)), slices=lambda: {"a": slice(0, 20)}
    )
    dead = torch.ones(20, dtype=torch.bool)
    _spare_(gated, dead, torch.tensor([0.3, 0.2] * 10), "a", 4)
    assert (~dead).nonzero().flatten().tolist() == [0, 2, 4, 6]


UNDECIDED = {
    "all below one half": [0.27, 0.3, 0.1, 0.2, 0.2, 0.25],
    "at one half": [0.5, 0.5, 0.4, 0.2, 0.9, 0.25],
    "decided": [0.0, 1.0, 1.0, 0.0, 0.0, 1.0],
}


@pytest.mark.parametrize("probs", UNDECIDED.values(), ids=UNDECIDED)
def test_what_is_said_of_the_hard_mask_is_said_of_the_pruned_network(probs):
    """Where gates are undecided, scores were of another mask: one without the units that prune spares."""
    gated = gated_with(probs)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(10, 4, generator=generator), torch.randint(2, (10,), generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        small = bp.prune(gated)
    expected = bp.evaluate(small, rows, gated.likelihood)
    kept = median_units(gated)
    assert int(kept.sum()) == small[0].out_features >= 1
    quality = bp.evaluate(gated, rows)
    assert (quality.score, quality.nll) == pytest.approx((expected.score, expected.nll), rel=1e-5)
    draws = bp.Posterior.of(bp.FitResult(gated, (), 0.0, rounded=0, decided_at=None)).to_arviz(4, rows=rows)
    assert float(draws.posterior_predictive["hard_score"][0]) == pytest.approx(expected.score)
    chances = torch.from_numpy(draws.posterior_predictive["hard_mean"].values[0].copy())
    torch.testing.assert_close(chances, small(rows[0]).softmax(1).detach(), check_dtype=False)
    hard, _ = neighbours(gated)
    assert torch.equal(hard.bool(), kept)
    theta = gated.inclusion_prob().detach()
    assert certainty(gated) == pytest.approx(float(torch.where(kept, theta, 1 - theta).prod()), rel=1e-5)
    exact = bp.evidence(gated, rows, others="hard", units=6, draws=2).exact
    for unit in range(6):  # what the rows' nats change by if this one gate of the mask is turned
        off, on = (nats(gated, rows, kept.float().index_fill(0, torch.tensor([unit]), z)) for z in (0.0, 1.0))
        assert exact[unit] == pytest.approx(off - on, abs=1e-3)


@torch.no_grad()
def nats(gated, rows, mask):
    return float(gated.likelihood.nll(gated.network(rows[0], {"0": mask}), rows[1]).sum())
