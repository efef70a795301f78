"""PyTorch's encoder, which looks into its modules, with graphs and stand-ins in their places."""

from __future__ import annotations

import copy
import functools
import io

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure.plain import PlainGraph, graphs_inside

WIDTH = 12


class Encoder(nn.Module):
    """Two of PyTorch's layers, with dropout and, where told, padded positions."""

    def __init__(self, norm_first, nested):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 16, 0.2, batch_first=True, norm_first=norm_first)
        self.stem, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 4)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)

    def forward(self, x, padded=None):
        y = self.encoder(self.stem(x), src_key_padding_mask=padded)
        keep = 1 if padded is None else (~padded).to(y.dtype)[:, :, None]
        return self.head((y * keep).mean(1))


X = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
PADDED = torch.tensor([[False, False, False, True], [False, False, True, True], [False, False, False, False]])


def build(norm_first, nested=False):
    torch.manual_seed(0)
    network = Encoder(norm_first, nested).double()
    with torch.no_grad():
        for parameter in network.parameters():  # biases of an attention are zeros at first
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@functools.cache
def analysed(norm_first, nested=False, padded=False):
    return bp.analyse(build(norm_first, nested), {"x": X, "padded": PADDED} if padded else X)


def cut(analysis, example, **keep):
    """The smaller network, and what it ought to compute in evaluation."""
    alive = {group.name: torch.ones(group.size, dtype=torch.bool) for group in analysis.groups}
    for name, positions in keep.items():
        alive[name][list(positions)] = False
    gates = {name: mask.double() for name, mask in alive.items()}
    with torch.no_grad():
        masked = analysis.gated.eval()(**named(example), gates=gates)
    return analysis.cut(alive).eval(), masked


def named(example):
    return example if isinstance(example, dict) else {"x": example}


def assert_own(small, example, masked):
    """Of its own class, exact with and without gradients: then PyTorch's layers take another path."""
    assert type(small) is Encoder
    assert (small(**named(example)) - masked).abs().max() < 1e-10
    with torch.no_grad():
        assert (small(**named(example)) - masked).abs().max() < 1e-10


CUTS = {
    "stream": {"stem": [1]},
    "heads": {"encoder_layers_0_self_attn": [1], "encoder_layers_1_self_attn": [0, 3]},
    "feed-forward": {"encoder_layers_0_linear1": [0, 3, 7]},
    "first attention": {"layers": [0], "stem": [1]},
    "first feed-forward": {"layers": [1], "encoder_layers_1_self_attn": [2]},
    "most": {"layers": [0, 3], "stem": [1, 2, 3], "encoder_layers_1_self_attn": [2]},
}


@pytest.mark.parametrize(("norm_first", "what"), [*zip([False, True] * 3, CUTS, strict=True)])
def test_an_encoder_of_pytorch_stays_of_its_class(norm_first, what):
    small, masked = cut(analysed(norm_first), X, **CUTS[what])
    assert_own(small, X, masked)
    assert all(name.endswith("self_attn") for name in graphs_inside(small))
    layers = small.encoder.layers
    assert all(type(layer) is nn.TransformerEncoderLayer for layer in layers)
    file = io.BytesIO()
    torch.save(small, file)
    file.seek(0)
    for again in (copy.deepcopy(small), torch.load(file, weights_only=False)):
        assert_own(again.eval(), X, masked)


@pytest.mark.parametrize("what", ["heads", "most"])
def test_it_is_loaded_into_its_class(what, tmp_path):
    small, masked = cut(analysed(True), X, **CUTS[what])
    bp.save(small, tmp_path, X)
    own = bp.load(tmp_path, into=Encoder(True, False))
    assert_own(own, X, masked)
    with torch.no_grad():
        assert torch.equal(own(X), small(X))
    assert graphs_inside(own) == graphs_inside(small) and list(own.state_dict()) == list(small.state_dict())


@pytest.mark.parametrize("what", ["stream"])
def test_padded_positions_are_followed(what):
    """What leaves them away would hand parts of other shapes to the graphs."""
    small, masked = cut(analysed(False, True, True), {"x": X, "padded": PADDED}, **CUTS[what])
    assert_own(small, {"x": X, "padded": PADDED}, masked)
    assert not small.encoder.use_nested_tensor


def test_what_is_whole_keeps_its_shortcuts():
    small, masked = cut(analysed(False), X, encoder_layers_0_linear1=[0, 3])
    assert_own(small, X, masked)
    assert all(layer.activation_relu_or_gelu == 1 for layer in small.encoder.layers)


def test_a_graph_notes_what_is_no_size():
    small, _ = cut(analysed(False), X, stem=[1])
    attention = small.encoder.layers[0].self_attn
    assert type(attention) is PlainGraph and attention.batch_first is True
    assert not hasattr(attention, "num_heads") and not hasattr(attention, "embed_dim")
