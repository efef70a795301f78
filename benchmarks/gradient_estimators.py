"""Bias, spread and cost of the estimators of the gates' gradient, against exact gains, in nats.

    python benchmarks/gradient_estimators.py [--parts small lenet_300_100 lenet5 speed fits]

``small``: ten gates, where all 1,024 masks are summed over. ``lenet_300_100`` and ``lenet5``: MNIST in the
middle of a fit; chosen units are left out of the network one by one, on the same rows, the other gates drawn
(bayesprune.posterior.evidence). ``speed``: a training step with each, relative to straight-through, in turns.
``fits``: whole fits with some, to one size, judged on rows held out from the training rows.
Gains are those of all training rows, in nats, as prices are. Parts can be run one by one: what the record has
of others stays.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from estimator_audit import NAMES, Reference, by_regime, compare, estimates
from estimator_states import LENETS, held_out_split, lenet_state, small_state
from reporting import write_results
from step_overhead import race

import bayesprune as bp
from bayesprune.posterior.evidence.passes import Setting, left_out_gains
from bayesprune.posterior.evidence.prices import unit_prices
from bayesprune.programs import load_model
from bayesprune.svi.step import Engine

BATCH = 128
PARTS = ("small", "lenet_300_100", "lenet5", "speed", "fits")
SIZES = {  # units a group, rows, draws of the reference, draws of each estimator for each batch
    "lenet_300_100": (40, 5120, 6, 16),
    "lenet5": (20, 1280, 4, 16),
}
FITS = {  # epochs, budget, estimators, seeds
    "lenet_300_100": (20, {"params": 0.055}, ("straight_through", "curved", "second_order", "concrete"), 2),
    "lenet5": (6, {"macs": 0.06, "params": 0.03}, ("straight_through", "curved", "concrete"), 2),
}


def audit(gated, rows, reference, batch_size, draws, seed):
    """Every estimator against one reference, over all units and by regime."""
    found = {}
    for name in NAMES:
        started = time.perf_counter()
        part = estimates(gated, rows, name, batch_size, draws, seed)
        found[name] = {"all": compare(part, reference)}
        found[name] |= {
            regime: compare(part, reference, which) for regime, which in by_regime(reference).items()
        }
        found[name]["seconds"] = round(time.perf_counter() - started, 2)
    return found


def small(seed):
    """Ten gates: the enumerating estimator is the reference, and it has no error."""
    results = {}
    for state in ("all at 0.5", "mixed", "all at 0.99"):
        gated, rows = small_state(state, seed)
        exact = estimates(gated, rows, "enumeration", len(rows[0]), 1, seed)[0, 0]
        theta, units = gated.inclusion_prob().detach(), torch.arange(10)
        reference = Reference(units, exact, torch.zeros(10).double(), unit_prices(gated, theta), theta)
        results[state] = audit(gated, rows, reference, BATCH, 400, seed)
        show(f"ten gates, {state}", results[state])
    return results


def lenet(name, seed):
    """Chosen units of a LeNet in the middle of a fit, left out one by one."""
    per_group, count, draws, replicates = SIZES[name]
    train, _ = held_out_split()
    rows = train.x[:count], train.y[:count]
    results = {}
    for state in LENETS[name]:
        gated = lenet_state(name, state, train, seed)
        gated.eval().requires_grad_(False)
        living, theta = gated.alive.nonzero().squeeze(1), gated.inclusion_prob()
        chosen = choose(gated, per_group, seed)
        probs, generator = theta[living], torch.Generator().manual_seed(seed + 1)
        setting = Setting(gated, probs, draws, False, BATCH, generator)
        started = time.perf_counter()
        gain, error = left_out_gains(setting, rows, chosen, lambda rows: None)
        price = unit_prices(gated, theta)[living][chosen]
        reference = Reference(
            chosen, torch.from_numpy(gain), torch.from_numpy(error), price, probs[chosen].double()
        )
        results[state] = audit(gated, rows, reference, BATCH, replicates, seed)
        results[state]["reference"] = {
            "units": len(chosen), "rows": count, "draws": draws, "kept": gated.kept(),
            "root_mean_square_error_of_reference": float(reference.error.square().mean().sqrt()),
            "undecided_of_living": int(((probs > 0.1) & (probs < 0.9)).sum()), "living": len(probs),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        show(f"{name}, {state}: {results[state]['reference']}", results[state])
    return results


def choose(gated, per_group, seed):
    """(chosen,), places of some living units of every group, at random."""
    generator, chosen, start = torch.Generator().manual_seed(seed), [], 0
    for size in gated.kept().values():
        chosen.append(start + torch.randperm(size, generator=generator)[:per_group].sort().values)
        start += size
    return torch.cat(chosen)


def speed(seed, rounds=20, steps=6):
    """Milliseconds of a step that moves the gates, before anything is removed, and relative ones."""
    results = {}
    for name in LENETS:
        program, generator = load_model(name), torch.Generator().manual_seed(seed)
        x, y = (
            torch.rand(BATCH, 1, 28, 28, generator=generator),
            torch.randint(10, (BATCH,), generator=generator),
        )
        gates = replace(program.recipe.gates or bp.GateSteps(), every=1)
        steppers = {}
        for estimator in NAMES:
            gated = program.model(bp.data.Split(x.repeat(8, 1, 1, 1), y.repeat(8)), 10, None).train()
            engine = Engine(gated, replace(program.recipe, estimator=estimator, gates=gates))
            steppers[estimator] = stepper(engine, (x, y))
        times = race(steppers, rounds, steps)
        base = times["straight_through"]
        results[name] = {
            estimator: {
                "milliseconds": statistics.median(values),
                "relative": statistics.median(v / b for v, b in zip(values, base, strict=True)),
            }
            for estimator, values in times.items()
        }
        print(f"\n{name}: a step relative to straight-through")
        for estimator, figures in results[name].items():
            print(f"  {estimator:18}{figures['relative']:6.2f}{figures['milliseconds']:8.2f} ms")
    return results


def stepper(engine, batch):
    state = replace(engine.init(), moving=True)

    def step():
        nonlocal state
        state, _ = engine.step(state, batch)

    return step


def fits(seed):
    """Whole fits to one size, judged on held-out rows: what is left is which units an estimator keeps."""
    train, held_out = held_out_split()
    results = {}
    for name, (epochs, budget, estimators, seeds) in FITS.items():
        program = load_model(name)
        for number in range(seed, seed + seeds):
            for estimator in estimators:
                torch.manual_seed(number)
                gated = program.model(train, 10, None).with_prior(bp.Budget(**budget))
                recipe = replace(program.recipe, estimator=estimator)
                settings = {"epochs": epochs, "batch_size": BATCH, "seed": number, "progress": False}
                result = bp.fit(gated, (train.x, train.y), recipe=recipe, **settings)
                quality = bp.evaluate(result.gated, (held_out.x, held_out.y))
                figures = {
                    "held_out_error_percent": quality.score, "held_out_nll": quality.nll,
                    "training_nll": result.history[-1].nll, "kept": result.architecture,
                    "parameters_percent": result.history[-1].parameters_percent,
                    "macs_percent": result.history[-1].macs_percent,
                    "rounded": result.rounded, "seconds": round(result.seconds, 1),
                }  # fmt: skip
                results.setdefault(name, {}).setdefault(estimator, []).append(figures)
                print(f"{name}, {budget}, seed {number}, {estimator:18}{figures}", flush=True)
    return results


def show(title, found):
    print(f"\n{title}")
    heads = ("gain", "bias", "±", "spread", "of draws", "smoothed", "seen", "corr.", "misjudged")
    print(f"{'estimator':18}{'units':18}{'n':>4}" + "".join(f"{head:>10}" for head in heads))
    for name in NAMES:
        for regime, f in found[name].items():
            if isinstance(f, dict):
                numbers = [f["gain"], f["bias"], f["bias_error"], f["spread"], f["of_draws"], f["smoothed"]]
                text = "".join(f"{n:10.3g}" for n in numbers)
                text += f"{f['seen']:10.2f}{f['correlation']:10.2f}{100 * f['misjudged']:8.0f} %"
                print(f"{name if regime == 'all' else '':18}{regime:18}{f['units']:4d}{text}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "gradient_estimators.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(arguments.out.read_text())["results"] if arguments.out.exists() else {}
    run = {"small": small, "speed": speed, "fits": fits} | {
        name: lambda seed, name=name: lenet(name, seed) for name in LENETS
    }
    for part in arguments.parts:
        results[part] = run[part](arguments.seed)
        write_results(arguments.out, {**vars(arguments), "sizes": SIZES, "fits": FITS}, results, quiet=True)
    print(f"\nwritten to {arguments.out.name}")


if __name__ == "__main__":
    main()
