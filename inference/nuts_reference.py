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
from dataclasses import dataclass

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
        found = [given(gated, model, {k: v[s] for k, v in draws.items()}, x, y) for s in range(count)]
    inclusion, nll = torch.stack([f.inclusion for f in found]), [f.nll for f in found]
    drawn = {n: torch.stack([f.weights[n] for f in found]) for n in found[0].weights}
    samples = bp.svi.Samples(
        gates=torch.stack([f.gates for f in found]),
        weights=drawn,
        hyper={name: value for name, value in draws.items() if not name.startswith("weight/")},
        log_prior=torch.tensor([f.log_prior for f in found], dtype=torch.double),
        log_joint=torch.tensor([f.log_joint for f in found], dtype=torch.double),
    )
    weights = {name: values.mean(0) for name, values in drawn.items()}
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
    undecided = copy.deepcopy(gated)
    undecided.log_odds.data = torch.logit(inclusion.mean(0), eps=1e-6).to(gated.log_odds)
    for name, tensor in undecided.weight_tensors().items():
        tensor.data.copy_(weights[name])
    bp.svi.settle_(gated, inclusion.mean(0), weights)
    return bp.FitResult(
        gated, tuple(history), seconds, history[-1].undecided, decided_at=epochs, at_decision=undecided,
        samples=samples,
    )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What one draw of weights and hyper-sites says of gates.

    Attributes:
        inclusion: (units,), p(gate = 1 | draw, y).
        gates: (units,), drawn from p(gates | draw, y).
        weights: tensor name → its values in the draw.
        nll: of a row, mean over p(gates | draw, y), nats.
        log_prior: log p(gates, draw), nats.
        log_joint: log p(gates, draw, y), nats.
    """

    inclusion: torch.Tensor
    gates: torch.Tensor
    weights: dict[str, torch.Tensor]
    nll: float
    log_prior: float
    log_joint: float


@torch.no_grad()
def given(gated, model, draw, x, y):
    """All of it by enumeration of the gates."""
    enumerated = poutine.enum(poutine.condition(model, data=draw), first_available_dim=-2)
    trace = poutine.trace(enumerated).get_trace(x, y)
    trace.compute_log_prob()
    log_prior = torch.zeros(())  # (configurations of each group...)
    for name, site in trace.nodes.items():
        if name.startswith("gate/"):
            log_prior = log_prior + site["log_prob"].sum(-1)
    log_joint = log_prior + trace.nodes["y"]["log_prob"].sum(-1)
    of_draw = sum(float(trace.nodes[name]["log_prob"].sum()) for name in draw)
    share = torch.softmax(log_joint.flatten(), 0).reshape(log_joint.shape)
    one = torch.multinomial(share.flatten(), 1)
    marginals, drawn = [], []
    for group in gated.groups:
        gates = trace.nodes[f"gate/{group.name}"]["value"].squeeze(-2)  # (configurations, 1..., size)
        gates = gates.expand(*share.shape, group.size).flatten(0, -2)
        marginals.append(share.flatten() @ gates)
        drawn.append(gates[one].squeeze(0))
    rows = trace.nodes["y"]["log_prob"].mean(-1)
    log_prior = log_prior.expand(share.shape)
    return Given(
        inclusion=torch.cat(marginals),
        gates=torch.cat(drawn),
        weights={n: draw[f"weight/{n}"].reshape(p.shape) for n, p in gated.weight_tensors().items()},
        nll=-(share * rows).sum().item(),
        log_prior=log_prior.flatten()[one].item() + of_draw,
        log_joint=log_joint.flatten()[one].item() + of_draw,
    )
