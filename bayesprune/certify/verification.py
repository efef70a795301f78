"""What a verification found: one line for each thing that was recomputed, and for each that could not be."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Check:
    """One thing that a certificate says.

    Attributes:
        what: it is.
        holds: whether it is so; None where it could not be recomputed, and is taken as written.
        why: in words.
        word: whether it is somebody's word, which no network and no rows can show or refute.
    """

    what: str
    holds: bool | None
    why: str
    word: bool = False


@dataclass(frozen=True)
class Verification:
    """The answer to whether a certificate is true of a network and rows.

    Attributes:
        checks: what was looked at, in order.
    """

    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.holds is not False for check in self.checks)

    @property
    def problems(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if check.holds is False)

    @property
    def complete(self) -> bool:
        """Whether everything could be recomputed that networks and rows can show."""
        return all(check.holds is not None or check.word for check in self.checks)

    def __str__(self) -> str:
        lines = ["true" if self else "false"]
        for check in self.checks:
            mark = {True: "✓", False: "✗", None: "·"}[check.holds]
            text = f"{mark} {check.what}: {check.why}"
            lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)
