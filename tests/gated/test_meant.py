"""What a prior returns, its guide and its penalty: refused where they cannot be meant; certain gates."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.svi.objective import exact_negative_elbo, gate_nats
from tests.gated.own import gate, rows_of
from tests.svi.small import AllOrNothing

pytestmark = pytest.mark.usefixtures("double_precision")


class Rate:
    """A shared rate with a guide; what is wrong is in the subclasses."""

    def __call__(self, group):
        return priors.Gates(logits=pyro.sample(f"low/{group.name}", dist.Normal(0.0, 1.0)).expand(group.size))

    def guide(self, group, inclusion_prob):
        pyro.sample(f"low/{group.name}", dist.Normal(0.0, 1.0))


class Misspelt(Rate):
    def guide(self, group, inclusion_prob):
        pyro.sample(f"lo/{group.name}", dist.Normal(0.0, 1.0))


class Missing(Rate):
    def guide(self, group, inclusion_prob):
        """Forgotten."""


class TooMany(Rate):
    def guide(self, group, inclusion_prob):
        super().guide(group, inclusion_prob)
        pyro.sample(f"more/{group.name}", dist.Normal(0.0, 1.0))


class OtherShape(Rate):
    def guide(self, group, inclusion_prob):
        pyro.sample(f"low/{group.name}", dist.Normal(torch.zeros(3), 1.0))


class Breaks(Rate):
    def guide(self, group, inclusion_prob):
        return group.width


class LearntChoice(nn.Module):
    """Two rates, and a guide for the choice that is learnt: no rsample, so no gradient of its own."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, group):
        which = pyro.sample(f"which/{group.name}", dist.Categorical(torch.ones(2)))
        return priors.Gates(probs=torch.tensor([0.05, 0.6])[which].expand(group.size))

    def guide(self, group, inclusion_prob):
        pyro.sample(f"which/{group.name}", dist.Categorical(logits=self.logits))


class ChoiceByGates(LearntChoice):
    def __init__(self):
        nn.Module.__init__(self)

    def guide(self, group, inclusion_prob):
        pyro.sample(f"which/{group.name}", dist.Categorical(logits=inclusion_prob[:2]))


class Closed:
    """Independent gates whose penalty is exact, but for a sign and a constant."""

    def __init__(self, sign=1.0, constant=0.0):
        self.sign, self.constant = sign, constant

    def __call__(self, group):
        return priors.Gates(probs=torch.full((group.size,), 0.2))

    def guide(self, group, inclusion_prob):
        """No hyper-sites."""

    def penalty(self, group, inclusion_prob):
        nats = torch.distributions.kl_divergence(priors.Gates(probs=inclusion_prob), self(group))
        return self.sign * nats + self.constant


class OwnBeta(priors.Beta):
    """A hyper-prior of a user's, by inheritance, with a penalty of another prior."""

    def penalty(self, group, inclusion_prob):
        return priors.Beta(self.a + 0.5, self.b).penalty(group, inclusion_prob)


class Coupled(Closed):
    """No divergence is registered: the gates are enumerated, or drawn where there are more than twelve."""

    def __call__(self, group):
        return AllOrNothing(group.size)

    def penalty(self, group, inclusion_prob):
        """Σ q (log q − log p), with p = ½ 2⁻ⁿ, and ½ 2⁻ⁿ + ¼ where all are alike."""
        theta, n = inclusion_prob, group.size
        alike = theta.prod() + (1 - theta).prod()
        inside, outside = math.log(0.5 * 0.5**n + 0.25), math.log(0.5 * 0.5**n)
        score = alike * inside + (1 - alike) * outside
        return self.sign * (-priors.Gates(probs=theta).entropy() - score)


def off_or_on(group):
    return priors.Gates(probs=pyro.sample(f"on/{group.name}", dist.Bernoulli(0.5)).expand(group.size))


class ExactlyTwo(AllOrNothing):
    def log_prob(self, value):
        return torch.where(value.sum(-1) == 2, 0.0, -math.inf)


def normals(group):
    return dist.Normal(torch.zeros(group.size), 1.0)


def relaxed(group):
    return dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), torch.full((group.size,), 0.5))


def no_number(group):
    return dist.Bernoulli(torch.full((group.size,), math.nan), validate_args=False)


NOT_GATES = r"for group 'input', which is no distribution over \{0, 1\}"
NOT_ITS_PENALTY = r"penalty of the prior for group 'input' is not that of its program.*Mind its sign"
NO_RSAMPLE = r"'which/input' from a distribution without rsample \(Categorical\).*leave it out"
REFUSED = {
    "Normal": (lambda group: normals(group).to_event(1), f"returned Normal {NOT_GATES}"),
    "Normals": (normals, f"returned Normal {NOT_GATES}"),
    "Poisson": (lambda group: dist.Poisson(torch.ones(group.size)).to_event(1), f"Poisson {NOT_GATES}"),
    "relaxed": (relaxed, r"returned LogitRelaxedBernoulli for group .*which is no distribution over"),
    "no number": (no_number, r"a probability that is no number"),
    "misspelt site": (Misspelt(), r"does not sample hyper-site 'low/input' \(it samples 'lo/input', which"),
    "missing site": (Missing(), r"'input' does not sample hyper-site 'low/input': sample it"),
    "site too many": (TooMany(), r"guide samples 'more/input', 'more/0', which the prior does not"),
    "other shape": (OtherShape(), r"guide samples 'low/input' of batch and event shape \(3,\), \(\)"),
    "broken guide": (
        Breaks(),
        r"prior's guide fails for group 'input': AttributeError.*called with the group",
    ),
    "learnt choice": (LearntChoice(), NO_RSAMPLE),
    "choice by the gates": (ChoiceByGates(), NO_RSAMPLE),
    "penalty of the wrong sign": (Closed(sign=-1.0), NOT_ITS_PENALTY),
    "penalty without a constant": (Closed(constant=0.3), NOT_ITS_PENALTY),
    "penalty of another rate": (priors.BernoulliGates(OwnBeta(1.0, 3.0)), NOT_ITS_PENALTY),
    "penalty, enumerated": (Coupled(sign=-1.0), NOT_ITS_PENALTY),
    "all or none": (off_or_on, r"probability zero to masks of group 'input'"),
    "exactly two": (lambda group: ExactlyTwo(group.size), r"probability zero to masks of group 'input'"),
}


@pytest.mark.parametrize("prior, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_by_gate(prior, message):
    with pytest.raises(PriorError, match=message):
        gate(prior)


def mixture(group):
    parts = dist.Bernoulli(torch.tensor([[0.1], [0.7]]).expand(2, group.size)).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), parts)


class KnownChoice(LearntChoice):
    """Its guide has nothing to learn, and so no gradient to lose."""

    def __init__(self):
        nn.Module.__init__(self)
        self.register_buffer("logits", torch.zeros(2))


class SameBeta(priors.Beta):
    """A class of a user's, with the right penalty, whose hyper-site is drawn."""


TAKEN = {
    "penalty": (Closed(), {}),
    "penalty, enumerated": (Coupled(), {}),
    "penalty, by draws": (Coupled(), {"inputs": 14}),
    "penalty under a hyper-site": (priors.BernoulliGates(SameBeta(1.0, 3.0)), {}),
    "two categories": (lambda group: dist.Categorical(torch.ones(group.size, 2)), {}),
    "mixture": (mixture, {}),
    "guide that is not learnt": (KnownChoice(), {}),
}


@pytest.mark.parametrize("prior, settings", TAKEN.values(), ids=TAKEN)
def test_what_can_be_meant_is_taken(prior, settings):
    gated = gate(prior, **settings)
    assert torch.isfinite(gate_nats(gated, gated.inclusion_prob()))


# ---- gates that are certain

CERTAIN = (0.3, 0.3, 0.0, 1.0)


def certain(group):
    return priors.Gates(probs=torch.tensor([0.3] * (group.size - 4) + list(CERTAIN)))


def certain_by_logits(group):
    return dist.Bernoulli(logits=torch.logit(certain(group).probs)).to_event(1)


def certain_whatever_the_rate(group):
    rate = pyro.sample(f"rate/{group.name}", dist.Beta(2.0, 3.0))
    where = torch.arange(group.size)
    return priors.Gates(probs=torch.where(where == group.size - 2, 0.0, rate.expand(group.size)))


class FirstIsShut(AllOrNothing):
    def log_prob(self, value):
        return super().log_prob(value).masked_fill(value[..., 0] > 0, -math.inf)


def test_gates_of_probability_zero_and_one_are_pinned():
    for prior in (certain, certain_by_logits):
        gated = gate(prior)
        assert gated.inclusion_prob().tolist() == pytest.approx([0.9, 0.9, 0.9, 0.9, 0, 1, 0.9, 0.9, 0, 1])
        assert gated.inclusion_prob()[[4, 5, 8, 9]].tolist() == [0.0, 1.0, 0.0, 1.0]
    shut = gate(certain_whatever_the_rate).inclusion_prob()
    assert shut.tolist() == pytest.approx([0.9, 0.9, 0.9, 0.9, 0, 0.9, 0.9, 0.9, 0, 0.9])
    coupled = gate(lambda g: FirstIsShut(g.size)).inclusion_prob()
    assert (coupled == 0).nonzero().flatten().tolist() == [0, 6]


def test_small_probabilities_are_no_certain_ones():
    gated = gate(lambda g: priors.Gates(logits=torch.full((g.size,), -80.0)))
    assert gated.pinned is None and gated.inclusion_prob().tolist() == pytest.approx([0.9] * 10)
    assert gate(priors.BernoulliGates(priors.Flattening(2000.0))).pinned is None


def test_the_elbo_stays_finite_and_is_the_exact_one():
    """Σ over the other gates of KL(Bern(0.9) ‖ Bern(0.3)); the certain ones cost nothing."""
    gated = gate(certain)
    other = 6 * (0.9 * math.log(3) + 0.1 * math.log(1 / 7))
    assert gate_nats(gated, gated.inclusion_prob()).item() == pytest.approx(other)
    x, y = rows_of(gated)
    exact = exact_negative_elbo(gated, x, y)
    slopes = torch.autograd.grad(exact, [p for p in gated.parameters() if p.requires_grad])
    assert torch.isfinite(exact) and all(bool(torch.isfinite(slope).all()) for slope in slopes)
    assert torch.isfinite(Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y))


@pytest.mark.parametrize("estimator", ["curved", "straight_through", "second_order", "concrete", "reinforce"])
def test_a_fit_removes_the_shut_ones_and_keeps_the_open_ones(estimator):
    gated = gate(certain)
    x, y = rows_of(gated, 64)
    recipe = bp.Recipe(
        estimator=estimator, gates=bp.GateSteps(learning_rate=0.5, every=1), shrink=bp.Shrink(every=4)
    )
    result = bp.fit(gated, (x, y), epochs=4, batch_size=16, recipe=recipe, progress=False)
    alive = result.gated.alive
    assert not alive[[4, 8]].any() and alive[[5, 9]].all()
    assert all(math.isfinite(record.elbo) for record in result.history)
    assert result.gated.inclusion_prob()[[4, 5, 8, 9]].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_another_prior_does_not_inherit_them():
    gated = gate(certain, initial_inclusion=0.7)
    assert gated.with_prior(
        priors.BernoulliGates(priors.Fixed(0.3))
    ).inclusion_prob().tolist() == pytest.approx([0.7] * 10)
    again = gated.with_prior(certain_whatever_the_rate)
    assert again.inclusion_prob()[[4, 5]].tolist() == pytest.approx([0.0, 0.7])


def test_whole_numbers_are_prices_too():
    """E π = 1/log γ − 1/(γ − 1), and p(½) = (γ − 1)/log γ / (1 + (γ − 1)/2), at log γ = 3."""
    torch.set_default_dtype(torch.float)
    hyper, gamma = priors.FlatteningDistribution(torch.tensor(3)), math.exp(3)
    assert hyper.mean.item() == pytest.approx(1 / 3 - 1 / (gamma - 1), abs=1e-6)
    density = (gamma - 1) / 3 / (1 + (gamma - 1) / 2)
    assert hyper.log_prob(torch.tensor(0.5)).item() == pytest.approx(math.log(density), abs=1e-6)
