"""How far from the exact posterior are inclusion probabilities? Mean-field and structured guides beside 2^10.

    python benchmarks/structured_guide.py [--seeds 5] [--steps 600]

Linear regression with ten Bernoulli-gated inputs of pairwise correlation ρ, Gaussian slab, known noise.
Weights can be integrated out by hand, so that all 1,024 masks are weighed exactly. Every guide is an ordinary
Pyro guide of the same model, learnt by the same loop (gates enumerated, Adam, gates held over the first 30 %
of the steps). Each seed draws a data set of its own.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import pyro
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

import bayesprune as bp
from bayesprune.svi.guides import StructuredGuide

UNITS, ROWS, NOISE, SLAB, KEEP = 10, 100, 1.0, 1.0, 0.3
CORRELATIONS = (0.0, 0.5, 0.9)
LEARNING_RATE, WARMUP = 0.1, 0.3
GUIDES = {
    "mean-field q(z) q(w)": lambda gated: gated.guide,
    "paired q(z_i) q(w_i | z_i)": lambda gated: StructuredGuide(gated, "independent", "paired"),
    "structured q(z) q(w | z)": StructuredGuide,
}


def regression(correlation: float, seed: int) -> tuple[Tensor, Tensor]:
    """x (rows, units) and y (rows,); the inputs' weights fall evenly from a half to nothing."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.linalg.cholesky((1 - correlation) * torch.eye(UNITS) + correlation)
    x = torch.randn(ROWS, UNITS, generator=generator) @ factor.T
    weight = torch.linspace(0.5, 0.0, UNITS)
    return x, x @ weight + NOISE * torch.randn(ROWS, generator=generator)


def enumerate_exactly(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """(units,) p(z = 1 | y) and log p(y), since y | z is N(0, noise² I + slab² x_z x_zᵀ); in float64."""
    x, y = x.double(), y.double()
    z = ((torch.arange(2**UNITS).unsqueeze(1) >> torch.arange(UNITS)) & 1).double()
    gated = x * z.unsqueeze(1)  # (2^units, rows, units)
    covariance = NOISE**2 * torch.eye(ROWS).double() + SLAB**2 * gated @ gated.mT
    scores = torch.distributions.MultivariateNormal(torch.zeros(ROWS).double(), covariance).log_prob(y)
    keep = torch.tensor(KEEP).double()
    scores = scores + z.sum(-1) * keep.log() + (1 - z).sum(-1) * torch.log1p(-keep)
    return torch.softmax(scores, 0) @ z, torch.logsumexp(scores, 0).item()


def gate(x: Tensor) -> bp.GatedModel:
    return bp.gate(
        nn.Sequential(nn.Linear(UNITS, 1, bias=False)),
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(KEEP)),
        likelihood=bp.Gaussian(rows=ROWS, scale=NOISE, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=SLAB, posterior="normal", initial_scale=0.1),
        initial_inclusion=0.5,
    )


def learn(gated: bp.GatedModel, guide, x: Tensor, y: Tensor, steps: int) -> tuple[Tensor, float]:
    """(units,) q(z = 1) and the ELBO, nats, the mean over the last tenth of the steps."""
    module = guide if isinstance(guide, nn.Module) else gated
    gates = [p for n, p in module.named_parameters() if n in ("log_odds", "coupling")]
    others = [p for n, p in module.named_parameters() if n not in ("log_odds", "coupling")]
    adam = torch.optim.Adam([{"params": others}, {"params": gates}], lr=LEARNING_RATE)
    elbo, program = TraceEnum_ELBO(max_plate_nesting=1), config_enumerate(guide, "parallel")
    losses = []
    for step in range(steps):
        rate = LEARNING_RATE * min(1.0, 2 * (1 - step / steps))
        adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = rate, rate * (step >= WARMUP * steps)
        adam.zero_grad()
        loss = elbo.differentiable_loss(gated.model, program, x, y)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return module.inclusion_prob().detach().double(), -statistics.fmean(losses[-max(1, steps // 10) :])


def tabulate(results: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    print(f"\n{'ρ':4} {'guide':28} {'mean |q − exact|':>18} {'largest':>8} {'nats short':>11} {'seconds':>8}")
    for correlation, guides in results.items():
        for name, runs in guides.items():
            off = [run["mean_off"] for run in runs]
            spread = statistics.stdev(off) if len(off) > 1 else 0.0
            largest = max(run["largest_off"] for run in runs)
            short = statistics.fmean(run["nats_below_evidence"] for run in runs)
            seconds = statistics.fmean(run["seconds"] for run in runs)
            print(
                f"{correlation:4} {name:28} {statistics.fmean(off):9.4f} ± {spread:.4f} {largest:8.3f} "
                f"{short:11.2f} {seconds:8.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "structured_guide.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in range(arguments.seeds):
        for correlation in CORRELATIONS:
            x, y = regression(correlation, seed)
            exact, evidence = enumerate_exactly(x, y)
            for name, build in GUIDES.items():
                pyro.set_rng_seed(seed)
                gated, started = gate(x), time.perf_counter()
                theta, elbo = learn(gated, build(gated), x, y.unsqueeze(1), arguments.steps)
                off = (theta - exact).abs()
                results.setdefault(str(correlation), {}).setdefault(name, []).append(
                    {
                        "mean_off": off.mean().item(),
                        "largest_off": off.max().item(),
                        "nats_below_evidence": evidence - elbo,
                        "seconds": time.perf_counter() - started,
                        "exact": exact.tolist(),
                        "inclusion": theta.tolist(),
                    }
                )
                print(f"seed {seed} ρ {correlation} {name:28} {off.mean():.4f}", flush=True)
        write_results(arguments.out, {**vars(arguments), "finished_seeds": seed + 1}, results, quiet=True)
    tabulate(results)


if __name__ == "__main__":
    main()
