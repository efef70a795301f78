"""Modes of PyTorch's around a call: where nothing would be learnt they are refused; others change nothing."""

import contextlib

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import SettingsError
from bayesprune.svi import Engine

ROWS = 64
X = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def gate():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    return bp.gate(network, X[:2], prior=prior, likelihood=bp.Categorical(rows=ROWS))


def fit(gated, **settings):
    return bp.fit(gated, (X, Y), **{"epochs": 30, "batch_size": 8, "progress": False, **settings})


def step(gated):
    engine = Engine(gated, bp.Recipe())
    return engine.step(engine.init(), (X[:8], Y[:8]))


def evidence(result):
    return bp.evidence(result, (X, Y))


CALLS = {
    "gate": (lambda: None, lambda nothing: gate()),
    "fit": (gate, fit),
    "A training step": (gate, step),
    "evidence": (lambda: fit(gate(), epochs=1), evidence),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("call", CALLS)
def test_inside_of_autocast_nothing_would_be_learnt(call, dtype):
    """Casts of weights outlive the steps: twelve epochs stayed at 90 % error, without a word."""
    before, inside = CALLS[call]
    given = before()
    with (
        torch.autocast("cpu", dtype),
        pytest.raises(SettingsError, match=rf"^{call} runs inside of torch.autocast\('cpu'\).*outside"),
    ):
        inside(given)


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
@pytest.mark.parametrize("call", ["fit", "A training step"])
def test_where_gradients_are_off_nothing_can_be_learnt(call, mode):
    before, inside = CALLS[call]
    given = before()
    with (
        getattr(torch, mode)(),
        pytest.raises(SettingsError, match=rf"^{call} runs inside of torch.{mode}\(\)"),
    ):
        inside(given)


OTHERS = {
    "autocast off": lambda: torch.autocast("cpu", torch.bfloat16, enabled=False),
    "autocast of another device": lambda: torch.autocast("cuda", torch.float16),
    "gradients on inside of off": contextlib.ExitStack,
}


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("name", OTHERS)
def test_other_modes_change_nothing(name):
    usual = fit(gate())
    with torch.no_grad(), torch.enable_grad(), OTHERS[name]():
        inside = fit(gate())
    assert inside.history[-1].nll < 0.5 * inside.history[0].nll
    assert torch.equal(bp.prune(inside)(X), bp.prune(usual)(X))


def test_what_only_looks_works_in_every_mode():
    small = bp.prune(fit(gate()))
    expected = bp.evaluate(small, (X, Y), bp.Categorical(rows=ROWS))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert bp.evaluate(small, (X, Y), bp.Categorical(rows=ROWS)) == expected
            assert bp.count(small, X[:1]).parameters == sum(p.numel() for p in small.parameters())
