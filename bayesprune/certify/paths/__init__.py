"""Paths of prunings: unstructured, structured, a posterior's, or any networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from bayesprune.certify.paths.networks import Networks
from bayesprune.certify.paths.protocol import Candidate, Path, numbers_left, parameters_of
from bayesprune.certify.paths.units import Given, Units, cut_again
from bayesprune.certify.paths.weights import Weights
from bayesprune.errors import CertificateError
from bayesprune.rows import Inputs

__all__ = [
    "Candidate", "Given", "Networks", "Path", "Units", "Weights", "numbers_left", "parameters_of",
    "path_from", "rebuild",
]  # fmt: skip

NAMES = ("magnitude", "magnitude-layers", "units")


def path_from(value: Any) -> Path:
    """A path by its name, of given networks, or as it is.

    Args:
        value: ``"magnitude"`` (weights, over all layers), ``"magnitude-layers"``, ``"units"`` (by
            magnitude), a path, or networks.

    Raises:
        CertificateError: none of these.
    """
    if value == "magnitude":
        return Weights("global")
    if value == "magnitude-layers":
        return Weights("layer")
    if value == "units":
        return Units()
    if isinstance(value, str):
        raise CertificateError(
            f"path={value!r}: there is none of that name. Choose one of {', '.join(NAMES)}."
        )
    if isinstance(value, nn.Module):
        return Networks(value if isinstance(value, nn.ModuleList) else [value])
    if isinstance(value, Path):
        return value
    if isinstance(value, Iterable | Mapping):
        return Networks(value)
    raise CertificateError(
        f"path={value!r}: give one of {', '.join(NAMES)}, a path of bayesprune.certify.paths, or networks."
    )


def rebuild(
    recipes: Sequence[dict[str, Any]], reference: nn.Module, example: Inputs
) -> Sequence[Candidate] | None:
    """The candidates of a certificate's path again, from the reference network.

    Args:
        recipes: one a candidate, in order.
        reference: the network that was pruned.
        example: (rows, ...), inputs that it accepts.

    Returns:
        The candidates; None where the path was of networks that came from elsewhere.

    Raises:
        CertificateError: recipes that are none of this network's.
    """
    kinds = {str(recipe.get("kind")) for recipe in recipes}
    try:
        if kinds == {"weights"} and len({recipe["scope"] for recipe in recipes}) == 1:
            weights = Weights(recipes[0]["scope"], [recipe["share"] for recipe in recipes])
            return weights.candidates(reference, example)
        if kinds <= {"units", "reference"}:
            return cut_again(reference, example, recipes)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CertificateError(
            f"The certificate's path cannot be read ({problem!r}): it was changed."
        ) from None
    return None
