"""A monitor of a shipped certificate: it says when the risk has risen above what was certified."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bayesprune.certify.certificate import Certificate, canonical
from bayesprune.certify.hashes import hash_of_network
from bayesprune.certify.losses import Loss, Scores, Several, loss_from
from bayesprune.certify.monitor.bets import STAKES
from bayesprune.certify.monitor.kept import read_state, write_state
from bayesprune.certify.monitor.shape import FORMAT, MONITOR
from bayesprune.certify.monitor.watched import Watched
from bayesprune.certify.rows import EACH, CalibrationRows
from bayesprune.certify.scoring import outputs_of
from bayesprune.errors import CertificateError


@dataclass(frozen=True)
class Monitor:
    r"""The state of watching a certificate, after any number of new rows.

    For every risk that the certificate bounds, a capital of 1 is bet against its being at most alpha (and
    what is tolerated above); their mean is

    .. math:: E_t = \frac1K \sum_k E_{k,t}, \qquad
              P\big( \exists t : E_t \ge 1/\delta \big) \le \delta

    as long as every new row's risk, given the rows before, is at most what was certified. So it may be looked
    at after every row, for ever, and stopped whenever one likes. Once it is reached, the certificate is said
    to have expired, at that row, for good: of rows like these it says nothing any more. With the
    certificate's own delta: where new rows come from the source that it was made for, it is said with
    probability :math:`\delta_{\text{certificate}} + \delta` at most.

    The value is a state: ``observe`` and ``watch`` return the next one; ``write`` and ``Monitor.read`` keep
    it.

    Attributes:
        certificate: SHA-256 of all that it says.
        network: SHA-256 of the certified network.
        reference: of the network that was pruned; None where it could not be written down.
        calibration: SHA-256 of the calibration rows: to watch these is refused.
        output: which part of what the network returns is meant.
        delta: how often it may say so without need.
        risks: what is kept of each.
        rows: new rows so far, whether they count or not.
        batches: SHA-256 of each set of rows that ``watch`` was given, so that none is counted twice.
        highest: nats, the most that E ever was.
        expired_at: the row at which 1/δ was reached; None where it was not.

    Source:
        A. Podkopaev & A. Ramdas (2021), Tracking the risk of a deployed model and detecting harmful
        distribution shifts, arXiv 2110.06177; by bets: I. Waudby-Smith & A. Ramdas (2024), JRSS B 86, arXiv
        2010.09686; means of e-processes: V. Vovk & R. Wang (2021), Annals of Statistics 49.
    """

    certificate: str
    network: str | None
    reference: str | None
    calibration: str
    output: str | int | None
    delta: float
    risks: tuple[Watched, ...]
    rows: int = 0
    batches: tuple[str, ...] = ()
    highest: float = 0.0
    expired_at: int | None = None

    # ---- begun, and gone on with

    @staticmethod
    def of(certificate: Certificate, delta: float = 0.05, tolerance: float = 0.0) -> Monitor:
        """The state before the first new row.

        Args:
            certificate: that certifies a network.
            delta: how often the monitor may say without need that it has expired, in (0, 1).
            tolerance: how much above alpha is no harm yet, of every risk.

        Raises:
            CertificateError: it certifies nothing, or a level is out of range.
        """
        record = certificate.record
        if record["network"] is None:
            raise CertificateError("This certificate certifies no network: there is nothing to watch.")
        if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0.0 < delta < 1.0:
            raise CertificateError(f"delta={delta!r} must lie between 0 and 1, as 0.05.")
        risks = record["loss"].get("risks", [{"loss": record["loss"], "alpha": record["alpha"]}])
        allowed = isinstance(tolerance, int | float) and not isinstance(tolerance, bool) and tolerance >= 0
        if not allowed or any(risk["alpha"] + tolerance >= 1.0 for risk in risks):
            raise CertificateError(
                f"tolerance={tolerance!r}: give at least 0, and so little that every level is below 1."
            )
        return Monitor(
            hashlib.sha256(canonical(record)).hexdigest(),
            record["network"]["sha256"],
            record["reference"]["sha256"],
            record["calibration"]["sha256"],
            record.get("output"),
            float(delta),
            tuple(Watched(dict(risk["loss"]), risk["alpha"] + tolerance) for risk in risks),
        )

    def observe(self, scores: Scores, loss: Loss | None = None) -> Monitor:
        """The state after some more rows, in the order in which they came.

        Args:
            scores: what the certificate's loss made of them (``Loss.scores``).
            loss: the certificate's, where it is somebody's own.

        Raises:
            CertificateError: losses that are not finite, or not in [0, 1]; scores of another number of risks.
        """
        parts = getattr(scores, "parts", ()) or (scores,)
        if len(parts) != len(self.risks):
            raise CertificateError(f"scores= are of {len(parts)} risks, and {len(self.risks)} are watched.")
        for part in parts:
            if not bool(((part.losses >= 0) & (part.losses <= 1)).all()):
                raise CertificateError("scores= hold losses outside of [0, 1], or not finite.")
        own = dict(loss.risks) if isinstance(loss, Several) else {}
        named = {str(one.to_json()): one for one in own}
        watched, wealth = [], []
        for risk, part in zip(self.risks, parts, strict=True):
            level = loss_from(risk.loss, named.get(str(risk.loss), loss)).level(risk.alpha)
            after, grown = risk.after(part.losses, level)
            # between two rows that count for a risk its wealth stays as it is
            path = np.concatenate([[risk.log_wealth], grown])[np.cumsum(part.counted)]
            watched.append(after)
            wealth.append(path)
        together = np.logaddexp.reduce(wealth, 0) - math.log(len(wealth))  # (rows,), nats
        reached = np.flatnonzero(together >= -math.log(self.delta))
        expired_at = self.expired_at
        if expired_at is None and len(reached):
            expired_at = self.rows + int(reached[0]) + 1
        return replace(
            self,
            risks=tuple(watched),
            rows=self.rows + len(together),
            highest=max([self.highest, *together.tolist()]),
            expired_at=expired_at,
        )

    def watch(
        self,
        network: nn.Module,
        rows: Any,
        *,
        reference: nn.Module | None = None,
        loss: Loss | None = None,
        target: str = "labels",
        batch_size: int = 250,
    ) -> Monitor:
        """The state after the certified network was run on new rows.

        Args:
            network: the certified one.
            rows: in any form that ``certify`` takes, in the order in which they came; each counts.
            reference: the network that was pruned, for losses that compare with it.
            loss: the certificate's, where it is somebody's own.
            target: under which name rows that are a dict have the labels.
            batch_size: rows at a time.

        Raises:
            CertificateError: another network, the calibration rows, rows that were given before, labels or a
                reference network that are missing.
        """
        given = CalibrationRows.of(rows, EACH, target)
        chosen = self._loss(loss)
        digest = given.sha256
        self._check(network, given, digest, reference, chosen)
        outputs = outputs_of(network, given.x, batch_size, "certified", self.output)
        whole = (
            outputs
            if reference is None
            else outputs_of(reference, given.x, batch_size, "reference", self.output)
        )
        # not ``problems``: a stream may well hold no row of some class yet
        found = self.observe(chosen.scores(outputs, whole, given.y), loss)
        return replace(found, batches=(*self.batches, digest))

    def _loss(self, own: Loss | None) -> Loss:
        if len(self.risks) == 1:
            return loss_from(self.risks[0].loss, own)
        risks = [{"loss": risk.loss, "alpha": risk.alpha} for risk in self.risks]
        return loss_from({"name": Several.name, "risks": risks}, own)

    def _check(
        self, network: nn.Module, rows: CalibrationRows, digest: str, reference: nn.Module | None, loss: Loss
    ) -> None:
        wrong = []
        if loss.labelled and rows.y is None:
            wrong.append(f"The loss {loss.name!r} needs labels: give rows as (x, y).")
        if loss.comparing and reference is None:
            wrong.append(
                f"The loss {loss.name!r} compares with the network that was pruned: give reference=."
            )
        if self.network is None or hash_of_network(network, rows.x[:2]) != self.network:
            wrong.append("The network is not the one that was certified.")
        if (
            loss.comparing
            and reference is not None
            and hash_of_network(reference, rows.x[:2]) != self.reference
        ):
            wrong.append("The reference network is not the one that was pruned.")
        if digest == self.calibration:
            wrong.append("These are the calibration rows, which the certificate rests on: give new ones.")
        if digest in self.batches:
            wrong.append("These rows were counted already: give only rows that are new.")
        if wrong:
            raise CertificateError(" ".join(wrong))

    # ---- what it says

    @property
    def expired(self) -> bool:
        """Whether rows have shown, at some time, that the risk was above what was certified."""
        return self.expired_at is not None

    @property
    def e_value(self) -> float:
        """The capital now, from 1 at the start."""
        return math.exp(min(self._log_wealth, 700.0))

    @property
    def p_value(self) -> float:
        """Of the hypothesis that the certificate holds, at any time: 1 over the highest capital."""
        return math.exp(-max(0.0, self.highest))

    @property
    def running_risks(self) -> tuple[float, ...]:
        """The mean of each risk over the new rows; NaN where none counted."""
        return tuple(risk.risk for risk in self.risks)

    @property
    def lower_bounds(self) -> tuple[float, ...]:
        """A lower bound of each running risk, right at all times at once with probability 1 − δ.

        It holds whatever the risk does on the way, and is wider than what the bets need to know: they may say
        that the certificate has expired before the bound passes alpha.
        """
        return tuple(risk.lower_bound(self.delta) for risk in self.risks)

    @property
    def _log_wealth(self) -> float:
        each = [risk.log_wealth for risk in self.risks]
        return float(np.logaddexp.reduce(each) - math.log(len(each)))

    def __str__(self) -> str:
        state = (
            f"expired at row {self.expired_at:,} of {self.rows:,}"
            if self.expired
            else f"no sign that it has expired, after {self.rows:,} rows"
        )
        first = f"{state}: e-value {self.e_value:.4g}, p-value {self.p_value:.3g}, delta {self.delta:g}"
        return "\n".join([first, *(f"  {risk.told(self.delta)}" for risk in self.risks)])

    # ---- kept

    def write(self, path: str | Path) -> None:
        """Write the state as JSON, whole or not at all.

        Args:
            path: file to write.
        """
        risks = [dict(risk.__dict__) for risk in self.risks]
        write_state(path, FORMAT, {**self.__dict__, "risks": risks})

    @staticmethod
    def read(path: str | Path, certificate: Certificate | None = None) -> Monitor:
        """A state that was written: watching goes on as if it had never been.

        Args:
            path: the file.
            certificate: that it is to be of, where that is to be made sure.

        Raises:
            CertificateError: it is missing, holds no such state, or that of another certificate.
        """
        values = read_state(path, FORMAT, MONITOR)
        risks = tuple(
            Watched(**{**risk, "log_capital": tuple(risk["log_capital"])}) for risk in values["risks"]
        )
        found = Monitor(**{**values, "risks": risks, "batches": tuple(values["batches"])})
        wrong = [
            f"risks[{i}] holds {len(risk.log_capital)} stakes and {risk.rows} rows of {found.rows}"
            for i, risk in enumerate(risks)
            if len(risk.log_capital) != STAKES or risk.rows > found.rows or not 0 <= risk.total <= risk.rows
        ]
        if found.expired_at is not None and found.expired_at > found.rows:
            wrong.append(f"expired_at is {found.expired_at}, of {found.rows} rows")
        if wrong:
            raise CertificateError(f"{path}: {'; '.join(wrong)}. It was changed.")
        if certificate is not None and hashlib.sha256(canonical(certificate.record)).hexdigest() != (
            found.certificate
        ):
            raise CertificateError(f"{path}: is the state of another certificate.")
        return found
