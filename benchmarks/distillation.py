"""Learning from a teacher while being pruned: LeNet-300-100 on MNIST at 3.5 % of its parameters.

    python benchmarks/distillation.py --data-dir FOLDER [--seeds 3] [--epochs 7] [--own]

Every fit of a seed starts from the same weights and ends at the same budget of parameters; what differs is
the likelihood: labels alone (weight 0), or ``bp.Distilled`` with some weight and temperature. Teachers are
the dense twins of all seeds as an ensemble and, with ``--own``, the seed's fit to labels (its gates are
decided, so that its predictive is one network). Errors are in per cent of 5,000 rows held out from MNIST's
training rows; the test rows are not looked at. Seconds are processor time. Trainings are short: 7 epochs,
where the program has 80.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Plain
from lenet_mnist import HELD_OUT, splits
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model

NETWORK = "lenet_300_100"
BUDGET = bp.Budget(params=0.035)
ENSEMBLE = [(weight, temperature) for weight in (0.5, 0.9, 1.0) for temperature in (1.0, 3.0)]
OWN = [(weight, temperature) for weight in (0.5, 0.9) for temperature in (1.0, 3.0)]


def started(program, train, seed: int) -> bp.GatedModel:
    """The seed's model under the budget."""
    torch.manual_seed(seed)
    return program.model(train, 10, None).with_prior(BUDGET)


def dense(program, train, held_out, seed: int, epochs: int) -> tuple[torch.nn.Module, dict[str, float]]:
    """The dense twin, from the same weights, and how it does."""
    gated, begun = started(program, train, seed), time.process_time()
    penalty = 1 / (len(train.x) * gated.weights.scale_of("fc1.weight") ** 2)
    peak, batch = program.recipe.learning_rate, program.batch_size_on("mnist")
    plain = Plain(gated.network.plain(), (train.x, train.y), batch, epochs, peak, penalty, seed)
    for _ in range(epochs):
        plain.epoch()
    seconds = time.process_time() - begun
    return plain.network.eval(), scored(plain.network, held_out, len(train.x)) | {"seconds": seconds}


def scored(network, held_out, rows: int) -> dict[str, float]:
    """Error in per cent, and nats a row, on the rows held out."""
    found = bp.evaluate(network, (held_out.x, held_out.y), bp.Categorical(rows=rows))
    return {"error": found.score, "nll": found.nll}


def fitted(program, train, held_out, seed: int, epochs: int, teacher, weight: float, temperature: float):
    """One fit, and what it came to."""
    gated, begun = started(program, train, seed), time.process_time()
    if teacher is not None:
        gated.likelihood = bp.Distilled(gated.likelihood, teacher, temperature, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.ClockWarning)  # a budget decides, and the fits are short
        result = bp.fit(
            gated, (train.x, train.y), epochs=epochs, batch_size=program.batch_size_on("mnist"),
            seed=seed, recipe=program.recipe, threads=1, progress=False,
        )  # fmt: skip
    seconds = time.process_time() - begun
    size = 100 * result.gated.network.parameter_count() / result.gated.dense_parameters
    outcome = {"architecture": result.architecture, "parameters": size, "seconds": seconds}
    return result, scored(bp.prune(result), held_out, len(train.x)) | outcome


def ensemble_score(networks, held_out) -> dict[str, float]:
    """Of the mean probabilities, as a student is told them."""
    likelihood = bp.Distilled(bp.Categorical(rows=len(held_out.x)), list(networks), weight=1.0)
    said = likelihood.taught(held_out.x, held_out.y).said
    rows = len(held_out.x)
    return {
        "error": float(likelihood.score(said, held_out.y)) / rows,
        "nll": float(likelihood.nll(said, held_out.y).mean()),
    }


def summarise(trials: list[dict]) -> list[dict]:
    """Means and standard deviations over seeds of every setting, and of its difference from labels alone."""
    table = []
    for number, first in enumerate(trials[0]["fits"]):
        fits = [trial["fits"][number] for trial in trials]
        row = {key: first[key] for key in ("teacher", "weight", "temperature")}
        for key in ("error", "nll", "parameters", "seconds"):
            row |= spread(key, [fit[key] for fit in fits])
        gains = [trial["fits"][0]["error"] - fit["error"] for trial, fit in zip(trials, fits, strict=True)]
        table.append(row | spread("error_below_labels_alone", gains))
    return table


def spread(name: str, values: list[float]) -> dict[str, float]:
    return {name: statistics.mean(values), f"{name}_sd": statistics.stdev(values) if values[1:] else 0.0}


def show(results: dict) -> None:
    print(f"{'teacher':10} {'weight':>6} {'T':>4} {'error %':>13} {'nats a row':>11} {'parameters %':>13}")
    for row in results["summary"]:
        print(
            f"{row['teacher']:10} {row['weight']:6.1f} {row['temperature']:4.1f} {row['error']:6.2f} ± "
            f"{row['error_sd']:.2f}  {row['nll']:10.4f}  {row['parameters']:12.2f}"
        )
    for name in ("dense", "ensemble"):
        print(name, {key: round(value, 3) for key, value in results[name].items()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--own", action="store_true", help="the fit's own predictive as a teacher too")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "distillation.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    program = load_model(NETWORK)
    train, held_out = splits("mnist", arguments.data_dir, validation=True)
    epochs, seeds = arguments.epochs, range(arguments.seeds)
    twins = [dense(program, train, held_out, seed, epochs) for seed in tqdm(seeds, desc="dense twins")]
    teachers = [network for network, _ in twins]
    together = ensemble_score(teachers, held_out)
    trials = []
    for seed in seeds:
        first, outcome = fitted(program, train, held_out, seed, epochs, None, 0.0, 1.0)
        fits = [{"teacher": "none", "weight": 0.0, "temperature": 1.0, **outcome}]
        settings = [("ensemble", teachers, *s) for s in ENSEMBLE]
        settings += [("own fit", first, *s) for s in OWN] if arguments.own else []
        for name, teacher, weight, temperature in tqdm(settings, desc=f"seed {seed}"):
            _, outcome = fitted(program, train, held_out, seed, epochs, teacher, weight, temperature)
            fits.append({"teacher": name, "weight": weight, "temperature": temperature, **outcome})
        trials.append({"seed": seed, "dense": twins[seed][1], "fits": fits})
        results = {"rows": len(train.x), "held_out": HELD_OUT, "epochs": epochs, "budget": 0.035}
        results |= {"summary": summarise(trials), "ensemble": together}
        results["dense"] = spread("error", [twin["error"] for _, twin in twins])
        write_results(arguments.out, vars(arguments), results | {"seeds": trials}, quiet=True)
    show(results)


if __name__ == "__main__":
    main()
