"""Operations that compute every number from those at the same position: operands' units become one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.call import Call, Place, Raw, is_fixed, rule, united, varying
from bayesprune.structure.graph.rules.labels import along, compact, kinds


def pointwise(call: Call) -> Any:
    """Unite the operands' labels; what is broadcast along the other's units does not matter to them."""
    shape, known = call.shape, list(call.tensors())
    operands = [(labels, value) for _, labels, value in known if not isinstance(labels, Raw)]
    parameters = [labels for _, labels, _ in known if isinstance(labels, Raw)]
    result = torch.zeros((), dtype=torch.long).expand(shape)
    size = torch.Size([1] * len(shape))
    fixed = [
        (name, value) for name, labels, value in known if isinstance(labels, Tensor) and is_fixed(labels)
    ]
    for labels, value in operands:
        if not is_fixed(labels):
            result, size = _together(call, result, size, labels, value.shape)
    for name, value in fixed:
        result = _meets_fixed(call, name, value.shape, result)
    if not operands:
        return _of_parameters(call, parameters)
    for parameter in parameters:
        result = _bind(call, result, parameter)
    return result


def _meets_fixed(call: Call, name: str, shape: torch.Size, result: Tensor) -> Tensor:
    """What belongs to no unit meets units: where they run along one of its dimensions they select from it.

    Where it is repeated along another dimension of theirs, as the angles of a rotation are for every head,
    what is left along that one is a unit: heads go whole.
    """
    offset = len(call.shape) - len(shape)
    units = varying(result)
    meets = {d for d in units if d >= offset and shape[d - offset] > 1}
    if not meets:
        return result
    if units - meets:
        small = compact(result)
        whole = small[tuple(slice(0, 1) if d in meets else slice(None) for d in range(small.ndim))]
        call.join(small, whole)
        return whole.expand(call.shape)
    written = name in ("self", "input") and call.node.target._schema.is_mutable  # type: ignore[union-attr]
    if len(meets) > 1 or written or _several(call, name):
        call.freeze(result, "it meets what is fixed")
        return result
    dim = meets.pop()
    call.select(name, dim - offset, united(call, result, dim))
    return result


def _several(call: Call, name: str) -> bool:
    """Whether an argument is a list of tensors, which have no names of their own."""
    return not isinstance(call.args[name], Tensor)


def _together(
    call: Call, first: Tensor, first_size: torch.Size, second: Tensor, second_size: torch.Size
) -> tuple[Tensor, torch.Size]:
    """Labels of two operands as those of their result, and the shape that both together have."""
    shape = call.shape
    second_size = torch.Size([1] * (len(shape) - len(second_size)) + list(second_size))
    second = second.expand(shape)
    joint = torch.Size(torch.broadcast_shapes(first_size, second_size))
    absent_first = {d for d in range(len(shape)) if first_size[d] == 1 and shape[d] > 1}
    absent_second = {d for d in range(len(shape)) if second_size[d] == 1 and shape[d] > 1}
    if all(s == 1 for s in first_size) and is_fixed(first):
        return second, joint
    over_second = varying(first) & absent_second  # the first one's units, along which the second repeats
    over_first = varying(second) & absent_first
    if over_first and over_second:
        return _outer_product(call, first, second), joint
    if over_second:
        if varying(second) and varying(second) <= varying(
            first
        ):  # a number for each head, say: heads go whole
            call.join(*torch.broadcast_tensors(compact(first), compact(second)))
            return second, joint
        if not is_fixed(second):
            call.freeze(second, "it multiplies all units alike")
        elif varying(first) - absent_second:
            call.freeze(first, "it meets what is fixed")
        return first, joint
    if over_first:
        return _together(call, second, second_size, first, first_size)
    if is_fixed(first) and is_fixed(second):
        return first, joint
    first, second = torch.broadcast_tensors(compact(first), compact(second))
    call.join(first, second)
    return torch.where(first != 0, first, second).expand(shape), joint


def _outer_product(call: Call, first: Tensor, second: Tensor) -> Tensor:
    """A number for every pair of units, as a state space has for channels and states: a number has one unit.

    It is that of the operand with more of them; the other's stay.
    """
    more, fewer = (first, second) if kinds(first) >= kinds(second) else (second, first)
    call.freeze(fewer, "an outer product of units")
    if varying(first) & varying(second):
        call.freeze(more, "an outer product of units")
        return torch.zeros((), dtype=torch.long).expand(call.shape)
    return more


def _bind(call: Call, result: Tensor, parameter: Raw) -> Tensor:
    """A parameter meets labelled numbers: its dimensions along their units get their labels."""
    offset = len(call.shape) - len(parameter.shape)
    own = {d + offset for d in parameter.long_dims()}
    shared = varying(result) & own
    for dim in own - shared:
        call.labels.freeze(parameter.along(call.labels, dim - offset), call.place, "it meets what is fixed")
    if len(shared) == 1:
        dim = shared.pop()
        call.join(united(call, result, dim), parameter.along(call.labels, dim - offset))
    elif shared:
        call.freeze(result, "it meets a parameter that has units along several dimensions")
        call.freeze(parameter, "it meets units along several dimensions")
    return result


def _of_parameters(call: Call, parameters: list[Raw]) -> Raw:
    """Parameters alone: along every dimension, those of more than one index go together."""
    dims: list[Place | None] = []
    for d in range(len(call.shape)):
        here = [(p, d - len(call.shape) + len(p.shape)) for p in parameters]
        here = [(p, own) for p, own in here if own >= 0 and p.shape[own] > 1]
        for parameter, own in here[1:]:
            first, at = here[0]
            call.join(first.along(call.labels, at), parameter.along(call.labels, own))
        dims.append(here[0][0].dims[here[0][1]] if here else None)
    widest = max(parameters, key=lambda p: p.shape.numel())
    return Raw(widest.name, call.shape, tuple(dims))


def as_labels(call: Call, value: Tensor | Raw) -> Tensor:
    """Labels of a parameter that is moved about: those of its last long dimension; others stay."""
    if isinstance(value, Tensor):
        return value
    dims = value.long_dims()
    if not dims:
        return torch.zeros((), dtype=torch.long).expand(value.shape)
    for dim in dims[:-1]:
        call.labels.freeze(value.along(call.labels, dim), call.place, "it is moved about with others")
    vector = value.along(call.labels, dims[-1])
    return vector.reshape([-1 if d == dims[-1] else 1 for d in range(len(value.shape))]).expand(value.shape)


@rule("aten.prelu", parameters=("weight",))
def prelu(call: Call) -> Any:
    """A slope for each channel, or one for all."""
    x, weight = call.known["self"], call.known["weight"]
    if call.args["weight"].numel() > 1:
        vector = along(x, 1)
        if vector is None or not isinstance(weight, Raw):
            return call.frozen_everything("its units do not run along dimension 1")
        call.join(vector, weight.along(call.labels, 0))
    return x


@rule("aten.glu", parameters=("self",))
def glu(call: Call) -> Any:
    """Two halves, the second gates the first."""
    x, dim = call.known["self"], call.args.get("dim", -1)
    if isinstance(x, Raw):
        halved = {dim % len(x.shape)}
        call.freeze_along(x, halved, "one half of it gates the other")
        return x.without(halved, call.shape)
    first, second = x.chunk(2, dim)
    call.join(compact(first), compact(second))
    return first
