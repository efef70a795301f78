"""Every family that can be distilled: a likelihood, outputs, a teacher's outputs, and targets."""

import pyro.distributions as dist
import torch

from bayesprune.likelihoods import Bernoulli, Categorical, Gaussian, Poisson

FAMILIES = ("categorical", "gaussian", "gaussian, fixed", "bernoulli", "poisson")


def example(name, rows, columns=3, dtype=torch.float32):
    """A likelihood, outputs of a network and of its teacher (rows, columns), and targets that fit."""
    generator = torch.Generator().manual_seed(0)
    outputs, said, reals = torch.randn(3, rows, columns, generator=generator, dtype=dtype)
    likelihood, targets = {
        "categorical": (Categorical(rows), torch.arange(rows) % columns),
        "gaussian": (Gaussian(rows, scale=0.7), reals),
        "gaussian, fixed": (Gaussian(rows, scale=0.7, learn_scale=False), reals),
        "bernoulli": (Bernoulli(rows), reals > 0),
        "poisson": (Poisson(rows), reals.abs().mul(3).round()),
    }[name]
    return likelihood.to(dtype), outputs, said, targets


def distribution(name, outputs):
    """Of every output of ``example``'s likelihood."""
    return {
        "categorical": lambda: dist.Categorical(logits=outputs),
        "gaussian": lambda: dist.Normal(outputs, 0.7),
        "gaussian, fixed": lambda: dist.Normal(outputs, 0.7),
        "bernoulli": lambda: dist.Bernoulli(logits=outputs),
        "poisson": lambda: dist.Poisson(outputs.exp()),
    }[name]()
