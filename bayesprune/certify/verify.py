"""verify(): everything that a certificate says, recomputed from the network and the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bayesprune.certify.certificate import Certificate
from bayesprune.certify.hashes import hash_of_network, hash_of_weights
from bayesprune.certify.losses import Loss, coverage_of, loss_from
from bayesprune.certify.paths import Candidate, parameters_of, rebuild
from bayesprune.certify.pvalues import PValue, p_value_from
from bayesprune.certify.record import Question, first_failed, sparsity
from bayesprune.certify.rows import EACH, NONE, ONCE, CalibrationRows
from bayesprune.certify.rules import Rule, level_at, rule_from
from bayesprune.certify.scoring import Scored, outputs_of, p_values, score, threads_of
from bayesprune.certify.signing import signed_by
from bayesprune.certify.size import shapes_of, size_of, smaller
from bayesprune.certify.statement import ASSUMES, statement_of
from bayesprune.certify.verification import Check, Verification
from bayesprune.errors import CertificateError
from bayesprune.likelihoods.parts import Part
from bayesprune.rows import Inputs
from bayesprune.svi.threads import using_threads

SAME = 1e-6
"""Relative difference up to which a recomputed number is the same one: other machines round otherwise."""
ROUNDED = 2e-5
"""Difference of a level that is written in steps of 1e-5."""


def verify(
    certificate: Certificate | str | Path,
    network: nn.Module,
    rows: Any,
    *,
    reference: nn.Module | None = None,
    loss: Loss | None = None,
    public_key: str | Path | None = None,
    target: str = "labels",
    batch_size: int = 250,
) -> Verification:
    """Recompute a certificate.

    Hashes, size, risk and p-value of the certified network, the sentence, and what the rule makes of the
    p-values are always recomputed. The other candidates' p-values are too where the reference network is
    given and the path can be made from it again; else they are taken as written. What no computation can
    show, such as that the rows were held out, is somebody's word. Each such thing has a line of its own in
    the answer.

    Args:
        certificate: or its file.
        network: that it is said to be about.
        rows: of calibration, as they were: x, or (x, y).
        reference: the network that was pruned; needed for losses that compare with it.
        loss: where the certificate's is somebody's own.
        public_key: PEM file of whoever is to have signed.
        target: under which name rows that are a dict have the labels.
        batch_size: rows at a time.

    Returns:
        The answer, true or false as a boolean, with its reasons.

    Raises:
        CertificateError: the file is damaged, or what is given cannot be compared with it.
    """
    held = certificate if isinstance(certificate, Certificate) else Certificate.read(certificate)
    claims = _Claims.of(held.record, loss)
    copies = held.record["calibration"]["repeats"]
    calibration = CalibrationRows.of(rows, ONCE if copies == ONCE else EACH, target)
    checks = [*_signature(held, public_key), *claims.on_paper()]
    if claims.position is None:
        return Verification((*checks, Check("certified", False, "it certifies no network")))
    checks += claims.hashes(network, calibration, reference)
    if all(check.holds is not False for check in checks):
        with using_threads(threads_of(network, calibration.x, batch_size)):
            checks += claims.recomputed(network, calibration, reference, batch_size)
    return Verification((*checks, *claims.as_written(calibration)))


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
        self.output: Part = record.get("output")
        self.asked = Question(self.alpha, self.delta, loss, p_value, rule, self.output)
        self.all_recomputed = False

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
        written = self.record["calibration"]
        right = rows.sha256 == written["sha256"] and len(rows) == self.rows
        why = f"the {self.rows:,} rows" if right else "other rows than those it rests on"
        if right and written["repeats"] != ONCE and rows.repeats != written["repeats"]:
            some, none = "some equal an earlier one", "none equals an earlier one"
            seen, said = (none, some) if rows.repeats == NONE else (some, none)
            right, why = False, f"{seen}, and the certificate says that {said}"
        found = [Check("rows", right, why)]
        if not right:
            return found
        found.append(self._network(network, rows.x[:2]))
        if reference is not None:
            kept = self.record["reference"]
            is_it = kept["sha256"] == hash_of_network(reference, rows.x[:2])
            is_it = is_it and parameters_of(reference) == kept["parameters"]
            found.append(
                Check("reference", is_it, "the network that was pruned" if is_it else "another network")
            )
        if found[-1].holds and found[1].holds:
            found.append(self._size(network, reference, rows.x[:2]))
        return found

    def _network(self, network: nn.Module, example: Inputs) -> Check:
        """Weights, and what is computed with them."""
        assert self.position is not None
        written = self.record["network"]["sha256"]
        if hash_of_weights(network) != self.path[self.position]["weights_sha256"]:
            return Check("network", False, "other weights than the certified ones")
        if written is None:
            why = "the certificate binds its weights, and not what is computed with them"
            return Check("network", False, f"{why}: that could not be written down")
        if hash_of_network(network, example) != written:
            why = (
                "the certified weights, and another computation with them: a layer, an operation or a "
                "constant differs. Give the network as bp.load gives it"
            )
            return Check("network", False, why)
        return Check("network", True, "the certified weights, and the certified computation with them")

    def _size(self, network: nn.Module, reference: nn.Module | None, example: Inputs) -> Check:
        """What became smaller."""
        written, before = self.record["network"], self.record["reference"]
        found = {**written, **size_of(network, example)}
        whole = before
        if reference is not None:
            found["shapes"] = shapes_of(reference, network)
            whole = {**before, **size_of(reference, example)}
        same = found == written and whole == before
        told = smaller(self.record).rstrip(".")
        rest = "" if reference is not None else "; the reference network's is taken as written"
        why = told + rest if same else "parameters, MACs or shapes are not what is written"
        return Check("size", same, why)

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
        whole = network if reference is None else reference
        outputs = outputs_of(whole, rows.x, batch_size, "reference", self.output)
        one = Candidate(self.path[self.position]["name"], lambda: network)
        alone = score(one, rows, outputs, self.loss, batch_size, self.output)
        candidates = None if reference is None else rebuild(self._recipes(), reference, rows.x[:2])
        if candidates is None:
            return [self._alone(alone), self._path_as_written(reference)]
        if len(candidates) != len(self.path):
            return [self._alone(alone), Check("path", False, "it has another number of candidates")]
        scored = [score(c, rows, outputs, self.loss, batch_size, self.output) for c in candidates]
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
            self._next(first_failed(scored, decision, self.asked)),
        ]

    def _next(self, found: dict[str, Any] | None) -> Check:
        """What the first candidate that failed would have needed."""
        written = self.record["next"]
        same = (found is None) == (written is None)
        if found is not None and written is not None:
            close = (found["alpha"] is None) == (written["alpha"] is None) and (
                found["alpha"] is None or abs(found["alpha"] - written["alpha"]) <= ROUNDED
            )
            same = close and all(found[key] == written[key] for key in ("candidate", "rows"))
        self.all_recomputed = True
        why = "what the first that failed would have needed" if same else "not what is written"
        return Check("next", same, why)

    def as_written(self, rows: CalibrationRows) -> list[Check]:
        """What no network and no rows can show, and what could not be computed here."""
        said = self.record["calibration"]
        found = [Check("held out", None, f"taken as written: {said['held_out']}", word=True)]
        if said["repeats"] != NONE:
            why = (
                "rows that equal an earlier one were left out, as copies of one draw"
                if said["repeats"] == ONCE
                else "rows that equal an earlier one count, each as a draw of its own"
            )
            found.append(Check("repeats", None, f"taken as written: {why}", word=True))
        if not self.all_recomputed:
            found.append(Check("next", None, "taken as written: it rests on the candidate that failed first"))
        why = "taken as written: names of the path and its candidates, versions, date"
        return [*found, Check("names", None, why, word=True)]

    def _recipes(self) -> list[dict[str, Any]]:
        return [dict(entry["recipe"]) for entry in self.path]

    def _alone(self, scored: Scored) -> Check:
        """The certified network's own risk and p-value."""
        assert self.position is not None
        rows = self.rule.decide(lambda some: self.written, len(self.path), self.rows, self.delta).rows
        p = self.loss.p_value(scored.scores.on(rows), self.alpha, self.p_value)
        same = self._agrees(self.position, scored, rows, p)
        passes = p <= level_at(self.rule, self.position, self.written, self.order, self.delta)
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
        found = [p, coverage_of(tested), sparsity(scored.left, parameters), risk]
        for key, values in self.loss.details(tested, self.alpha, self.p_value).items():
            written += [np.nan if value is None else value for value in entry[key]]
            found += [np.nan if value is None else value for value in values]
        close = bool(np.isclose(written, found, rtol=SAME, atol=1e-12, equal_nan=True).all())
        counts = (entry["parameters"], entry["parameters_left"]) == (scored.held, scored.left)
        return close and counts and entry["weights_sha256"] == scored.sha256

    def _path_as_written(self, reference: nn.Module | None) -> Check:
        why = (
            "the path was of given networks, which no file can make again"
            if reference is not None
            else "without the reference network the other candidates cannot be made again"
        )
        return Check("path", None, f"{why}; their p-values are taken as written")
