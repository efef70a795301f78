"""Model and guide are ordinary Pyro programs: every tool of Pyro's runs on them, with the right numbers."""

import copy

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.svi.objective import exact_negative_elbo
from tests.reference import negative_elbo_by_pyro
from tests.svi.small import EXACT, small_batch, small_gated

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-5  # of each randomised test
SIGMAS = 4.42
POINT = ("flattening", "fixed", "layer adaptive", "learned")


@pytest.fixture(autouse=True)
def param_store():
    """Nothing of the library's ever enters Pyro's global store."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    assert len(pyro.get_param_store()) == 0


def learnable(rows=60, **settings):
    torch.manual_seed(0)
    x = torch.randn(rows, 3)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    prior = priors.BernoulliGates(priors.Flattening(price=1.0))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=rows), **settings)
    return gated, x, (x[:, 0] > 0).long()


def test_sites():
    gated, x, y = learnable()
    trace = poutine.trace(gated.model).get_trace(x, y)
    sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample"}
    assert {"gate/input", "gate/0", "pi/input", "pi/0", "y"} <= set(sites)
    assert {n for n in sites if n.startswith("weight/")} == {
        "weight/0.weight",
        "weight/0.bias",
        "weight/2.weight",
        "weight/2.bias",
    }
    assert sites["gate/0"]["value"].shape == (4,) and sites["y"]["is_observed"]
    assert sites["y"]["scale"] == pytest.approx(1.0)
    part = poutine.trace(gated.model).get_trace(x[:15], y[:15])
    assert part.nodes["y"]["scale"] == pytest.approx(4.0)  # rows of the data set, never of the batch
    guide = poutine.trace(gated.guide).get_trace(x, y)
    latent = {n for n, s in sites.items() if not s["is_observed"] and n != "rows"}
    assert {n for n, s in guide.nodes.items() if s["type"] == "sample"} - {"rows"} == latent


def test_svi_of_pyro_trains_it():
    gated, x, y = learnable()
    svi = SVI(gated.model, gated.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    before = gated.log_odds.detach().clone()
    losses = [svi.step(x, y) for _ in range(250)]
    assert sum(losses[-40:]) < 0.8 * sum(losses[:40])
    assert not torch.equal(before, gated.log_odds)
    assert gated.inclusion_prob()[0] > gated.inclusion_prob()[1:3].max()  # the input that matters


def test_plain_torch_trains_it():
    gated, x, y = learnable()
    optimiser = torch.optim.Adam(gated.parameters(), lr=0.02)
    losses = []
    for _ in range(250):
        optimiser.zero_grad()
        loss = Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-40:]) < 0.8 * sum(losses[:40])


def test_announcing_parameters_leaves_them_as_they_are():
    gated, x, y = learnable()
    names = list(gated.state_dict())
    trace = poutine.trace(gated.guide, param_only=True).get_trace(x, y)
    assert {n for n in trace.nodes if n.startswith("param/")} == {
        f"param/{n}" for n, _ in gated.named_parameters()
    }
    assert list(copy.deepcopy(gated).state_dict()) == names
    assert all(not hasattr(p, "unconstrained") for p in gated.parameters())


@pytest.mark.parametrize("name", POINT)
def test_sampled_elbo_is_unbiased_for_the_enumerated_one(name):
    gated = small_gated(EXACT[name])
    x, y = small_batch()
    exact = exact_negative_elbo(gated, x, y).item()
    draws = torch.tensor([Trace_ELBO().loss(gated.model, gated.guide, x, y) for _ in range(300)])
    assert abs(draws.mean() - exact) < SIGMAS * draws.std() / 300**0.5 + 1e-6


@pytest.mark.parametrize("removed", [False, True], ids=["whole", "after a removal"])
@pytest.mark.parametrize("name", POINT)
def test_parallel_enumeration_gives_brute_forces_elbo_and_gradients(name, removed):
    gated = small_gated(EXACT[name], removed=removed)
    x, y = small_batch()
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.differentiable_loss(gated.model, config_enumerate(gated.guide, "parallel"), x, y)
    brute = negative_elbo_by_pyro(gated, x, y)
    assert loss.item() == pytest.approx(brute.item(), abs=1e-6)
    parameters = [p for n, p in gated.named_parameters()]
    ours = torch.autograd.grad(loss, parameters, allow_unused=True)
    theirs = torch.autograd.grad(brute, parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_svi_with_enumeration_runs():
    gated = small_gated(EXACT["fixed"])
    x, y = small_batch()
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    svi = SVI(gated.model, config_enumerate(gated.guide, "parallel"), pyro.optim.Adam({"lr": 0.05}), elbo)
    losses = [svi.step(x, y) for _ in range(40)]
    assert losses[-1] < losses[0]


def test_predictive_draws_from_the_posterior_and_from_the_prior():
    gated = small_gated(EXACT["fixed"])
    x, _ = small_batch(5)
    draws = Predictive(gated.model, guide=gated.guide, num_samples=800)(x)
    theta = gated.inclusion_prob().detach()
    got = torch.cat([draws["gate/input"].mean(0).flatten(), draws["gate/0"].mean(0).flatten()])
    assert bool(((got - theta).abs() < SIGMAS * (theta * (1 - theta) / 800).sqrt() + 1e-6).all())
    assert draws["y"].shape[0] == 800 and draws["y"].shape[-1] == 5
    # the mean prediction by enumeration of the gates
    outputs = []
    for z in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5):
        share = torch.where(z > 0, theta, 1 - theta).prod()
        outputs.append(share * gated.outputs(x, gated.by_group(z)).softmax(-1)[:, 1])
    exact = torch.stack(outputs).sum(0).detach()
    error = SIGMAS * (exact * (1 - exact) / 800).sqrt() + 1e-6
    assert bool(((draws["y"].double().reshape(800, 5).mean(0) - exact).abs() < error).all())
    prior = Predictive(gated.model, num_samples=400)(x)
    kept = prior["gate/0"].mean()
    assert abs(kept - 0.3) < SIGMAS * (0.21 / 1200) ** 0.5


def test_removed_units_are_zero_in_every_site():
    gated = small_gated(EXACT["flattening"], removed=True)
    x, y = small_batch()
    gone = ~gated.by_group(gated.alive)["0"]
    for _ in range(20):
        trace = poutine.trace(gated.guide).get_trace(x, y)
        gates = trace.nodes["gate/0"]["value"]
        assert gates.shape == (3,) and not gates[gone].any()
        replayed = poutine.trace(poutine.replay(gated.model, trace=trace)).get_trace(x, y)
        assert not replayed.nodes["gate/0"]["value"][gone].any()
        assert torch.isfinite(replayed.log_prob_sum())
    assert gated.inclusion_prob()[gated.slices()["0"]][gone].tolist() == [0.0]


def test_unit_noise_and_gaussian_weights_are_sites():
    gated, x, y = learnable(unit_noise={"0": 0.3})
    gated.spread_weights_(0.01)
    guide = poutine.trace(gated.guide).get_trace(x, y)
    assert guide.nodes["noise/0"]["value"].shape == (60, 4) and "noise/input" not in guide.nodes
    assert guide.nodes["weight/0.weight"]["fn"].base_dist.scale.allclose(torch.tensor(0.01))
    assert torch.isfinite(torch.tensor(Trace_ELBO(num_particles=3).loss(gated.model, gated.guide, x, y)))
    model = poutine.trace(poutine.replay(gated.model, trace=guide)).get_trace(x, y)
    model.compute_log_prob()
    guide.compute_log_prob()
    assert model.nodes["noise/0"]["log_prob_sum"].item() == pytest.approx(
        guide.nodes["noise/0"]["log_prob_sum"].item()
    )


def test_spike_and_slab_enumerates_too():
    weights = priors.NormalWeights(scale=0.7, posterior="normal", masked=True, initial_scale=0.05)
    gated = small_gated(priors.SpikeAndSlab(slab_scale=0.7), weights=weights)
    x, y = small_batch()
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
        gated.model, config_enumerate(gated.guide), x, y
    )
    loss.backward()
    assert torch.isfinite(loss)
