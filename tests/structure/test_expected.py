"""Expected cost is what enumeration gives: every gate configuration, cut for real and counted."""

import copy
import itertools
import time

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from bayesprune.structure import ExpectedCost, Slot, Term, count, minimal_masks
from bayesprune.structure.groups import Group, close_over, keep_map
from tests.structure.networks import cut_, gated_of, randomise_norms, rows_of_layers

few = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def drawn_probs(gated, seed):
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.size, generator=generator, dtype=torch.double) for g in gated.groups}


def masked_numel(shape, slots, alive):
    """The slow road: entries of a tensor whose every owner is alive, one by one."""
    stays = torch.ones(shape, dtype=torch.bool)
    for slot in slots:
        line = alive[slot.group][slot.unit_ids]
        stays &= line.reshape([-1 if d == slot.dim else 1 for d in range(len(shape))])
    return int(stays.sum())


def vertex(gated, alive):
    cost = ExpectedCost(gated)({name: mask.double() for name, mask in alive.items()})
    return cost.parameters.item(), cost.macs.item()


def enumerated(gated, probs, cut):
    """E over all configurations of the living units, with or without the deaths that follow from others."""
    living = [(s.group, u) for s in gated.slots if s.reads for u in s.unit_ids.tolist()]
    living = list(dict.fromkeys(living))
    parameters = macs = 0.0
    for bits in itertools.product([False, True], repeat=len(living)):
        alive = {g.name: torch.zeros(g.size, dtype=torch.bool) for g in gated.groups}
        chance = 1.0
        for (group, unit), bit in zip(living, bits, strict=True):
            alive[group][unit] = bit
            chance *= float(probs[group][unit]) if bit else 1 - float(probs[group][unit])
        if cut:
            alive = close_over(gated.slots, alive)
        here = vertex_by_masks(gated, alive)
        parameters, macs = parameters + chance * here[0], macs + chance * here[1]
    return parameters, macs


def vertex_by_masks(gated, alive):
    parameters = [
        masked_numel(p.shape, [s for s in gated.slots if s.tensor == name], alive)
        for name, p in gated.named_parameters()
    ]
    macs = sum(t.macs * masked_numel(t.shape, t.slots, alive) for t in gated.terms())
    return sum(parameters), macs


SMALL = {
    "dense with normalisation": lambda: (
        nn.Sequential(
            nn.BatchNorm1d(2), nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Linear(3, 2),
        ),
        torch.zeros(2, 2),
    ),
    "convolutions, flattened": lambda: (
        nn.Sequential(
            nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2), nn.Conv1d(2, 2, 2, bias=False), nn.Flatten(),
            nn.Linear(4, 2), nn.Linear(2, 2),
        ),
        torch.zeros(2, 2, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("build", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize(
    "removed", [pytest.param(False, marks=pytest.mark.nightly), True], ids=["whole", "after a removal"]
)
def test_expectation_is_the_sum_over_all_gate_configurations(build, removed):
    network, example = build()
    gated = gated_of(network.double(), example.double())
    if removed:
        alive = {g.name: torch.ones(g.size, dtype=torch.bool) for g in gated.groups}
        alive[gated.groups[1].name][0] = False
        cut_(gated, alive)
    probs = drawn_probs(gated, seed=int(removed))
    cost = ExpectedCost(gated)(probs)
    parameters, macs = enumerated(gated, probs, cut=False)
    assert cost.parameters.item() == pytest.approx(parameters, rel=1e-12)
    assert cost.macs.item() == pytest.approx(macs, rel=1e-12)
    least_parameters, least_macs = enumerated(gated, probs, cut=True)
    if not any(isinstance(module, nn.Flatten) for module in network):  # whoever is there has a reader
        assert (least_parameters, least_macs) == pytest.approx((parameters, macs), rel=1e-12)
    else:  # a filter none of whose features is read is cut as well: an upper bound
        assert least_parameters < parameters and least_macs < macs


@given(drawn=rows_of_layers(), seed=st.integers(0, 2**16))
@few
def test_at_a_vertex_it_is_the_count_of_the_network_that_was_cut(drawn, seed):
    network, example = drawn
    gated = gated_of(network, example)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):  # and again after units have been removed
        alive = {g.name: torch.rand(g.size, generator=generator) < 0.7 for g in gated.groups}
        closed = close_over(gated.slots, alive)
        assume(all(bool(mask.any()) for mask in closed.values()))
        bound, exact = vertex(gated, alive), vertex(gated, closed)
        cut_(gated, alive)
        small = count(gated.plain(), example)
        assert exact == (small.parameters, small.macs) == (gated.parameter_count(), gated.macs())
        assert bound[0] >= exact[0] and bound[1] >= exact[1]
        unread = any(bool((alive[n] & ~closed[n]).any()) for n in alive)
        assert unread or bound == exact


@given(drawn=rows_of_layers(), seed=st.integers(0, 2**16))
@few
def test_slope_of_a_unit_is_what_it_adds(drawn, seed):
    """Multilinear: ∂E/∂θ_u is E at θ_u = 1 minus E at θ_u = 0, exactly."""
    network, example = drawn
    gated = gated_of(network, example)
    probs = drawn_probs(gated, seed)
    leaves = {name: p.clone().requires_grad_() for name, p in probs.items()}
    cost = ExpectedCost(gated)
    expected = cost(leaves)
    slopes = torch.autograd.grad(expected.macs + 3 * expected.parameters, list(leaves.values()))
    for group, slope in zip(leaves, slopes, strict=True):
        for unit in range(min(len(slope), 3)):
            ends = []
            for value in (1.0, 0.0):
                moved = {name: p.clone() for name, p in probs.items()}
                moved[group][unit] = value
                there = cost(moved)
                ends.append((there.macs + 3 * there.parameters).item())
            assert slope[unit].item() == pytest.approx(ends[0] - ends[1], rel=1e-9, abs=1e-9)


def test_a_group_that_owns_both_dimensions_counts_every_unit_once():
    """A residual stream: rows and columns of one matrix belong to the same units, in different order."""
    layer, order = nn.Linear(4, 5, bias=False), torch.tensor([2, 0, 3, 1, 0])
    slots = [
        Slot("a.weight", 0, "stream", order),
        Slot("a.weight", 1, "stream", torch.arange(4)),
        Slot("a.weight", 1, "other", torch.tensor([1, 0, 0, 1])),
    ]
    groups = (Group("stream", 4), Group("other", 2))
    generator = torch.Generator().manual_seed(1)
    probs = {g.name: torch.rand(g.size, generator=generator, dtype=torch.double) for g in groups}
    total = 0.0
    for bits in itertools.product([False, True], repeat=6):
        alive = {"stream": torch.tensor(bits[:4]), "other": torch.tensor(bits[4:])}
        chance = 1.0
        for name, mask in alive.items():
            chance *= torch.where(mask, probs[name], 1 - probs[name]).prod().item()
        keep = keep_map(tuple(slots), alive)
        rows = keep.get(("a.weight", 0), torch.ones(5, dtype=torch.bool)).sum()
        columns = keep.get(("a.weight", 1), torch.ones(4, dtype=torch.bool)).sum()
        total += chance * int(rows * columns)
    term = Term(layer.weight.shape, tuple(slots), parameters=1.0)
    assert ExpectedCost.of([term], groups)(probs).parameters.item() == pytest.approx(total, rel=1e-12)


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def test_it_is_quick_enough_for_every_gate_step():
    gated = gated_of(lenet5(), torch.zeros(1, 1, 28, 28))
    probs = {name: p.requires_grad_() for name, p in drawn_probs(gated, seed=0).items()}
    cost, seconds = ExpectedCost(gated), []
    for _ in range(30):
        started = time.perf_counter()
        torch.autograd.grad(cost(probs).macs, list(probs.values()))
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.005  # the least of thirty: whatever else the machine does


@given(drawn=rows_of_layers(), least=st.integers(1, 2))
@few
def test_the_smallest_network_is_one_that_can_be_cut_to(drawn, least):
    network, example = drawn
    gated = gated_of(network, example)
    randomise_norms(gated)
    alive = minimal_masks(gated, least)
    assert all(int(mask.sum()) == min(least, len(mask)) for mask in alive.values())
    small = copy.deepcopy(gated)
    closed = cut_(small, alive)
    assert all(bool(mask.any()) for mask in closed.values())
    if least == 1:
        assert all(torch.equal(closed[name], mask) for name, mask in alive.items())
        assert vertex(gated, alive) == (small.parameter_count(), small.macs())
