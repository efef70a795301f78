"""Whether limits in milliseconds and megabytes can be reached, and whether they ask for anything."""

from __future__ import annotations

import warnings

from bayesprune.errors import BudgetWarning, PriorError
from bayesprune.priors.cost_gates import DENSE, LEAST, CostGates
from bayesprune.priors.measured import MB
from bayesprune.structure import minimal_masks
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.kinds import least_sizes


def limit_memory_(gates: CostGates, network: GraphNetwork, least: int = 1) -> None:
    """Give the model of memory its budget: the limit's share of what the dense network takes.

    Args:
        gates: whose ``budget`` and ``seen`` are set.
        network: the dense network.
        least: units that every group keeps.

    Raises:
        PriorError: the smallest network takes more.

    Warns:
        BudgetWarning: the dense one takes no more.
    """
    measured = gates.measured
    assert measured is not None and gates.budget is not None
    dense = measured.dense_bytes / MB
    keep = minimal_masks(network, least_sizes(gates.kinds, least) or least)
    smallest = float(measured.measure(network, keep, only="memory_mb"))
    check_reachable(gates, "memory_mb", dense, smallest)
    if measured.limit("memory_mb") < dense:
        gates.budget[-1] = measured.limit("memory_mb") / dense
    else:
        gates.free_("memory_mb")


def check_reachable(gates: CostGates, kind: str, dense: float, smallest: float) -> None:
    """Note what the dense and the smallest network take, and complain where a limit does not lie in between.

    Args:
        gates: whose ``seen`` is set.
        kind: what is limited.
        dense: what the dense network takes, in the limit's unit.
        smallest: what the smallest network takes.

    Raises:
        PriorError: the smallest network takes more than the limit.

    Warns:
        BudgetWarning: the dense one takes no more.
    """
    measured = gates.measured
    assert measured is not None
    limit, row = measured.limit(kind), gates.seen[measured.kinds.index(kind)]
    known = bool(row[DENSE].isfinite())
    row[DENSE], row[LEAST] = dense, smallest
    asked, rows = f"Budget {kind}={limit:g}", f"{measured.batch} row{'s' * (measured.batch > 1)}"
    if dense <= limit and not known:
        warnings.warn(
            f"{asked} asks for nothing: the dense network takes {measured.told(kind, dense)} for {rows}. "
            "Lower it, or leave it out.",
            BudgetWarning,
            stacklevel=3,
        )
    elif dense > limit and smallest > limit:
        raise PriorError(
            f"{asked} cannot be met: the smallest network that the groups allow takes "
            f"{measured.told(kind, smallest)} for {rows}, and the dense one {measured.told(kind, dense)}. "
            "Ask for more, give a smaller batch=, or gate more groups (exclude= lists fewer), in smaller "
            "steps (multiple_of=)."
        )
