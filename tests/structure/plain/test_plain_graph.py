"""Networks that run as their graphs are plain PyTorch: copied, cast, trained, pickled, compiled."""

import copy
import functools
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure.graph import PlainGraph, analyse, as_plain_graph
from tests.structure.graph.checks import drawn_alive, flat
from tests.structure.graph.networks import CASES, without_chance_

REPOSITORY = Path(__file__).parents[3]
GRAPHS = [
    "ResidualZeroPadded",
    "picked_by_index",
    "rolled_channels",
]
OWN = ["EncoderLayers", "ResidualProjection", "SqueezeExcite", "TiedEmbedding", "WeightNormalised"]


@functools.cache
def _pruned(name, dtype):
    case = CASES[name]
    analysis = analyse(without_chance_(case.network(dtype)), case.batch(2, dtype), inputs=False)
    alive = drawn_alive(analysis, 1)
    alive.pop("layers", None)  # all sections stay, and so all names
    return analysis.cut(alive).eval()


def pruned(name, dtype=torch.float32):
    """(a smaller network, inputs) in eval mode."""
    return copy.deepcopy(_pruned(name, dtype)), CASES[name].batch(5, dtype)


@pytest.mark.parametrize("name", GRAPHS)
def test_it_holds_what_the_network_held_and_nothing_else(name):
    network, _ = pruned(name)
    own = CASES[name].network(torch.float32)
    assert type(network) is PlainGraph
    assert list(network.state_dict()) == list(own.state_dict())
    assert {n for n, _ in network.named_parameters()} == {n for n, _ in own.named_parameters()}
    for tensor in (*network.parameters(), *network.buffers()):
        assert tensor.numel() > 0 and tensor.device.type == "cpu"
    passing = {n for n, _ in network.named_buffers()} - set(network.state_dict())
    assert all(n.startswith("constants.c") for n in passing)
    assert all(b.dtype == torch.int64 for n, b in network.named_buffers() if n in passing)
    assert not {type(module) for module in network.modules()} & {type(m) for m in own.modules()} - {
        kind for kind in vars(nn).values() if isinstance(kind, type)
    }


def test_its_repr_shows_layers_and_sizes():
    network, _ = pruned("rolled_channels")
    norm = "affine=True, bias=True, track_running_stats=True"
    assert repr(network) == (
        "PlainGraph(\n"
        "  a Moved of 8 operations, for it does not compute the same with the sizes that are left\n"
        "  (stem): Sequential(\n"
        "    (0): Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        f"    (1): BatchNorm2d(5, eps=1e-05, momentum=0.1, {norm})\n"
        "  )\n"
        "  (conv): Conv2d(5, 3, kernel_size=(3, 3), stride=(1, 1))\n"
        "  (head): Linear(in_features=3, out_features=3, bias=True)\n"
        "  (constants): Constants(c0 (5,))\n"
        ")"
    )
    case = CASES["EncoderLayers"]
    told = repr(as_plain_graph(case.network(torch.float32).eval(), case.batch(2, torch.float32)))
    assert "(self_attn): MultiheadAttention(\n" in told
    assert "in_proj_weight (24, 8), in_proj_bias (24,)" in told


def test_parts_are_not_run():
    network, x = pruned("EncoderLayers")
    part = next(m for m in network.modules() if type(m).__name__ == "Part")
    with pytest.raises(NotImplementedError, match="Call the network"):
        part(*x)


@pytest.mark.parametrize("name", GRAPHS + OWN)
def test_copies_share_nothing(name):
    network, x = pruned(name)
    expected = flat(network(*x))
    for twin in (copy.deepcopy(network), copy.deepcopy(copy.deepcopy(network))):
        assert torch.equal(flat(twin(*x)), expected)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert torch.equal(flat(network(*x)), expected)
        assert not torch.equal(flat(twin(*x)), expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_it_can_be_pickled(name):
    network, x = pruned(name)
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(flat(again(*x)), flat(network(*x)))
    assert torch.equal(flat(again.train()(*x)), flat(network.train()(*x)))
    assert repr(again) == repr(network)


@pytest.mark.parametrize("name", GRAPHS + OWN)
def test_its_state_goes_through_a_state_dict(name):
    network, x = pruned(name)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(network.state_dict())
    assert torch.equal(flat(other(*x)), flat(network(*x)))


@pytest.mark.parametrize("name", GRAPHS + OWN)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_it_follows_a_change_of_type(name, training):
    network, x = pruned(name)
    double = copy.deepcopy(network).to(torch.float64).train(training)
    wide = tuple(t.double() if t.is_floating_point() else t for t in x)
    outputs = flat(double(*wide))
    assert outputs.dtype == torch.float64
    torch.testing.assert_close(outputs.float(), flat(network.train(training)(*x)), atol=1e-4, rtol=1e-4)
    again = double.float()
    assert flat(again(*x)).dtype == torch.float32


class Made(nn.Module):
    """Makes tensors of its own type on its own device."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("steps", torch.linspace(0, 1, 6), persistent=False)

    def forward(self, x):
        y = self.first(x)
        y = torch.cat([y, torch.ones(len(x), 1, dtype=x.dtype, device=x.device)], 1)[:, :6]
        return self.head((y + self.steps).to(x.dtype).relu())


def test_tensors_made_in_passing_change_their_type_too():
    network = as_plain_graph(Made(), torch.randn(2, 4)).eval()
    x = torch.randn(7, 4, dtype=torch.float64)
    expected = network(x.float())
    assert network.double()(x).dtype == torch.float64
    torch.testing.assert_close(network(x).float(), expected)
    assert network.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert network.half().steps.dtype == torch.float16


def test_tensors_made_in_passing_change_their_device_too():
    network = as_plain_graph(Made(), torch.randn(2, 4)).eval().to("meta")
    assert network(torch.empty(7, 4, device="meta")).device.type == "meta"


@pytest.mark.parametrize("name", GRAPHS + OWN)
def test_it_goes_on_learning(name):
    network, x = pruned(name)
    network.train()
    torch.manual_seed(0)
    target = torch.randn_like(flat(network(*x)))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    before, losses = copy.deepcopy(network.state_dict()), []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (flat(network(*x)) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    used = [n for n, p in network.named_parameters() if p.grad is not None]
    assert all(not torch.equal(network.state_dict()[n], before[n]) for n in used) and len(used) > 2


@pytest.mark.parametrize("name", GRAPHS)
def test_units_can_be_found_in_it_again(name):
    """What was pruned can be pruned further."""
    network, x = pruned(name, torch.float64)
    analysis = analyse(network, x)
    assert analysis.groups
    alive = drawn_alive(analysis, 2, share=0.2)
    gates = {group: mask.double() for group, mask in alive.items()}
    masked, small = flat(analysis.gated.eval()(*x, gates=gates)), analysis.cut(alive).eval()
    torch.testing.assert_close(flat(small(*x)), masked, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["ResidualZeroPadded", "split_by_sizes", "rolled_channels"])
def test_its_cost_is_that_of_its_layers(name):
    network, x = pruned(name)
    own = CASES[name].network(torch.float32)
    assert bp.count(as_plain_graph(own, x), *x) == bp.count(own, *x)
    small, whole = bp.count(network, *x), bp.count(own, *x)
    assert 0 < small.macs < whole.macs and 0 < small.parameters < whole.parameters


# ---- compiled


@pytest.fixture
def fresh():
    """Dynamo counts recompilations of one forward over all tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_compiles(name, backend):
    network, _ = pruned(name)
    for training in (False, True):
        module = copy.deepcopy(network).train(training)
        twin = copy.deepcopy(module)
        compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
        for rows in (5, 7):
            x = CASES[name].batch(rows, torch.float32)
            torch.testing.assert_close(flat(compiled(*x)), flat(twin(*x)), atol=1e-4, rtol=1e-4)
        flat(compiled(*x)).square().sum().backward()
        flat(twin(*x)).square().sum().backward()
        for a, b in zip(module.parameters(), twin.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None)
            if a.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "rolled_channels",
        "picked_by_index",
        pytest.param("ResidualZeroPadded", marks=pytest.mark.nightly),
        pytest.param("ResidualProjection", marks=pytest.mark.nightly),
    ],
)
def test_it_compiles_whole(name, fresh):
    assert_compiles(name, "aot_eager")


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["rolled_channels", "ResidualProjection"])
def test_it_compiles_to_machine_code(name):
    """In a process of its own: where the compiler or its code takes the process down, one test fails."""
    code = f"from {__name__} import assert_compiles; assert_compiles({name!r}, 'inductor')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
