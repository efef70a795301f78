"""The history of a fit as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bayesprune.svi.result import Epoch


def describe_history(history: Sequence[Epoch]) -> str:
    """The history as a table for a terminal: epoch, ELBO, units, undecided gates.

    Args:
        history: of a fit.

    Returns:
        One line an epoch, under a heading.
    """
    names = ("epoch", "ELBO (nats)", "NLL a row", "params %", "MACs %", "undecided", "units")
    lines = ["{:>5} {:>14} {:>10} {:>9} {:>7} {:>10}  {}".format(*names)]
    for e in history:
        size = f"{e.parameters_percent:9.2f} {e.macs_percent:7.2f} {e.undecided:10d}"
        units = "-".join(map(str, e.kept.values()))
        lines.append(f"{e.epoch:5d} {e.elbo:14,.0f} {e.nll:10.4f} {size}  {units}")
    return "\n".join(lines)
