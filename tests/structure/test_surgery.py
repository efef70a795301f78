"""Removing units is exact: the cut network gives what the masked one gives, and trains as it trains."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from bayesprune.structure import Select, count, cut_, find_chain
from bayesprune.structure.groups import close_over
from tests.structure.networks import Functional, chains, randomise_norms

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
thorough = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def drawn_alive(chain, seed, keep=0.6, before=None):
    """group → bool, at least one unit in each, and nobody starved by another group."""
    generator = torch.Generator().manual_seed(seed)
    alive = {}
    for group in chain.groups:
        mask = torch.rand(group.size, generator=generator) < keep
        if before is not None:
            mask &= before[group.name]
        if not mask.any():
            mask[before[group.name].nonzero()[0] if before is not None else 0] = True
        alive[group.name] = mask
    assume(all(bool(m.any()) for m in close_over(chain.slots, alive).values()))
    return alive


def gates_of(alive, living, dtype):
    """The masks as gates of the units that are still in the network."""
    return {name: mask[living[name]].to(dtype) for name, mask in alive.items()}


def all_alive(chain):
    return {g.name: torch.ones(g.size, dtype=torch.bool) for g in chain.groups}


def assert_close(actual, expected):
    tolerance = TOLERANCE[expected.dtype]
    scale = expected.abs().max().clamp_min(1.0)
    assert ((actual - expected).abs().max() / scale).item() < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@given(drawn=chains(), seed=st.integers(0, 2**16))
@thorough
def test_cut_network_equals_masked_network_after_one_and_after_repeated_removals(
    drawn, seed, dtype, training
):
    network, example = drawn
    chain = find_chain(network, example).to(dtype)
    x = torch.randn(6, *example.shape[1:], dtype=dtype)
    living = all_alive(chain)
    for repeat in range(2):
        alive = drawn_alive(chain, seed + repeat, before=living)
        masked = copy.deepcopy(chain).train(training)(x, gates_of(alive, living, dtype))
        living = cut_(chain, alive)
        assert_close(copy.deepcopy(chain).train(training)(x), masked)
        assert_close(chain.plain().train(training)(x), masked)
        for name, mask in living.items():
            assert not bool((mask & ~alive[name]).any())


@given(drawn=chains(), seed=st.integers(0, 2**16))
@thorough
def test_cost_of_the_chain_is_the_cost_of_the_plain_network(drawn, seed):
    network, example = drawn
    chain = find_chain(network, example)
    dense = count(network, example)
    assert (dense.macs, dense.parameters) == (chain.macs(), chain.parameter_count())
    cut_(chain, drawn_alive(chain, seed))
    small = count(chain.plain(), example)
    assert (small.macs, small.parameters) == (chain.macs(), chain.parameter_count())


@given(drawn=chains(), seed=st.integers(0, 2**16))
@settings(thorough, max_examples=30)
def test_surgery_commutes_with_training(drawn, seed):
    """Adam steps on the masked network, and on the cut one with its sliced moments, stay together.

    A removed unit's weights may move on the masked side, but never so that a living one could see it: its
    gate is zero. Only what feeds the batch statistics of living units counts, and that is the same.
    """
    network, example = drawn
    chain = find_chain(network, example).train()
    optimiser = torch.optim.Adam(chain.parameters(), lr=1e-2, eps=1e-3)
    x = torch.randn(8, *example.shape[1:], dtype=torch.double)
    target = torch.randn(8, 2, dtype=torch.double)

    def train(chain, optimiser, gates):
        for _ in range(3):
            optimiser.zero_grad()
            (chain(x, gates) - target).square().mean().backward()
            optimiser.step()
        return chain(x, gates).detach()

    train(chain, optimiser, None)
    alive, dense = drawn_alive(chain, seed), all_alive(chain)
    masked = copy.deepcopy(chain)
    twin = torch.optim.Adam(masked.parameters(), lr=1e-2, eps=1e-3)
    twin.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    before = list(chain.parameters())
    cut_(chain, alive, optimiser)
    assert all(a is b for a, b in zip(before, chain.parameters(), strict=True))
    for parameter in chain.parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            assert optimiser.state[parameter][moment].shape == parameter.shape
    expected = train(masked, twin, gates_of(alive, dense, torch.double))
    actual = train(chain, optimiser, None)
    assert ((actual - expected).abs().max() / expected.abs().max().clamp_min(1.0)).item() < 1e-8


@given(drawn=chains(), seed=st.integers(0, 2**16))
@settings(thorough, max_examples=30)
def test_the_users_network_is_left_alone(drawn, seed):
    network, example = drawn
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    identities = [id(p) for p in network.parameters()]
    chain = find_chain(network, example)
    cut_(chain, drawn_alive(chain, seed))
    chain(torch.randn(4, *example.shape[1:]).double()).sum().backward()
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
    chain = find_chain(network.double(), torch.zeros(1, 1, 4, 4).double())
    assert [(g.name, g.size) for g in chain.groups] == [("0", 3), ("2", 12), ("3", 4)]
    alive = all_alive(chain)
    alive["0"][1] = False  # its features 4..7 go with it
    alive["2"][8:] = False  # all features of filter 2, so it dies as well
    alive["2"][0] = False
    x = torch.randn(5, 1, 4, 4).double()
    masked = chain(x, gates_of(alive, all_alive(chain), torch.double))
    closed = cut_(chain, alive)
    assert closed["0"].tolist() == [True, False, False]
    assert closed["2"].nonzero().flatten().tolist() == [1, 2, 3]
    plain = chain.plain()
    torch.testing.assert_close(plain(x), masked, rtol=1e-10, atol=1e-10)
    assert plain[0].weight.shape == (1, 1, 3, 3) and plain[0].out_channels == 1
    assert plain[4].weight.shape == (4, 3) and plain[4].in_features == 3
    (select,) = (m for m in plain if isinstance(m, Select))
    assert select.index.tolist() == [1, 2, 3] and select.width == 4


def test_inputs_are_selected_not_cut():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    chain = find_chain(network, torch.zeros(1, 4).double())
    alive = all_alive(chain)
    alive["input"][[0, 3]] = False
    x = torch.randn(5, 4).double()
    masked = chain(x, gates_of(alive, all_alive(chain), torch.double))
    cut_(chain, alive)
    plain = chain.plain()
    torch.testing.assert_close(plain(x), masked, rtol=1e-10, atol=1e-10)
    assert plain[0].index.tolist() == [1, 2] and plain[0].width == 4 and plain[1].in_features == 2


def test_companions_are_cut_like_their_tensor():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    chain = find_chain(network, torch.zeros(1, 4))
    scales = {name: nn.Parameter(p.detach().clone()) for name, p in chain.named_parameters()}
    alive = all_alive(chain)
    alive["input"][0], alive["0"][1] = False, False
    cut_(chain, alive, companions=scales)
    for name, parameter in chain.named_parameters():
        assert torch.equal(scales[name], parameter)


def test_plain_network_holds_no_trace_of_gates():
    torch.manual_seed(0)
    network = Functional(3, 4)
    chain = find_chain(network, torch.zeros(1, 1, 8, 8))
    whole = chain.plain()
    assert type(whole) is nn.Sequential
    assert {type(m).__module__.split(".")[0] for m in whole.modules()} == {"torch"}
    assert {k.split(".")[0] for k in whole.state_dict()} == {"conv1", "conv2", "fc1", "fc2"}
    alive = all_alive(chain)
    alive["conv1"][0] = False
    cut_(chain, alive)
    small = chain.plain()
    assert not any(isinstance(m, Select) for m in small)  # filters leave without one
    assert all(p.grad is None and not p._backward_hooks for p in small.parameters())
    x = torch.randn(2, 1, 8, 8)
    small(x).sum().backward()
    assert all(p.grad is None for p in chain.parameters())  # a copy


def test_gates_for_every_row_and_for_draws_broadcast():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2)
    ).double()
    randomise_norms(network)
    chain = find_chain(network, torch.zeros(1, 2, 4).double()).eval()
    x = torch.randn(5, 2, 4).double()
    first, second = torch.rand(4, 1, 1, 2).double(), torch.rand(3, 5, 3).double()
    outputs = chain(x, {"input": first, "0": second})
    assert outputs.shape == (4, 3, 5, 2)
    for i in range(4):
        for j in range(3):
            expected = chain(x, {"input": first[i, 0, 0], "0": second[j]})
            torch.testing.assert_close(outputs[i, j], expected)
