"""The slow road: −ELBO from nothing but Pyro's traces, summed over every gate configuration."""

import itertools

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine


def negative_elbo_by_pyro(gated, x, y, nodes=24, without=()):
    """Σ_z q(z) ∫ q(hyper) (log q − log p), each term scored by Pyro; one continuous hyper-site at most.

    Args:
        gated: a gated model with few living gates; Gaussian weights are taken at ± one standard deviation,
            which integrates separable quadratics (their own KL) exactly.
        x: inputs.
        y: targets.
        nodes: of the quadrature.
        without: sites that are left out of the sum.

    Returns:
        Scalar, nats, differentiable.
    """
    total = 0.0
    probs = gated.inclusion_prob()
    for values, mass in hyper_grid(gated, x, nodes):
        for z in configurations(gated):
            share = torch.where(z > 0, probs, 1 - probs)[gated.alive].prod()
            gates = {f"gate/{name}": part for name, part in gated.by_group(z).items()}
            for weights, chance in weight_grid(gated):
                total = total + mass * share * chance * score(
                    gated, x, y, {**values, **gates, **weights}, without
                )
    return total


def score(gated, x, y, values, without):
    """log q − log p at given values; the guide's own values elsewhere."""
    guide = poutine.trace(poutine.condition(gated.guide, data=values)).get_trace(x, y)
    known = {n: s["value"] for n, s in guide.nodes.items() if s["type"] == "sample"}
    model = poutine.trace(poutine.condition(gated.model, data=known)).get_trace(x, y)
    unseen = {n for n, s in model.nodes.items() if s["type"] == "sample"} - set(known)
    assert all(n == "y" or n == "rows" or n.startswith(("removed/", "closed/")) for n in unseen), unseen
    total = 0.0
    for sign, trace in ((1, guide), (-1, model)):
        trace.compute_log_prob(lambda name, site: name not in without)
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and name not in without:
                total = total + sign * site["log_prob_sum"]
    return total


def configurations(gated):
    living = gated.alive.nonzero().squeeze(1)
    for bits in itertools.product([0.0, 1.0], repeat=len(living)):
        z = torch.zeros_like(gated.log_odds.data)
        z[living] = torch.tensor(bits).to(z)
        yield z


def weight_grid(gated):
    """Two points that integrate functions without mixed terms and of at most third order in each weight."""
    scales, tensors = gated.log_scales_by_tensor(), gated.weight_tensors()
    if not scales:
        return [({}, 1.0)]
    return [
        ({f"weight/{n}": tensors[n] + sign * s.exp() for n, s in scales.items()}, 0.5) for sign in (-1, 1)
    ]


def hyper_grid(gated, x, nodes):
    """Values of the continuous hyper-site with their masses under the guide; point masses need none."""
    trace = poutine.trace(gated.guide).get_trace(x)
    sites = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not name.startswith(("gate/", "weight/", "noise/", "rows"))
        and not isinstance(
            site["fn"].base_dist if hasattr(site["fn"], "base_dist") else site["fn"], dist.Delta
        )
    }
    if not sites:
        return [({}, 1.0)]
    ((name, site),) = sites.items()
    points, weights = np.polynomial.legendre.leggauss(nodes)
    t, weights = torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
    values, jacobian = (
        t**3 * (10 - 15 * t + 6 * t**2),
        30 * t**2 * (1 - t) ** 2,
    )  # crowds the nodes at both ends
    mass = (site["fn"].log_prob(values).exp() * weights * jacobian).detach()
    return [({name: v}, m) for v, m in zip(values, mass, strict=True)]
