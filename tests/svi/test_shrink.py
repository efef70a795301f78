"""Which units are dead, and which the guards spare."""

import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import EmptyGroupWarning
from bayesprune.svi.settings import Shrink
from bayesprune.svi.shrink import dead_units


def gated_with(probs, exclude=("input",)):
    """Four inputs, six hidden units; only the hidden ones are gated unless asked otherwise."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    likelihood = bp.Categorical(rows=10)
    gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=likelihood, exclude=exclude)
    gated.log_odds.data = torch.logit(torch.tensor(probs))
    return gated


def dead(gated, velocity, below=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmptyGroupWarning)
        return dead_units(gated, Shrink(**settings), torch.tensor(velocity), below).int().tolist()


PROBS = [0.005, 0.005, 0.02, 0.3, 0.6, 0.9]
DOWN = [1.0] * 6


def test_a_unit_is_dead_below_the_threshold_where_its_evidence_points_down():
    assert dead(gated_with(PROBS), [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]) == [1, 0, 0, 0, 0, 0]
    assert dead(gated_with(PROBS), [0.0, 1e-6, 1.0, 1.0, 1.0, 1.0]) == [0, 1, 0, 0, 0, 0]  # 0 is no fall


def test_the_threshold_is_the_settings():
    assert dead(gated_with(PROBS), DOWN, below=None) == [1, 1, 0, 0, 0, 0]
    with_other = Shrink(below=0.4)
    assert dead_units(gated_with(PROBS), with_other, torch.tensor(DOWN)).int().tolist() == [1, 1, 1, 1, 0, 0]


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
        verdict = dead_units(gated_with(probs), Shrink(least=least), torch.tensor(DOWN))
    best = {1: [1], 3: [1, 3, 5]}[least]
    assert verdict.int().tolist() == [int(i not in best) for i in range(6)]


def test_of_a_group_that_has_lost_units_the_best_of_those_left_stay():
    gated = gated_with([0.9, 0.001, 0.002, 0.003, 0.004, 0.005])
    gone = torch.zeros(6, dtype=torch.bool)
    gone[0] = True
    gated.remove_(gone)
    with pytest.warns(EmptyGroupWarning, match="Group '0'"):
        verdict = dead_units(gated, Shrink(least=2), torch.tensor(DOWN))
    assert verdict.int().tolist() == [0, 1, 1, 1, 0, 0]


def test_groups_are_guarded_one_by_one():
    gated = gated_with([0.9, 0.001, 0.001, 0.9] + [0.001] * 5 + [0.002], exclude=())
    with pytest.warns(EmptyGroupWarning) as told:
        verdict = dead_units(gated, Shrink(), torch.ones(10))
    assert verdict.int().tolist() == [0, 1, 1, 0, 1, 1, 1, 1, 1, 0]
    assert len(told) == 1 and "Group '0'" in str(told[0].message)


def filters(probs):
    """Two filters whose maps of two pixels are flattened: four features."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(network, torch.zeros(1, 1, 3), prior=prior, likelihood=bp.Categorical(rows=10))
    gated.log_odds.data = torch.logit(torch.tensor(probs))
    return gated


def test_a_filter_whose_features_all_go_is_counted_as_gone():
    """Filter 0 is alive, and nobody would read it; filter 1 is dead, and would leave nothing at all."""
    gated = filters([0.9, 0.002, 0.001, 0.001, 0.9, 0.9])  # two filters, then their four features
    with pytest.warns(EmptyGroupWarning):
        verdict = dead_units(gated, Shrink(), torch.ones(6)).bool()
    staying = {name: mask for name, mask in gated.by_group(~verdict).items()}
    assert int(staying["0"].sum()) >= 1
    gated.remove_(verdict)
    assert min(gated.kept().values()) >= 1
    assert bool(torch.isfinite(gated.network(torch.randn(3, 1, 3))).all())


def test_nothing_is_spared_where_every_filter_keeps_a_feature():
    gated = filters([0.9, 0.9, 0.001, 0.9, 0.9, 0.001])
    assert dead(gated, [1.0] * 6) == [0, 0, 1, 0, 0, 1]
