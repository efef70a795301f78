"""What a second process is worth: LeNet-5 on the digits, in two gloo processes against one.

    python benchmarks/processes.py [--steps 60] [--rounds 5] [--batch 128]

Ways take steps of the same batch in turn, round after round: one process on one thread, one
process on two threads, two processes on one thread each, each at half of the batch, and two such that learn
apart and average nothing: what the machine's cores have left for a second process. A round's figure is
rows a second, and what is compared is the ratio within a round; the median over rounds is given, with the
least and the most. The second process waits while the others run. What other programs take of the cores is
measured too (busy time of /proc/stat minus that of these processes), in cores: where it is not near zero, two
processes had less than two cores, and the ratios are too low. What averaging itself takes does not hang on
that: processor time of two processes over twice that of one that steps on half of the batch by itself.
"""  # fmt: skip

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from reporting import write_results
from torch.distributed import new_group

import bayesprune as bp
from bayesprune.programs import load_model

TWO, HALF, APART = "two on 1 thread each", "one on half the batch", "two apart, no averaging"
WAYS = {  # processes, threads of each, parts of the batch
    "one on 1 thread": (1, 1, 1),
    "one on 2 threads": (1, 2, 1),
    HALF: (1, 1, 2),
    TWO: (2, 1, 2),
    APART: (2, 1, 2),
}
PRICE = 1e-3  # nats a unit: nothing is removed, so that all steps are equally large
TICK = os.sysconf("SC_CLK_TCK")


def busy():
    """Processor seconds of all cores together that were not idle, since the machine's start."""
    numbers = [int(n) / TICK for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4]


class Way:
    """A training, and batches to step on.

    Args:
        threads: of each process.
        parts: of the batch, of which each process takes one.
        rank: of this process.
        group: of the processes that train.
        arguments: of the command line.
    """

    def __init__(self, threads, parts, rank, group, arguments):
        program, data = load_model("lenet5"), bp.data.load("digits")
        self.threads, rows = threads, arguments.batch
        self.x, self.y = (t[:rows].tensor_split(parts)[rank] for t in (data.train.x, data.train.y))
        torch.manual_seed(0)
        gated = program.model(data.train, 10, PRICE)
        steps = (arguments.rounds + 1) * arguments.steps
        recipe = bp.Recipe(warmup=0.0, ramp=0.5, decide=1.0, shrink=bp.Shrink(every=10**6))
        self.training = bp.Training(gated, steps=steps, recipe=recipe, processes=group)

    def step(self, count):
        """Take so many steps."""
        torch.set_num_threads(self.threads)
        for _ in range(count):
            self.training.loss((self.x, self.y)).backward()
            self.training.step()


def work(rank, folder, arguments):
    """A process: the first one measures."""
    warnings.simplefilter("ignore", bp.errors.ClockWarning)  # trainings are this short on purpose
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    alone = [new_group([number]) for number in range(2)][rank]
    ways = {
        name: Way(threads, parts, rank, None if name == TWO else alone, arguments)
        for name, (processes, threads, parts) in WAYS.items()
        if processes > 1 or rank == 0
    }
    rounds = []
    for number in range(arguments.rounds + 1):  # the first one is not counted
        found = {}
        for name, (processes, _, parts) in WAYS.items():
            dist.barrier()
            if rank and processes == 1:
                continue
            own, before, began = sum(os.times()[:2]), busy(), time.perf_counter()
            ways[name].step(arguments.steps)
            wall = time.perf_counter() - began
            used = torch.tensor(sum(os.times()[:2]) - own)
            if processes > 1:
                dist.all_reduce(used)
            found[name] = {
                "rows_per_second": arguments.steps * arguments.batch * processes / parts / wall,
                "processor_seconds": float(used),
                "others_cores": (busy() - before - float(used)) / wall,
            }
        rounds += [found] if number else []
    if rank == 0:
        report(rounds, arguments)
    dist.destroy_process_group()


def report(rounds, arguments):
    """Print the table, and write the record."""
    ratios = {}
    for other in ("one on 1 thread", "one on 2 threads", APART):
        every = [r[TWO]["rows_per_second"] / r[other]["rows_per_second"] for r in rounds]
        ratios[f"rows a second, {TWO} / {other}"] = {"median": statistics.median(every), "all": every}
    every = [r[TWO]["processor_seconds"] / (2 * r[HALF]["processor_seconds"]) for r in rounds]
    ratios["processor time, two / twice one on half the batch"] = {
        "median": statistics.median(every),
        "all": every,
    }
    for name in WAYS:
        speed = statistics.median(r[name]["rows_per_second"] for r in rounds)
        used = statistics.median(r[name]["processor_seconds"] for r in rounds)
        others = statistics.median(r[name]["others_cores"] for r in rounds)
        print(f"{name:24s}{speed:10.0f} rows/s {used:8.2f} s of processor, others took {others:.2f} cores")
    for name, ratio in ratios.items():
        print(f"{name:56s}{ratio['median']:6.2f} ({min(ratio['all']):.2f} to {max(ratio['all']):.2f})")
    others = max(r[name]["others_cores"] for r in rounds for name in WAYS)
    note = f"other programs took up to {others:.2f} of {os.cpu_count()} cores meanwhile"
    print(note)
    write_results(
        arguments.out, vars(arguments), {"note": note, "ratios": ratios, "rounds": rounds, "ways": WAYS}
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="of a round, in each way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128, help="rows of a step in all processes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/processes.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, args=(folder, arguments), nprocs=2)


if __name__ == "__main__":
    main()
