"""Normalisation: by channel, or over units, whose statistics are then those of the open ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.call import (
    CROSSES,
    Call,
    Raw,
    argument_node,
    arguments,
    rule,
    varying,
)
from bayesprune.structure.graph.rules.labels import along


@rule(
    "aten.batch_norm",
    "aten.instance_norm",
    parameters=("input", "weight", "bias", "running_mean", "running_var"),
)
def batch_norm(call: Call) -> Any:
    """Every channel on its own, with parameters and statistics of its own."""
    x = call.known["input"]
    if isinstance(x, Raw):  # a weight that is standardised, filter by filter
        others = set(range(len(x.shape))) - {1}
        call.freeze_along(x, others, "it is a parameter that is normalised over it")
        _bind(call, x.along(call.labels, 1), "weight", "bias", "running_mean", "running_var")
        return x.without(others, x.shape)
    vector = along(x, 1)
    if vector is None:
        return call.frozen_everything(CROSSES)
    _bind(call, vector, "weight", "bias", "running_mean", "running_var")
    return x


@rule("aten.layer_norm", "aten.rms_norm", parameters=("input", "weight", "bias"))
def layer_norm(call: Call) -> Any:
    """Statistics over units: under gates they are those of the open ones, so that a plain norm is left."""
    x, dims = call.known["input"], len(call.args["normalized_shape"])
    ndim = len(x.shape)
    normalised = set(range(ndim - dims, ndim))
    if isinstance(x, Raw) or not varying(x) & normalised:
        for name in ("weight", "bias"):
            if isinstance(call.known.get(name), Raw):
                call.freeze(call.known[name], "it normalises over what is fixed")
        if isinstance(x, Tensor):
            return x
        call.freeze_along(x, normalised, "it is a parameter that is normalised over it")
        return x.without(normalised, x.shape)
    vector = along(x, -1)
    if vector is None or dims > 1:
        return call.frozen_everything("it normalises over units of several kinds")
    _bind(call, vector, "weight", "bias")
    call.weighs("input", -1, vector)
    return x


@rule("aten.group_norm", parameters=("weight", "bias"))
def group_norm(call: Call) -> Any:
    """Whole groups are units where there are many of them; else the same position in every group.

    A group that goes whole takes its statistics along, and the others keep theirs. Where as many positions go
    from every group, what is left is a group norm of as many, smaller groups: under gates its statistics are
    those of the open channels, m_g = Σ_c z_c Σ_s x_cs / (S Σ_c z_c), which at gates of zero and one is what
    the smaller norm computes. Other patterns leave groups of unequal size, which no group norm has.
    """
    x, groups = call.known["input"], call.args["num_groups"]
    vector = along(x, 1)
    if vector is None:
        return call.frozen_everything(CROSSES)
    inside = vector.view(groups, -1)  # (groups, channels in each)
    if groups >= inside.shape[1]:
        call.join(inside, inside[:, :1])
        call.findings.group_counts[call.node] = inside[:, 0]
    else:
        call.join(inside, inside[:1])
        call.weighs("input", 1, vector)
    _bind(call, vector, "weight", "bias")
    return x


@rule("aten._weight_norm", parameters=("v", "g"))
def weight_norm(call: Call) -> Any:
    """w = g v / ‖v‖, lengths over all dimensions but one, or over all of them.

    Where g is nobody else's, a cut takes what is left of a length into it, g ← g ‖v′‖ / ‖v‖, and every
    dimension may lose indices. Otherwise those that lengths are over stay.
    """
    v, g, dim = call.known["v"], call.known["g"], call.args.get("dim", 0)
    if not isinstance(v, Raw) or not isinstance(g, Raw):
        return call.frozen_everything("its weight is computed, and such weights have no rule yet")
    kept = set() if dim == ALL else {dim % len(v.shape)}
    if _has_lengths_of_its_own(call, dim):
        call.findings.lengths.add((v.name, g.name, dim))
    else:
        call.freeze_along(v, set(range(len(v.shape))) - kept, "the length of a filter is over it")
    for index in kept:
        call.join(v.along(call.labels, index), g.along(call.labels, index))
    return v


ALL = -1
"""What PyTorch's kernel is given for the length of the whole tensor."""


def _has_lengths_of_its_own(call: Call, dim: int) -> bool:
    """Whether v and g are parameters as they are, and g is the length of that v alone."""
    v, g = (argument_node(call.node, name) for name in ("v", "g"))
    if v is None or g is None or v.op != "get_attr" or g.op != "get_attr":
        return False
    return all(
        user.target is call.node.target
        and argument_node(user, "v") is v
        and arguments(user).get("dim", 0) == dim
        for user in g.users
    )


def _bind(call: Call, vector: Tensor, *names: str) -> None:
    """Parameters of the norm go with the channels."""
    for name in names:
        parameter = call.known.get(name)
        if isinstance(parameter, Raw):
            call.join(vector, parameter.along(call.labels, 0))
        elif isinstance(parameter, torch.Tensor):
            call.join(vector, parameter)
