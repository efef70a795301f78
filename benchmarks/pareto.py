"""Error against cost from one fit, beside fits of their own at five budgets.

    python benchmarks/pareto.py [--seeds 3] [--epochs 60]

784-100-10 on the digits: a fit under ``bp.Budget(macs=0.3)`` and its front, ``bp.pareto`` at five budgets,
with readers re-weighted under each mask and without; errors are of the 360 test rows. Beside it a fit of as
many epochs under each of these budgets, from the same weights. Counted is where the refit's error lies in the
front's 90 % interval; how far apart they are is told whatever comes.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from reporting import write_results
from torch import nn

import bayesprune as bp

FIRST, BUDGETS = 0.3, (0.2, 0.1, 0.05, 0.025, 0.0125)


def gated_for(x: torch.Tensor, budget: float, seed: int) -> bp.GatedModel:
    """The same weights for every budget."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    return bp.gate(network, x[:1], prior=bp.Budget(macs=budget), likelihood=bp.Categorical(rows=len(x)))


def fitted(x: torch.Tensor, y: torch.Tensor, budget: float, seed: int, epochs: int) -> bp.FitResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bp.fit(
            gated_for(x, budget, seed), (x, y), epochs=epochs, batch_size=32, seed=seed, progress=False
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pareto.json")
    arguments = parser.parse_args()
    digits = bp.data.load("digits")
    (x, y), test = (digits.train.x, digits.train.y), (digits.test.x, digits.test.y)
    results: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        one = fitted(x, y, FIRST, seed, arguments.epochs)
        refits = [fitted(x, y, budget, seed, arguments.epochs) for budget in BUDGETS]
        errors = [bp.evaluate(refit, test).score for refit in refits]
        first = bp.evaluate(one, test).score
        print(
            f"seed {seed}: the fit errs by {first:.2f} % at {one.history[-1].macs_percent:.1f} % of the MACs"
        )
        record: dict[str, Any] = {
            "seed": seed, "error": first, "macs_percent": one.history[-1].macs_percent,
            "refit_error": errors, "refit_macs_percent": [r.history[-1].macs_percent for r in refits],
        }  # fmt: skip
        for kind in ("weights follow", "weights as learnt"):
            began = time.process_time()
            front = bp.pareto(one, (x, y), test, budgets=BUDGETS, adapt=kind == "weights follow", seed=seed)
            record[kind] = {
                "error": front.error.tolist(), "interval": front.error_interval.tolist(),
                "cost": front.cost.tolist(), "cost_interval": front.cost_interval.tolist(),
                "mask_error": front.mask_error.tolist(), "mask_cost": front.mask_cost.tolist(),
                "processor_seconds": time.process_time() - began,
            }  # fmt: skip
            print(f" {kind}, {record[kind]['processor_seconds']:.1f} s of processor time")
            for n, budget in enumerate(BUDGETS):
                low, high = front.error_interval[n]
                print(
                    f"  {100 * budget:5.2f} %: front {front.error[n]:6.2f} ({low:5.2f} – {high:5.2f}), its "
                    f"mask {front.mask_error[n]:6.2f} at {front.mask_cost[n]:.2f} %; refit {errors[n]:5.2f} "
                    f"at {record['refit_macs_percent'][n]:.2f} %"
                    f"{'' if low <= errors[n] <= high else '  outside'}",
                    flush=True,
                )
        results.append(record)
    for kind in ("weights follow", "weights as learnt"):
        for n, budget in enumerate(BUDGETS):
            far = [r[kind]["error"][n] - r["refit_error"][n] for r in results]
            inside = sum(
                r[kind]["interval"][n][0] <= r["refit_error"][n] <= r[kind]["interval"][n][1] for r in results
            )
            print(
                f"{kind:17} {100 * budget:5.2f} %: front − refit {statistics.mean(far):+6.2f} points; "
                f"inside the interval {inside} of {len(results)}"
            )
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
