"""How far inclusion probabilities are from exact ones: independent gates, weighted draws, sums over masks.

    python benchmarks/corrected_inclusion.py [--units 6 10 16] [--correlation 0.3 0.6 0.9] [--seeds 5]

A linear model of fixed weights 0.35, 60 rows, noise 1, inputs of one common correlation, of which two make
the targets; each gate is open with probability 0.3 beforehand. All masks are enumerated in numpy. The guide
is the best one of independent gates, by coordinate ascent. Weighted draws are 20,000 of the guide under PSIS,
as ArviZ smooths them. The sum is ``bayesprune.posterior.corrected_inclusion``, of 2,000 masks at most.
"""

import argparse
import itertools
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import torch
from reporting import write_results
from torch import nn

import bayesprune as bp
from bayesprune.posterior import corrected_inclusion
from bayesprune.posterior.arviz import pareto_k, unwrap
from bayesprune.posterior.diagnose.faithful import tail_limit

ROWS, WEIGHT, INCLUSION, DRAWS = 60, 0.35, 0.3, 20_000


def problem(units: int, correlation: float, seed: int):
    """The gated model at its best independent gates, its rows, and the exact probabilities."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(ROWS, 1, generator=generator)
    x = correlation**0.5 * shared + (1 - correlation) ** 0.5 * torch.randn(ROWS, units, generator=generator)
    y = x[:, :2].sum(1) * WEIGHT + torch.randn(ROWS, generator=generator)
    network = nn.Sequential(nn.Linear(units, 1, bias=False))
    network[0].weight.data.fill_(WEIGHT)
    gated = bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(INCLUSION)), inputs=True,
        likelihood=bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False),
    )  # fmt: skip
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=units)))
    joint = -0.5 * np.square(y.numpy() - masks * WEIGHT @ x.numpy().T).sum(1)
    joint += masks.sum(1) * np.log(INCLUSION / (1 - INCLUSION))
    share = np.exp(joint - joint.max())
    guide = independent(x.numpy(), y.numpy())
    gated.log_odds.data.copy_(torch.from_numpy(np.log(guide / (1 - guide))))
    return gated, (x, y[:, None]), share / share.sum() @ masks


def independent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(units,), the best q of independent gates, by coordinate ascent from a half."""
    q, before = np.full(x.shape[1], 0.5), np.zeros(x.shape[1])
    while np.abs(q - before).max() > 1e-10:
        before = q.copy()
        for unit in range(len(q)):
            rest = y - WEIGHT * (x @ q - x[:, unit] * q[unit])
            gain = WEIGHT * x[:, unit] @ rest - 0.5 * WEIGHT**2 * np.square(x[:, unit]).sum()
            q[unit] = 1 / (1 + np.exp(-gain - np.log(INCLUSION / (1 - INCLUSION))))
    return q.clip(1e-7, 1 - 1e-7)


def weighted(gated, rows, seed: int) -> tuple[np.ndarray, float, bool]:
    """Inclusion probabilities of weighted draws, k̂, and whether that is below its limit."""
    groups = unwrap(bp.Posterior.of(gated).to_arviz(draws=DRAWS, seed=seed, prior=0, rows=rows))
    logs = groups["sample_stats"]["elbo"].values[0].astype(float)
    with np.errstate(over="ignore"):
        smooth, _ = arviz.psislw(logs.copy())
    share = np.exp(smooth - np.logaddexp.reduce(smooth))
    k = pareto_k(logs)
    trusted = k <= tail_limit(len(logs), len(np.unique(np.sort(logs)[-424:].round(9))))
    return share @ groups["posterior"]["gate/input"].values[0], k, bool(trusted)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, nargs="+", default=[6, 10, 16])
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "corrected_inclusion.json"
    )
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    print("largest |q − exact| of a gate: mean over seeds (largest)")
    for units, correlation in itertools.product(arguments.units, arguments.correlation):
        runs = []
        for seed in range(arguments.seeds):
            gated, rows, exact = problem(units, correlation, seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                drawn, k, trusted = weighted(gated, rows, seed)
            began = time.process_time()
            found = corrected_inclusion(gated, rows, seed=seed)
            runs.append(
                {
                    "guide": float(np.abs(found.guide["input"] - exact).max()),
                    "weighted_draws": float(np.abs(drawn - exact).max()),
                    "k": k, "trusted": trusted,
                    "sum": float(np.abs(found.corrected["input"] - exact).max()),
                    "masks": found.masks, "complete": found.complete,
                    "processor_seconds": time.process_time() - began,
                }
            )  # fmt: skip
        results.append({"units": units, "correlation": correlation, "seeds": runs})
        cells = [
            f"{kind} {statistics.mean(r[kind] for r in runs):.4f} ({max(r[kind] for r in runs):.4f})"
            for kind in ("guide", "weighted_draws", "sum")
        ]
        print(
            f"{units:3} units, ρ {correlation}: {', '.join(cells)}; "
            f"k̂ trusted {sum(r['trusted'] for r in runs)}, "
            f"complete {sum(r['complete'] for r in runs)} of {len(runs)}; "
            f"masks {statistics.mean(r['masks'] for r in runs):.0f}",
            flush=True,
        )
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
