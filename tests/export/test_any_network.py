"""Networks of any form, saved and loaded: bit-equal, of the same names, in both modes, for any rows."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph import PlainGraph
from tests.export.small import dense, pruned
from tests.nightly import one_in
from tests.structure.graph.checks import flat
from tests.structure.graph.networks import CASES

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # PyTorch's own
every_network = pytest.mark.parametrize("name", one_in(3, CASES))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Name → the folder in which that network was saved, once."""
    folder = tmp_path_factory.mktemp("saved")

    def of(name):
        if not (folder / name).exists():
            bp.save(pruned(name), folder / name, CASES[name].batch(2, torch.float32))
        return folder / name

    return of


@every_network
def test_it_comes_back_bit_equal(name, saved):
    network, dtype, loaded = pruned(name), torch.float32, bp.load(saved(name))
    assert not loaded.training
    assert set(loaded.state_dict()) == set(network.state_dict())
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    for training in (False, True):
        for rows in (2, 5):
            x = CASES[name].batch(rows, dtype)
            outputs = []
            for module in (network, loaded):
                torch.manual_seed(0)
                outputs.append(flat(copy.deepcopy(module).train(training)(*x)))
            assert torch.equal(*outputs)


@every_network
def test_its_own_class_can_hold_it_or_says_why_not(name, saved):
    network, own = pruned(name), dense(name)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    selects = any(child.endswith("_select") for child, _ in network.named_children())
    if isinstance(network, PlainGraph) or selects:
        with pytest.raises(UnsupportedNetworkError, match=r"size must be|altogether|reads a selection"):
            bp.load(saved(name), into=own)
        assert own.training and all(torch.equal(before[k], v) for k, v in own.state_dict().items())
    else:
        loaded, x = bp.load(saved(name), into=own), CASES[name].batch(5, torch.float32)
        assert loaded is own and not own.training
        assert torch.equal(flat(own(*x)), flat(network(*x)))
        assert repr(own) == repr(network)


@pytest.mark.parametrize("name", ["Dropping", "TiedEmbedding", "ResidualZeroPadded", "split_by_sizes"])
def test_loaded_it_learns_as_it_would_have(name, tmp_path):
    network = pruned(name)
    bp.save(network, tmp_path, CASES[name].batch(2, torch.float32))
    loaded, x = bp.load(tmp_path), CASES[name].batch(8, torch.float32)
    for module in (network.train(), loaded.train()):
        torch.manual_seed(0)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(4):
            optimiser.zero_grad()
            flat(module(*x)).square().mean().backward()
            optimiser.step()
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_of_any_type(dtype, tmp_path):
    network, x = pruned("rolled_channels").to(dtype), CASES["rolled_channels"].batch(3, dtype)
    bp.save(network, tmp_path, x)
    loaded = bp.load(tmp_path)
    assert loaded(*x).dtype == dtype and torch.equal(loaded(*x), network(*x))


def test_it_is_saved_again_as_the_same_files(tmp_path):
    bp.save(pruned("rolled_channels"), tmp_path / "a", CASES["rolled_channels"].batch(2, torch.float32))
    loaded = bp.load(tmp_path / "a")
    bp.save(loaded, tmp_path / "b", CASES["rolled_channels"].batch(2, torch.float32))
    assert repr(bp.load(tmp_path / "b")) == repr(loaded)
    for file in ("architecture.json", "pruned.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_files_say_what_they_hold(tmp_path):
    network = pruned("rolled_channels")
    bp.save(network, tmp_path, CASES["rolled_channels"].batch(2, torch.float32))
    description = json.loads((tmp_path / "architecture.json").read_text())
    assert description["format_version"] == 4
    assert description["network"] == "Moved"
    assert description["input_shape"] == [3, 6, 6]
    assert description["inputs"] == [{"name": "x", "shape": [3, 6, 6], "dtype": "float32"}]
    assert description["call"]["sizes"] == [[3, None, None]]
    tensors = load_file(tmp_path / "pruned.safetensors")
    assert set(tensors) == {*network.state_dict(), "constants.c0"}
    assert {entry["name"]: entry["kind"] for entry in description["values"]}["constants.c0"] == "constant"


def test_shared_and_frozen_parameters_and_passing_buffers_stay_so(tmp_path):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.again = self.first  # one module, two names
            self.norm = nn.BatchNorm1d(6)
            self.blocks = nn.ModuleList([nn.Linear(6, 6), self.norm, self.norm])
            self.head = nn.Linear(6, 4)
            self.tied = nn.Linear(6, 4, bias=False)
            self.tied.weight = self.head.weight
            self.first.bias.requires_grad_(False)
            self.register_buffer("slope", torch.full((6,), 0.3), persistent=False)

        def forward(self, x):
            x = self.blocks[1](self.blocks[0](self.again(x))) * self.slope
            return self.head(x) + self.tied(self.norm(x))

    torch.manual_seed(0)
    network, x = Shared().eval(), torch.randn(3, 4)
    bp.save(network, tmp_path, x)
    loaded = bp.load(tmp_path)
    assert torch.equal(loaded(x), network(x))
    assert list(loaded.state_dict()) == list(network.state_dict())
    assert loaded.again is loaded.first and loaded.blocks[1] is loaded.norm
    assert loaded.tied.weight is loaded.head.weight
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in network.parameters()]
    assert torch.equal(loaded.slope, network.slope) and "slope" not in loaded.state_dict()
    own = bp.load(tmp_path, into=Shared())
    assert own.tied.weight is own.head.weight and not own.first.bias.requires_grad
    assert torch.equal(own(x), network(x))


def test_outputs_of_any_form_come_back(tmp_path):
    class Several(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return {"y": y, "parts": (y[:, :1], [y[:, 1:]]), "note": "done", "none": None}

    network, x = Several(3, 3), torch.randn(4, 3)
    bp.save(network, tmp_path, x)
    outputs, expected = bp.load(tmp_path)(x), network(x)
    assert list(outputs) == ["y", "parts", "note", "none"] and type(outputs["parts"][1]) is list
    assert (outputs["note"], outputs["none"]) == ("done", None)
    assert torch.equal(outputs["parts"][1][0], expected["parts"][1][0])


def test_inputs_can_be_named_in_a_call(tmp_path):
    network = pruned("TwoInputs")
    image, facts = CASES["TwoInputs"].batch(3, torch.float32)
    bp.save(network, tmp_path, (image, facts))
    assert torch.equal(bp.load(tmp_path)(facts=facts, image=image), network(image, facts))


def test_saving_leaves_the_network_alone(tmp_path):
    network = pruned("ResidualProjection").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    bp.save(network, tmp_path, CASES["ResidualProjection"].batch(2, torch.float32))
    assert network.training and all(p.device.type == "cpu" for p in network.parameters())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


# ---- what cannot be saved


def refused(network, folder, *inputs):
    with pytest.raises(UnsupportedNetworkError) as caught:
        bp.save(network, folder, inputs)
    assert not folder.exists() or not list(folder.iterdir())
    return str(caught.value)


def test_operations_that_are_not_listed_are_named(tmp_path):
    class Spectral(nn.Linear):
        def forward(self, x):
            return super().forward(x) * torch.linalg.svdvals(self.weight).sum() + torch.special.i1(x).sum()

    message = refused(Spectral(3, 3), tmp_path, torch.randn(2, 3))
    assert "The Spectral cannot be saved" in message
    assert "aten.linalg_svdvals" in message and "aten.special_i1" in message
    assert "keep the network's state_dict" in message


def test_names_that_could_not_stand_in_code_are_named(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleDict({"a(b": nn.Linear(3, 3)})

        def forward(self, x):
            return self.layers["a(b"](x)

    message = refused(Named(), tmp_path, torch.randn(2, 3))
    assert "'layers.a(b.weight' has signs that cannot be written down; rename it" in message


def test_a_network_that_depends_on_more_than_its_inputs_is_noticed(tmp_path):
    class Counting(nn.Linear):
        calls = 0.0

        def forward(self, x):
            self.calls += 1.0
            return super().forward(x) + self.calls

    assert "computes something else" in refused(Counting(3, 3), tmp_path, torch.randn(2, 3))


def test_data_dependent_networks_are_named_with_their_line(tmp_path):
    class Deciding(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    assert "Cannot trace Deciding" in refused(Deciding(3, 3), tmp_path, torch.randn(2, 3))
