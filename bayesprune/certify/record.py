"""What a certificate says, put together from what was computed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from torch import nn

from bayesprune.certify.certificate import Certificate, versions
from bayesprune.certify.hashes import hash_of_network
from bayesprune.certify.losses import Loss, coverage_of
from bayesprune.certify.needed import needed
from bayesprune.certify.pvalues import PValue
from bayesprune.certify.rows import CalibrationRows
from bayesprune.certify.rules import Decision, Rule, level_at
from bayesprune.certify.scoring import Scored
from bayesprune.certify.shape import FORMAT, FORMAT_VERSION
from bayesprune.certify.size import shapes_of, size_of
from bayesprune.certify.statement import ASSUMES, statement_of
from bayesprune.errors import CertificateWarning, UnsupportedNetworkError
from bayesprune.likelihoods.parts import Part
from bayesprune.rows import Inputs


@dataclass(frozen=True)
class Question:
    """What was asked: the levels, what is bounded, and by which test and rule.

    Attributes:
        alpha: the risk that is allowed.
        delta: how often the guarantee may fail.
        loss: what is bounded.
        p_value: the test.
        rule: how many candidates are tested at once.
        output: which part of what the networks return is meant; None where they return one tensor.
    """

    alpha: float
    delta: float
    loss: Loss
    p_value: PValue
    rule: Rule
    output: Part = None


@dataclass(frozen=True)
class Found:
    """What was computed.

    Attributes:
        path_name: of the path.
        scored: its candidates, run.
        decision: of the rule.
        best: position of the certified candidate, or None.
        network: the certified one, or None.
    """

    path_name: str
    scored: Sequence[Scored]
    decision: Decision
    best: int | None
    network: nn.Module | None


def certificate_of(
    asked: Question, rows: CalibrationRows, held_out: str, reference: nn.Module, found: Found
) -> Certificate:
    """The certificate.

    Args:
        asked: levels, loss, test and rule.
        rows: of calibration.
        held_out: what is known of training, in words.
        reference: the network that was pruned.
        found: what was computed.
    """
    example, network = rows.x[:2], found.network
    whole = {"sha256": _bound(reference, example, "reference"), **size_of(reference, example)}
    record: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "statement": "",
        "assumes": ASSUMES,
        "alpha": asked.alpha,
        "delta": asked.delta,
        "loss": asked.loss.to_json(),
        "p_value": asked.p_value.to_json(),
        "rule": asked.rule.to_json(),
        **({} if asked.output is None else {"output": asked.output}),
        "calibration": {
            "rows": len(rows),
            "sha256": rows.sha256,
            "held_out": held_out,
            "repeats": rows.repeats,
        },
        "reference": whole,
        "certified": found.best,
        "network": None
        if network is None
        else {
            "sha256": _bound(network, example, "certified"),
            **size_of(network, example),
            "shapes": shapes_of(reference, network),
        },
        "path_name": found.path_name,
        "path": entries(found.scored, found.decision, asked, whole["parameters"]),
        "order": found.decision.order.tolist(),
        "next": first_failed(found.scored, found.decision, asked),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Certificate({**record, "statement": statement_of(record, asked.loss)})


def sparsest(decision: Decision, left: Sequence[int]) -> int | None:
    """Position of the certified candidate with the fewest numbers left, or None.

    Args:
        decision: of the rule.
        left: of each candidate, parameters that are not zero.
    """
    passed = np.flatnonzero(decision.certified).tolist()
    return min(passed, key=lambda position: (left[position], -position), default=None)


def entries(
    scored: Sequence[Scored], decision: Decision, asked: Question, parameters: int
) -> list[dict[str, Any]]:
    """What a certificate says of each candidate.

    Args:
        scored: the candidates.
        decision: of the rule.
        asked: levels, loss, test and rule.
        parameters: of the reference network.
    """
    found = []
    for candidate, p, passed in zip(scored, decision.p_values, decision.certified, strict=True):
        tested = candidate.scores.on(decision.rows)
        risk = asked.loss.risk(tested)
        found.append(
            {
                "name": candidate.name,
                "sparsity": sparsity(candidate.left, parameters),
                "parameters": candidate.held,
                "parameters_left": candidate.left,
                "risk": risk if np.isfinite(risk) else None,
                "coverage": coverage_of(tested),
                "p_value": float(p),
                "certified": bool(passed),
                "weights_sha256": candidate.sha256,
                "recipe": candidate.recipe,
                **asked.loss.details(tested, asked.alpha, asked.p_value),
            }
        )
    return found


def sparsity(left: int, parameters: int) -> float:
    """Share of the reference network's parameters that are gone or zero.

    Args:
        left: parameters of a candidate that are not zero.
        parameters: of the reference network; one without any is as sparse as it can be without pruning.
    """
    return 1 - left / parameters if parameters else 0.0


def first_failed(scored: Sequence[Scored], decision: Decision, asked: Question) -> dict[str, Any] | None:
    """The first candidate, in the order of the tests, that failed, and what it would have needed.

    Args:
        scored: the candidates.
        decision: of the rule.
        asked: levels, loss, test and rule.
    """
    for place in decision.order.tolist():
        level = level_at(asked.rule, place, decision.p_values, decision.order, asked.delta)
        if not decision.certified[place] and level > 0:  # at 0, it was never its turn
            scores = scored[place].scores.on(decision.rows)
            return {"candidate": place, **needed(scores, asked.loss, asked.alpha, level, asked.p_value)}
    return None


def _bound(network: nn.Module, example: Inputs, name: str) -> str | None:
    """The hash of what a network computes; None, with a warning, where that cannot be written down."""
    try:
        return hash_of_network(network, example)
    except UnsupportedNetworkError as problem:
        warnings.warn(
            f"What the {name} network computes cannot be written down, so that the certificate binds its "
            f"weights alone, and nobody else can verify it: {problem}",
            CertificateWarning,
            stacklevel=4,
        )
        return None
