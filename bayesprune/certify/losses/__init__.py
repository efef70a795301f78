"""Losses: what a certificate bounds. One small file each, all values in [0, 1]."""

from __future__ import annotations

from typing import Any

from bayesprune.certify.losses.disagreement import Disagreement
from bayesprune.certify.losses.error import Error
from bayesprune.certify.losses.excess import ExcessError, NewErrors
from bayesprune.certify.losses.of_class import OfClass, each_class
from bayesprune.certify.losses.own import OwnLoss
from bayesprune.certify.losses.protocol import Loss, Scores
from bayesprune.certify.losses.selective import Selective, coverage_of
from bayesprune.certify.losses.several import Several
from bayesprune.errors import CertificateError

__all__ = [
    "Disagreement", "Error", "ExcessError", "Loss", "NewErrors", "OfClass", "OwnLoss", "Scores", "Selective",
    "Several", "coverage_of", "each_class", "loss_from", "several_from",
]  # fmt: skip

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (Error, ExcessError, NewErrors, Disagreement, Selective)
}
"""Those that a name alone stands for."""
WITH_SETTINGS: dict[str, type[Loss]] = {**LOSSES, OfClass.name: OfClass}


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
    if own is not None and own.to_json() == value:
        return own
    if name == "own" or "function" in settings:
        return _own(settings, own)
    if name == Several.name:
        return _several(settings, own)
    if name not in WITH_SETTINGS or (isinstance(value, str) and name not in LOSSES):
        raise CertificateError(
            f"loss={name!r}: there is none of that name. Choose one of {', '.join(LOSSES)}."
        )
    if isinstance(settings.get("loss"), dict):
        settings["loss"] = loss_from(settings["loss"], own)
    try:
        return WITH_SETTINGS[name](**settings)
    except TypeError as problem:
        raise CertificateError(f"loss {name!r}: its settings cannot be used ({problem}).") from None


def several_from(loss: Any, alpha: Any) -> tuple[Loss, float]:
    """One loss and one level of what may be several of each.

    Args:
        loss: a name, a loss, or a list of them.
        alpha: a level; or a list, a level for each loss.

    Returns:
        The loss, ``Several`` where there are several, and its level, the largest.

    Raises:
        CertificateError: not as many levels as losses, or what ``Several`` refuses.

    Example:
        >>> several_from(["error", "disagreement"], [0.05, 0.02])[1]
        0.05
    """
    many = isinstance(loss, list | tuple)
    if isinstance(loss, Several):
        if alpha not in (loss.alpha, [own for _, own in loss.risks], tuple(own for _, own in loss.risks)):
            raise CertificateError(
                f"alpha={alpha!r}: the losses have levels of their own, the largest is {loss.alpha:g}. Give "
                "that, or all of them."
            )
        return loss, loss.alpha
    if not many:
        return loss_from(loss), alpha
    losses = [loss_from(one) for one in loss]
    levels = list(alpha) if isinstance(alpha, list | tuple) else [alpha] * len(losses)
    if len(levels) != len(losses):
        raise CertificateError(
            f"alpha={alpha!r}: {len(levels)} levels for {len(losses)} losses. Give one for each, in their "
            "order, or one for all."
        )
    found = Several(list(zip(losses, levels, strict=True)))
    return found, found.alpha


def _several(settings: dict[str, Any], own: Loss | None) -> Several:
    risks = settings.get("risks")
    if not isinstance(risks, list):
        raise CertificateError(
            "loss='several' names no losses: give a list, as loss=['error', 'disagreement'], with a level "
            "each, alpha=[0.05, 0.02]."
        )
    parts = dict(own.risks) if isinstance(own, Several) else {}
    known = {str(loss.to_json()): loss for loss in parts}
    found = [(loss_from(r["loss"], known.get(str(r["loss"]), own)), r["alpha"]) for r in risks]
    return Several(found)


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
