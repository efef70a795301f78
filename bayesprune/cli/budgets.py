"""The option --budget: the share of the dense network's cost that shall be left, instead of prices."""

from __future__ import annotations

import click

from bayesprune.errors import PriorError
from bayesprune.priors import Budget
from bayesprune.priors.cost_gates import KINDS

EXAMPLE = "Write for example macs=0.1, or macs=0.1,params=0.05."


def parse_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Read a budget: ``macs=0.1,params=0.05`` → {'macs': 0.1, 'params': 0.05}.

    Args:
        ctx: the command; ``--price`` and ``--budget`` exclude each other.
        param: the option.
        value: what the user wrote, or None.

    Returns:
        What is counted → share of the dense network's; None where the user wrote nothing.

    Raises:
        click.BadParameter: no shares in (0, 1], or not in that form.
    """
    if value is None:
        return None
    budget: dict[str, float] = {}
    for item in value.split(","):
        kind, sign, share = (part.strip() for part in item.partition("="))
        if not sign or kind not in KINDS:
            raise click.BadParameter(f"{item!r} in {value!r} is not macs=SHARE or params=SHARE. {EXAMPLE}")
        if kind in budget:
            raise click.BadParameter(f"{kind!r} has two shares in {value!r}. Give one.")
        try:
            budget[kind] = float(share)
        except ValueError:
            raise click.BadParameter(f"{share!r} in {value!r} is no number. {EXAMPLE}") from None
    try:
        Budget(macs=budget.get("macs"), params=budget.get("params"))
    except PriorError as problem:
        raise click.BadParameter(str(problem)) from None
    return budget


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
