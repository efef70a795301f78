"""What a step costs before anything is removed: plain fused Adam, bayesprune, the same model in plain Pyro.

bayesprune is there four times: as ``bp.fit`` takes a step on rows in memory, on batches that come from a
loader, which are looked at when they come, and as a loop of one's own does, by ``bp.Training``; and under a
prior that a user wrote, whose hyper-sites have the guide that is made for them.

    python benchmarks/step_overhead.py [--rounds 40] [--steps 25] [--compile]

The contenders take turns within one process, a few steps each, so that a busy machine slows them alike; the
table gives the median over rounds of each contender's time relative to the plain step of the same round.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyro
import pyro.distributions as dist
import pyro.infer
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

import bayesprune as bp
from bayesprune.gated.rows import check_targets
from bayesprune.programs import load_model
from bayesprune.svi.batches import Batches

BATCH = 128
ROWS = 60_000
STEPS = 18_720
"""Of a training of LeNet-5 on MNIST, 40 epochs: the steps' pace."""


def plain(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def begun(gated: bp.GatedModel, recipe: bp.Recipe) -> bp.Training:
    """In mid-selection for as long as it is looked at: gates move, and nothing is removed."""
    still = replace(recipe, warmup=0.0, ramp=0.0, decide=1.0, shrink=bp.Shrink(every=10**9))
    return bp.Training(gated, steps=STEPS, recipe=still)


def ours(gated: bp.GatedModel, recipe: bp.Recipe, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    training = begun(gated, recipe)
    training.within_fit_()
    gated.train()
    return lambda: training.step_on_([(x, y)])


class Stream:
    """One batch, as often as there are steps."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.batch = x, y

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return itertools.repeat(self.batch, STEPS)


def from_loader(
    gated: bp.GatedModel, recipe: bp.Recipe, x: torch.Tensor, y: torch.Tensor
) -> Callable[[], None]:
    training = begun(gated, recipe)
    training.within_fit_()
    gated.train()
    batches = Batches(Stream(x, y), None, torch.device("cpu"), 0, rows=STEPS * BATCH, form=gated.form)
    outputs = gated.network(x[:2], {})
    batches.check_targets = lambda y, place: check_targets(gated.likelihood, outputs, y, place)
    passed = batches.epoch(0)
    return lambda: training.step_on_([next(passed)])


def log_normal_rate(group: bp.Group) -> bp.priors.Gates:
    """A prior in a few lines: a keep-rate for each layer, of which the order of magnitude is known."""
    log_odds = pyro.sample(f"log_odds/{group.name}", dist.Normal(-2.2, 1.0))
    return bp.priors.Gates(logits=log_odds.expand(group.size))


def own_loop(gated: bp.GatedModel, recipe: bp.Recipe, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    training = begun(gated, recipe)

    def step() -> None:
        loss = training.loss((x, y))
        loss.backward()
        training.step()

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
    parser.add_argument("--compile", action="store_true", help="the first under torch.compile too")
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
            "from a loader": from_loader(program.model(rows, 10, None), program.recipe, x, y),
            "own loop": own_loop(program.model(rows, 10, None), program.recipe, x, y),
            "own prior": ours(
                program.model(rows, 10, None).with_prior(log_normal_rate), program.recipe, x, y
            ),
            "natural Pyro": natural_pyro(program.model(rows, 10, None), x, y),
        }
        if arguments.compile:
            gated = program.model(rows, 10, None)
            gated.network.compile()
            contenders["compiled"] = ours(gated, program.recipe, x, y)
            for _ in range(10):  # both of its forms, with gates that learn and that stand still
                contenders["compiled"]()
        times = race(contenders, arguments.rounds, arguments.steps)
        results[name] = {}
        for contender, values in times.items():
            ratios = [value / base for value, base in zip(values, times["plain"], strict=True)]
            beside = [value / base for value, base in zip(values, times["from a loader"], strict=True)]
            shipped = [value / base for value, base in zip(values, times["bayesprune"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            results[name][contender] = {
                "ms": statistics.median(values),
                "ratio": middle,
                "ratio_quartiles": [low, high],
                "ratio_to_fit_from_a_loader": statistics.median(beside),
                "ratio_to_fit": statistics.median(shipped),
            }
            milliseconds = statistics.median(values)
            print(
                f"{name:16} {contender:14} {milliseconds:10.2f} {middle:8.2f} {low:6.2f}–{high:.2f}"
                f"   ÷ fit from a loader {statistics.median(beside):.3f}"
                f", ÷ fit {statistics.median(shipped):.3f}"
            )
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
