"""Does a regression hang on the unit of its targets? The same rows in seven units, one table.

    python benchmarks/regression_units.py [--epochs 100] [--seeds 2]

y = sin(3 x₀) + x₁² + noise, ten inputs of which eight say nothing, 600 rows to learn from and 2,000 to test
on. Targets are standardised, then multiplied by a unit, and in the last line moved by a thousand of them
too. Prices are 3 nats an input and 5 a hidden unit. RMSE and noise are given in standard deviations of the
targets, so that a row says the same in every unit if nothing hangs on it. Exit code 1 where another unit
keeps other units, or where its RMSE differs by more than 2 %.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from reporting import write_results
from torch import nn

import bayesprune as bp

INPUTS, HIDDEN, TRAIN, TEST, NOISE = 10, 40, 600, 2_000, 0.15
UNITS = ((1.0, 0.0), (1e-3, 0.0), (1e-2, 0.0), (0.1, 0.0), (100.0, 0.0), (1e4, 0.0), (1e4, 1e3))
RECIPE = bp.Recipe(learning_rate=1e-2, compact_learning_rate=1e-2)
TOLERANCE = 0.02


def rows(seed):
    """(rows, 10) inputs and (rows,) targets of mean 0 and standard deviation 1 but for the noise."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(TRAIN + TEST, INPUTS, generator=generator) - 1
    y = torch.sin(3 * x[:, 0]) + x[:, 1] ** 2
    y = (y - y.mean()) / y.std()
    return x, y + NOISE * torch.randn(len(x), generator=generator)


def measure(seed, unit, location, epochs):
    """One fit: units kept, and error and noise in standard deviations of the targets."""
    x, y = rows(seed)
    y = unit * (y + location)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening({"input": 3.0, "*": 5.0}))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=TRAIN))
    started = time.process_time()
    train, test = (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])
    result = bp.fit(gated, train, epochs=epochs, batch_size=50, recipe=RECIPE, seed=seed, progress=False)
    seconds = time.process_time() - started
    quality, deviation = bp.evaluate(bp.prune(result), test, result.likelihood), y.std().item()
    alive = result.gated.by_group(result.gated.alive)
    return {
        "seed": seed, "unit": unit, "location": location, "kept": result.architecture,
        "units": {name: mask.nonzero().flatten().tolist() for name, mask in alive.items()},
        "rmse": quality.score / deviation, "noise": result.likelihood.learnt()["noise_scale"] / deviation,
        "nll": quality.nll - math.log(deviation), "processor_seconds": seconds,
    }  # fmt: skip


def main():
    """Print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/regression_units.json")
    arguments = parser.parse_args()
    print("seed      unit  location  kept      RMSE/sd  noise/sd  NLL − log sd")
    table, same = [], True
    for seed in range(arguments.seeds):
        first = None
        for unit, location in UNITS:
            row = measure(seed, unit, location, arguments.epochs)
            first = first or row
            table.append(row)
            same &= row["units"] == first["units"] and abs(row["rmse"] / first["rmse"] - 1) <= TOLERANCE
            kept = "-".join(map(str, row["kept"]))
            print(
                f"{seed:4d}  {unit:8g}  {location:8g}  {kept:8s}  {row['rmse']:7.4f}  {row['noise']:8.4f}"
                f"  {row['nll']:12.4f}"
            )
    write_results(arguments.out, vars(arguments), {"same": same, "table": table})
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
