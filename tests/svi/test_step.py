"""Numbers of the fused step, one line of it at a time: scale, ramp, clip, guard, moments.

Learning tests see most of these lines only where they are very wrong; here each is held to its formula.
"""

import math

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import SettingsError
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.bits import uniform_factors
from bayesprune.svi.objective import exact_negative_elbo, gate_nats, weight_nats
from bayesprune.svi.optimisers import adam
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.step import _window
from bayesprune.svi.weight_noise import WeightNoise
from tests.svi.small import EXACT, HALF, Learned, small_batch, small_gated

pytestmark = pytest.mark.usefixtures("double_precision")
SPREAD = priors.NormalWeights(scale=0.7, posterior="normal", initial_scale=0.2)
SLAB = priors.NormalWeights(scale=0.7, posterior="normal", masked=True, initial_scale=0.2)
FREE = GateSteps(learning_rate=1e-3, momentum=0.0, clip=1e3, every=1, bound=50.0)


class Indifferent(bp.Categorical):
    """A likelihood that every output explains equally well: only priors are left to move anything."""

    def nll(self, outputs, targets):
        return 0.0 * outputs.sum(-1)


def by_gradient_descent(engine, rate=1.0):
    """Adam's place taken by plain descent, so that a step shows the gradient itself."""
    groups = [
        {"params": g["params"], "weight_decay": g["weight_decay"]} for g in engine.optimiser.param_groups
    ]
    engine.optimiser = torch.optim.SGD(groups, lr=rate)
    return engine


def copies(gated):
    return {name: p.detach().clone() for name, p in gated.named_parameters()}


# ---- weights


@pytest.mark.parametrize("weights", [SPREAD, SLAB], ids=["Gaussian", "spike and slab"])
@pytest.mark.parametrize("removed", [False, True], ids=["whole", "after a removal"])
def test_divergence_of_the_weights_counts_once_for_the_rows_of_the_data_set(weights, removed):
    gated = small_gated(EXACT["fixed"], weights=weights, likelihood=Indifferent(rows=40), removed=removed)
    learnt = {n: p for n, p in gated.named_parameters() if p.requires_grad and n != "log_odds"}
    nats = weight_nats(gated, gated.inclusion_prob().detach())
    slopes = torch.autograd.grad(nats, list(learnt.values()), allow_unused=True)
    before = copies(gated)
    engine = by_gradient_descent(Engine(gated, Recipe(estimator="enumeration", gates=FREE)))
    engine.step(engine.init(), small_batch())
    assert any("log_scale" in name for name in learnt)
    for (name, parameter), slope in zip(learnt.items(), slopes, strict=True):
        torch.testing.assert_close(before[name] - parameter.detach(), slope / 40, rtol=1e-9, atol=1e-12)


def test_prior_of_points_is_a_decay_of_one_over_rows_and_variance():
    gated = small_gated(EXACT["fixed"], weights=HALF, likelihood=Indifferent(rows=40))
    before = {n: t.detach().clone() for n, t in gated.weight_tensors().items()}
    engine = by_gradient_descent(Engine(gated, Recipe(estimator="enumeration", gates=FREE)))
    engine.step(engine.init(), small_batch())
    for name, tensor in gated.weight_tensors().items():
        torch.testing.assert_close(tensor.detach(), before[name] * (1 - 1 / (40 * 0.7**2)))


def test_weights_are_moved_by_adam_at_the_recipes_rate():
    """Adam's first step is the rate times the gradient's sign, but for ε."""
    gated = small_gated(EXACT["fixed"], weights=HALF)
    before = {n: t.detach().clone() for n, t in gated.weight_tensors().items()}
    slopes = torch.autograd.grad(
        exact_negative_elbo(gated, *small_batch()), list(gated.weight_tensors().values())
    )
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE, learning_rate=3e-3))
    engine.step(engine.init(), small_batch())
    for (name, tensor), slope in zip(gated.weight_tensors().items(), slopes, strict=True):
        torch.testing.assert_close(before[name] - tensor.detach(), 3e-3 * slope.sign(), rtol=1e-4, atol=1e-9)
    assert all(p.grad is None for p in gated.parameters())


# ---- gates


def velocity_at(prior_weight, **settings):
    gated = small_gated(EXACT["flattening"])
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    state = engine.init()
    state = type(state)(**{**vars(state), "prior_weight": prior_weight, **settings})
    return engine.step(state, small_batch())[0].velocity


def test_the_ramp_weighs_the_priors_slope_and_nothing_else():
    none, half, whole = (velocity_at(weight) for weight in (0.0, 0.5, 1.0))
    torch.testing.assert_close(whole - none, torch.full_like(none, 2.5))  # the price
    torch.testing.assert_close(half, (none + whole) / 2)


def test_the_likelihoods_slope_counts_for_all_rows_of_the_data_set():
    """Without a prior: N times the derivative of the expected loss of a row, by enumeration."""
    gated = small_gated(EXACT["flattening"])
    probs = gated.inclusion_prob().detach()
    (by_log_odds,) = torch.autograd.grad(
        exact_negative_elbo(gated, *small_batch()) - gate_nats(gated, gated.inclusion_prob()), gated.log_odds
    )
    torch.testing.assert_close(velocity_at(0.0), by_log_odds / (probs * (1 - probs)))


@pytest.mark.parametrize(
    "settings", [{"moving": False}, {"step": 1}, {"decided": True}], ids=["warm-up", "between", "decided"]
)
def test_gates_stand_still(settings):
    gated = small_gated(EXACT["flattening"])
    before = gated.log_odds.detach().clone()
    engine = Engine(gated, Recipe(estimator="enumeration", gates=GateSteps(every=2)))
    state = engine.init()
    state, info = engine.step(type(state)(**{**vars(state), **settings}), small_batch())
    assert not info.moved
    assert torch.equal(gated.log_odds.detach(), before)
    assert torch.equal(state.velocity, torch.zeros_like(before))


def test_gates_move_every_few_steps():
    gated = small_gated(EXACT["flattening"])
    engine = Engine(gated, Recipe(estimator="enumeration", gates=GateSteps(every=3)))
    state, moved = engine.init(), []
    for _ in range(7):
        state, info = engine.step(state, small_batch())
        moved.append(info.moved)
    assert moved == [True, False, False, True, False, False, True]
    assert state.step == 7


def test_gates_that_are_gone_have_neither_velocity_nor_change():
    gated = small_gated(EXACT["flattening"], removed=True)
    before = gated.log_odds.detach().clone()
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    state, _ = engine.step(engine.init(), small_batch())
    gone = ~gated.alive
    assert int(gone.sum()) == 1
    assert torch.equal(state.velocity[gone], torch.zeros(1))
    assert torch.equal(gated.log_odds.detach()[gone], before[gone])
    assert bool((gated.log_odds.detach()[~gone] != before[~gone]).all())


@pytest.mark.parametrize("price", [0.25, 4.0, 1e9])
def test_a_unit_without_evidence_falls_by_the_rate_whatever_its_price(price):
    """Prices under a nat count as one: 0.25 nats move a quarter of the way."""
    gated = small_gated(priors.BernoulliGates(priors.Flattening(price)), likelihood=Indifferent(rows=40))
    before = gated.log_odds.detach().clone()
    gates = GateSteps(learning_rate=0.1, momentum=0.0, clip=0.4, every=1, bound=50.0)
    engine = Engine(gated, Recipe(estimator="enumeration", gates=gates))
    engine.step(engine.init(), small_batch())
    fall = torch.full_like(before, 0.1 * min(price, 1.0))
    torch.testing.assert_close(before - gated.log_odds.detach(), fall)


def test_units_are_measured_in_the_mean_price_of_their_own_group():
    prices = {"input": 2.0, "*": 8.0}
    gated = small_gated(priors.BernoulliGates(priors.Flattening(prices)), removed=True)
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    slope = torch.tensor([1.0, 5.0, 9.0, 100.0, -3.0])  # the last but one is gone
    typical = engine._typical(slope)
    torch.testing.assert_close(typical, torch.tensor([3.0, 3.0, 6.0, 6.0, 6.0]))


def test_the_last_unit_of_a_group_is_measured_in_its_own_price():
    gated = small_gated(EXACT["flattening"])
    gated.remove_(torch.tensor([False, True, True, False, True]))
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    typical = engine._typical(torch.tensor([7.0, 50.0, 50.0, -3.0, 50.0]))
    torch.testing.assert_close(typical, torch.tensor([7.0, 7.0, 3.0, 3.0, 3.0]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_gate_moves_further_than_the_clip(sign):
    """A price of 10⁹ nats against none in the group's mean would throw every gate to its bound."""
    gated = small_gated(EXACT["flattening"], likelihood=Indifferent(rows=40))
    before = gated.log_odds.detach().clone()
    gates = GateSteps(learning_rate=0.1, momentum=0.0, clip=0.37, every=1, bound=50.0)
    engine = Engine(gated, Recipe(estimator="enumeration", gates=gates))
    engine._move_gates(engine.init(), sign * torch.full((5,), 1e9))
    torch.testing.assert_close(before - gated.log_odds.detach(), torch.full((5,), sign * 0.37))


def test_the_next_step_draws_gates_as_they_have_become():
    gated, seen = small_gated(EXACT["flattening"]), []

    def watching(problem, want_gates=True):
        seen.append(problem.probs.clone())
        return bp.svi.Enumeration()(problem, want_gates)

    engine = Engine(gated, Recipe(estimator=watching, gates=GateSteps(every=1)))
    state, _ = engine.step(engine.init(), small_batch())
    moved = gated.inclusion_prob().detach()
    engine.step(state, small_batch())
    assert not torch.equal(*seen)
    torch.testing.assert_close(seen[1], moved)


def test_hyper_sites_go_on_learning_once_gates_are_decided():
    gated = small_gated(Learned())
    before = gated.prior.log_odds.detach().clone()
    engine = Engine(gated, Recipe(estimator="enumeration", gates=GateSteps(every=2)))
    state = engine.init()
    decided = type(state)(**{**vars(state), "decided": True})
    decided, _ = engine.step(decided, small_batch())
    moved = gated.prior.log_odds.detach().clone()
    assert not torch.equal(moved, before)
    kept = gated.inclusion_prob().detach().sum()  # towards the rate of what is kept
    assert math.copysign(1, float(moved - before)) == math.copysign(
        1, float(kept / 5 - torch.sigmoid(before))
    )


def test_hyper_sites_learn_in_a_gate_step_and_not_between():
    gated = small_gated(Learned())
    engine = Engine(gated, Recipe(estimator="enumeration", gates=GateSteps(every=3)))
    state, moved = engine.init(), []
    for decided in (False, True):
        state = type(state)(**{**vars(state), "decided": decided})
        for _ in range(3):
            before = gated.prior.log_odds.detach().clone()
            state, _ = engine.step(state, small_batch())
            moved.append(not torch.equal(gated.prior.log_odds.detach(), before))
    assert moved == [True, False, False, True, False, False]


def test_hyper_sites_follow_the_slope_of_the_priors_nats():
    gated = small_gated(Learned())
    (expected,) = torch.autograd.grad(gate_nats(gated, gated.inclusion_prob().detach()), gated.prior.log_odds)
    before = gated.prior.log_odds.detach().clone()
    engine = by_gradient_descent(Engine(gated, Recipe(estimator="enumeration", gates=FREE)), rate=1e-3)
    engine.step(engine.init(), small_batch())
    torch.testing.assert_close(before - gated.prior.log_odds.detach(), 1e-3 * expected)


def test_a_parameter_of_the_prior_that_no_group_reads_stands_still():
    class Spare(Learned):
        def __init__(self):
            super().__init__()
            self.spare = nn.Parameter(torch.tensor(0.3))

    gated = small_gated(Spare())
    before = gated.prior.log_odds.detach().clone()
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    engine.step(engine.init(), small_batch())
    assert gated.prior.spare.item() == 0.3 and not torch.equal(gated.prior.log_odds.detach(), before)


# ---- what an engine is made with


def test_without_a_schedule_the_pace_is_that_of_18_720_steps():
    engine = Engine(small_gated(EXACT["fixed"]), Recipe())
    assert engine.gates == GateSteps()
    assert {group["lr"] for group in engine.optimiser.param_groups} == {2e-3}


def test_with_one_it_is_the_schedules():
    recipe = Recipe()
    engine = Engine(small_gated(EXACT["fixed"]), recipe, schedule=Schedule(recipe, 1100))
    assert engine.gates == Schedule(recipe, 1100).gates != GateSteps()
    assert {group["lr"] for group in engine.optimiser.param_groups} == {1e-2}


def test_the_first_state():
    gated = small_gated(EXACT["fixed"], removed=True)
    state = Engine(gated, Recipe()).init()
    assert (state.step, state.prior_weight, state.moving, state.decided) == (0, 1.0, True, False)
    assert torch.equal(state.velocity, torch.zeros(5)) and state.velocity.dtype == torch.double


def test_the_gates_noise_is_that_of_the_seed():
    def losses(*seed):
        engine = Engine(small_gated(EXACT["fixed"]), Recipe(estimator="reinforce"), *seed)
        return [float(engine.step(engine.init(), small_batch())[1].nll) for _ in range(2)]

    assert losses(1) == losses(1) != losses(2)
    assert losses() == losses(0)


def test_one_adam_with_a_group_for_every_decay():
    """Points decay, by their prior; weights with a posterior, hyper-parameters and likelihoods do not."""
    table = priors.NormalWeights(scale={"*.bias": 2.0, "*": 0.5})
    likelihood = bp.Gaussian(rows=40, scale=1.0).double()
    gated = small_gated(Learned(), weights=table, likelihood=likelihood)
    optimiser = adam(gated, 3e-3)
    names = {id(p): name for name, p in gated.named_parameters()}
    found = {
        group["weight_decay"]: sorted(names[id(p)] for p in group["params"])
        for group in optimiser.param_groups
    }
    assert found == {
        1 / (40 * 0.25): ["network.0.weight", "network.2.weight"],
        1 / (40 * 4.0): ["network.0.bias", "network.2.bias"],
        0.0: ["prior.log_odds"],  # neither the gates nor the noise scale, which follows in closed form
    }
    assert all(group["fused"] and group["lr"] == 3e-3 for group in optimiser.param_groups)
    assert [n for n, p in gated.named_parameters() if "log_scale" in n and p.requires_grad]


def test_weights_with_a_posterior_do_not_decay_and_their_scales_are_learnt():
    gated = small_gated(EXACT["fixed"], weights=SPREAD)
    (group,) = adam(gated, 3e-3).param_groups
    assert group["weight_decay"] == 0.0
    assert {id(p) for p in group["params"]} == {id(p) for p in gated.parameters()} - {id(gated.log_odds)}
    assert len(group["params"]) == 8  # two weights, two biases, and a scale of each


def test_nothing_to_learn_beside_points_is_no_group():
    (group,) = adam(small_gated(EXACT["fixed"]), 3e-3).param_groups
    assert group["weight_decay"] == pytest.approx(1 / (40 * 0.49)) and len(group["params"]) == 4


@pytest.mark.parametrize(
    ("rows", "batch", "steps"),
    [(100, 50, 10), (60_000, 128, 100), (3000, 64, 47), (1000, 101, 10), (1049, 100, 10), (1051, 100, 11)],
)
def test_closed_forms_are_averaged_over_an_epoch_of_10_to_100_steps(rows, batch, steps):
    assert _window(rows, batch) == steps


def test_the_likelihood_is_told_of_the_targets_and_of_the_window_after_the_step():
    gated, told = small_gated(EXACT["fixed"], rows=140), []
    gated.likelihood.follow_ = lambda *given: told.append(given)
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    x, y = small_batch()
    engine.step(engine.init(), (x, y))
    ((targets, window),) = told
    assert targets is y and window == 20


def test_autocast_around_a_step_is_refused():
    gated = small_gated(EXACT["fixed"])
    engine = Engine(gated, Recipe())
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(SettingsError, match=r"^A training step runs inside of torch.autocast\('cpu'\)"),
    ):
        engine.step(engine.init(), small_batch())


@pytest.mark.parametrize("estimator", [Recipe().estimator, "enumeration"])
@pytest.mark.parametrize("weights", [HALF, SPREAD, SLAB], ids=["points", "Gaussian", "spike and slab"])
def test_a_step_is_where_the_network_is_whatever_the_default_device(weights, estimator):
    def stepped(default):
        gated, batch = small_gated(EXACT["flattening"], weights=weights), small_batch()
        with torch.device(default):
            engine = Engine(gated, Recipe(gates=FREE, estimator=estimator))
            state, info = engine.step(engine.init(), batch)
            exact = exact_negative_elbo(gated, *batch).detach()
        return state.velocity, gated.log_odds.detach(), info.nll, exact

    for found, expected in zip(stepped("meta"), stepped("cpu"), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_mode_without_gradients_around_a_step_is_refused(mode):
    engine = Engine(small_gated(EXACT["fixed"]), Recipe())
    with (
        mode(),
        pytest.raises(SettingsError, match=rf"^A training step runs inside of torch.{mode.__name__}"),
    ):
        engine.step(engine.init(), small_batch())


# ---- noise on units


def noisy(**settings):
    gated = small_gated(EXACT["fixed"], **settings)
    gated.unit_noise = {"0": 0.4}
    return Engine(gated, Recipe(), seed=3)


def drawn(rows=7, units=3, seed=3):
    return uniform_factors((rows, units), 0.4, torch.zeros((), dtype=torch.double), seeded(seed))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_without_gates_units_are_multiplied_by_drawn_factors():
    found = noisy()._noise(7, {}, {})
    assert found.keys() == {"0"} and torch.equal(found["0"], drawn())
    assert torch.equal(noisy(removed=True)._noise(7, {}, {})["0"], drawn(units=2))


def test_gates_of_groups_without_noise_stay_as_they_are():
    gates = {"input": torch.ones(7, 2, dtype=torch.double)}
    found = noisy()._noise(7, gates, {})
    assert found["input"] is gates["input"] and torch.equal(found["0"], drawn())
    assert gates.keys() == {"input"}


@pytest.mark.parametrize("shape", [(7, 3), (1, 3), (5, 1, 3), (5, 7, 3)])
@pytest.mark.parametrize("slope", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_gates_are_multiplied_by_the_factors_that_are_given_or_drawn(shape, slope, given):
    gate = torch.randint(2, shape, generator=seeded(0)).double().requires_grad_(slope)
    factors = {"0": drawn(seed=8)} if given else {}
    kept = drawn(seed=8 if given else 3)
    found = noisy()._noise(7, {"0": gate}, factors)["0"]
    torch.testing.assert_close(found, gate * kept, rtol=0, atol=0)
    assert found.requires_grad is slope
    if given and slope:  # an estimator may ask for the same noise again
        assert torch.equal(factors["0"], kept)
    if slope:
        (gradient,) = torch.autograd.grad(found.sum(), gate)
        torch.testing.assert_close(gradient, kept.expand_as(found).sum_to_size(shape))


def test_the_loss_of_a_decided_step_is_that_of_the_noisy_network():
    """Of one row only, so that the factors are those of the row: the network run with them as gates."""
    engine = noisy(weights=priors.NormalWeights(scale=0.7))
    gated, (x, y) = engine.gated, small_batch()
    expected = gated.likelihood.nll(gated.network(x, {"0": drawn()}), y).mean().detach()
    state, info = engine.step(type(engine.init())(**{**vars(engine.init()), "decided": True}), (x, y))
    torch.testing.assert_close(info.nll, expected)
    assert not info.nll.requires_grad and not info.moved and state.step == 1


def test_the_problem_of_an_estimator_is_that_of_the_batch():
    engine = noisy()
    (x, y), gated = small_batch(), engine.gated
    problem = engine._problem(x, y)
    assert problem.generator is engine.generator and problem.unit_noise == {"0": 0.4}
    gates = {"input": torch.tensor([[1.0, 0.0]]), "0": torch.tensor([[0.0, 1.0, 1.0]])}
    factors = {"0": drawn(seed=8)}
    expected = gated.likelihood.nll(
        gated.network(x, {"input": gates["input"], "0": gates["0"] * factors["0"]}), y
    )
    torch.testing.assert_close(problem.nll(gates, factors), expected)
    fresh = gated.likelihood.nll(gated.network(x, {"input": gates["input"], "0": gates["0"] * drawn()}), y)
    torch.testing.assert_close(problem.nll(gates), fresh)


# ---- noise and priors of the weights


def test_a_step_on_weights_with_a_posterior_draws_them_by_the_engines_generator():
    gated = small_gated(EXACT["fixed"], weights=SPREAD)
    x, y = small_batch()
    engine = Engine(gated, Recipe(), seed=4)
    noise = WeightNoise(gated, seeded(4))
    expected = gated.likelihood.nll(gated.network(x, {}, noise), y)
    torch.testing.assert_close(engine._nll(x, y, {}), expected)
    quiet = gated.likelihood.nll(gated.network(x, {}), y)
    assert not torch.allclose(expected, quiet)


MIXED = priors.NormalWeights(
    scale={"*.bias": 2.0, "0.weight": 0.3, "*": 0.5}, posterior="normal", masked=True, initial_scale=0.2
)


def test_every_weight_is_measured_in_the_scale_of_its_own_prior():
    gated = small_gated(EXACT["fixed"], weights=MIXED, likelihood=Indifferent(rows=40))
    probs = gated.inclusion_prob().detach()
    learnt = {n: p for n, p in gated.named_parameters() if n != "log_odds"}
    slopes = torch.autograd.grad(weight_nats(gated, probs), list(learnt.values()))
    before = copies(gated)
    engine = by_gradient_descent(Engine(gated, Recipe(estimator="enumeration", gates=FREE)))
    engine.step(engine.init(), small_batch())
    for (name, parameter), slope in zip(learnt.items(), slopes, strict=True):
        torch.testing.assert_close(before[name] - parameter.detach(), slope / 40, rtol=1e-9, atol=1e-12)


def test_the_slabs_price_of_a_unit_is_that_of_the_weights_that_make_it():
    gated = small_gated(EXACT["fixed"], weights=MIXED, likelihood=Indifferent(rows=40))
    probs = gated.inclusion_prob().detach().requires_grad_()
    (expected,) = torch.autograd.grad(gate_nats(gated, probs) + weight_nats(gated, probs), probs)
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    torch.testing.assert_close(engine._prior_slope(), expected)
    assert all(p.grad is None for p in gated.parameters())


def test_a_prior_that_does_not_hang_on_the_gates_has_no_slope():
    """A closed form without q(z = 1) in it: a constant."""

    class Constant(priors.BernoulliGates):
        def penalty(self, group, inclusion_prob):
            return torch.zeros((), requires_grad=True).sum()

    gated = small_gated(priors.BernoulliGates(priors.Flattening(1.0)))
    gated.prior = Constant(priors.Flattening(1.0))  # gate would refuse a penalty that is not the program's
    engine = Engine(gated, Recipe(estimator="enumeration", gates=FREE))
    assert torch.equal(engine._prior_slope(), torch.zeros(5))


# ---- the decision


@pytest.fixture
def run():
    from bayesprune.svi.batches import Batches
    from bayesprune.svi.training import Training

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    prior = priors.BernoulliGates(priors.Flattening(1.0))
    gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=32))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 4, generator=generator)
    batches = Batches((x, (x[:, 0] > 0).long()), 8, torch.device("cpu"), 0)
    recipe = Recipe(
        gates=GateSteps(), learning_rate=1e-2, compact_learning_rate=3e-3, warmup=0.0, ramp=0.1, decide=0.5
    )
    return Training(gated, steps=4 * batches.steps, recipe=recipe, rows=batches)


def first(run):
    return next(iter(run.batches.epoch(0)))


def test_adams_moments_live_on_past_the_decision(run):
    for batch in run.batches.epoch(0):
        run.step_on_([batch])
    names = {id(p): n for n, p in run.gated.named_parameters()}
    before = {names[id(p)]: s for p, s in run.engine.optimiser.state.items()}
    run.enter_compact_()
    after = {names[id(p)]: s for p, s in run.engine.optimiser.state.items()}
    assert {"step", "exp_avg", "exp_avg_sq"} <= set(before["network.0.weight"])
    assert after.keys() == before.keys()
    for name, moments in before.items():
        for key, value in moments.items():
            assert torch.equal(value, after[name][key]), (name, key)
            assert float(after[name]["step"]) == 4


def test_a_step_after_the_decision_is_adams_own(run):
    """By hand: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², both corrected for five steps."""
    for batch in run.batches.epoch(0):
        run.step_on_([batch])
    run.decide()
    (weight,) = (p for n, p in run.gated.network.named_parameters() if n == "2.weight")
    moments = {k: v.clone() for k, v in run.engine.optimiser.state[weight].items()}
    x, y = first(run)
    old = weight.detach().clone()
    loss = run.gated.likelihood.nll(run.gated.network(x, {}), y).mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    gradient = gradient + old / (32 * run.gated.weights.scale_of("2.weight") ** 2)  # their prior, per row
    run.step_on_([(x, y)])
    mean = (0.9 * moments["exp_avg"] + 0.1 * gradient) / (1 - 0.9**5)
    square = (0.999 * moments["exp_avg_sq"] + 0.001 * gradient.square()) / (1 - 0.999**5)
    torch.testing.assert_close(weight.detach(), old - 3e-3 * mean / (square.sqrt() + 1e-8))
