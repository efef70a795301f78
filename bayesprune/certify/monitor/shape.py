"""What the file of a monitor's state must hold."""

from __future__ import annotations

from bayesprune.certify.shape import LOSS as LOSS_OF_CERTIFICATES
from bayesprune.certify.shape import Hex, Line
from bayesprune.schema import Either, Items, Number, Record, nullable

FORMAT = "bayesprune monitor"

_COUNT, _SHA, _LOW = Number(0, whole=True), Hex(64), Number(1e-300, 1 - 1e-16)
WATCHED = Record(
    {
        "loss": LOSS_OF_CERTIFICATES, "alpha": _LOW, "rows": _COUNT, "total": Number(0), "squares": Number(0),
        "log_capital": Items(Number(), least=1),
    },
    closed=True,
)  # fmt: skip
MONITOR = Record(
    {
        "certificate": _SHA,
        "network": nullable(_SHA),
        "reference": nullable(_SHA),
        "calibration": _SHA,
        "output": nullable(Either((Number(whole=True), Line()))),
        "delta": _LOW,
        "risks": Items(WATCHED, least=1),
        "rows": _COUNT,
        "batches": Items(_SHA),
        "highest": Number(0),
        "expired_at": nullable(Number(1, whole=True)),
    },
    closed=True,
)
