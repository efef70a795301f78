"""The idea in one file, held to the library: one objective, and the same units kept."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn

import bayesprune as bp

FILE = Path(__file__).parents[2] / "examples/minibayesprune.py"


@pytest.fixture(scope="module")
def mini():
    return runpy.run_path(str(FILE))


def as_library(gated, price):
    """The library's model of the same network."""
    layers = [copy.deepcopy(layer) for layer in gated.layers]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
    example = torch.zeros(1, layers[0].in_features)
    return bp.gate(network, example, prior=prior, likelihood=bp.Categorical(rows=gated.rows))


def put_(gated, library, probs):
    """Both at the same inclusion probabilities."""
    for theta, each in zip(gated.theta, probs, strict=True):
        theta.data = each.clone()
    library.log_odds.data = torch.cat(list(probs)).logit()


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) <= 200


def test_the_objective_is_the_librarys(mini):
    """Near the vertices both evaluate one and the same term: prices, the hyper-prior, weights, likelihood."""
    torch.manual_seed(0)
    gated = mini["GatedMLP"]((5, 4, 3), 3.0, rows=40)
    library = as_library(gated, 3.0)
    x, y = torch.randn(40, 5), torch.randint(3, (40,))
    elbo = TraceMeanField_ELBO()
    for probs in ([torch.tensor([1.0, 0, 1, 1, 0]), torch.tensor([0.0, 1, 1, 0])],
                  [torch.tensor([0.0, 1, 1, 1, 1]), torch.tensor([1.0, 1, 0, 1])]):  # fmt: skip
        put_(gated, library, [each * (1 - 2e-7) + 1e-7 for each in probs])
        ours, theirs = (
            elbo.loss(gated.model, gated.guide, x, y),
            elbo.loss(library.model, library.guide, x, y),
        )
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_without_evidence_a_gates_slope_is_its_price(mini):
    gated = mini["GatedMLP"]((5, 4, 3), [2.0, 7.0], rows=40)
    for weight in gated.layers.parameters():
        weight.data.zero_()  # whatever the gates are, the outputs stay
    for theta in gated.theta:
        theta.data = torch.rand_like(theta) * 0.9 + 0.05
    x, y = torch.randn(10, 5), torch.randint(3, (10,))
    TraceMeanField_ELBO().differentiable_loss(gated.model, gated.guide, x, y).backward()
    for theta, price in zip(gated.theta, gated.prices, strict=True):
        torch.testing.assert_close(theta.grad, torch.full_like(theta, price))


def test_the_same_units_are_kept(mini):
    """Three hidden units of ten make the targets, from four inputs of eight, and weights begin near there."""
    torch.manual_seed(0)
    x = torch.randn(2000, 8)
    hidden = torch.stack([x[:, 0] + x[:, 3], x[:, 5] - x[:, 0], 2 * x[:, 6]], 1).relu()
    y = torch.distributions.Categorical(logits=2 * hidden).sample()
    gated = mini["GatedMLP"]((8, 10, 3), 10.0, rows=len(x))
    first, second = (layer.weight.data.mul_(0.05) for layer in gated.layers)
    first[1, 0] = first[1, 3] = first[4, 5] = 1.0
    first[4, 0], first[7, 6] = -1.0, 2.0
    second[0, 1] = second[1, 4] = second[2, 7] = 1.0
    library = as_library(gated, 10.0)
    recipe = bp.Recipe(estimator="straight_through", moves=None)
    result = bp.fit(library, (x, y), epochs=15, batch_size=32, recipe=recipe, progress=False)
    small = mini["train"](gated, x, y, epochs=15)

    alive = result.gated.by_group(result.gated.alive)
    kept = [each.nonzero().squeeze(1).tolist() for each in alive.values()]
    assert [each.tolist() for each in gated.kept] == kept == [[0, 3, 5, 6], [1, 4, 7]]
    assert [tuple(layer.weight.shape) for layer in small[::2]] == [(3, 4), (3, 3)]
    assert (small[0].in_features, small[0].out_features) == (4, 3)
    theirs = bp.evaluate(bp.prune(result), (x, y), library.likelihood).nll
    ours = nn.functional.cross_entropy(small(x[:, gated.kept[0]]), y).item()
    assert ours == pytest.approx(theirs, abs=0.01)


def test_what_is_cut_is_what_a_zero_gate_is(mini):
    torch.manual_seed(0)
    gated = mini["GatedMLP"]((6, 5, 4, 3), 1.0, rows=10)
    optimiser = torch.optim.Adam(gated.layers.parameters())
    x = torch.randn(7, 6)
    gated(x).sum().backward()
    optimiser.step()
    gates = [torch.tensor(each) for each in ([1.0, 0, 1, 1, 0, 1], [0.0, 1, 1, 0, 1], [1.0, 0, 0, 1])]
    masked = gated(x, gates)
    moments = {layer: optimiser.state[layer.weight]["exp_avg"].clone() for layer in gated.layers}
    for number, gate in enumerate(gates):
        gated.remove_(number, gate > 0, optimiser)
    torch.testing.assert_close(gated(x[:, gated.kept[0]]), masked)
    for layer, rows, columns in zip(
        gated.layers, [*gated.kept[1:], torch.arange(3)], gated.kept, strict=True
    ):
        cut = optimiser.state[layer.weight]["exp_avg"]
        torch.testing.assert_close(cut, moments[layer][rows][:, columns])


def test_a_layer_keeps_a_unit(mini):
    gated = mini["GatedMLP"]((3, 2, 2), 1.0, rows=10)
    gated.theta[1].data = torch.tensor([0.001, 0.002])
    gated.remove_(1, gated.theta[1] > 0.5, torch.optim.Adam(gated.layers.parameters()))
    assert gated.kept[1].tolist() == [1]
