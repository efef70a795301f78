"""The structured guide at 200 gates and 20,000 weights: time, memory, and distance to the exact posterior.

    python benchmarks/structured_guide_scale.py [--seeds 2] [--steps 200]

A linear regression of 100 outputs on 200 gated inputs, which come in 20 blocks of ten: correlated by 0.5
within, and exactly orthogonal to those of others, so that the posterior factorises and each block's 1,024
masks are enumerated with the weights integrated out. Weights have N(0, 0.3/rows), 300 rows, noise 1: many
gates are left in doubt. Compared, in processor time of a step and in peak memory, each in a process of its
own: one joint Gaussian of all weights (at sizes that it can be had at: its matrix is D × D for every draw),
and rows of layers that share a precision. Learnt by draws (LeaveOneOutELBO): as ``svi_structured`` has it;
and of the first seed without the start at the likelihood's curvature, and with couplings at the gates' rate.
"""

import argparse
import math
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from reporting import write_results
from torch import Tensor, nn

import bayesprune as bp
from bayesprune.svi.guides import LeaveOneOutELBO, StructuredGuide

BLOCKS, UNITS, OUTPUTS, ROWS, KEEP, CORRELATION, SLAB = 20, 10, 100, 300, 0.3, 0.5, 0.3
DRAWS, LEARNING_RATE, NEAR, COUPLING = 32, 0.15, 1.0, 2.0
WAYS = {
    "as svi_structured": {},
    "weights start at nothing": {"start": False},
    "couplings at the gates' rate": {"coupling": 1.0},
}
JOINT = ((10, 10), (20, 10), (20, 20), (40, 25))
"""Gates and outputs of linear models with up to 1,000 weights."""


def problem(blocks: int, units: int, outputs: int, seed: int) -> tuple[Tensor, Tensor]:
    """x (rows, blocks · units) and y (rows, outputs), float64."""
    generator = torch.Generator().manual_seed(seed)
    count = blocks * units
    base = torch.linalg.qr(torch.randn(ROWS, count, generator=generator).double())[0] * ROWS**0.5
    factor = torch.linalg.cholesky((1 - CORRELATION) * torch.eye(units).double() + CORRELATION)
    x = (base.reshape(ROWS, blocks, units) @ factor.mT).reshape(ROWS, count)
    weight = math.sqrt(SLAB / ROWS) * torch.randn(count, outputs, generator=generator).double()
    weight *= torch.rand(count, 1, generator=generator) < KEEP
    return x, x @ weight + torch.randn(ROWS, outputs, generator=generator).double()


def exactly(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """(gates,) p(z = 1 | y) and log p(y), block by block."""
    z = ((torch.arange(2**UNITS).unsqueeze(1) >> torch.arange(UNITS)) & 1).double()
    probs, evidence = [], -float(y.square().sum()) / 2 - y.numel() * math.log(2 * math.pi) / 2
    for part in x.split(UNITS, 1):
        precision = torch.eye(UNITS).double() + SLAB / ROWS * z.unsqueeze(2) * (part.mT @ part) * z.unsqueeze(
            1
        )
        projected = math.sqrt(SLAB / ROWS) * z.unsqueeze(2) * (part.mT @ y)
        score = (projected * torch.linalg.solve(precision, projected)).sum((1, 2)) / 2
        score += z.sum(1) * math.log(KEEP) + (1 - z).sum(1) * math.log1p(-KEEP)
        score -= y.shape[1] * torch.logdet(precision) / 2
        probs.append(torch.softmax(score, 0) @ z)
        evidence += float(torch.logsumexp(score, 0))
    return torch.cat(probs), evidence


def gate(x: Tensor, outputs: int) -> bp.GatedModel:
    return bp.gate(
        nn.Sequential(nn.Linear(x.shape[1], outputs, bias=False)),
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(KEEP)),
        likelihood=bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=math.sqrt(SLAB / ROWS)),
        initial_inclusion=0.5,
    )


def step_of(weights: str, gates: int, outputs: int, draws: int) -> dict[str, float]:
    """Processor seconds of a step, the median of three, and the process's peak memory."""
    torch.set_num_threads(1)
    x, y = (part.float() for part in problem(gates // UNITS, UNITS, outputs, 0))
    gated = gate(x, outputs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    guide = StructuredGuide(gated, weights=weights)
    adam, elbo, seconds = torch.optim.Adam(guide.parameters()), LeaveOneOutELBO(draws), []
    for _ in range(4):
        began = time.process_time()
        adam.zero_grad()
        elbo.differentiable_loss(gated.model, guide, x, y).backward()
        adam.step()
        seconds.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds[1:]), "megabytes": (peak - before) / 1024}


def learnt(seed: int, steps: int, start: bool = True, coupling: float | None = None) -> dict[str, Any]:
    """One data set: how far from the exact posterior, and what it took."""
    torch.manual_seed(seed)
    double = problem(BLOCKS, UNITS, OUTPUTS, seed)
    exact, evidence = exactly(*double)
    x, y = (part.float() for part in double)
    gated, began = gate(x, OUTPUTS), time.process_time()
    guide = StructuredGuide(gated, weights="rows")
    if start:
        guide.start_(x, y)
    guide.log_odds.data.zero_()
    started = time.process_time() - began
    share = COUPLING / len(guide.log_odds) if coupling is None else coupling
    groups = [
        {"params": list(guide.by_layer.parameters()), "share": NEAR / (ROWS * x.shape[1]) ** 0.5},
        {"params": [guide.log_odds], "share": 1.0},
        {"params": [guide.coupling], "share": share},
    ]
    adam, elbo, losses = torch.optim.Adam(groups), LeaveOneOutELBO(DRAWS), []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = LEARNING_RATE * group["share"] * min(1.0, 2 * (1 - step / steps))
        adam.zero_grad()
        loss = elbo.differentiable_loss(gated.model, guide, x, y)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    off = (guide.inclusion_prob().detach().double() - exact).abs()
    return {
        "mean_off": off.mean().item(),
        "largest_off": off.max().item(),
        "in_doubt": int(((exact > 0.1) & (exact < 0.9)).sum()),
        "nats_below_evidence": evidence + statistics.fmean(losses[-max(1, steps // 10) :]),
        "processor_seconds": time.process_time() - began,
        "processor_seconds_of_start": started,
    }


def alone(function: Any, *arguments: Any) -> Any:
    """A function's value, from a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "structured_guide_scale.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"steps": [], "learnt": {name: [] for name in WAYS}}
    sizes = [("joint", *size, 2) for size in JOINT] + [("rows", 40, 25, 2)]
    for size in (*sizes, *(("rows", BLOCKS * UNITS, OUTPUTS, draws) for draws in (2, DRAWS))):
        found = alone(step_of, *size)
        weights, gates, outputs, draws = size
        results["steps"].append(
            {"weights": weights, "gates": gates, "outputs": outputs, "draws": draws, **found}
        )
        print(
            f"{weights:6} {gates} gates, {gates * outputs:6,} weights, {draws:2} draws: {found}", flush=True
        )
    for seed in range(arguments.seeds):
        for name, settings in list(WAYS.items())[: 1 if seed else None]:
            found = learnt(seed, arguments.steps, **settings)
            results["learnt"][name].append(found)
            print(f"seed {seed} {name:30} {found}", flush=True)
        write_results(arguments.out, {**vars(arguments), "finished_seeds": seed + 1}, results, quiet=True)


if __name__ == "__main__":
    main()
