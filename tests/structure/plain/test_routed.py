"""One linear map with a weight for each row, out of a few."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure import routed_linear


def parts(rows, experts=4):
    generator = torch.Generator().manual_seed(rows)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    index = torch.randint(experts - 1, (rows,), generator=generator)  # the last one is never chosen
    return drawn(rows, 5), drawn(experts, 3, 5), drawn(experts, 3), index


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_it_is_what_the_weights_of_each_row_give(rows):
    x, weight, bias, index = parts(rows)
    expected = torch.einsum("noi,ni->no", weight[index], x) + bias[index]
    torch.testing.assert_close(routed_linear(x, weight, bias, index), expected)
    torch.testing.assert_close(routed_linear(x, weight, None, index), expected - bias[index])


def test_gradients_are_those_of_the_products():
    x, weight, bias, index = parts(9)
    assert torch.autograd.gradcheck(lambda *of: routed_linear(*of, index), (x, weight, bias))


class Routed(nn.Module):
    """Experts in one tensor, of which each token chooses two."""

    def __init__(self):
        super().__init__()
        self.stem, self.route, self.head = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 3)
        self.up, self.down = nn.Parameter(torch.randn(4, 7, 6)), nn.Parameter(torch.randn(4, 6, 7))
        self.shift = nn.Parameter(torch.randn(4, 7))

    def forward(self, x):  # (rows, time, 5)
        h = self.stem(x).flatten(0, 1)
        share, chosen = self.route(h).softmax(-1).topk(2, -1)
        chosen, each = chosen.flatten(), h.repeat_interleave(2, 0)
        y = routed_linear(each, self.up, self.shift, chosen).relu()
        y = routed_linear(y, self.down, None, chosen) * share.reshape(-1, 1)
        return self.head((h + y.view(len(h), 2, -1).sum(1)).view(*x.shape[:2], -1).mean(1))


def test_graphs_of_it_are_saved_and_loaded(tmp_path):
    network, x = Routed().eval(), torch.randn(4, 3, 5)
    bp.save(network, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path)(x), network(x))


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")
def test_it_is_exported_and_loaded_by_who_has_imported_nothing_else(tmp_path):
    network, x = Routed().eval(), torch.randn(4, 3, 5)
    program = torch.export.export(network, (x,)).run_decompositions()
    torch.testing.assert_close(program.module()(x), network(x))
    bp.save(network, tmp_path / "saved", example=x)
    torch.save((x, network(x)), tmp_path / "expected.pt")
    script = (
        "import sys, torch, bayesprune as bp\n"
        "x, y = torch.load(sys.argv[1] + '/expected.pt')\n"
        "assert torch.equal(bp.load(sys.argv[1] + '/saved')(x), y)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)


def test_fits_remove_hidden_units_of_all_experts_at_once():
    torch.manual_seed(0)
    network, x = Routed(), torch.randn(64, 3, 5)
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(4.0))
    gated = bp.gate(network, x[:2], prior=prior, likelihood=bp.Categorical(rows=64), layers="none")
    layers = {f"{layer}.{tensor}" for layer in ("stem", "route", "head") for tensor in ("weight", "bias")}
    assert gated.network.weight_names() == layers | {"up", "down", "shift"}
    before = gated.network.macs()
    result = bp.fit(gated, (x, (x.sum((1, 2)) > 0).long()), epochs=30, batch_size=16, progress=False)
    small = bp.prune(result)
    width = small.up.shape[1]
    assert type(small) is Routed and width < 7 and small.down.shape[2] == width
    assert result.gated.network.macs() < before
