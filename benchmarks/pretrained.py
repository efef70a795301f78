"""Trained networks first: what a budget of multiply-accumulates costs a ResNet that has learnt already.

    python benchmarks/pretrained.py --setup small --data-dir FOLDER [--seeds 3]
    python benchmarks/pretrained.py --setup digits-32 [--macs 0.5 0.25 0.1]
    python benchmarks/pretrained.py --setup mnist-32 --data-dir FOLDER
    python benchmarks/pretrained.py --setup cifar --data FOLDER

``small``: three sections of 16, 32 and 64 channels behind a strided convolution, 2.55 million
multiply-accumulates, on MNIST's first 4,000 rows; elsewhere the ResNet-20 of ``models/resnet20_cifar.py``.
Every contender but the last begins from the same dense network, and has as many epochs as that had:

    dense          the trained network itself
    trained        bp.fit(start="trained")
    frozen         bp.fit(recipe=bp.Recipe.trained(frozen=0.2)): gates alone, decided, then fine-tuning
    scratch        bp.fit as if the weights were fresh; "whole": the same, gated with layers="none"
    TP taylor, TP norm  Torch-Pruning 1.6.1, global, step by step over the first half of the epochs to the
                   budget, fine-tuning between the steps and after the last one
    small dense    all widths scaled alike to the budget, from scratch, for as much processor time as the
                   dense training and "trained" took together

Torch-Pruning's learning rate is chosen for each budget and importance on a fifth of the training rows, held
out, at the first seed, and that time is not counted. ``--validation`` scores on held-out rows of the training
set, which is how ``Recipe.trained`` was chosen. For each dense network it is also noted what its sections'
evidence is: the estimator's slope at nearly open gates, and the exact difference without each.
"""

import argparse
import copy
import importlib.metadata
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from reporting import write_results
from torch import Tensor, nn
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model
from bayesprune.svi.step import Engine

RATES = (0.1, 0.03, 0.01)
TP_STEPS, TAYLOR_BATCHES = 400, 4
TP_MOST = 0.9
"""Share of a layer that Torch-Pruning may take at most: with 1, Taylor's rule ended at 22 % error."""
OPEN = 0.99
Rows = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            projection = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


class Small(nn.Module):
    """A strided convolution and three sections."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        first, second, third = widths
        self.conv, self.norm = nn.Conv2d(channels, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first)
        self.blocks = nn.Sequential(Block(first, first, 1), Block(first, second, 2), Block(second, third, 2))
        self.fc = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.norm(self.conv(x)).relu()).mean((2, 3)))  # type: ignore[no-any-return]


@dataclass
class Setup:
    """Data, network and training.

    Args:
        train: inputs and targets.
        test: rows that score.
        make: widths → a fresh network.
        batch: rows of a step.
        epochs: of the dense training, and of each contender.
    """

    train: Rows
    test: Rows
    make: Callable[[tuple[int, ...]], nn.Module]
    batch: int
    epochs: int

    def count(self, network: nn.Module) -> bp.Cost:
        return bp.count(network, self.train[0][:1])


def set_up(name: str, arguments: argparse.Namespace) -> Setup:
    """Of one of the four, with rows as the arguments say."""
    if name == "digits-32":
        data = bp.data.load("digits-32")
    elif name == "cifar":
        if arguments.data is None:
            raise SystemExit("--setup cifar needs --data FOLDER with CIFAR-10's binary version.")
        data = bp.data.cifar10(arguments.data)
    else:
        data = bp.data.load("mnist", data_dir=arguments.data_dir)
    limit = arguments.rows or (4_000 if name == "small" else None)
    train, test = (data.train.x, data.train.y), (data.test.x, data.test.y)
    if arguments.validation:
        at = limit or len(train[0]) * 4 // 5
        test = (train[0][at : at + 8_000], train[1][at : at + 8_000])
        train = (train[0][:at], train[1][:at])
    train = (train[0][:limit], train[1][:limit])
    if name == "mnist-32":
        train, test = ((F.pad(x, (2, 2, 2, 2), value=float(x.min())), y) for x, y in (train, test))
    network = Small if name == "small" else type(resnet20(train[0]))
    channels, epochs = train[0].shape[1], {"small": 12, "digits-32": 20, "mnist-32": 12, "cifar": 60}[name]
    batch = {"small": 100, "digits-32": 32}.get(name, 128)
    return Setup(
        train, test, lambda w: network(channels, 10, widths=w), batch, arguments.epochs or epochs
    )  # fmt: skip


def resnet20(x: Tensor) -> nn.Module:
    """The shipped program's network."""
    split = bp.data.Split(x[:8], torch.zeros(8, dtype=torch.long))
    return load_model("resnet20_cifar").model(split, 10, None).network.network


def error(network: nn.Module, rows: Rows) -> float:
    """Percent."""
    return bp.evaluate(network.eval(), rows, bp.Categorical(rows=1)).score


# ---- contenders; each returns its network and its processor seconds


def learn(network: nn.Module, rows: Rows, batch: int, epochs: int, rate: float, seed: int) -> float:
    """SGD with momentum under one cycle; processor seconds."""
    torch.manual_seed(seed)
    begun, steps = time.process_time(), epochs * -(-len(rows[0]) // batch)
    optimiser = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 2))
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(rows[0])).split(batch):
            F.cross_entropy(network(rows[0][chosen]), rows[1][chosen]).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    return time.process_time() - begun


def ours(setup: Setup, dense: nn.Module, macs: float, seed: int, layers: str = "sections", **how: Any):
    """bp.fit under a budget."""
    begun = time.process_time()
    gated = bp.gate(
        dense, setup.train[0][:1], prior=bp.Budget(macs=macs), likelihood=bp.Categorical(len(setup.train[0])),
        layers=layers,
    )  # fmt: skip
    result = bp.fit(
        gated, setup.train, epochs=setup.epochs, batch_size=setup.batch, seed=seed, progress=False, **how
    )
    return bp.prune(result), time.process_time() - begun


def torch_pruned(
    setup: Setup, dense: nn.Module, macs: float, seed: int, taylor: bool, rate: float, rows: Rows
):
    """Torch-Pruning, step by step: half of the epochs on the way to the budget, half after it."""
    import torch_pruning

    begun, network = time.process_time(), copy.deepcopy(dense)
    importance = (
        torch_pruning.importance.GroupTaylorImportance()
        if taylor
        else torch_pruning.importance.GroupMagnitudeImportance(p=2)
    )
    pruner = torch_pruning.pruner.BasePruner(
        network, rows[0][:1], importance=importance, global_pruning=True, pruning_ratio=1.0,
        max_pruning_ratio=TP_MOST, iterative_steps=TP_STEPS, ignored_layers=[network.fc],
    )  # fmt: skip
    whole, stages = setup.count(dense).macs, max(setup.epochs // 2, 1)
    for stage in range(1, stages + 1):
        goal = macs ** (stage / stages) * whole  # the same share of what is left, each time
        if taylor:
            _gradients(network, rows, setup.batch, seed + stage)  # they are cut with their weights
        while setup.count(network).macs > goal:
            if pruner.current_step >= TP_STEPS:
                raise RuntimeError(
                    f"Torch-Pruning cannot get down to {100 * macs:g} % with {TP_MOST} a layer."
                )
            pruner.step()
        network.zero_grad()
        if stage < stages:
            learn(network, rows, setup.batch, 1, rate, seed + stage)
    learn(network, rows, setup.batch, setup.epochs - stages + 1, rate, seed)
    return network, time.process_time() - begun


def _gradients(network: nn.Module, rows: Rows, batch: int, seed: int) -> None:
    """Those of a few batches, for Taylor's rule."""
    network.zero_grad()
    order = torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(seed))
    for chosen in order[: TAYLOR_BATCHES * batch].split(batch):
        F.cross_entropy(network.eval()(rows[0][chosen]), rows[1][chosen]).backward()


def tuned(setup: Setup, dense_on: Callable[[Rows], nn.Module], macs: float, taylor: bool) -> float:
    """The learning rate with the least error on a fifth of the training rows, from a network that saw the
    rest.
    """
    x, y = setup.train
    at = len(x) * 4 // 5
    rest, held_out = (x[:at], y[:at]), (x[at:], y[at:])
    dense = dense_on(rest)
    errors = {
        rate: error(torch_pruned(setup, dense, macs, 0, taylor, rate, rest)[0], held_out) for rate in RATES
    }
    return min(errors, key=errors.__getitem__)


def widest(setup: Setup, macs: float) -> tuple[int, ...]:
    """The widths, all scaled alike, of the largest network within a number of multiply-accumulates."""
    for share in range(160, 0, -1):
        widths = tuple(max(1, round(width * share / 160)) for width in (16, 32, 64))
        if setup.count(setup.make(widths)).macs <= macs:
            return widths
    raise RuntimeError(f"No network is within {macs:,.0f} multiply-accumulates.")


def small_dense(setup: Setup, macs: float, seconds: float, rate: float, seed: int):
    """From scratch, for about so many processor seconds."""
    torch.manual_seed(seed)
    widths = widest(setup, macs)
    first = learn(setup.make(widths), setup.train, setup.batch, 1, rate, seed)
    an_epoch = min(first, learn(setup.make(widths), setup.train, setup.batch, 1, rate, seed))
    torch.manual_seed(seed)
    network = setup.make(widths)
    return network, learn(
        network, setup.train, setup.batch, max(1, round(seconds / an_epoch)), rate, seed
    )  # fmt: skip


# ---- what a section's evidence is


def evidence_of_sections(setup: Setup, dense: nn.Module, rows: int = 4_000) -> dict[str, list[float]]:
    """Nats that each section saves on the training rows: by slope at nearly open gates, and exactly."""
    likelihood = bp.Categorical(rows=len(setup.train[0]))
    gated = bp.gate(
        dense, setup.train[0][:1], prior=bp.Budget(macs=0.5), likelihood=likelihood, initial_inclusion=OPEN
    )
    engine, part, x, y = Engine(gated, bp.Recipe()), gated.slices()["layers"], *setup.train
    sections = part.stop - part.start
    slope, exact = torch.zeros(sections), torch.zeros(sections)
    for chosen in torch.arange(min(rows, len(x))).split(100):
        gradient = engine.estimator(engine._problem(x[chosen], y[chosen]), True).differentiated()
        slope -= gradient[part] * len(chosen)
        with torch.no_grad():
            for section in range(sections):
                gates = {name: torch.ones(len(chosen), size) for name, size in gated.kept().items()}
                with_it = likelihood.nll(gated.network(x[chosen], gates), y[chosen]).sum()
                gates["layers"][:, section] = 0
                without = likelihood.nll(gated.network(x[chosen], gates), y[chosen]).sum()
                exact[section] += without - with_it
    scale = len(x) / min(rows, len(x))
    return {"slope": (scale * slope).tolist(), "exact": (scale * exact).tolist()}


def one_seed(
    setup: Setup, seed: int, arguments: argparse.Namespace, rates: dict[tuple[float, bool], float]
) -> dict[str, Any]:
    """All contenders at all budgets."""

    def dense_on(rows: Rows) -> tuple[nn.Module, float]:
        torch.manual_seed(seed)
        network = setup.make((16, 32, 64))
        return network, learn(network, rows, setup.batch, setup.epochs, arguments.rate, seed)

    dense, dense_seconds = dense_on(setup.train)
    whole, found = setup.count(dense), []

    def note(name: str, macs: float, network: nn.Module, seconds: float) -> None:
        cost = setup.count(network)
        found.append(
            {
                "contender": name, "budget": macs, "error": error(network, setup.test),
                "cpu_seconds": seconds,
                "macs_percent": 100 * cost.macs / whole.macs,
                "parameters_percent": 100 * cost.parameters / whole.parameters,
            }
        )  # fmt: skip
        print(f"seed {seed} " + told(found[-1]), flush=True)

    note("dense", 1.0, dense, dense_seconds)
    sections = evidence_of_sections(setup, dense)
    print(f"seed {seed} nats of sections by slope", *map(round, sections["slope"]), end="; ")
    print("exactly", *map(round, sections["exact"]))
    for macs in tqdm(arguments.macs, desc=f"seed {seed}", unit="budget", disable=None):
        trained, seconds = ours(setup, dense, macs, seed, start="trained")
        note("trained", macs, trained, seconds)
        note("frozen", macs, *ours(setup, dense, macs, seed, recipe=bp.Recipe.trained(frozen=0.2)))
        if not arguments.quick:
            note("scratch", macs, *ours(setup, dense, macs, seed))
            note("whole", macs, *ours(setup, dense, macs, seed, layers="none"))
        for taylor in (True, False):
            if (macs, taylor) not in rates:
                rates[macs, taylor] = tuned(setup, lambda rows: dense_on(rows)[0], macs, taylor)
            how = (macs, seed, taylor, rates[macs, taylor], setup.train)
            note("TP taylor" if taylor else "TP norm", macs, *torch_pruned(setup, dense, *how))
        total = dense_seconds + seconds
        note("small dense", macs, *small_dense(setup, macs * whole.macs, total, arguments.rate, seed))
    return {"seed": seed, "sections": sections, "runs": found}


def told(run: dict[str, Any]) -> str:
    return (
        f"{run['contender']:12} at {100 * run['budget']:3.0f} %: error {run['error']:.2f} %, MACs "
        f"{run['macs_percent']:.1f} %, parameters {run['parameters_percent']:.1f} %, "
        f"{run['cpu_seconds']:.1f} s of the processor"
    )


def summarise(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and standard deviations over seeds."""
    table = []
    runs = [run for seed in seeds for run in seed["runs"]]
    for name, budget in dict.fromkeys((run["contender"], run["budget"]) for run in runs):
        row: dict[str, Any] = {"contender": name, "budget": budget}
        same = [run for run in runs if (run["contender"], run["budget"]) == (name, budget)]
        for key in ("error", "cpu_seconds", "macs_percent", "parameters_percent"):
            values = [run[key] for run in same]
            row[key] = statistics.mean(values)
            row[key + "_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup", choices=("small", "digits-32", "mnist-32", "cifar"), default="small")
    parser.add_argument(
        "--macs", type=float, nargs="+", help="budgets; 0.25 for small, else 0.5, 0.25 and 0.1"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of the dense training, and of each contender")
    parser.add_argument("--rows", type=int, help="training rows, the first ones")
    parser.add_argument("--rate", type=float, default=0.1, help="peak of the dense trainings' learning rate")
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's binary version")
    parser.add_argument("--validation", action="store_true", help="score on held-out training rows")
    parser.add_argument("--quick", action="store_true", help="without the two from-scratch recipes")
    parser.add_argument("--out", type=Path, help="JSON; benchmarks/results/pretrained_SETUP.json by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", bp.errors.BudgetWarning)
    warnings.simplefilter("ignore", bp.errors.ClockWarning)
    arguments.macs = arguments.macs or ([0.25] if arguments.setup == "small" else [0.5, 0.25, 0.1])
    setup = set_up(arguments.setup, arguments)
    rates: dict[tuple[float, bool], float] = {}
    suffix = "_validation" if arguments.validation else ""
    out = arguments.out or Path(__file__).parent / "results" / f"pretrained_{arguments.setup}{suffix}.json"
    seeds = []
    for seed in range(arguments.seeds):
        seeds.append(one_seed(setup, seed, arguments, rates))
        chosen = {f"{'taylor' if t else 'norm'} at {macs:g}": rate for (macs, t), rate in rates.items()}
        peer = {"version": importlib.metadata.version("torch-pruning"), "learning_rates": chosen}
        results = {"epochs": setup.epochs, "torch_pruning": peer, "summary": summarise(seeds), "seeds": seeds}
        write_results(out, vars(arguments), results, quiet=seed + 1 < arguments.seeds)
    for row in summarise(seeds):
        print(told(row) + f"; error ± {row['error_sd']:.2f}")


if __name__ == "__main__":
    main()
