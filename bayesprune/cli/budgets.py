"""The option --budget: what a network may cost in the end, and in which sizes."""

from __future__ import annotations

from collections.abc import Mapping

import click

from bayesprune.errors import PriorError
from bayesprune.priors import Budget
from bayesprune.priors.cost_gates import KINDS
from bayesprune.priors.measured import MEASURED

EXAMPLE = (
    "Write for example macs=0.1, or macs=0.1,params=0.05,uniform,multiple_of=8, or latency_ms=2,batch=64."
)
WHOLE = ("uniform", "multiple_of", "batch")


def parse_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Read a budget: ``macs=0.1,params=0.05`` → {'macs': 0.1, 'params': 0.05}.

    Sizes that are held follow their shares: ``macs=0.1,uniform,multiple_of=8`` → {'macs': 0.1, 'uniform': 1,
    'multiple_of': 8}. Milliseconds and megabytes have their rows: ``latency_ms=2,batch=64``.

    Args:
        ctx: the command; ``--price`` and ``--budget`` exclude each other.
        param: the option.
        value: what the user wrote, or None.

    Returns:
        Arguments of ``Budget`` as numbers, as a run records them; None where the user wrote nothing.

    Raises:
        click.BadParameter: no shares in (0, 1], no limits, no sizes, or not in that form.
    """
    if value is None:
        return None
    budget: dict[str, float] = {}
    for item in value.split(","):
        name, sign, number = (part.strip() for part in item.partition("="))
        number = number if sign or name != "uniform" else "1"
        if not number or name not in (*KINDS, *MEASURED, *WHOLE):
            raise click.BadParameter(
                f"{item!r} in {value!r} is not macs=SHARE, params=SHARE, latency_ms=NUMBER, "
                f"memory_mb=NUMBER, batch=ROWS, uniform or multiple_of=NUMBER. {EXAMPLE}"
            )
        if name in budget:
            raise click.BadParameter(f"{name!r} is there twice in {value!r}. Give one.")
        try:
            budget[name] = int(number) if name in WHOLE else float(number)
        except ValueError:
            whole = "whole number" if name in WHOLE else "number"
            raise click.BadParameter(f"{number!r} in {value!r} is no {whole}. {EXAMPLE}") from None
    if budget.get("uniform", 1) not in (0, 1):
        raise click.BadParameter(f"uniform={budget['uniform']} in {value!r} is neither 1 nor 0. {EXAMPLE}")
    try:
        budget_of(budget)
    except PriorError as problem:
        raise click.BadParameter(str(problem)) from None
    return budget


def budget_of(asked: Mapping[str, float]) -> Budget:
    """The prior that an option, or the record of a run, asks for.

    Args:
        asked: what ``parse_budget`` gave.

    Raises:
        PriorError: shares, limits or sizes that are none.
    """
    batch = asked.get("batch")
    return Budget(
        macs=asked.get("macs"),
        params=asked.get("params"),
        uniform=bool(asked.get("uniform", False)),
        multiple_of=int(asked.get("multiple_of", 1)),
        latency_ms=asked.get("latency_ms"),
        memory_mb=asked.get("memory_mb"),
        batch=None if batch is None else int(batch),
    )


def check_exclusive(price: object, budget: object) -> None:
    """Refuse a price and a budget together: a budget finds the prices itself.

    Raises:
        click.UsageError: both are given.
    """
    if price is not None and budget is not None:
        raise click.UsageError(
            "--price and --budget exclude each other: prices decide what is left, or a budget decides the "
            "prices. Leave one out."
        )
