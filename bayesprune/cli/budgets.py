"""The option --budget: the share of the dense network's cost that shall be left, and in which sizes."""

from __future__ import annotations

from collections.abc import Mapping

import click

from bayesprune.errors import PriorError
from bayesprune.priors import Budget
from bayesprune.priors.cost_gates import KINDS

EXAMPLE = "Write for example macs=0.1, or macs=0.1,params=0.05,uniform,multiple_of=8."
SIZES = ("uniform", "multiple_of")


def parse_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Read a budget: ``macs=0.1,params=0.05`` → {'macs': 0.1, 'params': 0.05}.

    Sizes that are held follow their shares: ``macs=0.1,uniform,multiple_of=8`` → {'macs': 0.1, 'uniform': 1,
    'multiple_of': 8}.

    Args:
        ctx: the command; ``--price`` and ``--budget`` exclude each other.
        param: the option.
        value: what the user wrote, or None.

    Returns:
        Arguments of ``Budget`` as numbers, as a run records them; None where the user wrote nothing.

    Raises:
        click.BadParameter: no shares in (0, 1], no sizes, or not in that form.
    """
    if value is None:
        return None
    budget: dict[str, float] = {}
    for item in value.split(","):
        name, sign, number = (part.strip() for part in item.partition("="))
        number = number if sign or name != "uniform" else "1"
        if not number or name not in (*KINDS, *SIZES):
            raise click.BadParameter(
                f"{item!r} in {value!r} is not macs=SHARE, params=SHARE, uniform or multiple_of=NUMBER. "
                f"{EXAMPLE}"
            )
        if name in budget:
            raise click.BadParameter(f"{name!r} is there twice in {value!r}. Give one.")
        try:
            budget[name] = int(number) if name in SIZES else float(number)
        except ValueError:
            whole = "whole number" if name in SIZES else "number"
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
        PriorError: shares or sizes that are none.
    """
    return Budget(
        macs=asked.get("macs"),
        params=asked.get("params"),
        uniform=bool(asked.get("uniform", False)),
        multiple_of=int(asked.get("multiple_of", 1)),
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
