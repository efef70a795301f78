"""All groups' priors are one Pyro program: what several groups name is one site, drawn and paid for once."""

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from scipy.optimize import minimize
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.posterior.density import gates_and_hyper
from bayesprune.posterior.draws import draw, draw_prior
from bayesprune.posterior.evidence.prices import unit_prices
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.objective import exact_negative_elbo, gate_nats
from tests.gated.own import SIGMAS, gate, rows_of

pytestmark = pytest.mark.usefixtures("double_precision")
# Each randomised test asks |error| < 4.42 standard errors: a false alarm in 1e-5 of a Gaussian, seeds fixed.


def shared_centre(group):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    return priors.Gates(logits=mu.expand(group.size))


def global_layer_gates(group):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    level = pyro.sample(f"level/{group.name}", dist.Normal(mu, 1.0))
    return priors.Gates(logits=level.expand(group.size))


def expected(function, loc, scale, nodes=60):
    """E f(N(loc, scale²)), by Gauss–Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return float(weights @ function(loc + scale * points)) / math.sqrt(2 * math.pi)


def cross(theta, logits):
    """KL(Bern(theta) ‖ Bern(σ(logits))), nats."""
    entropy = theta * np.log(theta) + (1 - theta) * np.log1p(-theta)
    return entropy - theta * logits + np.logaddexp(0, logits)


def of_shared_centre(loc, scale, gates, copies=1):
    """The prior side of ``shared_centre`` at θ = 0.3, with KL(q(mu) ‖ p(mu)) counted ``copies`` times."""
    divergence = -math.log(scale) + 0.5 * (loc**2 + scale**2) - 0.5
    return copies * divergence + gates * expected(lambda mu: cross(0.3, mu), loc, scale)


def optimum(copies):
    found = minimize(lambda p: of_shared_centre(p[0], math.exp(p[1]), 10, copies), [0.0, 0.0], tol=1e-10)
    return found.x[0], math.exp(found.x[1])


def put(gated, **sites):
    """Put the default guide's Normals: site → (loc, scale)."""
    for name, (loc, scale) in sites.items():
        gated.default_guide.loc[name].data.fill_(loc)
        gated.default_guide.log_scale[name].data.fill_(math.log(scale))


def mean_and_error(draws):
    values = torch.stack(draws)
    return values.mean(0), values.std(0) / len(draws) ** 0.5


def mean_over_noise(function, monkeypatch, nodes=40):
    """The mean of a function that draws one Normal, by Gauss–Hermite quadrature of that draw."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    total = 0.0
    for point, weight in zip(points, weights / math.sqrt(2 * math.pi), strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(
                torch.distributions.Normal,
                "rsample",
                lambda self, shape=(), p=point: self.loc + self.scale * p,
            )
            total = total + weight * function()
    return total


def test_a_shared_site_is_learnt_as_one(monkeypatch):
    """Ten gates in two groups: N(−0.612, 0.563²), not N(−0.474, 0.693²), that of two copies."""
    right, twice = optimum(1), optimum(2)
    assert right == pytest.approx((-0.612, 0.563), abs=1e-3)
    assert twice == pytest.approx((-0.474, 0.693), abs=1e-3)
    gated = gate(shared_centre, initial_inclusion=0.3)
    assert list(gated.default_guide.loc) == ["mu"]
    probs, parameters = gated.inclusion_prob().detach(), list(gated.default_guide.parameters())
    put(gated, mu=right)
    for place in (right, twice):
        put(gated, mu=place)
        nats = mean_over_noise(lambda: gate_nats(gated, probs), monkeypatch)
        assert nats.item() == pytest.approx(of_shared_centre(*place, 10), abs=1e-9)
        found = [slope.item() for slope in torch.autograd.grad(nats, parameters)]
        if place is right:
            assert found == pytest.approx([0.0, 0.0], abs=1e-4)
        else:
            assert min(map(abs, found)) > 0.1  # it can tell them apart


def test_the_steps_of_a_fit_find_it():
    """Adam's noise at a falling rate leaves 0.07, seed fixed; the two answers are 0.13 apart."""
    gated = gate(shared_centre, initial_inclusion=0.3)
    engine = Engine(gated, Recipe(gates=GateSteps(every=1)), seed=0)
    adam = torch.optim.Adam(gated.default_guide.parameters(), lr=0.03)
    put(gated, mu=(-0.5, 0.5))
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.01, 500)
    torch.manual_seed(0)
    for _ in range(500):
        engine._prior_slope()
        adam.step()
        falling.step()
    loc, scale = gated.default_guide.loc["mu"].item(), gated.default_guide.log_scale["mu"].exp().item()
    assert (loc, scale) == pytest.approx(optimum(1), abs=0.06)


def of_levels(loc, scale):
    """The prior side of ``global_layer_gates`` with all Normals of the guide alike, at θ = 0.3."""
    log_q = -math.log(scale) - 0.5 * math.log(2 * math.pi) - 0.5
    of_mu = log_q + 0.5 * math.log(2 * math.pi) + 0.5 * (loc**2 + scale**2)
    of_level = log_q + 0.5 * math.log(2 * math.pi) + 0.5 * (2 * scale**2)
    return of_mu + 2 * of_level + 10 * expected(lambda mu: cross(0.3, mu), loc, scale)


def test_global_layer_gates_pay_once_for_what_is_global():
    """5.39 nats at N(0, e⁻⁴) each, of which mu has 1.51; by Pyro's own ELBO too."""
    gated = gate(global_layer_gates, initial_inclusion=0.3)
    sites = {"mu", "level/input", "level/0"}
    assert set(gated.default_guide.loc) == sites
    put(gated, **dict.fromkeys(sites, (0.0, math.exp(-2))))
    exact = of_levels(0.0, math.exp(-2))
    assert exact == pytest.approx(5.39, abs=0.005)
    torch.manual_seed(0)
    probs = gated.inclusion_prob().detach()
    mean, error = mean_and_error([gate_nats(gated, probs).detach() for _ in range(200)])
    assert abs(mean - exact) < SIGMAS * error and error < 0.15  # 1.5 more by another mu for each group
    x, y = rows_of(gated)
    losses, of_prior = [], sites | {"gate/input", "gate/0"}
    for _ in range(200):
        guide = poutine.trace(gated.guide).get_trace(x, y)
        model = poutine.trace(poutine.replay(gated.model, trace=guide)).get_trace(x, y)
        for trace in (guide, model):
            trace.compute_log_prob(lambda name, site: name in of_prior)
        losses.append(
            sum(guide.nodes[n]["log_prob_sum"] - model.nodes[n]["log_prob_sum"] for n in of_prior).detach()
        )
    mean, error = mean_and_error(losses)
    assert abs(mean - exact) < SIGMAS * error and error < 0.25


def test_pyros_elbo_of_all_is_the_exact_one():
    """Trace_ELBO over draws, and prior side plus likelihood by enumeration of ten gates."""
    gated = gate(shared_centre, initial_inclusion=0.3)
    put(gated, mu=(-0.5, 0.4))
    x, y = rows_of(gated)
    torch.manual_seed(0)
    rest = exact_negative_elbo(gated, x, y).detach()
    torch.manual_seed(0)
    rest = rest - gate_nats(gated, gated.inclusion_prob()).detach()  # the same draw of mu
    exact = rest + of_shared_centre(-0.5, 0.4, 10)
    losses = [torch.tensor(Trace_ELBO().loss(gated.model, gated.guide, x, y)) for _ in range(200)]
    mean, error = mean_and_error(losses)
    assert abs(mean - exact) < SIGMAS * error


def test_model_and_guide_name_it_once_and_predictive_draws_it():
    gated = gate(global_layer_gates)
    x, y = rows_of(gated)
    for program in (gated.model, gated.guide):
        names = list(poutine.trace(program).get_trace(x, y).nodes)
        assert names.count("mu") == 1 and {"level/input", "level/0"} < set(names)
    drawn = Predictive(gated.model, num_samples=150)(x)
    levels = torch.stack([drawn["level/input"].flatten(), drawn["level/0"].flatten()])
    assert torch.corrcoef(levels)[0, 1] > 0.3  # ½ by the same mu; 0 by one for each


def test_draws_hold_it_once_and_score_it_once():
    gated = gate(global_layer_gates).eval()
    torch.manual_seed(0)
    draws = draw(gated, 40)
    assert {name for sites in draws.hyper.values() for name in sites} == {"mu", "level/input", "level/0"}
    assert [name for sites in draws.hyper.values() for name in sites].count("mu") == 1
    mu, levels = draws.hyper["input"]["mu"], [draws.hyper[g.name][f"level/{g.name}"] for g in gated.groups]
    log_p = dist.Normal(0.0, 1.0).log_prob(mu) + sum(dist.Normal(mu, 1.0).log_prob(v) for v in levels)
    z = draws.gates.double()
    for part, level in zip(gated.slices().values(), levels, strict=True):
        log_p = log_p + priors.Gates(logits=level[:, None].expand(-1, z[:, part].shape[1])).log_prob(
            z[:, part]
        )
    torch.testing.assert_close(gates_and_hyper(gated, draws), log_p.detach())
    guide = gated.default_guide
    log_q = sum(
        dist.Normal(guide.loc[n], guide.log_scale[n].exp()).log_prob(v)
        for n, v in (("mu", mu), *((f"level/{g.name}", v) for g, v in zip(gated.groups, levels, strict=True)))
    )
    theta = gated.inclusion_prob()
    log_q = log_q + (z * theta.log() + (1 - z) * torch.log1p(-theta)).sum(-1)
    torch.testing.assert_close(draws.log_q, log_q.detach())


def test_the_priors_draws_share_it():
    gated = gate(shared_centre)
    torch.manual_seed(0)
    gates, hyper = draw_prior(gated, 400)
    assert set(hyper) == {"mu"} and hyper["mu"].shape == (400,)
    shares = torch.stack([z.double().mean(1) for z in gates.values()])
    assert torch.corrcoef(shares)[0, 1] > 0.3


def test_a_fit_has_it_in_its_posterior():
    gated = gate(global_layer_gates)
    x, y = rows_of(gated, 64)
    result = bp.fit(gated, (x, y), epochs=2, batch_size=32, progress=False)
    posterior = result.posterior().to_arviz(draws=30)["posterior"]
    assert posterior["mu"].shape == (1, 30) and posterior["level/0"].shape == (1, 30)


def test_prices_are_those_of_the_shared_site():
    gated = gate(shared_centre)
    put(gated, mu=(-0.7, 1e-9))
    prices = unit_prices(gated, gated.inclusion_prob().detach())
    torch.testing.assert_close(prices, torch.full((10,), 0.7), rtol=1e-6, atol=1e-6)


# ---- what groups share and cannot mean


def by_size(group):
    mu = pyro.sample("mu", dist.Normal(0.0, float(group.size)))
    return priors.Gates(logits=mu.expand(group.size))


def other_kind(group):
    kind = dist.Normal(0.0, 1.0) if group.name == "input" else dist.StudentT(3.0, 0.0, 1.0)
    return priors.Gates(logits=pyro.sample("mu", kind).expand(group.size))


def other_shape(group):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(group.size), 1.0).to_event(1))
    return priors.Gates(logits=mu)


def other_factor(group):
    pyro.factor("hyper", torch.tensor(float(group.size)))
    return priors.Gates(probs=torch.full((group.size,), 0.3))


class Conjugate:
    """The posterior of a shared rate given one group's gates alone: another one for each group."""

    def __call__(self, group):
        return priors.Gates(probs=pyro.sample("rate", dist.Beta(1.0, 1.0)).expand(group.size))

    def guide(self, group, inclusion_prob):
        kept = inclusion_prob.detach().sum()
        pyro.sample("rate", dist.Beta(1.0 + kept, 1.0 + group.size - kept))


class SharedAndClosed(Conjugate):
    def guide(self, group, inclusion_prob):
        pyro.sample("rate", dist.Beta(2.0, 2.0))

    def penalty(self, group, inclusion_prob):
        return inclusion_prob.sum()


REFUSED = {
    "another scale": (by_size, r"Site 'mu' .* group 'input' \(Normal\(loc=0, scale=6\)\) and .* group '0'"),
    "another kind": (other_kind, r"Site 'mu' .* group 'input' \(Normal.* group '0' \(StudentT"),
    "another shape": (other_shape, r"Site 'mu' .* group 'input' .* group '0'"),
    "another factor": (other_factor, r"Site 'hyper' .* group 'input' .* group '0'"),
    "a guide of each group": (Conjugate(), r"guide samples 'rate' .* group 'input' and .* group '0'"),
    "a penalty of each group": (SharedAndClosed(), r"Groups '0', 'input' share .* 'rate'.*penalty"),
}  # fmt: skip


@pytest.mark.parametrize("prior, message", REFUSED.values(), ids=REFUSED)
def test_one_name_for_two_things_is_refused(prior, message):
    with pytest.raises(PriorError, match=message):
        gate(prior)


def test_a_factor_that_groups_share_counts_once():
    def prior(group):
        pyro.factor("hyper", torch.tensor(2.0))
        return priors.Gates(probs=torch.full((group.size,), 0.3))

    gated = gate(prior, initial_inclusion=0.3)
    assert gate_nats(gated, gated.inclusion_prob()).item() == pytest.approx(-2.0, abs=1e-9)


def test_a_learnt_guide_of_a_shared_site_is_one():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(-1.0))

        def forward(self, group):
            return shared_centre(group)

        def guide(self, group, inclusion_prob):
            pyro.sample("mu", dist.Normal(self.loc, 0.5))

    gated = gate(Learnt(), initial_inclusion=0.3)
    torch.manual_seed(0)
    probs = gated.inclusion_prob().detach()
    mean, error = mean_and_error([gate_nats(gated, probs).detach() for _ in range(200)])
    assert abs(mean - of_shared_centre(-1.0, 0.5, 10)) < SIGMAS * error


def test_messages_say_what_to_do():
    with pytest.raises(PriorError, match=re.escape("f'mu/{group.name}'")):
        gate(by_size)
