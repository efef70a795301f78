"""What "exact" means: removals to try, networks run without a trace, outputs and gradients compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bayesprune.structure.graph import Analysis
from tests.structure.graph.networks import Inputs

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
EFFECT = 1e-3
"""Least change of the outputs that a removal must make: a test of units that do not matter proves nothing."""

Alive = dict[str, Tensor]


def drawn_alive(
    analysis: Analysis, seed: int, share: float = 0.3, before: Mapping[str, Tensor] | None = None
) -> Alive:
    """A removal: that share of the units of every group, at least one removed and one kept where it can be.

    Args:
        analysis: whose groups.
        seed: of the choice.
        share: of each group's living units that goes.
        before: what was alive; everything by default.

    Returns:
        group → (group.size,) bool by original unit id, in which no group is starved by another one.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        alive = {}
        for group in analysis.groups:
            living = torch.ones(group.size, dtype=torch.bool) if before is None else before[group.name]
            ids = living.nonzero().squeeze(1)
            ids = ids[torch.randperm(len(ids), generator=generator)]
            gone = min(max(1, round(share * len(ids))), len(ids) - 1)
            alive[group.name] = living.clone()
            alive[group.name][ids[:gone]] = False
        if all(bool(mask.any()) for mask in still_read(analysis, alive).values()):
            return alive
    raise AssertionError(f"fifty removals of {share:.0%} all leave a group that nobody reads")


def still_read(analysis: Analysis, alive: Mapping[str, Tensor]) -> Alive:
    """The living units that still have a reader: a column may belong to units of two groups.

    Units that no weight reads (features of queries and keys, multiplied with each other) are as they were.
    """
    columns: dict[tuple[str, int], Tensor] = {}
    for slot in analysis.slots:
        stays = (slot.unit_ids < 0) | alive[slot.group][slot.unit_ids.clamp_min(0)]
        key = (slot.tensor, slot.dim)
        columns[key] = columns.get(key, torch.ones_like(stays)) & stays
    read_by_weights = {slot.group for slot in analysis.slots if slot.reads}
    read = {name: torch.full_like(mask, name not in read_by_weights) for name, mask in alive.items()}
    for slot in analysis.slots:
        if slot.reads:
            ids = slot.unit_ids[columns[slot.tensor, slot.dim]]
            read[slot.group][ids[ids >= 0]] = True
    return {name: mask & read[name] for name, mask in alive.items()}


def everything(analysis: Analysis) -> Alive:
    """All units alive."""
    return {group.name: torch.ones(group.size, dtype=torch.bool) for group in analysis.groups}


def only(analysis: Analysis, name: str, alive: Alive) -> Alive:
    """The removal restricted to one group."""
    return {**everything(analysis), name: alive[name]}


def gates_of(alive: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The removal as gates of zero and one."""
    return {name: mask.to(dtype) for name, mask in alive.items()}


def flat(outputs: object) -> Tensor:
    """All numbers of a network's outputs, in one row per input row.

    Args:
        outputs: a tensor of (rows, ...), or a tuple of such.
    """
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.flatten(1) for leaf in leaves], 1)


@contextmanager
def as_found(module: nn.Module) -> Iterator[None]:
    """Modes, parameters and buffers are afterwards what they were."""
    modes = [(m, m.training) for m in module.modules()]
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        module.load_state_dict(state)
        for part, mode in modes:
            part.training = mode


def call(module: nn.Module, inputs: Inputs, gates: Mapping[str, Tensor] | None = None) -> Tensor:
    """A module's outputs as ``flat`` gives them; it may write into its arguments."""
    copies = [x.clone() for x in inputs]
    return flat(module(*copies) if gates is None else module(*copies, gates=gates))


def run(
    module: nn.Module, inputs: Inputs, training: bool, gates: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Outputs in that mode, and then in eval mode: what a step in train mode did to statistics shows there.

    Returns:
        (rows, numbers), detached; the module is as it was.
    """
    with as_found(module), torch.no_grad():
        outputs = [call(module.train(training), inputs, gates)]
        if training:
            outputs.append(call(module.eval(), inputs, gates))
    return torch.cat(outputs, 1)


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected number or one; NaN counts as infinite."""
    if actual.shape != expected.shape or not bool(torch.isfinite(actual).all()):
        return float("inf")
    if not expected.numel():
        return 0.0
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1.0)).item()


def assert_same(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Equal up to the rounding of the type, or the tolerance."""
    assert bool(torch.isfinite(expected).all()), "the comparison itself is not finite"
    assert actual.shape == expected.shape
    assert difference(actual, expected) < (TOLERANCE[expected.dtype] if tolerance is None else tolerance)


def assert_matters(removed: Tensor, whole: Tensor) -> None:
    """The removal changed the outputs."""
    assert (removed - whole).abs().max().item() > EFFECT, "nothing that was removed mattered"


def gradients(
    module: nn.Module, inputs: Inputs, gates: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Parameter name → gradient, in train mode, of the outputs' sum weighted by random numbers.

    The numbers are drawn by the shape of the outputs, which no removal changes. A parameter that is not used
    has a gradient of zeros; the module is as it was.
    """
    with as_found(module):
        module.zero_grad(set_to_none=True)
        outputs = call(module.train(), inputs, gates)
        weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        (outputs * weights.to(outputs)).sum().backward()
        found = {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in module.named_parameters()
        }
        module.zero_grad(set_to_none=True)
    return found
