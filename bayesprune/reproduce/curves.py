"""Tables of curves: every setting of a method by every seed, so that methods are compared at equal sizes."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch.nn.functional as F

from bayesprune import data
from bayesprune.data import Dataset, Split
from bayesprune.errors import SettingsError
from bayesprune.programs import find, load_model
from bayesprune.programs.execute import execute
from bayesprune.reproduce.front import error_at, front
from bayesprune.reproduce.rows import places, read
from bayesprune.reproduce.run import absent, claim, divided, kept_or, slug, told
from bayesprune.reproduce.setup import Learnt, Method, Setup
from bayesprune.reproduce.table import Curves, Part

QUICK_DATA = "digits-32"
Runs = dict[str, dict[float, dict[int, Learnt]]]
"""Method → setting → seed → training."""


@dataclass(frozen=True)
class Traced:
    """Curves as far as they were run.

    Attributes:
        curves: which ones.
        epochs: part → of each training.
        data: part → name of its rows.
        runs: part → method → setting → seed → training.
        left_out: lines on what is not there, and why.
    """

    curves: Curves
    epochs: dict[str, int] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Runs] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def run_curves(
    curves: Curves,
    folder: Path | str,
    *,
    seeds: int = 10,
    quick: bool = False,
    epochs: int | None = None,
    data_dir: Path | str | None = None,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    keep: Callable[[Traced], None] = lambda found: None,
) -> Traced:
    """Run a table of curves, or go on with one.

    Args:
        curves: of ``TABLES``, or of one's own.
        folder: for its files; one that holds the table is gone on with.
        seeds: from 0 on.
        quick: on the embedded digits, for few epochs: to see that it runs, and no result.
        epochs: of each training; by default the program's.
        data_dir: a folder that holds one of each data set's name.
        only: names of parts and methods, or globs of them, as folders have them; all where none is named.
        say: told a line of each training.
        keep: given all that is there after each training, so that something is left of an interrupted table.

    Returns:
        All that is there at the end.

    Raises:
        SettingsError: no seeds or epochs, or a name that nothing has.
        RunFolderError: the folder holds a table of other settings, or was damaged.
        DataError: none of the rows can be had, or some are damaged.
    """
    if seeds < 1 or (epochs is not None and epochs < 1):
        raise SettingsError(f"run_curves(seeds={seeds}, epochs={epochs}): both are at least 1.")
    curves = _narrowed(curves, only)
    parts = (
        tuple(dict.fromkeys(replace(part, data=QUICK_DATA) for part in curves.parts))
        if quick
        else curves.parts
    )
    where, missing = (
        ({QUICK_DATA: None}, []) if quick else places(tuple({p.data: 0 for p in parts}), data_dir)
    )
    found = Traced(replace(curves, parts=parts), left_out=missing)
    for line in missing:
        say(line)
    for method in curves.methods:
        if why := absent(method):
            found.left_out.append(why)
            say(why)
    for name, place in where.items():
        rows = _enlarged(data.load(name) if quick else read(name, place), curves.size)
        for part in parts:
            if part.data == name:
                _run_part(found, part, rows, Path(folder), seeds, epochs, quick, say, keep)
    return found


def _narrowed(curves: Curves, only: Sequence[str]) -> Curves:
    """The parts and methods that are asked for; of each kind all where none is named."""
    kinds = {"parts": [p.name for p in curves.parts], "methods": [slug(m.name) for m in curves.methods]}
    for pattern in only:
        if not any(fnmatch.filter(names, pattern) for names in kinds.values()):
            told_all = ", ".join(name for names in kinds.values() for name in names)
            raise SettingsError(f"--only {pattern}: nothing is called so. There are: {told_all}.")
    kept: dict[Literal["parts", "methods"], set[str]] = {}
    for kind, names in kinds.items():
        asked = {name for pattern in only for name in fnmatch.filter(names, pattern)}
        kept[kind] = asked or set(names)  # type: ignore[index]
    return replace(
        curves,
        parts=tuple(part for part in curves.parts if part.name in kept["parts"]),
        methods=tuple(method for method in curves.methods if slug(method.name) in kept["methods"]),
    )


def _run_part(
    found: Traced, part: Part, rows: Dataset, folder: Path, seeds: int, epochs: int | None, quick: bool,
    say: Callable[[str], None], keep: Callable[[Traced], None],
) -> None:  # fmt: skip
    curves, program = found.curves, load_model(part.program)
    length = epochs or (curves.quick_epochs if quick else program.epochs_on(rows.name))
    recipe = replace(program.recipe, gates=None, learning_rate=None) if quick else program.recipe
    setup = Setup(
        execute(find(part.program, "models")), rows.train, rows.test, rows.classes, length,
        program.batch_size_on(rows.name), recipe,
    )  # fmt: skip
    rest, held_out = divided(rows.train, curves.held_out)
    setup = replace(setup, train=rest, held_out=held_out)
    folder = folder / part.name
    claim(folder, {"table": curves.name, "part": part.name, "epochs": length, "rows": len(rest)})
    found.epochs[part.name], found.data[part.name] = length, rows.name
    runs = found.runs.setdefault(part.name, {})
    runs.update({method.name: {} for method in curves.methods if not absent(method)})
    for seed, method, value in _in_turns(curves, seeds):
        path = folder / slug(method.name) / f"setting-{value:g}-seed-{seed}.json"
        learnt = kept_or(path, value, lambda m=method, v=value, s=seed: m.learn(setup, v, s, None))  # type: ignore[misc]
        runs[method.name].setdefault(value, {})[seed] = learnt
        say(f"{part.name}, seed {seed}, {method.name}, {method.setting} {value:g}: {told(learnt)}")
        keep(found)


def _in_turns(curves: Curves, seeds: int) -> Iterator[tuple[int, Method, float]]:
    """Seed by seed the first setting of all methods, then the second: what is interrupted is equally far."""
    methods = [method for method in curves.methods if not absent(method)]
    for seed in range(seeds):
        for number in range(max((len(method.settings) for method in methods), default=0)):
            for method in methods:
                if number < len(method.settings):
                    yield seed, method, method.settings[number]


def _enlarged(rows: Dataset, size: int) -> Dataset:
    """Images of a size, by bilinear interpolation; grey ones, which lie in [0, 1], centred."""

    def enlarged(split: Split) -> Split:
        x = split.x
        if x.shape[-2:] != (size, size):
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        return Split(x - 0.5 if x.shape[1] == 1 else x, split.y)

    return replace(rows, train=enlarged(rows.train), test=enlarged(rows.test))


# ---- what they say


def fronts(runs: Runs) -> dict[str, list[float]]:
    """Method → the settings of its front: by mean parameters and mean held-out error over seeds.

    Args:
        runs: of one part.
    """
    return {
        method: front({value: _means(list(by.values())) for value, by in settings.items()})
        for method, settings in runs.items()
        if settings
    }


def _means(runs: Sequence[Learnt]) -> tuple[float, float]:
    held_out = [one.held_out_error for one in runs if one.held_out_error is not None]
    sizes = [100 * one.parameters / one.dense_parameters for one in runs]
    return sum(sizes) / len(sizes), sum(held_out) / len(held_out)


def errors_at(runs: Runs, share: float) -> dict[str, dict[int, float]]:
    """Method → seed → test error with that share of the parameters at most.

    Of each seed that has all settings of the front its networks are joined; a method of which some such seed
    has no network so small is left out.

    Args:
        runs: of one part.
        share: percent.
    """
    found: dict[str, dict[int, float]] = {}
    for method, values in fronts(runs).items():
        seeds = set.intersection(*(set(runs[method][value]) for value in values))
        at = {
            seed: error_at(share, [_point(runs[method][value][seed]) for value in values]) for seed in seeds
        }
        if at and all(error is not None for error in at.values()):
            found[method] = {seed: error for seed, error in at.items() if error is not None}
    return found


def _point(learnt: Learnt) -> tuple[float, float]:
    return 100 * learnt.parameters / learnt.dense_parameters, learnt.error
