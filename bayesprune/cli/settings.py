"""What a run was asked to do: written to its folder when it begins, compared when it is resumed."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bayesprune
from bayesprune.cli.prices import Price
from bayesprune.cli.streams import quoted
from bayesprune.errors import RunFolderError

MAY_CHANGE = ("data_dir", "device", "threads")
"""Where a run is computed, not what: free to differ when it is resumed."""


@dataclass(frozen=True)
class Settings:
    """Options of `bayesprune run`, as far as they decide what is computed.

    Attributes:
        program: name of a shipped model, or absolute path of a user's file.
        inference: the same, of the inference; None: the one that the model names.
        data: name or folder; None: the model's own, or digits.
        data_dir: where MNIST lies.
        epochs: passes over the training rows; None: the model's own number.
        batch_size: rows a step; None: the model's own number.
        seeds: number of runs.
        seed: the first one's seed; the others follow.
        price: nats per unit, or group → nats; None: the model's own.
        budget: 'macs' or 'params' → share of the dense network's to keep, 'latency_ms' or 'memory_mb' →
            limit, 'batch' → rows, 'uniform' → 1, 'multiple_of' → number, as far as they are asked for; None:
            prices decide.
        device: 'auto', 'cpu' or 'cuda'.
        threads: CPU threads; None: by the size of a step.
        calibration: share of the training rows that is kept apart; 0 in runs that began before there was any.
        baseline: whether dense, small and magnitude-pruned networks are trained for comparison.
    """

    program: str
    inference: str | None = None
    data: str | None = None
    data_dir: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    seeds: int = 1
    seed: int = 0
    price: Price | None = None
    budget: dict[str, float] | None = None
    device: str = "auto"
    threads: int | None = None
    calibration: float = 0.0
    baseline: bool = False

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values; a baseline is named where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "baseline" or value}


def from_json(value: Any, place: Path) -> Settings:
    """Settings from plain values.

    Args:
        value: what `Settings.to_json` gave.
        place: file that they came from, for the message.

    Returns:
        The settings.

    Raises:
        RunFolderError: something is missing or unknown.
    """
    try:
        return Settings(**value)
    except TypeError as problem:
        raise RunFolderError(f"{place}: its settings cannot be used ({problem}). It was changed.") from None


def resumed(saved: Settings, asked: Settings, given: set[str], folder: Path) -> Settings:
    """Settings to continue a run with: the saved ones, once those on the command line have been found equal.

    Args:
        saved: settings that the run began with.
        asked: settings of this command.
        given: names of the settings that this command gave explicitly.
        folder: the run's folder, for the message.

    Returns:
        The saved settings, with what may change as it was given now.

    Raises:
        RunFolderError: a setting differs; all that do are named.
    """
    names = [field.name for field in fields(Settings) if field.name in given]
    changes = [
        f"  {name.replace('_', '-')}: the run has {_show(getattr(saved, name))}, this command "
        f"{_show(getattr(asked, name))}"
        for name in names
        if name not in MAY_CHANGE and getattr(saved, name) != getattr(asked, name)
    ]
    if changes:
        command = quoted("bayesprune", "run", "--resume", "--out", folder)
        raise RunFolderError(
            f"{folder} holds a run with other settings, and is left as it is:\n" + "\n".join(changes) + "\n"
            f"To continue it, leave these out: {command}\n"
            "For the new settings, choose another folder with --out."
        )
    return replace(saved, **{name: getattr(asked, name) for name in names if name in MAY_CHANGE})


def versions() -> dict[str, str]:
    """Versions of what decides the result, by package."""
    found = {"bayesprune": bayesprune.__version__, "python": platform.python_version()}
    for package in ("torch", "pyro-ppl", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={number:g}" for name, number in value.items())
    return "the program's own" if value is None else str(value)
