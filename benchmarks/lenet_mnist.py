"""Error, size and time of the shipped LeNets on MNIST, beside the dense twin and a magnitude pruner.

    python benchmarks/lenet_mnist.py --network lenet5 [--seeds 5] [--data-dir FOLDER] [--validation]
    python benchmarks/lenet_mnist.py --network lenet5 --data digits     # the quick start's

For every seed our program and its dense twin start from the same weights and take turns, an epoch each, so
that a busy machine slows both alike; the wall ratio is that of the two sums. The peer is Torch-Pruning's
group magnitude: it takes the dense twin's weights at half time, is cut to as many parameters as our network
of that seed, and is fine-tuned for the other half under a learning rate of its own. ``--validation`` scores
on 5,000 rows set aside from the training rows, which is how settings are chosen; without it the score is on
the test rows. ``--alone`` trains ours and nothing else, from the same weights: for whether it is still what
it was.
"""

import argparse
import copy
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Ours, Outcome, Plain, magnitude_pruned
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model

HELD_OUT = 5_000


def splits(name: str, data_dir: Path | None, validation: bool) -> tuple[bp.data.Split, bp.data.Split]:
    """Training rows, and the rows that score."""
    data = bp.data.load(name, data_dir)
    if not validation:
        return data.train, data.test
    order = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(12345))
    held_out, rest = order[-HELD_OUT:], order[:-HELD_OUT]
    return (bp.data.Split(data.train.x[rows], data.train.y[rows]) for rows in (rest, held_out))


def one_seed(
    program, data: str, train, test, seed: int, epochs: int, classes: int, alone: bool = False
) -> dict[str, Outcome]:
    """Ours, dense and peer from the same initial weights; or ours alone."""
    torch.manual_seed(seed)
    gated = program.model(train, classes, None)
    rows, test = (train.x, train.y), (test.x, test.y)
    twin, dense_cost = gated.network.plain(), bp.count(gated.network.plain(), train.x[:1])
    recipe, penalty = program.recipe, 1 / (len(train.x) * gated.weights.scale_of("fc1.weight") ** 2)
    batch_size = program.batch_size_on(data)
    ours = Ours(program, gated, rows, epochs, seed, data)
    dense = Plain(twin, rows, batch_size, epochs, recipe.learning_rate, penalty, seed)
    half = None
    if alone:
        for _ in tqdm(range(epochs), desc=f"{program.name}, seed {seed}", unit="epoch", disable=None):
            ours.epoch()
        return {"bayesprune": ours.outcome(test)}
    for epoch in tqdm(range(epochs), desc=f"{program.name}, seed {seed}", unit="epoch"):
        for contender in (ours, dense) if epoch % 2 else (dense, ours):
            contender.epoch()
        if epoch + 1 == epochs // 2:
            half = copy.deepcopy(dense.network), dense.seconds
    outcomes = {"bayesprune": ours.outcome(test), "dense": dense.outcome(test, dense_cost)}
    small = magnitude_pruned(half[0], train.x[:1], ours.run.gated.network.parameter_count())
    peer = Plain(
        small,
        rows,
        batch_size,
        epochs - epochs // 2,
        recipe.compact_learning_rate,
        penalty,
        seed + 1000,
    )
    for _ in range(epochs - epochs // 2):
        peer.epoch()
    outcomes["magnitude (Torch-Pruning)"] = peer.outcome(test, dense_cost, seconds=half[1])
    return outcomes


def summarise(by_seed: list[dict[str, Outcome]]) -> dict[str, dict[str, float]]:
    """Means and standard deviations over seeds, per contender."""
    table = {}
    for name in by_seed[0]:
        outcomes = [seed[name] for seed in by_seed]
        row = {}
        for key in ("error", "parameters", "macs"):
            values = [getattr(outcome, key) for outcome in outcomes]
            row[key] = statistics.mean(values)
            row[key + "_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        if "dense" in by_seed[0]:
            twins = [seed["dense"].seconds for seed in by_seed]
            ratios = [o.seconds / twin for o, twin in zip(outcomes, twins, strict=True)]
            row["wall_ratio"] = sum(o.seconds for o in outcomes) / sum(twins)
            row["wall_ratio_sd"] = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
        row["undecided"] = max(outcome.undecided for outcome in outcomes)
        table[name] = row
    return table


def show(table: dict[str, dict[str, float]]) -> None:
    print(
        f"{'contender':26} {'error %':>13} {'parameters %':>15} {'MACs %':>15} {'time ÷ dense':>14} undecided"
    )
    for name, row in table.items():
        cells = [
            f"{row[key]:{width}.2f} ± {row[key + '_sd']:.2f}"
            for key, width in (("error", 6), ("parameters", 8), ("macs", 8), ("wall_ratio", 7))
            if key in row
        ]
        print(f"{name:26} {' '.join(cells)} {row['undecided']:6}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=("lenet_300_100", "lenet5"), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="the program's own by default")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument(
        "--validation", action="store_true", help="score on rows held out from the training rows"
    )
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="JSON; benchmarks/results/lenet_<data>_<network>.json by default"
    )
    arguments = parser.parse_args()
    if arguments.validation and arguments.data != "mnist":
        parser.error(f"--validation sets {HELD_OUT:,} rows aside, and the digits are fewer")
    torch.set_num_threads(arguments.threads)
    program = load_model(arguments.network)
    train, test = splits(arguments.data, arguments.data_dir, arguments.validation)
    epochs = arguments.epochs or program.epochs_on(arguments.data)
    out = arguments.out or Path(__file__).parent / "results" / (
        f"lenet_{arguments.data}_{arguments.network}{'_validation' if arguments.validation else ''}"
        f"{'_alone' if arguments.alone else ''}.json"
    )
    by_seed = []
    for seed in range(arguments.seeds):
        by_seed.append(one_seed(program, arguments.data, train, test, seed, epochs, 10, arguments.alone))
        ours = by_seed[-1]["bayesprune"]
        print(
            f"seed {seed}: {'-'.join(map(str, ours.kept.values()))}",
            {n: round(o.error, 2) for n, o in by_seed[-1].items()},
        )
        results = {"epochs": epochs, "summary": summarise(by_seed)}
        results["seeds"] = [{name: asdict(outcome) for name, outcome in seed.items()} for seed in by_seed]
        write_results(out, vars(arguments), results)
    show(results["summary"])


if __name__ == "__main__":
    main()
