"""Removal is exact on every network of the zoo of small ones: outputs, gradients, statistics and training."""

import copy
import functools

import pytest
import torch
from torch import nn

from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.analysis.sections import LAYERS
from tests.nightly import one_in
from tests.structure.graph.checks import (
    assert_matters,
    assert_same,
    call,
    difference,
    drawn_alive,
    everything,
    gates_of,
    gradients,
    only,
    run,
)
from tests.structure.graph.networks import CASES, removable_share, without_chance_

ROWS, EXAMPLE_ROWS = 6, 2
REMOVALS = (1, 2, 3)
BATCH_STATISTICS = {"BiasFree"}  # a row depends on the others in eval mode too
every_network = pytest.mark.parametrize("name", sorted(CASES))
REPARAMETRISED = ("WeightNormalised",)
"""A cut takes what is left of a length into another parameter: the same function, of other slopes."""

some_networks = pytest.mark.parametrize("name", one_in(4, CASES))
both_modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def fresh(name, dtype=torch.float64):
    """(network, its analysis), both the caller's own."""
    case = CASES[name]
    network = without_chance_(case.network(dtype))
    return network, analyse(network, case.batch(EXAMPLE_ROWS, dtype))


@functools.cache
def shared(name, dtype=torch.float64):
    """(network, its analysis) for tests that change neither."""
    return fresh(name, dtype)


@every_network
def test_enough_can_be_removed_and_what_cannot_has_a_reason(name):
    network, analysis = shared(name)
    assert len({group.name for group in analysis.groups}) == len(analysis.groups) > 0
    assert all(group.size > 0 for group in analysis.groups)
    assert {slot.group for slot in analysis.slots} == {group.name for group in analysis.groups}
    assert removable_share(network, analysis) >= CASES[name].prunable
    assert all(frozen.place and frozen.reason for frozen in analysis.frozen)
    if CASES[name].freezes:
        assert analysis.frozen


@every_network
@both_modes
def test_with_every_gate_at_one_it_is_the_network_itself(name, training):
    network, analysis = shared(name)
    x = CASES[name].batch(ROWS)
    whole = run(network, x, training)
    assert_same(run(analysis.gated, x, training), whole)
    assert_same(run(analysis.gated, x, training, gates_of(everything(analysis), torch.float64)), whole)
    assert_same(run(analysis.cut(everything(analysis)), x, training), whole)


@every_network
@both_modes
def test_cut_equals_masked_in_float64(name, training):
    network, analysis = shared(name)
    x = CASES[name].batch(ROWS)
    whole = run(network, x, training)
    for seed in REMOVALS:
        alive = drawn_alive(analysis, seed)
        masked = run(analysis.gated, x, training, gates_of(alive, torch.float64))
        assert_matters(masked, whole)
        small = analysis.cut(alive)
        assert_same(run(small, x, training), masked)
        assert count(small) < count(network)


@pytest.mark.nightly  # in float64 every cut is compared at 1e-10
@every_network
@both_modes
def test_cut_equals_masked_in_float32(name, training):
    network, analysis = shared(name, torch.float32)
    x = CASES[name].batch(ROWS, torch.float32)
    alive = drawn_alive(analysis, REMOVALS[0])
    masked = run(analysis.gated, x, training, gates_of(alive, torch.float32))
    assert masked.dtype == torch.float32
    assert_matters(masked, run(network, x, training))
    assert_same(run(analysis.cut(alive), x, training), masked)


@some_networks
def test_each_group_alone_can_be_removed_and_matters(name):
    network, analysis = shared(name)
    x = CASES[name].batch(ROWS)
    whole = run(network, x, False)
    half = drawn_alive(analysis, 11, share=0.6)
    for group in analysis.groups:
        if group.size == 1:
            continue  # emptying a group is not a removal of units
        alive = only(analysis, group.name, half)
        masked = run(analysis.gated, x, False, gates_of(alive, torch.float64))
        assert_matters(masked, whole)
        assert_same(run(analysis.cut(alive), x, False), masked)


@pytest.mark.parametrize("name", one_in(4, set(CASES) - BATCH_STATISTICS))
def test_gates_between_zero_and_one_differ_by_row(name):
    _, analysis = shared(name)
    x = CASES[name].batch(3)
    generator = torch.Generator().manual_seed(5)
    gates = {g.name: torch.rand(3, g.size, generator=generator, dtype=torch.float64) for g in analysis.groups}
    together = run(analysis.gated, x, False, gates)
    for row in range(3):
        one = tuple(t[row : row + 1] for t in x)
        alone = run(analysis.gated, one, False, {group: z[row] for group, z in gates.items()})
        assert_same(together[row : row + 1], alone)
    assert_matters(together, run(analysis.gated, x, False))


@some_networks
def test_gradients_of_what_is_kept_are_those_of_the_masked_network(name):
    """Which entries were kept is read off networks whose parameters count their entries.

    A cut may rescale a parameter by a constant (root-mean-square norm keeps its mean over fewer units), or
    pad it by zeros (a grouped convolution that kept unequal numbers); a network of ones tells both.
    """
    if name in REPARAMETRISED:
        pytest.skip("a cut changes the parametrisation")
    network, analysis = shared(name)
    x = CASES[name].batch(ROWS)
    alive = drawn_alive(analysis, REMOVALS[1])
    counted = filled(analysis, lambda p: 1 + torch.arange(p.numel()).view(p.shape) / p.numel(), alive)
    ones = filled(analysis, torch.ones_like, alive)
    expected = by_own_names(gradients(analysis.gated, x, gates_of(alive, torch.float64)), network)
    actual = by_own_names(gradients(analysis.cut(alive), x), network)
    assert set(actual) <= set(expected) and set(actual) == set(counted) == set(ones)
    assert any(bool(g.any()) for g in actual.values())
    for parameter, gradient in actual.items():
        real = ones[parameter] != 0
        scale = ones[parameter][real]
        dense = expected[parameter].flatten()
        ids = ((counted[parameter][real] / scale - 1) * len(dense)).round().long()
        assert len(ids.unique()) == len(ids), parameter
        assert difference(gradient[real] * scale, dense[ids]) < 1e-9, parameter


def filled(analysis, fill, alive):
    """The parameters of a cut network that had other values before; the analysis has its own ones back."""
    network = analysis.structure.captured.network
    before = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(fill(parameter))
        small = analysis.cut(alive)
        for parameter, value in zip(network.parameters(), before, strict=True):
            parameter.copy_(value)
    return by_own_names(dict(small.named_parameters()), network)


def by_own_names(tensors, network):
    """The same tensors under the names of the user's network; a wrapper may have put a prefix before them."""
    own = sorted((name for name, _ in network.named_parameters()), key=len, reverse=True)
    return {next(o for o in own if f".{name}".endswith(f".{o}")): t for name, t in tensors.items()}


@some_networks
def test_tensors_keep_the_names_of_the_users_network(name):
    network, analysis = shared(name)
    alive = drawn_alive(analysis, REMOVALS[0])
    small = analysis.cut(alive)
    dead = set() if LAYERS not in alive else {
        name for s in analysis.structure.sections if not alive[LAYERS][s.unit] for name in s.tensors
    }  # fmt: skip
    for module, gone in ((analysis.gated, set()), (small, dead)):
        own = {n for n, _ in network.named_parameters()} - gone
        assert {n for n, _ in module.named_parameters()} == own


@some_networks
def test_removed_twice_is_removed_at_once(name):
    _, analysis = fresh(name)
    x = CASES[name].batch(ROWS)
    first = drawn_alive(analysis, 21)
    second = drawn_alive(analysis, 22, before=first)
    at_once = run(analysis.cut(second), x, True)
    after_one = run(analysis.cut(first), x, True)
    analysis.cut_(first)
    assert_same(run(analysis.gated, x, True), after_one)
    analysis.cut_(second)
    twice = run(analysis.gated, x, True)
    assert_same(twice, at_once)
    if any(not torch.equal(first[group], second[group]) for group in first):
        assert_matters(twice, after_one)


@some_networks
def test_the_users_network_is_left_alone(name):
    case = CASES[name]
    network = case.network()
    next(m for m in reversed(list(network.modules())) if not list(m.children())).eval()  # modes are mixed
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    identities = [id(p) for p in network.parameters()]
    analysis = analyse(network, case.batch(EXAMPLE_ROWS))
    alive = drawn_alive(analysis, 31)
    assert analysis.cut(alive).training
    for module in (analysis.gated, analysis.cut(alive)):
        call(module, case.batch(ROWS)).sum().backward()
    analysis.cut_(alive)
    assert [module.training for module in network.modules()] == modes
    assert [id(p) for p in network.parameters()] == identities
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@some_networks
def test_a_cut_does_not_change_the_gated_network_nor_share_with_it(name):
    _, analysis = shared(name)
    before = copy.deepcopy(analysis.gated.state_dict())
    small = analysis.cut(drawn_alive(analysis, 41))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[key]) for key, value in analysis.gated.state_dict().items())


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.in_place))
def test_code_that_reads_its_sizes_is_cut_in_the_users_own_class(name):
    case = CASES[name]
    network = case.network()
    analysis = analyse(network, case.batch(EXAMPLE_ROWS), inputs=False)
    alive = drawn_alive(analysis, 51)
    alive.update({name: torch.ones_like(mask) for name, mask in alive.items() if name == LAYERS})
    small = analysis.cut(alive)
    assert type(small) is type(network)
    assert list(small.state_dict()) == list(network.state_dict())
    for module in small.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        if isinstance(module, nn.Conv2d):
            shape = (module.out_channels, module.in_channels // module.groups)
            assert module.weight.shape[:2] == shape
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            assert module.weight.shape == (module.num_features,)
        if isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            assert module.weight.shape == module.normalized_shape


@some_networks
def test_training_goes_on_through_a_cut(name):
    """Adam on the masked network, and on the cut one with its sliced moments, stay together."""
    if name in REPARAMETRISED:
        pytest.skip("a cut changes the parametrisation")
    _, masked = fresh(name)
    _, small = fresh(name)
    x = CASES[name].batch(ROWS)
    ours, theirs = adam(small.gated), adam(masked.gated)
    train(small.gated, ours, x, 2)
    train(masked.gated, theirs, x, 2)
    alive = drawn_alive(small, 61)
    parameters = list(small.gated.parameters())
    small.cut_(alive, ours)
    assert all(a is b for a, b in zip(parameters, small.gated.parameters(), strict=True))
    for parameter in parameters:
        moments = [v for v in ours.state[parameter].values() if v.ndim > 0]
        assert all(moment.shape == parameter.shape for moment in moments)
    gates = gates_of(alive, torch.float64)
    before = run(masked.gated, x, True, gates)
    train(masked.gated, theirs, x, 3, gates)
    train(small.gated, ours, x, 3)
    after = run(masked.gated, x, True, gates)
    assert_matters(after, before)
    assert_same(run(small.gated, x, True), after, tolerance=1e-9)


def adam(module):
    return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-2, eps=1e-3)


def train(module, optimiser, x, steps, gates=None):
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        (call(module, x, gates) - 0.5).square().mean().backward()
        optimiser.step()


@both_modes
def test_dropout_drops_in_train_mode_alone_before_and_after_a_cut(training):
    case = CASES["Dropping"]
    analysis = analyse(case.network(), case.batch(EXAMPLE_ROWS))
    x = case.batch(ROWS)
    for module in (analysis.gated, analysis.cut(drawn_alive(analysis, 71))):
        module.train(training)
        torch.manual_seed(0)
        first, second = (call(module, x) for _ in range(2))
        assert torch.equal(first, second) is not training


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_a_changed_rate_of_dropout_is_followed():
    case = CASES["Dropping"]
    analysis = analyse(case.network(), case.batch(EXAMPLE_ROWS))
    x = case.batch(ROWS)
    gated = analysis.gated.train()
    assert not torch.equal(call(gated, x), call(gated, x))
    for part in gated.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
    for module in (gated, gated.plain().train(), analysis.cut(drawn_alive(analysis, 71)).train()):
        assert torch.equal(call(module, x), call(module, x))
