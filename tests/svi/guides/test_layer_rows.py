"""Many weights and gates: the outputs of a layer share a precision, and gates are drawn."""

import itertools
from types import SimpleNamespace

import pyro
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

import bayesprune as bp
from bayesprune.errors import SettingsError
from bayesprune.programs import load_inference
from bayesprune.svi.guides import LayerRows, LeaveOneOutELBO, StructuredGuide
from tests.svi.guides.blocks import blocks_of, gate_blocks
from tests.svi.guides.regressions import KEEP, NOISE, SLAB, configurations, gate, rows_of
from tests.svi.guides.test_structured import by_enumeration, elbo_by_hand

pytestmark = pytest.mark.usefixtures("double_precision")
SIGMAS = 5.2  # of 12 numbers at once, 1e-5 in all


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


def layered(rows=50):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return bp.gate(
        network, torch.zeros(1, 3), prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=bp.Gaussian(rows=rows, scale=0.7, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=0.7),
    )  # fmt: skip


def several_outputs(x, outputs=2):
    """A linear model with a bias, several outputs and gated inputs."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(x.shape[1], outputs))
    return bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(KEEP)),
        likelihood=bp.Gaussian(rows=len(x), scale=NOISE, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=SLAB),
    )  # fmt: skip


# ---- weights given gates


def test_rows_are_the_gaussians_that_they_say():
    of = LayerRows(torch.tensor([0.5, 0.5, 2.0]), rows=2, unit=3.0)
    nn.init.normal_(of.matrix)
    nn.init.normal_(of.target)
    columns = torch.tensor([1.0, 0.0, 1.0])
    q = of(torch.tensor([1.0, 0.0]), columns)
    rows = of.unit * of.matrix * columns
    covariance = torch.linalg.inv(rows.mT @ rows + torch.eye(3)) * torch.outer(of.prior_scale, of.prior_scale)
    mean = covariance @ ((rows.mT @ (of.unit * of.target))[:, 0] / of.prior_scale)
    first, second = MultivariateNormal(mean, covariance), MultivariateNormal(
        torch.zeros(3), torch.diag(of.prior_scale**2)
    )  # fmt: skip
    w = torch.randn(5, 2, 3)
    torch.testing.assert_close(q.log_prob(w), first.log_prob(w[:, 0]) + second.log_prob(w[:, 1]))
    torch.testing.assert_close(q.mean, torch.stack([mean, torch.zeros(3)]))
    draws = q.rsample((40_000,)).detach()
    for k, of_row in enumerate((first, second)):
        off = draws[:, k].mT.cov() - of_row.covariance_matrix
        spread = of_row.covariance_matrix.diagonal().max() * (2 / 40_000) ** 0.5
        assert off.abs().max() < SIGMAS * spread


@pytest.mark.parametrize("seed", [0, 1])
def test_a_start_holds_the_conjugate_posterior_of_every_mask(seed):
    """Whatever the signs, and whatever weights the network begins with."""
    x, _ = rows_of(4, correlation=0.7)
    y = torch.randn(len(x), 2) + x[:, :2]
    torch.manual_seed(seed)
    gated = several_outputs(x)
    guide = StructuredGuide(gated, weights="rows").start_(x, y)
    wide = torch.cat([x, torch.ones(len(x), 1)], 1)
    for z in configurations(4):
        q = guide.by_layer[0](*guide.layer_mask(guide.layers[0], {"input": z}))
        seen = wide * torch.cat([z, torch.ones(1)])
        covariance = torch.linalg.inv(seen.mT @ seen / NOISE**2 + torch.eye(5) / SLAB**2)
        torch.testing.assert_close(q.mean, (covariance @ seen.mT @ y / NOISE**2).mT, rtol=1e-4, atol=1e-4)
        root = torch.linalg.solve_triangular(q.factor, torch.eye(5), upper=False)
        torch.testing.assert_close(SLAB**2 * root @ root.mT, covariance, rtol=1e-4, atol=1e-5)


def test_rows_and_columns_together_are_the_mask_of_weights():
    gated = layered()
    guide = StructuredGuide(gated, weights="rows")
    assert [layer.names for layer in guide.layers] == [("0.weight", "0.bias"), ("2.weight", "2.bias")]
    gates = {"input": torch.tensor([1.0, 0.0, 1.0]), "0": torch.tensor([0.0, 1.0, 1.0, 1.0])}
    parts = []
    for layer in guide.layers:
        rows, columns = guide.layer_mask(layer, gates)
        both = torch.outer(rows, columns)
        parts += [both[:, :-1].flatten(), both[:, -1]]
    assert torch.equal(torch.cat(parts), guide.weight_mask(gates))


def test_a_start_of_several_layers_is_the_curvature_of_a_row():
    """By draws of signs, against all Jacobians."""
    gated, x = layered(rows=20), torch.randn(20, 3)
    y = torch.randn(20, 2)
    tensors = {n: t.detach() for n, t in gated.weight_tensors().items()}
    ones = gated.by_group(torch.ones(len(gated.log_odds)))
    jacobian = torch.autograd.functional.jacobian(
        lambda w: gated.outputs(x, ones, {**tensors, "0.weight": w}), tensors["0.weight"]
    )
    exact = torch.einsum("nkoc,nkod->cd", jacobian, jacobian) / 0.7**2 / 4 * 0.7**2
    found = []
    for _ in range(30):
        of = StructuredGuide(gated, weights="rows").start_(x, y).by_layer[0]
        found.append(((of.matrix.mT @ of.matrix) * of.unit**2).detach()[:3, :3])
    found = torch.stack(found)
    assert ((found.mean(0) - exact).abs() < SIGMAS * found.std(0) / 30**0.5 + 1e-4 * exact.max()).all()


# ---- gates


@pytest.fixture
def two_inputs():
    x, y = rows_of(2, correlation=0.5)
    guide = StructuredGuide(gate(x), weights="rows")
    of = guide.by_layer[0]
    torch.manual_seed(1)
    for parameter, spread in ((guide.log_odds, 1.0), (guide.coupling, 1.0), (of.matrix, 0.5)):
        parameter.data += spread * torch.randn_like(parameter)
    of.target.data += 0.5
    weights = SimpleNamespace(matrix=of.matrix, target=of.target.squeeze(1), unit=of.unit)
    alike = SimpleNamespace(log_odds=guide.log_odds, coupling=guide.coupling, weights=weights)
    return guide, elbo_by_hand(alike, x, y), x, y.unsqueeze(1)


def test_value_and_gradient_are_those_of_hand_computation(two_inputs):
    guide, by_hand, x, y = two_inputs
    of = guide.by_layer[0]
    parameters = [guide.log_odds, guide.coupling, of.matrix, of.target]
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(-by_hand, parameters, retain_graph=True)])
    elbo, losses, draws = LeaveOneOutELBO(draws=16), [], []
    for _ in range(200):
        loss = elbo.differentiable_loss(guide.gated.model, guide, x, y)
        losses.append(loss.item())
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    draws, losses = torch.stack(draws), torch.tensor(losses)
    off = (draws.mean(0) - exact).abs()
    assert bool((off <= SIGMAS * draws.std(0) / len(draws) ** 0.5 + 1e-9).all())
    assert abs(losses.mean() + by_hand.item()) < SIGMAS * losses.std() / len(losses) ** 0.5


def test_layers_and_groups_go_through_every_elbo():
    gated, x = layered(), torch.randn(20, 3)
    y = torch.stack([x[:, 0], x.prod(1)], 1)
    guide = StructuredGuide(gated, weights="rows")
    guide.coupling.data.normal_()
    guide.log_odds.data.normal_()
    one = torch.tensor([by_enumeration(gated, guide, x, y).item() for _ in range(15)])
    two = torch.tensor([LeaveOneOutELBO(draws=32).loss(gated.model, guide, x, y) for _ in range(15)])
    noise = ((one.var() + two.var()) / 15) ** 0.5
    assert abs(one.mean() - two.mean()) < 7.0 * noise  # Student's t, 28 degrees of freedom: under 1e-5


@pytest.mark.nightly
def test_thousands_of_weights_have_the_exact_inclusion_probabilities():
    """Sixty gates in blocks of six, and 2,400 weights: the exact posterior factorises over the blocks."""
    x, y, exact = blocks_of(10, outputs=40)
    result = load_inference("svi_structured").infer(
        gate_blocks(x, 40), bp.data.Split(x, y), epochs=400, batch_size=len(x), seed=0, recipe=None,
        device="cpu", checkpoint=None, resume=False, progress=False,
    )  # fmt: skip
    last = result.history[-1]
    assert ((exact > 0.1) & (exact < 0.9)).sum() >= 20
    assert (last.inclusion - exact).abs().mean() < 0.02


def test_blocks_are_enumerated_as_the_whole_is():
    x, y, found = blocks_of(2, outputs=2, units=3)
    scores, masks = [], list(itertools.product((0.0, 1.0), repeat=6))
    for mask in masks:
        z = torch.tensor(mask)
        covariance = torch.eye(len(x)) + 0.3 / len(x) * (x * z) @ (x * z).mT
        of = MultivariateNormal(torch.zeros(len(x)), covariance)
        prior = torch.where(z > 0, torch.tensor(KEEP), torch.tensor(1 - KEEP)).log().sum()
        scores.append(of.log_prob(y.mT).sum() + prior)
    exact = torch.softmax(torch.stack(scores), 0) @ torch.tensor(masks)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


def test_what_cannot_be_is_refused_with_the_remedy():
    wide = torch.zeros(1, 1200)
    with pytest.raises(SettingsError, match=r"output of 0.weight reads 1,200 numbers"):
        StructuredGuide(gate(wide), weights="rows")
    with pytest.raises(SettingsError, match="weights='rows'"):
        StructuredGuide(gate(wide))
    x, y = rows_of(3)
    with pytest.raises(SettingsError, match="weights='rows'"):
        StructuredGuide(gate(x)).start_(x, y)
