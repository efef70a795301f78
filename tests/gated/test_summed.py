"""Discrete hyper-sites are summed out: the prior of the gates is the exact mixture over their values."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.posterior.density import gates_and_hyper
from bayesprune.posterior.draws import draw, draw_prior
from bayesprune.posterior.evidence.prices import unit_prices
from bayesprune.svi.objective import gate_nats
from tests.gated.own import SIGMAS, gate, rows_of
from tests.svi.small import AllOrNothing

pytestmark = pytest.mark.usefixtures("double_precision")
# Each randomised test asks |error| < 4.42 standard errors: a false alarm in 1e-5 of a Gaussian, seeds fixed.
RATES, WEIGHTS = torch.tensor([[0.05, 0.6], [0.3, 0.7]], dtype=torch.double)


def own_rate(group):
    which = pyro.sample(f"which/{group.name}", dist.Categorical(WEIGHTS))
    return priors.Gates(probs=RATES[which].expand(group.size))


def shared_rate(group):
    which = pyro.sample("which", dist.Categorical(WEIGHTS))
    return priors.Gates(probs=RATES[which].expand(group.size))


def shared_and_own(group):
    """Which of two rates all have, and whether a layer is there at all."""
    which = pyro.sample("which", dist.Categorical(WEIGHTS))
    there = pyro.sample(f"there/{group.name}", dist.Bernoulli(0.4))
    return priors.Gates(probs=(there * RATES[which]).expand(group.size))


def how_many(group):
    """How many are expected is a number: a rate for each."""
    count = pyro.sample(f"count/{group.name}", dist.Binomial(group.size, 0.3))
    return priors.Gates(probs=((count + 0.5) / (group.size + 1)).expand(group.size))


def one_below_the_other(group):
    first = pyro.sample(f"first/{group.name}", dist.Bernoulli(0.3))
    second = pyro.sample(
        f"second/{group.name}", dist.Categorical(torch.stack([WEIGHTS, WEIGHTS.flip(0)])[first.long()])
    )
    return priors.Gates(probs=RATES[second].expand(group.size))


def coupled_or_not(group):
    which = pyro.sample("which", dist.Bernoulli(0.3))
    return AllOrNothing(group.size) if which else priors.Gates(probs=torch.full((group.size,), 0.2))


def bernoulli(z, rate):
    """(masks,), log-probability of gates that have one rate; −∞ where a rate of 0 or 1 forbids it."""
    on, size = z.sum(-1), z.shape[-1]
    rate = torch.as_tensor(rate, dtype=z.dtype)
    return torch.xlogy(on, rate) + torch.xlogy(size - on, 1 - rate)


def mix(weights, terms):
    return torch.logsumexp(torch.stack([math.log(w) + t for w, t in zip(weights, terms, strict=True)]), 0)


def by_hand(name, z, w):
    """(masks,), log p of the gates of 'input' and of '0', summed over all values by hand."""
    weights = WEIGHTS.tolist()
    if name == "own rate":
        return sum(mix(weights, [bernoulli(part, r) for r in RATES]) for part in (z, w))
    if name == "shared rate":
        return mix(weights, [bernoulli(z, r) + bernoulli(w, r) for r in RATES])
    if name == "shared and own":

        def there_or_not(part, rate):
            return mix([0.6, 0.4], [bernoulli(part, 0.0), bernoulli(part, rate)])

        return mix(weights, [there_or_not(z, r) + there_or_not(w, r) for r in RATES])
    if name == "how many":
        total = 0.0
        for part in (z, w):
            n = part.shape[-1]
            chances = [math.comb(n, k) * 0.3**k * 0.7 ** (n - k) for k in range(n + 1)]
            total = total + mix(chances, [bernoulli(part, (k + 0.5) / (n + 1)) for k in range(n + 1)])
        return total
    if name == "one below the other":
        low = 0.7 * 0.3 + 0.3 * 0.7
        return sum(mix([low, 1 - low], [bernoulli(part, r) for r in RATES]) for part in (z, w))
    alike = [torch.log(0.5 * 0.5 ** p.shape[-1] + 0.25 * (p == p[..., :1]).all(-1)) for p in (z, w)]
    return mix([0.7, 0.3], [bernoulli(z, 0.2) + bernoulli(w, 0.2), sum(alike)])


PRIORS = {
    "own rate": own_rate,
    "shared rate": shared_rate,
    "shared and own": shared_and_own,
    "how many": how_many,
    "one below the other": one_below_the_other,
    "coupled or not": coupled_or_not,
}


def all_masks(*sizes):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=sum(sizes)))).split(list(sizes), -1)


def exact_nats(name, theta):
    """Σ q(z) (log q(z) − log p(z)) over the 128 masks of four inputs and three units."""
    z, w = all_masks(4, 3)
    masks = torch.cat([z, w], -1)
    log_q = (masks * theta.log() + (1 - masks) * torch.log1p(-theta)).sum(-1)
    return (log_q.exp() * (log_q - by_hand(name, z, w))).sum()


def small(prior):
    gated = gate(prior, inputs=4, hidden=3)
    gated.log_odds.data.copy_(torch.linspace(-1.5, 1.0, 7))
    return gated


@pytest.mark.parametrize("name", PRIORS)
def test_the_log_probability_of_every_mask_is_the_sum(name):
    gated = small(PRIORS[name])
    z, w = all_masks(4, 3)
    found = gated.gate_priors().log_prob({"input": z, "0": w})
    torch.testing.assert_close(found, by_hand(name, z, w))
    assert found.exp().sum().item() == pytest.approx(1.0)
    assert not list(gated.default_guide.parameters())


@pytest.mark.parametrize("name", PRIORS)
def test_the_prior_side_and_its_slopes_are_unbiased(name):
    gated = small(PRIORS[name])
    theta = gated.inclusion_prob().detach().requires_grad_()
    exact = exact_nats(name, theta)
    truth = torch.cat([exact.detach()[None], *torch.autograd.grad(exact, theta)])
    torch.manual_seed(0)
    draws = []
    for _ in range(150):
        nats = gate_nats(gated, theta)
        draws.append(torch.cat([nats.detach()[None], *torch.autograd.grad(nats, theta)]))
    draws = torch.stack(draws)
    assert bool(((draws.mean(0) - truth).abs() < SIGMAS * draws.std(0) / 150**0.5 + 1e-9).all())
    assert draws.std(0).max() < 4.0  # and of use


@pytest.mark.parametrize("name", ["shared rate", "shared and own", "coupled or not"])
def test_pyros_enumeration_of_gates_gives_the_exact_elbo(name):
    """By TraceEnum_ELBO, gates enumerated: nothing is drawn, and what is summed out has been summed out."""
    gated = small(PRIORS[name])
    x, y = rows_of(gated)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.differentiable_loss(gated.model, config_enumerate(gated.guide, "parallel"), x, y)
    fixed = gated.with_prior(priors.BernoulliGates(priors.Fixed(0.3)))
    theta = gated.inclusion_prob()
    other = elbo.differentiable_loss(fixed.model, config_enumerate(fixed.guide, "parallel"), x, y)
    of_fixed = (theta * (theta / 0.3).log() + (1 - theta) * ((1 - theta) / 0.7).log()).sum()
    assert (loss - other).item() == pytest.approx((exact_nats(name, theta) - of_fixed).item(), abs=1e-8)


def test_trace_elbo_agrees():
    gated = small(shared_and_own)
    x, y = rows_of(gated)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    exact = elbo.loss(gated.model, config_enumerate(gated.guide, "parallel"), x, y)
    torch.manual_seed(0)
    losses = torch.tensor([Trace_ELBO().loss(gated.model, gated.guide, x, y) for _ in range(200)])
    assert abs(losses.mean() - exact) < SIGMAS * losses.std() / 200**0.5


def test_draws_of_the_prior_are_those_of_the_program():
    """Mean and correlation across groups: all gates of a draw have the same rate."""
    gated = small(shared_rate)
    rate = float(WEIGHTS @ RATES)
    between = float(WEIGHTS @ (RATES - rate) ** 2)
    torch.manual_seed(0)
    gates, hyper = draw_prior(gated, 1500)
    assert not hyper
    predictive = Predictive(gated.model, num_samples=150)(rows_of(gated)[0])
    drawn = {name: predictive[f"gate/{name}"].reshape(150, -1) for name in gates}
    for z, count in ((gates, 1500), (drawn, 150)):
        one, other = z["input"][:, 0].double(), z["0"][:, 0].double()
        assert abs(one.mean() - rate) < SIGMAS * (rate * (1 - rate) / count) ** 0.5
        products = one * other
        expected = between + rate**2
        assert abs(products.mean() - expected) < SIGMAS * (expected * (1 - expected) / count) ** 0.5


def test_draws_of_the_guide_have_the_mixtures_density():
    gated = small(shared_and_own).eval()
    torch.manual_seed(0)
    draws = draw(gated, 50)
    z = draws.gates.double()
    torch.testing.assert_close(gates_and_hyper(gated, draws), by_hand("shared and own", z[:, :4], z[:, 4:]))


@pytest.mark.parametrize("name", ["own rate", "shared rate", "coupled or not"])
def test_prices_are_what_a_unit_adds_to_the_mixture(name):
    """−E[log p(on) − log p(off)] over the other gates, by enumeration; 256 draws."""
    gated = small(PRIORS[name])
    theta = gated.inclusion_prob().detach()
    z, w = all_masks(4, 3)
    masks = torch.cat([z, w], -1)
    scores = by_hand(name, z, w)
    share = torch.where(masks > 0, theta, 1 - theta).prod(-1)
    torch.manual_seed(0)
    prices = unit_prices(gated, theta)
    for unit in range(7):
        on, off = masks[:, unit] > 0, masks[:, unit] == 0
        gains = scores[on] - scores[off]  # masks come in the same order with and without the unit
        weight = share[on] / share[on].sum()
        mean = weight @ gains
        spread = (weight @ (gains - mean) ** 2).sqrt()
        assert abs(prices[unit] + mean) < SIGMAS * spread / 256**0.5 + 1e-9


def test_what_the_values_depend_on_is_learnt():
    """A prior's parameter under a discrete site: the slope of the enumerated divergence."""

    class Rates(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.logit(RATES))
            self.weights = nn.Parameter(WEIGHTS.log())

        def forward(self, group):
            which = pyro.sample("which", dist.Categorical(logits=self.weights))
            return priors.Gates(logits=self.logits[which].expand(group.size))

    gated = small(Rates())
    parameters = [gated.prior.logits, gated.prior.weights]
    theta = gated.inclusion_prob().detach()
    z, w = all_masks(4, 3)
    masks = torch.cat([z, w], -1)
    share = torch.where(masks > 0, theta, 1 - theta).prod(-1)
    on = masks.sum(-1)
    logits, weights = (p.detach().clone().requires_grad_() for p in parameters)
    terms = on[:, None] * logits - 7 * torch.nn.functional.softplus(logits)
    exact = -(share @ torch.logsumexp(terms + weights.log_softmax(0), -1))
    truth = torch.cat(torch.autograd.grad(exact, [logits, weights]))
    torch.manual_seed(0)
    draws = torch.stack(
        [torch.cat(torch.autograd.grad(gate_nats(gated, theta), parameters)) for _ in range(150)]
    )
    assert bool(((draws.mean(0) - truth).abs() < SIGMAS * draws.std(0) / 150**0.5).all())


def test_continuous_sites_beside_discrete_ones_are_drawn_once():
    """Log-odds N(m, s²) at s → 0, shifted for a group that is rich: the mixture at m."""

    def prior(group):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        rich = pyro.sample(f"rich/{group.name}", dist.Bernoulli(0.3))
        return priors.Gates(logits=(level + 2.0 * rich - 1.0).expand(group.size))

    gated = small(prior)
    assert list(gated.default_guide.loc) == ["level"]
    gated.default_guide.loc["level"].data.fill_(0.4)
    gated.default_guide.log_scale["level"].data.fill_(-20.0)
    theta = gated.inclusion_prob().detach()
    z, w = all_masks(4, 3)
    masks = torch.cat([z, w], -1)
    log_q = (masks * theta.log() + (1 - masks) * torch.log1p(-theta)).sum(-1)
    rates = torch.sigmoid(torch.tensor([-0.6, 1.4]))
    log_p = sum(mix([0.7, 0.3], [bernoulli(part, r) for r in rates]) for part in (z, w))
    exact = (log_q.exp() * (log_q - log_p)).sum()
    of_level = 20.0 + 0.5 * 0.4**2 - 0.5
    torch.manual_seed(0)
    draws = torch.stack([gate_nats(gated, theta).detach() for _ in range(200)])
    assert abs(draws.mean() - exact - of_level) < SIGMAS * draws.std() / 200**0.5


# ---- what is refused


def without_end(group):
    which = pyro.sample("which", dist.Poisson(2.0))
    return priors.Gates(probs=(which / (1 + which)).expand(group.size))


def each_gate_its_own(group):
    with pyro.plate(f"units/{group.name}", group.size):
        which = pyro.sample(f"which/{group.name}", dist.Bernoulli(0.5))
    return priors.Gates(probs=0.2 + 0.6 * which)


def many(group):
    rates = [pyro.sample(f"which{i}/{group.name}", dist.Bernoulli(0.5)) for i in range(9)]
    return priors.Gates(probs=(0.1 + sum(rates) / 12).expand(group.size))


def moved_by_a_choice(group):
    which = pyro.sample(f"which/{group.name}", dist.Bernoulli(0.5))
    level = pyro.sample(f"level/{group.name}", dist.Normal(3 * which, 1.0))
    return priors.Gates(logits=level.expand(group.size))


def factor_by_a_choice(group):
    which = pyro.sample(f"which/{group.name}", dist.Bernoulli(0.5))
    if which:
        pyro.factor(f"more/{group.name}", torch.tensor(-1.0))
    return priors.Gates(probs=(0.2 + 0.5 * which).expand(group.size))


def shared_below_own(group):
    first = pyro.sample(f"first/{group.name}", dist.Bernoulli(0.5))
    second = pyro.sample("second", dist.Bernoulli(0.2 + 0.5 * first))
    return priors.Gates(probs=(0.2 + 0.5 * second).expand(group.size))


REFUSED = {
    "without end": (without_end, r"'which' of the prior is discrete \(Poisson\).*no finite list"),
    "a plate of nine": (each_gate_its_own, r"'which/input'.*shape \(9,\) with 2 values.*more than 256"),
    "nine of a group": (many, r"discrete hyper-sites of group 'input' \('which0/input'.*more than 256"),
    "a site that a choice moves": (moved_by_a_choice, r"'level/input'.*depends on a discrete hyper-site"),
    "a factor that a choice has": (factor_by_a_choice, r"'more/input'.*in some runs.*a factor of zero"),
    "a shared site below an own one": (shared_below_own, r"'second'.*depends on a discrete hyper-site"),
}  # fmt: skip


@pytest.mark.parametrize("prior, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_summed_out_is_refused_by_gate(prior, message):
    with pytest.raises(PriorError, match=message):
        gate(prior, inputs=9)


def test_what_groups_share_is_counted_over_all_of_them():
    """Three groups with six sites each, of nine in all: 64 runs for each, and 512 joint values."""
    named = {"input": range(6), "0": range(3, 9), "2": (0, 1, 2, 6, 7, 8)}

    def prior(group):
        rates = [pyro.sample(f"which{i}", dist.Bernoulli(0.5)) for i in named[group.name]]
        return priors.Gates(probs=(0.1 + sum(rates) / 12).expand(group.size))

    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(PriorError, match=r"'which0', .*'which8', which groups share, have more than 256"):
        bp.gate(network, torch.zeros(1, 3), prior=prior, likelihood=bp.Categorical(rows=64))


def test_groups_of_their_own_do_not_multiply():
    """Eight values in each of two groups are sixteen runs, not sixty-four."""
    runs = []

    def prior(group):
        runs.append(group.name)
        which = pyro.sample(f"which/{group.name}", dist.Categorical(torch.ones(8)))
        return priors.Gates(probs=((which + 0.5) / 8).expand(group.size))

    gated = gate(prior)
    runs.clear()
    gated.gate_priors()
    assert len(runs) == 16
