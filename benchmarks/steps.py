"""Sizes over the number of training steps: does the length of a training decide a mask, or its evidence?

The README's network (784-100-10 on the embedded digits, 2 nats an input and 20 a unit) under the defaults of
`fit`. Once with 100 epochs, where batches of 479 … 5 rows make 300 … 28,700 steps; once with batches of 32
rows, where epochs do. Beside each: gates that the clock decided, test error (nothing was chosen by it), and
that of a dense twin trained for as many steps by Adam at the same rate.

    python benchmarks/steps.py            # five minutes of one core
"""

import argparse
import statistics
import warnings
from pathlib import Path

import torch
from reporting import write_results
from torch import nn
from torch.nn import functional as F

import bayesprune as bp
from bayesprune.svi import Recipe
from bayesprune.svi.schedule import Schedule

PRICES = {"input": 2.0, "*": 20.0}
BY_BATCH = [(100, 479), (100, 128), (100, 32), (100, 16), (100, 5)]
BY_EPOCHS = [(7, 32), (30, 32), (300, 32)]


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def dense_error(data: bp.data.Dataset, epochs: int, batch: int, seed: int) -> float:
    """Test error in percent of the whole network after as many steps, by Adam along a cosine."""
    twin, (x, y) = network(seed), (data.train.x, data.train.y)
    steps = epochs * (len(x) // batch)
    adam = torch.optim.Adam(twin.parameters(), lr=Schedule(Recipe(), steps).rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) // batch * batch, batch):
            rows = order[start : start + batch]
            F.cross_entropy(twin(x[rows]), y[rows]).backward()
            adam.step()
            adam.zero_grad()
            cosine.step()
    with torch.no_grad():
        return 100 * float((twin(data.test.x).argmax(1) != data.test.y).float().mean())


def fitted(data: bp.data.Dataset, epochs: int, batch: int, seed: int) -> dict[str, float]:
    x, y = data.train.x, data.train.y
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICES))
    gated = bp.gate(network(seed), x[:1], prior=prior, likelihood=bp.Categorical(rows=len(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.ClockWarning)
        result = bp.fit(gated, (x, y), epochs=epochs, batch_size=batch, seed=seed, progress=False)
    inputs, hidden = result.architecture
    error = bp.evaluate(result, (data.test.x, data.test.y)).score
    figures = {"inputs": inputs, "hidden": hidden, "rounded": result.rounded, "elbo": result.history[-1].elbo}
    return {**figures, "error": error, "dense_error": dense_error(data, epochs, batch, seed)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/steps.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, table = bp.data.load("digits"), []
    print("epochs batch  steps       inputs      hidden  rounded   error %   dense %")
    for epochs, batch in BY_BATCH + BY_EPOCHS:
        seeds = [fitted(data, epochs, batch, seed) for seed in range(given.seeds)]
        row = {
            "epochs": epochs,
            "batch": batch,
            "steps": epochs * (len(data.train.x) // batch),
            "seeds": seeds,
        }
        for name in seeds[0]:
            values = [seed[name] for seed in seeds]
            row[name] = {"mean": statistics.mean(values), "sd": statistics.pstdev(values)}
        table.append(row)
        cells = "  ".join(f"{row[n]['mean']:6.1f} ± {row[n]['sd']:<4.1f}" for n in ("inputs", "hidden"))
        ends = "  ".join(f"{row[n]['mean']:7.2f}" for n in ("rounded", "error", "dense_error"))
        print(f"{epochs:6} {batch:5} {row['steps']:6}  {cells} {ends}", flush=True)
    write_results(given.out, vars(given), table)


if __name__ == "__main__":
    main()
