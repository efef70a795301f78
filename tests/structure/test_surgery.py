"""Removing units is exact: the cut network gives what the masked one gives, and trains as it trains."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from bayesprune.structure import count
from bayesprune.structure.groups import close_over
from bayesprune.structure.layers import resize_
from bayesprune.structure.select import selected
from tests.structure.networks import Functional, cut_, gated_of, randomise_norms, rows_of_layers

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
thorough = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def drawn_alive(gated, seed, keep=0.6, before=None):
    """group → bool, at least one unit in each, and nobody starved by another group."""
    generator = torch.Generator().manual_seed(seed)
    alive = {}
    for group in gated.groups:
        mask = torch.rand(group.size, generator=generator) < keep
        if before is not None:
            mask &= before[group.name]
        if not mask.any():
            mask[before[group.name].nonzero()[0] if before is not None else 0] = True
        alive[group.name] = mask
    assume(all(bool(m.any()) for m in close_over(gated.slots, alive).values()))
    return alive


def gates_of(alive, living, dtype):
    """The masks as gates of the units that are still in the network."""
    return {name: mask[living[name]].to(dtype) for name, mask in alive.items()}


def all_alive(gated):
    return {g.name: torch.ones(g.size, dtype=torch.bool) for g in gated.groups}


def assert_close(actual, expected):
    tolerance = TOLERANCE[expected.dtype]
    scale = expected.abs().max().clamp_min(1.0)
    assert ((actual - expected).abs().max() / scale).item() < tolerance


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, pytest.param(torch.float32, marks=pytest.mark.nightly)],
    ids=["float64", "float32"],
)
@given(drawn=rows_of_layers(), seed=st.integers(0, 2**16), training=st.booleans())
@settings(thorough, max_examples=15)
def test_cut_network_equals_masked_network_after_one_and_after_repeated_removals(
    dtype, drawn, seed, training
):
    network, example = drawn
    gated = gated_of(network, example).to(dtype)
    x = torch.randn(6, *example.shape[1:], dtype=dtype)
    living = all_alive(gated)
    for repeat in range(2):
        alive = drawn_alive(gated, seed + repeat, before=living)
        masked = copy.deepcopy(gated).train(training)(x, gates_of(alive, living, dtype))
        living = cut_(gated, alive)
        assert_close(copy.deepcopy(gated).train(training)(x), masked)
        plain = gated.plain()
        assert type(plain) is nn.Sequential
        assert_close(plain.train(training)(x), masked)
        for name, mask in living.items():
            assert not bool((mask & ~alive[name]).any())


@given(drawn=rows_of_layers(), seed=st.integers(0, 2**16))
@thorough
def test_cost_of_the_gated_is_the_cost_of_the_plain_network(drawn, seed):
    network, example = drawn
    gated = gated_of(network, example)
    dense = count(network, example)
    assert (dense.macs, dense.parameters) == (gated.macs(), gated.parameter_count())
    cut_(gated, drawn_alive(gated, seed))
    small = count(gated.plain(), example)
    assert (small.macs, small.parameters) == (gated.macs(), gated.parameter_count())


@given(drawn=rows_of_layers(), seed=st.integers(0, 2**16))
@settings(thorough, max_examples=8)
def test_surgery_commutes_with_training(drawn, seed):
    """Adam steps on the masked network, and on the cut one with its sliced moments, stay together.

    A removed unit's weights may move on the masked side, but never so that a living one could see it: its
    gate is zero. Only what feeds the batch statistics of living units counts, and that is the same.
    """
    network, example = drawn
    gated = gated_of(network, example).train()
    optimiser = torch.optim.Adam(gated.parameters(), lr=1e-2, eps=1e-3)
    x = torch.randn(8, *example.shape[1:], dtype=torch.double)
    target = torch.randn(8, 2, dtype=torch.double)

    def train(gated, optimiser, gates):
        for _ in range(3):
            optimiser.zero_grad()
            (gated(x, gates) - target).square().mean().backward()
            optimiser.step()
        return gated(x, gates).detach()

    train(gated, optimiser, None)
    alive, dense = drawn_alive(gated, seed), all_alive(gated)
    masked = copy.deepcopy(gated)
    twin = torch.optim.Adam(masked.parameters(), lr=1e-2, eps=1e-3)
    twin.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    before = list(gated.parameters())
    cut_(gated, alive, optimiser)
    assert all(a is b for a, b in zip(before, gated.parameters(), strict=True))
    for parameter in gated.parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            assert optimiser.state[parameter][moment].shape == parameter.shape
    expected = train(masked, twin, gates_of(alive, dense, torch.double))
    actual = train(gated, optimiser, None)
    assert ((actual - expected).abs().max() / expected.abs().max().clamp_min(1.0)).item() < 1e-8


@given(drawn=rows_of_layers(), seed=st.integers(0, 2**16))
@settings(thorough, max_examples=8)
def test_the_users_network_is_left_alone(drawn, seed):
    network, example = drawn
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    identities = [id(p) for p in network.parameters()]
    gated = gated_of(network, example)
    cut_(gated, drawn_alive(gated, seed))
    gated(torch.randn(4, *example.shape[1:]).double()).sum().backward()
    assert [module.training for module in network.modules()] == modes
    assert [id(p) for p in network.parameters()] == identities
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in network.parameters())


def test_features_and_their_filters_fall_together():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 4, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    gated = gated_of(network.double(), torch.zeros(1, 1, 4, 4).double())
    assert [(g.name, g.size) for g in gated.groups] == [("0", 3), ("2", 12), ("3", 4)]
    alive = all_alive(gated)
    alive["0"][1] = False  # its features 4..7 go with it
    alive["2"][8:] = False  # all features of filter 2, so it dies as well
    alive["2"][0] = False
    x = torch.randn(5, 1, 4, 4).double()
    masked = gated(x, gates_of(alive, all_alive(gated), torch.double))
    closed = cut_(gated, alive)
    assert closed["0"].tolist() == [True, False, False]
    assert closed["2"].nonzero().flatten().tolist() == [1, 2, 3]
    plain = gated.plain()
    torch.testing.assert_close(plain(x), masked, rtol=1e-10, atol=1e-10)
    assert plain[0].weight.shape == (1, 1, 3, 3) and plain[0].out_channels == 1
    assert plain[4].weight.shape == (4, 3) and plain[4].in_features == 3
    ((width, index),) = filter(None, map(selected, plain))
    assert index.tolist() == [1, 2, 3] and width == 4


def test_inputs_are_selected_not_cut():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    gated = gated_of(network, torch.zeros(1, 4).double())
    alive = all_alive(gated)
    alive["input"][[0, 3]] = False
    x = torch.randn(5, 4).double()
    masked = gated(x, gates_of(alive, all_alive(gated), torch.double))
    cut_(gated, alive)
    plain = gated.plain()
    torch.testing.assert_close(plain(x), masked, rtol=1e-10, atol=1e-10)
    assert plain.input_select.index.tolist() == [1, 2] and plain[1].in_features == 2
    with pytest.raises(RuntimeError, match="size of dim 1 \\(5\\)"):
        plain(torch.zeros(1, 5).double())  # it was made for four


def test_companions_are_cut_like_their_tensor():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    gated = gated_of(network, torch.zeros(1, 4))
    scales = {name: nn.Parameter(p.detach().clone()) for name, p in gated.named_parameters()}
    alive = all_alive(gated)
    alive["input"][0], alive["0"][1] = False, False
    cut_(gated, alive, companions=scales)
    for name, parameter in gated.named_parameters():
        assert torch.equal(scales[name], parameter)


def test_plain_network_holds_no_trace_of_gates():
    torch.manual_seed(0)
    network = Functional(3, 4)
    gated = gated_of(network, torch.zeros(1, 1, 8, 8))
    whole = gated.plain()
    assert type(whole) is nn.Sequential
    assert {type(m).__module__.split(".")[0] for m in whole.modules()} == {"torch"}
    assert {k.split(".")[0] for k in whole.state_dict()} == {"conv1", "conv2", "fc1", "fc2"}
    alive = all_alive(gated)
    alive["conv1"][0] = False
    cut_(gated, alive)
    small = gated.plain()
    assert not any(map(selected, small))  # filters leave without one
    assert all(p.grad is None and not p._backward_hooks for p in small.parameters())
    x = torch.randn(2, 1, 8, 8)
    small(x).sum().backward()
    assert all(p.grad is None for p in gated.parameters())  # a copy


def test_gates_for_every_row_and_for_draws_broadcast():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2)
    ).double()
    randomise_norms(network)
    gated = gated_of(network, torch.zeros(1, 2, 4).double()).eval()
    x = torch.randn(5, 2, 4).double()
    first, second = torch.rand(4, 1, 1, 2).double(), torch.rand(3, 5, 3).double()
    outputs = gated(x, {"input": first, "0": second})
    assert outputs.shape == (4, 3, 5, 2)
    for i in range(4):
        for j in range(3):
            expected = gated(x, {"input": first[i, 0, 0], "0": second[j]})
            torch.testing.assert_close(outputs[i, j], expected)


@pytest.mark.parametrize(
    "build, whole, less",
    [
        (nn.Linear, (6, 4), (3, 2)),
        (nn.Conv2d, (6, 4, 3), (3, 2, 3)),
        (nn.ConvTranspose1d, (6, 4, 3), (3, 2, 3)),
        (nn.Embedding, (9, 6), (9, 3)),
        (nn.EmbeddingBag, (9, 6), (9, 3)),
        (nn.Bilinear, (6, 5, 4), (3, 2, 1)),
        (nn.PReLU, (6,), (3,)),
        (nn.BatchNorm1d, (6,), (3,)),
    ],
)
def test_layers_note_the_sizes_of_what_is_left_of_them(build, whole, less):
    layer, expected = build(*whole), build(*less)
    layer._parameters = expected._parameters
    resize_(layer)
    assert layer.extra_repr() == expected.extra_repr()
