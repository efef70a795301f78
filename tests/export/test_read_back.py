"""What `save` writes is read back and compared; a damaged bit is seen, and what was there stays."""

import json
import os
import random

import pytest
import torch
from safetensors.torch import save as tensors_to_bytes
from torch import nn

import bayesprune as bp
from bayesprune.errors import CheckpointError, UnsupportedNetworkError
from bayesprune.export import folder as folder_module
from bayesprune.export import own_class
from bayesprune.export.read_back import equal_bits
from bayesprune.export.tensors import ARCHITECTURE_DIGEST, tensor_bytes
from bayesprune.structure.graph import as_plain_graph
from tests.altered import Residual, sequence


class Constant(Residual):
    """Its graph has a constant of its own, a buffer that is kept and one that is not."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.randn(4))
        self.register_buffer("passing", torch.randn(4), persistent=False)

    def forward(self, x):
        return super().forward(x + self.kept + self.passing + torch.tensor([1.0, 2.0, 3.0, 4.0]))


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
FORMS = {
    "layers": lambda: sequence()[0],
    "graph": lambda: as_plain_graph(Constant(), X),
    "own class": Constant,
}


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def network(request):
    torch.manual_seed(0)
    return request.param()


def _damaging(name, monkeypatch):
    """Let one bit of one tensor be another one in the file, whose checksums are right."""

    def damaged(tensors, architecture):
        content = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
        content[name].view(-1).view(torch.uint8)[0] ^= 1
        return tensors_to_bytes(content, metadata={ARCHITECTURE_DIGEST: architecture})

    monkeypatch.setattr(folder_module, "tensor_bytes", damaged)


def test_one_damaged_bit_of_any_tensor_is_seen(network, tmp_path, monkeypatch):
    bp.save(network, tmp_path, example=X)
    before, names = _contents(tmp_path), []
    monkeypatch.setattr(folder_module, "tensor_bytes", lambda t, a: names.extend(t) or tensor_bytes(t, a))
    bp.save(network, tmp_path, example=X)
    assert _contents(tmp_path) == before
    assert len(names) == len(set(names)) >= 6
    for name in names:
        _damaging(name, monkeypatch)
        with pytest.raises(CheckpointError, match=rf"'{name}'.*bit by bit\. Nothing was put in place"):
            bp.save(network, tmp_path, example=X)
        assert _contents(tmp_path) == before


def test_a_bit_that_the_disk_turns_is_seen(network, tmp_path, monkeypatch):
    bp.save(network, tmp_path, example=X)
    before, fsync = _contents(tmp_path), os.fsync
    for turned in (".pruned.safetensors", ".architecture.json"):
        done = []

        def damage(handle, turned=turned, done=done):
            fsync(handle)
            for path in tmp_path.glob(f"{turned}.*.tmp"):
                if not done:
                    content = path.read_bytes()
                    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
                    done.append(path)

        monkeypatch.setattr(os, "fsync", damage)
        with pytest.raises(CheckpointError, match="cannot be read back"):
            bp.save(network, tmp_path, example=X)
        monkeypatch.setattr(os, "fsync", fsync)
        assert _contents(tmp_path) == before


@pytest.mark.parametrize("missing", [True, False])
def test_a_tensor_too_few_or_too_many_is_seen(tmp_path, monkeypatch, missing):
    network = Constant()
    read = folder_module.graph_from_data

    def other(*arguments):
        again = read(*arguments)
        if missing:
            del again._buffers["kept"]
        else:
            again.register_buffer("more", torch.ones(1))
        return again

    monkeypatch.setattr(folder_module, "graph_from_data", other)
    with pytest.raises(CheckpointError, match=r"'kept'.*missing" if missing else r"'more' is missing"):
        bp.save(network, tmp_path, example=X)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_that_would_be_trained_again_is_seen(tmp_path, monkeypatch):
    network = sequence()[0]
    network[0].weight.requires_grad_(False)
    data = folder_module.sequence_data
    monkeypatch.setattr(folder_module, "sequence_data", lambda n: {**data(n), "frozen": []})
    with pytest.raises(CheckpointError, match=r"'0\.weight' is a frozen parameter"):
        bp.save(network, tmp_path, example=X)


def test_other_outputs_are_seen_where_all_tensors_are_equal(tmp_path, monkeypatch):
    network = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2))
    bp.save(network, tmp_path, example=X)
    before, data = _contents(tmp_path), folder_module.sequence_data

    def other(network):
        description = json.loads(json.dumps(data(network)))
        description["layers"][1]["arguments"]["negative_slope"] = 0.2000001
        return description

    monkeypatch.setattr(folder_module, "sequence_data", other)
    with pytest.raises(UnsupportedNetworkError, match=r"something else on the example.*state_dict"):
        bp.save(network, tmp_path, example=X)
    assert _contents(tmp_path) == before


def test_other_outputs_of_a_graph_are_seen(tmp_path, monkeypatch):
    network, traced = Residual(), folder_module.as_plain_graph

    def other(network, inputs):
        plain = traced(network, inputs)
        for graph in plain._bayesprune_program.graphs.values():
            for node in graph.nodes:
                if "relu" in str(node.target):
                    node.target = torch.ops.aten.tanh.default
        return plain

    monkeypatch.setattr(folder_module, "as_plain_graph", other)
    with pytest.raises(UnsupportedNetworkError, match="something else on the example"):
        bp.save(network, tmp_path, example=X)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bit_is_seen_when_a_class_is_filled(tmp_path, monkeypatch):
    bp.save(Constant(), tmp_path, example=X)
    own, fill = Constant(), own_class._fill_
    before = {name: value.clone() for name, value in own.state_dict().items()}

    def damaged(network, *others):
        fill(network, *others)
        network.middle.bias.data.view(torch.uint8)[0] ^= 1

    monkeypatch.setattr(own_class, "_fill_", damaged)
    with pytest.raises(CheckpointError, match=r"'middle\.bias'.*bit by bit"):
        bp.load(tmp_path, into=own)
    assert all(torch.equal(own.state_dict()[name], value) for name, value in before.items())


class Noisy(nn.Module):
    """Draws in evaluation too, and moves a buffer there."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return nn.functional.dropout(self.layer(x), 0.5, training=True) + torch.rand_like(x)


class Nothing(nn.Module):
    """Returns no number, a number that is none, and zeros of both signs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]))

    def forward(self, x):
        return {"y": self.weight * x, "empty": x[:, :0]}


FAIR = {
    "chance": (Noisy, X),
    "no number": (Nothing, X),
    "batch norm, one row": (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), X[:1]),
    "batch norm without statistics": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)),
        X[:1],
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), X),
    "whole numbers": (lambda: nn.Sequential(nn.Flatten()), torch.arange(6).view(2, 3)),
    "half": (lambda: nn.Sequential(nn.Linear(4, 3)).bfloat16(), X.bfloat16()),
    "input in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), X),
    "kept apart in memory": (lambda: nn.Sequential(_transposed()), X),
}


def _transposed():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.randn(4, 4).t())
    return layer


@pytest.mark.parametrize("build, x", FAIR.values(), ids=FAIR)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_sound_is_refused_and_the_network_stays_what_it_was(tmp_path, build, x, training):
    torch.manual_seed(3)
    network = build().train(training)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    example, chance, pythons = x.clone(), torch.get_rng_state(), random.getstate()
    bp.save(network, tmp_path, example=x)
    assert torch.equal(torch.get_rng_state(), chance)
    assert random.getstate() == pythons
    assert torch.equal(x, example)
    assert {module.training for module in network.modules()} == {training}
    assert all(equal_bits(network.state_dict()[name], value) for name, value in state.items())
    assert sorted(_contents(tmp_path)) == ["architecture.json", "pruned.safetensors"]
    bp.load(tmp_path)


def test_bits_are_compared_and_not_values():
    one = torch.tensor([1.0, float("nan"), 0.0])
    assert equal_bits(one, one.clone())
    assert not equal_bits(one, torch.tensor([1.0, float("nan"), -0.0]))
    assert not equal_bits(one, one.double())
    assert not equal_bits(one, one[:2])
    assert equal_bits(torch.tensor([1 + 2j]).conj(), torch.tensor([1 - 2j]))
    assert equal_bits(torch.tensor([True]), torch.tensor([True]))
