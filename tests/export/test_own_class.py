"""A pruned network put into an instance of the user's own class."""

import json

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import CheckpointError, UnsupportedNetworkError
from tests.export.small import Heads, dense, pruned, seal
from tests.structure.graph.networks import CASES


@pytest.fixture
def saved(tmp_path):
    bp.save(pruned("ResNeXtBlock"), tmp_path, CASES["ResNeXtBlock"].batch(2, torch.float32))
    return tmp_path


def test_size_attributes_follow(saved):
    network, own = pruned("ResNeXtBlock"), bp.load(saved, into=dense("ResNeXtBlock"))
    for (name, layer), (_, theirs) in zip(own.named_modules(), network.named_modules(), strict=True):
        assert layer.extra_repr() == theirs.extra_repr(), name
    assert any(getattr(layer, "groups", 1) > 1 for layer in own.modules())


def test_it_goes_on_learning_with_its_optimiser(saved):
    """Parameters stay the objects that an optimiser knows."""
    own = dense("ResNeXtBlock")
    optimiser = torch.optim.Adam(own.parameters(), lr=1e-2)
    bp.load(saved, into=own).train()
    before = {name: value.clone() for name, value in own.named_parameters()}
    own(*CASES["ResNeXtBlock"].batch(4, torch.float32)).square().sum().backward()
    optimiser.step()
    assert all(not torch.equal(value, before[name]) for name, value in own.named_parameters())


def test_an_instance_of_another_type_takes_the_saved_one(tmp_path):
    network, x = pruned("SqueezeExcite", torch.float64), CASES["SqueezeExcite"].batch(3, torch.float64)
    bp.save(network, tmp_path, x)
    own = bp.load(tmp_path, into=dense("SqueezeExcite", torch.float32))
    assert {p.dtype for p in own.parameters()} == {torch.float64}
    assert torch.equal(own(*x), network(*x))


def test_sizes_without_parameters_follow(tmp_path):
    """A norm without parameters notes its size in nothing but an attribute."""

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
            self.norm = nn.LayerNorm(8, elementwise_affine=False)

        def forward(self, x):
            return self.head(self.norm(self.first(x)).relu())

    analysis = bp.analyse(Bare(), torch.randn(2, 4))
    small, x = analysis.cut({"first": torch.arange(8) > 2}).eval(), torch.randn(5, 4)
    assert type(small) is Bare and small.norm.normalized_shape == (5,)
    bp.save(small, tmp_path, x)
    own = bp.load(tmp_path, into=Bare())
    assert own.norm.normalized_shape == (5,) and torch.equal(own(x), small(x))
    assert torch.equal(bp.load(tmp_path)(x), small(x))


def test_a_sequence_of_layers_can_be_held_by_a_class_of_its_names(tmp_path):
    class Own(nn.Sequential):
        def __init__(self, width):
            super().__init__(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    small, x = nn.Sequential(*Own(5)).eval(), torch.randn(3, 4)
    bp.save(small, tmp_path, x)
    own = bp.load(tmp_path, into=Own(50))
    assert type(own) is Own and torch.equal(own(x), small(x))
    assert (own[0].out_features, own[2].in_features) == (5, 5)


def test_literal_sizes_are_named_with_their_line(tmp_path):
    network = Heads()
    analysis = bp.analyse(network, torch.randn(2, 5, 4))
    heads = next(group for group in analysis.groups if group.size == 3)
    small = analysis.cut({heads.name: torch.tensor([True, False, True])}).eval()
    bp.save(small, tmp_path, torch.randn(2, 5, 4))
    with pytest.raises(UnsupportedNetworkError) as caught:
        bp.load(tmp_path, into=Heads())
    message = str(caught.value)
    assert f"{tmp_path}: Heads cannot hold the sizes" in message
    assert "small.py, line" in message and "shape" in message
    assert "load without into=" in message


def test_sizes_that_silently_change_the_outputs_are_noticed(tmp_path):
    class Divided(nn.Module):
        """Divides by a width that it wrote down."""

        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.first(x).relu() / self.head.in_features)

    analysis = bp.analyse(Divided(), torch.randn(2, 4))
    small = analysis.cut({"first": torch.arange(8) > 2}).eval()
    bp.save(small, tmp_path, torch.randn(2, 4))
    with pytest.raises(UnsupportedNetworkError, match="Divided computes something else"):
        bp.load(tmp_path, into=Divided())


class Sections(nn.Module):
    """A residual network whose branch can go as a whole."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.branch(x).tanh())


def test_a_section_that_was_removed_is_gone_from_the_instance(tmp_path):
    analysis, x = bp.analyse(Sections(), torch.randn(2, 4)), torch.randn(5, 4)
    small = analysis.cut({"layers": torch.tensor([False])}).eval()
    bp.save(small, tmp_path, x)
    assert torch.equal(bp.load(tmp_path)(x), small(x))
    own = bp.load(tmp_path, into=Sections())
    assert type(small) is type(own) is Sections and torch.equal(own(x), small(x))
    assert not any(name.startswith("branch") for name in own.state_dict())


def test_another_class_is_refused_with_what_differs(saved):
    own = dense("SqueezeExcite")
    before = {name: value.clone() for name, value in own.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        bp.load(saved, into=own)
    assert "was not saved from a SqueezeExcite like this one: it has no '" in str(caught.value)
    assert "the saved one has no '" in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())


@pytest.mark.parametrize("size", ["many", -1.5, None, True, [1, "two"], {"a": 1}])
def test_sizes_that_are_none_are_refused(saved, size):
    path = saved / "architecture.json"
    description = json.loads(path.read_text())
    name = next(iter(description["sizes"]))
    description["sizes"][name] = {attribute: size for attribute in description["sizes"][name]}
    path.write_text(json.dumps(description))
    seal(saved)
    with pytest.raises(CheckpointError, match="which is no size"):
        bp.load(saved, into=dense("ResNeXtBlock"))


def test_attributes_that_are_no_sizes_are_never_set(saved):
    path = saved / "architecture.json"
    description = json.loads(path.read_text())
    for values in description["sizes"].values():
        values |= {"forward": 1, "training": 1, "__class__": 1}
    description["sizes"]["nowhere"] = {"in_features": 1}
    path.write_text(json.dumps(description))
    seal(saved)
    own = bp.load(saved, into=dense("ResNeXtBlock"))
    assert not any("forward" in vars(layer) for layer in own.modules())
