"""What means, maxima, softmax and norms over units are under gates.

No formula stands on a kink: no case begins exactly at a value that open units take (the largest of
them, a tie, a variance of zero). What the derivative of ``clamp`` or ``sqrt`` is just there is a
convention; it hangs on PyTorch's version, and is not that of the operation over the open units alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.gated_reduction import formula


def _dims(x: Tensor, given: dict[str, Any]) -> list[int]:
    dims = given.get("dim")
    dims = list(range(x.ndim)) if dims is None or dims == [] else dims
    return [d % x.ndim for d in (dims if isinstance(dims, list | tuple) else [dims])]


def _count(x: Tensor, z: Tensor, dims: list[int]) -> Tensor:
    """How many open numbers there are along dimensions, which are kept with size one; one if there are none.

    So a mean of nothing is zero, and opening one unit makes it that unit's number, as its slope in z says.
    """
    total = z.sum(dims, keepdim=True)
    for d in dims:
        total = total * (x.shape[d] // z.shape[d])
    return positive_or_one(total)


def positive_or_one(total: Tensor) -> Tensor:
    """A sum of gates to divide by: one, without a slope, where all are closed."""
    return total.masked_fill(total == 0, 1.0)


def _mean(x: Tensor, z: Tensor, dims: list[int]) -> Tensor:
    return (z * x).sum(dims, keepdim=True) / _count(x, z, dims)


def _shown(value: Tensor, dims: list[int], given: dict[str, Any]) -> Tensor:
    return value if given.get("keepdim", False) else value.squeeze(dims)


@formula("aten.mean")
def mean(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """Σ z x / Σ z."""
    dims = _dims(x, given)
    return _shown(_mean(x.to(given.get("dtype") or x.dtype), z, dims), dims, given)


def _variance(x: Tensor, z: Tensor, dims: list[int], given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Σ z (x − m)² / (Σ z − c) and m, where c is one, or what the operation was told."""
    m = _mean(x, z, dims)
    told = given.get("correction", 1.0 if given.get("unbiased", True) else 0.0)
    freedom = _count(x, z, dims) - (1.0 if told is None else told)
    return (z * (x - m).square()).sum(dims, keepdim=True) / freedom.masked_fill(freedom < 0, 0.0), m


@formula("aten.var")
def var(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """The variance of the open numbers."""
    dims = _dims(x, given)
    return _shown(_variance(x, z, dims, given)[0], dims, given)


@formula("aten.std")
def std(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """Its square root."""
    dims = _dims(x, given)
    return _shown(_root(_variance(x, z, dims, given)[0]), dims, given)


def _root(variance: Tensor) -> Tensor:
    """Square root, with slope zero at zero, as PyTorch has it for the deviation of equal numbers."""
    constant = variance == 0
    return variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)


@formula("aten.var_mean")
def var_mean(x: Tensor, z: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    dims = _dims(x, given)
    v, m = _variance(x, z, dims, given)
    return _shown(v, dims, given), _shown(m, dims, given)


@formula("aten.std_mean")
def std_mean(x: Tensor, z: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    dims = _dims(x, given)
    v, m = _variance(x, z, dims, given)
    return _shown(_root(v), dims, given), _shown(m, dims, given)


def _lowered(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """z x + (1 − z) min x: a closed unit shows the least number of all, which no maximum notices.

    Where any unit is open those that are wholly closed show −∞ instead: they take no part in a tie.
    """
    dims = _dims(x, given)
    shown = z * x + (1 - z) * x.detach().amin(dims, keepdim=True)
    return shown.masked_fill((z == 0) & (z.amax(dims, keepdim=True) > 0), -torch.inf)


def _raised(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    return -_lowered(-x, z, given)


@formula("aten.amax")
def amax(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """The largest open number."""
    return _lowered(x, z, given).amax(_dims(x, given), given.get("keepdim", False))


@formula("aten.amin")
def amin(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """The least open number."""
    return _raised(x, z, given).amin(_dims(x, given), given.get("keepdim", False))


@formula("aten.max")
def max_(x: Tensor, z: Tensor, given: dict[str, Any]) -> Any:
    """The largest open number along one dimension, and where it is."""
    return _lowered(x, z, given).max(given["dim"], given.get("keepdim", False))


@formula("aten.min")
def min_(x: Tensor, z: Tensor, given: dict[str, Any]) -> Any:
    """The least open number along one dimension, and where it is."""
    return _raised(x, z, given).min(given["dim"], given.get("keepdim", False))


def _exponentials(x: Tensor, z: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """z exp(x − m), and m, the largest open number, or of all where none is open.

    What is closed may be larger: it counts nothing, and opening it counts as much as the largest.
    """
    known = x.detach()
    shift = known.masked_fill(z == 0, -torch.inf).amax(dims, keepdim=True)
    shift = torch.where(shift == -torch.inf, known.amax(dims, keepdim=True), shift)
    shift = shift.masked_fill(shift == -torch.inf, 0.0)
    return z * (x - shift).masked_fill(known > shift, 0.0).exp(), shift


@formula("aten.softmax", "aten._softmax")
def softmax(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """z eˣ / Σ z eˣ."""
    x = x.to(given.get("dtype") or x.dtype)
    exponentials, _ = _exponentials(x, z, [given["dim"]])
    total = exponentials.sum(given["dim"], keepdim=True)
    return exponentials / positive_or_one(total)


@formula("aten.log_softmax", "aten._log_softmax")
def log_softmax(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """x − log Σ z eˣ, for closed units too, whom nobody reads."""
    x = x.to(given.get("dtype") or x.dtype)
    return x - _log_sum(x, z, [given["dim"]])


@formula("aten.logsumexp")
def logsumexp(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """log Σ z eˣ."""
    dims = _dims(x, given)
    return _shown(_log_sum(x, z, dims), dims, given)


def _log_sum(x: Tensor, z: Tensor, dims: list[int]) -> Tensor:
    exponentials, shift = _exponentials(x, z, dims)
    total = exponentials.sum(dims, keepdim=True)
    return shift + total.masked_fill(total == 0, torch.finfo(x.dtype).tiny).log()


@formula("aten.group_norm")
def group_norm(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """The same positions closed in every group: statistics are those of the open ones."""
    groups = given["num_groups"]
    inside, gates = x.unflatten(1, (groups, -1)), z.unflatten(1, (groups, -1))
    dims = list(range(2, inside.ndim))
    centred = inside - _mean(inside, gates, dims)
    y = (centred * torch.rsqrt(_mean(centred.square(), gates, dims) + given.get("eps", 1e-5))).flatten(1, 2)
    shape = [1, -1, *[1] * (x.ndim - 2)]
    weight, bias = given.get("weight"), given.get("bias")
    if weight is not None:
        y = y * weight.view(shape)
    shift = x.new_zeros(()) if bias is None else bias.view(shape)
    return torch.add(y, shift)
