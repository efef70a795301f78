"""Runs that are killed, again and again, and resumed: each must end as one that nobody disturbed.

    python benchmarks/kill_runs.py --moments 24 --writes 60 --seed 0

A small program is run and its network certified once, undisturbed. Then the same commands are killed by
SIGKILL: ``moments`` times in a fresh ``python -m bayesprune`` at a random moment, and ``writes`` times just
before or after one of the points where something becomes durable: a temporary file is flushed, half of it or
all; a file takes its name, is deleted or renamed; a folder is made or flushed. What was killed is resumed,
and may be killed again. In the end every file must be the undisturbed run's, byte by byte, but for times and
ids; no temporary file may be left, and the locks must be free.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "kill_runs.json"
REPOSITORY = Path(__file__).parents[1]
OPERATIONS = ("fsync", "replace", "unlink", "rename", "rmdir", "mkdir")
AGAIN, MOST = 0.3, 4
"""Probability that what is resumed is killed too, and how often at the most."""
SECONDS = 300.0
"""Of a command, at the most."""
VOLATILE = {
    "seconds",
    "created",
    "run",
    "report.html",
    "posterior.nc",
    "history.json",
    "result.json",
    "threads",
}

PROGRAM = '''"""A small network that is pruned within a second."""
import torch
from torch import nn

import bayesprune as bp
from bayesprune.data import Dataset, Split

EPOCHS = 4
BATCH_SIZE = 50
RECIPE = bp.Recipe(
    learning_rate=5e-3, compact_learning_rate=5e-3, shrink=bp.Shrink(every=3),
    gates=bp.GateSteps(learning_rate=0.2, momentum=0.9, clip=0.5, every=1), warmup=0.1, ramp=0.1, decide=0.8,
)


def data():
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(420, 6, generator=noise)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    return Dataset("little", Split(x[:360], y[:360]), Split(x[360:], y[360:]), 2)


def model(train, classes, price):
    network = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, classes))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(6.0 if price is None else price))
    return bp.gate(network, train.x[:1], prior=prior, likelihood=bp.Categorical(rows=len(train.y)))
'''
RUN = ("run", "../mine.py", "--quiet", "--out", "out")
CERTIFY = (
    "certify", "out", "--alpha", "0.45", "--delta", "0.2", "--trust-program", "../mine.py", "--quiet",
)  # fmt: skip
STAGES = ("run", "certify")
RESUME = (*RUN, "--resume")


@dataclass
class Count:
    """What was seen.

    Attributes:
        kills: signals that ended a process, by where.
        scenarios: runs that were disturbed at least once, or not at all since they were faster.
        wrong: what was not as it should be, with its scenario.
    """

    kills: Counter[str] = field(default_factory=Counter)
    scenarios: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------------------------- processes


def forked(words: tuple[str, ...], folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """The command in a forked process, whose imports are made; its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        from bayesprune.cli.main import main

        for stream in (1, 2):
            os.dup2(os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        os.chdir(folder)
        prepare()
        code = main(words)
    finally:
        os._exit(code)


def spawned(words: tuple[str, ...], folder: Path, _: Any = None) -> int:
    """The command in a fresh interpreter; its process id."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return os.posix_spawn(
            shutil.which("env") or "/usr/bin/env",
            ["env", "-C", str(folder), sys.executable, "-m", "bayesprune", *words],
            {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
        )
    finally:
        os.close(log)


def ended(process: int, seconds: float = SECONDS) -> int | None:
    """The exit code, or minus the signal; None where it goes on for longer, and is killed then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code  # it may have ended by itself meanwhile


def points(stop: int | None, after: bool, half: bool, told: Path | None = None) -> Callable[[], None]:
    """Count what becomes durable in this process, and kill it at one of these points.

    Args:
        stop: the number of the point; None for none.
        after: kill after the operation, not before.
        half: where it is a file that is flushed, cut it in half first.
        told: a file that gets the count of all points.
    """

    def prepare() -> None:
        passed = 0

        def counted(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def operation(*arguments: Any, **settings: Any) -> Any:
                nonlocal passed
                passed += 1
                number = passed
                if told is not None:
                    told.write_text(str(passed))
                if number == stop and not after:
                    if half and name == "fsync":
                        with contextlib.suppress(OSError):  # of a folder
                            os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*arguments, **settings)
                if number == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return operation

        for name in OPERATIONS:
            setattr(os, name, counted(name))

    return prepare


# ---------------------------------------------------------------------------------------------- one scenario


def fresh(folder: Path) -> Path:
    """A working folder beside the program."""
    folder.mkdir()
    (folder.parent / "mine.py").write_text(PROGRAM)
    return folder


def command(folder: Path, stage: str) -> tuple[str, ...]:
    """What a user gives next: the run, begun or resumed, or the certificate."""
    if stage == "certify":
        return CERTIFY
    return RESUME if (folder / "out" / "run.json").is_file() else RUN


def disturbed(folder: Path, rng: random.Random, kind: str, whole: dict[str, Any], count: Count) -> None:
    """One of the two commands with kills on the way; what is left is compared."""
    name, left, hit = f"{kind} {folder.name}", MOST, False
    points_of = {stage: whole[stage]["points" if kind == "write" else "seconds"] for stage in STAGES}
    stage = rng.choices(STAGES, [points_of[stage] for stage in STAGES])[0]
    if stage == "certify":
        shutil.copytree(whole["folder"] / "out", folder / "out", ignore=lambda *_: {"certificate"})
    kill_it = True
    while True:
        words = command(folder, stage)
        code = _killed(folder, words, rng, kind, whole[stage]) if kill_it else ended(forked(words, folder))
        if code != -signal.SIGKILL:
            break
        left, hit = left - 1, True
        count.kills[f"{kind}, {stage}"] += 1
        kill_it = left > 0 and rng.random() < AGAIN
        if stage == "certify" and (folder / "out" / "certificate" / "certificate.json").is_file():
            code = 0  # it was written, as the last of all; given again, the command refuses to replace it
            break
    count.scenarios["killed" if hit else "ended before its kill"] += 1
    if code != 0:
        count.wrong.append(f"{name}: {' '.join(words)} ended with {code}: {_tail(folder)}")
    else:
        count.wrong += [f"{name}: {text}" for text in differences(folder / "out", whole["files"][stage])]


def _killed(
    folder: Path, words: tuple[str, ...], rng: random.Random, kind: str, whole: dict[str, Any]
) -> int | None:
    if kind == "moment":
        process = spawned(words, folder)
        code = ended(process, rng.uniform(0.0, 1.1 * whole["seconds"]))
        return -signal.SIGKILL if code is None else code
    stop, after, half = rng.randint(1, whole["points"]), rng.random() < 0.5, rng.random() < 0.5
    return ended(forked(words, folder, points(stop, after, half)))


def _tail(folder: Path) -> str:
    log = folder / "log.txt"
    return log.read_text(errors="replace")[-300:].strip() if log.exists() else ""


# ---------------------------------------------------------------------------------------------- what is left


def contents(out: Path) -> dict[str, Any]:
    """Every file of a run's folder, without what is of its own time: what must be equal."""
    return {str(path.relative_to(out)): _content(path) for path in sorted(out.rglob("*")) if path.is_file()}


def _content(path: Path) -> Any:
    if path.name == "report.html":  # tells how long the run took
        return "there"
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".nc":
        return dict(_arrays(path))
    if path.name.startswith("epoch-"):
        from bayesprune.svi.checkpoint_file import unpack

        tensors, plain = unpack(path)
        digests = {n: hashlib.sha256(t.numpy().tobytes()).hexdigest() for n, t in tensors.items()}
        return digests, _timeless(plain)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arrays(path: Path) -> Iterator[tuple[str, str]]:
    from bayesprune.posterior.arviz import read, unwrap

    for group, data in unwrap(read(path)).items():
        for name, values in data.variables.items():
            yield (
                f"{group}/{name}",
                hashlib.sha256(
                    values.values.astype("U64" if values.dtype == object else values.dtype).tobytes()
                ).hexdigest(),
            )


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if not _volatile(key)}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value


def _volatile(key: str) -> bool:
    return key in VOLATILE or key.startswith("seconds")


def differences(out: Path, whole: dict[str, Any]) -> list[str]:
    """What is not as the undisturbed run left it."""
    from bayesprune.cli.finished import lost
    from bayesprune.files import is_temporary
    from bayesprune.lock import FolderLock

    if (out / "certificate").is_dir():
        with FolderLock(out / "certificate"):  # whoever works there next takes over what was left
            pass
    found = contents(out)
    wrong = [f"{name} differs" for name in found.keys() & whole.keys() if found[name] != whole[name]]
    wrong += [f"{name} is missing" for name in whole.keys() - found.keys()]
    for name in found.keys() - whole.keys():
        wrong.append(f"{name} is left{', a temporary file' if is_temporary(Path(name)) else ''}")
    wrong += [f"{name} {what}, by files.json" for name, what in lost(out).items()]
    with FolderLock(out), FolderLock(out / "checkpoints"):
        pass
    return wrong


# ---------------------------------------------------------------------------------------------- all of them


def ready(folder: Path) -> None:
    """Run the commands once in this process, so that what is forked from it has imported everything."""
    from bayesprune.cli.main import main

    here = os.getcwd()
    os.chdir(fresh(folder))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            codes = [main(command(folder, stage)) for stage in STAGES]
    finally:
        os.chdir(here)
    if any(codes):
        raise SystemExit(f"the undisturbed commands ended with {codes}")


def undisturbed(folder: Path, spawn: bool) -> dict[str, Any]:
    """What the commands leave when nobody disturbs them, how long they take, how many points they pass."""
    fresh(folder)
    found: dict[str, Any] = {}
    for stage in STAGES:
        told, begun = folder / f"{stage}.points", time.monotonic()
        code = ended(forked(command(folder, stage), folder, points(None, False, False, told)))
        if code != 0:
            raise SystemExit(f"the undisturbed {stage} ended with {code}: {_tail(folder)}")
        found[stage] = {"points": int(told.read_text()), "seconds": time.monotonic() - begun}
    if spawn:
        timed = fresh(folder.with_name(f"{folder.name}-timed"))
        for stage in STAGES:
            begun = time.monotonic()
            ended(spawned(command(timed, stage), timed))
            found[stage]["seconds"] = time.monotonic() - begun
    files = contents(folder / "out")
    of_run = {name: content for name, content in files.items() if not name.startswith("certificate/")}
    found["files"], found["folder"] = {"run": of_run, "certify": files}, folder
    return found


def kill(
    moments: int, writes: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> tuple[Count, Any]:
    """All scenarios; what was seen, and the points of the undisturbed commands."""
    count = Count()
    with tempfile.TemporaryDirectory() as base:
        ready(Path(base) / "ready")
        whole = undisturbed(Path(base) / "whole", spawn=moments > 0)
        told = {stage: whole[stage]["points"] for stage in STAGES}
        for kind, number in (("write", writes), ("moment", moments)):
            for index in range(number):
                rng = random.Random(f"{seed} {kind} {index}")
                folder = fresh(Path(base) / f"{kind}-{index}")
                disturbed(folder, rng, kind, whole, count)
                shutil.rmtree(folder)
                seen = f"{sum(count.kills.values())} kills, {len(count.wrong)} wrong"
                say(f"{kind} {index + 1} of {number}: {seen}")
    return count, told


def main() -> int:
    """Kill, count, write down."""
    from reporting import write_results

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, default=24, help="kills at random moments, in fresh processes")
    parser.add_argument("--writes", type=int, default=60, help="kills at points where something is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    count, told = kill(asked.moments, asked.writes, asked.seed, lambda text: print(text, flush=True))
    print("\n".join(count.wrong) or "nothing wrong")
    results = {
        "kills": dict(count.kills), "kills_in_all": sum(count.kills.values()),
        "scenarios": dict(count.scenarios), "points_of_an_undisturbed_command": told, "wrong": count.wrong,
    }  # fmt: skip
    write_results(asked.out, vars(asked), results)
    return 1 if count.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
