"""Small gated models with few gates, in float64, that the exact tests share."""

from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors

HALF = priors.NormalWeights(scale=0.7)


def shared_rate(group):
    """A user's prior of a few lines, with its own hyper-prior and no guide."""
    rate = pyro.sample(f"rate/{group.name}", dist.Beta(2.0, 1.5))
    return priors.Gates(probs=rate.expand(group.size))


class OwnGuide:
    """A user's prior with a guide of its own, and no closed form."""

    def __call__(self, group):
        return shared_rate(group)

    def guide(self, group, inclusion_prob):
        kept = inclusion_prob.detach().sum()
        pyro.sample(f"rate/{group.name}", dist.Beta(2.0 + kept, 1.5 + group.size - kept))


class Learned(nn.Module):
    """A user's prior with a parameter: empirical Bayes on the rate."""

    def __init__(self):
        super().__init__()
        self.log_odds = nn.Parameter(torch.tensor(-0.5))

    def forward(self, group):
        return priors.Gates(logits=self.log_odds.expand(group.size))


def coupled(group):
    """Gates that are not independent: all or nothing, mixed with a fair coin for each. No KL is
    registered.
    """
    return AllOrNothing(group.size)


class AllOrNothing(dist.TorchDistribution):
    support = dist.constraints.independent(dist.constraints.boolean, 1)
    arg_constraints: ClassVar = {}

    def __init__(self, size):
        self.size = size
        super().__init__(torch.Size(), torch.Size([size]), validate_args=False)

    def log_prob(self, value):
        together = (value == value[..., :1]).all(-1)
        return torch.log(0.5 * 0.5**self.size + 0.25 * together.to(value.dtype))

    def sample(self, sample_shape=()):
        return torch.randint(2, (*sample_shape, self.size)).double()

    def expand(self, batch_shape, _instance=None):
        return self


EXACT = {
    "flattening": priors.BernoulliGates(priors.Flattening(price=2.5)),
    "flattening, by group": priors.BernoulliGates(priors.Flattening({"input": 0.3, "*": 9.0})),
    "fixed": priors.BernoulliGates(priors.Fixed(0.3)),
    "layer adaptive": priors.BernoulliGates(priors.LayerAdaptive(strength=0.3)),
    "beta": priors.BernoulliGates(priors.Beta(1.5, 0.7)),
    "beta, expected kept": priors.BernoulliGates(priors.Beta.from_expected_kept(1.0)),
    "per group": priors.PerGroup(
        {
            "input": priors.BernoulliGates(priors.Flattening(1.0)),
            "*": priors.BernoulliGates(priors.Beta(2.0, 3.0)),
        }
    ),
    "learned": Learned(),
    "own prior without hyper-sites": lambda group: dist.Bernoulli(torch.full((group.size,), 0.2)),
}
"""Every shipped prior whose ELBO is known exactly, and users' that Pyro knows a KL for."""

CONTINUOUS = ("beta", "beta, expected kept")


def small_gated(prior, weights=HALF, rows=40, exclude=(), likelihood=None, removed=False):
    """Two inputs, three hidden units, two classes; log-odds of the gates drawn. Two groups: 'input' and
    '0'.
    """
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(2, 3), nn.Softplus(), nn.Linear(3, 2)).double()
    likelihood = likelihood or bp.Categorical(rows=rows)
    gated = bp.gate(
        network,
        torch.zeros(1, 2).double(),
        prior=prior,
        likelihood=likelihood,
        weights=weights,
        exclude=exclude,
    )
    gated.double()
    gated.log_odds.data.normal_()
    if removed:
        dead = torch.zeros_like(gated.alive)
        dead[-2] = True
        gated.remove_(dead)
    return gated


def small_batch(rows=7):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 2, generator=generator, dtype=torch.double)
    return x, torch.randint(2, (rows,), generator=generator)
