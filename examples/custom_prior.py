"""A prior of your own, in ten lines: a keep-rate per layer that is log-normal around a tenth.

    python examples/custom_prior.py [--epochs 40] [--out my_network]

Any function of a group that returns a distribution over its gates is a prior; what it samples before are its
hyper-sites, and get a guide by themselves. It trains through Pyro's traces, prunes, and the small network is
saved.
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import bayesprune as bp


def log_normal_rate(group):
    """Units of a layer share a keep-rate with log-normal odds: most layers keep few units, some keep many."""
    log_odds = pyro.sample(f"log_odds/{group.name}", dist.Normal(-2.2, 1.0))
    return bp.priors.Gates(logits=log_odds.expand(group.size))


def main():
    """Fit, prune, save and reload."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", default="my_network")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    gated = bp.gate(network, x[:1], prior=log_normal_rate, likelihood=bp.Categorical(rows=len(x)))
    result = bp.fit(gated, (x, y), epochs=arguments.epochs, batch_size=32)

    small = bp.prune(result)
    error = bp.evaluate(small, (digits.test.x, digits.test.y), bp.Categorical(rows=len(x))).score
    bp.save(small, arguments.out, example=x[:1])
    reloaded = bp.load(arguments.out)
    same = torch.equal(reloaded(x[:5]), small(x[:5]))
    percent = result.history[-1].parameters_percent
    print(f"units kept {result.gated.kept()}, {percent:.1f} % of the parameters")
    print(f"test error {error:.2f} %")
    print(f"saved in {arguments.out}/, reloaded {'bit-equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
