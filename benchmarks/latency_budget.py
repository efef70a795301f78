"""Budgets in milliseconds and megabytes: what was asked for, and what networks take that come out.

    OMP_NUM_THREADS=1 python benchmarks/latency_budget.py [--epochs 8] [--batch 64]

LeNet-5 and a small residual network whose sections stay, on the digits, each fitted for two limits of time,
60 % and 40 % of what its dense network takes, and one of memory, 50 %. Afterwards the dense network and the
pruned one are timed in turns on rows of the test set, ``ROUNDS`` times the shortest of 10 to 100 passes, on
the thread's processor clock (PyTorch has one thread): on a busy machine that is the only clock which tells
the same twice, and caches and memory are still shared with whoever else is there. So there are two figures:

    at the end of the fit   what the fit itself measured when it decided
    afterwards              the shortest afterwards over the limit; and the same with the dense network's time
                            then put to what it was when the fit began, for the clock's own drift

Exit code 1 where a network ends outside of 5 % below its limit, as the fit measured it.
"""  # fmt: skip

import argparse
import time
import warnings
from pathlib import Path

import torch
from reporting import write_results
from torch import nn

import bayesprune as bp
from bayesprune.programs import load_model
from bayesprune.structure.timing import short_milliseconds

RESULT = Path(__file__).parent / "results" / "latency_budget.json"
TIME, MEMORY = (0.6, 0.4), (0.5,)
ROUNDS, CLOSE = 10, 0.05


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(out)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, stride=2, padding=1)
        self.first, self.second = Block(24), Block(24)
        self.down = nn.Conv2d(24, 48, 3, stride=2, padding=1)
        self.third, self.head = Block(48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(torch.relu(self.stem(x))))
        return self.head(self.third(torch.relu(self.down(x))).mean((2, 3)))


def dense_of(name: str, train: bp.data.Split) -> tuple[bp.GatedModel, bp.Recipe | None]:
    """A gated model under a budget that is replaced, and the recipe of its program."""
    torch.manual_seed(0)
    if name == "lenet5":
        program = load_model("lenet5")
        return program.model(train, 10, None), program.recipe
    likelihood = bp.Categorical(rows=len(train.y))
    prior = bp.Budget(macs=0.5)
    return bp.gate(Residual(), train.x[:1], prior=prior, likelihood=likelihood, layers="none"), None


def figures(name: str, limit: str, share: float, epochs: int, batch: int) -> dict[str, object]:
    """One fit: what was asked for, and what was measured."""
    digits = bp.data.load("digits")
    gated, recipe = dense_of(name, digits.train)
    dense = bp.prune(gated.with_prior(bp.priors.BernoulliGates(bp.priors.Flattening(1.0))))
    rows = digits.test.x[:batch]
    asked = share * getattr(bp.measure(dense, rows), "milliseconds" if limit == "latency_ms" else "megabytes")
    started = time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = bp.fit(
            gated.with_prior(bp.Budget(**{limit: asked}, batch=batch)),
            (digits.train.x, digits.train.y), epochs=epochs, batch_size=32, recipe=recipe, progress=False,
        )  # fmt: skip
    small, prior = bp.prune(result), result.gated.prior
    turns = [[short_milliseconds(n.eval(), rows) for n in (dense, small)] for _ in range(ROUNDS)]
    whole, left = (min(times) for times in zip(*turns, strict=True))
    end = float(prior.seen[0, 2])
    after = left if limit == "latency_ms" else bp.measure(small, rows).megabytes
    return {
        "network": name,
        "limit": limit,
        "share_of_dense": share,
        "asked": asked,
        "end": end,
        "end_over_asked": end / asked,
        "after": after,
        "after_over_asked": after / asked,
        "after_by_drift": left / whole * float(prior.seen[0, 0]) / asked if limit == "latency_ms" else None,
        "time_share_of_dense": left / whole,
        "macs_percent": result.history[-1].macs_percent,
        "parameters_percent": result.history[-1].parameters_percent,
        "architecture": result.architecture,
        "error_percent": bp.evaluate(small, (digits.test.x, digits.test.y), result.likelihood).score,
        "warnings": sorted({w.category.__name__ for w in said}),
        "processor_seconds": time.process_time() - started,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [("latency_ms", share) for share in TIME] + [("memory_mb", share) for share in MEMORY]
    found = []
    for name in ("lenet5", "residual"):
        for limit, share in cases:
            one = figures(name, limit, share, arguments.epochs, arguments.batch)
            found.append(one)
            drift = "" if one["after_by_drift"] is None else f", {one['after_by_drift']:.3f} by drift"
            print(
                f"{name:9} {limit:10} asked {one['asked']:8.4g}  at the end {one['end_over_asked']:.3f}  "
                f"afterwards {one['after_over_asked']:.3f}{drift}  MACs {one['macs_percent']:.1f} %, time "
                f"{100 * one['time_share_of_dense']:.1f} %, error {one['error_percent']:.2f} %, "
                f"{one['processor_seconds']:.0f} s, {one['architecture']}",
                flush=True,
            )
            write_results(arguments.out, vars(arguments), found, quiet=True)
    outside = [one for one in found if not 1 - CLOSE <= one["end_over_asked"] <= 1]
    return 1 if outside else 0


if __name__ == "__main__":
    raise SystemExit(main())
