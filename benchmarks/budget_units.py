"""What it takes to meet a budget with many units: processor time from 12,500 to 100,000 of them.

    python benchmarks/budget_units.py [--units 12500 25000 50000 100000] [--seeds 3]

Half of the multiply-accumulates, on gains drawn around what each unit costs. "One layer" has all of its units
in one hidden layer; in "two layers" they take turns with each other, how often is a matter of the draw, and
times of one seed vary with it. "Features" are flattened channels, 49 of each, whose channels are units too; a
step compares all classes of units, two for every channel. For "fit" three epochs are learnt on the first
network, with everything else that they take. The growth from one size to the next is given as a multiple of
linear; of several seeds each time is the mean. Exit code 1 where meeting the budget of one layer takes more
than a second for 100,000 units, or where its time, or that of features up to 50,000 units, grows by more than
1.2 × linear.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch
from reporting import write_results
from torch import nn

import bayesprune as bp
from bayesprune.svi.fitter import Fitter
from bayesprune.svi.within import within

MOST_SECONDS, MOST_GROWTH = 1.0, 1.2
INPUTS, POSITIONS = 10, 49
LINEAR_FEATURES = 50_000


def one_layer(units):
    return nn.Sequential(nn.Linear(INPUTS, units), nn.ReLU(), nn.Linear(units, 2)), torch.zeros(1, INPUTS)


def two_layers(units):
    half = units // 2
    network = nn.Sequential(
        nn.Linear(INPUTS, half), nn.ReLU(), nn.Linear(half, 4), nn.ReLU(), nn.Linear(4, half), nn.ReLU(),
        nn.Linear(half, 2),
    )  # fmt: skip
    return network, torch.zeros(1, INPUTS)


def features(units):
    channels = units // POSITIONS
    network = nn.Sequential(
        nn.Conv2d(1, channels, 1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * POSITIONS, 20), nn.ReLU(),
        nn.Linear(20, 2),
    )  # fmt: skip
    return network, torch.zeros(1, 1, 7, 7)


NETWORKS = {"one layer": one_layer, "two layers": two_layers, "features": features}


def gated_for(network, example, rows):
    return bp.gate(network, example, prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=rows))


def meeting(build, units, seed):
    """Seconds to find the network at its budget, and where it ends."""
    gated = gated_for(*build(units), rows=100)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(gated.alive), generator=generator, dtype=torch.double)
    started = time.process_time()
    fitter = Fitter(gated, gated.prior, gated.prior.prices * (1 + noise), least=1)
    keep = within(fitter, gated.alive)
    return time.process_time() - started, fitter.ratio(keep)


def fitting(units, seed):
    """Seconds of a whole fit, and where it ends."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, INPUTS, generator=generator)
    network, _ = one_layer(units)
    gated = gated_for(network, x[:1], rows=len(x))
    started = time.process_time()
    result = bp.fit(gated, (x, (x[:, 0] > 0).long()), epochs=3, batch_size=50, seed=seed, progress=False)
    seconds = time.process_time() - started
    return seconds, result.gated.network.macs() / (0.5 * gated.dense_macs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "budget_units.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bp.errors.ClockWarning)  # three epochs decide nothing, and need not
    works = {"fit": fitting}
    works |= {name: lambda n, s, build=build: meeting(build, n, s) for name, build in NETWORKS.items()}
    found: dict[str, list[dict[str, float]]] = {}
    for name, work in works.items():
        work(min(arguments.units) // 10, 0)  # imports, and what else is done once
        for units in arguments.units:
            runs = [work(units, seed) for seed in range(arguments.seeds)]
            row = {"units": units, "seconds": sum(s for s, _ in runs) / len(runs)}
            row |= {"least_of_budget": min(r for _, r in runs), "most_of_budget": max(r for _, r in runs)}
            if rows := found.setdefault(name, []):
                before = rows[-1]
                row["growth"] = row["seconds"] / before["seconds"] / (units / before["units"])
            rows.append(row)
            growth = f"{row['growth']:6.2f}" if "growth" in row else ""
            budget = f"{row['least_of_budget']:.4f} – {row['most_of_budget']:.4f}"
            print(f"{name:12} {units:8,} {row['seconds']:8.3f} s {growth:6}  {budget} of the budget")
    write_results(arguments.out, vars(arguments), found)
    late = any(r["units"] <= 100_000 and r["seconds"] > MOST_SECONDS for r in found["one layer"])
    linear = [*found["one layer"], *(row for row in found["features"] if row["units"] <= LINEAR_FEATURES)]
    return int(late or any(row.get("growth", 0) > MOST_GROWTH for row in linear))


if __name__ == "__main__":
    sys.exit(main())
