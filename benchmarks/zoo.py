"""Networks of others: analysed, 30 % of their units removed, and is that exact?

    python benchmarks/zoo.py [--only resnet18 vit_b_16] [--share 0.3] [--resume]    # all of torchvision's
    python benchmarks/zoo.py --family timm            # the smallest network of each of its families
    python benchmarks/zoo.py --family transformers    # configurations of two layers
    python benchmarks/zoo.py --family timm --as-created
    python benchmarks/zoo.py --size 224 --only densenet121 --out benchmarks/results/zoo_224.json

Random weights, random biases and normalisation statistics, or with ``--as-created`` those that the library
initialises; two images of 64 × 64 (or the least that a network accepts; timm's of their own size), or two
rows of words. Each network is measured in a process of its own, with a time-out; times in the table are the
processor's. Exact means that the cut network gives what the masked one gives (zeros at the input of whoever
reads a removed unit), to 1e-10 in float64 and 1e-5 in float32, in both modes, and that the removal
changed the outputs by more than 1e-3.
Another pruner stands in ``zoo_torch_pruning.py``, scored by what it means itself by a removed channel:
under a layer norm that is zeros at the norm's readers to one, and a norm over fewer channels to another.

A network "of the user's own class" runs that class's code; in some a few modules, which cannot run at the
sizes that are left, run as their graphs: these are counted beside it, and named in the record.

``~`` marks differences of the size of the masked network's own rounding: in float64 that of networks that
compute a part of theirs in float32. "Saved" means that what was saved and loaded returned the same bits.

None of the three is a dependency of bayesprune: see zoo_torchvision.py, zoo_networks.py, zoo_transformers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results
from tqdm import tqdm
from zoo_networks import MAKERS, SIZE, names

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
EFFECT = 1e-3
MODES = ("eval", "train")
Record = dict[str, Any]


def measure(name: str, arguments: argparse.Namespace) -> Record:
    """One network in a process of its own; what it told before it ended or was ended."""
    script = Path(__file__).with_name("zoo_measure.py")
    words = [name, str(arguments.share), str(arguments.memory_gib), str(arguments.threads)]
    words += [str(arguments.size), "created" if arguments.as_created else "random"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, str(script), *words],
            capture_output=True,
            text=True,
            timeout=arguments.timeout,
            env=environment,
        )
        said, failure = done.stdout, _failure(done)
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else (late.stdout or "")
        failure = f"time-out after {arguments.timeout:.0f} s"
    record = _last_record(said)
    if failure and "error" not in record:
        record["error"] = failure
    return {"name": name, **record, "seconds_all": time.perf_counter() - start}


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"ended with {done.returncode}: {last[:300]}"


def _last_record(said: str) -> Record:
    for line in reversed(said.splitlines()):
        if line.startswith("{") and line.endswith("}"):
            return dict(json.loads(line))
    return {"traced": False}


def verdict(record: Record, dtype: str, mode: str) -> str:
    """``exact``, ``no effect``, ``fails``, the relative difference, or ``–`` where nothing was measured.

    A difference with ``~`` is no larger than twice the masked network's own rounding error in float32, or ten
    times what its outputs in float64 move by when its parameters do in their last digit (that of float32
    where it computes a part in that).
    """
    key = f"{dtype}_{mode}"
    if key not in record:
        return "–"
    if record[key] is None:
        return "fails"
    if not record[key] < TOLERANCE[dtype]:
        factor = 2 if dtype == "float32" else 10
        return f"{record[key]:.0e}" + "~" * (record[key] <= factor * record.get(f"{key}_rounding", 0.0))
    return "exact" if record[f"{key}_effect"] > EFFECT else "no effect"


def is_exact(record: Record, dtypes: tuple[str, ...] = tuple(TOLERANCE)) -> bool:
    return all(verdict(record, dtype, mode) == "exact" for dtype in dtypes for mode in MODES)


def is_sound(record: Record) -> bool:
    """Everything was measured, and all differences are nought or rounding."""
    verdicts = [verdict(record, dtype, mode) for dtype in TOLERANCE for mode in MODES]
    return all(v == "exact" or v.endswith("~") for v in verdicts)


def is_inexact(record: Record) -> bool:
    """Something that was measured is wrong; to fail loudly is not, nor is rounding alone."""
    verdicts = [verdict(record, d, m) for d in TOLERANCE for m in MODES]
    return any(v not in ("exact", "no effect", "–", "fails") and not v.endswith("~") for v in verdicts)


def show(runs: list[Record]) -> Record:
    """Print a row for every network, then what it comes to; return the latter."""
    print(
        f"{'network':34} {'groups':>6} {'removable':>9} {'f64 eval':>9} {'train':>9} "
        f"{'f32 eval':>9} {'train':>9} {'params':>7} {'analysis':>9} {'cut':>7} {'memory':>7}  remarks"
    )
    for run in sorted(runs, key=lambda r: r["name"]):
        print(
            f"{run['name']:34} {_figure(run, 'groups', '6')}"
            f" {_figure(run, 'removable_percent', '7.0f', ' %')}"
            + "".join(f" {verdict(run, d, m):>9}" for d in TOLERANCE for m in MODES)
            + f" {_figure(run, 'parameters_left_percent', '5.0f', ' %')}"
            f" {_figure(run, 'cpu_seconds_analysis', '7.1f', ' s')}"
            f" {_figure(run, 'cpu_seconds_cut', '5.1f', ' s')}"
            f" {_figure(run, 'memory_ratio', '6.2f', '×')}  {_remarks(run)}"
        )
    summary = summarised(runs)
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items()))
    return summary


def summarised(runs: list[Record]) -> Record:
    """Counts over networks, and median and longest times."""
    if not runs:
        return {}
    row: Record = {
        "networks": len(runs),
        "traced": sum(r["traced"] for r in runs),
        "exact": sum(map(is_exact, runs)),
        "exact_in_float64": sum(is_exact(r, ("float64",)) for r in runs),
        "exact_or_rounding": sum(map(is_sound, runs)),
        "inexact": sum(map(is_inexact, runs)),
        "saved_and_loaded_bit_equal": sum(r.get("loaded") is True for r in runs),
        "failed_or_late": sum("error" in r for r in runs),
        "at_least_30_percent_removable": sum(r.get("removable_percent", 0) >= 30 for r in runs),
        "of_the_users_own_class": sum(bool(r.get("in_place")) for r in runs),
        "of_those_with_modules_replaced_by_graphs": sum(
            bool(r.get("in_place") and r.get("modules_replaced")) for r in runs
        ),
    }
    for key in (
        "seconds_analysis",
        "seconds_cut",
        "cpu_seconds_analysis",
        "cpu_seconds_cut",
        "memory_ratio",
    ):
        values = [r[key] for r in runs if r.get(key) is not None]
        if values:
            row[f"median_{key}"] = round(statistics.median(values), 3)
            row[f"largest_{key}"] = round(max(values), 3)
    return row


def _figure(run: Record, key: str, form: str, unit: str = "") -> str:
    width = int("".join(c for c in form.split(".")[0] if c.isdigit())) + len(unit)
    value = run.get(key)
    return f"{'–':>{width}}" if value is None else f"{value:{form}}{unit}"


def _remarks(run: Record) -> str:
    remarks = [run["error"]] if "error" in run else []
    if run.get("in_place"):
        replaced = run.get("modules_replaced", [])
        remarks.append(f"own class, {len(replaced)} modules as graphs" if replaced else "own class")
    if run.get("loaded") not in (True, None):
        remarks.append(f"not saved: {run['loaded']}"[:100])
    frozen = run.get("frozen", [])
    if frozen:
        remarks.append(f"frozen at {len(frozen)} places: {'; '.join(frozen[:2])}"[:120])
    return ", ".join(remarks)


def resumed(path: Path, share: float, size: int) -> list[Record]:
    """The measurements that an interrupted sweep has written."""
    results = json.loads(path.read_text())["results"] if path.exists() else {"share": share, "runs": []}
    before = results["share"], results.get("size", 64)
    if path.exists() and before != (share, size):
        raise SystemExit(
            f"{path} removed {before[0]} of the units at images of {before[1]}, not {share} at {size}: "
            "choose another --out."
        )
    return list(results["runs"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families = [name or "torchvision" for name in MAKERS]
    parser.add_argument("--family", choices=families, default="torchvision")
    parser.add_argument("--as-created", action="store_true", help="leave weights as they were initialised")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks; all by default")
    parser.add_argument("--share", type=float, default=0.3, help="of every group's units that is removed")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a network")
    parser.add_argument("--memory-gib", type=float, default=0, help="limit for one process; none by default")
    parser.add_argument("--resume", action="store_true", help="go on from the measurements in --out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=SIZE, help="height and width of the images")
    parser.add_argument("--out", type=Path, help="results/zoo….json by default")
    arguments = parser.parse_args()
    if arguments.out is None:
        kinds = [arguments.family] * (arguments.family != "torchvision") + ["created"] * arguments.as_created
        arguments.out = Path(__file__).parent / "results" / f"{'_'.join(['zoo', *kinds])}.json"
    known = names(arguments.family)
    unknown = sorted(set(arguments.only or []) - set(known))
    if unknown:
        parser.error(f"{arguments.family} has no network here that is named {', '.join(unknown)}")
    if not 0 < arguments.share < 1:
        parser.error(f"--share {arguments.share}: the share of units to remove lies between 0 and 1")
    runs = resumed(arguments.out, arguments.share, arguments.size) if arguments.resume else []
    asked = {"share": arguments.share, "size": arguments.size}
    done = {run["name"] for run in runs}
    progress = tqdm(arguments.only or known, desc="zoo", unit="network", disable=None)
    for name in progress:
        progress.set_postfix_str(name)
        if name not in done:
            runs.append(measure(name, arguments))
        write_results(arguments.out, vars(arguments), {**asked, "runs": runs}, quiet=True)
    results = {**asked, "summary": show(runs), "runs": runs}
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
