"""What the files of a run hold, declared once: whoever reads one knows what is there, and of which kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bayesprune.errors import BayespruneError, RunFolderError
from bayesprune.files import read_json
from bayesprune.schema import Either, Items, Number, Record, Shape, Table, Text, Truth, check, nullable

REMEDY = "It was changed; give the folder of a finished run, or run the program again."
FIGURE, COUNT = Number(-1e30, 1e30), Number(0, 1e30)
"""Beyond, squares of floating-point numbers overflow, and no figure of a run is there."""
WHOLE = Number(0, 2**53, whole=True)
PRICE = nullable(Either((COUNT, Table(COUNT))))
BUDGET = nullable(Table(COUNT))

SETTINGS = Record(
    {"program": Text()},
    {
        "inference": nullable(Text()), "data": nullable(Text()), "data_dir": nullable(Text()),
        "epochs": nullable(WHOLE), "batch_size": nullable(WHOLE), "seeds": Number(1, 10**9, whole=True),
        "seed": WHOLE, "price": PRICE, "budget": BUDGET, "device": Text(), "threads": nullable(WHOLE),
        "calibration": Number(0, 1), "baseline": Truth(),
    },
)  # fmt: skip
RUN_RECORD = Record({"settings": SETTINGS}, {"sha256": Table(Text()), "versions": Table(Text())})
"""Of ``run.json``."""
REFUSED = Record({"refused": Text()})
RIVAL = Either(
    (
        REFUSED,
        Record(
            {
                "parameters": COUNT, "parameters_percent": COUNT, "macs": COUNT, "macs_percent": COUNT,
                "seconds": COUNT, "processor_seconds": COUNT,
            }
        ),
    )
)  # fmt: skip
RIVALS = ("dense", "small_dense", "magnitude")
BASELINE = Either(
    (
        REFUSED,
        Record(
            {
                "cost": Text(("macs", "parameters")),
                "limit": COUNT,
                "pruned": Record({"seconds": COUNT}, {"processor_seconds": COUNT}),
                **dict.fromkeys(RIVALS, RIVAL),
            }
        ),
    )
)
"""What a run was compared with, where it was."""
OF_A_SEED = Record(
    {
        "seed": WHOLE, "dense_parameters": COUNT, "dense_macs": COUNT, "parameters_kept": COUNT,
        "parameters_kept_percent": COUNT, "macs_kept": COUNT, "macs_kept_percent": COUNT,
        "groups": Items(Text()), "dense_architecture": Items(COUNT), "architecture": Items(COUNT),
        "undecided_gates": COUNT, "rounded_gates": COUNT, "seconds": COUNT,
    },
    {"baseline": BASELINE},
)  # fmt: skip
OF_A_RUN = Record(
    {"program": Text(), "inference": Text(), "data": Text(), "epochs": WHOLE, "seeds": Items(OF_A_SEED, 1)},
    {"batch_size": WHOLE, "price": PRICE, "budget": BUDGET, "versions": Table(Text()), "baseline": BASELINE},
)
"""Of ``result.json``."""
HISTORY = Record({"epochs": Items(Record({"inclusion": Items(Number(0, 1))}), 1)})
"""Of ``history.json``, as far as it is read again."""


def read_checked(
    path: Path, shape: Shape, error: type[BayespruneError] = RunFolderError, remedy: str = REMEDY
) -> dict[str, Any]:
    """Read a file of a run.

    Args:
        path: the file.
        shape: what it should hold.
        error: class of the error to raise.
        remedy: what to do.

    Raises:
        error: it is missing, no JSON, or holds something else; what does is named.
    """
    content = read_json(path, error)
    check(content, shape, path, error, remedy)
    return content


def check_seeds(
    seeds: list[dict[str, Any]], path: Path, raising: Callable[[str], BayespruneError] = RunFolderError
) -> None:
    """Make sure that the figures of some seeds fit together: their lists of groups, and their scores.

    Args:
        seeds: of which each is an ``OF_A_SEED``.
        path: of their file, for the message.
        raising: makes the error.

    Raises:
        RunFolderError: lists differ in length, groups between seeds, or a score is no number.
    """
    lists = ("groups", "dense_architecture", "architecture")
    found = [
        problem
        for number, seed in enumerate(seeds)
        for key, value in seed.items()
        if key.startswith("test_")
        for problem in FIGURE.problems(value, f"seeds[{number}].{key}")
    ]
    found += [
        problem
        for number, seed in enumerate(seeds)
        for name, rival in seed.get("baseline", {}).items()
        if name in RIVALS and "refused" not in rival
        for key in seed
        if key.startswith("test_")
        for problem in FIGURE.problems(rival.get(key), f"seeds[{number}].baseline.{name}.{key}")
    ]
    if len({len(seed[key]) for seed in seeds for key in lists}) > 1:
        found.append("lists of groups have different lengths")
    scores = {frozenset(key for key in seed if key.startswith("test_")) for seed in seeds}
    if len(scores) > 1 or len({tuple(seed["groups"]) for seed in seeds}) > 1:
        found.append("its seeds are of different networks, or were scored differently")
    if found:
        raise raising(f"{path}: {'; '.join(found[:5])}. {REMEDY}")
