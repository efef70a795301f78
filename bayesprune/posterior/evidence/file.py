"""Price and evidence as a JSON file, as a run leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesprune.errors import PosteriorError
from bayesprune.files import read_json, write_json
from bayesprune.posterior.evidence.table import EvidenceTable
from bayesprune.schema import Items, Number, Record, Table, Text, check, nullable

EVIDENCE = "evidence.json"
REMEDY = "It is no table of price and evidence, or was changed; delete it, or run the program again."
NUMBERS = ("inclusion", "price", "estimate", "estimate_error", "exact", "exact_error")

NATS = Items(nullable(Number(-1e30, 1e30)))
TABLE = Record(
    {
        "group": Items(Text()), "unit": Items(Number(0, 2**53, whole=True)), **dict.fromkeys(NUMBERS, NATS),
        "inclusion": Items(nullable(Number(0, 1))), "removed": Table(Number(0, 2**53)), "conditions": Text(),
    }
)  # fmt: skip
"""What the file holds."""


def write_evidence(table: EvidenceTable, path: str | Path) -> None:
    """Write a table, atomically.

    Args:
        table: of ``evidence``.
        path: the file.
    """
    content: dict[str, Any] = {"group": table.group.tolist(), "unit": table.unit.tolist()}
    for name in NUMBERS:
        content[name] = [value if np.isfinite(value) else None for value in getattr(table, name).tolist()]
    content |= {"removed": dict(table.removed), "conditions": table.conditions, "unit_of_numbers": "nats"}
    write_json(path, content, indent=None)


def read_evidence(path: str | Path) -> EvidenceTable:
    """Read what ``write_evidence`` wrote.

    Args:
        path: the file.

    Returns:
        The table; what was not asked for is NaN again.

    Raises:
        PosteriorError: the file is missing, truncated, or was changed.

    Example:
        >>> import tempfile
        >>> from bayesprune.posterior.evidence import EvidenceTable
        >>> one = np.array([1.0])
        >>> gains = dict(inclusion=one, price=one, estimate=one, estimate_error=one, exact=one * np.nan)
        >>> table = EvidenceTable(np.array(["a"]), np.array([3]), **gains, exact_error=one, removed={},
        ...     conditions="")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_evidence(table, Path(folder) / EVIDENCE)
        ...     float(read_evidence(Path(folder) / EVIDENCE).exact[0])
        nan
    """
    content = read_json(path, PosteriorError)
    check(content, TABLE, path, PosteriorError, REMEDY)
    numbers = {name: _numbers(content[name]) for name in NUMBERS}
    group, unit = np.array(content["group"], dtype=str), np.array(content["unit"], dtype=np.int64)
    table = EvidenceTable(
        group, unit, **numbers, removed=dict(content["removed"]), conditions=content["conditions"]
    )
    if len({len(column) for column in (group, unit, *numbers.values())}) > 1:
        raise PosteriorError(f"{path}: its columns differ in length. {REMEDY}")
    return table


def _numbers(values: list[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
