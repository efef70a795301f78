"""bp.Training: an existing loop keeps its optimiser, and loses no duty that could be forgotten."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import (
    BudgetWarning,
    CheckpointError,
    ClockWarning,
    DataError,
    EmptyGroupWarning,
    LikelihoodError,
    LossScaleWarning,
    PriorWarning,
    SettingsError,
)
from bayesprune.svi.optimisers import decays
from tests.svi.fits import FAST, data, gated_for, network

STEPS = 36
OPTIMISERS = {
    "SGD": lambda ps: torch.optim.SGD(ps, lr=0.05),
    "SGD with momentum": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True),
    "Adam, one tensor at a time": lambda ps: torch.optim.Adam(ps, lr=1e-2, foreach=False),
    "Adam, foreach": lambda ps: torch.optim.Adam(ps, lr=1e-2, foreach=True),
    "Adam, fused": lambda ps: torch.optim.Adam(ps, lr=1e-2, fused=True, amsgrad=True),
    "Adam, capturable": lambda ps: torch.optim.Adam(ps, lr=torch.tensor(1e-2), capturable=False),
    "AdamW": lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0),
    "NAdam": lambda ps: torch.optim.NAdam(ps, lr=1e-2),
    "RAdam": lambda ps: torch.optim.RAdam(ps, lr=1e-2),
    "RMSprop": lambda ps: torch.optim.RMSprop(ps, lr=1e-2, momentum=0.5, centered=True),
    "Adagrad": lambda ps: torch.optim.Adagrad(ps, lr=1e-2),
    "Adadelta": lambda ps: torch.optim.Adadelta(ps, lr=1.0),
    "Adamax": lambda ps: torch.optim.Adamax(ps, lr=1e-2),
    "ASGD": lambda ps: torch.optim.ASGD(ps, lr=0.05),
    "Rprop": lambda ps: torch.optim.Rprop(ps, lr=1e-3),
    "Adafactor": lambda ps: torch.optim.Adafactor(ps, lr=1e-2),
}


def begun(optimizer=None, gated=None, steps=STEPS, recipe=None, **settings):
    recipe = recipe or bp.Recipe(**FAST)
    return bp.Training(gated or gated_for(), steps=steps, optimizer=optimizer, recipe=recipe, **settings)


def batches(size=16):
    x, y = data()
    return list(zip(x.split(size), y.split(size), strict=True))


def trained(training, steps=None, each=None):
    """An existing loop."""
    passes = batches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        for step in range(training.steps, steps or training.schedule.steps):
            loss = training.loss(passes[step % len(passes)])
            loss.backward()
            if each is not None:
                each(step)
            training.step()
    return training


def finished(training):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClockWarning)
        warnings.simplefilter("ignore", EmptyGroupWarning)
        return training.finish()


# ---- any optimiser


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_every_optimiser_of_pytorch_learns_and_is_cut(make):
    training = trained(begun(make))
    kept = sum(training.gated.kept().values())
    assert training.decided and kept < len(training.gated.alive)
    for parameter, state in training.optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.numel() > 1:
                assert all(s in (1, p) for s, p in zip(value.shape, parameter.shape, strict=True)), key
    held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert held <= {id(p) for p in training.gated.parameters()}
    assert all(bool(p.isfinite().all()) for p in training.gated.parameters())
    first, last = training.history[0].nll, min(epoch.nll for epoch in training.history)
    assert last < first
    x, _ = data()
    small, gated = finished(training), training.gated.eval()
    torch.testing.assert_close(small(x), gated(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_moments_are_cut_with_their_parameters(fused):
    """A fused kernel would go on with the moments of removed rows, without a word."""
    training = begun(lambda ps: torch.optim.Adam(ps, lr=1e-2, fused=fused))
    trained(training, 8)
    names = dict(training.gated.named_parameters())
    before = {
        n: training.optimizer.state[p]["exp_avg"].clone()
        for n, p in names.items()
        if p in training.optimizer.state
    }
    sizes = {n: p.shape for n, p in names.items()}
    dead = torch.zeros_like(training.gated.alive)
    dead[training.gated.slices()["5"].start] = True
    training.engine.remove_(dead & training.gated.alive)
    changed = [n for n, p in training.gated.named_parameters() if p.shape != sizes[n]]
    assert changed
    for name, parameter in training.gated.named_parameters():
        if name in before:
            moment = training.optimizer.state[parameter]["exp_avg"]
            assert moment.shape == parameter.shape
            assert torch.isin(moment, before[name]).all()


def test_default_of_training_is_that_of_fit():
    x, y = data()
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        fitted = bp.fit(gated_for(net=smooth()), loader, epochs=6, recipe=bp.Recipe(**FAST), progress=False)
        own = trained(begun(gated=gated_for(net=smooth())))
        result = own.result()
    for (name, a), b in zip(
        result.gated.state_dict().items(), fitted.gated.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert [e.kept for e in result.history] == [e.kept for e in fitted.history]
    assert [e.nll for e in result.history] == pytest.approx([e.nll for e in fitted.history], rel=1e-6)


@pytest.mark.parametrize("optimiser", ["SGD", "AdamW"])
def test_prior_of_weights_is_in_the_gradient_of_any_optimiser(optimiser):
    """∂/∂w of the negative ELBO per row is that of the mean loss and w / (N s²)."""
    seen = {}
    gated = gated_for()
    training = begun(OPTIMISERS[optimiser], gated)

    def watch(optimizer, args, kwargs):
        seen.update(
            {id(p): p.grad.clone() for g in optimizer.param_groups for p in g["params"] if p.grad is not None}
        )

    loss = training.loss(batches()[0])
    loss.backward()
    of_loss = {n: p.grad.clone() for n, p in gated.named_parameters() if p.grad is not None}
    training.optimizer.register_step_pre_hook(watch)
    weights = {n: p.detach().clone() for n, p in gated.weight_tensors().items()}
    training.step()
    rows = gated.likelihood.rows
    for name, parameter in gated.weight_tensors().items():
        prior = weights[name] / (rows * gated.weights.scale_of(name) ** 2)
        torch.testing.assert_close(seen[id(parameter)], of_loss[f"network.{name}"] + prior)


def test_sgd_settles_at_the_mode_of_prior_and_likelihood():
    """Linear-Gaussian: the mode is that of ridge regression, whatever the optimiser, decoupled or not."""
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 * torch.randn(64)
    scale, noise = 0.5, 0.3
    found = []
    for make in (
        lambda ps: torch.optim.SGD(ps, lr=0.02),
        lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0),
        None,
    ):
        likelihood = bp.Own(rows=64, distribution=lambda o: torch.distributions.Normal(o.squeeze(-1), noise))
        net = nn.Sequential(nn.Linear(3, 1, bias=False))
        prior = priors.BernoulliGates(priors.Flattening(1e-6))
        gated = bp.gate(net, x[:2], prior=prior, likelihood=likelihood, weights=priors.NormalWeights(scale))
        gated.log_odds.data.fill_(30.0)
        recipe = bp.Recipe(warmup=0.0, ramp=0.0, decide=0.0, learning_rate=1e-2)
        training = bp.Training(gated, steps=1_500, optimizer=make, recipe=recipe)
        for _ in range(1_500):
            training.loss((x, y)).backward()
            training.step()
        found.append(next(gated.network.parameters()).detach().flatten())
    exact = torch.linalg.solve(x.T @ x / noise**2 + torch.eye(3) / scale**2, x.T @ y / noise**2)
    for weights in found:
        torch.testing.assert_close(weights, exact, atol=2e-3, rtol=2e-3)


def test_a_decay_of_its_own_is_told():
    with pytest.warns(PriorWarning, match=r"SGD\(weight_decay=0.01\) is a Gaussian prior of its own.*1.02"):
        begun(lambda ps: torch.optim.SGD(ps, lr=0.1, weight_decay=0.01))
    with pytest.warns(PriorWarning, match="AdamW.*the gradient of no prior"):
        begun(torch.optim.AdamW)


def test_optimisers_that_do_not_fit_are_refused():
    net, gated = network(), gated_for()
    with pytest.raises(SettingsError, match=r"no parameters of the gated model.*gated\.parameters\(\)"):
        begun(torch.optim.SGD(net.parameters(), lr=0.1), gated)
    first = [p for n, p in gated.named_parameters() if n.startswith("network.0")]
    with pytest.raises(SettingsError, match=r"does not hold network\.1\.weight.*requires_grad_"):
        begun(torch.optim.SGD(first, lr=0.1), gated)
    with pytest.raises(SettingsError, match="LBFGS runs the loss again"):
        begun(torch.optim.LBFGS)
    with pytest.raises(SettingsError, match="maximize=True"):
        begun(lambda ps: torch.optim.SGD(ps, lr=0.1, maximize=True))
    with pytest.raises(SettingsError, match="must be an optimiser"):
        begun("adam")
    with pytest.raises(SettingsError, match="made a list"):
        begun(lambda ps: ps)
    training = trained(begun(gated=gated))
    with pytest.raises(SettingsError, match="have been removed"):
        begun(torch.optim.SGD([*gated.parameters(), nn.Parameter(torch.zeros(3))], lr=0.1), gated)
    assert training.decided


def test_what_a_users_optimiser_does_not_hold_of_prior_and_guide_is_learnt_beside_it():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.0))

        def forward(self, group):
            return priors.Gates(logits=self.rate.expand(group.size))

    prior = Learnt()
    gated = bp.gate(network(), data()[0][:2], prior=prior, likelihood=bp.Categorical(rows=96))
    optimizer = torch.optim.SGD(gated.network.parameters(), lr=0.05)
    training = bp.Training(gated, steps=STEPS, optimizer=optimizer, recipe=bp.Recipe(**FAST))
    trained(training, 20)
    assert float(gated.prior.rate.detach()) != 0.0


# ---- losses as a loop treats them


def test_accumulated_batches_are_one_large_batch():
    """With the same noise: gates' and weights' steps after four quarters are those of the whole."""
    ended = []
    for parts in (1, 4):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 2))
        gated = gated_for(net=net).double()
        training = begun(lambda ps: torch.optim.SGD(ps, lr=0.1), gated)
        generator = torch.Generator().manual_seed(3)
        noise = torch.rand(STEPS, 96, len(gated.alive), dtype=torch.float64, generator=generator)
        place = [0]

        def told(problem, want_gates=True, place=place, noise=noise, training=training, parts=parts):
            from bayesprune.svi.estimators.problem import Estimate, gradient_of

            step, part = training.steps, place[0] % parts
            place[0] += 1
            rows = slice(part * problem.rows, (part + 1) * problem.rows)
            living = training.gated.alive
            z = (noise[step, rows][:, living] < problem.probs).double().requires_grad_()
            loss = problem.nll(problem.split(z)).mean()
            return Estimate(loss, lambda factor: gradient_of(z, factor).sum(0))

        training.engine.estimator = told
        x, y = data()
        x = x.double()
        for _ in range(12):
            for part in range(parts):
                rows = slice(part * 96 // parts, (part + 1) * 96 // parts)
                (training.loss((x[rows], y[rows])) / parts).backward()
            training.step()
        ended.append(
            {**{n: p.detach().clone() for n, p in gated.named_parameters()}, "v": training.state.velocity}
        )
    for (name, a), b in zip(ended[0].items(), ended[1].values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6, msg=name)


def test_a_loss_that_is_held_does_not_keep_parameters_from_shrinking():
    """A loop's variable holds the last loss, and its graph the node that adds up a parameter's gradient."""
    training, held = begun(OPTIMISERS["SGD"]), []
    passes = batches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        for step in range(STEPS):
            held.append(training.loss(passes[step % 6]))
            held[-1].backward()
            training.step()
    assert not bool(training.gated.alive.all())


def test_losses_that_are_not_averaged_are_told():
    training = begun(OPTIMISERS["SGD"])
    for batch in batches()[:4]:
        training.loss(batch).backward()
    with pytest.warns(LossScaleWarning, match=r"4 batches.* come to 4: .*\(training.loss\(batch\) / 4\)"):
        training.step()


def test_fit_accumulates_and_clips():
    norms = []

    class Watch(bp.Callback):
        def on_start(self, training):
            def look(optimizer, args, kwargs):
                decay = {id(p): d for d, ps in decays(training.gated).items() for p in ps}
                held = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
                of_loss = [p.grad - decay.get(id(p), 0.0) * p.detach() for p in held]
                norms.append(float(torch.nn.utils.get_total_norm(of_loss)))

            training.optimizer.register_step_pre_hook(look)
            self.steps = training.schedule.steps

    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        result = bp.fit(
            gated_for(), data(), epochs=6, batch_size=16, recipe=bp.Recipe(**FAST), progress=False,
            optimizer=lambda ps: torch.optim.SGD(ps, lr=0.05), accumulate=2, clip_norm=0.01,
            callbacks=[watch],
        )  # fmt: skip
    assert watch.steps == 18 == len(norms)
    assert max(norms) == pytest.approx(0.01, rel=1e-3)  # of the likelihood's; the prior's comes on top
    assert result.history[-1].undecided == 0


def test_a_step_without_a_loss_or_without_backward_is_refused():
    training = begun(OPTIMISERS["SGD"])
    with pytest.raises(SettingsError, match="no loss was"):
        training.step()
    training.loss(batches()[0])
    with pytest.raises(SettingsError, match=r"call loss\.backward\(\)"):
        training.step()


def test_steps_past_the_schedule_are_refused_and_nothing_is_lost():
    training = trained(begun(OPTIMISERS["SGD"]))
    with pytest.raises(SettingsError, match=r"planned for steps=36, and this would be step 37"):
        training.loss(batches()[0])
    assert isinstance(finished(training), nn.Module)
    with pytest.raises(SettingsError, match="schedule is over"):
        training.loss(batches()[0])


def test_autocast_left_on_around_a_step_is_refused():
    training = begun(OPTIMISERS["SGD"])
    with torch.autocast("cpu", torch.bfloat16):
        training.loss(batches()[0]).backward()
        with pytest.raises(SettingsError, match="autocast"):
            training.step()


def test_units_removed_by_a_decision_within_autocast_are_not_read_from_its_cache():
    training = begun(OPTIMISERS["SGD"])
    x, y = batches()[0]
    with torch.autocast("cpu", torch.bfloat16):
        training.loss((x, y))  # weights are cast, and kept till the context ends
        training.gated.log_odds.data[1::2] = -1.0
        training.decide()
        loss = training.loss((x, y))
    assert bool(loss.isfinite()) and training.gated.kept() == {"0": 2, "4": 4, "5": 4}


def test_batches_that_do_not_fit_are_refused():
    training = begun(OPTIMISERS["SGD"])
    x, y = batches()[0]
    with pytest.raises(DataError, match="batch of step 1"):
        training.loss((x[:, :, :5], y))
    with pytest.raises(LikelihoodError, match="batch of step 1"):
        training.loss((x, y + 7))
    with pytest.raises(DataError, match="batch of step 1"):
        training.loss(x)


def test_targets_of_which_all_are_asked_for_are_asked_for():
    x = torch.randn(96, 3)
    y = 40 + 7 * x[:, :1]
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    prior = priors.BernoulliGates(priors.Flattening(1.0))

    def gated():
        return bp.gate(net, x[:2], prior=prior, likelihood=bp.Gaussian(rows=96))

    with pytest.raises(SettingsError, match=r"Gaussian begins from .*rows="):
        bp.Training(gated(), steps=STEPS).loss((x, y))
    training = bp.Training(gated(), steps=400, rows=(x, y), recipe=bp.Recipe(**FAST))
    for _ in range(400):
        training.loss((x, y)).backward()
        training.step()
    assert bp.evaluate(training.result(), (x, y)).score < 1.5


# ---- budgets, copies, callbacks


def test_a_budget_is_kept_in_a_loop_of_ones_own():
    prior = bp.Budget(macs=0.4)
    gated = bp.gate(network(), data()[0][:2], prior=prior, likelihood=bp.Categorical(rows=96))
    training = begun(OPTIMISERS["SGD with momentum"], gated, steps=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetWarning)
        trained(training)
        small = finished(training)
    cost = bp.count(small, data()[0][:2]).macs
    assert cost <= 0.4 * gated.dense_macs and cost > 0.2 * gated.dense_macs


def averaging(training, ema, inner):
    """An existing loop that averages after every step."""
    passes = batches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        for step in range(STEPS):
            training.loss(passes[step % 6]).backward()
            training.step()
            ema.update_parameters(inner)
            yield step


@pytest.mark.parametrize("of", ["model", "network"])
def test_averaged_copies_are_cut_along(of):
    gated = gated_for()
    inner = gated if of == "model" else gated.network
    ema = AveragedModel(inner, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    training = begun(OPTIMISERS["AdamW"], gated, also=[ema])
    for _ in averaging(training, ema, inner):
        pass
    assert training.decided and not bool(gated.alive.all())
    own, other = dict(inner.named_parameters()), dict(ema.module.named_parameters())
    assert {n: p.shape for n, p in own.items()} == {n: p.shape for n, p in other.items()}
    assert any(not torch.equal(own[n], other[n]) for n in own)
    small = bp.prune(ema.module) if of == "model" else ema.module.plain()
    x, _ = data()
    assert small.eval()(x).shape == (96, 2)
    with pytest.raises(SettingsError, match=r"also= holds a Linear"):
        begun(also=[nn.Linear(2, 2)])


def test_an_averaged_copy_is_the_average_of_what_the_model_was():
    """Cut along, it is what it would be if the removed units had never been there."""
    gated = gated_for()
    ema = AveragedModel(gated, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    training = begun(OPTIMISERS["SGD"], gated, also=[ema])
    expected = torch.zeros(2, 8)  # of the last layer's weights, by the units that they read
    for step in averaging(training, ema, gated):
        left = gated.by_group(gated.alive)["5"]
        weight = gated.network.get_parameter("9.weight").detach()
        expected[:, left] = weight if step == 0 else expected[:, left].lerp(weight, 0.5)
    assert 0 < int(left.sum()) < 8
    torch.testing.assert_close(ema.module.network.get_parameter("9.weight").detach(), expected[:, left])


@pytest.mark.parametrize("unit", [1.0, 100.0])
@pytest.mark.parametrize("of", ["model", "network"])
def test_an_averaged_copy_begins_in_the_targets_own_unit_too(of, unit):
    """It was made before the training had seen the targets, and is the network where it forgets at once."""
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    y = unit * (x[:, :1] + 0.1 * torch.randn(64, 1) + 3)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    prior = priors.BernoulliGates(priors.Flattening(3.0))
    gated = bp.gate(network, x[:2], prior=prior, likelihood=bp.Gaussian(rows=64))
    inner = gated if of == "model" else gated.network
    ema = AveragedModel(inner, multi_avg_fn=get_ema_multi_avg_fn(0.0), use_buffers=True)
    recipe = bp.Recipe(compact_weights="points")
    training = bp.Training(gated, steps=60, rows=(x, y), also=[ema], recipe=recipe)
    for _ in range(60):
        training.loss((x, y)).backward()
        training.step()
        ema.update_parameters(inner)
    graph = gated.network if of == "network" else gated
    with torch.no_grad():
        torch.testing.assert_close(ema.module.eval()(x), graph.eval()(x))


class Log(bp.Callback):
    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_start(self, training):
        self.seen.append("start")

    def on_step(self, training, info):
        self.seen.append("step")
        assert info.nll.isfinite()
        if training.steps == self.stop_at:
            training.stop()

    def on_removal(self, training, removed):
        self.seen.append("removal")
        assert removed and all(n > 0 for n in removed.values())

    def on_decision(self, training):
        self.seen.append("decision")
        assert training.decided

    def on_epoch(self, training, epoch):
        self.seen.append("epoch")

    def on_end(self, training):
        self.seen.append("end")


@pytest.mark.parametrize("own", [True, False], ids=["own loop", "fit"])
def test_callbacks_see_everything(own):
    log = Log()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        if own:
            finished(trained(begun(OPTIMISERS["SGD"], callbacks=[log])))
        else:
            bp.fit(
                gated_for(),
                data(),
                epochs=6,
                batch_size=16,
                recipe=bp.Recipe(**FAST),
                progress=False,
                callbacks=[log],
            )
    assert log.seen[0] == "start" and log.seen[-1] == "end"
    assert log.seen.count("step") == 36 and log.seen.count("epoch") == 6 and log.seen.count("decision") == 1
    assert "removal" in log.seen


def test_a_callback_ends_a_fit():
    log = Log(stop_at=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = bp.fit(
            gated_for(),
            data(),
            epochs=6,
            batch_size=16,
            recipe=bp.Recipe(**FAST),
            progress=False,
            callbacks=[log],
        )
    assert log.seen.count("step") == 10 and log.seen[-1] == "end" and len(result.history) == 2
    assert result.undecided == 0


def test_early_stopping_gives_back_the_best_network_that_was_decided():
    x, y = data()
    scores = []
    stopper = bp.EarlyStopping(patience=2)
    weights = {}

    class Watch(bp.Callback):
        def on_epoch(self, training, epoch):
            if training.decided:
                scores.append(epoch.validation)
                weights[epoch.validation] = copy.deepcopy(training.gated.state_dict())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        result = bp.fit(
            gated_for(), (x, y), epochs=40, batch_size=16, progress=False,
            recipe=bp.Recipe(**{**FAST, "decide": 0.2, "ramp": 0.1}),
            validation=(x.flip(0) + 0.3, y.flip(0)), callbacks=[Watch(), stopper],
            optimizer=lambda ps: torch.optim.SGD(ps, lr=0.5),
        )  # fmt: skip
    assert len(result.history) < 40 and stopper.waited == 2
    best = min(scores)
    first = scores.index(best)
    assert len(scores) == first + 3
    assert bp.evaluate(result, (x.flip(0) + 0.3, y.flip(0))).score == pytest.approx(best)
    with pytest.raises(SettingsError, match="validation="):
        bp.fit(
            gated_for(),
            (x, y),
            epochs=2,
            batch_size=16,
            recipe=bp.Recipe(**FAST),
            progress=False,
            callbacks=[stopper],
        )
    with pytest.raises(SettingsError, match="averag"):
        bp.fit(
            gated_for(),
            (x, y),
            epochs=2,
            recipe=bp.Recipe(averaging=0.5),
            progress=False,
            callbacks=[stopper],
        )
    for settings in ({"patience": 0}, {"patience": True}, {"least": -1.0}):
        with pytest.raises(SettingsError, match="EarlyStopping"):
            bp.EarlyStopping(**settings)


# ---- schedulers in fit


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_a_scheduler_steps_as_asked(every):
    rates = []

    class Watch(bp.Callback):
        def on_step(self, training, info):
            rates.append(training.optimizer.param_groups[0]["lr"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        bp.fit(
            gated_for(), data(), epochs=3, batch_size=16, recipe=bp.Recipe(**FAST), progress=False,
            optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1), callbacks=[Watch()], scheduler_every=every,
            scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5),
        )  # fmt: skip
    expected = [0.1 * 0.5 ** (step if every == "step" else step // 6) for step in range(18)]
    assert rates == pytest.approx(expected)


def test_settings_of_fit_that_do_not_fit_are_refused():
    net = gated_for()
    bad = [
        ({"optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}, "goes to bp.Training"),
        ({"optimizer": 3}, "optimizer=3"),
        ({"scheduler": 3, "optimizer": torch.optim.SGD}, "scheduler=3"),
        ({"scheduler": lambda o: o}, "needs an optimizer="),
        ({"scheduler_every": "day"}, "scheduler_every='day'"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0"),
        ({"callbacks": [print]}, "bp.Callback"),
    ]
    for settings, message in bad:
        with pytest.raises(SettingsError, match=message):
            bp.fit(net, data(), epochs=1, progress=False, **settings)
    with pytest.raises(SettingsError, match="no scheduler of PyTorch"):
        bp.fit(net, data(), epochs=1, progress=False, optimizer=torch.optim.SGD, scheduler=lambda o: o)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(SettingsError, match="scheduler_every='epoch'"):
        bp.fit(net, data(), epochs=1, progress=False, optimizer=torch.optim.SGD, scheduler=plateau)
    for settings, message in (
        ({"steps": 0}, "steps=0"),
        ({"seed": -1}, "seed=-1"),
        ({"recipe": 1}, "recipe=1"),
    ):
        with pytest.raises(SettingsError, match=message):
            bp.Training(net, **{"steps": 5, **settings})


# ---- the state


@pytest.mark.parametrize("name", ["SGD with momentum", "Adam, fused", "NAdam", "Adafactor", "AdamW"])
@pytest.mark.parametrize("after", [7, 30], ids=["in selection", "decided"])
def test_a_state_goes_on_to_the_bit_equal_result(name, after):
    whole = trained(begun(OPTIMISERS[name], gated_for(net=smooth())))
    half = trained(begun(OPTIMISERS[name], gated_for(net=smooth())), after)
    state = half.state_dict()
    trained(half)  # what was taken is a copy
    other = begun(OPTIMISERS[name], gated_for(net=smooth()))
    other.load_state_dict(state)
    assert other.steps == after
    trained(other)
    for (key, a), b in zip(whole.gated.state_dict().items(), other.gated.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert [e.nll for e in whole.history] == [e.nll for e in other.history]


def smooth():
    """Without dropout, whose noise is the loop's own to keep."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    state = trained(begun(OPTIMISERS["SGD with momentum"]), 12).state_dict()
    other = begun(OPTIMISERS["SGD with momentum"], gated_for(net=smooth()))
    before = {k: v.clone() for k, v in other.gated.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not fit this training"):
        other.load_state_dict(state)
    assert other.steps == 0
    for key, value in other.gated.state_dict().items():
        assert torch.equal(value, before[key])
    late = trained(begun(OPTIMISERS["SGD"]), 2)
    with pytest.raises(SettingsError, match="has taken 2 steps"):
        late.load_state_dict(state)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("every", ["step", "epoch"])
def test_a_fit_with_ones_own_optimiser_resumes_bit_equal(tmp_path, every, accumulate):
    class Stop(Exception):
        pass

    class Stopper(bp.Callback):
        def on_epoch(self, training, epoch):
            if epoch.epoch == 4:
                raise Stop

    def run(**settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyGroupWarning)
            return bp.fit(
                gated_for(), data(), epochs=6, batch_size=16, recipe=bp.Recipe(**FAST), progress=False,
                optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9), scheduler_every=every,
                scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 36), clip_norm=1.0,
                accumulate=accumulate,
                **settings,
            )  # fmt: skip

    whole = run()
    with pytest.raises(Stop):
        run(checkpoint=tmp_path, callbacks=[Stopper()])
    resumed = run(checkpoint=tmp_path, resume=True)
    for (key, a), b in zip(
        whole.gated.state_dict().items(), resumed.gated.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), key


# ---- the model as a module


def test_a_gated_model_runs_at_its_most_probable_gates():
    training = trained(begun(OPTIMISERS["SGD"], gated_for(price=0.5)), 20)
    x, _ = data()
    gated = training.gated.eval()
    assert training.undecided()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        small = bp.prune(gated)
    torch.testing.assert_close(gated(x), small(x), atol=1e-5, rtol=1e-5)
