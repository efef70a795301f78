"""Statistical mechanics of pruning: which rule prunes a student best, in theory and in simulation.

    python benchmarks/teacher_student.py [--seeds 10] [--scenarios erf relu …] [--draws 50] [--inputs 500]

Students learn on line from a teacher, in simulation and by the equations of their order parameters from the
same start; both are pruned by every rule at equal parameter count, with the second layer as it was ("plain")
and re-weighted by least squares ("fused"). Three claims are tested by paired differences over the seeds, at
every size; each verdict is a 95 % interval of its own, none is corrected for their number:

    DPP nodes − random nodes, DPP nodes − importance nodes, random edges − DPP nodes.

Scenario `erf` has the settings of the public code of Acharyya et al. (UAI 2021): d = 500, M = 2, K = 6,
v* = 4, η = 0.5, 800,000 examples, both layers trained. A map over perfect redundant students says where
random edges beat DPP nodes. The time of the closed form at K = M = 512 is measured. `--replot` draws the
record again, but for the learning curves, and prints it as tables.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import reporting
import teacher_student_plots as plots
import teacher_student_tables as tables
from scipy.stats import t as student_t
from teacher_student_rules import FUSED, RULES, predicted, simulated
from tqdm import tqdm

from bayesprune import theory as th
from bayesprune.files import read_json

WAYS = {False: "plain", True: "fused"}
SAID = {False: "as pruned", True: "re-weighted"}
CLAIMS = [
    (f"{kernel} < {other}", kernel, other)
    for kernel in ("dpp_gram", "dpp_fields", "dpp_gaussian")
    for other in ("random_node", "importance_node", "signed_importance_node")
] + [
    (f"random_edge < {kernel}", "random_edge", kernel)
    for kernel in ("dpp_gram", "dpp_fields", "dpp_gaussian")
]


@dataclass(frozen=True)
class Scenario:
    activation: str
    units: int = 6
    teacher_units: int = 2
    teacher_readout: float = 4.0
    learning_rate: float = 0.5
    train_readout: bool = True
    noise: float = 0.0
    time: float = 1600.0  # examples over inputs
    weight_scale: float = 1.0
    readout_scale: float = 1.0
    inputs: int = 500


SCENARIOS = {
    "erf": Scenario("erf"),
    "erf_noise": Scenario("erf", noise=0.25),
    "erf_matched": Scenario("erf", 4, 4, 1.0, train_readout=False),
    "relu": Scenario("relu", 6, 2, 1.0, 0.1, time=400.0, weight_scale=0.3, readout_scale=0.3),
    "relu_wide": Scenario("relu", 12, 6, 1.0, 0.1, time=400.0, weight_scale=0.3, readout_scale=0.3),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=50, help="masks a seed and random rule")
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--shorten", type=float, default=1.0, help="divides the training time, for a trial")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "teacher_student.json"
    )
    parser.add_argument("--replot", action="store_true", help="draw the record in --out, compute nothing")
    arguments = parser.parse_args()
    picture = arguments.out.with_suffix("")
    if arguments.replot:
        found = read_json(arguments.out)["results"]
        plots.pruning(found["scenarios"], f"{picture}_pruning.png")
        plots.regimes(found["regimes"], f"{picture}_regimes.png")
        for name, scenario in found["scenarios"].items():
            print(f"{name}\n\n{tables.errors(scenario)}\n")
        print(tables.verdicts(found["scenarios"]))
        return

    results, courses, equations = {}, {}, {}
    for name in arguments.scenarios:
        settings = Scenario(**{
            **asdict(SCENARIOS[name]),
            "inputs": arguments.inputs,
            "time": SCENARIOS[name].time / arguments.shorten,
        })  # fmt: skip
        results[name], courses[name], equations[name] = run(name, settings, arguments)
        print_claims(name, results[name])
    found = {"scenarios": results, "regimes": regimes(), "closed_form_512_seconds": closed_form_seconds()}
    print(f"closed form at K = M = 512: {found['closed_form_512_seconds']:.4f} s")
    reporting.write_results(arguments.out, vars(arguments), found)
    plots.learning(courses, equations, f"{picture}_learning.png")
    plots.pruning(results, f"{picture}_pruning.png")
    plots.regimes(found["regimes"], f"{picture}_regimes.png")


def run(name, s, arguments):
    """One scenario: train, solve, prune, compare."""
    teachers, students = [], []
    for seed in range(arguments.seeds):
        rng = np.random.default_rng([seed, 1])
        teachers.append(th.draw_committee(s.teacher_units, s.inputs, rng, s.teacher_readout, s.activation))
        readout = s.readout_scale * rng.standard_normal(s.units) if s.train_readout else np.ones(s.units)
        students.append(th.draw_committee(s.units, s.inputs, rng, readout, s.activation, s.weight_scale))
    times = [0.0, *np.geomspace(s.time / 1000, s.time, 25)]
    training = th.Training(s.learning_rate, None if s.train_readout else 0.0, s.noise)
    start = time.perf_counter()
    trained, courses = th.simulate(students, teachers, times, training, seed=1, progress=sys.stderr.isatty())
    halfway = time.perf_counter()
    equations = [th.solve(course.orders[0], times, training) for course in courses]
    seconds = {"simulate": round(halfway - start, 1), "solve": round(time.perf_counter() - halfway, 1)}

    entries, checks = [], []
    quiet = not sys.stderr.isatty()
    for kept in tqdm(range(1, s.units), desc=f"{name}: prune", unit="size", disable=quiet, file=sys.stderr):
        theory = [predicted(solved.last, kept, s.inputs) for solved in equations]
        simulation = []
        for seed, (student, teacher) in enumerate(zip(trained, teachers, strict=True)):
            rng = np.random.default_rng([seed, 2, kept])
            errors, wide = simulated(student, teacher, kept, arguments.draws, rng)
            simulation.append(errors)
            checks += wide
        entries.append({"kept": kept, **compare(theory, simulation)})
    return (
        {
            "settings": asdict(s),
            "seconds": seconds,
            "unpruned_error": {
                "theory": interval([solved.errors[-1] for solved in equations]),
                "simulation": interval([course.errors[-1] for course in courses]),
            },
            "learning": {
                "times": [round(float(moment), 3) for moment in times],
                "theory": np.mean([solved.errors for solved in equations], 0).round(6).tolist(),
                "simulation": np.mean([course.errors for course in courses], 0).round(6).tolist(),
            },
            "monte_carlo": {
                "networks": len(checks),
                "largest_standard_errors": round(float(np.abs(checks).max()), 2),
            },
            "pruned": entries,
        },
        courses,
        equations,
    )


def compare(theory, simulation):
    """Mean errors of each rule, and paired differences of each claim, over the seeds."""
    sources = {"theory": theory, "simulation": simulation}
    errors = {
        rule: {
            WAYS[fused]: {
                source: interval([seed[rule, fused] for seed in found]) for source, found in sources.items()
            }
            for fused in FUSED
        }
        for rule in RULES
    }
    claims = {
        claim: {
            WAYS[fused]: {
                source: verdict([seed[better, fused] - seed[worse, fused] for seed in found])
                for source, found in sources.items()
            }
            for fused in FUSED
        }
        for claim, better, worse in CLAIMS
    }
    return {"errors": errors, "claims": claims}


def interval(values):
    """Mean and half the width of its 95 % t-interval."""
    half = student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": round(float(np.mean(values)), 6), "half_width": round(float(half), 6)}


def verdict(differences):
    """A paired difference: it "holds" where its 95 % interval is below 0, "reversed" where above."""
    found = interval(differences)
    decided = abs(found["mean"]) > max(found["half_width"], 1e-6)
    found["verdict"] = ("holds" if found["mean"] < 0 else "reversed") if decided else "undecided"
    return found


def print_claims(name, found):
    """A table: the verdict of each claim at each size."""
    s, before = found["settings"], found["unpruned_error"]["simulation"]
    print(f"\n{name}: {s['activation']}, K = {s['units']}, M = {s['teacher_units']}, d = {s['inputs']}; "
          f"ε before pruning {before['mean']:.4f} ± {before['half_width']:.4f}")  # fmt: skip
    print(f"{'units kept, k':<58}" + "".join(f"{entry['kept']:>9}" for entry in found["pruned"]))
    short = {"holds": "holds", "reversed": "REVERSED", "undecided": "–"}
    for claim, _, _ in CLAIMS:
        for way in WAYS.values():
            for source in ("theory", "simulation"):
                words = [short[entry["claims"][claim][way][source]["verdict"]] for entry in found["pruned"]]
                print(f"{claim + ', ' + way + ', ' + source:<58}" + "".join(f"{word:>9}" for word in words))


def regimes(teacher_units=4, most_copies=6):
    """log₂ (random edge / DPP node), both in closed form, for perfect students of K = z M units.

    Copies get independent differences of 10⁻⁶, so that a k-DPP is defined for k > M.
    """
    found = {}
    for activation in ("erf", "relu"):
        for correlation in (0.0, 0.5):
            teacher = (1 - correlation) * np.eye(teacher_units) + correlation
            for fused in FUSED:
                rows = [ratios(th.redundant(teacher, np.ones(teacher_units), z, activation), fused)
                        for z in range(1, most_copies + 1)]  # fmt: skip
                title = f"{activation}, T off-diagonal {correlation:g}, {SAID[fused]}"
                found[title] = {"teacher_units": teacher_units, "log2_edge_over_dpp": rows}
    return found


def ratios(order, fused, cells=24):
    """Over the share kept; a share between two numbers of units takes the nearest."""
    order = order.with_student(order.Q + 1e-6 * np.eye(order.units), order.R)
    row = []
    for cell in range(cells):
        kept = min(max(1, round((cell + 0.5) / cells * order.units)), order.units - 1)
        edge = th.generalisation_error(th.thinned(order, kept / order.units, fused))
        if fused:
            node = th.expected_fused_error(order, kept)
        else:
            node = th.expected_error(order, th.dpp_inclusion(th.node_kernel(order), kept))
        row.append(round(float(np.clip(np.log2(max(edge, 1e-9) / max(node, 1e-9)), -20, 20)), 3))
    return row


def closed_form_seconds():
    """The slowest of five."""
    rng = np.random.default_rng(0)
    pair = [th.draw_committee(512, 1000, rng) for _ in range(2)]
    order = th.order_parameters(*pair)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        th.generalisation_error(order)
        seconds.append(time.perf_counter() - start)
    return round(max(seconds), 4)


if __name__ == "__main__":
    main()
