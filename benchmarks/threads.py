"""What a busy machine costs: a fit of the quick start's LeNet-5 beside programs that take all they can get.

    python benchmarks/threads.py [--epochs 8] [--busy 0 2 4]

Beside a fit run 0, 2 or 4 busy processes (endless loops). It takes threads as bayesprune chooses them (one,
for a network of this size); as many as there are cores, which PyTorch would take by itself; and as many,
with OpenMP told to sleep instead of spinning (OMP_WAIT_POLICY=passive).

A one-thread program beside L busy ones on C cores can at best go on at min(1, C / (L + 1)) of its pace. What
it really gets is measured in the same process, directly before and after the fit: r = wall time / processor
time of an endless loop that waits for nothing but the processor. The *cost* of the load is

    cost = (wall / r) loaded / (wall / r) of the least busy run with bayesprune's own choice

and is 1 where a fit slows down as any program must. Exit code 1 where the cost of bayesprune's own choice,
or its processor time against the least busy run's, is above 2. The other lines are there to see why.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from reporting import write_results

ALLOWED = 2.0
CHOICES = {"bayesprune's": (None, {}), "all cores": (os.cpu_count(), {}),
           "all cores, passive": (os.cpu_count(), {"OMP_WAIT_POLICY": "passive"})}  # fmt: skip


def spin(seconds=1.0):
    """Wall time of a loop over its processor time: how much a one-thread program has to wait now."""
    wall, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < seconds:
        pass
    return (time.perf_counter() - wall) / (time.process_time() - used)


def work(threads, epochs):
    """One fit in this process; its times are printed as JSON."""
    import pyro

    import bayesprune as bp
    from bayesprune.programs import load_model

    data, program = bp.data.load("digits"), load_model("lenet5")
    pyro.set_rng_seed(0)
    gated = program.model(data.train, 10, None)
    share = spin()
    wall, used = time.perf_counter(), time.process_time()
    bp.fit(
        gated, (data.train.x, data.train.y), epochs=epochs, batch_size=program.batch_size_on("digits"),
        recipe=program.recipe, threads=threads, progress=False,
    )  # fmt: skip
    wall, used = time.perf_counter() - wall, time.process_time() - used
    share = (share + spin()) / 2
    print(json.dumps({"wall": wall, "processor": used, "share": share}))


@contextmanager
def busy(count):
    """So many processes that want a core each; ended one by one."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(choice, epochs, count):
    """One line of the table."""
    threads, environment = CHOICES[choice]
    words = [sys.executable, __file__, "--work", str(threads or 0), "--epochs", str(epochs)]
    surroundings = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    with busy(count):
        load = os.getloadavg()[0]
        told = subprocess.run(
            words, env=surroundings | environment, capture_output=True, text=True, check=True
        )
    return {"threads": choice, "busy": count, "load_before": load, **json.loads(told.stdout.splitlines()[-1])}


def main():
    """Print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/threads.json")
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work or None, arguments.epochs)
        return 0
    table = [measure(choice, arguments.epochs, count) for choice in CHOICES for count in arguments.busy]
    idle = table[0]
    print("threads             busy  wall s  processor s  wall/processor of a loop   cost  processor/idle")
    for row in table:
        row["cost"] = (row["wall"] / row["share"]) / (idle["wall"] / idle["share"])
        row["processor_ratio"] = row["processor"] / idle["processor"]
        print(
            f"{row['threads']:18s}  {row['busy']:4d}  {row['wall']:6.1f}  {row['processor']:11.1f}  "
            f"{row['share']:24.2f}  {row['cost']:5.2f}  {row['processor_ratio']:14.2f}"
        )
    ours = [row for row in table if row["threads"] == "bayesprune's"]
    fine = all(row["cost"] <= ALLOWED and row["processor_ratio"] <= ALLOWED for row in ours)
    write_results(arguments.out, vars(arguments), {"fine": fine, "table": table})
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
