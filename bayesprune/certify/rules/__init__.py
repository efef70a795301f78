"""Rules: how many candidates are tested at once, so that a false certificate stays as rare as for one."""

from __future__ import annotations

from typing import Any

from bayesprune.certify.rules.bonferroni import Bonferroni
from bayesprune.certify.rules.fixed_sequence import FixedSequence
from bayesprune.certify.rules.multi_start import MultiStart
from bayesprune.certify.rules.protocol import Decision, Rows, Rule, Tests, level_at
from bayesprune.certify.rules.split import SplitFixedSequence
from bayesprune.errors import CertificateError

__all__ = [
    "Bonferroni",
    "Decision",
    "FixedSequence",
    "MultiStart",
    "Rows",
    "Rule",
    "SplitFixedSequence",
    "Tests",
    "level_at",
    "rule_from",
]

RULES: dict[str, type[FixedSequence | SplitFixedSequence | MultiStart | Bonferroni]] = {
    rule.name: rule for rule in (FixedSequence, SplitFixedSequence, MultiStart, Bonferroni)
}


def rule_from(value: str | dict[str, Any] | Rule) -> Rule:
    """A rule by its name, from a certificate, or as it is.

    Args:
        value: a name, what ``to_json`` gave, or a rule.

    Raises:
        CertificateError: there is no such rule.
    """
    if not isinstance(value, str | dict):
        if not callable(getattr(value, "decide", None)):
            raise CertificateError(
                f"rule={value!r}: give one of {', '.join(RULES)}, or a rule of bayesprune.certify.rules."
            )
        return value
    settings = {"name": value} if isinstance(value, str) else dict(value)
    name = str(settings.pop("name", None))
    if name not in RULES:
        raise CertificateError(
            f"rule={name!r}: there is none of that name. Choose one of {', '.join(RULES)}."
        )
    try:
        return RULES[name](**settings)
    except TypeError as problem:
        raise CertificateError(f"rule {name!r}: its settings cannot be used ({problem}).") from None
