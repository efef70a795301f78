"""The fused ELBO is Pyro's: values and gradients, for every prior that ships, at every gate configuration."""

import copy
import math
from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.estimators import all_configurations
from bayesprune.svi.objective import (
    exact_negative_elbo,
    gate_divergence,
    gate_nats,
    weight_divergence,
    weight_nats,
)
from bayesprune.svi.schedule import Schedule
from tests.reference import negative_elbo_by_pyro
from tests.svi.small import (
    CONTINUOUS,
    EXACT,
    HALF,
    AllOrNothing,
    Learned,
    OwnGuide,
    coupled,
    shared_rate,
    small_batch,
    small_gated,
)

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-5  # of each randomised test: |error| > 4.42 standard errors of a Gaussian
SIGMAS = 4.42
PLAIN = Recipe(
    estimator="enumeration", gates=GateSteps(learning_rate=1e-3, momentum=0.0, clip=1e3, every=1, bound=50.0)
)


def gated_for(name, removed=False):
    exclude = ("input",) if name in CONTINUOUS else ()  # one continuous hyper-site at most
    return small_gated(copy.deepcopy(EXACT[name]), exclude=exclude, removed=removed)  # steps train priors too


def gradients(value, gated):
    parameters = [p for p in gated.parameters() if p.requires_grad]
    return torch.autograd.grad(value, parameters, allow_unused=True)


@pytest.mark.parametrize("removed", [False, True], ids=["whole", "after a removal"])
@pytest.mark.parametrize("name", EXACT)
def test_fused_elbo_and_gradients_are_pyros(name, removed):
    gated = gated_for(name, removed)
    x, y = small_batch()
    fused, slow = exact_negative_elbo(gated, x, y), negative_elbo_by_pyro(gated, x, y)
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
    for ours, theirs in zip(gradients(fused, gated), gradients(slow, gated), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("removed", [False, True], ids=["whole", "after a removal"])
@pytest.mark.parametrize("name", EXACT)
def test_one_fused_step_follows_exactly_that_gradient(name, removed):
    """Weights by gradient descent of rate 1 instead of Adam, so that the step shows the gradient itself."""
    gated = gated_for(name, removed)
    x, y = small_batch()
    expected = gradients(exact_negative_elbo(gated, x, y), gated)
    engine = Engine(gated, PLAIN, seed=0)
    groups = [
        {"params": g["params"], "weight_decay": g["weight_decay"]} for g in engine.optimiser.param_groups
    ]
    engine.optimiser = torch.optim.SGD(groups, lr=1.0)
    before = [p.detach().clone() for p in gated.parameters() if p.requires_grad]
    probs = gated.inclusion_prob().detach()
    state, info = engine.step(engine.init(), (x, y))
    assert info.moved and state.step == 1
    after = [p for p in gated.parameters() if p.requires_grad]
    hyper = {id(p) for n, p in gated.named_parameters() if n.startswith(("prior", "default_guide"))}
    for old, new, gradient in zip(before, after, expected, strict=True):
        if new is gated.log_odds:
            natural = torch.where(gated.alive, gradient / (probs * (1 - probs)), 0.0)  # ∂/∂θ
            torch.testing.assert_close(state.velocity, natural, rtol=1e-6, atol=1e-6)
            assert bool(((old - new) * natural >= 0).all())
        elif id(new) in hyper:  # Adam does not see the scale of these
            torch.testing.assert_close((old - new).sign(), gradient.sign())
        elif gradient is not None:  # Adam's loss is per row of the data set
            torch.testing.assert_close(old - new, gradient / gated.likelihood.rows, rtol=1e-6, atol=1e-9)


def test_prior_scale_by_parameter_is_the_decay_of_each():
    weights = priors.NormalWeights(scale={"*.bias": 2.0, "0.weight": 0.1, "*": 0.5})
    gated = small_gated(EXACT["fixed"], weights=weights)
    x, y = small_batch()
    fused, slow = exact_negative_elbo(gated, x, y), negative_elbo_by_pyro(gated, x, y)
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
    decays = {
        id(p): g["weight_decay"] for g in Engine(gated, PLAIN).optimiser.param_groups for p in g["params"]
    }
    scales = {"0.weight": 0.1, "0.bias": 2.0, "2.weight": 0.5, "2.bias": 2.0}
    for name, tensor in gated.weight_tensors().items():
        assert decays[id(tensor)] == pytest.approx(1 / (40 * scales[name] ** 2))


@pytest.mark.parametrize(
    "masked", [True, "both", False], ids=["spike and slab", "slab by both ends", "Gaussian weights"]
)
@pytest.mark.parametrize("relevance", [False, True], ids=["one scale", "scales of their own"])
@pytest.mark.parametrize("removed", [False, True], ids=["whole", "after a removal"])
def test_prior_side_of_gaussian_weights_is_pyros(masked, relevance, removed):
    """All of the ELBO but the likelihood: two points for each weight integrate its divergence exactly."""
    weights = priors.NormalWeights(0.7, "normal", masked, initial_scale=0.2, relevance=relevance)
    gated = small_gated(priors.SpikeAndSlab(slab_scale=0.7), weights=weights, removed=removed)
    x, y = small_batch()
    probs = gated.inclusion_prob()
    fused = gate_nats(gated, probs) + weight_nats(gated, probs)
    slow = negative_elbo_by_pyro(gated, x, y, without=("y",))
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
    for ours, theirs in zip(gradients(fused, gated), gradients(slow, gated), strict=True):
        if theirs is not None and ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("masked", [True, "both"])
@pytest.mark.parametrize("relevance", [False, True], ids=["one scale", "scales of their own"])
def test_spike_and_slab_step_takes_the_slabs_price_into_the_gates(masked, relevance):
    weights = priors.NormalWeights(0.7, "normal", masked, initial_scale=0.2, relevance=relevance)
    gated = small_gated(priors.SpikeAndSlab(slab_scale=0.7), weights=weights)
    probs = gated.inclusion_prob().detach().requires_grad_()
    (expected,) = torch.autograd.grad(gate_nats(gated, probs) + weight_nats(gated, probs), probs)
    engine = Engine(gated, PLAIN)
    velocity = engine._move_gates(engine.init(), torch.zeros(int(gated.alive.sum())))
    torch.testing.assert_close(velocity, expected)


def test_a_weight_that_both_of_its_units_hold_counts_as_often_as_both_are_open():
    """E[z_j z_k] summed over all masks; of a bias, E[z_j]; of the outputs' rows, E[z_k]."""
    weights = priors.NormalWeights(0.7, "normal", "both", initial_scale=0.2)
    gated = small_gated(priors.SpikeAndSlab(), weights=weights)
    probs = gated.inclusion_prob().detach()
    masks = all_configurations(len(probs)).to(probs)
    chance = torch.where(masks > 0, probs, 1 - probs).prod(-1)
    ends = {"0.weight": (slice(2, None), slice(0, 2)), "0.bias": (slice(2, None), None)}
    for name, (made, read) in {**ends, "2.weight": (None, slice(2, None)), "2.bias": (None, None)}.items():
        shape = gated.weight_tensors()[name].shape
        expected = torch.zeros(shape, dtype=probs.dtype)
        for mask, weight in zip(masks, chance, strict=True):
            there = torch.ones(shape, dtype=probs.dtype)
            if made is not None:
                there = there * mask[made].reshape(-1, *[1] * (len(shape) - 1))
            if read is not None:
                there = there * mask[read]
            expected += weight * there
        found = gated.weight_share(name, gated.by_group(probs))
        found = torch.ones(()) if found is None else found
        torch.testing.assert_close(found.expand(shape).to(expected), expected)


def test_the_scale_of_a_weights_own_is_the_one_of_the_most_evidence():
    """½ log(1 + μ²/σ²), and no other scale has less: by a grid of them around it."""
    weights = priors.NormalWeights(0.7, "normal", relevance=True, initial_scale=0.2)
    gated = small_gated(priors.SpikeAndSlab(), weights=weights)
    nats = 0.0
    for name, tensor in gated.weight_tensors().items():
        log_scale = gated.log_scales_by_tensor()[name]
        log_scale.data.normal_()
        ratio = tensor.detach().square() / (2 * log_scale.detach()).exp()
        best = weight_divergence(tensor, log_scale, gated.weight_scale(name)).detach()
        torch.testing.assert_close(best, 0.5 * torch.log1p(ratio))
        for factor in torch.logspace(-1, 1, 41, dtype=torch.double):
            other = weight_divergence(tensor, log_scale, factor * gated.weight_scale(name)).detach()
            assert bool((other >= best - 1e-12).all())
        nats += float(best.sum())
    assert weight_nats(gated, gated.inclusion_prob()).item() == pytest.approx(nats, rel=1e-12)


def test_a_weights_own_scale_moves_with_it_and_its_slope_is_that_of_the_closed_form():
    """d/dμ ½ log(1 + μ²/σ²) = μ / (μ² + σ²), though the scale is detached: the envelope theorem."""
    weights = priors.NormalWeights(0.7, "normal", relevance=True, initial_scale=0.2)
    gated = small_gated(priors.SpikeAndSlab(), weights=weights)
    weight_nats(gated, gated.inclusion_prob().detach()).backward()
    for name, tensor in gated.weight_tensors().items():
        log_scale = gated.log_scales_by_tensor()[name]
        total = tensor.detach().square() + (2 * log_scale.detach()).exp()
        torch.testing.assert_close(tensor.grad, tensor.detach() / total)
        torch.testing.assert_close(log_scale.grad, (2 * log_scale.detach()).exp() / total - 1)


@pytest.mark.parametrize(("settings", "step", "factor"), [
    ({}, 0, 1.0), ({"temperature": 0.25}, 0, 0.25), ({"weights_ramp": 0.5}, 0, 0.0),
    ({"weights_ramp": 0.5, "temperature": 0.5}, 25, 0.25), ({"weights_ramp": 0.5}, 80, 1.0),
])  # fmt: skip
def test_the_weights_divergence_ramps_up_to_its_temperature(settings, step, factor):
    weights = priors.NormalWeights(0.7, "normal", initial_scale=0.2)
    gated = small_gated(priors.SpikeAndSlab(), weights=weights)
    expected = torch.autograd.grad(
        weight_nats(gated, gated.inclusion_prob().detach()) / gated.likelihood.rows,
        list(gated.log_scales.values()),
    )
    recipe = replace(PLAIN, **settings)
    Engine(gated, recipe, schedule=Schedule(recipe, steps=100))._weight_backward(step, None)
    for parameter, slope in zip(gated.log_scales.values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, factor * slope)


def test_a_cold_posterior_is_as_cold_where_gates_pay_for_weights():
    weights = priors.NormalWeights(0.7, "normal", masked=True, initial_scale=0.2)
    gated = small_gated(priors.SpikeAndSlab(), weights=weights)
    probs = gated.inclusion_prob().detach().requires_grad_()
    (of_gates,) = torch.autograd.grad(gate_nats(gated, probs), probs)
    (of_weights,) = torch.autograd.grad(weight_nats(gated, probs), probs)
    engine = Engine(gated, replace(PLAIN, temperature=0.25))
    velocity = engine._move_gates(engine.init(), torch.zeros(int(gated.alive.sum())))
    torch.testing.assert_close(velocity, of_gates + 0.25 * of_weights)


def test_spike_and_slab_of_points_is_pyros():
    weights = priors.NormalWeights(scale=0.7, masked=True)  # points: nothing to mask, a decay for all
    gated = small_gated(priors.SpikeAndSlab(slab_scale=0.7), weights=weights)
    x, y = small_batch()
    fused, slow = exact_negative_elbo(gated, x, y), negative_elbo_by_pyro(gated, x, y)
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)


def test_every_group_pays_by_the_prior_of_its_own():
    gated = small_gated(EXACT["per group"])
    probs = gated.inclusion_prob().detach()
    flat, rate = priors.Flattening(1.0), priors.Beta(2.0, 3.0)
    first, second = gated.groups
    expected = flat.penalty(first, probs[:2]) + rate.penalty(second, probs[2:])
    torch.testing.assert_close(gate_nats(gated, probs), expected)


# ---- priors that have no closed form: Pyro's traces stand in


def rate_of(trace):
    return trace.nodes["rate/0"]["value"]


@pytest.mark.parametrize(
    "prior",
    [pytest.param(shared_rate, marks=pytest.mark.nightly), OwnGuide()],
    ids=["default guide", "own guide"],
)
def test_fallback_is_pyros_elbo_at_the_hyper_values_that_it_drew(prior):
    seen = []

    def spied(group):
        gates = prior(group)
        seen.append(gates.probs[0])
        return gates

    if hasattr(prior, "guide"):
        spied.guide = prior.guide
    gated = small_gated(spied, exclude=("input",))
    x, y = small_batch()
    for seed in range(3):
        torch.manual_seed(seed)
        fused = exact_negative_elbo(gated, x, y)
        rate = seen[-1]
        probs, slow = gated.inclusion_prob(), 0.0
        for bits in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3):
            values = {"rate/0": rate, "gate/0": bits}
            guide = poutine.trace(poutine.condition(gated.guide, data=values)).get_trace(x, y)
            known = {n: s["value"] for n, s in guide.nodes.items() if s["type"] == "sample"}
            model = poutine.trace(poutine.condition(gated.model, data=known)).get_trace(x, y)
            slow = slow + torch.where(bits > 0, probs, 1 - probs).prod() * (
                guide.log_prob_sum() - model.log_prob_sum()
            )
        assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
        ours, theirs = (torch.autograd.grad(v, gated.log_odds, retain_graph=True)[0] for v in (fused, slow))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prior", [shared_rate, OwnGuide()], ids=["default guide", "own guide"])
def test_fallback_is_unbiased_for_the_quadrature(prior):
    gated = small_gated(prior, exclude=("input",))
    x, y = small_batch()
    exact = negative_elbo_by_pyro(gated, x, y, nodes=80, without=("y",)).item()
    torch.manual_seed(0)
    probs = gated.inclusion_prob().detach()
    with torch.no_grad():
        draws = torch.stack([gate_nats(gated, probs) + weight_nats(gated, probs) for _ in range(400)])
    assert abs(draws.mean().item() - exact) < SIGMAS * draws.std().item() / 400**0.5 + 1e-6


def test_hyper_guide_and_prior_parameters_are_trained_by_the_step():
    for prior in (shared_rate, Learned()):
        gated = small_gated(prior)
        engine = Engine(gated, PLAIN)
        names = [n for n, _ in gated.named_parameters() if n.startswith(("default_guide", "prior"))]
        before = {n: dict(gated.named_parameters())[n].detach().clone() for n in names}
        engine.step(engine.init(), small_batch())
        assert names
        assert all(not torch.equal(dict(gated.named_parameters())[n], before[n]) for n in names)


def test_prior_without_a_registered_kl_is_scored_unbiasedly():
    """By enumeration of 2³ configurations; value and gradient within their standard errors."""
    probs = torch.tensor([0.3, 0.8, 0.6], requires_grad=True)
    prior = coupled(type("G", (), {"size": 3}))
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    q = torch.where(z > 0, probs, 1 - probs).prod(-1)
    exact = (q * (q.log() - prior.log_prob(z))).sum()
    (slope,) = torch.autograd.grad(exact, probs)
    pyro.set_rng_seed(0)
    values, slopes = [], []
    for _ in range(2000):
        estimate = gate_divergence(probs, prior)
        values.append(estimate.detach())
        slopes.append(torch.autograd.grad(estimate, probs)[0])
    for draws, truth in ((torch.stack(values), exact.detach()), (torch.stack(slopes), slope)):
        assert bool(((draws.mean(0) - truth).abs() < SIGMAS * draws.std(0) / 2000**0.5).all())


def test_the_score_of_sixteen_draws_has_the_mean_of_the_others_for_a_baseline():
    """Value −H(q) − mean log p(z), slope −∂H − mean (log p(z) − mean of the others) ∂log q(z), by hand."""
    probs = torch.tensor([0.3, 0.8, 0.6], requires_grad=True)
    prior = coupled(type("G", (), {"size": 3}))
    pyro.set_rng_seed(1)
    draws = priors.Gates(probs=probs.detach()).sample(torch.Size([16]))
    pyro.set_rng_seed(1)
    estimate = gate_divergence(probs, prior)
    (slope,) = torch.autograd.grad(estimate, probs)
    q, scores = probs.detach(), prior.log_prob(draws).tolist()
    assert len(set(scores)) == 2 and draws.shape == (16, 3)
    entropy = -(q * q.log() + (1 - q) * (1 - q).log()).sum()
    assert estimate.item() == pytest.approx(-entropy.item() - sum(scores) / 16, abs=1e-12)
    expected = torch.logit(q)  # −∂H
    for place, score in enumerate(scores):
        others = scores[:place] + scores[place + 1 :]
        of_log_q = torch.where(draws[place] > 0, 1 / q, -1 / (1 - q))
        expected = expected - (score - sum(others) / 15) * of_log_q / 16
    torch.testing.assert_close(slope, expected)


def test_what_the_score_of_a_draw_learns_itself_has_a_slope_too():
    """A prior with a parameter: the mean of −∂log p(z) over the draws, beside what the posterior learns."""
    probs, weight = torch.tensor([0.3, 0.8]), torch.tensor(0.7, requires_grad=True)

    class Weighted(AllOrNothing):
        def log_prob(self, value):
            return weight * super().log_prob(value)

    pyro.set_rng_seed(2)
    draws = priors.Gates(probs=probs).sample(torch.Size([16]))
    pyro.set_rng_seed(2)
    (slope,) = torch.autograd.grad(gate_divergence(probs, Weighted(2)), weight)
    torch.testing.assert_close(slope, -AllOrNothing(2).log_prob(draws).mean())


def test_weights_as_points_count_what_was_removed_at_the_priors_mode():
    """N(0, s²): ½ Σ w² / s² and log s + ½ log 2π of every weight that the network had."""
    weights = priors.NormalWeights(scale={"*.bias": 2.0, "*": 0.5})
    gated = small_gated(EXACT["fixed"], weights=weights, removed=True)
    nats, left = 0.0, {name: tensor.detach() for name, tensor in gated.weight_tensors().items()}
    for name, count in {"0.weight": 6, "0.bias": 3, "2.weight": 6, "2.bias": 2}.items():
        scale = 2.0 if name.endswith("bias") else 0.5
        nats += 0.5 * float(left[name].square().sum()) / scale**2
        nats += count * (math.log(scale) + 0.5 * math.log(2 * math.pi))
    assert sum(tensor.numel() for tensor in left.values()) < 17
    assert weight_nats(gated, gated.inclusion_prob()).item() == pytest.approx(nats, abs=1e-9)


@pytest.mark.parametrize("masked", [True, False], ids=["spike and slab", "Gaussian weights"])
def test_weights_with_scales_of_their_own_are_as_far_from_the_prior_as_their_gaussians(masked):
    """Σ KL(N(w, σ²) ‖ N(0, s²)), by torch.distributions; under spike and slab at its unit's q(z = 1)."""
    weights = priors.NormalWeights(
        scale={"*.bias": 2.0, "0.weight": 0.3, "*": 0.5}, posterior="normal", masked=masked, initial_scale=0.2
    )
    gated = small_gated(priors.SpikeAndSlab(slab_scale=0.7), weights=weights)
    probs = gated.inclusion_prob().detach()
    nats = 0.0
    for name, tensor in gated.weight_tensors().items():
        log_scale = gated.log_scales_by_tensor()[name]
        log_scale.data.normal_()
        scale = 2.0 if name.endswith("bias") else 0.3 if name.startswith("0") else 0.5
        posterior = torch.distributions.Normal(tensor.detach(), log_scale.detach().exp())
        each = torch.distributions.kl_divergence(
            posterior, torch.distributions.Normal(torch.zeros(()), torch.tensor(scale))
        )
        torch.testing.assert_close(weight_divergence(tensor, log_scale, scale).detach(), each)
        made = probs[2:].reshape(-1, *[1] * (each.ndim - 1)) if masked and name.startswith("0") else 1.0
        nats += float((each * made).sum())
    assert weight_nats(gated, probs).item() == pytest.approx(nats, rel=1e-9)


def test_the_exact_elbo_has_the_models_precision_whatever_the_default_is():
    gated, (x, y) = gated_for("flattening"), small_batch()
    expected = exact_negative_elbo(gated, x, y)
    found = exact_negative_elbo(gated.float(), x.float(), y)
    assert found.dtype == torch.float and found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_removed_gates_cost_what_closed_ones_cost():
    for name in ("flattening", "fixed", "beta"):  # units that are gone stay in the sum, at probability zero
        whole, cut = (
            small_gated(EXACT[name], weights=HALF),
            small_gated(EXACT[name], weights=HALF, removed=True),
        )
        probs = whole.inclusion_prob().detach() * cut.alive
        assert gate_nats(whole, probs).item() == pytest.approx(
            gate_nats(cut, cut.inclusion_prob()).item(), abs=1e-12
        )


def test_filters_and_their_features_are_gated_as_pyro_says():
    """Two filters and the four features they are flattened to: a feature counts where both of its gates are
    open.
    """
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(4, 2)).double()
    prior, likelihood = EXACT["fixed"], bp.Categorical(rows=30)
    gated = bp.gate(network, torch.zeros(1, 1, 3).double(), prior=prior, likelihood=likelihood, weights=HALF)
    gated.log_odds.data.normal_()
    x, y = torch.randn(5, 1, 3), torch.randint(2, (5,))
    fused, slow = exact_negative_elbo(gated, x, y), negative_elbo_by_pyro(gated, x, y)
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
    for ours, theirs in zip(gradients(fused, gated), gradients(slow, gated), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_noise_of_gaussian_weights_gives_the_expected_loss(kind):
    """On one layer with a Gaussian likelihood E[NLL] is known: squared error plus Σ x² scale², plus the
    bias's.
    """
    layer = nn.Linear(3, 1) if kind == "linear" else nn.Conv1d(3, 1, 1)
    network = nn.Sequential(layer, *([nn.Flatten()] if kind == "conv" else [])).double()
    x, shape = torch.randn(1, 3), (1, 3, 1) if kind == "conv" else (1, 3)
    likelihood = bp.Gaussian(rows=10, scale=0.7, learn_scale=False).double()
    weights = priors.NormalWeights(posterior="normal", initial_scale=0.4)
    gated = bp.gate(network, x.reshape(shape), prior=EXACT["fixed"], likelihood=likelihood, weights=weights)
    engine, y = Engine(gated, PLAIN, seed=0), torch.tensor([[0.3]])
    draws = torch.stack([engine._nll(x.reshape(shape), y, {}).mean().detach() for _ in range(3000)])
    mean = gated.network(x.reshape(shape)).detach()
    variance = 0.16 * (x.square().sum() + 1)
    exact = likelihood.nll(mean, y).item() + 0.5 * variance.item() / 0.49
    assert abs(draws.mean().item() - exact) < SIGMAS * draws.std().item() / 3000**0.5
