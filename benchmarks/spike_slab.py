"""Error and size of the spike-and-slab LeNet-300-100, at the last epoch, seed by seed.

    python benchmarks/spike_slab.py [--data mnist --data-dir FOLDER] [--seeds 5] [--published]

``--validation`` scores on that many rows set aside from the training rows, which is how settings are chosen;
without it the score is on the test rows. ``--published`` has the slabs, the estimator and the schedule of the
paper's public code.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from reporting import write_results

import bayesprune as bp
from bayesprune.programs import load_inference, load_model

NAME = "lenet_300_100_spike_slab"


def splits(name: str, data_dir: Path | None, held: int) -> tuple[bp.data.Split, bp.data.Split]:
    """Training rows, and the rows that score."""
    data = bp.data.load(name, data_dir)
    if not held:
        return data.train, data.test
    order = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(12345))
    parts = order[:-held], order[-held:]
    return tuple(bp.data.Split(data.train.x[rows], data.train.y[rows]) for rows in parts)


def one_seed(arguments: argparse.Namespace, seed: int) -> dict[str, object]:
    """Figures of one training."""
    train, test = splits(arguments.data, arguments.data_dir, arguments.validation)
    program = load_model(NAME)
    inference = load_inference("svi_spike_slab_published" if arguments.published else "svi_spike_slab")
    torch.manual_seed(seed)
    gated = program.model(train, 10, None, published=arguments.published)
    began = time.process_time()
    result = inference.infer(
        gated, train, epochs=arguments.epochs or program.epochs_on(arguments.data),
        batch_size=program.batch_size_on(arguments.data), seed=seed, recipe=program.recipe, device="cpu",
        checkpoint=None, resume=False, progress=False,
    )  # fmt: skip
    quality = bp.evaluate(result, (test.x, test.y))
    left = result.gated.network.parameter_count()
    return {
        "error": quality.score, "nll": quality.nll, "parameters": 100 * left / gated.dense_parameters,
        "kept": result.gated.kept(), "undecided": result.undecided, "elbo": result.history[-1].elbo,
        "processor_seconds": time.process_time() - began,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("mnist", "digits"), default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="the program's own by default")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--validation", type=int, default=0, metavar="ROWS")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kind = "_published" * arguments.published + "_validation" * bool(arguments.validation)
    file = f"spike_slab_{arguments.data}{kind}.json"
    out = arguments.out or Path(__file__).parent / "results" / file
    found = []
    for seed in range(arguments.seeds):
        found.append(one_seed(arguments, seed))
        print(f"seed {seed}:", found[-1], flush=True)
        means = {key: statistics.mean(one[key] for one in found) for key in ("error", "parameters", "nll")}
        write_results(out, vars(arguments), {"mean": means, "seeds": found})
    print(means)


if __name__ == "__main__":
    main()
