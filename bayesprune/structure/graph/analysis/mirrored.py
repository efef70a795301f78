"""What was found in one mode's graph, said of its twin in the other mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, fx

from bayesprune.structure.graph.capture.twins import Twins, twins
from bayesprune.structure.graph.rules.call import Findings, Read

Value = TypeVar("Value")


def mirrored(training: fx.GraphModule, evaluation: fx.GraphModule, findings: Findings) -> Findings | None:
    """Findings of the graph of evaluation, where it is that of training but for what says the mode.

    No rule asks for the mode, so that units and the places where they are read are the same in both.

    Args:
        training: the graph that ``findings`` are of, with its rows.
        evaluation: the other one.
        findings: what was found, but for residual sections, which hold what only training counts.

    Returns:
        Findings with nodes of ``evaluation``; None where the graphs differ by more, or where integers that
        rules may have looked at depend on the mode.
    """
    pairs = twins(training, evaluation)
    if pairs is None or _positions(findings, pairs):
        return None
    of, name = pairs.of, {node.name: twin.name for node, twin in pairs.of.items()}
    return replace(
        findings,
        reads=[_read(read, of) for read in findings.reads],
        norms=[_read(norm, of) for norm in findings.norms],
        selected={(of[node], arg, at): where for (node, arg, at), where in findings.selected.items()},
        refilled={(of[node], arg, at): where for (node, arg, at), where in findings.refilled.items()},
        rows={name[value]: place for value, place in findings.rows.items() if value in name},
        pads=_of(findings.pads, of),
        expanded=_of(findings.expanded, of),
        of=_of(findings.of, of),
        sizes=_of(findings.sizes, of),
        constants=_of(findings.constants, of),
        group_counts=_of(findings.group_counts, of),
        branches={},
        mirrored=True,
    )


def _positions(findings: Findings, pairs: Twins) -> bool:
    """Whether integers or truth values depend on what says the mode."""
    return any(isinstance(findings.constants.get(node), Tensor) for node in pairs.told)


def _of(found: Mapping[fx.Node, Value], twin: Mapping[fx.Node, fx.Node]) -> dict[fx.Node, Value]:
    return {twin[node]: value for node, value in found.items() if node in twin}


def _read(read: Read, twin: Mapping[fx.Node, fx.Node]) -> Read:
    return replace(read, node=twin[read.node], source=twin[read.source])
