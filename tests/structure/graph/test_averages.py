"""Batch normalisation with ``momentum=None``: plain averages over all batches, and the count of them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph import analyse
from tests.structure.graph.test_rules import exact, sizes


class Copied(nn.BatchNorm1d):
    """PyTorch's forward written out, as layers with an activation inside have it."""

    def forward(self, x):
        share = 0.0 if self.momentum is None else self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        running = (self.running_mean, self.running_var)
        return F.batch_norm(x, *running, self.weight, self.bias, self.training, share, self.eps).relu()


class Averaged(nn.Module):
    """One of its norms is used twice; with ``over`` the graph has symbols for sizes."""

    def __init__(self, kind=nn.BatchNorm1d, over=False):
        super().__init__()
        self.first, self.norm, self.inner = nn.Linear(4, 6), kind(6, momentum=None), nn.BatchNorm1d(5)
        self.second, self.third, self.head = nn.Linear(6, 5), nn.Linear(5, 6), nn.Linear(6, 2)
        self.over = over

    def forward(self, x):  # (rows, time, 4)
        x = x.sum(1) / x.shape[1] if self.over else x.mean(1)
        x = self.norm(self.first(x))
        return self.head(x + self.norm(self.third(self.inner(self.second(x)).tanh())))


def batches(count):
    generator = torch.Generator().manual_seed(3)
    return [2 * torch.randn(6, 3, 4, generator=generator, dtype=torch.float64) + 1 for _ in range(count)]


def learn_(network, count=4):
    optimiser = torch.optim.SGD(network.parameters(), 0.01)
    network.train()
    for x in batches(count):
        optimiser.zero_grad()
        network(x).square().sum().backward()
        optimiser.step()


def assert_same_state(first, second):
    expected = second.state_dict()
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("over", [False, True], ids=["recorded", "exported"])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, Copied])
def test_layers_that_average_over_batches_are_cut_exactly(kind, over):
    analysis = exact(Averaged(kind, over), *batches(1))
    assert sizes(analysis) | {"layers": 1} == {"first": 6, "second": 5, "layers": 1}


def test_statistics_and_counts_move_as_those_of_the_network_do(tmp_path):
    network = Averaged().double()
    learn_(network, 1)  # it has seen a batch
    gated = analyse(network, batches(1)[0]).gated
    own = copy.deepcopy(network)
    learn_(own)
    learn_(gated)
    assert_same_state(gated.network, own)
    assert network.norm.num_batches_tracked == 2 and own.norm.num_batches_tracked == 10

    gated.cut_({"first": torch.arange(6) % 3 > 0, "second": torch.arange(5) > 1})
    small = gated.plain()
    assert isinstance(small, Averaged) and small.norm.momentum is None and small.inner.momentum == 0.1
    bp.save(small, tmp_path, example=batches(1)[0])
    loaded = bp.load(tmp_path)
    for module in (small, loaded, gated):
        learn_(module)
    assert small.norm.num_batches_tracked == 18
    assert_same_state(loaded, small)
    assert_same_state(gated.network, small)

    gated.renormalise_(batches(3))
    assert gated.network.norm.num_batches_tracked == 6
    learn_(gated)  # and on from there
    assert gated.network.norm.num_batches_tracked == 14


class Counts(nn.Module):
    """A counter in Python that shows in a buffer alone."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.calls = nn.Linear(4, 6), nn.Linear(6, 2), 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen.fill_(self.calls)
        return self.head(self.first(x).relu())


def test_what_a_graph_would_leave_in_buffers_is_compared_too():
    with pytest.raises(UnsupportedNetworkError, match=r"computes something else.*counters in Python"):
        analyse(Counts(), torch.zeros(2, 4))
