"""Published families of gates under one engine, on the digits: error and size at two settings a method.

    python benchmarks/methods_digits.py [--seeds 3] [--epochs 60] [--methods bernoulli gaussian]

Every method prunes the same 784-100-10 network from the same weights, on the same rows in the same order:
only the prior of the gates differs, and with it guide, divergence and rule of death. Each is run at two
strengths of its prior, both of which are told, since a method is a curve of errors over sizes; none is chosen
by error.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

import bayesprune as bp
from bayesprune import priors

PRICES = {"input": 2.0, "*": 20.0}
STRENGTHS = {
    "bernoulli": (1.0, 3.0), "gaussian": (1.0, 5.0), "log-normal, snr": (5.0, 20.0),
    "hard concrete": (1.0, 4.0), "gaussian, to the end": (1.0, 5.0), "log-normal, bmrs_uniform": (5.0, 20.0),
    "normal-jeffreys": (1.0, 5.0), "log-normal, bmrs_normal": (5.0, 20.0),
    "log-normal, bmrs_normal, 1 nat": (5.0, 20.0),
}  # fmt: skip
"""Factor on the prices in nats, or weight of the divergence."""


def prior_of(method: str, strength: float) -> Callable[[bp.Group], Any]:
    flattening = priors.Flattening({name: strength * price for name, price in PRICES.items()})
    family, _, rest = method.partition(", ")
    if family == "bernoulli":
        return priors.BernoulliGates(flattening)
    if family == "hard concrete":
        return priors.HardConcreteGates(flattening)
    if family == "gaussian":
        return priors.GaussianGates(weight=strength)
    if family == "normal-jeffreys":
        return priors.NormalJeffreysGates(weight=strength)
    rule, _, line = rest.partition(", ")
    return priors.LogNormalGates(weight=strength, rule=rule, line=1.0 if line else 0.0)


def run(method: str, strength: float, seed: int, epochs: int) -> dict[str, Any]:
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    weights = priors.NormalWeights(posterior="normal") if method == "normal-jeffreys" else None
    prior, likelihood = prior_of(method, strength), bp.Categorical(rows=len(x))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood, weights=weights)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.ClockWarning)  # "rounded" says how many
        result = bp.fit(
            gated, (x, y), epochs=epochs, batch_size=32, seed=seed, progress=False,
            decide=not method.endswith("to the end"),
        )  # fmt: skip
        seconds = time.process_time() - started
        small = bp.prune(result)
    quality = bp.evaluate(small, (digits.test.x, digits.test.y), result.likelihood)
    kept = sum(p.numel() for p in small.parameters())
    dense = sum(p.numel() for p in network.parameters())
    return {
        "seed": seed, "error_percent": quality.score, "nll": quality.nll,
        "parameters_percent": 100 * kept / dense, "architecture": bp.svi.result.pruned(result).kept(),
        "rounded": result.rounded, "processor_seconds": seconds,
    }  # fmt: skip


def told(method: str, strength: float, runs: list[dict[str, Any]]) -> str:
    def both(name: str) -> str:
        values = [one[name] for one in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):6.2f} ± {spread:4.2f}"

    sizes = ", ".join("-".join(map(str, one["architecture"].values())) for one in runs)
    rounded = statistics.mean(one["rounded"] for one in runs)
    seconds = statistics.mean(one["processor_seconds"] for one in runs)
    return (
        f"{method:32} {strength:5g} {both('error_percent')} {both('parameters_percent')} {rounded:6.0f} "
        f"{seconds:6.1f}  {sizes}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--methods", nargs="*", default=list(STRENGTHS), choices=list(STRENGTHS))
    out = Path(__file__).parent / "results" / "methods_digits.json"
    parser.add_argument("--out", type=Path, default=out)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'method':32} {'':5} {'error %':>13} {'parameters %':>13} {'rounded':>6} {'cpu s':>6}  kept")
    before = json.loads(asked.out.read_text())["results"] if asked.out.exists() else []
    results = [one for one in before if one["method"] not in asked.methods]
    for method in asked.methods:
        for strength in STRENGTHS[method]:
            runs = [run(method, strength, seed, asked.epochs) for seed in range(asked.seeds)]
            results.append({"method": method, "strength": strength, "runs": runs})
            print(told(method, strength, runs), flush=True)
            write_results(asked.out, vars(asked), results, quiet=True)
    print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
