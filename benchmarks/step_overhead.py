"""What a step costs before anything is removed: plain fused Adam, bayesprune, the same model in plain Pyro.

    python benchmarks/step_overhead.py [--rounds 40] [--steps 25]

The contenders take turns within one process, a few steps each, so that a busy machine slows them alike; the
table gives the median over rounds of each contender's time relative to the plain step of the same round.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyro.infer
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

import bayesprune as bp
from bayesprune.programs import load_model
from bayesprune.svi.step import Engine

BATCH = 128
ROWS = 60_000


def plain(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def ours(gated: bp.GatedModel, recipe: bp.Recipe, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    gated.train()
    engine = Engine(gated, recipe)
    state = replace(engine.init(), moving=True)

    def step() -> None:
        nonlocal state
        state, _ = engine.step(state, (x, y))

    return step


def natural_pyro(gated: bp.GatedModel, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    gated.train()
    elbo = pyro.infer.Trace_ELBO()(gated.model, gated.guide)
    optimiser = torch.optim.Adam(gated.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = elbo(x, y) / ROWS
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def race(contenders: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds a step, by contender and round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        for _ in range(5):
            step()
    for _ in range(rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            times[name].append(1e3 * (time.perf_counter() - start) / steps)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step_overhead.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results = {}
    print(f"{'network':16} {'contender':14} {'ms a step':>10} {'÷ plain':>8} {'quartiles':>14}")
    for name in ("lenet_300_100", "lenet5"):
        program = load_model(name)
        x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
        rows = bp.data.Split(x[:1].expand(ROWS, -1, -1, -1), y[:1].expand(ROWS))
        contenders = {
            "plain": plain(program.model(rows, 10, None).network.plain(), x, y),
            "bayesprune": ours(program.model(rows, 10, None), program.recipe, x, y),
            "natural Pyro": natural_pyro(program.model(rows, 10, None), x, y),
        }
        times = race(contenders, arguments.rounds, arguments.steps)
        results[name] = {}
        for contender, values in times.items():
            ratios = [value / base for value, base in zip(values, times["plain"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            results[name][contender] = {
                "ms": statistics.median(values),
                "ratio": middle,
                "ratio_quartiles": [low, high],
            }
            milliseconds = statistics.median(values)
            print(f"{name:16} {contender:14} {milliseconds:10.2f} {middle:8.2f} {low:6.2f}–{high:.2f}")
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
