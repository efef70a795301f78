"""A small dense network beside the pruned LeNet-300-100: as many parameters, as many epochs, from scratch.

    python benchmarks/small_dense.py [--seeds 5] [--epochs 80] [--data-dir FOLDER] [--validation]

What pruning has to beat is not only the dense network that it came from, but the network of its own size that
anybody can train. For each seed of the record of ``lenet_mnist.py --network lenet_300_100`` this one is as
large as the pruned network was: 784-h-h-10 with the largest h of which that is true. (Hidden layers in the
proportion 3 : 1 of the large network would leave six units in the second.) Optimiser, schedule, batch and
weight penalty are those of the dense twin there.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Outcome, Plain
from lenet_mnist import splits
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model

RESULTS = Path(__file__).parent / "results"
NETWORK = "lenet_300_100"


def width(parameters: int) -> int:
    """The largest h with which 784-h-h-10 has no more parameters than that."""
    return max(h for h in range(1, 301) if 785 * h + (h + 1) * h + (h + 1) * 10 <= parameters)


def small_network(h: int) -> nn.Sequential:
    """784-h-h-10, as LeNet-300-100 is built."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 10)
    )


def one_seed(program, train, test, dense, parameters: int, epochs: int, seed: int) -> tuple[int, Outcome]:
    """The small network's width and what it came to."""
    torch.manual_seed(seed)
    h = width(parameters)
    penalty = 1 / (len(train.x) * dense.weights.scale_of("fc1.weight") ** 2)
    batch, peak = program.batch_size_on("mnist"), program.recipe.learning_rate
    plain = Plain(small_network(h), (train.x, train.y), batch, epochs, peak, penalty, seed)
    for _ in tqdm(range(epochs), desc=f"784-{h}-{h}-10, seed {seed}", unit="epoch", disable=None):
        plain.epoch()
    return h, plain.outcome((test.x, test.y), bp.count(dense.network.plain(), train.x[:1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="those of the record by default")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--validation", action="store_true", help="score on 5,000 rows held out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "small_dense.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record = json.loads((RESULTS / f"lenet_mnist_{NETWORK}.json").read_text())["results"]
    program, epochs = load_model(NETWORK), arguments.epochs or record["epochs"]
    train, test = splits("mnist", arguments.data_dir, arguments.validation)
    dense = program.model(train, 10, None)
    trials = []
    for seed in range(arguments.seeds):
        size = round(record["seeds"][seed]["bayesprune"]["parameters"] / 100 * dense.dense_parameters)
        h, outcome = one_seed(program, train, test, dense, size, epochs, seed)
        trials.append({"hidden": h, "parameters_of_the_pruned": size, **asdict(outcome)})
        print(f"seed {seed}: 784-{h}-{h}-10, error {outcome.error:.2f} %", flush=True)
        mean = {key: statistics.mean(t[key] for t in trials) for key in ("error", "parameters", "macs")}
        spread = {
            f"{key}_sd": statistics.stdev(t[key] for t in trials) if seed else 0.0 for key in tuple(mean)
        }
        write_results(
            arguments.out,
            vars(arguments),
            {"epochs": epochs, "summary": mean | spread, "seeds": trials},
            quiet=True,
        )
    print(", ".join(f"{key} {mean[key]:.2f} ± {spread[key + '_sd']:.2f}" for key in mean))


if __name__ == "__main__":
    main()
