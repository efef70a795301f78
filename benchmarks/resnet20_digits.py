"""ResNet-20 under a budget of multiply-accumulates, beside a small dense ResNet-20 of the same budget.

    python benchmarks/resnet20_digits.py [--macs 0.3] [--seeds 5] [--validation]

The shipped program's network on the digits at 32 × 32, with gates on channels and on whole residual sections
under ``bp.Budget(macs=...)``. The small dense network has all widths scaled alike, as large as the budget
allows, and learns from scratch under the program's learning rate and penalty and one cosine, for as much wall
time as ours took: its number of epochs follows from the time of epochs of its own that are run, and thrown
away, while ours runs. The dense network of full size takes turns with ours, an epoch each. ``--validation``
scores on a fifth of the training rows, held out, which is how settings were chosen.
"""

import argparse
import copy
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Ours, Outcome, Plain
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model

WIDTHS = (16, 32, 64)
EPOCHS = 24
SETTINGS = {"decide": 0.4, "compact_learning_rate": 1e-3}
"""What differs from the program's own recipe, chosen by --validation: it was chosen under fixed prices."""


def splits(validation: bool) -> tuple[bp.data.Split, bp.data.Split]:
    """Training rows, and the rows that score."""
    data = bp.data.load("digits-32")
    if not validation:
        return data.train, data.test
    order = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(7))
    held_out, rest = order[:287], order[287:]
    return tuple(bp.data.Split(data.train.x[rows], data.train.y[rows]) for rows in (rest, held_out))


def widest(network, example: torch.Tensor, macs: float) -> tuple[int, ...]:
    """The widths, all scaled alike, of the largest network within a number of multiply-accumulates."""
    for share in range(160, 0, -1):
        widths = tuple(max(1, round(width * share / 160)) for width in WIDTHS)
        if bp.count(network(widths=widths), example).macs <= macs:
            return widths
    raise RuntimeError(f"No network is within {macs:,.0f} multiply-accumulates.")


def seconds_per_epoch(make) -> float:
    """Of a fresh network's second epoch."""
    trial = make()
    trial.epoch()
    first = trial.seconds
    trial.epoch()
    return trial.seconds - first


def one_seed(program, train, test, seed: int, epochs: int, macs: float) -> dict[str, Outcome]:
    """Ours; dense for as many epochs; the small dense one for as much time."""
    torch.manual_seed(seed)
    gated = program.model(train, 10, None).with_prior(bp.Budget(macs=macs))
    dense_network = copy.deepcopy(gated.network.network)
    rows, test = (train.x, train.y), (test.x, test.y)
    cost, batch = bp.count(dense_network, rows[0][:1]), program.batch_size_on("digits-32")
    penalty = 1 / (len(train.x) * gated.weights.scale_of("fc.weight") ** 2)

    def network(widths):
        return type(dense_network)(rows[0].shape[1], 10, widths=widths)

    def plain(network, epochs):
        return Plain(network, rows, batch, epochs, program.recipe.learning_rate, penalty, seed)

    widths = widest(network, rows[0][:1], macs * cost.macs)
    ours = Ours(program, gated, rows, epochs, seed, "digits-32", **SETTINGS)
    dense = plain(dense_network, epochs)
    probes = []
    for epoch in tqdm(range(epochs), desc=f"seed {seed}", unit="epoch"):
        if epoch % max(epochs // 4, 1) == 0:
            probes.append(seconds_per_epoch(lambda: plain(network(widths), 2)))
        for contender in (ours, dense) if epoch % 2 else (dense, ours):
            contender.epoch()
    outcomes = {"bayesprune": ours.outcome(test), "dense": dense.outcome(test, cost)}
    longer = max(1, round(outcomes["bayesprune"].seconds / statistics.mean(probes)))
    torch.manual_seed(seed)
    small = plain(network(widths), longer)
    for _ in tqdm(range(longer), desc=f"small dense {widths}", unit="epoch"):
        small.epoch()
    outcomes["small dense"] = small.outcome(test, cost)
    outcomes["small dense"].kept = {"width": widths[0], "epochs": longer}
    return outcomes


def summarise(by_seed: list[dict[str, Outcome]]) -> dict[str, dict[str, float]]:
    """Means and standard deviations over seeds, per contender; ours against the small dense one, paired."""
    table = {}
    for name in by_seed[0]:
        row = {}
        for key in ("error", "nll", "parameters", "macs", "seconds"):
            values = [getattr(seed[name], key) for seed in by_seed]
            row[key] = statistics.mean(values)
            row[key + "_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        pairs = [seed[name].error - seed["bayesprune"].error for seed in by_seed]
        row["more_error_than_ours"] = statistics.mean(pairs)
        row["more_error_than_ours_sd"] = statistics.stdev(pairs) if len(pairs) > 1 else 0.0
        table[name] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--macs", type=float, default=0.3, help="share of the dense multiply-accumulates")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--validation", action="store_true", help="score on held-out training rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON; benchmarks/results/resnet20_digits.json by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    program, (train, test) = load_model("resnet20_cifar"), splits(arguments.validation)
    epochs = arguments.epochs
    name = f"resnet20_digits{'_validation' if arguments.validation else ''}.json"
    by_seed = []
    for seed in range(arguments.seeds):
        by_seed.append(one_seed(program, train, test, seed, epochs, arguments.macs))
        results = {"epochs": epochs, "summary": summarise(by_seed)}
        results["seeds"] = [{name: asdict(outcome) for name, outcome in seed.items()} for seed in by_seed]
        write_results(arguments.out or Path(__file__).parent / "results" / name, vars(arguments), results)
        for name_of, outcome in by_seed[-1].items():
            print(
                f"seed {seed} {name_of:12} error {outcome.error:5.2f} %, nll {outcome.nll:.4f}, "
                f"MACs {outcome.macs:5.1f} %, parameters {outcome.parameters:5.1f} %, "
                f"{outcome.seconds:5.0f} s, {outcome.kept}"
            )
    for name_of, row in summarise(by_seed).items():
        print(
            f"{name_of:12} error {row['error']:.2f} ± {row['error_sd']:.2f} %, nll {row['nll']:.4f} ± "
            f"{row['nll_sd']:.4f}, MACs {row['macs']:.1f} %, "
            f"parameters {row['parameters']:.1f} %, {row['seconds']:.0f} s; "
            f"{row['more_error_than_ours']:+.2f} ± {row['more_error_than_ours_sd']:.2f} points over ours"
        )


if __name__ == "__main__":
    main()
