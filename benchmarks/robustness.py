"""Does the network that comes out depend on the seed, or on how wide it started? LeNet-300-100 on MNIST.

    python benchmarks/robustness.py [--seeds 10] [--widths 0.5 1 2 4] [--epochs N] [--data-dir FOLDER]

The hidden layers start at 300 and 100 units times the width; prices, recipe and data stay the same. A
posterior over structure that means anything ends at about the same network each time: the coefficient of
variation of the parameters kept, over all seeds and widths together, says how nearly it does. Percentages are
of the 784-300-100 network throughout.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Ours
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model


def gated_at(program, train, width: float) -> bp.GatedModel:
    """The shipped model with its hidden layers scaled."""
    return program.model(train, 10, None, widths=(round(300 * width), round(100 * width)))


def one_run(program, data: bp.data.Dataset, width: float, seed: int, epochs: int) -> dict[str, object]:
    """One training; sizes as a percentage of the network of width one."""
    torch.manual_seed(seed)
    full = gated_at(program, data.train, 1.0).dense_parameters
    torch.manual_seed(seed)
    ours = Ours(program, gated_at(program, data.train, width), (data.train.x, data.train.y), epochs, seed)
    for _ in range(epochs):
        ours.epoch()
    outcome = ours.outcome((data.test.x, data.test.y))
    count = ours.run.gated.network.parameter_count()
    return {
        "width": width,
        "seed": seed,
        "kept_parameters": count,
        "percent_of_300_100": 100 * count / full,
        **asdict(outcome),
    }


def resumed(path: Path, epochs: int) -> list[dict[str, object]]:
    """The runs that an interrupted benchmark has written."""
    results = json.loads(path.read_text())["results"] if path.exists() else {"epochs": epochs, "runs": []}
    if results["epochs"] != epochs:
        raise SystemExit(f"{path} is of {results['epochs']} epochs, not {epochs}: choose another --out.")
    return results["runs"]


def spread(values: list[float]) -> float:
    """Coefficient of variation, percent."""
    return 100 * statistics.stdev(values) / statistics.mean(values) if len(values) > 1 else 0.0


def show(runs: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Print and return means and variation, per width and over everything."""
    print(f"{'width':>6} {'runs':>5} {'parameters kept':>24} {'variation %':>12} {'error %':>14}  mean units")
    table = {}
    for width in [*sorted({run["width"] for run in runs}), "all"]:
        chosen = [run for run in runs if width in ("all", run["width"])]
        counts, errors = [r["kept_parameters"] for r in chosen], [r["error"] for r in chosen]
        units = {g: statistics.mean(r["kept"][g] for r in chosen) for g in chosen[0]["kept"]}
        row = {
            "runs": len(chosen),
            "kept_parameters": statistics.mean(counts),
            "percent_of_300_100": statistics.mean(r["percent_of_300_100"] for r in chosen),
            "coefficient_of_variation_percent": spread(counts),
            "error": statistics.mean(errors),
            "error_sd": statistics.stdev(errors) if len(errors) > 1 else 0.0,
            "units": units,
        }
        table[str(width)] = row
        print(
            f"{width!s:>6} {row['runs']:5} {row['kept_parameters']:14.0f} ({row['percent_of_300_100']:.2f} %)"
            f" {row['coefficient_of_variation_percent']:11.1f} {row['error']:7.2f} ± {row['error_sd']:.2f}  "
            + "-".join(f"{mean:.0f}" for mean in units.values())
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--widths", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--epochs", type=int, help="the program's own by default")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from the runs in --out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "robustness.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    program = load_model("lenet_300_100")
    data = bp.data.load("mnist", arguments.data_dir)
    epochs = arguments.epochs or program.epochs_on("mnist")
    runs = resumed(arguments.out, epochs) if arguments.resume else []
    done = {(run["seed"], run["width"]) for run in runs}
    trials = [(seed, width) for seed in range(arguments.seeds) for width in arguments.widths]
    for seed, width in tqdm(trials, desc="robustness", unit="run"):
        if (seed, width) not in done:
            runs.append(one_run(program, data, width, seed, epochs))
        write_results(arguments.out, vars(arguments), {"epochs": epochs, "runs": runs}, quiet=True)
    table = show(runs)
    write_results(arguments.out, vars(arguments), {"epochs": epochs, "summary": table, "runs": runs})


if __name__ == "__main__":
    main()
