"""Moves at the decision on small data sets: what they cost, and what held-out rows say of them.

    python benchmarks/moves.py [--seeds 8] [--sets chosen-on reported-on]
    python benchmarks/moves.py --tell          # the lines of the record again

Rules: no moves; exchanges of correlated units with their removal and return (|ρ| from 0.8); these and every
unit by itself, the default; and exchanges of all. The default was chosen on the first sets (other draws of
twin inputs, simulated truths and functions), and is reported on the others. A seed is a split of a data set,
or a draw of a simulated one, and the weights' and the fit's. All fits of a seed are of 60 epochs in batches
of at most 50 under a price of 4 nats a unit. Told are nats of a held-out row, units kept, processor time of
the fit and of its decision, and beside exchanges of correlated units, seed by seed: the difference in nats of
a held-out row; and of what was asked for, nats of as many held-out rows as there are training rows plus the
price of the units, since a unit that saves fewer than 4 nats is to go.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reporting import write_results
from sklearn import datasets
from torch import Tensor, nn
from twins import Clock

import bayesprune as bp

EPOCHS, BATCH, PRICE, HELD_OUT = 60, 50, 4.0, 2000
RULES = {
    "none": None,
    "correlated units": bp.Moves(single=False),
    "single units too": bp.Moves(),
    "all exchanges too": bp.Moves(correlation=0.0),
}
BESIDE = "correlated units"

Rows = tuple[Tensor, Tensor]


def held_apart(x: Any, y: Any, seed: int, rows: int, standard: bool = False) -> tuple[Rows, Rows]:
    """Training rows and the others, inputs standardised by the training rows; targets too, if asked."""
    x, y = torch.as_tensor(x).float(), torch.as_tensor(y)
    y = y.float() if y.is_floating_point() else y
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, test = order[:rows], order[rows : rows + HELD_OUT]
    x = (x - x[train].mean(0)) / x[train].std(0)
    y = (y - y[train].mean(0)) / y[train].std(0) if standard else y
    return (x[train], y[train]), (x[test], y[test])


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs))


def hidden(inputs: int, units: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, units), nn.Tanh(), nn.Linear(units, outputs))


def twins_of(correlation: float, seed: int) -> tuple[Rows, Rows]:
    generator = torch.Generator().manual_seed(5_000 + seed)
    x = torch.randn(200 + HELD_OUT, 6, generator=generator)
    x[:, 1] = correlation * x[:, 0] + (1 - correlation**2) ** 0.5 * x[:, 1]
    y = (x[:, 0] + 0.7 * x[:, 2] + torch.randn(len(x), generator=generator))[:, None]
    return held_apart(x, y, seed, 200)


def truths(seed: int) -> tuple[Rows, Rows]:
    generator = torch.Generator().manual_seed(6_000 + seed)
    x = torch.randn(150 + HELD_OUT, 12, generator=generator)
    log_odds = 1.5 * x[:, 0] - x[:, 1] + 0.7 * x[:, 2]
    y = (torch.rand(len(x), generator=generator) < log_odds.sigmoid()).float()
    return held_apart(x, y[:, None], seed, 150)


def counts(seed: int) -> tuple[Rows, Rows]:
    generator = torch.Generator().manual_seed(7_000 + seed)
    x = torch.randn(150 + HELD_OUT, 8, generator=generator)
    x[:, 3] = 0.9 * x[:, 0] + 0.4 * x[:, 3]
    rate = (0.5 + 0.5 * x[:, 0] - 0.4 * x[:, 1] + 0.2 * x[:, 2]).exp()
    return held_apart(x, torch.poisson(rate, generator=generator)[:, None], seed, 150)


def friedman(make: Callable[..., Any], seed: int, noise: float, rows: int) -> tuple[Rows, Rows]:
    x, y = make(rows + HELD_OUT, noise=noise, random_state=seed)
    return held_apart(x, y[:, None], seed, rows, standard=True)


def table(load: Callable[..., Any], seed: int, rows: int, standard: bool = False, columns: int | None = None):
    x, y = load(return_X_y=True)
    y = y if y.ndim > 1 else y[:, None] if standard or columns else y
    return held_apart(x[:, :columns], y, seed, rows, standard)


def truth_table(seed: int) -> tuple[Rows, Rows]:
    (x, y), (x2, y2) = table(datasets.load_breast_cancer, seed, 150, columns=10)
    return (x, y.float()), (x2, y2.float())


def planes(make: Callable[..., Any], seed: int, noise: float) -> tuple[Rows, Rows]:
    x, y = make(120 + HELD_OUT, noise=noise, random_state=seed)
    return held_apart(x, y, seed, 120)


Likely = Callable[[int], Any]
SETS: dict[str, dict[str, tuple[Callable[[int], tuple[Rows, Rows]], Callable[[], nn.Module], Likely]]] = {
    "chosen-on": {
        "inputs, ρ = 0": (lambda s: twins_of(0.0, s), lambda: linear(6, 1), bp.Gaussian),
        "inputs, ρ = 0.9": (lambda s: twins_of(0.9, s), lambda: linear(6, 1), bp.Gaussian),
        "simulated truths": (truths, lambda: linear(12, 1), bp.Bernoulli),
        "Friedman 1, 10-4-1": (
            lambda s: friedman(datasets.make_friedman1, s, 1.0, 120), lambda: hidden(10, 4, 1), bp.Gaussian,
        ),
        "circles, 2-6-2": (
            lambda s: planes(datasets.make_circles, s, 0.2), lambda: hidden(2, 6, 2), bp.Categorical,
        ),
    },
    "reported-on": {
        "diabetes": (
            lambda s: table(datasets.load_diabetes, s, 200, True), lambda: linear(10, 1), bp.Gaussian,
        ),
        "iris": (lambda s: table(datasets.load_iris, s, 100), lambda: linear(4, 3), bp.Categorical),
        "wine": (lambda s: table(datasets.load_wine, s, 100), lambda: linear(13, 3), bp.Categorical),
        "breast cancer, means": (truth_table, lambda: linear(10, 1), bp.Bernoulli),
        "linnerud": (
            lambda s: table(datasets.load_linnerud, s, 14, True), lambda: linear(3, 3), bp.Gaussian,
        ),
        "simulated counts": (counts, lambda: linear(8, 1), bp.Poisson),
        "Friedman 2, 4-5-1": (
            lambda s: friedman(datasets.make_friedman2, s, 100.0, 150), lambda: hidden(4, 5, 1), bp.Gaussian,
        ),
        "Friedman 3, 4-5-1": (
            lambda s: friedman(datasets.make_friedman3, s, 0.1, 150), lambda: hidden(4, 5, 1), bp.Gaussian,
        ),
        "moons, 2-6-2": (
            lambda s: planes(datasets.make_moons, s, 0.25), lambda: hidden(2, 6, 2), bp.Categorical,
        ),
        "diabetes, 10-3-1": (
            lambda s: table(datasets.load_diabetes, s, 120, True), lambda: hidden(10, 3, 1), bp.Gaussian,
        ),
    },
}  # fmt: skip


def run(data: tuple[Rows, Rows], network: nn.Module, likely: Likely, moves: Any, seed: int) -> dict[str, Any]:
    """One fit."""
    train, test = data
    gated = bp.gate(
        network, train[0][:2], prior=bp.priors.BernoulliGates(bp.priors.Flattening(PRICE)),
        likelihood=likely(rows=len(train[0])),
    )  # fmt: skip
    clock, began = Clock(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = bp.fit(
            gated, train, epochs=EPOCHS, batch_size=min(BATCH, len(train[0])), seed=seed, progress=False,
            recipe=bp.Recipe(moves=moves), callbacks=[clock],
        )  # fmt: skip
    seconds = time.process_time() - began
    return {
        "held_out_nll": bp.evaluate(result, test).nll,
        "kept": int(result.gated.alive.sum()),
        "moves": [str(move) for move in result.decision.moves],
        "units_asked": result.decision.units,
        "masks_asked": result.decision.masks,
        "complete": result.decision.complete,
        "processor_seconds": seconds,
        "processor_seconds_of_decision": clock.decision,
    }


def tell(name: str, runs: dict[str, list[dict[str, Any]]], rows: int) -> None:
    """A line for each rule."""
    beside = [run["held_out_nll"] for run in runs[BESIDE]]
    for rule, found in runs.items():
        nll = [run["held_out_nll"] for run in found]
        more = [a - b for a, b in zip(nll, beside, strict=True)]
        spread = statistics.stdev(more) / len(more) ** 0.5 if len(more) > 1 else 0.0
        paid = [
            rows * d + PRICE * (run["kept"] - base["kept"])
            for d, run, base in zip(more, found, runs[BESIDE], strict=True)
        ]
        off = statistics.stdev(paid) / len(paid) ** 0.5 if len(paid) > 1 else 0.0
        better, worse = sum(d < -0.005 for d in more), sum(d > 0.005 for d in more)
        mean = {
            key: statistics.mean(run[key] for run in found)
            for key in ("kept", "processor_seconds", "processor_seconds_of_decision", "masks_asked")
        }
        print(
            f"{name:22} {rule:18} nll {statistics.mean(nll):7.4f}, more {statistics.mean(more):+.4f} ± "
            f"{spread:.4f} (better {better}, worse {worse}, most {max(more):+.3f}), with the price "
            f"{statistics.mean(paid):+.2f} ± {off:.2f} nats, kept {mean['kept']:.1f}, decision "
            f"{mean['processor_seconds_of_decision']:.2f} of {mean['processor_seconds']:.2f} s, "
            f"{mean['masks_asked']:.0f} masks",
            flush=True,
        )


def tell_record(path: Path) -> None:
    """The lines of a record."""
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for entry in json.loads(path.read_text())["results"]:
        found.setdefault((entry["sets"], entry["set"]), {})[entry["moves"]] = entry["seeds"]
    for (sets, name), runs in found.items():
        tell(name, runs, len(SETS[sets][name][0](0)[0][0]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "moves.json")
    parser.add_argument("--tell", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tell:
        return tell_record(arguments.out)
    results: list[dict[str, Any]] = []
    for sets in arguments.sets:
        for name, (draw, make, likely) in SETS[sets].items():
            runs: dict[str, list[dict[str, Any]]] = {rule: [] for rule in RULES}
            for seed in range(arguments.seeds):
                data = draw(seed)
                for rule, moves in RULES.items():
                    torch.manual_seed(seed)
                    runs[rule].append(run(data, make(), likely, moves, seed))
            results += [
                {"sets": sets, "set": name, "moves": rule, "seeds": found} for rule, found in runs.items()
            ]
            tell(name, runs, len(draw(0)[0][0]))
            write_results(arguments.out, vars(arguments), results, quiet=True)


if __name__ == "__main__":
    main()
