"""Where the rows of a batch are in every value that a network computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves, tree_map

from bayesprune.structure.graph.capture.capture import Inputs
from bayesprune.structure.graph.capture.leading import Place, places_of_rows
from bayesprune.structure.plain.routed import NAME


def row_dimensions(
    graph: fx.GraphModule,
    example: Inputs,
    wanted: Set[str],
    sizes: Mapping[fx.Node, torch.Size] | None = None,
) -> dict[str, Place]:
    """Find the rows in values, by marking the first row of the inputs and looking where the mark arrives.

    Where operations alone tell where the rows of all that is asked for are, nothing is run.
    The mark is NaN, which goes through products with zero: what is found depends neither on the weights that
    a network happens to have (a residual branch may begin at zero), nor on what it draws (stochastic depth
    may drop the very row), nor on units that are dead on this batch. Integers cannot be marked and are
    changed; a table that they are looked up in then gives marks. What the mark does not reach (noise, tokens
    that are repeated for every row) is marked where its size is seen to grow with the rows. Only where a
    network fails on the mark, numbers are changed instead.

    Args:
        graph: of one mode.
        example: its inputs.
        wanted: names of the values that are asked for; the others are not kept.
        sizes: node → shape of its value, where that is known.

    Returns:
        Name of a value → (the dimension that its rows run along, how often each row comes one after the
        other, how often the whole sequence comes). Values without such a dimension are left out.
    """
    told = {} if sizes is None else places_of_rows(graph, sizes, len(example[0]))
    if wanted <= told.keys():
        return {name: told[name] for name in wanted}
    found: dict[str, Place] = {}
    for other in _batches(example, marked=True):
        found = {**_search(graph, example, other, wanted, {}, _marked_with_nan), **found}
        if wanted <= found.keys():
            return found
    grows = _growing(graph, example)
    for marked, mark in ((True, _marked_with_nan), (False, _marked_with_another)):
        for other in _batches(example, marked):
            found = {**_search(graph, example, other, wanted, grows, mark), **found}
            if wanted <= found.keys():
                return found
    return found


Mark = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(the second batch's numbers, the first's, where) → the second's with marks there."""


def _marked_with_nan(second: Tensor, first: Tensor, where: Tensor) -> Tensor:
    return second.masked_fill(where, torch.nan)


def _marked_with_another(second: Tensor, first: Tensor, where: Tensor) -> Tensor:
    """Of operations that refuse what is no number; where the change itself has arrived it is mark enough."""
    return torch.where(where & (second == first), first + 1, second)


def _search(
    graph: fx.GraphModule,
    example: Inputs,
    other: Inputs,
    wanted: Set[str],
    grows: Mapping[str, int],
    mark: Mark,
) -> dict[str, Place]:
    """One run beside each other; nothing where the network does not run on the other batch."""
    pairs = _Pairs(graph, wanted, len(example[0]), grows, mark)
    try:
        with torch.no_grad():
            pairs.run(*(_Pair(x.clone(), y.clone()) for x, y in zip(example, other, strict=True)))
    except (IndexError, RuntimeError):  # an integer that names no row of its table, or a mark that is refused
        return {}
    return pairs.found


def _batches(example: Inputs, marked: bool) -> Iterator[Inputs]:
    """The example with another first row, in several ways, each once."""
    for way in range(4):
        if way and marked and all(x.is_floating_point() or x.is_complex() for x in example):
            return
        other = tuple(torch.cat([_changed(x[:1], x, way, marked), x[1:]]) for x in example)
        if not all(torch.equal(x, y) for x, y in zip(example, other, strict=True)):
            yield other


def _changed(row: Tensor, x: Tensor, way: int, marked: bool) -> Tensor:
    """Another row. Integers name rows of tables of unknown length: numbers that occur are tried first, in all
    places alike, so that a sum over places changes too; then their neighbours.
    """
    if x.is_floating_point() or x.is_complex():
        if marked:
            return torch.full_like(row, torch.nan)
        return row + (1, -1, 10, -10)[way] * torch.rand_like(row)
    if x.dtype == torch.bool:
        return ~row
    return (torch.full_like(row, int(x.max())), torch.full_like(row, int(x.min())), row + 1, row - 1)[way]


def _row_dimension(changed: Tensor, rows: int) -> Place | None:
    """The dimension along which what changed is the first of ``rows`` rows."""
    for dim in range(changed.ndim):
        size = changed.shape[dim]
        line = changed.movedim(dim, 0).reshape(size, -1).any(1)
        if size % rows or not bool(line.any()) or bool(line.all()):
            continue
        for inner in (n for n in range(1, size // rows + 1) if size % (n * rows) == 0):
            first = torch.arange(size, device=line.device) // inner % rows == 0
            if not bool(line[~first].any()) and bool(line.view(-1, rows * inner)[:, :inner].any(1).all()):
                return dim, inner, size // (rows * inner)
    return None


def _growing(graph: fx.GraphModule, example: Inputs) -> dict[str, int]:
    """Value → the dimension whose size is the number of rows, seen on one row more."""
    rows, sizes = len(example[0]), []
    for inputs in (example, tuple(torch.cat([x, x[:1]]) for x in example)):
        shapes = _Shapes(graph)
        with contextlib.suppress(IndexError, RuntimeError), torch.no_grad():
            shapes.run(*(x.clone() for x in inputs))
        sizes.append(shapes.found)
    found = {}
    for name, few in sizes[0].items():
        both = list(zip(few, sizes[1].get(name, ()), strict=False))
        if (rows, rows + 1) in both:
            found[name] = both.index((rows, rows + 1))
    return found


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of every value."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[str, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function":
            self.found[n.name] = result.shape
        return result


@dataclass(frozen=True)
class _Pair:
    """A value for the example, and for the example with its first row marked."""

    first: Any
    second: Any


class _Pairs(fx.Interpreter):
    """Runs a graph on both batches, operation by operation, with every row on its own.

    Values are compared as they come and freed when nobody reads them any more, so that two of a network's
    activations are held at a time and not all of them.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        wanted: Container[str],
        rows: int,
        grows: Mapping[str, int],
        mark: Mark,
    ) -> None:
        super().__init__(graph)
        self.wanted, self.rows, self.grows, self.mark = wanted, rows, grows, mark
        self.found: dict[str, Place] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if not isinstance(result, _Pair) or not isinstance(result.first, Tensor):
            return result
        if n.name in self.grows and result.first.is_floating_point():
            result = _marked_by_size(result, self.grows[n.name], self.mark)
        if n.name in self.wanted:
            place = _row_dimension(_differs(result), self.rows)
            if place is not None:
                self.found[n.name] = place
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One operation on both batches; those that mix rows do not, and what is drawn is drawn once."""
        name = getattr(target, "_schema", None)
        if name is None:  # arithmetic on sizes, or one of several results
            return _both(target, args, kwargs)
        kind = name.name.removeprefix("aten::")
        if target is torch.ops.aten.view.default:  # what is marked may lie in memory otherwise
            target = torch.ops.aten.reshape.default
        if name.is_mutable and isinstance(args[0], Tensor):  # a buffer that the network moves
            return target(*_side(args, "first"), **_side(kwargs, "first"))
        if kind == "batch_norm" and args[3] is None:  # without statistics of its own it mixes rows, always
            return args[0]
        if kind == NAME:  # another choice of weights rounds other rows otherwise
            args = [*args[:-1], _side(args[-1], "first")]
        args, kwargs = _each_row_on_its_own(target, kind, args, kwargs)
        if kind.rstrip("_") == "bernoulli":
            return _all_kept(args[0], kind, self.mark)
        if torch.Tag.nondeterministic_seeded in target.tags and kind != "scaled_dot_product_attention":
            return _drawn_once(target, kind, args, kwargs, self.mark)
        return _marks_kept(_both(target, args, kwargs), target, kind, args, kwargs, self.mark)


def _both(target: Callable[..., Any], args: Any, kwargs: Any) -> _Pair:
    """An operation on either batch. Whole numbers are not made of marks, which could be no index."""
    first = target(*_side(args, "first"), **_side(kwargs, "first"))
    whole = any(_is_whole(leaf) for leaf in tree_leaves(first))
    of = _without_marks if whole else lambda pair: pair.second
    return _Pair(first, target(*_mapped(args, of), **_mapped(kwargs, of)))


STEADY = {"train": False, "training": False, "dropout_p": 0.0, "dropout": 0.0}
"""Arguments by which operations are told to draw, or to mix rows, and what they are given instead."""


def _each_row_on_its_own(target: Any, kind: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments under which an operation neither draws nor takes statistics of the batch."""
    names = [argument.name for argument in target._schema.arguments]
    instead: dict[str, Any] = dict(STEADY)
    if kind == "instance_norm":
        instead |= {"running_mean": None, "running_var": None, "use_input_stats": True}
    args = [instead.get(name, value) for name, value in zip(names, args, strict=False)]
    return args, {name: instead.get(name, value) for name, value in kwargs.items()}


def _all_kept(kept: Any, kind: str, mark: Mark) -> Any:
    """A random choice that chooses all: another one might hide the row."""
    if kind.endswith("_"):
        return _Pair(kept.first.fill_(1), kept.second.fill_(1))
    if not isinstance(kept, _Pair):
        return torch.ones_like(kept)
    first = torch.ones_like(kept.first)
    return _Pair(first, mark(first, first, _differs(kept)))


def _drawn_once(target: Any, kind: str, args: Any, kwargs: Any, mark: Mark) -> _Pair:
    """The same numbers for both batches; marked where a number is drawn for one that is."""
    first = target(*_side(args, "first"), **_side(kwargs, "first"))
    if kind.endswith("_") and isinstance(args[0], _Pair):
        args[0].second.copy_(first)
        return args[0]
    second = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, first)
    return _Pair(first, second if kind.endswith("_like") else _marked(second, first, (args, kwargs), mark))


LETS_MARKS_FALL = {"where", "masked_fill", "masked_fill_", "nan_to_num", "to", "_to_copy", "type_as"}
"""Operations beside the pointwise ones whose results have the place of the numbers that they are made of."""
LOOKS_UP = {"embedding", "index", "index_select", "gather", "take_along_dim"}
"""Operations that take numbers out of a table, their first argument."""


def _marks_kept(result: _Pair, target: Any, kind: str, args: Any, kwargs: Any, mark: Mark) -> _Pair:
    """What an operation gave, with the marks that comparisons, choices and tables let fall."""
    if not isinstance(result.second, Tensor):
        return result
    if torch.Tag.pointwise in target.tags or kind in LETS_MARKS_FALL:
        return _Pair(result.first, _marked(result.second, result.first, (args, kwargs), mark))
    if kind == "scaled_dot_product_attention":
        return _Pair(result.first, _attended(result.second, *_side(args[:3], "second")))
    if kind in LOOKS_UP and result.second.is_floating_point():
        table = _side(args[0], "first")
        numbers = torch.arange(table.numel(), device=table.device).reshape(table.shape)
        places = _both(target, [numbers, *args[1:]], kwargs)
        return _Pair(result.first, mark(result.second, result.first, places.first != places.second))
    return result


def _attended(second: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with marks where its parts have them: kernels put zeros where scores are no numbers."""
    k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) if q.ndim > 3 else x for x in (k, v))
    marks = (q @ k.transpose(-1, -2)).softmax(-1) @ v
    return second.masked_fill(marks.isnan(), torch.nan)


def _marked(second: Any, first: Any, arguments: Any, mark: Mark) -> Any:
    """A result with marks wherever a number that it is made of has one."""
    for pair in tree_leaves(arguments, is_leaf=lambda leaf: isinstance(leaf, _Pair)):
        if not isinstance(pair, _Pair) or not isinstance(pair.first, Tensor):
            continue
        if not isinstance(second, Tensor) or _is_whole(second) or pair.first.ndim > second.ndim:
            continue
        differs = _differs(pair)
        sizes = zip(differs.shape[::-1], second.shape[::-1], strict=False)
        if any(ours not in (1, theirs) for ours, theirs in sizes) or not bool(differs.any()):
            continue
        if second.dtype == torch.bool:
            second = torch.where(differs, ~first, second)
        else:
            second.copy_(mark(second, first, differs))  # in place: others may read it by its old name
    return second


def _marked_by_size(pair: _Pair, dim: int, mark: Mark) -> _Pair:
    """A value that knows nothing of the inputs, with its first row marked."""
    if bool(_differs(pair).any()):
        return pair
    where = torch.zeros_like(pair.second, dtype=torch.bool)
    where.select(dim, 0).fill_(True)
    return _Pair(pair.first, mark(pair.second, pair.first, where))


def _differs(pair: _Pair) -> Tensor:
    """Where both batches differ; what is no number for the example itself is no mark."""
    first: Tensor = pair.first
    return torch.ne(first, pair.second) & torch.eq(first, first)


def _is_whole(value: Any) -> bool:
    """Whether a value is of integers, which may be indices."""
    return isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )


def _without_marks(pair: _Pair) -> Any:
    """The value of the second batch, with numbers that occur in place of marks."""
    second = pair.second
    if not isinstance(second, Tensor) or not second.is_floating_point() or not second.numel():
        return second
    low, high = pair.first.min(), pair.first.max()
    return torch.where(torch.isnan(second), torch.where(pair.first < high, high, low), second)


def _side(arguments: Any, side: str) -> Any:
    """The arguments of one of both batches."""
    return _mapped(arguments, lambda pair: getattr(pair, side))


def _mapped(arguments: Any, of: Callable[[_Pair], Any]) -> Any:
    if isinstance(arguments, _Pair):
        return of(arguments)
    if isinstance(arguments, list | tuple):
        return type(arguments)(_mapped(part, of) for part in arguments)
    if isinstance(arguments, dict):
        return {name: _mapped(part, of) for name, part in arguments.items()}
    return arguments
