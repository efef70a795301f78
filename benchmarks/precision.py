"""What half precision costs: the same fit in float32, under autocast, and with weights of bfloat16.

    python benchmarks/precision.py [--network lenet5 resnet20_cifar] [--seeds 5] [--validation]

The shipped programs on the digits, LeNet-5 under its prices and ResNet-20 under ``bp.Budget(macs=0.3)`` at
32 × 32, each seed from the same weights in every precision. Errors are those of the pruned network, run as it
was trained: with float32 weights in float32, with bfloat16 weights on rows of that type. Differences to
float32 are paired by seed. ``--validation`` scores on a fifth of the training rows, held out.
"""

import argparse
import copy
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model

DATA = {"lenet5": "digits", "resnet20_cifar": "digits-32"}
CHANGES: dict[str, dict[str, float]] = {
    "lenet5": {},
    "resnet20_cifar": {"decide": 0.4, "compact_learning_rate": 1e-3},  # as in resnet20_digits.py
}
PRECISIONS = {
    "float32": (None, torch.float32),
    "bfloat16 autocast": (torch.bfloat16, torch.float32),
    "float16 autocast": (torch.float16, torch.float32),
    "bfloat16 weights": (None, torch.bfloat16),
}


def splits(name: str, validation: bool) -> tuple[bp.data.Split, bp.data.Split]:
    """Training rows, and the rows that score."""
    data = bp.data.load(DATA[name])
    if not validation:
        return data.train, data.test
    order = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(7))
    held_out, rest = order[:287], order[287:]
    return tuple(bp.data.Split(data.train.x[rows], data.train.y[rows]) for rows in (rest, held_out))


def gated_as(program, train, seed: int, dtype: torch.dtype) -> bp.GatedModel:
    """The program's model, its network's numbers rounded to a type."""
    torch.manual_seed(seed)
    gated = program.model(train, 10, None)
    if program.name == "resnet20_cifar":
        gated = gated.with_prior(bp.Budget(macs=0.3))
    return gated if dtype == torch.float32 else copy.deepcopy(gated).to(dtype)


def one_fit(program, train, test, seed: int, epochs: int, precision: str) -> dict[str, Any]:
    """One fit, and what came of it."""
    autocast, dtype = PRECISIONS[precision]
    gated = gated_as(program, train, seed, dtype)
    recipe = replace(program.recipe, **CHANGES[program.name])
    began = time.process_time()
    result = bp.fit(
        gated, (train.x.to(dtype), train.y), epochs=epochs, seed=seed, recipe=recipe, progress=False,
        batch_size=program.batch_size_on(DATA[program.name]), autocast=autocast,
    )  # fmt: skip
    seconds = time.process_time() - began
    quality = bp.evaluate(result, (test.x.to(dtype), test.y))
    return {
        "error": quality.score,
        "nll": quality.nll,
        "macs": 100 * result.gated.network.macs() / gated.dense_macs,
        "kept": sum(result.gated.kept().values()),
        "undecided": result.rounded,
        "processor_seconds": seconds,
        "gates": str(result.gated.log_odds.dtype),
    }


def summary(fits: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Means and standard deviations over seeds, and the difference to float32, seed by seed."""
    table = {}
    for precision, seeds in fits.items():
        row = {}
        for key in ("error", "nll", "macs", "kept", "processor_seconds"):
            values = [float(fit[key]) for fit in seeds]
            row[key] = statistics.mean(values)
            row[f"{key}_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        pairs = [a["error"] - b["error"] for a, b in zip(seeds, fits["float32"], strict=False)]
        row["more_error_than_float32"] = statistics.mean(pairs)
        row["more_error_than_float32_sd"] = statistics.stdev(pairs) if len(pairs) > 1 else 0.0
        table[precision] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=tuple(DATA), default=list(DATA))
    parser.add_argument("--precision", nargs="+", choices=tuple(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="the programs' own by default; 24 for ResNet-20")
    parser.add_argument("--validation", action="store_true", help="score on held-out training rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "precision.json")
    arguments = parser.parse_args()
    if arguments.precision[0] != "float32":
        parser.error("--precision begins with float32, to which the others are compared")
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {}
    for name in arguments.network:
        program = load_model(name)
        train, test = splits(name, arguments.validation)
        epochs = arguments.epochs or (24 if name == "resnet20_cifar" else program.epochs_on(DATA[name]))
        fits: dict[str, list[dict[str, Any]]] = {precision: [] for precision in arguments.precision}
        for seed in range(arguments.seeds):
            for precision in tqdm(arguments.precision, desc=f"{name}, seed {seed}", disable=None):
                fits[precision].append(one_fit(program, train, test, seed, epochs, precision))
            results[name] = {"epochs": epochs, "summary": summary(fits), "seeds": fits}
            write_results(arguments.out, vars(arguments), results, quiet=True)
        for precision, row in results[name]["summary"].items():
            print(
                f"{name:15} {precision:18} error {row['error']:.2f} ± {row['error_sd']:.2f} %, "
                f"more than float32 {row['more_error_than_float32']:+.2f} ± "
                f"{row['more_error_than_float32_sd']:.2f}, MACs {row['macs']:.2f} ± {row['macs_sd']:.2f} %, "
                f"{row['processor_seconds']:.0f} s of the processor",
                flush=True,
            )


if __name__ == "__main__":
    main()
