"""The tests that hang on others' versions, at both ends of the ranges that the project names.

    python benchmarks/versions.py [--only NAME ...] [--tests PATH ...] [--every 10] [--environments FOLDER]

Each combination of Python, PyTorch and ArviZ gets a virtual environment of its own, the project from this
folder with the extras ``test`` and ``export``, a part of the tests (``TESTS``) and, with the installed
package in an empty folder, the command line from a training to its certificate. The environment is removed
afterwards, unless it has a folder to stay in. A combination that pip cannot install is recorded with pip's
reason, a test that fails by its name. Deprecations that other packages announce are not counted as failures.

Gigabytes are downloaded, so CI does not run it. Pythons are found as ``python3.12`` and so on, or in pyenv's
folder.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reporting import write_results

PROJECT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "versions.json"
EXTRAS = ("test", "export")
TESTS = (
    "tests/export",
    "tests/gated",
    "tests/structure",
    "tests/priors",
    "tests/svi/test_step.py",
    "tests/svi/test_objective.py",
    "tests/posterior",
    "tests/cli/test_run.py",
)
TOLD = (
    "torch arviz pyro-ppl numpy scipy scikit-learn xarray h5netcdf h5py pandas matplotlib safetensors onnx "
    "onnxscript onnx-ir onnxruntime"
)
EPOCHS = 20
"""Of the training on the command line; the quick start's own are 100."""
COMMANDS = {
    "run": f"run lenet5 --data digits --epochs {EPOCHS} --seed 0 --quiet",
    "diagnose": "diagnose runs/lenet5-digits",
    "export": "export runs/lenet5-digits lenet5.onnx",
    "certify": "certify runs/lenet5-digits --alpha 0.1",
}


@dataclass(frozen=True)
class Combination:
    """What is installed: ``rest`` is every lower bound of pyproject.toml, the tested set, or the newest."""

    name: str
    python: str
    torch: str
    rest: str

    def constraints(self) -> list[str]:
        """Lines for pip."""
        lines = []
        if self.rest == "lower bounds":
            lines = [f"{name}=={bound}" for name, bound in lower_bounds().items()]
        elif self.rest == "constraints.txt":
            text = (PROJECT / "constraints.txt").read_text()
            lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        asked = f"torch=={lower_bounds()['torch'] if self.torch == 'lower bound' else self.torch}"
        return [line for line in lines if not line.startswith("torch==")] + [asked] * (self.torch != "newest")


COMBINATIONS = (  # 3.11 has ArviZ 0.23, the last of its series; newer Pythons get 1.x
    Combination("lower bounds", "3.11", "lower bound", "lower bounds"),
    Combination("constraints.txt", "3.11", "2.13.0", "constraints.txt"),
    Combination("constraints.txt, torch 2.14.1", "3.11", "2.14.1", "constraints.txt"),
    Combination("oldest torch, rest newest", "3.12", "lower bound", "newest"),
    Combination("torch 2.14.1, rest newest", "3.12", "2.14.1", "newest"),
    Combination("newest", "3.13", "newest", "newest"),
)


def lower_bounds() -> dict[str, str]:
    """Of every package that the project or one of the extras asks for."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [line for e in EXTRAS for line in project["optional-dependencies"][e]]
    return dict(re.fullmatch(r"([\w-]+)>=([\w.]+)", line).groups() for line in asked)  # type: ignore[union-attr]


def find_python(version: str) -> str | None:
    """Its interpreter, on the path or in pyenv's folder."""
    found = shutil.which(f"python{version}")
    if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
        return found
    return next((str(p) for p in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))), None)


def call(words: list[str], log: Path, folder: Path = PROJECT, path: str = "") -> int:
    """Exit code of a program, whose output goes into a file."""
    given = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as out:
        return subprocess.run(words, cwd=folder, env=given, stdout=out, stderr=subprocess.STDOUT).returncode


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def run_tests(python: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """How many passed, were skipped and failed, and the name and first line of each that failed."""
    report, log = folder / "tests.xml", folder / "tests.log"
    several = ["-n", str(given.processes)] if given.processes > 1 else []
    (folder / "every.py").write_text(
        f"def pytest_collection_modifyitems(items):\n    items[:] = items[::{given.every}]\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "every", f"--junitxml={report}", *several]
    for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
        options += ["-W", f"ignore::{kind}"]
    code = call([str(python), "-m", "pytest", *options, *given.tests], log, path=str(folder))
    if not report.exists():
        return {"exit code": code, "error": last_line(log)}
    count: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        bad = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        quiet = "skipped" if case.find("skipped") is not None else "passed"
        count[quiet if bad is None else "failed"] += 1
        if bad is not None:
            name = f"{case.get('classname', '')}::{case.get('name')}"
            failures[name] = (bad.get("message") or "").strip().split("\n")[0][:300]
    return (
        {"exit code": code}
        | {kind: count[kind] for kind in ("passed", "failed", "skipped")}
        | {"failures": failures}
    )


def run_commands(binary: Path, folder: Path) -> dict[str, Any]:
    """Exit codes of the installed command line, and what the training kept."""
    found: dict[str, Any] = {}
    for name, words in COMMANDS.items():
        log = folder / f"{name}.log"
        found[name] = {"exit code": call([str(binary / "bayesprune"), *words.split()], log, folder)}
        if found[name]["exit code"]:
            found[name]["last line"] = last_line(log)
    result = folder / "runs" / "lenet5-digits" / "result.json"
    if result.exists():
        figures = json.loads(result.read_text())
        for key in ("test_error_percent", "parameters_kept_percent", "undecided_gates"):
            found["run"][key] = figures[key]
    return found


def measure(asked: Combination, given: argparse.Namespace) -> dict[str, Any]:
    """Everything of one asked."""
    python = find_python(asked.python)
    told: dict[str, Any] = {
        "asked": f"Python {asked.python}, torch {asked.torch}, rest {asked.rest}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if python is None:
        return told | {"not tested": f"no Python {asked.python} on this machine"}
    with tempfile.TemporaryDirectory(prefix="versions-") as name:
        folder = Path(name)
        venv = (given.environments or folder).absolute() / re.sub(r"\W+", "-", asked.name)
        if not venv.exists():
            call([python, "-m", "venv", str(venv)], folder / "venv.log", folder)
        binary, log = venv / "bin", folder / "pip.log"
        (folder / "constraints.txt").write_text("\n".join(asked.constraints()) + "\n")
        pip = [str(binary / "python"), "-m", "pip", "install", "--quiet"]
        call([*pip, "--upgrade", "pip"], log, folder)
        if call([*pip, f"{PROJECT}[{','.join(EXTRAS)}]", "-c", "constraints.txt"], log, folder):
            lines = [line for line in log.read_text().splitlines() if "ERROR" in line or "conflict" in line]
            return told | {"not tested": "; ".join(lines)[:600].replace(str(PROJECT), ".")}
        told["versions"] = installed(binary / "python")
        told["tests"] = run_tests(binary / "python", folder, given)
        told["command line"] = run_commands(binary, folder)
    return told


def installed(python: Path) -> dict[str, str]:
    """Versions of the packages that matter."""
    script = (
        "import json, platform; from importlib.metadata import version; "
        f"told = {{name: version(name) for name in {TOLD.split()!r}}}; "
        "print(json.dumps({'python': platform.python_version()} | told))"
    )
    versions = json.loads(subprocess.run([str(python), "-c", script], capture_output=True, text=True).stdout)
    return dict(versions)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[c.name for c in COMBINATIONS])
    parser.add_argument("--tests", nargs="+", metavar="PATH", default=list(TESTS))
    parser.add_argument("--every", type=int, default=1, help="10: each tenth of the tests, which is quick")
    parser.add_argument("--processes", type=int, default=2, help="for the tests")
    parser.add_argument("--environments", type=Path, help="where they are kept, and found again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    chosen = [c for c in COMBINATIONS if given.only is None or c.name in given.only]
    failed = False
    for combination in chosen:
        found = measure(combination, given)
        tests, commands = found.get("tests", {}), found.get("command line", {})
        failed = failed or "not tested" in found or bool(tests["exit code"])
        counts = {key: value for key, value in tests.items() if key != "failures"}
        print(combination.name, found.get("not tested", counts), commands, flush=True)
        for name, why in tests.get("failures", {}).items():
            print("   ", name, "—", why, flush=True)
        known = json.loads(given.out.read_text())["results"]["combinations"] if given.out.exists() else {}
        known[combination.name] = found | {"each n-th test": given.every, "of": given.tests}
        ordered = {c.name: known[c.name] for c in COMBINATIONS if c.name in known}
        write_results(given.out, vars(given), {"combinations": ordered}, quiet=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
