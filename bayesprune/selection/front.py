"""Error against cost as numbers, apart from the networks that they are of; and as a JSON file of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesprune.errors import PosteriorError
from bayesprune.files import read_json, write_json
from bayesprune.schema import Items, Number, Record, Text, check

Array = np.ndarray[Any, Any]
FRONT = "front.json"
REMEDY = "It is no front of error against cost, or was changed; delete it, or run the program again."
ENDS, POINTS = ("cost_interval", "error_interval"), ("cost", "error", "mask_cost", "mask_error")
TOLD = ("cost_name", "error_name", "conditions")
FIGURE, PERCENT = Number(-1e30, 1e30), Number(0, 1e6)
SHAPE = Record(
    {
        **{name: Items(PERCENT if "cost" in name else FIGURE, 1) for name in POINTS},
        "cost_interval": Items(Items(PERCENT, 2), 1), "error_interval": Items(Items(FIGURE, 2), 1),
        "cost_name": Text(("macs", "parameters")), "error_name": Text(), "conditions": Text(),
    }
)  # fmt: skip
"""What the file holds."""


@dataclass(frozen=True, eq=False)
class FrontFigures:
    """Error against cost, from one fit. Costs are percent of the dense network's.

    Attributes:
        cost: (points,), mean over draws of masks.
        cost_interval: (points, 2), which holds 90 % of them.
        error: (points,), mean over draws of masks, weights and rows.
        error_interval: (points, 2), which holds 90 % of them.
        mask_cost: (points,), of the mask of each point.
        mask_error: (points,), of it, at the posterior means of weights where they have a posterior.
        cost_name: ``"macs"`` or ``"parameters"``.
        error_name: what the likelihood's score is.
        conditions: what all of it is conditional on.
    """

    cost: Array
    cost_interval: Array
    error: Array
    error_interval: Array
    mask_cost: Array
    mask_error: Array
    cost_name: str
    error_name: str
    conditions: str

    def __len__(self) -> int:
        return len(self.cost)

    def __str__(self) -> str:
        """A line for each point."""
        lines = [f"{self.cost_name + ' % (90 %)':30}{self.error_name + ' (90 %)':32}the mask"]
        for n in range(len(self)):
            cost, error = self.cost_interval[n], self.error_interval[n]
            lines.append(
                f"{self.cost[n]:7.2f} ({cost[0]:.2f} – {cost[1]:.2f})".ljust(30)
                + f"{self.error[n]:8.3f} ({error[0]:.3f} – {error[1]:.3f})".ljust(32)
                + f"{self.mask_error[n]:.3f} at {self.mask_cost[n]:.2f} %"
            )
        return "\n".join([*lines, self.conditions])

    @property
    def undominated(self) -> Array:
        """(points,), bool: no other point has less of cost and of error, by their means."""
        worse = (self.cost[:, None] >= self.cost) & (self.error[:, None] >= self.error)
        equal = (self.cost[:, None] == self.cost) & (self.error[:, None] == self.error)
        return np.asarray(~(worse & ~equal).any(1))


def write_front(front: FrontFigures, path: str | Path) -> None:
    """Write the numbers of a front, atomically; its masks and networks are left out.

    Args:
        front: of ``bp.pareto``.
        path: the file.

    Raises:
        PosteriorError: some error is not finite.
    """
    content: dict[str, Any] = {name: getattr(front, name).tolist() for name in (*POINTS, *ENDS)}
    if not all(np.isfinite(getattr(front, name)).all() for name in (*POINTS, *ENDS)):
        raise PosteriorError("The front of error against cost has errors that are not finite.")
    told = {name: getattr(front, name) for name in TOLD}
    write_json(path, content | told, indent=None)


def read_front(path: str | Path) -> FrontFigures:
    """Read what ``write_front`` wrote.

    Args:
        path: the file.

    Returns:
        The numbers, which ``bp.plots.plot_pareto`` draws.

    Raises:
        PosteriorError: the file is missing, truncated, or was changed.

    Example:
        >>> import tempfile
        >>> one, ends = np.array([50.0]), np.array([[40.0, 60.0]])
        >>> front = FrontFigures(one, ends, one, ends, one, one, "macs", "rmse", "")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_front(front, Path(folder) / FRONT)
        ...     read_front(Path(folder) / FRONT).cost_interval.tolist()
        [[40.0, 60.0]]
    """
    content = read_json(path, PosteriorError)
    check(content, SHAPE, path, PosteriorError, REMEDY)
    lengths = {len(content[name]) for name in (*POINTS, *ENDS)}
    if len(lengths) > 1 or any(len(pair) != 2 for name in ENDS for pair in content[name]):
        raise PosteriorError(f"{path}: its columns differ in length. {REMEDY}")
    numbers: dict[str, Any] = {name: np.array(content[name], dtype=np.float64) for name in (*POINTS, *ENDS)}
    return FrontFigures(**numbers, **{name: content[name] for name in TOLD})
