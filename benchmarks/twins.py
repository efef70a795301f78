"""Units that stand for each other: what fits keep of them, with moves at the decision and without.

    python benchmarks/twins.py [--seeds 8] [--correlation 0.998 0.9 0.0]

Inputs: six, 200 rows, noise 1, y = x₀ + 0.7 x₂; x₀ and x₁ of the given correlation; a price of 5 nats,
weights N(0, 0.5²). All 64 masks are enumerated by the conjugate evidence. Hidden units: y = tanh(1.5 x),
noise 0.3, a network 1-3-1 that starts with the same unit twice; a price of 4 nats, weights N(0, 1). Fits are
of 60 epochs in batches of 50; held-out rows are 2,000 others. Counted are fits that keep exactly one of the
two inputs, or one hidden unit in all (any is as good as another), fits whose mask is the most probable of all
(inputs), and processor time: of the fit, and of the decision, with the one step before it.
"""

import argparse
import itertools
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import write_results
from scipy.stats import multivariate_normal
from torch import nn

import bayesprune as bp

ROWS, HELD_OUT, EPOCHS = 200, 2000, 60
RULES = {
    "no moves": None,
    "correlated units": bp.Moves(single=False),
    "single units too": bp.Moves(),
    "all exchanges too": bp.Moves(correlation=0.0),
}


def twin_inputs(seed: int, correlation: float, rows: int = ROWS):
    """(rows, 6) and (rows, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator)
    x[:, 1] = correlation * x[:, 0] + (1 - correlation**2) ** 0.5 * x[:, 1]
    return x, (x[:, 0] + 0.7 * x[:, 2] + torch.randn(rows, generator=generator))[:, None]


def linear(seed: int, x: torch.Tensor):
    """A gated regression on the inputs."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 1, bias=False))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(5.0))
    noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False)
    return bp.gate(network, x[:1], prior=prior, likelihood=noise, weights=bp.priors.NormalWeights(0.5))


def best_mask(x: torch.Tensor, y: torch.Tensor) -> tuple[int, ...]:
    """The most probable of all masks."""

    def log_joint(mask: tuple[int, ...]) -> float:
        part = x.double().numpy()[:, np.flatnonzero(mask)]
        covariance = np.eye(ROWS) + 0.25 * part @ part.T
        return float(multivariate_normal.logpdf(y[:, 0].numpy(), np.zeros(ROWS), covariance)) - 5.0 * sum(
            mask
        )

    return max(itertools.product((0, 1), repeat=6), key=log_joint)


def twin_units(seed: int, rows: int = ROWS):
    """(rows, 1) and (rows, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 1, generator=generator)
    return x, torch.tanh(1.5 * x) + 0.3 * torch.randn(rows, 1, generator=generator)


def hidden(seed: int, x: torch.Tensor):
    """A gated network whose first two hidden units start alike."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    network[0].weight.data[:2] = torch.tensor([[1.0], [1.05]])
    network[0].bias.data[:2] = torch.tensor([0.02, -0.02])
    network[2].weight.data[:, :2] = 0.5
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(4.0))
    noise = bp.Gaussian(rows=ROWS, scale=0.3, learn_scale=False)
    return bp.gate(network, x[:1], prior=prior, likelihood=noise, weights=bp.priors.NormalWeights(1.0))


class Clock(bp.Callback):
    """Processor seconds from the last step before the decision to the decision."""

    def __init__(self) -> None:
        self.last, self.decision = time.process_time(), 0.0

    def on_step(self, training: Any, info: Any) -> None:
        """Between steps there is a batch to find, which is little."""
        self.last = time.process_time()

    def on_decision(self, training: Any) -> None:
        """All of it is over."""
        self.decision = time.process_time() - self.last


def run(gated: Any, rows: Any, held_out: Any, moves: Any, seed: int) -> dict[str, Any]:
    """One fit."""
    clock, began = Clock(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = bp.fit(
            gated, rows, epochs=EPOCHS, batch_size=50, seed=seed, progress=False,
            recipe=bp.Recipe(moves=moves), callbacks=[clock],
        )  # fmt: skip
    seconds = time.process_time() - began
    return {
        "mask": result.gated.alive.int().tolist(),
        "moves": [str(move) for move in result.decision.moves],
        "masks_asked": result.decision.masks,
        "held_out_nll": bp.evaluate(result, held_out).nll,
        "processor_seconds": seconds,
        "processor_seconds_of_decision": clock.decision,
    }


def tell(name: str, runs: list[dict[str, Any]]) -> None:
    """One line."""
    one = (
        sum(sum(r["mask"][:2]) == 1 for r in runs)
        if "best" in runs[0]
        else sum(sum(r["mask"]) == 1 for r in runs)
    )
    best = (
        "" if "best" not in runs[0] else f"most probable mask {sum(r['mask'] == r['best'] for r in runs)}, "
    )
    decision, fit = (
        statistics.mean(r[key] for r in runs)
        for key in ("processor_seconds_of_decision", "processor_seconds")
    )
    print(
        f"{name:44} one unit of those alike {one}, {best}of {len(runs)}; held-out nll "
        f"{statistics.mean(r['held_out_nll'] for r in runs):.4f}; decision {decision:.2f} of {fit:.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.998, 0.9, 0.0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "twins.json")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for correlation, (rule, moves) in itertools.product(arguments.correlation, RULES.items()):
        runs = []
        for seed in range(arguments.seeds):
            x, y = twin_inputs(seed, correlation)
            held_out = twin_inputs(10_000 + seed, correlation, HELD_OUT)
            found = run(linear(seed, x), (x, y), held_out, moves, seed)
            runs.append(found | {"best": list(best_mask(x, y))})
        results.append({"problem": "inputs", "correlation": correlation, "moves": rule, "seeds": runs})
        tell(f"inputs, correlation {correlation}, {rule}", runs)
    for rule, moves in RULES.items():
        runs = []
        for seed in range(arguments.seeds):
            x, y = twin_units(seed)
            runs.append(run(hidden(seed, x), (x, y), twin_units(10_000 + seed, HELD_OUT), moves, seed))
        results.append({"problem": "hidden units", "moves": rule, "seeds": runs})
        tell(f"hidden units, {rule}", runs)
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
