"""Many numbers into one, and numbers that depend on all along a dimension.

Over units such an operation is either exact when closed units are zeros (a sum, a length), or it is, under
gates, that of the open units alone (a mean, a maximum): ``gated_reduction.py`` says how.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from bayesprune.structure.graph.rules.call import Call, Raw, is_fixed, operation, rule, united, varying
from bayesprune.structure.graph.rules.gated_reduction import WEIGHTED
from bayesprune.structure.graph.rules.labels import along, compact, spread

_SPATIAL = {
    **{f"aten.{kind}_pool{d}d": d for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp")
       for d in (1, 2, 3)},
    **{f"aten.max_pool{d}d_with_indices": d for d in (1, 2, 3)},
    **{f"aten._adaptive_avg_pool{d}d": d for d in (2, 3)},
    **{f"aten.upsample_{kind}": d for d, kinds in
       {1: ("nearest1d", "linear1d"), 2: ("nearest2d", "bilinear2d", "bicubic2d", "_nearest_exact2d"),
        3: ("nearest3d", "trilinear3d")}.items() for kind in kinds},
}  # fmt: skip


@rule(*_SPATIAL, parameters=("self", "input"))
def spatial(call: Call) -> Any:
    """Pooling and resizing: within a channel, over its last dimensions."""
    x = call.known["self"] if "self" in call.known else call.known["input"]
    last = _SPATIAL[operation(call)]
    if isinstance(x, Raw):
        return _across_parameter(call, x, set(range(len(x.shape) - last, len(x.shape))))
    if varying(x) & set(range(x.ndim - last, x.ndim)):
        call.freeze(x, "it pools across units")
        return call.fixed()
    index = tuple(slice(None) if d < x.ndim - last else slice(0, 1) for d in range(x.ndim))
    if isinstance(call.result, Tensor):
        return x[index].expand(call.result.shape)
    return [x[index].expand(part.shape) for part in call.result]


@rule("aten.max_unpool2d", "aten.max_unpool3d")
def unpooled(call: Call) -> Any:
    """Numbers go back to where they were the largest of their channel."""
    x, indices = call.known["self"], call.known["indices"]
    channel = x.ndim - (2 if operation(call) == "aten.max_unpool2d" else 3) - 1
    if varying(x) | varying(indices) > {channel}:
        return call.frozen_everything("it pools across units")
    if is_fixed(indices) and not is_fixed(x):
        call.select("indices", channel, united(call, x, channel))
    elif not is_fixed(x) or not is_fixed(indices):
        call.join(compact(x), compact(indices))
    return spread(united(call, x, channel), channel, call.shape)


@rule(*(f"aten.fft_{kind}fft{dims}" for kind in ("", "i", "r", "ir", "h", "ih") for dims in ("", "2", "n")))
def transform(call: Call) -> Any:
    """Every number of a transform depends on all along some dimensions; along others units pass."""
    x, kind = call.known["self"], operation(call)
    given = call.args.get("dim", -1 if kind.endswith("fft") else (-2, -1) if kind.endswith("2") else None)
    dims = range(x.ndim) if given is None else given if isinstance(given, list | tuple) else [given]
    mixed = {d % x.ndim for d in dims}
    if varying(x) & mixed:
        return call.refill("a transform mixes its units")
    return x[tuple(slice(0, 1) if d in mixed else slice(None) for d in range(x.ndim))].expand(call.shape)


@rule("aten.mean", "aten.sum", "aten.amax", "aten.amin", "aten.var", "aten.std", "aten.var_mean",
      "aten.std_mean", "aten.norm", "aten.linalg_vector_norm", "aten.logsumexp", "aten.prod", "aten.max",
      "aten.min", "aten.median", "aten.all", "aten.any", "aten.argmax", "aten.argmin",
      parameters=("self",))  # fmt: skip
def reduction(call: Call) -> Any:
    """One number from many: within a unit, or of the open units, or else the units stay."""
    x = call.known["self"]
    dims = call.args.get("dim")
    ndim = len(x.shape)
    dims = range(ndim) if dims is None or dims == [] else dims if isinstance(dims, list | tuple) else [dims]
    dims = {d % ndim for d in dims} if ndim else set()
    if isinstance(x, Raw):
        return _of_parameter(call, x, dims)
    if varying(x) & dims:
        if len(varying(x)) == 1:  # over all units, into what belongs to none
            return _over_units(call, x, varying(x).pop())
        small = compact(x)
        index = tuple(slice(0, 1) if d in dims else slice(None) for d in range(x.ndim))
        call.join(small, small[index])  # what is reduced into one number is one unit
    kept = x[tuple(slice(0, 1) if d in dims else slice(None) for d in range(x.ndim))]
    if not call.args.get("keepdim", False):
        kept = kept.reshape([s for d, s in enumerate(kept.shape) if d not in dims])
    if isinstance(call.result, Tensor):
        return kept.expand(call.result.shape)
    return [kept.expand(part.shape) for part in call.result]


def _over_units(call: Call, x: Tensor, dim: int) -> Any:
    """Into numbers that belong to no unit."""
    vector, kind = along(x, dim), operation(call)
    assert vector is not None
    if kind == "aten.sum" or (kind in ("aten.norm", "aten.linalg_vector_norm") and _order(call) > 0):
        call.read("self", dim, vector)  # a closed unit adds nothing
    elif kind in WEIGHTED and not _reads_positions(call.node):
        call.weighs("self", dim, vector)
    else:
        call.freeze(x, "it is reduced over units")
    return call.fixed()


def _order(call: Call) -> float:
    """The p of a p-norm; zero for those that are none."""
    order = call.args.get("ord", call.args.get("p", 2))
    return 2.0 if order is None else float(order) if not isinstance(order, str) else 0.0


def _reads_positions(node: fx.Node) -> bool:
    """Whether anybody reads the second result of a maximum, the position of a unit, or gives no dimension."""
    if str(node.target) not in ("aten.max.dim", "aten.min.dim"):
        return str(node.target) in ("aten.max.default", "aten.min.default")
    return any(user.args[1:] != (0,) and bool(user.users) for user in node.users)


def _of_parameter(call: Call, x: Raw, dims: set[int]) -> Any:
    """Statistics of a weight: dimensions that they are over stay as they are."""
    call.freeze_along(x, dims, "a statistic of the parameter is over it")
    keep = call.args.get("keepdim", False)
    left = [d for d in range(len(x.shape)) if keep or d not in dims]
    parts = call.result if isinstance(call.result, tuple | list) else [call.result]
    found = [Raw(x.name, part.shape, tuple(None if d in dims else x.dims[d] for d in left)) for part in parts]
    return found if isinstance(call.result, tuple | list) else found[0]


def _across_parameter(call: Call, x: Raw, dims: set[int]) -> Any:
    """Numbers of a parameter that depend on all along some dimensions, which stay as they are."""
    call.freeze_along(x, dims, "every number depends on all of the parameter along it")
    if isinstance(call.result, Tensor):
        return x.without(dims, call.shape)
    return [x.without(dims, part.shape) for part in call.result]


@rule("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax", "aten.cumprod",
      "aten.logcumsumexp", parameters=("self",))  # fmt: skip
def across(call: Call) -> Any:
    """Every number depends on all along one dimension."""
    x = call.known["self"]
    if isinstance(x, Raw):
        return _across_parameter(call, x, {call.args["dim"] % len(x.shape)})
    dim = call.args["dim"] % x.ndim
    if dim not in varying(x):
        return x
    vector = along(x, dim)
    if operation(call) not in WEIGHTED or vector is None:
        return call.frozen_everything("it reads across units")
    call.weighs("self", dim, vector)
    return x


@rule("aten.cumsum", parameters=("self",))
def cumulative_sum(call: Call) -> Any:
    """Closed units add nothing to those behind them, which stay where they are among each other."""
    x = call.known["self"]
    if isinstance(x, Raw):
        return _across_parameter(call, x, {call.args["dim"] % len(x.shape)})
    dim = call.args["dim"] % x.ndim
    if dim in varying(x):
        vector = along(x, dim)
        if vector is None:
            return call.frozen_everything("it reads across units")
        call.read("self", dim, vector)
    return x
