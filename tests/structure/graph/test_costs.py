"""Expected parameters and multiply-accumulates of networks of any form: counted, enumerated."""

import itertools

import pytest
import torch
from torch import nn

from bayesprune.structure import ExpectedCost
from bayesprune.structure.graph import analyse
from bayesprune.structure.groups import close_over
from tests.nightly import one_in
from tests.structure.graph.checks import drawn_alive
from tests.structure.graph.networks import CASES


def vertex(alive):
    return {name: mask.double() for name, mask in alive.items()}


def expected(network, probs):
    cost = ExpectedCost(network)(probs)
    return float(cost.parameters), float(cost.macs)


@pytest.mark.parametrize("name", one_in(3, CASES))
def test_expected_cost_at_a_mask_is_the_cost_of_the_network_that_is_left(name):
    case = CASES[name]
    analysis = analyse(case.network(), case.batch(2))
    network = analysis.gated
    whole = {group.name: torch.ones(group.size).double() for group in analysis.groups}
    assert expected(network, whole) == pytest.approx((network.parameter_count(), network.macs()), abs=1e-6)
    alive = close_over(network.slots, drawn_alive(analysis, 3))
    before = expected(network, vertex(alive))
    analysis.cut_(alive)
    counted = network.parameter_count(), network.macs()
    assert before == pytest.approx(counted, abs=1e-6)
    assert expected(network, whole) == pytest.approx(counted, abs=1e-6)  # the dead do not count any more


class Small(nn.Module):
    """Ten gates: a stream of four, a hidden layer of four, a norm, and a section beside each shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.up, self.down = (
            nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False),
        )  # fmt: skip
        self.side, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.head(x + self.side(x).tanh())


def test_expected_cost_is_the_average_over_all_masks():
    network = analyse(Small(), torch.randn(2, 3)).gated
    sizes = {group.name: group.size for group in network.groups}
    assert sizes == {"stem": 4, "up": 4, "layers": 2}
    generator = torch.Generator().manual_seed(0)
    probs = {name: torch.rand(size, generator=generator).double() for name, size in sizes.items()}
    cost, totals = ExpectedCost(network), torch.zeros(2).double()
    flat = torch.cat(list(probs.values()))
    for bits in itertools.product([0.0, 1.0], repeat=10):
        mask = torch.tensor(bits).double()
        weight = torch.where(mask > 0, flat, 1 - flat).prod()
        stem, up, layers = mask[:4].sum(), mask[4:8].sum(), mask[8:]
        inside = stem * 2 + up * (stem + 1) + up * stem  # norm; up and its bias; down
        parameters = stem * 4 + layers[0] * inside + layers[1] * (stem * stem + stem) + stem * 2 + 2
        macs = stem * 3 + layers[0] * 2 * up * stem + layers[1] * stem * stem + stem * 2
        totals += weight * torch.stack([parameters, macs])
        at_mask = cost(dict(zip(sizes, mask.split(list(sizes.values())), strict=True)))
        assert (at_mask.parameters, at_mask.macs) == (parameters, macs)
    average = cost(probs)
    assert torch.allclose(torch.stack([average.parameters, average.macs]), totals, rtol=1e-12)


def test_units_know_what_they_cost():
    stem, up, layers = analyse(Small(), torch.randn(2, 3)).groups
    assert (stem.parameters, stem.macs) == (4 + 2 + 4 + 4 + 7 + 1 + 2, 3 + 8 + 7 + 2)
    assert (up.parameters, up.macs) == (4 + 1 + 4, 8)
    assert layers.parameters == round((8 + 20 + 16 + 20) / 2)
    assert (layers.macs, layers.optional) == ((32 + 16) // 2, True)
