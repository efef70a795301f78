"""How to make a run again, and what to do with it: commands to copy."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesprune.report.reading import Run

FLAGS = ("inference", "data", "epochs", "batch_size", "seeds", "seed", "price", "budget")
"""Settings that a result tells too, where the record of the run is missing."""
NOT_SAID = ("program", "data_dir")
"""The first has its own place; the second is where the data lie on one machine."""


def place(folder: Path) -> str:
    """A folder as its reader may find it: from where one stands, or by its name; never from the root."""
    relative = os.path.relpath(folder)
    shown = relative if not relative.startswith("..") and relative != "." else folder.resolve().name
    return os.fsencode(shown).decode("utf-8", "replace")  # a page is UTF-8, and names need not be


def reproduce(run: Run) -> str:
    """The command that gives the same result on the same versions.

    Args:
        run: with its settings, or without: then only what the result tells is in it.
    """
    told = {key: run.result.get(key) for key in FLAGS if not isinstance(run.result.get(key), list)}
    asked = {**told, "seeds": len(run.seeds), "seed": run.seeds[0]["seed"], **run.settings}
    if run.settings:
        asked.setdefault("calibration", 0.0)  # what runs did before it could be said
    asked["threads"] = asked.get("threads") or run.result.get("threads")
    words = ["bayesprune", "run", _program(str(asked.get("program") or run.result["program"]))]
    for name, value in asked.items():
        if value is not None and name not in NOT_SAID and (name, value) != ("device", "auto"):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [_argument(value)])]
    return " ".join(shlex.quote(word) for word in words)


def afterwards(run: Run) -> list[tuple[str, str]]:
    """What can be done with a run: (what for, command)."""
    folder = place(run.folder)
    first = (
        folder if (run.folder / "architecture.json").is_file() else f"{folder}/seed-{run.seeds[0]['seed']}"
    )
    program = Path(str(run.result["program"])).stem
    return [
        ("The five answers again", f"bayesprune diagnose {shlex.quote(folder)}"),
        ("The pruned network, in Python", f"import bayesprune as bp; network = bp.load({first!r})"),
        (
            "The pruned network, elsewhere",
            f"bayesprune export {shlex.quote(first)} {shlex.quote(program)}.onnx",
        ),
    ]


def page_again(runs: Sequence[Run]) -> str:
    """The command that makes this page."""
    return f"bayesprune report {shlex.join(place(run.folder) for run in runs)} --force"


def checksums(run: Run) -> list[tuple[str, str]]:
    """What the files and data were when the run began: (kind, SHA-256)."""
    saved = run.record.get("sha256", {})
    return [(str(kind), str(digest)) for kind, digest in saved.items()] if isinstance(saved, dict) else []


def _program(name: str) -> str:
    return f"./{Path(name).name}" if name.endswith(".py") else name


def _argument(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={number!r}" for name, number in value.items())  # every digit
    if isinstance(value, str) and "/" in value:
        return f"./{Path(value).name}"
    return str(value)
