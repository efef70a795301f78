"""Numbers written into an operation, its sizes and positions, that follow the units that are left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.rules.call import arguments, schema_names

aten = torch.ops.aten


def set_argument_(node: fx.Node, name: str, value: Any) -> None:
    """Change one of an operation's arguments, by the name that its schema gives it."""
    position = schema_names(node).index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def rewritten_(node: fx.Node, kind: str, inside: list[Tensor], kept: list[Tensor]) -> bool:
    """Follow the units in the numbers that an operation was given.

    Args:
        node: the operation; changed in place.
        kind: its name.
        inside: for each dimension of what it reads which indices survive.
        kept: for each dimension of its result.

    Returns:
        False where there is no way.
    """
    if kind in ("view", "reshape", "_unsafe_view", "expand", "unflatten"):
        return _resized_(node, kind, len(inside), kept)
    if kind in ("slice", "select", "narrow"):
        return _resliced_(node, kind, inside)
    return True  # nothing is written down: whether it does what it should is seen by trying


def _resized_(node: fx.Node, kind: str, ndim: int, kept: list[Tensor]) -> bool:
    """New sizes; one that depends on the rows and on units is left to PyTorch."""
    given = arguments(node)
    name = next(n for n in ("size", "shape", "sizes") if n in given)
    sizes = list(given[name])
    first = given.get("dim", 0) % ndim if kind == "unflatten" else 0
    for i, size in enumerate(sizes):
        now = int(kept[first + i].sum())
        if now != len(kept[first + i]) and size != -1:
            sizes[i] = now if isinstance(size, int) else -1
    if kind != "expand" and sum(isinstance(s, int) and s == -1 for s in sizes) > 1:
        return False
    set_argument_(node, name, sizes)
    if kind in ("view", "_unsafe_view"):
        node.target = aten.reshape.default
        node.args, node.kwargs = (node.args[0], sizes), {}
    return True


def _resliced_(node: fx.Node, kind: str, inside: list[Tensor]) -> bool:
    """New positions along a dimension that loses units."""
    given = arguments(node)
    left = inside[given.get("dim", 0) % len(inside)]
    if bool(left.all()):
        return True
    if kind == "select":
        set_argument_(node, "index", int(left[: given["index"] % len(left)].sum()))
    elif kind == "narrow":
        start, length = given["start"] % len(left), given["length"]
        set_argument_(node, "start", int(left[:start].sum()))
        set_argument_(node, "length", int(left[start : start + length].sum()))
    else:
        bounds = [given.get(bound) for bound in ("start", "end")]
        step = given.get("step", 1)
        if not all(at is None or isinstance(at, int) for at in (*bounds, step)):
            return False
        for bound, at in zip(("start", "end"), bounds, strict=True):
            if at is not None:
                at = max(0, at + len(left)) if at < 0 else min(at, len(left))
                inside_step = at % step if bound == "start" else 0  # which one of every pair
                set_argument_(node, bound, int(left[: at - inside_step].sum()) + inside_step)
    return True
