"""What is asked of certify, checked: every problem is collected before one is told."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bayesprune.certify.losses import Loss
from bayesprune.certify.pvalues import PValue
from bayesprune.certify.rows import CalibrationRows
from bayesprune.certify.rules import Rule
from bayesprune.errors import CertificateError
from bayesprune.gated import GatedModel
from bayesprune.svi import FitResult


def check_network(network: Any) -> None:
    """The reference must be a plain network.

    Raises:
        CertificateError: it is something else.
    """
    if isinstance(network, FitResult | GatedModel) or not isinstance(network, nn.Module):
        raise CertificateError(
            f"Cannot certify a {type(network).__name__}: give a plain network, such as bp.prune(result). To "
            "remove what a posterior holds least of, give path=Units(rule, fit=result) besides."
        )


def check_levels(alpha: Any, delta: Any) -> None:
    """Alpha and delta must be probabilities.

    Raises:
        CertificateError: they are not; both are named.
    """
    meaning = {
        "alpha": "the risk that is allowed, such as 0.02",
        "delta": "how often it may fail, such as 0.05",
    }
    wrong = [
        f"{name}={value!r} must lie between 0 and 1: it is {meaning[name]}."
        for name, value in (("alpha", alpha), ("delta", delta))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < 1.0
    ]
    if wrong:
        raise CertificateError(" ".join(wrong))


def check_output(output: Any) -> None:
    """A part of the outputs must be a name or a number.

    Raises:
        CertificateError: it is something else.
    """
    if isinstance(output, bool) or not (output is None or isinstance(output, str | int)):
        raise CertificateError(f"output={output!r} must be a name, such as 'logits', or a number.")


def check_test(
    rows: CalibrationRows,
    candidates: int,
    loss: Loss,
    p_value: PValue,
    rule: Rule,
    alpha: float,
    delta: float,
) -> None:
    """Labels, p-value and number of rows must fit the loss.

    Raises:
        CertificateError: they do not; everything that is wrong is told, and how many rows are needed.
    """
    wrong = []
    if loss.labelled and rows.y is None:
        wrong.append(
            f"The loss {loss.name!r} needs labels, and there are none: give rows=(x, y), or take a loss "
            "without, loss='disagreement'."
        )
    if p_value.zero_one and not loss.zero_one:
        wrong.append(
            f"The {p_value.name} p-value is for losses of 0 and 1, and {loss.name!r} has others: take "
            "p_value='betting' or 'hoeffding-bentkus'."
        )
    else:
        wrong += _too_few(len(rows), candidates, loss, p_value, rule, alpha, delta)
    if wrong:
        raise CertificateError(" ".join(wrong))


def _too_few(
    rows: int, candidates: int, loss: Loss, p_value: PValue, rule: Rule, alpha: float, delta: float
) -> list[str]:
    tested = rule.tested_rows(rows)
    least = loss.least_rows(p_value, alpha, rule.level(candidates, delta))
    if least is not None and tested >= least:
        return []
    if least is None:
        return [f"No number of rows could certify alpha={alpha} at delta={delta}: allow more of either."]
    total = next(n for n in range(least, 100 * least + 100) if rule.tested_rows(n) >= least)
    return [
        f"{rows:,} calibration rows are too few: even without a single loss, alpha={alpha} and delta={delta} "
        f"({rule.name}, {p_value.name}) need {total:,}. Give more rows, or allow more."
    ]


def check_outputs(loss: Loss, reference: Tensor, rows: CalibrationRows) -> None:
    """Outputs and labels must be what the loss scores.

    Raises:
        CertificateError: they are not.
    """
    wrong = loss.problems(reference, rows.y if loss.labelled else None)
    if wrong:
        raise CertificateError(f"Loss {loss.name!r}: " + " ".join(wrong))
