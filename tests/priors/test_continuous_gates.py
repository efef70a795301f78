"""One protocol for every prior of continuous gates: sites, nats by quadrature, draws, rules of death."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy import stats

from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.priors.bmrs import normal_reduction, uniform_reduction
from bayesprune.priors.truncated_normal import log_exponential_moment, log_mass, quantile
from bayesprune.structure.groups import Group

GROUP = Group("fc1", size=4, fan_in=7)
ALIVE = torch.tensor([True, True, False, True])
EVERY = torch.ones(4, dtype=torch.bool)
PRIORS = {
    "gaussian": priors.GaussianGates(),
    "normal-jeffreys": priors.NormalJeffreysGates(threshold=-3.0),
    "log-normal": priors.LogNormalGates(),
    "log-normal, reduction": priors.LogNormalGates(rule="bmrs_normal"),
    "log-normal, uniform reduction": priors.LogNormalGates(rule="bmrs_uniform", bits=4.0),
    "horseshoe": priors.HorseshoeGates(shrinkage=0.3),
    "hard concrete": priors.HardConcreteGates(priors.Flattening(price=2.5)),
    "hard concrete, fixed": priors.HardConcreteGates(priors.Fixed(0.3)),
}
IMPROPER = ["normal-jeffreys"]
PLACES = {
    "loc": [1.0, -0.4, 0.05, 2.0],
    "log_variance": [-9.0, -1.0, 0.5, -2.0],
    "log_shrinkage": [-1.2],
    "raw_log_scale": [-5.0, -0.7, 0.4, -1.0],
    "raw_loc": [-0.01, -3.0, -12.0, 0.4],
    "log_scale": [-5.0, 0.0, 1.5, -0.5],
    "log_alpha": [2.0, -2.3, -5.0, 0.1],
}


@pytest.fixture(autouse=True)
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=PRIORS)
def prior(request):
    return PRIORS[request.param]


def placed(prior, size=4):
    """The guide at four places, of which one is hardly noisy and one hardly anything else."""
    q = prior.family(Group("fc1", size=size)).double()
    for name, parameter in q.named_parameters():
        places = PLACES["raw_loc" if name == "loc" and isinstance(prior, priors.HorseshoeGates) else name]
        parameter.data.copy_(torch.tensor(places)[:size].reshape(parameter.shape))
    return q


def program(prior, q, alive=EVERY):
    """p(z) with the hyper-sites where the guide has them; and log q − log p of these."""
    hyper = poutine.trace(prior.guide).get_trace(GROUP, q, alive)
    trace = poutine.trace(poutine.replay(prior.__call__, trace=hyper)).get_trace(GROUP)
    return trace.nodes["_RETURN"]["value"], hyper.log_prob_sum() - trace.log_prob_sum()


def nodes(low, high, panels=200):
    """Gauss–Legendre of 20 nodes on each of so many panels."""
    x, w = np.polynomial.legendre.leggauss(20)
    width = (high - low) / panels
    starts = low + width * np.arange(panels)[:, None]
    places = starts + width * (x + 1) / 2
    return torch.from_numpy(places.ravel()), torch.from_numpy(np.tile(w * width / 2, panels))


def expected(q, p, value):
    """(4,), E_q of a function of z, by quadrature over where q has its mass, and its atoms."""
    posterior = q.posterior()
    found = torch.zeros(4)
    for unit in range(4):
        if isinstance(posterior, priors.HardConcrete):
            t, w = nodes(-math.log(11), math.log(11))  # logit of the variable that is stretched
            s = t.sigmoid()
            z, w = 1.2 * s - 0.1, w * 1.2 * s * (1 - s)
            z, w = torch.cat([z, torch.tensor([0.0, 1.0])]), torch.cat([w, torch.ones(2)])
        elif isinstance(posterior, priors.TruncatedLogNormal | dist.LogNormal):
            loc, scale = posterior.loc[unit].item(), posterior.scale[unit].item()
            held = (-20.0, 0.0) if isinstance(posterior, priors.TruncatedLogNormal) else (-100.0, 100.0)
            t, w = nodes(max(held[0], loc - 12 * scale), min(held[1], loc + 14 * scale))
            z, w = t.exp(), w * t.exp()
        else:
            loc, scale = q.loc[unit].item(), posterior.scale[unit].item()
            halves = [nodes(loc - 10 * scale, 0.0), nodes(0.0, loc + 10 * scale)]
            if not loc - 10 * scale < 0 < loc + 10 * scale:
                halves = [nodes(loc - 10 * scale, loc + 10 * scale)]
            z, w = (torch.cat(parts) for parts in zip(*halves, strict=True))
        each = z.unsqueeze(1).expand(-1, 4)
        log_q, log_p = posterior.log_prob(each)[:, unit], p.log_prob(each)[:, unit]
        found[unit] = (w * log_q.exp() * value(z, log_q, log_p)).sum()
    return found.detach()


def test_program_and_guide_have_the_same_sites_and_one_gate_a_unit(prior):
    q = placed(prior)
    hyper = poutine.trace(prior.guide).get_trace(GROUP, q, EVERY)
    model = poutine.trace(poutine.replay(prior.__call__, trace=hyper)).get_trace(GROUP)
    assert set(hyper.nodes) == set(model.nodes)
    assert all(name.endswith("/fc1") for name in hyper.nodes if not name.startswith("_"))
    gates = model.nodes["_RETURN"]["value"]
    for found in (gates, q.posterior()):
        assert (found.batch_shape, found.event_shape) == ((4,), ())
    assert bool(gates.log_prob(q.posterior().sample(torch.Size([20]))).isfinite().all())


def test_the_guide_s_density_integrates_to_one_and_has_the_mean_that_is_folded_in(prior):
    q = placed(prior)
    mass = expected(q, q.posterior(), lambda z, log_q, log_p: torch.ones_like(z))
    torch.testing.assert_close(mass, torch.ones(4), rtol=1e-6, atol=1e-6)
    if not isinstance(q, priors.HardConcreteGuide):  # whose gate without noise is no mean
        mean = expected(q, q.posterior(), lambda z, log_q, log_p: z)
        torch.testing.assert_close(mean, q.mean().detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in PRIORS if name not in IMPROPER])
def test_nats_equal_quadrature_through_the_program(name):
    prior = PRIORS[name]
    q = placed(prior)
    p, of_hyper = program(prior, q)
    by_quadrature = expected(q, p, lambda z, log_q, log_p: log_q - log_p).sum() + of_hyper
    assert prior.nats(GROUP, q, EVERY).sum().item() == pytest.approx(by_quadrature.item(), rel=1e-6, abs=1e-6)


def test_the_normal_jeffreys_formula_is_within_a_hundredth_of_a_nat_of_quadrature():
    """Of all ratios of noise to signal, up to the one constant that an improper prior leaves open."""
    prior, errors = PRIORS["normal-jeffreys"], []
    for log_ratio in np.linspace(-12.0, 8.0, 41):
        q = placed(prior)
        q.loc.data.fill_(1.0)
        q.log_variance.data.fill_(log_ratio)
        p, _ = program(prior, q)
        exact = expected(q, p, lambda z, log_q, log_p: log_q - log_p)[0]
        errors.append(prior.nats(GROUP, q, EVERY)[0].item() - exact.item())
    spread = (max(errors) - min(errors)) / 2
    assert spread < 0.01, spread


def test_removed_units_cost_nothing_and_the_others_what_they_did(prior):
    q = placed(prior)
    whole, part = prior.nats(GROUP, q, EVERY), prior.nats(GROUP, q, ALIVE)
    if whole.ndim:
        torch.testing.assert_close(part, torch.where(ALIVE, whole, 0.0))
    elif "horseshoe" in repr(prior).lower():
        torch.testing.assert_close(whole - part, prior.prices(GROUP, q, EVERY)[2])
    else:
        theta = q.log_odds().sigmoid()
        torch.testing.assert_close(part, prior.hyper.penalty(GROUP, theta * ALIVE))
    assert prior.prices(GROUP, q, ALIVE).shape == (4,)


def test_gradients_of_the_nats_equal_finite_differences(prior):
    q = placed(prior)
    names, values = zip(*((n, p.detach().clone()) for n, p in q.named_parameters()), strict=True)

    def nats(*tensors):
        other = prior.family(GROUP).double()
        for name in names:
            delattr(other, name)
        for name, tensor in zip(names, tensors, strict=True):
            setattr(other, name, tensor)
        return prior.nats(GROUP, other, EVERY).sum()

    assert torch.autograd.gradcheck(nats, [v.requires_grad_() for v in values], eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_nats_and_slopes_are_finite_far_out(prior, dtype):
    q = prior.family(GROUP).to(dtype)
    for parameter in q.parameters():
        parameter.data.copy_(torch.tensor([-30.0, -12.0, 9.0, 25.0])[: parameter.numel()].view_as(parameter))
    if hasattr(q, "log_variance"):
        q.loc.data.copy_(torch.tensor([0.0, 1e-6, 1.0, -3.0]))
    nats = prior.nats(GROUP, q, EVERY).sum()
    draws = q.sample(64, torch.arange(4), torch.Generator().manual_seed(0))
    (nats + draws.sum()).backward()
    assert bool(nats.isfinite()) and nats.dtype == dtype and bool(draws.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in q.parameters())
    assert not bool(q.log_odds().isnan().any())


def test_draws_follow_the_guide(prior):
    """Means of 40,000 draws of four units: false alarm 1e-7 each (5.3 standard errors)."""
    q = placed(prior)
    draws = q.sample(40_000, torch.arange(4), torch.Generator().manual_seed(0)).detach()
    for order in (1, 2):
        value = draws**order
        exact = expected(q, q.posterior(), lambda z, log_q, log_p, k=order: z**k)
        error = value.std(0) / 200
        assert bool(((value.mean(0) - exact).abs() < 5.3 * error + 1e-9).all())
    chosen = q.sample(3, torch.tensor([1, 3]), torch.Generator().manual_seed(0))
    assert chosen.shape == (3, 2) and chosen.requires_grad


def test_truncated_log_normal_draws_pass_a_kolmogorov_test():
    """False alarm 1e-4 a unit."""
    q = placed(PRIORS["log-normal"])
    torch.manual_seed(0)
    t = q.posterior().rsample(torch.Size([5000])).log().detach().numpy()
    for unit in range(4):
        loc, scale = q.loc[unit].item(), q.scale[unit].item()
        law = stats.truncnorm((-20 - loc) / scale, -loc / scale, loc, scale)
        assert stats.kstest(t[:, unit], law.cdf).pvalue > 1e-4


def test_slopes_of_draws_are_those_of_their_mean(prior):
    """∂E[z]/∂parameter by 40 times 2,000 draws against finite differences: 7 standard errors of the 40 means,
    by Student's t a false alarm of 2e-8 a number.
    """
    q, generator = placed(prior), torch.Generator().manual_seed(1)
    for name, parameter in q.named_parameters():
        if name == "log_shrinkage":  # the prior's, which draws do not hang on
            continue
        slopes = [
            torch.autograd.grad(q.sample(2000, torch.arange(4), generator).mean(0).sum(), parameter)[0]
            for _ in range(40)
        ]
        slope = torch.stack(slopes)
        exact, error = _finite_difference(prior, q, name), slope.std(0) / 40**0.5
        assert bool(((slope.mean(0) - exact).abs() < 7 * error + 1e-6).all()), (name, slope.mean(0), exact)


def _finite_difference(prior, q, name, step=1e-4):
    ends = []
    for sign in (1, -1):
        other = placed(prior)
        getattr(other, name).data.add_(sign * step)
        ends.append(expected(other, other.posterior(), lambda z, log_q, log_p: z))
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("name", ["gaussian", "log-normal", "hard concrete", "hard concrete, fixed"])
def test_sampled_elbo_of_pyro_is_unbiased(name):
    """600 draws, 5 standard errors: false alarm 6e-7."""
    prior, draws = PRIORS[name], []
    q = placed(prior)
    pyro.set_rng_seed(0)

    def model():
        pyro.sample("gate/fc1", prior(GROUP).to_event(1))

    def guide():
        prior.guide(GROUP, q, EVERY)
        pyro.sample("gate/fc1", q.posterior().to_event(1))

    for _ in range(600):
        draws.append(Trace_ELBO().loss(model, guide))
    draws = torch.tensor(draws)
    exact = prior.nats(GROUP, q, EVERY).sum()
    assert abs(draws.mean() - exact) < 5 * draws.std() / 600**0.5 + 1e-6


# ---- rules of death


def test_gaussian_gates_die_where_their_noise_is_more_than_their_signal():
    q = placed(PRIORS["gaussian"])
    ratio = q.loc.abs() / q.posterior().scale
    assert torch.equal(q.log_odds() > q.line, ratio > 1)
    torch.testing.assert_close(q.log_odds(), 2 * ratio.log())
    jeffreys = placed(PRIORS["normal-jeffreys"])
    log_alpha = jeffreys.log_variance - jeffreys.loc.square().log()
    assert torch.equal(jeffreys.log_odds() > jeffreys.line, log_alpha < -3.0)


def test_gaussian_scale_is_the_best_one():
    """Any other scale of the prior costs more."""
    q = placed(PRIORS["gaussian"])
    best = (q.loc.square() + q.log_variance.exp()).sqrt()
    cost = [
        torch.distributions.kl_divergence(q.posterior(), dist.Normal(torch.zeros(4), best * factor))
        for factor in (0.9, 1.0, 1.1)
    ]
    torch.testing.assert_close(cost[1], PRIORS["gaussian"].nats(GROUP, q, EVERY))
    assert bool((cost[0] > cost[1]).all()) and bool((cost[2] > cost[1]).all())


def test_log_normal_signal_to_noise_ratio_equals_quadrature():
    q = placed(PRIORS["log-normal"])
    first, second = (expected(q, q.posterior(), lambda z, a, b, k=k: z**k) for k in (1, 2))
    variance = second - first**2
    torch.testing.assert_close(q.log_odds().detach(), (first**2 / variance).log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(q.posterior().variance.detach(), variance, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("spike", "narrow"), [(-20.0, 0.3), (-12.0, 1.0), (-20.0, 4.0)])
def test_reduction_to_a_log_normal_equals_quadrature(spike, narrow):
    q = placed(PRIORS["log-normal"])
    t, w = nodes(-20.0, 0.0, 400)
    reduced = stats.truncnorm((-20 - spike) / narrow, -spike / narrow, spike, narrow)
    found = normal_reduction(q.loc, q.scale, spike, narrow)
    for unit in (1, 2, 3):
        loc, scale = q.loc[unit].item(), q.scale[unit].item()
        own = stats.truncnorm((-20 - loc) / scale, -loc / scale, loc, scale)
        integral = (w * torch.from_numpy(own.pdf(t) * reduced.pdf(t) * 20)).sum().log()
        assert found[unit].item() == pytest.approx(integral.item(), rel=1e-6, abs=1e-6)


def test_reduction_to_a_point_is_the_ratio_of_densities_there():
    """The default σ̃ = 1e-6 is no wider than a point: ΔF = log q(−20) + log 20; zero where q is the prior."""
    q = placed(PRIORS["log-normal"])
    density = q.posterior().log_prob(torch.tensor(math.exp(-20.0))) - 20.0
    found = normal_reduction(q.loc, q.scale)
    torch.testing.assert_close(found[1:3], (density + math.log(20.0)).detach()[1:3], rtol=1e-4, atol=1e-5)
    flat = normal_reduction(torch.tensor(-10.0), torch.tensor(1e5))
    assert abs(flat.item()) < 1e-6


def test_reduction_to_what_rounding_loses_equals_quadrature():
    q = placed(PRIORS["log-normal"])
    for bits in (4.0, 8.0):
        low, high = -23 * math.log(2), -bits * math.log(2)
        found = uniform_reduction(q.loc, q.scale, bits)
        for unit in range(1, 4):
            loc, scale = q.loc[unit].item(), q.scale[unit].item()
            own = stats.truncnorm((-20 - loc) / scale, -loc / scale, loc, scale)
            share = own.cdf(high) - own.cdf(low)
            if share > 1e-12:
                expected_nats = math.log(share * 20 / (high - low))
                assert found[unit].item() == pytest.approx(expected_nats, rel=1e-6, abs=1e-6)


def test_hard_concrete_gates_die_where_the_gate_without_noise_is_zero():
    prior = priors.HardConcreteGates(priors.Flattening(5.0))
    q = prior.family(Group("fc1", size=200)).double()
    q.log_alpha.data.copy_(torch.linspace(-4, 1, 200))
    assert torch.equal(q.log_odds() > q.line, q.mean() > 0)
    chance = q.log_odds().sigmoid()
    draws = q.sample(20_000, torch.arange(200), torch.Generator().manual_seed(0)) > 0
    off = (draws.double().mean(0) - chance).abs() / (chance * (1 - chance) / 20_000).sqrt()
    assert bool((off < 5.5).all())  # 200 binomials: false alarm 8e-6


def test_hard_concrete_pays_prices_as_bernoulli_gates_do():
    hyper, q = priors.Flattening({"fc*": 12.0}), placed(PRIORS["hard concrete"])
    prior, bernoulli = priors.HardConcreteGates(hyper), priors.BernoulliGates(hyper)
    theta = q.log_odds().sigmoid()
    torch.testing.assert_close(prior.nats(GROUP, q, EVERY), bernoulli.penalty(GROUP, theta))
    assert prior.prices(GROUP, q, EVERY).tolist() == [12.0] * 4
    torch.manual_seed(0)
    drawn = torch.stack([priors.HardConcreteGates(priors.Fixed(0.3)).presence(GROUP) for _ in range(2000)])
    assert abs(drawn.mean() - 0.3) < 5 * (0.21 / 8000) ** 0.5


# ---- far out, and mistakes


@pytest.mark.parametrize("loc", [-19.9, -10.0, 0.0, 3.0])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 50.0])
def test_logarithms_of_masses_and_moments_keep_their_digits(loc, scale):
    alpha, beta = (-20 - loc) / scale, -loc / scale
    law = stats.truncnorm(alpha, beta, loc, scale)
    if beta > -30:
        own = log_mass(torch.tensor(alpha), torch.tensor(beta)).item()
        other = _log_mass(alpha, beta)
        assert own == pytest.approx(other, rel=1e-9, abs=1e-12)
    if beta > -8:
        t, w = nodes(max(-20.0, loc - 14 * scale), min(0.0, loc + 14 * scale))
        for order in (1, 2):
            exact = (w * torch.from_numpy(law.pdf(t)) * (order * t).exp()).sum().item()
            got = log_exponential_moment(order, torch.tensor(loc), torch.tensor(scale), -20.0, 0.0)
            assert got.exp().item() == pytest.approx(exact, rel=1e-5, abs=1e-12)
        u = torch.linspace(0.001, 0.999, 50)
        t = quantile(u, torch.tensor(loc), torch.tensor(scale), -20.0, 0.0)
        np.testing.assert_allclose(t, law.ppf(u), rtol=1e-6, atol=1e-8)


def _log_mass(alpha, beta):
    flip = alpha > 0
    low, high = (-beta, -alpha) if flip else (alpha, beta)
    top, bottom = stats.norm.logcdf(high), stats.norm.logcdf(low)
    return top + np.log1p(-np.exp(bottom - top))


def test_what_is_taken_over_cannot_be_drawn():
    with pytest.raises(PriorError, match=r"takes over from its guide is estimated.*replay"):
        PRIORS["gaussian"](GROUP)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: priors.GaussianGates(weight=0.0), "weight=0.0 must be a positive"),
        (lambda: priors.GaussianGates(deviation=-1.0), "deviation=-1.0 must be a positive"),
        (lambda: priors.NormalJeffreysGates(threshold="3"), "threshold='3' must be a number"),
        (lambda: priors.NormalJeffreysGates(threshold=math.inf), "must be finite"),
        (lambda: priors.LogNormalGates(rule="ratio"), "rule='ratio' must be one of 'snr'"),
        (lambda: priors.LogNormalGates(bits=30.0), "bits=30.0 must lie between 0 and 23"),
        (lambda: priors.LogNormalGates(scale=0.0), "scale=0.0 must be a positive"),
        (lambda: priors.LogNormalGates(line=math.nan), "line=nan must be a finite"),
        (lambda: priors.HardConcreteGates(3.0), "needs a hyper-prior, and 3.0 has no logits"),
        (lambda: priors.HardConcreteGates(priors.Fixed(0.5), open_=1.0), "open_=1.0 must lie between"),
    ],
)
def test_settings_out_of_range_are_named(make, said):
    with pytest.raises(PriorError, match=said):
        make()


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_draws_that_round_to_an_end_have_a_density_under_both(dtype):
    """Half of a guide's mass lies within a few of float32's steps of one."""
    prior, q = PRIORS["log-normal"], priors.LogNormalGates(scale=1e-7).family(GROUP).to(dtype)
    z = q.sample(2000, torch.arange(4), torch.Generator().manual_seed(0)).detach()
    if dtype == torch.float:
        assert bool((z == 1).any())
    assert bool(prior(GROUP).log_prob(z).isfinite().all())
    assert bool(q.posterior().log_prob(z).isfinite().all())
