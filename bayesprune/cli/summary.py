"""What a run says at its end: a few lines to read, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesprune.cli.streams import in_python, quoted

REPORT = "report.html"
SCORES = {
    "test_error_percent": ("Test error", " %"),
    "test_rmse": ("Test RMSE", ""),
    "test_deviance": ("Test deviance", ""),
}


def summary(result: dict[str, Any], folder: Path, own: bool = False) -> str:
    """The result of a run in a few lines.

    Args:
        result: content of `result.json`.
        folder: the run's folder.
        own: whether the program is the user's own file.

    Returns:
        Text for the terminal.
    """
    seeds = len(result["seeds"])
    heading = f"{result['program']} on {result['data']}, {_plural(result['epochs'], 'epoch')}"
    rows = [
        *((label, _figure(result, key, unit)) for key, (label, unit) in SCORES.items() if key in result),
        ("Parameters", _kept(result, "parameters")),
        ("MACs", _kept(result, "macs")),
        ("Units kept", _units(result)),
        ("Gates", _gates(result["undecided_gates"], result["rounded_gates"])),
        ("Time", _time(result["seconds"]) + (" a seed" if seeds > 1 else "")),
        ("Files", str(folder)),
    ]
    if seeds > 1:
        heading += f", mean ± standard deviation over {seeds} seeds"
    lines = [heading, *(f"  {label:<13} {text}" for label, text in rows), *_next(result, folder, own)]
    return "\n".join(lines)


def _figure(result: dict[str, Any], key: str, unit: str) -> str:
    spread = f" ± {result[f'{key}_std']:.2f}" if f"{key}_std" in result else ""
    return f"{result[key]:.2f}{spread}{unit}"


def _kept(result: dict[str, Any], what: str) -> str:
    share = _figure(result, f"{what}_kept_percent", " %")
    return f"{share} kept ({result[f'{what}_kept']:,.0f} of {result[f'dense_{what}']:,})"


def _units(result: dict[str, Any]) -> str:
    groups = zip(result["groups"], result["architecture"], result["dense_architecture"], strict=True)
    return ", ".join(f"{name} {kept:g} of {size}" for name, kept, size in groups)


def _gates(undecided: float, rounded: float) -> str:
    if undecided:
        return f"{undecided:g} undecided (0.01 < inclusion probability < 0.99): more --epochs may settle them"
    return "all decided" + (f", {rounded:,g} by rounding: more --epochs would settle them" if rounded else "")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _next(result: dict[str, Any], folder: Path, own: bool) -> list[str]:
    source = folder / f"seed-{result['seeds'][0]['seed']}" if len(result["seeds"]) > 1 else folder
    program = str(result["program"])
    steps = [
        f"  read it:    {folder / REPORT}",
        f"  use it:     import bayesprune as bp; network = bp.load({in_python(source)})",
        f"  ship it:    {quoted('bayesprune', 'export', source, program + '.onnx')}",
        f"  certify it: {quoted('bayesprune', 'certify', source)}",
    ]
    copy = quoted("bayesprune", "copy", program, "mine.py")
    return ["Next", *steps, *([] if own else [f"  change it:  {copy}"])]
