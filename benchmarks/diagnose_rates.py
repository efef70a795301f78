"""How often each answer of ``diagnose`` is wrong: successes and failures are planted, both errors counted.

    python benchmarks/diagnose_rates.py [--trials 200] [--fits 10]

A false no is a success that was told no, a false yes a failure that was told yes. Data, weights and seeds are
drawn anew in each trial.
"""

import argparse
from pathlib import Path

import numpy as np
import reporting
import torch
from scipy.special import softmax
from torch import nn

import bayesprune as bp
from bayesprune.posterior.arviz import pareto_k, rank_rhat, values_in_tail
from bayesprune.posterior.diagnose.confidence import against_chance
from bayesprune.posterior.diagnose.faithful import FALSE_ALARM, tail_limit
from bayesprune.posterior.diagnose.intervals import held
from bayesprune.posterior.diagnose.reproducible import RHAT

SLAB, PRICE = 0.5, 5.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--fits", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "diagnose_rates.json")
    arguments = parser.parse_args()
    found = []
    for question, planted, right, trials, answer in cases(arguments.trials, arguments.fits):
        wrong = sum(answer(seed) != right for seed in range(trials))
        found.append({"question": question, "planted": planted, "right": right, "wrong": wrong, "of": trials})
        print(f"{question:<24}{planted:<58}{'yes' if right else 'no':<5}{wrong:>4} of {trials}", flush=True)
    reporting.write_results(arguments.out, vars(arguments), found)


def cases(trials, fits):
    """Question, what is planted, the right answer, how many trials, and a function of the seed."""
    chains = {
        "four equal chains of 1,000": lambda g: g.normal(size=(4, 1000)),
        "four equal chains of 200": lambda g: g.normal(size=(4, 200)),
        "one of four five times as wide": lambda g: g.normal(size=(4, 1000)) * column(1, 1, 1, 5),
        "Cauchy, one of four shifted by 3": lambda g: g.standard_cauchy((4, 1000)) + column(0, 0, 0, 3),
        "shifted by 0, 0.3, 0.6, 0.9 of their width": lambda g: (
            g.normal(size=(4, 1000)) + column(0, 0.3, 0.6, 0.9)
        ),
    }
    for name, draw in chains.items():
        yield (
            "reproducible (R-hat)", name, "equal" in name, trials,
            lambda seed, draw=draw: rank_rhat(draw(np.random.default_rng(seed))) <= RHAT,
        )  # fmt: skip
    for rows in (50, 200, 360):
        for sharpness, name in ((1.0, "calibrated"), (2.0, "logits doubled"), (0.4, "logits times 0.4")):
            yield (
                "faithful (calibration)", f"ten classes, {rows} rows, {name}", sharpness == 1.0, trials,
                lambda seed, rows=rows, sharpness=sharpness: calibrated(seed, rows, sharpness),
            )  # fmt: skip
    for rows in (30, 200):
        for width, name in ((1.0, "right"), (0.5, "half as wide"), (2.0, "twice as wide")):
            yield (
                "faithful (intervals)", f"{rows} numbers, intervals {name}", width == 1.0, trials,
                lambda seed, rows=rows, width=width: intervals_hold(seed, rows, width),
            )  # fmt: skip
    for draws in (200, 1000):
        for shape in (0.2, 1.0):
            yield (
                "faithful (k-hat)", f"{draws} weights with a tail of shape {shape}", shape < 0.5, trials,
                lambda seed, draws=draws, shape=shape: trusted(seed, draws, shape),
            )  # fmt: skip
    for kept, name in (((0, 2), "one of two twin inputs kept"), ((0, 1, 2), "both twin inputs kept")):
        for question in ("faithful", "calibrated"):
            yield (
                f"{question} (twins)", name, len(kept) == 2, fits,
                lambda seed, kept=kept, question=question: twins(seed, kept, question),
            )  # fmt: skip
    for rate, right in ((None, True), (1e-4, False), (1e-5, False)):
        name = "a regression fitted at " + ("the default rate" if rate is None else f"a rate of {rate:g}")
        yield "optimised", name, right, fits, lambda seed, rate=rate: optimised(seed, rate)


def column(*values):
    return np.array(values, dtype=float)[:, None]


def optimised(seed, rate):
    """A regression with noise 1; the verdict, with its training rows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator)
    y = 3 * x[:, :1] - 2 * x[:, 1:2] + 2 * (2 * x[:, 2:3]).tanh() + torch.randn(200, 1, generator=generator)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICE))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=200))
    recipe = bp.Recipe(learning_rate=rate, moves=None)  # which put weights at their mode
    result = bp.fit(gated, (x, y), epochs=60, batch_size=20, recipe=recipe, seed=seed, progress=False)
    return bp.diagnose(result, rows=(x, y), draws=20).optimised.verdict == "yes"


def intervals_hold(seed, rows, width):
    """Targets that share an offset and have noise of their own, and 400 draws of both, of some width."""
    generator = np.random.default_rng(seed)
    sets = 0.5 * generator.normal(size=(401, 1)) + generator.normal(size=(401, rows))
    return held(width * sets[1:], sets[0]).holds(FALSE_ALARM)


def calibrated(seed, rows, sharpness):
    """Whether the calibration error is within chance; labels are drawn from the plain probabilities."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(rows, 10))
    labels = (softmax(logits, -1).cumsum(-1) < generator.random((rows, 1))).sum(-1)
    return against_chance(softmax(sharpness * logits, -1), labels).holds


def trusted(seed, draws, shape):
    """Whether importance weights are below the limit: an exponential's tail, stretched, is a Pareto's."""
    weights = shape * np.random.default_rng(seed).exponential(size=draws)
    return pareto_k(weights) <= tail_limit(draws, values_in_tail(weights))


def twins(seed, kept, question):
    """A linear regression of which some inputs are kept, at the mode of their weights; 200 rows, noise 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator).double()
    x[:, 1] = 0.998 * x[:, 0] + (1 - 0.998**2) ** 0.5 * x[:, 1]
    y = x[:, :1] + 0.7 * x[:, 2:3] + torch.randn(200, 1, generator=generator)
    mask = torch.zeros(6, dtype=torch.bool)
    mask[list(kept)] = True
    likelihood = bp.Gaussian(rows=200, scale=1.0, learn_scale=False).double()
    gated = bp.gate(
        nn.Sequential(nn.Linear(6, 1, bias=False)).double(), x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(PRICE)), likelihood=likelihood,
        weights=bp.priors.NormalWeights(SLAB),
    )  # fmt: skip
    part = x[:, mask]
    ridge = torch.linalg.solve(part.T @ part + torch.eye(len(kept)) / SLAB**2, part.T @ y)
    gated.weight_tensors()["0.weight"].data[0, mask] = ridge[:, 0]
    gated.log_odds.data = torch.where(mask, 12.0, -12.0).double()
    gated.remove_(~mask)
    return getattr(bp.diagnose(gated, rows=(x, y), draws=20), question).verdict == "yes"


if __name__ == "__main__":
    main()
