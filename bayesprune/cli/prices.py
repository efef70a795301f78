"""The option --price: one price for every unit, or one per group."""

from __future__ import annotations

import math

import click

Price = float | dict[str, float]


def parse_price(ctx: click.Context, param: click.Parameter, value: str | None) -> Price | None:
    """Read a price: ``12`` → 12.0; ``conv1=3,fc*=8`` → {'conv1': 3.0, 'fc*': 8.0}.

    Args:
        ctx: the command.
        param: the option.
        value: what the user wrote, or None.

    Returns:
        One price, or group (or glob) → price, in nats per unit; None where the user wrote nothing.

    Raises:
        click.BadParameter: not positive finite numbers, or not in that form.
    """
    if value is None or "=" not in value:
        return None if value is None else _nats(value, value)
    prices: dict[str, float] = {}
    for item in value.split(","):
        group, sign, nats = (part.strip() for part in item.partition("="))
        if not group or not sign:
            raise click.BadParameter(
                f"{item!r} in {value!r} is not GROUP=NATS. Write for example conv1=3,fc*=8."
            )
        if group in prices:
            raise click.BadParameter(f"group {group!r} has two prices in {value!r}. Give one.")
        prices[group] = _nats(nats, item)
    return prices


def _nats(text: str, place: str) -> float:
    try:
        price = float(text)
    except ValueError:
        raise click.BadParameter(f"{place!r} is no number. Write nats per unit, such as 12.") from None
    if not (math.isfinite(price) and price > 0):
        raise click.BadParameter(
            f"{place!r}: a price is a positive number of nats; the higher, the fewer units stay. "
            "Write for example 12."
        )
    return price
