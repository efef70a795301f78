"""The shipped LeNets on MNIST, smaller: a longer selection, a teacher after the decision, edges after units.

    python benchmarks/frontier.py --network lenet_300_100 [--seeds 5] [--data-dir FOLDER] [--validation]
    python benchmarks/frontier.py --network lenet_300_100 --edges 0.0125  # of the program's network
    python benchmarks/frontier.py --network lenet5

What a seed does, in order, on one thread:

- *fit*: the shipped program at dearer prices and, for LeNet-300-100, more epochs, of which more belong to the
  selection; where edges are asked for, at half its prices, so that they have more to choose from;
- *taught*: the decided network goes on under ``bp.Distilled``, with less noise on its units. The teacher is
  an ensemble of dense twins that learnt from the same rows and from labels alone;
- *edges* (with ``--edges``): instead of it ``bp.prune_edges`` under the same teacher, down to that share of
  the dense network's parameters.

Each is scored at its last epoch, and at the best of the epochs after its last unit or edge went, as much of
the field reports (which chooses by the rows that it scores on). ``--validation`` scores on 5,000 rows held
out from the training rows: LeNet-300-100's settings were chosen so, LeNet-5's were not searched for. Seconds
are processor time; a teacher's are counted once.
"""

import argparse
import copy
import statistics
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Plain
from lenet_mnist import splits
from reporting import write_results

import bayesprune as bp
from bayesprune.programs import find, load_model
from bayesprune.programs.execute import execute

FIT = {
    "lenet_300_100": {"prices": 1.55, "epochs": 200, "decide": 0.8, "ramp": 0.6},
    "lenet5": {"prices": {"conv1": 1.0, "conv2": 1.0, "flatten": 1.35, "fc1": 1.35}, "epochs": 40},
}
TAUGHT = {
    "lenet_300_100": {"epochs": 60, "rate": 3e-3, "noise": {"input": 0.2, "fc1": 0.12}},
    "lenet5": {"epochs": 40, "rate": 3e-3, "noise": {"flatten": 0.15}},
}
EDGES = {"epochs": 40, "learning_rate": 2e-3, "weight_scale": 10.0}
TEACHER = {"weight": 0.5, "temperature": 2.0}
TEACHERS, TEACHER_EPOCHS = 3, {"lenet_300_100": 40, "lenet5": 15}


def model_of(program, module, train, seed: int, factor: float | dict[str, float]) -> bp.GatedModel:
    """The program's model at its prices times a factor, or times one of each group."""
    torch.manual_seed(seed)
    factors = factor if isinstance(factor, dict) else dict.fromkeys(module.PRICES, factor)
    table = {group: factors[group] * nats for group, nats in module.prices(len(train.x)).items()}
    return program.model(train, 10, table)


def teachers_of(program, module, train, test) -> tuple[list[torch.nn.Module], dict[str, float]]:
    """Dense twins, of seeds that no student has."""
    began, found, errors = time.process_time(), [], []
    for number in range(TEACHERS):
        gated = model_of(program, module, train, 1000 + number, 1.0)
        penalty = 1 / (len(train.x) * gated.weights.scale_of("fc1.weight") ** 2)
        epochs = TEACHER_EPOCHS[program.name]
        plain = Plain(
            gated.network.plain(),
            (train.x, train.y),
            program.batch_size_on("mnist"),
            epochs,
            1e-3,
            penalty,
            number,
        )
        for _ in range(epochs):
            plain.epoch()
        found.append(plain.network.eval())
        errors.append(bp.evaluate(found[-1], (test.x, test.y), bp.Categorical(rows=1)).score)
    return found, {"errors": errors, "seconds": time.process_time() - began}


def fitted(program, module, train, test, seed: int, settings: dict) -> tuple[bp.FitResult, dict]:
    """The program, at other prices and lengths."""
    gated, began = model_of(program, module, train, seed, settings["prices"]), time.process_time()
    recipe = replace(program.recipe, **{k: v for k, v in settings.items() if k in ("decide", "ramp")})
    result = bp.fit(
        gated, (train.x, train.y), epochs=settings["epochs"], batch_size=program.batch_size_on("mnist"),
        seed=seed, recipe=recipe, threads=1, validation=(test.x, test.y), progress=False,
    )  # fmt: skip
    return result, outcome(result, test, time.process_time() - began)


def taught(program, result: bp.FitResult, teachers, train, test, seed: int) -> tuple[bp.FitResult, dict]:
    """A decided network goes on, and listens."""
    settings, began = TAUGHT[program.name], time.process_time()
    gated = copy.deepcopy(result.gated)
    gated.likelihood = bp.Distilled(gated.likelihood.plain, teachers, **TEACHER)
    gated.unit_noise = settings["noise"]
    recipe = bp.Recipe(
        learning_rate=settings["rate"], compact_learning_rate=settings["rate"], warmup=0.01, ramp=0.0,
        decide=0.01, averaging=0.3, moves=None,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.ClockWarning)  # gates are decided already
        listened = bp.fit(
            gated, (train.x, train.y), epochs=settings["epochs"], batch_size=program.batch_size_on("mnist"),
            seed=seed + 500, recipe=recipe, threads=1, validation=(test.x, test.y), progress=False,
        )  # fmt: skip
    return listened, outcome(listened, test, time.process_time() - began)


def outcome(result: bp.FitResult, test, seconds: float) -> dict:
    """Figures of a fit."""
    quality = bp.evaluate(bp.prune(result), (test.x, test.y), bp.Categorical(rows=1))
    size = result.gated.network
    last = result.history[-1].parameters_percent
    scores = [e.validation for e in result.history if e.parameters_percent <= last]
    return {
        "error": quality.score,
        "best_epoch": min([*scores, quality.score]),
        "nll": quality.nll,
        "architecture": result.architecture,
        "parameters": 100 * size.parameter_count() / result.gated.dense_parameters,
        "macs": 100 * size.macs() / result.gated.dense_macs,
        "undecided": result.undecided,
        "seconds": seconds,
    }


def thinned(program, result: bp.FitResult, teachers, train, test, seed: int, share: float) -> dict:
    """Edges after units."""
    began = time.process_time()
    likelihood = bp.Distilled(result.likelihood.plain, teachers, **TEACHER)
    few = bp.prune_edges(
        result, (train.x, train.y), share=share, likelihood=likelihood, seed=seed,
        batch_size=program.batch_size_on("mnist"), validation=(test.x, test.y), progress=False, **EDGES,
    )  # fmt: skip
    quality = bp.evaluate(few.network, (test.x, test.y), bp.Categorical(rows=1))
    scores = [s for s, c in zip(few.scores, few.counts, strict=True) if c == few.counts[-1]]
    return {
        "error": quality.score,
        "best_epoch": min([*scores, quality.score]),
        "nll": quality.nll,
        "architecture": list(few.kept.values()),
        "parameters": 100 * few.share,
        "edges": few.edges,
        "seconds": time.process_time() - began,
    }


def summarise(seeds: list[dict]) -> dict[str, dict]:
    """Means and standard deviations over seeds, a line for each stage."""
    table = {}
    for stage in [name for name in seeds[0] if name != "seed"]:
        row: dict[str, object] = {}
        for key in ("error", "best_epoch", "nll", "parameters", "macs", "seconds"):
            values = [seed[stage][key] for seed in seeds if key in seed[stage]]
            if values:
                row[key] = statistics.mean(values)
                row[key + "_sd"] = statistics.stdev(values) if values[1:] else 0.0
        row["architectures"] = ["-".join(map(str, seed[stage]["architecture"])) for seed in seeds]
        table[stage] = row
    return table


def show(table: dict[str, dict]) -> None:
    for stage, row in table.items():
        cells = [
            f"{k} {row[k]:.4f} ± {row[k + '_sd']:.4f}"
            for k in ("error", "best_epoch", "nll", "parameters", "macs", "seconds")
            if k in row
        ]
        print(f"{stage:8}", ", ".join(cells), *row["architectures"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=tuple(FIT), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--edges", type=float, help="share of the dense network's parameters")
    parser.add_argument("--prices", type=float, help="factor on the program's prices")
    parser.add_argument("--epochs", type=int, help="of the fit")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    program = load_model(arguments.network)
    module = execute(find(arguments.network, "models"))
    train, test = splits("mnist", arguments.data_dir, arguments.validation)
    settings = (
        {"prices": 0.5, "epochs": program.epochs_on("mnist")}
        if arguments.edges
        else dict(FIT[arguments.network])
    )
    given = {"prices": arguments.prices, "epochs": arguments.epochs}
    settings |= {name: value for name, value in given.items() if value is not None}
    kind = "_edges" if arguments.edges else ""
    held = "_validation" if arguments.validation else ""
    out = (
        arguments.out or Path(__file__).parent / "results" / f"frontier_{arguments.network}{kind}{held}.json"
    )
    teachers, told = teachers_of(program, module, train, test)
    print("teachers", told, flush=True)
    seeds: list[dict] = []
    for seed in range(arguments.seeds):
        result, first = fitted(program, module, train, test, seed, settings)
        print(f"seed {seed} fit", first, flush=True)
        found = {"seed": seed, "fit": first}
        if arguments.edges:
            found["edges"] = thinned(program, result, teachers, train, test, seed, arguments.edges)
        else:
            found["taught"] = taught(program, result, teachers, train, test, seed)[1]
        print(f"seed {seed}", found["edges" if arguments.edges else "taught"], flush=True)
        seeds.append(found)
        results = {"settings": settings, "teacher": TEACHER, "teachers": told, "summary": summarise(seeds)}
        write_results(out, vars(arguments), results | {"seeds": seeds}, quiet=True)
    show(results["summary"])


if __name__ == "__main__":
    main()
