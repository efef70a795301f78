"""Inferences that give whole posteriors of small problems: against enumeration, and from the command line."""

import json
from pathlib import Path
from types import SimpleNamespace

import arviz
import pyro
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli import main
from bayesprune.errors import EmptyGroupWarning, SettingsError
from bayesprune.programs import load_inference
from tests.svi.guides.regressions import enumerate_exactly, gate, rows_of

POSTERIORS = ["nuts_reference", "svi_structured"]
PROGRAM = """
import torch
import bayesprune as bp

def data():
    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1:] = 0.0  # no evidence: the posterior of their gates is the prior
    y = 2 * x[:, 0] + torch.randn(80, generator=torch.Generator().manual_seed(1))
    rows = bp.data.Split(x[:50], y[:50]), bp.data.Split(x[50:], y[50:])
    return bp.data.Dataset(name="line", train=rows[0], test=rows[1], classes=1)

def network(inputs):
    return torch.nn.Sequential(torch.nn.Linear(inputs, 1))

def model(train, classes, price=None):
    return bp.gate(
        network(3), train.x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.3)),
        likelihood=bp.Gaussian(rows=len(train.x), scale=1.0, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=2.0),
    )
"""


@pytest.fixture
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)


def infer(name, gated, x, y, epochs, seed=0):
    run = load_inference(name).infer if isinstance(name, str) else name
    return run(
        gated, bp.data.Split(x, y), epochs=epochs, batch_size=len(x), seed=seed, recipe=bp.Recipe(),
        device="cpu", checkpoint=None, resume=False, progress=False,
    )  # fmt: skip


@pytest.mark.usefixtures("double_precision")
@pytest.mark.nightly
def test_nuts_agrees_with_enumeration():
    """Tolerance 0.1 on each of three probabilities, with one seed fixed, from 200 draws after 100."""
    x, y = rows_of(3)
    exact, _ = enumerate_exactly(x, y, scale=0.5)
    assert ((exact > 0.1) & (exact < 0.9)).sum() >= 2  # not a trivial one
    result = infer("nuts_reference", gate(x, scale=0.5), x, y, epochs=20)
    assert (result.history[-1].inclusion - exact).abs().max() < 0.1
    assert result.gated.by_group(result.gated.alive)["input"].tolist() == (exact > 0.5).tolist()
    draws = result.posterior("decision").to_arviz(weights=True, rows=(x, y))
    gates, weights = draws.posterior["gate/input"].values, draws.posterior["weight/0.weight"].values
    assert gates.shape == (1, 200, 3) and weights.shape == (1, 200, 1, 3)
    assert gates.mean((0, 1)) == pytest.approx(exact.numpy(), abs=0.15)  # four standard errors of 200 draws
    assert weights.std(1).min() > 0.1
    end = result.posterior().to_arviz(draws=20).posterior["gate/input"]
    assert end.std("draw").max() == 0  # one mask
    stats = draws.sample_stats  # log q is the log-joint of these rows: all draws weigh the same
    assert abs(stats["elbo"].values).max() < 1e-2
    chains = bp.posterior.join([draws, draws])
    assert arviz.ess(chains, var_names=["weight/0.weight"])["weight/0.weight"].shape == (1, 3)


@pytest.mark.usefixtures("double_precision")
def test_draws_given_weights_are_the_enumerated_masks():
    """Two groups of gates: p(z | w, y) by Pyro's enumeration is Bayes' rule over all masks."""
    torch.manual_seed(0)
    x, network = torch.randn(12, 2), nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    y = torch.randn(12, 1)
    gated = bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.3)),
        likelihood=bp.Gaussian(rows=12, learn_scale=False),
    )  # fmt: skip
    draw = {f"weight/{name}": value.detach() for name, value in gated.weight_tensors().items()}
    program = load_inference("nuts_reference").infer.__globals__
    model = program["config_enumerate"](gated.model, "parallel")
    found = program["given"](gated, model, draw, x, y)
    scores, rows, masks = [], [], torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
    for z in masks:
        rows.append(gated.likelihood.nll(gated.outputs(x, gated.by_group(z)), y))
        prior = torch.where(z > 0, torch.tensor(0.3), torch.tensor(0.7)).log().sum()
        scores.append(prior - rows[-1].sum())
    share = torch.softmax(torch.stack(scores), 0)
    torch.testing.assert_close(found.inclusion, share @ masks, rtol=1e-9, atol=1e-9)
    drawn = (masks == found.gates).all(1).nonzero()
    of_weights = sum(
        torch.distributions.Normal(0, gated.weights.scale_of(n)).log_prob(p).sum().item()
        for n, p in gated.weight_tensors().items()
    )
    assert found.log_joint == pytest.approx(scores[int(drawn)].item() + of_weights, rel=1e-9)
    assert found.log_joint - found.log_prior == pytest.approx(-rows[int(drawn)].sum().item(), rel=1e-9)
    assert found.nll == pytest.approx((share * torch.stack(rows).mean(-1)).sum().item(), rel=1e-9)


@pytest.mark.usefixtures("double_precision")
def test_nuts_and_fit_are_under_the_same_price(monkeypatch):
    """Weights as one draw has them: the log-odds of a gate are what its unit saves, minus the price."""
    torch.manual_seed(0)
    x = torch.randn(12, 2)
    x[:, 1] = 0.0  # no evidence: its log-odds are minus the price
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(20.0))
    network, likelihood = nn.Sequential(nn.Linear(2, 1)), bp.Gaussian(rows=12, learn_scale=False)
    gated = bp.gate(network, x, prior=prior, likelihood=likelihood)
    y = 0.8 * torch.randn(12, 1)
    found = load_inference("nuts_reference").infer
    program, seen = found.__globals__, {}

    class Sampler:
        def __init__(self, kernel, count, **settings):
            self.kernel = kernel

        def run(self, x, y):
            seen["sites"] = set(pyro.poutine.trace(self.kernel.model).get_trace(x, y).nodes)

        def get_samples(self):
            tensors = gated.weight_tensors().items()
            return {f"weight/{n}": p.detach().expand(10, *p.shape) for n, p in tensors}

    monkeypatch.setitem(program, "MCMC", Sampler)
    monkeypatch.setitem(program, "NUTS", lambda model, **settings: SimpleNamespace(model=model))
    with pytest.warns(EmptyGroupWarning):
        result = infer(found, gated, x, y, epochs=1)
    on, off = (
        gated.likelihood.nll(gated.outputs(x, {"input": torch.tensor([z, 0.0])}), y).sum() for z in (1.0, 0.0)
    )
    assert "pi/input" not in seen["sites"] and "gate/input" in seen["sites"]
    expected = torch.sigmoid(torch.stack([off - on - 20.0, torch.tensor(-20.0)])).tolist()
    assert result.history[-1].inclusion.tolist() == pytest.approx(expected, rel=1e-6)
    assert max(expected) < 5e-5


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n == "nuts_reference")) for n in POSTERIORS]
)
def test_it_runs_from_the_command_line(name):
    Path("line.py").write_text(PROGRAM)
    words = ["run", "./line.py", "--inference", name, "--epochs", "2" if name == "nuts_reference" else "250"]
    assert main([*words, "--batch-size", "50", "--out", "out", "--quiet"]) == 0
    result = json.loads(Path("out/result.json").read_text())
    assert result["inference"] == name and result["architecture"] == [1]
    assert result["test_rmse"] < 1.5
    assert bp.load("out")(torch.ones(1, 3)).shape == (1, 1)
    last = json.loads(Path("out/history.json").read_text())["epochs"][-1]
    assert last["inclusion"][0] > 0.9 and last["inclusion"][1:] == pytest.approx([0.3, 0.3], abs=0.1)


def test_hidden_units_and_hyper_sites_are_learnt_too():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 3, generator=generator)
    y = (2 * x[:, :1]).tanh() + 0.1 * torch.randn(80, 1, generator=generator)
    torch.manual_seed(0)
    gated = bp.gate(
        nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)), x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price=2.0)),
        likelihood=bp.Gaussian(rows=80, scale=0.1, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=2.0),
    )  # fmt: skip
    result = infer("svi_structured", gated, x, y, epochs=200)
    inputs = result.history[-1].inclusion[:3]
    assert inputs[0] > 0.9 > inputs[1:].max()
    assert result.history[-1].elbo > result.history[20].elbo
    assert bp.evaluate(bp.prune(result), (x, y), gated.likelihood).score < 0.2  # of a root mean square of .8


def test_equal_seeds_give_equal_posteriors():
    x, y = rows_of(3)
    with pytest.warns(EmptyGroupWarning):  # ten epochs are no fit
        one, two, other = (infer("svi_structured", gate(x), x, y, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(one.history[-1].inclusion, two.history[-1].inclusion)
    assert not torch.equal(one.history[-1].inclusion, other.history[-1].inclusion)


def test_nuts_refuses_more_than_a_dozen_gates():
    x, y = rows_of(13)
    with pytest.raises(SettingsError, match=r"2\^13 configurations of 13 gates: at most 12"):
        infer("nuts_reference", gate(x), x, y, epochs=1)
