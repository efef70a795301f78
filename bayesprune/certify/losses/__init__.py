"""Losses: what a certificate bounds. One small file each, all values in [0, 1]."""

from __future__ import annotations

from typing import Any

from bayesprune.certify.losses.disagreement import Disagreement
from bayesprune.certify.losses.error import Error
from bayesprune.certify.losses.excess import ExcessError, NewErrors
from bayesprune.certify.losses.own import OwnLoss
from bayesprune.certify.losses.protocol import Loss, Scores
from bayesprune.certify.losses.selective import Selective, coverage_of
from bayesprune.errors import CertificateError

__all__ = [
    "Disagreement", "Error", "ExcessError", "Loss", "NewErrors", "OwnLoss", "Scores", "Selective",
    "coverage_of", "loss_from",
]  # fmt: skip

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (Error, ExcessError, NewErrors, Disagreement, Selective)
}


def loss_from(value: str | dict[str, Any] | Loss, own: Loss | None = None) -> Loss:
    """A loss by its name, from a certificate, or as it is.

    Args:
        value: a name, what ``to_json`` gave, or a loss.
        own: the loss to take where a certificate speaks of somebody's own.

    Raises:
        CertificateError: there is no such loss, or the certificate's was somebody's own and it is not given.
    """
    if isinstance(value, Loss):
        return value
    if not isinstance(value, str | dict):
        raise CertificateError(
            f"loss={value!r}: give one of {', '.join(LOSSES)}, or a loss of bayesprune.certify.losses."
        )
    settings: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
    name = str(settings.pop("name", None))
    if name == "own" or "function" in settings:
        return _own(settings, own)
    if name not in LOSSES:
        raise CertificateError(
            f"loss={name!r}: there is none of that name. Choose one of {', '.join(LOSSES)}."
        )
    if isinstance(settings.get("loss"), dict):
        settings["loss"] = loss_from(settings["loss"], own)
    try:
        return LOSSES[name](**settings)
    except TypeError as problem:
        raise CertificateError(f"loss {name!r}: its settings cannot be used ({problem}).") from None


def _own(settings: dict[str, Any], own: Loss | None) -> Loss:
    if own is None:
        raise CertificateError(
            f"The loss {settings.get('function')!r} is somebody's own, and its code is in no file: verify "
            "with bayesprune.certify.verify(..., loss=OwnLoss(function, …)), or choose one of "
            f"{', '.join(LOSSES)}."
        )
    if own.to_json() != {"name": "own", **settings}:
        raise CertificateError(
            f"The certificate's loss is {settings.get('function')!r}, and the one given is "
            f"{own.name!r}: their names and kinds must agree."
        )
    return own
