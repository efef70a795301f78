"""One protocol for every prior that ships: sites, exact penalty, gradients, Pyro's own ELBOs."""

import itertools

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import MCMC, NUTS, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.structure.groups import Group

PRIORS = {
    "flattening": priors.BernoulliGates(priors.Flattening(price=2.5)),
    "flattening, cheap": priors.BernoulliGates(priors.Flattening(price=1e-3)),
    "flattening, dear": priors.BernoulliGates(priors.Flattening(price={"fc*": 200.0})),
    "beta": priors.BernoulliGates(priors.Beta(1.5, 0.7)),
    "beta, expected kept": priors.BernoulliGates(priors.Beta.from_expected_kept(1.2)),
    "fixed": priors.BernoulliGates(priors.Fixed(0.3)),
    "layer adaptive": priors.BernoulliGates(priors.LayerAdaptive(strength=0.02)),
    "spike and slab": priors.SpikeAndSlab(slab_scale=0.5),
    "spike and slab, scales of their own": priors.SpikeAndSlab(inclusion=priors.Fixed(0.4), relevance=True),
    "spike and slab, beta": priors.SpikeAndSlab(inclusion=priors.Beta(2.0, 2.0)),
    "per group": priors.PerGroup(
        {"conv*": lambda group: None, "fc1": priors.BernoulliGates(priors.Flattening(3.0))}
    ),
}
POINT = [name for name in PRIORS if "beta" not in name]
GROUP = Group("fc1", size=4, fan_in=784)
THETAS = {
    "inside": [0.3, 0.9, 0.05, 0.5],
    "nearly decided": [1e-7, 1 - 1e-7, 0.5, 1e-12],
    "mixed": [0.0, 1.0, 0.4, 0.0],
    "all removed": [0.0] * 4,
    "all kept": [1.0] * 4,
}


@pytest.fixture(params=PRIORS)
def prior(request):
    return PRIORS[request.param]


@pytest.fixture(autouse=True)
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)


def sites(program, *arguments):
    trace = poutine.trace(program).get_trace(*arguments)
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def hyper_grid(guide_sites):
    """Values of the hyper-site with their weights under the guide: a point, or Gauss-Legendre nodes."""
    if not guide_sites:
        return [({}, 1.0, 0.0)]
    ((name, site),) = guide_sites.items()
    if isinstance(site["fn"], dist.Delta):
        return [({name: site["value"]}, 1.0, 0.0)]
    # t³(10 - 15t + 6t²) crowds the nodes at both ends, where the density may be singular
    nodes, weights = np.polynomial.legendre.leggauss(400)
    t, weights = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    values, jacobian = t**3 * (10 - 15 * t + 6 * t**2), 30 * t**2 * (1 - t) ** 2
    log_q = site["fn"].log_prob(values)
    mass = log_q.exp() * weights * jacobian
    return [({name: v}, m.item(), q.item()) for v, m, q in zip(values, mass, log_q, strict=True)]


def penalty_by_brute_force(prior, group, theta):
    """Enumerate the gates, integrate the hyper-parameter, score all through the Pyro program itself."""
    configurations = torch.tensor(list(itertools.product([0.0, 1.0], repeat=group.size)))
    log_q_gates = priors.Gates(probs=theta).log_prob(configurations)
    q_gates = log_q_gates.exp()
    possible = q_gates > 0
    total = 0.0
    for values, mass, log_q in hyper_grid(sites(prior.guide, group, theta)):
        conditioned = poutine.trace(poutine.condition(prior, data=values)).get_trace(group)
        log_p = conditioned.log_prob_sum()
        gates = conditioned.nodes["_RETURN"]["value"]
        ratio = log_q_gates + log_q - log_p - gates.log_prob(configurations)
        total += mass * (q_gates[possible] * ratio[possible]).sum().item()
    return total


def test_prior_gives_gates_of_the_group(prior):
    gates = prior(GROUP)
    assert isinstance(gates, priors.Gates) and gates.event_shape == (4,) and gates.batch_shape == ()
    assert isinstance(prior, priors.ClosedFormPrior)
    assert isinstance(priors.closed_form(prior, GROUP), priors.BernoulliGates)


def test_guide_has_the_sites_of_the_model_with_their_shapes_and_supports(prior):
    model, guide = sites(prior, GROUP), sites(prior.guide, GROUP, torch.tensor(THETAS["mixed"]))
    assert model.keys() == guide.keys()
    for name, site in model.items():
        assert name.endswith("/fc1")
        assert guide[name]["fn"].shape() == site["fn"].shape()
        assert bool(site["fn"].support.check(guide[name]["value"]).all())
        assert site["fn"].log_prob(guide[name]["value"]).isfinite()


@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
def test_penalty_equals_brute_force(prior, theta):
    theta = torch.tensor(theta)
    expected = penalty_by_brute_force(prior, GROUP, theta)
    assert prior.penalty(GROUP, theta).item() == pytest.approx(expected, abs=1e-6, rel=1e-8)


def test_gradient_of_the_penalty_equals_finite_differences(prior):
    theta = torch.tensor(THETAS["inside"], requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: prior.penalty(GROUP, t), theta)


@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_penalty_and_its_gradient_are_finite_at_the_vertices_too(prior, theta, dtype):
    theta = torch.tensor(theta, dtype=dtype, requires_grad=True)
    penalty = prior.penalty(GROUP, theta)
    penalty.backward()
    assert penalty.dtype == dtype and penalty.shape == () and bool(penalty.isfinite())
    assert bool(theta.grad.isfinite().all())


def test_price_is_what_the_last_unit_costs(prior):
    last_removed = torch.tensor([1.0, 1.0, 1.0, 0.0])
    difference = prior.penalty(GROUP, torch.ones(4)) - prior.penalty(GROUP, last_removed)
    assert prior.price(GROUP) == pytest.approx(difference.item(), rel=1e-9, abs=1e-9)


def programs(prior, theta, enumerate=False):
    def model():
        pyro.sample("gate/fc1", prior(GROUP))

    def guide():
        prior.guide(GROUP, theta)
        infer = {"enumerate": "parallel"} if enumerate else {}
        pyro.sample("gate/fc1", priors.Gates(probs=theta), infer=infer)

    return model, guide


@pytest.mark.parametrize("name", POINT)
@pytest.mark.parametrize("elbo", [TraceEnum_ELBO(), TraceMeanField_ELBO()], ids=["exact", "mean field"])
def test_exact_elbos_of_pyro_equal_the_penalty_and_its_gradient(name, elbo):
    prior = PRIORS[name]
    theta = torch.tensor(THETAS["inside"], requires_grad=True)
    (expected,) = torch.autograd.grad(prior.penalty(GROUP, theta), theta)
    loss = elbo.differentiable_loss(*programs(prior, theta, enumerate=isinstance(elbo, TraceEnum_ELBO)))
    (gradient,) = torch.autograd.grad(loss, theta)
    assert loss.item() == pytest.approx(prior.penalty(GROUP, theta).item(), rel=1e-9)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("theta", [THETAS["inside"], THETAS["mixed"]], ids=["inside", "mixed"])
def test_sampled_elbo_of_pyro_is_unbiased(prior, theta):
    pyro.set_rng_seed(0)
    theta = torch.tensor(theta)
    model, guide = programs(prior, theta)
    draws = torch.tensor([Trace_ELBO().loss(model, guide) for _ in range(600)])
    error = 5 * draws.std() / 600**0.5 + 1e-6
    assert abs(draws.mean() - prior.penalty(GROUP, theta)) < error


@pytest.mark.parametrize("name", [name for name in PRIORS if "beta" in name])
def test_conjugate_guide_is_the_minimiser(name):
    """Any other Beta for the rate costs more: the guide's is the exact hyper-posterior."""
    prior, theta = PRIORS[name], torch.tensor(THETAS["inside"])
    (best,) = sites(prior.guide, GROUP, theta).values()

    class Worse:
        penalty = prior.penalty

        def __call__(self, group):
            return prior(group)

        def guide(self, group, inclusion_prob):
            a, b = best["fn"].concentration1, best["fn"].concentration0
            pyro.sample(best["name"], dist.Beta(a * self.factor, b))

    for factor in (0.8, 0.95, 1.05, 1.2):
        worse = Worse()
        worse.factor = factor
        assert penalty_by_brute_force(worse, GROUP, theta) > prior.penalty(GROUP, theta).item() + 1e-6


def test_prices_of_hundreds_of_nats_score_in_float32():
    """π* is e^-200 here, zero in float32: the sites are double, the gates are not."""
    torch.set_default_dtype(torch.float)
    prior, theta = PRIORS["flattening, dear"], torch.tensor([0.3, 0.9, 0.5, 0.5], requires_grad=True)
    model, guide = programs(prior, theta, enumerate=True)
    loss = TraceEnum_ELBO().differentiable_loss(model, guide)
    loss.backward()
    assert loss.item() == pytest.approx(prior.penalty(GROUP, theta).item(), rel=1e-5)
    torch.testing.assert_close(theta.grad.float(), torch.full((4,), 200.0), rtol=1e-4, atol=0.0)
    assert prior(GROUP).sample().dtype == torch.float


@pytest.mark.parametrize("name", ["flattening", "beta", "fixed"])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_nuts_samples_hyper_sites_with_the_gates_summed_out(name, dtype):
    torch.set_default_dtype(dtype)
    pyro.set_rng_seed(0)
    group, prior = Group("fc1", size=2), PRIORS[name]

    def model():
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
        gates = pyro.sample("gate/fc1", prior(group), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(weight * gates.sum(-1), 1.0), obs=torch.tensor(1.5))

    sampler = MCMC(NUTS(model, max_plate_nesting=0), num_samples=20, warmup_steps=20, disable_progbar=True)
    sampler.run()
    samples = sampler.get_samples()
    assert samples.keys() == {"weight"} | sites(prior, group).keys() - {"gate/fc1"}
    assert all(bool(values.isfinite().all()) for values in samples.values())


def test_shape_of_inclusion_probabilities_is_checked(prior):
    for method in (prior.guide, prior.penalty):
        with pytest.raises(PriorError, match=r"'fc1' has 4 units.*\(3,\)"):
            method(GROUP, torch.full((3,), 0.5))
