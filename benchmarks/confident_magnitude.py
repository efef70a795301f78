"""How sparse can a network be certified to be? Magnitude against the posterior's path, on MNIST.

    python benchmarks/confident_magnitude.py [--seeds 1] [--epochs 15] [--fit-epochs 40] [--plot FILE.png]
    python benchmarks/confident_magnitude.py --seeds 5 --refits 1 2 4 8    # the path of refits by price, too

After Alvarez (2024), Confident magnitude-based neural network pruning, arXiv 2408.04759. LeNet-300-100 learns
from 50,000 of MNIST's training rows; the other 10,000 calibrate; the test rows only report. Paths, none of
which sees a calibration row:

- weights of the dense network, smallest first, over all layers, or the same share of each;
- units of the dense network, by the norm of their weights;
- the posterior's: what ``bayesprune.fit`` leaves, then units by evidence above price on 5,000 training rows;
- what the fit leaves, then weights, smallest first;
- with --refits, refits by price: the dense network, then what a fit of its own leaves at the program's
  prices times each of these factors, rising.

--rows takes fewer of the training rows, --cuts fewer candidates, for a run of minutes.

No network is fine-tuned after a cut. For every alpha and delta the fixed sequence certifies as ``bp.certify``
does (binomial p-values); parameters left are percent of the dense network's. Disagreement is with the dense
network for all paths.
"""

import argparse
import statistics
from pathlib import Path

import matplotlib
import torch
from mnist_network import held_out_splits, trained
from reporting import write_results
from tqdm import tqdm

import bayesprune as bp
from bayesprune.certify.losses import Disagreement, Error
from bayesprune.certify.paths import Networks, Units, Weights, numbers_left, parameters_of
from bayesprune.certify.pvalues import Binomial
from bayesprune.certify.rules import FixedSequence
from bayesprune.certify.scoring import outputs_of
from bayesprune.programs import load_model
from bayesprune.selection import FlatteningVertex
from bayesprune.svi.evaluate import evaluate

matplotlib.use("Agg")
ALPHAS = [0.016, 0.018, 0.02, 0.022, 0.025, 0.03, 0.035, 0.04, 0.05, 0.07, 0.1]
DELTAS = [0.01, 0.05, 0.2]
EVIDENCE_ROWS = 5000
PRICES = {"input": 36.0, "fc1": 62.0, "fc2": 36.0}  # the program's, nats a unit, for 60,000 rows
LOSSES = {"error": Error(), "disagreement": Disagreement()}


def shares_of(cuts):
    """Shares of the weights that are cut: from none to all but 0.3 %, the rest falling in one proportion."""
    return tuple(round(1 - 0.003 ** (step / (cuts - 1)), 4) for step in range(cuts))


def paths_of(dense, fit, train, refits, cuts):
    """name → (reference, path)."""
    small, rows = bp.prune(fit), slice(0, EVIDENCE_ROWS)
    evidence = FlatteningVertex(train.x[rows], train.y[rows])
    units = {} if cuts >= 50 else {"shares": tuple(1 - step / cuts for step in range(cuts))}
    return {
        "weights, all layers": (dense, Weights("global", shares_of(cuts))),
        "weights, layer by layer": (dense, Weights("layer", shares_of(cuts))),
        "units by norm": (dense, Units(**units)),
        "fit, then units by evidence": (small, Units(evidence, fit=fit, **units)),
        "fit, then weights": (small, Weights("global", shares_of(cuts))),
        **({"refits by price": (dense, Networks([dense, *refits]))} if refits else {}),
    }


def fitted(program, train, epochs, seed, factor=1.0):
    """A fit of the program's network, at its prices times a factor."""
    torch.manual_seed(seed)
    scale = factor * (len(train.x) / 60_000) ** 0.75  # as the program has it for fewer rows
    prices = {group: scale * price for group, price in PRICES.items()}
    gated = program.model(train, 10, prices)
    return bp.fit(gated, (train.x, train.y), epochs=epochs, batch_size=128, recipe=program.recipe, seed=seed)


def one_seed(seed, arguments, splits):
    train, held_out, test = splits
    torch.manual_seed(seed)
    dense = trained(train, arguments.epochs, seed=seed)
    program = load_model("lenet_300_100")
    fit = fitted(program, train, arguments.fit_epochs, seed)
    refits = [
        bp.prune(fitted(program, train, arguments.fit_epochs, seed, factor)) for factor in arguments.refits
    ]
    reference = {"calibration": outputs_of(dense, held_out.x, 1000, "dense")}
    found = {}
    for name, (network, path) in paths_of(dense, fit, train, refits, arguments.cuts).items():
        table = []
        for candidate in tqdm(path.candidates(network, held_out.x[:2]), desc=name, unit="network"):
            pruned = candidate.build()
            outputs = outputs_of(pruned, held_out.x, 1000, candidate.name)
            scores = {
                n: loss.scores(outputs, reference["calibration"], held_out.y) for n, loss in LOSSES.items()
            }
            left = 100 * numbers_left(pruned) / parameters_of(dense)
            error = evaluate(pruned, (test.x, test.y), fit.likelihood).score
            table.append({"left": left, "test_error": error, "name": candidate.name, "scores": scores})
        found[name] = table
    sizes = {"fit_architecture": fit.architecture, "dense_error": found["units by norm"][0]["test_error"]}
    return {**sizes, "fit_error": found["fit, then weights"][0]["test_error"]}, found


def certified(table, loss, alpha, delta):
    """The entry that the fixed sequence certifies last, or None."""
    rule, scores = FixedSequence(), [entry["scores"][loss] for entry in table]

    def tests(rows):
        return torch.tensor([LOSSES[loss].p_value(s.on(rows), alpha, Binomial()) for s in scores]).numpy()

    passed = rule.decide(tests, len(table), len(scores[0].values), delta).certified
    best = min(
        (e for e, fine in zip(table, passed, strict=True) if fine), key=lambda e: e["left"], default=None
    )
    return None if best is None else {k: best[k] for k in ("left", "test_error", "name")}


def summarise(by_seed):
    """A row for every path, loss, alpha and delta: means over seeds, where every seed certified something."""
    rows = []
    for name in by_seed[0]:
        for loss in LOSSES:
            for delta in DELTAS:
                for alpha in ALPHAS:
                    got = [certified(found[name], loss, alpha, delta) for found in by_seed]
                    none = sum(entry is None for entry in got)
                    row = {"path": name, "loss": loss, "alpha": alpha, "delta": delta, "none": none}
                    if not none:
                        left = [entry["left"] for entry in got]
                        row["parameters_left_percent"] = statistics.mean(left)
                        row["parameters_left_sd"] = statistics.stdev(left) if len(left) > 1 else 0.0
                        row["test_error_percent"] = statistics.mean(entry["test_error"] for entry in got)
                    rows.append(row)
    return rows


def plot(rows, path):
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    styles = {0.01: ":", 0.05: "-", 0.2: "--"}
    for axis, loss in zip(axes, LOSSES, strict=True):
        for number, name in enumerate(dict.fromkeys(row["path"] for row in rows)):
            for delta in DELTAS:
                mine = [
                    r for r in rows
                    if (r["path"], r["loss"], r["delta"]) == (name, loss, delta) and not r["none"]
                ]  # fmt: skip
                axis.plot(
                    [100 * r["alpha"] for r in mine],
                    [r["parameters_left_percent"] for r in mine],
                    styles[delta],
                    color=f"C{number}",
                    label=name if delta == 0.05 else None,
                    marker="." if delta == 0.05 else None,
                    linewidth=1.6 if delta == 0.05 else 0.9,
                )
        axis.set(xlabel=f"alpha: {loss} allowed, %", yscale="log", xscale="log")
        axis.set_xticks([2, 3, 5, 10], ["2", "3", "5", "10"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_yticks([0.3, 1, 3, 10, 30, 100], ["0.3", "1", "3", "10", "30", "100"])
    axes[0].set_ylabel("parameters left, % of the dense network's")
    axes[1].legend(title="delta: dotted 1 %, solid 5 %, dashed 20 %", fontsize=8, title_fontsize=8)
    figure.suptitle("LeNet-300-100 on MNIST, certified by 10,000 held-out rows", fontsize=11)
    figure.savefig(path, dpi=110)
    print(f"plot: {path}")


def show(rows, delta=0.05):
    for loss in LOSSES:
        print(f"\nParameters left % (test error %), loss {loss}, delta {delta:.0%}")
        print(f"{'alpha %':<30}" + "".join(f"{100 * alpha:>14.1f}" for alpha in ALPHAS))
        for name in dict.fromkeys(row["path"] for row in rows):
            mine = [r for r in rows if (r["path"], r["loss"], r["delta"]) == (name, loss, delta)]
            cells = [
                f"{'none':>14}" if r["none"]
                else f"{r['parameters_left_percent']:>7.2f} ({r['test_error_percent']:.2f})"
                for r in mine
            ]  # fmt: skip
            print(f"{name:<30}" + "".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--fit-epochs", type=int, default=40)
    parser.add_argument("--rows", type=int, default=None, help="of the training rows, the first so many")
    parser.add_argument("--cuts", type=int, default=60, help="candidates of each path of cuts")
    parser.add_argument("--refits", type=float, nargs="*", default=[], metavar="FACTOR")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    out = Path(__file__).parent / "results" / "confident_magnitude.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    splits = held_out_splits(arguments.data_dir)
    if arguments.rows is not None:
        train = splits[0]
        splits = (bp.data.Split(train.x[: arguments.rows], train.y[: arguments.rows]), *splits[1:])
    runs = [one_seed(seed, arguments, splits) for seed in range(arguments.seeds)]
    rows = summarise([found for _, found in runs])
    show(rows)
    refits = [
        {"seed": seed, **{key: entry[key] for key in ("name", "left", "test_error")}}
        for seed, (_, found) in enumerate(runs)
        for entry in found.get("refits by price", [])
    ]
    found = {"seeds": [about for about, _ in runs], "table": rows, **({"refits": refits} if refits else {})}
    write_results(arguments.out, vars(arguments), found)
    plot(rows, arguments.plot or arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
