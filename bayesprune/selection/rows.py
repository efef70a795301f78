"""The rows that rules look at: checked against the network that is to be pruned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bayesprune.errors import SelectionError
from bayesprune.gated.rows import check_targets, running
from bayesprune.likelihoods import Likelihood
from bayesprune.rows import Inputs, Pair, rows_from
from bayesprune.selection.subject import Subject
from bayesprune.structure.running import evaluating


def inputs_of(subject: Subject, rows: Any, rule: str, least: int = 2) -> Inputs:
    """(rows, ...), the inputs that a rule looks at: its own, else the subject's example.

    Args:
        subject: what is pruned.
        rows: the rule's own, as ``fit`` takes them, with targets or without.
        rule: its name, for messages.
        least: how many it takes.

    Raises:
        SelectionError: there are none, or too few.
        DataError: they are no rows, not whole, or not like the example.
    """
    given = subject.rows if rows is None else rows
    x = None if given is None else rows_from(given, rule, targets=False, form=subject.form).tensors()[0]
    if x is None or len(x) < least:
        raise SelectionError(
            f"{rule} looks at activations, at {0 if x is None else len(x)} rows: give it rows= (rows, ...) "
            f"of inputs, at least {least} and better some hundreds, or such an example."
        )
    return x


def pairs_of(subject: Subject, likelihood: Likelihood, rows: Any, targets: Any, rule: str) -> Pair:
    """(rows, ...) each, the inputs and targets on which a rule measures losses.

    Args:
        subject: what is pruned.
        likelihood: how outputs explain targets.
        rows: inputs.
        targets: of the same rows.
        rule: its name, for messages.

    Raises:
        DataError: they are none, not whole, or not like the example.
        LikelihoodError: targets that the likelihood cannot score.
    """
    form = replace(subject.form, target=likelihood.target)
    x, y = rows_from((rows, targets), rule, form=form).tensors()
    assert y is not None
    device = next(subject.network.parameters()).device
    few = x[:2].to(device)
    with evaluating(subject.network):
        outputs = running(lambda: likelihood.part(subject.network(few), len(few)), few, rule)
    check_targets(likelihood, outputs, y.to(device), rule)
    return x, y
