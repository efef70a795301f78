"""Are certificates as rarely wrong as they say, and how tight is each way to test?

    python benchmarks/certificate_validity.py [--calibrations 10000] [--splits 1000] [--parts
    simulated,bounds,mnist,several,starts,exchangeable,monitor]

Four parts lie in monitor_validity.py. The others: (1) Simulation: candidates whose risks are known exactly,
at the edge of the hypothesis and beyond; for every loss, p-value and rule the share of calibrations in which
any candidate is certified whose risk is alpha or more. It has to be delta at most, within its binomial error:
a count that would come up with a probability below 1e-4 at delta is called a violation. (2) Upper confidence
bounds: how much tighter than Hoeffding–Bentkus each p-value is. (3) MNIST: LeNet-300-100, trained on 50,000
rows, pruned by magnitude; 10,000 held-out and 10,000 test rows make a population. Calibration rows are drawn
from it with replacement, so that the true risks are known; and, as one would, the population is split into
calibration and test rows, where the risk on the test rows has an error of its own, so that the share above
alpha may be somewhat more than delta.
"""

import argparse
import itertools
from pathlib import Path

import monitor_validity
import numpy as np
import torch
from mnist_network import held_out_splits, trained
from reporting import write_results
from scipy import stats
from tqdm import tqdm

from bayesprune.certify.losses import Disagreement, Error, ExcessError, NewErrors, Scores, Selective
from bayesprune.certify.paths import Weights
from bayesprune.certify.pvalues import Betting, Binomial, HoeffdingBentkus, upper_bound
from bayesprune.certify.rules import Bonferroni, FixedSequence, SplitFixedSequence
from bayesprune.certify.scoring import outputs_of

DELTA, ROWS, FALSE_ALARM = 0.1, 400, 1e-4
GOOD = np.array([0.985, 0.004, 0.004, 0.005, 0.002])  # right, broken, repaired, both wrong, wrong in two ways
BAD = np.array([0.800, 0.100, 0.010, 0.060, 0.030])
CHUNK = 250  # calibrations at a time
EDGE = 0.3  # how much of BAD a candidate has whose risk is alpha
PATHS = {"rising": [0.0, 0.15, EDGE, EDGE, 0.45, 1.0], "bumpy": [0.0, EDGE, 0.05, 0.4, 0.1, EDGE]}
SURE = 0.6  # probability that the candidate is confident, whatever the case
RISKS = {
    "error": lambda p: p[1] + p[3] + p[4],
    "excess": lambda p: p[1] - p[2],
    "new-errors": lambda p: p[1],
    "disagreement": lambda p: p[1] + p[2] + p[4],
    "selective": lambda p: p[1] + p[3] + p[4],
}
LOSSES = [Error(), ExcessError(), NewErrors(), Disagreement(), Selective(0.9)]
RULES = [FixedSequence(), SplitFixedSequence(), Bonferroni()]
MNIST_ROWS = 5000
MNIST_ALPHAS = {"error": 0.03, "excess": 0.01, "new-errors": 0.01, "disagreement": 0.02, "selective": 0.01}


def p_values_for(loss, delta):
    exact = [Binomial()] if loss.zero_one else []
    return [HoeffdingBentkus(), *exact, Betting(delta)]


def chances(share):
    return (1 - share) * GOOD + share * BAD


def scored_cases(loss):
    """The loss itself, asked about each of the five cases, sure and unsure."""
    case, sure = torch.arange(10) % 5, torch.arange(10) >= 5
    height = torch.where(sure, 8.0, 1.0).unsqueeze(1)
    outputs = torch.eye(3)[torch.tensor([0, 1, 0, 1, 1])[case]] * height
    reference = torch.eye(3)[torch.tensor([0, 0, 1, 1, 2])[case]] * 8.0
    return loss.scores(outputs, reference, torch.zeros(10, dtype=torch.int64))


def drawn_rows(path, nested, count, generator):
    """(count, candidates, rows), numbers of cases. Nested: one uniform a row decides for all candidates."""
    ends = np.array([np.cumsum(chances(share)) for share in path])[:, None, :4]
    uniform = generator.random((count, 1 if nested else len(path), ROWS))
    cases = (uniform[..., None] >= ends).sum(-1)
    return cases + 5 * (generator.random((count, 1, ROWS)) < SURE)


def simulated(calibrations):
    """One row of figures for each path, dependence, loss, p-value and rule."""
    table = []
    bar = tqdm(total=4 * len(LOSSES) * calibrations, desc="simulated", unit="calibration", mininterval=5)
    for (path_name, path), nested, loss in itertools.product(PATHS.items(), (True, False), LOSSES):
        generator, asked = np.random.default_rng(17), scored_cases(loss)
        alpha = RISKS[loss.name](chances(EDGE))
        null = np.array(path) >= EDGE
        tests = p_values_for(loss, DELTA)
        false = {(p.name, rule.name): 0 for p in tests for rule in RULES}
        power = dict.fromkeys(false, 0.0)
        for start in range(0, calibrations, CHUNK):
            cases = drawn_rows(path, nested, min(CHUNK, calibrations - start), generator)
            scores = Scores(asked.values[cases], asked.counted[cases])
            for p in tests:
                seen = {}
                for number, rule in itertools.product(range(len(cases)), RULES):
                    decision = rule.decide(
                        lambda rows: remembered(seen, scores, loss, alpha, p, rows)[number],  # noqa: B023
                        len(path), ROWS, DELTA,
                    )  # fmt: skip
                    false[p.name, rule.name] += bool((decision.certified & null).any())
                    power[p.name, rule.name] += float(decision.certified[~null].mean())
            bar.update(len(cases))
        for (p, rule), count in false.items():
            tail = float(stats.binom.sf(count - 1, calibrations, DELTA))
            table.append({
                "path": path_name, "dependence": "nested" if nested else "independent", "loss": loss.name,
                "p_value": p, "rule": rule, "false": count / calibrations, "tail_probability": tail,
                "valid": tail > FALSE_ALARM, "true_certified": power[p, rule] / calibrations,
            })  # fmt: skip
    bar.close()
    return table


def remembered(seen, scores, loss, alpha, p_value, rows):
    """(calibrations, candidates), p-values on some rows, computed once for all rules that ask for them."""
    key = (len(rows), int(rows[0]), int(rows[-1]))
    if key not in seen:
        values, counted = scores.values[..., rows], scores.counted[..., rows]
        if counted.all():
            seen[key] = p_value(values, loss.level(alpha))
        else:  # another number of rows in each calibration
            flat = zip(values.reshape(-1, len(rows)), counted.reshape(-1, len(rows)), strict=True)
            found = [loss.p_value(Scores(v, c), alpha, p_value) for v, c in flat]
            seen[key] = np.array(found).reshape(values.shape[:-1])
    return seen[key]


def bounds(repeats=40):
    """Mean 95 % upper bounds of a risk, for losses of different kinds."""
    kinds = {
        "0/1, risk 1 %": (lambda g, n: (g.random(n) < 0.01).astype(float), 0.01),
        "0/1, risk 5 %": (lambda g, n: (g.random(n) < 0.05).astype(float), 0.05),
        "graded (Beta(2, 38)), risk 5 %": (lambda g, n: g.beta(2, 38, n), 0.05),
        "excess: 1 % new, 0.5 % repaired": (
            lambda g, n: g.choice([0.0, 0.5, 1.0], n, p=[0.005, 0.985, 0.01]),
            0.5025,
        ),
    }
    table = []
    for (kind, (draw, risk)), rows in itertools.product(kinds.items(), (500, 5000)):
        generator = np.random.default_rng(23)
        data = [draw(generator, rows) for _ in range(repeats)]
        tests = [HoeffdingBentkus(), Betting(0.05)] + ([Binomial()] if kind.startswith("0/1") else [])
        mean = {
            p.name: float(np.mean([upper_bound(p, losses, 0.05) for losses in data])) - risk for p in tests
        }
        scale = 2 if kind.startswith("excess") else 1  # back to the units of the difference
        for name, gap in mean.items():
            table.append({
                "losses": kind, "rows": rows, "p_value": name, "gap": scale * gap,
                "of_hoeffding_bentkus": gap / mean["hoeffding-bentkus"],
            })  # fmt: skip
    return table


def mnist(splits, epochs, data_dir):
    """Resampled calibrations of a trained network."""
    train, rest, test = held_out_splits(data_dir)
    torch.manual_seed(0)
    network = trained(train, epochs)
    x, y = torch.cat([rest.x, test.x]), torch.cat([rest.y, test.y])
    candidates = Weights().candidates(network, x[:2])
    reference = outputs_of(network, x, 1000, "reference")
    outputs = [
        outputs_of(c.build(), x, 1000, c.name) for c in tqdm(candidates, desc="networks", unit="network")
    ]
    table = []
    for loss in LOSSES:
        scores = [loss.scores(o, reference, y) for o in outputs]
        true = np.array([loss.risk(s) for s in scores])
        alpha = MNIST_ALPHAS[loss.name]
        for p in p_values_for(loss, DELTA):
            table.append({
                "loss": loss.name, "alpha": alpha, "p_value": p.name,
                **resampled(scores, true, loss, alpha, p, splits),
            })  # fmt: skip
            print(table[-1], flush=True)
    return {"dense_error": float(LOSSES[0].scores(reference, reference, y).values.mean()), "table": table}


def resampled(scores, true, loss, alpha, p_value, splits):
    generator, size = np.random.default_rng(29), len(scores[0].values)
    shares = Weights().shares
    found = {"known": [], "test": [], "share": []}
    for _ in range(splits):
        best = last_certified(scores, generator.integers(0, size, MNIST_ROWS), loss, alpha, p_value)
        found["known"].append(best >= 0 and bool((true[: best + 1] > alpha).any()))
        order = generator.permutation(size)
        best = last_certified(scores, order[:MNIST_ROWS], loss, alpha, p_value)
        rest = order[MNIST_ROWS:]
        found["test"].append(best >= 0 and loss.risk(scores[best].on(rest)) > alpha)
        found["share"].append(shares[best] if best >= 0 else None)
    count, reached = int(np.sum(found["known"])), [share for share in found["share"] if share is not None]
    fine = int(np.argmax(true > alpha)) if bool((true > alpha).any()) else len(true)
    return {
        "false_by_known_risk": count / splits,
        "valid": bool(stats.binom.sf(count - 1, splits, DELTA) > FALSE_ALARM),
        "test_risk_above_alpha": float(np.mean(found["test"])),
        "certified_share": float(np.mean(reached)) if reached else None,
        "none": 1 - len(reached) / splits,
        "share_if_risks_were_known": float(shares[fine - 1]) if fine else None,
    }


def last_certified(scores, rows, loss, alpha, p_value):
    """Position of the last candidate that the fixed sequence certifies; −1 for none."""
    for position, candidate in enumerate(scores):
        if loss.p_value(candidate.on(rows), alpha, p_value) > DELTA:
            return position - 1
    return len(scores) - 1


def show(results):
    if "simulated" in results:
        print(
            f"\nShare of calibrations with a false certificate, delta = {DELTA:.0%}; the largest over paths"
        )
        worst = {}
        for row in results["simulated"]:
            key = (row["loss"], row["p_value"], row["rule"])
            worst[key] = max(worst.get(key, row), row, key=lambda r: r["false"])
        for (loss, p, rule), row in worst.items():
            verdict = "valid" if row["valid"] else "VIOLATED"
            print(f"  {loss:<14}{p:<20}{rule:<22}{row['false']:>7.4f}  {verdict}")
    for row in results.get("bounds", []):
        gap, share = f"+{100 * row['gap']:.3f} points", f"{row['of_hoeffding_bentkus']:.2f}"
        print(
            f"  {row['losses']:<34}{row['rows']:>6}  {row['p_value']:<20}{gap}, {share} of Hoeffding–Bentkus"
        )
    for row in results.get("mnist", {}).get("table", []):
        print(row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calibrations", type=int, default=10_000)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--parts", default="bounds,mnist,simulated")
    parser.add_argument("--data-dir", type=Path, default=None)
    out = Path(__file__).parent / "results" / "certificate_validity.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    run = {
        "bounds": bounds,
        "mnist": lambda: mnist(arguments.splits, arguments.epochs, arguments.data_dir),
        "simulated": lambda: simulated(arguments.calibrations),
        **{
            name: lambda part=part: part(arguments.calibrations)
            for name, part in monitor_validity.PARTS.items()
        },
    }
    for part in arguments.parts.split(","):
        results = {part: run[part]()}
        if part in monitor_validity.PARTS:
            monitor_validity.show(part, results[part])
        else:
            results = {"delta": DELTA, "rows": MNIST_ROWS if part == "mnist" else ROWS, **results}
            show(results)
        write_results(arguments.out.with_stem(f"{arguments.out.stem}_{part}"), vars(arguments), results)


if __name__ == "__main__":
    main()
