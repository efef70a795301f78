"""p-values of the hypothesis that a risk is above a level, each valid for any number of rows.

`Binomial` for losses of 0 and 1, `HoeffdingBentkus` for any in [0, 1], `Betting` for any in [0, 1], tightest
where they vary little.
"""

from __future__ import annotations

from typing import Any

from bayesprune.certify.pvalues.betting import Betting
from bayesprune.certify.pvalues.binomial import Binomial
from bayesprune.certify.pvalues.bounds import rows_needed, upper_bound
from bayesprune.certify.pvalues.hoeffding_bentkus import HoeffdingBentkus
from bayesprune.certify.pvalues.protocol import Array, PValue
from bayesprune.errors import CertificateError

__all__ = [
    "Array", "Betting", "Binomial", "HoeffdingBentkus", "PValue", "p_value_from", "rows_needed",
    "upper_bound",
]  # fmt: skip

NAMES = ("binomial", "hoeffding-bentkus", "betting")


def p_value_from(value: str | dict[str, Any] | PValue, delta: float) -> PValue:
    """A p-value by its name, from a certificate, or as it is.

    Args:
        value: a name, what ``to_json`` gave, or a p-value.
        delta: error rate of one test, for which bets by name are tuned.

    Raises:
        CertificateError: there is no such p-value.
    """
    if isinstance(value, PValue):
        return value
    if not isinstance(value, str | dict):
        raise CertificateError(
            f"p_value={value!r}: give 'binomial', 'hoeffding-bentkus' or 'betting', or one of "
            "bayesprune.certify.pvalues."
        )
    settings = {"name": value} if isinstance(value, str) else dict(value)
    name = settings.pop("name", None)
    try:
        if name == "binomial":
            return Binomial(**settings)
        if name == "hoeffding-bentkus":
            return HoeffdingBentkus(**settings)
        if name == "betting":
            return Betting(**{"delta": delta, **settings})
    except TypeError as problem:
        raise CertificateError(f"p-value {name!r}: its settings cannot be used ({problem}).") from None
    raise CertificateError(f"p_value={name!r}: there is none of that name. Choose one of {', '.join(NAMES)}.")
