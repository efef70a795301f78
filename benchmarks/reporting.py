"""How benchmarks write what they found: with machine, versions, date and the command."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bayesprune.files import write_atomically


def write_results(path: Path, arguments: dict[str, Any], results: Any, quiet: bool = False) -> None:
    """Write one benchmark's results as JSON; of paths in the command only the names."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    record = {
        "command": " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *words]),
        "arguments": {name: value for name, value in arguments.items() if not isinstance(value, Path)},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("bayesprune", "torch", "pyro-ppl", "numpy")},
        "results": results,
    }
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    if not quiet:
        print(f"written to {path}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
