"""What a busy machine costs: fits alone, and beside as many endless loops as there are cores.

    [setsid] python benchmarks/threads.py [--repeats 3] [--ahead] [--small]

Three networks: the quick start's (LeNet-300-100 on the digits, batches of 32), LeNet-5 in batches of 16, and
VGG-16 in batches of 128, which is large enough for several threads. Each is fitted for the same few epochs on
the threads that bayesprune chooses, on PyTorch's own number, on that with OpenMP told to sleep instead of
spinning (OMP_WAIT_POLICY=passive), and on one. All of it happens in turn, round after round; a figure is the
median over rounds. A fit is stopped after ``--limit`` seconds, and its wall time is then a lower bound.

    cost = wall time loaded / wall time alone

A fair scheduler gives one thread beside C endless loops on C cores C / (C + 1) of a core, at the worst
moments half of one: a cost of 1.5 to 2 is what any program pays. Exit code 1 where the choice costs a small
network more than 2, or is slower than PyTorch's own number on the large one alone (by more than a tenth).

Other programs would spoil both kinds of fit. What they take while a fit runs, in cores, is measured (busy
time of /proc/stat minus that of the fit and its loops) and written down; before each fit the benchmark waits
up to ``--quiet`` seconds for it to fall below a tenth of a core. Where that does not come, ``--ahead`` (root,
Linux) runs fit and loops, while they are timed, ahead of all else: at nice −20 of their session's group. How
they share the cores among themselves does not change.
"""  # fmt: skip

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from reporting import write_results

ALLOWED, SLOWER, QUIET = 2.0, 1.1, 0.1
TICK = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
CHOICES = {  # threads, environment
    "chosen": (None, {}),
    "PyTorch's": (CORES, {}),
    "PyTorch's, passive": (CORES, PASSIVE),
    "one": (1, {}),
}
FITS = {  # program, training rows, batch, epochs
    "quick start": ("lenet_300_100", 1437, 32, 6),
    "LeNet-5, batches of 16": ("lenet5", 1437, 16, 2),
    "VGG-16, batches of 128": ("vgg16_cifar", 128, 128, 1),
}
PRICE = 1e-3  # nats a unit: nothing is removed, so that all steps are equally large
SMALL, LARGE = tuple(FITS)[:2], tuple(FITS)[2]


def work(name, threads):
    """One fit in this process: says when it is ready, waits for a word, and prints its times as JSON."""
    import warnings

    import pyro
    import torch

    import bayesprune as bp
    from bayesprune.programs import load_model
    from bayesprune.svi.threads import threads_for

    warnings.simplefilter("ignore", bp.errors.ClockWarning)  # fits are this short on purpose
    program, count, batch, epochs = FITS[name]
    program, data = load_model(program), bp.data.load("digits")
    x, y = data.train.x[:count], data.train.y[:count]
    pyro.set_rng_seed(0)
    gated = program.model(bp.data.Split(x, y), 10, PRICE)
    settings = {"batch_size": batch, "recipe": program.recipe, "threads": threads, "progress": False}
    taken = threads or threads_for(gated.dense_macs, batch)
    with torch.random.fork_rng():
        gated.network(x[:2])  # kernels are chosen at the first pass
    print("ready", flush=True)
    input()
    wall, used = time.perf_counter(), time.process_time()
    bp.fit(gated, (x, y), epochs=epochs, **settings)
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print(json.dumps({"threads": taken, "wall": wall, "processor": used}), flush=True)


def machine():
    """(seconds of all cores together that were busy, that a hypervisor took), since the start."""
    numbers = [int(n) / TICK for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, irq, soft, steal = numbers
    return user + nice + system + irq + soft, steal


def used_by(process):
    """Processor seconds of a process and its threads; those of the last tick are missing."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def wait_for_quiet(longest):
    """Sleep until other programs take less than a tenth of a core for a second."""
    until = time.monotonic() + longest
    while time.monotonic() < until:
        before = machine()[0]
        time.sleep(1)
        if machine()[0] - before < QUIET:
            return


@contextmanager
def loops(count):
    """So many processes that want a core each; ended one by one."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield running
    finally:
        for loop in running:
            loop.kill()
            loop.wait()


@contextmanager
def ahead(wanted):
    """This session's processes before all others, and before each other as they were."""
    group = Path("/proc/self/autogroup")
    if wanted:
        group.write_text("-20")
    try:
        yield
    finally:
        if wanted:
            group.write_text("0")


def measure(name, choice, busy, arguments):
    """One fit: its times, and what else the machine did meanwhile."""
    threads, environment = CHOICES[choice]
    words = [sys.executable, __file__, "--work", name, str(threads or 0)]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=plain | environment, **pipes) as fit:
        try:
            with ahead(arguments.ahead):
                fit.stdout.readline()  # it has imported what it needs
            wait_for_quiet(arguments.quiet)
            load = os.getloadavg()[0]
            with ahead(arguments.ahead), loops(CORES if busy else 0) as running:
                time.sleep(0.3)
                own, before, began = sum(map(used_by, [fit, *running])), machine(), time.perf_counter()
                fit.stdin.write("\n")
                fit.stdin.flush()
                told = answer(fit, arguments.limit)
                wall, after = time.perf_counter() - began, machine()
                own = sum(map(used_by, [fit, *running])) - own
        finally:
            fit.kill()
    if told is None:
        told = {"threads": threads, "wall": wall, "processor": None, "stopped": True}
    return {
        "network": name, "choice": choice, "busy": CORES if busy else 0, "load_before": load, **told,
        "others": (after[0] - before[0] - own) / wall, "steal": (after[1] - before[1]) / wall,
    }  # fmt: skip


def answer(fit, limit):
    """What a fit prints at its end; None where it takes longer than so many seconds."""
    ready, _, _ = select.select([fit.stdout], [], [], limit)
    return json.loads(fit.stdout.readline()) if ready else None


def summary(rows):
    """network → choice → medians over rounds, and what the load costs; None for what was not measured."""
    found = {}
    for name in FITS:
        for choice in dict.fromkeys(row["choice"] for row in rows if row["network"] == name):
            mine = [row for row in rows if (row["network"], row["choice"]) == (name, choice)]
            alone, loaded = [r for r in mine if not r["busy"]], [r for r in mine if r["busy"]]
            walls = median(alone, "wall"), median(loaded, "wall")
            found.setdefault(name, {})[choice] = {
                "threads": mine[0]["threads"],
                "wall_alone": walls[0],
                "wall_loaded": walls[1],
                "processor_alone": median(alone, "processor"),
                "processor_loaded": median(loaded, "processor"),
                "cost": None if None in walls else walls[1] / walls[0],
                "stopped": sum("stopped" in row for row in mine),
                "others_most": max(row["others"] for row in mine),
            }
    return found


def median(rows, name):
    """Over rounds; None where there are none, or a fit was stopped before it could say."""
    values = [row[name] for row in rows]
    return None if not values or None in values else statistics.median(values)


def show(found):
    """The table that is printed; > where fits were stopped."""
    columns = ("wall_alone", "wall_loaded", "cost", "processor_alone", "processor_loaded", "others_most")
    print(f"{'':44s}threads" + "".join(f"{column:>18s}" for column in columns))
    for name, choices in found.items():
        for choice, row in choices.items():
            over = ">" if row["stopped"] else ""
            cells = (
                "-" if row[c] is None else (over if c in ("wall_loaded", "cost") else "") + f"{row[c]:.2f}"
                for c in columns
            )
            print(f"{name:24s}{choice:20s}{row['threads']:7d}" + "".join(f"{cell:>18s}" for cell in cells))


def main():
    """Print the table, and write the record."""
    if "--work" in sys.argv:
        name, threads = sys.argv[sys.argv.index("--work") + 1 :]
        work(name, int(threads) or None)
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds after which a fit is stopped")
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds to wait for a quiet moment")
    parser.add_argument(
        "--ahead", action="store_true", help="run at nice -20 of a session of its own (setsid)"
    )
    parser.add_argument("--small", action="store_true", help="the two small networks alone, as chosen")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/threads.json")
    arguments = parser.parse_args()
    rows = [
        measure(name, choice, busy, arguments)
        for _ in range(arguments.repeats)
        for name in (SMALL if arguments.small else FITS)
        for choice in (("chosen",) if arguments.small else CHOICES)
        for busy in (False, True)
        if choice != "one" or (name == LARGE and not busy)  # small networks take one anyway
        if busy or "passive" not in choice
    ]
    found = summary(rows)
    show(found)
    fine = {"small networks cost at most 2": all(found[name]["chosen"]["cost"] <= ALLOWED for name in SMALL)}
    if not arguments.small:
        large = found[LARGE]
        fine["the large network takes several threads"] = large["chosen"]["threads"] == CORES > 1
        fine["and is not slower than on PyTorch's"] = (
            large["chosen"]["wall_alone"] <= SLOWER * large["PyTorch's"]["wall_alone"]
        )
    print(*(f"{'yes' if holds else 'NO'}: {what}" for what, holds in fine.items()), sep="\n")
    write_results(
        arguments.out, vars(arguments), {"fine": fine, "cores": CORES, "summary": found, "fits": rows}
    )
    return 0 if all(fine.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
