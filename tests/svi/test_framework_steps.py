"""Steps that a framework takes: by closures, by scalers of its own, on an optimiser that it was handed."""

import warnings

import pytest
import torch

import bayesprune as bp
from bayesprune.errors import ClockWarning, EmptyGroupWarning, ProcessError
from tests.svi.fits import FAST, data, gated_for

STEPS = 36
MAKERS = {
    "default": None,
    "SGD": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9),
    "Adam, fused": lambda ps: torch.optim.Adam(ps, lr=1e-2, fused=True),
}


def begun(make=None, **recipe):
    recipe = bp.Recipe(**{**FAST, **recipe})
    return bp.Training(gated_for(price=0.5), steps=STEPS, optimizer=make, recipe=recipe)


def batch(step):
    x, y = data()
    rows = slice(16 * (step % 6), 16 * (step % 6) + 16)
    return x[rows], y[rows]


def looped(training, take):
    """A loop in which ``take`` takes a step; the bits that it ends with."""
    torch.manual_seed(7)  # of dropout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        warnings.simplefilter("ignore", ClockWarning)
        for step in range(STEPS):
            take(training, step)
        training.finish()
    return {**dict(training.gated.state_dict()), "steps": torch.tensor(training.steps)}


def alike(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def plain(training, step):
    training.loss(batch(step)).backward()
    training.step()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_closure_that_takes_the_loss_within_the_step_is_the_same_step(make):
    """As Lightning's automatic optimisation does: loss, gradients to zero, backward, all within ``step``."""

    def closed(training, step):
        def closure():
            loss = training.loss(batch(step))
            training.optimizer.zero_grad()
            loss.backward()
            return loss

        assert bool(training.optimizer.step(closure) > 0)

    expected = looped(begun(make), plain)
    assert int(expected["steps"]) == STEPS and not bool(expected["alive"].all())
    alike(looped(begun(make), closed), expected)


@pytest.mark.parametrize("spread", ["points", "normal"])
def test_whoever_holds_the_default_optimiser_steps_it_beyond_the_decision(spread):
    """The decision changes its decays, and may bring further parameters."""
    recipe = {"compact_scale": 0.5, "compact_weights": spread}
    training = begun(**recipe)
    held = training.optimizer

    def outside(training, step):
        training.loss(batch(step)).backward()
        held.step()

    expected = looped(begun(**recipe), plain)
    alike(looped(training, outside), expected)
    assert training.optimizer is held
    decays = {group["weight_decay"] for group in held.param_groups}
    assert decays != {group["weight_decay"] for group in begun(**recipe).optimizer.param_groups}


@pytest.mark.parametrize("zeroed", ["after the step", "before backward"])
@pytest.mark.parametrize("make", [MAKERS["SGD"], MAKERS["Adam, fused"]], ids=["SGD", "Adam, fused"])
def test_a_step_that_anothers_scaler_leaves_out_says_nothing_to_the_gates(make, zeroed):
    """Transformers zeroes gradients after a step, Lightning between the next loss and its backward pass."""

    def scaled(training, step, own):
        loss = training.loss(batch(step))
        if not own and zeroed == "before backward":
            training.optimizer.zero_grad()
        scaler.scale(loss).backward()
        if step in (5, 6):
            next(training.gated.network.parameters()).grad.fill_(torch.inf)
        if own:
            assert (training.step(scaler) is None) == (step in (5, 6))
            return
        scaler.step(training.optimizer)
        scaler.update()
        if zeroed == "after the step":
            training.optimizer.zero_grad()

    found = []
    for own in (True, False):
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
        found.append(looped(begun(make), lambda training, step, own=own: scaled(training, step, own)))
    assert int(found[0]["steps"]) == STEPS - 2 and bool(found[1]["log_odds"].isfinite().all())
    alike(found[1], found[0])


def test_accumulated_batches_are_still_one():
    """Gradients that were not set to None, or not yet there, leave out no batch."""

    def parted(training, step):
        x, y = batch(step)
        for half in (slice(0, 8), slice(8, 16)):
            (training.loss((x[half], y[half])) / 2).backward()
        assert training.engine.opened == 2
        training.step()

    def together(training, step):
        x, y = batch(step)
        losses = [training.loss((x[half], y[half])) for half in (slice(0, 8), slice(8, 16))]
        (sum(losses) / 2).backward()
        assert training.engine.opened == 2
        training.step()

    one, other = looped(begun(MAKERS["SGD"]), parted), looped(begun(MAKERS["SGD"]), together)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_a_training_that_was_made_before_processes_met_is_refused(monkeypatch):
    """Each process would prune a network of its own, without a word."""
    training = begun()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    with pytest.raises(ProcessError, match=r"step 1 there are 2 processes, .* Make it after torch"):
        training.loss(batch(0))
