"""Mutants of the code, and which of them the tests let live.

    python benchmarks/mutation.py --only engine certificates      # an hour of one core
    python benchmarks/mutation.py --only engine --files shrink     # one file again; the others' figures stay
    python benchmarks/mutation.py --only training --ending 38      # a fifth: numbers that end in 3 or 8

A mutant is the code with one small change: an operator, a number, an argument, a condition, a text. It dies
where a test of its room fails, or runs on without end. What lives is a line that no test holds to anything,
or a change that makes no difference. The mutants are mutmut's, which leaves out whatever is decorated;
properties are therefore written as `name = property(name)` before it sees them.

All of it works in a temporary folder, on a copy, with a virtual environment of its own that borrows this
one's packages. mutmut forks a process that has run the tests, and where these have computed on several
threads its children wait for threads that were not forked: tests of numbers of threads are in no room.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reporting import write_results

MUTMUT = "3.8.1"
HOME = Path(__file__).parent.parent
RESULTS = HOME / "benchmarks" / "results" / "mutation.json"
COPIED = ("bayesprune", "tests", "models", "inference", "benchmarks", "docs", "README.md", "pyproject.toml")
DEAD = ("killed", "timeout", "segfault")
FORKED = ("bayesprune/svi/threads.py",)
"""Whose tests compute on several threads, for which forked children wait for ever: in no room."""
ENGINE = ("mirror", "objective", "schedule", "shrink", "step")
OBJECTIVE = "tests/svi/test_objective.py"
FUSED = f"{OBJECTIVE}::test_fused_elbo_and_gradients_are_pyros"


@dataclass(frozen=True)
class Room:
    """Files that are mutated, and the tests that ought to mind.

    Attributes:
        files: patterns, from the root of the repository.
        tests: as few and as fast as kill well.
        slow: beginnings of the names of tests in these files that are left out.
        without: patterns of files that are left out.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


ROOMS = {
    "engine": Room(
        files=tuple(f"bayesprune/svi/{name}.py" for name in ENGINE),
        tests=(
            *(f"tests/svi/test_{name}.py" for name in ("mirror", "schedule", "clock", "shrink", "step")),
            "tests/svi/test_objective.py",
        ),
        slow=(
            *(
                f"{FUSED}[{prior}"
                for prior in ("beta", "per group", "layer", "flattening, by", "learned-after")
            ),
            *(f"{OBJECTIVE}::test_{name}" for name in ("fallback_is_unbiased", "noise_of_gaussian")),
            f"{OBJECTIVE}::test_prior_without_a_registered_kl_is_scored_unbiasedly",
            "tests/svi/test_clock.py::test_it_is_where_a_fit",
        ),
    ),
    "certificates": Room(
        files=("bayesprune/certify/pvalues/*.py", "bayesprune/certify/rules/*.py"),
        tests=("tests/certify/test_p_values.py", "tests/certify/test_rules.py"),
    ),
    "training": Room(
        files=("bayesprune/svi/*.py", "bayesprune/svi/estimators/*.py"),
        tests=(
            *(f"tests/svi/test_{name}.py" for name in ("clock", "dual", "bits", "own_unit")),
            *(f"tests/svi/test_{name}.py" for name in ("estimators", "curved", "fit", "budget", "within")),
            *(
                f"tests/svi/test_{name}.py"
                for name in ("resume", "checkpoint", "renormalise", "equal", "walk")
            ),
            *(f"tests/svi/test_{name}.py" for name in ("noise", "learnt_likelihood")),
            "tests/svi/test_outputs_of_another_kind.py",
        ),
        slow=(
            "tests/svi/test_noise.py::test_expected_loss_is_that_of_trace_elbo[enumeration",
            "tests/svi/test_clock.py::test_a_fit_of_a_few_steps_says_so",  # not at mutmut's wrapper
        ),
        without=(*(f"bayesprune/svi/{name}.py" for name in ENGINE), *FORKED),
    ),
    "gates": Room(
        files=("bayesprune/gated/*.py",),
        tests=("tests/gated",),
        slow=(
            *(
                f"tests/gated/test_pyro.py::test_{name}"
                for name in ("predictive", "plain_torch", "svi_of_pyro", "sampled_elbo_is_unbiased")
            ),
            "tests/gated/test_altered.py::test_gated_fitted_and_pruned_it_is_what_it_is_under_its_gates",
            "tests/gated/test_layer_gates.py::test_a_budget_is_met_with_sections_and_units_together",
            "tests/gated/test_layer_gates.py::test_an_interrupted_fit_with_dead_sections_goes_on_to_the_same_end",
            "tests/gated/test_any_network.py::test_an_interrupted_fit_goes_on_to_the_same_end",
            "tests/gated/test_priors.py::test_default_guide_learns_a_hyper_posterior",
        ),
    ),
    "priors": Room(
        files=("bayesprune/priors/*.py",),
        tests=("tests/priors", "tests/svi/test_equal.py"),
        slow=(
            "tests/priors/test_latency.py::test_the_warning_points_at_who_asked",  # not at mutmut's wrapper
            "tests/priors/test_gates.py::test_draws_without_gradient_get_the_score_function_estimator",
        ),
    ),
    "certify": Room(
        files=("bayesprune/certify/*.py", "bayesprune/certify/losses/*.py", "bayesprune/certify/paths/*.py"),
        tests=tuple(
            f"tests/certify/test_{name}.py"
            for name in ("certify", "losses", "paths", "rows", "size", "training_rows", "binding", "verify")
        ),
        slow=(
            "tests/certify/test_verify.py::test_a_network_of_any_form_is_saved_and_verified",
            "tests/certify/test_verify.py::test_structured_paths_are_recomputed_too",
            "tests/certify/test_certify.py::test_the_promise_holds_over_resampled_calibrations",
            "tests/certify/test_certify.py::test_structured_paths_ship_smaller_networks",
            "tests/certify/test_certify.py::test_units_of_a_fit_are_certified",
            "tests/certify/test_size.py::test_both_are_told_where_both_happened",
        ),
    ),
}

EQUIVALENT = {
    "while high - low >= ACCURACY:": "the difference is a power of two, which no millionth is",
    "low = high // 3": "a lower start of the same bisection, and the same answer",
    "return Decision(p_values, self.certified(p_values, None, delta), order, np.arange(rows))": (
        "Bonferroni does not read the order"
    ),
    'order = np.argsort(tests(first), kind="STABLE").astype(np.int64)': "NumPy reads it as 'stable'",
    "best = torch.where(alive, probs[part], -2.0).topk(floors[name]).indices": "below every probability too",
    "shares = [torch.cat([probs[parts[s.group]], probs.new_ones(2)])[s.unit_ids] for s in owners]": (
        "the last of two ones is a one, and no id but -1 reads it"
    ),
    "- bound=tuned.bound,\n- )\n+ )": "it is the default of GateSteps",
    **{
        f"for parameter, slope in zip(self._hyper, slopes[1:], {strict}):": (
            "autograd.grad answers with a slope for every tensor that it is asked for"
        )
        for strict in ("", "strict=None", "strict=False")
    },
    **{
        f"return typical.repeat_interleave(self._sizes, {size})": (
            "the sizes add up to that length: a length not given is asked of the device"
        )
        for size in ("", "output_size=None")
    },
    "nll = gated.likelihood.nll(outputs, y).mean(+1)  # (2^K,)": "of two dimensions the last is the first",
    "share = torch.where(configurations > 0, living, 1 - living).prod(+1)": "the same",
    **{
        line.format(strict=strict): "both sides have as many"
        for strict in ("", "strict=None", "strict=False")
        for line in (
            "return dict(zip(self.names, self.log_multipliers.exp().tolist(), {strict}))",
            "return dict(zip(self._sizes, flat.split(list(self._sizes.values())), {strict}))",
            'asked = [f"{{k}}={{b:g}}" for k, b in zip(KINDS, shares, {strict}) if b == b]',
            "for kind, asked, share in zip(KINDS, budget.tolist(), possible, {strict})",
            "times = [(width, sum(of.values())) for width, of in zip(widths, seen, {strict})]",
            'times = [(width, of[""]) for width, of in zip(widths, seen, {strict})]',
            "widths, milliseconds = (np.array(column, dtype=float) for column in zip(*times, {strict}))",
            "return prior.bind(network, {{g.name: p for g, p in "
            "zip(network.groups, parts, {strict})}}, rows)",
            "{{name: min(turn[name] for turn in turns) for name in turns[0]}} "
            "for turns in zip(*rounds, {strict})",
        )
    },
    **{
        f"return _kl_gates_gates(q, Gates(**{{name: getattr(base, name)}}, {checks}))": (
            "what was checked when it was built passes again"
        )
        for checks in ("", "validate_args=None", "validate_args=True")
    },
    **{
        f"dense = torch.tensor([network.macs(), network.parameter_count()], {kind})": (
            "whole numbers divide doubles as doubles"
        )
        for kind in ("", "dtype=None")
    },
    **{
        f"widths, milliseconds = (np.array(column, {kind}) for column in zip(*times, strict=True))": (
            "polyfit computes in floating point anyway"
        )
        for kind in ("", "dtype=None")
    },
    **{
        f"squared = price.masked_fill({mask}) ** 2": "only spares the series prices at which it is not taken"
        for mask in ("price > 0.5, 0.0", "price >= 1.5, 0.0", "price >= 0.5, 1.0")
    },
    "for coefficient in (1 / 47900161, -1 / 1209600, 1 / 30240, -1 / 720, 1 / 12):": (
        "less than the last digit of the sum at any price below 1/2"
    ),
    "for coefficient in (1 / 47900160, -1 / 1209601, 1 / 30240, -1 / 720, 1 / 12):": (
        "less than what the series leaves out"
    ),
    "first = (FIRST_NATS_PER_ROW * rows / budget).nan_to_num(None)": "zero is its default",
    'self.register_buffer("factors", torch.cat(factors), persistent=None)': "as false as False",
    "with torch.random.fork_rng(devices=None), torch.no_grad(), poutine.block():": (
        "the generators of GPUs, of which a CPU has none"
    ),
    "{name: min(turn[name] for turn in turns) for name in turns[1]} "
    "for turns in zip(*rounds, strict=True)": "every turn has the same names",
    "if width <= group.size:": "a cut that takes nothing",
    'return float(price(group)) if callable(price) else float("NAN")': "the same number",
    "a, b = self.counts(None)": "a Beta's counts are those of any group",
    "hyper = FlatteningDistribution(price.to(torch.get_default_dtype())).to_event(None)"
    "  # type: ignore[no-untyped-call]": "prices have one dimension",
    "outputs = self.gated.network(x, gates, "
    "self._weight_noise if (self.gated.log_scales) or True else None)": (
        "weights without a posterior are points to the noise too: it costs time"
    ),
}
"""Changes that make no difference, each with the reason why none can be seen."""

ASK = """
import json
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
found = {}
for path in sorted(walk_mutatable_files()):
    data = SourceFileMutationData(path=path)
    data.load()
    states = {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}
    found[str(path)] = {
        name: (state, None if state in DEAD else get_diff_for_mutant(name, path=path))
        for name, state in states.items()
    }
print("FOUND" + json.dumps(found))
"""


def properties_undecorated(source: str) -> str:
    """The same code, each ``@property`` as a plain function that a property is made of after it."""
    lines = source.splitlines()
    for node in reversed(list(ast.walk(ast.parse(source)))):
        if not isinstance(node, ast.FunctionDef) or not node.end_lineno:
            continue
        if [ast.unparse(decorator) for decorator in node.decorator_list] == ["property"]:
            at = node.decorator_list[0].lineno - 1
            lines.insert(node.end_lineno, f"{' ' * node.col_offset}{node.name} = property({node.name})")
            lines[at] = ""
    return "\n".join(lines) + "\n"


def prepare(folder: Path) -> Path:
    """Copy what is mutated and tested, and make the environment; where its mutmut lies."""
    for name in COPIED:
        if (HOME / name).is_dir():
            shutil.copytree(HOME / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(HOME / name, folder / name)
    for path in (folder / "bayesprune").rglob("*.py"):
        path.write_text(properties_undecorated(path.read_text()))
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    here = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    (Path(here.strip()) / "borrowed.pth").write_text("\n".join(sorted(places)) + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", f"mutmut=={MUTMUT}"], check=True)
    return venv / "bin" / "mutmut"


def files_of(room: Room, only: list[str]) -> list[str]:
    """The room's files, or those of these names."""
    found = {path for pattern in room.files for path in HOME.glob(pattern)}
    found -= {path for pattern in room.without for path in HOME.glob(pattern)}
    return [str(path.relative_to(HOME)) for path in sorted(found) if not only or path.stem in only]


def mutate(
    folder: Path, mutmut: Path, room: Room, files: list[str], workers: int, ending: str
) -> dict[str, Any]:
    """File → mutant → (how it ended, its diff where it lives)."""
    settings = {
        "source_paths": ["bayesprune"],
        "only_mutate": files,
        "also_copy": [name for name in COPIED if name not in ("bayesprune", "tests", "pyproject.toml")],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist"],
        "pytest_add_cli_args_test_selection": [*room.tests, *(f"--deselect={name}" for name in room.slow)],
    }
    table = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
    limits = "timeout_multiplier = 5.0\ntimeout_constant = 30.0\nuse_git_change_detection = false\n"
    project = (HOME / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{table}\n{limits}")
    shutil.rmtree(folder / "mutants", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    log = folder / "mutmut.log"
    with log.open("w") as out:
        command = [mutmut, "run", "--max-children", str(workers), *(f"*__mutmut_*{n}" for n in ending)]
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
    if ended.returncode:
        sys.exit(f"mutmut ended with {ended.returncode}:\n{log.read_text()[-4000:]}")
    python = mutmut.parent / "python"
    asked = ASK.replace("DEAD", repr(DEAD))
    answer = subprocess.check_output([python, "-c", asked], cwd=folder, env=environment, text=True)
    return dict(json.loads(answer.partition("FOUND")[2]))


def change(diff: str) -> str:
    """A diff without its head and without the lines around the change."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    kept = [f"{line[0]} {line[1:].strip()}" for line in lines if line[:1] in ("-", "+")]
    return "\n".join(kept)


def summary(mutants: dict[str, tuple[str, str | None]]) -> dict[str, Any]:
    """Counts of one file, and what lives: function → changes."""
    mutants = {name: found for name, found in mutants.items() if found[0] != "not checked"}
    states = [state for state, _ in mutants.values()]
    survivors: dict[str, list[dict[str, str]]] = {}
    for name, (state, diff) in mutants.items():
        if state not in DEAD:
            place = name.rpartition(".")[2].rpartition("__mutmut_")[0].removeprefix("x_")
            place = place.removeprefix("xǁ").replace("ǁ", ".")
            lives = {"change": change(diff or "")} | ({"state": state} if state != "survived" else {})
            survivors.setdefault(place, []).append(lives)
    return {
        "mutants": len(states),
        "killed": sum(state in ("killed", "segfault") for state in states),
        "timeouts": states.count("timeout"),
        "survived": sum(state not in DEAD for state in states),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "survivors": survivors,
    }


def name_equivalent_(file: dict[str, Any]) -> None:
    """Write beside a change that makes no difference why it makes none, and count these."""
    lives = [found for place in file["survivors"].values() for found in place]
    for found in lives:
        new = "\n".join(line[2:] for line in found["change"].splitlines() if line.startswith("+"))
        found.pop("equivalent", None)
        why = EQUIVALENT.get(new) or EQUIVALENT.get(found["change"])
        if why:
            found["equivalent"] = why
    file["equivalent"] = sum("equivalent" in found for found in lives)


def total(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Counts of a room."""
    counts = {
        key: sum(found[key] for found in files.values())
        for key in ("mutants", "killed", "timeouts", "survived", "equivalent")
    }
    dead = counts["killed"] + counts["timeouts"]
    return {**counts, "dead_percent": round(100 * dead / max(counts["mutants"], 1), 1)}


def main() -> None:
    """All rooms that are asked for; figures of the others stay in the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(ROOMS), choices=list(ROOMS), metavar="ROOM")
    parser.add_argument("--files", nargs="*", default=[], metavar="NAME", help="only these, without .py")
    parser.add_argument("--workers", type=int, default=1, help="mutants at a time")
    parser.add_argument("--ending", default="", metavar="DIGITS", help="only mutants whose number ends so")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rooms = json.loads(asked.out.read_text())["results"] if asked.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="mutation-") as base:
        mutmut = prepare(Path(base))
        for name in asked.only:
            room, begun = ROOMS[name], time.monotonic()
            files = files_of(room, asked.files)
            if not files:
                continue
            found = mutate(Path(base), mutmut, room, files, asked.workers, asked.ending)
            known = rooms.get(name, {}).get("files", {}) if asked.files else {}
            counted = {**known, **{file: summary(found.get(file, {})) for file in files}}
            for file in counted.values():
                name_equivalent_(file)
            sample = {"numbers_ending_in": asked.ending} if asked.ending else {}
            rooms[name] = {"tests": list(room.tests), **sample, "total": total(counted), "files": counted}
            rooms = {key: rooms[key] for key in ROOMS if key in rooms}
            for file in files:
                print(file, {key: value for key, value in counted[file].items() if key != "survivors"})
            print(f"{name}: {rooms[name]['total']}, {time.monotonic() - begun:.0f} s", flush=True)
            write_results(asked.out, {**vars(asked), "mutmut": MUTMUT}, rooms)


if __name__ == "__main__":
    main()
