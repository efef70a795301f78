"""What it costs to start: the command line's own answers, and imports beside those of PyTorch and Pyro.

    python benchmarks/import_time.py [--repeats 5]

Processor time of fresh interpreters; of several runs, taken in turns, the least, since whatever else a
machine does only adds. "Used" asks for the names that a fit needs, which are imported with the first of them.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

OURS = "import bayesprune as bp"
USED = f"{OURS}; bp.gate, bp.fit, bp.prune, bp.evaluate, bp.Categorical, bp.data.load, bp.save"
PEERS = "import torch, pyro"
PROGRAMS = {
    "bayesprune --help": ["-m", "bayesprune", "--help"],
    "bayesprune list": ["-m", "bayesprune", "list"],
    PEERS: ["-c", PEERS],
    f"{PEERS}; import bayesprune": ["-c", f"{PEERS}; {OURS}"],
    f"{PEERS}; import bayesprune, used": ["-c", f"{PEERS}; {USED}"],
}


def processor_seconds(words: list[str]) -> float:
    """Of one child process, in user and in system mode."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "import_time.json")
    arguments = parser.parse_args()
    runs: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(arguments.repeats + 1):
        for name, words in PROGRAMS.items():
            runs[name].append(processor_seconds(words))
    least = {name: min(times[1:]) for name, times in runs.items()}  # the first only fills the disk's cache
    print(f"{'':36} {'processor time':>14}  ÷ PyTorch and Pyro")
    for name, seconds in least.items():
        print(f"{name:36} {seconds:12.2f} s  {seconds / least[PEERS]:6.2f}")
    ratios = {name: seconds / least[PEERS] for name, seconds in least.items()}
    write_results(arguments.out, vars(arguments), {"processor_seconds": least, "ratio_to_peers": ratios})


if __name__ == "__main__":
    main()
