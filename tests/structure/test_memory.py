"""Memory of a pass: what forward hooks count layer by layer, and what a forward holds on to."""

import pytest
import torch
from torch import nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.rows.call import call_of
from bayesprune.structure.memory import memory_of

ROWS = 5


def taken(network, x):
    return memory_of(network, call_of(network, x))


def storages(*tensors):
    return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}


def counted_by_hooks(network, x):
    """Of a row of layers: weights, and the most that one layer's input, its result and the batch take."""
    most = []

    def look(layer, inputs, result):
        most.append(sum(storages(x, *inputs, result).values()))

    hooks = [layer.register_forward_hook(look) for layer in network]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    return max(most) + sum(storages(*network.parameters(), *network.buffers()).values())


ROWS_OF_LAYERS = {
    "dense": (nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 4)), (6,)),
    "wide input": (nn.Sequential(nn.Linear(400, 3), nn.Tanh(), nn.Linear(3, 2)), (400,)),
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3),
            nn.Flatten(), nn.Linear(6 * 4, 4),
        ),
        (3, 10, 10),
    ),
    "in place": (nn.Sequential(nn.Linear(6, 30), nn.ReLU(inplace=True), nn.Linear(30, 4)), (6,)),
    "views": (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 18)), nn.Linear(18, 40)), (1, 6, 6)),
}  # fmt: skip


@pytest.mark.parametrize("network, shape", ROWS_OF_LAYERS.values(), ids=ROWS_OF_LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_is_what_hooks_count(network, shape, dtype):
    network, x = network.to(dtype), torch.randn(ROWS, *shape, dtype=dtype)
    assert taken(network, x) == counted_by_hooks(network, x)


def test_memory_of_a_dense_network_by_hand():
    network, x = ROWS_OF_LAYERS["dense"][0].float(), torch.randn(ROWS, 6)
    weights = 6 * 30 + 30 + 30 * 4 + 4
    assert taken(network, x) == 4 * (weights + ROWS * (6 + 30 + 30))
    in_place = ROWS_OF_LAYERS["in place"][0].float()
    assert taken(in_place, x) == 4 * (weights + ROWS * (6 + 30 + 4))


class Shortcut(nn.Module):
    def __init__(self, holds_on):
        super().__init__()
        self.first, self.second, self.holds_on = nn.Linear(20, 20), nn.Linear(20, 20), holds_on

    def forward(self, x):
        kept = hidden = self.first(x)
        if not self.holds_on:
            del kept
        hidden = torch.relu(hidden)
        return self.second(hidden)


def test_what_a_forward_holds_on_to_counts():
    x = torch.randn(ROWS, 20)
    short, long = (taken(Shortcut(holds_on), x) for holds_on in (False, True))
    assert long - short == 4 * ROWS * 20


def test_weights_that_are_shared_count_once_and_nothing_is_moved():
    network = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 5))
    network[2].weight = network[0].weight
    x, before = torch.randn(ROWS, 5), {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    norms = 4 * 4 * 5 + 8  # scale, shift, mean, variance, and a count of int64
    # at the norm, and at the last layer: the batch, what comes in, and what goes out
    assert taken(network, x) == 4 * (25 + 5 + 5) + norms + 4 * ROWS * 5 * 3
    assert network.training and network[1].training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


def test_memory_grows_with_the_rows_and_with_nothing_else():
    network = ROWS_OF_LAYERS["convolutions"][0].float()
    one, two, ten = (taken(network, torch.randn(rows, 3, 10, 10)) for rows in (1, 2, 10))
    assert ten - one == 9 * (two - one) > 0


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="does not accept the example"):
        taken(nn.Sequential(nn.Linear(4, 2)), torch.zeros(2, 3))
