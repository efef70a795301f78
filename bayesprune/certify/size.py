"""What became smaller, and what only became zero."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from bayesprune.certify.paths import parameters_of
from bayesprune.errors import CountWarning, UnsupportedNetworkError
from bayesprune.rows import Inputs
from bayesprune.structure import count

TOLD = 4
"""Tensors whose shapes are told; of more only how many there are."""


def macs_of(network: nn.Module, example: Inputs) -> int | None:
    """Multiply-accumulates of a row; None where they, or some of them, cannot be counted.

    Args:
        network: left in the mode that it was in.
        example: (rows, ...), inputs that it accepts.
    """
    parameter = next(network.parameters(), None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CountWarning)
            return count(network, example if parameter is None else example.to(parameter.device)).macs
    except (UnsupportedNetworkError, CountWarning):
        return None


def shapes_of(before: nn.Module, after: nn.Module) -> dict[str, list[list[int] | None]]:
    """Parameters whose shapes differ: name → shape before and after, null where there is none.

    Args:
        before: the reference network.
        after: the pruned one.
    """
    old = {name: list(parameter.shape) for name, parameter in before.named_parameters()}
    new = {name: list(parameter.shape) for name, parameter in after.named_parameters()}
    return {n: [old.get(n), new.get(n)] for n in sorted({*old, *new}) if old.get(n) != new.get(n)}


def size_of(network: nn.Module, example: Inputs) -> dict[str, Any]:
    """Numbers that a network holds, zeros included, and the multiply-accumulates of a row.

    Args:
        network: any.
        example: (rows, ...), inputs that it accepts.
    """
    return {"parameters": parameters_of(network), "macs": macs_of(network, example)}


def kept(entry: dict[str, Any], whole: int) -> str:
    """What a candidate keeps, as part of a sentence: what went, and what only is zero, apart.

    Args:
        entry: of the candidate.
        whole: parameters of the reference network.

    Example:
        >>> kept({"parameters": 50, "parameters_left": 50}, 200)
        "has 25 % of the reference network's parameters"
        >>> kept({"parameters": 200, "parameters_left": 50}, 200)
        "has all of the reference network's parameters, 75 % of them zero"
    """
    held, zeros = entry["parameters"], entry["parameters"] - entry["parameters_left"]
    share = "all" if held == whole else percent(round(held / max(whole, 1), 6))
    told = f"has {share} of the reference network's parameters"
    return told + (f", {percent(round(zeros / held, 6))} of them zero" if zeros else "")


def percent(share: float) -> str:
    """A share as people write it.

    Example:
        >>> percent(0.02), percent(0.125), percent(1 - 0.05)
        ('2 %', '12.5 %', '95 %')
    """
    return f"{100 * share:.6g} %"


def smaller(record: dict[str, Any]) -> str:
    """What became smaller, and what did not, in a sentence or two.

    Args:
        record: of a certificate that certifies a network.
    """
    before, after, entry = record["reference"], record["network"], record["path"][record["certified"]]
    zeros = entry["parameters"] - entry["parameters_left"]
    inside = (
        f"{zeros:,} of its {entry['parameters']:,} numbers are zeros inside dense tensors, which save "
        "neither memory nor time by themselves"
    )
    if not after["shapes"]:
        told = "Nothing became smaller: every tensor keeps its shape"
        units = '. To remove whole units, take --path units (in Python path="units").' if zeros else "."
        return told + (f"; {inside}" if zeros else ", and no number became zero") + units
    told = f"Smaller: {before['parameters']:,} → {after['parameters']:,} parameters"
    told += (
        ", MACs that cannot be counted"
        if before["macs"] is None or after["macs"] is None
        else f", {before['macs']:,} → {after['macs']:,} MACs a row"
    )
    return f"{told} ({_shapes(after['shapes'])})." + (f" {inside[0].upper()}{inside[1:]}." if zeros else "")


def _shapes(shapes: dict[str, list[list[int] | None]]) -> str:
    def form(shape: list[int] | None) -> str:
        return "none" if shape is None else "×".join(map(str, shape)) or "one number"

    told = [f"{name} {form(old)} → {form(new)}" for name, (old, new) in shapes.items()]
    rest = len(told) - TOLD
    return ", ".join(told[:TOLD]) + (f", and {rest} more" if rest > 0 else "")
