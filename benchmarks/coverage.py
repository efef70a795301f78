"""Do 90 % intervals hold 90 % of what comes? Over many splits, with few rows and with many, beside Laplace.

    python benchmarks/coverage.py [--splits 20] [--only NAME ...] [--lines NAME ...]
    python benchmarks/coverage.py --data FILE.csv --target COLUMN

Each split has other rows to learn from and others to test on. Networks are inputs-50-1 with a tanh layer, as
in ``models/regression_mlp.py``, whose data are taken at 100 and at 2,000 rows; scikit-learn's diabetes set
comes with it. Every line takes 200 epochs, as that program does, and 1,000 steps at least. ``--data`` names a
file of numbers with a line of names, of which one is the target (the last by default). Inputs and targets are
standardised by the training rows, and undone in the answer: widths and errors are in the target's unit.

Lines: the default recipe, weights as points, weights with a posterior, a posterior over masks as well
(``decide=False``), and the same dense network trained to its maximum a posteriori, with the last-layer
Laplace approximation of laplace-torch 0.3 (full covariance, noise and prior precision by marginal
likelihood). It goes in by ``pip install --no-deps laplace-torch==0.3 asdfghjkl==0.1a4 backpack-for-pytorch
curvlinops-for-pytorch einconv einops jaxtyping lightning-utilities linear-operator opt-einsum torchmetrics
unfoldNd wadler-lindig``; ``--lines default points normal undecided`` does without. NLL is the mean over test
rows of -log p(y | x), nats, in the unit of the standardised targets; in the target's own it is larger by the
logarithm of that unit. Settings were chosen on splits from 1,000 on (``--first 1000``), not on those that are
reported. Exit code 1 where the default's intervals cover less than 86 or more than 94 %, or its NLL is worse
than Laplace's; 2 for a file that cannot be read.
"""

import argparse
import csv
import math
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from sklearn.datasets import load_diabetes
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

import bayesprune as bp

HIDDEN, BATCH, EPOCHS, LEAST_STEPS, LEVEL = 50, 100, 200, 1_000, 0.9
FEWEST, LARGEST = 20, 1e15
"""Rows that a file must have, nine in ten to learn from; and the size that numbers stay under."""
PRICES = {"input": 2.0, "*": 3.0}
RECIPES = {
    "default": {},
    "points": {"recipe": bp.Recipe(compact_weights="points")},
    "normal": {"recipe": bp.Recipe(compact_weights="normal")},
    "undecided": {"recipe": bp.Recipe(compact_weights="normal"), "decide": False},
}


# ---- data


def sin_square(rows, seed):
    """y = sin(3 x₁) + x₂² + noise of 0.1; ten inputs, of which eight say nothing; 1,000 rows to test on."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(rows + 1_000, 10, generator=generator) - 1
    y = torch.sin(3 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * torch.randn(len(x), generator=generator)
    return (x[:rows], y[:rows]), (x[rows:], y[rows:])


def split(x, y, seed, share=0.9):
    """Nine rows in ten to learn from, drawn by the seed."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    cut = round(share * len(x))
    train, test = order[:cut], order[cut:]
    return (x[train], y[train]), (x[test], y[test])


def diabetes(seed):
    """442 patients, ten inputs, a score of their disease a year later."""
    x, y = load_diabetes(return_X_y=True)
    return split(torch.tensor(x).float(), torch.tensor(y).float(), seed)


class BadFile(Exception):
    """A file that cannot be split and learnt from: place, value and remedy."""


def of_file(path, target=None):
    """A function of the seed that splits a file of numbers, by the name of its target column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
    except OSError as problem:
        raise BadFile(f"{path}: {problem.strerror}. Name a file of comma-separated numbers.") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise BadFile(
            f"{path}: no text of comma-separated values ({problem}). Save it as CSV in UTF-8."
        ) from None
    if len(lines) - 1 < FEWEST:
        raise BadFile(
            f"{path}: {max(len(lines) - 1, 0)} rows under a line of names, and {FEWEST} are the least: give "
            "more."
        )
    names = [name.strip() for name in lines[0][1]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(names) < 2:
        what = f"column {twice[0]!r} is there twice" if twice else f"one column, {names[0]!r}"
        raise BadFile(f"{path}, line 1: {what}. Name each column once, inputs and a target.")
    target = names[-1] if target is None else target
    if target not in names:
        raise BadFile(
            f"{path}, line 1: there is no column {target!r}. Take --target from: {', '.join(names)}."
        )
    table = torch.tensor([_numbers(path, number, names, row) for number, row in lines[1:]]).double()
    at = names.index(target)
    if bool((table[:, at] == table[0, at]).all()):
        raise BadFile(f"{path}, column {target!r}: every value is {table[0, at]:g}. Take another --target.")
    x = torch.cat([table[:, :at], table[:, at + 1 :]], 1)
    return lambda seed: split(x.float(), table[:, at].float(), seed)


def _numbers(path, line, names, row):
    """A line's numbers, one for each name."""
    if len(row) != len(names):
        raise BadFile(
            f"{path}, line {line}: {len(row)} values, and {len(names)} columns are named. Give one for each."
        )
    found = []
    for name, text in zip(names, row, strict=True):
        try:
            found.append(float(text))
        except ValueError:
            found.append(math.nan)
        if not abs(found[-1]) < LARGEST:
            raise BadFile(
                f"{path}, line {line}, column {name!r}: {text!r} is no number under {LARGEST:g} in size. "
                "Leave the line out, impute it, or write categories as columns of 0 and 1."
            )
    return found


def standardised(train, test):
    """Both by the training rows; and the standard deviation of a target."""
    (x, y), (x_test, y_test) = train, test
    spread = x.std(0).clamp_min(1e-12)
    unit = y.std()
    first = (x - x.mean(0)) / spread, ((y - y.mean()) / unit).unsqueeze(1)
    second = (x_test - x.mean(0)) / spread, ((y_test - y.mean()) / unit).unsqueeze(1)
    return first, second, float(unit)


# ---- what is compared


def network(inputs, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))


def ours(train, seed, settings, steps):
    """A fit, and its prediction of some rows."""
    x, _ = train
    gated = bp.gate(
        network(x.shape[1], seed),
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(PRICES)),
        likelihood=bp.Gaussian(rows=len(x)),
    )
    batch = min(BATCH, len(x))
    epochs = max(1, round(steps / -(-len(x) // batch)))
    result = bp.fit(gated, train, epochs=epochs, batch_size=batch, seed=seed, progress=False, **settings)
    return result, lambda rows: bp.predict(result, rows, draws=200, seed=seed)


def laplace(train, seed, steps):
    """The dense network at its maximum a posteriori, and Laplace over its last layer."""
    from laplace import Laplace

    x, y = train
    model, batch = network(x.shape[1], seed), min(BATCH, len(x))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        nll = 0.5 * (model(x[rows]) - y[rows]).square().mean()
        prior = 0.5 * sum(p.square().sum() for p in model.parameters()) / len(x)
        optimiser.zero_grad()
        (nll + prior).backward()
        optimiser.step()
        schedule.step()
    model = model.double().eval()  # its covariance is no matrix of single precision
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x.double(), y.double()), batch_size=batch
    )
    found = Laplace(model, "regression", subset_of_weights="last_layer", hessian_structure="full")
    found.fit(loader)
    log_prior = torch.zeros(1, dtype=torch.double, requires_grad=True)
    log_sigma = torch.zeros(1, dtype=torch.double, requires_grad=True)
    tuned = torch.optim.Adam([log_prior, log_sigma], lr=1e-1)
    for _ in range(200):
        tuned.zero_grad()
        loss = -found.log_marginal_likelihood(log_prior.exp(), log_sigma.exp())
        loss.backward()
        tuned.step()

    def predict(rows):
        mean, variance = found(rows.double())
        scale = (variance.reshape(-1, 1) + found.sigma_noise.reshape(1).square()).sqrt()
        return torch.distributions.Normal(mean.reshape(-1, 1).detach(), scale.detach())

    return predict


def judge(predicted, y, unit):
    """Share of targets within the central interval, its mean width in the targets' unit, NLL, RMSE."""
    if isinstance(predicted, bp.Prediction):
        low, high = predicted.interval(LEVEL)
        log_prob, mean = predicted.log_prob(y), predicted.mean
    else:
        tail = torch.tensor((1 - LEVEL) / 2)
        low, high = predicted.icdf(tail), predicted.icdf(1 - tail)
        log_prob, mean = predicted.log_prob(y.double()).squeeze(1), predicted.mean
    inside = (y >= low) & (y <= high)
    return {
        "covered_percent": 100 * float(inside.double().mean()),
        "width": unit * float((high - low).mean()),
        "nll": -float(log_prob.mean()),
        "rmse": unit * float((mean - y).square().mean().sqrt()),
    }


def measure(name, data, splits, lines, steps=None):
    """Every line on every split of one data set."""
    table = []
    for seed in splits:
        train, test, unit = standardised(*data(seed))
        count = steps or max(LEAST_STEPS, EPOCHS * -(-len(train[0]) // BATCH))
        for line in lines:
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if line == "laplace":
                    predict, kept = laplace(train, seed, count), None
                else:
                    result, predict = ours(train, seed, RECIPES[line], count)
                    kept = result.architecture
            found = judge(predict(test[0]), test[1], unit)
            seconds = time.process_time() - began
            table.append(
                {"data": name, "line": line, "split": seed, "rows": len(train[0]), "kept": kept}
                | found
                | {"processor_seconds": seconds}
            )
    return table


FIGURES = ("covered_percent", "width", "nll", "rmse", "processor_seconds")


def summary(table):
    """Means and standard deviations over splits, data set by data set and line by line."""
    found = []
    for name in dict.fromkeys(row["data"] for row in table):
        for line in dict.fromkeys(row["line"] for row in table if row["data"] == name):
            rows = [row for row in table if row["data"] == name and row["line"] == line]
            one = {"data": name, "line": line, "rows": rows[0]["rows"], "splits": len(rows)}
            for key in FIGURES:
                values = [row[key] for row in rows]
                one[key] = statistics.mean(values)
                one[f"{key}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
            found.append(one)
    return found


def is_right(means):
    """Whether the default covers what it says in every data set, at no more nats than Laplace beside it."""
    lines = {(row["data"], row["line"]): row for row in means}
    ours = {name: row for (name, line), row in lines.items() if line == "default"}
    beside = {name: lines[name, "laplace"]["nll"] for name in ours if (name, "laplace") in lines}
    return all(
        86 <= row["covered_percent"] <= 94 and row["nll"] <= beside.get(name, math.inf)
        for name, row in ours.items()
    )


def shown(row):
    """A line of the table, means ± standard deviations over splits."""
    return (
        f"{row['data']:15}  {row['line']:9}  {row['rows']:5d}  {row['covered_percent']:5.1f} ± "
        f"{row['covered_percent_std']:4.1f}  {row['width']:6.3g}  {row['nll']:6.3f} ± {row['nll_std']:5.3f}  "
        f"{row['rmse']:6.3g}  {row['processor_seconds']:7.1f}"
    )


def main(arguments=None):
    """Print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument(
        "--only", nargs="*", default=None, help="of sin_square_100, sin_square_2000, diabetes"
    )
    parser.add_argument("--lines", nargs="*", default=["default", "laplace"], choices=[*RECIPES, "laplace"])
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--target", default=None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/coverage.json")
    arguments = parser.parse_args(arguments)
    sets = {
        "sin_square_100": lambda seed: sin_square(100, seed),
        "sin_square_2000": lambda seed: sin_square(2_000, seed),
        "diabetes": diabetes,
    }
    if arguments.data is not None:
        try:
            sets = {arguments.data.stem: of_file(arguments.data, arguments.target)}
        except BadFile as problem:
            print(f"coverage.py: {problem}", file=sys.stderr)
            return 2
    chosen = {n: data for n, data in sets.items() if arguments.only is None or n in arguments.only}
    if not chosen:
        print(f"coverage.py: --only names none of {', '.join(sets)}. Name one.", file=sys.stderr)
        return 2
    table, splits = [], range(arguments.first, arguments.first + arguments.splits)
    print("data             line        rows    covered %   width              NLL    RMSE  seconds")
    for name, data in chosen.items():
        part = measure(name, data, splits, arguments.lines, arguments.steps)
        table += part
        for row in summary(part):
            print(shown(row), flush=True)
    means = summary(table)
    right = is_right(means)
    peers = {"laplace-torch": version("laplace-torch")} if "laplace" in arguments.lines else {}
    found = {"right": right, "peers": peers, "means": means, "table": table}
    write_results(arguments.out, vars(arguments), found)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
