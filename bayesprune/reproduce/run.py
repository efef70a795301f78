"""All trainings of a table, each kept in a file of its own; what is kept is not learnt again."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bayesprune import data
from bayesprune.data import Split
from bayesprune.errors import RunFolderError, SettingsError
from bayesprune.files import read_json, write_json
from bayesprune.programs import find, load_model
from bayesprune.programs.execute import execute
from bayesprune.reproduce.rows import rows_of
from bayesprune.reproduce.setup import Learnt, Method, Setup
from bayesprune.reproduce.table import Table
from bayesprune.schema import Either, Items, Nothing, Number, Record, check
from bayesprune.schema import Table as ByName

PLAN = "table.json"
"""What a folder's trainings have in common."""
COUNT, WHOLE = Number(least=0), Number(least=0, whole=True)
LEARNT = Record(
    {
        "kept": ByName(Items(WHOLE)), "parameters": WHOLE, "macs": WHOLE, "dense_parameters": WHOLE,
        "dense_macs": WHOLE, "error": COUNT, "errors": Items(COUNT), "nll": Number(), "training_macs": COUNT,
        "seconds": COUNT, "processor_seconds": COUNT, "undecided": Either((Nothing(), WHOLE)),
    },
    {"held_out_error": Either((Nothing(), COUNT)), "sections": Either((Nothing(), Items(WHOLE)))},
    closed=True,
)  # fmt: skip
KEPT = Record({"value": Number(), "learnt": LEARNT})


@dataclass(frozen=True)
class Reproduced:
    """A table as far as it was run.

    Attributes:
        table: which one.
        epochs: of each training.
        data: name of the rows.
        chosen: method → its setting's value.
        tried: method → value → held-out error and parameters left, percent.
        runs: method → seed → training.
        left_out: a line on each method that could not be run.
    """

    table: Table
    epochs: int
    data: str
    chosen: dict[str, float] = field(default_factory=dict)
    tried: dict[str, dict[float, tuple[float, float]]] = field(default_factory=dict)
    runs: dict[str, dict[int, Learnt]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def run_table(
    table: Table,
    folder: Path | str,
    *,
    seeds: int = 5,
    quick: bool = False,
    epochs: int | None = None,
    data_dir: Path | str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Reproduced:
    """Run a table, or go on with one.

    Args:
        table: of ``TABLES``, or of one's own.
        folder: for its files; one that holds a table is gone on with.
        seeds: from 0 on.
        quick: on the embedded digits, for few epochs: to see that it runs, and no result.
        epochs: of each training; by default the program's.
        data_dir: the folder of the table's data.
        say: told a line of each training.

    Returns:
        All that is there at the end.

    Raises:
        SettingsError: no seeds or epochs.
        RunFolderError: the folder holds a table of other settings, or was damaged.
        DataError: the rows cannot be had.
    """
    if seeds < 1 or (epochs is not None and epochs < 1):
        raise SettingsError(f"run_table(seeds={seeds}, epochs={epochs}): both are at least 1.")
    rows = data.digits(table.quick_size) if quick else rows_of(table.data, data_dir)
    name, program = rows.name, load_model(table.program)
    length = epochs or (table.quick_epochs if quick else program.epochs_on(name))
    recipe = replace(program.recipe, gates=None) if quick else program.recipe  # at a pace for so few steps
    whole = Setup(
        execute(find(table.program, "models")), rows.train, rows.test, rows.classes, length,
        program.batch_size_on(name), recipe,
    )  # fmt: skip
    folder = Path(folder)
    claim(folder, {"table": table.name, "data": name, "epochs": length, "rows": len(rows.train)})
    found = Reproduced(table, length, name)
    rest, held = divided(rows.train, table.held_out)
    held_out = replace(whole, train=rest, test=held)
    found.left_out.extend(why for method in table.methods if (why := absent(method)))
    for why in found.left_out:
        say(why)
    methods = [method for method in table.methods if not absent(method)]
    for method in methods:
        _choose(method, held_out, folder, found, say)
    for seed in range(seeds):
        for method in methods:
            value = found.chosen[method.name]
            other = found.runs[method.beside][seed] if method.beside else None
            path = folder / slug(method.name) / f"seed-{seed}.json"
            learnt = kept_or(path, value, lambda m=method, v=value, s=seed, o=other: m.learn(whole, v, s, o))  # type: ignore[misc]
            found.runs.setdefault(method.name, {})[seed] = learnt
            say(f"seed {seed}, {method.name}: {told(learnt)}")
    return found


def claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write down what all trainings of a folder share, or make sure that it is the same.

    Args:
        folder: of them.
        plan: what they share.

    Raises:
        RunFolderError: it holds a table of another plan, or other files.
    """
    path = folder / PLAN
    if path.exists():
        before = read_json(path)
        other = [f"{key} {before.get(key)!r}, not {value!r}" for key, value in plan.items()
                 if before.get(key) != value]  # fmt: skip
        if other:
            raise RunFolderError(
                f"{folder} holds a table of {'; '.join(other)}. Ask for the same, or choose another --out."
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise RunFolderError(f"{folder} holds files, and no table: choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(plan))


def divided(rows: Split, share: float) -> tuple[Split, Split]:
    """Rows to learn from, and rows that are held out, always the same.

    Args:
        rows: all of them.
        share: that is held out.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(7))
    held = round(len(rows) * share)
    rest, held_out = (Split(rows.x[at], rows.y[at]) for at in (order[held:], order[:held]))
    return rest, held_out


def absent(method: Method) -> str:
    """A line on why a method cannot be run here, and what to do; empty where it can.

    Args:
        method: of a table.
    """
    if method.needs is None or importlib.util.find_spec(method.needs.replace("-", "_")) is not None:
        return ""
    return (
        f"{method.name} is left out, since {method.needs} is not installed. Install with: pip install "
        f"{method.needs}, or pip install 'bayesprune[benchmarks]'; the same command then adds its lines."
    )


def _choose(
    method: Method, setup: Setup, folder: Path, found: Reproduced, say: Callable[[str], None]
) -> None:
    """The setting with the least held-out error among those that are small enough."""
    if len(method.settings) == 1:
        found.chosen[method.name] = method.settings[0]
        return
    first: dict[float, Learnt] = {}
    for value in method.settings:
        other = None
        if method.beside is not None:
            chosen = found.chosen[method.beside]
            other = _read(folder / slug(method.beside) / f"held-out-{chosen:g}.json", chosen)
            assert other is not None
        path = folder / slug(method.name) / f"held-out-{value:g}.json"
        first[value] = kept_or(path, value, lambda v=value, o=other: method.learn(setup, v, 0, o))  # type: ignore[misc]
        say(f"held out, {method.name}, {method.setting} {value:g}: {told(first[value])}")
    size = {value: 100 * one.parameters / one.dense_parameters for value, one in first.items()}
    small = [value for value in first if size[value] <= found.table.most_parameters]
    if not small and any(one.kept for one in first.values()):  # it prunes, and none prunes enough
        small = [min(first, key=lambda value: size[value])]
    least = min(small or list(first), key=lambda value: (first[value].error, size[value]))
    found.chosen[method.name] = least
    found.tried[method.name] = {value: (one.error, size[value]) for value, one in first.items()}


def kept_or(path: Path, value: float, learn: Callable[[], Learnt]) -> Learnt:
    """What a file holds, or what is learnt now and put there.

    Args:
        path: of one training.
        value: of its setting.
        learn: the training.

    Raises:
        RunFolderError: the file was damaged, or is of another setting.
    """
    found = _read(path, value)
    if found is not None:
        return found
    learnt = learn()
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"value": value, "learnt": asdict(learnt)}, indent=None)
    return learnt


def _read(path: Path, value: float) -> Learnt | None:
    if not path.exists():
        return None
    content = read_json(path)
    check(content, KEPT, path, RunFolderError, "Delete it, and it is learnt again.")
    if content["value"] != value:
        raise RunFolderError(
            f"{path} was learnt at {content['value']:g}, and {value:g} is chosen now: settings were tried "
            "again, or changed. Choose another --out."
        )
    return Learnt(**content["learnt"])


def told(learnt: Learnt) -> str:
    """A line on one training.

    Args:
        learnt: of it.
    """
    kept = "-".join(str(len(units)) for units in learnt.kept.values())
    percent = 100 * learnt.parameters / learnt.dense_parameters
    best = "" if learnt.best is None else f" (best epoch {learnt.best:.2f})"
    return f"{learnt.error:.2f} %{best} at {percent:.2f} % of the parameters {kept}".rstrip()


def slug(name: str) -> str:
    """A method's name as a folder's.

    Example:
        >>> slug("bayesprune, Bernoulli gates")
        'bayesprune-bernoulli-gates'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
