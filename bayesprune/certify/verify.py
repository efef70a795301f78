"""verify(): everything that a certificate says, recomputed from the network and the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bayesprune.certify.certificate import Certificate
from bayesprune.certify.hashes import hash_of_network
from bayesprune.certify.losses import Loss, coverage_of, loss_from
from bayesprune.certify.paths import Candidate, parameters_of, rebuild
from bayesprune.certify.pvalues import PValue, p_value_from
from bayesprune.certify.rows import CalibrationRows
from bayesprune.certify.rules import Rule, rule_from
from bayesprune.certify.scoring import Scored, outputs_of, p_values, score
from bayesprune.certify.signing import signed_by
from bayesprune.certify.statement import ASSUMES, statement_of
from bayesprune.certify.verification import Check, Verification
from bayesprune.errors import CertificateError

SAME = 1e-6
"""Relative difference up to which a recomputed number is the same one: other machines round otherwise."""


def verify(
    certificate: Certificate | str | Path,
    network: nn.Module,
    rows: Any,
    *,
    reference: nn.Module | None = None,
    loss: Loss | None = None,
    public_key: str | Path | None = None,
    batch_size: int = 250,
) -> Verification:
    """Recompute a certificate.

    Hashes, risk and p-value of the certified network, the sentence, and what the rule makes of the p-values
    are always recomputed. The other candidates' p-values are too where the reference network is given and the
    path can be made from it again; else they are taken as written, and the answer says so.

    Args:
        certificate: or its file.
        network: that it is said to be about.
        rows: of calibration, as they were: x, or (x, y).
        reference: the network that was pruned; needed for losses that compare with it.
        loss: where the certificate's is somebody's own.
        public_key: PEM file of whoever is to have signed.
        batch_size: rows at a time.

    Returns:
        The answer, true or false as a boolean, with its reasons.

    Raises:
        CertificateError: the file cannot be read, or what is given cannot be compared with it.
    """
    held = certificate if isinstance(certificate, Certificate) else Certificate.read(certificate)
    calibration = CalibrationRows.of(rows)
    checks = _signature(held, public_key)
    try:
        claims = _Claims.of(held.record, loss)
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        return Verification(
            (*checks, Check("file", False, f"it cannot be read ({problem!r}): it was changed"))
        )
    checks += claims.on_paper()
    if claims.position is None:
        return Verification((*checks, Check("certified", False, "it certifies no network")))
    checks += claims.hashes(network, calibration, reference)
    if all(check.holds is not False for check in checks):
        checks += claims.recomputed(network, calibration, reference, batch_size)
    return Verification(tuple(checks))


def _signature(certificate: Certificate, public_key: str | Path | None) -> list[Check]:
    if public_key is None and "signature" not in certificate.record:
        return []
    return [Check("signature", *signed_by(certificate, public_key))]


class _Claims:
    """A certificate's record, read."""

    def __init__(self, record: dict[str, Any], loss: Loss, p_value: PValue, rule: Rule) -> None:
        self.record, self.loss, self.p_value, self.rule = record, loss, p_value, rule
        self.path: list[dict[str, Any]] = record["path"]
        self.position: int | None = record["certified"]
        self.alpha, self.delta = float(record["alpha"]), float(record["delta"])
        self.rows = int(record["calibration"]["rows"])
        self.order = np.array(record["order"], dtype=np.int64)
        self.written = np.array([entry["p_value"] for entry in self.path], dtype=np.float64)

    @staticmethod
    def of(record: dict[str, Any], own: Loss | None) -> _Claims:
        rule = rule_from(record["rule"])
        level = rule.level(len(record["path"]), float(record["delta"]))
        p_value = p_value_from(record["p_value"], level)
        return _Claims(record, loss_from(record["loss"], own), p_value, rule)

    # ---- without network and rows

    def on_paper(self) -> list[Check]:
        """What the record says of itself: levels, sentence, decision."""
        said = self.record["statement"] == statement_of(self.record, self.loss)
        said = said and self.record["assumes"] == ASSUMES
        levels = 0 < self.alpha < 1 and 0 < self.delta < 1
        suits = self.loss.zero_one or not self.p_value.zero_one
        return [
            Check("levels", levels, f"alpha {self.alpha:g}, delta {self.delta:g}"),
            Check("statement", said, "it says what the rest does" if said else "it says something else"),
            Check("p-value", suits, f"{self.p_value.name} for the loss {self.loss.name!r}"),
            self._decision(self.written, self.order),
        ]

    def _decision(self, p_values: np.ndarray[Any, Any], order: np.ndarray[Any, Any]) -> Check:
        path = list(range(len(p_values)))
        whole = (sorted(order.tolist()) if self.rule.orders else order.tolist()) == path
        passed = self.rule.certified(p_values, order, self.delta) if whole else np.zeros(0)
        as_written = whole and passed.tolist() == [entry["certified"] for entry in self.path]
        left = [entry["parameters_left"] for entry in self.path]
        best = min(np.flatnonzero(passed), key=lambda i: (left[i], -i), default=None) if whole else None
        fits = as_written and best == self.position
        why = "the sparsest that the rule certifies" if fits else "the rule does not lead to what is written"
        return Check("decision", bool(fits), why)

    # ---- with them

    def hashes(self, network: nn.Module, rows: CalibrationRows, reference: nn.Module | None) -> list[Check]:
        """Whether network, rows and reference are those that the certificate speaks of."""
        assert self.position is not None
        digest, entry = hash_of_network(network), self.path[self.position]
        same = digest == self.record["network"] == entry["sha256"]
        right = rows.sha256 == self.record["calibration"]["sha256"] and len(rows) == self.rows
        found = [
            Check(
                "network", same, "the certified weights" if same else "other weights than the certified ones"
            ),
            Check("rows", right, f"the {self.rows:,} rows" if right else "other rows than those it rests on"),
        ]
        if reference is not None:
            kept = self.record["reference"]
            is_it = hash_of_network(reference) == kept["sha256"]
            is_it = is_it and parameters_of(reference) == kept["parameters"]
            found.append(
                Check("reference", is_it, "the network that was pruned" if is_it else "another network")
            )
        return found

    def recomputed(
        self, network: nn.Module, rows: CalibrationRows, reference: nn.Module | None, batch_size: int
    ) -> list[Check]:
        """Risks, p-values and decision, computed anew."""
        if self.loss.comparing and reference is None:
            raise CertificateError(
                f"The loss {self.loss.name!r} compares with the reference network: give it too "
                "(reference=, or --reference FOLDER)."
            )
        if self.loss.labelled and rows.y is None:
            raise CertificateError(f"The loss {self.loss.name!r} needs labels: give rows as (x, y).")
        assert self.position is not None
        outputs = outputs_of(network if reference is None else reference, rows.x, batch_size, "reference")
        one = Candidate(self.path[self.position]["name"], lambda: network)
        alone = score(one, rows, outputs, self.loss, batch_size)
        candidates = None if reference is None else rebuild(self._recipes(), reference, rows.x[:2])
        if candidates is None:
            return [self._alone(alone), self._taken_as_written(reference)]
        scored = [score(c, rows, outputs, self.loss, batch_size) for c in candidates]
        decision = self.rule.decide(
            lambda some: p_values(scored, some, self.loss, self.alpha, self.p_value),
            len(scored), len(rows), self.delta,
        )  # fmt: skip
        agree = [self._agrees(i, s, decision.rows, decision.p_values[i]) for i, s in enumerate(scored)]
        wrong = [i for i, same in enumerate(agree) if not same]
        why = f"{len(scored)} candidates made and tested again" + (f", {len(wrong)} differ" if wrong else "")
        return [
            self._alone(alone),
            Check("path", not wrong, why),
            self._decision(decision.p_values, decision.order),
        ]

    def _recipes(self) -> list[dict[str, Any]]:
        return [dict(entry["recipe"]) for entry in self.path]

    def _alone(self, scored: Scored) -> Check:
        """The certified network's own risk and p-value."""
        assert self.position is not None
        rows = self.rule.decide(lambda some: np.ones(1), 1, self.rows, self.delta).rows
        p = self.loss.p_value(scored.scores.on(rows), self.alpha, self.p_value)
        same = self._agrees(self.position, scored, rows, p)
        passes = p <= self.rule.level(len(self.path), self.delta)
        why = f"risk {self.loss.risk(scored.scores.on(rows)):.6g}, p-value {p:.3g}"
        return Check("risk", same and passes, why + ("" if same else ": not what is written"))

    def _agrees(self, position: int, scored: Scored, rows: np.ndarray[Any, Any], p: float) -> bool:
        entry, tested = self.path[position], scored.scores.on(rows)
        risk, parameters = self.loss.risk(tested), int(self.record["reference"]["parameters"])
        written = [
            entry["p_value"],
            entry["coverage"],
            entry["sparsity"],
            np.nan if entry["risk"] is None else entry["risk"],
        ]
        found = [p, coverage_of(tested), 1 - scored.left / parameters, risk]
        close = np.isclose(written, found, rtol=SAME, atol=1e-12, equal_nan=True)
        return (
            bool(close.all()) and entry["parameters_left"] == scored.left and entry["sha256"] == scored.sha256
        )

    def _taken_as_written(self, reference: nn.Module | None) -> Check:
        why = (
            "the path was of given networks, which no file can make again"
            if reference is not None
            else "without the reference network the other candidates cannot be made again"
        )
        return Check("path", None, f"{why}; their p-values are taken as written")
