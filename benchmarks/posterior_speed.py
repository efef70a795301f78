"""What reading the posterior costs: ``to_arviz`` and ``diagnose`` on LeNet-5, five seeds, 1,000 draws.

    python benchmarks/posterior_speed.py [--seeds 5] [--draws 1000] [--epochs 1]

It is the size that counts: the fits are of one epoch on the embedded digits, and their gates are put back in
between, so that no two draws are the same mask, and nothing has been removed: the most work there can be.
Memory is what Python and NumPy allocate at most (tracemalloc), the growth of the process, and the draws.
"""

import argparse
import resource
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import reporting
import torch

import bayesprune as bp
from bayesprune.posterior import read, write
from bayesprune.posterior.arviz import unwrap
from bayesprune.programs import load_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "posterior_speed.json"
    )
    arguments = parser.parse_args()

    results = [fit(seed, arguments.epochs) for seed in range(arguments.seeds)]
    posterior = bp.Posterior.of(results)
    posterior.to_arviz(draws=2)  # imports and first calls
    before = peak()
    start = time.perf_counter()
    idata = posterior.to_arviz(draws=arguments.draws)
    seconds = time.perf_counter() - start
    grown = peak() - before
    start = time.perf_counter()
    answers = bp.diagnose(idata)
    diagnose_draws = time.perf_counter() - start
    start = time.perf_counter()
    bp.diagnose(results, draws=arguments.draws)
    diagnose_results = time.perf_counter() - start
    path = arguments.out.with_suffix(".nc.tmp")
    start = time.perf_counter()
    write(idata, path)
    writing = time.perf_counter() - start
    read(path)
    megabytes = path.stat().st_size / 2**20
    path.unlink()
    tracemalloc.start()
    idata = posterior.to_arviz(draws=arguments.draws)
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    found = {
        "gates": int(results[0].gated.log_odds.numel()),
        "to_arviz_seconds": round(seconds, 2),
        "to_arviz_process_growth_mb": round(grown, 1),
        "to_arviz_traced_peak_mb": round(traced / 2**20, 1),
        "draws_mb": round(sum(in_memory(part) for part in unwrap(idata).values()) / 2**20, 1),
        "diagnose_draws_seconds": round(diagnose_draws, 2),
        "diagnose_results_seconds": round(diagnose_results, 2),
        "write_seconds": round(writing, 2),
        "file_mb": round(megabytes, 2),
        "threads": torch.get_num_threads(),
    }
    print(answers)
    for name, value in found.items():
        print(f"{name:<30}{value}")
    reporting.write_results(arguments.out, vars(arguments), found)


def fit(seed, epochs):
    """The history of a fit of LeNet-5, and the whole network with undecided gates."""
    torch.manual_seed(seed)
    train = bp.data.load("digits").train
    gated = load_model("lenet5").model(train, 10, None)
    result = bp.fit(gated, (train.x, train.y), epochs=epochs, batch_size=32, seed=seed, progress=False)
    with torch.no_grad():
        gated.log_odds.uniform_(-3.0, 3.0)  # fit() decides every gate at its end, and removes units
    return replace(result, gated=gated)


def peak():
    """MB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_memory(part):
    """Bytes of a group; what is the same in every draw is there once."""
    return sum(v.values[:, 0].nbytes if 0 in v.values.strides else v.nbytes for v in part.variables.values())


if __name__ == "__main__":
    main()
