#!/usr/bin/env bash
# Two threads of PyTorch beside other programs cost many times what one does, because they wait spinning.
#
#   findings/two_threads_beside_others.sh        (Linux; PYTHON=... names a Python of at least 3.11)
#
# Versions: torch 2.13.0 (seen with its CPU build: export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# for it) and numpy 2.4.6, in a temporary folder that is removed at the end; nothing else, and nothing of this
# repository. The wheel brings GNU's OpenMP (libgomp.so.1), which ATen's own loops and
# MKL's share.
#
# Commonly expected: PyTorch takes a thread for each core because that is the fastest, and where another program
# has taken a core, two threads are about as fast as one, at worst at twice the processor time.
#
# Seen (a network 784-300-100-10, batches of 128, Adam, 60 steps; all held to two cores of an x86-64 virtual
# machine under Linux 6.18, on which other programs ran besides; medians of five rounds): beside a busy loop one
# thread takes 0.30 s of processor, two take 7.0 s (and 32 s of wall), two under OMP_WAIT_POLICY=passive 0.26 s.
# GOMP_SPINCOUNT=1000 does the same as passive. "Alone" is without the loop; nothing is judged by it.
#
# Why: at the end of every parallel operation the threads wait for each other. GNU's OpenMP waits spinning,
# 300,000 turns before it sleeps, some milliseconds, unless it has more threads than cores. A thread whose
# partner waits for a core therefore burns its own slice of time, is as far as the scheduler can see as busy as
# the loop, and gets no more than its share: a step has dozens of such waits. Told to be passive, it sleeps at
# once and the partner gets its core. One thread waits for nobody.
#
# Prints the figures, and exits non-zero where this is no longer so: where, of five rounds, two spinning threads
# do not take at least 2 times the processor time of one in the median, or passive ones save less than a third
# of it. 2 when it cannot be run here.
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

cat > "$folder/steps.py" <<'PY'
"""Some steps of a small network: prints wall and processor seconds, and how often a core was taken away."""

import resource
import sys
import time

import torch

threads, steps = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(),
    torch.nn.Linear(100, 10),
)
optimizer = torch.optim.Adam(network.parameters())
x, y = torch.randn(128, 784), torch.randint(10, (128,))


def step():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    optimizer.step()


step()
before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
for _ in range(steps):
    step()
wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(wall, processor, after.ru_nivcsw - before.ru_nivcsw)
PY

cat > "$folder/compare.py" <<'PY'
"""One thread, two, and two that sleep while they wait: alone and beside a busy loop, on two cores."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS, STEPS, SPINS, SAVES = 5, 60, 2.0, 2 / 3
CASES = {
    "one thread": ("1", {}),
    "two threads": ("2", {}),
    "two threads, passive": ("2", {"OMP_WAIT_POLICY": "passive"}),
}


def measure(threads, environment, busy):
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
    words = [sys.executable, str(Path(__file__).with_name("steps.py")), threads, str(STEPS)]
    loop = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) if busy else None
    try:
        told = subprocess.run(words, env=plain | environment, capture_output=True, text=True, check=True)
    finally:
        if loop:
            loop.kill()
            loop.wait()
    return [float(number) for number in told.stdout.split()]


cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
if len(cores) < 2:
    print("This needs Linux and two cores.")
    sys.exit(2)
os.sched_setaffinity(0, cores)

import torch

print(f"torch {torch.__version__}, cores {cores}, load {os.getloadavg()[0]:.1f}")
runtimes = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
print("OpenMP:", *sorted(Path(path).name for path in runtimes if ".so" in path))

found = {(case, busy): [] for case in CASES for busy in (False, True)}
for _ in range(ROUNDS):
    for case, busy in found:
        found[case, busy].append(measure(*CASES[case], busy))
median = {key: [statistics.median(column) for column in zip(*rows)] for key, rows in found.items()}
print(f"{STEPS} steps, medians of {ROUNDS}           wall s  processor s  taken away")
for (case, busy), (wall, processor, taken) in median.items():
    place = "beside a loop" if busy else "alone"
    print(f"{case:21s} {place:14s} {wall:7.2f} {processor:12.2f} {taken:11.0f}")

one, two, passive = (median[case, True][1] for case in CASES)
checks = {
    f"two threads beside a loop take {two / one:.1f} times the processor time of one; at least {SPINS:g}": two >= SPINS * one,
    f"passive ones take {passive / two:.2f} of what spinning ones do; at most {SAVES:.2f}": passive <= SAVES * two,
}
for what, holds in checks.items():
    print("as found:" if holds else "CHANGED:", what)
sys.exit(0 if all(checks.values()) else 1)
PY

"$folder/venv/bin/python" "$folder/compare.py"
