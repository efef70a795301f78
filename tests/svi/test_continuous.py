"""Fits under continuous gates: what a step does, what dies, what is decided, and going on from a state."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import SettingsError
from bayesprune.svi import Recipe
from bayesprune.svi.step import Engine

PRIORS = {
    "gaussian": priors.GaussianGates(weight=3.0),
    "log-normal": priors.LogNormalGates(),
    "hard concrete": priors.HardConcreteGates(priors.Flattening(6.0)),
    "mixed": priors.PerGroup(
        {"input": priors.BernoulliGates(priors.Flattening(2.0)), "*": priors.GaussianGates(weight=3.0)}
    ),
}
ROWS = 256


def problem():
    """Two of eight inputs matter, and a few of sixteen hidden units are enough."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 8, generator=generator)
    return x, (x[:, 0] * 1.5 > x[:, 1]).long()


def gated_of(prior, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return bp.gate(network, torch.zeros(1, 8), prior=prior, likelihood=bp.Categorical(rows=ROWS))


def training_of(gated, steps=400, **settings):
    return bp.Training(gated, steps=steps, recipe=Recipe(moves=None), seed=1, rows=problem(), **settings)


def run_(training, steps):
    x, y = problem()
    for step in range(steps):
        part = slice(64 * (step % 4), 64 * (step % 4 + 1))
        training.loss((x[part], y[part])).backward()
        training.step()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_a_fit_removes_units_while_it_learns_and_leaves_a_plain_network(prior):
    x, y = problem()
    result = bp.fit(
        gated_of(PRIORS[prior]), (x, y), epochs=120, batch_size=32, progress=False, recipe=Recipe(moves=None)
    )
    small, kept = bp.prune(result), result.gated.kept()
    assert isinstance(small, nn.Sequential) and [type(m) for m in small[1:]] == [
        nn.Linear,
        nn.ReLU,
        nn.Linear,
    ]
    assert next(p.shape for p in small.parameters()) == (kept["0"], kept["input"])
    assert kept["input"] < 8 and kept["0"] < 16
    at_decision = next(e for e in result.history if e.epoch == result.decided_at)
    before = result.history[at_decision.epoch - 2]
    assert sum(before.kept.values()) < 24, "units go in training, and not at the decision alone"
    assert bp.evaluate(small, (x, y), result.likelihood).score < 5.0
    assert not result.gated.continuous.live and result.at_decision.continuous.live
    torch.testing.assert_close(small(x), result.gated(x))
    assert "decided" in str(bp.diagnose(result)).lower()


def test_one_step_moves_gates_along_the_elbo_s_gradient():
    """With the same noise: ∂(mean NLL + KL/N)/∂(μ, log σ²) of the drawn batch, and nothing else."""
    gated = gated_of(PRIORS["gaussian"]).double()
    x, y = problem()
    x, y = x[:64].double(), y[:64]
    engine = Engine(gated, Recipe(), seed=7)
    state = engine.init()
    noise = torch.Generator().manual_seed(7)
    gates = {name: q.sample(64, torch.arange(len(q.loc)), noise) for name, q in gated.continuous.live.items()}
    nll = gated.likelihood.nll(gated.network(x, gates), y).mean()
    nats = gated.continuous.nats(gated.by_group(gated.alive))
    own = dict(gated.continuous.named_parameters())
    slopes = torch.autograd.grad(nll + 0.25 * nats / ROWS, list(own.values()))
    state = replace(state, prior_weight=0.25)
    loss = engine.loss(state, (x, y), unscaled=True)
    torch.testing.assert_close(loss, nll)
    loss.backward()
    engine.prepare(state)
    for name, slope in zip(own, slopes, strict=True):
        torch.testing.assert_close(own[name].grad, slope, msg=name)


def test_gates_stand_still_in_the_warm_up_and_their_noise_is_there():
    gated = gated_of(PRIORS["gaussian"])
    training = training_of(gated)
    before = {n: p.detach().clone() for n, p in gated.continuous.named_parameters()}
    run_(training, training.schedule.warmup)
    assert all(torch.equal(p, before[n]) for n, p in gated.continuous.named_parameters())
    run_(training, 1)
    assert all(bool((p != before[n]).any()) for n, p in gated.continuous.named_parameters())


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("steps", [150, 330])
def test_a_training_goes_on_to_the_bit_equal_result(prior, steps):
    """Before the decision (at 280 of 400 steps) and after it."""
    whole = training_of(gated_of(PRIORS[prior]))
    run_(whole, steps)
    state = copy.deepcopy(whole.state_dict())
    run_(whole, 400 - steps)
    other = training_of(gated_of(PRIORS[prior]))
    other.load_state_dict(state)
    assert other.decided == (steps > 280)
    run_(other, 400 - steps)
    for (name, one), two in zip(
        whole.gated.state_dict().items(), other.gated.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name
    ends = [training.result() for training in (whole, other)]
    assert ends[0].architecture == ends[1].architecture
    assert ends[0].at_decision.continuous.live.keys() == ends[1].at_decision.continuous.live.keys()


def test_checkpoints_go_through_files(tmp_path):
    x, y = problem()
    settings = {"epochs": 12, "batch_size": 64, "progress": False, "checkpoint": tmp_path / "run"}

    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 5:
            raise Stop

    whole = bp.fit(gated_of(PRIORS["gaussian"]), (x, y), **{**settings, "checkpoint": tmp_path / "whole"})
    with pytest.raises(Stop):
        bp.fit(gated_of(PRIORS["gaussian"]), (x, y), on_epoch=stop, **settings)
    resumed = bp.fit(gated_of(PRIORS["gaussian"]), (x, y), resume=True, **settings)
    assert resumed.architecture == whole.architecture
    assert torch.equal(bp.prune(resumed)(x), bp.prune(whole)(x))
    with pytest.raises(bp.errors.CheckpointError):
        bp.fit(gated_of(priors.GaussianGates(weight=9.0)), (x, y), resume=True, **settings)


def test_outputs_do_not_change_at_the_decision_but_for_the_noise():
    """The network after the decision is the one before it under the means of the gates that stayed."""
    training = training_of(gated_of(PRIORS["gaussian"]))
    run_(training, training.schedule.decide)
    x, _ = problem()
    gated = training.gated.eval()
    before = gated(x)
    training.decide()
    assert training.decided and not gated.continuous.live
    torch.testing.assert_close(gated.eval()(x), before)


def test_moments_go_with_the_weights_at_the_decision():
    """A gradient in the folded weight is that of the other over the factor, its square over the square."""
    training = training_of(gated_of(PRIORS["gaussian"]))
    run_(training, training.schedule.decide)
    weight = training.gated.network.get_parameter("2.weight")
    state = {k: v.clone() for k, v in training.optimizer.state[weight].items()}
    values = weight.detach().clone()
    dead = training.gated.by_rule(0.5)[1]
    alive = training.gated.by_group(training.gated.alive)["0"].clone()
    mean = training.gated.continuous.means()["0"]
    training.decide()
    stays = (training.gated.by_group(training.gated.alive)["0"])[alive]
    factor = mean[training.gated.by_group(training.gated.alive)["0"]]
    after = training.optimizer.state[weight]
    torch.testing.assert_close(weight.detach(), values[:, stays] * factor)
    torch.testing.assert_close(after["exp_avg"], state["exp_avg"][:, stays] / factor)
    torch.testing.assert_close(after["exp_avg_sq"], state["exp_avg_sq"][:, stays] / factor**2)
    assert dead.shape == training.gated.alive.shape


def test_an_optimiser_of_one_s_own_moves_weights_and_ours_the_gates():
    gated = gated_of(PRIORS["gaussian"])
    training = training_of(gated, optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9))
    held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert not held & {id(p) for p in gated.continuous.parameters()}
    before = {n: p.detach().clone() for n, p in gated.continuous.named_parameters()}
    run_(training, 60)
    assert all(bool((p != before[n]).any()) for n, p in gated.continuous.named_parameters())
    state = copy.deepcopy(training.state_dict())
    other = training_of(
        gated_of(PRIORS["gaussian"]), optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9)
    )
    other.load_state_dict(state)
    run_(training, 30)
    run_(other, 30)
    assert torch.equal(training.gated.log_odds, other.gated.log_odds)


def test_undecided_fits_keep_their_noise_to_the_end():
    x, y = problem()
    result = bp.fit(
        gated_of(PRIORS["gaussian"]), (x, y), epochs=30, batch_size=32, progress=False, decide=False
    )
    assert result.gated.continuous.live and result.decided_at is None
    small = bp.prune(result)
    torch.testing.assert_close(small(x), result.gated(x))
    quality = bp.evaluate(result, (x, y))
    assert quality.nll == pytest.approx(bp.evaluate(small, (x, y), result.likelihood).nll, rel=1e-5)


def test_evidence_is_held_against_what_units_paid():
    x, y = problem()
    training = training_of(gated_of(PRIORS["gaussian"]))
    run_(training, 279)
    gated = training.gated
    training.decide()
    paid = gated.continuous.paid
    before = training.at_decision.continuous
    alive = gated.by_group(gated.alive)
    for name, price in before.prices(alive).items():
        signal = before.live[name].signal().detach()
        expected = torch.where(alive[name], 1.5 * torch.log1p(signal), 0.0)
        torch.testing.assert_close(price, expected)
        torch.testing.assert_close(paid[gated.slices()[name]], expected)
    table = bp.evidence(training.result(), (x, y))
    torch.testing.assert_close(torch.as_tensor(table.price), paid[gated.alive].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_a_decided_fit_has_draws_and_they_hold_the_prior_s_constant():
    for prior in ("gaussian", "hard concrete"):
        training = training_of(gated_of(PRIORS[prior]))
        run_(training, 400)
        result = training.result()
        draws = bp.Posterior.of(result).to_arviz(draws=5, prior=20)
        assert draws["posterior"]["gate/0"].shape == (1, 5, 16)
        prior_draws = draws["prior"]["gate/0"].values
        assert (prior_draws == 1).all() if prior == "gaussian" else (prior_draws == 0).any()
        assert bp.Posterior.of(result).sizes().kept["0"].probs.max() == 1.0


def test_copies_that_are_averaged_fold_their_own_means():
    gated = gated_of(PRIORS["gaussian"])
    averaged = torch.optim.swa_utils.AveragedModel(gated)
    training = training_of(gated, also=[averaged])
    run_(training, 281)
    assert training.decided and not averaged.module.continuous.live
    with pytest.raises(SettingsError, match=r"also= holds a copy of the network alone"):
        other = gated_of(PRIORS["gaussian"])
        training_of(other, also=[copy.deepcopy(other.network)])


def test_bernoulli_fits_know_nothing_of_it():
    gated = gated_of(priors.BernoulliGates(priors.Flattening(3.0)))
    engine = Engine(gated, Recipe(), seed=0)
    assert engine.beside is None and not engine._live and engine._switches is engine._units
    assert not any(name.startswith("continuous") for name in gated.state_dict())
