"""The rows by which moves are judged: all of the training's, where they are few; from all processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.gated import GatedModel
from bayesprune.rows import Batched, Call, InMemory, Inputs, Pair, joined
from bayesprune.svi.batches import Batches, untouched
from bayesprune.svi.candidates import FEWEST_MASKS
from bayesprune.svi.mask_evidence import affordable
from bayesprune.svi.processes import Processes
from bayesprune.svi.settings import Moves

MOST_NUMBERS = 50_000_000
"""Of inputs and targets that are collected from a loader, or sent to other processes."""
AT_ONCE = 1000


def rows_for(gated: GatedModel, batches: Batches | None, settings: Moves) -> Pair | str:
    """The rows by which moves are judged; or why there are none.

    Tensors are taken as they are. A data set, a loader or a stream is gone through once, where it is small
    enough that moves are tried at all: what a loader draws is the same every time, and its generators are
    left as they were. Of one that turns out too large no more rows are taken than that is told by.

    Args:
        gated: the model.
        batches: of the training rows.
        settings: of the moves.
    """
    source = None if batches is None else batches.source
    if batches is None or source is None:
        return "no training rows are known: give Training rows="
    if isinstance(source, InMemory):
        return "the rows have no targets" if source.y is None else (source.x, source.y)
    bound = most_rows(gated, settings)
    told = "they would take too long for so many rows"
    count = _dealt(source) if isinstance(source, Batched) else source.count
    if count is not None and count > bound:
        return f"{told} ({count:,}, and up to {bound:,} are collected)"
    with untouched(batches, seed=0):
        try:
            found = _collected(source.passed(min(AT_ONCE, bound + 1)), bound, batches.rows)
        except DataError as problem:  # the training meets it too, and says in which epoch
            return f"a pass over the rows ended in: {problem}"
    if isinstance(found, str):
        return found or f"{told} (more than the {bound:,} that are collected)"
    device = gated.log_odds.device
    return found[0].to(device), found[1].to(device)


def most_rows(gated: GatedModel, settings: Moves) -> int:
    """How many rows can be judged by at the most, so that a few masks can be asked."""
    if settings.masks is not None:
        return MOST_NUMBERS
    return max(1, affordable(gated, 1) // FEWEST_MASKS)


def together(processes: Processes, own: Pair | str) -> Pair | str:
    """The rows of all processes, in each: those of one, where all have the same.

    Args:
        processes: of the training.
        own: what ``rows_for`` gave in this one.
    """
    said = own if isinstance(own, str) else ""
    if not said and not isinstance(own, str) and _numbers(own) > MOST_NUMBERS:
        said = f"they would send more than {MOST_NUMBERS:,} numbers between processes"
    reasons = [bytes(part).decode() for part in processes.gather(said.encode(), "rows of moves", 0)]
    if any(reasons) or isinstance(own, str):
        return next((reason for reason in reasons if reason), said)
    packed = safetensors.torch.save({name: _plain(value) for name, value in _named(own).items()})
    every = dict.fromkeys(processes.gather(packed, "rows of moves", 0))
    if len(every) == 1:
        return own
    pairs = [_pair(safetensors.torch.load(part), own) for part in every]
    device = own[1].device
    return joined([x for x, _ in pairs]).to(device), torch.cat([y for _, y in pairs]).to(device)


def _dealt(source: Batched) -> int | None:
    return source.count if source.found.dealt is None else source.found.dealt


def _collected(passed: Iterator[tuple[Inputs, Tensor | None]], bound: int, count: int) -> Pair | str:
    """The rows of a pass that may have no end, up to their number; an empty reason if they are too many."""
    xs: list[Inputs] = []
    ys: list[Tensor] = []
    rows = numbers = 0
    for x, y in passed:
        if y is None:
            return "the rows have no targets"
        if not _alike((x, y), (xs[0], ys[0]) if xs else (x, y)):
            return "batches are not of rows of one size, which could be put together"
        rows, numbers = rows + len(x), numbers + _numbers((x, y))
        if rows > bound or numbers > MOST_NUMBERS:
            return ""
        xs.append(x)
        ys.append(y)
        if rows >= count:
            break
    return joined(xs), torch.cat(ys)


def _alike(batch: Pair, first: Pair) -> bool:
    """Whether all tensors of a batch have a row for each target, of the size that those of the first have."""
    rows = len(batch[1]) if batch[1].ndim else 0
    pairs = zip(_named(batch).values(), _named(first).values(), strict=True)
    return all(a.ndim and len(a) == rows and a.shape[1:] == b.shape[1:] for a, b in pairs)


def _numbers(rows: Pair) -> int:
    return sum(tensor.numel() for tensor in _named(rows).values())


def _named(rows: Pair) -> dict[str, Tensor]:
    x, y = rows
    inputs = x.tensors if isinstance(x, Call) else (x,)
    return {**{f"x{number}": tensor for number, tensor in enumerate(inputs)}, "y": y}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _pair(tensors: dict[str, Tensor], like: Pair) -> Pair:
    inputs: Any = tuple(tensors[f"x{number}"] for number in range(len(tensors) - 1))
    x = Call(inputs, like[0].form) if isinstance(like[0], Call) else inputs[0]
    return x, tensors["y"]
