"""What is learnt beside the network comes with the result; nothing that is never moved passes for learnt."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.cli.measure import measure
from bayesprune.errors import LikelihoodError, PriorError, UnsupportedNetworkError

ROWS = 120
RECIPE = bp.Recipe(gates=bp.GateSteps(every=1), learning_rate=1e-2, compact_learning_rate=1e-2)


def rows(noise=0.1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 3, generator=generator)
    return x, x[:, 0] - 0.5 * x[:, 1] + noise * torch.randn(ROWS, generator=generator)


def fit(likelihood, prior=None, epochs=40):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    prior = prior or priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(network, rows()[0][:1], prior=prior, likelihood=likelihood)
    return gated, bp.fit(gated, rows(), epochs=epochs, batch_size=40, recipe=RECIPE, progress=False)


def nats(residuals, scale):
    return (0.5 * math.log(2 * math.pi) + math.log(scale) + residuals.square().mean() / (2 * scale**2)).item()


def test_the_learnt_noise_comes_with_the_result():
    gated, result = fit(bp.Gaussian(rows=ROWS, scale=1.0))
    small = bp.prune(result)
    by_hand = nats(small(rows()[0]).detach()[:, 0] - rows()[1], result.likelihood.learnt()["noise_scale"])
    assert bp.evaluate(small, rows(), result.likelihood).nll == pytest.approx(by_hand, abs=1e-4)
    assert bp.evaluate(result, rows()).nll == pytest.approx(by_hand, abs=1e-4)
    assert result.likelihood.learnt()["noise_scale"] < 0.9
    assert gated.likelihood.learnt()["noise_scale"] == 1.0, "fit learns on a copy"


def test_a_noise_that_nobody_learnt_is_refused_beside_a_plain_network():
    gated, result = fit(bp.Gaussian(rows=ROWS), epochs=1)
    with pytest.raises(LikelihoodError, match=r"no fit has learnt log_scale.*result\.likelihood"):
        bp.evaluate(bp.prune(result), rows(), gated.likelihood)
    known = bp.Gaussian(rows=ROWS).requires_grad_(False)
    assert bp.evaluate(bp.prune(result), rows(), known).name == "rmse"
    assert bp.evaluate(bp.prune(result), rows(), bp.Gaussian(rows=ROWS, learn_scale=False)).name == "rmse"


def test_a_run_writes_what_it_learnt():
    _, result = fit(bp.Gaussian(rows=ROWS), epochs=2)
    figures = measure(result, bp.data.Split(*rows()))[1]
    assert figures["noise_scale"] == pytest.approx(result.likelihood.log_scale.exp().item())
    assert figures["test_nll"] == pytest.approx(bp.evaluate(result, rows()).nll, rel=1e-5)


# ---- parameters that nobody holds


class Robust(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, outputs):
        return dist.StudentT(4.0, outputs[..., 0], self.log_scale.exp())


class Holder:
    """An object of a user's class, no module."""

    def __init__(self):
        self.scales = [nn.Parameter(torch.zeros(()))]

    def distribution(self, outputs):
        return dist.Normal(outputs[..., 0], self.scales[0].exp())

    __call__ = distribution


OUTER = nn.Parameter(torch.zeros(()))


def captures():
    inner, module = nn.Parameter(torch.zeros(())), nn.Linear(1, 1)

    def with_default(outputs, scale=inner):
        return dist.Normal(outputs[..., 0], scale.exp())

    def asked(scale, outputs):
        return dist.Normal(outputs[..., 0], scale.exp())

    def helper(outputs):
        return inner.exp() * outputs[..., 0]

    return {
        "closure": lambda outputs: dist.Normal(outputs[..., 0], inner.exp()),
        "default": with_default,
        "global": lambda outputs: dist.Normal(outputs[..., 0], OUTER.exp()),
        "partial": functools.partial(asked, inner),
        "a derived tensor": functools.partial(asked, 2 * inner),
        "module": lambda outputs: dist.Normal(module(outputs)[..., 0], 1.0),
        "method": Holder().distribution,
        "object": Holder(),
        "through a function": lambda outputs: dist.Normal(helper(outputs), 1.0),
        "in a function inside": lambda outputs: (lambda o: dist.Normal(o[..., 0], OUTER.exp()))(outputs),
    }


@pytest.mark.parametrize("how", list(captures()))
def test_own_refuses_parameters_that_a_function_brings_along(how):
    with pytest.raises(LikelihoodError, match=r"never a step.*nn\.Module"):
        bp.Own(rows=ROWS, distribution=captures()[how])


def test_a_module_handed_over_is_learnt():
    _, result = fit(bp.Own(rows=ROWS, distribution=Robust()))
    assert result.likelihood.distribution.log_scale.item() < -0.1
    assert result.likelihood.learnt() == {
        "distribution_log_scale": result.likelihood.distribution.log_scale.item()
    }
    bp.evaluate(bp.prune(result), rows(), result.likelihood)


def test_constants_may_be_brought_along():
    scale, teacher = torch.tensor(0.5), nn.Linear(1, 1).requires_grad_(False)
    bp.Own(rows=ROWS, distribution=lambda outputs: dist.Normal(teacher(outputs)[..., 0], scale))


def test_a_likelihood_of_ones_own_that_hides_a_parameter_is_refused_by_fit():
    scale = nn.Parameter(torch.zeros(()))

    class Hidden(bp.Likelihood):
        def forward(self, outputs):
            return dist.Normal(outputs[..., 0], scale.exp())

    with pytest.raises(LikelihoodError, match=r"Hidden: .*shapes \(\).*never a step"):
        fit(Hidden(rows=ROWS))


# ---- the same of priors


def test_a_prior_that_hides_a_parameter_is_refused():
    log_odds = nn.Parameter(torch.tensor(-0.5))
    with pytest.raises(PriorError, match=r"prior of group 'input'.*never a step.*nn\.Module"):
        fit(bp.Gaussian(rows=ROWS), lambda group: priors.Gates(logits=log_odds.expand(group.size)))


def test_a_site_that_hides_a_parameter_is_refused():
    concentration = nn.Parameter(torch.tensor(2.0))

    def prior(group):
        rate = pyro.sample(f"rate/{group.name}", dist.Beta(concentration, 1.0))
        return priors.Gates(probs=rate.detach().expand(group.size))

    with pytest.raises(PriorError, match="never a step"):
        fit(bp.Gaussian(rows=ROWS), prior)


def test_a_guide_that_hides_a_parameter_is_refused():
    shift = nn.Parameter(torch.tensor(0.0))

    class Guided:
        def __call__(self, group):
            rate = pyro.sample(f"rate/{group.name}", dist.Beta(2.0, 1.0))
            return priors.Gates(probs=rate.expand(group.size))

        def guide(self, group, inclusion_prob):
            pyro.sample(f"rate/{group.name}", dist.Beta(2.0 + shift.exp(), 1.0))

    with pytest.raises(PriorError, match="guide of group 'input'"):
        fit(bp.Gaussian(rows=ROWS), Guided())


def test_modules_in_a_table_of_priors_are_learnt():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_odds = nn.Parameter(torch.tensor(-0.5))

        def forward(self, group):
            return priors.Gates(logits=self.log_odds.expand(group.size))

    table = {"input": Learned(), "*": priors.BernoulliGates(priors.Fixed(0.3))}
    _, result = fit(bp.Gaussian(rows=ROWS), priors.PerGroup(table), epochs=5)
    assert result.gated.prior.table["input"].log_odds.item() != -0.5


# ---- the same of networks


class Listed(nn.Module):
    """Its second layer lies in a plain list."""

    def __init__(self, tie=list):
        super().__init__()
        self.first, self.inside, self.last = nn.Linear(3, 6), tie([nn.Linear(6, 6)]), nn.Linear(6, 1)

    def forward(self, x):
        return self.last(self.inside[0](self.first(x).tanh()).tanh())


def test_a_network_that_does_not_hold_its_layers_is_refused():
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    with pytest.raises(UnsupportedNetworkError, match=r"\(6, 6\), \(6,\).*nn\.ModuleList"):
        bp.gate(Listed(), rows()[0][:1], prior=prior, likelihood=bp.Gaussian(rows=ROWS))
    bp.gate(Listed(nn.ModuleList), rows()[0][:1], prior=prior, likelihood=bp.Gaussian(rows=ROWS))
