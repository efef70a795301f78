"""SVI with a structured guide q(gates) q(weights | gates), for small models: honest inclusion probabilities.

Weights learn first, under gates that are drawn but do not move; then both. Nothing is decided on the way:
what is reported are posterior probabilities, and only at the end are units below one half removed. At most
12 gates are enumerated; more are drawn. There are no checkpoints: a run takes seconds to minutes, and an
interrupted one starts again, with the same draws for the same seed. Of more than 1,000 weights the outputs of
a layer share a precision, and begin where the likelihood's curvature is.
"""

import copy
import sys
import time

import pyro
import torch
import torch.distributed as dist
from pyro.infer import TraceEnum_ELBO, config_enumerate

import bayesprune as bp
from bayesprune.errors import SettingsError

LEARNING_RATE = 0.1
WARMUP = 0.3  # share of the steps before gates move
DRAWS = 32  # where gates are not enumerated
ENUMERABLE = 12
MOST_ROWS = 1_000  # by which the curvature is taken
JOINT = 1_000  # weights under one Gaussian; of more, a layer's outputs share a precision
NEAR = 1.0  # of the learning rate by √(rows · columns), of weights that begin near their posterior
COUPLING = 2.0  # of the learning rate by the number of gates: so many couplings move a gate at once


def infer(gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress):
    """Fit a gated model of a few hundred gates; the recipe, of gates that get decided, is unused."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        raise SettingsError("svi_structured learns in one process: give the command without torchrun.")
    gated = copy.deepcopy(gated).to(device).eval()
    x, y = train.x.to(device), train.y.to(device)
    many = sum(p.numel() for p in gated.weight_tensors().values()) > JOINT
    guide = bp.svi.guides.StructuredGuide(gated, weights="rows" if many else "joint").to(device)
    if many:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            guide.start_(x[:MOST_ROWS], y[:MOST_ROWS])
    guide.log_odds.data.zero_()  # every mask is as probable: weights learn what to be under each of them
    if len(gated.log_odds) <= ENUMERABLE:
        elbo, program = TraceEnum_ELBO(max_plate_nesting=1), config_enumerate(guide, "parallel")
    else:
        elbo, program = bp.svi.guides.LeaveOneOutELBO(draws=DRAWS), guide
    of_gates = [guide.log_odds, guide.coupling]
    rows_of = list(guide.by_layer.parameters())
    others = [p for p in guide.parameters() if all(p is not q for q in (*of_gates, *rows_of))]
    widest = max(layer.width for layer in guide.layers)
    drawn = len(guide.log_odds) > ENUMERABLE
    adam = torch.optim.Adam(
        [
            {"params": others, "share": 1.0, "from": 0.0},
            {"params": rows_of, "share": NEAR / (len(x) * widest) ** 0.5, "from": 0.0},
            {"params": [guide.log_odds], "share": 1.0, "from": WARMUP},
            {
                "params": [guide.coupling],
                "share": COUPLING / len(guide.log_odds) if drawn else 1.0,
                "from": WARMUP,
            },
        ]
    )
    batch_size = min(batch_size, len(x))
    steps = len(x) // batch_size
    total, step, history, began = epochs * steps, 0, [], time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        pyro.set_rng_seed(seed)
        for epoch in range(1, epochs + 1):
            started, losses = time.perf_counter(), []
            for rows in torch.randperm(len(x))[: steps * batch_size].split(batch_size):
                rate = LEARNING_RATE * min(1.0, 2 * (1 - step / total))  # constant, then falling to zero
                for group in adam.param_groups:
                    group["lr"] = rate * group["share"] if step >= group["from"] * total else 0.0
                adam.zero_grad()
                loss = elbo.differentiable_loss(gated.model, program, x[rows], y[rows])
                loss.backward()
                adam.step()
                losses.append(loss.item())
                step += 1
            with torch.no_grad():
                sites = guide(x)  # site name → value, one draw
                gates = {g.name: sites[f"gate/{g.name}"] for g in gated.groups}
                weights = {n: sites[f"weight/{n}"] for n in gated.weight_tensors()}
                nll = gated.likelihood.nll(gated.outputs(x, gates, weights), y).mean().item()
                theta = guide.inclusion_prob()  # (units of all groups,)
            elbo_now, now = -sum(losses) / steps, time.perf_counter()
            history.append(
                bp.svi.record(gated, theta, epoch=epoch, elbo=elbo_now, nll=nll, seconds=now - started)
            )
            if progress:
                print(f"\repoch {epoch} of {epochs}: ELBO {elbo_now:.1f} nats", end="", file=sys.stderr)
    with torch.no_grad():
        median = gated.by_group((theta > 0.5).to(theta.dtype))
        bp.svi.settle_(gated, theta, guide.weight_means(median))
    undecided = history[-1].undecided
    return bp.FitResult(gated, tuple(history), time.perf_counter() - began, undecided, decided_at=epochs)
