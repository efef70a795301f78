"""Whole units or single weights? Every rule on a trained network, on MNIST, at equal parameter counts.

    python benchmarks/node_vs_edge.py [--network mlp] [--seeds 10] [--epochs 10] [--finetune 0]

After Acharyya, Chattoraj, Zhang, Das & Štefankovič (UAI 2021): is k-DPP node pruning better than random and
importance node pruning, and is random edge pruning better than k-DPP node pruning, at the same number of
parameters and without training again? A seed trains one dense network, which every rule then prunes; so
differences between rules are paired. Units are pruned by the same share of every layer, unless a rule
compares them over layers; "fused" re-weights the readers of what stays by least squares, on 1,000 training
rows, and of edges those that stay of every unit. "posterior" fits the gates of the trained network under a
budget, its weights held. Settings are fixed beforehand (the epochs of the gates by training nats, on another
seed); none by test error.
"""

import argparse
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from contenders import Plain
from node_vs_edge_plot import plot
from node_vs_edge_table import comparisons, summary
from reporting import write_results

import bayesprune as bp
from bayesprune import selection
from bayesprune.selection.activations import unit_vectors

BATCH, PEAK, PENALTY = 128, 1e-3, 0.0
ROWS = 1000  # training rows at which activations are looked at
FRACTIONS = (0.5, 0.25, 0.15, 0.1, 0.05)
GATE_EPOCHS = 4  # of the posterior, for each budget; a step of the gates at every batch


def mlp() -> nn.Sequential:
    """One hidden layer."""
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(784, 300), relu1=nn.ReLU(), fc2=nn.Linear(300, 10))
    )


def lenet_300_100() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(), fc1=nn.Linear(784, 300), relu1=nn.ReLU(), fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(), fc3=nn.Linear(100, 10),
        )
    )  # fmt: skip


def lenet5() -> nn.Sequential:
    """LeNet-5 as in Caffe."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5), pool1=nn.MaxPool2d(2), conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2), flatten=nn.Flatten(), fc1=nn.Linear(800, 500), relu=nn.ReLU(),
            fc2=nn.Linear(500, 10),
        )
    )  # fmt: skip


FIXED = {"flatten": "input", "conv1": "flatten"}  # first layer → gates of what is no unit here
NETWORKS = {"mlp": mlp, "lenet_300_100": lenet_300_100, "lenet5": lenet5}


def rules(x: Tensor, y: Tensor, rows: int) -> dict[str, selection.Rule]:
    """Name → the rule."""
    likelihood = bp.Categorical(rows=rows)
    return {
        "random node": selection.RandomNodes(),
        "magnitude node": selection.Magnitude(),
        "importance node": selection.Outgoing(),
        "importance × activation node": selection.Outgoing(activation=True, rows=x),
        "Taylor node": selection.Taylor(x, y, likelihood),
        "DPP node": selection.DPP(rows=x),
        "DPP node, median β": selection.DPP(beta="median", rows=x),
        "random edge": selection.RandomEdges(),
        "magnitude edge": selection.MagnitudeEdges(),
        "DPP edge": selection.DPPEdges(rows=x, memory=4.0),
    }


def pruned(
    network: nn.Module, x: Tensor, y: Tensor, train, fractions: tuple[float, ...], seed: int
) -> Iterator[tuple[str, float, selection.Candidate]]:
    """Every rule's networks at every size, as cut and with what stays re-weighted; masks are drawn once."""
    subject, fuse = selection.Subject.of(network, x), selection.Fuse(rows=x)
    for name, rule in rules(x, y, len(train[0])).items():
        found = selection.path(subject, None, rule, fractions, scope="layer", seed=seed)
        for fraction, candidate in zip(fractions, found, strict=True):
            yield name, fraction, candidate
            again = (fuse.zeroed if rule.edges else fuse)(subject, candidate.masks)
            yield f"{name}, fused", fraction, replace(candidate, network=again)
    for fraction in fractions:
        masks = posterior_masks(network, train, fraction, seed)
        for name, how in (("posterior node", None), ("posterior node, fused", fuse)):
            small = selection.prune(subject, masks, fuse=how)
            parameters = sum(p.numel() for p in small.parameters())
            share = parameters / subject.dense_parameters
            yield name, fraction, selection.Candidate(small, masks, parameters, share, "Budget")


def posterior_masks(network: nn.Module, train, fraction: float, seed: int) -> selection.Masks:
    """Gates fitted under a budget of parameters, with the weights held where they are.

    The budget's prior brings the network close to the size asked for; the last units are then taken by the
    order of inclusion probabilities, so that the size is not above it.
    """
    held = 1e-12  # a learning rate at which weights do not move
    recipe = bp.Recipe(
        learning_rate=held, compact_learning_rate=held, warmup=0.0, ramp=0.6, decide=1.0,
        shrink=bp.Shrink(below=1e-9), gates=bp.GateSteps(every=1),
    )  # fmt: skip
    gated = bp.gate(
        network,
        train[0][:1],
        prior=bp.Budget(params=fraction),
        likelihood=bp.Categorical(rows=len(train[0])),
        exclude=[FIXED[next(name for name, _ in network.named_children())]],
    )
    inclusion: list[Tensor] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.BudgetWarning)  # sizes are made equal below
        bp.fit(
            gated, train, epochs=GATE_EPOCHS, batch_size=BATCH, seed=seed, recipe=recipe, progress=False,
            on_epoch=lambda epoch: inclusion.append(epoch.inclusion),
        )  # fmt: skip
    probs = inclusion[-2].double()  # before gates are put at their vertices
    gated.log_odds.data = torch.logit(probs, eps=1e-12).to(gated.log_odds)
    return selection.select(selection.InclusionProb(), selection.Subject.of(gated), share=fraction)


def error_percent(network: nn.Module, test) -> float:
    return bp.evaluate(network.eval(), test, bp.Categorical(rows=1)).score


def finetune_(candidate: selection.Candidate, train, epochs: int, seed: int) -> None:
    """Train on, zeros staying zero; a tenth of the peak rate, down to zero."""
    network = candidate.network.train()
    tensors = dict(network.named_parameters())
    holes = [(tensors[name], mask) for name, mask in candidate.masks.items() if name in tensors]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1 * PEAK)
    steps = epochs * (len(train[0]) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(train[0]), generator=generator)[: steps // epochs * BATCH]
        for batch in order.split(BATCH):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(network(train[0][batch]), train[1][batch]).backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for tensor, mask in holes:
                    tensor.masked_fill_(~mask, 0.0)


def kdpp_seconds(units: int = 500, k: int = 50, repeats: int = 5) -> float:
    """Kernel, decomposition and one draw: the median of some repetitions."""
    vectors = np.random.default_rng(0).normal(size=(units, ROWS))
    times = []
    for seed in range(repeats):
        start = time.perf_counter()
        selection.sample_kdpp(selection.gaussian_kernel(vectors), k, seed, jitter=0.01)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def likeness(network: nn.Module, x: Tensor) -> dict[str, dict[str, float]]:
    """β → group → median entry of the k-DPP's kernel off its diagonal: near 0, a draw is nearly by lot."""
    vectors = unit_vectors(selection.Subject.of(network, x), x)
    found: dict[str, dict[str, float]] = {"rows": {}, "median": {}}
    for beta, table in found.items():
        for group, v in vectors.items():
            kernel = selection.gaussian_kernel(v.numpy(), beta)
            table[group] = float(np.median(kernel[np.triu_indices(len(kernel), 1)]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--finetune", type=int, default=0, help="epochs of training after pruning")
    parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS))
    parser.add_argument("--rows", type=int, default=60_000, help="training rows")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default=None, help="where MNIST lies")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--plots", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    arguments = parser.parse_args()

    data = bp.data.load(arguments.data, arguments.data_dir)
    train, test = (data.train.x[: arguments.rows], data.train.y[: arguments.rows]), (data.test.x, data.test.y)
    fractions, records, dense, alike = tuple(arguments.fractions), [], [], []
    seconds = kdpp_seconds()
    print(f"k-DPP of 50 from 500 (kernel over {ROWS:,} numbers, decomposition, draw): {seconds:.3f} s")
    per_seed = 2 * (len(rules(train[0][:2], train[1][:2], 1)) + 1) * len(fractions)
    bar = tqdm(total=arguments.seeds * (arguments.epochs + per_seed), desc="node_vs_edge", unit="step")
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        plain = Plain(NETWORKS[arguments.network](), train, BATCH, arguments.epochs, PEAK, PENALTY, seed)
        for _ in range(arguments.epochs):
            plain.epoch()
            bar.update()
        dense.append(error_percent(plain.network, test))
        chosen = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))[:ROWS]
        alike.append(likeness(plain.network.eval(), train[0][chosen]))
        for name, fraction, candidate in pruned(
            plain.network.eval(), train[0][chosen], train[1][chosen], train, fractions, seed
        ):
            record = {"seed": seed, "rule": name, "fraction": fraction, "share": candidate.share}
            record |= {"parameters": candidate.parameters}
            record |= {"error_percent": error_percent(candidate.network, test)}
            if arguments.finetune:
                finetune_(candidate, train, arguments.finetune, seed)
                record["finetuned_error_percent"] = error_percent(candidate.network, test)
            records.append(record)
            bar.update()
    bar.close()
    keys = ["error_percent", *(["finetuned_error_percent"] if arguments.finetune else [])]
    results = {
        "dense_error_percent": dense, "records": records, "kdpp_50_of_500_seconds": seconds,
        "kernel_median_off_diagonal": alike,
        "comparisons": {key: comparisons(records, key) for key in keys},
    }  # fmt: skip
    for beta in ("rows", "median"):
        medians = {group: np.mean([of[beta][group] for of in alike]) for group in alike[0][beta]}
        told = ", ".join(f"{group} {value:.2g}" for group, value in medians.items())
        print(f"median entry of the k-DPP's kernel off its diagonal, β by {beta}: {told}")
    for key in keys:
        print(f"\n{key}, mean over {arguments.seeds} seeds (dense: {np.mean(dense):.2f})")
        print(summary(records, key))
        print("\npaired differences, percentage points, 95 % t-intervals (negative: the first is better)")
        for comparison in results["comparisons"][key]:
            print(comparison["text"])
    tail = f"_finetuned{arguments.finetune}" if arguments.finetune else ""
    name = f"node_vs_edge_{arguments.network}{tail}"
    write_results(arguments.out / f"{name}.json", vars(arguments), results)
    for key in keys if len(fractions) > 1 else []:  # a line needs two points
        file = arguments.plots / f"{name}{'_after' if key.startswith('fine') else ''}.png"
        plot(records, dense, key, arguments.network, file)
        print(f"written to {file.name}")


if __name__ == "__main__":
    main()
