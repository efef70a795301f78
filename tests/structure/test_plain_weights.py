"""Weights that are computed before every call become plain parameters; who had them computed keeps that."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import bayesprune as bp
from bayesprune.errors import NothingToGateError, UnsupportedNetworkError
from bayesprune.structure.altered import alterations
from tests.altered import Twice, residual

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")

KINDS = {
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "old weight norm": nn.utils.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "one's own": lambda layer: parametrize.register_parametrization(layer, "weight", Twice()),
    "mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "both tensors": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer), "bias"),
    "one behind the other": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
}


@pytest.mark.parametrize("alter", KINDS.values(), ids=KINDS)
def test_they_have_the_values_of_evaluation_and_nothing_else_changes(alter):
    network, layer = residual()
    alter(layer)
    x, network.head.training = torch.randn(5, 4), False
    before, expected = {k: t.clone() for k, t in network.state_dict().items()}, network.eval()(x)
    network.middle.train()
    plain = bp.structure.plain_weights(network)
    assert plain.middle.training and not plain.head.training and type(plain.middle) is nn.Linear
    assert not alterations(plain) and all(p.is_leaf and p.requires_grad for p in plain.parameters())
    assert {"middle.weight", "middle.bias"} <= {name for name, _ in plain.named_parameters()}
    assert torch.equal(plain.eval()(x), expected)
    assert alterations(network) and torch.equal(network.eval()(x), expected)  # goes on as it was
    assert all(torch.equal(before[k], t) for k, t in network.state_dict().items())
    assert {"first", "middle"} & {g.name for g in bp.analyse(plain, x).groups}


@pytest.mark.parametrize("name", ["spectral norm", "old spectral norm", "orthogonal"])
def test_what_is_refused_is_gated_after_the_remedy_that_is_told(name):
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    for layer in network[::2]:
        KINDS[name](layer)
    with pytest.raises((UnsupportedNetworkError, NothingToGateError)) as refused:
        bp.analyse(network, torch.zeros(2, 4))
    remedy = "bp.structure.plain_weights(network)"
    assert remedy in str(refused.value)
    found = bp.analyse(eval(remedy), torch.zeros(2, 4))
    assert [group.name for group in found.groups] == ["input", "0", "2"]


def test_recurrences_take_them_and_frozen_and_tied_ones_stay_so():
    network = nn.Sequential(nn.LSTM(4, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    parametrizations.orthogonal(network[0], "weight_hh_l0")
    nn.utils.weight_norm(network[0], "weight_ih_l0")
    network[2].weight = network[1].weight
    network[1].weight.requires_grad_(False)
    for layer in network[1:]:
        parametrize.register_parametrization(layer, "weight", Twice())
    x = torch.randn(3, 2, 4)
    plain = bp.structure.plain_weights(network)
    torch.testing.assert_close(plain[0](x)[0], network[0](x)[0])
    assert plain[1].weight is plain[2].weight and not plain[1].weight.requires_grad
    torch.testing.assert_close(plain[1].weight, 2 * network[1].parametrizations.weight.original)
