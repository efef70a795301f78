"""The plain network that is handed out, and what taking it does to the network under gates: nothing."""

import copy

import pytest
import torch

from bayesprune.structure.graph import PlainGraph, analyse
from tests.structure.graph.checks import drawn_alive
from tests.structure.graph.networks import CASES

NORMED = ["PlainChain", "ResidualProjection", "split_by_sizes"]


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("handed_over", [False, True])
def test_statistics_stay_what_they_were(name, handed_over):
    """Own class and graph are compared in training too, which moves running means."""
    case = CASES[name]
    analysis = analyse(case.network(), case.batch(2))
    analysis.cut_(drawn_alive(analysis, 1))
    before = copy.deepcopy(analysis.gated.network.state_dict())
    small = analysis.gated.plain(handed_over)
    assert isinstance(small, PlainGraph) != case.in_place
    assert any(key.endswith("running_mean") for key in before)
    for state in (small.state_dict(), analysis.gated.network.state_dict()):
        assert all(torch.equal(state[key], value) for key, value in before.items())
