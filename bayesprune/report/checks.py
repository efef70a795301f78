"""What has to be in a run's result before anything of it is shown; all that is wrong is named at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayesprune.errors import RunFolderError

Number = int | float
OF_A_RUN: Mapping[str, Any] = {"program": str, "inference": str, "data": str, "epochs": int, "seeds": list}
OF_A_SEED: Mapping[str, Any] = {
    "seed": int,
    "dense_parameters": Number,
    "dense_macs": Number,
    "parameters_kept": Number,
    "parameters_kept_percent": Number,
    "macs_kept": Number,
    "macs_kept_percent": Number,
    "groups": list,
    "dense_architecture": list,
    "architecture": list,
    "undecided_gates": Number,
    "rounded_gates": Number,
    "seconds": Number,
}


def check_result(result: dict[str, Any], path: Path) -> None:
    """Make sure that a result has everything that a report shows.

    Args:
        result: content of ``result.json``; ``seeds`` has the figures of each seed.
        path: of the file, for the message.

    Raises:
        RunFolderError: something is missing, or of another kind; all of it is named.
    """
    problems = _wrong(result, OF_A_RUN, "")
    seeds = result.get("seeds")
    if isinstance(seeds, list):
        problems += [] if seeds else ["'seeds' is empty"]
        for number, seed in enumerate(seeds):
            place = f"seeds[{number}]."
            problems += (
                _wrong(seed, OF_A_SEED, place) if isinstance(seed, dict) else [f"{place[:-1]} is no object"]
            )
    if not problems:
        problems = [f"seeds[{n}].{text}" for n, seed in enumerate(seeds or ()) for text in _odd(seed)]
        lengths = {len(s[k]) for s in seeds or () for k in ("groups", "dense_architecture", "architecture")}
        problems += [] if len(lengths) == 1 else ["lists of groups have different lengths"]
    if problems:
        raise RunFolderError(
            f"{path}: is no result of 'bayesprune run', or was changed: {'; '.join(problems)}. Give the "
            "folder of a finished run, or run the program again."
        )


def _wrong(values: Mapping[str, Any], kinds: Mapping[str, Any], place: str) -> list[str]:
    missing = [f"{place}{key} is missing" for key in kinds if key not in values]
    return missing + [
        f"{place}{key} is {values[key]!r:.40}"
        for key, kind in kinds.items()
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool))
    ]


def _odd(seed: Mapping[str, Any]) -> list[str]:
    """Entries of a seed's figures that are of another kind than they should be."""
    numbers = {key: [value] for key, value in seed.items() if key.startswith("test_")}
    numbers |= {key: seed[key] for key in ("dense_architecture", "architecture")}
    kinds: dict[str, Any] = {**dict.fromkeys(numbers, Number), "groups": str}
    wrong = [
        (key, value)
        for key, values in {**numbers, "groups": seed["groups"]}.items()
        for value in values
        if not isinstance(value, kinds[key]) or isinstance(value, bool)
    ]
    return [f"{key} holds {value!r:.40}" for key, value in wrong]
