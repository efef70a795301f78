"""NUTS over weights and hyper-sites, gates summed out exactly: a reference for other inferences.

Every density that the sampler asks for is a sum over all 2^K gate configurations, at most 12 gates, and
every inclusion probability is the mean over draws of the exact p(gates | weights, y): no gate is ever drawn.
Where a prior of gates has a penalty, its hyper-sites are not sampled but gone: the prior of a mask is then
e^-penalty, the one that ``fit`` works under, a price for each unit under ``Flattening``.
It is for problems of a few hundred rows and a few dozen weights. ``epochs`` is the number of posterior draws
divided by 10, after half as many of warm-up; batches, recipe and checkpoints do not apply: an interrupted run
starts again, with the same draws for the same seed.
"""

import copy
import time

import pyro
import torch
import torch.distributed as dist
from pyro import poutine
from pyro.infer import MCMC, NUTS, config_enumerate

import bayesprune as bp
from bayesprune.errors import SettingsError

DRAWS_PER_EPOCH = 10
MOST_GATES = 12
MOST_DOUBLINGS = 6  # of a trajectory: at most 63 steps a draw


def infer(gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress):
    """The posterior of a small gated model; noise scales and the like stay as they are in ``gated``."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        raise SettingsError("nuts_reference samples in one process: give the command without torchrun.")
    gated = copy.deepcopy(gated).to(device).eval().requires_grad_(False)
    x, y = train.x.to(device), train.y.to(device)
    units, began = len(gated.log_odds), time.perf_counter()
    if units > MOST_GATES:
        raise SettingsError(
            f"nuts_reference sums over 2^{units} configurations of {units} gates: at most {MOST_GATES}."
        )
    collapsed = gated.with_prior(bp.priors.Collapsed(gated.prior)).to(device).requires_grad_(False)
    model = config_enumerate(collapsed.model, "parallel")
    with torch.random.fork_rng(devices=[]):
        pyro.set_rng_seed(seed)
        count = DRAWS_PER_EPOCH * epochs
        sampler = MCMC(
            NUTS(model, max_plate_nesting=1, max_tree_depth=MOST_DOUBLINGS),
            count,
            warmup_steps=count // 2,
            disable_progbar=not progress,
        )
        sampler.run(x, y)
    draws = sampler.get_samples()  # site name → (draws, ...)
    inclusion, weights, nll = zip(
        *(given(gated, model, {k: v[s] for k, v in draws.items()}, x, y) for s in range(count)), strict=True
    )
    inclusion = torch.stack(inclusion)  # (draws, units)
    weights = {name: torch.stack([w[name] for w in weights]).mean(0) for name in weights[0]}
    history, seconds = [], time.perf_counter() - began
    for epoch in range(1, epochs + 1):  # an epoch: ten more draws
        so_far, now = epoch * DRAWS_PER_EPOCH, slice((epoch - 1) * DRAWS_PER_EPOCH, epoch * DRAWS_PER_EPOCH)
        history.append(
            bp.svi.record(
                gated,
                inclusion[:so_far].mean(0),
                epoch=epoch,
                elbo=float("nan"),
                nll=sum(nll[now]) / DRAWS_PER_EPOCH,
                seconds=seconds / epochs,
            )
        )
    gated.requires_grad_(True)
    bp.svi.settle_(gated, inclusion.mean(0), weights)
    return bp.FitResult(gated, tuple(history), seconds, history[-1].undecided, decided_at=epochs)


@torch.no_grad()
def given(gated, model, draw, x, y):
    """p(gates | one draw, y): the marginals, the weights, and the mean NLL of a row, all by enumeration."""
    enumerated = poutine.enum(poutine.condition(model, data=draw), first_available_dim=-2)
    trace = poutine.trace(enumerated).get_trace(x, y)
    trace.compute_log_prob()
    log_joint = torch.zeros(())  # (configurations of each group...)
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and (name == "y" or name.startswith("gate/")):
            log_joint = log_joint + site["log_prob"].sum(-1)
    share = torch.softmax(log_joint.flatten(), 0).reshape(log_joint.shape)
    marginals = []
    for group in gated.groups:
        gates = trace.nodes[f"gate/{group.name}"]["value"].squeeze(-2)  # (configurations, 1..., size)
        marginals.append((share.unsqueeze(-1) * gates).flatten(0, -2).sum(0))
    rows = trace.nodes["y"]["log_prob"].mean(-1)
    weights = {name: draw[f"weight/{name}"].reshape(p.shape) for name, p in gated.weight_tensors().items()}
    return torch.cat(marginals), weights, -(share * rows).sum().item()
