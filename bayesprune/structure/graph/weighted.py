"""Operations across units as they are under gates: those of the open units alone.

Each formula has gates z in it so that z = 1 everywhere is the operation itself, and zeros and ones are the
operation without the closed units; in between it is smooth. So the plain operation is what is left of it
after a cut, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

Formula = Callable[[Tensor, Tensor, dict[str, Any]], Any]

WEIGHTED: dict[str, Formula] = {}
"""Name of an operation → its value of (x, gates that broadcast against x, its other arguments)."""


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Register the formula of operations by name."""

    def register(function: Formula) -> Formula:
        for name in names:
            WEIGHTED[name] = function
        return function

    return register


class Weighted(nn.Module):
    """An operation across units, which takes gates.

    Args:
        units: makes gates broadcast against what the operation reads.
        target: the operation.

    Example:
        >>> from bayesprune.structure.graph.gates import UnitGates
        >>> units = UnitGates(torch.tensor([0, 1, 2]), dim=1, rows=0, inner=1, outer=1)
        >>> mean = Weighted(units, torch.ops.aten.mean.dim)
        >>> mean(torch.tensor([[2.0, 4.0, 9.0]]), [1], gates=torch.tensor([1.0, 1.0, 0.0, 1.0]))
        tensor([3.])
    """

    def __init__(self, units: nn.Module, target: Any) -> None:
        super().__init__()
        self.units, self.target = units, target

    def forward(self, *args: Any, gates: Tensor | None = None, **kwargs: Any) -> Any:
        """Compute.

        Args:
            args: as the operation takes them.
            gates: (units + 1,) for all rows alike, or (rows, units + 1); None means all open.
            kwargs: more of them.

        Returns:
            What the operation returns.
        """
        if gates is None:
            return self.target(*args, **kwargs)
        schema = self.target._schema
        given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        x = given.pop("self") if "self" in given else given.pop("input")
        z = self.units.spread(x.ndim, gates)  # type: ignore[operator]
        return WEIGHTED[schema.name.replace("::", ".")](x, z, given)


def weighted_node(
    graph: fx.GraphModule, node: fx.Node, name: str, units: nn.Module, gates: fx.Node
) -> fx.Node:
    """Put the gated form of an operation in its place.

    Args:
        graph: changed in place.
        node: the operation.
        name: what to call the new module.
        units: as in ``Weighted``.
        gates: the graph's input.

    Returns:
        The new node.
    """
    graph.add_submodule(name, Weighted(units, node.target))
    with graph.graph.inserting_before(node):
        new = graph.graph.call_module(name, node.args, {**node.kwargs, "gates": gates})
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)
    return new


def _dims(x: Tensor, given: dict[str, Any]) -> list[int]:
    dims = given.get("dim")
    dims = list(range(x.ndim)) if dims is None or dims == [] else dims
    return [d % x.ndim for d in (dims if isinstance(dims, list | tuple) else [dims])]


def _count(x: Tensor, z: Tensor, dims: list[int]) -> Tensor:
    """How many open numbers there are along dimensions, which are kept with size one."""
    total = z.sum(dims, keepdim=True)
    for d in dims:
        total = total * (x.shape[d] // z.shape[d])
    return total.clamp_min(torch.finfo(x.dtype).tiny)


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
    return (z * (x - m).square()).sum(dims, keepdim=True) / freedom.clamp_min(0), m


@formula("aten.var")
def var(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """The variance of the open numbers."""
    dims = _dims(x, given)
    return _shown(_variance(x, z, dims, given)[0], dims, given)


@formula("aten.std")
def std(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """Its square root."""
    dims = _dims(x, given)
    return _shown(_variance(x, z, dims, given)[0].sqrt(), dims, given)


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
    return _shown(v.sqrt(), dims, given), _shown(m, dims, given)


def _lowered(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """z x + (1 − z) min x: a closed unit shows the least number of all, which no maximum notices."""
    return z * x + (1 - z) * x.detach().amin(_dims(x, given), keepdim=True)


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
    """z exp(x − m), and m, the largest open number; what is closed may be larger, and counts nothing."""
    shift = x.detach().masked_fill(z == 0, -torch.inf).amax(dims, keepdim=True)
    shift = shift.masked_fill(shift == -torch.inf, 0.0)
    return z * (x - shift).clamp_max(0.0).exp(), shift


@formula("aten.softmax", "aten._softmax")
def softmax(x: Tensor, z: Tensor, given: dict[str, Any]) -> Tensor:
    """z eˣ / Σ z eˣ."""
    x = x.to(given.get("dtype") or x.dtype)
    exponentials, _ = _exponentials(x, z, [given["dim"]])
    total = exponentials.sum(given["dim"], keepdim=True)
    return exponentials / total.clamp_min(torch.finfo(x.dtype).tiny)


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
    return shift + total.clamp_min(torch.finfo(x.dtype).tiny).log()


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
