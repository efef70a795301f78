"""Gates: samplers, scores and divergences against enumeration, boundaries included."""

import itertools
import math
import re

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from scipy.stats import chisquare
from torch.distributions import kl_divergence

from bayesprune.errors import PriorError
from bayesprune.priors import Gates
from bayesprune.priors.gates import log_odds

FALSE_ALARM = 1e-4
PROBABILITY = st.one_of(st.sampled_from([0.0, 1.0, 1e-12, 1 - 1e-12]), st.floats(0.0, 1.0))


def configurations(units):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.double)


def probability_by_hand(probs, z):
    return math.prod(p if on else 1 - p for p, on in zip(probs.tolist(), z.tolist(), strict=True))


@given(probs=st.lists(PROBABILITY, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_log_prob_entropy_and_mean_equal_enumeration(probs):
    probs = torch.tensor(probs, dtype=torch.double)
    gates = Gates(probs=probs)
    support = configurations(len(probs))
    mass = torch.tensor([probability_by_hand(probs, z) for z in support], dtype=torch.double)
    torch.testing.assert_close(gates.log_prob(support).exp(), mass)
    torch.testing.assert_close(gates.entropy(), -torch.xlogy(mass, mass).sum())
    torch.testing.assert_close(gates.mean, mass @ support)
    torch.testing.assert_close(gates.variance, mass @ (support - gates.mean) ** 2)


@given(q=st.lists(PROBABILITY, min_size=3, max_size=3), p=st.lists(PROBABILITY, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_divergence_equals_enumeration_at_the_boundary_too(q, p):
    q, p = torch.tensor(q, dtype=torch.double), torch.tensor(p, dtype=torch.double)
    support = configurations(3)
    q_mass = Gates(probs=q).log_prob(support).exp()
    ratio = Gates(probs=q).log_prob(support) - Gates(probs=p).log_prob(support)
    by_hand = (q_mass * ratio)[q_mass > 0].sum()
    for prior in (Gates(probs=p), dist.Bernoulli(p).to_event(1)):
        torch.testing.assert_close(kl_divergence(Gates(probs=q), prior), by_hand)


def test_divergence_is_zero_infinite_or_exact_at_corners():
    certain = Gates(probs=torch.tensor([0.0, 1.0]))
    assert kl_divergence(certain, certain).item() == 0.0
    assert kl_divergence(certain, Gates(probs=torch.tensor([1.0, 1.0]))).item() == math.inf
    assert (
        kl_divergence(Gates(probs=torch.tensor([0.5])), Gates(probs=torch.tensor([0.0]))).item() == math.inf
    )
    exact = kl_divergence(certain, Gates(probs=torch.tensor([0.25, 0.25]))).item()
    assert exact == pytest.approx(-math.log(0.75) - math.log(0.25))


@pytest.mark.parametrize(
    "other",
    [
        dist.Normal(torch.zeros(1), 1.0).to_event(1),
        dist.Bernoulli(torch.full((3, 1), 0.5)).to_event(2),
    ],
    ids=["no gates", "gates of several groups"],
)
def test_divergence_against_something_else_has_no_closed_form(other):
    with pytest.raises(NotImplementedError, match=re.escape(f"no closed form for Gates against {other}")):
        kl_divergence(Gates(probs=torch.full((3, 1), 0.5)), other)


def test_divergence_of_a_batch_is_that_of_each():
    probs = torch.tensor([[0.1, 0.5], [0.9, 0.0]])
    together = kl_divergence(Gates(probs=probs), Gates(probs=torch.full((2, 2), 0.3)))
    each = [kl_divergence(Gates(probs=row), Gates(probs=torch.full((2,), 0.3))) for row in probs]
    torch.testing.assert_close(together, torch.stack(each))


def test_divergence_from_log_odds_of_pyros_bernoulli_does_not_round_them_to_a_probability():
    prior = dist.Bernoulli(logits=torch.tensor([-200.0])).to_event(1)
    divergence = kl_divergence(Gates(probs=torch.tensor([0.5])), prior)
    assert divergence.item() == pytest.approx(100.0 - math.log(2))


@pytest.mark.parametrize("sampler", ["sample", "rsample"])
@pytest.mark.parametrize("parameter", ["probs", "logits"])
def test_draws_pass_a_chi_squared_test(sampler, parameter):
    torch.manual_seed(0)
    probs = torch.tensor([0.1, 0.5, 0.8], dtype=torch.double)
    gates = Gates(**{parameter: probs if parameter == "probs" else probs.logit()})
    draws = getattr(gates, sampler)((20_000,))
    counts = torch.bincount(
        (draws * torch.tensor([4.0, 2.0, 1.0], dtype=torch.double)).sum(-1).long(), minlength=8
    )
    expected = torch.tensor([probability_by_hand(probs, z) for z in configurations(3)], dtype=torch.double)
    assert chisquare(counts.numpy(), 20_000 * expected.numpy()).pvalue > FALSE_ALARM


def test_draws_at_certainty_are_certain():
    draws = Gates(probs=torch.tensor([0.0, 1.0])).sample((1000,))
    assert draws.mean(0).tolist() == [0.0, 1.0]


def test_draws_are_hard_and_their_gradient_is_straight_through():
    logits = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
    draw = Gates(logits=logits).rsample((5,))
    assert bool(((draw == 0) | (draw == 1)).all())
    weight = torch.arange(15.0).reshape(5, 3)
    (draw * weight).sum().backward()
    probs = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, weight.sum(0) * probs * (1 - probs))

    probs.requires_grad_()
    Gates(probs=probs).rsample().sum().backward()
    assert probs.grad.tolist() == [1.0, 1.0, 1.0]
    assert not Gates(probs=probs).sample().requires_grad
    assert not Gates(probs=probs.detach()).rsample().requires_grad


def test_straight_through_gradient_of_the_log_ratio_is_the_gradient_of_the_divergence():
    theta = torch.tensor([0.2, 0.9], dtype=torch.double, requires_grad=True)
    prior = Gates(probs=torch.tensor([0.4, 0.3], dtype=torch.double))
    guide = Gates(probs=theta)
    (exact,) = torch.autograd.grad(kl_divergence(guide, prior), theta)
    draw = guide.rsample()
    frozen = Gates(probs=theta.detach())
    (estimate,) = torch.autograd.grad(frozen.log_prob(draw) - prior.log_prob(draw), theta)
    torch.testing.assert_close(estimate, exact)


@pytest.mark.parametrize("parameter", ["probs", "logits"])
def test_gradients_are_finite_at_certainty(parameter):
    values = torch.tensor([0.0, 1.0, 0.5])
    leaf = (values if parameter == "probs" else values.logit()).requires_grad_()
    gates = Gates(**{parameter: leaf})
    total = gates.entropy() + gates.log_prob(torch.tensor([0.0, 1.0, 1.0]))
    total = total + kl_divergence(gates, Gates(probs=torch.full((3,), 0.3)))
    total.backward()
    assert bool(leaf.grad.isfinite().all())


def test_tiny_probabilities_keep_their_precision():
    gates = Gates(logits=torch.tensor([-200.0]))
    assert gates.log_prob(torch.tensor([1.0])).item() == pytest.approx(-200.0)
    assert gates.log_prob(torch.tensor([0.0])).item() == pytest.approx(0.0)
    assert Gates(probs=torch.tensor([1e-20])).log_prob(torch.tensor([0.0])).item() == pytest.approx(-1e-20)


@pytest.mark.parametrize("parameter", ["probs", "logits"])
def test_expand_keeps_the_class_the_values_and_the_gradient(parameter):
    gates = Gates(**{parameter: torch.tensor([[0.1, 0.5, 0.8]], requires_grad=True)})
    wide = gates.expand((4, 2))
    assert type(wide) is Gates and wide.batch_shape == (4, 2) and wide.event_shape == (3,)
    assert wide.rsample((5,)).shape == (5, 4, 2, 3)
    assert wide.log_prob(torch.ones(3)).shape == (4, 2) and wide.entropy().shape == (4, 2)
    torch.testing.assert_close(wide.log_prob(torch.ones(3))[3, 1], gates.log_prob(torch.ones(3))[0])
    assert wide.rsample().requires_grad
    assert gates.expand_by([6]).batch_shape == (6, 1)


def test_enumeration_covers_every_configuration_once():
    gates = Gates(probs=torch.tensor([0.1, 0.5, 0.8])).expand((4,))
    values = gates.enumerate_support()
    assert values.shape == (8, 4, 3) and len(set(map(tuple, values[:, 2].tolist()))) == 8
    assert gates.enumerate_support(expand=False).shape == (8, 1, 3)
    torch.testing.assert_close(gates.log_prob(values).exp().sum(0), torch.ones(4))


@pytest.mark.parametrize("parameter", ["probs", "logits"])
def test_values_are_where_the_arguments_are(parameter):
    gates = Gates(**{parameter: torch.zeros(3, device="meta", dtype=torch.double)}, validate_args=False)
    for values in (gates.sample(), gates.enumerate_support()):
        assert values.is_meta and values.dtype == torch.double


def test_log_odds_are_in_default_precision():
    found = log_odds(torch.tensor([0.0, 0.25, 1.0], dtype=torch.double))
    torch.testing.assert_close(found, torch.tensor([-math.inf, -math.log(3), math.inf]))


def test_enumeration_of_too_many_gates_says_so():
    message = (
        "13 gates have 2^13 configurations: enumerate at most 12 in a group, or sample them (Trace_ELBO)."
    )
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        Gates(probs=torch.full((13,), 0.5)).enumerate_support()
    assert len(Gates(probs=torch.full((12,), 0.5)).enumerate_support()) == 4096


ONE_OF_BOTH = "Gates needs exactly one of probs= (probabilities) and logits= (log-odds)."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, ONE_OF_BOTH),
        ({"probs": torch.tensor([0.5]), "logits": torch.tensor([0.0])}, ONE_OF_BOTH),
        (
            {"probs": torch.tensor(0.5)},
            "Gates needs one number per unit, shape (..., units), and got a scalar: use x[None].",
        ),
        (
            {"probs": torch.tensor([0.5, 1.5, 0.25])},
            "Gates needs probabilities in [0, 1], and got values from 0.25 to 1.5.",
        ),
        (
            {"logits": torch.tensor([math.nan])},
            "Gates needs real log-odds, and got values from nan to nan.",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        Gates(**arguments, validate_args=True)


def test_values_outside_the_support_are_refused():
    with pytest.raises(ValueError, match="support"):
        Gates(probs=torch.tensor([0.5]), validate_args=True).log_prob(torch.tensor([0.5]))


def log_ratio_gradient(theta, enumerate, detach=False):
    """Gradient of E_q[f(z)] + KL(q ‖ p) for a non-linear f, by Pyro."""
    reward = torch.tensor([[0.0, 1.0], [3.0, -2.0]], dtype=torch.double)

    def model():
        z = pyro.sample("z", Gates(probs=torch.tensor([0.3, 0.6], dtype=torch.double)))
        pyro.factor("reward", torch.einsum("...i,ij,...j->...", z, reward, z))

    def guide():
        gates = Gates(probs=theta)
        gates.has_rsample = not detach
        pyro.sample("z", gates, infer={"enumerate": "parallel"} if enumerate else {})

    elbo = TraceEnum_ELBO() if enumerate else Trace_ELBO()
    return torch.autograd.grad(elbo.differentiable_loss(model, guide), theta)[0]


def exact_gradient(theta):
    reward = torch.tensor([[0.0, 1.0], [3.0, -2.0]], dtype=torch.double)
    support = configurations(2)
    prior = Gates(probs=torch.tensor([0.3, 0.6], dtype=torch.double))
    log_q = Gates(probs=theta).log_prob(support)
    value = torch.einsum("ni,ij,nj->n", support, reward, support)
    loss = (log_q.exp() * (log_q - prior.log_prob(support) - value)).sum()
    return torch.autograd.grad(loss, theta)[0]


def test_enumeration_in_pyro_gives_the_exact_gradient():
    """Pyro would weight every enumerated value of a reparameterised site by one: score_parts prevents it."""
    theta = torch.tensor([0.2, 0.9], dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(log_ratio_gradient(theta, enumerate=True), exact_gradient(theta))


def test_draws_without_gradient_get_the_score_function_estimator():
    torch.manual_seed(0)
    theta = torch.tensor([0.2, 0.9], dtype=torch.double, requires_grad=True)
    draws = torch.stack([log_ratio_gradient(theta, enumerate=False, detach=True) for _ in range(3000)])
    error = 5 * draws.std(0) / 3000**0.5
    assert bool(((draws.mean(0) - exact_gradient(theta)).abs() < error).all())


def test_only_draws_on_the_graph_carry_their_gradient_themselves():
    theta = torch.tensor([0.2, 0.9], requires_grad=True)
    gates, fixed = Gates(probs=theta), Gates(probs=theta.detach())
    draw = gates.rsample()
    for distribution, value, on_graph in (
        (gates, draw, True),
        (gates, draw.detach(), False),
        (gates, gates.enumerate_support(), False),
        (gates.expand((3,)), gates.expand((3,)).rsample(), True),
        (fixed, draw, True),
        (fixed, draw.detach(), True),
        (fixed, fixed.enumerate_support(), False),
    ):
        parts, score = distribution.score_parts(value), distribution.log_prob(value)
        torch.testing.assert_close(parts.log_prob, score)
        there, absent = (
            (parts.entropy_term, parts.score_function)
            if on_graph
            else (parts.score_function, parts.entropy_term)
        )
        torch.testing.assert_close(there, score)
        assert isinstance(absent, int) and absent == 0


def test_gates_survive_vectorised_particles():
    theta = torch.tensor([0.2, 0.9], requires_grad=True)

    def model():
        pyro.sample("z", Gates(probs=torch.tensor([0.3, 0.6])))

    def guide():
        pyro.sample("z", Gates(probs=theta))

    elbo = Trace_ELBO(num_particles=7, vectorize_particles=True, max_plate_nesting=0)
    elbo.differentiable_loss(model, guide).backward()
    assert bool(theta.grad.isfinite().all())
