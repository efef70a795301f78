"""What a run says at its end: a few lines to read, and what to do next."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bayesprune.cli.streams import in_python, quoted

REPORT = "report.html"
ONNX_NEEDS = ("onnx", "onnxscript", "onnxruntime")
SCORES = {
    "test_error_percent": ("Test error", " %"),
    "test_rmse": ("Test RMSE", ""),
    "test_deviance": ("Test deviance", ""),
}


def summary(result: dict[str, Any], folder: Path, own: bool = False, seconds: float | None = None) -> str:
    """The result of a run in a few lines.

    Args:
        result: content of `result.json`.
        folder: the run's folder.
        own: whether the program is the user's own file.
        seconds: that the whole command took; learning is a part of them.

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
        ("Gates", _gates(result)),
        ("Time", _times(result["seconds"], seeds, seconds)),
        ("Files", str(folder)),
    ]
    if seeds > 1:
        heading += f", mean ± standard deviation over {seeds} seeds"
    lines = [heading, *(f"  {label:<13} {text}" for label, text in rows)]
    lines += [*_cost_of_pruning(result), *_next(result, folder, own)]
    return "\n".join(lines)


def _figure(result: dict[str, Any], key: str, unit: str) -> str:
    spread = f" ± {result[f'{key}_std']:.2f}" if f"{key}_std" in result else ""
    return f"{result[key]:.2f}{spread}{unit}"


def _kept(result: dict[str, Any], what: str) -> str:
    share = _figure(result, f"{what}_kept_percent", " %")
    return f"{share} kept ({result[f'{what}_kept']:,.0f} of {result[f'dense_{what}']:,})"


def _units(result: dict[str, Any]) -> str:
    names, kept, sizes = result["groups"], result["architecture"], result["dense_architecture"]
    spreads = result.get("architecture_std", [0] * len(names))
    groups = zip(names, kept, spreads, sizes, strict=True)
    return ", ".join(f"{name} {_count(units, spread)} of {size}" for name, units, spread, size in groups)


def _gates(result: dict[str, Any]) -> str:
    undecided, rounded = result["undecided_gates"], result["rounded_gates"]
    if undecided:
        number = _count(undecided, result.get("undecided_gates_std", 0))
        return f"{number} undecided (0.01 < inclusion probability < 0.99): more --epochs may settle them"
    number = _count(rounded, result.get("rounded_gates_std", 0))
    return "all decided" + (f", {number} by rounding: more --epochs would settle them" if rounded else "")


def _count(mean: float, spread: float) -> str:
    """A number of units: whole for one seed and where all agree, else mean ± standard deviation."""
    return f"{mean:,.1f} ± {spread:.1f}" if spread else f"{mean:,.0f}"


def _times(learning: float, seeds: int, command: float | None) -> str:
    """What learning took, and the command, which draws, weighs units and writes its report besides."""
    learnt = f"{_time(learning)} to learn{' a seed' if seeds > 1 else ''}"
    return learnt if command is None else f"{learnt}, {_time(command)} in all"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


RIVALS = {"pruned": "pruned", "dense": "dense", "small_dense": "small dense", "magnitude": "magnitude"}


def _cost_of_pruning(result: dict[str, Any]) -> list[str]:
    """What the pruned network was compared with, where it was: a line each."""
    baseline = result.get("baseline")
    if baseline is None:
        return []
    if "refused" in baseline:
        return ["What the pruning cost", f"  not compared: {baseline['refused']}"]
    key = next((key for key in SCORES if key in result), "test_nll")
    label, unit = SCORES.get(key, ("Test NLL", " nats"))
    heads = [("", label, "Parameters", "MACs", "Processor time", "By the clock")]
    kept = {f"{what}_percent{end}": result.get(f"{what}_kept_percent{end}") for what in ("parameters", "macs")
            for end in ("", "_std")}  # fmt: skip
    scores = {name: result[name] for name in (key, f"{key}_std") if name in result}
    pruned = {**{name: value for name, value in kept.items() if value is not None}, **scores}
    table = [*heads, *(_rival(name, baseline[name] | (pruned if name == "pruned" else {}), key, unit)
                       for name in RIVALS if "refused" not in baseline[name])]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    absent = [
        f"  {RIVALS[name]}: {baseline[name]['refused']}" for name in RIVALS if "refused" in baseline[name]
    ]
    return ["What the pruning cost", *(f"  {line}".rstrip() for line in lines), *absent]


def _rival(name: str, figures: dict[str, Any], key: str, unit: str) -> tuple[str, ...]:
    processor = "processor_seconds"
    return (
        RIVALS[name],
        _figure(figures, key, unit),
        _figure(figures, "parameters_percent", " %"),
        _figure(figures, "macs_percent", " %"),
        _figure(figures, processor, " s") if processor in figures else "not known",
        _figure(figures, "seconds", " s"),
    )


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _next(result: dict[str, Any], folder: Path, own: bool) -> list[str]:
    source = folder / f"seed-{result['seeds'][0]['seed']}" if len(result["seeds"]) > 1 else folder
    program = str(result["program"])
    absent = [name for name in ONNX_NEEDS if importlib.util.find_spec(name) is None]
    first = f"    (first: pip install {' '.join(absent)})" if absent else ""
    steps = [
        f"  read it:    {folder / REPORT}",
        f"  use it:     import bayesprune as bp; network = bp.load({in_python(source)})",
        f"  ship it:    {quoted('bayesprune', 'export', source, program + '.onnx')}{first}",
        f"  certify it: {quoted('bayesprune', 'certify', source)}",
    ]
    copy = quoted("bayesprune", "copy", program, "mine.py")
    return ["Next", *steps, *([] if own else [f"  change it:  {copy}"])]
