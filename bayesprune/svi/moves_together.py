"""Moves in several processes: the first decides, and all do what it has found, to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.rows import Pair
from bayesprune.svi.climb import Terms
from bayesprune.svi.mask_evidence import tensors_of
from bayesprune.svi.moves import Decision, Move, decide_, spared
from bayesprune.svi.processes import Processes
from bayesprune.svi.settings import Moves


def spared_together(
    processes: Processes, step: int, gated: GatedModel, rows: Pair, settings: Moves, dead: Tensor
) -> Tensor:
    """``spared``, as the first process has it: correlations are sums, whose last bits a processor decides.

    Args:
        processes: of the training.
        step: steps taken.
        gated: the model, to the bit the same in all.
        rows: the same in all.
        settings: of the moves.
        dead: (units of all groups,), bool, the same in all.
    """
    if not bool(dead.any()):
        return torch.zeros_like(dead)

    def make() -> tuple[bytes, ...]:
        return (spared(gated, rows, settings, dead).cpu().numpy().tobytes(),)

    (found,) = processes.send(make, 1, "a move", step)
    return torch.frombuffer(bytearray(found), dtype=torch.bool).to(dead.device)


@torch.no_grad()
def decide_together_(
    processes: Processes,
    step: int,
    gated: GatedModel,
    rows: Pair,
    settings: Moves,
    keep: Tensor,
    least: int,
    terms: Terms | None = None,
) -> tuple[Tensor, Decision]:
    """``decide_`` in the first process; mask, weights and what was tried go to all.

    Args:
        processes: of the training.
        step: steps taken.
        gated: the model, to the bit the same in all before and after.
        rows: the same in all.
        settings: of the moves.
        keep: (units of all groups,), bool, the decided mask, the same in all.
        least: units that a group keeps.
        terms: where prices follow from cost.
    """
    names = tensors_of(gated)

    def make() -> tuple[bytes, ...]:
        mask, decision = decide_(gated, rows, settings, keep, least, terms)
        weights = {name: gated.weight_tensors()[name].detach().cpu().contiguous() for name in names}
        content = safetensors.torch.save({**weights, "/mask": mask.cpu()})
        return json.dumps(asdict(decision)).encode(), content

    told, content = processes.send(make, 2, "a move", step)
    found = safetensors.torch.load(content)
    for name in names:
        gated.weight_tensors()[name].data.copy_(found[name])
    return found["/mask"].to(keep.device), decision_of(json.loads(told))


def decision_of(plain: Mapping[str, Any]) -> Decision:
    """A decision of plain values, as ``dataclasses.asdict`` gives them; what earlier versions left out is 0.

    Args:
        plain: of JSON.
    """
    return Decision(**{**plain, "moves": tuple(Move(**move) for move in plain["moves"])})
